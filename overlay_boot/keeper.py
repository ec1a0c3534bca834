"""The keeper, the parent of PID 1: how a boot starts it and hands over to it.  See _native/keeper.pyx."""
import _signal
import posix

from . import PROGRAMS, environment, files, interruption, namespaces, paths
from .errors import Failure, doing
from .files import Fd

CLEAR = f"{PROGRAMS}/clear"
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
NONE = -1               # in the place of a descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fences import Fences


class Keeper:
    """The keeper of a boot that does not become it itself."""

    __slots__ = ("heard", "process", "said")

    @doing("start the keeper")
    def __init__(self, name: str, hostname: str, command: list[str], descriptors: dict[str, int], fences: "Fences", *,
                 starts: bool, bound: bool, owner: int) -> None:
        """Start it, to execute command as PID 1.  If it is bound, the subhost lives and dies with this process.

        starts tells whether that starts services; owner is root of the user namespace, as the host has it.
        """
        self.said, report = map(Fd, posix.pipe())
        programs = Fd(namespaces.programs())
        record = packed(hostname, command, {**descriptors, "programs": programs, "report": report}, fences,
                        boot=posix.getpid(), starts=starts, bound=bound, owner=owner)
        with report, record, programs:
            give_in_to_signals()
            try:
                self.process = posix.posix_spawn(program(programs), ["keeper", name], environment.inside(), setsid=True,
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

    def services(self, seconds: float | None) -> "Iterator[str]":
        """Yield a line for each service that fails, until PID 1 has started them all.

        Raises TimeoutError if it is still at it after so many seconds, unless that is None, EOFError if it, or what it
        has left to tell of them, ends before that, Failure if a signal arrives.
        """
        import select
        import time
        end = time.monotonic() + seconds if seconds is not None else None
        poll = select.poll()
        poll.register(self.said, select.POLLIN)
        while True:
            line, found, rest = self.heard.partition(b"\n")
            if found:
                self.heard = rest
                if not line:
                    return
                yield line.decode(paths.ENCODING, "replace")        # it is for a terminal, and the subhost's
                continue
            with interruption.Wait():
                if not poll.poll(None if end is None else max(0, end - time.monotonic()) * 1000):
                    raise TimeoutError
            more = posix.read(self.said, 4096)
            if not more:
                raise EOFError
            self.heard += more


@doing("start the keeper")
def become(name: str, hostname: str, command: list[str], descriptors: dict[str, int], fences: "Fences", *,
           starts: bool, owner: int) -> None:
    """Have this process become the keeper, with the console of the subhost as its standard output."""
    programs = Fd(namespaces.programs())
    descriptors = {**descriptors, "log": STANDARD_OUTPUT, "report": STANDARD_ERROR, "programs": programs}
    notify = environment.variable("NOTIFY_SOCKET") or ""
    with packed(hostname, command, descriptors, fences, boot=0, starts=starts, bound=False, owner=owner,
                notify=notify) as record, programs:
        give_in_to_signals()
        posix.dup2(record, 0)
        posix.execve(program(programs), ["keeper", name], environment.inside())


def program(programs: int) -> str:
    """Return the path of the keeper, by which PID 1, while it still is a copy of that, can only be read."""
    return f"{paths.of_descriptor(programs)}/keeper"


def packed(hostname: str, command: list[str], descriptors: dict[str, int], fences: "Fences", *, boot: int, starts: bool,
           bound: bool, owner: int, notify: str = "") -> Fd:
    """Return a file with what the keeper reads, and have it inherit the descriptors, named as in protocol.pxd."""
    for fd in descriptors.values():
        if fd != NONE:
            posix.set_inheritable(fd, True)
    try:
        text = namespaces.handover(boot=boot, starts=starts, bound=bound, owner=owner, notify=notify, clear=CLEAR,
                                   hostname=hostname, command=command, capabilities=fences.capabilities,
                                   filter=fences.filter, **descriptors)
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
