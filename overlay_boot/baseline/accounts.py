"""The accounts of a system without the people: those that the distribution and its packages made.

Debian Policy 9.2.2 says who gives out which numbers: UID_MIN to UID_MAX of login.defs(5) are for people, all others
for the system.  base-passwd has the master copy of those that every system has.
"""
import os
from typing import TYPE_CHECKING

from .layer import Layer
from .root import Root

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterable
    Row = list[str]                 # the fields of a line of passwd(5) or group(5)
    Owner = tuple[int, int]         # user and group, by their numbers

MASTERS = "/usr/share/base-passwd"
DEFAULT = {"UID_MIN": 1000, "UID_MAX": 60000, "GID_MIN": 1000, "GID_MAX": 60000}     # shadow's own


class Accounts:
    """Users and groups as rows of passwd(5) and group(5); no password is in any."""

    def __init__(self, root: Root) -> None:
        limits = limits_for_people(root)
        self.users = kept(root, "passwd", 7, limits["UID_MIN"], limits["UID_MAX"])
        self.groups = kept(root, "group", 4, limits["GID_MIN"], limits["GID_MAX"])
        names = {row[0] for row in self.users}
        for row in self.groups:
            row[3] = ",".join(name for name in row[3].split(",") if name in names)
        self.uids, self.gids = ({int(row[2]) for row in rows} for rows in (self.users, self.groups))

    def owner(self, info: os.stat_result) -> "Owner":
        """Return whom a file of the system belongs to in the layer, by what stat(2) says; people's files are root's."""
        return (info.st_uid if info.st_uid in self.uids else 0, info.st_gid if info.st_gid in self.gids else 0)

    def named(self, member: "tarfile.TarInfo") -> "Owner":
        """Return whom a member of a package's archive belongs to, by the names in it."""
        return number_of(self.users, member.uname), number_of(self.groups, member.gname)

    def write(self, layer: Layer) -> None:
        """Write passwd(5) and group(5), and shadow(5) and gshadow(5) with nothing but locked passwords in them."""
        shadow = number_of(self.groups, "shadow")
        layer.make_file("/etc/passwd", encoded([row[0], "x", *row[2:]] for row in self.users))
        layer.make_file("/etc/group", encoded([row[0], "x", *row[2:]] for row in self.groups))
        locked = encoded([row[0], "*", "", "0", "99999", "7", "", "", ""] for row in self.users)
        layer.make_file("/etc/shadow", locked, 0o640, (0, shadow))
        layer.make_file("/etc/gshadow", encoded([row[0], "*", "", row[3]] for row in self.groups), 0o640, (0, shadow))
        for name in ("subuid", "subgid"):
            layer.make_file(f"/etc/{name}", b"")


def number_of(rows: "list[Row]", name: str) -> int:
    """Return the number of an account; root's, if there is none of that name."""
    return next((int(row[2]) for row in rows if row[0] == name), 0)


def limits_for_people(root: Root) -> dict[str, int]:
    """Return the numbers that login.defs(5) gives to people: the first and the last one."""
    found = dict(DEFAULT)
    for line in root.lines("/etc/login.defs"):
        words = line.split()
        if len(words) == 2 and words[0] in found and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def kept(root: Root, name: str, width: int, first: int, last: int) -> "list[Row]":
    """Return the rows of a file that are the system's: as in the master copy, else as they are in /etc.

    first to last are the numbers of people.
    """
    present = {row[0]: row for row in rows_of(root, f"/etc/{name}", width)}
    master = {row[0]: row for row in rows_of(root, f"{MASTERS}/{name}.master", width)}
    if name == "group":     # maintainer scripts make packages' users members of the distribution's groups
        for row in master.values():
            row[3] = present.get(row[0], row)[3]
    return [*master.values(), *(row for row in present.values() if row[0] not in master and row[2] != "0"
                                and not first <= int(row[2]) <= last)]


def rows_of(root: Root, path: str, width: int) -> "list[Row]":
    """Return the fields of each line that is well-formed, in order."""
    found = [line.split(":") for line in root.lines(path)]
    return [row for row in found if len(row) == width and row[0] and row[2].isdigit()]


def encoded(rows: "Iterable[Row]") -> bytes:
    return os.fsencode("".join(":".join(row) + "\n" for row in rows))
