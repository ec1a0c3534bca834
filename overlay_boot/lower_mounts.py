"""LOWER_MOUNTS: file systems that are mounted below LOWER, each of them beneath an overlay mount of its own.

An overlay mount shows nothing of what is mounted below its layers.  So what is mounted on /home there gets a second
overlay mount, on /home of the subhost, with UPPER/home above: together they show what one file system would, and UPPER
has the same in the same places as if it was one.  A LAYER and what HIDE hides lie in between, as in the first.

The kernel refuses an UPPER inside another one that is in use, not one that has another one in it: the mounts are made
in the order from below to above, that of the root last, and attached to it afterwards.
"""
import posix

from . import beneath, files, namespaces, paths, proc
from .errors import Failure
from .files import Fd
from .hiding import Attributes
from .overlayfs import OPAQUE, REDIRECT, attribute
from .proc import DISKS, Mount
from .sources import WORKS, LowerMount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SUBVOLUME = 256         # the inode number of its root
# What the host does not permit on a file system of its own, nobody can do in the subhost.
CARRIED = {"nosuid": namespaces.NOSUID, "nodev": namespaces.NODEV, "noexec": namespaces.NOEXEC}
NOT_SHOWN = ("/dev", "/proc", "/run", "/sys")       # POSTMOUNT mounts something else there


def find(wanted: list[str], lower: list[str], base: str) -> list[LowerMount]:
    """Return what is mounted below the directories of LOWER, as this process sees it, a directory before what is in it.

    wanted are the words of LOWER_MOUNTS; what is at BASE or below it is left out.  Raises Failure for a path of these
    on which nothing is mounted.
    """
    named = {word for word in wanted if word.startswith("/")}
    kinds = DISKS if len(named) < len(wanted) else ()
    found: dict[str, LowerMount] = {}
    for path in lower:
        above = paths.real(path).rstrip("/")
        places = {above + word for word in named}
        mounts = proc.mounts_of(kinds, places)
        binds = bind_mounts(mounts)
        for number, mount in mounts.items():
            inside = mount.place.removeprefix(above) if mount.place.startswith(f"{above}/") else ""
            if inside.strip("/") and (inside in named or
                                      number not in binds and is_to_be_shown(mount.place, inside, base)):
                look_at(number, mount, found.setdefault(inside, LowerMount(inside)))
    for word in named:
        if word not in found or not found[word].roots:
            if word in found and any(files.kind(f"{paths.real(path).rstrip('/')}{word}") not in (0, files.DIRECTORY)
                                     for path in lower):
                raise Failure(f"LOWER_MOUNTS: {word} is no directory: mount a file in the subhost by SHARE")
            raise Failure(f"LOWER_MOUNTS: nothing is mounted on {word} below LOWER")
    return [found[inside] for inside in sorted(found) if found[inside].roots]


def bind_mounts(mounts: dict[int, Mount]) -> set[int]:
    """Return those that show a part of a file system, which is no subvolume, or what an earlier one shows."""
    seen, found = set(), set()
    for number, mount in mounts.items():
        what = (mount.device, mount.shows)
        if what in seen or mount.shows != "/" and not is_subvolume(mount):
            found.add(number)
        seen.add(what)
    return found


def is_subvolume(mount: Mount) -> bool:
    """Tell whether a mount shows a subvolume, btrfs(5)."""
    try:
        return mount.kind == "btrfs" and posix.stat(mount.place).st_ino == SUBVOLUME
    except OSError:
        return False


def is_to_be_shown(place: str, inside: str, base: str) -> bool:
    """Tell whether a mount is neither the subhost's own, nor where something else is mounted in it."""
    return not f"{place}/".startswith(f"{base.rstrip('/')}/") and not any(
        f"{inside}/".startswith(f"{path}/") for path in NOT_SHOWN)


def look_at(number: int, mount: Mount, found: LowerMount) -> None:
    """Note the root directory of a mount, and what it forbids, unless another one is upon it, or it has just gone."""
    try:
        with files.opened(mount.place, files.PLACE | posix.O_NOFOLLOW) as fd:
            if namespaces.mount_of(fd) == (number, True):
                found.roots.add(files.identity(fd))
                for option in mount.options:
                    found.attributes |= CARRIED.get(option, 0)
    except OSError:             # a file, or a network file system whose server is gone
        pass


class Layer:
    """What a directory among the layers has at a path."""

    __slots__ = ("fd", "is_last", "path")

    def __init__(self, fd: Fd | None, path: str, *, is_last: bool) -> None:
        self.fd = fd                # of a directory, None if there is none
        self.path = path
        self.is_last = is_last      # nothing beneath it counts


def look_in(layer: int, place: str, inside: str) -> Layer:
    """Return what the directory of a descriptor, which is at place, has at the path inside, as overlayfs sees it."""
    at, is_last = Fd(posix.dup(layer)), False
    for part in inside[1:].split("/"):
        with at:
            try:
                at = beneath.opened(at, part, posix.O_PATH | posix.O_NOFOLLOW, namespaces.NO_SYMLINKS)
            except FileNotFoundError:
                return Layer(None, "", is_last=is_last)
        if files.kind_of(at) != files.DIRECTORY or attribute(at, REDIRECT):
            posix.close(at)
            return Layer(None, "", is_last=True)
        is_last = is_last or attribute(at, OPAQUE) == b"y"
    return Layer(at, f"{place.rstrip('/')}{inside}", is_last=is_last)


class Stack:
    """The layers that a mount has beneath UPPER: their paths, the topmost first, of which number are LAYERs."""

    __slots__ = ("attributes", "hidden", "inside", "is_mounted", "number", "paths", "work")

    def __init__(self, mount: LowerMount, lower: list[str], layers: int, hiding: int = -1) -> None:
        """lower are LAYER's, which are so many, and LOWER's directories; hiding is the layer between them, or -1."""
        self.inside, self.work, self.attributes = mount.inside, mount.work, mount.attributes
        self.paths: list[str] = []
        self.number = 0
        self.hidden: Fd | None = None       # what that layer has
        self.is_mounted = False             # whether there is anything that is not seen without it
        for number, place in enumerate(lower):
            if number == layers:
                self.number = len(self.paths)
                if hiding >= 0 and self.hide(hiding):
                    break
            if self.add(place, mount.roots):
                break

    def hide(self, hiding: int) -> bool:
        """Take what the layer that hides something has.  Return whether nothing beneath it counts, as of add()."""
        found = look_in(hiding, "", self.inside)
        self.hidden = found.fd
        return found.is_last

    def add(self, place: str, roots: set[tuple[int, int]]) -> bool:
        """Add what a directory of LOWER has."""
        with files.opened(place, files.PLACE) as layer:
            found = look_in(layer, place, self.inside)
        if found.fd is not None:
            with found.fd:
                self.is_mounted = self.is_mounted or files.identity(found.fd) in roots
            self.paths.append(found.path)
        return found.is_last


def stacks(mounts: list[LowerMount], lower: list[str], layers: int, hiding: int, upper: int, work: int) -> list[Stack]:
    """Return the stacks of what is to be mounted, with the directories for them made in those of UPPER and WORK.

    The arguments are those of Stack, and descriptors of UPPER and WORK as they are on the disk.
    """
    found = []
    for mount in mounts:
        stack = Stack(mount, lower, layers, hiding)
        if stack.is_mounted and is_free(upper, mount.inside):
            make_missing(upper, mount.inside, lower)
            make_directory(work, WORKS, 0o700)
            make_directory(work, mount.work, 0o700)
            found.append(stack)
        elif stack.hidden is not None:
            posix.close(stack.hidden)
    return found


def is_free(upper: int, inside: str) -> bool:
    """Tell whether UPPER has nothing of its own in the place of a directory of LOWER."""
    found = look_in(upper, "", inside)
    if found.fd is not None:
        posix.close(found.fd)
    return not found.is_last


def make_missing(upper: int, inside: str, lower: list[str]) -> None:
    """Make the directory inside, and those above it, in UPPER, each as it is in the topmost layer that has it."""
    parts = inside[1:].split("/")
    for number in range(1, len(parts) + 1):
        path = "/".join(parts[:number])
        if not beneath.exists(upper, path, beneath.REFUSED):
            original = next((place for place in (f"{layer}/{path}" for layer in lower) if files.kind(place)), "")
            if original:                # else it has just gone
                make_directory(upper, path, like=Attributes(original))


def make_directory(root: int, path: str, mode: int = 0, like: "Attributes | None" = None) -> None:
    """Make a directory, that belongs to root of the host, or to whom another one belongs; unless it is there."""
    mask = posix.umask(0)
    try:
        with beneath.directory(root, paths.parent(f"/{path}")[1:], beneath.REFUSED) as above:
            name = paths.name(path)
            posix.mkdir(name, like.mode if like else mode, dir_fd=above)
            posix.chown(name, 0, 0, dir_fd=above)           # whoever makes files now: userns.Owner
            if like:
                made = f"{paths.of_descriptor(above)}/{name}"
                like.give(made)
                posix.utime(made, ns=(like.status.st_atime_ns, like.status.st_mtime_ns))
    except FileExistsError:
        pass
    finally:
        posix.umask(mask)


def attach(root: int, mounted: "Iterable[tuple[str, Fd, int]]") -> None:
    """Mount each (path, descriptor, attributes) below the directory root, if it has the place, and close it."""
    for inside, fd, attributes in mounted:
        with fd:
            if attributes:
                namespaces.mount_setattr(fd, attributes)
            if beneath.exists(root, inside[1:], beneath.REFUSED):
                with beneath.directory(root, inside[1:], beneath.REFUSED) as target:
                    namespaces.move_mount(fd, target)
