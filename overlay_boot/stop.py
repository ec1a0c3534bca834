"""The story of a stop, step for step as in overlay-stop(8), and the clearing that ends everything."""
import _signal
import posix
import time

from . import REAPER_MARK, cgroup, namespaces, network
from .errors import Failure, complain, reason, step
from .namespaces import lock, locked_by
from .state import COMMAND, PATIENCE, STOP, Running, State, has_ended, wait_for
from .state import tidy as tidy_states

LOG_FLAGS = posix.O_WRONLY | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC


def stop(config):
    """Stop the subhost, or the boot of it that is under way.

    Raises Failure if it is not running; left-overs of it are cleared then too.
    """
    try:
        state = State(config.name)
    except FileNotFoundError:
        tidy()
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
    from . import processes
    seconds = float(running.records["timeout"])
    namespaces.setns(running.init_fd, namespaces.NEWPID)
    group = cgroup.opened(running.records["cgroup"])
    for word in reversed(words):
        command = [word, "stop"] if word[0] == "/" else ["service", word, "stop"]
        try:
            said = processes.run_inside(running.init_fd, command, processes.environment_inside(), group, seconds)
            append(running.records["log"], said)
        except (Failure, OSError) as failure:
            complain(f"stop {word}: {reason(failure)}")
    posix.close(group)


def append(log, said):
    fd = posix.open(log, LOG_FLAGS)
    try:
        posix.write(fd, said)
    finally:
        posix.close(fd)


def terminate(running):
    """SIGTERM to what is left, then after STOP_TIMEOUT SIGKILL to everything; and the keeper has ended."""
    seconds = running.records["timeout"]
    if not ends(running, float(seconds)):
        killed = described(remaining(running) or [running.init])
        complain(f"{running.state.name}: killed after {seconds} s: {', '.join(killed)}")
        send(running.init_fd, _signal.SIGKILL)
        if not has_ended(running.keeper_fd, PATIENCE):
            send(running.keeper_fd, _signal.SIGKILL)
            has_ended(running.keeper_fd, PATIENCE)


def ends(running, seconds):
    """Ask everything to end; whether it does within the time."""
    end = time.monotonic() + seconds
    if not takes_requests(running.init):
        ask_each_to_end(running)
        # PID 1 may be the shell that is starting services, which takes no
        # notice, and becomes the reaper only after that.
        while not takes_requests(running.init):
            if has_ended(running.keeper_fd, min(0.1, end - time.monotonic())):
                return True
            if time.monotonic() >= end:
                return False
    send(running.init_fd, _signal.SIGTERM)          # it hands it on, to all at once
    return has_ended(running.keeper_fd, end - time.monotonic())


def ask_each_to_end(running):
    for process in [*remaining(running), running.init]:
        try:
            pidfd = posix.pidfd_open(process)
        except ProcessLookupError:
            continue
        if process == running.init or process in remaining(running):
            send(pidfd, _signal.SIGTERM)
        posix.close(pidfd)


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
    group = cgroup.opened(running.records["cgroup"])
    try:
        return [process for process in cgroup.members(group) if process != running.init]
    finally:
        posix.close(group)


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


def clear(state):
    """Remove from the host all that was noted, and the note; the caller holds COMMAND.

    The same for a boot that failed, for one that was killed long ago, for a
    subhost that has ended and for one that was stopped.
    """
    clear_leftovers(state)
    state.remove()
    tidy()


def tidy():
    """Remove what all subhosts have in common, if there are none any more."""
    cgroup.tidy()
    network.tidy()
    tidy_states()


@step("clear up")
def clear_leftovers(state):
    """Remove from the host what was noted, by this boot or by a predecessor that was killed."""
    records = state.records()
    if "cgroup" in records:
        cgroup.remove(records["cgroup"])
    if any(key.startswith("cable:") for key in records):
        from . import cables
        cables.remove(cables.recorded(records))
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
