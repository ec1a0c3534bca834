"""overlay-go(8): enter a running subhost."""
import _signal

from .. import files
from ..entry import enter, find
from ..errors import complain
from ..state import MOMENT
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

KILLED: int = 128 + _signal.SIGKILL         # as everything is with PID 1


def command(arguments: list[str]) -> int | None:
    user = None
    if arguments and arguments[0][:1] in ("", "-"):
        made = parser()
        options = made.parse_args(arguments)
        if options.user and not options.name:
            made.error("--user requires NAME")
        user, arguments = options.user, [options.name, *options.command] if options.name else []
    require_root()
    if not arguments:
        from ..subhosts import boots
        for _, name in boots():
            files.write_all(1, f"{name}\n")
        return None
    name, *words = arguments
    subhost = find(name)
    status = enter(subhost, words, user)
    if status and subhost.is_ending(MOMENT if status == KILLED else 0):
        complain(f"{name} was stopped, or has ended")
    return status


def parser() -> "argparse.ArgumentParser":
    import argparse
    parser = new_parser("overlay-go", "Enter a running subhost: run a command or a shell in it.")
    parser.add_argument("-u", "--user", metavar="USER", type=given,
                        help="run it as this user of the subhost; default: root")
    parser.add_argument("name", metavar="NAME", nargs="?", type=given,
                        help="the subhost; if omitted, list the running subhosts")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER,
                        help="the command to run instead of a shell")
    return parser


def main() -> int:
    return run(command)
