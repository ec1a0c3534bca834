"""The clearing that every subhost ends with, and every boot that fails, at once or by the next command."""
import _signal

from . import cgroup, files, network, paths
from .errors import doing
from .namespaces import COMMAND, REBOOT, lock
from .record import GONE, SCHEMA, Damaged, Record
from .state import FORWARDING_NOTE, STATES, State, is_place_of, now, tidy_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KILLED = 128 + _signal.SIGKILL


def clear(state: State) -> None:
    """Remove from the host all that was noted, and the note.  The caller holds COMMAND.

    The same for a boot that failed, for one that was killed long ago, for a
    subhost that has ended and for one that was stopped.
    """
    clear_leftovers(state)
    forget(state)


def forget(state: State) -> None:
    """The last of it: remove the note, and what all subhosts have in common if this was the last one."""
    tidy()
    state.remove()


def tidy() -> None:
    """Remove what all subhosts have in common, if there are none any more."""
    cgroup.tidy()
    network.tidy()
    tidy_directories()


@doing("clear up")
def clear_leftovers(state: State) -> None:
    """Remove from the host what was noted, by this boot or by a predecessor that was killed."""
    record = state.record()
    if record.mounts:
        state.note("init", GONE)        # half of it is not to be woken
    if not record.table and may_have_table(state.name, record):
        from .nat import table_of
        record.table = table_of(state.name)
    cleared = set()
    for field in SCHEMA:
        if field.cleared_by and getattr(record, field.attribute) and field.cleared_by not in cleared:
            cleared.add(field.cleared_by)
            REMOVERS[field.cleared_by](state.name, record)


def may_have_table(name: str, record: Record) -> bool:
    """Tell whether a record can have lost the line of a table: others have one, or another line is lost."""
    return bool(files.kind(f"{STATES}/{FORWARDING_NOTE}")) or any(
        interface.startswith(name) and interface not in record.cables and interface not in record.vlans
        for interface in network.interfaces())


def end_inherited(name: str, record: Record) -> None:
    from . import subhosts
    subhosts.end_inherited(name, record.shell)


def remove_group(name: str, record: Record) -> None:
    if paths.name(record.cgroup or "") == name:
        cgroup.remove(record.cgroup or "")


def remove_table(name: str, record: Record) -> None:
    from . import nat
    nat.remove(name, record.table)


def remove_cables(name: str, record: Record) -> None:
    from . import cables
    cables.remove(*({interface: index for interface, index in noted.items() if cables.is_one_of(name, interface)}
                    for noted in (record.cables, record.vlans)))


def remove_network(name: str, record: Record) -> None:
    assert record.netns
    # Of a record that has lost lines, or of another subhost, whose name is longer.
    if any(interface.startswith(name) for interface in network.interfaces()):
        from . import cables
        cables.remove_unnoted(name, network.opened(name, record.netns))
    network.remove(name, record.netns)


def release_mounts(name: str, record: Record) -> None:
    if is_place_of(name, record.mounts or ""):
        from . import hibernation
        hibernation.release(record.mounts or "")


def remove_mount_point(name: str, record: Record) -> None:
    if is_place_of(name, record.mount_point or ""):
        from . import rootfs
        rootfs.remove_mount_point(record.mount_point or "")


# By the names that record.SCHEMA has for them.  What is not the subhost's, whatever its record says, is left alone.
REMOVERS: "dict[str, Callable[[str, Record], None]]" = {
    "shellversion.end": end_inherited,
    "cgroup.remove": remove_group,
    "nat.remove": remove_table,
    "cables.remove": remove_cables,
    "network.remove": remove_network,
    "hibernation.release": release_mounts,
    "rootfs.remove_mount_point": remove_mount_point,
}


def hibernate(state: State) -> None:
    """Remove what a subhost that hibernates has no use for.  The caller holds COMMAND."""
    record = state.record()
    if record.cgroup:
        cgroup.remove(record.cgroup)
        state.note("cgroup", None)      # one of that name may be somebody else's from now on
    for variable in record.limits:
        state.note("limits", None, variable)
    cgroup.tidy()


def is_whole(state: State) -> bool:
    """Tell whether what every subhost that has run has on record is there."""
    try:
        found = state.record()
    except Damaged:
        return False
    return bool(not state.is_cut() and found.netns and found.cgroup and cgroup.exists(found.cgroup)
                and state.has_all_places(found))


def clear_ended(name: str, status: int) -> Record | None:
    """For the keeper: clear what belongs to NAME, or what it needs no more, unless that is another boot's by now.

    status is that with which PID 1 has ended, as a shell has it.  Return the record if a boot is to follow.
    """
    try:
        state = State(name)
    except FileNotFoundError:
        return None
    from . import log
    if lock(state.fd, COMMAND) and not state.keeper() and state.is_current():
        if not is_whole(state):
            from . import salvage
            salvage.mend(state)
        record = state.record()
        log.mark_end(record, "ended", is_killed=status == KILLED)
        if state.is_hibernating():
            hibernate(state)
            state.note("since", now())
        else:
            clear(state)
            return record if status == REBOOT else None
    return None
