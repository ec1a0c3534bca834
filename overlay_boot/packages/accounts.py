"""Accounts that packages of the host have made: they are the subhost's, too, with the same numbers.

Files of packages belong to them, by number.  What people have made, on the host or in the subhost, stays where it is.
Debian Policy 9.2.2 says which numbers are packages'.
"""

from .. import passwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    Rows = dict[str, list[str]]         # {name: the fields of a line}
    Lines = dict[str, list[str]]        # {file: its lines}

WIDTHS = {"passwd": 7, "group": 4, "shadow": 9, "gshadow": 4}
SECRETS = {"passwd": "shadow", "group": "gshadow"}      # the files beside them
FILES = ("gshadow", "shadow", "group", "passwd")        # as they are written: an account comes last
LOCKED = ("*", "!", "!*", "!!")
NUMBER, GROUP, MEMBERS = 2, 3, 3        # fields


class Accounts:
    """What becomes of the files of accounts in a subhost."""

    __slots__ = ("base", "conflicts", "host", "own", "refused", "rows")

    def __init__(self, host: "Lines", own: "Lines", base: "Lines") -> None:
        """own has the files that UPPER has; base is what the host had before, as far as it is known."""
        self.own = own
        self.base = {kind: rows(lines, kind) for kind, lines in base.items()}
        self.host = {kind: rows(host[kind], kind) for kind in FILES}
        self.rows = {kind: rows(own[kind], kind) if kind in own else {**self.host[kind]} for kind in FILES}
        self.conflicts: list[str] = []
        self.refused: dict[str, set[str]] = {kind: set() for kind in SECRETS}      # names that could not be added
        for name in self.new("group"):
            self.add("group", name, {MEMBERS: ""})
        for name in self.new("passwd"):
            self.add_user(name)
        self.merge_members()

    def new(self, kind: str) -> list[str]:
        """Return the names that packages of the host have made since, and that can be added.  Note the others."""
        numbers = {int(row[NUMBER]) for row in self.rows[kind].values()}
        found = []
        for name, row in self.host[kind].items() if kind in self.own else ():
            if not is_of_packages(row):
                continue
            mine = self.rows[kind].get(name)
            if mine and int(mine[NUMBER]) != int(row[NUMBER]):
                self.conflicts.append(f"{name} of {kind}(5) has the number {mine[NUMBER]} in the subhost, and "
                                      f"{row[NUMBER]} on the host")
            elif not mine and name not in self.base.get(kind, {}):
                if int(row[NUMBER]) in numbers:
                    self.refuse(kind, name, f"has a number on the host that is another one's in the subhost: "
                                            f"{row[NUMBER]}")
                else:
                    found.append(name)
        return found

    def add_user(self, name: str) -> None:
        """Add a user, whose group has the same name as on the host, whatever its number is."""
        number = self.host["passwd"][name][GROUP]
        group = next((one for one, row in self.host["group"].items() if int(row[NUMBER]) == int(number)), "")
        if not group and int(number) not in {int(row[NUMBER]) for row in self.rows["group"].values()}:
            self.add("passwd", name, {})
        elif group in self.rows["group"]:
            self.add("passwd", name, {GROUP: self.rows["group"][group][NUMBER]})
        else:
            self.refuse("passwd", name, f"has a group on the host that it cannot have in the subhost: "
                                        f"{group or number}")

    def refuse(self, kind: str, name: str, why: str) -> None:
        """Do not add an account.  It counts as one that the host has not got yet, until it can be added."""
        self.refused[kind].add(name)
        self.conflicts.append(f"{name} of {kind}(5) {why}")

    def add(self, kind: str, name: str, but: dict[int, str]) -> None:
        """Add a row, with other fields, and the one beside it, without a password."""
        self.rows[kind][name] = [but.get(at, field) for at, field in enumerate(self.host[kind][name])]
        secret = SECRETS[kind]
        row = self.host[secret].get(name)
        if row and secret in self.own and name not in self.rows[secret]:
            row = [row[0], row[1] if row[1] in LOCKED else "!", *row[2:]]
            self.rows[secret][name] = [*row[:2], "", ""] if kind == "group" else row

    def merge_members(self) -> None:
        """Give groups the members that packages on the host have given them since, or take them."""
        if "group" not in self.own:
            return
        before, users = self.base.get("group"), {**self.base.get("passwd", {}), **self.host["passwd"]}
        theirs = {name for name, row in users.items() if is_of_packages(row)}
        there = rows(self.own["group"], "group")
        for name, row in self.host["group"].items():
            if name not in self.rows["group"] or not is_of_packages(row) or before is None and name in there:
                continue
            now, was = members(row), members(before[name]) if before and name in before else []
            given = [one for one in now if one not in was and one in theirs and one in self.rows["passwd"]]
            taken = [one for one in was if one not in now and one in theirs]
            for kind in ("gshadow", "group"):
                mine = self.rows[kind].get(name) if kind in self.own else None
                if mine:
                    has = members(mine)
                    kept = [one for one in has if one not in taken] + [one for one in given if one not in has]
                    if kept != has:
                        self.rows[kind][name] = [*mine[:MEMBERS], ",".join(kept)]

    def to_be_kept(self, kind: str, lines: list[str]) -> list[str]:
        """Return lines of the host's, without what could not be added."""
        return [line for line in lines if line.partition(":")[0] not in self.refused[kind]]

    def number(self, kind: str, name: str) -> int | None:
        """Return the number of a user or group, by name or as #NUMBER; None if there is none."""
        if name[:1] == "#" and passwd.is_id(name[1:]):
            return int(name[1:])
        row = self.rows[kind].get(name)
        return int(row[NUMBER]) if row else None

    def changed(self) -> "Lines":
        """Return the files that are other ones now, in the order of FILES."""
        found = {kind: merged_lines(self.own[kind], self.rows[kind], kind) for kind in FILES if kind in self.own}
        return {kind: lines for kind, lines in found.items() if lines != self.own[kind]}


def merged_lines(lines: list[str], found: "Rows", kind: str) -> list[str]:
    """Return the lines with these rows in them: what is no row, or the same, stays as it is."""
    before = rows(lines, kind)
    changed = {":".join(before[name]): ":".join(row) for name, row in found.items()
               if name in before and before[name] != row}
    return [*(changed.get(line, line) for line in lines),
            *(":".join(row) for name, row in found.items() if name not in before)]


def rows(lines: list[str], kind: str) -> "Rows":
    """Return the rows that are well-formed, by their names; of one name the first, as getpwnam(3) does."""
    found: Rows = {}
    for line in lines:
        row = line.split(":")
        if len(row) == WIDTHS[kind] and row[0] and (kind not in SECRETS or passwd.is_id(row[NUMBER])) and (
                kind != "passwd" or passwd.is_id(row[GROUP])):
            found.setdefault(row[0], row)
    return found


def members(row: list[str]) -> list[str]:
    return [name for name in row[MEMBERS].split(",") if name]


def is_of_packages(row: list[str]) -> bool:
    """Tell whether an account is the distribution's or a package's, by its number."""
    return int(row[NUMBER]) < 1000 or 60000 <= int(row[NUMBER]) < 65000
