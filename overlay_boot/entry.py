"""Entering a running subhost: a process in all of its namespaces, on a terminal of its own."""
import _signal
import posix
import select

from . import cgroup, namespaces, paths, processes, rootfs
from .errors import Failure

SHELLS = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"]
NOT_EXECUTABLE, NOT_FOUND = 126, 127        # as a shell says it
PTMX = (5, 2)                               # Linux's admin-guide/devices.txt
LONGEST_FILE = 1 << 20


def enter(running, command, user=None):
    """Run a command, or a shell if there is none, in the subhost; its exit status."""
    root = posix.open(f"/proc/{running.init}/root", rootfs.DIRECTORY)
    account = Account(root, user)
    env = {**processes.environment_inside(), **account.environment()}
    words, places = [*command], SHELLS
    if command:
        places = processes.candidates(command[0])
    else:
        words = [paths.name(next((shell for shell in SHELLS if exists(root, shell)), "sh"))]
    group = cgroup.opened(running.records["cgroup"])
    namespaces.setns(running.init_fd, namespaces.NEWPID)
    terminals = [fd for fd in (0, 1, 2) if posix.isatty(fd)]
    terminal = Terminal(root) if terminals else None
    standard = [terminal.inner if fd in terminals else fd for fd in (0, 1, 2)]
    try:
        process, pidfd = namespaces.spawn(
            places, words, env, standard=standard, directory=account.home, cgroup=group,
            inside=running.init_fd, terminal=0 in terminals, user=account.credentials)
    except FileNotFoundError as error:
        raise NotExecuted(words[0], error.strerror, NOT_FOUND) from None
    except PermissionError as error:
        raise NotExecuted(words[0], error.strerror, NOT_EXECUTABLE) from None
    if terminal:
        terminal.serve(process, pidfd, terminals)
    else:
        hand_on_signals(process)
    ended = posix.waitstatus_to_exitcode(posix.waitpid(process, 0)[1])
    return 128 - ended if ended < 0 else ended


class NotExecuted(Failure):
    def __init__(self, word, why, status):
        super().__init__(f"cannot execute {word} in the subhost: {why}")
        self.status = status


def hand_on_signals(process):
    """The signals that end this process go to the child instead, whose end ends us."""
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT):
        _signal.signal(number, lambda number, _frame: posix.kill(process, number))


def exists(root, path):
    try:
        posix.close(namespaces.openat2(root, path, posix.O_PATH, namespaces.IN_ROOT))
    except OSError:
        return False
    return True


class Account:
    """A user of the subhost's own /etc/passwd, passwd(5); root if none is asked for."""

    def __init__(self, root, user):
        self.name, self.home, self.shell, self.credentials = "root", "/root", None, None
        for entry in entries(root, "etc/passwd", 7):
            if entry[0] == (user or "root"):
                self.name, self.home, self.shell = entry[0], entry[5] or "/", entry[6] or None
                if user:
                    uid, gid = int(entry[2]), int(entry[3])
                    groups = [int(group[2]) for group in entries(root, "etc/group", 4)
                              if user in group[3].split(",")]
                    self.credentials = (uid, gid, [gid, *groups])
                return
        if user:
            raise Failure(f"the subhost has no user {user}")

    def environment(self):
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell or "/bin/sh"}


def entries(root, path, fields):
    """The well-formed lines of a colon-separated file in the subhost."""
    try:
        data = rootfs.read(root, path, LONGEST_FILE)
    except OSError:
        return
    for line in paths.decode(data).split("\n"):
        entry = line.split(":")
        if len(entry) == fields and entry[2].isascii() and entry[2].isdigit() and "\0" not in line:
            yield entry


class Terminal:
    """A pseudo-terminal out of the subhost's devpts, served on the caller's terminal."""

    __slots__ = ("inner", "outer")

    def __init__(self, root):
        try:
            # By path only to look at it: what stands there is the subhost's.
            found = namespaces.openat2(root, "dev/pts/ptmx", posix.O_PATH, namespaces.NO_SYMLINKS)
            status = posix.fstat(found)
            device = (posix.major(status.st_rdev), posix.minor(status.st_rdev))
            if status.st_mode & paths.FILE_TYPE != paths.CHARACTER_DEVICE or device != PTMX:
                raise Failure("the subhost's /dev/pts/ptmx is no pseudo-terminal multiplexer")
            self.outer = posix.open(f"/proc/self/fd/{found}", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
            posix.close(found)
            self.inner = namespaces.terminal_peer(self.outer)
        except OSError as error:
            raise Failure(f"no terminal from the subhost's /dev/pts: {error.strerror}") from None

    def serve(self, process, pidfd, terminals):
        """Copy what is typed and what is printed, until the child has ended."""
        import termios
        import tty
        mine = terminals[0]
        before = termios.tcgetattr(mine)

        def resize(*_):
            termios.tcsetwinsize(self.outer, termios.tcgetwinsize(mine))

        def ended(number, _frame):
            raise SystemExit(128 + number)

        resize()
        _signal.signal(_signal.SIGWINCH, resize)
        _signal.signal(_signal.SIGTERM, ended)
        _signal.signal(_signal.SIGHUP, ended)
        posix.close(self.inner)
        try:
            if 0 in terminals:
                tty.setraw(mine)
            self.copy(pidfd, 0 in terminals, next((fd for fd in terminals if fd), mine))
        finally:
            termios.tcsetattr(mine, termios.TCSADRAIN, before)

    def copy(self, pidfd, typed, screen):
        posix.set_blocking(self.outer, False)
        poll = select.poll()
        poll.register(self.outer, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        if typed:
            poll.register(0, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if 0 in ready and typed:
                keys = posix.read(0, 4096)
                if not keys:
                    poll.unregister(0)
                self.put(keys)
            if not self.print(screen) and pidfd in ready:
                return

    def put(self, keys):
        while keys:
            try:
                keys = keys[posix.write(self.outer, keys):]
            except BlockingIOError:
                wait = select.poll()
                wait.register(self.outer, select.POLLOUT)
                wait.poll(1000)

    def print(self, screen):
        """Whether there was anything to print."""
        try:
            said = posix.read(self.outer, 1 << 16)
        except OSError:             # nothing now, or (EIO) nobody has the other end open
            return False
        while said:
            said = said[posix.write(screen, said):]
        return True
