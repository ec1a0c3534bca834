"""The files of /etc and /var as packages ship them.

A file whose MD5 sum on disk is the one that dpkg has on record is as it was
shipped, and copied; another one comes out of its package's archive.
"""
import os
import stat

from . import paths
from .errors import complain
from .packages import archives, lines, members

PLACES = ("/etc/", "/var/")
NOT_THEIRS = ("/var/lib/dpkg/",)                # its own copy: records.py
SYSTEM = ("/usr/", "/etc/", "/var/", "/run/", "/proc/", "/dev/", "/lib/", "/bin/", "/sbin/")
ADMINISTRATORS = ("/usr/local/",)
BESIDE = ("", ".dpkg-dist", ".dpkg-new", ".ucf-dist")   # where dpkg and ucf leave the shipped version of an edited file
LARGEST = 1 << 26                               # bytes of a file that is compared


class Shipped:
    """What the packages of a database ship in /etc and /var of root: for each path, by whom and its MD5 sum."""

    def __init__(self, database, root, accounts):
        self.root, self.accounts = root, accounts
        self.origin = {}        # path: (package, path in the package, its md5 or None)
        for package in database.packages:
            self.note(database, package)
        self.directories = {parent for path in self.origin for parent in parents(path)}

    def note(self, database, package):
        found = [path for path in package.paths if path.startswith(PLACES) and not path.startswith(NOT_THEIRS)]
        if not found:
            return
        sums = package.sums()
        for path in found:
            md5 = package.conffiles.get(path) or sums.get(path)
            place = database.place(path, package)
            if place not in self.origin or md5:
                self.origin[place] = (package, path, md5)

    def restore(self, tree, directory, *, offline):
        """Write all of it to a tree, with archives that are fetched in a directory; packages that cannot be had."""
        edited = {}
        for place in sorted(self.origin):       # a directory before what is in it
            if not self.take(tree, place):
                package, path, _ = self.origin[place]
                edited.setdefault(package, {})[path] = place
        found = archives(edited, self.root, directory, offline=offline)
        missing = []
        for package, wanted in edited.items():
            if package in found:
                self.unpack(tree, found[package], wanted)
            if wanted:
                missing.append((package, sorted(wanted.values())))
        return missing

    def take(self, tree, place):
        """Copy a path from the system, if it is there as it was shipped; else False."""
        md5 = self.origin[place][2]
        if md5:
            return copy(tree, self.root, place, md5, self.accounts)
        info = self.look(place)
        if place in self.directories or info and stat.S_ISDIR(info.st_mode):
            self.directory(tree, place, info)
            return True
        if not info or not stat.S_ISLNK(info.st_mode):
            return False
        target = os.readlink(self.root + place)
        if not leads_into_system(place, target):
            return False
        tree.link(place, target)
        return True

    def look(self, place):
        try:
            return os.lstat(self.root + place)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def directory(self, tree, place, info):
        if info and stat.S_ISDIR(info.st_mode):
            tree.directory(place, stat.S_IMODE(info.st_mode), self.accounts.owner(info))
        else:
            tree.directory(place)

    def unpack(self, tree, archive, wanted):
        """Write the wanted {path: place} of an archive to the tree, and take them out of wanted."""
        for member, content in members(archive):
            place = wanted.get(member.name)
            if place is None:
                continue
            owner = self.accounts.named(member)
            if member.isdir():
                tree.directory(place, member.mode, owner)
            elif member.issym():
                tree.link(place, member.linkname)
            elif content:
                data = content.read()
                if self.origin[place][2] not in (None, md5_of(data)):
                    continue                    # not the package that it is called
                tree.file(place, data, *self.attributes(place, (member.mode, owner)))
            else:
                continue
            del wanted[member.name]

    def attributes(self, place, shipped):
        """(mode, owner) of a regular file: the system's, for maintainer scripts set them; else as shipped."""
        info = self.look(place)
        if info and stat.S_ISREG(info.st_mode):
            return stat.S_IMODE(info.st_mode), self.accounts.owner(info)
        return shipped


def parents(path):
    """The directories above a path, but for those on top."""
    path = paths.parent(path)
    while path.count("/") > 1:
        yield path
        path = paths.parent(path)


def leads_into_system(place, target):
    """Whether a symbolic link leads to where packages have their files."""
    path = paths.normal(paths.join(paths.parent(place), target)) + "/"
    return path.startswith(SYSTEM) and not path.startswith(ADMINISTRATORS)


def copy(tree, root, place, md5, accounts, sources=None):
    """Copy a file from the first of the sources, else from its place, that has the MD5 sum; False if none has."""
    for source in sources or [place + suffix for suffix in BESIDE]:
        try:
            fd = os.open(root + source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        with open(fd, "rb") as file:
            info = os.fstat(fd)
            data = file.read() if stat.S_ISREG(info.st_mode) and info.st_size <= LARGEST else None
        if data is not None and md5_of(data) == md5:
            tree.file(place, data, stat.S_IMODE(info.st_mode), accounts.owner(info))
            return True
    return False


def md5_of(data):
    import hashlib
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def restore_registered(tree, root, database, accounts):
    """The files of /etc that are registered with ucf(1), as it has them on record; those that could not be had."""
    owners = dict(reversed(line.split()) for line in lines(f"{root}/var/lib/ucf/registry") if len(line.split()) == 2)
    missing = []
    for line in lines(f"{root}/var/lib/ucf/hashfile"):
        md5, _, place = line.partition("  ")
        if not place.startswith("/etc/") or tree.has(place):
            continue
        templates = [path for package in database.packages if package.name == owners.get(place)
                     for path, known in package.sums().items() if known == md5]
        sources = [*(place + suffix for suffix in BESIDE), f"/var/lib/ucf/cache/{place.replace('/', ':')}", *templates]
        if not copy(tree, root, place, md5, accounts, sources):
            missing.append(place)
    return missing


def report(missing):
    """Name the packages, and their files, that could not be had."""
    for package, places in missing:
        complain(f"cannot get {package.name} {package.version}: without {', '.join(places)}")
