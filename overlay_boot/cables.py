"""Virtual cables: veth pairs from the host, NAMEn, into the subhost, ethn.

What CABLES asks for is a plan first, in which all that is wrong with it is
found.  The only module that uses pyroute2, and it imports that where it works.
"""
import _signal
import posix
import sys
from errno import EOPNOTSUPP

from . import PATH, files, interruption, namespaces, paths
from .errors import Failure, reason
from .processes import make_pipe

LONGEST_INTERFACE = 15          # IFNAMSIZ less its NUL, netdevice(7)
PACKAGES = "/usr/lib/python3/dist-packages"     # Debian's; the launchers leave out site, which knows it
RTM_NEWLINK, IFF_UP = 16, 1                     # rtnetlink(7), netdevice(7)
INTERFACES = "/sys/class/net"
REMEMBERED = "/run/network/ifstate"     # ifupdown's


class Cable:
    """A cable, or with a tag a VLAN on one: what is made of one specifier."""

    __slots__ = ("bridge", "inner", "mac", "name", "outer", "tag", "up", "word")

    def __init__(self, word, name, bridge, *, inner=None, mac=None, outer=None, tag=None):
        self.word = word            # the specifier
        self.name = name            # the interface on the host
        self.bridge = bridge
        self.inner = inner          # the interface in the subhost
        self.mac = mac              # of the inner one
        self.outer = outer          # of a VLAN: the interface that it is on
        self.tag = tag
        self.up = bool(bridge)      # at once; what has no bridge ifup(8) may want to configure first


def plan(specifiers, name):
    """The cables for the words of CABLES.  Raises Failure for a word that asks for none."""
    planned = []
    number = -1
    for word in specifiers:
        def refuse(why, word=word):
            raise Failure(f"CABLES: {word}: {why}")     # as in check()

        bridge, equals, end = word.partition("=")
        if not equals:
            refuse("there is no = in it")
        if len(bridge) > LONGEST_INTERFACE or "/" in bridge or bridge in (".", ".."):
            refuse(f"{bridge} cannot be the name of a bridge")
        if end.startswith("."):
            if number < 0:
                refuse("there is no cable before it, for the VLAN to be on")
            tag = end[1:]
            if not (tag.isascii() and tag.isdigit() and len(tag) <= 4 and 1 <= int(tag) <= 4094):
                refuse("the tag of a VLAN is a number from 1 to 4094")
            carrier = [one for one in planned if not one.tag][-1]
            carrier.up = True       # else no VLAN on it can be
            outer = carrier.name
            cable = Cable(word, f"{outer}.{int(tag)}", bridge, outer=outer, tag=int(tag))
        else:
            number += 1
            cable = Cable(word, f"{name}{number}", bridge, inner=f"eth{number}", mac=mac_address(end, refuse))
        if len(cable.name) > LONGEST_INTERFACE:
            refuse(f"the interface {cable.name} would have more than {LONGEST_INTERFACE} characters")
        if any(other.name == cable.name for other in planned):
            refuse(f"{cable.name} is asked for twice")
        planned.append(cable)
    return planned


def mac_address(text, refuse):
    """The address in the kernel's own form; None for none."""
    if not text:
        return None
    octets = text.lower().split(":")
    if len(octets) != 6 or not all(len(octet) == 2 and set(octet) <= set("0123456789abcdef") for octet in octets):
        refuse("after = comes nothing, a MAC address or .TAG")
    if int(octets[0], 16) & 1:
        refuse("a multicast address cannot be an interface's")
    if not any(int(octet, 16) for octet in octets):
        refuse("the address is zero")
    return ":".join(octets)


def check(planned, own=None):
    """Raises Failure if the host has not got what the cables need, or has interfaces of their names.

    own are {name: index} of the subhost itself, if it is running.
    """
    for cable in planned:
        if files.kind(f"{INTERFACES}/{cable.name}") and not (own and own.get(cable.name) == index_of(cable.name)):
            raise Failure(f"CABLES: {cable.word}: an interface {cable.name} is there already, and is not ours")
        if cable.bridge and not files.kind(f"{INTERFACES}/{cable.bridge}"):
            raise Failure(f"CABLES: {cable.word}: there is no bridge {cable.bridge}")
        if cable.bridge and not files.kind(f"{INTERFACES}/{cable.bridge}/bridge"):
            raise Failure(f"CABLES: {cable.word}: {cable.bridge} is no bridge")


class Plugging:
    """The making of cables, in a process of its own: to import pyroute2 takes longer than all mounts of a boot."""

    __slots__ = ("process", "source")

    def __init__(self, config, state, network, log):
        self.source, sink = make_pipe()
        self.process = posix.fork()
        if self.process:
            posix.close(sink)
            return
        status = 1
        try:
            namespaces.die_with_parent()
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            for number in interruption.SIGNALS:
                _signal.signal(number, _signal.SIG_DFL)
            plug(plan(config.cables, config.name), state, network, log)
            status = 0
        except (Failure, OSError) as error:
            posix.write(sink, paths.encode(reason(error)))
        except BaseException as error:
            posix.write(sink, paths.encode(f"CABLES: {type(error).__name__}: {error}"))
        finally:
            posix._exit(status)

    def wait(self):
        """Wait until all cables are there.  Raises Failure if one could not be made."""
        if not self.process:
            return
        said = b""
        with interruption.Wait():
            while chunk := posix.read(self.source, 4096):
                said += chunk
        if self.end():
            raise Failure(paths.decode(said) or "CABLES: the process that makes them was killed")

    def give_up(self):
        """Kill the process, if it is still at work: what it has made is on record."""
        if self.process:
            posix.kill(self.process, _signal.SIGKILL)
            self.end()

    def end(self):
        ended = posix.waitpid(self.process, 0)[1]
        posix.close(self.source)
        self.process = 0
        return posix.waitstatus_to_exitcode(ended)


def plug(planned, state, network, log):
    """Make the cables, and bring their host ends up."""
    forget_dead(planned, log)
    link = Link()
    for cable in planned:
        index = record_index(cable, state)
        try:
            link.make(cable, index, network)
        except OSError as error:
            hint = " (by this kernel: 802.1Q VLANs)" if cable.tag and error.errno == EOPNOTSUPP else ""
            raise Failure(f"CABLES: {cable.word}: cannot make {cable.name}: {error.strerror}{hint}") from None
    own = [cable.name for cable in planned if not cable.bridge]
    if own:
        run_ifupdown("ifup", own, log)
    for cable in planned:
        if not cable.up:
            namespaces.bring_up(cable.name)


def record_index(cable, state):
    """Choose the index of an interface before there is one, and note it, so that a killed boot's is known for ours."""
    index = 0x10000 + int.from_bytes(posix.urandom(3), "little") % 0xf0000
    state.note("vlans" if cable.tag else "cables", index, cable.name)
    return index


def forget_dead(planned, log):
    """Clear what ifupdown remembers of interfaces of these names, which are gone."""
    take_down([cable.name for cable in planned], log)


def take_down(names, log):
    """ifdown(8) for those of the interfaces that ifupdown takes for configured."""
    remembered = remembered_interfaces()
    names = [name for name in names if name in remembered]
    if names:
        run_ifupdown("ifdown", ["--force", *reversed(names)], log)


def remembered_interfaces():
    try:
        with open(REMEMBERED, encoding="utf-8", errors="surrogateescape") as file:
            return {line.partition("=")[0].strip() for line in file}
    except OSError:
        return set()


def run_ifupdown(command, arguments, log):
    """ifup(8) or ifdown(8), where ifupdown is installed; interfaces without a stanza are no failure.

    What they start is the host's own: not in the subhost's control group.  They
    themselves end with us, and with the locks that they hold.
    """
    program = f"/sbin/{command}"
    arguments = [word for word in arguments if "=" not in word]     # to them, an interface and its stanza
    if not files.kind(program) or not files.kind("/etc/network/interfaces"):
        return
    null = posix.open("/dev/null", posix.O_RDONLY)
    env = {"PATH": PATH, "LANG": "C.UTF-8"}
    try:
        process, pidfd = namespaces.spawn([program], [command, *arguments], env, standard=(null, log, log),
                                          directory="/", bound=True)
    finally:
        posix.close(null)
    posix.waitpid(process, 0)
    posix.close(pidfd)


class Link:
    """A rtnetlink(7) socket; pyroute2 makes the messages."""

    def __init__(self):
        import socket
        self.netlink = import_netlink()
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self.socket.bind((0, 0))

    def make(self, cable, index, network):
        """Make the interfaces of a cable, the far one at once inside the network namespace, never on the host.

        Raises OSError with the kernel's answer.
        """
        message = new_link(self.netlink, cable, index, network)
        message.encode()
        self.socket.send(message.data)
        answer = self.socket.recv(4096)
        error = -int.from_bytes(answer[16:20], sys.byteorder, signed=True)     # struct nlmsgerr, netlink(7)
        if error:
            raise OSError(error, posix.strerror(error))


def import_netlink():
    """pyroute2.netlink, without all that importing pyroute2 does before: 15 ms in the place of 110.

    It needs nothing of that.  A version of pyroute2 that does is imported as it is.
    """
    import importlib
    import importlib.util
    import types
    prepare_import()
    if "pyroute2" not in sys.modules:
        lean = types.ModuleType("pyroute2")
        lean.__path__ = importlib.util.find_spec("pyroute2").submodule_search_locations
        sys.modules["pyroute2"] = lean
        try:
            return importlib.import_module("pyroute2.netlink")
        except (ImportError, AttributeError):
            for name in [name for name in sys.modules if name.partition(".")[0] == "pyroute2"]:
                del sys.modules[name]
    return importlib.import_module("pyroute2.netlink")


def prepare_import():
    """pyroute2 is where Debian has it; and the programs that its import runs shall not be of the caller's choice."""
    import os
    os.environ["PATH"] = PATH
    if PACKAGES not in sys.path:
        sys.path.append(PACKAGES)


def new_link(netlink, cable, index, network):
    """The RTM_NEWLINK message for a cable, whose class is what of pyroute2's ifinfmsg (25 ms more) is used."""
    class attributes:
        prefix = "IFLA_"
        fields = (("family", "B"), ("__align", "x"), ("ifi_type", "H"), ("index", "i"), ("flags", "I"), ("change", "I"))
        nla_map = ((1, "IFLA_ADDRESS", "l2addr"), (3, "IFLA_IFNAME", "asciiz"), (5, "IFLA_LINK", "uint32"),
                   (10, "IFLA_MASTER", "uint32"), (18, "IFLA_LINKINFO", "info"), (28, "IFLA_NET_NS_FD", "uint32"))

        class info(netlink.nla):
            nla_map = ((1, "IFLA_INFO_KIND", "asciiz"), (2, "IFLA_INFO_DATA", "vlan" if cable.tag else "veth"))

            class vlan(netlink.nla):
                nla_map = ((1, "IFLA_VLAN_ID", "uint16"),)

            class veth(netlink.nla):
                nla_map = ((1, "VETH_INFO_PEER", "peer"),)

                @staticmethod
                def peer(*_arguments, **_named):
                    return peer

    class peer(attributes, netlink.nla):
        pass

    class link(attributes, netlink.nlmsg):
        pass

    described = [("IFLA_IFNAME", cable.name)]
    if cable.bridge:
        described.append(("IFLA_MASTER", index_of(cable.bridge)))
    if cable.tag:
        kind, data = "vlan", [("IFLA_VLAN_ID", cable.tag)]
        described.append(("IFLA_LINK", index_of(cable.outer)))
    else:
        far = [("IFLA_IFNAME", cable.inner), ("IFLA_NET_NS_FD", network)]
        if cable.mac:
            far.append(("IFLA_ADDRESS", cable.mac))
        kind, data = "veth", [("VETH_INFO_PEER", {"attrs": far})]
    described.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": data})]}))
    message = link()
    message["index"] = index
    message["flags"] = message["change"] = IFF_UP if cable.up else 0
    message["attrs"] = described
    message["header"]["type"] = RTM_NEWLINK
    message["header"]["flags"] = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK | netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    return message


def describe(cables, vlans, network):
    """The cables on record as they are now: dictionaries of name, bridge, inside and addresses.

    inside is the name of the far interface in the subhost, whose network
    namespace has that path, None for a VLAN; addresses are those that it has there.
    """
    far = far_interfaces(network)
    described = []
    for name in cables:
        inside, addresses = far.get(number_of(name, "iflink"), (None, []))
        described.append({"name": name, "bridge": bridge_of(name), "inside": inside, "addresses": addresses})
    described += [{"name": name, "bridge": bridge_of(name), "inside": None, "addresses": []}
                  for name in vlans]
    return described


def index_of(interface):
    return number_of(interface, "ifindex")


def number_of(interface, attribute):
    try:
        with open(f"{INTERFACES}/{interface}/{attribute}", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0


def bridge_of(interface):
    try:
        return paths.name(posix.readlink(f"{INTERFACES}/{interface}/master"))
    except OSError:
        return None


def far_interfaces(network):
    """{index: (name, [address/length, ...])} of the interfaces in the network namespace of a path."""
    own = posix.open("/proc/self/ns/net", posix.O_RDONLY)
    there = posix.open(network, posix.O_RDONLY)
    prepare_import()
    from pyroute2 import IPRoute
    namespaces.setns(there, namespaces.NEWNET)
    try:
        with IPRoute() as route:
            found = {link["index"]: (link.get_attr("IFLA_IFNAME"), []) for link in route.get_links()}
            for address in route.get_addr():
                found[address["index"]][1].append(f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}")
    finally:
        namespaces.setns(own, namespaces.NEWNET)
        posix.close(own)
        posix.close(there)
    return found


def remove(cables, vlans):
    """Remove the cables on record, each if it still is the interface of that index and name.

    The VLANs on them go with them.
    """
    interfaces = cables | vlans
    null = posix.open("/dev/null", posix.O_RDWR)
    take_down([name for name, index in interfaces.items() if index_of(name) in (0, index)], null)
    posix.close(null)
    for name, index in cables.items():
        namespaces.delete_link(index, name)
