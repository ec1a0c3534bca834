"""overlay-diskfile(8): for a value in a configuration: a path in a disk image, which is mounted for it."""
from .. import environment, files, paths
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    options = parsed(arguments)
    require_root()
    from .. import diskfile
    if options.create:
        size, path = options.create
        diskfile.create(path, size, options.fs or "ext4")
        return
    action = environment.variable("ACTION")
    if options.diskfile and action in diskfile.ACTIONS:
        image = paths.absolute(options.diskfile)
        diskfile.mount_for(options.path, image, options.index, action, read_only=options.read_only)
    files.write_all(1, options.path + "\n")


def parser() -> "argparse.ArgumentParser":
    parser = new_parser(
        "overlay-diskfile",
        "Print MOUNT/PATH and, in a boot, mount a disk image on MOUNT. With --create, create a disk image.")
    parser.add_argument("--read-only", action="store_true", help="mount the image read-only")
    parser.add_argument("--create", nargs=2, type=given, metavar=("SIZE", "FILE"),
                        help="create FILE with a file system that contains the directories root and work")
    parser.add_argument("--fs", choices=["ext4", "xfs", "btrfs"], help="the file system to create; default: ext4")
    parser.add_argument("path", metavar="MOUNT/PATH", nargs="?", type=given,
                        help="a path below the mount point of the image")
    parser.add_argument("diskfile", metavar="DISKFILE", nargs="?", type=given, help="the disk image")
    parser.add_argument("index", metavar="INDEX", nargs="?", type=given, help="the number of a partition in the image")
    return parser


def parsed(arguments: list[str]) -> "argparse.Namespace":
    """Return the options, which fit together."""
    made = parser()
    options = made.parse_args(arguments)
    if options.create and (options.path or options.read_only):
        made.error("--create takes SIZE and FILE, but neither MOUNT/PATH nor --read-only")
    if options.fs and not options.create:
        made.error("--fs requires --create")
    if not options.create and not options.path:
        made.error("give either MOUNT/PATH or --create")
    return options


def main() -> int:
    return run(command)
