"""LOG, which PID 1's output goes to by way of the keeper, and that of hooks and of services that are stopped."""
import posix

from . import files, namespaces, paths
from .config import LOGS
from .errors import Failure

FLAGS = posix.O_WRONLY | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC


def make(path, own):
    """Open a log for appending; it is made if there is none.  own are the directories with the subhost's own files.

    Raises Failure if it cannot be written.
    """
    directory = paths.parent(path)
    try:
        if directory == LOGS and not files.kind(directory):
            posix.mkdir(directory, 0o750)
        return opened(path, own, posix.O_CREAT)
    except OSError as error:
        raise Failure(f"cannot write LOG={path}: {error.strerror}") from None


def opened(path, own, more=0):
    """Where the files are the subhost's, no symbolic link is followed."""
    for directory in own:
        if path.startswith(directory + "/"):
            root = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY)
            try:
                return namespaces.openat2(root, path[len(directory) + 1:], FLAGS | more, namespaces.NO_SYMLINKS,
                                          0o640 if more else 0)
            finally:
                posix.close(root)
    return posix.open(path, FLAGS | more, 0o640)


def append(path, own, said):
    fd = opened(path, own)
    try:
        posix.write(fd, said)
    finally:
        posix.close(fd)
