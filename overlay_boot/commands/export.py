"""overlay-export(8): write an OCI image of a subhost."""
from .. import files, paths
from ..running import NotRunning
from ..subhosts import identified
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

COMPRESSIONS = ("gzip", "zstd", "none")


def command(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    require_root()
    from .. import export, progress
    name, config = identified(options.conf, "overlay-check")
    if not config:
        raise NotRunning(name)
    wish = export.Wish(options.base or "", options.compress, paths.words(options.entrypoint or ""),
                       secrets=options.secrets)
    try:
        said = export.export(name, config, options.dest, options.tag or "", wish, kube=options.kube)
    finally:
        progress.end()
    files.write_all(1, said)


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-export", "Write a subhost as an OCI image, for container engines.")
    parser.add_argument("--base", metavar="IMAGE", type=given,
                        help="lay the subhost over this image, PATH[:TAG], instead of its LOWER")
    parser.add_argument("--compress", choices=COMPRESSIONS, default=COMPRESSIONS[0],
                        help="how layers are compressed; default: gzip")
    parser.add_argument("--entrypoint", metavar="COMMAND", type=given,
                        help="what the image runs, instead of the services of START")
    parser.add_argument("--kube", action="store_true", help="print a Pod for Kubernetes that runs the image")
    parser.add_argument("--secrets", action="store_true", help="do not leave out the secrets of LOWER")
    parser.add_argument("conf", metavar="CONF|NAME", type=given,
                        help="the configuration file of the subhost, or its name if it is running")
    parser.add_argument("dest", metavar="DEST", type=given,
                        help="the directory of an OCI image layout, or an archive if it ends with .tar")
    parser.add_argument("tag", metavar="TAG", type=given, nargs="?",
                        help="the name of the image; default: NAME:latest")
    return parser


def main() -> int:
    return run(command)
