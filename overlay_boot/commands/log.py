"""overlay-log(8): show the log of a subhost."""
import _signal

from ..errors import complain
from ..log_view import opened, show, with_journal
from . import given, is_plain, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

FOLLOWED = 10           # lines that are shown of what was there, where it is followed


def command(arguments: list[str]) -> None:
    lines, follow = None, False
    word = arguments[0] if is_plain(arguments) else ""
    if not word:
        options = parser().parse_args(arguments)
        word, lines, follow = options.name, options.lines, options.follow
    require_root()
    with opened(word) as source:
        if follow:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)     # the way to end it, and no failure to be told of
            lines = FOLLOWED if lines is None else lines
            tell_of_journal(word)
        show(source, lines, follow=follow)
    if not follow:
        tell_of_journal(word)


def tell_of_journal(word: str) -> None:
    name = with_journal(word)
    if name:
        complain(f"what units of {name} print is in its journal: overlay-go {name} journalctl")


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-log", "Show the log of a subhost, given by its configuration file or its name.")
    parser.add_argument("-f", "--follow", action="store_true",
                        help="go on with what is added, until interrupted")
    parser.add_argument("-n", "--lines", metavar="LINES", type=number,
                        help=f"only the last LINES lines; default: all, with --follow {FOLLOWED}")
    parser.add_argument("name", metavar="CONF|NAME", type=given,
                        help="the configuration file from which it was booted, or its name")
    return parser


def number(text: str) -> int:
    """The type of LINES."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        import argparse
        raise argparse.ArgumentTypeError(f"not a number of lines: {text}")
    return int(text)


def main() -> int:
    return run(command)
