"""The terminal that a command prints to, if it does."""
import posix

from .environment import variable

UNKNOWN_WIDTH = 80
ERASE = "\r\x1b[K"          # the line that the cursor is in: ECMA-48


def width(fd: int) -> int | None:
    """Return the columns of the terminal that is open as fd; None if it is no terminal."""
    try:
        return posix.get_terminal_size(fd).columns or UNKNOWN_WIDTH
    except OSError:
        return None


def takes_escapes() -> bool:
    """Tell whether a terminal is said to know more than plain text."""
    return variable("TERM") not in (None, "dumb")


def has_colours() -> bool:
    """Tell whether a terminal is to show colours: https://no-color.org."""
    return takes_escapes() and variable("NO_COLOR") is None
