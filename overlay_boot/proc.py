"""Facts of processes, as /proc tells them: proc(5).

Each function takes the number of a process, or "self".  A number may be another process's by now: who must be sure has
a descriptor of the process, pidfd_open(2), and asks after the fact whether that has ended.
"""
import _signal
import posix

from . import files, namespaces, paths
from .errors import doing
from .files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator
    from typing import Literal
    Process = int | Literal["self"]

PF_EXITING = 4              # linux/sched.h, in the flags of stat
ENDED = (FileNotFoundError, ProcessLookupError)     # by which /proc tells that a process has ended, and no other error
DELETED = " (deleted)"      # what the kernel appends to the path of a program that has been replaced
MOST_DESCRIBED = 10
NS_GET_USERNS = 0xb701      # ioctl_ns(2)
LONGEST = 1 << 16           # bytes of a file in /proc that are read


class Stat:
    """Some of the fields of /proc/PID/stat, by the numbers that proc(5) gives them."""

    __slots__ = ("flags", "parent", "pending", "session", "start", "state", "terminal")

    def __init__(self, text: bytes) -> None:
        fields = [b"", b"", b"", *text.rpartition(b")")[2].split()]     # a name may have blanks in it
        self.state = fields[3]
        self.parent = int(fields[4])
        self.session = int(fields[6])
        self.terminal = int(fields[7])
        self.flags = int(fields[9])
        self.start = int(fields[22])        # in clock ticks since the machine was started
        self.pending = int(fields[31])


def read(process: "Process", file: str) -> bytes:
    """Return the content of a file of a process.  Raises OSError if the process has ended."""
    with files.opened(f"/proc/{process}/{file}", posix.O_RDONLY) as fd:
        return posix.read(fd, LONGEST)


def stat(process: "Process") -> Stat:
    """Return what stat(5) of a process says.  Raises OSError if the process has ended."""
    text = read(process, "stat")
    if b")" not in text:
        raise ProcessLookupError
    return Stat(text)


def started(process: int) -> float:
    """Return when a process was started, in seconds of the epoch.  Raises OSError if it has ended."""
    return moment_of(stat(process).start)


def moment_of(start: int) -> float:
    """Return the start of a process, as Stat has it, in seconds of the epoch.  The kernel takes its time to tell."""
    with files.opened("/proc/stat") as fd:
        lines = files.read_all(fd).split(b"\n")
    booted = next(int(line.split()[1]) for line in lines if line.startswith(b"btime "))
    return round(booted + start / posix.sysconf("SC_CLK_TCK"), 3)


def parent(process: int) -> int:
    """Return the number of the parent, 0 if the process has ended."""
    try:
        return stat(process).parent
    except ENDED:
        return 0


def only_child(process: int) -> int:
    """Return the number of the one child.  Raises ProcessLookupError if there is not one."""
    children = read(process, f"task/{process}/children").split()
    if len(children) != 1:
        raise ProcessLookupError
    return int(children[0])


def is_killed(process: int) -> bool:
    """Tell whether a process is gone, or about to be: on a busy machine a SIGKILL takes its time."""
    try:
        found = stat(process)
    except ENDED:
        return True
    return bool(found.flags & PF_EXITING or found.pending & 1 << _signal.SIGKILL - 1)


def is_stopped(process: int) -> bool:
    """Tell whether a process is stopped, by SIGSTOP or a debugger."""
    try:
        return stat(process).state in b"Tt"
    except OSError:
        return False


def leads_terminal(process: int) -> bool:
    """Tell whether a process is the leader of a session that has a controlling terminal."""
    try:
        found = stat(process)
    except OSError:
        return False
    return found.session == process and found.terminal != 0


def name(process: int) -> str:
    """Return what a process calls itself.  Raises OSError if it has ended."""
    return read(process, "comm").decode("ascii", "replace").strip()


def program(process: int) -> str:
    """Return the name of the program that a process executes, "" if it has ended."""
    try:
        return paths.name(posix.readlink(f"/proc/{process}/exe").removesuffix(DELETED))
    except OSError:
        return ""


def arguments(process: int) -> list[str]:
    """Return the words of the command line.  Raises OSError if the process has ended."""
    return paths.decode(read(process, "cmdline")).split("\0")[:-1]


def status(process: int, field: str) -> list[str]:
    """Return the words of a field of status.  Raises OSError if the process has ended."""
    return paths.decode(read(process, "status")).partition(f"\n{field}:")[2].partition("\n")[0].split()


def bounding_set(process: int) -> int:
    """Return the capabilities that a process, and what it executes, can have.  Raises OSError if it has ended."""
    return int(status(process, "CapBnd")[0], 16)


def blocks(process: int, signal: int) -> bool:
    """Tell whether a process has a signal blocked.  Raises OSError if it has ended."""
    mask = status(process, "SigBlk")
    return bool(mask and int(mask[0], 16) & 1 << signal - 1)


def control_group(process: "Process") -> str:
    """Return the control group of version 2, relative to the root that we see; "" if it is that, or there is none."""
    lines = paths.decode(read(process, "cgroup")).split("\n")
    return next((line[4:] for line in lines if line.startswith("0::/")), "")


def namespace(process: "Process", kind: str) -> tuple[int, int]:
    """Return the identity of a namespace of a process.  Raises OSError if it has ended."""
    return files.identity(f"/proc/{process}/ns/{kind}")


@doing("find the user namespace of the subhost")
def users_of(namespace: int) -> Fd:
    """Return the user namespace that the namespace of a descriptor belongs to, ioctl_ns(2)."""
    import fcntl
    return Fd(fcntl.ioctl(namespace, NS_GET_USERNS))


def own_ids(file: str) -> bytes:
    """Return a map with the ids that there are: all, or those of a container that this is in.

    file is uid_map or gid_map, user_namespaces(7).
    """
    lines = (line.split() for line in read("self", file).splitlines())
    return b"".join(b"%s %s %s\n" % (first, first, count) for first, _, count in lines)


def has_other_users(process: int) -> bool:
    """Tell whether a process is in another user namespace than this one.  Raises OSError if it has ended."""
    return namespace(process, "user") != namespace("self", "user")


def owner(process: int) -> int:
    """Return root of the user namespace that a process is in, as this one has it: 0 if that is the same one.

    Raises OSError if it has ended.
    """
    found = ids(process)
    return found[0] if found else 0


def ids(process: int) -> tuple[int, int] | None:
    """Return what follows 0 in the user namespace of a process: the first id, as this process has it, and their number.

    None if the namespace has no ids, or those that this process' has.  Raises OSError if the process has ended.
    """
    if not has_other_users(process):        # what follows is how that has been made
        return None
    words = read(process, "uid_map").split()
    return (int(words[1]), int(words[2])) if words and words[1] != b"0" else None


def memory(process: int) -> int:
    """Return the bytes of memory of a process, its share of what is shared; 0 if the kernel does not say."""
    try:
        text = read(process, "smaps_rollup")
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(b"Pss:"))


def processes() -> list[int]:
    """Return the numbers of all processes that are to be seen."""
    return [int(entry) for entry in posix.listdir("/proc") if entry.isdigit()]


def described(processes: "Iterable[int]") -> str:
    """Return the names and numbers of those of the processes that have not ended; of many, how many more there are."""
    all_of_them = [*processes]
    titles = [*filter(None, map(title, all_of_them[:MOST_DESCRIBED]))]
    more = len(all_of_them) - MOST_DESCRIBED
    return ", ".join([*titles, *([f"and {more} more"] if more > 0 else [])])


def title(process: int) -> str:
    """Return the name and the number of a process, "" if it has ended."""
    try:
        return f"{name(process)} ({process})"
    except OSError:
        return ""


def users(mount: int) -> list[int]:
    """Return the processes that use a mount, given by its id: for a directory, a program, an open or a mapped file.

    What else keeps it busy is not known: a mount below it, a swap file, a loop device.
    """
    return [process for process in processes() if any(is_on(mount, link) for link in links(process))]


def links(process: int) -> "Iterator[str]":
    """Yield the links in /proc that lead to the files of a process."""
    yield from (f"/proc/{process}/{link}" for link in ("cwd", "root", "exe"))
    for directory in ("fd", "map_files"):
        try:
            yield from (f"/proc/{process}/{directory}/{link}" for link in posix.listdir(f"/proc/{process}/{directory}"))
        except OSError:
            pass


def is_on(mount: int, link: str) -> bool:
    """Tell whether what a path leads to is on a mount.  It is not opened: it may be anything."""
    try:
        with files.opened(link, posix.O_PATH) as fd:
            return bool(namespaces.mount_of(fd)[0] == mount)
    except OSError:
        return False


def mount_of(path: str) -> "Mount | None":
    """Return the mount that a path is on, None if that is above our root, chroot(2)."""
    with files.opened(path, posix.O_PATH) as fd:
        return mounts().get(namespaces.mount_of(fd)[0])


class Mount:
    """A mount: the id of the one that it is on, which directory of its file system it shows, where it is below the root
    of the process, its own options; the file system's kind, device, source.
    """

    __slots__ = ("device", "kind", "options", "parent", "place", "shows", "source")

    def __init__(self, words: list[str]) -> None:
        self.parent = int(words[1])
        self.device = words[2]
        self.shows = unescaped(words[3])
        self.place = unescaped(words[4])
        self.options = words[5].split(",")
        self.kind, self.source = words[words.index("-", 6) + 1:][:2]


# Kinds of file systems on disks that can be a layer of an overlay mount.
DISKS = ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "xfs", "zfs")


def mounts_of(kinds: "Container[str]", places: "Container[str]" = ()) -> dict[int, Mount]:
    """Return those of mounts() that are of one of these kinds, or in one of these places."""
    with files.opened("/proc/self/mountinfo", posix.O_RDONLY) as fd:
        lines = paths.decode(files.read_all(fd)).split("\n")[:-1]
    found = {}
    for line in lines:
        left, _, right = line.partition(" - ")
        if right.partition(" ")[0] in kinds or places and unescaped(left.split(" ", 5)[4]) in places:
            words = line.split(" ")
            found[int(words[0])] = Mount(words)
    return found


def unescaped(path: str) -> str:
    """Return a path of mountinfo as it is."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def mounts(process: "Process" = "self") -> dict[int, Mount]:
    """Return {id: Mount} of all mounts that a process can see, in the order in which they were made."""
    return mounts_in(posix.open(f"/proc/{process}/mountinfo", posix.O_RDONLY | posix.O_CLOEXEC))


def mounts_in(mountinfo: int) -> dict[int, Mount]:
    """Return {id: Mount} of a mountinfo that is open.  The descriptor is closed."""
    with files.Fd(mountinfo) as fd:
        lines = paths.decode(files.read_all(fd)).split("\n")[:-1]      # a path may have other ends of lines
    split = (line.split(" ") for line in lines)
    return {int(words[0]): Mount(words) for words in split}


def mounts_below(place: str) -> list[Mount]:
    """Return the mounts that are to be seen below a directory, in their order."""
    found = []
    for number, mount in mounts().items():
        if mount.place.startswith(f"{place}/"):
            try:
                with files.opened(mount.place, posix.O_PATH | posix.O_NOFOLLOW) as fd:
                    if namespaces.mount_of(fd) == (number, True):       # no other one is upon it
                        found.append(mount)
            except (FileNotFoundError, NotADirectoryError):             # nor above it
                pass
    return found
