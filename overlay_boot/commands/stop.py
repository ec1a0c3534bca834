"""overlay-stop(8): stop a subhost, or all."""
from ..errors import DONE, FAILED
from ..stop import stop
from ..subhosts import identified
from . import given, is_plain, new_parser, parse_one_or_all, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> int:
    if is_plain(arguments):
        require_root()
        stop(*identified(arguments[0], "overlay-stop"))
        return DONE
    made = parser()
    options = parse_one_or_all(made, arguments, "CONF", "NAME")
    if options.except_units and not options.all:
        made.error("--except-units requires --all")
    require_root()
    if options.all:
        from ..side_by_side import stop_all
        return DONE if stop_all(except_units=options.except_units) else FAILED
    stop(*identified(options.conf, "overlay-stop"))
    return DONE


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-stop", "Stop a subhost, which is given by its configuration file or its name.")
    parser.add_argument("--all", action="store_true",
                        help="stop all running subhosts, several at a time, the last one booted first")
    parser.add_argument("--except-units", action="store_true",
                        help="with --all: leave alone the subhosts that have a unit of their own")
    parser.add_argument("conf", metavar="CONF|NAME", nargs="?", type=given,
                        help="the configuration file from which it was booted, or its name")
    return parser


def main() -> int:
    return run(command)
