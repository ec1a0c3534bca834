"""overlay-stop(8): stop a subhost, or all."""
from ..config import Config
from ..errors import DONE, FAILED
from ..stop import stop
from . import parse_one_or_all, require_root, run


def command(arguments):
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        require_root()
        return stop(Config(arguments[0], "overlay-stop"))
    options = parse_one_or_all(parser(), arguments)
    require_root()
    if options.all:
        from ..side_by_side import stop_all
        return DONE if stop_all() else FAILED
    return stop(Config(options.conf, "overlay-stop"))


def parser():
    import argparse

    from .. import __version__
    parser = argparse.ArgumentParser(
        prog="overlay-stop", description="Stop the subhost that was booted from a configuration file.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--all", action="store_true",
                        help="stop all running subhosts, several at a time, the last one booted first")
    parser.add_argument("conf", metavar="CONF", nargs="?", help="the configuration file from which it was booted")
    return parser


def main():
    return run(command)
