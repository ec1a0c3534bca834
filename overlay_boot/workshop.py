"""Where a baseline is made, beside the one that it will replace, and how it takes the place of that."""
import fcntl
import os
import shutil
import stat

from . import BASELINE_MARK, namespaces, paths
from .config import read
from .errors import Failure
from .state import noted
from .subhosts_conf import listed


def place(directory):
    """The absolute path of the directory.  Raises Failure if there is something that is no baseline."""
    directory = paths.normal(paths.join(os.getcwd(), directory))
    try:
        directory = paths.join(paths.real(paths.parent(directory)), paths.name(directory))
        info = os.lstat(directory)
    except FileNotFoundError as error:
        if error.filename == directory:
            return directory
        raise Failure(f"cannot make {directory}: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise Failure(f"cannot replace {directory}: it is no directory")
    if BASELINE_MARK not in os.listxattr(directory) and os.listdir(directory):
        raise Failure(f"cannot replace {directory}: it is not empty, and no baseline")
    return directory


class Workshop:
    """A directory beside the baseline, in which the next one is made; locked by the process that does."""

    def __init__(self, directory):
        self.directory = directory
        self.path = f"{paths.parent(directory).rstrip('/')}/.{paths.name(directory)}.overlay-baseline"
        self.layer, self.archives = f"{self.path}/layer", f"{self.path}/archives"

    def __enter__(self):
        try:
            self.fd = self.locked()
        except BlockingIOError:
            raise Failure(f"cannot make {self.directory}: another overlay-baseline is at it") from None
        except OSError as error:
            raise Failure(f"cannot make {self.path}: {error.strerror}") from None
        self.clear()                            # of one that was killed
        for made in (self.layer, self.archives, f"{self.path}/work", f"{self.path}/live"):
            os.mkdir(made)
        return self

    def locked(self):
        """Make and lock the directory; another process may just remove it."""
        while True:
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                pass
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)

    def deliver(self):
        """Put the layer in the place of the baseline, at once; the former one goes as soon as nobody has it mounted."""
        os.sync()                               # whole after a power failure, too
        if os.path.lexists(self.directory):
            namespaces.exchange(self.layer, self.directory)
            os.rename(self.layer, f"{self.path}/{os.stat(self.layer).st_ino}")
        else:
            os.rename(self.layer, self.directory)

    def clear(self):
        """Remove all but former baselines that a subhost may have mounted."""
        used = is_used(self.directory)
        for name in os.listdir(self.path):
            if not (used and name.isdigit()):
                discard(f"{self.path}/{name}")

    def __exit__(self, *_):
        self.clear()
        if not os.listdir(self.path):
            os.rmdir(self.path)
        os.close(self.fd)


def discard(path):
    """Remove a file or a directory with all that is in it."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def configurations():
    """(the directory of its file, what it assigns) of each subhost that has a state or is listed."""
    found = {*listed(), *(record.config for _, record in noted())}
    for path in filter(None, found):
        try:
            yield paths.parent(paths.real(path)), read(path)
        except (Failure, OSError):
            pass


def base_of(here, assigned):
    """BASE; None if a command prints it."""
    base = assigned.get("BASE", ["."])[0]
    return None if base.startswith("!") else os.path.realpath(paths.join(here, base))


def is_used(directory):
    """Whether a subhost that was booted has the directory as a layer."""
    return any(os.path.realpath(path) == directory for _, record in noted() for path in record.lower.values())
