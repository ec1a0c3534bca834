"""ADDRESS: set by the boot itself at both ends of a cable, stable where it is chosen, and second to interfaces(5)."""
import json
import os
import signal
import socket
import struct
import time

import pytest
from machine import BOOT, is_alive, kill, one_line, read, run, start, wait_for, warnings
from network import addresses, done, is_up, links, pings, within

pytestmark = pytest.mark.usefixtures("host")

NEAR = "192.0.2.1/24", "2001:db8::1/64"
FAR = "192.0.2.2/24", "2001:db8::2/64"
BOTH = "192.0.2.2/24@192.0.2.1 2001:db8::2/64@2001:db8::1"


def routes(name, *family):
    return json.loads(done("ip", "-n", name, "-json", *family, "route", "show", "default") or "[]")


def ways_out(name):
    return [route["gateway"] for family in ("-4", "-6") for route in routes(name, family)]


@pytest.fixture
def bridge(machine):
    done("ip", "link", "add", "br0", "type", "bridge")
    done("ip", "address", "add", "192.0.2.1/24", "dev", "br0")
    done("ip", "link", "set", "br0", "up")
    machine.look()
    yield
    done("ip", "link", "delete", "br0")


@pytest.mark.parametrize("users", ["no", "auto"])
def test_both_ends(subhost, machine, users):
    """There is one cable, without CABLES; and nothing else is needed, in any root."""
    one = subhost(ADDRESS=BOTH, USERNS=users).booted()
    outside, inside = links()[f"{one.name}0"], links(one.name)["eth0"]
    assert addresses(outside) == [*NEAR] and addresses(inside) == [*FAR]
    assert is_up(outside) and is_up(inside)
    assert not any("tentative" in address for link in (outside, inside) for address in link["addr_info"] if address["scope"] != "link")
    assert ways_out(one.name) == ["192.0.2.1", "2001:db8::1"]
    pings(one, "192.0.2.1")
    pings(one, "2001:db8::1")
    one.stopped()
    machine.is_as_before()


def test_it_is_set_before_pid_1_is_executed(subhost):
    one = subhost(ADDRESS=BOTH)
    one.configure(ADDRESS=BOTH, INIT=one.init_text("ip -brief address show >/addresses; ip route >>/addresses; mv /addresses /seen; exec /.reaper x /run/dummy_service\n"))
    one.booted()
    seen = wait_for(lambda: read(f"{one.upper}/seen"))
    assert all(address in seen for address in FAR) and "default via 192.0.2.1" in seen


def test_a_hook_finds_it(subhost):
    one = subhost(ADDRESS=BOTH, PREMOUNT="./premount")
    one.script("premount", 'ip netns exec "$NAME" ip -brief address >inside; ip -brief address >outside; echo "$ADDRESS$CABLES" >told; exec overlay-premount\n')
    one.booted()
    assert all(address in read(f"{one.base}/inside") for address in FAR)
    assert all(address in read(f"{one.base}/outside") for address in NEAR)
    assert read(f"{one.base}/told") == f"{BOTH}=\n"


def test_a_root_without_any_program_for_networks(subhost, own_root):
    one = subhost(ADDRESS=BOTH, UPPER=own_root, LOWER=own_root, WORK=None).booted()
    assert addresses(links(one.name)["eth0"]) == [*FAR]


def test_without_a_gateway(subhost):
    one = subhost(ADDRESS="192.0.2.2/24").booted()
    assert addresses(links()[f"{one.name}0"]) == [] and addresses(links(one.name)["eth0"]) == ["192.0.2.2/24"]
    assert ways_out(one.name) == []


def test_gateways_that_are_no_neighbours(subhost):
    """A single address, and a gateway anywhere: routed, as addresses of a provider are."""
    one = subhost(ADDRESS="198.51.100.7/32@192.0.2.1 2001:db8:1::7/128@fe80::1").booted()
    assert addresses(links()[f"{one.name}0"]) == ["192.0.2.1/32"]
    assert ways_out(one.name) == ["192.0.2.1", "fe80::1"]
    pings(one, "192.0.2.1")
    for address in ("198.51.100.7", "2001:db8:1::7"):
        done("ping", "-c", "1", "-W", "2", address)


def test_on_a_bridge_the_gateway_is_somebody_else(subhost, bridge):
    one = subhost(CABLES="br0= =", ADDRESS="192.0.2.2/24@192.0.2.1 eth1:198.51.100.2/24").booted()
    assert addresses(links()[f"{one.name}0"]) == addresses(links()[f"{one.name}1"]) == []
    assert addresses(links(one.name)["eth0"]) == ["192.0.2.2/24"] and addresses(links(one.name)["eth1"]) == ["198.51.100.2/24"]
    pings(one, "192.0.2.1")


def test_it_is_there_after_hibernation(subhost):
    one = subhost(ADDRESS=BOTH)
    assert run(BOOT, "--shell", one.conf, input="exit\n").returncode == 0
    one.booted()
    assert addresses(links(one.name)["eth0"]) == [*FAR] and ways_out(one.name) == ["192.0.2.1", "2001:db8::1"]


# Chosen

def chosen(one):
    return one.booted() and (addresses(links()[f"{one.name}0"]), addresses(links(one.name)["eth0"]))


ADVERTISEMENT = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)        # RFC 4861: a default router


def advertise(name):
    """Have root of a subhost announce a router to its host.  Return whether the host has a route by it then."""
    wait_for(lambda: " fe80" in done("ip", "-n", name, "address", "show", "dev", "eth0", "scope", "link", "-tentative"))
    with within(name):
        router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("eth0")
    with router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for _ in range(5):
            router.sendto(ADVERTISEMENT, ("ff02::1", 0, 0, index))
            time.sleep(0.1)
            if done("ip", "-6", "route", "show", "default"):
                return True
    return False


@pytest.mark.parametrize("settings", [{"CABLES": "="}, {"NAT": "yes"}])
def test_a_subhost_is_no_router_of_its_host(subhost, settings):
    """Also where the host forwards packets, for this one or another."""
    one, other = subhost(**settings).booted(), subhost(NAT="yes").booted()
    done("ip", "-n", one.name, "link", "set", "eth0", "up")
    assert not advertise(one.name)
    with open(f"/proc/sys/net/ipv6/conf/{one.name}0/accept_ra", "w") as file:
        file.write("2")
    assert advertise(one.name)          # else this would prove nothing
    assert other.is_running()


def test_auto(subhost):
    """The same one each time, another one for each, and both lead to the host."""
    one, other = subhost(ADDRESS="auto"), subhost(ADDRESS="auto")
    outside, inside = chosen(one)
    assert [address.partition("/")[2] for address in (*outside, *inside)] == ["30", "64", "30", "64"]
    assert inside[0].startswith("10.231.") and inside[1].startswith("fd")
    for address in outside:
        pings(one, address.partition("/")[0])
    assert not {*chosen(other)[1]} & {*inside}
    one.stopped()
    assert chosen(one) == (outside, inside)


def test_auto_leaves_out_what_the_host_has(subhost, bridge):
    one = subhost(ADDRESS="auto", ADDRESS_POOL="10.9.0.0/29")
    _, inside = chosen(one)
    one.stopped()
    own = inside[0]
    done("ip", "address", "add", own, "dev", "br0")
    assert chosen(one)[1] != [own]
    one.stopped()
    done("ip", "route", "add", "10.9.0.0/29", "via", "192.0.2.9")
    line = one_line(one.boot())
    assert "10.9.0.0/29" in line and "ADDRESS_POOL" in line


def test_auto_of_a_large_pool_of_which_most_is_taken(subhost, bridge):
    """One that is tried prefix by prefix takes longer than anybody lives."""
    one = subhost(ADDRESS="auto", ADDRESS_POOL="fd00::/8")
    done("ip", "route", "add", "fd00::/9", "dev", "br0")
    assert chosen(one)[1][0] >= "fd80"
    one.stopped()
    done("ip", "route", "add", "fd80::/9", "dev", "br0")
    assert "nothing is left of fd00::/8" in one_line(one.boot())


def test_auto_of_many_that_boot_at_a_time(subhost):
    """As many as the pool has; the next one is refused."""
    several = [subhost(ADDRESS="auto", ADDRESS_POOL="10.9.0.0/28") for _ in range(5)]
    boots = [start(BOOT, one.conf) for one in several]
    failed = [boot.communicate()[1].decode() for boot in boots if boot.wait()]
    assert len(failed) == 1 and "10.9.0.0/28" in failed[0]
    found = [addresses(links(one.name)["eth0"])[0] for one in several if one.is_running()]
    assert len({*found}) == 4


def test_the_pool_of_the_site(subhost, site_wide):
    site_wide("ADDRESS_POOL= 10.77.0.0/16")
    _, inside = chosen(subhost(ADDRESS="auto"))
    assert len(inside) == 1 and inside[0].startswith("10.77.")


# interfaces(5)

def test_the_file_that_premount_writes(subhost):
    """networking finds nothing to do, and takes nothing down."""
    one = subhost(CABLES="= =", ADDRESS=BOTH, START="networking")
    assert one.boot().stderr == "overlay-boot: CABLES: eth1 has no address: etc/network/interfaces is as overlay-premount writes it\n"
    one.inside("service", "networking", "restart")
    assert addresses(links(one.name)["eth0"]) == [*FAR] and ways_out(one.name) == ["192.0.2.1", "2001:db8::1"]
    text = read(f"{one.upper}/etc/network/interfaces")
    assert "iface eth0 inet manual" in text and "auto eth0" not in text and "auto eth1" in text


def test_the_file_of_the_subhost_counts(subhost):
    one = subhost(ADDRESS=BOTH, START="networking")
    one.write("etc/network/interfaces", "auto lo eth0\niface lo inet loopback\niface eth0 inet static\n    address 192.0.2.77/24\n")
    assert any("ADDRESS: 192.0.2.2/24@192.0.2.1 is not set" in line for line in warnings(run(BOOT, "--check", one.conf)))
    booted = one.boot()
    assert booted.returncode == 0 and booted.stderr.count("\n") == 1 and "192.0.2.2/24@192.0.2.1 is not set" in booted.stderr
    assert {*addresses(links(one.name)["eth0"])} == {FAR[1], "192.0.2.77/24"}


def test_without_networking_the_file_does_not(subhost):
    one = subhost(ADDRESS=BOTH)
    one.write("etc/network/interfaces", "auto eth0\niface eth0 inet static\n    address 192.0.2.77/24\n")
    one.booted()
    assert addresses(links(one.name)["eth0"]) == [*FAR]


def test_the_file_of_the_host_counts(subhost, host):
    one = subhost(ADDRESS=BOTH)
    host.stanzas("x", f"iface {one.name}0 inet static\n    address 192.0.2.9/24\n")
    booted = one.boot()
    assert booted.returncode == 0 and booted.stderr.count("\n") == 1
    assert f"192.0.2.2/24@192.0.2.1: {one.name}0 has 192.0.2.9" in booted.stderr
    assert addresses(links()[f"{one.name}0"]) == ["192.0.2.9/24", NEAR[1]]


# What is wrong

WRONG = {
    "192.0.2.2": "/LENGTH", "192.0.2.2/0": "1 to 32", "192.0.2.2/33": "1 to 32", "2001:db8::2/129": "1 to 128", "192.0.2.2/+4": "1 to 32",
    "192.0.2/24": "no IP address", "/24": "no IP address", "192.0.2.2/24@": "no IP address", "192.0.2.02/24": "no IP address",
    "192.0.2.2/24@x": "no IP address", "fe80::1%eth0/64": "no IP address", "192.0.2.2/24@192.0.2.2": "the same address",
    "192.0.2.2/24@2001:db8::1": "family", "eth1:192.0.2.2/24": "no eth1", "eth:192.0.2.2/24": "no eth", "auto 192.0.2.2/24": "alone",
    "192.0.2.2/24 auto": "alone", "eth0:auto": "alone", "192.0.2.0/24": "whole network", "192.0.2.255/24": "whole network",
    "192.0.2.2/24@192.0.2.255": "whole network", "127.0.0.2/8": "no interface", "224.0.0.1/4": "no interface", "0.0.0.0/8": "no interface",
    "::1/128": "no interface", "::/64": "no interface", "ff02::1/64": "no interface", "192.0.2.2/24 192.0.2.2/25": "twice",
    "192.0.2.2/24@192.0.2.1 192.0.3.2/24@192.0.3.1": "gateway of the same family", "192.0.2.\udcff/24": "no IP address",
}


@pytest.mark.parametrize("value", WRONG, ids=ascii)
def test_what_is_wrong_is_found_before_anything_is_made(subhost, fails, value):
    one = subhost(ADDRESS=value)
    line = fails(one, "ADDRESS: ", WRONG[value])
    assert fails([BOOT, "--check", one.conf]) == line
    assert os.listdir(one.upper) == []


@pytest.mark.parametrize("pool", ["10.9.0.1/24", "10.9.0.0/31", "fd00::/65", "10.9.0.0/24 10.10.0.0/24", "ula fd00::/48", "10.9.0.0", "x"])
def test_a_pool_that_is_none(subhost, fails, pool):
    line = fails(subhost(ADDRESS="auto", ADDRESS_POOL=pool), "ADDRESS_POOL: ")
    assert pool.split()[-1] in line


def test_auto_is_not_for_a_bridge(subhost, fails, bridge):
    fails(subhost(CABLES="br0=", ADDRESS="auto"), "ADDRESS: auto: ", "br0")


def test_a_gateway_that_the_host_has_already(subhost, fails, bridge):
    """It is told which interface has it; and in a running subhost, that is its own."""
    fails(subhost(ADDRESS=BOTH), "192.0.2.2/24@192.0.2.1: ", "br0")
    one = subhost(ADDRESS="198.51.100.2/24@198.51.100.1").booted()
    assert run(BOOT, "--check", one.conf).returncode == 0
    other = subhost(ADDRESS="198.51.100.3/24@198.51.100.1")
    assert f" {one.name}0 " in one_line(other.boot())


def test_an_address_that_the_host_has_already(subhost, fails, bridge):
    """On a bridge, only that of the bridge can be known for the same."""
    for settings in ({"ADDRESS": "192.0.2.1/24"}, {"ADDRESS": "192.0.2.1/24@192.0.2.9"}, {"CABLES": "br0=", "ADDRESS": "192.0.2.1/24"}):
        one = subhost(**settings)
        line = fails(one, f"ADDRESS: {settings['ADDRESS']}: br0 of the host has this address already")
        assert fails([BOOT, "--check", one.conf]) == line
    done("ip", "address", "add", "198.51.100.1/24", "dev", "lo")
    subhost(CABLES="br0=", ADDRESS="198.51.100.1/24").booted()


def test_an_address_that_another_subhost_has_already(subhost, bridge):
    """Booted, or hibernating: not one on another bridge, nor one that was killed."""
    one = subhost(ADDRESS=BOTH.replace("0.2.1", "0.2.9").replace(":1", ":9"))
    assert run(BOOT, "--shell", one.conf, input="exit\n").returncode == 0
    other = subhost(ADDRESS="2001:db8::2/64")
    for _ in range(2):
        for command in ([BOOT, other.conf], [BOOT, "--check", other.conf]):
            assert one_line(run(*command)) == f"overlay-boot: ADDRESS: 2001:db8::2/64: the subhost {one.name} has this address already"
        if not one.is_running():
            one.booted()
    assert run(BOOT, "--check", one.conf).returncode == 0
    bridged = subhost(CABLES="br0=", ADDRESS="192.0.2.2/24").booted()
    another = subhost(CABLES="= br0=", ADDRESS="eth1:192.0.2.2/24")
    assert f" the subhost {bridged.name} " in one_line(another.boot())
    init = bridged.init
    kill(bridged.keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    another.booted()


def test_one_address_of_many_that_boot_at_a_time(subhost):
    several = [subhost(ADDRESS="192.0.2.2/24") for _ in range(4)]
    boots = [start(BOOT, one.conf) for one in several]
    said = [boot.communicate()[1].decode() for boot in boots]
    assert sorted(boot.returncode for boot in boots) == [0, 1, 1, 1] and sum(text.count(" has this address already") for text in said) == 3


def test_an_address_that_the_kernel_refuses(subhost, machine):
    """IPv6 is off on the host: all is undone."""
    with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
        file.write("1")
    assert "ADDRESS: 2001:db8::2/64@2001:db8::1: " in one_line(subhost(ADDRESS=BOTH).boot())
    machine.is_as_before()
    _, inside = chosen(subhost(ADDRESS="auto"))
    assert len(inside) == 1
