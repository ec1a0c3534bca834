"""The story of a stop, step for step as in overlay-stop(8)."""
import _signal
import posix
import time

from . import REAPER_MARK, environment, namespaces, paths
from .errors import Failure, complain, doing, reason
from .namespaces import lock, locked_by
from .state import COMMAND, PATIENCE, STOP, Running, State, has_ended, is_killed, made, wait_for

# What a full init system, known by its program's name, takes for a request to shut down: systemd(1), init(8).
SHUT_DOWN = {"systemd": _signal.SIGRTMIN + 3, "init": _signal.SIGPWR}
HANG_UP_AFTER = 1       # seconds: what has a terminal may heed SIGTERM first


def stop(config):
    """Stop the subhost, or the boot of it that is under way.

    Raises Failure if it is not running; left-overs of it are cleared then too.
    """
    state = opened(config.name)
    lock(state.fd, STOP, wait=True)
    refuse_others(config, state)
    interrupted = interrupt_boot(state)
    if not state.is_current():
        if interrupted:
            return
        raise Failure(f"{config.name} is not running")
    running = find(config, state)
    if not running:
        from .clearing import clear
        kill_keeper(state)
        hibernated = state.is_hibernating()
        clear(state)
        if interrupted or hibernated:
            return
        raise Failure(f"{config.name} is not running")
    try:
        stop_services(running)
        terminate(running)
    finally:
        from .clearing import clear_leftovers, forget
        clear_leftovers(state)
        end_keeper(running)
        forget(state)


def opened(name):
    """The state file.  One is made where a network namespace of the name is: the shell version may have booted that.

    Raises Failure if there is neither.
    """
    try:
        return State(name)
    except FileNotFoundError:
        from . import clearing, network
        if network.is_there(name):
            return made(name)
        clearing.tidy()
        raise Failure(f"{name} is not running") from None


def find(config, state):
    """The running subhost, or one that the shell version has booted; None if there is none."""
    try:
        return Running(state)
    except ProcessLookupError:
        from . import shellversion
        return shellversion.take_over(config, state)


def refuse_others(config, state):
    """A subhost of the same name from another file is not ours to stop."""
    other = state.records().get("config", config.path)
    keeper = state.keeper()
    if other == config.path:
        return
    if keeper and not is_killed(keeper) or locked_by(state.fd, COMMAND):
        raise Failure(f"{config.name} is running from {other}, not from {config.path}")
    if state.is_hibernating():
        raise Failure(f"{config.name} is hibernating, and was booted from {other}, not from {config.path}")


def interrupt_boot(state):
    """Lock COMMAND, for which a boot that is under way is told to give up; whether there was one."""
    interrupted = False
    while not lock(state.fd, COMMAND):
        process = locked_by(state.fd, COMMAND)
        if process and process == state.keeper():       # clearing up after PID 1's own end
            wait_for(process)
            continue
        try:
            pidfd = posix.pidfd_open(process) if process else -1
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
        posix.close(pidfd)
    return interrupted


@doing("signal a process of the subhost")
def send(pidfd, number):
    """pidfd_send_signal(2), to a process that may have ended by now."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def stop_services(running):
    """Stop what START has started, in reverse order; each may take as long as STOP_TIMEOUT."""
    words = running.records.get("start", "").split()
    if not words:
        return
    from . import cgroup, log, processes
    seconds = float(running.records["timeout"])
    group = cgroup.opened(running.records["cgroup"])
    own = posix.open("/proc/self/ns/pid", posix.O_RDONLY)
    try:
        namespaces.setns(running.init_fd, namespaces.NEWPID)    # for children
        if takes_requests(running.init):
            send(running.init_fd, _signal.SIGUSR1)      # to stay, though the last service has ended
        for word in reversed(words):
            command = [word, "stop"] if word[0] == "/" else ["service", word, "stop"]
            try:
                said = processes.run_inside(running.init_fd, command, environment.inside(), group, seconds)
                log.append(running.records["log"], (running.records["upper"],), said)
            except (Failure, OSError) as failure:
                if has_ended(running.init_fd, 1):       # with the last service PID 1 ends
                    break
                complain(f"stop {word}: {reason(failure)}")
        namespaces.setns(own, namespaces.NEWPID)
    except ProcessLookupError:          # it has just ended
        pass
    finally:
        posix.close(own)
        posix.close(group)


def terminate(running):
    """SIGTERM to what is left, then after STOP_TIMEOUT SIGKILL to everything."""
    seconds = running.records["timeout"]
    if not ends(running, float(seconds)):
        killed = described(remaining(running) or [running.init])
        complain(f"{running.name}: killed after {seconds} s: {', '.join(killed)}")
        send(running.init_fd, _signal.SIGKILL)
        has_ended(running.init_fd, PATIENCE)


def ends(running, seconds):
    """Ask everything to end; whether it does within the time."""
    end = time.monotonic() + seconds
    shut_down = SHUT_DOWN.get(program(running.init))
    if shut_down:
        send(running.init_fd, shut_down)
        return has_ended(running.init_fd, seconds)
    if not takes_requests(running.init):
        ask_each_to_end(running)
        # PID 1 may be the shell that is starting services, which takes no
        # notice, and becomes the reaper only after that.
        while not takes_requests(running.init):
            if has_ended(running.init_fd, min(0.1, end - time.monotonic())):
                return True
            if time.monotonic() >= end:
                return False
    send(running.init_fd, _signal.SIGTERM)          # it hands it on, to all at once
    hangs_up = time.monotonic() + HANG_UP_AFTER
    from . import clearing  # noqa: F401             # while they end: it takes half a millisecond
    while not has_ended(running.init_fd, min(0.1, end - time.monotonic())):
        if time.monotonic() >= end:
            return False
        # Whoever was let in is no child of PID 1, and its overlay-go may be gone that tells of its end.
        send(running.init_fd, _signal.SIGCHLD)
        if time.monotonic() >= hangs_up:
            hang_up(running)
    return True


def end_keeper(running):
    """It ends after PID 1, when the mounts are gone, unless somebody has stopped it."""
    if not has_ended(running.keeper_fd, PATIENCE):
        send(running.keeper_fd, _signal.SIGKILL)
        has_ended(running.keeper_fd, PATIENCE)


def ask_each_to_end(running):
    send_each(running, [*remaining(running), running.init], _signal.SIGTERM)


def hang_up(running):
    """What the end of a terminal does: an interactive shell takes no notice of SIGTERM."""
    send_each(running, [process for process in remaining(running) if has_terminal(process)], _signal.SIGHUP)


def send_each(running, members, number):
    """Send a signal to processes of the subhost."""
    pidfds = {}
    for process in members:
        try:
            pidfds[process] = posix.pidfd_open(process)
        except ProcessLookupError:
            continue
    still = {*running.members()}        # else the number may be another process's by now
    for process, pidfd in pidfds.items():
        if process in still:
            send(pidfd, number)
        posix.close(pidfd)


def has_terminal(process):
    """Whether it is the leader of a session that has a controlling terminal, proc(5)."""
    try:
        with open(f"/proc/{process}/stat", "rb", buffering=0) as file:
            fields = file.read(1024).rpartition(b")")[2].split()
    except OSError:
        return False
    return int(fields[3]) == process and fields[4] != b"0"


def program(process):
    """The name of the program that a process executes."""
    try:
        return paths.name(posix.readlink(f"/proc/{process}/exe")).removesuffix(" (deleted)")
    except OSError:
        return ""


def takes_requests(process):
    """Whether it is our reaper, and so far as to have its signals blocked: before that, one would be lost."""
    try:
        with open(f"/proc/{process}/exe", "rb", buffering=0) as program:
            if REAPER_MARK not in program.read(1 << 17):
                return False
        with open(f"/proc/{process}/status", "rb", buffering=0) as status:
            blocked = status.read(1 << 13).partition(b"\nSigBlk:")[2].split(b"\n")[0]
    except OSError:
        return False
    return bool(int(blocked or b"0", 16) & 1 << _signal.SIGTERM - 1)


def remaining(running):
    """The processes of the subhost but PID 1."""
    return [process for process in running.members() if process != running.init]


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
        pidfd = posix.pidfd_open(process)
    except ProcessLookupError:
        return
    if state.keeper() == process:
        send(pidfd, _signal.SIGKILL)
        has_ended(pidfd, PATIENCE)
    posix.close(pidfd)
