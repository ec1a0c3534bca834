"""Subhosts that the shell version of overlay-boot, 1.6.4, has booted, and that have outlived the upgrade to this one.

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

from . import cgroup, paths, proc
from . import state as states
from .errors import Failure, doing
from .network import DIRECTORY
from .state import PATIENCE, has_ended, parent

CLOCK = posix.sysconf("SC_CLK_TCK")
DELETED = " (deleted)"          # what the kernel appends to the path of a program that an upgrade has replaced


def find(name):
    """The running one that has the network namespace NAME; None if there is none."""
    return next(iter(find_all([name])), None)


def find_all(names):
    """Those that are running and have the network namespaces of the names; /proc is only read if there are any."""
    wanted = {}
    for name in names:
        try:
            wanted[identity(f"{DIRECTORY}/{name}")] = name
        except OSError:
            pass
    found = []
    for process in processes() if wanted else ():
        try:
            name = wanted.get(namespace(process, "net"))
            if name and is_program(process, "unshare"):
                found.append(Subhost(name, process))
        except OSError:                 # it has just ended, or is none
            pass
    return found


def find_others():
    """Those that are running, and have no state file."""
    try:
        return find_all(set(posix.listdir(DIRECTORY)).difference(states.names()))
    except FileNotFoundError:
        return []


def all_running():
    """Every running subhost, and these, in the order of their boots."""
    return sorted([*states.all_running(), *find_others()], key=lambda one: float(one.records.get("since", 0)))


def running(name):
    """The running subhost NAME.  Raises Failure if it is not."""
    found = next((one for one in find_others() if one.name == name), None)
    if not found:
        raise Failure(f"{name} is not running")
    return found


def refuse_running(name):
    """Raises Failure if one of that name is running."""
    found = find(name)
    if found:
        raise Failure(f"{name} is running already, from {found.records['config']}")


class Subhost:
    """What state.Running is for one of ours; its unshare(1) is the keeper, and its shell besides."""

    __slots__ = ("init", "init_fd", "keeper", "keeper_fd", "name", "records", "shell", "shell_fd")

    def __init__(self, name, keeper):
        """Raises ProcessLookupError if it is none."""
        self.name = name
        self.keeper, self.init, self.shell = keeper, only_child(keeper), parent(keeper)
        self.keeper_fd = self.init_fd = self.shell_fd = -1
        try:
            self.keeper_fd, self.init_fd, self.shell_fd = map(posix.pidfd_open, (self.keeper, self.init, self.shell))
            # From here on the numbers cannot become those of other processes unseen.
            if not self.is_one() or any(map(has_ended, (self.keeper_fd, self.init_fd, self.shell_fd))):
                raise ProcessLookupError
            words = arguments(self.shell)
            self.records = {"config": config_path(self.shell, words[2]), "cgroup": control_group(self.init) or ".",
                            "since": f"{started(self.init):.3f}"}
        except BaseException:
            self.close()
            raise

    def close(self):
        for fd in (self.keeper_fd, self.init_fd, self.shell_fd):
            if fd >= 0:
                posix.close(fd)

    def is_one(self):
        words = arguments(self.shell)
        return (parent(self.init) == self.keeper and parent(self.keeper) == self.shell
                and is_roots(self.keeper) and is_roots(self.shell)
                and is_program(self.keeper, "unshare") and is_program(self.shell, paths.name(paths.real("/bin/sh")))
                and len(words) > 2 and paths.name(words[1]) == "overlay-boot"
                and namespace(self.shell, "mnt") == namespace(self.keeper, "mnt") != namespace("self", "mnt")
                and namespace(self.keeper, "net") != namespace(self.shell, "net")
                and namespace(self.keeper, "pid_for_children") == namespace(self.init, "pid")
                and status(self.init, "NSpid") == [self.init, 1]
                # as long as it is not, the host's files are within reach of who enters
                and identity(f"/proc/{self.init}/root") != identity("/"))

    @property
    def network(self):
        return f"{DIRECTORY}/{self.name}"

    def members(self):
        """The process ids in its PID namespace, and in those that have been made in that."""
        parents = {process: parent(process) for process in processes()}
        try:
            inside = namespace(self.init, "pid")
        except OSError:                 # PID 1 has ended, and so all of them
            return []
        found = {process for process in parents if is_in(process, inside)}
        added = found
        while added:
            added = {process for process in parents if parents[process] in added} - found
            found |= added
        return sorted(found)

    def plugged(self):
        """Its cables, and the VLANs on them, as a state file has them: {"cable:NAMEn": index}.

        An interface is one if the kernel says that the other end of it is in the subhost.
        """
        from . import cables
        named = [one for one in posix.listdir(cables.INTERFACES)
                 if one.startswith(self.name) and one[len(self.name):].partition(".")[0].isdigit()]
        if not named:
            return {}
        cables.prepare_import()
        from pyroute2 import IPRoute
        with IPRoute() as route:
            there = route.get_netnsid(pid=self.init)["nsid"]
            links = [link for link in route.get_links() if link.get_attr("IFLA_IFNAME") in named]
        own = {link["index"]: link for link in links if link.get_attr("IFLA_LINK_NETNSID") == there}
        tagged = [link for link in links
                  if link.get_attr("IFLA_LINK_NETNSID") is None and link.get_attr("IFLA_LINK") in own]
        return {**{f"cable:{link.get_attr('IFLA_IFNAME')}": str(index) for index, link in own.items()},
                **{f"vlan:{link.get_attr('IFLA_IFNAME')}": str(link["index"]) for link in tagged}}


@doing("take over the subhost of the shell version")
def take_over(config, state):
    """For a stop: the running one of the configuration, with what has to be removed in the state file; or None.

    From here on it is one of ours that is being stopped: if this process is
    killed, the next command for it ends the rest of it.  Its shell does not run
    any more: it would call programs of the subhost's, outside of that.
    """
    found = find(config.name)
    if not found:
        return None
    try:
        if found.records["config"] != config.path:
            raise Failure(f"{config.name} is running from {found.records['config']}, not from {config.path}")
        config.resolve_log()
        config.resolve()
        make_log(config)
        plugged = found.plugged()
    except BaseException:
        if not posix.fstat(state.fd).st_size:
            state.remove()
        raise
    found.records |= {"start": " ".join(config.start), "timeout": config.stop_timeout,
                      "log": config.log, "upper": config.upper}
    state.record("config", config.path)
    state.record("shell", " ".join(f"{process}:{start_time(process)}"
                                   for process in (found.shell, found.keeper, found.init)))
    for key, index in plugged.items():
        state.record(key, index)
    state.record("netns", f"{file_below(state.name)} {posix.stat(f'{DIRECTORY}/{state.name}').st_ino}")
    _signal.pidfd_send_signal(found.shell_fd, _signal.SIGSTOP)
    return found


def make_log(config):
    from . import log
    posix.close(log.make(config.log, (config.upper, config.live)))


def file_below(name):
    """The inode of the file that the network namespace NAME is mounted on: its directory does not tell of mounts."""
    with posix.scandir(DIRECTORY) as entries:
        return next(entry.inode() for entry in entries if entry.name == name)


@doing("end what the shell version has started")
def end(name, record):
    """End those processes on record that are left, the shell first, and remove the control group if it had made one.

    No process has the number and the start time of another.
    """
    group = None
    for word in record.split():
        process, _, begun = word.partition(":")
        try:
            pidfd = posix.pidfd_open(int(process))
        except ProcessLookupError:
            continue
        try:
            if start_time(int(process)) == int(begun):
                group = group or control_group(int(process))
                _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
                has_ended(pidfd, PATIENCE)
        except (OSError, IndexError):       # it has ended
            pass
        finally:
            posix.close(pidfd)
    if group == name:
        root = cgroup.hierarchy()
        try:
            posix.rmdir(name, dir_fd=root)
        except OSError:                     # somebody else uses it, or it is a systemd's of that name
            pass
        finally:
            posix.close(root)


# Processes, by proc(5)

def processes():
    return [int(entry) for entry in posix.listdir("/proc") if entry.isdigit()]


def identity(path):
    found = posix.stat(path)
    return found.st_dev, found.st_ino


def namespace(process, kind):
    return identity(f"/proc/{process}/ns/{kind}")


def is_in(process, inside):
    """Whether the process is in the PID namespace."""
    try:
        return namespace(process, "pid") == inside
    except OSError:
        return False


def is_roots(process):
    """Whether the process is the host's root's by all four ids, and in the namespaces of our own that tell."""
    return (status(process, "Uid") == [0, 0, 0, 0]
            and all(namespace(process, kind) == namespace("self", kind) for kind in ("pid", "user")))


def is_program(process, name):
    return paths.name(posix.readlink(f"/proc/{process}/exe").removesuffix(DELETED)) == name


def read(process, file):
    with open(f"/proc/{process}/{file}", "rb", buffering=0) as opened:
        return paths.decode(opened.read(1 << 16))


def status(process, field):
    """The numbers of a field."""
    return [int(word) for word in read(process, "status").partition(f"\n{field}:")[2].partition("\n")[0].split()]


def arguments(process):
    return read(process, "cmdline").split("\0")[:-1]


def only_child(process):
    """Raises ProcessLookupError if it has not one child."""
    children = read(process, f"task/{process}/children").split()
    if len(children) != 1:
        raise ProcessLookupError
    return int(children[0])


def start_time(process):
    """In clock ticks since the machine was started."""
    return int(read(process, "stat").rpartition(")")[2].split()[19])


def started(process):
    """In seconds of the epoch."""
    with open("/proc/stat", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("btime ")) + start_time(process) / CLOCK


def control_group(process):
    """Its control group, version 2, as cgroup.opened() takes it."""
    return next((line[4:] for line in read(process, "cgroup").split("\n") if line.startswith("0::/")), "")


def config_path(process, word):
    """The configuration file of an argument of the shell's.

    The working directory is in a mount that is detached, and its path known
    only from there down.
    """
    if not word.startswith("/"):
        here, directory = posix.readlink(f"/proc/{process}/cwd"), identity(f"/proc/{process}/cwd")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            points = [proc.unescaped(line.split()[4]) for line in mounts]
        places = [here, *(f"{point.rstrip('/')}{here}" for point in points)]
        word = paths.join(next((place for place in places if is_directory(place, directory)), here), word)
    try:
        return paths.real(word)
    except OSError:
        return word


def is_directory(path, directory):
    try:
        return identity(path) == directory
    except OSError:
        return False
