"""Text in columns on standard output, as overlay-ls and overlay-layers print it."""
from . import paths, terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    Colours = Mapping[str, Mapping[str, int]]       # {title: {cell: one of these}}

RED, GREEN, YELLOW, CYAN = 31, 32, 33, 36           # ECMA-48, SGR
GAP = "  "
SHORTENED = 2               # the last columns, which can be long, are shortened to fit
ELLIPSIS = "…" if paths.ENCODING == "utf-8" else "..."


def columns(titles: "Sequence[str]", rows: "Iterable[Sequence[str]]", colours: "Colours | None" = None) -> str:
    """Return lines of text: the titles in capitals, and the rows below them.  A row has a cell for each title.

    For a terminal, what is long is shortened until the lines fit, and there are colours.
    """
    lines = [[title.upper() for title in titles], *([paths.printable(cell) for cell in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    room = terminal.width(1)
    painted: Colours = {}
    if room is not None:
        fit(widths, [len(title) for title in titles], room)
        painted = colours or {} if terminal.has_colours() else {}
    return "".join(GAP.join(map(shown, line, widths, map(painted.get, titles))).rstrip() + "\n" for line in lines)


def fit(widths: list[int], least: list[int], room: int) -> None:
    """Make the widest of the long columns narrower until the lines fit, or each has no more than its title needs."""
    while sum(widths) + len(GAP) * (len(widths) - 1) > room:
        spare = [at for at in range(len(widths) - SHORTENED, len(widths)) if widths[at] > least[at]]
        if not spare:
            return
        widths[max(spare, key=widths.__getitem__)] -= 1


def shown(cell: str, room: int, colours: "Mapping[str, int] | None") -> str:
    """Return a cell as wide as its column, with its colour."""
    text = shortened(cell, room)
    blank = " " * (room - width(text))
    return f"\x1b[{colours[cell]}m{text}\x1b[0m{blank}" if colours and cell in colours else text + blank


def shortened(text: str, room: int) -> str:
    """Return as much of a text as so many columns have room for."""
    if width(text) <= room:
        return text
    while text and width(text) > room - len(ELLIPSIS):
        text = text[:-1]
    return text + ELLIPSIS


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Unicode's annex 11."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width
    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)
