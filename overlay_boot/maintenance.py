"""A subhost while it is being maintained: commands in it, and a boot for that alone, without services or cables."""
import posix

from . import cgroup, environment, fences, files, namespaces, paths, proc, processes, running, services, stop
from .boot import boot
from .config import Config
from .errors import DONE, FAILED, Failure, complain, reason
from .files import Fd
from .running import Running
from .state import Taken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# What of a configuration is not as it says.  ADDRESS would imply a cable, and NAT and PUBLISH an address.
BARE = {"START": "none", "CABLES": "", "ADDRESS": "", "NAT": "no", "PUBLISH": "", "INIT": "overlay-init"}
BOOTED = b"1"
# DPKG_FRONTEND_LOCKED: who has dpkg at work has its lock for front ends, as apt has.
TAKEN = 3                   # the exit status of the child, if another process boots it
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "DPKG_FRONTEND_LOCKED": "true"}
LONGEST = 24 * 3600         # seconds, for what maintainer scripts do


class Bare:
    """A context: a subhost that is not running is booted without services and cables, and stopped at the end.

    It does not outlive this process: it is a child of ours that it is bound to.
    """

    __slots__ = ("config", "process", "sink", "subhost")

    def __init__(self, config: Config) -> None:
        self.config = config

    def __enter__(self) -> Running:
        """Raises Taken if another process boots it, Failure if it cannot be booted, after the child has told why."""
        source, sink = processes.make_pipe()
        held, self.sink = processes.make_pipe()
        follower = posix.getpid()
        self.process = posix.fork()
        if self.process == 0:
            posix._exit(self.boot(follower, sink, held))
        posix.close(held)
        posix.close(sink)
        with Fd(source):
            is_booted = posix.read(source, 1) == BOOTED
        if not is_booted:
            name = self.config.name
            if self.let_go() == TAKEN:
                raise Taken(f"{name} is being booted by another process")
            raise Failure(f"{name} cannot be booted for its packages to be followed")
        try:
            self.subhost = running.find(self.config.name)
        except BaseException:
            self.let_go()
            raise
        return self.subhost

    def boot(self, follower: int, sink: int, held: int) -> int:
        """In the child: boot it, and wait for the parent, or for its end.  Return the exit status."""
        try:
            own = [posix.dup2(fd, number) for fd, number in ((held, 0), (sink, 1))]
            boot(self.config, follower=follower)
            posix.write(own[1], BOOTED)
            posix.closerange(3, posix.sysconf("SC_OPEN_MAX"))       # with COMMAND
            posix.read(own[0], 1)
        except Taken:
            return TAKEN
        except BaseException as error:
            complain(reason(error) if isinstance(error, Exception) else "interrupted")
            return FAILED
        return DONE

    def __exit__(self, *_: object) -> None:
        with self.subhost.state, self.subhost:
            pass
        try:
            stop.stop(self.config.name, self.config.path)
        finally:
            self.let_go()

    def let_go(self) -> int:
        """Have the child end.  Returns its exit status."""
        posix.close(self.sink)
        return posix.waitstatus_to_exitcode(posix.waitpid(self.process, 0)[1])


def bare(path: str) -> Config:
    """Return the configuration for a bare boot of the subhost of a file."""
    return Config(path, "overlay-boot", BARE)


class Inside:
    """A context in which children of this process can be in the processes' namespace of a subhost."""

    __slots__ = ("group", "own", "subhost")

    def __init__(self, subhost: Running) -> None:
        self.subhost = subhost

    def __enter__(self) -> "Inside":
        self.group = cgroup.group(self.subhost.record.cgroup or "")
        self.own = files.opened("/proc/self/ns/pid", posix.O_RDONLY)
        namespaces.setns(self.subhost.init_fd, namespaces.NEWPID)
        return self

    def __exit__(self, *_: object) -> None:
        with self.group, self.own:
            namespaces.setns(self.own, namespaces.NEWPID)

    def start(self, word: str, seconds: float, is_over: "Callable[[], bool]") -> None:
        """Start a service of START, in its control group, where it has one.  Raises Failure as execute() does."""
        command = command_of(word, "start")
        try:
            group = cgroup.directory(services.group_of(word), self.group)
        except OSError:             # it has none
            self.execute(command, seconds, is_over)
            return
        with group:
            self.execute(command, seconds, is_over, group=group)

    def stop(self, word: str, seconds: float, is_over: "Callable[[], bool]") -> None:
        """Stop a service of START.  Raises Failure as execute() does."""
        self.execute(command_of(word, "stop"), seconds, is_over)

    def execute(self, words: list[str], seconds: float, is_over: "Callable[[], bool]" = lambda: False,
                variables: dict[str, str] | None = None, group: int | None = None) -> None:
        """Run a command to its end in the subhost, and in its fences.  What it prints goes to LOG, as in a boot.

        group is the control group that it is in, by default that of the subhost.

        Raises Failure if it cannot be executed, fails, has not ended after so many seconds, or before is_over says that
        there is no use in it.
        """
        subhost = self.subhost
        env = {**environment.inside(), **(variables or {})}
        with console_of(subhost) as console, processes.Child(
                processes.candidates(words[0]), words, env, console, console, "/",
                cgroup=self.group if group is None else group,
                inside=subhost.init_fd, fences=fences.around(subhost.init, subhost.record.system_calls),
                users=proc.has_other_users(subhost.init), is_over=is_over) as child:
            try:
                processes.gather(child.source, child.pidfd, seconds, is_over)
            except TimeoutError:
                raise Failure(f"{words[0]} has not ended after {seconds:g} s") from None
            status = child.wait()
            is_logged = files.kind_of(console) == files.PIPE
        if status:
            place = f" (what it printed is in LOG={subhost.record.log})" if is_logged else ""
            raise Failure(f"{processes.how_failed(words[0], status)}{place}")

    def maintain(self, words: list[str]) -> None:
        """Run a command of dpkg's."""
        try:
            self.execute(words, LONGEST, variables=ENVIRONMENT)
        except Failure as failure:
            raise Failure(f"{self.subhost.name}: {failure}") from None


def command_of(word: str, action: str) -> list[str]:
    """Return the command that does something to a service of START."""
    return [word, action] if word[0] == "/" else ["service", word, action]


def console_of(subhost: Running) -> Fd:
    """Return a descriptor of the pipe to LOG that PID 1 has as its standard output, of /dev/null if that is none."""
    try:
        with files.opened(f"/proc/{subhost.init}/fd/1", posix.O_PATH) as found:
            if files.kind_of(found) != files.PIPE:          # a terminal would become ours
                return files.null()
            console = files.opened(paths.of_descriptor(found), posix.O_WRONLY | posix.O_NONBLOCK)
    except OSError:
        return files.null()
    posix.set_blocking(console, True)
    return console
