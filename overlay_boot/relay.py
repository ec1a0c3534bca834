"""What a process inside has as 0, 1 and 2, and the copying between that and what the caller of overlay-go has.

The process gets the caller's own descriptor only if that is a pipe or a socket.  Any other leads further: of a file,
even one that is open for reading only, /proc makes one to write, and of a directory a way out.  In the place of a
terminal it gets one of the subhost's own devpts, in that of everything else a pipe.
"""
import _signal
import posix
import select
import sys

from . import beneath, files, namespaces, paths
from .errors import Failure
from .files import Fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PTMX = (5, 2)           # the pseudo-terminal multiplexer, Linux's admin-guide/devices.txt
CHUNK = 1 << 16         # bytes that are read at a time: what a pipe holds


class Direction:
    """Copying from a source to a sink, of which one leads inside and the other one is the caller's.

    What the sink has not taken yet is kept, and nothing more is read before it has.  The end that leads inside is
    non-blocking.  The caller's may be so as well: that is a flag of the open file, which others have open too.
    """

    __slots__ = ("inside", "left", "sink", "source", "unwritten")

    def __init__(self, source: int, sink: int, *, inside: int) -> None:
        self.source, self.sink, self.inside = source, sink, inside
        self.unwritten = b""
        self.left = sys.maxsize         # bytes that are still to be read
        posix.set_blocking(inside, False)

    def awaited(self) -> tuple[int, int]:
        """Return the descriptor that is waited for, and the event of poll(2)."""
        return (self.sink, select.POLLOUT) if self.unwritten else (self.source, select.POLLIN)

    def is_ready(self, events: dict[int, int]) -> bool:
        """Tell whether there is something to copy, or an error to find, by the events of each descriptor."""
        fd, event = self.awaited()
        # A terminal that can be written to is no reason to read from it: it serves both directions.
        return bool(events.get(fd, 0) & (event | select.POLLERR | select.POLLHUP | select.POLLNVAL))

    def copy(self) -> bool:
        """Copy what there is at the moment; return whether there may be more.

        Raises OSError if it is the caller's end that fails.
        """
        try:
            data = self.unwritten or posix.read(self.source, min(CHUNK, self.left))
        except BlockingIOError:
            return True
        except OSError:
            if self.source != self.inside:
                raise
            return False                # EIO: nobody has the terminal open any more
        if not data:
            return False
        if not self.unwritten:
            self.left -= len(data)
        self.unwritten = data
        try:
            self.unwritten = data[posix.write(self.sink, data):]
        except BlockingIOError:
            pass
        except OSError:
            if self.sink != self.inside:
                raise
            return False                # EPIPE or EIO: nobody reads it any more
        return True


class Relay:
    """The three descriptors of a process inside, and the copying.  The end of a with statement closes what is ours."""

    def __init__(self) -> None:
        self.ours = Fds()
        self.outer = self.inner = -1    # the two ends of the pseudo-terminal, if there is one
        self.screen = -1                # the caller's terminal, if there is one
        self.lent: tuple[int, ...] = ()     # the kinds of the caller's files that are given to the process
        self.inward: list[Direction] = []
        self.outward: list[Direction] = []

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        if self.outer >= 0:
            _signal.signal(_signal.SIGWINCH, _signal.SIG_DFL)
        self.ours.__exit__()            # without the outer end, the inner one hangs up

    def standard(self, root: int, theirs: Fds, user: int = 0) -> list[int]:
        """Return the process's 0, 1 and 2, in the subhost of a root directory.

        Those which are to be closed here, once the process has them, are added to theirs.  In a user namespace, all
        but sockets are, and belong to a user of the host's, to be opened again as /dev/stderr or /dev/pts/0.  Raises
        Failure if the subhost has no terminal to give.
        """
        self.screen = next((fd for fd in (1, 2, 0) if posix.isatty(fd)), -1)
        if self.screen >= 0:
            self.open_terminal(root, theirs)
            self.resize()
            _signal.signal(_signal.SIGWINCH, self.resize)
            self.outward.append(Direction(self.outer, self.screen, inside=self.outer))
        self.lent = (files.SOCKET,) if user else (files.PIPE, files.SOCKET)
        standard = [self.passed(fd, theirs) for fd in (0, 1, 2)]
        for fd in theirs if user else ():
            posix.chown(fd, user, -1)
        return standard

    def passed(self, fd: int, theirs: Fds) -> int:
        """Return what the process gets for one of the caller's descriptors."""
        if posix.isatty(fd):
            if fd == 0:
                self.inward.append(Direction(fd, self.outer, inside=self.outer))
            return self.inner
        if files.kind_of(fd) in self.lent:
            return fd
        source, sink = posix.pipe()
        if fd == 0:
            self.inward.append(Direction(fd, self.ours.keep(sink), inside=sink))
            return theirs.keep(source)
        self.outward.append(Direction(self.ours.keep(source), fd, inside=source))
        return theirs.keep(sink)

    def open_terminal(self, root: int, theirs: Fds) -> None:
        """Open both ends of a pseudo-terminal of the subhost's."""
        try:
            # By path only to look at it: what stands there is the subhost's.
            with beneath.opened(root, "dev/pts/ptmx", posix.O_PATH, beneath.REFUSED) as found:
                status = posix.fstat(found)
                device = (posix.major(status.st_rdev), posix.minor(status.st_rdev))
                if status.st_mode & files.KIND != files.CHARACTER_DEVICE or device != PTMX:
                    raise Failure("the subhost's /dev/pts/ptmx is no pseudo-terminal multiplexer")
                outer = files.opened(paths.of_descriptor(found), posix.O_RDWR | posix.O_NOCTTY)
            self.outer = self.ours.keep(outer)
            self.inner = theirs.keep(namespaces.terminal_peer(outer))
        except OSError as error:
            raise Failure(f"no terminal from the subhost's /dev/pts: {error.strerror}") from None

    def resize(self, *_: object) -> None:
        """Give the inner terminal the size of the caller's; also as a handler of SIGWINCH."""
        import termios
        try:
            termios.tcsetwinsize(self.outer, termios.tcgetwinsize(self.screen))
        except termios.error:
            pass                        # it has gone, which will show

    def serve(self, pidfd: int, greeting: str = "") -> None:
        """Copy until the process of a pidfd has ended, and what it has printed is out.

        If there is a terminal, greeting is a line that is shown there first.
        Raises Failure if the caller's terminal fails, OSError if another of the caller's descriptors does, and
        SystemExit if there is a terminal, and a signal hangs it up.
        """
        if self.outer < 0:
            self.copy(pidfd)
            return
        import termios
        try:
            self.serve_terminal(pidfd, greeting)
        except termios.error as error:
            raise Failure(f"the terminal: {error.args[1]}") from None

    def serve_terminal(self, pidfd: int, greeting: str) -> None:
        """Copy, with the caller's terminal handing on every key as it is; in the end it is as it was."""
        import termios
        import tty
        before = termios.tcgetattr(self.screen)
        for number in (_signal.SIGTERM, _signal.SIGHUP):
            _signal.signal(number, hang_up)
        try:
            if posix.isatty(0):
                tty.setraw(0, termios.TCSADRAIN)    # keeps what is typed already
            if greeting:
                files.write_all(self.screen, f"{greeting}\r\n")
            self.copy(pidfd)
        finally:
            termios.tcsetattr(self.screen, termios.TCSADRAIN, before)

    def copy(self, pidfd: int) -> None:
        ended = False
        while not ended:
            events = wait([*self.inward, *self.outward], {pidfd: select.POLLIN})
            ended = pidfd in events
            # In this order: a terminal that has hung up already shall not show the echo of what is typed into it.
            self.go_on(self.outward, events)
            self.go_on(self.inward, events)
        # Others may have the descriptors open as well, and go on: what a pipe holds may be there by now, and no more.
        for one in self.outward:
            one.left = CHUNK
        while events := wait(self.outward, {}, None if any(one.unwritten for one in self.outward) else 0):
            self.go_on(self.outward, events)

    def go_on(self, directions: list[Direction], events: dict[int, int]) -> None:
        """Copy in those of the directions that are ready, and strike out those in which there will be no more."""
        for one in [*directions]:
            if one.is_ready(events) and not one.copy():
                directions.remove(one)
                if one.inside != self.outer:
                    self.ours.remove(one.inside)
                    posix.close(one.inside)     # the end of input


def wait(directions: list[Direction], others: dict[int, int], timeout: int | None = None) -> dict[int, int]:
    """poll(2): return {descriptor: events} of what the directions wait for, and of others.

    The timeout is in milliseconds; without one, it is waited for ever.
    """
    wanted = {**others}
    for one in directions:
        fd, event = one.awaited()
        wanted[fd] = wanted.get(fd, 0) | event      # a terminal is the source of one and the sink of another
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    return dict(poll.poll(timeout))


def hang_up(number: int, _frame: object) -> "NoReturn":
    """End, as a handler of a signal, and with it the inner terminal."""
    raise SystemExit(128 + number)
