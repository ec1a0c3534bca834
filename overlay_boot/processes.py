"""Child processes: what the configuration names is run here, without a shell."""
import _signal
import posix
import select
import time

from . import PATH, environment, files, interruption, namespaces, paths
from .errors import Failure, doing
from .files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .fences import Fences

LIMIT = 1 << 20     # bytes of a command's output
MOMENT = 0.1        # seconds
GRACE = 1000        # milliseconds, for the end of what is killed
FOREVER = float("inf")
INTO_PIPE = -1      # in the place of a descriptor: what comes there is read by us


class Unsuccessful(Failure):
    """A command was executed, and has ended with another exit status than 0, or not in time."""


class Child:
    """A child process, in a session of its own.  It is killed when this process ends.

    If its with statement ends before it does, so are all that it has started and that are in its process group still.
    Its standard input is empty.  What it writes to INTO_PIPE can be read from source.
    """

    __slots__ = ("pidfd", "process", "source")

    def __init__(self, places: list[str], words: list[str], env: dict[str, str], output: int, log: int, directory: str,
                 *, cgroup: int = -1, inside: int = -1, users: bool = False,
                 fences: "Fences | None" = None, is_over: "Callable[[], bool] | None" = None) -> None:
        """Execute the first of places that there is, as namespaces.spawn() has it, with output and log as 1 and 2.

        Raises Failure if it cannot be executed, TimeoutError if it was not before is_over said that it is over.
        """
        self.source, sink = make_pipe()
        with Fd(sink), files.null() as null:
            standard = (null, *(sink if fd == INTO_PIPE else fd for fd in (output, log)))
            try:
                self.process, self.pidfd = namespaces.spawn(places, words, env, standard=standard, directory=directory,
                                                            cgroup=cgroup, inside=inside, users=users, bound=True,
                                                            capabilities=fences.capabilities if fences else 0,
                                                            filter=fences.filter if fences else b"", is_over=is_over)
            except TimeoutError:
                posix.close(self.source)
                raise
            except OSError as error:
                posix.close(self.source)
                raise Failure(f"cannot execute {words[0]}: {error.strerror}") from None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            posix.killpg(self.process, _signal.SIGKILL)     # which it leads, and has not yet been waited for
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            poll.poll(GRACE)            # not for ever: a file system that the subhost serves can hold it up even then
            posix.waitpid(self.process, posix.WNOHANG)
        posix.close(self.pidfd)
        posix.close(self.source)

    def wait(self) -> int:
        """Wait for its end.  Returns the exit status, or the number of the signal that has killed it, negative."""
        status = posix.waitpid(self.process, 0)[1]
        self.process = 0
        return posix.waitstatus_to_exitcode(status)


def candidates(word: str, path: str = PATH) -> list[str]:
    """Return the paths that a command's first word may stand for, in their order."""
    if "/" in word:
        return [word]
    return [f"{directory}/{word}" for directory in path.split(":") if directory]


def run(words: list[str], values: dict[str, str], directory: str, *,
        cgroup: int = -1, log: int = 2, output: bool = False, heard: "Callable[[bytes], None] | None" = None,
        seconds: float | None = None) -> bytes:
    """Run a command line to its end.  Returns what it printed, where output is asked for.

    What it prints otherwise goes to the descriptor log.  heard is called with all
    of the output so far whenever there is more.  values are added to its
    environment; it is killed when this process ends.  Raises Failure if it cannot
    be executed, fails, is killed, says more than LIMIT bytes, or has not ended after
    so many seconds, which are those of BOOT_TIMEOUT.
    """
    env = environment.for_commands(values)
    places = [paths.join(directory, path) for path in candidates(words[0], env["PATH"])]
    try:
        with Child(places, words, env, INTO_PIPE if output else log, log, directory, cgroup=cgroup) as child:
            said = gather(child.source, child.pidfd, seconds, heard=heard)
            status = child.wait()
    except TimeoutError:
        raise Unsuccessful(how_hung(words[0], seconds)) from None
    if status:
        raise Unsuccessful(how_failed(words[0], status))
    return said


def how_failed(command: str, status: int) -> str:
    """Tell how a command has failed: status is not 0, and a negative one is a signal."""
    return f"{command} was killed by signal {-status}" if status < 0 else f"{command} failed with exit status {status}"


def how_hung(command: str, seconds: float | None) -> str:
    """Tell of a command that was killed because it has not ended within BOOT_TIMEOUT."""
    return f"{command} was killed: it has not ended after BOOT_TIMEOUT={seconds:g} seconds"


def run_telling(words: list[str], values: dict[str, str], directory: str, *,
                cgroup: int = -1, output: bool = False, seconds: float | None = None) -> bytes:
    """run(), with its standard error passed on to ours.

    Of a command without success, the last line of that is part of the Failure, and is not passed on.
    """
    with Fd(posix.memfd_create("said")) as said:
        kept = 0
        try:
            return run(words, values, directory, cgroup=cgroup, log=said, output=output, seconds=seconds)
        except Unsuccessful as failure:
            last = lines_of(said)[-1:]
            kept = len(last)
            raise Unsuccessful(": ".join([str(failure), *last])) from None
        finally:
            lines = lines_of(said)
            files.write_all(2, "".join(f"{line}\n" for line in lines[:len(lines) - kept]))


def lines_of(fd: int) -> list[str]:
    """Return the lines in a file that are not blank."""
    return [line for line in paths.decode(posix.pread(fd, LIMIT, 0)).split("\n") if line.strip()]


def run_inside(inside: int, words: list[str], env: dict[str, str], cgroup: int, seconds: float,
               fences: "Fences", is_over: "Callable[[], bool]", *, users: bool) -> bytes:
    """Run a command in the namespaces of the process of the pidfd inside, and in its fences.  Returns what it printed.

    users tells whether that is in another user namespace.

    Its standard output and error are a pipe: no file of the host's is within
    reach of the subhost.  The caller has called setns(inside, NEWPID).  Raises
    Failure if it cannot be executed, or has not ended after so many seconds, or
    before is_over, which is asked every MOMENT, says that there is no use in it.
    """
    begin = time.monotonic()

    def is_too_late() -> bool:
        with interruption.Wait():
            pass
        return time.monotonic() >= begin + seconds or is_over()

    try:
        with Child(candidates(words[0]), words, env, INTO_PIPE, INTO_PIPE, "/", cgroup=cgroup, inside=inside,
                   fences=fences, users=users, is_over=is_too_late) as child:
            return gather(child.source, child.pidfd, is_over=is_too_late)
    except TimeoutError:
        passed = min(seconds, round(time.monotonic() - begin, 1))
        raise Failure(f"{words[0]} has not ended after {passed:g} s") from None


@doing("make a pipe")
def make_pipe() -> tuple[int, int]:
    """pipe(2): return both ends, the one to read from first."""
    return posix.pipe()


def gather(source: int, pidfd: int, seconds: float | None = None, is_over: "Callable[[], bool] | None" = None,
           heard: "Callable[[bytes], None] | None" = None) -> bytes:
    """Return what comes from source until the process of a pidfd has ended; heard is called with it as it grows.

    A daemon that the process leaves behind may hold the other end open.  Raises
    TimeoutError if the process has not ended after so many seconds, or when
    is_over, which is asked every MOMENT, says so; Failure if more than LIMIT bytes come.
    """
    posix.set_blocking(source, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(source, select.POLLIN)
    end = time.monotonic() + seconds if seconds is not None else FOREVER
    said = b""
    while True:
        longest = min(end - time.monotonic(), MOMENT if is_over else FOREVER)
        with interruption.Wait():
            ready = dict(poll.poll(None if longest == FOREVER else max(0, longest) * 1000))
        if pidfd not in ready and (time.monotonic() >= end or is_over and is_over()):
            raise TimeoutError
        more = available(source)
        said += more
        if len(said) > LIMIT:
            raise Failure(f"more than {LIMIT} bytes of output")
        if heard and more:
            heard(said)
        if pidfd in ready:
            return said
        if ready and not ready[source] & select.POLLIN:     # hung up
            poll.unregister(source)


def available(source: int) -> bytes:
    """Return what there is to be read now, or more than LIMIT bytes of it."""
    said = b""
    while len(said) <= LIMIT:
        try:
            chunk = posix.read(source, 1 << 16)
        except BlockingIOError:
            break
        if not chunk:
            break
        said += chunk
    return said
