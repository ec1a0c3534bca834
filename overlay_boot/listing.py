"""What overlay-ls tells of every subhost."""
import time

from . import cgroup, files, paths, proc, services, subhosts
from .columns import CYAN, GREEN, RED, YELLOW, columns
from .config import name_in
from .errors import Failure
from .namespaces import COMMAND, STOP, locked_by
from .running import Running
from .state import State, init_of, names
from .subhosts_conf import listed, real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import hibernation, shellversion, systemd
    Row = dict[str, Any]
    Mounted = Running | hibernation.Hibernating

# The keys of a row that are columns of the table, and their titles.
COLUMNS = {"name": "name", "state": "state", "pid": "pid", "since": "since", "processes": "procs", "memory": "memory",
           "services": "svcs", "cables": "cables", "config": "config"}
COLOURS = {"running": GREEN, "booting": YELLOW, "stopping": YELLOW, "hibernating": CYAN, "dead": RED, "unreadable": RED,
           "outdated": YELLOW}
OUTDATED = "outdated"       # what a table has in the place of running, where processes use old files
MIB = 1 << 20
MOST = 32                   # subhosts whose systemd is asked at a time


def rows(*, in_detail: bool = False) -> "list[Row]":
    """Return a row for each that is running, being booted or stopped, and each of /etc/subhosts.conf that is not.

    A row is a dictionary: name, state, pid (on the host, of PID 1), since
    (seconds of the epoch), processes, memory (bytes), cables (see cables.describe),
    shares (see shared), services (see services.seen), limits (see add_limits), config, old (see still_old); None where
    there is nothing to tell.  Services are seen in detail, or not.
    """
    there: list[Row] = []
    asked: list[Row] = []               # those of them that have a systemd.Question for their services
    for name in names():
        one = of_state(name, in_detail=in_detail)
        if one:
            there.append(one)
            if one["services"] is not None and not isinstance(one["services"], list):
                asked.append(one)
                if len(asked) == MOST:
                    take_answer(asked.pop(0))
    for one in asked:
        take_answer(one)
    there += filter(None, map(of_inherited, subhosts.inherited()))
    known = {row["config"] for row in there}
    others = [of_file(path) for path in listed() if real(path) not in known]
    of_name = {row["name"]: row["config"] or "" for row in there}
    return there + [row for row in others if not is_booted_from(of_name.get(row["name"]), row["config"])]


def take_answer(row: "Row") -> None:
    row["services"] = row["services"].answer()


def is_booted_from(noted: str | None, path: str) -> bool:
    """Tell whether a file is, or may be, that of a subhost of its name, whose record says noted; None without one."""
    try:
        return noted is not None and (not files.kind(noted) or real(noted) == real(path))
    except OSError:                     # nobody can tell
        return True


def row(name: str, state: str, config: str | None, *, pid: int | None = None, since: float | None = None,
        processes: int | None = None, memory: int | None = None, cables: "list[dict[str, Any]] | None" = None,
        shares: "list[dict[str, Any]] | None" = None,
        services: "list[services.Seen] | systemd.Question | None" = None,
        old: list[int] | None = None) -> "Row":
    return {"name": name, "state": state, "pid": pid, "since": since, "processes": processes, "memory": memory,
            "services": services, "cables": cables, "shares": shares, "limits": None, "config": config, "old": old}


def of_state(name: str, *, in_detail: bool) -> "Row | None":
    """Raises OSError for want of descriptors or memory."""
    try:
        state = State(name)
    except FileNotFoundError:
        return None                     # it has just gone
    except Failure:
        return row(name, "unreadable", None)
    with state:
        try:
            try:
                return of_running(state, in_detail=in_detail)
            except ProcessLookupError:
                return of_processless(state)
        except (OSError, Failure) as error:
            if isinstance(error, OSError) and error.errno in files.SCARCE:
                raise
            # It has just gone; or its record is damaged, or of another version.
            return row(name, "unreadable", None) if state.is_current() else None


def of_running(state: State, *, in_detail: bool) -> "Row":
    """Raises ProcessLookupError if it is not running."""
    with Running(state) as running:
        processes, memory, known = usage(running)
        return row(state.name, "stopping" if locked_by(state.fd, STOP) else "running", running.record.config,
                   pid=running.init, since=running.record.since, processes=processes, memory=memory,
                   cables=plugged(running), shares=shared(running),
                   services=services_or_question(running, known if in_detail else None), old=still_old(running))


def services_or_question(running: Running, memory: "dict[int, int] | None",
                         ) -> "list[services.Seen] | systemd.Question | None":
    """Return what has become of the services, see services.seen(); a question to systemd where that is PID 1."""
    if running.record.start and services.are_systemds(running):
        from . import systemd
        try:
            return systemd.Question(running, memory)
        except OSError as error:
            if error.errno in files.SCARCE:
                raise
            return None                 # no process can be made
    return services.seen(running, memory)


def services_of(running: Running) -> "list[services.Seen] | None":
    """Return what has become of the services, whatever PID 1 is; see services.seen()."""
    found = services_or_question(running, None)
    return found if found is None or isinstance(found, list) else found.answer()


def of_processless(state: State) -> "Row | None":
    if locked_by(state.fd, COMMAND):
        doing = "stopping" if locked_by(state.fd, STOP) else "booting"
    elif state.is_hibernating():
        return of_hibernating(state)
    elif state.keeper():
        # A keeper that clears up has no child.  Else the record has lost its PID 1, or tells of another process.
        init = init_of(state.keeper())
        doing = "unreadable" if init and not proc.is_killed(init) else "stopping"
    else:
        doing = "dead"                  # killed: the next command for it clears it
    return row(state.name, doing, state.record().config)


def of_hibernating(state: State) -> "Row | None":
    from .hibernation import Hibernating
    one = Hibernating(state)
    cables = shares = None
    try:
        cables, shares = plugged(one), shared(one)
    except (OSError, Failure):
        if not state.is_current():
            return None                 # it has just gone
        # somebody has unmounted what is kept
    return row(one.name, "hibernating", one.record.config, since=one.record.since, processes=0,
               cables=cables, shares=shares)


def of_inherited(running: "shellversion.Inherited") -> "Row | None":
    try:
        with running:
            members = running.members()
            try:
                running.find_cables()
                described = plugged(running)
            except (Failure, BlockingIOError):  # without pyroute2, as a rule
                from . import cables
                described = [cables.description(name, None, None) for name in running.named_as_cables()]
            return row(running.name, "running", running.record.config, pid=running.init, since=running.record.since,
                       processes=len(members), memory=sum(map(proc.memory, members)), cables=described)
    except (FileNotFoundError, ProcessLookupError):
        return None                     # it has just gone


def usage(running: Running) -> tuple[int, int, dict[int, int]]:
    """Return (number of processes, bytes of memory, {process: bytes} as far as they had to be summed up).

    They are where the control group does not count the memory: the kernel looks at every page for that.
    """
    with cgroup.group(running.record.cgroup or "") as group:
        members = cgroup.members(group)
        try:
            return len(members), int(cgroup.read(group, "memory.current")), {}
        except FileNotFoundError:
            memory = {process: proc.memory(process) for process in members}
            return len(members), sum(memory.values()), memory


def still_old(running: Running) -> list[int]:
    """Return those of the processes that overlay-follow has found to use old files which have not ended since."""
    found = []
    for word in running.record.old:
        process, _, start = word.partition(":")
        try:
            if proc.stat(int(process)).start == int(start):
                found.append(int(process))
        except OSError:
            pass
    return found


def add_limits(rows: "list[Row]") -> None:
    """Add to the rows of those that run their limits, as limits.described() has them."""
    from . import limits
    for row in rows:
        if row["pid"] is None:
            continue
        try:
            with State(row["name"]) as state, cgroup.group(state.record().cgroup or "") as group:
                row["limits"] = limits.described(group)
        except (OSError, Failure) as error:
            if isinstance(error, OSError) and error.errno in files.SCARCE:
                raise
            # It has just gone; or 1.6.4 has booted it.


def plugged(subhost: "Mounted | shellversion.Inherited") -> "list[dict[str, Any]]":
    """Return the cables of a subhost.  Only where there are some is pyroute2 imported."""
    record = subhost.record
    if not record.cables:
        return []
    from . import cables
    return cables.describe(record.cables, record.vlans, subhost.network)


def shared(subhost: "Mounted") -> "list[dict[str, Any]]":
    """Return what is shared with a subhost: dictionaries with the keys outside, inside and read_only."""
    if not subhost.record.shares:
        return []
    from . import shares
    return [{"outside": one.outside, "inside": one.inside, "read_only": one.read_only}
            for one in shares.shares(subhost)]


def of_file(path: str) -> "Row":
    """Return the row of a configuration file whose subhost is not running.  No command in it is run."""
    try:
        name = name_in(path)
    except (OSError, Failure):
        return row(paths.name(path).removesuffix(".conf"), "unreadable", path)
    return row(name, "stopped", path)


def lacks_addresses(rows: "list[Row]") -> bool:
    """Tell whether there are cables of which the addresses could not be told."""
    return any(one["addresses"] is None for row in rows for one in row["cables"] or [])


def hosts(rows: "list[Row]") -> str:
    """Return hosts(5) of the rows that are running: a line for each address, but for those of a link alone."""
    return "".join(f"{address}\t{row['name']}\n" for row in rows if row["state"] == "running"
                   for one in row["cables"] or [] for address in reachable(one))


def reachable(one: "dict[str, Any]") -> list[str]:
    """Return the addresses at the far end of a cable: not those of the link alone, which every interface has."""
    return [address.partition("/")[0] for address in one["addresses"] or [] if not address.startswith("fe80:")]


def text(rows: "list[Row]") -> str:
    """Return the rows as a table."""
    return columns([*COLUMNS.values()], ([said(row, key) for key in COLUMNS] for row in rows), {"state": COLOURS})


def said(row: "Row", key: str) -> str:
    value = row[key]
    if value is None:
        return "-"
    if key == "state" and value == "running" and row["old"]:
        return OUTDATED
    if key == "since":
        return moment(value)
    if key == "memory":
        return f"{value / MIB:.1f}M" if value < 1000 * MIB else f"{value / (MIB << 10):.1f}G"
    if key == "services":
        return services.summary(value) if value else "-"
    if key == "cables":
        return " ".join(map(cable, value)) or "-"
    return str(value)


def moment(seconds: float) -> str:
    """Return a time as ps(1) has it: that of today, the day of this year, or the year."""
    then, now = time.localtime(seconds), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then.tm_year == now.tm_year else "%Y", then)


def cable(one: "dict[str, Any]") -> str:
    """Return what a table says of a cable."""
    addresses = reachable(one)
    return "=".join([one["bridge"] or one["name"], *([",".join(addresses)] if addresses else [])])
