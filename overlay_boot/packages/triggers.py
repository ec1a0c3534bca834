"""dpkg's triggers, deb-triggers(5): who is interested in what."""
from ..dpkg import RECORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORY = f"{RECORDS}/triggers"
FILES = f"{DIRECTORY}/File"         # a line for each path and package
UNINCORPORATED = f"{DIRECTORY}/Unincorp"    # what was activated, and is not yet in the status file
ACTIVATE = ("activate", "activate-await", "activate-noawait")
NO_AWAIT = "/noawait"               # behind a package


def merged_lines(host: list[str], own: list[str], kept: set[str]) -> list[str]:
    """Return the lines that the host has, and those of the subhost that are of packages which it has for itself."""
    there = {*host}
    return [*host, *(line for line in own if line not in there and package_of(line) in kept)]


def package_of(line: str) -> str:
    return line.rpartition(" ")[2].removesuffix(NO_AWAIT)


def by_files(lines: list[str], changed: "Iterable[str]") -> dict[str, set[str]]:
    """Return {package: paths that it is interested in} for files that have changed, of the lines of FILES."""
    above = {prefix for path in changed for prefix in prefixes(path)}
    found: dict[str, set[str]] = {}
    for line in lines:
        path, _, _ = line.partition(" ")
        if path in above:
            found.setdefault(package_of(line), set()).add(path)
    return found


def prefixes(path: str) -> "Iterable[str]":
    """Yield a path and the directories above it."""
    while path not in ("", "/"):
        yield path
        path = path.rpartition("/")[0]


def activated(lines: list[str]) -> set[str]:
    """Return the names that a package activates whenever it changes, of the lines of its record."""
    words = (line.split() for line in lines)
    return {word[1] for word in words if len(word) == 2 and word[0] in ACTIVATE}
