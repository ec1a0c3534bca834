"""The layer that is being made, to lie over a root by overlayfs.

Whatever stands in it already, scripts of packages may have put there: beneath.py reaches it, through no symbolic link.
"""
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import beneath, files, paths
from ..beneath import REFUSED
from ..errors import Failure
from ..files import Fd
from ..hiding import OPAQUE

if TYPE_CHECKING:
    from collections.abc import Iterator


class Layer:
    """The directory, which exists; paths in it are as /etc/passwd.  The end of a with statement closes it."""

    def __init__(self, directory: str) -> None:
        self.fd = files.opened(directory, files.PLACE)

    def __enter__(self) -> "Layer":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def opened(self, path: str, *, make: int | None = None) -> Fd:
        """Return a descriptor of a directory.  With make, the mode, what is missing of it is made.

        Raises OSError if it is none, or behind a symbolic link.
        """
        return beneath.directory(self.fd, path.strip("/"), REFUSED, make=make)

    def above(self, path: str) -> Fd:
        """Return a descriptor of the directory that path is in, which is made if there is none."""
        return self.opened(paths.parent(path), make=0o755)

    def make_directory(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0), *,
                       opaque: bool = False) -> None:
        """Make a directory, of that mode and owner whether it exists or not.

        opaque: nothing is seen of those of the same path beneath.
        """
        with self.opened(path, make=0o755) as fd:
            place = paths.of_descriptor(fd)
            os.chown(place, *owner)
            os.chmod(place, mode)
            if opaque:
                set_xattr(fd, OPAQUE, b"y")

    def make_file(self, path: str, data: bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Make a regular file in the place of any other."""
        name = paths.name(path)
        with self.above(path) as at:
            unlink(name, at)
            with files.opened(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, directory=at) as fd:
                files.write_all(fd, data)
                os.fchown(fd, *owner)
                os.fchmod(fd, mode)     # after fchown, which takes set-uid away

    def make_symlink(self, path: str, target: str) -> None:
        """Make a symbolic link in the place of any other file."""
        with self.above(path) as at:
            unlink(paths.name(path), at)
            os.symlink(target, paths.name(path), dir_fd=at)

    def hide(self, path: str) -> None:
        """Make a whiteout: nothing is seen of what has the same path beneath."""
        with self.above(path) as at:
            try:
                os.mknod(paths.name(path), stat.S_IFCHR, os.makedev(0, 0), dir_fd=at)
            except PermissionError:
                raise Failure(f"cannot hide {path}: its file system takes no whiteout, as an overlay mount"
                              ) from None

    def remove(self, path: str) -> None:
        """Take away a file, if there is one; no directory."""
        try:
            at = self.opened(paths.parent(path))
        except OSError:
            return
        with at, suppress(IsADirectoryError):
            unlink(paths.name(path), at)

    def has(self, path: str) -> bool:
        """Tell whether there is anything of that path."""
        try:
            at = self.opened(paths.parent(path))
        except OSError:
            return False
        with at:
            return files.exists(paths.name(path), at)

    def read(self, path: str, limit: int) -> bytes:
        """Return at most limit bytes of a regular file.  Raises OSError."""
        return beneath.read(self.fd, path.strip("/"), limit, REFUSED) or b""

    def regular_files(self, path: str) -> "Iterator[tuple[str, int]]":
        """Yield (path, size) of the regular files below a directory."""
        with self.opened(path) as at:
            for place, _, names, fd in os.fwalk(".", dir_fd=at):
                for name in names:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode):
                        yield f"{path}{place[1:]}/{name}", info.st_size


def unlink(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def set_xattr(fd: int, name: str, value: bytes) -> None:
    """Give the directory of a descriptor an extended attribute.  Raises Failure if its file system has none."""
    place = paths.of_descriptor(fd)
    try:
        os.setxattr(place, name, value)
    except OSError as error:
        raise Failure(f"cannot set {name} on {os.readlink(place)}: {error.strerror}") from None
