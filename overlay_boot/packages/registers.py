"""dpkg's registers: diversions, overrides of owners and modes, and foreign architectures, a few lines for each entry.

A subhost that has one of its own gets what the host has added, and loses what the host has removed, since it followed.
"""
from ..dpkg import DIVERSIONS
from ..followed import ARCHITECTURES, OVERRIDES

TYPE_CHECKING = False
if TYPE_CHECKING:
    Entry = tuple[str, ...]

REGISTERS = {"statoverride": (OVERRIDES, 1), "diversions": (DIVERSIONS, 3), "arch": (ARCHITECTURES, 1)}


class Override:
    """An entry of dpkg-statoverride(1)."""

    __slots__ = ("group", "mode", "path", "user")

    def __init__(self, line: str) -> None:
        """Raises ValueError if it is none."""
        self.user, self.group, mode, path = line.split(" ", 3)
        self.mode = int(mode, 8) & 0o7777
        self.path = path.lstrip("/")


def overrides(lines: list[str]) -> dict[str, Override]:
    """Return {path, without the first /: entry} of the lines of OVERRIDES."""
    found = {}
    for line in lines:
        try:
            one = Override(line)
        except ValueError:
            continue
        found[one.path] = one
    return found


def merged(host: list[str], own: list[str], base: list[str], size: int) -> list[str]:
    """Return the lines of a register, of those of the host, the subhost, and what the host had before.

    Each entry has so many lines.  dpkg refuses two entries for one path: the subhost's counts.
    """
    theirs, mine, before = (entries(lines, size) for lines in (host, own, base))
    there, were = {*theirs}, {*before}
    found = [one for one in mine if one in there or one not in were]
    settled = {*mine, *were}
    subjects = {*map(subject, found)}
    found += [one for one in theirs if one not in settled and subject(one) not in subjects]
    return [line for one in found for line in one]


def entries(lines: list[str], size: int) -> "list[Entry]":
    return [tuple(lines[at:at + size]) for at in range(0, len(lines) - size + 1, size)]


def subject(entry: "Entry") -> str:
    """Return what an entry is about: the path that is diverted, or has an override; an architecture."""
    return entry[0].split(" ", 3)[-1] if len(entry) == 1 else entry[0]
