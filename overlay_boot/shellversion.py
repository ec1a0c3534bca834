"""Subhosts that the shell version of overlay-boot, 1.6.4, has booted, and that have outlived the upgrade to this one.

Until Debian 15, as subhosts.py has it, which is the only one to come here.

There is no state file of them and no keeper.  One of them is this tree:

    /bin/sh .../overlay-boot CONF       a process of the host, in the subhost's mount namespace
        unshare ... --kill-child        a process of the host, in its network namespace, /run/netns/NAME
            PID 1

What a process calls itself is up to anybody.  These are known by what nobody can
have made but the host's root: two processes of root's, in the PID and user
namespace that we are in (whoever is in a subhost cannot get there), executing a
shell and unshare(1), outside of our mount namespace, the child of the second
being PID 1 of its own namespace.  The script itself is replaced by the time, or
deleted, and the shell's files with it.
"""
import _signal
import posix

from . import INTERFACES, cgroup, files, paths, proc
from .config import Config
from .errors import Failure, doing
from .network import NETNS, path_of
from .record import Record
from .state import PATIENCE, State, has_ended


def find(names: set[str]) -> "list[Inherited]":
    """Return those that are running and have the network namespaces of the names."""
    wanted = {}
    for name in names:
        try:
            wanted[files.identity(path_of(name))] = name
        except OSError:
            pass
    found = []
    for process in proc.processes() if wanted else ():
        try:
            name = wanted.get(proc.namespace(process, "net"), "")
            if name and proc.program(process) == "unshare":
                found.append(Inherited(name, process))
        except OSError:                 # it has just ended, or is none
            pass
    return found


class Inherited:
    """What running.Running is for one of ours; its unshare(1) is the keeper, and its shell besides."""

    __slots__ = ("init", "init_fd", "keeper", "keeper_fd", "name", "record", "shell", "shell_fd", "words")

    def __init__(self, name: str, keeper: int) -> None:
        """Raises ProcessLookupError if it is none."""
        self.name = name
        self.keeper, self.init, self.shell = keeper, proc.only_child(keeper), proc.parent(keeper)
        self.keeper_fd = self.init_fd = self.shell_fd = -1
        try:
            self.keeper_fd, self.init_fd, self.shell_fd = map(posix.pidfd_open, (self.keeper, self.init, self.shell))
            # From here on the numbers cannot become those of other processes unseen.
            self.words = proc.arguments(self.shell)
            if not self.is_one() or any(map(has_ended, (self.keeper_fd, self.init_fd, self.shell_fd))):
                raise ProcessLookupError
            self.record = Record()
            self.record.config = config_path(self.shell, self.words[2])
            self.record.cgroup = proc.control_group(self.init) or "."
            self.record.since = proc.started(self.init)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Inherited":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in (self.keeper_fd, self.init_fd, self.shell_fd):
            if fd >= 0:
                posix.close(fd)

    def is_one(self) -> bool:
        words = self.words
        return (proc.parent(self.init) == self.keeper and proc.parent(self.keeper) == self.shell
                and is_roots(self.keeper) and is_roots(self.shell)
                and proc.program(self.keeper) == "unshare"
                and proc.program(self.shell) == paths.name(paths.real("/bin/sh"))
                and len(words) > 2 and paths.name(words[1]) == "overlay-boot"
                and proc.namespace(self.shell, "mnt") == proc.namespace(self.keeper, "mnt")
                and proc.namespace(self.shell, "mnt") != proc.namespace("self", "mnt")
                and proc.namespace(self.keeper, "net") != proc.namespace(self.shell, "net")
                and proc.namespace(self.keeper, "pid_for_children") == proc.namespace(self.init, "pid")
                and proc.status(self.init, "NSpid") == [str(self.init), "1"]
                # as long as it is not, the host's files are within reach of who enters
                and files.identity(f"/proc/{self.init}/root") != files.identity("/"))

    @property
    def network(self) -> str:
        """The path of its network namespace."""
        return path_of(self.name)

    def is_ending(self, seconds: float) -> bool:
        """Tell whether it ends within the time."""
        return has_ended(self.init_fd, seconds)

    def members(self) -> list[int]:
        """Return the process ids in its PID namespace, and in those that have been made in that."""
        parents = {process: proc.parent(process) for process in proc.processes()}
        try:
            inside = proc.namespace(self.init, "pid")
        except OSError:                 # PID 1 has ended, and so all of them
            return []
        found = {process for process in parents if is_in(process, inside)}
        added = found
        while added:
            added = {process for process in parents if parents[process] in added} - found
            found |= added
        return sorted(found)

    def named_as_cables(self) -> list[str]:
        """Return the interfaces that have names of its cables, or of VLANs on them."""
        from . import cables
        return [one for one in posix.listdir(INTERFACES) if cables.is_one_of(self.name, one)]

    def find_cables(self) -> None:
        """Have its cables, and the VLANs on them, on its record.

        An interface is one if the kernel says that the other end of it is in the subhost.
        Raises Failure if pyroute2 is not installed.
        """
        named = self.named_as_cables()
        if not named:
            return
        from . import cables
        cables.prepare_import()
        try:
            from pyroute2 import IPRoute
        except ImportError:
            raise Failure(f"cannot tell the cables of {self.name}: python3-pyroute2 is not installed") from None
        with IPRoute() as route:
            there = route.get_netnsid(pid=self.init)["nsid"]
            links = [link for link in cables.whole(route.get_links) if link.get_attr("IFLA_IFNAME") in named]
        own = {link["index"]: link for link in links if link.get_attr("IFLA_LINK_NETNSID") == there}
        tagged = [link for link in links
                  if link.get_attr("IFLA_LINK_NETNSID") is None and link.get_attr("IFLA_LINK") in own]
        self.record.cables = {link.get_attr("IFLA_IFNAME"): index for index, link in own.items()}
        self.record.vlans = {link.get_attr("IFLA_IFNAME"): link["index"] for link in tagged}


@doing("take over the subhost that overlay-boot 1.6.4 booted")
def take_over(path: str, state: State) -> "Inherited | None":
    """For a stop: return the running one of a configuration file, or None.  What has to be removed is noted.

    From here on it is one of ours that is being stopped: if this process is
    killed, the next command for it ends the rest of it.  Its shell does not run
    any more: it would call programs of the subhost's, outside of that.
    """
    found = next(iter(find({state.name})), None)
    if not found:
        return None
    try:
        if found.record.config != path:
            raise Failure(f"{state.name} is running from {found.record.config}, not from {path}")
        config = Config(path, "overlay-stop")
        config.resolve_log()
        config.resolve()
        make_log(config)
        found.find_cables()
    except BaseException:
        if state.is_empty():
            state.remove()
        raise
    record = found.record
    record.start, record.timeout = tuple(config.start), float(config.stop_timeout)
    record.log, record.upper = config.log, config.upper
    state.begin(config.path)
    processes = (found.shell, found.keeper, found.init)
    state.note("shell", [f"{process}:{proc.stat(process).start}" for process in processes])
    for name, index in record.cables.items():
        state.note("cables", index, name)
    for name, index in record.vlans.items():
        state.note("vlans", index, name)
    state.note("netns", (file_below(state.name), files.identity(path_of(state.name))[1]))
    _signal.pidfd_send_signal(found.shell_fd, _signal.SIGSTOP)
    return found


def make_log(config: Config) -> None:
    from . import log
    with log.make(config.log, (config.upper, config.live)):
        pass


def file_below(name: str) -> int:
    """Return the inode of the file beneath the network namespace NAME: a directory does not tell of mounts."""
    with posix.scandir(NETNS) as entries:
        return next(entry.inode() for entry in entries if entry.name == name)


@doing("end what overlay-boot 1.6.4 started")
def end(name: str, processes: tuple[str, ...]) -> None:
    """End those of the processes, PROCESS:START, that are left, and remove the control group if the first had made one.

    No process has the number and the start time of another.
    """
    group = None
    for word in processes:
        process, _, begun = word.partition(":")
        try:
            pidfd = posix.pidfd_open(int(process))
        except ProcessLookupError:
            continue
        with files.Fd(pidfd):
            try:
                if proc.stat(int(process)).start == int(begun):
                    group = group or proc.control_group(int(process))
                    _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
                    has_ended(pidfd, PATIENCE)
            except proc.ENDED:
                pass
    if group == name:
        with cgroup.hierarchy() as root:
            try:
                posix.rmdir(name, dir_fd=root)
            except OSError:                     # somebody else uses it, or it is a systemd's of that name
                pass


def is_in(process: int, inside: tuple[int, int]) -> bool:
    """Tell whether a process is in the PID namespace."""
    try:
        return proc.namespace(process, "pid") == inside
    except OSError:
        return False


def is_roots(process: int) -> bool:
    """Tell whether a process is the host's root's by all four ids, and in the namespaces of our own that tell."""
    return (proc.status(process, "Uid") == ["0"] * 4
            and all(proc.namespace(process, kind) == proc.namespace("self", kind) for kind in ("pid", "user")))


def config_path(process: int, word: str) -> str:
    """Return the configuration file of an argument of the shell's.

    The working directory is in a mount that is detached, and its path known
    only from there down.
    """
    if not word.startswith("/"):
        here, directory = posix.readlink(f"/proc/{process}/cwd"), files.identity(f"/proc/{process}/cwd")
        places = [here, *(f"{mount.place.rstrip('/')}{here}" for mount in proc.mounts().values())]
        word = paths.join(next((place for place in places if is_directory(place, directory)), here), word)
    try:
        return paths.real(word)
    except OSError:
        return word


def is_directory(path: str, directory: tuple[int, int]) -> bool:
    try:
        return files.identity(path) == directory
    except OSError:
        return False
