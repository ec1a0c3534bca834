"""Versions of packages: deb-version(7).

dpkg(1) --compare-versions takes a process for each pair, of which a merge may have hundreds.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    Number = tuple[int, str]        # digits, without zeroes before them, and how many of them
    Part = list[tuple[list[int], Number]]
    Key = tuple[Part, Part, Part]

LONGEST = 256       # what is compared of a version: none is longer, as it is a part of the name of a file


def is_newer(one: str, other: str) -> bool:
    """Tell whether one version is later than the other."""
    return key(one) > key(other)


def key(version: str) -> "Key":
    """Return what orders versions."""
    epoch, colon, rest = version[:LONGEST].partition(":")
    if not colon:
        epoch, rest = "0", version[:LONGEST]
    upstream, dash, revision = rest.rpartition("-")
    return parts(epoch), parts(upstream if dash else rest), parts(revision if dash else "0")


def parts(text: str) -> "Part":
    """Return what is compared of a part of a version: in turns what is no digit, letter by letter, and numbers."""
    found = []
    while text:
        at = next((number for number, letter in enumerate(text) if is_digit(letter)), len(text))
        word, text = text[:at], text[at:]
        at = next((number for number, letter in enumerate(text) if not is_digit(letter)), len(text))
        digits, text = text[:at].lstrip("0"), text[at:]
        found.append(([*map(order, word), END], (len(digits), digits)))
    return [*found, ([END], (0, ""))]


END = 0                 # of a word: what is longer comes after it, but for a tilde


def order(letter: str) -> int:
    """Return where a letter stands: a tilde before the end, then letters, then all others."""
    if letter == "~":
        return -1
    return ord(letter) + (0 if letter.isalpha() else 256)


def is_digit(letter: str) -> bool:
    return "0" <= letter <= "9"
