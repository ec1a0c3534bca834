"""VLANs on cables: made as asked for, with tagged frames on the cable, and gone with the subhost.

What of them needs no kernel that has 802.1Q is in test_cables.py.  Where this kernel has not got it, the tests of this
file are run in a fresh machine: tests/support/fresh.py.
"""
import contextlib
import signal
import socket
import struct

import pytest
from fresh import SLOW, Fresh
from machine import BOOT, LS, STOP, is_alive, kill, new_name, one_line, read, run, start, wait_for
from network import Host, Monitor, addresses, can_make_vlans, done, is_up, links, pings

MAC = "06:20:03:4e:a6:f2"
ALL_PROTOCOLS = 3                           # packet(7)
PACKET_AUXDATA, VLAN_VALID = 8, 1 << 4      # linux/if_packet.h
STATIC = "iface {name} inet static\n    address {address}/24\n"


@pytest.mark.deadline(2 * SLOW)
def test_in_a_machine_that_has_vlans(directory):
    """The tests below, where they cannot be run here."""
    with Host(directory):
        if can_make_vlans():
            pytest.skip("not needed: this kernel has 802.1Q, the tests below are run here")
    machine = Fresh("systemd", "this kernel has no 802.1Q")
    machine.test(directory, "ifupdown iproute2 iputils-ping nftables procps", "-k vlan test_vlan.py test_cables.py")


@pytest.fixture
def host(host):
    """Is asked for first: all else of the test is there."""
    if not can_make_vlans():
        pytest.skip("not run: this kernel has no 802.1Q")
    return host


@pytest.fixture
def bridge(machine):
    made = []

    def make(name="br0"):
        done("ip", "link", "add", name, "type", "bridge")
        done("ip", "link", "set", name, "up")
        made.append(name)
        machine.look()

    yield make
    for name in made:
        done("ip", "link", "delete", name)


def vlan(link):
    """(the interface that it is on, its tag) of a VLAN."""
    assert link["linkinfo"]["info_kind"] == "vlan" and link["linkinfo"]["info_data"]["protocol"] == "802.1Q"
    return link["link"], link["linkinfo"]["info_data"]["id"]


# What is made

def test_a_vlan_on_a_cable(host, subhost):
    one = subhost(CABLES="= =.302").booted()
    outside = links()
    assert vlan(outside[f"{one.name}0.302"]) == (f"{one.name}0", 302)
    assert is_up(outside[f"{one.name}0"]) and is_up(outside[f"{one.name}0.302"]) and "master" not in outside[f"{one.name}0.302"]
    assert set(links(one.name)) == {"lo", "eth0"}


@pytest.mark.parametrize("carrier", ["", "br0"])
def test_a_vlan_to_a_bridge(host, subhost, bridge, carrier):
    """The cable itself may be plain, or a port of another bridge."""
    bridge("br0")
    bridge("br1")
    one = subhost(CABLES=f"{carrier}={MAC} br1=.5").booted()
    outside = links()
    assert vlan(outside[f"{one.name}0.5"]) == (f"{one.name}0", 5)
    assert outside[f"{one.name}0.5"]["master"] == "br1" and outside[f"{one.name}0"].get("master") == (carrier or None)
    assert is_up(outside[f"{one.name}0.5"]) and is_up(outside[f"{one.name}0"])


def test_vlans_do_not_count(host, subhost):
    """Each is on the nearest cable before it; the numbers are those of cables."""
    one = subhost(CABLES=f"= =.1 =.4094 ={MAC} =.07 = =.7").booted()
    outside = links()
    assert {name: vlan(link) for name, link in outside.items() if "." in name} == {
        f"{one.name}{number}.{tag}": (f"{one.name}{number}", tag) for number, tag in ((0, 1), (0, 4094), (1, 7), (2, 7))}
    assert set(links(one.name)) == {"lo", "eth0", "eth1", "eth2"} and links(one.name)["eth1"]["address"] == MAC


def test_a_name_of_15_characters(host, subhost):
    name = new_name().ljust(11, "x")
    one = subhost(NAME=name, CABLES="= =.23")
    one.name = name
    one.booted()
    assert vlan(links()[f"{name}0.23"]) == (f"{name}0", 23)


def test_nothing_is_inside_the_host_first(host, subhost, bridge):
    bridge()
    one = subhost(CABLES="= =.3 br0=.4")
    monitor = Monitor()
    one.booted()
    one.stopped()
    assert monitor.names() == {"br0", f"{one.name}0", f"{one.name}0.3", f"{one.name}0.4"}


def test_an_interface_that_is_a_vlan_is_no_bridge(host, subhost, bridge, fails, machine):
    bridge()
    done("ip", "link", "add", "link", "br0", "name", "br0.5", "type", "vlan", "id", "5")
    machine.look()
    one = subhost(CABLES="br0.5=")
    assert "br0.5 is not a bridge" in fails(one, "CABLES: br0.5=: ") == fails([BOOT, "--check", one.conf])


def test_overlay_ls_tells_of_vlans(host, subhost, bridge):
    bridge()
    one = subhost(CABLES=f"={MAC} br0=.5 =.6").booted()
    assert [(cable["name"], cable["bridge"], cable["inside"], cable["addresses"]) for cable in one.row()["cables"]] == [
        (f"{one.name}0", None, "eth0", []), (f"{one.name}0.5", "br0", None, []), (f"{one.name}0.6", None, None, [])]
    assert f" br0={one.name}0.5" in run(LS).stdout


def test_check(host, subhost, bridge):
    bridge()
    one = subhost(CABLES="= br0=.5")
    assert run(BOOT, "--check", one.conf).returncode == 0
    one.booted()
    assert run(BOOT, "--check", one.conf).returncode == 0


# Traffic

class Capture:
    """The tags of the IPv4 packets that an interface has in either direction: None for those without."""

    def __init__(self, interface):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ALL_PROTOCOLS))
        self.socket.setsockopt(263, PACKET_AUXDATA, 1)      # SOL_PACKET
        self.socket.bind((interface, ALL_PROTOCOLS))

    def tags(self):
        found = set()
        try:
            while True:
                data, ancillary, _, sender = self.socket.recvmsg(1 << 16, 1 << 10)
                status, _, _, _, _, tag, _ = struct.unpack("IIIHHHH", ancillary[0][2])
                tag = tag & 0xfff if status & VLAN_VALID else None
                if sender[1] == 0x8100:                     # the tag is still in the frame
                    tag, data = struct.unpack_from(">H", data)[0] & 0xfff, data[4:]
                if data[0] >> 4 == 4:
                    found.add(tag)
        except BlockingIOError:
            return found


INSIDE = "auto lo eth0 eth0.302\niface lo inet loopback\niface eth0 inet manual\n" + STATIC.format(name="eth0.302", address="192.0.2.2")


def test_tagged_frames_are_on_the_cable(host, subhost):
    """Both ends configured by ifupdown, with the VLAN inside made by the subhost's own."""
    one = subhost(CABLES="= =.302", START="networking")
    one.write("etc/network/interfaces", INSIDE)
    host.stanzas("x", STATIC.format(name=f"{one.name}0.302", address="192.0.2.1"))
    one.booted()
    assert addresses(links()[f"{one.name}0.302"]) == ["192.0.2.1/24"]
    carrier, inside = Capture(f"{one.name}0"), Capture(f"{one.name}0.302")
    pings(one, "192.0.2.1")
    done("ping", "-c", "1", "-W", "5", "192.0.2.2")
    assert carrier.tags() == {302}
    assert inside.tags() == {None}
    assert "eth0.302" in links(one.name)


def test_two_subhosts_in_a_vlan_of_a_bridge(host, subhost, bridge):
    """One has the VLAN on its cable, the other is on the bridge of that VLAN: what is untagged goes another way."""
    bridge("br0")
    bridge("br302")
    one = subhost(CABLES="br0= br302=.302", START="networking")
    one.write("etc/network/interfaces", INSIDE.replace("iface eth0 inet manual\n", STATIC.format(name="eth0", address="198.51.100.2")))
    one.booted()
    others = []
    for name, address in (("br302", "192.0.2.3"), ("br0", "198.51.100.3")):
        other = subhost(CABLES=f"{name}=", START="networking")
        other.write("etc/network/interfaces", f"auto lo eth0\niface lo inet loopback\n{STATIC.format(name='eth0', address=address)}")
        others.append(other.booted())
    carrier = Capture(f"{one.name}0")
    pings(one, "192.0.2.3")
    assert 302 in carrier.tags()
    pings(others[1], "198.51.100.2")
    assert carrier.tags() == {None}
    assert others[1].go("ping", "-c", "1", "-W", "1", "192.0.2.2").returncode != 0


@pytest.mark.parametrize("own, other, expected", [("br0", 1400, (1500, 1400)), ("br0", 9000, (1500, 1500)), ("", 9000, (9000, 9000))])
def test_a_vlan_has_the_mtu_of_its_bridge(host, subhost, bridge, own, other, expected):
    """As far as the cable has it, which without a bridge of its own has that of the VLAN's."""
    bridge("br0")
    bridge("br302")
    done("ip", "link", "set", "br302", "mtu", str(other))
    one = subhost(CABLES=f"{own}= br302=.302").booted()
    outside = links()
    assert (outside[f"{one.name}0"]["mtu"], outside[f"{one.name}0.302"]["mtu"]) == expected


# ifupdown, and the end

def with_stanzas(one, host):
    host.stanzas("x", STATIC.format(name=f"{one.name}0", address="192.0.2.1")
                 + STATIC.format(name=f"{one.name}0.302", address="198.51.100.1"))
    return one


def is_configured(one):
    outside = links()
    assert addresses(outside[f"{one.name}0"]) == ["192.0.2.1/24"] and addresses(outside[f"{one.name}0.302"]) == ["198.51.100.1/24"]
    assert is_up(outside[f"{one.name}0.302"])


def test_boot_after_boot(host, subhost, machine):
    """1.6.4 cannot: ifupdown remembers the VLAN of the first."""
    one = with_stanzas(subhost(CABLES="= =.302"), host)
    for _ in range(3):
        one.booted()
        is_configured(one)
        assert host.is_remembered(f"{one.name}0.302")
        one.stopped()
        machine.is_as_before()
        assert not host.is_remembered(f"{one.name}0") and not host.is_remembered(f"{one.name}0.302")


def test_only_the_vlan_has_a_stanza(host, subhost):
    one = subhost(CABLES="= =.302")
    host.stanzas("x", STATIC.format(name=f"{one.name}0.302", address="198.51.100.1"))
    one.booted()
    assert addresses(links()[f"{one.name}0.302"]) == ["198.51.100.1/24"] and host.is_remembered(f"{one.name}0.302")
    one.stopped()
    assert not host.is_remembered(f"{one.name}0.302")


def test_dead_vlans_that_ifupdown_remembers(host, subhost):
    one = with_stanzas(subhost(CABLES="= =.302"), host)
    host.remember(f"{one.name}0")
    host.remember(f"{one.name}0.302")
    one.booted()
    is_configured(one)


@pytest.mark.parametrize("victims", ["keeper", "init"])
def test_a_subhost_is_killed(host, subhost, machine, victims):
    one = with_stanzas(subhost(CABLES="= =.302"), host).booted()
    init = one.init
    kill(getattr(one, victims), signal.SIGKILL)
    if victims == "init":
        wait_for(one.is_gone)
    else:
        wait_for(lambda: not is_alive(init))
        one.booted()
        is_configured(one)
        one.stopped()
    machine.is_as_before()
    assert not host.is_remembered(f"{one.name}0") and not host.is_remembered(f"{one.name}0.302")


def test_vlans_that_outlive_the_subhost(host, subhost, machine):
    """Somebody on the host is in its network namespace still."""
    one = subhost(CABLES="= =.302").booted()
    guest = start("ip", "netns", "exec", one.name, "sleep", "1000")
    wait_for(lambda: read(f"/proc/{guest.pid}/comm") == "sleep\n")
    try:
        one.stopped()
        assert not [name for name in links() if name.startswith(one.name)]
    finally:
        guest.kill()
        guest.communicate()
    machine.is_as_before()


def test_killed_while_vlans_are_made(host, subhost, machine):
    one = subhost(CABLES="= =.1 =.2 =.3 =.4 = =.5")
    for step in range(9):
        boot = start(BOOT, one.conf)
        with contextlib.suppress(AssertionError):       # it had ended before we looked
            wait_for(lambda step=step: read(one.state).count(f"{one.name}0") > step % 6, 5)
        kill(boot.pid, signal.SIGKILL)
        boot.communicate()
        stopped = run(STOP, one.conf)
        assert stopped.returncode == 0 or one_line(stopped).endswith("is not running")
        machine.is_as_before()
        assert not [name for name in links() if name.startswith(one.name)]
