"""overlay-stop(8): stop a subhost, or all."""
from ..config import Config
from ..errors import DONE, FAILED
from ..stop import stop
from . import new_parser, parse_one_or_all, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> int:
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        require_root()
        stop(Config(arguments[0], "overlay-stop"))
        return DONE
    options = parse_one_or_all(parser(), arguments)
    require_root()
    if options.all:
        from ..side_by_side import stop_all
        return DONE if stop_all() else FAILED
    stop(Config(options.conf, "overlay-stop"))
    return DONE


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-stop", "Stop the subhost that was booted from a configuration file.")
    parser.add_argument("--all", action="store_true",
                        help="stop all running subhosts, several at a time, the last one booted first")
    parser.add_argument("conf", metavar="CONF", nargs="?", help="the configuration file from which it was booted")
    return parser


def main() -> int:
    return run(command)
