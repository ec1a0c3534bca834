"""Entering a running subhost: a process in all of its namespaces."""
import _signal
import posix

from . import beneath, cgroup, environment, fences, files, namespaces, paths, proc, processes, running
from .errors import Failure, doing
from .files import Fd, Fds
from .passwd import is_id, rows
from .relay import Relay
from .state import has_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .subhosts import Subhost

SYSTEMCTL = "/usr/bin/systemctl"
SHELLS = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"]
# These go to the child and its group, as keys of a terminal would; its end ends us.
HANDED_ON = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
NOT_EXECUTABLE, NOT_FOUND = 126, 127        # as a shell says it
LONGEST_FILE = 1 << 20                      # bytes of passwd(5) or group(5) that are read
ALL_IDS = (1 << 32) - 1                     # how many the host has, user_namespaces(7)


class NotExecuted(Failure):
    """The command could not be executed; the exit status is the one that a shell has for that."""

    def __init__(self, word: str, why: str, status: int) -> None:
        super().__init__(f"cannot execute {word} in the subhost: {why}")
        self.status = status


def find(name: str) -> "Subhost":
    """Return the running subhost NAME, which the shell version may have booted.  Raises Failure if none is."""
    try:
        return running.find(name)
    except running.NotRunning:
        from . import subhosts
        return subhosts.find_inherited(name)


def enter(subhost: "Subhost", command: list[str], user: str | None = None) -> int:
    """Run a command, or a shell if there is none, in the subhost, as a user of its own or as root.

    Returns the exit status, which is 128 and the signal's number if a signal has ended it.  Raises Failure if it cannot
    be executed, there is no such user, or the subhost has ended.
    """
    try:
        return execute(subhost, command, user)
    except (OSError, NotExecuted):
        if has_ended(subhost.init_fd, 0.1):
            raise Failure(f"{subhost.name} is not running") from None
        raise


@doing("enter the subhost")
def execute(subhost: "Subhost", command: list[str], user: str | None) -> int:
    """enter(), unless the subhost ends meanwhile: that shows as an OSError, or as a command that is not there."""
    with files.opened(f"/proc/{subhost.init}/root", files.PLACE) as root, Relay() as relay:
        owner, number = proc.ids(subhost.init) or (0, ALL_IDS)
        account = account_of(root, user)
        account.check(number)
        places, words = program(root, command)
        greeting = "" if command or not posix.isatty(0) else about_services(subhost, root)
        fenced = fences.around(subhost.init, subhost.record.system_calls)
        with cgroup.group(subhost.record.cgroup or "") as group, Fds() as theirs:
            if cgroup.is_frozen(group):         # whoever is born in it waits, and we for that
                raise Failure(f"the control group of {subhost.name} is frozen")
            standard = relay.standard(root, theirs, owner and owner + account.number)
            namespaces.setns(subhost.init_fd, namespaces.NEWPID)
            _signal.pthread_sigmask(_signal.SIG_BLOCK, HANDED_ON)       # until there is somebody to hand them to
            try:
                process, pidfd = namespaces.spawn(
                    places, words, {**environment.inside(), **account.environment()}, standard=standard,
                    directory=account.home, cgroup=service_group(subhost, command, group, theirs),
                    inside=subhost.init_fd, users=proc.has_other_users(subhost.init), prioritized=True,
                    terminal=posix.isatty(0), user=account.credentials, capabilities=fenced.capabilities,
                    filter=fenced.filter, is_over=is_interrupted)
            except TimeoutError:
                _signal.pthread_sigmask(_signal.SIG_UNBLOCK, HANDED_ON)     # for us, then
                raise Failure("interrupted") from None
            except OSError as error:
                raise not_executed(error, root, places, words[0]) from None
        try:
            with Fd(pidfd):
                hand_on_signals(process)
                relay.serve(pidfd, greeting)
            ended = posix.waitstatus_to_exitcode(posix.waitpid(process, 0)[1])
        finally:
            tell_init(subhost)
    return 128 - ended if ended < 0 else ended


def program(root: int, command: list[str]) -> tuple[list[str], list[str]]:
    """Return what to execute: the paths, of which the first that there is counts, and argv.  Raises NotExecuted."""
    if command:
        return processes.candidates(command[0]), command
    shell = shell_of(root)
    if not shell:
        raise NotExecuted("a shell", "it has neither bash nor sh", NOT_FOUND)
    return SHELLS, [paths.name(shell)]


def about_services(subhost: "Subhost", root: int) -> str:
    """Return a line on what takes the place of systemctl(1), if the subhost has that, and PID 1 is no systemd."""
    is_reaper = proc.program(subhost.init) == paths.name(namespaces.REAPER_PATH)
    if not is_reaper or not beneath.exists(root, SYSTEMCTL, beneath.INSIDE):
        return ""
    return f"The services of {subhost.name} are started by scripts: use service, as systemctl fails."


def not_executed(error: OSError, root: int, places: list[str], word: str) -> NotExecuted:
    """Return the Failure for the OSError of an execve(2)."""
    reason = error.strerror or str(error)
    if not isinstance(error, FileNotFoundError):
        return NotExecuted(word, reason, NOT_EXECUTABLE)
    # What the program is run by may not be there, and then it is that which is told of.
    there = next((place for place in places if beneath.exists(root, place, beneath.INSIDE)), None)
    why = f"the interpreter or loader that {there} needs is not there" if there else reason
    return NotExecuted(word, why, NOT_FOUND)


def is_interrupted() -> bool:
    """Tell whether a signal is pending that would be handed on.  What the subhost stops is not executed by then."""
    return not _signal.sigpending().isdisjoint(HANDED_ON)


def hand_on_signals(process: int) -> None:
    """From here on the signals that were held back go to a child and its group."""
    def hand_on(number: int, _frame: object) -> None:
        try:
            posix.killpg(process, number)
        except ProcessLookupError:          # it has ended, and was waited for
            pass

    for number in HANDED_ON:
        _signal.signal(number, hand_on)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, HANDED_ON)


def tell_init(subhost: "Subhost") -> None:
    """PID 1 does not see the end of a process that is not its child; it may be waiting for that to end itself."""
    try:
        _signal.pidfd_send_signal(subhost.init_fd, _signal.SIGCHLD)
    except OSError:                     # a stop tells it as well
        pass


def shell_of(root: int) -> str | None:
    """Return the path of a shell below a root directory, bash or sh; None if it has neither."""
    return next((shell for shell in SHELLS if beneath.exists(root, shell, beneath.INSIDE)), None)


class Account:
    """Who a process is to be in the subhost.  Without credentials it remains the root that this process is."""

    __slots__ = ("credentials", "home", "name", "shell")

    def __init__(self, name: str, home: str, shell: str) -> None:
        self.name, self.home, self.shell = name, home, shell
        self.credentials: tuple[int, int, list[int]] | None = None      # user, group, all groups

    @property
    def number(self) -> int:
        return self.credentials[0] if self.credentials else 0

    def check(self, number: int) -> None:
        """Raises Failure if the user, or a group, is not among the ids of a user namespace, so many from 0 on."""
        if self.credentials:
            user, _, groups = self.credentials
            for what, wanted in (("user", user), *(("group", group) for group in groups)):
                if wanted >= number:
                    raise Failure(f"cannot enter the subhost as {self.name}: USERNS has no {what} {wanted}")

    def environment(self) -> dict[str, str]:
        """Return the variables that login(1) sets."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def service_group(subhost: "Subhost", command: list[str], group: int, opened: Fds) -> int:
    """Return the control group of the service of START that a command is by its path, else the one of a descriptor."""
    if not command or command[0][:1] != "/" or command[0] not in subhost.record.start:
        return group
    from . import services
    try:
        return opened.keep(cgroup.directory(services.group_of(command[0]), group))
    except FileNotFoundError:           # it is not seen
        return group


def account_of(root: int, user: str | None) -> Account:
    """Return a user of the subhost's own passwd(5), by name or number, by default root.

    Root need not be listed there, nor need a number, which is then that of the group as well.  Raises Failure if there
    is no such user.
    """
    wanted = "root" if user is None else user
    listed = [entry for entry in entries(root, "etc/passwd", 7) if is_id(entry[3])]
    named = [entry for entry in listed if entry[0] == wanted]
    entry = next(iter(named or [entry for entry in listed if is_id(wanted) and int(entry[2]) == int(wanted)]), None)
    if entry:
        account = Account(entry[0], entry[5] or "/", entry[6] or "/bin/sh")
        uid, gid = int(entry[2]), int(entry[3])
    elif user is None or is_id(user):
        account = Account(wanted, "/" if user else "/root", "/bin/sh")
        uid = gid = int(user or 0)
    else:
        raise Failure(f"the subhost has no user {user}")
    if user is not None:
        groups = [int(group[2]) for group in entries(root, "etc/group", 4) if account.name in group[3].split(",")]
        account.credentials = uid, gid, [gid, *groups]
    return account


def entries(root: int, path: str, fields: int) -> "Iterator[list[str]]":
    """Yield the well-formed lines of a colon-separated file in the subhost, as lists of so many fields."""
    try:
        data = beneath.read(root, path, LONGEST_FILE, beneath.INSIDE) or b""
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return
    for entry in rows(paths.decode(data)):
        if len(entry) == fields and entry[0] and is_id(entry[2]) and not any("\0" in field for field in entry):
            yield entry
