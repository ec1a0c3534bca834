"""Entering a running subhost: a process in all of its namespaces, on a terminal of its own."""
import _signal
import posix
import select

from . import beneath, cgroup, environment, files, namespaces, paths, processes, running
from .errors import Failure
from .state import has_ended

SHELLS = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"]
# These go to the child and its group, as keys of a terminal would; its end ends us.
HANDED_ON = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
NOT_EXECUTABLE, NOT_FOUND = 126, 127        # as a shell says it
PTMX = (5, 2)                               # Linux's admin-guide/devices.txt
LONGEST_FILE = 1 << 20


def find(name):
    """The running subhost NAME, which may be one that the shell version has booted.  Raises Failure if it is not."""
    try:
        return running.find(name)
    except running.NotRunning:
        from . import subhosts
        return subhosts.find_inherited(name)


def enter(running, command, user=None):
    """Run a command, or a shell if there is none, in the subhost; its exit status."""
    try:
        return execute(running, command, user)
    except (OSError, NotExecuted):
        if has_ended(running.init_fd, 0.1):
            raise Failure(f"{running.name} is not running") from None
        raise


def execute(running, command, user):
    root = posix.open(f"/proc/{running.init}/root", files.PLACE)
    account = Account(root, user)
    env = {**environment.inside(), **account.environment()}
    words, places = [*command], SHELLS
    if command:
        places = processes.candidates(command[0])
    else:
        shell = shell_of(root)
        if not shell:
            raise NotExecuted("a shell", "it has neither bash nor sh", NOT_FOUND)
        words = [paths.name(shell)]
    group = cgroup.group(running.record.cgroup)
    relay = Relay()
    standard = relay.standard(root)
    namespaces.setns(running.init_fd, namespaces.NEWPID)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, HANDED_ON)       # until there is somebody to hand them to
    try:
        process, pidfd = namespaces.spawn(
            places, words, env, standard=standard, directory=account.home, cgroup=group,
            inside=running.init_fd, terminal=posix.isatty(0), user=account.credentials)
    except FileNotFoundError as error:
        # What the program is run by may not be there, and then it is that which is told of.
        there = next((place for place in places if exists(root, place)), None)
        why = f"the interpreter or loader that {there} needs is not there" if there else error.strerror
        raise NotExecuted(words[0], why, NOT_FOUND) from None
    except OSError as error:
        raise NotExecuted(words[0], error.strerror, NOT_EXECUTABLE) from None
    for number in HANDED_ON:
        _signal.signal(number, lambda number, _frame: posix.killpg(process, number))
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, HANDED_ON)
    relay.serve(pidfd)
    ended = posix.waitstatus_to_exitcode(posix.waitpid(process, 0)[1])
    tell_init(running)
    return 128 - ended if ended < 0 else ended


def tell_init(running):
    """PID 1 does not see the end of a process that is not its child; it may be waiting for that to end itself."""
    try:
        _signal.pidfd_send_signal(running.init_fd, _signal.SIGCHLD)
    except OSError:                     # a stop tells it as well
        pass


class NotExecuted(Failure):
    def __init__(self, word, why, status):
        super().__init__(f"cannot execute {word} in the subhost: {why}")
        self.status = status


def shell_of(root):
    """The path of a shell below a root directory, bash or sh; None if it has neither."""
    return next((shell for shell in SHELLS if exists(root, shell)), None)


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
            if entry[0] == ("root" if user is None else user) and is_id(entry[3]):
                self.name, self.home, self.shell = entry[0], entry[5] or "/", entry[6] or None
                if user is not None:
                    uid, gid = int(entry[2]), int(entry[3])
                    groups = [int(group[2]) for group in entries(root, "etc/group", 4)
                              if user in group[3].split(",")]
                    self.credentials = (uid, gid, [gid, *groups])
                return
        if user is not None:
            raise Failure(f"the subhost has no user {user}")

    def environment(self):
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell or "/bin/sh"}


def entries(root, path, fields):
    """The well-formed lines of a colon-separated file in the subhost."""
    try:
        data = beneath.read(root, path, LONGEST_FILE, beneath.INSIDE)
    except OSError:
        return
    for line in paths.decode(data).split("\n"):
        entry = line.split(":")
        if len(entry) == fields and entry[0] and is_id(entry[2]) and "\0" not in line:
            yield entry


def is_id(text):
    """Whether it is the number of a user or a group: the highest, (uid_t) -1, means nobody, credentials(7)."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 0xffffffff


class Relay:
    """What the child has as 0, 1 and 2, and the copying between that and what the caller has.

    The child gets the caller's own descriptor only if that is a pipe or a
    socket.  Any other leads further: from a file, even one that is open for
    reading only, /proc makes one to write, and from a directory a way out.  For
    a terminal it gets one of its own, out of the subhost's devpts.
    """

    def __init__(self):
        self.outer = self.inner = -1    # the two ends of the pseudo-terminal
        self.given = []                 # the child's ends, to be closed here
        self.inward = []                # pairs to copy from and to
        self.outward = []

    def standard(self, root):
        """The child's three descriptors."""
        screen = next((fd for fd in (1, 2, 0) if posix.isatty(fd)), -1)
        if screen >= 0:
            self.open_terminal(root)
            self.resize()
            _signal.signal(_signal.SIGWINCH, self.resize)
            self.outward.append((self.outer, screen))
        return [self.passed(fd) for fd in (0, 1, 2)]

    def passed(self, fd):
        if posix.isatty(fd):
            if fd == 0:
                self.inward.append((0, self.outer))
            return self.inner
        if files.kind_of(fd) in (files.PIPE, files.SOCKET):
            return fd
        source, sink = posix.pipe()
        mine, theirs = (sink, source) if fd == 0 else (source, sink)
        (self.inward if fd == 0 else self.outward).append((fd, mine) if fd == 0 else (mine, fd))
        self.given.append(theirs)
        return theirs

    def open_terminal(self, root):
        try:
            # By path only to look at it: what stands there is the subhost's.
            found = namespaces.openat2(root, "dev/pts/ptmx", posix.O_PATH, namespaces.NO_SYMLINKS)
            status = posix.fstat(found)
            device = (posix.major(status.st_rdev), posix.minor(status.st_rdev))
            if status.st_mode & files.KIND != files.CHARACTER_DEVICE or device != PTMX:
                raise Failure("the subhost's /dev/pts/ptmx is no pseudo-terminal multiplexer")
            self.outer = posix.open(f"/proc/self/fd/{found}", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
            posix.close(found)
            self.inner = namespaces.terminal_peer(self.outer)
            self.given.append(self.inner)
        except OSError as error:
            raise Failure(f"no terminal from the subhost's /dev/pts: {error.strerror}") from None

    def resize(self, *_):
        """Give our terminal the size of the caller's."""
        import termios
        try:
            termios.tcsetwinsize(self.outer, termios.tcgetwinsize(caller_terminal()))
        except termios.error:
            pass                        # it has gone, which will show

    def serve(self, pidfd):
        """Copy until the child has ended, and what it has printed is out."""
        for fd in self.given:
            posix.close(fd)
        if self.outer < 0:
            self.copy(pidfd)
            return
        import termios
        try:
            self.serve_terminal(pidfd)
        except termios.error as error:
            raise Failure(f"the terminal: {error.args[1]}") from None

    def serve_terminal(self, pidfd):
        import termios
        import tty
        mine = caller_terminal()
        before = termios.tcgetattr(mine)

        def ended(number, _frame):
            raise SystemExit(128 + number)

        _signal.signal(_signal.SIGTERM, ended)
        _signal.signal(_signal.SIGHUP, ended)
        try:
            if posix.isatty(0):
                tty.setraw(0, termios.TCSADRAIN)    # keeps what is typed already
            self.copy(pidfd)
        finally:
            termios.tcsetattr(mine, termios.TCSADRAIN, before)

    def copy(self, pidfd):
        for source, _ in self.outward:
            posix.set_blocking(source, False)
        for _, sink in self.inward:
            posix.set_blocking(sink, False)
        unwritten = {}                  # {sink: bytes}
        while True:
            ready = self.wait(pidfd, unwritten)
            self.outward = [pair for pair in self.outward if pair[0] not in ready or copy_out(*pair)]
            self.inward = [(source, sink) for source, sink in self.inward
                           if (sink if unwritten.get(sink) else source) not in ready
                           or self.copy_in(source, sink, unwritten)]
            if pidfd in ready:
                for pair in self.outward:
                    while copy_out(*pair):
                        pass
                return

    def wait(self, pidfd, unwritten):
        """The descriptors that are ready for what is to be done next."""
        reading = {pidfd, *(source for source, _ in self.outward)}
        writing = set()
        for source, sink in self.inward:
            if unwritten.get(sink):
                writing.add(sink)
            else:
                reading.add(source)
        poll = select.poll()
        for fd in reading | writing:
            poll.register(fd, (select.POLLIN if fd in reading else 0) | (select.POLLOUT if fd in writing else 0))
        return {fd for fd, events in poll.poll()
                if fd in reading and events & ~select.POLLOUT or fd in writing and events & ~select.POLLIN}

    def copy_in(self, source, sink, unwritten):
        """Copy towards the child; whether there may be more."""
        if not unwritten.get(sink):
            unwritten[sink] = posix.read(source, 1 << 16)
            if not unwritten[sink]:
                if sink != self.outer:
                    posix.close(sink)
                return False
        try:
            unwritten[sink] = unwritten[sink][posix.write(sink, unwritten[sink]):]
        except BlockingIOError:
            pass
        except OSError:                 # nobody reads it any more
            return False
        return True


def caller_terminal():
    return next(fd for fd in (0, 1, 2) if posix.isatty(fd))


def copy_out(source, sink):
    """Copy what the child has printed; whether there was something."""
    try:
        said = rest = posix.read(source, 1 << 16)
    except OSError:                     # nothing now, or (EIO) nobody has the terminal open
        return False
    while rest:
        rest = rest[posix.write(sink, rest):]
    return bool(said)
