"""What an overlay mount shows, read from its layers as they are now, and what it has cached.

Overlayfs does not ask its layers again for a name that it has cached: a file that was replaced beneath it, as dpkg(1)
does by rename(2), stays the old one, and a name that was looked for in vain stays absent.  What a whiteout, an opaque
or a redirected directory is, the kernel's Documentation/filesystems/overlayfs.rst describes.

A layer may be hostile: no symbolic link in it is followed.
"""
import posix
from errno import ELOOP, ENODATA, ENOENT, ENOTDIR, EOPNOTSUPP, EROFS, EXDEV

from . import beneath, files, namespaces, paths
from .files import Fd, Fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

OPAQUE, REDIRECT = "trusted.overlay.opaque", "trusted.overlay.redirect"     # xattr(7) of directories
METACOPY = "trusted.overlay.metacopy"
ORIGIN = "trusted.overlay.origin"       # of what the kernel has copied from a layer beneath
WHITEOUT = posix.makedev(0, 0)
NO_DIRECTORY = (ENOENT, ENOTDIR, ELOOP)
PLACE = posix.O_PATH | posix.O_NOFOLLOW
NOTHING = posix.stat_result((0,) * 10)


class Entry:
    """What a name stands for, false if that is nothing: its status, and of a directory its parts, the topmost first.

    A part is (number of its layer, descriptor); the end of a with statement closes them.
    """

    __slots__ = ("above", "layer", "parts", "status")

    def __init__(self, status: posix.stat_result = NOTHING, layer: int = -1, above: int = -1) -> None:
        self.status = status
        self.layer = layer              # the number of the one that it comes from, the topmost being 0
        self.above = above              # the descriptor of the part of its directory in which it is
        self.parts: list[tuple[int, Fd]] = []

    def __bool__(self) -> bool:
        return self.status is not NOTHING

    @property
    def kind(self) -> int:
        return self.status.st_mode & files.KIND

    def __enter__(self) -> "Entry":
        return self

    def __exit__(self, *_: object) -> None:
        while self.parts:
            posix.close(self.parts.pop()[1])


ABSENT = Entry()


class Tree:
    """Layers, the topmost first, by descriptors; what is mounted in them counts in the places of mounts only.

    These are the paths that have overlay mounts of their own, of the same layers.  So many of the layers as own says
    are the subhost's own.  The end of a with statement closes all layers.
    """

    __slots__ = ("first", "mounts", "own", "roots")

    def __init__(self, roots: Fds, mounts: "Collection[str]", *, own: int = 0, first: int = 0) -> None:
        """Of the roots, those from the number first on count."""
        self.roots = roots
        self.mounts = mounts
        self.own = own
        self.first = first

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        with self.roots:
            pass

    def __len__(self) -> int:
        return len(self.roots) - self.first

    def beneath(self, number: int) -> "Tree":
        """Return the tree that the layers from a number on make, as long as this one is open."""
        return Tree(self.roots, self.mounts, first=number)

    def root(self) -> Entry:
        """Return the root directory."""
        found = Entry(posix.fstat(self.roots[self.first]), self.first)
        found.parts = [(number, Fd(posix.dup(root))) for number, root in enumerate(self.roots) if number >= self.first]
        return found

    def find(self, path: str) -> Entry:
        """Return what is at an absolute path, without its place in the directory.  Symbolic links are not followed."""
        found, place = self.root() if len(self) else Entry(), ""
        names = [name for name in path.split("/") if name]
        for number, name in enumerate(names):
            with found as above:
                if len(above.parts) == 1 and above.parts[0][0] == len(self.roots) - 1:
                    at_once = self.in_lowest(above.parts[0][1], "/".join(names[number:]))
                    if at_once is not None:
                        return at_once
                place = f"{place}/{name}"
                found = self.child(above.parts, name, place)
        return found

    def in_lowest(self, directory: int, path: str) -> Entry | None:
        """Return what is at a path below a directory of the lowest layer: nothing depends on what is on the way.

        None if something is mounted there.
        """
        try:
            fd = beneath.opened(directory, path, PLACE, beneath.REFUSED | namespaces.NO_MOUNTS)
        except OSError as error:
            if error.errno not in (*NO_DIRECTORY, EXDEV):
                raise
            return None if error.errno == EXDEV else Entry()
        found = Entry(posix.fstat(fd), len(self.roots) - 1)
        if found.kind == files.DIRECTORY:
            found.parts.append((found.layer, fd))
        else:
            posix.close(fd)
        return Entry() if is_whiteout(found.status) else found

    def child(self, above: "Iterable[tuple[int, Fd]]", name: str, place: str) -> Entry:
        """Return what a name stands for in the directory that has these parts; place is its path."""
        found, parts = Entry(), list(above)
        for at, (number, directory) in enumerate(parts):
            try:
                status = posix.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError as error:
                if error.errno not in files.NOWHERE:
                    raise
                continue
            if status.st_mode & files.KIND != files.DIRECTORY:
                return found if found or is_whiteout(status) else Entry(status, number, directory)
            found = found or Entry(status, number, directory)
            try:
                part = beneath.opened(directory, name, files.PLACE | posix.O_NOFOLLOW, beneath.REFUSED)
            except OSError as error:
                if error.errno not in NO_DIRECTORY:         # it has just been replaced
                    raise
                break
            if not self.counts(part, directory, place):
                posix.close(part)
                continue
            found.parts.append((number, part))
            former = self.former_path(part, place)
            if former:
                found.parts += self.redirected(number, former, place, parts[at + 1:]).parts
            if former or attribute(part, OPAQUE) == b"y":
                break
        return found

    def redirected(self, number: int, former: str, place: str, below: "list[tuple[int, Fd]]") -> Entry:
        """Return what a directory that was renamed in the layer of that number is in those beneath it."""
        if paths.parent(former) == paths.parent(place):
            return self.child(below, paths.name(former), former)
        return self.beneath(number + 1).find(former)

    def former_path(self, directory: int, place: str) -> str:
        """Return the path that a directory of a layer, which is at place, has in those beneath; "" if it is the same.

        The kernel notes it from the root of the overlay mount on.
        """
        target = paths.decode(attribute(directory, REDIRECT))
        if target[:1] != "/":
            return paths.normal(paths.join(paths.parent(place), target)) if target else ""
        mounted = max((path for path in self.mounts if place.startswith(f"{path}/")), key=len, default="")
        return paths.normal(mounted + target)

    def counts(self, part: int, above: int, place: str) -> bool:
        """Tell whether a directory is a part of its layer, or of what is mounted there and counts."""
        return place in self.mounts or posix.fstat(part).st_dev == posix.fstat(above).st_dev or not bool(
            namespaces.mount_of(part)[1])

    def status(self, path: str) -> posix.stat_result | None:
        """Return what stat(2) says of what is at a path, None if that is nothing."""
        with self.find(path) as found:
            return found.status if found else None

    def names(self, parts: "Iterable[tuple[int, Fd]]") -> set[str]:
        """Return all names in the parts of a directory, also those that are hidden by a whiteout."""
        found: set[str] = set()
        for _, directory in parts:
            found.update(listed(directory))
        return found

    def names_in(self, path: str) -> set[str]:
        """Return names(), of a directory; none if there is none."""
        with self.find(path) as found:
            return self.names(found.parts)

    def opened(self, path: str) -> Fd | None:
        """Return a descriptor, as a place only, of what is at a path and no directory; None if there is none."""
        with self.find(paths.parent(f"/{path.lstrip('/')}")) as above:
            for _, directory in above.parts:
                try:
                    fd = beneath.opened(directory, paths.name(path), PLACE, beneath.REFUSED)
                except FileNotFoundError:
                    continue
                if files.kind_of(fd) != files.DIRECTORY and not is_whiteout(posix.fstat(fd)):
                    return fd
                posix.close(fd)
                break
        return None

    def read(self, path: str, limit: int) -> bytes | None:
        """Return at most limit bytes of the file at a path; None if there is no regular file."""
        found = self.opened(path)
        if found is None:
            return None
        with found:
            status = posix.fstat(found)
            if status.st_mode & files.KIND != files.REGULAR:
                return None                     # a device does something when it is opened
            with files.opened(paths.of_descriptor(found)) as fd:
                return posix.read(fd, min(limit, status.st_size or limit))

    def link(self, path: str) -> str:
        """Return where the symbolic link at a path leads, "" if there is none."""
        found = self.opened(path)
        if found is None:
            return ""
        with found:
            return posix.readlink("", dir_fd=found) if files.kind_of(found) == files.SYMLINK else ""


def opened(directories: "Iterable[str]") -> Fds:
    """Return descriptors of layers, by their paths.  Raises OSError for one that cannot be opened."""
    with Fds() as found:
        for path in directories:
            found.keep(files.opened(path, files.PLACE))
        layers = Fds(found)
        found.let_go()
    return layers


def listed(directory: int) -> list[str]:
    """Return the names in a directory, in order."""
    with files.opened(".", files.READ_DIRECTORY, directory=directory) as fd:
        return sorted(posix.listdir(fd))


def attribute(fd: int, name: str) -> bytes:
    """Return an extended attribute of what is open, also as a place only, b"" if it has none of that name."""
    try:
        return posix.getxattr(paths.of_descriptor(fd), name)
    except OSError as error:
        if error.errno not in (ENODATA, EOPNOTSUPP):
            raise
        return b""


def is_whiteout(status: posix.stat_result) -> bool:
    """Tell whether it is what stands in a layer for a name that is removed."""
    return status.st_mode & files.KIND == files.CHARACTER_DEVICE and status.st_rdev == WHITEOUT


def drop_cached_names(root: int) -> None:
    """Have an overlay mount, of which root is the root directory, ask its layers again for what nobody uses.

    Raises OSError, EINVAL for a directory that is not the root of a mount.
    """
    try:
        namespaces.reconfigure(root)
    except OSError as error:
        if error.errno != EROFS:        # of one without UPPER: the kernel has dropped them before it refuses to write
            raise
