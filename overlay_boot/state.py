"""What is running, as the kernel knows it.

Every subhost that is being booted, is running or is being stopped has a file
/run/overlay-boot/NAME.  Three of its bytes are locked, each by the process that
the kernel names when asked for it: no process name, command line or bare PID
has to be believed.

    COMMAND  the boot or stop at work
    KEEPER   the keeper: the subhost is running
    STOP     a stop, from its beginning to its end

In the file stands what has to be removed from the host in the end, each line
written before the thing is made.  It is cleared by whoever holds COMMAND.

A process loses its locks when it closes any descriptor of the file: it is
opened once.
"""
import _signal
import posix
import select
import time

from . import paths, proc
from .errors import Failure, doing
from .namespaces import lock, locked_by

DIRECTORY = "/run/overlay-boot"
COMMAND, KEEPER, STOP = 0, 1, 2     # _native/keeper.pyx has them too
GONE = "0"                          # in the place of PID 1's process id: the subhost is being cleared
LOWER = "lower:"                    # what keys of the directories in LOWER begin with
MOUNT_POINT = "mount-point."        # what no NAME begins with that is as long as this
PATIENCE = 5                        # seconds, for what takes milliseconds
MOMENT = 0.05                       # seconds, for a process that may be ending already
PF_EXITING = 4                      # linux/sched.h, in proc(5)'s flags


class State:
    """The state file of one subhost, opened."""

    __slots__ = ("fd", "name")

    def __init__(self, name, *, create=False):
        self.name = name
        self.fd = posix.open(f"{DIRECTORY}/{name}", posix.O_RDWR | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_CLOEXEC
                          | (posix.O_CREAT if create else 0), 0o600)

    def close(self):
        """Close the file, and so leave all locks of it."""
        posix.close(self.fd)

    def is_current(self):
        """Whether the file still is the one of that name: not cleared and made anew meanwhile."""
        return posix.fstat(self.fd).st_nlink > 0

    @doing("write the state file")
    def record(self, key, value):
        """Note a thing that is about to be made, or a fact for other commands."""
        posix.write(self.fd, paths.encode(f"{key} {value}\n"))

    def records(self):
        """What was noted: {key: value}."""
        size = posix.fstat(self.fd).st_size
        lines = paths.decode(posix.pread(self.fd, size, 0)).split("\n")
        return {key: value for key, _, value in (line.partition(" ") for line in lines)}

    def keeper(self):
        """The process id of the keeper, 0 if the subhost is not running."""
        return locked_by(self.fd, KEEPER)

    @doing("make a mount point")
    def make_mount_point(self):
        """A directory of this subhost's, to be mounted on in its own mount namespace."""
        path = f"{DIRECTORY}/{MOUNT_POINT}{self.name}"
        self.record("mount-point", path)
        posix.mkdir(path, 0o700)
        return path

    def remove_mount_point(self):
        """Remove it, if it was made."""
        try:
            posix.rmdir(f"{DIRECTORY}/{MOUNT_POINT}{self.name}")
        except FileNotFoundError:
            pass

    def is_hibernating(self):
        """Whether its mounts are kept, as hibernation.py has it, after a PID 1 was executed and has ended."""
        records = self.records()
        return "mounts" in records and records.get("init", GONE) != GONE and not self.keeper()

    def forget(self):
        """Empty the file: all that it noted is removed."""
        posix.ftruncate(self.fd, 0)

    def remove(self):
        """The last thing to be cleared; the directory too, if it was the last one."""
        posix.unlink(f"{DIRECTORY}/{self.name}")
        tidy()
        self.close()


def tidy():
    """Remove the directory of the state files, if that was the last one."""
    try:
        posix.rmdir(DIRECTORY)
    except OSError:
        pass


def made(name):
    """The state file, which is made if there is none."""
    while True:
        try:
            posix.mkdir(DIRECTORY, 0o700)
        except FileExistsError:
            pass
        try:
            return State(name, create=True)
        except FileNotFoundError:       # another command has just removed the directory
            continue
        except OSError:
            tidy()
            raise


@doing("take the name")
def claim(name):
    """The state file for a boot, with COMMAND locked.

    Waits for a stop to end.  Raises Failure if the subhost is running, or is
    being booted by another process.
    """
    from . import interruption
    while True:
        state = made(name)
        if locked_by(state.fd, STOP):
            with interruption.Wait():
                lock(state.fd, STOP, wait=True)
        elif not lock(state.fd, COMMAND):
            booting = locked_by(state.fd, COMMAND)
            if booting == state.keeper():           # clearing up after PID 1's own end
                wait_for(booting)
            elif booting and not locked_by(state.fd, STOP):
                raise Failure(f"{name} is being booted already, by process {booting}")
        elif state.is_current():
            keeper = state.keeper()
            if not keeper:
                return state
            if not is_ending(state, keeper):
                raise Failure(f"{name} is running already, from {state.records().get('config')}")
            state.close()
            wait_for(keeper)
            continue
        state.close()


def is_ending(state, keeper):
    """Whether the keeper was killed; or PID 1 is gone, and the keeper about to clear up."""
    if is_killed(keeper):
        return wait_for(keeper)
    init = state.records().get("init")
    if init == GONE:
        return wait_for(keeper)
    return init is not None and wait_for(int(init), PATIENCE if is_killed(int(init)) else MOMENT)


def is_killed(process):
    """Whether a process is gone, or about to: on a busy machine a SIGKILL takes its time."""
    try:
        with open(f"/proc/{process}/stat", "rb", buffering=0) as file:
            fields = file.read(1024).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    flags, pending = int(fields[6]), int(fields[28])        # proc(5): (9) flags, (31) signal
    return bool(flags & PF_EXITING or pending & 1 << _signal.SIGKILL - 1)


def wait_for(process, seconds=PATIENCE):
    """Wait for the end of a process that is not our child; False if it goes on."""
    try:
        pidfd = posix.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return has_ended(pidfd, seconds)
    finally:
        posix.close(pidfd)


def has_ended(pidfd, seconds=0):
    """Whether the process of a descriptor ends within the time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, seconds) * 1000))


class Running:
    """A running subhost: descriptors of its keeper and of its PID 1."""

    __slots__ = ("init", "init_fd", "keeper", "keeper_fd", "name", "records", "state")

    @doing("find the processes of the subhost")
    def __init__(self, state):
        """Raises ProcessLookupError if it is not running (any more)."""
        self.state, self.name = state, state.name
        self.keeper = state.keeper()
        if not self.keeper:
            raise ProcessLookupError
        self.keeper_fd = posix.pidfd_open(self.keeper)
        self.records = state.records()
        self.init = int(self.records["init"]) if "init" in self.records else 0
        if not self.init:
            raise ProcessLookupError
        self.init_fd = posix.pidfd_open(self.init)
        # The kernel vouches for the keeper, and the keeper has but one child.
        if parent(self.init) != self.keeper or state.keeper() != self.keeper:
            raise ProcessLookupError

    def close(self):
        posix.close(self.keeper_fd)
        posix.close(self.init_fd)

    @property
    def network(self):
        """The path of its network namespace."""
        return f"/proc/{self.init}/ns/net"

    def mounts(self):
        """{id: Mount} of all that its PID 1 can see."""
        return proc.mounts(self.init)

    def members(self):
        """The process ids of all that is in its control group; none once another command has cleared that."""
        from . import cgroup
        try:
            group = cgroup.opened(self.records["cgroup"])
        except FileNotFoundError:
            return []
        try:
            return cgroup.members(group)
        finally:
            posix.close(group)


def parent(process):
    """The parent's process id, proc(5)."""
    try:
        with open(f"/proc/{process}/stat", "rb", buffering=0) as file:
            return int(file.read(1024).rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


class NotRunning(Failure):
    def __init__(self, name):
        super().__init__(f"{name} is not running")


def running(name):
    """The running subhost NAME.  Raises NotRunning, or if it hibernates, the Failure that says what to do."""
    try:
        if name not in names():         # no path, however it is written
            raise FileNotFoundError
        state = State(name)
    except FileNotFoundError:
        raise NotRunning(name) from None
    try:
        return Running(state)
    except ProcessLookupError:
        try:
            refuse_hibernating(state)
        finally:
            state.close()
        raise NotRunning(name) from None


def refuse_hibernating(state):
    """Raises Failure if it hibernates and nobody is at work with it."""
    if state.is_hibernating() and not locked_by(state.fd, COMMAND):
        config = state.records()["config"]
        raise Failure(f"{state.name} is hibernating: overlay-boot {config} takes it up, with --shell for a shell "
                      f"in it, and overlay-stop {config} ends it")


def names():
    """The names that have a state file, oldest first."""
    try:
        found = [entry for entry in posix.scandir(DIRECTORY) if len(entry.name) <= 12]
        found.sort(key=lambda entry: (entry.stat().st_ctime_ns, entry.name))
    except FileNotFoundError:
        return []
    return [entry.name for entry in found]


def noted():
    """(name, records) of all that have a state file, oldest first."""
    for name in names():
        try:
            state = State(name)
        except FileNotFoundError:       # it has just gone
            continue
        records = state.records()
        state.close()
        yield name, records


def all_running():
    """Every running subhost, in the order of their boots."""
    found = []
    for name in names():
        try:
            found.append(running(name))
        except Failure:
            pass
    found.sort(key=lambda one: float(one.records.get("since", 0)))
    return found


def now():
    return f"{time.time():.3f}"
