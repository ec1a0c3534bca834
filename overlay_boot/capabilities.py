"""The capabilities of a subhost, capabilities(7): CAPABILITIES."""
from . import paths
from .errors import Failure

# By their numbers in the kernel, less CAP_.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
ALL = (1 << 64) - 1     # those of later kernels, too


def mask_of(names: "tuple[str, ...]") -> int:
    """Return a set of capabilities, a bit for each."""
    mask = 0
    for name in names:
        mask |= 1 << NAMES.index(name)
    return mask


MKNOD, SYS_ADMIN = mask_of(("MKNOD",)), mask_of(("SYS_ADMIN",))

# What services take that have a network of their own.
DEFAULT = mask_of(("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_ADMIN", "NET_BIND_SERVICE",
                   "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"))

# In a user namespace: all but those that the kernel takes for nothing there.
OWN = ALL & ~mask_of(("BPF", "PERFMON", "SYSLOG", "SYS_MODULE", "SYS_PACCT", "SYS_RAWIO", "SYS_TIME"))


# Those that mean all that they mean in a user namespace with the ids of the host.
LOCAL = mask_of(("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_ADMIN", "NET_BIND_SERVICE",
                 "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "SYS_PTRACE"))


def parse(text: str, default: int = DEFAULT) -> int:
    """Return the set that a value of CAPABILITIES stands for.  Raises Failure for a wrong one."""
    words = paths.words(text)
    sets = {"default": default, "all": ALL, "none": 0}
    alone = next((word for word in words if word.lower() in sets), "")
    if alone and words == [alone] and alone in sets:
        return sets[alone]
    if alone:
        raise Failure(f"CAPABILITIES={text}: {alone.lower()} stands alone, and in small letters")
    changes = [word for word in words if word[0] in "+-"]
    if changes and len(changes) != len(words):
        raise Failure(f"CAPABILITIES={text}: either all words begin with + or -, or none does")
    mask = default if changes else 0
    for word in words:
        bit = 1 << number_of(word[1:] if changes else word, text)
        mask = mask & ~bit if word[0] == "-" else mask | bit
    return mask


def number_of(name: str, text: str) -> int:
    """Return the number of a capability, with or without CAP_, in whichever case.  Raises Failure if there is none."""
    plain = name.upper().removeprefix("CAP_")
    if plain in NAMES:
        return NAMES.index(plain)
    if not name:
        raise Failure(f"CAPABILITIES={text}: there is no name after + or -")
    import difflib
    meant = next(iter(difflib.get_close_matches(plain, NAMES, 1)), "")
    hint = f" (did you mean {meant}?)" if meant else ""
    raise Failure(f"CAPABILITIES={text}: there is no capability {name}{hint}")


def names_of(mask: int) -> list[str]:
    """Return the names of a set of capabilities."""
    return [name for number, name in enumerate(NAMES) if mask >> number & 1]


def text_of(mask: int) -> str:
    """Return a value of CAPABILITIES that stands for the set."""
    return "all" if mask == ALL else " ".join(names_of(mask)) or "none"
