"""Accounts that packages of the host have made: they are the subhost's, too, with the same numbers.

Files of packages belong to them, by number.  What people have made, on the host or in the subhost, stays where it is.
Debian Policy 9.2.2 says which numbers are packages'.
"""

from .. import passwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    Rows = dict[str, list[str]]         # {name: the fields of a line}

WIDTHS = {"passwd": 7, "group": 4, "shadow": 9, "gshadow": 4}
SECRETS = {"passwd": "shadow", "group": "gshadow"}      # the files beside them
LOCKED = ("*", "!", "!*", "!!")


class Accounts:
    """The rows of passwd(5) or group(5) in a subhost, and what the host has that it has not."""

    __slots__ = ("added", "conflicts", "kind", "own")

    def __init__(self, kind: str, host: list[str], own: list[str], base: list[str] | None) -> None:
        """The lines of the file in the host and in the subhost; base are those that the host had before, if known."""
        self.kind = kind
        self.own = rows(own, kind)
        before = rows(base or [], kind)
        numbers = {row[2] for row in self.own.values()}
        self.added: Rows = {}
        self.conflicts: list[str] = []
        for name, row in rows(host, kind).items():
            if name in self.own:
                if is_of_packages(row) and self.own[name][2] != row[2]:
                    self.conflicts.append(f"{name} of {kind}(5) has the number {self.own[name][2]} in the subhost, and "
                                          f"{row[2]} on the host")
            elif is_of_packages(row) and name not in before:
                if row[2] in numbers:
                    self.conflicts.append(f"{name} of {kind}(5) has a number on the host that is another one's in the "
                                          f"subhost: {row[2]}")
                else:
                    self.added[name] = row

    def lines(self) -> list[str]:
        """Return the lines to be added to the file."""
        return [":".join(row) for row in self.added.values()]

    def secret_lines(self, host: list[str], own: list[str]) -> list[str]:
        """Return the lines to be added to the file beside it.  No password gets in."""
        kind = SECRETS[self.kind]
        there = rows(own, kind)
        found = [row for name, row in rows(host, kind).items() if name in self.added and name not in there]
        return [":".join([row[0], row[1] if row[1] in LOCKED else "!", *row[2:]]) for row in found]


def rows(lines: list[str], kind: str) -> "Rows":
    """Return the rows that are well-formed, by their names."""
    split = (line.split(":") for line in lines)
    return {row[0]: row for row in split if len(row) == WIDTHS[kind] and row[0] and (
        kind not in SECRETS or passwd.is_id(row[2]))}


def is_of_packages(row: list[str]) -> bool:
    """Tell whether an account is the distribution's or a package's, by its number."""
    return int(row[2]) < 1000 or 60000 <= int(row[2]) < 65000
