"""What becomes of the files that UPPER has of packages which are the host's now.

What dpkg has unpacked inside, and nobody has changed, goes.  Of a file that was the host's, and of which the subhost
has changed the owner or the mode, that stays, and the content becomes the host's.  What somebody has put in the place
of a file of the host's stays, and is told.

Kept is what the host had before: so it is known whether a content was ever the package's.
"""
import posix

from .. import files, followed, overlayfs, paths
from ..files import Fd
from ..followed import SHOWN
from .merge import REMOVED, Change
from .plan import Plan
from .site import Site
from .upper import Upper, md5

SET_ID = 0o6000         # bits of a mode
SET_ID_NAMES = {0o4000: "set-user-ID", 0o2000: "set-group-ID", 0o6000: "set-user-ID and set-group-ID"}


class Copies:
    """The files of packages in UPPER."""

    __slots__ = ("emptied", "hiding", "md5sums", "of_path", "others", "overrides", "plan", "settled", "site", "told",
                 "upper")

    def __init__(self, plan: Plan, site: Site, upper: Upper) -> None:
        self.plan = plan
        self.site = site
        self.upper = upper
        self.overrides = plan.overrides()
        self.others = plan.own_paths()              # files that another package has, which is the subhost's own
        self.md5sums: dict[str, dict[str, str]] | None = None       # of what the host had, by packages
        self.of_path: dict[str, str] | None = None
        self.emptied: dict[str, Change] = {}        # {a directory in UPPER: the package}, where something was removed
        self.hiding: dict[str, Change] = {}         # {a directory in UPPER: what has a file in its place}
        self.settled: set[str] = set()              # where a file of the host's was put in the place of a package's
        self.told: dict[str, str] = {}              # {where it is: what is left to the administrator, in words}

    def settle(self) -> list[str]:
        """Do what is to be done.  Returns what is left to the administrator, in words."""
        self.show(*followed.kept_lines(self.plan.store, SHOWN))          # of one that was killed
        unpacked = [one for one in self.plan.of_host if one.was_unpacked]
        for one in unpacked:
            self.give_back(one)
        self.remove_directories(self.emptied)
        self.upper.remove_records({one.own.record for one in unpacked if one.own})
        self.site.refresh()
        for one in self.plan.of_host:
            self.renew(one)
        for one in self.plan.changes:
            if one.own and not one.was_unpacked and (one in self.plan.of_host or one.kind == REMOVED):
                self.drop(one)
        self.remove_directories({**self.emptied, **self.hiding})
        self.site.refresh()
        return [self.told[at] for at in sorted(self.told)]

    def give_back(self, one: Change) -> None:
        """Remove the files of a package that dpkg has unpacked inside and nobody has changed."""
        assert one.own and one.host
        shipped, conffiles = self.plan.paths(one.host.record), one.own.conffiles
        md5sums = self.upper.md5sums(one.own.record)
        places = {self.plan.places.of(path, one.own.name): path for path in self.upper.paths(one.own.record)}
        found = dict(self.upper.among(places))
        for at in sorted(found, reverse=True):
            path, kind = places[at], found[at].st_mode & files.KIND
            if kind == files.DIRECTORY:
                self.upper.remove_idle_whiteouts(at)
                self.emptied[at] = one
            elif overlayfs.is_whiteout(found[at]) or at in self.others:
                pass
            elif path in conffiles:
                if self.plan.is_shipped_conffile(path, one.host, one.own):
                    self.upper.unlink(at)
            elif kind == files.SYMLINK and self.upper.is_shipped_link(at):
                if path not in shipped or at == self.plan.host_places.of(path, one.host.name):
                    self.upper.unlink(at)
            elif kind == files.REGULAR and self.upper.md5(at) == md5sums.get(path):
                if path in shipped and self.put(one, path, at):
                    self.settled.add(at)
                else:
                    self.upper.unlink(at)
            else:
                self.tell(at, f"/{at} was changed inside, and hides that of {one.record}")
        places = {self.plan.host_places.of(path, one.host.name): path for path in shipped - one.host.conffiles.keys()}
        for at, status in self.upper.among(places):
            if overlayfs.is_whiteout(status) and self.plan.places.of(places[at], one.host.name) == at:
                self.upper.unlink(at)

    def put(self, one: Change, path: str, at: str, mine: posix.stat_result | None = None) -> bool:
        """Put a file of the host's where the subhost has it otherwise than the host.  Returns whether it has.

        mine is what stat(2) says of the one that is there, whose mode and owner count, if no override does.
        """
        assert one.host
        there = self.plan.host_places.of(path, one.host.name)
        source = self.plan.lower.opened(there)
        if source is None:
            return False
        with source:
            status = posix.fstat(source)
            if status.st_mode & files.KIND != files.REGULAR:
                return False
            mode, uid, gid = self.attributes_to_be(path, mine or status, status)
            if mine:
                self.tell_lost_bits(one, at, mine.st_mode & ~mode)
            if at == there and (mode, uid, gid) == attributes(status):
                return False
            with self.attributes_of(at if mine else "", source) as like:
                self.site.write(at, source, mode, uid, gid, like)
        return True

    def attributes_to_be(self, path: str, mine: posix.stat_result, theirs: posix.stat_result) -> tuple[int, int, int]:
        """Return mode and owners of a file: those that an override gives it, else those that the subhost has given it.

        It is set-user-ID or set-group-ID only if the host's is: a host that does not trust a program so any more is
        not to be told from a subhost in which somebody has, and dpkg would take it away in both.
        """
        mode, uid, gid = attributes(mine)
        return self.overridden(path) or (mode & ~(SET_ID & ~theirs.st_mode), uid, gid)

    def tell_lost_bits(self, one: Change, at: str, lost: int) -> None:
        if lost & SET_ID:
            self.tell(at, f"/{at} is not {SET_ID_NAMES[lost & SET_ID]} any more, as that of {one.record} is not "
                          f"(see dpkg-statoverride(1))")

    def attributes_of(self, at: str, source: Fd) -> Fd:
        """Return a descriptor of the file of which the extended attributes count."""
        own = self.upper.opened(at) if at else None
        return own if own is not None else Fd(posix.dup(source))

    def overridden(self, path: str) -> tuple[int, int, int] | None:
        """Return mode and owners that an override in the subhost gives a file, None if there is none."""
        found = self.overrides.get(path)
        accounts = self.plan.accounts
        if not found or not accounts:
            return None
        uid, gid = accounts.number("passwd", found.user), accounts.number("group", found.group)
        return (found.mode, uid, gid) if uid is not None and gid is not None else None

    def renew(self, one: Change) -> None:
        """Have what UPPER has at the paths of a package, and dpkg has not unpacked there, be what the host has now."""
        assert one.host
        name = one.host.name
        shipped = self.plan.paths(one.host.record) - one.host.conffiles.keys()
        places = {self.plan.places.of(path, name): path for path in shipped}
        there = dict(self.upper.among(places))
        for at, status in there.items():
            if self.upper.is_directory(status):
                below = self.plan.lower.status(at)
                if below and not self.upper.is_directory(below):
                    self.hiding[at] = one
            elif not overlayfs.is_whiteout(status):
                self.renew_file(one, places[at], at, status)
        for path in shipped & self.overrides.keys():
            at = self.plan.places.of(path, name)
            if at not in there:
                self.put(one, path, at)
        for path in shipped & self.plan.places.diverted.keys():
            at, outside = self.plan.places.of(path, name), self.plan.host_places.of(path, name)
            if at != outside:
                if at not in there or overlayfs.is_whiteout(there[at]):
                    self.put(one, path, at)
                if self.plan.shows(outside):
                    self.site.remove(outside)

    def renew_file(self, one: Change, path: str, at: str, status: posix.stat_result) -> None:
        """renew(), of one file of UPPER."""
        assert one.host
        outside = self.plan.host_places.of(path, one.host.name)
        theirs = self.plan.lower.status(outside)
        if at in self.told or at in self.settled or theirs is None:
            return
        wanted = self.attributes_to_be(path, status, theirs)
        lost = status.st_mode & ~wanted[0] & SET_ID
        if self.has_attribute(at, overlayfs.METACOPY):      # the content is the host's
            self.take_bits(one, at, lost)
            return
        if status.st_mode & theirs.st_mode & files.KIND == files.SYMLINK and (
                self.upper.link(at) == self.plan.lower.link(outside)):
            return
        own = self.upper.md5(at)
        if own and own == self.md5_outside(outside):
            if at not in self.others:
                if at == outside and wanted == attributes(theirs):
                    self.upper.unlink(at)
                    self.tell_lost_bits(one, at, lost)
                else:
                    self.take_bits(one, at, lost)
        elif own and at not in self.others and (own == self.former_md5(path) or self.is_overridden(path, at, status)):
            if not self.put(one, path, at, status):
                self.upper.unlink(at)
        else:
            self.tell(at, f"/{at} is the subhost's own, and hides that of {one.record}")

    def take_bits(self, one: Change, at: str, bits: int) -> None:
        """Have a file not be set-user-ID or set-group-ID any more."""
        if bits:
            self.site.clear_mode(at, bits)
            self.tell_lost_bits(one, at, bits)

    def md5_outside(self, path: str) -> str:
        found = self.plan.lower.opened(path)
        if found is None:
            return ""
        with found:
            return md5(found)

    def is_overridden(self, path: str, at: str, status: posix.stat_result) -> bool:
        """Tell whether a file was copied from the host for an override, where it is not known what the host had."""
        return (not self.former() and self.overridden(path) == attributes(status)
                and self.has_attribute(at, overlayfs.ORIGIN))

    def has_attribute(self, at: str, name: str) -> bool:
        """Tell whether a file in UPPER has an extended attribute of overlayfs's."""
        found = self.upper.opened(at)
        if found is None:
            return False
        with found:
            return name in posix.listxattr(paths.of_descriptor(found))

    def former_md5(self, path: str) -> str:
        """Return the MD5 sum of a file that the host had at a path, "" if it is not known."""
        if self.of_path is None:
            self.of_path = {path: md5 for found in self.former().values() for path, md5 in found.items()}
        return self.of_path.get(path, "")

    def former(self) -> dict[str, dict[str, str]]:
        if self.md5sums is None:
            self.md5sums = self.plan.kept_md5sums()
        return self.md5sums

    def drop(self, one: Change) -> None:
        """Remove what UPPER has of files that the host has not got any more, and that nobody has changed."""
        assert one.own
        md5sums = {path: md5 for path, md5 in self.former().get(one.own.record, {}).items()
                   if path not in one.own.conffiles}
        places = {self.plan.places.of(path, one.own.name): path for path in md5sums}
        for at, status in [*self.upper.among(places)]:
            path = places[at]
            outside = self.plan.host_places.of(path, one.own.name)
            if at not in self.others and (
                    status.st_mode & files.KIND == files.REGULAR
                    and self.upper.md5(at) == md5sums[path] != self.md5_outside(outside)
                    or overlayfs.is_whiteout(status) and self.plan.lower.status(at) is None):
                self.upper.unlink(at)
                while (at := paths.parent(f"/{at}")[1:]) and self.plan.lower.status(at) is None:
                    self.emptied[at] = one

    def remove_directories(self, found: dict[str, Change]) -> None:
        """Remove directories from UPPER in which nothing is, and tell of those left that hide what the host has.

        A process may be at work in one, and cannot make anything there any more once it is removed beneath the
        overlay mount; nor can others, nor see what the host has there, as long as that process is.  So the mount
        removes it, and one that is the host's, too, and hides nothing, stays.
        """
        self.site.refresh()
        for at in sorted(found, reverse=True):              # the deepest first
            if not self.upper.hides_below(at):
                continue
            below, own = self.plan.lower.status(at), self.upper.status(at)
            if below is None:
                self.site.remove_directory(at)
                continue
            if own and (not self.upper.is_directory(below) or attributes(own) == attributes(below)):
                self.note_shown(at)
                self.site.remove_directory(at)
                self.show(at)
            if self.upper.is_directory(self.upper.status(at)):
                self.tell(at, f"/{at} is the subhost's own, and hides that of {found[at].record}")
        found.clear()

    def note_shown(self, at: str) -> None:
        """Note a directory that is about to be removed, for the next call to show what it hides, if this is killed."""
        followed.keep(self.plan.store, {SHOWN: paths.encode(f"{at}\n")})

    def show(self, *places: str) -> None:
        """Remove the whiteout that the mount has put in the place of a directory which it has removed."""
        for at in places:
            found = self.upper.status(at)
            if found and overlayfs.is_whiteout(found):
                self.upper.unlink(at)
            followed.forget(self.plan.store, (SHOWN,))

    def tell(self, at: str, line: str) -> None:
        self.told.setdefault(at, line)


def attributes(status: posix.stat_result) -> tuple[int, int, int]:
    return status.st_mode & 0o7777, status.st_uid, status.st_gid
