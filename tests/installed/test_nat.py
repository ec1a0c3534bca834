"""NAT and PUBLISH: traffic through the host's address, a table for each subhost, and a host that is as before.

The host is one of the test's own (network.py), and so are its tables and settings; another network namespace is the world,
which knows the host's addresses only.
"""
import contextlib
import ctypes
import glob
import os
import re
import signal
import socket
import struct
import subprocess
import threading

import pytest
from conftest import cannot_run
from machine import BOOT, LS, STATES, STOP, is_alive, kill, new_name, one_line, read, run, start, wait_for, warnings
from network import done, links, within

pytestmark = pytest.mark.usefixtures("host")

OUTSIDE = "203.0.113.1", "2001:db8:9::1"
WORLD = "203.0.113.9", "2001:db8:9::9"
SETTINGS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


@pytest.fixture(autouse=True)
def nft():
    if not os.path.exists("/usr/sbin/nft"):
        cannot_run("no nft")


@pytest.fixture
def world(machine):
    """The network namespace of the outside world."""
    name = new_name()
    done("ip", "netns", "add", name)
    done("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", name)
    for address, there in zip(OUTSIDE, WORLD, strict=True):
        length = "64" if ":" in address else "24"
        done("ip", "address", "add", f"{address}/{length}", "dev", "up0", "nodad")
        done("ip", "-n", name, "address", "add", f"{there}/{length}", "dev", "eth0", "nodad")
    done("ip", "link", "set", "up0", "up")
    for interface in ("eth0", "lo"):
        done("ip", "-n", name, "link", "set", interface, "up")
    machine.look()
    yield name
    done("ip", "link", "delete", "up0")
    done("ip", "netns", "delete", name)


@contextlib.contextmanager
def serving(name, port=80, udp=False):
    """A server in a network namespace: it tells who calls, and what it is called."""
    with within(name):
        server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::", port))
    if not udp:
        server.listen()
    server.settimeout(0.05)
    over = threading.Event()

    def serve():
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                if udp:
                    _, caller = server.recvfrom(100)
                    server.sendto(f"{name} {caller[0]}".encode(), caller)
                else:
                    connection, caller = server.accept()
                    connection.sendall(f"{name} {caller[0]}".encode())
                    connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        server.close()


def asked(address, port, at=None, udp=False):
    """(who answers, whom he sees), or the error."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with within(at) if at else contextlib.nullcontext():
        client = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    with client:
        client.settimeout(3)
        try:
            client.connect((address, port))
            if udp:
                client.send(b"x")
            who, caller = client.recv(100).decode().split()
        except OSError as error:
            return type(error).__name__
    return who, caller.removeprefix("::ffff:")


def tables():
    return set(re.findall(r"^table (.+) {$", done("nft", "list", "tables").replace("\n", " {\n"), re.MULTILINE))


def settings():
    return [read(f"/proc/sys/net/{setting}").strip() for setting in SETTINGS]


def is_as_before():
    assert tables() == set() and settings() == ["0", "0"] and not os.path.exists(f"{STATES}/.forwarding")


def addresses_of(one):
    return [address.split("/")[0] for address in one.row()["cables"][0]["addresses"] if not address.startswith("fe80")]


# What goes through

@pytest.mark.parametrize("users", ["no", "auto"])
def test_what_a_subhost_sends_has_the_address_of_the_host(subhost, world, users):
    one = subhost(NAT="yes", USERNS=users).booted()
    with serving(world):
        for address, own in zip(WORLD, OUTSIDE, strict=True):
            assert asked(address, 80, one.name) == (world, own)
    one.stopped()
    is_as_before()


def test_a_port_is_that_of_the_subhost(subhost, world):
    """From outside, from the host, from another subhost, and from itself; and no other port is."""
    one, other = subhost(NAT="yes", PUBLISH="8080:80").booted(), subhost(NAT="yes").booted()
    with serving(one.name):
        for address, caller in zip(OUTSIDE, WORLD, strict=True):
            assert asked(address, 8080, world) == (one.name, caller)
        for at in (None, one.name, other.name):
            for address in OUTSIDE:
                assert asked(address, 8080, at)[0] == one.name, (at, address)
        assert asked("127.0.0.1", 8080)[0] == one.name
        assert asked("::1", 8080) == "ConnectionRefusedError"
        assert asked(OUTSIDE[0], 80, world) == "ConnectionRefusedError"
    one.stopped()
    assert asked(OUTSIDE[0], 8080, world) == "ConnectionRefusedError"
    other.stopped()
    is_as_before()


def test_udp_and_an_address_of_the_host(subhost, world):
    one = subhost(PUBLISH=f"53/udp {OUTSIDE[0]}:81 [{OUTSIDE[1]}]:82:80/tcp").booted()
    with serving(one.name, 53, udp=True), serving(one.name, 81), serving(one.name, 80):
        assert asked(OUTSIDE[0], 53, world, udp=True) == (one.name, WORLD[0])
        assert asked("127.0.0.1", 53, udp=True)[0] == one.name
        assert asked(OUTSIDE[0], 81, world) == (one.name, WORLD[0]) and asked(OUTSIDE[1], 82, world) == (one.name, WORLD[1])
        assert asked(OUTSIDE[1], 81, world) == asked("127.0.0.1", 81) == "ConnectionRefusedError"


def test_published_without_nat(subhost, world):
    """It answers, and does not call."""
    one = subhost(PUBLISH="8080:80").booted()
    with serving(one.name), serving(world):
        assert asked(OUTSIDE[0], 8080, world) == (one.name, WORLD[0])
        assert asked(WORLD[0], 80, one.name) == "TimeoutError"


def test_nobody_else_is_forwarded(subhost, world):
    """Of two networks of the host, one may not reach the other because of a subhost."""
    other = new_name()
    done("ip", "netns", "add", other)
    done("ip", "link", "add", "up1", "type", "veth", "peer", "name", "eth0", "netns", other)
    done("ip", "address", "add", "198.51.100.1/24", "dev", "up1")
    done("ip", "link", "set", "up1", "up")
    done("ip", "-n", other, "address", "add", "198.51.100.9/24", "dev", "eth0")
    done("ip", "-n", other, "link", "set", "eth0", "up")
    done("ip", "-n", other, "route", "add", "default", "via", "198.51.100.1")
    done("ip", "-n", world, "route", "add", "default", "via", OUTSIDE[0])
    try:
        one = subhost(NAT="yes").booted()
        with serving(world):
            assert asked(WORLD[0], 80, one.name)[0] == world
            assert asked(WORLD[0], 80, other) == "TimeoutError"
        one.stopped()
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:    # by the administrator: then nobody is kept from it
            file.write("1")
        one.booted()
        with serving(world):
            assert asked(WORLD[0], 80, other) == (world, "198.51.100.9")
        one.stopped()
        assert settings() == ["1", "0"]
    finally:
        done("ip", "link", "delete", "up1")
        done("ip", "netns", "delete", other)


def sends_to_loopback(one, source):
    """A subhost's root sends what no kernel would: UDP to 127.0.0.1 of the host, by the cable."""
    outside, inside = links()[f"{one.name}0"], links(one.name)["eth0"]
    data = struct.pack(">HHHH", 4000, 9999, 9, 0) + b"x"
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, socket.IPPROTO_UDP, 0, *map(socket.inet_aton, (source, "127.0.0.1")))
    total = sum(struct.unpack(">10H", header))
    header = header[:10] + struct.pack(">H", 0xffff ^ (total % 0xffff or 0xffff)) + header[12:]
    with within(one.name):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind(("eth0", 0))
        wire.send(b"".join(bytes.fromhex(end["address"].replace(":", "")) for end in (outside, inside)) + b"\x08\x00" + header + data)


def test_the_loopback_of_the_host_is_out_of_reach(subhost):
    """Though what comes from there may leave by the cable; and whatever becomes of the tables of others."""
    one = subhost(PUBLISH="8080:80", CAPABILITIES="all").booted()
    asleep = subhost(PUBLISH="8081:80")
    assert run(BOOT, "--shell", asleep.conf, input="exit\n").returncode == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 9999))
        server.settimeout(0.5)
        for flushed in (False, True):
            if flushed:
                done("nft", "flush", "ruleset")
            for source in (addresses_of(one)[0], "127.0.0.1"):
                sends_to_loopback(one, source)
                with pytest.raises(TimeoutError):
                    server.recv(10)
        sends_to_loopback(asleep, "192.0.2.1")          # which has no keeper, and no table any more
        assert server.recv(10) == b"x"                  # else this would prove nothing


def test_a_flush_leaves_it(subhost, world):
    """As the restart of nftables.service does that."""
    one = subhost(NAT="yes", PUBLISH="8080:80").booted()
    done("nft", "flush", "ruleset")
    assert run("nft", "delete", "table", "inet", f"overlay-boot-{one.name}").returncode != 0
    with serving(one.name), serving(world):
        assert asked(OUTSIDE[0], 8080, world) == (one.name, WORLD[0]) and asked(WORLD[1], 80, one.name) == (world, OUTSIDE[1])
    kill(one.keeper, signal.SIGKILL)
    wait_for(lambda: not tables())
    one.stop()
    is_as_before()


# The host

def test_forwarding_is_put_back_by_the_last_one(subhost, world):
    routers = "/proc/sys/net/ipv6/conf/up0/accept_ra"
    assert read(routers) == "1\n"
    one, other = subhost(NAT="yes").booted(), subhost(PUBLISH="8080:80").booted()
    assert settings() == ["1", "1"] and read(routers) == "2\n"
    assert {line.split()[0] for line in run(LS).stdout.splitlines()[1:]} == {one.name, other.name}
    assert tables() == {"ip overlay-boot", "ip6 overlay-boot", f"inet overlay-boot-{one.name}", f"inet overlay-boot-{other.name}"}
    one.stopped()
    assert settings() == ["1", "1"] and read(routers) == "2\n"
    other.stopped()
    assert read(routers) == "1\n"
    is_as_before()


def test_forwarding_is_put_back_where_two_end_at_a_time(subhost):
    """Both have removed their tables before either looks whether it is the last one."""
    ending = [start("strace", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-P", "/run/overlay-boot/.forwarding",
                    "-e", "inject=flock:delay_enter=2000000", "/usr/bin/python3", "-IS", STOP, one.conf)
              for one in (subhost(NAT="yes").booted(), subhost(PUBLISH="8080:80").booted())]
    for one in ending:
        assert one.communicate()[1] == b"" and one.returncode == 0
    is_as_before()


@pytest.mark.parametrize("line", ["nonsense", "ipv4/../../kernel/sysrq 1", "ipv4/ip_forward \\x00", "\\x00 0", "ipv6/conf/../x 0"])
def test_a_damaged_note_of_forwarding(subhost, line):
    one = subhost(NAT="yes").booted()
    before = read("/proc/sys/kernel/sysrq")
    with open("/run/overlay-boot/.forwarding", "a") as file:
        file.write(line.replace("\\x00", "\0") + "\n")
    one.stopped()
    assert read("/proc/sys/kernel/sysrq") == before
    is_as_before()


def test_what_forwards_already_is_left_alone(subhost):
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    one = subhost(NAT="yes", ADDRESS="192.0.2.2/24@192.0.2.1").booted()
    assert tables() == {f"inet overlay-boot-{one.name}"} and settings() == ["1", "0"]
    one.stopped()
    assert tables() == set() and settings() == ["1", "0"]


@pytest.mark.parametrize("victim", ["keeper", "init", "everything"])
def test_killed(subhost, machine, victim):
    """The next stop leaves nothing."""
    machine.look()
    one = subhost(NAT="yes", PUBLISH="8080:80").booted()
    init, keeper = one.init, one.keeper
    for pid in {"keeper": [keeper], "init": [init], "everything": [keeper, init]}[victim]:
        kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(init) and not is_alive(keeper))
    one.stop()
    is_as_before()
    machine.is_as_before()


@pytest.mark.parametrize("call", ["write", "sendto", "clone3", "waitid"])
def test_a_boot_that_is_killed(subhost, machine, call):
    """At some of these calls: test_killed.py has all, for who has the time."""
    machine.look()
    one = subhost(NAT="yes", PUBLISH="8080:80")
    for number in range(1, 60, 3 if call == "write" else 1):
        booted = run("strace", "-f", "-b", "execve", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                     f"inject={call}:signal=SIGKILL:when={number}", "/usr/bin/python3", "-IS", BOOT, one.conf)
        one.stop()
        is_as_before()
        if booted.returncode == 0:
            break
    machine.is_as_before()


def test_a_keeper_that_is_stopped(subhost, machine):
    """The table is its own, and the end of the subhost does not wait for it."""
    machine.look()
    one = subhost(NAT="yes").booted()
    kill(one.keeper, signal.SIGSTOP)
    assert one.stop().returncode == 0
    is_as_before()
    machine.is_as_before()


# What the command reboot sends, initctl(8).
REBOOT = """
import struct
with open("/run/initctl", "wb", buffering=0) as requests:
    requests.write(struct.pack("=iiii368x", 0x03091969, 1, ord("6"), 0))
"""


@pytest.mark.parametrize("foreground", [False, True])
def test_reboot(subhost, world, foreground, machine):
    """The table is made anew, and goes with that keeper, whichever process asked for the end."""
    machine.look()
    one = subhost(NAT="yes", PUBLISH="8080:80", START="x")
    one.write("etc/init.d/x", "#!/bin/sh\n[ $1 != start ] || sleep 1000000 &\n", 0o755)
    process = start(BOOT, "--foreground", one.conf) if foreground else None
    if not foreground:
        one.booted()

    def check():
        wait_for(lambda: one.is_running() and one.row()["services"])
        with serving(one.name), serving(world):
            assert asked(OUTSIDE[0], 8080, world) == (one.name, WORLD[0])
            assert asked(WORLD[1], 80, one.name) == (world, OUTSIDE[1])
        assert settings() == ["1", "1"] and sockets_of_nftables() == {one.keeper}

    check()
    before = one.init
    one.inside("python3", "-c", REBOOT)
    wait_for(lambda: not is_alive(before) and one.is_running(), 20)
    check()
    one.stopped()
    if process:
        assert process.wait(10) == 0
        process.communicate()
    is_as_before()
    machine.is_as_before()


def sockets_of_nftables():
    """Which processes have one of NETLINK_NETFILTER open."""
    inodes = {line.split()[-1] for line in read("/proc/net/netlink").splitlines()[1:] if line.split()[1] == "12"}
    found = set()
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(path).removeprefix("socket:[").rstrip("]") in inodes:
                found.add(int(path.split("/")[2]))
    return found


def test_nobody_else_has_the_socket(subhost):
    """Neither hooks nor PID 1 nor services: only who has it can change the table, and it is there as long as that."""
    one = subhost(NAT="yes", START="x", POSTMOUNT="./hook")
    one.write("etc/init.d/x", "#!/bin/sh\nls -l /proc/*/fd\nsleep 1000000 &\n", 0o755)
    one.script("hook", "ls -l /proc/self/fd\noverlay-postmount\n")
    one.booted()
    assert sockets_of_nftables() == {one.keeper} and "socket:" not in one.said()


def test_a_damaged_record(subhost, machine):
    machine.look()
    one = subhost(NAT="yes").booted()
    with open(one.state, "r+") as file:
        text = re.sub("table .*\n", "nothing\n", file.read())
        file.seek(0)
        file.truncate()
        file.write(text)
    assert "is damaged: nothing" in one.stop().stderr
    is_as_before()


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("lost", ["table .*\n", "(table|cable|lower)(.|\n)*"])
def test_a_record_that_has_lost_the_table(subhost, machine, lost, is_killed):
    machine.look()
    one = subhost(NAT="yes").booted()
    init, keeper = one.init, one.keeper
    with open(one.state, "r+") as file:
        text = re.sub(lost, "", file.read())
        file.seek(0)
        file.truncate()
        file.write(text)
    if is_killed:
        kill(keeper, signal.SIGKILL)
        wait_for(lambda: not is_alive(init))
    one.stop()
    is_as_before()


def test_a_dead_one_whose_record_has_lost_all_but_its_beginning(subhost, machine):
    """And another one, whose stop has put back forwarding."""
    one, other = subhost(NAT="yes").booted(), subhost().booted()
    init, keeper = one.init, one.keeper
    with open(one.state, "r+") as file:
        file.truncate(file.read().index("netns"))
    kill(keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    other.stopped()
    one.stop()
    done("ip", "netns", "delete", one.name)         # of which nothing tells that it was the subhost's
    is_as_before()


def test_hibernation_keeps_it(subhost, world):
    one = subhost(NAT="yes", PUBLISH="8080:80")
    assert run(BOOT, "--shell", one.conf, input="exit\n").returncode == 0
    assert settings() == ["1", "1"]
    one.booted()
    with serving(one.name):
        assert asked(OUTSIDE[0], 8080, world) == (one.name, WORLD[0])
    one.stopped()
    is_as_before()


@pytest.mark.parametrize("tail", ["a.b", "a_b", "a@b", 'a"b', "a{;}", "a*?", "a\\b"])
def test_a_name_of_any_character(subhost, tail):
    name = (new_name() + tail)[:12]
    one = subhost(NAME=name, NAT="yes", PUBLISH="8080:80")
    one.name = name
    one.booted()
    assert len([table for table in tables() if table.startswith("inet overlay-boot-")]) == 1
    one.stopped()
    is_as_before()


def test_a_boot_that_fails_later(subhost, fails):
    fails(subhost(NAT="yes", SHARE="/nowhere/x:/x"), "/nowhere/x")
    is_as_before()


# Ports that somebody has

def test_a_port_that_a_process_listens_on(subhost, fails):
    """It is named, and --check says the same."""
    for kind, protocol in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
        with socket.socket(socket.AF_INET, kind) as server:
            server.bind(("127.0.0.1", 8080))
            if protocol == "tcp":
                server.listen()
            one = subhost(PUBLISH=f"8080:80/{protocol}")
            line = fails(one, f"PUBLISH: 8080:80/{protocol}: ", f"(process {os.getpid()})", "listens on port 8080")
            assert fails([BOOT, "--check", one.conf]) == line
    subhost(PUBLISH="8080:80").booted()


LISTENER = """
import socket
server = socket.create_server((%r, 8080))
print("ready", flush=True)
input()
"""


def test_who_listens_on_that_address_is_named(subhost, fails, machine):
    with socket.create_server(("127.0.0.3", 8080)):
        other = start("/usr/bin/python3", "-c", LISTENER % "127.0.0.2", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert other.stdout.readline() == "ready\n"
            machine.look()
            fails(subhost(PUBLISH="127.0.0.2:8080"), f"python3 (process {other.pid}) listens on port 8080")
        finally:
            other.communicate("\n")
        subhost(PUBLISH="127.0.0.2:8080").booted()


@pytest.mark.parametrize(("only", "published", "is_taken"), [
    (0, "8080", True), (0, "127.0.0.1:8080", True), (0, "[::2]:8080", True), (1, "8080", True), (1, "127.0.0.1:8080", False)])
def test_a_port_of_all_addresses(subhost, fails, only, published, is_taken):
    """Of IPv6, or of both."""
    done("ip", "address", "add", "::2/128", "dev", "lo", "nodad")
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        server.bind(("::", 8080))
        server.listen()
        if is_taken:
            fails(subhost(PUBLISH=published), f"(process {os.getpid()}) listens on port 8080")
        else:
            subhost(PUBLISH=published).booted()


def test_a_port_that_has_been_listened_on(subhost):
    """A connection that has just ended is in nobody's way."""
    with socket.create_server(("127.0.0.1", 8080)) as server:
        client = socket.create_connection(("127.0.0.1", 8080))
        connection, _ = server.accept()
        connection.close()
        client.close()
    subhost(PUBLISH="8080").booted()


def test_a_port_that_another_subhost_has(subhost, fails, machine):
    one = subhost(PUBLISH="8080:80 192.0.2.1:53/udp").booted()
    machine.look()
    fails(subhost(PUBLISH="8080"), "PUBLISH: 8080: ", f"the subhost {one.name} has published 8080:80")
    fails(subhost(PUBLISH="53/udp"), f"the subhost {one.name} has published 192.0.2.1:53/udp")
    other = subhost(PUBLISH="192.0.2.7:53/udp 8080/udp").booted()
    assert run(BOOT, "--check", one.conf).returncode == 0
    assert other.is_running()


def test_a_port_of_a_subhost_that_was_killed(subhost, machine):
    """Nobody has it any more.  Its end, late, leaves alone what others need."""
    machine.look()
    one, other = subhost(PUBLISH="8080").booted(), subhost(PUBLISH="8080")
    kill(one.keeper, signal.SIGKILL)
    wait_for(lambda: not tables() - {"ip overlay-boot", "ip6 overlay-boot"})
    other.booted()
    one.stop()
    assert settings() == ["1", "1"] and f"inet overlay-boot-{other.name}" in tables()
    other.stopped()
    is_as_before()
    machine.is_as_before()


def test_many_ports(subhost):
    """More than fit into one message, unless that is asked for."""
    words = [str(number) for number in range(20000, 21000)]
    one = subhost(PUBLISH=" ".join(words)).booted()
    with serving(one.name, 20999):
        assert asked("127.0.0.1", 20999)[0] == one.name
    assert re.findall(r'comment "(.+)"', done("nft", "list", "chain", "inet", f"overlay-boot-{one.name}", "output")) == [
        word for word in words for _ in range(2)]
    one.stopped()
    is_as_before()


@pytest.mark.parametrize("spoiled", ["garbled", "cut"])
def test_a_port_that_a_subhost_with_a_damaged_record_has(subhost, spoiled):
    """The kernel knows.  Nor is forwarding put back while it runs."""
    one, other = subhost(PUBLISH="8080:80 53/udp").booted(), subhost(PUBLISH="8080")
    text = read(one.state)
    with open(one.state, "w") as file:
        file.write(re.sub("(publish|table) .*\n", "\0\n", text) if spoiled == "garbled" else text[:text.index("8080")])
    assert f"PUBLISH: 8080: the subhost {one.name} has published 8080:80" in one_line(other.boot())
    another = subhost(PUBLISH="8081").booted()
    another.stopped()
    assert settings() == ["1", "1"]
    one.stop()
    is_as_before()
    other.booted()


def test_one_of_two_that_boot_at_a_time(subhost):
    several = [subhost(PUBLISH="8080") for _ in range(4)]
    boots = [start(BOOT, one.conf) for one in several]
    assert sorted(boot.wait() for boot in boots) == [0, 1, 1, 1]
    for boot in boots:
        boot.communicate()


WRONG = {
    "0": "65535", "65536": "65535", "x": "65535", "80:": "65535", ":80": "65535", "80:0": "65535", "80/sctp": "/tcp or /udp", "80/": "/tcp or /udp",
    "1.2.3:80": "no IP address", "[x]:80": "no IP address", "[::1]:80": "::1", "80 80/tcp": "same port", "80 192.0.2.1:80": "same port",
    "+80": "65535", "8080:80:80": "65535", "\u0663": "65535",
}


@pytest.mark.parametrize("value", WRONG, ids=ascii)
def test_what_is_wrong_is_found_before_anything_is_made(subhost, fails, value):
    one = subhost(PUBLISH=value)
    line = fails(one, "PUBLISH: ", WRONG[value])
    assert fails([BOOT, "--check", one.conf]) == line
    is_as_before()


def test_what_does_not_go_together(subhost, fails, machine):
    fails(subhost(NAT="maybe"), "NAT=maybe")
    fails(subhost(NAT="yes", ADDRESS="192.0.2.2/24"), "NAT: ", "@GATEWAY")
    fails(subhost(PUBLISH="[2001:db8::1]:80", ADDRESS="192.0.2.2/24@192.0.2.1"), "PUBLISH: [2001:db8::1]:80: ", "no address of that family")
    done("ip", "link", "add", "br0", "type", "bridge")
    machine.look()
    fails(subhost(NAT="yes", CABLES="br0=", ADDRESS="192.0.2.2/24@192.0.2.1"), "NAT: ", "bridge")
    fails(subhost(PUBLISH="80", CABLES="br0="), "ADDRESS: auto: ", "br0")


def test_nft_is_not_needed(subhost, host, world):
    host.hide("/usr/sbin/nft")
    one = subhost(NAT="yes", PUBLISH="8080:80").booted()
    with serving(one.name), serving(world):
        assert asked(OUTSIDE[0], 8080, world) == (one.name, WORLD[0]) and asked(WORLD[1], 80, one.name) == (world, OUTSIDE[1])
    one.stopped()
    assert settings() == ["0", "0"]


def test_a_table_of_somebody_else(subhost, fails):
    """It is told of, and left alone."""
    one = subhost(NAT="yes")
    done("nft", "add", "table", "inet", f"overlay-boot-{one.name}", '{ comment "mine"; }')
    line = fails(one, "NAT: a table inet overlay-boot-", "exists already, and overlay-boot has not made it")
    assert fails([BOOT, "--check", one.conf]) == line
    assert tables() == {f"inet overlay-boot-{one.name}"} and settings() == ["0", "0"]
    done("nft", "delete", "table", "inet", f"overlay-boot-{one.name}")
    done("nft", "add", "table", "ip6", "overlay-boot")
    assert "NAT: a table ip6 overlay-boot of nftables exists already" in one_line(one.boot())
    assert tables() == {"ip6 overlay-boot"} and settings() == ["0", "0"]
    done("nft", "delete", "table", "ip6", "overlay-boot")
    one.booted()
    kill(one.keeper, signal.SIGKILL)
    wait_for(lambda: f"inet overlay-boot-{one.name}" not in tables())
    done("nft", "add", "table", "inet", f"overlay-boot-{one.name}")
    one.stop()
    assert tables() == {f"inet overlay-boot-{one.name}"}


def test_a_table_of_ours_that_is_on_no_record_is_replaced(subhost, world):
    """As from a file that has the ruleset of another day."""
    one = subhost(NAT="yes", PUBLISH="8080:80")
    done("nft", "add", "table", "inet", f"overlay-boot-{one.name}", '{ comment "overlay-boot"; chain prerouting { }; chain x { }; }')
    one.booted()
    with serving(one.name):
        assert asked(OUTSIDE[0], 8080, world) == (one.name, WORLD[0])
    assert "chain x" not in done("nft", "list", "ruleset")
    one.stopped()
    is_as_before()


def test_what_nft_lists_can_be_loaded(subhost):
    one = subhost(NAT="yes", PUBLISH="8080:80 192.0.2.1:53/udp [2001:db8::1]:443")
    assert run(BOOT, "--shell", one.conf, input="exit\n").returncode == 0      # which nobody owns
    listed = done("nft", "list", "ruleset")
    assert listed.count('comment "192.0.2.1:53/udp"') == 2
    done("nft", "flush", "ruleset")
    done("nft", "-f", "-", input=listed)
    assert done("nft", "list", "ruleset") == listed
    one.stopped()
    is_as_before()


def test_the_next_boot_guards_again_after_a_flush(subhost):
    one = subhost(NAT="yes").booted()
    done("nft", "flush", "ruleset")
    other = subhost(NAT="yes").booted()
    assert tables() == {"ip overlay-boot", "ip6 overlay-boot", *(f"inet overlay-boot-{which.name}" for which in (one, other))}
    other.stopped()
    one.stopped()
    is_as_before()


def test_many_at_once(subhost, machine):
    """They boot side by side; then some are killed while the others are stopped, and boot again."""
    machine.look()
    several = [subhost(NAT="yes", PUBLISH=f"{8080 + number}:80") for number in range(10)]
    booting = [start(BOOT, one.conf) for one in several]
    assert [boot.wait() for boot in booting] == [0] * 10
    assert settings() == ["1", "1"] and len(tables()) == 12
    stopping = [start(STOP, one.conf) for one in several[::2]]
    for one in several[1::2]:
        kill(one.keeper, signal.SIGKILL)
    assert [stop.wait() for stop in stopping] == [0] * 5
    assert settings() == ["1", "1"]
    booting = [start(BOOT, one.conf) for one in several[:5]]
    stopping = [start(STOP, one.conf) for one in several[5:]]
    assert [boot.wait() for boot in booting] == [0] * 5
    for process in stopping:
        process.wait()
    assert settings() == ["1", "1"] and len(tables()) == 7
    for one in several:
        one.stop()
    is_as_before()
    machine.is_as_before()


# Rules of others

DROPPING = "table {family} filter {{\n chain FORWARD {{\n type filter hook forward priority filter; policy {policy};\n{rules}\n }}\n}}\n"


@pytest.mark.parametrize("family", ["ip", "inet"])
@pytest.mark.parametrize(("policy", "rules", "told"), [
    ("drop", "", "its policy is drop"), ("drop", 'iifname "docker0" accept;', "its policy is drop"), ("accept", "", ""),
    ("accept", "counter reject;", "its last rule is for all packets"), ("accept", 'iifname "eth9" drop;', ""),
    ("drop", 'iifname "{name}0" accept; oifname "{name}0" accept;', ""), ("drop", 'iifname "{name}*" accept;', "")])
def test_what_others_drop_is_told(subhost, family, policy, rules, told):
    one = subhost(NAT="yes")
    before = DROPPING.format(family=family, policy=policy, rules=rules.format(name=one.name))
    done("nft", "-f", "-", input=before)
    table = done("nft", "list", "table", family, "filter")
    booted = one.boot()
    assert booted.returncode == 0 and booted.stderr.count("\n") == bool(told)
    if told:
        assert f"NAT: the chain FORWARD of the table {family} filter drops" in booted.stderr and told in booted.stderr
    checked = warnings(run(BOOT, "--check", one.conf))
    assert [line for line in checked if "FORWARD" in line] == booted.stderr.splitlines()
    one.stopped()
    assert done("nft", "list", "table", family, "filter") == table


def test_without_nft_the_rules_of_others_are_not_known(subhost, host):
    """Their policies are."""
    done("nft", "-f", "-", input=DROPPING.format(family="ip", policy="drop", rules=""))
    host.hide("/usr/sbin/nft")
    booted = subhost(NAT="yes").boot()
    assert booted.returncode == 0 and "NAT: the chain FORWARD of the table ip filter drops" in booted.stderr


def test_an_nft_that_fails_is_told(subhost, host):
    """What only looks at the rules of others is no reason not to boot."""
    done("nft", "-f", "-", input=DROPPING.format(family="ip", policy="drop", rules=""))
    done("mount", "--bind", "/usr/bin/false", os.path.realpath("/usr/sbin/nft"))
    booted = subhost(NAT="yes").boot()
    assert booted.returncode == 0 and "NAT: what the rules of nftables drop is not known: nft: exit status 1\n" in booted.stderr
    assert "NAT: the chain FORWARD of the table ip filter drops" in booted.stderr


LEGACY = "/usr/sbin/iptables-legacy"
IPT_SO_GET_INFO = 64


def legacy_filter():
    """Have the kernel make the table filter of iptables-legacy(8), which it does once somebody asks about it."""
    info = ctypes.create_string_buffer(b"filter", 84)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
        ctypes.CDLL(None).getsockopt(asking.fileno(), socket.IPPROTO_IP, IPT_SO_GET_INFO, info, ctypes.byref(ctypes.c_int(84)))
    return "filter\n" in read("/proc/self/net/ip_tables_names")


def test_what_iptables_legacy_drops_is_told(subhost, host):
    assert legacy_filter()
    one = subhost(NAT="yes")

    def said():
        booted = one.boot()
        assert booted.returncode == 0
        one.stopped()
        return booted.stderr

    if os.path.exists(LEGACY):
        assert not said()
        done(LEGACY, "-P", "FORWARD", "DROP")
        assert f"NAT: the chain FORWARD of iptables-legacy drops what is forwarded for {one.name}0 (its policy is drop)" in said()
        done(LEGACY, "-A", "FORWARD", "-i", f"{one.name}+", "-j", "ACCEPT")
        assert not said()
        host.hide(LEGACY)
    assert f"NAT: whether the chain FORWARD of iptables-legacy drops what is forwarded is not known: {LEGACY} is not installed" in said()


@pytest.mark.parametrize("published, is_routed", [("8080:80", "1"), ("127.0.0.1:8080:80", "1"), ("192.0.2.1:8080:80", "0")])
def test_loopback_is_routed_only_where_a_port_of_it_is_published(subhost, host, published, is_routed):
    one = subhost(PUBLISH=published).booted()
    assert read(f"/proc/sys/net/ipv4/conf/{one.name}0/route_localnet").strip() == is_routed
