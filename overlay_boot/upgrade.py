"""What is done for running subhosts when dpkg(1) has changed the host, by its hooks, as FOLLOW says.

dpkg waits until they have been looked at, which takes milliseconds, and no subhost can make it longer than LIMIT.  What
runs in a subhost is run in the background, when the host's package manager has come to an end.
"""
import _signal
import fcntl
import posix
import time

from . import files, follow, interruption, log, namespaces, packages, state
from .config import NO, PACKAGES, RESTART
from .errors import DONE, FAILED, Failure, complain
from .follow import Follower, Wish
from .running import NotRunning
from .side_by_side import side_by_side
from .subhosts import config_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .follow import Row
    from .overlayfs import Tree

LIMIT = 10              # seconds, for a look at a subhost: all of them are looked at at once
MOMENT = 1              # seconds, between two looks at what the host's package manager has locked
TO_LOCK = posix.O_WRONLY | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_NONBLOCK
QUEUE = "waiting"       # a file beside what the host had, locked by the one who is the next to follow


class Visitor(Follower):
    """A process that looks at one of many subhosts, before or after dpkg has changed the host."""

    __slots__ = ("before", "sink")

    def __init__(self, word: str, group: int, *, before: bool) -> None:
        self.before = before
        super().__init__(word, group, Wish(packages=False, is_brief=True))

    def spawn(self, group: int, sink: int) -> tuple[int, int]:
        self.sink = sink
        return super().spawn(group, sink)

    def work(self) -> int:
        posix.close(self.sink)          # the others need not wait for us to begin
        _signal.alarm(LIMIT)
        return super().work()

    def followed(self) -> "Row | None":
        config = follow.config_in(config_of(self.word))
        if config.follow == NO:
            return None
        try:
            subhost = follow.find(self.word)
            with subhost.state, subhost:
                if subhost.state.is_of_2_0_0:
                    return None
                with follow.tree_of(subhost) as tree:
                    host = packages.Host(tree)
                    if self.before:
                        keep(host, tree, follow.store_of(subhost.record))
                        return None
                    is_settled = host.is_settled()
            row = follow.follow(self.word, config.path, self.wish)
        except NotRunning:
            return None
        return {**row, "follow": config.follow if is_settled else NO}

    def pass_on(self) -> None:
        if self.status == -_signal.SIGALRM:
            complain(f"{self.word}: could not be looked at within {LIMIT} s: call overlay-follow {self.word}")
        else:
            super().pass_on()


def keep(host: packages.Host, tree: "Tree", store: str) -> None:
    """Keep what the host had, unless that is known, or being found out."""
    if tree.own and store and not packages.is_kept(store):
        with follow.lock_of(store) as lock:
            if follow.is_taken(lock):
                host.keep(store)


def host_changed(*, before: bool) -> None:
    """At the end of a run of dpkg(1) on the host, or before its beginning: do what FOLLOW says for each that runs.

    Nothing of this may be in the way of dpkg: what fails is told.
    """
    outdated, later = [], {}
    for child in side_by_side(state.names(), _signal.SIGTERM,
                              start=lambda word, group: Visitor(word, group, before=before)):
        assert isinstance(child, Visitor)
        child.pass_on()
        row = child.row
        if row and row["follow"] in (PACKAGES, RESTART):
            later[child.word] = Wish(restart=row["follow"] == RESTART)
        if row and row["follow"] not in (NO, RESTART):
            outdated += summary(row)
    if later:
        in_background(later)
        complain(f"{', '.join(later)}: the packages follow in the background (overlay-log shows how)")
    if outdated:
        complain(f"old files are in use in {', '.join(outdated)}: overlay-follow --all --restart restarts the services")


def summary(row: "Row") -> list[str]:
    """Return a subhost with the services that use old files, none if nothing does."""
    services = [*dict.fromkeys(one["service"] or one["command"] for one in row["old"])]
    return [f"{row['name']} ({', '.join(services)})"] if services else []


# In the background

def in_background(wishes: dict[str, Wish]) -> None:
    """Follow subhosts in a process of its own, which neither dpkg nor its terminal knows of."""
    process = posix.fork()
    if process:
        posix.waitpid(process, 0)
        return
    try:
        posix.setsid()
        if posix.fork():
            posix._exit(DONE)
        posix.chdir("/")
        with files.null() as null:
            for number in range(3):
                posix.dup2(null, number)
        namespaces.close_range(3)
        for child in side_by_side(wishes, _signal.SIGTERM, start=lambda word, group: Later(word, group, wishes[word])):
            assert isinstance(child, Later)
            child.pass_on()
    finally:
        posix._exit(FAILED)


class Later(Follower):
    """A process that follows when the host's package manager has come to an end, and tells of it in LOG."""

    def followed(self) -> "Row | None":
        """Return nothing if another one waits already, who will have seen no less of the host."""
        path = config_of(self.word)
        store = follow.store_on_record(self.word)
        if not store:                   # it has ended
            return None
        with follow.lock_of(store) as at, files.opened(QUEUE, TO_LOCK, 0o600, directory=at) as queue:
            try:
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            self.await_host()
            return follow.follow(self.word, path, self.wish, lambda: fcntl.flock(queue, fcntl.LOCK_UN))

    def await_host(self) -> None:
        subhost = follow.find(self.word)
        with subhost.state, subhost, follow.tree_of(subhost) as tree:
            lower = tree.beneath(tree.own)
            while any(packages.is_locked(lower, path) for path in (packages.FRONT_END_LOCK, packages.LOCK)):
                with interruption.Wait():
                    time.sleep(MOMENT)

    def pass_on(self) -> None:
        told = [*self.said, *(follow.lines(self.row) if self.row else [])]
        lines = [line.partition(": ")[2].removeprefix(f"{self.word}: ") for line in told]
        if self.status < 0:
            lines.append(f"killed by signal {-self.status}")
        elif self.row and not lines:
            lines.append("nothing to follow")
        try:
            with state.State(self.word) as found:
                record = found.record()
            log.append(record.log, (record.upper,), b"".join(log.mark(line, "overlay-follow") for line in lines))
        except (OSError, Failure):      # it has ended, or its log cannot take it
            pass
