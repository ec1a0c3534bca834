"""What is to be done with the packages of a subhost, as they and the host's are now.  Nothing is changed here."""
import zlib

from .. import dpkg, files, followed, paths
from ..dpkg import DIVERSIONS, INFO, RECORDS, STATUS, Database
from ..errors import Failure
from ..followed import CHOSEN, KEPT, MD5SUMS, OVERRIDES, UNFINISHED
from . import alternatives, registers
from .accounts import FILES, Accounts
from .dependencies import Present
from .merge import AHEAD, HELD, LEFT_OUT, OF_HOST, OWN, Change, Inside, merge
from .merge import UNFINISHED as HALF_DONE
from .places import Places
from .upper import Upper, md5

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..dpkg import Stanza
    from ..overlayfs import Tree
    from .registers import Override

UPDATES = f"{RECORDS}/updates"
KEPT_RECORDS = ("list", "postrm")               # of a package that was removed, and not purged
BESIDE = ("", ".dpkg-dist", ".dpkg-new")        # where the host has a conffile as it was shipped


class Plan:
    """What is to be done with the packages of a subhost."""

    __slots__ = ("accounts", "found", "has_status", "has_updates", "hidden", "host", "host_places", "is_begun", "lower",
                 "missing", "new_conffiles", "places", "refused", "refusing", "registers", "seen", "spared", "store",
                 "strayed", "tree", "unpacked", "unshipped", "upper")

    def __init__(self, tree: "Tree", store: str) -> None:
        """tree is the subhost's, of which one layer is its own; store is the directory with what the host had."""
        self.store = store
        self.tree = tree
        self.lower = tree.beneath(1)
        self.upper = Upper(tree.roots[0], self.lower)
        self.seen = to_be_kept(self.lower)      # what is merged, whatever the host does meanwhile
        self.has_status = self.upper.has_file(STATUS)
        self.has_updates = any(name.isdigit() for name, _ in self.upper.entries(UPDATES))
        self.is_begun = followed.is_kept(store, UNFINISHED)          # by one that did not come to its end
        self.spared = {*followed.kept_lines(store, UNFINISHED)}
        theirs = paths.decode(self.seen["status"])
        own = self.upper.text(STATUS) if self.has_status else paths.decode(followed.kept(store, "status")) or theirs
        self.host = Database(theirs)
        is_any = bool(self.host.stanzas)
        self.accounts = self.merged_accounts() if is_any else None
        self.refused = self.refused_overrides()
        self.registers = self.merged_registers() if is_any else {}
        self.host_places = Places(self.lower, self.theirs("diversions"))
        self.places = Places(self.lower, self.register("diversions", DIVERSIONS))
        self.unpacked, removed = self.upper.records()
        inside = Inside(self.unpacked, removed, self.keeps_conffile)
        self.found = merge(self.host, Database(own), inside) if is_any else []
        self.missing, self.refusing = self.what_does_not_fit()
        self.hidden = self.to_be_hidden()
        self.new_conffiles, self.unshipped = self.conffiles_beside()
        before = (line.partition(" ") for line in followed.kept_lines(store, CHOSEN))
        self.strayed = alternatives.strayed(self.upper, {name: target for name, _, target in before})

    @property
    def changes(self) -> list[Change]:
        return [one for one in self.found if one.is_change]

    @property
    def of_host(self) -> list[Change]:
        """The packages of which the files are the host's from now on."""
        return [one for one in self.changes if one.kind in OF_HOST]

    @property
    def configured(self) -> list[str]:
        """The records of the packages that dpkg has to configure: also those that it has failed to, for a trigger."""
        return [one.record for one in self.found
                if one.configures or self.is_begun and one.is_unconfigured and one.record not in self.spared]

    @property
    def is_empty(self) -> bool:
        return not (
            self.is_begun or self.has_updates or self.changes or self.configured or self.hidden or self.registers
            or self.strayed or self.accounts and self.accounts.changed())

    @property
    def left(self) -> list[str]:
        """What is left to the administrator, whatever is done, in words."""
        return [*self.unshipped, *(self.accounts.conflicts if self.accounts else []),
                *(f"an override of the host's is left out, as the subhost has not got its user or group: {line}"
                  for line in self.refused)]

    def theirs(self, name: str) -> list[str]:
        """Return the lines of a file of KEPT that the host has."""
        return dpkg.lines_of(paths.decode(self.seen[name]))

    def register(self, name: str, path: str) -> list[str]:
        """Return the lines of a register as it will be in the subhost."""
        if path in self.registers:
            return self.registers[path]
        return self.upper.lines(path) if self.upper.has_file(path) else self.theirs(name)

    def merged_registers(self) -> dict[str, list[str]]:
        """Return {path: lines} of the registers in UPPER that change."""
        found = {}
        for name, (path, size) in registers.REGISTERS.items():
            has_own = self.upper.has_file(path)
            theirs = self.accepted(name)
            own = self.upper.lines(path) if has_own else self.theirs(name)
            merged = registers.merged(theirs, own, followed.kept_lines(self.store, name), size) if has_own else theirs
            if merged != own:
                found[path] = merged
        return found

    def refused_overrides(self) -> list[str]:
        """Return the lines of overrides for somebody whom the subhost has not got: dpkg would not work with them."""
        own = {*self.upper.lines(OVERRIDES)} if self.accounts else set()
        return [line for line in self.theirs("statoverride")
                for one in registers.overrides([line]).values()
                if line not in own and self.accounts and None in (
                    self.accounts.number("passwd", one.user), self.accounts.number("group", one.group))]

    def accepted(self, name: str) -> list[str]:
        """Return the lines of a register that the host has, without what is refused."""
        return [line for line in self.theirs(name) if name != "statoverride" or line not in self.refused]

    def overrides(self) -> "dict[str, Override]":
        return registers.overrides(self.register("statoverride", OVERRIDES))

    def merged_accounts(self) -> Accounts:
        """Return the accounts, of those files that UPPER has."""
        own = {kind: self.upper.lines(f"etc/{kind}") for kind in FILES if self.upper.has_file(f"etc/{kind}")}
        base = {kind: followed.kept_lines(self.store, kind) for kind in FILES if followed.is_kept(self.store, kind)}
        return Accounts({kind: dpkg.lines(self.lower, f"etc/{kind}") for kind in FILES}, own, base)

    def keeps_conffile(self, path: str, theirs: "Stanza", mine: "Stanza | None") -> bool:
        """Tell whether UPPER has a conffile of a package, and will have it when that is the host's."""
        return self.upper.has_file(self.places.of(path, theirs.name)) and not (
            mine and {theirs.record, mine.record} & self.unpacked and self.is_shipped_conffile(path, theirs, mine))

    def is_shipped_conffile(self, path: str, theirs: "Stanza", mine: "Stanza") -> bool:
        """Tell whether a conffile in UPPER is as it was shipped, and the host has it at the same place."""
        at = self.places.of(path, mine.name)
        return (path in mine.conffiles and self.host_places.of(path, theirs.name) == at
                and self.lower.status(at) is not None and path in self.paths(theirs.record)
                and self.upper.md5(at) == mine.conffiles[path].partition(" ")[0])

    def conffiles_beside(self) -> tuple[dict[str, str], list[str]]:
        """Return what dpkg is to settle, as UPPER has a conffile, and the host's version ships another one.

        That is {where the new one comes: where the host has it, as it is shipped}, and what the host has not got, in
        words.
        """
        found, left = {}, []
        for one in self.changes:
            if not one.configures or not one.host:
                continue
            before = one.own.conffiles if one.own else {}
            for path, rest in one.host.conffiles.items():
                if " " in rest or before.get(path) == rest or not self.keeps_conffile(path, one.host, one.own):
                    continue
                at = self.host_places.of(path, one.host.name)
                shipped = next((at + end for end in BESIDE if md5_in(self.lower, at + end) == rest), "")
                if shipped:
                    found[f"{self.places.of(path, one.host.name)}.dpkg-new"] = shipped
                else:
                    left.append(f"/{path} is the subhost's own, and the host has not got the one that {one.record} "
                                f"{one.host.version} ships")
        return found, left

    def what_does_not_fit(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return {record: what it needs} and {record: what cannot be there with it} of the subhost's packages."""
        own = [(one.record, one.merged) for one in self.found
               if one.kind in (OWN, AHEAD, HELD) and one.merged and one.merged.is_present]
        present = Present(one.merged for one in self.found if own and one.merged and one.merged.is_present)
        missing = {record: present.missing(stanza) for record, stanza in own}
        refusing = {record: present.refusing(stanza) for record, stanza in own}
        return ({record: found for record, found in missing.items() if found},
                {record: found for record, found in refusing.items() if found})

    def paths(self, record: str) -> set[str]:
        """Return the paths that the host has of a package, without the first /."""
        found = dpkg.lines(self.lower, f"{INFO}/{record}.list")
        return {line[1:] for line in found if line[:1] == "/" and line != "/."}

    def own_paths(self) -> set[str]:
        """Return where the files are of packages that are the subhost's own."""
        return {self.places.of(path, one.own.name) for one in self.found
                if one.own and one.was_unpacked and one.kind in (OWN, AHEAD, HELD, HALF_DONE)
                for path in self.upper.paths(one.own.record)}

    def to_be_hidden(self) -> list[str]:
        """Return what has come to the host with packages that were removed inside: paths in the subhost."""
        wanted: set[str] = set()
        left_out = [one for one in self.found if one.kind == LEFT_OUT and one.host]
        records = self.records_of({one.record for one in left_out}) if left_out else {}
        for one in left_out:
            assert one.host
            left = {*one.host.conffiles, *(f"{INFO}/{one.record}.{kind}" for kind in KEPT_RECORDS)} if one.own else ()
            places = {path: self.host_places.of(path, one.host.name) for path in self.paths(one.host.record)}
            places.update((path, path) for path in records.get(one.record, ()))
            wanted.update(at for path, at in places.items() if path not in left and self.shows(at))
        for one in self.found if wanted else ():
            if one.host and one.merged and one.merged.is_present:
                wanted -= {self.host_places.of(path, one.host.name) for path in self.paths(one.host.record)}
        return sorted(wanted)

    def shows(self, path: str) -> bool:
        """Tell whether the subhost sees a file of the host's at a path."""
        with self.tree.find(path) as found:
            return bool(found) and found.layer >= self.tree.own and found.kind != files.DIRECTORY

    def records_of(self, wanted: set[str]) -> dict[str, list[str]]:
        """Return {record: the paths of its files in INFO} of packages of the host's."""
        found: dict[str, list[str]] = {}
        for name in self.lower.names_in(INFO):
            record = name.rpartition(".")[0]
            if record in wanted:
                found.setdefault(record, []).append(f"{INFO}/{name}")
        return found

    def kept_md5sums(self) -> dict[str, dict[str, str]]:
        """Return {record: {path: MD5 sum}} of what the host had when followed last, none if not known."""
        return unpacked_md5sums(followed.kept(self.store, MD5SUMS))

    def begin(self) -> None:
        """Note in the store, until all is done, that it is not, and which packages are left alone."""
        if not self.is_begun:
            spared = [f"{one.record}\n" for one in self.found if one.is_unconfigured and not one.configures]
            followed.keep(self.store, {UNFINISHED: paths.encode("".join(spared))})

    def keep(self) -> None:
        """Keep what the host has, for the next time; nothing is unfinished then."""
        found, accounts = dict(self.seen), self.accounts
        if accounts:
            found["statoverride"] = paths.encode("".join(f"{line}\n" for line in self.accepted("statoverride")))
            for kind in accounts.refused:
                lines = accounts.to_be_kept(kind, self.theirs(kind))
                found[kind] = paths.encode("".join(f"{line}\n" for line in lines))
        keep(self.store, self.lower, found)
        if followed.is_kept(self.store, UNFINISHED):
            followed.forget(self.store, (UNFINISHED,))

    def row(self) -> "list[dict[str, Any]]":
        """Return what is told of the packages: a dictionary for each."""
        return [{"package": one.record, "change": one.kind, "was": one.own.version if one.own else None,
                 "is": one.merged.version if one.merged and one.merged.is_present else None,
                 "missing": self.missing.get(one.record, []), "conflicts": self.refusing.get(one.record, [])}
                for one in self.found if (one.is_change and (one.own or one.merged and one.merged.is_present))
                or one.kind == HALF_DONE or one.record in self.missing or one.record in self.refusing]


def md5_in(tree: "Tree", path: str) -> str:
    """Return the MD5 sum of a regular file in a tree, "" if it is none."""
    found = tree.opened(path)
    if found is None:
        return ""
    with found:
        return md5(found)


def to_be_kept(lower: "Tree") -> dict[str, bytes]:
    """Return what the host has in the files of KEPT."""
    return {name: paths.encode(dpkg.read(lower, path)) for name, path in KEPT.items()}


def keep(store: str, lower: "Tree", found: dict[str, bytes]) -> None:
    """Keep what the host had when it was looked at, to_be_kept(), and what is chosen; MD5 sums where they are new."""
    links = "".join(f"{name} {target}\n" for name, target in sorted(alternatives.chosen(lower).items()))
    found = {CHOSEN: paths.encode(links), **found}
    if found["status"] != followed.kept(store, "status") or not followed.is_kept(store, MD5SUMS):
        found = {MD5SUMS: packed_md5sums(lower), **found}
    followed.keep(store, found)


def packed_md5sums(lower: "Tree") -> bytes:
    """Return what the host has on record of MD5 sums: a line with the name of each record, and those of it."""
    packing = zlib.compressobj(1)
    found = []
    for name in sorted(lower.names_in(INFO)):
        record, _, kind = name.rpartition(".")
        if kind == "md5sums":
            found.append(packing.compress(paths.encode(f"{record}\n{dpkg.read(lower, f'{INFO}/{name}')}")))
    return b"".join((*found, packing.flush()))


def unpacked_md5sums(packed: bytes) -> dict[str, dict[str, str]]:
    """Return {record: {path: MD5 sum}} of packed_md5sums()."""
    try:
        text = paths.decode(zlib.decompress(packed)) if packed else ""
    except zlib.error as error:
        raise Failure(f"{MD5SUMS} of what the host had is damaged: {error}") from None
    found: dict[str, dict[str, str]] = {}
    of_record: dict[str, str] = {}
    for line in text.split("\n"):
        md5, parts, path = line.partition("  ")
        if parts:
            of_record[path] = md5
        elif line:
            of_record = found[line] = {}
    return found
