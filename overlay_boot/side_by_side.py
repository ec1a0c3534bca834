"""overlay-boot --all and overlay-stop --all: the ordinary command for each subhost, several at a time."""
import _signal
import posix
import select
import sys
from errno import EBUSY

from . import cgroup, environment, files, interruption, namespaces, paths, processes, subhosts
from .clearing import forget
from .errors import FAILED, Failure, complain, reason
from .files import Fd, Fds
from .namespaces import COMMAND, STOP, lock, locked_by
from .record import Damaged
from .running import find
from .state import State, names, noted
from .subhosts_conf import LIST, listed, real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .order import Order

PER_PROCESSOR = 2       # commands at a time: each waits now and then, for the disk, a hook or a service
LOOK = 0.1              # seconds, between two looks at a subhost that is waited for and no child of ours
MOST = 64               # with the boots that only wait, for services or for a bridge


def boot_all(*, wait: bool = False) -> bool:
    """Boot the subhosts of /etc/subhosts.conf that are not running.  Return whether all of them run in the end.

    With wait, their services are waited for, and return whether these have all been started, too.  Raises Failure if
    interrupted.  The boots under way are then undone, and what they have booted before goes on.
    """
    succeeded = True
    up = configs_running()
    wanted: dict[str, str] = {}         # {real path: path in the list}: each once, in the order of the list
    for path in listed():
        if not path.startswith("/") or "\0" in path:
            complain(f"{path}: not a full path, which {LIST} requires")
            succeeded = False
        elif real(path) not in up:
            wanted.setdefault(real(path), path)
    if not wanted:
        return succeeded
    from .boot import SERVICES_FAILED
    from .order import of_boots
    # When the unit that boots all of them ends, systemd kills what is in its control group.  Keepers that are born in
    # the root of the hierarchy are in no unit's.
    with cgroup.hierarchy() as root:
        order, refused = of_boots([*wanted.values()])
        for line in dict.fromkeys(refused.values()):
            complain(line)
            succeeded = False
        awaited = {*wanted.values()} if wait else order.awaited()

        def start(path: str, group: int) -> Child:
            return Child(path, group, ["--wait-bridges", *(["--wait"] if path in awaited else [])])

        words = [path for path in wanted.values() if path not in refused]
        for child in side_by_side(words, _signal.SIGTERM, root, start, order):
            if child.status == FAILED and real(child.word) in configs_running():
                continue                # somebody else has booted it meanwhile
            child.pass_on()
            succeeded = succeeded and (child.status == 0 or child.status == SERVICES_FAILED and not wait)
    return succeeded


def stop_all(*, except_units: bool = False) -> bool:
    """Stop what is running or being booted, the last boot first, and clear what killed subhosts have left.

    except_units leaves those alone that have a unit of their own.  Return whether none of the others is left.  Raises
    Failure if interrupted: the stops under way then wait no longer.
    """
    for name in names():
        clear_unbegun(name)
    unreadable: dict[str, Failure] = {}
    wanted = there(unreadable, except_units=except_units)
    for failure in unreadable.values():
        complain(failure)
    succeeded = not unreadable
    from .order import of_stops
    for child in side_by_side(wanted, _signal.SIGINT, order=of_stops()):
        if child.status and child.word not in there({}):
            continue                    # it has ended by itself, or was dead: overlay-stop calls that a failure
        child.pass_on()
        succeeded = succeeded and child.status == 0
    return succeeded


def clear_unbegun(name: str) -> None:
    """Clear what a boot has left that was killed before its first record."""
    try:
        state = State(name)
    except FileNotFoundError:           # it has just gone
        return
    except Failure:                     # which there() tells of
        return
    # A boot that is about to begin waits for us, as for any stop.
    if (state.is_empty() and lock(state.fd, STOP) and lock(state.fd, COMMAND) and state.is_current()
            and state.is_empty() and not state.keeper()):
        interruption.ignore()           # until the first of the stops begins
        forget(state)
    else:
        state.close()


def configs_running() -> set[str]:
    """Return the configuration files of the subhosts that are running and not being stopped."""
    found = set(inherited())
    for name in names():
        try:
            one = find(name)
        except Failure:
            continue
        with one.state, one:
            if one.record.config and not locked_by(one.state.fd, STOP):
                found.add(one.record.config)
    return found


def there(unreadable: dict[str, Failure], *, except_units: bool = False) -> list[str]:
    """Return the names of all subhosts that have a state file, the last boot first.

    Of those that 1.6.4 has booted, the configuration files.  except_units leaves out those in the control group of a
    unit.  unreadable gets {name: failure} of those of another version.
    """
    since = inherited()
    failures: dict[str, Failure] = {}
    for name, record in noted(failures):
        if except_units and record.cgroup and cgroup.is_of_unit(record.cgroup):
            continue
        since[name] = record.since or float("inf")
    for name, failure in failures.items():
        if isinstance(failure, Damaged) and not except_units:       # which may have one, for all that is known
            since[name] = float("inf")
        else:
            unreadable[name] = failure
    return sorted(since, key=lambda word: since[word], reverse=True)


def inherited() -> dict[str, float]:
    """Return {configuration file: time of the boot} of the subhosts that 1.6.4 has booted, in seconds of the epoch."""
    since = {}
    for one in subhosts.inherited():
        if one.record.config:
            since[one.record.config] = one.record.since
        one.close()
    return since


def side_by_side(words: "Iterable[str]", interrupt: int, group: int = -1,
                 start: "Callable[[str, int], Child] | None" = None, order: "Order | None" = None) -> "Iterator[Child]":
    """Run the command at hand for each of the words, configuration files or names, in this order, several at a time.

    group is a descriptor of the control group to run them in, -1 for that of this process; start makes another Child of
    a word; order has some words wait for others.  Yields each Child when it has ended.  If interrupted, begins no more,
    sends the signal interrupt to those at work, and raises Failure when they have ended.
    """
    interruption.hold()
    waiting = list(words)
    at_work: dict[int, Child] = {}
    busy: dict[int, Child] = {}         # those of them that have not closed their standard output
    interrupted: Failure | None = None
    most = PER_PROCESSOR * len(posix.sched_getaffinity(0))
    poll = select.poll()

    def let_on(source: int) -> None:
        poll.unregister(source)
        posix.close(source)
        del busy[source]

    while waiting or at_work:
        while waiting and len(busy) < most and len(at_work) < MOST:
            word = order.next_of(waiting, [one.word for one in at_work.values()]) if order else waiting[0]
            child = (start or Child)(word, group) if word else None
            if not word or not child or not child.process and at_work:
                break                   # all wait; or when one of them has ended, there may be room for another
            waiting.remove(word)
            if not child.process:
                yield child
                continue
            at_work[child.pidfd] = busy[child.source] = child
            poll.register(child.pidfd, select.POLLIN)
            poll.register(child.source, 0)
        is_held = waiting and order and order.outside
        if not at_work and not is_held:
            continue
        try:
            with interruption.Wait():
                ready = poll.poll(LOOK * 1000 if is_held else None)
        except Failure as failure:
            interruption.ignore()
            interrupted = failure
            waiting.clear()
            for pidfd in at_work:
                _signal.pidfd_send_signal(pidfd, interrupt)
            continue
        for fd, _ in ready:
            if fd in busy:              # a boot that has done this only waits, for services or a bridge
                let_on(fd)
            elif fd in at_work:
                poll.unregister(fd)
                child = at_work.pop(fd)
                if child.source in busy:        # somebody else has got it open
                    let_on(child.source)
                child.reap()
                yield child
    if interrupted:
        raise interrupted


class Child:
    """The command at hand, at work for one word.  process is 0 if it could not be executed."""

    __slots__ = ("options", "output", "pidfd", "process", "said", "source", "status", "word")

    def __init__(self, word: str, group: int, options: "Iterable[str]" = ()) -> None:
        self.options = options          # which stand before the word
        self.word = word                # the path of a configuration file, or a name
        self.process = 0
        with Fds() as fds:
            try:
                self.output = fds.keep(posix.memfd_create("output"))    # no pipe, which would have to be emptied
                self.source, sink = map(Fd, processes.make_pipe())      # it prints nothing there, but closes it
                fds.keep(self.source)
                with sink:
                    self.process, self.pidfd = self.started(group, sink)
                fds.let_go()
            except OSError as error:
                self.status, self.said = FAILED, [reason(error)]

    def started(self, group: int, sink: int) -> tuple[int, int]:
        """Start the process, in a control group, and return its number and a descriptor of it."""
        try:
            return self.spawn(group, sink)
        except OSError as error:
            if error.errno != EBUSY:
                raise
            # In a container with systemd: no process can be in the root of its hierarchy.
            return self.spawn(-1, sink)

    def spawn(self, group: int, sink: int) -> tuple[int, int]:
        program = paths.real(sys.argv[0])
        with files.null() as null:
            return namespaces.spawn([program], [program, *self.options, self.word], environment.variables(),
                                    standard=(null, sink, self.output), cgroup=group)

    def reap(self) -> None:
        """Take what is left of the process when it has ended.

        status is its exit status, or a signal as a negative number; said are the lines that it has printed as errors.
        """
        self.status = posix.waitstatus_to_exitcode(posix.waitpid(self.process, 0)[1])
        with Fd(self.pidfd), Fd(self.output):
            self.said = paths.decode(posix.pread(self.output, processes.LIMIT, 0)).splitlines()

    def pass_on(self) -> None:
        """Print what it has said, or how it has failed if that is nothing, after the word."""
        lines, command = self.said, paths.name(sys.argv[0])
        if self.status < 0:
            lines = [*lines, f"killed by signal {-self.status}"]
        elif self.status and not lines:
            lines = [f"failed with exit status {self.status}"]
        for line in lines:
            complain(f"{self.word}: {line.removeprefix(f'{command}: ')}")
