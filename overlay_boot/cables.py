"""Virtual cables: veth pairs from the host, NAMEn, into the subhost, ethn; and the VLANs on them.

What is wrong with CABLES is found when it is parsed, before anything is made.
pyroute2 takes ten times as long to import as a boot takes: it is for
what is told of cables, and no boot or stop has it on its way.
"""
import _signal
import posix
import time
from errno import EAGAIN, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EROFS

from . import INTERFACES, PATH, environment, files, interruption, links, namespaces, paths, state
from .errors import Failure, complain, reason
from .network import Entered, interfaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .state import State
    Description = dict[str, str | list[str] | None]

STANZAS = "/etc/network/interfaces"             # ifupdown's, as the next one
REMEMBERED = "/run/network/ifstate"
NO_STANZA = b"ifup: unknown interface "         # what it prints of one, with LANG=C.UTF-8
UP = 1                      # of the flags of an interface: IFF_UP
DRY = "--no-act", "--no-mappings", "--no-scripts", "--force"    # how it only reads a stanza
DUMPS = 20                  # attempts at one, while interfaces come and go
BRIDGE_TIMEOUT = 30         # seconds, for a bridge that the host's network does not have yet
LOOK = 0.05                 # seconds, between two looks at that
MOUNTS_TIMEOUT = 0.5        # seconds, for the mounts of a subhost that was just killed
IFDOWN_TIMEOUT = 60         # seconds: it may give back an address, and hooks of the host's run
MACHINE_ID, PURPOSE = "/etc/machine-id", b"overlay-boot"
# The first octets of hardware addresses: locally administered ones, and at the host end ones above those of all
# others, because a bridge takes the lowest of its ports'.
LOCAL, HIGHEST = 0x02, 0xfe
BY_ADMINISTRATOR = 3        # NET_ADDR_SET, as which addr_assign_type tells of an address: <linux/netdevice.h>
# From where indexes are chosen: beyond those that the kernel gives, one after the other.
FIRST_INDEX, LAST_INDEX = 0x10000, 0xfffff
# Of interfaces, ip-link(8): those that nobody else on the host shall configure, by a rule for udev(7) and a file for
# systemd-networkd(8) of the package.  The rule knows that of forwarding.py as well.
GROUP = 0x6f61
ROUTERS = "/proc/sys/net/ipv6/conf/{}/accept_ra"


class Interface:
    """What a specifier asks for: an interface on the host."""

    __slots__ = ("bridge", "name", "up", "word")

    noted_as: str                           # which attribute of record.Record it is in
    inner: str | None = None                # the interface in the subhost

    def __init__(self, word: str, name: str, bridge: str | None) -> None:
        self.word = word                    # the specifier
        self.name = name
        self.bridge = bridge                # of which it is a port
        self.up = bridge is not None        # at once; what has no bridge ifup(8) may want to configure first

    def make(self, index: int, network: int, group: int) -> None:
        """Make the interface, of a group, and its far end at once in the network namespace, never on the host.

        Raises OSError.
        """
        raise NotImplementedError


class Cable(Interface):
    """A veth(4) pair."""

    __slots__ = ("inner", "mac", "vlan_bridges")

    noted_as = "cables"
    inner: str

    def __init__(self, word: str, name: str, bridge: str | None, inner: str, mac: bytes | None) -> None:
        super().__init__(word, name, bridge)
        self.inner = inner
        self.mac = mac                      # of the inner one
        self.vlan_bridges: list[str] = []   # of the VLANs on it

    def make(self, index: int, network: int, group: int) -> None:
        links.add_veth(self.name, index, self.inner, network, mac=self.mac or own_address(self.name, LOCAL),
                       near_mac=own_address(self.name, HIGHEST), mtu=self.mtu(), group=group, bridge=self.bridge,
                       up=self.up)

    def mtu(self) -> int:
        """Return that of the bridge, in bytes, or what the VLANs on it take; 0 if it has neither."""
        return mtu_of(self.bridge) if self.bridge else max(map(mtu_of, self.vlan_bridges), default=0)


class Vlan(Interface):
    """A VLAN on a cable, for frames with its tag."""

    __slots__ = ("outer", "tag")

    noted_as = "vlans"

    def __init__(self, word: str, outer: str, tag: int, bridge: str | None) -> None:
        super().__init__(word, f"{outer}.{tag}", bridge)
        self.outer = outer                  # the cable that it is on
        self.tag = tag

    def make(self, index: int, _network: int, group: int) -> None:
        try:
            links.add_vlan(self.name, index, self.outer, self.tag, mtu=self.mtu(), group=group, bridge=self.bridge,
                           up=self.up)
        except OSError as error:
            if error.errno == EOPNOTSUPP:
                raise Failure(f"{reason(error)}: this kernel does not support 802.1Q VLANs") from None
            raise

    def mtu(self) -> int:
        """Return that of the bridge, in bytes, as far as the cable has it; 0 if it has no bridge."""
        return min(mtu_of(self.bridge), mtu_of(self.outer)) if self.bridge else 0


class Specifier:
    """A context in which what goes wrong does so because of a word of CABLES, or of another variable."""

    __slots__ = ("variable", "word")

    def __init__(self, variable: str, word: str) -> None:
        self.variable, self.word = variable, word

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, (Failure, OSError)):
            raise Failure(f"{self.variable}: {self.word}: {reason(error)}") from None


def parse(specifiers: list[str], name: str) -> list[Interface]:
    """Return what the words of CABLES ask for, in their order.  Raises Failure for a word that asks for nothing."""
    planned: list[Interface] = []
    for word in specifiers:
        with Specifier("CABLES", word):
            planned.append(asked_for(word, name, planned))
    return planned


def asked_for(word: str, name: str, before: list[Interface]) -> Interface:
    """Return what a word asks for, after those that were asked for before."""
    bridge, equals, end = word.partition("=")
    if not equals:
        raise Failure("there is no = in it")
    if len(bridge) > links.LONGEST_NAME or "/" in bridge or bridge in (".", ".."):
        raise Failure(f"{bridge} cannot be the name of a bridge")
    cables = [one for one in before if isinstance(one, Cable)]
    asked: Interface
    if not end.startswith("."):
        number = len(cables)
        asked = Cable(word, f"{name}{number}", bridge or None, f"eth{number}", mac_address(end) if end else None)
    elif cables:
        asked = Vlan(word, cables[-1].name, vlan_tag(end[1:]), bridge or None)
        cables[-1].up = True            # else no VLAN on it can be
        if bridge:
            cables[-1].vlan_bridges.append(bridge)
    else:
        raise Failure("there is no cable before it, for the VLAN to be on")
    if len(asked.name) > links.LONGEST_NAME:
        raise Failure(f"the interface {asked.name} would have more than {links.LONGEST_NAME} characters")
    if any(one.name == asked.name for one in before):
        raise Failure(f"{asked.name} is asked for twice")
    return asked


def vlan_tag(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 4094):
        raise Failure("the tag of a VLAN is a number from 1 to 4094")
    return int(text)


def mac_address(text: str) -> bytes:
    """Return the address as the kernel takes it."""
    octets = text.lower().split(":")
    if len(octets) != 6 or not all(len(octet) == 2 and set(octet) <= set("0123456789abcdef") for octet in octets):
        raise Failure("only a MAC address, .TAG or nothing can follow the =")
    address = bytes.fromhex("".join(octets))
    if address[0] & 1:
        raise Failure("an interface cannot have a multicast address")
    if not any(address):
        raise Failure("the address is zero")
    return address


def is_taken(name: str) -> bool:
    """Tell whether there is an interface of that name: sysfs(5) has it for a moment after the kernel has removed it."""
    return bool(files.kind(f"{INTERFACES}/{name}") and links.far_namespace(name)[0])


def check(planned: list[Interface], own: dict[str, int] | None = None) -> None:
    """Raise Failure if the host has not got what the cables need, or has interfaces of their names.

    own are {name: index} of the subhost itself, if it is running.
    """
    for one in planned:
        with Specifier("CABLES", one.word):
            if is_taken(one.name) and not (own and own.get(one.name) == index_of(one.name)):
                raise Failure(f"an interface {one.name} exists already, and overlay-boot has no record of it")
            if one.bridge and not files.kind(f"{INTERFACES}/{one.bridge}"):
                raise Failure(f"there is no bridge {one.bridge}")
            if one.bridge and not files.kind(f"{INTERFACES}/{one.bridge}/bridge"):
                raise Failure(f"{one.bridge} is not a bridge")


def missing_bridges(specifiers: list[str], name: str) -> list[str]:
    """Return the bridges of CABLES of which there is no interface.  Raises Failure as parse() does."""
    bridges = dict.fromkeys(one.bridge for one in parse(specifiers, name) if one.bridge)
    return [bridge for bridge in bridges if not files.kind(f"{INTERFACES}/{bridge}")]


def await_bridges(bridges: list[str]) -> None:
    """Wait for bridges that whoever makes the host's network may be making still, for BRIDGE_TIMEOUT in all.

    They are brought up when they have the MTU that cables are to have.  Raises Failure if a signal arrives meanwhile.
    """
    complain(f"CABLES: waiting for {', '.join(bridges)}, for {BRIDGE_TIMEOUT} s at most")
    end = time.monotonic() + BRIDGE_TIMEOUT
    while time.monotonic() < end and not all(number_of(bridge, "flags") & UP for bridge in bridges):
        with interruption.Wait():
            time.sleep(LOOK)


def plug(planned: list[Interface], noted: "State", network: int, log: int, *, addressed: bool) -> "Plugged":
    """Make the cables, with their far ends in the network namespace of a descriptor, and start ifup(8) for them.

    addressed tells whether the boot gives them addresses.  What ifup says goes to the descriptor log.  It belongs to
    the host, and so does what it runs: the caller is in the host's mount namespace.  Raises Failure.
    """
    take_down([one.name for one in planned], log)       # what ifupdown remembers of these names is gone
    for one in planned:
        index = record_index(one, noted)
        with Specifier("CABLES", one.word):
            if one.bridge:
                keep_address(one.bridge)
            one.make(index, network, GROUP if one.bridge or addressed else 0)
            if not one.bridge:
                refuse_routers(one.name)
    begin = posix.fstat(log).st_size
    ifup = start_ifupdown("ifup", [one.name for one in planned if not one.bridge], log)
    return Plugged([one.name for one in planned if not one.up], ifup, log, begin)


def record_index(planned: Interface, noted: "State") -> int:
    """Choose the index of an interface before there is one, and note it, so that a killed boot's is known for ours."""
    index = FIRST_INDEX + int.from_bytes(posix.urandom(3), "little") % (LAST_INDEX - FIRST_INDEX + 1)
    noted.note(planned.noted_as, index, planned.name)
    return index


def refuse_routers(interface: str) -> None:
    """Have the host learn no routes from an interface, which root of the subhost could send all of its traffic by."""
    try:
        with files.opened(ROUTERS.format(interface), posix.O_WRONLY) as fd:
            posix.write(fd, b"0")
    except OSError as error:
        if error.errno not in (ENOENT, EROFS):      # there is no IPv6, or it is for the maker of this container
            raise


def keep_address(bridge: str) -> None:
    """Have a bridge without a port keep its hardware address: it would take the cable's, and lose that with the cable.

    One that has other ports has the lowest of their addresses, and ours are above it.  Raises OSError.
    """
    if number_of(bridge, "addr_assign_type") == BY_ADMINISTRATOR or posix.listdir(f"{INTERFACES}/{bridge}/brif"):
        return
    with files.opened(f"{INTERFACES}/{bridge}/address", posix.O_RDONLY) as fd:
        address = bytes.fromhex(posix.read(fd, 32).decode().strip().replace(":", ""))
    if not any(address):                # it has lost its last port
        address = own_address(bridge, LOCAL) or bytes([LOCAL, *posix.urandom(5)])
    links.set_address(bridge, address)


def own_address(interface: str, first: int) -> bytes | None:
    """Return a hardware address that an interface of this host has for ever; None if the host has no machine-id(5).

    It begins with that octet.
    """
    digest = host_digest(interface)
    return bytes([first, *digest]) if digest else None


def host_digest(text: str) -> bytes | None:
    """Return five bytes that are those of a text on this host for ever; None if the host has no machine-id(5)."""
    try:
        with files.opened(MACHINE_ID, posix.O_RDONLY) as fd:
            host = posix.read(fd, 64).strip()
    except OSError:
        return None
    if not host:
        return None
    from _blake2 import blake2b
    return blake2b(paths.encode(text), digest_size=5, key=host, person=PURPOSE).digest()


class Plugged:
    """The cables of a boot, with ifup(8) perhaps at work on them still."""

    __slots__ = ("begin", "down", "ifup", "log")

    def __init__(self, down: list[str], ifup: int, log: int, begin: int) -> None:
        self.down = down        # what ifup may leave down
        self.ifup = ifup        # its process id, 0 if it is not at work
        self.log = log          # a descriptor
        self.begin = begin      # the size of that before ifup, in bytes

    def wait(self, seconds: float | None) -> str:
        """Wait for ifup, and bring up what it has left down.  Return how ifup failed, "" if it did not.

        It is killed after so many seconds.  Raises Failure if a signal arrives meanwhile.
        """
        failed = ""
        if self.ifup:
            failed = self.end_of_ifup(seconds)
        for name in self.down:
            namespaces.bring_up(name)
        self.down = []
        return failed

    def end_of_ifup(self, seconds: float | None) -> str:
        """Wait for ifup.  Return how it failed, "" if it did not."""
        try:
            status = wait_for(self.ifup, seconds)
        except TimeoutError:
            from .processes import how_hung
            self.give_up()
            return how_hung("ifup", seconds)
        self.ifup = 0                   # before anything fails: its process id may be another's from now on
        if not status or status > 0 and not self.has_complained():
            return ""
        from .processes import how_failed
        return how_failed("ifup", status)

    def has_complained(self) -> bool:
        """Tell whether ifup, which has failed, has found more in its way than interfaces that have no stanza."""
        from . import log
        if files.kind_of(self.log) != files.REGULAR:        # nobody can tell
            return True
        return any(not line.startswith(NO_STANZA) for line in log.added(self.log, self.begin).splitlines())

    def give_up(self) -> None:
        """Kill ifup.  The cables are on record."""
        if self.ifup:
            kill(self.ifup)
            self.ifup = 0


def take_down(names: list[str], log: int) -> None:
    """ifdown(8) for those of the interfaces that ifupdown takes for configured, the last ones first."""
    remembered = remembered_interfaces()
    ifdown = start_ifupdown("ifdown", [name for name in reversed(names) if name in remembered], log, "--force")
    if ifdown:
        try:
            wait_for(ifdown, IFDOWN_TIMEOUT)
        except TimeoutError:
            kill(ifdown)
            complain(f"CABLES: ifdown was killed: it has not ended after {IFDOWN_TIMEOUT} s")
        except BaseException:
            kill(ifdown)
            raise


def remembered_interfaces() -> set[str]:
    try:
        with files.opened(REMEMBERED) as fd:
            lines = paths.decode(files.read_all(fd)).splitlines()
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return set()
    return {line.partition("=")[0].strip() for line in lines}


def start_ifupdown(command: str, names: list[str], log: int, *options: str) -> int:
    """Start ifup(8) or ifdown(8) for interfaces, and return its process id; 0 if there is nothing for it to do.

    It is killed when this process ends, so that the locks that it holds end as well.
    """
    program = f"/sbin/{command}"
    names = [name for name in names if "=" not in name]     # to it, an interface and another's stanza
    if not names or not files.kind(program) or not files.kind(STANZAS):
        return 0
    with files.null() as null:
        process, pidfd = namespaces.spawn([program], [command, *options, *names], {"PATH": PATH, "LANG": "C.UTF-8"},
                                          standard=(null, log, log), directory="/", bound=True)
    posix.close(pidfd)
    return process


def refused_stanzas(planned: list[Interface]) -> "Iterator[str]":
    """Yield a line for each cable whose stanza ifup(8) cannot use.  It does nothing for this but to read it."""
    for one in planned:
        why = "" if one.bridge else refusal(one.name)
        if why:
            yield f"CABLES: {one.word}: ifup will fail for {one.name}: {why}"


def refusal(interface: str) -> str:
    """Return what ifup(8) says of a stanza that it cannot use, "" if it can, or if there is none."""
    from .processes import lines_of
    with files.Fd(posix.memfd_create("said")) as said:
        ifup = start_ifupdown("ifup", [interface], said, *DRY)
        told = lines_of(said) if ifup and has_failed(ifup) else []
    first = next((line for line in told if line.startswith("ifup: ")), "")
    return "" if first.startswith(paths.decode(NO_STANZA)) else first.removeprefix("ifup: ")


def has_failed(process: int) -> bool:
    """Wait for a child, and tell whether it has failed.  One that waits, for another ifup(8) say, is killed."""
    try:
        return bool(wait_for(process, state.PATIENCE))
    except TimeoutError:
        kill(process)
        return False


def wait_for(process: int, seconds: float | None = None) -> int:
    """Wait for the end of a child.  Return its exit status, or a signal as a negative number.

    If Failure is raised, by a signal, or TimeoutError after so many seconds, it is a child still, which can be killed.
    """
    with interruption.Wait():
        if seconds is None:
            posix.waitid(posix.P_PID, process, posix.WEXITED | posix.WNOWAIT)
        elif not state.wait_for(process, seconds):
            raise TimeoutError
    return posix.waitstatus_to_exitcode(posix.waitpid(process, 0)[1])


def kill(process: int) -> None:
    """Kill a child that start_ifupdown() has started, and all that is in its process group still."""
    posix.killpg(process, _signal.SIGKILL)
    posix.waitpid(process, 0)


def remove(cables: dict[str, int], vlans: dict[str, int]) -> None:
    """Remove cables, {interface: index}, each if it still is the interface of that index and name.

    The VLANs on them go with them.
    """
    interfaces = cables | vlans
    with files.null() as null:
        take_down([name for name, index in interfaces.items() if index_of(name) in (0, index)], null)
    for name, index in cables.items():
        links.delete_link(index, name)


def describe(cables: dict[str, int], vlans: dict[str, int], network: str) -> "list[Description]":
    """Return cables, {interface: index}, as they are now: dictionaries of name, bridge, inside and addresses.

    inside is the name of the far interface in the subhost, whose network
    namespace has that path, None for a VLAN; addresses are those that it has
    there.  Both are None where that cannot be told: pyroute2 is not installed, or
    the interfaces change all the time.
    """
    vlans_described = [description(name, None, []) for name in vlans]
    try:
        far = far_interfaces(network)
    except (ImportError, BlockingIOError):
        return [description(name, None, None) for name in cables] + vlans_described
    return [description(name, *far.get(number_of(name, "iflink"), (None, []))) for name in cables] + vlans_described


def description(name: str, inside: str | None, addresses: list[str] | None) -> "Description":
    return {"name": name, "bridge": bridge_of(name), "inside": inside, "addresses": addresses}


def index_of(interface: str) -> int:
    return number_of(interface, "ifindex")


def number_of(interface: str, attribute: str) -> int:
    """Return a number that sysfs(5) tells of an interface; 0 if there is no such interface."""
    try:
        with files.opened(f"{INTERFACES}/{interface}/{attribute}", posix.O_RDONLY) as fd:
            return int(posix.read(fd, 32), 0)
    except OSError as error:
        if error.errno not in (ENOENT, ENODEV, EINVAL):     # the latter two of one that is just going
            raise
        return 0


def mtu_of(interface: str) -> int:
    return number_of(interface, "mtu")


def bridge_of(interface: str) -> str | None:
    try:
        return paths.name(posix.readlink(f"{INTERFACES}/{interface}/master"))
    except OSError:
        return None


def far_interfaces(network: str) -> dict[int, tuple[str, list[str]]]:
    """Return {index: (name, [address/length, ...])} of the interfaces in the network namespace of a path."""
    prepare_import()
    from pyroute2 import IPRoute
    with files.opened(network, posix.O_RDONLY) as there, Entered(there), IPRoute() as route:
        found: dict[int, tuple[str, list[str]]] = {
            link["index"]: (link.get_attr("IFLA_IFNAME"), []) for link in whole(route.get_links)}
        for address in whole(route.get_addr):
            if address["index"] in found:       # else it has been made just now
                found[address["index"]][1].append(f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}")
    return found


def whole(dump: "Callable[[], Iterable[Any]]") -> "list[Any]":
    """Return what a request of pyroute2's lists, asked again if that has changed meanwhile.  Raises OSError."""
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError
    for again in range(DUMPS - 1, -1, -1):
        try:
            return list(dump())
        except NetlinkDumpInterrupted:
            if not again:
                raise OSError(EAGAIN, "the interfaces change all the time") from None
        except NetlinkError as error:
            raise OSError(error.code, posix.strerror(error.code)) from None
    raise AssertionError


def is_one_of(name: str, interface: str) -> bool:
    """Tell whether an interface is named as the cables of NAME are, and the VLANs on them."""
    return interface.startswith(name) and interface.removeprefix(name).partition(".")[0].isdigit()


def leading_to(network: int, name: str) -> dict[str, int]:
    """Return {interface: index} of what is named as the cables of NAME, and leads to the namespace of a descriptor."""
    found = far_namespaces(name)            # first: what a cable leads to has an id from then on
    own = links.namespace_id(network) if found else links.GOING
    return {interface: index for interface, index, namespace in found if namespace == own != links.GOING}


def far_namespaces(name: str) -> "list[tuple[str, int, int | None]]":
    """Return (interface, index, id of the network namespace that it leads to) of what is named like the cables."""
    return [(interface, *links.far_namespace(interface)) for interface in interfaces() if is_one_of(name, interface)]


def remove_unnoted(name: str, network: "files.Fd | None") -> None:
    """Remove the cables of NAME that are not on record, and lead into its network namespace, that of a descriptor.

    The kernel would remove them some time after that.  For those of one that is going already this waits.  So it does
    for one that is on no name any more, for a while: the mounts in which PID 1 had it end some time after PID 1.
    """
    if network:
        with network:
            remove(leading_to(network, name), {})
    begun = time.monotonic()
    while True:
        far = [namespace for _, _, namespace in far_namespaces(name) if namespace is not None]
        is_going = links.GOING in far
        if not is_going and (network or not far or time.monotonic() > begun + MOUNTS_TIMEOUT):
            return
        if time.monotonic() > begun + state.PATIENCE:
            complain(f"the kernel has not removed the cables of {name} yet")
            return
        time.sleep(0.001)


def prepare_import() -> None:
    """The programs that the import of pyroute2 runs shall not be of the caller's choice."""
    import os
    os.environ["PATH"] = PATH
    environment.find_packages()
