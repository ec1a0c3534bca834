"""Alternatives: what a subhost has of its own of the records of update-alternatives(1).

A record has the mode, the link, two lines for each link beside it and an empty line; then, for each choice, the path,
the priority and a path for each link beside it; and an empty line.
"""
from ..dpkg import RECORDS
from .upper import Upper

DIRECTORY, LINKS = f"{RECORDS}/alternatives", "etc/alternatives"


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
