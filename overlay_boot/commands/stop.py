"""overlay-stop(8): stop a subhost."""
from ..config import Config
from ..stop import stop
from . import require_root, run


def command(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        arguments = [parser().parse_args(arguments).conf]
    require_root()
    stop(Config(arguments[0], "overlay-stop"))


def parser():
    import argparse

    from .. import __version__
    parser = argparse.ArgumentParser(
        prog="overlay-stop", description="Stop the subhost that a configuration file describes.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("conf", metavar="CONF", help="the configuration file that it was booted from")
    return parser


def main():
    return run(command)
