"""Where a baseline is made, beside the one that it will replace, and how it takes the place of that."""
import fcntl
import os
import shutil
import stat

from .. import BASELINE_MARK, files, namespaces, paths, progress, state
from ..errors import Failure
from ..files import Fd, Fds


class Workshop:
    """A directory beside the baseline, in which the next one is made; locked by the process that does.

    A with statement makes it, and removes it at its end.
    """

    def __init__(self, directory: str) -> None:
        """Raises Failure if there is something in the place of the baseline that is none."""
        self.directory = checked_directory(directory)
        self.path = f"{paths.parent(self.directory).rstrip('/')}/.{paths.name(self.directory)}.overlay-baseline"
        self.layer = f"{self.path}/layer"           # what will be the baseline
        self.archives = f"{self.path}/archives"     # of packages, fetched
        self.work = f"{self.path}/work"             # for overlayfs
        self.live = f"{self.path}/live"             # where the layer is mounted over the system

    def __enter__(self) -> "Workshop":
        try:
            self.fd = self.locked()
        except BlockingIOError:
            raise Failure(f"cannot make {self.directory}: another overlay-baseline is making it") from None
        except OSError as error:
            raise Failure(f"cannot make {self.path}: {error.strerror}") from None
        self.clear()                                # of one that was killed
        for made in (self.layer, self.archives, self.work, self.live):
            os.mkdir(made)
        return self

    def __exit__(self, *_: object) -> None:
        with self.fd:
            self.clear()
            if not os.listdir(self.path):
                os.rmdir(self.path)

    def locked(self) -> Fd:
        """Make and lock the directory, which another process may just remove; return a descriptor of it."""
        while True:
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                pass
            try:
                fd = files.opened(self.path, files.READ_DIRECTORY)
            except FileNotFoundError:
                continue
            with Fds([fd]) as fds:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink:
                    fds.let_go()
                    return fd

    def deliver(self) -> None:
        """Put the layer in the place of the baseline, at once; the former one goes as soon as nobody has it mounted."""
        progress.tell("writing the layer to the disk")
        os.sync()                                   # whole after a power failure, too
        if os.path.lexists(self.directory):
            namespaces.exchange(self.layer, self.directory)
            os.rename(self.layer, f"{self.path}/{os.stat(self.layer).st_ino}")
        else:
            os.rename(self.layer, self.directory)

    def clear(self) -> None:
        """Remove all but former baselines that a subhost may have mounted."""
        used = is_used(self.directory)
        for name in os.listdir(self.path):
            if not (used and name.isdigit()):
                progress.tell(f"removing {self.path}/{name}")
                discard(f"{self.path}/{name}")


def checked_directory(directory: str) -> str:
    """Return the absolute path of a directory for a baseline.  Raises Failure if there is something that is none."""
    directory = paths.normal(paths.absolute(directory))
    try:
        directory = paths.join(paths.real(paths.parent(directory)), paths.name(directory))
        info = os.lstat(directory)
    except FileNotFoundError as error:
        if error.filename == directory:
            return directory
        raise Failure(f"cannot make {directory}: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise Failure(f"cannot replace {directory}: it is not a directory")
    if BASELINE_MARK not in os.listxattr(directory) and os.listdir(directory):
        raise Failure(f"cannot replace {directory}: it is neither empty nor a baseline")
    return directory


def discard(path: str) -> None:
    """Remove a file or a directory with all that is in it, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def is_used(directory: str) -> bool:
    """Tell whether a subhost that was booted has the directory as a layer."""
    return any(os.path.realpath(path) == directory for _, record in state.noted() for path in record.lower.values())
