"""HIDE: what of LOWER a subhost does not see.

A layer right above LOWER has a whiteout for each file that is hidden, and an empty directory, which is opaque, for each
directory.  UPPER and what LAYER names lie above it and are seen, and inside there is nothing that could be undone.  The
layer is on a tmpfs, made anew by each boot before anybody sees it.

Paths in LOWER and in the layer are as /etc/passwd.  A place is such a path without symbolic links.
"""
import posix
from errno import EOPNOTSUPP

from . import beneath, files, paths
from .config import SECRETS
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .sources import Sources
    Way = Callable[["Layer", str], None]

OPAQUE = "trusted.overlay.opaque"       # xattr(7) of a directory: nothing is seen of those of the same path beneath
OF_OVERLAYFS = "trusted.overlay."       # what means something only where overlayfs has written it
WHITEOUT = posix.makedev(0, 0)
SET_ID, FOR_ALL = 0o6000, 0o004         # bits of a mode: set-user-ID and set-group-ID; readable for all
SPOOL_DEPTH = 2                         # postfix/deferred, cron/crontabs: what is deeper, programs make themselves
LONGEST_TEXT = 1 << 22                  # bytes that are read of passwd(5) or shadow(5)


def make_layer(root: int, below: int, sources: "Sources") -> None:
    """Make the layer in an empty directory, root, over the root that LOWER makes, below.

    Raises OSError, or Failure for a path that leads to the root.
    """
    # Relative to the current directory, a file is reached in half the time that it takes by way of /proc/self/fd.
    with files.opened(".", files.PLACE) as here:
        mask = posix.umask(0)
        try:
            found = Lower(below)
            ways = ways_of(found, sources)
            found.look_above(ways)
            posix.fchdir(root)
            layer = Layer(found)
            for place in sorted(ways):                      # a directory before what is in it
                ways[place](layer, place)
            layer.finish()
        finally:
            posix.umask(mask)
            posix.fchdir(here)


def ways_of(found: "Lower", sources: "Sources") -> "dict[str, Way]":
    """Return what is done at which place."""
    named: dict[str, Way] = dict.fromkeys(found.places(path for path in sources.hide if path != SECRETS), Layer.hide)
    if SECRETS not in sources.hide:
        return named
    from . import host_secrets
    lower = sources.lower[len(sources.layers):]
    secrets = found.places(host_secrets.files_and_directories(found.below, lower, sources.name, sources.base))
    passwords = found.places(host_secrets.PASSWORDS)
    spools = [*found.places(host_secrets.SPOOLS)]
    kept = [inner for place in spools for inner in found.directories_in(place, SPOOL_DEPTH)]
    return {**dict.fromkeys((*secrets, *spools), Layer.hide), **dict.fromkeys(passwords, Layer.lock_passwords),
            **named, **dict.fromkeys(kept, Layer.keep)}


def place_of(below: int, path: str) -> str:
    """Return the place of what a path leads to, "" if that is nowhere.  Raises OSError."""
    try:
        with beneath.opened(below, path, posix.O_PATH, beneath.INSIDE) as fd:
            return posix.readlink(paths.of_descriptor(fd))      # below is a mount that is mounted nowhere
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return ""


def place_to_hide(below: int, path: str) -> str:
    """place_of() what is to be hidden.  Raises Failure if that cannot be."""
    try:
        place = place_of(below, path)
    except OSError as error:
        raise unhideable(path, error.strerror) from None
    if place == "/":
        raise unhideable(path, "it leads to the root directory")
    return place


def unhideable(path: str, why: str | None) -> Failure:
    return Failure(f"HIDE: cannot hide {path}: {why}")


def without_passwords(text: bytes) -> bytes:
    """Return the text of a file as passwd(5) or shadow(5) with `*`, which no password has, in place of each hash."""
    lines = [line.split(b":", 2) for line in text.split(b"\n")]
    for fields in lines:
        if len(fields) > 2 and fields[1] != b"x":       # that is: it stands in shadow(5)
            fields[1] = b"*"
    return b"\n".join(map(b":".join, lines))


class Attributes:
    """What a file of LOWER is, and what the kernel shows of a directory as it stands in the topmost layer."""

    __slots__ = ("kind", "status", "target", "xattrs")

    def __init__(self, name: str) -> None:
        """Read those of a file in the current directory.  Raises OSError."""
        self.status = posix.lstat(name)
        self.kind = self.status.st_mode & files.KIND
        self.target = posix.readlink(name) if self.kind == files.SYMLINK else ""
        self.xattrs = [(attribute, posix.getxattr(name, attribute, follow_symlinks=False))
                       for attribute in posix.listxattr(name, follow_symlinks=False)
                       if not attribute.startswith(OF_OVERLAYFS)]

    @property
    def mode(self) -> int:
        return self.status.st_mode & ~files.KIND

    def give(self, path: str) -> None:
        """Give a file of the layer, which was made with the same mode, owner and extended attributes as well."""
        if self.status.st_uid or self.status.st_gid:
            posix.chown(path, self.status.st_uid, self.status.st_gid)
        if self.mode & SET_ID:              # which mkdir(2) does not set, and chown(2) takes away
            posix.chmod(path, self.mode)
        for name, value in self.xattrs:
            try:
                posix.setxattr(path, name, value)
            except OSError as error:
                if error.errno != EOPNOTSUPP or not name.startswith("user."):   # tmpfs has them since Linux 6.6
                    raise


class Lower:
    """The root that LOWER makes: the places of paths in it, and the attributes of what is there.

    Whatever is looked at is in the current directory.
    """

    __slots__ = ("attributes", "below", "entered", "place")

    def __init__(self, below: int) -> None:
        self.below = below
        self.attributes: dict[str, Attributes | None] = {}      # by the place; None if nothing is there
        self.entered = ""                                       # the path of the current directory, and its place
        self.place = ""

    def places(self, wanted: "Iterable[str]") -> "Iterator[str]":
        """Yield the place of each path, except those in directories that are not there.

        Nothing need be there.  A symbolic link is followed, unless it leads nowhere.
        """
        for path in wanted:
            try:
                place = self.look_at(path)
                if place and self.is_kind(place, files.SYMLINK):
                    target = place_to_hide(self.below, path)
                    place = self.look_at(target) if target else place
            except OSError as error:
                raise unhideable(path, error.strerror) from None
            if place:
                yield place

    def look_at(self, path: str) -> str:
        """Return the place of a path without following it, "" if its directory is not there."""
        parent, name = self.enter(paths.parent(path)), paths.name(path)
        if not parent:
            return ""
        place = paths.join(parent, name)
        if place not in self.attributes:
            try:
                self.attributes[place] = Attributes(name)
            except FileNotFoundError:
                self.attributes[place] = None
        return place

    def enter(self, path: str) -> str:
        """Make a directory the current one and look at it.  Return its place, "" if it is not there."""
        if path != self.entered:
            self.entered, self.place = path, ""
            try:
                with beneath.directory(self.below, path, beneath.INSIDE) as fd:
                    posix.fchdir(fd)
                    self.place = posix.readlink(paths.of_descriptor(fd))
            except OSError as error:
                if error.errno not in files.NOWHERE:
                    raise
            else:
                self.attributes[self.place] = Attributes(".")
        return self.place

    def directories_in(self, place: str, depth: int) -> list[str]:
        """Return the places of the directories in a directory, and in these, so many levels, and of symbolic links."""
        if not self.is_kind(place, files.DIRECTORY) or self.enter(place) != place:
            return []
        found = [self.look_at(f"{place}/{name}") for name in posix.listdir(".")]
        inner = [path for path in found if self.is_kind(path, files.DIRECTORY)] if depth > 1 else []
        return [*(path for path in found if self.is_kind(path, files.DIRECTORY, files.SYMLINK)),
                *(deeper for path in inner for deeper in self.directories_in(path, depth - 1))]

    def is_kind(self, place: str, *kinds: int) -> bool:
        found = self.attributes[place]
        return bool(found and found.kind in kinds)

    def look_above(self, places: "Iterable[str]") -> None:
        """Look at all directories above the places."""
        for place in places:
            above = paths.parent(place)
            while above != "/":
                if above not in self.attributes:
                    self.enter(above)
                above = paths.parent(above)


class Layer:
    """The layer that is being made: the current directory."""

    __slots__ = ("attributes", "below", "hidden", "locked", "made")

    def __init__(self, lower: Lower) -> None:
        self.attributes = lower.attributes
        self.below = lower.below
        self.hidden: set[str] = set()
        self.locked: list[str] = []         # files without passwords
        self.made: set[str] = set()         # directories

    def hide(self, place: str) -> None:
        """Hide a file, or what is in a directory, or what should be there later; unless it is hidden already."""
        if not self.make_way(place):
            return
        self.hidden.add(place)
        found = self.attributes[place]
        if found and found.kind == files.DIRECTORY:
            self.make_directory(place, found)
            posix.setxattr(place[1:], OPAQUE, b"y")
        else:
            posix.mknod(place[1:], files.CHARACTER_DEVICE, WHITEOUT)

    def make_way(self, place: str) -> bool:
        """Make the directories above a place; tell whether they are there, and none is hidden."""
        parts = place.split("/")
        for number in range(2, len(parts)):
            above = "/".join(parts[:number])
            if above in self.hidden:
                return False
            if above not in self.made:
                found = self.attributes.get(above)
                if not found:               # it has just gone
                    return False
                self.make_directory(above, found)
        return True

    def make_directory(self, place: str, original: Attributes) -> None:
        """Make a directory of the same mode as in LOWER."""
        posix.mkdir(place[1:], original.mode)
        self.made.add(place)

    def keep(self, place: str) -> None:
        """Make a directory, or a symbolic link, in a directory that is hidden."""
        found = self.attributes[place]
        if found and paths.parent(place) in self.made:
            if found.target:
                posix.symlink(found.target, place[1:])
            else:
                self.make_directory(place, found)

    def lock_passwords(self, place: str) -> None:
        """Replace a file as passwd(5) or shadow(5) by one without passwords, unless it has none that is secret."""
        found = self.attributes[place]
        if not found or found.kind != files.REGULAR or not self.make_way(place):
            self.hide(place)
            return
        text = beneath.read(self.below, place[1:], LONGEST_TEXT, beneath.REFUSED) or b""
        locked = without_passwords(text)
        if locked == text and found.mode & FOR_ALL:
            return
        with files.opened(place[1:], posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, found.mode) as fd:
            files.write_all(fd, locked)
        self.hidden.add(place)
        self.locked.append(place)

    def finish(self) -> None:
        """Give all that has been made the attributes that it has in LOWER.

        By now nothing inherits the group or the access control list of a directory, and no time changes any more: that
        of /usr tells systemd of an upgrade.
        """
        for place in (*self.made, *self.locked):
            found = self.attributes[place]
            if found:
                found.give(place[1:])
                posix.utime(place[1:], ns=(found.status.st_atime_ns, found.status.st_mtime_ns))
