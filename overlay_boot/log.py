"""LOG, which PID 1's output goes to by way of the keeper, and that of hooks and of services that are stopped."""
import posix

from . import beneath, files, paths
from .config import LOGS
from .errors import Failure
from .files import Fd

FLAGS = posix.O_WRONLY | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_NOCTTY
MODE = 0o640


def make(path: str, own: tuple[str, ...]) -> Fd:
    """Open a log for appending, and make it if there is none.

    own are the directories with the subhost's own files.  Raises Failure if the
    log cannot be written.
    """
    directory = paths.parent(path)
    try:
        if directory == LOGS and not files.kind(directory):
            posix.mkdir(directory, 0o750)
        return existing(path, own, posix.O_CREAT)
    except OSError as error:
        raise Failure(f"cannot write LOG={path}: {error.strerror}") from None


def existing(path: str, own: tuple[str, ...], more: int = 0) -> Fd:
    """Open a log for appending.  Where the files are the subhost's, no symbolic link is followed."""
    for directory in own:
        if path.startswith(directory + "/"):
            with files.opened(directory, files.PLACE) as root:
                return beneath.opened(root, path.removeprefix(directory + "/"), FLAGS | more, beneath.REFUSED,
                                      MODE if more else 0)
    return files.opened(path, FLAGS | more, MODE)


def append(path: str, own: tuple[str, ...], said: bytes) -> None:
    """Add bytes to a log that is there.  Raises OSError if that cannot be."""
    with existing(path, own) as fd:
        posix.write(fd, said)
