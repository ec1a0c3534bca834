"""overlay-diskfile(8): for a value in a configuration: a path in a disk image, which is mounted for it."""
import posix

from .. import environment, files, paths
from . import require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


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
        image = paths.join(posix.getcwd(), options.diskfile)
        diskfile.mount_for(options.path, image, options.index, action, read_only=options.read_only)
    files.write_all(1, options.path + "\n")


def parser() -> "ArgumentParser":
    import argparse

    from .. import __version__
    parser = argparse.ArgumentParser(
        prog="overlay-diskfile",
        description="Print MOUNT/PATH, and for a boot mount a disk image on MOUNT. With --create, make a disk image.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--read-only", action="store_true", help="mount it read-only")
    parser.add_argument("--create", nargs=2, metavar=("SIZE", "FILE"),
                        help="make FILE with a file system, and in that the directories root and work")
    parser.add_argument("--fs", choices=["ext4", "xfs", "btrfs"], help="the type of the new file system; default: ext4")
    parser.add_argument("path", metavar="MOUNT/PATH", nargs="?", help="a path in the image, as it will be mounted")
    parser.add_argument("diskfile", metavar="DISKFILE", nargs="?", help="the image")
    parser.add_argument("index", metavar="INDEX", nargs="?", help="the number of a partition of the image")
    return parser


def parsed(arguments: list[str]) -> "Namespace":
    made = parser()
    options = made.parse_args(arguments)
    if options.create and (options.path or options.read_only):
        made.error("--create takes SIZE and FILE, and no MOUNT/PATH or --read-only")
    if options.fs and not options.create:
        made.error("--fs is for --create")
    if not options.create and not options.path:
        made.error("MOUNT/PATH is missing")
    return options


def main() -> int:
    return run(command)
