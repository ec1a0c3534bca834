"""ADDRESS: the addresses that a boot itself gives the cables, and the way out of the subhost.

What is wrong is found when it is parsed, before anything is made.  At the subhost's end an address is set at once, and
the route by its gateway; at the host's end, which is the gateway where that is on no bridge, once ifup(8) has ended:
what interfaces(5) says of either end counts.  All of it goes with the cables.
"""
import fcntl
import posix
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from . import INTERFACES, cables, files, links, namespaces, paths, state
from .cables import Cable, Specifier
from .config import AUTO, Config
from .errors import Failure, complain, doing
from .network import Entered
from .state import STATES, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .cables import Interface

ULA = "ula"                             # of ADDRESS_POOL: fdXX:XXXX:XXXX::/48, RFC 4193
UNIQUE_LOCAL = b"\xfd"
FAMILIES = {4: AF_INET, 16: AF_INET6}   # by the bytes of an address
CHOSEN = {4: 30, 16: 64}                # the length of the prefix that auto chooses
DISABLED = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
LINK_LOCAL = 64                         # the length of the prefix of fe80::/64


class Address:
    """What a word gives to the ends of a cable: [ethN:]ADDRESS/LENGTH[@GATEWAY]."""

    __slots__ = ("address", "cable", "gateway", "length", "word")

    def __init__(self, word: str, cable: Cable, address: bytes, length: int, gateway: bytes | None) -> None:
        self.word = word
        self.cable = cable
        self.address = address
        self.length = length
        self.gateway = gateway

    @property
    def family(self) -> str:
        """The family, as interfaces(5) has it."""
        return "inet" if len(self.address) == 4 else "inet6"

    @property
    def is_for_host(self) -> bool:
        """Whether the host's end of the cable is the gateway."""
        return bool(self.gateway and not self.cable.bridge)

    @property
    def place(self) -> str:
        """The address and where it is: nobody else there has it.  What is on no bridge, the host has a route to."""
        return f"{self.cable.bridge or ''}={text_of(self.address)}"

    def set_far(self) -> None:
        """Set the address, and the route by its gateway; this process is in the subhost's network namespace."""
        with Specifier("ADDRESS", self.word):
            links.add_address(self.cable.inner, self.address, self.length)
            if self.gateway:
                links.add_route(self.cable.inner, gateway=self.gateway)

    def set_near(self) -> None:
        """Give the host's end the gateway's address, with a route to the subhost's if that is no neighbour of it."""
        assert self.gateway
        name = self.cable.name
        with Specifier("ADDRESS", self.word):
            if network_of(self.gateway, self.length) == network_of(self.address, self.length):
                links.add_address(name, self.gateway, self.length)
                return
            links.add_address(name, self.gateway,
                              LINK_LOCAL if is_link_local(self.gateway) else 8 * len(self.gateway))
            links.add_route(name, destination=self.address)


class Given:
    """The addresses of a boot: set at the subhost's ends, and to be set at the host's."""

    __slots__ = ("addresses", "later")

    def __init__(self, addresses: list[Address], later: list[Address]) -> None:
        self.addresses = addresses
        self.later = later

    def set_near(self) -> None:
        """Set those of the host's ends, unless ifup(8) or somebody else has given an end others.  Raises Failure."""
        later, self.later = self.later, []
        there = links.addresses() if later else []
        for one in later:
            index = cables.index_of(one.cable.name)
            others = [text_of(address) for at, address, _ in there
                      if at == index and len(address) == len(one.address) and not is_link_local(address)]
            if others:
                complain(f"ADDRESS: {one.word}: {one.cable.name} has {', '.join(others)} by the host's own "
                         f"configuration, which counts")
            else:
                one.set_near()


@doing("set the addresses")
def give(config: Config, planned: "list[Interface]", network: int, configured: set[tuple[str, str]],
         noted: State) -> Given:
    """Set the addresses at the ends of cables, which are there, in the network namespace of a descriptor.

    Those that auto stands for are chosen, and are in the configuration from then on.  configured is what interfaces(5)
    of the subhost has.  Raises Failure.
    """
    later = []
    is_chosen = config.address == [AUTO]
    with files.opened(STATES, posix.O_RDONLY | posix.O_DIRECTORY) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)        # until they are on record
        if is_chosen:
            addresses = take(config, planned)
        else:
            addresses = parse(config.address, planned)
            later = [one for one in addresses if one.is_for_host]
        left = left_to_file(addresses, configured)
        mine = [one for one in addresses if one not in left]
        if not is_chosen:               # it is free, and so many records take long to read
            refuse_used(mine, config.name)
        noted.note("addresses", [one.place for one in mine])
    with Entered(network):
        for name in dict.fromkeys(one.cable.inner for one in mine):
            namespaces.bring_up(name)
        for one in mine:
            one.set_far()
    return Given(addresses, later)


def left_to_file(addresses: list[Address], configured: set[tuple[str, str]]) -> list[Address]:
    """Return those for which interfaces(5) of the subhost has an address of its own, and complain of them."""
    left = [one for one in addresses if (one.cable.inner, one.family) in configured]
    for one in left:
        complain(f"ADDRESS: {one.word} is not set: interfaces(5) of the subhost configures {one.cable.inner}, which "
                 f"counts")
    return left


def parse(words: list[str], planned: "list[Interface]") -> list[Address]:
    """Return what the words of ADDRESS give to cables.  Raises Failure for a word that gives nothing."""
    found: list[Address] = []
    for word in words:
        with Specifier("ADDRESS", word):
            one = given_by(word, [cable for cable in planned if isinstance(cable, Cable)])
            for other in found:
                if other.address == one.address:
                    raise Failure(f"{text_of(one.address)} is given twice")
                if one.gateway and other.gateway and other.family == one.family:
                    raise Failure(f"{other.word} has a gateway of the same family already")
            found.append(one)
    return found


def given_by(word: str, cables_: list[Cable]) -> Address:
    inner, colon, rest = word.partition(":")
    if not (colon and inner.startswith("eth")):
        inner, rest = "eth0", word
    cable = next((one for one in cables_ if one.inner == inner), None)
    if cable is None:
        raise Failure(f"CABLES makes no {inner}")
    text, at, gateway_text = rest.partition("@")
    if text == AUTO:
        raise Failure(f"{AUTO} can only stand alone")
    address, length = prefix_of(text)
    check_host(address, length)
    gateway = None
    if at:
        gateway = bytes_of(gateway_text)
        if len(gateway) != len(address):
            raise Failure("the gateway is of another family")
        if gateway == address:
            raise Failure("the gateway has the same address")
        check_host(gateway, length if network_of(gateway, length) == network_of(address, length) else 8 * len(gateway))
    return Address(word, cable, address, length, gateway)


def prefix_of(text: str) -> tuple[bytes, int]:
    """Return the address and the length of ADDRESS/LENGTH."""
    address, slash, length = text.partition("/")
    found = bytes_of(address)
    if not slash:
        raise Failure(f"there is no /LENGTH of a prefix behind {address}")
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and 1 <= int(length) <= 8 * len(found)):
        raise Failure(f"the length of a prefix is a number from 1 to {8 * len(found)}")
    return found, int(length)


def bytes_of(text: str) -> bytes:
    for family in FAMILIES.values():
        try:
            return inet_pton(family, text)
        except (OSError, ValueError):
            pass
    raise Failure(f"{text or 'nothing'} is no IP address")


def text_of(address: bytes) -> str:
    return inet_ntop(FAMILIES[len(address)], address)


def network_of(address: bytes, length: int) -> int:
    """Return the prefix as a number."""
    return int.from_bytes(address, "big") >> 8 * len(address) - length


def is_link_local(address: bytes) -> bool:
    return len(address) == 16 and address[0] == 0xfe and address[1] & 0xc0 == 0x80


def is_of_link(address: bytes) -> bool:
    """Tell whether an interface has given itself that address, where it has no other one: it is for its link alone."""
    return is_link_local(address) or len(address) == 4 and address.startswith(b"\xa9\xfe")     # 169.254


def check_host(address: bytes, length: int) -> None:
    """Raises Failure unless an interface can have that address."""
    text, rest = text_of(address), 8 * len(address) - length
    if len(address) == 4:
        if address[0] in (0, 127) or address[0] >= 224:
            raise Failure(f"no interface can have the address {text}")
        number = int.from_bytes(address, "big") & (1 << rest) - 1
        if rest > 1 and number in (0, (1 << rest) - 1):
            raise Failure(f"{text} is the address of the whole network")
    elif address[0] == 0xff or not any(address[:15]) and address[15] <= 1:
        raise Failure(f"no interface can have the address {text}")


def check(config: Config, own: "Iterable[str]" = ()) -> None:
    """Raises Failure for an ADDRESS that is not valid here.  own are the subhost's interfaces if it is running."""
    planned = cables.parse(config.cables, config.name)
    if config.address == [AUTO]:
        with Specifier("ADDRESS", AUTO):
            if planned[0].bridge:
                raise Failure(f"it is for a cable without a bridge, and eth0 is on {planned[0].bridge}")
        pool_of(config.address_pool)
        return
    there = links.addresses()
    for one in parse(config.address, planned):
        with Specifier("ADDRESS", one.word):
            refuse_host(one, there, {*own, one.cable.name})


def refuse_host(one: Address, there: list[tuple[int, bytes, int]], own: set[str]) -> None:
    """Raises Failure if the host has, of what is there, an address of the subhost's, or elsewhere that of its own end.

    Those of a link, and on a bridge all others, can be in several networks.
    """
    for index, address, _ in there:
        if address not in (one.address, one.gateway):
            continue
        name, is_everywhere = name_of(index), not (one.cable.bridge or is_link_local(address))
        if address == one.gateway and is_everywhere and name and name not in own:
            raise Failure(f"{name} of the host has the address of the gateway already")
        if address == one.address and (is_everywhere and name or name == one.cable.bridge):
            raise Failure(f"{name} of the host has this address already")


def refuse_used(given: list[Address], name: str) -> None:
    """Raises Failure if another subhost than NAME has one of the addresses in the same place."""
    mine = {one.place: one for one in given if not is_link_local(one.address)}
    for other in state.names() if mine else ():
        used = used_by(other, mine) if other != name else set()
        if used:
            raise Failure(f"ADDRESS: {mine[used.pop()].word}: the subhost {other} has this address already")


def used_by(name: str, places: "Iterable[str]") -> set[str]:
    """Return those of the places of addresses that a subhost has, if it has not come to its end."""
    try:
        with State(name) as opened:
            if not any(place in opened.text() for place in places):     # which is told sooner, and nearly always so
                return set()
            used = {*places}.intersection(opened.record().addresses)
            return used if opened.is_in_use() else set()
    except (FileNotFoundError, Failure):        # it has just gone, or nobody can tell
        return set()


def name_of(index: int) -> str:
    """Return the name of an interface on the host, "" if there is none."""
    return next((name for name in posix.listdir(INTERFACES) if cables.index_of(name) == index), "")


# What auto stands for

def take(config: Config, planned: "list[Interface]") -> list[Address]:
    """Choose the addresses, and set those of the host's end: from then on nobody else chooses them."""
    with Specifier("ADDRESS", AUTO):
        config.address = [*free(pool_of(config.address_pool), config.name)]
    chosen = parse(config.address, planned)
    for one in chosen:
        one.set_near()
    return chosen


def free(pool: list[tuple[bytes, int]], name: str) -> "Iterator[str]":
    """Yield words of ADDRESS, one for each prefix of the pool: the same ones for a name, if the host has not got them.

    Raises Failure if none is left.
    """
    from _blake2 import blake2b
    taken = [*links.addresses(), *links.routes()]
    first = int.from_bytes(blake2b(paths.encode(name), digest_size=8, person=cables.PURPOSE).digest(), "big")
    for prefix, length in pool:
        if len(prefix) == 16 and not has_ipv6():
            continue
        size, bits = CHOSEN[len(prefix)], 8 * len(prefix)
        number = 1 << size - length
        others = [(address, other) for _, address, other in taken if len(address) == len(prefix)]
        begin = int.from_bytes(prefix, "big")
        step = 0
        while step < number:
            place = (first + step) % number
            at = (begin + (place << bits - size)).to_bytes(len(prefix), "big")
            met = [min(size, other) for address, other in others
                   if network_of(at, min(size, other)) == network_of(address, min(size, other))]
            if not met:
                gateway, own = (at[:-1] + bytes([at[-1] + more]) for more in (1, 2))
                yield f"{text_of(own)}/{size}@{text_of(gateway)}"
                break
            covered = 1 << size - min(met)
            step += covered - place % covered       # behind all of what is taken there
        else:
            raise Failure(f"nothing is left of {text_of(prefix)}/{length}: the host has addresses or routes for all of "
                          f"it, see ADDRESS_POOL")


def pool_of(words: list[str]) -> list[tuple[bytes, int]]:
    """Return the prefixes of ADDRESS_POOL.  Raises Failure for what is none."""
    found: list[tuple[bytes, int]] = []
    for word in words:
        try:
            prefix, length = own_prefix() if word == ULA else prefix_of(word)
        except Failure as failure:
            raise Failure(f"ADDRESS_POOL: {word}: {failure}") from None
        if length > CHOSEN[len(prefix)] or any(len(other) == len(prefix) for other, _ in found):
            raise Failure(f"ADDRESS_POOL: {word}: it is one IPv4 prefix of at most 30 bits, and one IPv6 prefix of at "
                          f"most 64, or {ULA}")
        if int.from_bytes(prefix, "big") & (1 << 8 * len(prefix) - length) - 1:
            raise Failure(f"ADDRESS_POOL: {word}: it is an address in a network, not the network")
        found.append((prefix, length))
    return found


def own_prefix() -> tuple[bytes, int]:
    """Return the prefix of unique local addresses that this host has for ever."""
    return UNIQUE_LOCAL + (cables.host_digest(ULA) or bytes(5)) + bytes(10), 48


def has_ipv6() -> bool:
    try:
        with files.opened(DISABLED) as fd:
            return posix.read(fd, 2)[:1] == b"0"
    except OSError:
        return False
