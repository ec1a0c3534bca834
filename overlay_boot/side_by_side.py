"""The stories of overlay-boot --all and overlay-stop --all: the ordinary command for each subhost, side by side."""
import _signal
import posix
import select
import sys
from errno import EBUSY

from . import cgroup, environment, interruption, namespaces, paths, processes, subhosts
from .errors import Failure, complain
from .namespaces import STOP, locked_by
from .running import find
from .state import names, noted
from .subhosts_conf import LIST, listed, real

PER_PROCESSOR = 2       # a boot or a stop waits now and then: for the disk, a hook, a service


def boot_all():
    """Boot the subhosts of /etc/subhosts.conf that are not running; whether all of them run.

    Raises Failure if interrupted: boots under way were undone, those done before were not.
    """
    up, wanted, failed = configs_running(), {}, []
    for path in listed():
        if not path.startswith("/"):
            complain(f"{path}: not a full path, as {LIST} has to have it")
            failed.append(path)
        elif real(path) not in up:
            wanted.setdefault(real(path), path)     # each once, in the order of the list
    # A keeper that was born in the root of the hierarchy belongs to no unit of
    # the host's, which would kill it together with what else is left of itself.
    outside = cgroup.hierarchy() if wanted else -1
    for path, status, said in side_by_side([*wanted.values()], _signal.SIGTERM, outside):
        # Somebody else may have booted it meanwhile.
        if status and real(path) not in configs_running():
            failed.append(path)
        elif status:
            continue
        tell(path, status, said)
    return not failed


def stop_all():
    """Stop the subhosts that are running or being booted, the last one first; whether none of them is left.

    What killed ones have left is cleared, too.  Raises Failure if interrupted: the
    stops under way were short of patience.
    """
    failed = []
    for config, status, said in side_by_side(configs(), _signal.SIGINT):
        # It may have ended by itself, or was dead: overlay-stop calls that a failure.
        if status and config in configs():
            failed.append(config)
        elif status:
            continue
        tell(config, status, said)
    return not failed


def configs_running():
    """The configuration files of the subhosts that are running, and not being stopped."""
    found = {*inherited()}
    for name in names():
        try:
            one = find(name)
        except Failure:
            continue
        if not locked_by(one.state.fd, STOP):
            found.add(one.record.config)
        one.close()
        one.state.close()
    return found


def configs():
    """The configuration files of all that is running or has a state file, the last boot first."""
    found = inherited()
    for _, record in noted():
        if record.config:               # else nothing was made yet
            found[record.config] = record.since or float("inf")
    return sorted(found, key=found.get, reverse=True)


def inherited():
    """{configuration file: since when} of what the shell version has booted."""
    found = {}
    for one in subhosts.inherited():
        found[one.record.config] = one.record.since
        one.close()
    return found


def side_by_side(files, interrupt, group=-1):
    """Run the command at hand with each of the files, begun in this order, in the control group of a descriptor.

    Yields (file, exit status, what it has said) as they end.  Interrupted it begins
    no more, sends the signal interrupt to those at work, and raises Failure when
    they have ended.
    """
    interruption.hold()
    waiting, at_work, interrupted = [*reversed(files)], {}, None
    most = PER_PROCESSOR * len(posix.sched_getaffinity(0))
    poll = select.poll()
    while waiting or at_work:
        while waiting and len(at_work) < most:
            child = Child(waiting.pop(), group)
            at_work[child.pidfd] = child
            poll.register(child.pidfd, select.POLLIN)
        try:
            with interruption.Wait():
                ended = poll.poll()
        except Failure as failure:
            interruption.ignore()
            interrupted = failure
            waiting.clear()
            for pidfd in at_work:
                _signal.pidfd_send_signal(pidfd, interrupt)
            continue
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            yield at_work.pop(pidfd).ended()
    if interrupted:
        raise interrupted


class Child:
    """The command at hand, at work for one configuration file; what it says is kept."""

    __slots__ = ("path", "pidfd", "process", "said")

    def __init__(self, path, group):
        self.path = path
        program = paths.real(sys.argv[0])
        null = posix.open("/dev/null", posix.O_RDONLY)
        self.said = posix.memfd_create("said")      # no pipe, which somebody would have to empty meanwhile
        try:
            self.process, self.pidfd = self.spawn(program, (null, 1, self.said), group)
        except OSError as error:
            if error.errno != EBUSY:
                raise
            # In a container with systemd: no process can be in the root of its hierarchy.
            self.process, self.pidfd = self.spawn(program, (null, 1, self.said), -1)
        finally:
            posix.close(null)

    def spawn(self, program, standard, group):
        return namespaces.spawn([program], [program, self.path], environment.variables(), standard=standard, cgroup=group)

    def ended(self):
        """(its configuration file, its exit status, the lines that it has said)."""
        status = posix.waitstatus_to_exitcode(posix.waitpid(self.process, 0)[1])
        said = paths.decode(posix.pread(self.said, processes.LIMIT, 0)).splitlines()
        posix.close(self.said)
        posix.close(self.pidfd)
        return self.path, status, said


def tell(path, status, said):
    """Pass on what the command for one configuration file has said, line for line."""
    own = f"{paths.name(sys.argv[0])}: "
    if status < 0:
        said = [*said, f"killed by signal {-status}"]
    elif status and not said:
        said = [f"failed with exit status {status}"]
    for line in said:
        complain(f"{path}: {line.removeprefix(own)}")
