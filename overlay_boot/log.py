"""LOG, which PID 1's output goes to by way of the keeper, and that of hooks and of services that are stopped."""
import posix
import time
from errno import EINVAL

from . import beneath, files, paths
from .config import LOGS
from .errors import Failure
from .files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .record import Record

TO_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_NOCTTY
TO_APPEND = TO_READ | posix.O_WRONLY | posix.O_APPEND
MODE = 0o640
MOST_SHOWN = 1 << 15    # bytes, which a pipe takes at once


def make(path: str, own: tuple[str, ...]) -> Fd:
    """Open a log for appending, and make it if there is none.

    own are the directories with the subhost's own files.  Raises Failure if the
    log cannot be written.
    """
    directory = paths.parent(path)
    try:
        if directory == LOGS and not files.kind(directory):
            files.make_directory(directory, 0o750)
        return existing(path, own, TO_APPEND | posix.O_CREAT)
    except OSError as error:
        raise Failure(f"cannot write LOG={path}: {error.strerror}") from None


def existing(path: str, own: tuple[str, ...], flags: int) -> Fd:
    """Open a log, for appending or to be read.  Where the files are the subhost's, no symbolic link is followed."""
    if paths.parent(path) != LOGS:
        theirs = [files.identity(directory) for directory in own if files.kind(directory)]
        parts = path.split("/")
        for number in range(1, len(parts)):
            above = "/".join(parts[:number]) + "/"
            if files.identity(above) in theirs:     # however it is written
                with files.opened(above, files.PLACE) as root:
                    return beneath_own(root, "/".join(parts[number:]), flags)
    return files.opened(path, flags, MODE)


def beneath_own(root: int, path: str, flags: int) -> Fd:
    """Open a log in a directory of the subhost's: a regular file, or a new one."""
    try:
        with beneath.opened(root, path, posix.O_PATH, beneath.REFUSED) as found:
            if files.kind_of(found) != files.REGULAR:
                raise OSError(EINVAL, "not a regular file")
            return files.opened(paths.of_descriptor(found), flags & ~(posix.O_NOFOLLOW | posix.O_CREAT))
    except FileNotFoundError:
        if not flags & posix.O_CREAT:
            raise
    return beneath.opened(root, path, flags | posix.O_EXCL, beneath.REFUSED, MODE)


def append(path: str, own: tuple[str, ...], said: bytes) -> None:
    """Add bytes to a log that is there.  Raises OSError if that cannot be."""
    with existing(path, own, TO_APPEND) as fd:
        posix.write(fd, said)


def show(fd: int, begin: int) -> None:
    """Print on standard output what was added to a log after its first `begin` bytes, or the end of that."""
    try:
        files.write_all(1, added(fd, begin))
    except OSError:                     # nobody reads it any more
        pass


def added(fd: int, begin: int) -> bytes:
    """Return the end of what was added to a log since it had begin bytes, b"" if it is no file."""
    if files.kind_of(fd) != files.REGULAR:
        return b""
    begin = max(begin, posix.fstat(fd).st_size - MOST_SHOWN)
    with files.opened(paths.of_descriptor(fd)) as source:
        return posix.pread(source, MOST_SHOWN, begin)


def mark(what: str, by: str = "overlay-boot") -> bytes:
    """Return the line for what happens to a subhost now."""
    return paths.encode(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {by}: {what}\n")


def mark_boot(fd: int, config: str) -> None:
    """Have a boot begin in the log.  One that cannot take it loses it, as what the subhost prints."""
    try:
        posix.write(fd, mark(f"boot from {config}"))
    except OSError:
        pass


def mark_end(record: "Record", how: str, *, is_killed: bool = False) -> None:
    """Have the life of a subhost end in its log, if that is still there; and tell of what had too little memory.

    is_killed tells whether PID 1 was killed.
    """
    marks = b""
    try:
        if "MEMORY_MAX" in record.limits:
            from . import limits
            count, is_own = limits.killed(record)
            limit = f"MEMORY_MAX={record.limits['MEMORY_MAX']}"
            if count:
                why = limit if is_own else "out of memory outside of the subhost"
                marks = mark(f"{why}: {count} {'process was' if count == 1 else 'processes were'} killed")
                how = f"killed by {limit}" if is_own and is_killed else how
        append(record.log, (record.upper,), marks + mark(how))
    except OSError:
        pass
