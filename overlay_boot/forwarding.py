"""Forwarding, which NAT and PUBLISH need: settings of the host's that are changed, and put back with the last subhost.

What they were is noted before they are changed.  Where forwarding was off, a guard, a table of nftables, drops all that
is forwarded for anybody else: only the interfaces of a group, those with NAT, and what is published pass.
"""
import fcntl
import posix
from errno import ENOENT, ENOSPC, ENOTDIR

from . import files, links, paths
from .errors import doing
from .files import Fd, Fds
from .state import FORWARDING_NOTE, STATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .links import Table

NOTE = f"{STATES}/{FORWARDING_NOTE}"
SETTINGS = "/proc/sys/net"
SWITCHES = {"ip": "ipv4/ip_forward", "ip6": "ipv6/conf/all/forwarding"}
ON = "1"
ROUTER_ADVERTISEMENTS = "ipv6/conf/{}/accept_ra"
EVEN_IF_FORWARDING = "2"                # of accept_ra: 1 is off where packets are forwarded, Documentation/networking
NO_HOST = ("all", "default", "lo")
GROUP = 0x6f62                          # of interfaces, ip-link(8): those with NAT
TABLE = "overlay-boot"                  # the guard, of either family


def families_off(wanted: set[str]) -> list[str]:
    """Return those families for which nobody but us has forwarding on."""
    return [family for family in sorted(wanted) if value_of(SWITCHES[family]) != ON]


def guard(family: str) -> "Table":
    """Return the guard of a family."""
    accept, drop = links.verdict("accept"), links.verdict("drop")
    passing = [links.is_answered(), links.is_led(), links.meta("iifgroup", GROUP)]
    rules = [(condition + accept, "") for condition in passing] + [(drop, "")]
    return family, TABLE, [("forward", "filter", "forward", "filter", rules)]


def is_guarded(family: str) -> bool:
    found = links.find_table(family, TABLE)
    return found is not None and found[1]


def turn_on(families: set[str], table: "Table", keep: Fds | None) -> None:
    """Make the table of a subhost, and have the host forward packets of these families, for no interface but those.

    Table and guards are made in one transaction, by a socket.  Where that is kept, the table is gone with it.
    """
    with locked_note() as note:
        off = families_off(families)
        noted = [setting for setting, _ in lines_of(note)]
        guarded = [family for family in sorted(families) if family in off or SWITCHES[family] in noted]
        tables = [table, *(guard(family) for family in guarded if not is_guarded(family))]
        made = Fd(links.make_tables(tables, owned=keep is not None))
        if keep is None:
            made.close()
        else:
            keep.keep(made)
        for family in off:
            if family == "ip6":
                for setting in routed_by_others():
                    change(note, setting, EVEN_IF_FORWARDING)
            change(note, SWITCHES[family], ON)


def routed_by_others() -> list[str]:
    """Return the settings of interfaces on which the host learns its own routes, which forwarding would end."""
    try:
        names = posix.listdir(f"{SETTINGS}/ipv6/conf")
    except FileNotFoundError:
        return []
    settings = [ROUTER_ADVERTISEMENTS.format(name) for name in names if name not in NO_HOST]
    return [setting for setting in settings if value_of(setting) == "1"]


def change(note: int, setting: str, value: str) -> None:
    """Change a setting, after a note of what it was."""
    data = paths.encode(f"{setting} {value_of(setting)}\n")
    size = posix.fstat(note).st_size
    if posix.write(note, data) < len(data):     # the file system is full
        posix.ftruncate(note, size)
        raise OSError(ENOSPC, posix.strerror(ENOSPC))
    write(setting, value)


def lines_of(note: int) -> list[tuple[str, str]]:
    """Return [(setting, its value before)] of what was changed; of a damaged note, what can be that."""
    text = paths.decode(posix.pread(note, posix.fstat(note).st_size, 0))
    pairs = (line.partition(" ")[::2] for line in text.split("\n")[:-1])
    return [(setting, value) for setting, value in pairs if is_setting(setting) and value.isdecimal()]


def is_setting(text: str) -> bool:
    """Tell whether it is a path of a setting that is changed here."""
    begins, ends = ROUTER_ADVERTISEMENTS.split("{}")
    name = text.removeprefix(begins).removesuffix(ends)
    return text in SWITCHES.values() or text == f"{begins}{name}{ends}" and not {"/", "\0"} & {*name} and name != ".."


def value_of(setting: str) -> str:
    """Return a setting, "" if there is none, as without IPv6."""
    try:
        with files.opened(f"{SETTINGS}/{setting}") as fd:
            return paths.decode(posix.read(fd, 64)).strip()
    except FileNotFoundError:
        return ""


def write(setting: str, value: str) -> None:
    with files.opened(f"{SETTINGS}/{setting}", posix.O_WRONLY) as fd:
        posix.write(fd, value.encode())


def locked_note() -> Fd:
    """Return a descriptor of the note, locked.  To close it unlocks it."""
    while True:
        note = files.opened(NOTE, posix.O_CREAT | posix.O_RDWR | posix.O_APPEND, 0o600)
        fcntl.flock(note, fcntl.LOCK_EX)
        if posix.fstat(note).st_nlink:
            return note
        posix.close(note)               # the last one that needed it has just gone


@doing("put back forwarding")
def tidy(is_needed: "Callable[[], bool]") -> None:
    """Put back what was changed, if no subhost needs it any more."""
    if not files.kind(NOTE):
        return
    with locked_note() as note:
        if is_needed():
            return
        for setting, value in reversed(lines_of(note)):
            try:
                write(setting, value)
            except OSError as error:
                if error.errno not in (ENOENT, ENOTDIR):        # the interface has gone
                    raise
        for family in SWITCHES:
            links.delete_table(family, TABLE)
        posix.unlink(NOTE)
