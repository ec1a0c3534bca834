"""The control group of a subhost, cgroups(7) version 2: overlay-boot/NAME, or NAME below that of a delegated unit.

Everything that a boot starts is born in it, and is killed through it.  Where nobody has
mounted the hierarchy (sysvinit), it is reached by a mount that only we see.
"""
import posix
import select
import time
from errno import EBUSY, ENODEV, ENOENT, EOPNOTSUPP

from . import files, namespaces, proc
from .errors import Failure, doing
from .files import Fd
from .state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
PARENT = "overlay-boot"
MARKS = ("trusted.delegate", "user.delegate")       # the second one for containers, where nobody can set the first
ASIDE = "overlay-keeper"    # where we go in a delegated unit's: longer than any NAME
SHARED_OUT = ("cpu", "memory", "pids")      # the controllers of every subhost's, where the host has them
PIDS_MAX = "16384"          # processes and threads, unless the configuration has another limit
DELEGATED = (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")      # to make others below it
WRITABLE = 0o200
DEEPEST, MOST = 32, 4096    # of these: how far below, and how many
KILL_TIMEOUT = 10           # seconds
REMOVE_ATTEMPTS = 20        # 10 ms apart: a process may just be being born in it


def hierarchy() -> Fd:
    """Return a descriptor of the root of the cgroup2 hierarchy."""
    path = mounted_at()
    if path:
        return directory(path)
    with new_mount() as mounted:
        return directory(".", mounted)


def mounted_at() -> str | None:
    """Return where the cgroup2 hierarchy is mounted, None if that is nowhere."""
    for path in MOUNTED:
        if namespaces.is_cgroup2(path):
            return path
    for mount in proc.mounts().values():
        if mount.kind == "cgroup2" and namespaces.is_cgroup2(mount.place):      # no other mount hides it
            return mount.place
    return None


def new_mount() -> Fd:
    """Return a new mount of the cgroup2 hierarchy, that nobody sees yet.

    Only where there is none: it takes 6 to 14 ms on a quiet machine, and would take the options away from one that is
    mounted already.
    """
    with Fd(namespaces.fsopen("cgroup2")) as filesystem:
        return Fd(namespaces.fsmount(filesystem, 0))


def directory(path: str, at: int | None = None) -> Fd:
    return files.opened(path, files.READ_DIRECTORY, directory=at)


def group(path: str) -> Fd:
    """Return a descriptor of the control group at path, below the root.  Raises FileNotFoundError."""
    with hierarchy() as root:
        return directory(path, root)


def in_sight(path: str) -> Fd:
    """group(), by a mount of the hierarchy that this mount namespace has; only such a one can be copied.

    It is made where there is none: the namespace is that of a boot, which leaves the host's mounts behind.
    """
    if not mounted_at():
        with new_mount() as mounted, files.opened(MOUNTED[0], files.PLACE) as place:
            namespaces.move_mount(mounted, place)
    return group(path)


def exists(path: str) -> bool:
    """Tell whether there is a control group at path, below the root."""
    with hierarchy() as root:
        try:
            return files.exists(path, root)
        except OSError as error:        # what is on record may be no path of one
            if error.errno not in files.NOWHERE:
                raise
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
                files.make_directory(PARENT, 0o755, directory=root)
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
            own = directory(path, root)
            limit_processes(own, of_unit=bool(unit))
            return own


@doing("delegate the control group")
def delegate(group: int, owner: int) -> None:
    """Let a user of the host's make control groups below this one, as cgroups(7) has it: root of a user namespace."""
    limit_descendants(group)
    for name in DELEGATED:
        posix.chown(name, owner, owner, dir_fd=group)


def limit_descendants(group: int) -> None:
    """Limit which control groups can be made in this one, for us to come to the end of them."""
    write(group, "cgroup.max.depth", str(DEEPEST))
    write(group, "cgroup.max.descendants", str(MOST))


def not_delegated(group: int) -> list[str]:
    """Return the control files that root can write to, and whom a control group is delegated to shall not."""
    with posix.scandir(group) as entries:
        return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)
                and entry.name not in DELEGATED and entry.stat(follow_symlinks=False).st_mode & WRITABLE]


def delegated(root: int) -> str | None:
    """Return the control group that we are in, if its service manager lets us make others below it, else None.

    That is `Delegate=` of systemd.resource-control(5).  What is set for the unit
    then holds for the subhost.
    """
    path = (proc.control_group("self") or "").removesuffix(f"/{ASIDE}")    # a boot that follows another has moved
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


def limit_processes(group: int, *, of_unit: bool) -> None:
    """Have the limit of processes that is the default, where the host can limit them at all.

    Below a delegated unit's, the limits of that hold.
    """
    try:
        write(group, "pids.max", PIDS_MAX)
    except FileNotFoundError:           # the first subhost since the host was started, or since there was one
        if not of_unit and share_out(group):
            write(group, "pids.max", PIDS_MAX)


def share_out(group: int) -> bool:
    """Have processors, memory and processes divided between subhosts, and between them and the host.

    As far as the host lets us.  Return whether processes are.
    """
    there = controllers_above(group, of_unit=False)
    wanted = [controller for controller in SHARED_OUT if controller in there]
    try:
        enable(wanted, group, of_unit=False)
    except OSError:
        for controller in wanted:       # one of them cannot be, as cpu on some real-time kernels
            try:
                enable([controller], group, of_unit=False)
            except OSError:
                pass
    return "pids" in there and files.exists("pids.max", group)


def controllers() -> set[str]:
    """Return the controllers that the control group of a subhost can have that is booted from here."""
    with hierarchy() as root:
        return {*read(root, f"{delegated(root) or '.'}/cgroup.controllers").split()}


def controllers_above(group: int, *, of_unit: bool) -> set[str]:
    """Return the controllers that the control group of a subhost can have."""
    return {*read(group, f"{places_above(of_unit)[0]}/cgroup.controllers").split()}


def places_above(of_unit: bool) -> tuple[str, ...]:
    """Return the paths, from that of a subhost, of the control groups that have to hand a controller down to it."""
    return ("..",) if of_unit else ("../..", "..")


def enable(wanted: list[str], group: int, *, of_unit: bool) -> None:
    """Have the control group of a subhost controlled by the controllers.  Raises OSError if that cannot be.

    In the root of the hierarchy they stay enabled: nobody knows who else relies on them by then.
    """
    for place in places_above(of_unit):
        file = f"{place}/cgroup.subtree_control"
        missing = {*wanted}.difference(read(group, file).split())
        if missing:
            changes = " ".join(f"+{controller}" for controller in sorted(missing))
            if of_unit:
                write_from_aside(group, file, changes)
            else:
                write(group, file, changes)


def write_from_aside(group: int, file: str, text: str) -> None:
    """write(), after leaving a delegated unit's control group for one in it, beside that of the subhost.

    A control group that has processes of its own cannot hand down controllers.  The service manager removes the one
    beside with that of the unit.
    """
    files.make_directory(f"../{ASIDE}", 0o755, directory=group)
    write(group, f"../{ASIDE}/cgroup.procs", "0")       # this process
    try:
        write(group, file, text)
    except OSError:
        write(group, "../cgroup.procs", "0")
        posix.rmdir(f"../{ASIDE}", dir_fd=group)
        raise


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


def is_full(fd: int) -> bool:
    """Tell whether there are as many processes in the control group of a subhost as it, or its unit's, can have."""
    for place in (".", ".."):
        try:
            most = read(fd, f"{place}/pids.max").strip()
        except FileNotFoundError:       # it is not limited here
            continue
        if most != "max":
            return int(read(fd, f"{place}/pids.current")) >= int(most)
    return False


def collisions(fd: int) -> int:
    """Return how often the control group has run against its limit of processes, or has lost one for want of memory."""
    return counters(fd, "pids.events").get("max", 0) + counters(fd, "memory.events").get("oom_kill", 0)


def worked(fd: int) -> float:
    """Return for how many seconds processors have worked for the control group, or would have but for CPU_MAX."""
    found = counters(fd, "cpu.stat")
    return (found.get("usage_usec", 0) + found.get("throttled_usec", 0)) / 1e6


def counters(fd: int, file: str) -> dict[str, int]:
    """Return what a flat-keyed control file says, {} if that is not there."""
    try:
        lines = read(fd, file).splitlines()
    except FileNotFoundError:
        return {}
    return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}


def is_frozen(fd: int) -> bool:
    """Tell whether the processes in the control group are stopped, cgroup.freeze."""
    try:
        return "frozen 1" in read(fd, "cgroup.events")
    except FileNotFoundError:           # the root of the hierarchy
        return False


def thaw(fd: int) -> None:
    """Let the processes in the control group run, if somebody has frozen it, cgroup.freeze."""
    if is_frozen(fd):
        write(fd, "cgroup.freeze", "0")


def remove_below(fd: int) -> None:
    """Remove the control groups that were made in this one."""
    for above, name in groups_below(fd):
        posix.rmdir(name, dir_fd=above)


def members(fd: int) -> list[int]:
    """Return the process ids in the control group and below."""
    found = own_members(fd, ".")
    for above, name in groups_below(fd):
        found += own_members(above, name)
    return found


def own_members(fd: int, name: str) -> list[int]:
    try:
        return [int(line) for line in read(fd, f"{name}/cgroup.procs").split()]
    except OSError as error:
        if error.errno not in (ENOENT, ENODEV, EOPNOTSUPP):     # just removed; or threaded, which those above know of
            raise
        return []


def groups_below(fd: int) -> "Iterator[tuple[int, str]]":
    """Yield a descriptor of the one above, and the name, of each control group below this one, the deepest first.

    Whoever is root in a subhost with CAP_SYS_ADMIN can make them deeper than there are descriptors.
    """
    at = directory(".", fd)
    way: list[str] = []
    rest = [children(fd)]           # of each on the way, those that are still to be gone into
    try:
        while True:
            if rest[-1]:
                name = rest[-1].pop()
                try:
                    at = replaced(at, name)
                except FileNotFoundError:
                    continue
                way.append(name)
                rest.append(children(at))
            elif way:
                rest.pop()
                at = replaced(at, "..")
                yield at, way.pop()
            else:
                return
    finally:
        posix.close(at)


def replaced(at: int, name: str) -> Fd:
    """Return a descriptor of another control group, by its path from that of one which is closed.

    Raises FileNotFoundError, without closing that, if it was just removed.
    """
    other = directory(name, at)
    posix.close(at)
    return other


def children(fd: int) -> list[str]:
    try:
        with posix.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:           # it was just removed
        return []
