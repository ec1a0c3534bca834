"""The filter of system calls of a subhost, seccomp(2), as bytes for the kernel.

Those of the usual configurations are made when the package is built, others when they are asked for.  The file policy
says which calls are in them.
"""
from .. import files
from ..capabilities import ALL, DEFAULT, OWN, mask_of, names_of
from ..errors import Failure

FOLDER = __file__.rpartition("/")[0]
# The capabilities on which the policy depends, and those sets of them for which filters come with the package.
DECISIVE = mask_of(("BPF", "DAC_READ_SEARCH", "PERFMON", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_PACCT",
                    "SYS_RAWIO", "SYS_TIME", "SYS_TTY_CONFIG"))
USUAL = tuple(mask & DECISIVE for mask in (DEFAULT, DEFAULT | mask_of(("SYS_ADMIN",)), OWN, ALL))


def filter_of(text: str, capabilities: int) -> bytes:
    """Return the filter for a value of SYSTEM_CALLS, in a subhost with these capabilities; b"" is none.

    Raises Failure for a value that is wrong, or takes more than is installed.
    """
    if text == "all":
        return b""
    if text == "default" and is_usual(capabilities):
        with files.opened(path_of(FOLDER, capabilities)) as fd:
            return files.read_all(fd)
    from .compiler import compiled
    from .policy import calls, read
    wanted = calls(text, read(), names_of(capabilities))
    try:
        return compiled(wanted)
    except ImportError:
        raise Failure(f"SYSTEM_CALLS={text} with these CAPABILITIES takes the package python3-seccomp") from None


def is_usual(capabilities: int) -> bool:
    """Tell whether the default filter for these comes with the package."""
    return capabilities & DECISIVE in USUAL


def path_of(folder: str, capabilities: int) -> str:
    """Return the path of the filter that is made when the package is built."""
    return f"{folder}/{capabilities & DECISIVE:x}.bpf"


def build(folder: str) -> None:
    """Make the filters of the package, in a folder."""
    from .compiler import compiled
    from .policy import calls, read
    for mask in USUAL:
        with open(path_of(folder, mask), "wb") as file:
            file.write(compiled(calls("default", read(), names_of(mask))))


def lost_by_default(text: str, capabilities: int, default: int) -> list[str]:
    """Return the groups, or single calls, that a value of SYSTEM_CALLS allows and the default refuses.

    It allows them with these capabilities, and the default refuses them with those that are the default.  A * stands
    behind a call of which the default refuses some uses only.
    """
    from .policy import ALLOWED, calls, read
    groups = read()

    def allowed(value: str, mask: int) -> dict[str, bool]:
        """Return {call: whether it is in all of its uses}."""
        found = calls(value, groups, names_of(mask))
        return {call.name: not call.condition for call in found if call.verdict == ALLOWED}

    everything = {call.name: True for group in groups.values() for call in group.calls}
    now, then = everything if text == "all" else allowed(text, capabilities), allowed("default", default)
    lost = []
    for group in groups.values():
        names = [call.name for call in group.calls if call.name in now and call.name not in then]
        in_part = [f"{call.name}*" for call in group.calls if now.get(call.name) and not then.get(call.name, True)]
        lost += [group.name] if len(names) == len(group.calls) else names + in_part
    return lost
