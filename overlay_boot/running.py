"""Subhosts that are running, known by the locks of their state files."""
import posix

from . import proc
from .errors import Failure, doing
from .files import Fds
from .namespaces import COMMAND, STOP, locked_by
from .record import GONE
from .state import State, has_ended, names


class Running:
    """A running subhost: descriptors of its keeper and of its PID 1."""

    __slots__ = ("init", "init_fd", "keeper", "keeper_fd", "name", "record", "state")

    @doing("find the processes of the subhost")
    def __init__(self, state: State) -> None:
        """Raises ProcessLookupError if it is not running (any more)."""
        self.state, self.name = state, state.name
        self.keeper = state.keeper()
        self.record = state.record()
        self.init = self.record.init or GONE
        if not self.keeper or self.init == GONE:
            raise ProcessLookupError
        with Fds() as fds:
            self.keeper_fd = fds.keep(posix.pidfd_open(self.keeper))
            self.init_fd = fds.keep(posix.pidfd_open(self.init))
            # The kernel vouches for the keeper, and the keeper has but one child.
            if proc.parent(self.init) != self.keeper or state.keeper() != self.keeper:
                raise ProcessLookupError
            fds.let_go()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        posix.close(self.keeper_fd)
        posix.close(self.init_fd)

    @property
    def network(self) -> str:
        """The path of its network namespace."""
        return f"/proc/{self.init}/ns/net"

    def is_ending(self, seconds: float) -> bool:
        """Tell whether it is being stopped, or ends within the time."""
        return bool(locked_by(self.state.fd, STOP)) or has_ended(self.init_fd, seconds)

    def mounts(self) -> dict[int, proc.Mount]:
        """Return {id: Mount} of all that its PID 1 can see."""
        return proc.mounts(self.init)

    def members(self) -> list[int]:
        """Return the process ids of all that is in its control group, none once another command has cleared that."""
        from . import cgroup
        try:
            with cgroup.group(self.record.cgroup or "") as group:
                return cgroup.members(group)
        except FileNotFoundError:
            return []


class NotRunning(Failure):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not running")


def find(name: str) -> Running:
    """Return the running subhost NAME.  Raises NotRunning, or if it hibernates, the Failure that says what to do."""
    try:
        if name not in names():         # no path, however it is written
            raise FileNotFoundError
        state = State(name)
    except FileNotFoundError:
        raise NotRunning(name) from None
    try:
        return Running(state)
    except ProcessLookupError:
        with state:
            refuse_hibernating(state)
        raise NotRunning(name) from None
    except BaseException:
        state.close()
        raise


def refuse_hibernating(state: State) -> None:
    """Raises Failure if it hibernates and nobody is at work with it."""
    if state.is_hibernating() and not locked_by(state.fd, COMMAND):
        config = state.record().config or "CONF"
        raise Failure(f"{state.name} is hibernating: overlay-boot {config} wakes it, with --shell for a shell in it, "
                      f"and overlay-stop {config} removes it")


def boots() -> list[tuple[float, str]]:
    """Return (time of its boot, name) of every running subhost, the first boot first."""
    found = []
    for name in names():
        try:
            one = find(name)
        except Failure:
            continue
        with one.state, one:
            found.append((one.record.since, name))
    return sorted(found)
