"""The story of a stop, step for step as in overlay-stop(8)."""
import _signal
import posix
import time

from . import INTERFACES, LONGEST_REAPER, files, interruption, namespaces, paths, proc
from .errors import Failure, complain, doing, reason
from .files import Fd, Reserve
from .namespaces import COMMAND, STOP, lock, locked_by
from .record import Damaged
from .running import NotRunning, Running
from .state import PATIENCE, State, await_clearing, has_ended, open_or_make, tidy_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .subhosts import Subhost

# What a full init system, known by its program's name, takes for a request to shut down: systemd(1), init(8).
SHUT_DOWN = {"systemd": _signal.SIGRTMIN + 3, "systemd-shutdown": _signal.SIGRTMIN + 3, "init": _signal.SIGPWR}
HANG_UP_AFTER = 1       # seconds: what has a terminal may heed SIGTERM first
LOOK = 0.1              # seconds, between two looks at what is to end
# A subhost that runs against its limits again and again is out of hand: at so many looks, for so many seconds, and not
# so many seconds without that.  One that is at work all the time may need longer to use up the memory once more.
OUT_OF_HAND_AT, OUT_OF_HAND_AFTER, PEACE, PEACE_AT_WORK = 3, 1, 0.5, 2.5


class Watch:
    """Watches whether a subhost that is being stopped runs against its limits.

    One that does so on end is out of hand: nothing in it can be started that would end it in order.
    """

    __slots__ = ("collisions", "last", "looked", "rested", "running", "since", "times", "worked")

    def __init__(self, running: "Subhost") -> None:
        self.running = running
        self.collisions: int | None = None          # up to now
        self.worked = 0.0                           # up to now, in seconds of a processor
        self.looked = time.monotonic()
        self.times = 0                              # it was seen so often
        self.since = self.last = 0.0                # for the first and the last time
        self.rested = False                         # since the last time

    def is_out_of_hand(self) -> bool:
        """Look at it, unless that was just done."""
        now = time.monotonic()
        if now >= self.looked + LOOK:
            self.look(now)
        return self.times >= OUT_OF_HAND_AT and min(self.looked, self.last + PEACE) >= self.since + OUT_OF_HAND_AFTER

    def look(self, now: float) -> None:
        before, self.looked = self.looked, now
        collides, worked = self.collides_and_works()
        if collides:
            if not self.times:
                self.since = now
            self.times += 1
            self.last, self.rested = now, False
        else:
            self.rested = self.rested or worked < (now - before) / 2
            if now > self.last + (PEACE if self.rested else PEACE_AT_WORK):
                self.times = 0

    def collides_and_works(self) -> tuple[bool, float]:
        """Tell whether it is at its limits, or was since the last look, and for how long it has worked since then."""
        from . import cgroup
        try:
            with cgroup.group(self.running.record.cgroup or "") as group:
                collisions, self.collisions = self.collisions, cgroup.collisions(group)
                worked, self.worked = self.worked, cgroup.worked(group)
                collides = cgroup.is_full(group) or collisions is not None and self.collisions > collisions
                return collides, self.worked - worked
        except FileNotFoundError:                   # another command has just cleared that
            return False, 0

    def be_patient(self) -> None:
        """It is asked something that it may heed: it is not out of hand before PEACE is over."""
        if self.times:
            self.since = max(self.since, time.monotonic() + PEACE - OUT_OF_HAND_AFTER)

    def lift_limits(self) -> None:
        """Let it have all processors, for what is killed to be gone soon."""
        from . import cgroup
        try:
            with cgroup.group(self.running.record.cgroup or "") as group:
                cgroup.write(group, "cpu.max", "max")
        except OSError:                             # it has no limit
            pass


def stop(name: str, config: str) -> None:
    """Stop the subhost of that name and configuration file, or the boot of it that is under way.

    Raises Failure if it is not running; left-overs of it are cleared then too.
    """
    state = open_state(name)
    lock(state.fd, STOP, wait=True)
    refuse_others(config, state)
    interrupted = interrupt_boot(state)
    if not state.is_current():
        if interrupted:
            return
        raise NotRunning(name)
    reserve = Reserve()
    running, damage = find(config, state)
    if not running:
        reserve.release()
        clear_dead(state, damage, may_be_gone=interrupted)
        return
    if damage:
        complain(damage)
    try:
        thaw(running)
        watch = Watch(running)
        stop_services(running, watch)
        terminate(running, watch)
    finally:
        interruption.ignore()               # what is begun here comes to its end
        reserve.release()
        from . import log
        from .clearing import clear_leftovers, forget
        log.mark_end(running.record, "stopped")
        if running.record.table:
            end_keeper(running)             # until then nobody else can delete that
        clear_leftovers(state)
        end_keeper(running)
        forget(state)


def end(name: str) -> None:
    """Stop the subhost as something inside has asked for; its keeper clears, once PID 1 has ended."""
    try:
        state = State(name)
    except FileNotFoundError:
        return
    lock(state.fd, STOP, wait=True)
    try:
        running = Running(state)
    except (ProcessLookupError, Damaged):
        return
    thaw(running)
    watch = Watch(running)
    stop_services(running, watch)
    terminate(running, watch)


def open_state(name: str) -> State:
    """Open the state file.  Where there is only a network namespace of the name, which may be 1.6.4's, make one.

    Raises Failure if there is neither.
    """
    try:
        return State(name)
    except FileNotFoundError:
        from . import clearing, network
        if network.is_there(name):
            return open_or_make(name)
        tidy_directories(name)
        clearing.tidy()
        raise NotRunning(name) from None


def find(config: str, state: State) -> "tuple[Subhost | None, str]":
    """Return the running subhost or None, and what is wrong with its record, which is mended.

    The shell version may have booted it.
    """
    running = as_noted(state)
    if running and is_whole(running):
        return running, ""
    from . import salvage, subhosts
    damage = salvage.mend(state)
    if damage:
        return as_noted(state), damage
    return running or subhosts.taken_over(config, state), ""


def is_whole(running: Running) -> bool:
    """Tell whether what every running subhost has on record is there, and is its own."""
    record = running.record
    try:
        network = proc.namespace(running.init, "net")[1]
        group = f"/{proc.control_group(running.init)}/"
    except proc.ENDED:
        return True
    return (not running.state.is_cut()
            and paths.name(record.cgroup or "") == running.name and group.startswith(f"/{record.cgroup}/")
            and record.netns is not None and record.netns[1] == network
            and has_all_cables(running) and running.state.has_all_places(record))


def has_all_cables(running: Running) -> bool:
    """Tell whether no cable, which are numbered, is missing on record, or is another interface by now."""
    noted = running.record.cables
    if files.kind(f"{INTERFACES}/{running.name}{len(noted)}"):
        return False
    if not noted:
        return True
    from . import cables
    return all(noted.get(name) == cables.index_of(name)
               for name in (f"{running.name}{number}" for number in range(len(noted))))


def as_noted(state: State) -> Running | None:
    """Return the running subhost, None if there is none by its record."""
    try:
        return Running(state)
    except (ProcessLookupError, Damaged):
        return None


def clear_dead(state: State, damage: str, *, may_be_gone: bool) -> None:
    """Clear what has no PID 1.  Raises Failure if that was neither hibernating nor, with may_be_gone, a boot.

    Or if its record was damaged: then it is not known whether that is all.
    """
    from . import network
    from .clearing import clear
    interruption.ignore()
    kill_keeper(state)
    hibernated = state.is_hibernating()
    clear(state)
    if damage:
        raise Failure(f"{damage}; {state.name} is not running")
    if hibernated and network.is_there(state.name):
        raise Failure(f"the state file of {state.name} does not note its network namespace: "
                      f"{network.path_of(state.name)} is left")
    if not (may_be_gone or hibernated):
        raise NotRunning(state.name)


def refuse_others(config: str, state: State) -> None:
    """Raises Failure for a subhost of the same name from another file, which is not ours to stop."""
    try:
        other = state.record().config or config
    except Damaged:                             # whose name it has, by its place
        return
    if not config or other == config:       # by its name alone
        return
    keeper = state.keeper()
    if keeper and not proc.is_killed(keeper) or locked_by(state.fd, COMMAND):
        raise Failure(f"{state.name} is running from {other}, not from {config}")
    if state.is_hibernating():
        raise Failure(f"{state.name} is hibernating, and was booted from {other}, not from {config}")


def interrupt_boot(state: State) -> bool:
    """Lock COMMAND, for which a boot that is under way is told to give up.  Return whether there was one."""
    interrupted = False
    while not lock(state.fd, COMMAND):
        process = locked_by(state.fd, COMMAND)
        if process and process == state.keeper():       # clearing up after PID 1's own end
            await_clearing(state.name, process)
            continue
        try:
            pidfd = posix.pidfd_open(process) if process else -1
        except ProcessLookupError:
            continue
        if pidfd < 0:
            continue
        with Fd(pidfd):
            if locked_by(state.fd, COMMAND) == process:
                interrupted = True
                send(pidfd, _signal.SIGTERM)
                if not has_ended(pidfd, PATIENCE):
                    send(pidfd, _signal.SIGKILL)
                    has_ended(pidfd, PATIENCE)
    return interrupted


@doing("signal a process of the subhost")
def send(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2), to a process that may have ended by now."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def thaw(running: "Subhost") -> None:
    """Have it take notice of what it is asked, if it is frozen."""
    from . import cgroup
    try:
        with cgroup.group(running.record.cgroup or "") as group:
            cgroup.thaw(group)
    except FileNotFoundError:                       # it has just ended
        pass


def stop_services(running: "Subhost", watch: Watch) -> None:
    """Stop what START has started, in reverse order.  Each may take as long as STOP_TIMEOUT."""
    record = running.record
    if not record.start or proc.program(running.init) in SHUT_DOWN:
        return
    from . import cgroup
    with cgroup.group(record.cgroup or "") as group, Fd(posix.open("/proc/self/ns/pid", posix.O_RDONLY)) as own:
        try:
            namespaces.setns(running.init_fd, namespaces.NEWPID)    # for children
            if takes_requests(running.init):
                send(running.init_fd, _signal.SIGUSR1)      # to stay, though the last service has ended
            for word in reversed(record.start):
                if watch.is_out_of_hand() or cgroup.is_full(group):
                    complain(f"{running.name}: at its limits, so that its services cannot be stopped in order")
                    break
                stop_service(running, word, group, watch)
                if has_ended(running.init_fd):              # with the last service
                    break
        except ProcessLookupError:          # it has just ended
            pass
        finally:
            namespaces.setns(own, namespaces.NEWPID)


def stop_service(running: "Subhost", word: str, group: int, watch: Watch) -> None:
    """Stop one, and append what it prints to LOG."""
    from . import environment, fences, log, processes
    command = [word, "stop"] if word[0] == "/" else ["service", word, "stop"]
    record = running.record
    try:
        said = processes.run_inside(running.init_fd, command, environment.inside(), group, record.timeout,
                                    fences.around(running.init, record.system_calls),
                                    is_over=watch.is_out_of_hand, users=proc.has_other_users(running.init))
    except (Failure, OSError) as failure:
        if not has_ended(running.init_fd, 1):       # with the last service PID 1 ends
            complain(f"cannot stop {word}: {reason(failure)}")
        return
    try:
        log.append(record.log, (record.upper,), said)
    except OSError:                     # a log that cannot take it loses it
        pass
    try:
        show(running, said)
    except OSError:                     # nobody reads it, or not so much
        pass


def show(running: "Subhost", said: bytes) -> None:
    """Have a keeper in the foreground print what a service has said, for the journal of a service manager to have it.

    Raises OSError.
    """
    if not isinstance(running, Running):            # no keeper of ours
        return
    keeper = f"/proc/{running.keeper}/fd"
    if posix.readlink(f"{keeper}/1") == files.NULL:         # in the background
        return
    with files.opened(f"{keeper}/0", posix.O_WRONLY | posix.O_NONBLOCK) as console:
        if files.kind_of(console) == files.PIPE and not has_ended(running.keeper_fd):
            posix.write(console, said)


def terminate(running: "Subhost", watch: Watch) -> None:
    """SIGTERM to what is left, then after STOP_TIMEOUT SIGKILL to everything; sooner if it is out of hand."""
    begin, seconds = time.monotonic(), running.record.timeout
    if proc.program(running.init) in SHUT_DOWN:     # which stops its services first
        seconds *= 1 + len(running.record.start)
    watch.be_patient()
    if ends(running, begin + seconds, watch):
        return
    passed = min(seconds, round(time.monotonic() - begin, 1))
    why = ", at its limits" if watch.is_out_of_hand() else ""
    killed = proc.described(remaining(running) or [running.init])
    complain(f"{running.name}: killed after {passed:g} s{why}: {killed}")
    watch.lift_limits()
    send(running.init_fd, _signal.SIGKILL)
    has_ended(running.init_fd, PATIENCE)


def ends(running: "Subhost", end: float, watch: Watch) -> bool:
    """Ask everything to end.  Return whether it does so in time, and without being out of hand."""
    def waits() -> bool:
        """Wait a moment.  Return whether it has not ended."""
        return not has_ended(running.init_fd, min(LOOK, end - time.monotonic()))

    def is_over() -> bool:
        return time.monotonic() >= end or watch.is_out_of_hand()

    shut_down = SHUT_DOWN.get(proc.program(running.init))
    if shut_down:
        send(running.init_fd, shut_down)
        while waits():
            if is_over():
                return False
        return True
    if not takes_requests(running.init):
        ask_each_to_end(running)
        # PID 1 may be the shell that is starting services, which takes no
        # notice, and becomes the reaper only after that.
        while not takes_requests(running.init):
            if not waits():
                return True
            if is_over():
                return False
    send(running.init_fd, _signal.SIGTERM)          # it hands it on, to all at once
    hangs_up = time.monotonic() + HANG_UP_AFTER
    from . import clearing, log  # noqa: F401     # while they end: it takes half a millisecond
    while waits():
        if is_over():
            return False
        # Whoever was let in is no child of PID 1, and its overlay-go may be gone that tells of its end.
        send(running.init_fd, _signal.SIGCHLD)
        if time.monotonic() >= hangs_up:
            hang_up(running)
    return True


def end_keeper(running: "Subhost") -> None:
    """It ends after PID 1, when the mounts are gone, unless somebody has stopped it."""
    if not has_ended(running.keeper_fd, PATIENCE):
        send(running.keeper_fd, _signal.SIGKILL)
        has_ended(running.keeper_fd, PATIENCE)


def ask_each_to_end(running: "Subhost") -> None:
    send_each(running, [*remaining(running), running.init], _signal.SIGTERM)


def hang_up(running: "Subhost") -> None:
    """What the end of a terminal does: an interactive shell takes no notice of SIGTERM."""
    send_each(running, [process for process in remaining(running) if proc.leads_terminal(process)], _signal.SIGHUP)


def send_each(running: "Subhost", members: list[int], number: int) -> None:
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


def takes_requests(process: int) -> bool:
    """Tell whether it is our reaper, and has blocked its signals already: before that, one would be lost."""
    try:
        with Fd(posix.open(f"/proc/{process}/exe", posix.O_RDONLY)) as program:
            size = min(posix.fstat(program).st_size, LONGEST_REAPER)
            if namespaces.MARK_OF_REAPER not in posix.read(program, size):
                return False
        return proc.blocks(process, _signal.SIGTERM)
    except OSError:
        return False


def remaining(running: "Subhost") -> list[int]:
    """Return the processes of the subhost but PID 1."""
    return [process for process in running.members() if process != running.init]


def kill_keeper(state: State) -> None:
    """A keeper without a PID 1, whose boot was killed: it is about to end."""
    process = state.keeper()
    if not process:
        return
    try:
        pidfd = posix.pidfd_open(process)
    except ProcessLookupError:
        return
    with Fd(pidfd):
        if state.keeper() == process:
            send(pidfd, _signal.SIGKILL)
            has_ended(pidfd, PATIENCE)
