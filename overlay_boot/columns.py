"""Text in columns, as overlay-ls and overlay-layers print it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def columns(titles: "Sequence[str]", rows: "Iterable[Sequence[str]]") -> str:
    """Return lines of text: the titles in capitals, and the rows below them.  A row has a cell for each title."""
    lines = [[title.upper() for title in titles], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "".join("  ".join(cells).rstrip() + "\n" for cells in padded)
