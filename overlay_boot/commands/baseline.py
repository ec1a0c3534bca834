"""overlay-baseline(8): make a layer that shows the system as its packages shipped it."""
from . import require_root, run

INCOMPLETE = 3


def command(arguments):
    options = parser().parse_args(arguments)
    require_root()
    from ..baseline import make
    root = options.root.rstrip("/")
    return None if make(options.dir, root, offline=options.offline) else INCOMPLETE


def parser():
    import argparse

    from .. import __version__
    parser = argparse.ArgumentParser(
        prog="overlay-baseline",
        description="Make or replace a layer that shows the system as its packages shipped it.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--offline", action="store_true", help="fetch no packages: use only what is on this machine")
    parser.add_argument("--root", metavar="ROOT", default="/", help="the root directory of the system; default: /")
    parser.add_argument("dir", metavar="DIR", help="the directory of the layer")
    return parser


def main():
    return run(command)
