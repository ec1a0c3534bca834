"""The clearing that every subhost ends with, and every boot that fails, at once or by the next command."""
from . import cgroup, network
from .errors import doing
from .namespaces import lock
from .state import COMMAND, GONE, State, now
from .state import tidy as tidy_states


def clear(state):
    """Remove from the host all that was noted, and the note; the caller holds COMMAND.

    The same for a boot that failed, for one that was killed long ago, for a
    subhost that has ended and for one that was stopped.
    """
    clear_leftovers(state)
    forget(state)


def forget(state):
    """The last of it: remove the note, and what all subhosts have in common if this was the last one."""
    tidy()
    state.remove()


def tidy():
    """Remove what all subhosts have in common, if there are none any more."""
    cgroup.tidy()
    network.tidy()
    tidy_states()


@doing("clear up")
def clear_leftovers(state):
    """Remove from the host what was noted, by this boot or by a predecessor that was killed."""
    records = state.records()
    if "mounts" in records:
        state.record("init", GONE)      # a half of it is not to be taken up
    if "shell" in records:
        from . import shellversion
        shellversion.end(state.name, records["shell"])
    if records.get("cgroup"):
        cgroup.remove(records["cgroup"])
    if any(key.startswith("cable:") for key in records):
        from . import cables
        cables.remove(records)
    if "netns" in records:
        network.remove(state.name, records["netns"])
    if "mounts" in records:
        from . import hibernation
        hibernation.release(state.name)
    if "mount-point" in records:
        state.remove_mount_point()


def hibernate(state):
    """Remove what a subhost that hibernates has no use for; the caller holds COMMAND."""
    group = state.records()["cgroup"]
    if group:
        cgroup.remove(group)
        state.record("cgroup", "")      # one of that name may be somebody else's from now on
    cgroup.tidy()
    state.record("since", now())


def clear_ended(name):
    """For the keeper: clear what belongs to NAME, or what it needs no more, unless that is another boot's by now."""
    try:
        state = State(name)
    except FileNotFoundError:
        return
    if lock(state.fd, COMMAND) and not state.keeper() and state.is_current():
        if state.is_hibernating():
            hibernate(state)
        else:
            clear(state)
