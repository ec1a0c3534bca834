"""The keeper, the parent of PID 1: how a boot starts it and hands over to it.  See _native/keeper.pyx."""
import _signal
import posix

from . import PROGRAMS, environment, files, interruption, namespaces, paths
from .errors import Failure, doing
from .files import Fd

PROGRAM = f"{PROGRAMS}/keeper"
CLEAR = f"{PROGRAMS}/clear"
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
NONE = -1               # in the place of a descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Keeper:
    """The keeper of a boot that does not become it itself."""

    __slots__ = ("heard", "process", "said")

    @doing("start the keeper")
    def __init__(self, name: str, hostname: str, command: list[str], descriptors: dict[str, int], *,
                 starts: bool, bound: bool) -> None:
        """Start it, to execute command as PID 1.  If it is bound, the subhost lives and dies with this process.

        starts tells whether that starts services.
        """
        self.said, report = map(Fd, posix.pipe())
        record = packed(hostname, command, {**descriptors, "report": report}, boot=posix.getpid(), starts=starts,
                        bound=bound)
        with report, record:
            give_in_to_signals()
            try:
                self.process = posix.posix_spawn(PROGRAM, ["keeper", name], environment.inside(), setsid=True,
                                                 file_actions=[(posix.POSIX_SPAWN_DUP2, record, 0)])
            except OSError as error:
                why = namespaces.limit(error.errno or 0) or error.strerror
                raise Failure(f"cannot start the keeper: {why}") from None

    @doing("wait for the keeper")
    def wait(self) -> None:
        """Wait until it has PID 1 executed.  Raises Failure, with both of them killed, if that fails."""
        try:
            with interruption.Wait():
                said = read_report(self.said)
            if not said.startswith(namespaces.DONE_REPORT):
                raise Failure(said.decode() or "the keeper was killed")
        except BaseException:
            posix.kill(self.process, _signal.SIGKILL)
            posix.waitpid(self.process, 0)
            raise
        self.heard = said[len(namespaces.DONE_REPORT):]

    def services(self, seconds: float) -> "Iterator[str]":
        """Yield a line for each service that fails, until PID 1 has started them all.

        Raises TimeoutError if it is still at it after so many seconds, EOFError if it ends before that, Failure if a
        signal arrives.
        """
        import select
        import time
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.said, select.POLLIN)
        while True:
            line, found, rest = self.heard.partition(b"\n")
            if found:
                self.heard = rest
                if not line:
                    return
                yield paths.decode(line)
                continue
            with interruption.Wait():
                if not poll.poll(max(0, end - time.monotonic()) * 1000):
                    raise TimeoutError
            more = posix.read(self.said, 4096)
            if not more:
                raise EOFError
            self.heard += more


@doing("start the keeper")
def become(name: str, hostname: str, command: list[str], descriptors: dict[str, int], *, starts: bool) -> None:
    """Have this process become the keeper, with the console of the subhost as its standard output."""
    descriptors = {**descriptors, "log": STANDARD_OUTPUT, "report": STANDARD_ERROR}
    notify = environment.variable("NOTIFY_SOCKET") or ""
    with packed(hostname, command, descriptors, boot=0, starts=starts, bound=False, notify=notify) as record:
        give_in_to_signals()
        posix.dup2(record, 0)
        posix.execve(PROGRAM, ["keeper", name], environment.inside())


def packed(hostname: str, command: list[str], descriptors: dict[str, int], *, boot: int, starts: bool, bound: bool,
           notify: str = "") -> Fd:
    """Return a file with what the keeper reads, and have it inherit the descriptors, named as in protocol.pxd."""
    for fd in descriptors.values():
        if fd != NONE:
            posix.set_inheritable(fd, True)
    try:
        text = namespaces.handover(boot=boot, starts=starts, bound=bound, notify=notify, clear=CLEAR, hostname=hostname,
                                   command=command, **descriptors)
    except ValueError as error:
        raise Failure(str(error)) from None
    record = Fd(posix.memfd_create("handover"))
    files.write_all(record, text)
    posix.lseek(record, 0, 0)
    return record


def give_in_to_signals() -> None:
    """Let those in that were held back: it is the last moment for them."""
    with interruption.Wait():
        pass


def read_report(source: int) -> bytes:
    """Return what is written to a pipe until PID 1 has been executed or cannot be."""
    said = chunk = posix.read(source, 4096)
    while chunk and not said.startswith(namespaces.DONE_REPORT):
        chunk = posix.read(source, 4096)
        said += chunk
    return said
