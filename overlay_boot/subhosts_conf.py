"""/etc/subhosts.conf: the list of the subhosts that start with the machine."""
from itertools import pairwise

from . import paths

LIST = "/etc/subhosts.conf"


def listed() -> list[str]:
    """Return the configuration files in the list, as it names them; none if there is no list.

    White space ends a path only if a slash follows: a path may have blanks.
    """
    try:
        with open(LIST, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return []
    return [path for line in lines if "#" not in line for path in in_line(line)]


def in_line(line: str) -> list[str]:
    """Return the paths in a line."""
    ends = [at for at, letter in enumerate(line) if letter in paths.WHITE_SPACE and line[at + 1:at + 2] == "/"]
    pieces = (line[begin:end].strip(paths.WHITE_SPACE) for begin, end in pairwise([0, *ends, len(line)]))
    return [path for path in pieces if path]


def real(path: str) -> str:
    """Return a path as the record of a running subhost has it, without symbolic links; as it is if it leads nowhere."""
    try:
        return paths.real(path)
    except (OSError, ValueError):
        return path
