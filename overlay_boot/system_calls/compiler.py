"""From a list of calls to a filter, by libseccomp."""
import errno
import posix

from .. import environment
from .ranges import shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .policy import Call, Condition

# The kernel's name for the machine, and the architectures whose programs it executes.
ARCHITECTURES = {"x86_64": ("X86_64", "X86"), "aarch64": ("AARCH64", "ARM")}
LONGEST = 1 << 18       # bytes of a filter: more than the kernel takes


def compiled(calls: "list[Call]") -> bytes:
    """Return the filter for the kernel, with EPERM for what is refused, and ENOSYS for what is not known.

    Raises ImportError without libseccomp's Python module.
    """
    return shortened(exported(calls, posix.uname().machine))


def exported(calls: "list[Call]", machine: str) -> bytes:
    """Return libseccomp's own, for a machine.  Raises ImportError without its Python module."""
    found, *others = [for_architecture(calls, name) for name in ARCHITECTURES.get(machine, ("NATIVE",))]
    for other in others:
        found.merge(other)
    fd = posix.memfd_create("filter")
    try:
        with open(fd, "wb", closefd=False) as file:
            found.export_bpf(file)
        return posix.pread(fd, LONGEST, 0)
    finally:
        posix.close(fd)


def for_architecture(calls: "list[Call]", name: str) -> "Any":
    """Return a filter of libseccomp's for an architecture."""
    environment.find_packages()
    import seccomp
    found = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    found.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.ERRNO(errno.ENOSYS))
    found.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)        # a tree
    found.remove_arch(seccomp.Arch())
    found.add_arch(seccomp.Arch(getattr(seccomp.Arch, name)))
    for call in calls:
        if call.verdict != "unknown" and is_known(call.name):
            add(found, call, name)
    return found


def add(found: "Any", call: "Call", architecture: str) -> None:
    """Add the rules for a call."""
    import seccomp
    refused = seccomp.ERRNO(errno.EPERM)
    if call.verdict != "allowed":
        found.add_rule(refused, call.name)
    elif not call.condition:
        found.add_rule(seccomp.ALLOW, call.name)
    elif architecture == "X86" and call.name.startswith("socket"):
        # libseccomp would allow all that socketcall(2) can make, whose arguments are in memory.
        found.add_rule(refused, call.name)
    else:
        add_conditional(found, call.name, call.condition)


def add_conditional(found: "Any", name: str, condition: "Condition") -> None:
    """Allow a call under a condition, and refuse it else: no two rules of these overlap with different actions."""
    import seccomp
    refused = seccomp.ERRNO(errno.EPERM)
    if condition.lacks:
        found.add_rule(seccomp.ALLOW, name, seccomp.Arg(condition.argument, seccomp.MASKED_EQ, condition.lacks, 0))
        for bit in (1 << number for number in range(condition.lacks.bit_length())):
            if bit & condition.lacks:
                found.add_rule(refused, name, seccomp.Arg(condition.argument, seccomp.MASKED_EQ, bit, bit))
        return
    last = max(condition.values)
    for value in range(last + 1):
        action = seccomp.ALLOW if value in condition.values else refused
        found.add_rule(action, name, seccomp.Arg(condition.argument, seccomp.EQ, value))
    found.add_rule(refused, name, seccomp.Arg(condition.argument, seccomp.GT, last))


def is_known(name: str) -> bool:
    """Tell whether libseccomp knows a call of that name, on whatever architecture.  Raises ImportError without it."""
    import seccomp
    try:
        return bool(seccomp.resolve_syscall(seccomp.Arch(), name) != -1)
    except RuntimeError:
        return False
