"""The files of /etc and /var as packages ship them.

A file whose MD5 sum on disk is the one that dpkg has on record is as it was shipped, and copied; another one comes out
of its package's archive.
"""
import hashlib
import os
import stat

from .. import paths
from ..errors import complain
from . import apt
from .layer import Layer
from .packages import RECORDS, Database, Package, contents
from .system import System

PLACES = ("/etc/", "/var/")
NOT_THEIRS = (f"{RECORDS}/",)              # dpkg's own: records.py
OF_PACKAGES = ("/usr/", "/etc/", "/var/", "/run/", "/proc/", "/dev/", "/lib/", "/bin/", "/sbin/")
OF_ADMINISTRATORS = ("/usr/local/",)
BESIDE = ("", ".dpkg-dist", ".dpkg-new", ".ucf-dist")   # where dpkg and ucf leave the shipped version of an edited file
LARGEST = 1 << 26                               # bytes of a file that is compared


class Origin:
    """Where a file of the system comes from: the package, the path that it has in there, its MD5 sum or None."""

    __slots__ = ("md5", "package", "path")

    def __init__(self, package: Package, path: str, md5: str | None) -> None:
        self.package, self.path, self.md5 = package, path, md5


class Shipped:
    """What the packages of a system ship in /etc and /var."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.origins: dict[str, Origin] = {}    # by the path in the system, which differs if it is diverted
        for package in system.database.packages:
            self.add(system.database, package)
        self.parents = {parent for path in self.origins for parent in parents(path)}

    def add(self, database: Database, package: Package) -> None:
        found = [path for path in package.paths if path.startswith(PLACES) and not path.startswith(NOT_THEIRS)]
        if not found:
            return
        md5sums = package.md5sums()
        for path in found:
            md5 = package.conffiles.get(path) or md5sums.get(path)
            place = database.installed_path(path, package)
            if place not in self.origins or md5:
                self.origins[place] = Origin(package, path, md5)

    def restore(self, layer: Layer, directory: str, *, offline: bool) -> bool:
        """Write all of it to the layer, with archives that are fetched into the directory unless this is to be offline.

        Tells whether all could be had, and complains of what could not.
        """
        edited: dict[Package, dict[str, str]] = {}      # {package: {path in it: path in the system}}
        for place in sorted(self.origins):              # a directory before what is in it
            if not self.restore_from_system(layer, place):
                origin = self.origins[place]
                edited.setdefault(origin.package, {})[origin.path] = place
        archives = apt.fetch(edited, self.system, directory, offline=offline)
        complete = True
        for package, wanted in edited.items():
            if package in archives:
                self.restore_from_archive(layer, archives[package], wanted)
            if wanted:
                complete = False
                complain(f"cannot get {package.name} {package.version}: the baseline lacks "
                         f"{', '.join(sorted(wanted.values()))}")
        return complete

    def restore_from_system(self, layer: Layer, place: str) -> bool:
        """Copy a file from the system, if it is there as it was shipped; tell whether it was."""
        md5 = self.origins[place].md5
        if md5:
            return copy_matching(layer, self.system, place, md5, [place + suffix for suffix in BESIDE])
        info = self.system.lstat(place)
        if place in self.parents or info and stat.S_ISDIR(info.st_mode):
            layer.make_directory(place, *self.system.of_directory(place))
            return True
        if not info or not stat.S_ISLNK(info.st_mode):
            return False
        target = os.readlink(self.system.path_of(place))
        if not leads_into_system(place, target):
            return False
        layer.make_symlink(place, target)
        return True

    def restore_from_archive(self, layer: Layer, archive: str, wanted: dict[str, str]) -> None:
        """Write the wanted {path: path in the system} of an archive to the layer, and take them out of wanted."""
        for member, content in contents(archive):
            place = wanted.get(member.name)
            if place is None:
                continue
            attributes = member.mode, self.system.accounts.named(member)
            if member.isdir():
                layer.make_directory(place, *attributes)
            elif member.issym():
                layer.make_symlink(place, member.linkname)
            elif content:
                data = content.read()
                if self.origins[place].md5 not in (None, md5_of(data)):
                    continue                    # not the package that it is called
                info = self.system.lstat(place)
                if info and stat.S_ISREG(info.st_mode):     # maintainer scripts have set what it has
                    attributes = self.system.attributes(info)
                layer.make_file(place, data, *attributes)
            else:
                continue
            del wanted[member.name]


def parents(path: str) -> list[str]:
    """Return the directories above a path, but for those on top."""
    found = []
    path = paths.parent(path)
    while path.count("/") > 1:
        found.append(path)
        path = paths.parent(path)
    return found


def leads_into_system(place: str, target: str) -> bool:
    """Tell whether a symbolic link at place leads to where packages have their files."""
    path = paths.normal(paths.join(paths.parent(place), target)) + "/"
    return path.startswith(OF_PACKAGES) and not path.startswith(OF_ADMINISTRATORS)


def copy_matching(layer: Layer, system: System, place: str, md5: str, sources: list[str]) -> bool:
    """Copy to place the first of the sources that has the MD5 sum; tell whether one has."""
    for source in sources:
        try:
            found = system.read_file(source, LARGEST)
        except OSError:
            continue
        if found and md5_of(found[0]) == md5:
            data, info = found
            layer.make_file(place, data, *system.attributes(info))
            return True
    return False


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def restore_registered(layer: Layer, system: System) -> bool:
    """Write the files of /etc that are registered with ucf(1), as it has them on record.

    Tells whether all could be had, and complains of what could not.
    """
    registered = (line.split() for line in system.lines("/var/lib/ucf/registry"))
    owners = {words[1]: words[0] for words in registered if len(words) == 2}
    complete = True
    for line in system.lines("/var/lib/ucf/hashfile"):
        md5, _, place = line.partition("  ")
        if not place.startswith("/etc/") or layer.has(place):
            continue
        templates = [path for package in system.database.packages if package.name == owners.get(place)
                     for path, known in package.md5sums().items() if known == md5]
        cached = f"/var/lib/ucf/cache/{place.replace('/', ':')}"
        sources = [*(place + suffix for suffix in BESIDE), cached, *templates]
        if not copy_matching(layer, system, place, md5, sources):
            complete = False
            complain(f"cannot restore {place}: the host has no copy of it as its package registered it")
    return complete
