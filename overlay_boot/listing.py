"""What overlay-ls tells of every subhost."""
import posix
import time

from . import cgroup, paths
from .config import read
from .errors import Failure
from .subhosts_conf import listed, real
from .namespaces import locked_by
from .network import DIRECTORY as NAMESPACES
from .state import COMMAND, STOP, Running, State, names
from .columns import columns

COLUMNS = ("name", "state", "pid", "since", "processes", "memory", "cables", "config")


def subhosts():
    """All that are running, being booted or stopped, and those of /etc/subhosts.conf that are not: a row each.

    A row is a dictionary: name, state, pid (on the host, of PID 1), since
    (seconds of the epoch), processes, memory (bytes), cables (see cables.describe),
    shares (see shared), config; None where there is nothing to tell.
    """
    states = names()
    rows = [row for row in [*map(of_state, states), *inherited(states)] if row]
    known = {row["config"] for row in rows}
    return rows + [of_file(path) for path in listed() if real(path) not in known]


def row(name, state, config, *, pid=None, since=None, processes=None, memory=None, cables=None,
        shares=None):
    return {"name": name, "state": state, "pid": pid, "since": since, "processes": processes, "memory": memory,
            "cables": cables, "shares": shares, "config": config}


def of_state(name):
    try:
        state = State(name)
    except FileNotFoundError:
        return None
    try:
        try:
            return of_running(state)
        except ProcessLookupError:
            return of_processless(state)
    except OSError:
        return None                     # it has just gone
    finally:
        state.close()


def of_running(state):
    """Raises ProcessLookupError if it is not running."""
    running = Running(state)
    processes, memory = usage(running)
    return row(state.name, "stopping" if locked_by(state.fd, STOP) else "running", running.records["config"],
               pid=running.init, since=float(running.records["since"]), processes=processes, memory=memory,
               cables=plugged(running), shares=shared(running))


def of_processless(state):
    if locked_by(state.fd, COMMAND):
        doing = "stopping" if locked_by(state.fd, STOP) else "booting"
    elif state.is_hibernating():
        return of_hibernating(state)
    else:
        doing = "dead"                  # killed: the next command for it clears it
    return row(state.name, doing, state.records().get("config"))


def of_hibernating(state):
    from .hibernation import Hibernating
    one = Hibernating(state)
    try:
        cables, shares = plugged(one), shared(one)
    except (OSError, Failure):
        if not state.is_current():
            return None                 # it has just gone
        cables = shares = None          # somebody has unmounted what is kept
    return row(one.name, "hibernating", one.records["config"], since=float(one.records["since"]), processes=0,
               cables=cables, shares=shares)


def inherited(states):
    """The rows of the subhosts that the shell version has booted: of network namespaces that have no state file."""
    try:
        if not set(posix.listdir(NAMESPACES)).difference(states):
            return []
    except FileNotFoundError:
        return []
    from . import shellversion
    return map(of_inherited, shellversion.find_others())


def of_inherited(running):
    try:
        members = running.members()
        running.records |= running.plugged()
        return row(running.name, "running", running.records["config"], pid=running.init,
                   since=float(running.records["since"]), processes=len(members), memory=sum(map(resident, members)),
                   cables=plugged(running))
    except OSError:
        return None                     # it has just gone


def usage(running):
    """(number of processes, bytes of memory); the memory is summed where the control group does not count it."""
    group = cgroup.opened(running.records["cgroup"])
    try:
        members = cgroup.members(group)
        try:
            return len(members), int(cgroup.read(group, "memory.current"))
        except FileNotFoundError:
            return len(members), sum(map(resident, members))
    finally:
        posix.close(group)


def plugged(subhost):
    """The cables of a subhost.  Only where there are some is pyroute2 imported."""
    if not any(key.startswith("cable:") for key in subhost.records):
        return []
    from . import cables
    return cables.describe(subhost.records, subhost.network)


def shared(subhost):
    """What is shared with a subhost: a list of dictionaries with the keys outside, inside and read_only."""
    if not any(key.startswith("share:") for key in subhost.records):
        return []
    from . import shares
    return [{"outside": one.outside, "inside": one.inside, "read_only": one.read_only}
            for one in shares.shares(subhost)]


def resident(process):
    """The memory of one process: its share of what is shared, where the kernel says it, proc(5)."""
    try:
        with open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except OSError:
        return 0


def of_file(path):
    """The row of a configuration file whose subhost is not running; no command in it is run."""
    try:
        name = read(path).get("NAME", [paths.name(path).removesuffix(".conf")])[0]
    except Failure:
        return row(paths.name(path).removesuffix(".conf"), "unreadable", path)
    return row(name, "stopped", path)


def text(rows):
    """The rows as a table."""
    return columns(COLUMNS, ([said(row, column) for column in COLUMNS] for row in rows))


def said(row, column):
    value = row[column]
    if value is None:
        return "-"
    if column == "since":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if column == "memory":
        return f"{value / (1 << 20):.1f}M"
    if column == "cables":
        return " ".join(f"{one['bridge'] or ''}={one['name']}({','.join(one['addresses'])})" for one in value) or "-"
    return str(value)
