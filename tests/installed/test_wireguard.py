"""WireGuard on a cable, behind the default fences: a tunnel takes no capability and no call that is not there.

Where this kernel has not got it, the tests of this file are run in a fresh machine: tests/support/fresh.py.
"""
import os
import re
import socket

import pytest
from conftest import cannot_run
from fresh import SLOW, Fresh
from machine import TREE, new_name, read, run, write
from network import done, files_of, pings

ALL_PROTOCOLS = 3       # packet(7)
PORT = 51820
PATTERN = "feedfacecafe"


def can_make_tunnels():
    return run("unshare", "-n", "ip", "link", "add", new_name(), "type", "wireguard").returncode == 0


@pytest.mark.deadline(2 * SLOW)
def test_in_a_machine_that_has_wireguard(directory):
    """The tests below, where they cannot be run here."""
    if can_make_tunnels():
        pytest.skip("not needed: this kernel has WireGuard, the tests below are run here")
    machine = Fresh("systemd", "this kernel has no WireGuard")
    machine.test(directory, "wireguard-tools ifupdown iproute2 iputils-ping nftables procps", "test_wireguard.py")


@pytest.fixture
def bridge(host, machine):
    if not can_make_tunnels():
        pytest.skip("not run: this kernel has no WireGuard")
    if run("wg", "--version").returncode:
        cannot_run("there is no wg(8)")
    done("ip", "link", "add", "br0", "type", "bridge")
    done("ip", "link", "set", "br0", "up")
    machine.look()
    return "br0"


class Peer:
    """A subhost on a bridge, with a key of its own."""

    def __init__(self, one, number):
        self.one, self.cabled, self.tunnelled = one.booted(), f"192.0.2.{number}", f"198.51.100.{number}"
        one.sh(f"ip address add {self.cabled}/24 dev eth0; ip link set eth0 up")
        self.key = one.sh("umask 077; wg genkey >/etc/wireguard.key; wg pubkey </etc/wireguard.key")

    def connect(self, other):
        self.one.sh(f"set -e; ip link add wg0 type wireguard; wg set wg0 listen-port {PORT} private-key /etc/wireguard.key "
                    f"peer {other.key} endpoint {other.cabled}:{PORT} allowed-ips {other.tunnelled}/32; "
                    f"ip address add {self.tunnelled}/24 dev wg0; ip link set wg0 up")


def frames(cable):
    """The frames on a cable that have not been looked at."""
    found = []
    try:
        while True:
            found.append(cable.recv(1 << 16))
    except BlockingIOError:
        return found


@pytest.mark.parametrize("users", ["no", "auto"])
def test_a_tunnel_between_two_subhosts(host, subhost, bridge, users):
    one, other = (Peer(subhost(CABLES=f"{bridge}=", USERNS=users), number) for number in (1, 2))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ALL_PROTOCOLS)) as cable:
        cable.bind((f"{one.one.name}0", ALL_PROTOCOLS))
        one.one.sh(f"ping -c 1 -W 20 -p {PATTERN} {other.cabled}")
        assert any(bytes.fromhex(PATTERN) in frame for frame in frames(cable))
        one.connect(other)
        other.connect(one)
        pings(one.one, other.tunnelled)
        one.one.sh(f"ping -c 1 -W 20 -p {PATTERN} {other.tunnelled}")
        seen = frames(cable)
    assert PORT.to_bytes(2, "big") * 2 in b"".join(seen) and not any(bytes.fromhex(PATTERN) in frame for frame in seen)
    for peer in (one, other):
        key, _, since = peer.one.sh("wg show wg0 latest-handshakes").partition("\t")
        assert key == (other if peer is one else one).key and int(since) > 0
        peer.one.stopped()


def test_the_example_works(subhost, bridge):
    """The host itself is the peer, by the port that is published."""
    done("ip", "address", "add", "192.0.2.1/24", "dev", "br0")
    text = read(f"{TREE}/conf-examples/wireguard.conf")
    one = subhost()
    write(one.conf, re.sub("^START=.*", "START= networking", text, flags=re.MULTILINE))
    keys = [done("wg", "genkey").strip() for _ in range(2)]
    public = [done("wg", "pubkey", input=key).strip() for key in keys]
    for path, content in files_of(text).items():
        content = content.replace("PRIVATE-KEY", keys[0]).replace("PUBLIC-KEY-OF-THE-PEER", public[1])
        write(f"{one.base}/{path}", content, 0o600 if "wg0" in path else 0o644)
    os.chmod(f"{one.upper}/etc/wireguard", 0o700)
    one.booted()
    done("ip", "link", "add", "wg9", "type", "wireguard")
    try:
        done("wg", "set", "wg9", "private-key", write(f"{one.base}/key", keys[1], 0o600), "peer", public[0],
             "endpoint", f"192.0.2.1:{PORT}", "allowed-ips", "192.168.11.1/32")
        done("ip", "address", "add", "192.168.11.2/24", "dev", "wg9")
        done("ip", "link", "set", "wg9", "up")
        done("ping", "-c", "1", "-W", "20", "192.168.11.1")
        pings(one, "192.168.11.2")
        one.stopped()
    finally:
        done("ip", "link", "delete", "wg9")
