"""A host of a test's own, as far as its network goes, and means to look at networks.

The test is moved into a network namespace and a mount namespace, with a /run, a /sys and an /etc/network of its own, and
back when it ends.  So interfaces, addresses, firewall rules and what ifupdown does are those of the test alone, a bridge
may be called br0, and the firewall that the machine may have is not in the way.
"""
import contextlib
import ctypes
import json
import os
import re
import socket
import struct

from machine import LS, run, wait_for, write

NEWNS, NEWNET = 0x00020000, 0x40000000      # setns(2)
MS_REC, MS_PRIVATE = 0x4000, 0x40000        # mount(2)
LINK_GROUP, IFNAME = 1, 3                   # rtnetlink(7)

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _chroot(fd):
    """setns(2) leads to the root of the mount namespace: all this may be in a chroot."""
    os.fchdir(fd)
    os.chroot(".")
    os.close(fd)


class Host:
    """The host of a test: within `with`, it is where the test and all that it starts are."""

    def __init__(self, directory):
        self.network = f"{directory}/etc.network"
        self.interfaces = "/etc/network/interfaces"
        self.remembered = "/run/network/ifstate"

    def __enter__(self):
        self.back = [(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), flag)
                     for kind, flag in (("net", NEWNET), ("mnt", NEWNS))]
        self.root, self.directory = os.open("/", os.O_RDONLY), os.open(".", os.O_RDONLY)
        _checked(_libc.unshare(NEWNS | NEWNET))
        try:
            self._furnish()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for fd, flag in self.back:
            _checked(_libc.setns(fd, flag))
            os.close(fd)
        _chroot(self.root)
        os.fchdir(self.directory)
        os.close(self.directory)

    def _make_private(self):
        own, root = os.open("/proc/self/ns/mnt", os.O_RDONLY), os.open("/", os.O_RDONLY)
        _checked(_libc.setns(own, NEWNS))
        os.close(own)
        _checked(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        _chroot(root)

    def _furnish(self):
        self._make_private()
        done("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        for made in ("network", "lock", "groups"):
            os.mkdir(f"/run/{made}")
        done("mount", "--rbind", "/sys/fs/cgroup", "/run/groups")
        done("mount", "-t", "sysfs", "sysfs", "/sys")
        done("mount", "--move", "/run/groups", "/sys/fs/cgroup")
        os.rmdir("/run/groups")
        for part in ("interfaces.d", "if-pre-up.d", "if-up.d", "if-down.d", "if-post-down.d"):
            os.makedirs(f"{self.network}/{part}", exist_ok=True)
        write(f"{self.network}/interfaces", "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n")
        done("mount", "--bind", self.network, "/etc/network")
        done("ip", "link", "set", "lo", "up")

    def stanzas(self, name, text):
        """What is in a file that /etc/network/interfaces sources."""
        return write(f"/etc/network/interfaces.d/{name}", text)

    def is_remembered(self, name):
        """Whether ifupdown takes an interface for configured."""
        with contextlib.suppress(FileNotFoundError), open(self.remembered) as file:
            return any(line.partition("=")[0] == name for line in file)

    def remember(self, name):
        with open(self.remembered, "a") as file:
            file.write(f"{name}={name}\n")

    def hide(self, *programs):
        """Take programs away, all of one directory, and leave the others."""
        place = os.path.realpath(os.path.dirname(programs[0]))
        over = f"/run/over{place.replace('/', '-')}"
        for part in ("upper", "work"):
            os.makedirs(f"{over}/{part}")
        for program in programs:
            os.mknod(f"{over}/upper/{os.path.basename(program)}", 0o20000, os.makedev(0, 0))    # a whiteout
        done("mount", "-t", "overlay", "-o", f"lowerdir={place},upperdir={over}/upper,workdir={over}/work", "overlay", place)


def done(*command, **how):
    """What a command that succeeds prints."""
    ended = run(*command, **how)
    assert ended.returncode == 0, f"{' '.join(command)}: {ended.returncode} {ended.stderr} {ended.stdout}"
    return ended.stdout


def links(at=None):
    """{name: what ip(8) tells of it} of the interfaces here, or in a named network namespace."""
    told = done("ip", *(["-n", at] if at else []), "-json", "-details", "address", "show")
    return {link["ifname"]: link for link in json.loads(told)}


def addresses(link):
    """The addresses of an interface, those of its link excepted."""
    return [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] != "link"]


def is_up(link):
    return "UP" in link["flags"]


@contextlib.contextmanager
def within(namespace):
    """In the network namespace of that name; a socket made there stays in it."""
    back = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(there, NEWNET))
        yield
    finally:
        _checked(_libc.setns(back, NEWNET))
        os.close(back)
        os.close(there)


class Monitor:
    """All that the kernel tells of interfaces, in the network namespace in which this is made."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((0, LINK_GROUP))

    def seen(self):
        """[(type of message, index, name)] since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.socket.recv(1 << 16)
                while data:
                    size, kind = struct.unpack_from("=IH", data)
                    found.append((kind, struct.unpack_from("=i", data, 20)[0], self._name(data[32:size])))
                    data = data[size:]
        return found

    def names(self):
        return {name for _, _, name in self.seen()}

    @staticmethod
    def _name(attributes):
        while attributes:
            size, kind = struct.unpack_from("=HH", attributes)
            if kind == IFNAME:
                return attributes[4:size].rstrip(b"\0").decode()
            attributes = attributes[size + 3 & ~3:]
        return ""


def listed_without_pyroute2(directory, *options):
    """overlay-ls where pyroute2 is not installed."""
    for made in ("upper", "work"):
        os.makedirs(f"{directory}/{made}", exist_ok=True)
    if not os.path.exists(f"{directory}/upper/pyroute2"):
        os.mknod(f"{directory}/upper/pyroute2", 0o020000, 0)    # as overlayfs says that there is none
    place = "/usr/lib/python3/dist-packages"
    return run("unshare", "-m", "sh", "-ec", f"""
        mount -t overlay -o lowerdir={place},upperdir={directory}/upper,workdir={directory}/work overlay {place}
        exec {LS} "$@" """, "sh", *options)


def can_make_vlans():
    """Whether this kernel has 802.1Q."""
    done("ip", "link", "add", "vlan-try", "type", "bridge")
    try:
        return run("ip", "link", "add", "link", "vlan-try", "name", "vlan-try.5", "type", "vlan", "id", "5").returncode == 0
    finally:
        done("ip", "link", "delete", "vlan-try")


def pings(one, address):
    """A subhost has an answer from an address, in the end: the networks may still be finding each other."""
    wait_for(lambda: one.go("ping", "-c", "1", "-W", "1", address).returncode == 0, what=f"{one.name} pings {address}")


def files_of(example):
    """{path: text} of the files that stand in the comments of an example: after "... PATH:", indented."""
    found, path = {}, None
    for line in example.splitlines():
        if line.startswith("#     "):
            if path:
                found[path] += line[6:] + "\n"
        elif line.startswith("# "):
            named = re.search(r"(?:On the host|In the subhost), ([\w./]+)", line)
            path = named[1] if named else path if line.endswith(":") and path and not found[path] else None
            if named:
                found[path] = ""
    return found


def static(interfaces):
    """[(interface, address/length)] of the stanzas of interfaces(5)."""
    return re.findall(r"iface (\S+) inet6? static\n +address (\S+)", interfaces)


def bridges(conf):
    """The bridges that the text of a configuration file needs."""
    cables = re.search("^CABLES=(.*)", conf, re.MULTILINE)
    return {word.partition("=")[0] for word in (cables[1].split() if cables else ())} - {""}
