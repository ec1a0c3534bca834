"""NAT and PUBLISH: a subhost behind the host's address, by a table of nftables of its own.

The kernel is asked for it by messages, in one transaction, and neither the boot nor the end needs nft(8).  A comment
tells that a table is ours: one of the same name that somebody else has made is left alone, and is an error.
"""
import fcntl
import posix
import time
from errno import EEXIST, ENOENT, EOPNOTSUPP, EPERM, EPROTONOSUPPORT

from . import PATH, addresses, cables, files, forwarding, links, namespaces, paths, ports, state
from .addresses import Address, Given
from .config import AUTO, YES, Config
from .errors import Failure, complain, doing, reason
from .files import Fd, Fds
from .ports import Port
from .state import STATES, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .links import Chain
    from .record import Record

FAMILY = "inet"
TABLE = "overlay-boot-"                 # before NAME
PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"       # what a table's name has as it is
KINDS = {"inet": "ip", "inet6": "ip6"}
# Of a cable: what comes from 127.0.0.1 of the host may leave by it.  What pretends to does not come in.
LOCAL_ROUTES = "ipv4/conf/{}/route_localnet"
LOOPBACK = b"\x7f"                      # what these addresses begin with
OWNER_TIMEOUT = 10                      # seconds, for a keeper without the lock to have its descriptors closed
LED = "prerouting"                      # the chain with a rule for each port, which a word of PUBLISH is the comment of


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
    """Raises Failure for a table of somebody else's, or for a port that cannot be published."""
    found = ports.parse(config.publish)
    if config.address != [AUTO]:
        ends = ends_of(config, addresses.parse(config.address, cables.parse(config.cables, config.name)))
        for port in found:
            targets(port, ends)
    there = links.find_table(FAMILY, table_of(config.name))
    if there and not there[1]:
        raise not_ours(config, f"{FAMILY} {table_of(config.name)}")
    if found:
        refuse_published(found, config.name)
        ports.refuse_taken(found)


def not_ours(config: Config, table: str) -> Failure:
    return Failure(f"{variable(config)}: a table {table} of nftables exists already, and overlay-boot has not made it")


@doing("make a table of nftables")
def make(config: Config, noted: State, given: Given, keep: Fds | None) -> list[str]:
    """Make the table, and have the host forward.  Return the cables, for tell_what_is_in_the_way().

    What is added to keep is for the keeper: the table is gone when that ends, and until then nobody else can remove it.
    With None, for a subhost that will hibernate without a keeper, it is one like others.
    Raises Failure for a port that another subhost has published.
    """
    ends = ends_of(config, given.addresses)
    published = ports.parse(config.publish)
    with files.opened(STATES, posix.O_RDONLY | posix.O_DIRECTORY) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)        # until they are on record
        if published:
            refuse_published(published, config.name)
            noted.note("publish", config.publish)
        noted.note("table", table_of(config.name))
    names = [*dict.fromkeys(one.cable.name for one in ends)]
    if config.nat == YES:
        for name in names:
            links.set_group(name, forwarding.GROUP)
    try:
        forwarding.turn_on({KINDS[one.family] for one in ends},
                           (FAMILY, table_of(config.name), chains(config, ends, published)), keep)
    except OSError as error:
        if error.errno == EEXIST:
            raise not_ours(config, error.filename) from None
        if error.errno in (ENOENT, EOPNOTSUPP, EPROTONOSUPPORT):
            raise Failure(f"{variable(config)}: {reason(error)}: this kernel lacks a part of nf_tables") from None
        raise
    if any(map(is_for_loopback, published)) and any(one.family == "inet" for one in ends):
        for name in names:
            forwarding.write(LOCAL_ROUTES.format(name), "1")
    return names


def chains(config: Config, ends: list[Address], published: list[Port]) -> "list[Chain]":
    """Return what is in the table of a subhost."""
    drop, masquerade = links.verdict("drop"), links.masquerade()
    to_loopback, from_loopback = links.is_for("ip", LOOPBACK), links.comes_from("ip", LOOPBACK)
    raw, postrouting = [], []
    for index in {one.cable.name: cables.index_of(one.cable.name) for one in ends}.values():
        comes, leaves = links.meta("iif", index), links.meta("oif", index)
        raw += [comes + to_loopback + drop, comes + from_loopback + drop]
        postrouting += [comes + leaves + masquerade, leaves + from_loopback + masquerade]
        if config.nat == YES:
            postrouting.append(comes + links.meta("oif", index, differs=True) + masquerade)
    led = [(rule_of(port, one), port.word) for port in published for one in targets(port, ends)]
    return [("raw", "filter", "prerouting", "raw", [(rule, "") for rule in raw]),
            (LED, "nat", "prerouting", "dstnat", led),
            ("output", "nat", "output", "dstnat", led),
            ("postrouting", "nat", "postrouting", "srcnat", [(rule, "") for rule in postrouting])]


def is_for_loopback(port: Port) -> bool:
    """Tell whether a port of 127.0.0.1, or of that network, is published."""
    return port.address is None or len(port.address) == 4 and port.address.startswith(LOOPBACK)


def targets(port: Port, ends: list[Address]) -> list[Address]:
    """Return to which addresses a port leads, one of a family.  Raises Failure if there is none."""
    found = [one for one in ends if port.address is None or len(port.address) == len(one.address)]
    if not found:
        raise Failure(f"PUBLISH: {port.word}: the subhost has no address of that family")
    return [*{one.family: one for one in reversed(found)}.values()]


def rule_of(port: Port, end: Address) -> bytes:
    """Return the rule that leads a port of the host to the subhost."""
    kind = KINDS[end.family]
    if port.address:
        where = links.is_for(kind, port.address)
    elif kind == "ip6":                 # what is for ::1 cannot leave the host: an error there is better than silence
        where = links.is_for(kind, ports.LOOPBACK, differs=True) + links.is_for_host()
    else:
        where = links.is_of(kind) + links.is_for_host()
    return where + links.is_for_port(port.protocol, port.number) + links.leads_to(kind, end.address, port.inside)


@doing("remove the table of nftables")
def remove(name: str, table: str) -> None:
    """Remove the table of a subhost, and put back forwarding if this was the last one.

    The tables tell, not the records: of two subhosts that end at the same time, each would see the record of the other.
    A boot that has not made its table yet turns forwarding on when it does.
    """
    if table == table_of(name):
        delete(table)
    forwarding.tidy(lambda: any(is_there(other) for other in state.names() if other != name))


def delete(table: str) -> None:
    """Delete the table of a subhost that has ended.  Its keeper may still be about to: then it is the keeper's."""
    end = time.monotonic() + OWNER_TIMEOUT
    while True:
        try:
            links.delete_table(FAMILY, table)
            return
        except OSError as error:
            if error.errno != EPERM or time.monotonic() > end:
                raise
        time.sleep(0.001)


# Other subhosts

def others(name: str) -> "Iterator[tuple[str, Record | None]]":
    """Yield (name, record) of all subhosts but one that may have a table, or make one; None for a damaged record.

    Of a subhost that was killed, which nothing has cleared yet, the table has gone with the keeper, if that had it.
    """
    for other in state.names():
        if other == name:
            continue
        try:
            with State(other) as found:
                record = None if found.is_cut() else found.record()
                if not record or (record.table or record.publish) and (found.is_in_use() or is_there(other)):
                    yield other, record
        except OSError as error:        # it has just gone
            if error.errno in files.SCARCE:
                raise
        except Failure:
            yield other, None


def is_there(name: str) -> bool:
    """Tell whether there is a table of ours with the name that a subhost's has."""
    found = links.find_table(FAMILY, table_of(name))
    return found is not None and found[1]


def refuse_published(wanted: list[Port], name: str) -> None:
    """Raises Failure if another subhost than NAME has published one of the ports."""
    for other, record in others(name):
        # The record has what is still to be made; where it is damaged, the kernel knows what was.
        for word in {*links.comments(FAMILY, table_of(other), LED), *(record.publish if record else ())}:
            try:
                theirs = Port(word)
            except Failure:
                continue
            for port in wanted:
                if port.meets(theirs):
                    raise Failure(f"PUBLISH: {port.word}: the subhost {other} has published {word}")


# The rules of others

NFT = "/usr/sbin/nft"
SEEK_SET = 0                            # lseek(2)
# The tables of iptables-legacy(8), and which program lists them.
LEGACY = {"/proc/self/net/ip_tables_names": "/usr/sbin/iptables-legacy",
          "/proc/self/net/ip6_tables_names": "/usr/sbin/ip6tables-legacy"}


def tell_what_is_in_the_way(config: Config, names: list[str]) -> None:
    """Complain of what others drop of that which is forwarded for cables."""
    for line in in_the_way(names):
        complain(f"{variable(config)}: {line}")


def in_the_way(names: list[str]) -> list[str]:
    """Return a line for each chain of others that drops what is forwarded, and has no rule for these interfaces."""
    found = []
    others_ = [chain for chain in links.forward_chains() if not is_ours(chain[1])]
    rules: "list[dict[str, object]]" = []
    try:
        rules = rules_of_others() if others_ else []
    except NotTold as failure:
        found.append(f"what the rules of nftables drop is not known: {failure}")
    for family, table, chain, is_dropping in others_:
        of_table = [rule for rule in rules if (rule["family"], rule["table"]) == (family, table)]
        last = [rule for rule in of_table if rule["chain"] == chain][-1:]
        why = "its policy is drop" if is_dropping else "its last rule is for all packets" if any(
            refuses_all(rule) for rule in last) else ""
        if why:
            found += [line_of(f"the chain {chain} of the table {family} {table}", why, name) for name in names
                      if not any(mentions(rule["expr"], name) for rule in of_table)]
    for path, program in LEGACY.items():
        if "filter" in ports.lines_of(path, 0):
            found += in_the_way_of_old(program, names)
    return found


def line_of(chain: str, why: str, name: str) -> str:
    return f"{chain} drops what is forwarded for {name} ({why}), unless a rule in it accepts that"


def is_ours(table: str) -> bool:
    return table == forwarding.TABLE or table.startswith(TABLE)


def rules_of_others() -> "list[dict[str, object]]":
    """Return the rules of nftables, as nft(8) tells them; [] without it."""
    import json
    if not files.kind(NFT):
        return []
    listed = json.loads(said_by([NFT, "-j", "list", "ruleset"]))["nftables"]
    return [one["rule"] for one in listed if "rule" in one]


class NotTold(Failure):
    """A program that was asked about rules has failed.  The boot does not need it."""


def said_by(command: list[str]) -> str:
    """Return what a command prints.  Raises NotTold, with its first line, if it fails."""
    with Fd(posix.memfd_create("said")) as said, files.null() as null:
        process, pidfd = namespaces.spawn(command[:1], command, {"PATH": PATH, "LANG": "C.UTF-8"},
                                          standard=(null, said, said), directory="/", bound=True)
        posix.close(pidfd)
        try:
            status = cables.wait_for(process)
        except BaseException:
            cables.kill(process)
            raise
        text = paths.decode(posix.pread(said, posix.fstat(said).st_size, 0))
    if status:
        raise NotTold(f"{paths.name(command[0])}: {text.partition(chr(10))[0] or f'exit status {status}'}")
    return text


def refuses_all(rule: "dict[str, object]") -> bool:
    """Tell whether a rule drops or rejects whatever comes to it."""
    kinds = [kind for one in rule["expr"] for kind in one]      # type: ignore[attr-defined]
    return kinds[-1:] in (["drop"], ["reject"]) and set(kinds[:-1]) <= {"counter", "log", "limit"}


def mentions(expression: object, name: str) -> bool:
    """Tell whether an interface is named, or what its name begins with."""
    if isinstance(expression, str):
        return expression == name or len(expression) > 1 and expression[-1] in "*+" and name.startswith(expression[:-1])
    parts = expression.values() if isinstance(expression, dict) else expression if isinstance(expression, list) else ()
    return any(mentions(part, name) for part in parts)


def in_the_way_of_old(program: str, names: list[str]) -> list[str]:
    """Return the same for the table filter of iptables-legacy(8)."""
    chain = f"the chain FORWARD of {paths.name(program)}"
    unknown = f"whether {chain} drops what is forwarded is not known"
    if not files.kind(program):
        return [f"{unknown}: {program} is not installed"]
    try:
        rules = [paths.words(line) for line in said_by([program, "-w", "-S"]).split("\n")]
    except NotTold as failure:
        return [f"{unknown}: {failure}"]
    last = [rule for rule in rules if rule[:2] == ["-A", "FORWARD"]][-1:]
    why = ("its policy is drop" if ["-P", "FORWARD", "DROP"] in rules else
           "its last rule is for all packets" if any(rule[2:4] in (["-j", "DROP"], ["-j", "REJECT"]) for rule in last)
           else "")
    return [line_of(chain, why, name) for name in names if why and not any(mentions(rule, name) for rule in rules)]
