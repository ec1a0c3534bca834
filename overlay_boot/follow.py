"""The story of overlay-follow: a subhost sees its host as that is now, as in overlay-follow(8)."""
import _signal
import fcntl
import marshal
import posix
import time

from . import (
    beneath,
    files,
    interruption,
    namespaces,
    old_files,
    overlayfs,
    paths,
    proc,
    running,
    services,
    sources,
    trees,
)
from .config import Config
from .errors import DONE, FAILED, Failure, complain, doing, reason
from .files import Fd, Fds
from .maintenance import Bare, Inside, bare
from .old_files import Finder, Process
from .running import NotRunning, Running
from .side_by_side import Child, configs_running, side_by_side
from .state import MOMENT, PATIENCE, State, Taken, names, wait_for
from .stop import Watch, send, send_each, takes_requests
from .subhosts import identified
from .subhosts_conf import listed, real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .overlayfs import Tree
    from .record import Record
    Row = dict[str, Any]

STARTS_WITHIN = 90      # seconds, for a service
LINGERS = 1             # seconds, for which the processes of a service that was stopped may go on
OVERLAY = "overlay"     # a kind of file system
SHOWN = 3               # files of a service that are named


class Wish:
    """What overlay-follow is to do, by its options."""

    __slots__ = ("dry_run", "is_brief", "packages", "restart")

    def __init__(self, *, dry_run: bool = False, restart: bool = False, packages: bool = True,
                 is_brief: bool = False) -> None:
        self.dry_run = dry_run          # nothing but to tell what is to be done
        self.restart = restart          # start services anew that use old files
        self.packages = packages        # else the view only
        self.is_brief = is_brief        # to wait for nothing, and to execute nothing


def follow(name: str, path: str, wish: Wish, begun: "Callable[[], object]" = lambda: None) -> "Row":
    """Have a subhost of that name and configuration file see its host as it is now.

    begun is called when no other overlay-follow is at work with it any more.  Returns what overlay-follow --json prints
    of it.  Raises Failure.
    """
    row: Row = {"name": name, "state": "stopped", "is_done": True, "packages": None, "left": [], "restarted": [],
                "old": []}
    if not path:
        find(name)
        raise Failure(f"the state file of {name} does not note its configuration file")
    if wish.dry_run:
        return {**row, **followed(name, path, wish, may_change=False)}
    store = store_on_record(name) or (sources.Sources(complete(path)).followed if wish.packages else "")
    if not store:           # UPPER is not known, or nothing of it is wanted
        return {**row, **followed(name, path, wish, may_change=False)}
    with lock_of(store) as lock:
        may_change = is_taken(lock) or not wish.is_brief and bool(await_others(lock))
        begun()
        try:
            found = followed(name, path, wish, may_change=may_change)
        except Taken:                   # somebody has just begun to boot it
            await_boot(name)
            found = followed(name, path, wish, may_change=may_change)
    return {**row, **found}


def followed(name: str, path: str, wish: Wish, *, may_change: bool) -> "Row":
    """Do it, or with dry_run tell what is to be done; without may_change, change nothing in UPPER or on record.

    Returns what there is to tell.  Raises Taken if the subhost is being booted.
    """
    try:
        subhost = find(name)
    except NotRunning:
        if is_hibernating(name):
            if not wish.dry_run:
                refresh_hibernating(name)
            return {"state": "hibernating"}
        return follow_stopped(path, wish) if wish.packages else {}
    with subhost.state, subhost:
        try:
            return {"state": "running", **follow_running(subhost, wish, may_change=may_change)}
        except (OSError, Failure):
            if subhost.is_ending(MOMENT):
                raise NotRunning(name) from None
            raise


def store_of(record: "Record") -> str:
    """Return the path of the directory with what the host had for a subhost on record, "" if that is not known."""
    if record.followed or not record.config or not record.upper:
        return record.followed
    return sources.followed(config_in(record.config).base, record.upper)        # an earlier version has booted it


def store_on_record(name: str) -> str:
    """store_of() the subhost NAME, "" also if it does not run."""
    try:
        with State(name) as state:
            return store_of(state.record())
    except FileNotFoundError:
        return ""


def lock_of(store: str) -> Fd:
    """Return a descriptor of what is locked, flock(2), by whoever follows the subhost of an UPPER, running or not.

    It is the directory with what the host had: only root can open that, and what is in it is written by one at a time.
    """
    from .followed import directory
    with directory(store, make=True) as at:
        return files.opened(".", files.READ_DIRECTORY, directory=at)


@doing("lock what the host had")
def is_taken(lock: int) -> bool:
    """Take the lock; tell whether nobody else has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@doing("lock what the host had")
def await_others(lock: int) -> bool:
    """Take the lock, when nobody else has it any more."""
    with interruption.Wait():
        fcntl.flock(lock, fcntl.LOCK_EX)
    return True


def await_boot(name: str) -> None:
    """Wait until the boot of a subhost that is under way has come to its end, for a while."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            subhost = find(name)
        except NotRunning:
            time.sleep(MOMENT)
            continue
        with subhost.state, subhost:
            return


def follow_stopped(path: str, wish: Wish) -> "Row":
    """Have the packages of a subhost follow that is not running: it is booted for that, without services.

    One whose UPPER cannot be reached, or that has layers, is followed when it runs.
    """
    config = complete(path)
    if config.image or config.tmpfs or config.layers or config.lower == [config.upper]:
        return {}
    store = sources.Sources(config).followed
    with trees.of_config(config, hides=True) as tree:
        row = follow_packages(tree, store, wish)
    if not wish.dry_run and not row["is_done"]:
        with Bare(bare(path)) as subhost, root_of(subhost) as root, tree_of(subhost) as tree:
            row = follow_packages(tree, store, wish, subhost, root)
    return row


def config_in(path: str) -> Config:
    """Return the configuration of a subhost, with BASE and FOLLOW."""
    config = Config(path, "overlay-follow")
    config.add_site_wide()
    config.resolve_base()
    return config


def complete(path: str) -> Config:
    """Return the configuration of a subhost, with all values."""
    config = config_in(path)
    config.resolve_log()
    config.resolve()
    return config


def find(name: str) -> Running:
    """Return the running subhost NAME.  Raises Failure if none is, or it has no state file."""
    try:
        return running.find(name)
    except NotRunning:
        from . import subhosts
        if any(one.name == name for one in subhosts.inherited()):
            raise Failure(f"{name} was booted by overlay-boot 1.6.4: boot it again, and it follows") from None
        raise
    except Failure:
        if is_hibernating(name):
            raise NotRunning(name) from None
        raise


def is_hibernating(name: str) -> bool:
    try:
        with State(name) as state:
            return state.is_hibernating()
    except FileNotFoundError:
        return False


def follow_running(subhost: Running, wish: Wish, *, may_change: bool) -> "Row":
    """Return what has become of the packages, the services that were started anew, and who uses old files then."""
    row: Row = {}
    with root_of(subhost) as root, tree_of(subhost) as tree:
        def look() -> list[Process]:
            return find_old_files(subhost, root, tree) if wish.dry_run else see(subhost, root, tree, renews=may_change)

        old = look()                                  # before programs are executed in it
        store = store_in_reach(subhost, tree) if wish.packages else ""
        if store:
            row = follow_packages(tree, store, wish, subhost, root)
            if row["packages"]:
                old = look()
        restarted: list[str] = []
        if may_change and not wish.is_brief:
            wanted = {*subhost.record.restart, *(one.service for one in old if wish.restart)}
            restarted = [word for word in subhost.record.start if word in wanted]
            if restarted:
                start_anew(subhost, root, restarted, [one.number for one in old if one.service in restarted])
                old = look()
        if may_change:
            note(subhost, old)
    return {**row, "restarted": restarted, "old": [*map(described, old)]}


@doing("follow with the packages")
def follow_packages(tree: "Tree", store: str, wish: Wish, subhost: Running | None = None,
                    root: int = -1) -> "Row":
    """Have the packages of a subhost follow, or with dry_run, or where it does not run, tell what is to be done.

    store is the directory with what the host had; tree has UPPER and what is beneath it, root is a descriptor of both
    together.  Raises Failure.
    """
    from . import packages, renewal
    if not wish.dry_run:
        renewal.take_back(tree, store)
    plan = packages.Plan(tree, store)
    if plan.is_empty and not wish.dry_run:
        plan.keep()
    if plan.is_empty or not subhost or wish.dry_run:
        left = packages.rehearse(plan) if wish.dry_run and not plan.is_empty else plan.left
        return {"packages": plan.row(), "left": left, "is_done": plan.is_empty}
    with Inside(subhost) as inside:
        site = packages.Site(subhost.name, root, proc.owner(subhost.init), inside.maintain,
                             lambda: refresh(subhost, root))
        rows, left = packages.follow(tree, store, site)
    return {"packages": rows, "left": left, "is_done": True}


def root_of(subhost: Running) -> Fd:
    """Return a descriptor of the root directory of a subhost."""
    return files.opened(f"/proc/{subhost.init}/root", files.PLACE)


def tree_of(subhost: Running) -> "Tree":
    """Return what its root file system is made of."""
    return trees.of_record(subhost.record, subhost.keeper)


@doing("refresh what is seen")
def refresh(subhost: Running, root: int) -> None:
    """Have the overlay mounts that a subhost sees ask their layers again.  Nothing of the subhost is executed."""
    for number, mount in subhost.mounts().items():
        if mount.kind == OVERLAY:
            refresh_mount(root, number, mount.place)
    if len(subhost.record.lower) > 1:
        refresh_apart(subhost.record, subhost.keeper)


def refresh_apart(record: "Record", keeper: int) -> None:
    """refresh(), of mounts that rootfs.set_apart() made, and that no path leads to."""
    with Fds(trees.apart(record, keeper)) as found:
        for fd in found:
            if posix.fstatvfs(fd).f_flag & posix.ST_RDONLY:     # without UPPER
                overlayfs.drop_cached_names(fd)


def refresh_hibernating(name: str) -> None:
    """refresh(), of one that hibernates."""
    from . import hibernation
    with State(name) as state:
        subhost = hibernation.Hibernating(state)
        refresh_apart(subhost.record, 0)
        with hibernation.reopened(subhost.record) as mounts, hibernation.root_of(mounts) as root:
            for number, mount in subhost.mounts().items():
                if mount.kind == OVERLAY:
                    refresh_mount(root, number, mount.place)


def refresh_mount(root: int, number: int, place: str) -> None:
    try:
        with beneath.opened(root, place, posix.O_PATH, beneath.INSIDE) as at:
            if namespaces.mount_of(at)[0] == number:        # else it is hidden by another one
                overlayfs.drop_cached_names(at)
    except FileNotFoundError:                               # just unmounted
        pass


def store_in_reach(subhost: Running, tree: "Tree") -> str:
    """Return store_of() a subhost, "" if UPPER is out of reach, or LOWER itself."""
    return store_of(subhost.record) if tree.own and len(tree) > 1 else ""


def see(subhost: Running, root: int, tree: "Tree", *, renews: bool) -> list[Process]:
    """Have a subhost see its host as it is now, with renews also where files are in use.

    Returns the processes that use old files.
    """
    refresh(subhost, root)
    old = find_old_files(subhost, root, tree)
    store = store_in_reach(subhost, tree) if old and renews else ""
    if store:
        renew(subhost, root, tree, store, {path for one in old for path in one.files})
    return old


@doing("renew what is seen")
def renew(subhost: Running, root: int, tree: "Tree", store: str, old: set[str]) -> None:
    """Have the paths of old files, which are in use, lead to the new ones."""
    from . import packages, renewal
    site = packages.Site(subhost.name, root, proc.owner(subhost.init), lambda _: None, lambda: refresh(subhost, root))
    mounts = {number for number, mount in subhost.mounts().items() if mount.kind == OVERLAY}
    if renewal.renew(site, tree, store, old, mounts):
        refresh(subhost, root)


@doing("look for old files")
def find_old_files(subhost: Running, root: int, tree: "Tree") -> list[Process]:
    found = Finder(subhost, root, tree).find()
    old_files.tell_services(subhost, root, found)
    return found


def note(subhost: Running, old: list[Process]) -> None:
    """Note for overlay-ls which processes use old files."""
    noted = tuple(f"{one.number}:{one.start}" for one in old)
    if noted != subhost.record.old:
        subhost.state.note("old", noted)


def start_anew(subhost: Running, root: int, words: list[str], users: list[int]) -> None:
    """Stop services, in reverse order, and start them again, in order, when the files that they used are forgotten.

    users are processes of theirs that use old files.  If this is killed, the next call starts what was stopped.
    """
    interruption.ignore()
    subhost.state.note("restart", words)
    watch = Watch(subhost)
    with Inside(subhost) as inside:
        if services.are_systemds(subhost):
            restart_units(subhost, root, inside, words, watch)
            await_ends(users, LINGERS)
            refresh(subhost, root)
            subhost.state.note("restart", ())
            return
        if takes_requests(subhost.init):
            send(subhost.init_fd, _signal.SIGUSR1)                  # to stay without a service
        for word in reversed(words):
            stop_service(subhost, inside, word, watch)
        await_ends(users, LINGERS)
        refresh(subhost, root)
        for word in words:
            try:
                inside.start(word, STARTS_WITHIN, watch.is_out_of_hand)
            except (OSError, Failure) as failure:
                complain(f"{subhost.name}: cannot start {word}: {reason(failure)}")
        if takes_requests(subhost.init):
            send(subhost.init_fd, _signal.SIGUSR2)
    subhost.state.note("restart", ())


def restart_units(subhost: Running, root: int, inside: Inside, words: list[str], watch: Watch) -> None:
    """Have systemd, which is PID 1, read its units again, and restart those of START, in order."""
    from .systemd import unit_of
    seconds = STARTS_WITHIN + subhost.record.timeout
    try:
        inside.execute(["systemctl", "daemon-reload"], seconds, watch.is_out_of_hand)
    except (OSError, Failure) as failure:
        complain(f"{subhost.name}: cannot have systemd read its units again: {reason(failure)}")
    for word in words:
        unit = unit_of(word)
        try:
            inside.execute(["systemctl", "--no-ask-password", "restart", "--", unit], seconds, watch.is_out_of_hand)
        except (OSError, Failure) as failure:
            complain(f"{subhost.name}: cannot restart {word}: {reason(failure)} "
                     f"(see overlay-go {subhost.name} journalctl -u {paths.quoted(unit)})")
        refresh(subhost, root)


def stop_service(subhost: Running, inside: Inside, word: str, watch: Watch) -> None:
    """Stop a service by its script; if that fails, ask what is in its control group to end, as service managers do.

    The script can be of another version than what it is to stop: that of MariaDB 11.8 cannot talk to 10.11.
    """
    try:
        inside.stop(word, subhost.record.timeout, watch.is_out_of_hand)
    except (OSError, Failure) as failure:
        complain(f"{subhost.name}: cannot stop {word}: {reason(failure)}")
        members = services.members_of(services.group_of(word), inside.group)
        send_each(subhost, members, _signal.SIGTERM)
        await_ends(members, subhost.record.timeout)


def await_ends(processes: list[int], seconds: float) -> None:
    """Wait for the ends of processes for a while: a script that stops a service may not do so, and some go on."""
    end = time.monotonic() + seconds
    for process in processes:
        wait_for(process, end - time.monotonic())


def described(one: Process) -> "Row":
    return {"pid": one.number, "command": one.command, "service": one.service, "files": one.files}


def lines(row: "Row") -> list[str]:
    """Return what is told of a subhost that was followed: a line for each service, with the files that it uses."""
    from . import packages
    told = [*(packages.told(row["packages"]) if row["packages"] else []), *row["left"]]
    told += [f"started again: {' '.join(row['restarted'])}"] if row["restarted"] else []
    by_service: dict[str, list[Row]] = {}
    for one in row["old"]:
        by_service.setdefault(one["service"] or f"{one['command']} ({one['pid']})", []).append(one)
    for whose, old in by_service.items():
        used = [*dict.fromkeys(path for one in old for path in one["files"])]
        more = f" and {len(used) - SHOWN} more" if len(used) > SHOWN else ""
        told.append(f"{whose} uses old files: {', '.join(used[:SHOWN])}{more}")
    told += ["its packages have not followed to the end"] if not told and not row["is_done"] else []
    return [paths.printable(f"{row['name']}: {line}") for line in told]


def follow_all(wish: Wish) -> "tuple[list[Row], bool]":
    """Follow all that run or hibernate, and with their packages those of /etc/subhosts.conf, several at a time.

    Returns what follow() does of each, and whether none failed: failures are told.  Raises Failure if interrupted.
    """
    words = names()
    if wish.packages:
        up = configs_running()
        words += [path for path in listed() if path.startswith("/") and real(path) not in up]
    return follow_each(words, wish, may_end=True)


def follow_each(words: list[str], wish: Wish, *, may_end: bool = False) -> "tuple[list[Row], bool]":
    """follow_all(), of those subhosts that the words are names or configuration files of.

    With may_end, one that is not there any more by then is left out.
    """
    found, succeeded = [], True
    for child in side_by_side(words, _signal.SIGTERM, start=lambda word, group: Follower(word, group, wish)):
        assert isinstance(child, Follower)
        if may_end and child.status and "/" not in child.word and child.word not in names():
            continue
        child.pass_on()
        succeeded = succeeded and child.row is not None
        if child.row:
            found.append(child.row)
    return found, succeeded


class Follower(Child):
    """A process that follows one of many."""

    __slots__ = ("result", "row", "wish")

    def __init__(self, word: str, group: int, wish: Wish) -> None:
        self.wish = wish
        self.row: Row | None = None         # what has become of it; None if that failed
        self.result = Fd(posix.memfd_create("result"))
        super().__init__(word, group)

    def spawn(self, _group: int, _sink: int) -> tuple[int, int]:
        process = posix.fork()
        if process == 0:
            posix._exit(self.work())
        return process, posix.pidfd_open(process)

    def work(self) -> int:
        """In the process: follow, and write down what came of it.  Return the exit status."""
        try:
            posix.dup2(self.output, 2)
            files.write_all(self.result, marshal.dumps(self.followed()))
        except BaseException as error:
            complain(reason(error) if isinstance(error, Exception) else "interrupted")
            return FAILED
        return DONE

    def followed(self) -> "Row | None":
        return follow(*identified(self.word, "overlay-follow"), self.wish)

    def reap(self) -> None:
        super().reap()
        with self.result:
            if not self.status:
                self.row = marshal.loads(posix.pread(self.result, posix.fstat(self.result).st_size, 0))
