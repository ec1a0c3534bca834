"""overlay-share(8): share a directory or a file of the host with a running subhost."""
import posix

from .. import files, shares
from ..config import READ_ONLY, share_of
from ..errors import Failure
from ..running import boots
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    options = parsed(arguments)
    require_root()
    posix.umask(0o022)          # for what is made in the subhost to mount on
    if options.name is None:
        for _, name in boots():
            files.write_all(1, f"{name}\n")
        return
    outside, inside, others = share_of(options.path)
    if "\n" in outside + inside:
        raise Failure("cannot share a path with a line feed in it")
    subhost = shares.find(options.name)
    if options.undo:
        shares.undo(subhost, (outside, inside, others))
    else:
        shares.share(subhost, (outside, inside, (*others, *([READ_ONLY] if options.read_only else []))))


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-share", "Share a directory or a file of the host with a running subhost.")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--read-only", action="store_true", help="make the share read-only in the subhost")
    kind.add_argument("--undo", action="store_true", help="unmount what was shared under the same PATH")
    parser.add_argument("path", metavar="PATH", type=given,
                        help="the path, or OUTSIDE:INSIDE if it is another one in the subhost; with :OPTIONS, such as "
                             ":rbind, behind it")
    parser.add_argument("name", metavar="NAME", nargs="?", type=given,
                        help="the subhost; if omitted, list the running subhosts")
    return parser


def parsed(arguments: list[str]) -> "argparse.Namespace":
    """Return the options, which fit together."""
    made = parser()
    options = made.parse_args(arguments)
    for option in ("undo", "read_only"):
        if getattr(options, option) and not options.name:
            made.error(f"--{option.replace('_', '-')} requires NAME")
    return options


def main() -> int:
    return run(command)
