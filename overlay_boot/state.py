"""What is running, as the kernel knows it.

Every subhost that is being booted, is running, hibernates or is being stopped has a directory below /run/overlay-boot:

    NAME/state      the state file
    NAME/upper      the mount point of an UPPER that is on a tmpfs
    NAME/mounts     the mounts of a subhost that hibernates, or can: hibernation.py

Three bytes of the state file are locked, each by the process that the kernel names when asked for it: no process name,
command line or bare PID has to be believed.

    COMMAND  the boot or stop at work
    KEEPER   the keeper: the subhost is running
    STOP     a stop, from its beginning to its end

The file lists what has to be removed from the host in the end, each line written before the thing is made; record.py
has the keys.  It is cleared by whoever holds COMMAND.

A process loses its locks when it closes any descriptor of the file: it is opened once.
"""
import posix
import select
import time
from errno import EACCES, ELOOP, ENOENT, ENOSPC, EPERM, ETXTBSY

from . import files, paths, proc, record
from .errors import Failure, complain, doing
from .namespaces import COMMAND, KEEPER, STOP, lock, locked_by
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

STATES = "/run/overlay-boot"
# Beside those of the subhosts: network.py's, and forwarding.py's.
NETNS_NOTE, FORWARDING_NOTE = ".netns-is-ours", ".forwarding"
PATIENCE = 5                        # seconds, for what takes milliseconds
LONGEST = 16 << 20                  # bytes of a state file
MOMENT = 0.05                       # seconds, for a process that may be ending already


def directory_of(name: str) -> str:
    """Return the path of the directory of a subhost, or of the state file that 2.0.0 had in its place."""
    return f"{STATES}/{name}"


def file_of(name: str) -> str:
    """Return the path of the state file of a subhost."""
    return f"{directory_of(name)}/state"


def is_place_of(name: str, path: str) -> bool:
    """Tell whether a path is where a subhost has its directories; 2.0.0 had KIND.NAME beside its state file."""
    return paths.parent(path) == directory_of(name) or (
        paths.parent(path) == STATES and paths.name(path).endswith(f".{name}"))


class Taken(Failure):
    """A name whose subhost runs, or is being booted by another process."""


class State:
    """The state file of one subhost, opened."""

    __slots__ = ("fd", "name", "path")

    def __init__(self, name: str, *, create: bool = False) -> None:
        """Raises FileNotFoundError if there is none and it is not to be created, Failure if it cannot be written."""
        self.name = name
        self.path = file_of(name)
        flags = posix.O_RDWR | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_CLOEXEC
        try:
            self.fd = posix.open(self.path, flags | (posix.O_CREAT if create else 0), 0o600)
        except NotADirectoryError:
            # Until Debian 15: a subhost that 2.0.0 has booted, and that has outlived the upgrade.
            self.path = directory_of(name)
            try:
                self.fd = posix.open(self.path, flags)
            except IsADirectoryError:   # another command has just cleared that, and a boot has made the other
                raise FileNotFoundError(ENOENT, posix.strerror(ENOENT), self.path) from None
        except OSError as error:
            if error.errno not in (EPERM, EACCES, ELOOP, ETXTBSY):
                raise
            raise Failure(f"cannot write the state file {self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file, and so leave all locks of it."""
        fd, self.fd = self.fd, -1       # the number may be another file's from now on
        posix.close(fd)

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_cut(self) -> bool:
        """Tell whether the last line has no end."""
        return not self.text().endswith("\n")

    def has_all_places(self, found: Record) -> bool:
        """Tell whether the directories beside the file are on the record that was found in it."""
        if self.is_of_2_0_0:
            return True
        beside = paths.parent(self.path)
        return {f"{beside}/{name}" for name in posix.listdir(beside)} == {
            self.path, *filter(None, (found.mounts, found.mount_point))}

    def is_current(self) -> bool:
        """Tell whether the file still is the one of that name: not cleared and made anew meanwhile."""
        return posix.fstat(self.fd).st_nlink > 0

    @property
    def is_of_2_0_0(self) -> bool:
        """Whether 2.0.0 has made it, and it stands in the place of the directory."""
        return self.path == directory_of(self.name)

    def is_empty(self) -> bool:
        """Tell whether nothing is on record."""
        return posix.fstat(self.fd).st_size == 0

    @doing("write the state file")
    def note(self, attribute: str, value: "Any", name: str = "") -> None:
        """Note what is about to be made, or a fact for other commands: an attribute of Record, or one of its names.

        All of it is noted, or nothing.  Raises Failure for a value that no line can have.
        """
        data = paths.encode(record.line(attribute, value, name))
        size = posix.fstat(self.fd).st_size
        if posix.write(self.fd, data) < len(data):      # the file system is full
            posix.ftruncate(self.fd, size)
            raise OSError(ENOSPC, posix.strerror(ENOSPC))

    @doing("write the state file")
    def rewrite(self, lines: str) -> None:
        """Have the file say nothing but these lines.  If this is killed, the file says them, and more after them."""
        import fcntl
        data = paths.encode(lines)
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, flags & ~posix.O_APPEND)        # with which pwrite(2) appends
        try:
            if posix.pwrite(self.fd, data, 0) < len(data):
                raise OSError(ENOSPC, posix.strerror(ENOSPC))
            posix.ftruncate(self.fd, len(data))
        finally:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags)

    def begin(self, config: str) -> None:
        """Note what is noted first, of a boot from that configuration file."""
        self.note("format", record.FORMAT)
        self.note("config", config)

    def text(self) -> str:
        """Return what is in the file, as far as a record of ours goes."""
        return paths.decode(posix.pread(self.fd, min(posix.fstat(self.fd).st_size, LONGEST), 0))

    def record(self) -> Record:
        """Return what is on record.  Raises Damaged if no record can be made of that, OtherVersion for such a file."""
        return Record(self.text(), self.name)

    def legible(self) -> Record:
        """Return what can be read of the record, of whatever version it is, and however damaged."""
        return record.legible(self.text())

    def keeper(self) -> int:
        """Return the process id of the keeper, 0 if the subhost is not running."""
        return locked_by(self.fd, KEEPER)

    def is_in_use(self) -> bool:
        """Tell whether the subhost runs, hibernates, or is being booted; else what it had is left for nobody."""
        return bool(self.keeper() or locked_by(self.fd, COMMAND) or self.is_hibernating())

    def is_hibernating(self) -> bool:
        """Tell whether its mounts are kept, as hibernation.py has it, after a PID 1 was executed and has ended."""
        if self.is_empty():
            return False
        found = self.record()
        return bool(found.mounts and found.init and not self.keeper())

    def forget(self) -> None:
        """Empty the file: all that it noted is removed."""
        posix.ftruncate(self.fd, 0)

    def remove(self) -> None:
        """Remove the file and the directory of the subhost, the last thing to be cleared."""
        posix.unlink(self.path)
        tidy_directories(self.name)
        self.close()


def tidy_directories(name: str = "") -> None:
    """Remove the directory of a subhost and that of all of them, if nothing is in them."""
    for directory in ([directory_of(name)] if name else []) + [STATES]:
        try:
            posix.rmdir(directory)
        except OSError:
            pass


def open_or_make(name: str) -> State:
    """Open the state file of a subhost.  It is made if there is none."""
    while True:
        try:
            files.make_directory(STATES, 0o700)
            files.make_directory(directory_of(name), 0o700)
            return State(name, create=True)
        except FileNotFoundError:       # another command has just removed a directory
            refuse_link(STATES)
            refuse_link(directory_of(name))
        except (OSError, Failure):
            tidy_directories(name)
            raise


def refuse_link(path: str) -> None:
    """Raises Failure if path is a symbolic link, which never leads to one of our directories."""
    try:
        posix.readlink(path)
    except OSError:
        return
    raise Failure(f"{path} is a symbolic link")


@doing("take the name")
def claim(name: str) -> State:
    """Open the state file for a boot, with COMMAND locked.

    Waits for a stop to end, and for an overlay-follow that has booted the subhost for its packages alone.  Raises Taken
    if the subhost is running, or is being booted by another process.
    """
    from . import interruption
    while True:
        state = open_or_make(name)
        if locked_by(state.fd, STOP):
            with interruption.Wait():
                lock(state.fd, STOP, wait=True)
        elif not lock(state.fd, COMMAND):
            booting = locked_by(state.fd, COMMAND)
            if booting and booting == state.keeper():       # clearing up after PID 1's own end
                await_clearing(name, booting)
            elif booting and not locked_by(state.fd, STOP):
                if not state.record().follower:
                    raise Taken(f"{name} is being booted already, by process {booting}")
                await_follower(name, booting)
        elif state.is_current():
            keeper = state.keeper()
            if not keeper:
                return state
            if is_ending(keeper):
                state.close()
                await_clearing(name, keeper)
                continue
            found = state.record()
            if not found.follower:
                raise Taken(f"{name} is running already, from {found.config or record.UNKNOWN}")
            state.close()                   # with COMMAND, which its end takes
            await_follower(name, keeper)
            continue
        state.close()


def await_clearing(name: str, keeper: int) -> None:
    """Wait for a while for the end of a keeper that is clearing up.

    Raises Failure if it is stopped, or a signal comes.
    """
    from . import interruption
    with interruption.Wait():
        if not wait_for(keeper) and proc.is_stopped(keeper):
            raise Failure(f"process {keeper}, which is to clear up after {name}, is stopped: SIGCONT lets it go on")


def await_follower(name: str, process: int) -> None:
    """Wait for the end of an overlay-follow that has booted a subhost for its packages alone, by that of a process.

    Raises Failure if a signal comes.
    """
    from . import interruption
    complain(f"{name}: waiting for overlay-follow, which has packages configured in it")
    with interruption.Wait():
        while not wait_for(process):
            pass


def is_ending(keeper: int) -> bool:
    """Tell whether the keeper was killed; or PID 1 is gone, and the keeper about to clear up."""
    if proc.is_killed(keeper):
        return wait_for(keeper)
    init = init_of(keeper)
    if not init:
        return wait_for(keeper)
    return wait_for(init, PATIENCE if proc.is_killed(init) else MOMENT)


def init_of(keeper: int) -> int | None:
    """Return the process id of PID 1, the one child that a keeper has; None if there is no keeper, or it has none."""
    try:
        return proc.only_child(keeper) if keeper else None
    except proc.ENDED:
        return None


def wait_for(process: int, seconds: float = PATIENCE) -> bool:
    """Wait for the end of a process that is not our child; False if it goes on."""
    try:
        pidfd = posix.pidfd_open(process)
    except ProcessLookupError:
        return True
    with files.Fd(pidfd):
        return has_ended(pidfd, seconds)


def has_ended(pidfd: int, seconds: float = 0) -> bool:
    """Tell whether the process of a descriptor ends within the time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, seconds) * 1000))


def names() -> list[str]:
    """Return the names that have a state file, oldest first."""
    try:
        entries = posix.listdir(STATES)
    except FileNotFoundError:
        return []
    found = []
    for name in entries:
        try:
            found.append((changed(name), name))
        except OSError as error:        # it has just gone, or is something else
            if error.errno not in files.NOWHERE:
                raise
    return [name for _, name in sorted(found)]


def changed(name: str) -> int:
    """Return when the state file of a subhost was changed last, in nanoseconds.  Raises OSError if there is none."""
    try:
        status = posix.lstat(file_of(name))
    except NotADirectoryError:
        status = posix.lstat(directory_of(name))                # 2.0.0's, as in State
    if status.st_mode & files.KIND != files.REGULAR or name in (NETNS_NOTE, FORWARDING_NOTE):
        raise FileNotFoundError(ENOENT, posix.strerror(ENOENT), name)
    return status.st_ctime_ns


def noted(unreadable: dict[str, Failure] | None = None, *, but: str = "") -> "Iterator[tuple[str, Record]]":
    """Yield (name, what is on record) of all that have a state file, oldest first.

    Whoever has locked one of them leaves that out, by but: a lock goes with any descriptor that is closed.  Raises
    Failure for one that cannot be read, or with unreadable adds {name: failure} to that.
    """
    for name in names():
        if name == but:
            continue
        try:
            with State(name) as state:
                found = state.record()
        except FileNotFoundError:       # it has just gone
            continue
        except Failure as failure:
            if unreadable is None:
                raise
            unreadable[name] = failure
            continue
        yield name, found


def now() -> float:
    """Return the time, in seconds of the epoch and milliseconds."""
    return round(time.time(), 3)
