"""overlay-baseline(8): make a layer that shows the system as its packages shipped it."""
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

INCOMPLETE = 3


def command(arguments: list[str]) -> int | None:
    options = parser().parse_args(arguments)
    require_root()
    import os

    from .. import paths, progress
    from ..baseline import make
    root = os.path.realpath(paths.absolute(options.root)).rstrip("/")
    try:
        return None if make(options.dir, root, offline=options.offline) else INCOMPLETE
    finally:
        progress.end()


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-baseline", "Make or replace a layer that shows the system as its packages shipped it.")
    parser.add_argument("--offline", action="store_true", help="fetch no packages: use only what is on this machine")
    parser.add_argument("--root", metavar="ROOT", type=given, default="/",
                        help="the root directory of the system; default: /")
    parser.add_argument("dir", metavar="DIR", type=given, help="the directory of the layer")
    return parser


def main() -> int:
    return run(command)
