"""NAT and PUBLISH: a subhost behind the host's address, by a table of nftables of its own.

nft(8) makes the table, in one transaction, while the boot goes on; the kernel is asked to delete it, so that nothing
but a boot needs nft.  All values in it are numbers and addresses that were parsed: interfaces are named by their index.
"""
import fcntl
import posix

from . import PATH, addresses, cables, files, forwarding, links, namespaces, paths, ports
from .addresses import Address, Given, text_of
from .config import AUTO, YES, Config
from .errors import Failure, complain, doing
from .files import Fd
from .state import STATES, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ports import Port

NFT = "/usr/sbin/nft"
SEEK_SET = 0                            # lseek(2)
FAMILY = "inet"
TABLE = "overlay-boot-"                 # before NAME
PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"       # what a table's name has as it is
KINDS = {"inet": "ip", "inet6": "ip6"}
# Of a cable: what comes from 127.0.0.1 of the host may leave by it.  What pretends to does not come in.
LOCAL_ROUTES = "ipv4/conf/{}/route_localnet"
LOOPBACK = 127                          # the first byte of these addresses
SCRIPT = """\
create table {family} {table}
table {family} {table} {{
    chain raw {{
        type filter hook prerouting priority raw; policy accept;
{raw}    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
{published}    }}
    chain output {{
        type nat hook output priority -100; policy accept;
{published}    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
{postrouting}    }}
}}
"""


def variable(config: Config) -> str:
    return "NAT" if config.nat == YES else "PUBLISH"


def table_of(name: str) -> str:
    """Return the name of the table of a subhost: that of no other one's, and a word to nft(8)."""
    return TABLE + "".join(letter if letter in PLAIN else f"_{ord(letter):02x}" for letter in name)


def ends_of(config: Config, given: list[Address]) -> list[Address]:
    """Return the addresses that can be behind the host's.  Raises Failure if there are none."""
    found = [one for one in given if one.is_for_host]
    if not found:
        raise Failure(f"{variable(config)}: no word of ADDRESS has a @GATEWAY at the host's end of a cable, without "
                      f"a bridge")
    return found


def check(config: Config) -> None:
    """Raises Failure if the host has no nft(8), or for a port that cannot be published."""
    if not files.kind(NFT):
        raise Failure(f"{variable(config)}: {NFT} is not installed: it is part of the package nftables")
    found = ports.parse(config.publish)
    if config.address != [AUTO]:
        ends = ends_of(config, addresses.parse(config.address, cables.parse(config.cables, config.name)))
        for port in found:
            targets(port, ends)
    if found:
        ports.refuse_published(found, config.name)
        ports.refuse_taken(found)


class Making:
    """The table of a boot, with nft(8) perhaps at work on it."""

    __slots__ = ("config", "ends", "ports", "process", "said")

    @doing("make a table of nftables")
    def __init__(self, config: Config, noted: State, given: Given) -> None:
        """Note the table and the ports, and start to make it.  Raises Failure for a port that others have published."""
        self.config = config
        self.ends = ends_of(config, given.addresses)
        self.ports = ports.parse(config.publish)
        with files.opened(STATES, posix.O_RDONLY | posix.O_DIRECTORY) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)        # until they are on record
            if self.ports:
                ports.refuse_published(self.ports, config.name)
                noted.note("publish", config.publish)
            noted.note("table", table_of(config.name))
        if config.nat == YES:
            for name in self.names():
                links.set_group(name, forwarding.GROUP)
        self.process, self.said = start_nft(script(config, self.ends, self.ports) + "list chains\n")

    def names(self) -> list[str]:
        """Return the cables on the host."""
        return [*dict.fromkeys(one.cable.name for one in self.ends)]

    @doing("forward packets")
    def finish(self) -> None:
        """Wait for nft, and have the host forward.  Complain of rules of others that are in the way."""
        process, self.process = self.process, 0
        with self.said as said:
            answer = ended(process, said, variable(self.config))
        for name in self.names():
            if any(map(is_for_loopback, self.ports)) and any(one.family == "inet" for one in self.ends):
                forwarding.write(LOCAL_ROUTES.format(name), "1")
        forwarding.turn_on({KINDS[one.family] for one in self.ends}, load)
        if others_forward(answer):
            for line in in_the_way(self.names()):
                complain(f"{variable(self.config)}: {line}")

    def give_up(self) -> None:
        """Kill nft.  The table is on record."""
        if self.process:
            cables.kill(self.process)
            self.process = 0


def script(config: Config, ends: list[Address], published: "list[Port]") -> str:
    """Return what nft(8) makes the table of."""
    indexes = {one.cable.name: cables.index_of(one.cable.name) for one in ends}
    raw, postrouting = [], []
    for index in indexes.values():
        raw += [f"iif {index} ip daddr 127.0.0.0/8 drop", f"iif {index} ip saddr 127.0.0.0/8 drop"]
        postrouting += [f"iif {index} oif {index} masquerade", f"oif {index} ip saddr 127.0.0.0/8 masquerade"]
        if config.nat == YES:
            postrouting.append(f"iif {index} oif != {index} masquerade")
    rules = []
    for port in published:
        rules += [rule_of(port, one) for one in targets(port, ends)]
    return SCRIPT.format(family=FAMILY, table=table_of(config.name), raw=indented(raw), published=indented(rules),
                         postrouting=indented(postrouting))


def is_for_loopback(port: "Port") -> bool:
    """Tell whether a port of 127.0.0.1, or of that network, is published."""
    return port.address is None or len(port.address) == 4 and port.address[0] == LOOPBACK


def targets(port: "Port", ends: list[Address]) -> list[Address]:
    """Return to which addresses a port leads, one of a family.  Raises Failure if there is none."""
    found = [one for one in ends if port.address is None or len(port.address) == len(one.address)]
    if not found:
        raise Failure(f"PUBLISH: {port.word}: the subhost has no address of that family")
    return [*{one.family: one for one in reversed(found)}.values()]


def rule_of(port: "Port", end: Address) -> str:
    """Return the rule that leads a port of the host to the subhost."""
    kind = KINDS[end.family]
    if port.address:
        where = f"{kind} daddr {text_of(port.address)}"
    else:                               # what is for ::1 cannot leave the host: an error there is better than silence
        where = "ip6 daddr != ::1 fib daddr type local" if kind == "ip6" else "fib daddr type local"
    to = f"[{text_of(end.address)}]" if kind == "ip6" else text_of(end.address)
    protocol = "ipv6" if kind == "ip6" else "ipv4"
    return f"meta nfproto {protocol} {where} {port.protocol} dport {port.number} dnat {kind} to {to}:{port.inside}"


def indented(rules: list[str]) -> str:
    return "".join(f"        {rule}\n" for rule in rules)


def start_nft(text: str, *options: str) -> tuple[int, Fd]:
    """Start nft(8) on a text.  Return its process id, and a descriptor of what it prints; it ends with this process."""
    said = Fd(posix.memfd_create("said"))
    with Fd(posix.memfd_create("script")) as source:
        files.write_all(source, text)
        posix.lseek(source, 0, SEEK_SET)
        process, pidfd = namespaces.spawn([NFT], ["nft", *options, "-f", "-"], {"PATH": PATH, "LANG": "C.UTF-8"},
                                          standard=(source, said, said), directory="/", bound=True)
    posix.close(pidfd)
    return process, said


def ended(process: int, said: int, what: str) -> str:
    """Wait for nft(8), and return what it has printed.  Raises Failure, with its first line, if it fails."""
    try:
        status = cables.wait_for(process)
    except BaseException:
        cables.kill(process)
        raise
    text = paths.decode(posix.pread(said, posix.fstat(said).st_size, 0))
    if status:
        raise Failure(f"{what}: nft: {text.partition(chr(10))[0] or f'exit status {status}'}")
    return text


def load(text: str) -> None:
    """Have nft(8) do what a text says.  Raises Failure."""
    process, said = start_nft(text)
    with said:
        ended(process, said, "NAT")


@doing("remove the table of nftables")
def remove(name: str, table: str) -> None:
    """Remove the table of a subhost, and put back forwarding if this was the last one."""
    if table == table_of(name):
        links.delete_table(FAMILY, table)
    forwarding.tidy(lambda: any(record.table for _, record in ports.others(name)))


# The rules of others

def others_forward(chains: str) -> bool:
    """Tell whether somebody else has a chain for what is forwarded, of what nft(8) lists."""
    table = ""
    for line in chains.split("\n"):
        if line.startswith("table "):
            table = line.split()[2]
        elif " hook forward " in line and not is_ours(table):
            return True
    return False


def is_ours(table: str) -> bool:
    return table == forwarding.TABLE or table.startswith(TABLE)


def in_the_way(names: list[str]) -> list[str]:
    """Return a line for each chain of others that drops what is forwarded, and has no rule for these interfaces."""
    import json
    process, said = start_nft("list ruleset\n", "-j")
    with said:
        listed = json.loads(ended(process, said, "NAT"))["nftables"]
    chains = [one["chain"] for one in listed if one.get("chain", {}).get("hook") == "forward"]
    rules = [one["rule"] for one in listed if "rule" in one]
    found = []
    for chain in chains:
        place = chain["family"], chain["table"]
        of_table = [rule for rule in rules if (rule["family"], rule["table"]) == place]
        last = [rule for rule in of_table if rule["chain"] == chain["name"]][-1:]
        why = ("its policy is drop" if chain.get("policy") == "drop" else
               "its last rule is for all packets" if any(refuses_all(rule) for rule in last) else "")
        if why and not is_ours(chain["table"]):
            found += [f"the chain {chain['name']} of the table {' '.join(place)} drops what is forwarded for {name} "
                      f"({why}), unless a rule in it accepts that"
                      for name in names if not any(mentions(rule["expr"], name) for rule in of_table)]
    return found


def refuses_all(rule: "dict[str, object]") -> bool:
    """Tell whether a rule drops or rejects whatever comes to it."""
    kinds = [kind for one in rule["expr"] for kind in one]      # type: ignore[attr-defined]
    return kinds[-1:] in (["drop"], ["reject"]) and set(kinds[:-1]) <= {"counter", "log", "limit"}


def mentions(expression: object, name: str) -> bool:
    """Tell whether an interface is named, or what its name begins with."""
    if isinstance(expression, str):
        return expression == name or len(expression) > 1 and expression[-1] == "*" and name.startswith(expression[:-1])
    parts = expression.values() if isinstance(expression, dict) else expression if isinstance(expression, list) else ()
    return any(mentions(part, name) for part in parts)


def tell_what_is_in_the_way(config: Config) -> None:
    """For overlay-boot --check: complain as a boot will."""
    for line in in_the_way([cables.parse(config.cables, config.name)[0].name]):
        complain(config.located(f"{variable(config)}: {line}"))
