"""Unpacking a layer's archive, as root, into a directory that nobody else can reach.

The archive may be hostile.  Nothing is written through a symbolic link or out of the directory: beneath.py resolves
every name in directories that are this archive's own, and files are made with O_EXCL.
"""
import posix
import time
from errno import ELOOP, ENOTDIR

from .. import beneath, files, interruption, paths, tar
from ..errors import Failure
from ..files import Fd
from .decompressor import Decompressor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LABEL = b"oxide.json"
LONGEST_LABEL = 1 << 16
DEEPEST = 256               # directories in one another: to remove them takes a descriptor for each
NEW_FILE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
ACCESS = 0o777              # of a mode: to change the owner takes none of these away
NO_DIRECTORY = (ENOTDIR, ELOOP)
FORBIDDEN = {tar.CHRTYPE: "a device", tar.BLKTYPE: "a device", tar.FIFOTYPE: "a FIFO"}
NO_TARGET = "it is a hard link, but its target is not an earlier file of the archive"

XATTRS = (b"user.", b"security.", b"system.posix_acl_", b"trusted.")
OVERLAY = b"trusted.overlay."
OPAQUE = OVERLAY + b"opaque"
# What overlayfs notes in UPPER of the place where that is; in an archive of it they mean nothing.
NOTES = {OVERLAY + note for note in (b"impure", b"nlink", b"origin", b"protattr", b"upper", b"uuid")}


def unpack(archive: int, target: int, limit: tuple[int, int], name: str) -> None:
    """Unpack the archive of one descriptor into the empty directory of another, both open for reading.

    limit is (bytes, members); name is what progress is told of.  Raises Failure, with the reason only.
    """
    most_bytes, most_members = limit
    mask = posix.umask(0)               # files are made with the modes that they have in the archive
    try:
        with Decompressor(archive) as process, Progress(archive, name) as progress, Unpacker(target) as unpacker:
            with interruption.Wait():
                stream = tar.Stream(process.output, most_bytes)
                found = tar.members(stream)
                check_label(next(found, None), stream)
                unpacker.add_all(found, stream, most_members, progress)
            process.check_ended()
    finally:
        posix.umask(mask)


def check_label(member: tar.Member | None, stream: tar.Stream) -> None:
    """Raises Failure unless the first member says that this is a layer."""
    label = LABEL.decode()
    if member is None or member.name.removeprefix(b"./") != LABEL or member.type != tar.REGTYPE:
        raise Failure(f"its first member is not {label}")
    if member.pieces is not None or member.length > LONGEST_LABEL:
        raise Failure(f"{label} in it is too large")
    import json
    try:
        said = json.loads(stream.read(member.length))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("v") != "1" or said.get("t") != "layer":
        raise Failure(f'{label} in it does not say {{"v":"1","t":"layer"}}')


class Progress:
    """How far it is, on standard error if that is a terminal.  The end of a with statement wipes it away."""

    __slots__ = ("archive", "is_shown", "name", "next", "size")

    def __init__(self, archive: int, name: str) -> None:
        self.archive = archive
        self.name = "".join(letter if letter.isprintable() else "?" for letter in paths.name(name))
        self.size = posix.fstat(archive).st_size
        self.next = time.monotonic() + 0.3 if posix.isatty(2) else float("inf")
        self.is_shown = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_shown:
            files.write_all(2, "\r\033[K")

    def tell(self, number: int) -> None:
        """Say so, now and then, when so many members are unpacked."""
        if number & 63 or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + 0.1
        self.is_shown = True
        # The decompressor reads from this very open file.
        part = posix.lseek(self.archive, 0, 1) * 100 // max(1, self.size)
        files.write_all(2, f"\r\033[Kunpacking {self.name}: {part} %")


class Unpacker:
    """Makes what members tell of, below the directory of a descriptor.  The end of a with statement closes its own."""

    __slots__ = ("count", "directories", "directory", "path", "root")

    def __init__(self, root: int) -> None:
        self.root = root
        self.count = 0                                      # of members, and what had to be made for them
        self.path = b""                                     # of the directory in which names are made now
        self.directory = self.directory_at(b"")
        self.directories: dict[bytes, tar.Member] = {}      # what they will be, when nothing is made in them any more

    def __enter__(self) -> "Unpacker":
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self.directory)

    def add_all(self, found: "Iterator[tar.Member]", stream: tar.Stream, most: int, progress: Progress) -> None:
        """Make what all members tell of.  Raises Failure, which names one, or if it is more than most."""
        for member in found:
            self.count += 1
            if self.count > most:
                raise Failure(f"it has more than the {most} members of LAYER_LIMIT")
            self.add(member, stream)
            progress.tell(self.count)
        self.finish()

    def add(self, member: tar.Member, stream: tar.Stream) -> None:
        """Make what the member tells of.  Raises Failure, which names it."""
        try:
            path = below_root(member.name)
            above, _, name = path.rpartition(b"/")
            if member.type == tar.DIRTYPE:
                self.make_directory(path, above, name)
                self.directories[path] = member
                return
            if not name or member.name.endswith(b"/"):
                raise Failure("it is not a directory, but has the name of one")
            self.enter(above)
            self.make(member, name, stream)
        except (Failure, OSError, ValueError) as error:
            raise refusal(member, error) from None

    def finish(self) -> None:
        """Give the directories their attributes, which what was made in them has changed, or would have inherited."""
        for path, member in self.directories.items():
            try:
                with beneath.opened(self.root, path or b".", files.READ_DIRECTORY, beneath.REFUSED) as fd:
                    set_attributes(fd, member)
            except (Failure, OSError, ValueError) as error:
                raise refusal(member, error) from None

    def enter(self, path: bytes) -> None:
        """Have names made in the directory at path, which is made if it is missing."""
        if path != self.path:
            found = self.directory_at(path, make=0o755)
            posix.close(self.directory)
            self.path, self.directory = path, found

    def directory_at(self, path: bytes, *, make: int | None = None) -> Fd:
        """Return a descriptor of the directory at path.  With make, the mode, what is missing of it is made."""
        try:
            return beneath.directory(self.root, path, beneath.REFUSED, make=make)
        except OSError as error:
            if error.errno in NO_DIRECTORY:
                raise Failure(f"its path leads through what is not a directory, or is a symbolic link: "
                              f"{error.strerror}") from None
            raise

    def make_directory(self, path: bytes, above: bytes, name: bytes) -> None:
        """Make one, usually in a directory that is there, and often in the one that was the last to be entered."""
        try:
            if name:
                self.enter(above)
                posix.mkdir(name, 0o755, dir_fd=self.directory)
        except FileExistsError:
            posix.close(self.directory_at(path))        # it has to be a directory

    def make(self, member: tar.Member, name: bytes, stream: tar.Stream) -> None:
        if member.type == tar.REGTYPE:
            self.make_file(member, name, stream)
        elif member.type == tar.SYMTYPE:
            posix.symlink(member.link, name, dir_fd=self.directory)
            self.mark(member, name)
        elif member.type == tar.LNKTYPE:
            self.make_link(member, name)
        elif member.type == tar.CHRTYPE and member.device == (0, 0):
            # A whiteout, as overlayfs makes one in UPPER: it hides what is below.  No device can be reached by it.
            try:
                posix.mknod(name, files.CHARACTER_DEVICE | member.mode, 0, dir_fd=self.directory)
            except PermissionError:
                raise Failure("it is a whiteout, which the file system of the cache does not take") from None
            self.mark(member, name)
        else:
            raise Failure(f"it is {FORBIDDEN.get(member.type, 'of a type that a layer cannot have')}")

    def make_file(self, member: tar.Member, name: bytes, stream: tar.Stream) -> None:
        mode = member.mode & ACCESS
        with Fd(posix.open(name, NEW_FILE, mode, dir_fd=self.directory)) as fd:
            if member.pieces is None:
                for chunk in stream.chunks(member.length):
                    files.write_all(fd, chunk)
            else:
                for offset, size in member.pieces:
                    posix.lseek(fd, offset, 0)
                    for chunk in stream.chunks(size):
                        files.write_all(fd, chunk)
                posix.ftruncate(fd, member.length)
            set_attributes(fd, member, made_with=mode)

    def make_link(self, member: tar.Member, name: bytes) -> None:
        above, _, target = below_root(member.link).rpartition(b"/")
        try:
            with self.directory_at(above) as directory:
                posix.link(target, name, src_dir_fd=directory, dst_dir_fd=self.directory, follow_symlinks=False)
        except (FileNotFoundError, PermissionError):
            raise Failure(NO_TARGET) from None

    def mark(self, member: tar.Member, name: bytes) -> None:
        """Give what cannot be opened, a symbolic link or a whiteout, its attributes."""
        posix.chown(name, member.uid, member.gid, dir_fd=self.directory, follow_symlinks=False)
        for key, value in permitted(member.xattrs):
            posix.setxattr(f"/proc/self/fd/{self.directory}/".encode() + name, key, value, follow_symlinks=False)
        posix.utime(name, ns=(member.mtime, member.mtime), dir_fd=self.directory, follow_symlinks=False)


def below_root(name: bytes) -> bytes:
    """Return the path below root/ of the name of a member, without slashes at its ends; b"" of root itself.

    Raises Failure if it is no path there, or too deep.
    """
    parts = name.removeprefix(b"./").rstrip(b"/").split(b"/")
    if name.startswith(b"/"):
        raise Failure("its name is an absolute path")
    if b".." in parts:
        raise Failure("its name has .. in it")
    if parts[0] != b"root":
        raise Failure("it is not below root/")
    if b"" in parts or b"." in parts or b"\0" in name:
        raise Failure("its name is not a valid path")
    if len(parts) > DEEPEST:
        raise Failure(f"it is in more than {DEEPEST} directories")
    return b"/".join(parts[1:])


def set_attributes(fd: int, member: tar.Member, made_with: int | None = None) -> None:
    """Set owner, mode, extended attributes and time, in this order: to change the owner drops some of the others.

    made_with is the mode that it has already, None if that is not known.
    """
    if member.uid or member.gid:
        posix.fchown(fd, member.uid, member.gid)
    if member.mode != made_with:
        posix.fchmod(fd, member.mode)
    for key, value in permitted(member.xattrs):
        posix.setxattr(fd, key, value)
    posix.utime(fd, ns=(member.mtime, member.mtime))


def permitted(xattrs: "Sequence[tuple[bytes, bytes]]") -> "Iterator[tuple[bytes, bytes]]":
    """Yield the extended attributes that a layer can have.  Raises Failure for one that it cannot have.

    Those that lead an overlay mount elsewhere are such.
    """
    for key, value in xattrs:
        if key in NOTES:
            continue
        if not key.startswith(XATTRS) or key.startswith(OVERLAY) and key != OPAQUE:
            raise Failure(f"it has the extended attribute {tar.shown(key)}, which a layer cannot have")
        yield key, value


def refusal(member: tar.Member, error: Failure | OSError | ValueError) -> Failure:
    """Return what is told of a member that cannot be made."""
    if isinstance(error, FileExistsError):
        why = "it is in the archive twice"
    elif isinstance(error, OSError):
        why = str(error.strerror)
    elif isinstance(error, ValueError):
        why = "it has a NUL byte where none can be"
    else:
        why = str(error)
    return Failure(f"{tar.shown(member.name)}: {why}")
