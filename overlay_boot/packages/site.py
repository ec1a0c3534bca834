"""A subhost that runs, as a place to change records of packages in, and to have dpkg(1) at work."""
import posix

from .. import beneath, files, namespaces, paths
from ..dpkg import LONGEST
from ..errors import Failure
from ..files import Fd
from ..rootfs import made_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


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

    def write(self, path: str, data: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
        """Write a file, or replace it at once.  Raises OSError."""
        name = paths.name(path)
        part = part_of(name)
        with made_by(self.owner), beneath.directory(self.root, paths.parent(f"/{path}"), beneath.INSIDE,
                                                    make=0o755) as at:
            try:
                posix.unlink(part, dir_fd=at)           # of one that was killed
            except FileNotFoundError:
                pass
            with files.opened(part, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o600, directory=at) as fd:
                files.write_all(fd, data)
                posix.fchown(fd, self.owner + uid, self.owner + gid)
                posix.fchmod(fd, mode)
                posix.fsync(fd)
            posix.rename(part, name, src_dir_fd=at, dst_dir_fd=at)

    def remove(self, path: str) -> None:
        """Remove a file, as the subhost itself would, if it is there."""
        try:
            with made_by(self.owner), beneath.directory(self.root, paths.parent(f"/{path}"), beneath.INSIDE) as at:
                posix.unlink(paths.name(path), dir_fd=at)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            pass

    def text(self, path: str) -> str:
        """Return the text of a regular file, "" if there is none."""
        return paths.decode(beneath.content(self.root, path, LONGEST, beneath.INSIDE))

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
        return self.text(path).splitlines()

    def locked(self, path: str) -> Fd:
        """Return a descriptor of a lock of dpkg's, held as long as that is open.  Raises Failure if it is in use."""
        with beneath.opened(self.root, path, posix.O_PATH, beneath.INSIDE) as found:
            if files.kind_of(found) != files.REGULAR:
                raise Failure(f"/{path} in {self.name} is not a regular file")
            fd = files.opened(paths.of_descriptor(found), posix.O_RDWR)
        if not namespaces.lock_open_file(fd, 0, 0, exclusive=True):
            posix.close(fd)
            raise Failure(f"dpkg is at work in {self.name}")
        return fd
