"""What stands in a directory that may be hostile: a subhost's UPPER and LIVE, a layer that is being made.

Everything is reached from a descriptor of that directory, by openat2(2), through no symbolic link that leads out of it.
What is passed as links tells what symbolic links mean:

    INSIDE   They lead to where they lead for the subhost, whose root the directory is.
    REFUSED  There must be none.

Nothing is opened to be used before it is known for what it is.
"""
import posix
from errno import EISDIR, EOPNOTSUPP

from . import files, namespaces, paths
from .files import Fd

INSIDE, REFUSED = namespaces.IN_ROOT, namespaces.NO_SYMLINKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    Path = str | bytes


def opened(root: int, path: "Path", flags: int, links: int, mode: int = 0) -> Fd:
    """openat2(2): a descriptor of path below root.  Raises OSError."""
    return Fd(namespaces.openat2(root, path, flags, links, mode))


def directory(root: int, path: "Path", links: int, *, make: int | None = None) -> Fd:
    """Return a descriptor, a place to start from, of the directory path below root.

    With make, the mode, what is missing of it is made.  Raises OSError if it, or
    what should be above it, is no directory.
    """
    try:
        return opened(root, path or ".", files.PLACE, links)
    except FileNotFoundError:
        if make is None:
            raise
    slash = b"/" if isinstance(path, bytes) else "/"
    parts = [part for part in path.split(slash) if part]        # type: ignore[arg-type]
    at = opened(root, ".", files.PLACE, links)
    for number, part in enumerate(parts, 1):
        with at:
            try:
                posix.mkdir(part, make, dir_fd=at)
            except FileExistsError:
                pass
            at = opened(root, slash.join(parts[:number]), files.PLACE, links)     # type: ignore[arg-type]
    return at


def exists(root: int, path: "Path", links: int) -> bool:
    """Tell whether path leads to anything below root.  Raises OSError if that cannot be told."""
    try:
        with opened(root, path, posix.O_PATH, links):
            return True
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return False


def read(root: int, path: "Path", limit: int, links: int) -> bytes | None:
    """Return at most limit bytes of a file below root, None if it is no regular file.  Raises OSError."""
    with opened(root, path, posix.O_PATH, links) as found:
        status = posix.fstat(found)
        if status.st_mode & files.KIND != files.REGULAR:
            return None                     # a device does something when it is opened
        with files.opened(paths.of_descriptor(found)) as fd:
            return posix.read(fd, min(limit, status.st_size or limit))


def content(root: int, path: "Path", limit: int, links: int) -> bytes:
    """Return read(), b"" if nothing is there or no regular file.  Raises OSError if that cannot be told."""
    try:
        return read(root, path, limit, links) or b""
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return b""


def write_new(at: int, name: str, data: str | bytes, mode: int, *, sync: bool = False) -> None:
    """Write a file in the directory of a descriptor, all of it or nothing.  Raises FileExistsError if there is one.

    With sync, it is on the disk before it has its name: a crash of the host leaves none that is empty.
    """
    part = f".{name}.overlay-boot"
    try:
        posix.unlink(part, dir_fd=at)               # of a boot that was killed
    except FileNotFoundError:
        pass
    try:
        new, source = files.opened(".", posix.O_TMPFILE | posix.O_WRONLY, mode, directory=at), ""
    except OSError as error:
        if error.errno not in (EOPNOTSUPP, EISDIR):     # a file system that has no files without a name
            raise
        new, source = files.opened(part, posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, mode, directory=at), part
    with new:
        try:
            files.write_all(new, data)
            posix.fchmod(new, mode)
            if sync:
                posix.fsync(new)
            posix.link(source or paths.of_descriptor(new), name, src_dir_fd=at, dst_dir_fd=at,
                       follow_symlinks=not source)
        finally:
            if source:
                posix.unlink(source, dir_fd=at)


def names(root: int, path: str, resolve: int) -> list[str]:
    """Return the names in a directory, none if there is no such directory.  Raises OSError."""
    try:
        with opened(root, path, files.READ_DIRECTORY, resolve) as fd:
            return posix.listdir(fd)
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return []
