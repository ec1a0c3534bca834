"""The story of a subhost: boot() and stop(), step for step as in overlay-boot(8) and overlay-stop(8)."""
import _signal
import os

from . import PROGRAMS, cgroup, hooks, namespaces, network, processes, rootfs
from .config import LOGS
from .errors import Failure, complain, reason
from .namespaces import lock, locked_by
from .state import COMMAND, PATIENCE, STOP, Running, State, claim, has_ended, now


# Boot

def boot(config, *, foreground=False):
    """Boot the subhost.  Returns once its PID 1 has been executed.

    In the foreground it does not return: this process becomes the keeper.
    Raises Failure, with nothing left of the boot, if a step fails.
    """
    os.umask(0o022)
    state = claim(config.name)
    host = -1
    try:
        stop_on_signals()
        clear_leftovers(state)
        state.record("config", config.path)
        group = cgroup.make(state)
        host = rootfs.unshare_mounts()
        config.resolve(group)
        rootfs.check(config)
        log = on_host(host, open_log, config)
        net = on_host(host, network.make, state)
        hook = Hook(config, group, log, net)
        if not rootfs.is_premounted(config):
            hook.premount()
        root = rootfs.mount_root(config)
        hook.postmount(root)
        for outside, inside in config.share:
            rootfs.share(root, outside, inside)
        command, started = hook.init(root)
        state.record("start", " ".join(started))
        state.record("timeout", config.stop_timeout)
        state.record("log", config.log)
        state.record("since", now())
        keeper = Keeper(config, state, root=root, network=net, cgroup=group, log=log)
        namespaces.setns(host, namespaces.NEWNS)
        keeper.start(command, foreground)
    except BaseException:
        for number in INTERRUPTIONS:
            _signal.signal(number, _signal.SIG_IGN)
        if host >= 0:
            namespaces.setns(host, namespaces.NEWNS)
        try:
            clear(state)
        except (OSError, Failure) as error:
            complain(f"cannot undo all of the boot: {reason(error)}")
        raise


INTERRUPTIONS = (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT)


def stop_on_signals():
    """Signals undo the boot; overlay-stop sends SIGTERM to one that is under way."""
    def interrupted(number, _frame):
        raise Failure(f"interrupted by signal {number}")

    for number in INTERRUPTIONS:
        _signal.signal(number, interrupted)


def open_log(config):
    """LOG, opened for appending, with its directory made if it is the default one's."""
    directory = os.path.dirname(config.log)
    try:
        if directory == LOGS and not os.path.isdir(directory):
            os.mkdir(directory, 0o750)
        return os.open(config.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
                       | os.O_NOCTTY | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise Failure(f"cannot write LOG={config.log}: {error.strerror}") from None


def on_host(host, function, argument):
    """Call a function in the host's mount namespace, of which host is a descriptor."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    namespaces.setns(host, namespaces.NEWNS)
    try:
        return function(argument)
    finally:
        namespaces.setns(own, namespaces.NEWNS)
        os.close(own)


class Hook:
    """The hooks of a boot: the default ones are called here, others are run."""

    def __init__(self, config, group, log, net):
        self.config = config
        self.network = net
        self.values = {"NETNS": f"/proc/{os.getpid()}/fd/{net}"}
        self.child = {"cgroup": group, "log": log}

    def premount(self):
        if hooks.is_default(self.config, "PREMOUNT"):
            hooks.premount(self.config)
        else:
            hooks.run(self.config, "PREMOUNT", [self.config.upper], self.values, **self.child)

    def postmount(self, root):
        if hooks.is_default(self.config, "POSTMOUNT"):
            hooks.postmount(self.config, root, self.network)
        else:
            hooks.run(self.config, "POSTMOUNT", [self.config.live, self.config.upper], self.values, **self.child)

    def init(self, root):
        return hooks.init_command(self.config, root, self.values, **self.child)


class Keeper:
    """What the program keeper is given: see _native/keeper.pyx."""

    def __init__(self, config, state, *, root, network, cgroup, log):
        self.name = config.name
        self.hostname = hostname(config, root)
        self.state = state
        self.mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.descriptors = [state.fd, self.mounts, network, cgroup, root, log]

    def start(self, command, foreground):
        """Start the keeper, and wait until it has PID 1 executed; or become it."""
        source, report = (-1, 2) if foreground else os.pipe()
        if foreground:
            self.descriptors[-1] = 1        # the console is this terminal
        boot = 0 if foreground else os.getpid()
        for fd in (*self.descriptors, report):
            os.set_inheritable(fd, True)
        notify = os.environ.get("NOTIFY_SOCKET", "") if foreground else ""
        argv = ["keeper", self.name, *map(str, (boot, *self.descriptors, report)), notify, f"{PROGRAMS}/clear",
                self.hostname, *command]
        program = f"{PROGRAMS}/keeper"
        if foreground:
            os.execve(program, argv, processes.environment_inside())
        process = os.posix_spawn(program, argv, processes.environment_inside(), setsid=True)
        os.close(report)
        try:
            said = read_all(source)
        except BaseException:
            os.kill(process, _signal.SIGKILL)
            os.waitpid(process, 0)
            raise
        if said != b"+":
            os.waitpid(process, 0)
            raise Failure(said.decode() or "the keeper was killed")


def read_all(fd):
    """What is written to a pipe until PID 1 has been executed or cannot be."""
    said = chunk = os.read(fd, 4096)
    while chunk and said != b"+":
        chunk = os.read(fd, 4096)
        said += chunk
    return said


def hostname(config, root):
    """The subhost's own /etc/hostname if it is one, else NAME."""
    try:
        fd = namespaces.openat2(root, "etc/hostname", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, namespaces.IN_ROOT)
    except OSError:
        return config.name
    with open(fd, "rb", buffering=0) as file:
        text = file.read(65) if rootfs.is_regular(fd) else b""
    name = text.strip().decode("ascii", "replace")
    is_one = 0 < len(name) <= 64 and all(letter.isalnum() or letter in "-." for letter in name) and name.isascii()
    return name if is_one else config.name


# Clear

def clear(state):
    """Remove from the host all that was noted, and the note; the caller holds COMMAND.

    The same for a boot that failed, for one that was killed long ago, for a
    subhost that has ended and for one that was stopped.
    """
    clear_leftovers(state)
    state.remove()


def clear_leftovers(state):
    """Remove from the host what was noted, by this boot or by a predecessor that was killed."""
    records = state.records()
    if "cgroup" in records:
        cgroup.remove(records["cgroup"])
    if "netns" in records:
        network.remove(state.name, records["netns"])
    state.forget()


def clear_ended(name):
    """For the keeper: clear what belongs to NAME, unless that is another boot's by now."""
    try:
        state = State(name)
    except FileNotFoundError:
        return
    if lock(state.fd, COMMAND) and not state.keeper() and state.is_current():
        clear(state)


# Stop

def stop(config):
    """Stop the subhost, or the boot of it that is under way.

    Raises Failure if it is not running; left-overs of it are cleared then too.
    """
    try:
        state = State(config.name)
    except FileNotFoundError:
        raise Failure(f"{config.name} is not running") from None
    lock(state.fd, STOP, wait=True)
    refuse_others(config, state)
    interrupted = interrupt_boot(state)
    if not state.is_current():
        if interrupted:
            return
        raise Failure(f"{config.name} is not running")
    try:
        running = Running(state)
    except ProcessLookupError:
        kill_keeper(state)
        clear(state)
        if interrupted:
            return
        raise Failure(f"{config.name} is not running") from None
    try:
        stop_services(running)
        terminate(running)
    finally:
        clear(state)


def refuse_others(config, state):
    """A subhost of the same name from another file is not ours to stop."""
    other = state.records().get("config", config.path)
    if other != config.path and (state.keeper() or locked_by(state.fd, COMMAND)):
        raise Failure(f"{config.name} is running from {other}, not from {config.path}")


def interrupt_boot(state):
    """Lock COMMAND, for which a boot that is under way is told to give up; whether there was one."""
    interrupted = False
    while not lock(state.fd, COMMAND):
        process = locked_by(state.fd, COMMAND)
        if process == state.keeper():       # clearing up after PID 1's own end
            lock(state.fd, COMMAND, wait=True)
            break
        try:
            pidfd = os.pidfd_open(process) if process else -1
        except ProcessLookupError:
            continue
        if pidfd < 0:
            continue
        if locked_by(state.fd, COMMAND) == process:
            interrupted = True
            send(pidfd, _signal.SIGTERM)
            if not has_ended(pidfd, PATIENCE):
                send(pidfd, _signal.SIGKILL)
                has_ended(pidfd, PATIENCE)
        os.close(pidfd)
    return interrupted


def send(pidfd, number):
    """pidfd_send_signal(2), to a process that may have ended by now."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def stop_services(running):
    """Stop what START has started, in reverse order; each may take as long as STOP_TIMEOUT."""
    words = running.records.get("start", "").split()
    if not words or has_ended(running.init_fd):
        return
    seconds = float(running.records["timeout"])
    namespaces.setns(running.init_fd, namespaces.NEWPID)
    group = cgroup.opened(running.records["cgroup"])
    log = os.open(running.records["log"], os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
    for word in reversed(words):
        command = [word, "stop"] if word[0] == "/" else ["service", word, "stop"]
        try:
            said = processes.run_inside(running.init_fd, command, processes.environment_inside(), group, seconds)
        except Failure as failure:
            said = f"overlay-stop: stop {word}: {failure}\n".encode()
            complain(f"stop {word}: {failure}")
        os.write(log, said)
    os.close(log)
    os.close(group)


def terminate(running):
    """SIGTERM to what is left, then after STOP_TIMEOUT SIGKILL to everything; and the keeper has ended."""
    ask_to_end(running)
    seconds = running.records["timeout"]
    if not has_ended(running.keeper_fd, float(seconds)):
        complain(f"{running.state.name}: killed after {seconds} s: {', '.join(described(remaining(running)))}")
        send(running.init_fd, _signal.SIGKILL)
        if not has_ended(running.keeper_fd, PATIENCE):
            send(running.keeper_fd, _signal.SIGKILL)
            has_ended(running.keeper_fd, PATIENCE)


def ask_to_end(running):
    if is_our_reaper(running.init):
        send(running.init_fd, _signal.SIGTERM)      # it hands it on, to all at once
        return
    for process in [*remaining(running), running.init]:
        try:
            pidfd = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        if process == running.init or process in remaining(running):
            send(pidfd, _signal.SIGTERM)
        os.close(pidfd)


def is_our_reaper(process):
    try:
        with open(f"/proc/{process}/exe", "rb", buffering=0) as file:
            return hooks.REAPER_MARK in file.read(1 << 17)
    except OSError:
        return False


def remaining(running):
    """The processes of the subhost but PID 1."""
    group = cgroup.opened(running.records["cgroup"])
    try:
        return [process for process in cgroup.members(group) if process != running.init]
    finally:
        os.close(group)


def described(members):
    for process in members:
        try:
            with open(f"/proc/{process}/comm", encoding="ascii", errors="replace") as file:
                yield f"{file.read().strip()} ({process})"
        except OSError:
            pass


def kill_keeper(state):
    """A keeper without a PID 1, whose boot was killed: it is about to end."""
    process = state.keeper()
    if not process:
        return
    try:
        pidfd = os.pidfd_open(process)
    except ProcessLookupError:
        return
    if state.keeper() == process:
        send(pidfd, _signal.SIGKILL)
        has_ended(pidfd, PATIENCE)
    os.close(pidfd)
