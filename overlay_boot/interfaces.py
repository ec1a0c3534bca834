"""interfaces(5) of a subhost: what it says of cables, and whether it and CABLES go together."""
from . import beneath, hooks, paths, rootfs
from .config import SYSTEMD, Config
from .errors import Failure
from .sources import Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILE = "etc/network/interfaces"
LONGEST = 1 << 16                   # bytes of it that are read
SERVICES = ("networking", "/etc/init.d/networking")
# What else in START gives interfaces addresses, and may do so later.
CLIENTS = ("NetworkManager", "connman", "dhcpcd", "network-manager", "systemd-networkd")
# Methods that give no address.
WITHOUT_ADDRESS = ("manual", "loopback")
# Options with which ifup(8) itself, or a command of the stanza, makes the interface.
MAKING = ("bond", "bridge", "mode", "pre-up", "tunnel", "vlan")


def contradictions(config: Config, sources: Sources) -> "Iterator[str]":
    """Yield a line for each interface that networking will fail with, and for each cable that it will leave down, or up
    without an address.

    Only where that can be known: the file is in UPPER or in a layer of the subhost's, and no hook or SHARE may be of
    another mind.  What it sources is not looked at.
    """
    if config.share or not hooks.are_default(config) or not any(word in SERVICES for word in config.start):
        return
    try:
        text = own_file(sources)
    except Unknown:
        return
    if text is None:                    # PREMOUNT will write it, for these cables
        return
    found = Interfaces(text)
    inner = inner_ones(config)
    for name in found.missing(inner):
        yield f"START: networking will fail: {FILE} brings up {name}, and CABLES makes no such interface"
    for name in inner:
        if name not in config.addressed and not found.mentions(name):
            where = f"in what {FILE} sources was not looked" if found.sources else f"{FILE} does not bring it up"
            yield f"START: networking will leave {name} down: {where}"
        elif name not in config.addressed and not has_client(config) and found.lack(name):
            yield f"START: networking will leave {name} without an address: {found.lack(name)}"


def lacking(config: Config, sources: Sources) -> dict[str, str]:
    """Return {interface: why} of the ends of cables that nothing gives an address, where networking is to do that.

    Nothing that is known: other services may.  PREMOUNT has been run.
    """
    if (config.share or not any(word in SERVICES for word in config.start) or has_client(config)
            or not all(hooks.is_default(config, variable) for variable in ("PREMOUNT", "POSTMOUNT"))
            or not (hooks.is_default(config, "INIT") or config.init == [SYSTEMD])):
        return {}
    try:
        text = own_file(sources)
    except Unknown:
        return {}
    found = Interfaces(hooks.interfaces(config) if text is None else text)      # UPPER is on a tmpfs
    whys = {name: found.lack(name) for name in inner_ones(config) if name not in config.addressed}
    return {name: why for name, why in whys.items() if why}


def has_client(config: Config) -> bool:
    return any(paths.name(word) in CLIENTS for word in config.start)


def inner_ones(config: Config) -> list[str]:
    from . import cables
    return [one.inner for one in cables.parse(config.cables, config.name) if one.inner]


def without_address(names: "Iterable[str]", config: Config, network: int) -> list[str]:
    """Return those of the ends of cables in a network namespace that have no address, but perhaps one of their link.

    None of them if what is no cable has one: a bridge, or a tunnel, which may be made of them.
    """
    from _socket import if_nametoindex

    from . import addresses, links
    from .network import Entered
    indexes: dict[str, int] = {}
    with Entered(network):
        for name in ("lo", *inner_ones(config)):
            try:
                indexes[name] = if_nametoindex(name)
            except OSError:             # the subhost has given it another name, or away
                pass
        there = {index for index, address, _ in links.addresses() if not addresses.is_of_link(address)}
    if there.difference(indexes.values()):
        return []
    return [name for name in names if name in indexes and indexes[name] not in there]


def configured(config: Config, sources: Sources) -> set[tuple[str, str]]:
    """Return (interface, family) of what the file gives addresses to when the subhost has been booted."""
    if hooks.is_default(config, "INIT") and not any(word in SERVICES for word in config.start):
        return set()
    try:
        text = own_file(sources)
    except Unknown:
        return set()
    return Interfaces(text).addressed if text else set()


class Unknown(Exception):
    """It is not known what the file says, or whether there is one."""


def own_file(sources: Sources) -> str | None:
    """Return the file that UPPER or else a layer of the subhost's has; None if there is none.  Raises Unknown."""
    places = [] if sources.tmpfs else [sources.upper]
    if sources.layers:
        from . import layers
        places += layers.own(sources.layers[::-1])
    for place in places:
        try:
            with rootfs.directory(place, "UPPER") as root:
                data = beneath.read(root, FILE, LONGEST, beneath.INSIDE)
        except FileNotFoundError:
            continue
        except (OSError, Failure):      # an archive that is not unpacked yet, and may have one
            raise Unknown from None
        if data is None or len(data) == LONGEST:
            raise Unknown
        return paths.decode(data)
    return None


class Interfaces:
    """What is in an interfaces(5) file."""

    __slots__ = ("addressed", "auto", "is_generated", "made", "others", "sources", "stanzas")

    def __init__(self, text: str) -> None:
        self.auto: list[str] = []           # brought up, whether they are there or not
        self.addressed: set[tuple[str, str]] = set()    # (interface, family) with a stanza that gives addresses
        self.made: set[str] = set()         # with a stanza that makes them
        self.others: set[str] = set()       # words that may be interfaces that are brought up otherwise
        self.stanzas: set[str] = set()      # with any stanza
        self.is_generated = text.startswith(hooks.GENERATED)
        self.sources = False                # whether other files belong to it
        stanza = ""
        for line in text.replace("\\\n", " ").split("\n"):
            keyword, *arguments = paths.words(line) or ["#"]
            if keyword[0] == "#":
                continue
            if keyword == "iface":
                stanza = arguments[0] if arguments else ""
                self.stanzas.add(stanza)
                if arguments[2:] and arguments[2] not in WITHOUT_ADDRESS:
                    self.addressed.add((stanza, arguments[1]))
                if arguments[2:] and arguments[2] not in ("static", "dhcp", "manual", "auto", "loopback"):
                    self.made.add(stanza)
            elif keyword in ("auto", "allow-auto"):
                self.auto += arguments
            elif keyword in ("source", "source-directory"):
                self.sources = True
            else:
                self.others.update(arguments)
                if keyword.startswith(MAKING):
                    self.made.add(stanza)

    def missing(self, there: list[str]) -> "Iterator[str]":
        """Yield what is brought up, and is neither lo nor one of those that are there nor made by a stanza."""
        for name in dict.fromkeys(self.auto):
            plain = not any(letter in "./:=*?[" for letter in name)     # no VLAN, pattern, alias or name of a stanza
            if plain and name != "lo" and name not in there and name not in self.made:
                yield name

    def mentions(self, name: str) -> bool:
        """Tell whether an interface, or one on it, may be brought up."""
        return any(word == name or "*" in word or word.startswith((f"{name}.", f"{name}:", f"{name}="))
                   for word in (*self.auto, *self.others))

    def lack(self, name: str) -> str:
        """Return why it gives an interface no address; "" if it does, or may, or somebody wants it so."""
        if self.sources:
            return ""
        if not self.mentions(name):
            return f"{FILE} does not bring it up"
        if any(name == addressed for addressed, _ in self.addressed):
            return ""
        if name in self.auto and name not in self.stanzas and name not in self.others:
            return f"{FILE} has no stanza for it"
        return f"{FILE} is as overlay-premount writes it" if self.is_generated else ""
