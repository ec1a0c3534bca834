"""A subhost whose record is damaged, or has lost lines: what is known for its own all the same.

That is what the lines say that can be read, what stands in the places that are its alone, and what its PID 1 is in, to
which the lock of the keeper leads.
"""
import posix

from . import cgroup, files, hibernation, namespaces, network, paths, proc, record, rootfs
from .config import DEFAULTS
from .record import Damaged, OtherVersion, Record
from .state import State, init_of, is_place_of


def mend(state: State) -> str:
    """Write the state file anew, if it is damaged or lacks what is there.  Return what is wrong with it, else "".

    The caller holds COMMAND.  Raises Failure for a file of another version, in which what is not known may well matter.
    """
    found = Record()
    *lines, unfinished = state.text().split("\n")
    not_taken = [line for line in lines if line and not found.take(line)] + [unfinished] * bool(unfinished)
    for line in not_taken:
        if record.is_of_other_version(line):
            raise OtherVersion(state.name, line)
    refuse_others(state.name, found)
    if not (add_what_is_there(state, found, is_damaged=bool(not_taken)) or not_taken):
        return ""
    state.rewrite(record.text(found))
    return str(Damaged(state.name, not_taken[0])) if not_taken else f"the state file of {state.name} has lost lines"


def refuse_others(name: str, found: Record) -> None:
    """Take back what would be removed, and is not in the place that this subhost has for it."""
    if found.cgroup and not (paths.name(found.cgroup) == name and cgroup.exists(found.cgroup)):
        found.cgroup = None
    if found.cables or found.vlans:
        from .cables import is_one_of
        found.cables = {interface: index for interface, index in found.cables.items() if is_one_of(name, interface)}
        found.vlans = {interface: index for interface, index in found.vlans.items() if is_one_of(name, interface)}
    for attribute in ("mounts", "mount_point"):
        if not is_place_of(name, getattr(found, attribute) or ""):
            setattr(found, attribute, None)


def add_what_is_there(state: State, found: Record, *, is_damaged: bool) -> bool:
    """Add to a record what it lacks and has to be removed.  Return whether there was any.

    One that hibernates has no control group, nor has a boot at its very beginning: another one of that name is somebody
    else's.
    """
    before = record.text(found)
    init = init_of(state.keeper())
    found.init = init or found.init
    for place, attribute in ((hibernation.mounts_of(state.name), "mounts"),
                             (rootfs.mount_point_of(state.name), "mount_point")):
        if files.kind(place) == files.DIRECTORY:
            setattr(found, attribute, place)
    if init or not found.mounts and (is_damaged or is_past_control_group(found)):
        found.cgroup = control_group(state.name, init) or found.cgroup
    of_network = network_of(init)
    if of_network:
        if not found.netns or found.netns[1] != of_network:
            found.netns = inodes(state.name, of_network) or found.netns
        found.cables |= cables_of(state.name, init)
    if is_damaged and found.cables:
        from .nat import table_of
        found.table = table_of(state.name)      # which may never have been
    if not found.ids:
        from .userns import lost_ids
        found.ids = lost_ids(found, init)
    is_more = record.text(found) != before
    found.timeout = found.timeout or float(DEFAULTS["STOP_TIMEOUT"] or 0)
    return is_more


def is_past_control_group(found: Record) -> bool:
    """Tell whether a boot came further than to its control group, which is noted next after these two lines."""
    return any(not line.startswith(("format ", "config ")) for line in record.text(found).splitlines())


def network_of(init: int | None) -> int | None:
    """Return the inode of the network namespace of PID 1, None if that has ended."""
    try:
        return proc.namespace(init, "net")[1] if init else None
    except proc.ENDED:
        return None


def cables_of(name: str, init: int | None) -> dict[str, int]:
    """Return the cables of a subhost, {interface: index}, as far as they lead to its PID 1."""
    from .cables import leading_to
    try:
        with files.opened(f"/proc/{init}/ns/net", posix.O_RDONLY) as there:
            return leading_to(there, name)
    except proc.ENDED:
        return {}


def control_group(name: str, init: int | None) -> str | None:
    """Return the control group of a subhost, in which PID 1 may have made others; None if there is none."""
    try:
        group = proc.control_group(init) if init else ""
    except proc.ENDED:
        group = ""
    above, found, _ = f"/{group}/".partition(f"/{name}/")
    path = f"{above}/{name}".strip("/") if found else f"{cgroup.PARENT}/{name}"
    return path if cgroup.exists(path) else None


def inodes(name: str, of_namespace: int) -> tuple[int, int] | None:
    """Return the inodes of /run/netns/NAME, as a file and as a namespace; None unless it is the latter."""
    if not network.is_ours(network.path_of(name), of_namespace):
        return None
    # A copy of the mount of the directory, without what is mounted in that.
    with files.Fd(namespaces.open_tree(network.NETNS)) as uncovered:
        return posix.stat(name, dir_fd=uncovered, follow_symlinks=False).st_ino, of_namespace
