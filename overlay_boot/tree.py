"""The tree of files of a layer that is being made, to lie over another one by overlayfs.

Whatever stands in it already, scripts of packages may have put there: it is
reached by descriptors, through no symbolic link.
"""
import os
import stat

from . import files, namespaces, paths
from .errors import Failure
from .files import PLACE as DIRECTORY

OPAQUE = "trusted.overlay.opaque"


class Tree:
    """The directory, which exists; paths in it are as /etc/passwd."""

    def __init__(self, directory):
        self.fd = os.open(directory, DIRECTORY)

    def close(self):
        os.close(self.fd)

    def opened(self, path):
        """A descriptor of a directory; raises OSError if it is none, or behind a symbolic link."""
        return namespaces.openat2(self.fd, path.strip("/") or ".", DIRECTORY, namespaces.NO_SYMLINKS)

    def above(self, path):
        """A descriptor of the directory that path is in, made if there is none."""
        try:
            return self.opened(paths.parent(path))
        except FileNotFoundError:
            self.directory(paths.parent(path))
            return self.opened(paths.parent(path))

    def directory(self, path, mode=0o755, owner=(0, 0), *, opaque=False):
        """A directory, of that mode and owner whether it exists or not; opaque: of those beneath nothing is seen."""
        at = self.above(path)
        try:
            try:
                os.mkdir(paths.name(path), dir_fd=at)
            except FileExistsError:
                pass
        finally:
            os.close(at)
        fd = self.opened(path)
        try:
            os.chown(f"/proc/self/fd/{fd}", *owner)
            os.chmod(f"/proc/self/fd/{fd}", mode)
            if opaque:
                set_xattr(fd, OPAQUE, b"y")
        finally:
            os.close(fd)

    def file(self, path, data, mode=0o644, owner=(0, 0)):
        """A regular file in the place of any other."""
        at = self.above(path)
        try:
            remove(paths.name(path), at)
            fd = os.open(paths.name(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600, dir_fd=at)
            with open(fd, "wb") as file:
                file.write(data)
                os.fchown(fd, *owner)
                os.fchmod(fd, mode)     # after fchown, which takes set-uid away
        finally:
            os.close(at)

    def link(self, path, target):
        """A symbolic link in the place of any other file."""
        at = self.above(path)
        try:
            remove(paths.name(path), at)
            os.symlink(target, paths.name(path), dir_fd=at)
        finally:
            os.close(at)

    def hide(self, path):
        """A whiteout: beneath it, there is nothing of that name."""
        at = self.above(path)
        try:
            os.mknod(paths.name(path), stat.S_IFCHR, os.makedev(0, 0), dir_fd=at)
        finally:
            os.close(at)

    def remove(self, path):
        """Take away a file, if there is one; no directory."""
        try:
            at = self.opened(paths.parent(path))
        except OSError:
            return
        try:
            remove(paths.name(path), at)
        finally:
            os.close(at)

    def has(self, path):
        """Whether there is anything of that path."""
        try:
            at = self.opened(paths.parent(path))
        except OSError:
            return False
        try:
            return files.exists(paths.name(path), at)
        finally:
            os.close(at)

    def regular_files(self, path):
        """(path, size) of the regular files below a directory."""
        at = self.opened(path)
        try:
            for place, _, names, fd in os.fwalk(".", dir_fd=at):
                for name in names:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode):
                        yield f"{path}{place[1:]}/{name}", info.st_size
        finally:
            os.close(at)

    def read(self, path):
        fd = namespaces.openat2(self.fd, path.strip("/"), os.O_RDONLY | os.O_NOFOLLOW, namespaces.NO_SYMLINKS)
        with open(fd, "rb") as file:
            return file.read()


def remove(name, directory):
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def set_xattr(fd, name, value):
    """An extended attribute of the directory of a descriptor.  Raises Failure if its file system has none."""
    place = f"/proc/self/fd/{fd}"
    try:
        os.setxattr(place, name, value)
    except OSError as error:
        raise Failure(f"cannot set {name} on {os.readlink(place)}: {error.strerror}") from None
