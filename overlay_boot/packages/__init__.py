"""The packages of a subhost that follows its host: the story of the merge.

The steps are in such an order that after each of them the next call finds the rest to do, whatever has happened in
between: what UPPER has of its own goes first, then comes the record that says that it is gone.  What comes after dpkg
has its record is noted as unfinished until it is done.  So nothing has to be taken back, and the subhost can be
booted at any time.

Nothing outside of this folder imports another module of it.
"""
import posix

from .. import beneath, dpkg, files, followed, namespaces, paths, progress
from ..dpkg import INFO, PENDING, RECORDS, SETTLED, STATUS, WORKING, Database, Stanza
from ..errors import Failure, doing
from . import alternatives, triggers
from .answers import ANSWERS, MARKS, TEMPLATES, is_marked_in, missing, owners
from .copies import Copies
from .merge import AHEAD, HELD, NEW, OWN, REMOVED
from .plan import UPDATES, to_be_kept
from .plan import Plan as Plan
from .plan import keep as keep_host
from .rehearsal import Rehearsal
from .site import Site as Site
from .site import part_of as part_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from ..overlayfs import Tree
    Row = dict[str, Any]

LOCK, FRONT_END_LOCK = f"{RECORDS}/lock", f"{RECORDS}/lock-frontend"
CACHE_OF_LIBRARIES, LDCONFIG = "etc/ld.so.cache", "ldconfig"
CONFIGURATIONS = ("etc/dpkg/dpkg.cfg", "etc/dpkg/dpkg.cfg.d")
SHOWN = 5       # of what a package lacks
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

    def keep(self, store: str) -> None:
        """Keep what the host has now, for the next time, unless what it had before is kept there."""
        found = to_be_kept(self.lower)
        if followed.kept(store, "status") in (b"", found["status"]):
            keep_host(store, self.lower, found)


def is_kept(store: str) -> bool:
    """Tell whether it is known all that the host had."""
    return followed.is_kept(store, followed.MD5SUMS)


def is_at_work(plan: Plan) -> bool:
    """Tell whether dpkg is at work on the host, or apt is between two runs of it: what is on record is about to change.

    dpkg calls us itself at the end of a run, while apt goes on: what it has settled by then can be followed.
    """
    return is_locked(plan.lower, LOCK) or is_locked(plan.lower, FRONT_END_LOCK) and not all(
        one.state in SETTLED for one in plan.host.stanzas.values())


def is_locked(lower: "Tree", path: str) -> bool:
    """Tell whether a process has locked a file of the host's records."""
    found = lower.opened(path)
    if found is None:
        return False
    with found:
        if files.kind_of(found) != files.REGULAR:
            return False
        with files.opened(paths.of_descriptor(found), posix.O_RDWR) as fd:
            try:
                return bool(namespaces.locked_by(fd, 0))
            except PermissionError:         # by somebody in another PID namespace
                return True


@doing("follow with the packages")
def follow(tree: "Tree", store: str, site: Site) -> "tuple[list[Row], list[str]]":
    """Have the packages of a subhost that runs follow those of its host.

    Returns what Plan.row() tells of them, and what is left to the administrator, in words.  Raises Failure or OSError;
    then the next call does the rest.
    """
    with site.locked(FRONT_END_LOCK, "apt or dpkg"):
        recover(site)
        with site.locked(LOCK, "dpkg"):
            plan = Plan(tree, store)
            if is_at_work(plan):
                raise Failure("dpkg is at work on the host")
            progress.tell(f"{site.name}: giving back what the host has")
            left = merge_files(plan, site)
            pending = merge_status(plan, site)
        configure(plan, site, pending)
        left += settle_alternatives(plan, site)
        left += settle(plan, site)
    return plan.row(), [*left, *plan.left]


def rehearse(plan: Plan) -> list[str]:
    """Return what would be left to the administrator, in words, as far as it is known before; nothing is changed."""
    return [*Rehearsal(plan).settle(), *plan.left]


def merge_files(plan: Plan, site: Site) -> list[str]:
    """Merge all but the status file.  Returns what is left to the administrator, in words."""
    left = Copies(plan, site, plan.upper).settle()
    for path in plan.hidden:
        site.remove(path)
    put_conffiles(plan, site)
    for kind, lines in plan.accounts.changed().items() if plan.accounts else ():
        write_lines(plan, site, f"etc/{kind}", lines)
    for path, lines in plan.registers.items():
        write_lines(plan, site, path, lines)
    merge_triggers(plan, site)
    merge_answers(plan, site)
    merge_marks(plan, site)
    return left


def put_conffiles(plan: Plan, site: Site) -> None:
    """Put conffiles as the host's versions ship them beside those that UPPER has, for dpkg to settle them."""
    for path, shipped in plan.new_conffiles.items():
        source = plan.lower.opened(shipped)
        if source is None:
            raise Failure(f"the host has just removed /{shipped}")
        with source:
            found = posix.fstat(source)
            site.write(path, source, found.st_mode & 0o7777, found.st_uid, found.st_gid)


def write_lines(plan: Plan, site: Site, path: str, lines: list[str]) -> None:
    """Write a file that UPPER has, and keep whose it is."""
    found = plan.upper.status(path)
    mode, uid, gid = (found.st_mode & 0o7777, found.st_uid, found.st_gid) if found else (0o644, 0, 0)
    site.write(path, paths.encode("".join(f"{line}\n" for line in lines)), mode, uid, gid)


def merge_triggers(plan: Plan, site: Site) -> None:
    """Merge who is interested in triggers."""
    packages = {one.record for one in plan.found if one.kind in (OWN, AHEAD, HELD)}
    for name, _ in [*plan.upper.entries(triggers.DIRECTORY)]:
        path = f"{triggers.DIRECTORY}/{name}"
        if name == "File" or name[:1].islower():
            own = plan.upper.lines(path)
            merged = triggers.merged_lines(dpkg.lines(plan.lower, path), own, packages)
            if merged != own:
                write_lines(plan, site, path, merged)


def merge_answers(plan: Plan, site: Site) -> None:
    """Add what the host has of debconf's answers for packages that came from it."""
    changed = {one.host.name for one in plan.of_host if one.host}

    def lacking(path: str, is_wanted: "Callable[[Stanza], bool]") -> list[Stanza]:
        own = plan.upper.text(path)
        return missing(path, own, dpkg.read(plan.lower, path), is_wanted) if plan.upper.has_file(path) else []

    questions = lacking(ANSWERS, lambda one: bool(owners(one) & changed))
    asked = {one.value("Template") for one in questions}
    for path, added in ((TEMPLATES, lacking(TEMPLATES, lambda one: one.value("Name") in asked)), (ANSWERS, questions)):
        if added:
            lines = plan.upper.lines(path)
            write_lines(plan, site, path, [*lines, *([""] if lines and lines[-1] else []),
                                           *dpkg.lines_of(dpkg.text(added))])


def merge_marks(plan: Plan, site: Site) -> None:
    """Add what the host has of apt's marks for packages that are new; drop those of packages that it has removed."""
    if not plan.upper.has_file(MARKS):
        return
    own = plan.upper.text(MARKS)
    new = {one.host.name for one in plan.of_host if one.host and one.kind == NEW}
    gone = {one.own.name for one in plan.changes if one.own and one.kind == REMOVED}
    there = {(one.merged.name, one.merged.architecture) for one in plan.found
             if one.merged and one.merged.is_present} if gone else set()
    marks = [*dpkg.stanzas(own)]
    kept = [one for one in marks if one.name not in gone or is_marked_in(there, one)]
    added = missing(MARKS, own, dpkg.read(plan.lower, MARKS), lambda one: one.name in new)
    if added or len(kept) < len(marks):
        write_lines(plan, site, MARKS, dpkg.lines_of(dpkg.text([*kept, *added])))


def merge_status(plan: Plan, site: Site) -> list[str]:
    """Write the status file.  Returns the packages of which triggers are pending."""
    merged = {one.record: one.merged for one in plan.found if one.merged}
    pending = activate(plan, site, merged) if plan.changes else []
    if plan.changes:
        plan.begin()
        site.write(STATUS, paths.encode(dpkg.text(merged.values())), 0o644)
    return pending


def activate(plan: Plan, site: Site, merged: dict[str, Stanza]) -> list[str]:
    """Note the triggers of files that came by themselves with the packages that dpkg would have run for them.

    Returns these.  A subhost without records of its own has what the host's triggers have made, but for the cache of
    libraries.
    """
    changed: dict[str, Collection[str]] = {one.record: plan.paths(one.record) for one in plan.of_host}
    names = {name for record in changed
             for name in triggers.activated(dpkg.lines(plan.lower, f"{INFO}/{record}.triggers"))}
    if plan.has_status:
        gone = [one.record for one in plan.changes if one.kind == REMOVED]
        before = plan.kept_md5sums() if gone else {}
        changed.update((record, before[record].keys()) for record in gone if record in before)
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
    if pending or plan.is_begun:
        now = Database(site.text(STATUS))
        if any(one.state == PENDING for one in now.stanzas.values()) or site.text(triggers.UNINCORPORATED):
            progress.tell(f"{site.name}: running triggers")
            site.run(["dpkg", "--triggers-only", "--pending"])


def chooses_conffiles(site: Site) -> bool:
    """Tell whether the administrator has chosen in dpkg.cfg(5) what becomes of conffiles that both have changed."""
    names = [CONFIGURATIONS[0], *(f"{CONFIGURATIONS[1]}/{name}" for name in site.names(CONFIGURATIONS[1]))]
    return any(line.strip().lstrip("-").startswith(("force-confold", "force-confnew"))
               for name in names for line in site.lines(name))


def settle_alternatives(plan: Plan, site: Site) -> list[str]:
    """Have update-alternatives choose what was chosen inside, and forget what is gone.  Give back what the host has.

    Returns what cannot be, in words.
    """
    left = []
    for name, _ in [*plan.upper.entries(alternatives.DIRECTORY)]:
        path = f"{alternatives.DIRECTORY}/{name}"
        try:
            if name in plan.strayed and beneath.exists(site.root, plan.strayed[name], beneath.INSIDE):
                site.run(["update-alternatives", "--set", name, plan.strayed[name]])
            for choice in alternatives.choices(site.lines(path)):
                if choice[0] == "/" and not beneath.exists(site.root, choice, beneath.INSIDE):
                    site.run(["update-alternatives", "--remove", name, choice])
        except Failure as failure:
            left.append(f"the alternatives of {name} are left as they are: {failure}")
            continue
        if plan.upper.has_file(path):
            alternatives.give_back(plan.upper, name, plan.upper.text(path), dpkg.read(plan.lower, path))
    return left


def settle(plan: Plan, site: Site) -> list[str]:
    """Give back the status file if it says what the host's does.  Returns what is not configured, in words."""
    with site.locked(LOCK, "dpkg"):
        now = Database(site.text(STATUS))
        if same(now, plan.host) and not any(True for _ in plan.upper.entries(INFO)):
            for name in ("status", "status-old"):
                if plan.upper.has_file(f"{RECORDS}/{name}"):
                    plan.upper.unlink(f"{RECORDS}/{name}")
            site.refresh()
    plan.keep()
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


def told(rows: "list[Row]") -> list[str]:
    """Return what is told of packages, of what Plan.row() has."""
    found = []
    for row in rows:
        if row["change"] in TOLD:
            said = TOLD[row["change"]].format(host=row["is"], own=row["was"], state="not whole")
            found.append(f"{row['package']} {said}")
        if row["missing"]:
            more = f" and {len(row['missing']) - SHOWN} more" if len(row["missing"]) > SHOWN else ""
            found.append(f"{row['package']} needs what the host has not got any more: "
                         f"{', '.join(row['missing'][:SHOWN])}{more}")
        if row["conflicts"]:
            found.append(f"{row['package']} cannot be there together with {', '.join(row['conflicts'][:SHOWN])}")
    return found
