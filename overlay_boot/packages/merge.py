"""The merge of a subhost's records of packages with those of its host, of which it has been a copy.

The subhost's status file says what the host had when it was made, or was followed last.  dpkg(1) has written files of
its own in INFO for each package that it has unpacked inside, and whiteouts for what it has removed: so it is known who
has moved on, the host or the subhost.
"""
from ..dpkg import NEW_CONFFILE, PRESENT, UNCONFIGURED, WORKING, Database, Stanza, conffiles_text
from .version import is_newer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Set

# What becomes of a package of which the subhost has got another record than the host.
UPGRADED, DOWNGRADED, RETURNED, NEW, REMOVED = "upgraded", "downgraded", "returned", "new", "removed"
AHEAD, HELD, LEFT_OUT, UNFINISHED, OWN = "ahead", "held", "left out", "unfinished", "own"
OF_HOST = (UPGRADED, DOWNGRADED, RETURNED, NEW)     # its files are the host's from now on


class Change:
    """What becomes of a package: its record in the host, that in the subhost, and the one that it will have there."""

    __slots__ = ("host", "kind", "merged", "own", "was_unpacked")

    def __init__(self, kind: str, host: Stanza | None, own: Stanza | None, merged: Stanza | None, *,
                 was_unpacked: bool = False) -> None:
        self.kind = kind
        self.host = host
        self.own = own
        self.merged = merged                # None: it has none
        self.was_unpacked = was_unpacked    # inside, so that UPPER has the files

    @property
    def record(self) -> str:
        return (self.host or self.own or Stanza({})).record

    @property
    def configures(self) -> bool:
        """Whether dpkg has to configure it inside."""
        return self.kind in OF_HOST and self.merged is not None and self.merged.state not in WORKING

    @property
    def is_unconfigured(self) -> bool:
        return self.merged is not None and self.merged.state in UNCONFIGURED

    @property
    def is_change(self) -> bool:
        """Whether anything has to be done."""
        before = self.own.fields if self.own else None
        return (self.merged.fields if self.merged else None) != before or self.kind == RETURNED and self.was_unpacked


class Inside:
    """What UPPER tells of the packages: the records that dpkg has unpacked or removed inside; files that it has."""

    __slots__ = ("has", "hidden", "unpacked")

    def __init__(self, unpacked: "Set[str]", hidden: "Set[str]",
                 has: "Callable[[str, Stanza, Stanza | None], bool]") -> None:
        self.unpacked = unpacked
        self.hidden = hidden
        self.has = has                  # tells whether UPPER keeps a conffile, of its path and the records of both


def merge(host: Database, own: Database, inside: Inside) -> list[Change]:
    """Return what becomes of every package that one of them has a record of, in the order of names."""
    found = []
    seen = set()
    for theirs in host.stanzas.values():
        mine = own.counterpart(theirs)
        if mine:
            seen.add((mine.name, mine.architecture))
        found.append(of_both(theirs, mine, inside))
    found += [of_own(mine, inside) for key, mine in own.stanzas.items() if key not in seen]
    return sorted(found, key=lambda change: change.record)


def of_own(mine: Stanza, inside: Inside, theirs: Stanza | None = None) -> Change:
    """Return what becomes of a package that the host has not got."""
    if mine.record in inside.unpacked:
        return Change(OWN, theirs, mine, mine, was_unpacked=True)
    return Change(REMOVED, theirs, mine, None)


def of_both(theirs: Stanza, mine: Stanza | None, inside: Inside) -> Change:
    """Return what becomes of a package that the host has a record of."""
    is_own = bool({theirs.record, *([mine.record] if mine else [])} & inside.unpacked)
    if not theirs.is_present:
        if theirs.state == "half-installed":                # the host is at work with it
            return Change(UNFINISHED, theirs, mine, mine)
        if is_own and mine:
            return Change(OWN, theirs, mine, mine, was_unpacked=True)
        return Change(REMOVED, theirs, mine, theirs if theirs.state == "config-files" else None)
    if mine is None or mine.state in ("config-files", "not-installed"):
        if is_own or theirs.record in inside.hidden:
            return Change(LEFT_OUT, theirs, mine, mine)
        return Change(NEW, theirs, mine, of_host(theirs, mine, inside))
    if is_own:
        return of_unpacked(theirs, mine, inside)
    return Change(direction(theirs, mine), theirs, mine, of_host(theirs, mine, inside))


def of_unpacked(theirs: Stanza, mine: Stanza, inside: Inside) -> Change:
    """Return what becomes of a package that the subhost has unpacked as well."""
    if mine.state not in PRESENT or mine.is_broken:
        return Change(UNFINISHED, theirs, mine, mine, was_unpacked=True)
    if is_newer(mine.version, theirs.version):
        return Change(AHEAD, theirs, mine, mine, was_unpacked=True)
    if mine.want == "hold" and mine.version != theirs.version:
        return Change(HELD, theirs, mine, mine, was_unpacked=True)
    return Change(direction(theirs, mine), theirs, mine, of_host(theirs, mine, inside), was_unpacked=True)


def direction(theirs: Stanza, mine: Stanza) -> str:
    if theirs.version == mine.version:
        return RETURNED
    return UPGRADED if is_newer(theirs.version, mine.version) else DOWNGRADED


def of_host(theirs: Stanza, mine: Stanza | None, inside: Inside) -> Stanza:
    """Return the record that a package has in the subhost whose files are the host's.

    If the subhost has not configured this version yet, it is unpacked, for dpkg to do so.
    """
    want = mine.want if mine and mine.want == "hold" else theirs.want
    if mine and mine.is_present and mine.version == theirs.version:
        state, configured = mine.state, mine.value("Config-Version") or None
        pending, awaited = mine.value("Triggers-Pending") or None, mine.value("Triggers-Awaited") or None
    else:
        state, configured, pending, awaited = "unpacked", mine.configured or None if mine else None, None, None
    conffiles = merged_conffiles(theirs.conffiles, mine.conffiles if mine else {},
                                 lambda path: inside.has(path, theirs, mine), settled=state in WORKING)
    return theirs.changed(Status=f"{want} ok {state}", Config_Version=configured, Triggers_Pending=pending,
                          Triggers_Awaited=awaited, Conffiles=conffiles_text(conffiles))


def merged_conffiles(theirs: dict[str, str], mine: dict[str, str], has: "Callable[[str], bool]", *,
                     settled: bool) -> dict[str, str]:
    """Return the conffiles with the MD5 sums of what was shipped when the file that is there was installed.

    That is the host's, but for what the subhost has of its own.
    """
    found = {}
    for path, rest in theirs.items():
        md5, blank, flag = rest.partition(" ")
        if has(path):
            md5 = mine[path].partition(" ")[0] if path in mine else md5 if settled else NEW_CONFFILE
        found[path] = md5 + blank + flag
    for path, rest in mine.items():
        if path not in theirs and has(path):
            found[path] = rest if " " in rest else f"{rest} obsolete"
    return found
