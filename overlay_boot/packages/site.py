"""A subhost that runs, as a place to change records of packages in, and to have dpkg(1) at work."""
import posix
from errno import EBUSY, EEXIST, ENODATA, ENOTEMPTY, EOPNOTSUPP, EPERM, EXDEV

from .. import beneath, dpkg, files, namespaces, paths
from ..dpkg import LONGEST
from ..errors import Failure
from ..files import Fd
from ..rootfs import made_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20
PRIVATE = ("trusted.", "security.selinux")      # the kernel's, and overlayfs's


def part_of(name: str) -> str:
    """Return the name of a file as long as it is being written."""
    return f".{name}.overlay-boot"


class Site:
    """The root directory, as the subhost has it; root of it, as the host has him; and what runs a command inside."""

    __slots__ = ("name", "owner", "refresh", "root", "run")

    def __init__(self, name: str, root: int, owner: int, run: "Callable[[list[str]], None]",
                 refresh: "Callable[[], None]") -> None:
        self.name = name
        self.root = root
        self.owner = owner
        self.run = run              # raises Failure
        self.refresh = refresh      # what was changed in UPPER is seen

    def write(self, path: str, data: bytes | Fd, mode: int, uid: int = 0, gid: int = 0, like: int = -1) -> None:
        """Write a file, or replace it at once, with bytes or what is in another one.  Raises OSError.

        like is a descriptor of one whose extended attributes it gets, too.
        """
        name = paths.name(path)
        part = part_of(name)
        with made_by(self.owner), beneath.directory(self.root, paths.parent(f"/{path}"), beneath.INSIDE,
                                                    make=0o755) as at:
            try:
                posix.unlink(part, dir_fd=at)           # of one that was killed
            except FileNotFoundError:
                pass
            with files.opened(part, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o600, directory=at) as fd:
                if isinstance(data, bytes):
                    files.write_all(fd, data)
                else:
                    copy(data, fd)
                posix.fchown(fd, self.owner + uid, self.owner + gid)
                posix.fchmod(fd, mode)
                if like != -1:
                    copy_attributes(like, fd)
                posix.fsync(fd)
            posix.rename(part, name, src_dir_fd=at, dst_dir_fd=at)

    def clear_mode(self, path: str, bits: int) -> None:
        """chmod(2) a regular file, if it is there, to a mode without these bits."""
        try:
            with beneath.directory(self.root, paths.parent(f"/{path}"), beneath.INSIDE) as at, \
                    beneath.opened(at, paths.name(path), posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED) as fd:
                status = posix.fstat(fd)
                if status.st_mode & files.KIND == files.REGULAR:
                    posix.chmod(paths.of_descriptor(fd), status.st_mode & 0o7777 & ~bits)
        except OSError as error:
            if error.errno not in files.NOWHERE:
                raise

    def remove(self, path: str) -> None:
        """Remove a file, as the subhost itself would, if it is there."""
        try:
            with made_by(self.owner), beneath.directory(self.root, paths.parent(f"/{path}"), beneath.INSIDE) as at:
                posix.unlink(paths.name(path), dir_fd=at)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            pass

    def remove_directory(self, path: str) -> None:
        """Remove a directory, as the subhost itself would, if it is there, with nothing in it or mounted on it."""
        name = paths.name(path)
        try:
            with made_by(self.owner), beneath.directory(self.root, paths.parent(f"/{path}"), beneath.INSIDE) as at:
                with beneath.opened(at, name, files.PLACE, beneath.REFUSED | namespaces.NO_MOUNTS):
                    pass                    # to remove it would unmount what the subhost has there
                posix.rmdir(name, dir_fd=at)
        except OSError as error:
            if error.errno not in (*files.NOWHERE, ENOTEMPTY, EEXIST, EBUSY, EXDEV):
                raise

    def text(self, path: str) -> str:
        """Return the text of a regular file, "" if there is none."""
        return dpkg.text_of(beneath.content(self.root, path, LONGEST + 1, beneath.INSIDE), path)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, none if there is none."""
        try:
            with beneath.opened(self.root, path, files.READ_DIRECTORY, beneath.INSIDE) as fd:
                return posix.listdir(fd)
        except OSError as error:
            if error.errno not in files.NOWHERE:
                raise
            return []

    def lines(self, path: str) -> list[str]:
        return dpkg.lines_of(self.text(path))

    def locked(self, path: str, what: str) -> Fd:
        """Return a descriptor of a lock of dpkg's, held as long as that is open.

        Raises Failure, that what is at work, if it is in use.
        """
        if not beneath.exists(self.root, path, beneath.INSIDE):
            self.write(path, b"", 0o640)
        with beneath.opened(self.root, path, posix.O_PATH, beneath.INSIDE) as found:
            if files.kind_of(found) != files.REGULAR:
                raise Failure(f"/{path} in {self.name} is not a regular file")
            fd = files.opened(paths.of_descriptor(found), posix.O_RDWR)
        if not namespaces.lock_open_file(fd, 0, 0, exclusive=True):
            posix.close(fd)
            raise Failure(f"{what} is at work in {self.name}")
        return fd


def copy(source: int, target: int) -> None:
    """Copy what is in a file, which may be as large as it likes."""
    with files.opened(paths.of_descriptor(source)) as fd:
        while chunk := posix.read(fd, CHUNK):
            files.write_all(target, chunk)


def copy_attributes(source: int, target: int) -> None:
    """Copy what setfacl(1), setcap(8) and others have made, as far as the file system has it."""
    for name in posix.listxattr(paths.of_descriptor(source)):
        if not name.startswith(PRIVATE):
            try:
                posix.setxattr(target, name, posix.getxattr(paths.of_descriptor(source), name))
            except OSError as error:
                if error.errno not in (EOPNOTSUPP, ENODATA, EPERM):
                    raise
