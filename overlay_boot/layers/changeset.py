"""Unpacking a layer of an image, as root, into a directory that nobody else can reach: layer.md of OCI's image-spec.

It is a set of changes to the layers below, and what it hides of them has names of its own, which become what overlayfs
has for that.  Like the archives of LAYER it may be hostile.
"""
import posix
from errno import ENOENT

from .. import BASELINE_MARK, beneath, files, interruption, paths, tar
from ..errors import Failure
from ..files import Fd, Fds
from . import unpacking
from .decompressor import Decompressor
from .unpacking import DEEPEST, FORBIDDEN, NO_TARGET, OPAQUE, OVERLAY, Progress, Unpacker, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from ..oci import Layer

WHITEOUT = b".wh."
ALL_BELOW = b".wh..wh..opq"     # in a directory: that shows nothing of those below
DEVICES = b"dev"                # a boot mounts something on it: what is in there is not seen
MOST_LINKS = 40                 # symbolic links on a path, as the kernel has it
SIZE_OF_COPY = 1 << 24


def unpack(layer: "Layer", target: int, below: list[int], limit: tuple[int, int], name: str) -> None:
    """Unpack a layer into the empty directory of a descriptor.  below are those of the layers below, the topmost first.

    limit is (bytes, members); name is what progress is told of.  Raises Failure, with the reason only, also if the
    layer is not what its digests tell.
    """
    blob = layer.blob
    stamp = blob.stamp()
    if layer.digest:
        blob.check(layer.digest)
    most_bytes, most_members = limit
    mask = posix.umask(0)
    try:
        with files.opened(paths.of_descriptor(blob.fd)) as file, \
                Decompressor(file, (blob.offset, blob.size)) as process, Progress(file, name) as progress, \
                Changeset(target, below) as changes:
            output = Summed(process.output, layer.diff_id)
            with interruption.Wait():
                stream = tar.Stream(output, most_bytes)     # type: ignore[arg-type]
                changes.add_all(tar.members(stream), stream, most_members, progress)
            process.check_ended()
            output.check()
    finally:
        posix.umask(mask)
    if blob.stamp() != stamp:
        raise Failure("it was changed while it was read")


class Blocked(Failure):
    """Something that is no directory is in the way."""

    def __init__(self) -> None:
        super().__init__("its path leads through what is not a directory, or is a symbolic link")


class Summed:
    """What is read of a file, and the digest of all of it."""

    __slots__ = ("file", "sum", "wanted")

    def __init__(self, file: "BinaryIO", digest: str) -> None:
        import hashlib
        algorithm, _, self.wanted = digest.partition(":")
        self.file, self.sum = file, hashlib.new(algorithm)

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.sum.update(data)
        return data

    def check(self) -> None:
        """Raises Failure if it is another one."""
        if self.sum.hexdigest() != self.wanted:
            raise Failure("it is not what the configuration of the image says: its content has another digest")


class Changeset(Unpacker):
    """Makes what members tell of, and what they change in the layers below."""

    __slots__ = ("below", "entered", "opaque")

    def __init__(self, root: int, below: list[int]) -> None:
        super().__init__(root)
        self.below = below
        self.entered: bytes | None = b""        # the path by which members call the directory that is entered
        self.opaque: set[bytes] = set()         # directories that show nothing of those below

    def add(self, member: tar.Member, stream: tar.Stream) -> None:
        """As Unpacker has it; what has the name of an earlier member takes its place."""
        try:
            path = path_of(member.name)
            if member.type == tar.REGTYPE and member.name.endswith(b"/") and not member.length:
                member.type = tar.DIRTYPE       # as tar(1) had it before POSIX did
            above, _, name = path.rpartition(b"/")
            if any(part.startswith(WHITEOUT) for part in above.split(b"/")):
                raise Failure("it is in a directory whose name stands for something else")
            if name.startswith(WHITEOUT):
                try:
                    self.hide(above, name)
                except Blocked:         # which hides all of that: umoci(1) writes such whiteouts
                    self.entered = None
            elif member.type == tar.DIRTYPE:
                self.add_directory(member, above, name)
            elif not name or member.name.endswith(b"/"):
                raise Failure("it is not a directory, but has the name of one")
            elif member.type not in (tar.CHRTYPE, tar.BLKTYPE) or above.split(b"/")[0] != DEVICES:
                self.enter(above)
                try:
                    self.make(member, name, stream)
                except FileExistsError:
                    self.remove(name)
                    self.enter(above)
                    self.make(member, name, stream)
        except (Failure, OSError, ValueError) as error:
            raise refusal(member, error) from None

    def finish(self) -> None:
        """As Unpacker has it, and hide what is below."""
        super().finish()
        posix.setxattr(self.root, BASELINE_MARK, b"1")      # like that, it tells of no subhost
        for path in self.opaque:
            with beneath.opened(self.root, path or b".", files.READ_DIRECTORY, beneath.REFUSED) as fd:
                posix.setxattr(fd, OPAQUE, b"y")

    def add_directory(self, member: tar.Member, above: bytes, name: bytes) -> None:
        if name:
            self.enter(above)
            self.make_one(name)
        self.directories[join(self.path, name) if name else b""] = member

    def make_one(self, name: bytes) -> None:
        """Make a directory in the one that is entered, unless it is there.  One that takes a place is opaque."""
        try:
            posix.mkdir(name, 0o755, dir_fd=self.directory)
        except FileExistsError:
            if kind_at(self.directory, name) != files.DIRECTORY:
                posix.unlink(name, dir_fd=self.directory)
                posix.mkdir(name, 0o755, dir_fd=self.directory)
                self.opaque.add(join(self.path, name))

    def remove(self, name: bytes) -> None:
        """Remove what an earlier member has made, for another thing to take its place."""
        if kind_at(self.directory, name) != files.DIRECTORY:
            posix.unlink(name, dir_fd=self.directory)
            return
        import shutil
        shutil.rmtree(name, dir_fd=self.directory)
        gone = join(self.path, name)
        for path in [one for one in (*self.directories, *self.opaque) if (one + b"/").startswith(gone + b"/")]:
            self.directories.pop(path, None)
            self.opaque.discard(path)
        self.entered = None

    def hide(self, above: bytes, name: bytes) -> None:
        """Hide what is below by the name of a whiteout, in the directory above it."""
        hidden = name[len(WHITEOUT):]
        if name == ALL_BELOW:
            self.enter(above)
            self.opaque.add(self.path)
        elif hidden.startswith(WHITEOUT):       # what aufs has noted for itself
            return
        elif hidden in (b"", b".", b".."):
            raise Failure("it hides nothing that has a name")
        else:
            self.enter(above)
            try:
                posix.mknod(hidden, files.CHARACTER_DEVICE, 0, dir_fd=self.directory)
            except FileExistsError:             # of this layer, which hides what is below, or is laid over it
                if kind_at(self.directory, hidden) == files.DIRECTORY:
                    self.opaque.add(join(self.path, hidden))
            except PermissionError:
                raise Failure("it is a whiteout, which the file system of the cache does not take") from None

    def enter(self, path: bytes) -> None:
        """As Unpacker has it.  Missing directories are as those below, whose symbolic links lead to others of them."""
        if path == self.entered:
            return
        posix.close(self.directory)
        self.path, self.directory = b"", self.directory_at(b"")
        left, links = path.split(b"/") if path else [], 0
        while left:
            name = left.pop(0)
            kind = kind_at(self.directory, name)
            if kind not in (0, files.DIRECTORY, files.CHARACTER_DEVICE):
                raise Blocked
            if kind != files.DIRECTORY:
                self.count += 1
                with Fds() as fds:
                    found = self.find_below(join(self.path, name), fds) if not kind else None
                    if found is not None and files.kind_of(found) == files.SYMLINK:
                        links += 1
                        left = self.target_of(found, links) + left
                        continue
                    self.make_one(name)
                    if found is not None and files.kind_of(found) == files.DIRECTORY:
                        self.directories[join(self.path, name)] = attributes_of(found)
            self.go_to(join(self.path, name))
        self.entered = path

    def go_to(self, path: bytes) -> None:
        if path.count(b"/") >= DEEPEST:
            raise Failure(f"it is in more than {DEEPEST} directories")
        found = self.directory_at(path)
        posix.close(self.directory)
        self.path, self.directory = path, found

    def target_of(self, link: int, count: int) -> list[bytes]:
        """Return the path from the root on that a symbolic link in the directory entered leads to, and go to there."""
        target = posix.readlink(b"", dir_fd=link)
        if count > MOST_LINKS:
            raise Failure("its path leads through too many symbolic links")
        at = [] if target.startswith(b"/") else self.path.split(b"/")
        for part in target.split(b"/"):
            if part == b"..":
                del at[-1:]
            elif part not in (b"", b"."):
                at.append(part)
        self.go_to(b"")
        return [part for part in at if part]

    def find_below(self, path: bytes, fds: Fds) -> int | None:
        """Return a descriptor of what the layers below show at path, kept in fds; None if that is nothing.

        No symbolic link on the way to it counts: in what they show together, there is none.
        """
        for layer in self.below:
            try:
                found = fds.keep(beneath.opened(layer, path, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED))
            except OSError as error:
                if error.errno not in files.NOWHERE:
                    raise
                if error.errno != ENOENT or hides(layer, path):
                    return None
                continue
            return None if files.kind_of(found) == files.CHARACTER_DEVICE else found
        return None

    def make(self, member: tar.Member, name: bytes, stream: tar.Stream) -> None:
        if member.type == tar.FIFOTYPE:
            posix.mknod(name, files.PIPE | member.mode, 0, dir_fd=self.directory)
            self.mark(member, name)
        elif member.type in (tar.CHRTYPE, tar.BLKTYPE):
            raise Failure(f"it is {FORBIDDEN[member.type]}, and not in /dev")
        else:
            super().make(member, name, stream)

    def make_link(self, member: tar.Member, name: bytes) -> None:
        """Make a hard link, also to what is below, of which there is a copy then."""
        place, called = join(self.path, name), self.entered
        path = path_of(member.link)
        above, _, target = path.rpartition(b"/")
        if target.startswith(WHITEOUT) or not target:
            raise Failure(NO_TARGET)
        self.enter(above)
        if not kind_at(self.directory, target):
            self.copy_up(target)
        source = join(self.path, target)
        self.enter(called or b"")
        if kind_at(self.root, source) in (files.CHARACTER_DEVICE, files.DIRECTORY) or source == place:
            raise Failure(NO_TARGET)
        posix.link(source, name, src_dir_fd=self.root, dst_dir_fd=self.directory, follow_symlinks=False)

    def copy_up(self, name: bytes) -> None:
        """Copy a file of the layers below into the directory entered.  Raises Failure if there is none."""
        with Fds() as fds:
            found = self.find_below(join(self.path, name), fds)
            if found is None or files.kind_of(found) != files.REGULAR:
                raise Failure(NO_TARGET)
            source = fds.keep(files.opened(paths.of_descriptor(found)))
            member = attributes_of(found)
            with Fd(posix.open(name, unpacking.NEW_FILE, 0o600, dir_fd=self.directory)) as fd:
                while posix.sendfile(fd, source, None, SIZE_OF_COPY):
                    pass
                unpacking.set_attributes(fd, member)


def path_of(name: bytes) -> bytes:
    """Return the path that the name of a member stands for, b"" of the root.  Raises Failure if it leads out."""
    if name.startswith(b"/"):
        raise Failure("its name, or what it is a link to, is an absolute path")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Failure("its name, or what it is a link to, has .. in it")
    if b"\0" in name:
        raise Failure("its name is not a valid path")
    if len(parts) > DEEPEST:
        raise Failure(f"it is in more than {DEEPEST} directories")
    return b"/".join(parts)


def join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def kind_at(directory: int, name: bytes) -> int:
    """Return the kind of what has a name in the directory of a descriptor, 0 if there is nothing."""
    try:
        return posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mode & files.KIND
    except FileNotFoundError:
        return 0


def hides(layer: int, path: bytes) -> bool:
    """Tell whether a layer, which has nothing at path, has something on the way there that hides those below."""
    parts = path.split(b"/")
    for number in range(1, len(parts)):
        try:
            with beneath.opened(layer, b"/".join(parts[:number]), files.READ_DIRECTORY, beneath.REFUSED) as fd:
                if OPAQUE.decode() in posix.listxattr(fd):
                    return True
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in files.NOWHERE:
                raise
            return True
    return False


def attributes_of(fd: int) -> tar.Member:
    """Return what is to be set of a directory, or a file, that is as the one of a descriptor."""
    status, path = posix.fstat(fd), paths.of_descriptor(fd)
    found = tar.Member()
    found.name, found.mode, found.mtime = b"", status.st_mode & 0o7777, status.st_mtime_ns
    found.uid, found.gid = status.st_uid, status.st_gid
    found.xattrs = [(paths.encode(name), posix.getxattr(path, name)) for name in posix.listxattr(path)
                    if not paths.encode(name).startswith(OVERLAY)]
    return found
