"""What kind of file there is, inode(7), and descriptors that close themselves."""
import posix
from errno import ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENODEV, ENOENT, ENOMEM, ENOTDIR

from . import paths

KIND = 0o170000         # the bits of a mode that tell the kind
REGULAR, DIRECTORY, SYMLINK = 0o100000, 0o040000, 0o120000
CHARACTER_DEVICE, BLOCK_DEVICE, PIPE, SOCKET = 0o020000, 0o060000, 0o010000, 0o140000
DEVICES = (CHARACTER_DEVICE, BLOCK_DEVICE)

# What a Reserve has: to clear up takes half of it.
RESERVED_DESCRIPTORS = 8
RESERVED_MEMORY = 1 << 20       # bytes; nothing is stored in them

# What a lookup fails with where nothing is.  Whatever else it fails with, something may be there.
NOWHERE = (ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG)
SCARCE = (EMFILE, ENFILE, ENOMEM)       # what a command may lack, and what tells nothing of anything else

NULL, NULL_DEVICE = "/dev/null", posix.makedev(1, 3)        # null(4)

# How a directory is opened: to be a place to start from, or also to be read.
PLACE = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
READ_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
# How a file is opened of which nobody knows what it is: nothing is waited for, and no terminal taken.
READ_ANYTHING = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC


class Fd(int):
    """A file descriptor.  The end of a with statement closes it."""

    __slots__ = ()

    def __enter__(self) -> "Fd":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        posix.close(self)


class Fds(list[int]):
    """Descriptors that the end of a with statement closes together."""

    __slots__ = ()

    def __enter__(self) -> "Fds":
        return self

    def __exit__(self, *_: object) -> None:
        while self:
            posix.close(self.pop())

    def keep(self, fd: int) -> int:
        """Have fd closed with the others."""
        self.append(fd)
        return fd

    def let_go(self) -> None:
        """Close none of them: somebody else has them now."""
        self.clear()


class Reserve(Fds):
    """Descriptors and memory that are set aside as long as they can be had, for what has to come to its end."""

    __slots__ = ("memory",)

    def __init__(self) -> None:
        """Raises OSError, or MemoryError, if there are not enough."""
        self.memory = bytes(RESERVED_MEMORY)
        try:
            for _ in range(RESERVED_DESCRIPTORS):
                self.keep(posix.dup(0))
        except OSError as error:
            error.verb = "set descriptors aside"        # type: ignore[attr-defined]
            raise

    def release(self) -> None:
        """Let them be used."""
        self.memory = b""
        with self:
            pass


def opened(path: str, flags: int = READ_ANYTHING, mode: int = 0o777, *, directory: int | None = None) -> Fd:
    """open(2), or openat(2) in the directory of a descriptor.  No program that is executed inherits the descriptor."""
    return Fd(posix.open(path, flags | posix.O_CLOEXEC, mode, dir_fd=directory))


def null() -> Fd:
    """Return a descriptor of /dev/null, to read and to write.  Raises OSError if it is not there, or something else."""
    try:
        fd = opened(NULL, posix.O_RDWR | posix.O_NONBLOCK | posix.O_NOCTTY)
        if posix.fstat(fd).st_rdev != NULL_DEVICE:
            posix.close(fd)
            raise OSError(ENODEV, "it is not the null device", NULL)
    except OSError as error:
        error.verb = "open"             # type: ignore[attr-defined]
        raise
    return fd


def kind(path: str) -> int:
    """Return the kind of what path leads to, 0 if it leads nowhere.  Raises OSError if that cannot be told."""
    try:
        return posix.stat(path).st_mode & KIND
    except ValueError:                  # there is a NUL in it
        return 0
    except OSError as error:
        if error.errno not in NOWHERE:
            raise
        return 0


def kind_of(fd: int) -> int:
    """Return the kind of what is open."""
    return posix.fstat(fd).st_mode & KIND


def make_directory(path: str, mode: int, directory: int | None = None) -> None:
    """mkdir(2), relative to the directory of a descriptor, where another process may have made it."""
    try:
        posix.mkdir(path, mode, dir_fd=directory)
    except FileExistsError:
        pass


def exists(name: str, directory: int) -> bool:
    """Tell whether there is anything of the name in the directory of a descriptor, even a link that leads nowhere."""
    try:
        posix.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def identity(file: str | int) -> tuple[int, int]:
    """Return what tells one file, or one namespace, from all others, of a path or a descriptor: device and inode."""
    found = posix.stat(file)
    return found.st_dev, found.st_ino


def read_all(fd: int, chunk: int = 1 << 16) -> bytes:
    """Return all that is left to be read."""
    parts = []
    while part := posix.read(fd, chunk):
        parts.append(part)
    return b"".join(parts)


def write_all(fd: int, text: str | bytes) -> None:
    """Write all of text, with the very bytes that it was decoded from, or of bytes."""
    data = text if isinstance(text, bytes) else paths.encode(text)
    while data:
        data = data[posix.write(fd, data):]
