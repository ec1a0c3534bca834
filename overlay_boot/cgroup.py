"""The control group of a subhost, cgroups(7) version 2: overlay-boot/NAME, or NAME below that of a delegated unit.

Everything that a boot starts is born in it, and by it killed.  Where nobody has
mounted the hierarchy (sysvinit), it is reached by a mount that only we see.
"""
import posix
import select
import time
from errno import EBUSY

from . import files, namespaces, proc
from .errors import Failure, doing

MOUNTED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
PARENT = "overlay-boot"
MARKS = ("trusted.delegate", "user.delegate")       # the second one for containers, where nobody can set the first


def hierarchy():
    """A descriptor of the root of the cgroup2 hierarchy."""
    for path in MOUNTED:
        if namespaces.is_cgroup2(path):
            return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            if " - cgroup2 " in line:
                return posix.open(proc.unescaped(line.split()[4]), posix.O_RDONLY | posix.O_DIRECTORY)
    # Only where there is none: it takes 6 to 14 ms on a quiet machine, and
    # would take the options away from one that is mounted already.
    mounted = namespaces.fsmount(namespaces.fsopen("cgroup2"), 0)
    try:
        return posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY, dir_fd=mounted)
    finally:
        posix.close(mounted)


@doing("make the control group")
def make(state):
    """Make the control group of a subhost, and return a descriptor of it."""
    root = hierarchy()
    try:
        unit = delegated(root)
        path = f"{unit or PARENT}/{state.name}"
        while True:
            if not unit:
                make_parent(root)
            if files.exists(path, root):
                raise Failure(f"a control group {path} is there already, and is not ours")
            state.record("cgroup", path)
            try:
                posix.mkdir(path, dir_fd=root)
            except FileNotFoundError:   # the last subhost's end has removed the parent
                continue
            return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY, dir_fd=root)
    finally:
        posix.close(root)


def delegated(root):
    """The control group that we are in, if its service manager leaves it to us to make others below it, else None.

    That is `Delegate=` of systemd.resource-control(5).  What is set for the unit
    then holds for the subhost.
    """
    path = own()
    if not path:
        return None
    try:
        group = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW, dir_fd=root)
    except FileNotFoundError:           # another part of the hierarchy is mounted there
        return None
    try:
        # Below one that is a user's, he would have the subhost's processes in his hands.
        return path if posix.fstat(group).st_uid == 0 and any(has_mark(group, mark) for mark in MARKS) else None
    finally:
        posix.close(group)


def own():
    """Our own control group, relative to the root of the hierarchy: "" if it is that, or cannot be seen from here."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as groups:
        path = next((line[4:].rstrip("\n") for line in groups if line.startswith("0::/")), "")
    return "" if ".." in path.split("/") else path


def has_mark(group, mark):
    try:
        return posix.getxattr(group, mark) == b"1"
    except OSError:
        return False


def make_parent(root):
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


def write(directory, path, text):
    fd = posix.open(path, posix.O_WRONLY, dir_fd=directory)
    try:
        posix.write(fd, text.encode())
    finally:
        posix.close(fd)


def read(directory, path):
    """A control file's text."""
    fd = posix.open(path, posix.O_RDONLY, dir_fd=directory)
    try:
        return b"".join(iter(lambda: posix.read(fd, 4096), b"")).decode()
    finally:
        posix.close(fd)


def opened(path):
    """A descriptor of the control group path.  Raises FileNotFoundError."""
    root = hierarchy()
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW, dir_fd=root)
    finally:
        posix.close(root)


@doing("remove the control group")
def remove(path):
    """Kill all that is in the control group, and remove it and its descendants."""
    root = hierarchy()
    try:
        group = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW, dir_fd=root)
    except FileNotFoundError:
        return
    else:
        for again in range(20, -1, -1):
            kill(group)
            remove_below(group)
            try:
                posix.rmdir(path, dir_fd=root)
                break
            except FileNotFoundError:   # the keeper's clearing was not quite dead
                break
            except OSError as error:
                if error.errno != EBUSY or not again:
                    raise
                time.sleep(0.01)        # a process was being born in it
        posix.close(group)
    finally:
        posix.close(root)


def tidy():
    """Remove the parent of all control groups of ours, if that was the last one."""
    root = hierarchy()
    try:
        posix.rmdir(PARENT, dir_fd=root)
    except OSError:
        pass
    finally:
        posix.close(root)


def kill(group, seconds=10):
    """SIGKILL to everything in the control group, and wait until it is gone."""
    events = posix.open("cgroup.events", posix.O_RDONLY, dir_fd=group)
    try:
        if is_empty(events):
            return
        write(group, "cgroup.kill", "1")
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        end = time.monotonic() + seconds
        while not is_empty(events):
            if time.monotonic() > end:
                raise Failure(f"processes of the control group cannot be killed: {' '.join(map(str, members(group)))}")
            poll.poll(100)
    finally:
        posix.close(events)


def is_empty(events):
    return b"populated 0" in posix.pread(events, 256, 0)


def remove_below(group):
    """Remove the control groups that were made in this one."""
    for child in children(group):
        fd = posix.open(child, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW, dir_fd=group)
        try:
            remove_below(fd)
        finally:
            posix.close(fd)
        posix.rmdir(child, dir_fd=group)


def children(group):
    with posix.scandir(group) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def members(group):
    """The process ids in the control group and below."""
    found = [int(line) for line in read(group, "cgroup.procs").split()]
    for child in children(group):
        try:
            fd = posix.open(child, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW, dir_fd=group)
        except FileNotFoundError:
            continue
        try:
            found += members(fd)
        finally:
            posix.close(fd)
    return found
