"""The names that a subhost knows: its own, its host's, and where it asks for others.

hosts(5) and resolv.conf(5) of LOWER are the host's: they tell neither who the subhost is, nor of name servers that only
the host can reach.  So a boot writes its own into UPPER, and again at each boot as long as they begin with MARK.
"""
import posix
from errno import EXDEV

from . import beneath, files, namespaces, paths, rootfs
from .config import Config
from .sources import Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARK = "# Written at each boot of subhost "
HOSTS, RESOLVER = "etc/hosts", "etc/resolv.conf"
HOST_RESOLVER = f"/{RESOLVER}"
LONGEST_NAME = 64           # HOST_NAME_MAX, gethostname(2)
LONGEST_FILE = 1 << 12      # bytes of etc/hostname that are read
LONGEST = 1 << 20           # of the others
LOCAL = ("localhost", "ip6-localhost", "ip6-loopback")
OWN = "127.0.1.1"           # what Debian has for a name without an address
SETTINGS = ("search", "domain", "options")      # of resolv.conf(5)
# What those ask that a loopback address stands for: files like resolv.conf(5), by which of these addresses they serve.
OF_RESOLVED = "/run/systemd/resolve/resolv.conf"
RESOLVED = ("127.0.0.53", "127.0.0.54")
OF_OTHERS = ("/run/NetworkManager/no-stub-resolv.conf", "/run/dnsmasq/resolv.conf")
DNSMASQ = ("/etc/dnsmasq.conf", "/etc/dnsmasq.d")
UNBOUND = ("/etc/unbound/unbound.conf", "/etc/unbound/unbound.conf.d")


def hostname(config: Config, sources: Sources) -> str:
    """Return what UPPER or a layer has as /etc/hostname, else NAME: never the host's own, which LOWER has."""
    lines = (line.strip() for line in read_own(sources, "etc/hostname", LONGEST_FILE).split(b"\n"))
    name = next((line for line in lines if line and not line.startswith(b"#")), b"").decode("ascii", "replace")
    is_one = 0 < len(name) <= LONGEST_NAME and all(letter.isalnum() or letter in "-." for letter in name)
    return name if is_one and name.isascii() else config.name


def read_own(sources: Sources, path: str, limit: int) -> bytes:
    """Return at most limit bytes of a file in UPPER, else in a layer of this subhost's, b"" if there is none."""
    places = [sources.upper]
    if sources.layers:
        from . import layers
        places += layers.own(sources.layers)
    for place in places:
        try:
            with rootfs.directory(place, "UPPER") as root:
                return beneath.read(root, path, limit, beneath.INSIDE) or b""
        except OSError:
            continue
    return b""


def beginning(config: Config) -> str:
    return f"{MARK}{config.name}; without this line, it is left as it is\n"


def inherited(sources: Sources, path: str) -> str | None:
    """Return the text of a file of LOWER's, "" if there is none that the subhost can read, None if it is too long.

    A link that leads to /run leads nowhere in the subhost, and what is mounted on the file, as in a container, is none
    of LOWER's.
    """
    if any(f"/{path}/".startswith(f"{hidden}/") for hidden in sources.hide):
        return ""
    for place in sources.lower:
        try:
            data = beneath_mounts(place, path)
        except OSError:
            continue
        return paths.decode(data) if len(data) < LONGEST else None
    return ""


def beneath_mounts(place: str, path: str) -> bytes:
    """Return what is in a file below a directory of LOWER's, b"" if it leads to /run or is no regular file."""
    with rootfs.directory(place, "LOWER") as root:
        if leads_to_run(root, path):
            return b""
        try:
            return beneath.read(root, path, LONGEST, beneath.INSIDE | namespaces.NO_MOUNTS) or b""
        except OSError as error:
            if error.errno != EXDEV:
                raise
    with files.Fd(namespaces.open_tree(place)) as root:         # which takes long to close
        return beneath.read(root, path, LONGEST, beneath.INSIDE) or b""


def leads_to_run(root: int, path: str) -> bool:
    try:
        return "/run/" in f"/{posix.readlink(path, dir_fd=root)}"
    except OSError:                 # no link
        return False


# hosts(5)

def hosts(config: Config, sources: Sources) -> str:
    """Return hosts(5) for a subhost: LOWER's, with itself, and with its host by the address that that has for it.

    "" if there shall be none.
    """
    text = inherited(sources, HOSTS)
    if text is None:
        return ""
    own, host = hostname(config, sources), posix.uname().nodename
    mine = {own: None, config.name: None}
    addresses, gateway = addresses_of(config)
    lines = ["127.0.0.1\tlocalhost", f"::1\t\t{' '.join(LOCAL)}",
             *(f"{address}\t{' '.join(mine)}" for address in addresses or [OWN])]
    if gateway and host not in mine and not any(host in known for _, known in entries(text)):
        lines.append(f"{gateway}\t{host}")
    lines += others(text, {*mine, *LOCAL}, host, gateway)
    return beginning(config) + "\n".join(lines) + "\n"


def others(text: str, known: set[str], host: str, gateway: str) -> "Iterator[str]":
    """Yield the lines of hosts(5) less the names that are known, with the gateway for the host, if that is one."""
    for address, names in entries(text):
        is_local = is_loopback(address)
        left = [name for name in names if name not in known or name in LOCAL and not is_local]
        if left:
            yield f"{gateway if gateway and is_local and host in names else address}\t{' '.join(left)}"


def entries(text: str) -> "Iterator[tuple[str, list[str]]]":
    for line in text.split("\n"):
        address, *names = paths.words(line.partition("#")[0]) or [""]
        if names:
            yield address, names


def addresses_of(config: Config) -> tuple[list[str], str]:
    """Return the addresses that a boot gives a subhost, and the one by which it reaches its host, "" if none."""
    if not config.cables:
        return [], ""
    from . import cables
    planned = cables.parse(config.cables, config.name)
    own, gateways = [], []
    if config.address:
        from . import addresses
        given = addresses.parse(config.address, planned)
        own = [addresses.text_of(one.address) for one in given]
        gateways = [addresses.text_of(one.gateway) for one in given if one.gateway and one.is_for_host]
    return own, next(iter(gateways), "") or address_on(one.bridge for one in planned if one.inner and one.bridge)


def address_on(bridges: "Iterable[str]") -> str:
    """Return an address that the host has on one of these, "" if none."""
    from . import addresses, cables, links
    indexes = [cables.index_of(bridge) for bridge in bridges]
    found = (address for index, address, _ in links.addresses() if index in indexes) if indexes else ()
    return next((addresses.text_of(address) for address in found if not addresses.is_link_local(address)), "")


# resolv.conf(5)

def resolver(config: Config, sources: Sources) -> str:
    """Return resolv.conf(5) for a subhost that has cables; "" if LOWER's serves, or nothing is known that does."""
    if not config.cables or serves(inherited(sources, RESOLVER) or "") or is_hidden(sources):
        return ""
    text = text_of(HOST_RESOLVER)
    found = [*servers(text)] or forwarders([*words_after("nameserver", text)])
    if not found:
        return ""
    settings = [line for line in text.split("\n") if line.startswith(SETTINGS)]
    return beginning(config) + "\n".join([*(f"nameserver {address}" for address in found), *settings]) + "\n"


def is_hidden(sources: Sources) -> bool:
    return any(f"/{RESOLVER}/".startswith(f"{hidden}/") for hidden in sources.hide)


def lacks_resolver(config: Config, sources: Sources) -> bool:
    """Tell whether a subhost with cables will have no name server that it reaches, as far as PREMOUNT sees to that."""
    own = paths.decode(b"" if sources.tmpfs else read_own(sources, RESOLVER, LONGEST))
    return bool(config.cables and not is_hidden(sources) and (not own or own.startswith(MARK))
                and not any(servers(inherited(sources, RESOLVER) or "")) and not resolver(config, sources))


def serves(text: str) -> bool:
    """Tell whether a resolv.conf(5) names a server that a subhost reaches, and none that it waits for in vain."""
    return any(servers(text)) and not any(map(is_of_link, words_after("nameserver", text)))


def servers(text: str) -> "Iterator[str]":
    """Yield the name servers of resolv.conf(5) that others than the host reach as well."""
    return filter(is_for_others, words_after("nameserver", text))


def words_after(keyword: str, text: str) -> "Iterator[str]":
    for line in text.split("\n"):
        words = paths.words(line)
        if len(words) > 1 and words[0] == keyword:
            yield words[1]


def is_loopback(address: str) -> bool:
    """Tell whether it is the host's own, as 0.0.0.0 and :: are to those who send to them."""
    address = address.lower().removeprefix("::ffff:")
    return address.startswith("127.") or not address.removesuffix("1").strip("0.:")


def is_of_link(address: str) -> bool:
    """Tell whether it means something on one link only, to which the subhost may have none: fe80::1%eth0."""
    return address.lower().startswith(("fe8", "fe9", "fea", "feb")) and ":" in address


def is_for_others(address: str) -> bool:
    """Tell whether resolv.conf(5) can have it for a subhost."""
    return is_address(address) and not is_loopback(address) and not is_of_link(address)


def is_address(text: str) -> bool:
    """Tell whether it is an address, of no other port: a name, such as localhost, is ignored in resolv.conf(5)."""
    return not text.strip("0123456789abcdefABCDEF.:") and ("." in text or ":" in text)


def forwarders(named: list[str]) -> list[str]:
    """Return whom the host's own name server asks; [] if nobody knows, or it is not among those that are named.

    If none is named, it is asked all the same, says resolv.conf(5).
    """
    local = [address for address in named if is_loopback(address)]
    if any(address in RESOLVED for address in local):
        return [*servers(text_of(OF_RESOLVED))]
    if not local and any(is_address(address) or is_of_link(address) for address in named):
        return []
    for path in OF_OTHERS:
        found = [*servers(text_of(path))]
        if found:
            return found
    return [*filter(is_for_others, (*of_dnsmasq(), *of_unbound()))]


def of_dnsmasq() -> "Iterator[str]":
    for text in texts_of(DNSMASQ):
        for line in text.split("\n"):
            option, _, value = line.partition(" #")[0].partition("=")
            if option.strip() == "server":
                yield value.strip()


def of_unbound() -> "Iterator[str]":
    """Yield the addresses of the zone . that unbound.conf(5) forwards."""
    for text in texts_of(UNBOUND):
        zone, name = False, ""
        addresses: list[str] = []
        for line in [*text.split("\n"), "server:"]:
            option, _, value = line.partition("#")[0].strip().partition(":")
            value = value.strip().strip('"')
            if not value and option:                # the beginning of a clause
                if zone and name == ".":
                    yield from addresses
                zone, name, addresses = option == "forward-zone", "", []
            elif option == "name":
                name = value
            elif option == "forward-addr":
                addresses.append(value)


def texts_of(places: "Iterable[str]") -> "Iterator[str]":
    """Yield the texts of files, and of what is in a directory."""
    for place in places:
        if files.kind(place) == files.DIRECTORY:
            yield from texts_of(f"{place}/{name}" for name in sorted(posix.listdir(place)) if name[0] != ".")
        else:
            yield text_of(place)


def text_of(path: str) -> str:
    """Return the text of a file of the host's, "" if there is none."""
    try:
        with files.opened(path) as fd:
            return paths.decode(files.read_all(fd)) if files.kind_of(fd) == files.REGULAR else ""
    except OSError:
        return ""
