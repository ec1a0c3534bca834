"""Debconf's answers and apt-mark(8)'s marks that the host has for packages which came from it.

They are stanzas in files of debconf's and apt's.  Where the subhost has files of its own, it gets what it has not got;
what it has answered or marked itself stays, but for marks of packages that are gone.
"""
from ..dpkg import Stanza, stanzas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Set

# Of debconf, passwords.dat is left out.
ANSWERS, TEMPLATES = "var/cache/debconf/config.dat", "var/cache/debconf/templates.dat"
MARKS = "var/lib/apt/extended_states"
# What no two stanzas have the same of.
NAMES = {ANSWERS: ("Name",), TEMPLATES: ("Name",), MARKS: ("Package", "Architecture")}


def missing(path: str, own: str, host: str, is_wanted: "Callable[[Stanza], bool]") -> list[Stanza]:
    """Return the wanted stanzas of a file that the host has, and the subhost, of the texts of theirs, has not."""
    names = NAMES[path]
    there = {tuple(map(one.value, names)) for one in stanzas(own, names[0])}
    return [one for one in stanzas(host, names[0]) if tuple(map(one.value, names)) not in there and is_wanted(one)]


def owners(question: Stanza) -> set[str]:
    """Return the packages that ask a question."""
    return {word.strip() for word in question.value("Owners").split(",")}


def is_marked_in(packages: "Set[tuple[str, str]]", mark: Stanza) -> bool:
    """Tell whether a mark is that of one of the packages, by name and architecture: apt has no "all" there."""
    return any((mark.name, architecture) in packages for architecture in (mark.architecture, "all"))
