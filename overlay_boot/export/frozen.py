"""A subhost that stands still while its files are read: its control group is frozen, cgroups(7).

A process of ours thaws it as soon as this one lets go of a pipe, in whichever way it ends.
"""
import _signal
import posix
import select
import time

from .. import cgroup, files, processes
from ..errors import Failure
from ..files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

TIMEOUT = 10                # seconds, for processes that wait for a disk


class Frozen:
    """A context in which all processes of a subhost stand still, if it runs."""

    __slots__ = ("group", "guard", "name", "path", "sink")

    def __init__(self, name: str, state: "State | None") -> None:
        """state is that of one that runs or hibernates."""
        self.name = name
        self.path = state.record().cgroup if state and state.keeper() else None

    def __enter__(self) -> "Frozen":
        """Raises Failure if a process cannot be stopped in time."""
        self.guard, self.group = 0, Fd(-1)
        if not self.path:
            return self
        self.group = cgroup.group(self.path)
        if cgroup.is_frozen(self.group):        # by somebody else, who thaws it
            return self
        source, self.sink = processes.make_pipe()
        self.guard = forked(source, self.group)
        posix.close(source)
        try:
            cgroup.write(self.group, "cgroup.freeze", "1")
            self.wait()
        except BaseException:
            self.thaw()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()

    def wait(self) -> None:
        with files.opened("cgroup.events", posix.O_RDONLY, directory=self.group) as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            end = time.monotonic() + TIMEOUT
            while b"frozen 1" not in posix.pread(events, 256, 0):
                if time.monotonic() > end:
                    raise Failure(f"cannot freeze {self.name}: a process of it waits for something that does not come")
                poll.poll(100)

    def check(self) -> None:
        """Raises Failure if somebody has let it run meanwhile."""
        if not self.path:
            return
        try:
            stood_still = cgroup.is_frozen(self.group)
        except OSError:                         # it has ended
            stood_still = False
        if not stood_still:
            raise Failure(f"{self.name} was stopped, or thawed, while its files were read")

    def thaw(self) -> None:
        if self.guard:
            posix.close(self.sink)
            posix.waitpid(self.guard, 0)
        if self.path:
            self.group.close()


def forked(source: int, group: int) -> int:
    """Start guard(); return its process id.  From then on it is out of reach of what ends our process group.

    That is also what comes from the terminal.
    """
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP))
    try:
        process = posix.fork()
        if process == 0:
            guard(source, group)
        posix.setpgid(process, process)
        return process
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def guard(source: int, group: int) -> None:
    """In a process of its own: wait for the end of the other end of a pipe, and let the control group run."""
    try:
        with files.opened("cgroup.freeze", posix.O_WRONLY, directory=group) as freezer:
            kept = (posix.dup2(source, 0), posix.dup2(freezer, 1))
            posix.closerange(2, posix.sysconf("SC_OPEN_MAX"))
            posix.read(kept[0], 1)
            posix.write(kept[1], b"0")
    finally:
        posix._exit(0)

