"""The fences of a subhost: the capabilities and the system calls that its processes have, and no others.

The keeper and the program execute put them up.  What they hide of /proc and /sys follows from the capabilities.
"""
from . import namespaces, proc, system_calls
from .capabilities import LOCAL, names_of
from .files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .state import State

FILTERED = "2"          # of seccomp(2), in /proc/PID/status


class Fences:
    """A set of capabilities, a bit for each, and a filter as bytes, which are none without one."""

    __slots__ = ("capabilities", "filter")

    def __init__(self, capabilities: int, instructions: bytes) -> None:
        self.capabilities = capabilities
        self.filter = instructions


def wanted(capabilities: int, text: str) -> Fences:
    """Return fences with these capabilities and the filter for a value of SYSTEM_CALLS.

    Raises Failure for a wrong value, or what takes more than is installed.
    """
    return Fences(capabilities, system_calls.filter_of(text, capabilities))


def reach_no_further(capabilities: int) -> bool:
    """Tell whether these all work in a user namespace, which keeps them to what is the subhost's own."""
    return not capabilities & ~LOCAL


def local_users() -> tuple[Fd, Fd]:
    """Make a user namespace for these, with the ids of the host.  Return descriptors of it, and of its network."""
    users, network = namespaces.make_users(proc.own_ids("uid_map"), proc.own_ids("gid_map"))
    return Fd(users), Fd(network)


def note(state: "State", fences: Fences, text: str) -> None:
    """Note the filter, made for a value of SYSTEM_CALLS, for those that will enter: the kernel does not tell of it."""
    if not (text == "all" or text == "default" and system_calls.is_usual(fences.capabilities)):
        from binascii import b2a_base64
        text = b2a_base64(fences.filter, newline=False).decode()
    state.note("system_calls", text)


def around(init: int, text: str) -> Fences:
    """Return the fences of a PID 1, where text is on record of the filter.  Raises OSError if it has ended."""
    capabilities = proc.bounding_set(init)
    if proc.status(init, "Seccomp") != [FILTERED]:
        return Fences(capabilities, b"")
    if text in ("", "default", "all"):      # the line may be lost
        return Fences(capabilities, system_calls.filter_of("default", capabilities))
    from binascii import a2b_base64
    return Fences(capabilities, a2b_base64(text))


def lost_by_default(capabilities: int, text: str, default: int) -> "Iterator[tuple[str, list[str]]]":
    """Yield (variable, what the default has not) for each that has more: capabilities, and groups of system calls."""
    names = names_of(capabilities & ~default)
    if names:
        yield "CAPABILITIES", names
    groups = system_calls.lost_by_default(text, capabilities, default)
    if groups:
        yield "SYSTEM_CALLS", groups
