"""PUBLISH: ports of the host that lead to a subhost, and who has them already."""
import posix
import sys
from _socket import AF_INET, AF_INET6, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, socket
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL

from . import addresses, files, paths
from .errors import Failure, reason

LOOPBACK = bytes(15) + b"\1"            # ::1
KINDS = {"tcp": SOCK_STREAM, "udp": SOCK_DGRAM}
IPPROTO_IPV6, IPV6_V6ONLY = 41, 26              # <linux/in.h>, <linux/in6.h>
# The state of a socket that others can reach, in /proc/net/tcp and /proc/net/udp.
LISTENING = {"tcp": "0A", "udp": "07"}


class Port:
    """What a word asks for: [HOSTADDRESS:]PORT[:INSIDE][/tcp|/udp]."""

    __slots__ = ("address", "inside", "number", "protocol", "word")

    def __init__(self, word: str) -> None:
        """Raises Failure if it asks for nothing."""
        self.word = word
        text, slash, protocol = word.partition("/")
        self.protocol = protocol if slash else "tcp"
        if self.protocol not in KINDS:
            raise Failure(f"PUBLISH: {word}: only /tcp or /udp can follow")
        self.address: bytes | None = None       # of the host; None stands for all
        try:
            if text.startswith("["):
                address, _, text = text[1:].partition("]:")
                self.address = addresses.bytes_of(address)
            elif "." in text:
                address, _, text = text.partition(":")
                self.address = addresses.bytes_of(address)
            number, colon, inside = text.partition(":")
            self.number = number_of(number)
            self.inside = number_of(inside) if colon else self.number
            if self.address == LOOPBACK:
                raise Failure("what is for ::1 cannot leave the host")
        except Failure as failure:
            raise Failure(f"PUBLISH: {word}: {failure}") from None

    def meets(self, other: "Port") -> bool:
        """Tell whether a packet could be meant for either."""
        return (self.protocol == other.protocol and self.number == other.number
                and (self.address == other.address or self.address is None or other.address is None))


def number_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise Failure(f"{text or 'nothing'} is no port: that is a number from 1 to 65535")
    return int(text)


def parse(words: list[str]) -> list[Port]:
    """Return the ports of PUBLISH.  Raises Failure for a word that asks for none, or for one that was asked for."""
    found: list[Port] = []
    for word in words:
        port = Port(word)
        for other in found:
            if port.meets(other):
                raise Failure(f"PUBLISH: {word}: {other.word} is the same port of the host")
        found.append(port)
    return found


def refuse_taken(ports: list[Port]) -> None:
    """Raises Failure if a process of the host listens on one of the ports."""
    for port in ports:
        families = ([AF_INET, AF_INET6] if port.address is None else
                    [AF_INET if len(port.address) == 4 else AF_INET6])
        if any(not can_bind(port, family) for family in families):
            listener = listener_on(port)
            if listener:
                raise Failure(f"PUBLISH: {port.word}: {listener} listens on port {port.number} of the host")


def can_bind(port: Port, family: int) -> bool:
    """Tell whether a server could have the port."""
    try:
        one = socket(family, KINDS[port.protocol])
    except OSError:                     # there is no IPv6
        return True
    try:
        if port.protocol == "tcp":      # what has ended just now is in nobody's way
            one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if family == AF_INET6:
            one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        wildcard = "::" if family == AF_INET6 else "0.0.0.0"
        one.bind((addresses.text_of(port.address) if port.address else wildcard, port.number))
    except OSError as error:
        if error.errno not in (EACCES, EADDRINUSE, EADDRNOTAVAIL):
            raise Failure(f"PUBLISH: {port.word}: {reason(error)}") from None
        return error.errno != EADDRINUSE
    finally:
        one.close()
    return True


def listener_on(port: Port) -> str:
    """Return who listens on a port: a process and its name; "" if nobody does."""
    inodes = set()
    # An IPv4 address ends one that is mapped to IPv6.
    wanted = "".join(f"{int.from_bytes(port.address[at:at + 4], sys.byteorder):08X}"
                     for at in range(0, len(port.address), 4)) if port.address else ""
    for suffix in ("", "6"):
        for line in lines_of(f"/proc/self/net/{port.protocol}{suffix}"):
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if (number == f"{port.number:04X}" and fields[3] == LISTENING[port.protocol]
                    and (address.endswith(wanted) or not address.strip("0"))):
                inodes.add(fields[9])
    if not inodes:
        return ""
    for process in posix.listdir("/proc"):
        if process.isdigit() and inodes & sockets_of(process):
            return f"{''.join(lines_of(f'/proc/{process}/comm', 0)[:1])} (process {process})"
    return "somebody"                   # in the kernel, or in another PID namespace


def lines_of(path: str, first: int = 1) -> list[str]:
    try:
        with files.opened(path) as fd:
            return paths.decode(files.read_all(fd)).split("\n")[first:-1]
    except OSError:
        return []


def sockets_of(process: str) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    found = set()
    try:
        for fd in posix.listdir(f"/proc/{process}/fd"):
            kind, _, inode = posix.readlink(f"/proc/{process}/fd/{fd}").partition(":[")
            if kind == "socket":
                found.add(inode.rstrip("]"))
    except OSError:                     # it has just ended
        pass
    return found
