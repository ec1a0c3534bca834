"""The control group of a subhost, cgroups(7) version 2: overlay-boot/NAME, or NAME below that of a delegated unit.

Everything that a boot starts is born in it, and is killed through it.  Where nobody has
mounted the hierarchy (sysvinit), it is reached by a mount that only we see.
"""
import posix
import select
import time
from errno import EBUSY

from . import files, namespaces, proc
from .errors import Failure, doing
from .files import Fd
from .state import State

MOUNTED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
PARENT = "overlay-boot"
MARKS = ("trusted.delegate", "user.delegate")       # the second one for containers, where nobody can set the first
KILL_TIMEOUT = 10           # seconds
REMOVE_ATTEMPTS = 20        # 10 ms apart: a process may just be being born in it


def hierarchy() -> Fd:
    """Return a descriptor of the root of the cgroup2 hierarchy."""
    for path in MOUNTED:
        if namespaces.is_cgroup2(path):
            return directory(path)
    for mount in proc.mounts().values():
        if mount.kind == "cgroup2" and namespaces.is_cgroup2(mount.place):      # no other mount hides it
            return directory(mount.place)
    # Only where there is none: it takes 6 to 14 ms on a quiet machine, and
    # would take the options away from one that is mounted already.
    with Fd(namespaces.fsopen("cgroup2")) as filesystem, Fd(namespaces.fsmount(filesystem, 0)) as mounted:
        return directory(".", mounted)


def directory(path: str, at: int | None = None) -> Fd:
    return files.opened(path, files.READ_DIRECTORY, directory=at)


def group(path: str) -> Fd:
    """Return a descriptor of the control group at path, below the root.  Raises FileNotFoundError."""
    with hierarchy() as root:
        return directory(path, root)


def exists(path: str) -> bool:
    """Tell whether there is a control group at path, below the root."""
    with hierarchy() as root:
        try:
            return files.exists(path, root)
        except OSError:
            return False


@doing("make the control group")
def make(state: State) -> Fd:
    """Make the control group of a subhost, and return a descriptor of it.

    Raises Failure if one of its name is there already.
    """
    with hierarchy() as root:
        unit = delegated(root)
        path = f"{unit or PARENT}/{state.name}"
        while True:
            if not unit:
                make_parent(root)
            if files.exists(path, root):
                raise Failure(f"a control group {path} exists already, and overlay-boot has no record of it")
            state.note("cgroup", path)
            try:
                posix.mkdir(path, dir_fd=root)
            except FileNotFoundError:   # the last subhost's end has removed the parent
                continue
            except FileExistsError:     # made just now, and by somebody else
                state.note("cgroup", None)
                continue
            return directory(path, root)


def delegated(root: int) -> str | None:
    """Return the control group that we are in, if its service manager lets us make others below it, else None.

    That is `Delegate=` of systemd.resource-control(5).  What is set for the unit
    then holds for the subhost.
    """
    path = proc.control_group("self")
    if not path or ".." in path.split("/"):         # it is the root, or cannot be seen from here
        return None
    try:
        own = directory(path, root)
    except FileNotFoundError:           # another part of the hierarchy is mounted there
        return None
    with own:
        # Below one that is a user's, that user would control the subhost's processes.
        is_ours = posix.fstat(own).st_uid == 0 and any(has_mark(own, mark) for mark in MARKS)
    return path if is_ours else None


def is_of_unit(path: str) -> bool:
    """Tell whether the control group of a subhost is below that of a delegated unit."""
    return not path.startswith(f"{PARENT}/")


def has_mark(fd: int, mark: str) -> bool:
    try:
        return posix.getxattr(fd, mark) == b"1"
    except OSError:
        return False


def make_parent(root: int) -> None:
    """Make the control group above those of all subhosts.

    Memory and processes are counted in it, where the host does that at all.
    """
    try:
        posix.mkdir(PARENT, dir_fd=root)
    except FileExistsError:
        return
    for controller in ("+memory", "+pids"):
        try:
            write(root, f"{PARENT}/cgroup.subtree_control", controller)
        except OSError:
            pass


def write(at: int, path: str, text: str) -> None:
    with files.opened(path, posix.O_WRONLY, directory=at) as fd:
        posix.write(fd, text.encode())


def read(at: int, path: str) -> str:
    """Return the text of a control file in the control group of a descriptor."""
    with files.opened(path, posix.O_RDONLY, directory=at) as fd:
        return files.read_all(fd).decode()


@doing("remove the control group")
def remove(path: str) -> None:
    """Kill all that is in the control group, and remove it and its descendants."""
    with hierarchy() as root:
        try:
            own = directory(path, root)
        except FileNotFoundError:
            return
        with own:
            for again in range(REMOVE_ATTEMPTS, -1, -1):
                kill(own)
                remove_below(own)
                try:
                    posix.rmdir(path, dir_fd=root)
                    break
                except FileNotFoundError:       # the keeper's clearing was not quite dead
                    break
                except OSError as error:
                    if error.errno != EBUSY or not again:
                        raise
                    time.sleep(0.01)


def tidy() -> None:
    """Remove the parent of all control groups of ours, if that was the last one."""
    with hierarchy() as root:
        try:
            posix.rmdir(PARENT, dir_fd=root)
        except OSError:
            pass


def kill(fd: int) -> None:
    """SIGKILL to everything in the control group, and wait until it is gone.  Raises Failure if that takes too long."""
    with files.opened("cgroup.events", posix.O_RDONLY, directory=fd) as events:
        if is_empty(events):
            return
        write(fd, "cgroup.kill", "1")
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        end = time.monotonic() + KILL_TIMEOUT
        while not is_empty(events):
            if time.monotonic() > end:
                raise Failure(f"processes of the control group cannot be killed: {' '.join(map(str, members(fd)))}")
            poll.poll(100)


def is_empty(events: int) -> bool:
    return b"populated 0" in posix.pread(events, 256, 0)


def is_frozen(fd: int) -> bool:
    """Tell whether the processes in the control group are stopped, cgroup.freeze."""
    try:
        return "frozen 1" in read(fd, "cgroup.events")
    except FileNotFoundError:           # the root of the hierarchy
        return False


def remove_below(fd: int) -> None:
    """Remove the control groups that were made in this one."""
    for child in children(fd):
        with directory(child, fd) as below:
            remove_below(below)
        posix.rmdir(child, dir_fd=fd)


def children(fd: int) -> list[str]:
    with posix.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def members(fd: int) -> list[int]:
    """Return the process ids in the control group and below."""
    found = [int(line) for line in read(fd, "cgroup.procs").split()]
    for child in children(fd):
        try:
            below = directory(child, fd)
        except FileNotFoundError:
            continue
        with below:
            found += members(below)
    return found
