"""The packages of a subhost that follows its host: the story of the merge.

The steps are in such an order that after each of them the next call finds the rest to do, whatever has happened in
between: what UPPER has of its own goes first, then comes the record that says that it is gone.  So nothing has to be
taken back, and the subhost can be booted at any time.

Nothing outside of this folder imports another module of it.
"""
import posix

from .. import beneath, dpkg, files, namespaces, paths, progress
from ..dpkg import DIVERSIONS, INFO, PENDING, RECORDS, SETTLED, STATUS, WORKING, Database, Stanza
from ..errors import Failure, doing
from . import alternatives, triggers
from .accounts import SECRETS, Accounts
from .answers import ANSWERS, MARKS, TEMPLATES, missing, owners
from .dependencies import Present
from .merge import AHEAD, HELD, LEFT_OUT, NEW, OF_HOST, OWN, UNFINISHED, Change, Inside, merge
from .site import Site as Site
from .site import part_of as part_of
from .upper import Upper, md5

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..overlayfs import Tree

FOLLOWED = "followed"           # the directory in BASE, with what the host had when its packages were followed last
OVERRIDES, ARCHITECTURES = f"{RECORDS}/statoverride", f"{RECORDS}/arch"
KEPT = {"passwd": "etc/passwd", "group": "etc/group", "statoverride": OVERRIDES, "diversions": DIVERSIONS,
        "arch": ARCHITECTURES, "status": STATUS}       # in this order: the status is what counts
LOCK, UPDATES = f"{RECORDS}/lock", f"{RECORDS}/updates"
CACHE_OF_LIBRARIES, LDCONFIG = "etc/ld.so.cache", "ldconfig"
KEPT_RECORDS = ("list", "postrm")               # of a package that was removed, and not purged
BESIDE = ("", ".dpkg-dist", ".dpkg-new")        # where the host has a conffile as it was shipped
CONFIGURATIONS = ("etc/dpkg/dpkg.cfg", "etc/dpkg/dpkg.cfg.d")
TOLD = {"upgraded": "is {host}, was {own}", "downgraded": "is {host}, was {own}", "returned": "is the host's again",
        "new": "is {host}, which the host has got", "removed": "is gone, as the host has removed it",
        "unfinished": "is left alone: it is {state}"}


class Host:
    """The host's records of packages, as a subhost has them beneath it."""

    __slots__ = ("lower",)

    def __init__(self, tree: "Tree") -> None:
        """Of the subhost's tree."""
        self.lower = tree.beneath(tree.own)

    def is_settled(self) -> bool:
        """Tell whether no package is being installed or configured, as between two runs of dpkg that apt has made."""
        return all(one.state in SETTLED for one in Database(dpkg.read(self.lower, STATUS)).stanzas.values())

    def keep(self, base: str) -> None:
        """Keep in BASE what the host has now, for the next time."""
        keep(base, to_be_kept(self.lower))


def is_kept(base: str) -> bool:
    """Tell whether it is known what the host had."""
    return bool(files.kind(f"{base}/{FOLLOWED}/status"))


class Plan:
    """What is to be done with the packages of a subhost."""

    __slots__ = ("accounts", "base", "found", "has_status", "hidden", "host", "lower", "missing", "seen", "tree",
                 "upper")

    def __init__(self, tree: "Tree", base: str) -> None:
        """tree is the subhost's, of which one layer is its own; base is the path of BASE."""
        self.base = base
        self.tree = tree
        self.lower = tree.beneath(1)
        self.upper = Upper(tree.roots[0], self.lower)
        self.seen = to_be_kept(self.lower)      # what is merged, whatever the host does meanwhile
        self.has_status = self.upper.has_file(STATUS)
        theirs = paths.decode(self.seen["status"])
        own = self.upper.text(STATUS) if self.has_status else paths.decode(kept(base, "status")) or theirs
        self.host = Database(theirs)
        unpacked, hidden = self.upper.records()
        inside = Inside(unpacked, hidden, self.upper.has_file)
        self.found = merge(self.host, Database(own), inside) if self.host.stanzas else []
        present = Present(one.merged for one in self.found if one.merged and one.merged.is_present)
        self.missing = {one.record: needed for one in self.found
                        if one.kind in (OWN, AHEAD, HELD) and one.merged and one.merged.is_present
                        for needed in [present.missing(one.merged)] if needed}
        self.hidden = self.to_be_hidden()
        self.accounts = [*self.new_accounts()] if self.host.stanzas else []

    @property
    def changes(self) -> list[Change]:
        return [one for one in self.found if one.is_change]

    @property
    def configured(self) -> list[str]:
        """The records of the packages that dpkg has to configure."""
        return [one.record for one in self.found if one.configures]

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.configured or self.hidden or any(one.added for one in self.accounts))

    def paths(self, record: str) -> set[str]:
        """Return the paths that the host has of a package, without the first /."""
        found = dpkg.lines(self.lower, f"{INFO}/{record}.list")
        return {line[1:] for line in found if line[:1] == "/" and line != "/."}

    def to_be_hidden(self) -> list[str]:
        """Return what has come to the host with packages that were removed inside: paths in the subhost."""
        wanted: dict[str, str] = {}
        for one in self.found:
            if one.kind == LEFT_OUT and one.host:
                left = {*one.host.conffiles, *(f"{INFO}/{one.record}.{kind}" for kind in KEPT_RECORDS)}
                places = {path: self.upper.place(path) for path in self.paths(one.host.record)}
                places.update((path, path) for path in self.records_of(one.host.record))
                wanted.update((path, at) for path, at in places.items()
                              if self.shows(at) and not (one.own and path in left))
        for one in self.found if wanted else ():
            if one.merged and one.merged.is_present:
                for path in self.paths(one.merged.record) & wanted.keys():
                    del wanted[path]
        return sorted(wanted.values())

    def new_accounts(self) -> "Iterator[Accounts]":
        """Yield the accounts that packages of the host have made, where UPPER has a file of its own for them."""
        for kind in SECRETS:
            if self.upper.has_file(f"etc/{kind}"):
                base = kept(self.base, kind)
                yield Accounts(kind, dpkg.lines(self.lower, f"etc/{kind}"), self.upper.lines(f"etc/{kind}"),
                               paths.decode(base).splitlines() if base else None)

    def shows(self, path: str) -> bool:
        """Tell whether the subhost sees a file of the host's at a path."""
        with self.tree.find(path) as found:
            return bool(found) and found.layer >= self.tree.own and found.kind != files.DIRECTORY

    def records_of(self, record: str) -> list[str]:
        """Return the paths of the files that the host has of a package in INFO."""
        return [f"{INFO}/{name}" for name in self.lower.names_in(INFO) if name.rpartition(".")[0] == record]

    def row(self) -> "list[dict[str, Any]]":
        """Return what is told of the packages: a dictionary for each."""
        return [{"package": one.record, "change": one.kind, "was": one.own.version if one.own else None,
                 "is": one.merged.version if one.merged and one.merged.is_present else None,
                 "missing": self.missing.get(one.record, [])}
                for one in self.found if (one.is_change and (one.own or one.merged and one.merged.is_present))
                or one.kind == UNFINISHED or one.record in self.missing]


def kept(base: str, name: str) -> bytes:
    """Return what the host had in a file of KEPT when it was followed last, b"" if that is not known."""
    try:
        with files.opened(f"{base}/{FOLLOWED}/{name}", posix.O_RDONLY) as fd:
            return files.read_all(fd)
    except FileNotFoundError:
        return b""


def to_be_kept(lower: "Tree") -> dict[str, bytes]:
    """Return what the host has in the files of KEPT."""
    return {name: paths.encode(dpkg.read(lower, path)) for name, path in KEPT.items()}


@doing("keep what the host has")
def keep(base: str, found: dict[str, bytes]) -> None:
    """Keep what the host had when it was looked at, to_be_kept(), for the next time."""
    place = f"{base}/{FOLLOWED}"
    files.make_directory(place, 0o700)
    for name, data in found.items():
        if data != kept(base, name):
            with files.opened(f"{place}/.{name}", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600) as fd:
                files.write_all(fd, data)
                posix.fsync(fd)
            posix.rename(f"{place}/.{name}", f"{place}/{name}")


def is_at_work(lower: "Tree") -> bool:
    """Tell whether dpkg is at work on the host: what it has on record is about to change."""
    found = lower.opened(LOCK)
    if found is None:
        return False
    with found:
        if files.kind_of(found) != files.REGULAR:
            return False
        with files.opened(paths.of_descriptor(found), posix.O_RDWR) as fd:
            return bool(namespaces.locked_by(fd, 0))


@doing("follow with the packages")
def follow(plan: Plan, site: Site) -> list[str]:
    """Do what is planned, in a subhost that runs.  Returns what is left to the administrator, in words.

    Raises Failure or OSError; then the next call does the rest.
    """
    left: list[str] = []
    if plan.is_empty:
        keep(plan.base, plan.seen)
        return left
    if is_at_work(plan.lower):
        raise Failure("dpkg is at work on the host")
    with site.locked(LOCK):
        progress.tell(f"{site.name}: giving back what the host has")
        for one in plan.changes:
            if one.kind in OF_HOST and one.was_unpacked:
                left += give_back(plan, one)
        site.refresh()
        for path in plan.hidden:
            site.remove(path)
        for one in plan.changes:
            left += put_conffiles(plan, site, one)
        left += merge_accounts(plan, site)
        merge_lines(plan, site)
        merge_answers(plan, site)
        pending = merge_status(plan, site)
    configure(plan, site, pending)
    settle_alternatives(plan, site)
    left += settle(plan, site)
    return left


def give_back(plan: Plan, one: Change) -> list[str]:
    """Remove what UPPER has of a package that is the host's again.  Returns what stays, in words."""
    assert one.own and one.host
    shipped = plan.paths(one.host.record)
    changed = plan.upper.remove_copies(one.own.record, one.own.conffiles, shipped)
    plan.upper.remove_whiteouts(shipped, one.host.conffiles)
    plan.upper.remove_records(one.own.record)
    return [f"{path} was changed inside, and hides that of {one.record}" for path in changed]


def put_conffiles(plan: Plan, site: Site, one: Change) -> list[str]:
    """Put a conffile as the host's version ships it beside one that UPPER has, for dpkg to settle it."""
    if not one.configures or not one.host:
        return []
    before, left = one.own.conffiles if one.own else {}, []
    for path, rest in one.host.conffiles.items():
        if " " in rest or before.get(path) == rest or not plan.upper.has_file(path):
            continue
        at = plan.upper.place(path)
        shipped = next((at + end for end in BESIDE if md5_in(plan.lower, at + end) == rest), "")
        if not shipped:
            left.append(f"/{path} is the subhost's own, and the host has not got the one that {one.record} "
                        f"{one.host.version} ships")
            continue
        found = plan.lower.status(shipped)
        assert found
        site.write(f"{path}.dpkg-new", plan.lower.read(shipped, dpkg.LONGEST) or b"", found.st_mode & 0o7777,
                   found.st_uid, found.st_gid)
    return left


def md5_in(tree: "Tree", path: str) -> str:
    """Return the MD5 sum of a regular file in a tree, "" if it is none."""
    found = tree.opened(path)
    if found is None:
        return ""
    with found:
        return md5(found)


def merge_accounts(plan: Plan, site: Site) -> list[str]:
    """Add accounts that packages of the host have made.  Returns what cannot be, in words."""
    for one in plan.accounts:
        place, beside = f"etc/{one.kind}", f"etc/{SECRETS[one.kind]}"
        if one.added:
            if plan.upper.has_file(beside):
                lines = plan.upper.lines(beside)
                append(plan, site, beside, lines, one.secret_lines(dpkg.lines(plan.lower, beside), lines))
            append(plan, site, place, plan.upper.lines(place), one.lines())
    return [conflict for one in plan.accounts for conflict in one.conflicts]


def append(plan: Plan, site: Site, path: str, lines: list[str], added: list[str]) -> None:
    """Add lines to a file that UPPER has, and keep whose it is."""
    write_lines(plan, site, path, [*lines, *added])


def write_lines(plan: Plan, site: Site, path: str, lines: list[str]) -> None:
    found = plan.upper.status(path)
    mode, uid, gid = (found.st_mode & 0o7777, found.st_uid, found.st_gid) if found else (0o644, 0, 0)
    site.write(path, paths.encode("".join(f"{line}\n" for line in lines)), mode, uid, gid)


def merge_lines(plan: Plan, site: Site) -> None:
    """Merge diversions, overrides of owners and modes, architectures, and who is interested in triggers."""
    for name, path, size in (("statoverride", OVERRIDES, 1), ("diversions", DIVERSIONS, 3), ("arch", ARCHITECTURES, 1)):
        if plan.upper.has_file(path):
            base = kept(plan.base, name)
            own, host = (records(lines, size) for lines in (site.lines(path), dpkg.lines(plan.lower, path)))
            before = records(paths.decode(base).splitlines(), size)
            merged = [one for one in own if one in host or one not in before]
            settled = {*own, *before, *map(subject, merged)}    # dpkg refuses two for one path: the subhost's counts
            merged += [one for one in host if one not in settled and subject(one) not in settled]
            if merged != own:
                write_lines(plan, site, path, [line for one in merged for line in one])
    packages = {one.record for one in plan.found if one.kind in (OWN, AHEAD, HELD)}
    for name, _ in [*plan.upper.entries(triggers.DIRECTORY)]:
        path = f"{triggers.DIRECTORY}/{name}"
        if name == "File" or name[:1].islower():
            merged_lines = triggers.merged_lines(dpkg.lines(plan.lower, path), plan.upper.lines(path), packages)
            if merged_lines != plan.upper.lines(path):
                write_lines(plan, site, path, merged_lines)


def merge_answers(plan: Plan, site: Site) -> None:
    """Add what the host has of debconf's answers, and of apt's marks, for packages that came from it."""
    changed = {one.host.name for one in plan.changes if one.host and one.kind in OF_HOST}
    new = {one.host.name for one in plan.changes if one.host and one.kind == NEW}

    def lacking(path: str, is_wanted: "Callable[[Stanza], bool]") -> list[Stanza]:
        own = plan.upper.text(path)
        return missing(path, own, dpkg.read(plan.lower, path), is_wanted) if plan.upper.has_file(path) else []

    questions = lacking(ANSWERS, lambda one: bool(owners(one) & changed))
    asked = {one.value("Template") for one in questions}
    for path, added in ((TEMPLATES, lacking(TEMPLATES, lambda one: one.value("Name") in asked)), (ANSWERS, questions),
                        (MARKS, lacking(MARKS, lambda one: one.name in new))):
        if added:
            lines = plan.upper.lines(path)
            append(plan, site, path, lines, [*([""] if lines and lines[-1] else []), *dpkg.text(added).splitlines()])


def records(lines: list[str], size: int) -> list[tuple[str, ...]]:
    """Return lines by so many at a time."""
    return [tuple(lines[at:at + size]) for at in range(0, len(lines) - size + 1, size)]


def subject(record: tuple[str, ...]) -> str:
    """Return what one of these is about: the path that is diverted, or has an override."""
    return record[0].split(" ", 3)[-1] if len(record) == 1 else record[0]


def merge_status(plan: Plan, site: Site) -> list[str]:
    """Write the status file.  Returns the packages of which triggers are pending."""
    merged = {one.record: one.merged for one in plan.found if one.merged}
    pending = activate(plan, site, merged) if plan.changes else []
    if plan.changes:
        site.write(STATUS, paths.encode(dpkg.text(merged.values())), 0o644)
    return pending


def activate(plan: Plan, site: Site, merged: dict[str, Stanza]) -> list[str]:
    """Note the triggers of files that came by themselves with the packages that dpkg would have run for them.

    Returns these.  A subhost without records of its own has what the host's triggers have made, but for the cache of
    libraries.
    """
    changed = {one.record: plan.paths(one.record) for one in plan.changes if one.kind in OF_HOST}
    names = {name for record in changed
             for name in triggers.activated(dpkg.lines(plan.lower, f"{INFO}/{record}.triggers"))}
    if plan.has_status:
        wanted = triggers.by_files(site.lines(triggers.FILES),
                                   (f"/{path}" for found in changed.values() for path in found))
    else:
        wanted = {}
        names &= {LDCONFIG} if plan.upper.has_file(CACHE_OF_LIBRARIES) else set()
    for name in names:
        for line in site.lines(f"{triggers.DIRECTORY}/{name}") if "/" not in name else ():
            wanted.setdefault(triggers.package_of(line), set()).add(name)
    pending = []
    for record, its in wanted.items():
        stanza = merged.get(record)
        if stanza and stanza.state in WORKING:
            all_of_them = sorted({*stanza.value("Triggers-Pending").split(), *its})
            merged[record] = stanza.changed(Status=f"{stanza.want} ok {PENDING}",
                                            Triggers_Pending=" ".join(all_of_them))
            pending.append(record)
    return pending


def configure(plan: Plan, site: Site, pending: list[str]) -> None:
    """Have dpkg configure what is unpacked, and run triggers.  Raises Failure if it cannot configure all of it."""
    old = [] if chooses_conffiles(site) else ["--force-confdef", "--force-confold"]
    if plan.configured:
        progress.tell(f"{site.name}: configuring {len(plan.configured)} packages")
        site.run(["dpkg", *old, "--configure", *plan.configured])
    now = {one.record: one.state for one in Database(site.text(STATUS)).stanzas.values()} if pending else {}
    pending = [record for record in pending if now.get(record) == PENDING]     # what was configured may have run them
    if pending:
        progress.tell(f"{site.name}: running triggers")
        site.run(["dpkg", "--triggers-only", *pending])


def chooses_conffiles(site: Site) -> bool:
    """Tell whether the administrator has chosen in dpkg.cfg(5) what becomes of conffiles that both have changed."""
    names = [CONFIGURATIONS[0], *(f"{CONFIGURATIONS[1]}/{name}" for name in site.names(CONFIGURATIONS[1]))]
    return any(line.strip().lstrip("-").startswith(("force-confold", "force-confnew"))
               for name in names for line in site.lines(name))


def settle_alternatives(plan: Plan, site: Site) -> None:
    """Have update-alternatives forget what is gone with packages, and give back what is as the host has it."""
    for name, _ in [*plan.upper.entries(alternatives.DIRECTORY)]:
        path = f"{alternatives.DIRECTORY}/{name}"
        for choice in alternatives.choices(site.lines(path)):
            if choice[0] == "/" and not beneath.exists(site.root, choice, beneath.INSIDE):
                site.run(["update-alternatives", "--remove", name, choice])
        if plan.upper.has_file(path):
            alternatives.give_back(plan.upper, name, plan.upper.text(path), dpkg.read(plan.lower, path))


def settle(plan: Plan, site: Site) -> list[str]:
    """Give back the status file if it says what the host's does.  Returns what is not configured, in words."""
    with site.locked(LOCK):
        now = Database(site.text(STATUS))
        if same(now, plan.host) and not any(True for _ in plan.upper.entries(INFO)):
            for name in ("status", "status-old"):
                if plan.upper.has_file(f"{RECORDS}/{name}"):
                    plan.upper.unlink(f"{RECORDS}/{name}")
            site.refresh()
    keep(plan.base, plan.seen)
    wanted = set(plan.configured)
    return [f"{one.record} is {one.state}" for one in now.stanzas.values()
            if one.record in wanted and one.state not in WORKING]


def same(one: Database, other: Database) -> bool:
    return {key: stanza.fields for key, stanza in one.stanzas.items()} == {
        key: stanza.fields for key, stanza in other.stanzas.items()}


def recover(site: Site) -> None:
    """Have dpkg take up what one of its runs that was killed has left.  Raises Failure if it is at work."""
    if any(name.isdigit() for name in site.names(UPDATES)):
        site.run(["dpkg", "--set-selections"])          # of nothing: it opens its records to write


def told(rows: "list[dict[str, Any]]") -> list[str]:
    """Return what is told of packages, of what Plan.row() has."""
    found = []
    for row in rows:
        if row["change"] in TOLD:
            said = TOLD[row["change"]].format(host=row["is"], own=row["was"], state="not whole")
            found.append(f"{row['package']} {said}")
        if row["missing"]:
            found.append(f"{row['package']} needs what the host has not got any more: {', '.join(row['missing'])}")
    return found
