"""The accounts of a system without the people: those that the distribution and its packages made.

Debian Policy 9.2.2 says who gives out which numbers: UID_MIN to UID_MAX of
login.defs(5) are for people, all others for the system.  base-passwd has the
master copy of those that every system has.
"""
import os

from .packages import lines

MASTERS = "usr/share/base-passwd"
DEFAULT = {"UID_MIN": 1000, "UID_MAX": 60000, "GID_MIN": 1000, "GID_MAX": 60000}     # shadow's own


class Accounts:
    """Users and groups as rows of passwd(5) and group(5); no password is in any."""

    def __init__(self, root):
        limits = limits_of(f"{root}/etc/login.defs")
        self.users = kept(root, "passwd", 7, limits["UID_MIN"], limits["UID_MAX"])
        self.groups = kept(root, "group", 4, limits["GID_MIN"], limits["GID_MAX"])
        names = {row[0] for row in self.users}
        for row in self.groups:
            row[3] = ",".join(name for name in row[3].split(",") if name in names)
        self.uids, self.gids = ({int(row[2]) for row in rows} for rows in (self.users, self.groups))

    def owner(self, info):
        """(user, group) of what os.stat() tells of a file; people's files become root's."""
        return (info.st_uid if info.st_uid in self.uids else 0, info.st_gid if info.st_gid in self.gids else 0)

    def named(self, member):
        """(user, group) of a member of an archive, by their names."""
        return number(self.users, member.uname), number(self.groups, member.gname)

    def write(self, tree):
        """passwd(5), group(5), and shadow(5), gshadow(5) with nothing but locked passwords in them."""
        shadow = number(self.groups, "shadow")
        tree.file("/etc/passwd", text([row[0], "x", *row[2:]] for row in self.users))
        tree.file("/etc/group", text([row[0], "x", *row[2:]] for row in self.groups))
        tree.file("/etc/shadow", text([row[0], "*", "", "0", "99999", "7", "", "", ""] for row in self.users),
                  0o640, (0, shadow))
        tree.file("/etc/gshadow", text([row[0], "*", "", row[3]] for row in self.groups), 0o640, (0, shadow))
        for name in ("subuid", "subgid"):
            tree.file(f"/etc/{name}", b"")


def number(rows, name):
    """The number of an account; root's, if there is none of that name."""
    return next((int(row[2]) for row in rows if row[0] == name), 0)


def limits_of(path):
    """The numbers that login.defs(5) gives to people."""
    found = dict(DEFAULT)
    for line in lines(path):
        words = line.split()
        if len(words) == 2 and words[0] in found and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def kept(root, name, width, first, last):
    """The rows of a file that are the system's: as in the master copy, else as they are in /etc."""
    present = {row[0]: row for row in rows(f"{root}/etc/{name}", width)}
    master = {row[0]: row for row in rows(f"{root}/{MASTERS}/{name}.master", width)}
    if name == "group":     # maintainer scripts make packages' users members of the distribution's groups
        for row in master.values():
            row[3] = present.get(row[0], row)[3]
    return [*master.values(), *(row for row in present.values() if row[0] not in master and row[2] != "0"
                                and not first <= int(row[2]) <= last)]


def rows(path, width):
    """The fields of each line that is well-formed, in order."""
    found = [line.split(":") for line in lines(path)]
    return [row for row in found if len(row) == width and row[0] and row[2].isdigit()]


def text(rows):
    return os.fsencode("".join(":".join(row) + "\n" for row in rows))
