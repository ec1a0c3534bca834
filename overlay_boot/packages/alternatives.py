"""Alternatives: what a subhost has of its own of the records of update-alternatives(1).

A record has the mode, the link, two lines for each link beside it and an empty line; then, for each choice, the path,
the priority and a path for each link beside it; and an empty line.
"""
import posix
from errno import EINVAL

from .. import files, overlayfs
from ..dpkg import RECORDS
from .upper import Upper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..overlayfs import Tree

MANUAL = "manual"           # a mode: an administrator has chosen
SEPARATORS = {" ", "\n"}    # in what is kept
DIRECTORY, LINKS = f"{RECORDS}/alternatives", "etc/alternatives"


def chosen(tree: "Tree") -> dict[str, str]:
    """Return {name: the path that its link leads to} of all alternatives in a tree."""
    found: dict[str, str] = {}
    with tree.find(LINKS) as directory:
        for _, part in directory.parts:
            for name in overlayfs.listed(part):
                if name not in found:
                    found[name] = target_of(name, part)
    return {name: target for name, target in found.items() if target and not SEPARATORS & {*name, *target}}


def target_of(name: str, directory: int) -> str:
    """Return where a symbolic link leads, "" if it is none."""
    try:
        return posix.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno not in (EINVAL, *files.NOWHERE):
            raise
        return ""


def strayed(upper: Upper, before: dict[str, str]) -> dict[str, str]:
    """Return {name: path} of what was chosen in the subhost, and is not any more, as only the host has had the link.

    before is what was chosen on the host.
    """
    found = {}
    for name, _ in [*upper.entries(DIRECTORY)]:
        target = before.get(name)
        if target and not upper.status(f"{LINKS}/{name}") and upper.lower.link(f"{LINKS}/{name}") not in ("", target):
            lines = upper.lines(f"{DIRECTORY}/{name}")
            if lines[:1] == [MANUAL] and target in choices(lines):
                found[name] = target
    return found


def choices(lines: list[str]) -> list[str]:
    """Return the paths of the choices, of the lines of a record."""
    if "" not in lines[2:]:
        return []
    end = lines.index("", 2)
    size = 2 + (end - 2) // 2
    rest = lines[end + 1:]
    return [path for path in rest[:rest.index("") if "" in rest else None:size] if path]


def give_back(upper: Upper, name: str, own: str, host: str) -> None:
    """Remove a record, and the links in LINKS, from UPPER if they are as the host has them."""
    if own != host:
        return
    lines = own.split("\n")
    beside = lines[2:lines.index("", 2) if "" in lines[2:] else None:2]
    links = [f"{LINKS}/{one}" for one in (name, *beside) if one and "/" not in one]
    mine = [one for one in links if upper.status(one)]
    if all(upper.link(one) == upper.lower.link(one) != "" for one in mine):
        for one in (*mine, f"{DIRECTORY}/{name}"):
            upper.unlink(one)
