"""The cache of the layers that come as archives.

    /var/cache/overlay-boot/layers/DIGEST       a layer: what the archive of that SHA-256 sum has below root/
    /var/cache/overlay-boot/layers/DIGEST.part  one that is being unpacked, or whose unpacking was killed

A layer gets its name when it is whole, and on the disk.  Who unpacks or removes one has its directory locked,
flock(2), exclusively; a boot has it locked, shared, until it is on record in the state file.

The directory of the layers is root's alone: programs in them may have the set-user-ID bit.
"""
import fcntl
import posix

from .. import files, interruption, namespaces, state
from ..errors import Failure, doing, reason
from ..files import Fd, Fds
from .archive import CACHE, Archive, is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..state import State

LAYERS = f"{CACHE}/layers"
PART = ".part"


@doing("use the cache of layers")
def layer_of(path: str, limit: tuple[int, int], record: "State") -> str:
    """Return the directory of an archive's layer, which is unpacked now if it is not there yet.

    It is on record in the state file then.  Raises Failure if it cannot be unpacked.
    """
    with Archive(path) as archive, Cache() as cache:
        digest = archive.digest()
        while (layer := cache.locked(digest)) is None:
            cache.unpack(digest, lambda directory: fill(directory, archive, limit))
        with layer:
            record.note("layers", path, digest)      # so its removal is refused, once it is not locked any more
    return f"{LAYERS}/{digest}"


def digests() -> list[str]:
    """Return the digests of the layers in the cache, sorted."""
    try:
        return sorted(filter(is_digest, posix.listdir(LAYERS)))
    except FileNotFoundError:
        return []


class Cache:
    """The directory of the layers, open; it is made if there is none.  The end of a with statement closes it."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        for directory, mode in ((CACHE, 0o755), (LAYERS, 0o700)):
            files.make_directory(directory, mode)
        self.fd = files.opened(LAYERS, files.READ_DIRECTORY)
        posix.fchmod(self.fd, 0o700)

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self.fd)

    def locked(self, name: str, how: int = fcntl.LOCK_SH) -> Fd | None:
        """Return a descriptor of the directory of that name, locked.

        Returns None if there is none, or if (with LOCK_NB) another process has it locked.
        """
        try:
            fd = files.opened(name, files.READ_DIRECTORY, directory=self.fd)
        except FileNotFoundError:
            return None
        with Fds([fd]) as fds:
            try:
                with interruption.Wait():
                    fcntl.flock(fd, how)
            except BlockingIOError:
                return None
            if not self.has(name, fd):
                return None
            fds.let_go()
        return fd

    def has(self, name: str, fd: int) -> bool:
        """Tell whether the directory of a descriptor has that name, still."""
        try:
            found = posix.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == files.identity(fd)

    def begun(self, name: str) -> Fd | None:
        """Make an empty directory for what will be the layer of that name, and return a descriptor of it, locked.

        Returns None if another process has made the layer, or was killed at it, or gives up: it may be tried again.
        """
        part = name + PART
        try:
            posix.mkdir(part, 0o700, dir_fd=self.fd)
        except FileExistsError:
            pass
        fd = self.locked(part, fcntl.LOCK_EX)       # which waits for the other process
        if fd is not None and (posix.listdir(fd) or files.exists(name, self.fd)):
            with fd:
                self.remove(part)
            return None
        return fd

    def unpack(self, digest: str, fill: "Callable[[Fd], None]") -> bool:
        """Have the directory of a layer filled where it has to be, unless another boot is at it: that is waited for.

        Returns whether it was filled.  Raises Failure if it cannot be.
        """
        self.sweep()
        directory = self.begun(digest)
        if directory is None:
            return False
        part = digest + PART
        with directory:
            try:
                fill(directory)
                posix.rename(part, digest, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except BaseException:
                self.remove(part)
                raise
        return True

    @doing("remove from the cache of layers")
    def remove(self, name: str) -> None:
        """Remove a directory, which the caller has locked."""
        import shutil
        shutil.rmtree(name, dir_fd=self.fd)

    def sweep(self) -> None:
        """Remove what was being unpacked, or removed, by processes that were killed."""
        for name in posix.listdir(self.fd):
            if not name.endswith(PART):
                continue
            directory = self.locked(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if directory is not None:
                with directory:
                    self.remove(name)


def fill(directory: int, archive: Archive, limit: tuple[int, int]) -> None:
    """Unpack an archive into a directory, and have all of it on the disk.  Raises Failure if that fails."""
    from . import unpacking
    try:
        unpacking.unpack(archive.fd, directory, limit, archive.path)
        archive.check_unchanged()
        namespaces.sync(directory)
    except (Failure, OSError) as error:
        raise Failure(f"cannot unpack LAYER={archive.path}: {reason(error)}") from None


# Their removal

def booted(*, complete: bool = True, but: str = "") -> dict[str, list[str]]:
    """Return {digest: [name]} of the layers on record for a subhost, that is booted or waits to be cleared.

    If it has to be complete, raises Failure for a state file that cannot be read.  A boot leaves its own out, by but.
    """
    found: dict[str, list[str]] = {}
    for name, record in state.noted(None if complete else {}, but=but):
        for digest in record.layers:
            found.setdefault(digest, []).append(name)
    return found


def removed(cache: Cache, digest: str, *, but: str = "") -> bool:
    """Remove a layer, unless a subhost or a boot uses it; tell whether it was removed.

    A boot does not count, and does not lose its lock, if it gives its own name by but.
    """
    layer = cache.locked(digest, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if layer is None:
        return False
    with layer:
        # Whoever came before us is on record; whoever comes now waits for the lock.
        if digest in booted(but=but):
            return False
        part = digest + PART
        if files.exists(part, cache.fd):
            cache.sweep()
        posix.rename(digest, part, src_dir_fd=cache.fd, dst_dir_fd=cache.fd)       # never a half one under its name
        cache.remove(part)
    return True
