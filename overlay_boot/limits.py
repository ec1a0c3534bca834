"""The limits of a subhost: the variables that are named after control files of its control group, cgroups(7) version 2.

MEMORY_SWAP_MAX is memory.swap.max, and so on.  The controller is the first part of that.
"""
import posix
from errno import EBUSY, ENOENT

from . import cgroup, files, paths
from .config import LIMITS, is_number, size_of
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .record import Record
    from .state import State

NONE = "max"                    # to the kernel, and in a configuration
PERIOD = 100_000                # microseconds, which the kernel takes if cpu.max has no other
SHORTEST, LONGEST = 1_000, 1_000_000            # microseconds, of a quota, and of a period
PAGE = 1 << 12                  # bytes, of the smallest that there is
MOST_PROCESSES = 1 << 22        # PID_MAX_LIMIT, proc(5)
HEAVIEST = 10_000
POSSIBLE = "/sys/devices/system/cpu/possible"
IO_SIZES, IO_COUNTS = ("rbps", "wbps"), ("riops", "wiops")

# What control files say where nothing is limited.
UNLIMITED = {"cpu.max": (f"{NONE} {PERIOD}", f"{NONE}"), "cpu.weight": ("100",), "io.weight": ("100",)}
# How often a limit was hit: a control file, and the key in it.
HITS = {"memory.max": ("memory.events", "max"), "memory.high": ("memory.events", "high"),
        "memory.swap.max": ("memory.swap.events", "max"), "cpu.max": ("cpu.stat", "nr_throttled"),
        "pids.max": ("pids.events", "max")}


def file_of(variable: str) -> str:
    """Return the control file that a variable is named after."""
    return variable.lower().replace("_", ".")


def controller_of(variable: str) -> str:
    return file_of(variable).partition(".")[0]


# From the notation of overlay-boot.conf(5) to that of the kernel.

def written(variable: str, text: str) -> list[str]:
    """Return what is to be written to the control file, one after the other; [] if nothing is to be limited.

    Raises Failure, which names the variable, for what is no value of it.
    """
    if text == NONE and variable not in ("CPU_WEIGHT", "IO_WEIGHT", "CPUSET_CPUS"):
        return []
    try:
        found = NOTATIONS[variable](text)
    except ValueError:
        raise Failure(f"{variable}={text} is not {MEANT[variable]}") from None
    except Failure as failure:
        raise Failure(f"{variable}={text}: {failure}") from None
    return found if isinstance(found, list) else [found]


def memory(text: str) -> str:
    size = swap(text)
    if int(size) < PAGE:
        raise Failure("nothing can run in less than a page of memory")
    return size


def swap(text: str) -> str:
    size = size_of(text)
    if size is None:
        raise ValueError
    return str(size)


def number(text: str, least: int, most: int) -> int:
    if not is_number(text) or not least <= int(text) <= most:
        raise ValueError
    return int(text)


def weight(text: str) -> str:
    return str(number(text, 1, HEAVIEST))


def processes(text: str) -> str:
    return str(number(text, 1, MOST_PROCESSES))


def cpu_max(text: str) -> str:
    """Of PERCENT%, QUOTA, QUOTA PERIOD or max PERIOD."""
    if text.endswith("%"):
        return f"{number(text[:-1], 1, 1 << 20) * PERIOD // 100} {PERIOD}"
    quota, *rest = paths.words(text) or [""]
    if len(rest) > 1:
        raise ValueError
    period = number(rest[0], SHORTEST, LONGEST) if rest else PERIOD
    return f"{quota if quota == NONE else number(quota, SHORTEST, 1 << 40)} {period}"


def cpus(text: str) -> str:
    """Of a list of processors, cpuset(7), such as 0-3,6."""
    with files.opened(POSSIBLE) as fd:
        possible = {one for part in processors(paths.decode(files.read_all(fd)).strip()) for one in part}
    for part in processors(text):
        for one in part:                # up to the first that is missing, wherever it ends
            if one not in possible:
                raise Failure(f"the host has no processor {one}")
    return text


def processors(text: str) -> list[range]:
    """Return the numbers in a list of processors.  Raises ValueError if it is none."""
    found = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = number(first, 0, MOST_PROCESSES)
        end = number(last, begin, MOST_PROCESSES) if dash else begin
        found.append(range(begin, end + 1))
    return found


def io_max(text: str) -> list[str]:
    """Of DEVICE KEY=VALUE..., which may be repeated: a line for each device."""
    lines: list[list[str]] = []
    for word in paths.words(text):
        key, equals, value = word.partition("=")
        if key in IO_SIZES + IO_COUNTS and equals:
            if not lines:
                raise ValueError
            lines[-1].append(f"{key}={rate(key, value)}")
        else:
            lines.append([disk(word)])
    if not lines or any(len(line) == 1 for line in lines):
        raise ValueError
    return [" ".join(line) for line in lines]


def rate(key: str, text: str) -> str:
    if text == NONE:
        return text
    size = size_of(text) if key in IO_SIZES else number(text, 1, (1 << 32) - 1)
    if not size:
        raise ValueError
    return str(size)


def disk(word: str) -> str:
    """Return MAJOR:MINOR of a disk, which may be given by the path of its device."""
    if word.startswith("/"):
        try:
            found = posix.stat(word)
        except OSError as error:
            raise Failure(f"{word}: {error.strerror}") from None
        if found.st_mode & files.KIND != files.BLOCK_DEVICE:
            raise Failure(f"{word} is not a block device")
        device = f"{posix.major(found.st_rdev)}:{posix.minor(found.st_rdev)}"
    else:
        major, _, minor = word.partition(":")
        device = f"{number(major, 0, 1 << 12)}:{number(minor, 0, 1 << 20)}"
    place = f"/sys/dev/block/{device}"
    if not files.kind(place):
        raise Failure(f"there is no block device {word}")
    if files.kind(f"{place}/partition"):
        raise Failure(f"{word} is a partition, and only a whole disk can be limited")
    return device


NOTATIONS: "dict[str, Callable[[str], str | list[str]]]" = {
    "MEMORY_MAX": memory, "MEMORY_HIGH": memory, "MEMORY_SWAP_MAX": swap, "CPU_MAX": cpu_max, "CPU_WEIGHT": weight,
    "CPUSET_CPUS": cpus, "IO_WEIGHT": weight, "IO_MAX": io_max, "PIDS_MAX": processes,
}
A_SIZE, A_WEIGHT = f"a size such as 512M, or {NONE}", f"a number from 1 to {HEAVIEST}"
MEANT = {
    "MEMORY_MAX": A_SIZE, "MEMORY_HIGH": A_SIZE, "MEMORY_SWAP_MAX": A_SIZE,
    "CPU_MAX": f"a percentage such as 150%, a quota and a period in microseconds, or {NONE}",
    "CPU_WEIGHT": A_WEIGHT, "IO_WEIGHT": A_WEIGHT, "CPUSET_CPUS": "a list of processors such as 0-3,6",
    "IO_MAX": f"a disk and its limits, such as /dev/sda rbps=10M wiops=100, or {NONE}",
    "PIDS_MAX": f"a number of processes from 1 to {MOST_PROCESSES}, or {NONE}",
}


def check(values: dict[str, str]) -> None:
    """Raises Failure for what is no value of its variable."""
    for variable, text in values.items():
        written(variable, text)


# On this host.

def check_host(values: dict[str, str], controllers: set[str]) -> None:
    """Raises Failure for a limit whose controller is not among those of this host."""
    for variable, text in values.items():
        if written(variable, text) and controller_of(variable) not in controllers:
            raise Failure(f"{variable}={text}: this host has no controller {controller_of(variable)} "
                          f"for control groups of version 2")


def impose(values: dict[str, str], group: int, state: "State") -> None:
    """Write the limits into the control group of a subhost, and note them.  Raises Failure, which names one."""
    of_unit = cgroup.is_of_unit(state.record().cgroup or "")
    check_host(values, cgroup.controllers_above(group, of_unit=of_unit))
    for variable, text in values.items():
        file, lines = file_of(variable), written(variable, text)
        if variable == "PIDS_MAX" and not lines:
            lines = [NONE] if files.exists(file, group) else []         # in the place of the default
        if lines:
            provide(variable, group, of_unit=of_unit)
        state.note("limits", text, variable)
        for line in lines:
            try:
                cgroup.write(group, file, line)
            except OSError as error:
                why = f"the kernel has no {file}" if error.errno == ENOENT else error.strerror
                raise Failure(f"{variable}={text}: {why}") from None


def provide(variable: str, group: int, *, of_unit: bool) -> None:
    """Have the control group of a subhost controlled by what a limit needs."""
    controller = controller_of(variable)
    try:
        cgroup.enable([controller], group, of_unit=of_unit)
    except OSError as error:
        why = error.strerror
        if error.errno == EBUSY:
            why = "there are processes in the control group above that of the subhost"
        raise Failure(f"{variable}: cannot enable the controller {controller}: {why}") from None


# What has become of them.

def described(group: int) -> "dict[str, dict[str, Any]]":
    """Return {variable: {"value", "hits"}} of the limits that hold for a control group, as the kernel has them.

    hits is None where nobody counts.  MEMORY_MAX also has "killed", the number of processes.
    """
    found = {}
    for variable in LIMITS:
        value = in_force(group, file_of(variable))
        if value is not None:
            found[variable] = {"value": value, "hits": hits(group, variable)}
    if "MEMORY_MAX" in found:
        found["MEMORY_MAX"]["killed"] = cgroup.counters(group, "memory.events").get("oom_kill", 0)
    return found


def in_force(group: int, file: str) -> int | str | None:
    """Return what a control file says, None if that is not there, or limits nothing."""
    try:
        words = [word for word in cgroup.read(group, file).split() if not word.endswith(f"={NONE}")]
    except FileNotFoundError:
        return None
    text = " ".join(words).removeprefix("default ")
    if text in UNLIMITED.get(file, ("", NONE)):
        return None
    return int(text) if is_number(text) and file != "cpuset.cpus" else text


def hits(group: int, variable: str) -> int | None:
    """Return how often a limit was hit, None where nobody counts."""
    file, key = HITS.get(file_of(variable), ("", ""))
    return cgroup.counters(group, file).get(key) if file else None


def killed(record: "Record") -> tuple[int, bool]:
    """Return how many processes of a subhost the kernel has killed for want of memory, and whether of its own limit."""
    try:
        with cgroup.group(record.cgroup or "") as group:
            found = cgroup.counters(group, "memory.events")
    except FileNotFoundError:
        return 0, False
    return found.get("oom_kill", 0), bool(found.get("oom"))
