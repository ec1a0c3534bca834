"""Names: a subhost finds itself, its host, and name servers."""
import os

import pytest
from machine import BOOT, LS, read, run, warnings, write
from network import done

pytestmark = pytest.mark.usefixtures("host")

ADDRESS = "192.0.2.2/24@192.0.2.1 2001:db8::2/64@2001:db8::1"
RESOLVED = "/run/systemd/resolve"


@pytest.fixture
def lower(own_root):
    """A LOWER that has files of /etc, and the host, which has the same ones: lower(path, text)."""
    mounted = []

    def put(name, text):
        other = write(f"{own_root}/etc/{name}", text)
        done("mount", "--bind", other, f"/etc/{name}")
        mounted.append(f"/etc/{name}")
        return own_root

    yield put
    for path in reversed(mounted):
        done("umount", path)


def found(one, name):
    """{address} of a name in its hosts(5)."""
    return {line.split()[0] for line in one.inside("cat", "/etc/hosts").splitlines() if name in line.split()[1:]}


def test_the_name_service(subhost):
    """Over the host's own root."""
    one = subhost(ADDRESS=ADDRESS).booted()
    for name, address in ((one.name, "192.0.2.2"), (os.uname().nodename, "192.0.2.1")):
        assert address in one.inside("getent", "ahosts", name)
    assert one.inside("hostname", "-f") == one.name


@pytest.mark.parametrize("users", ["no", "auto"])
def test_a_subhost_finds_itself_and_its_host(subhost, lower, users):
    host = os.uname().nodename
    root = lower("hosts", f"127.0.0.1 localhost alias # one\n127.0.1.1 {host}.example.org {host}\n::1 localhost ip6-loopback\n198.51.100.9 printer\n")
    one = subhost(ADDRESS=ADDRESS, USERNS=users, LOWER=root).booted()
    assert found(one, one.name) == {"192.0.2.2", "2001:db8::2"}
    assert found(one, host) == found(one, f"{host}.example.org") == {"192.0.2.1"}
    assert found(one, "localhost") == {"127.0.0.1", "::1"}
    assert found(one, "printer") == {"198.51.100.9"} and found(one, "alias") == {"127.0.0.1"}


def test_without_a_network(subhost):
    one = subhost().booted()
    assert found(one, one.name) == {"127.0.1.1"} and one.inside("hostname", "-f") == one.name


def test_a_host_name_of_its_own(subhost):
    one = subhost(ADDRESS=ADDRESS)
    one.write("etc/hostname", "mx.example.org\n")
    one.booted()
    assert found(one, "mx.example.org") == found(one, one.name) == {"192.0.2.2", "2001:db8::2"}


def test_the_host_on_a_bridge(subhost):
    done("ip", "link", "add", "br0", "type", "bridge")
    done("ip", "address", "add", "198.51.100.1/24", "dev", "br0")
    try:
        one = subhost(CABLES="br0=").booted()
        assert found(one, os.uname().nodename) == {"198.51.100.1"}
        one.stopped()
    finally:
        done("ip", "link", "delete", "br0")


def test_it_is_written_again_as_long_as_it_is_ours(subhost):
    one = subhost(ADDRESS=ADDRESS).booted()
    one.stopped()
    one.configure(ADDRESS="192.0.2.3/24@192.0.2.1")
    one.booted()
    assert found(one, one.name) == {"192.0.2.3"}
    one.stopped()
    written = read(f"{one.upper}/etc/hosts")
    one.write("etc/hosts", written.partition("\n")[2] + "192.0.2.99 mine\n")
    one.configure(ADDRESS="192.0.2.4/24@192.0.2.1")
    one.booted()
    assert found(one, one.name) == {"192.0.2.3"} and found(one, "mine") == {"192.0.2.99"}


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
@pytest.mark.parametrize("name", ["hosts", "resolv.conf"])
def test_what_is_in_its_place_stays(subhost, lower, kind, name):
    one = subhost(CABLES="=", LOWER=lower("resolv.conf", "nameserver 127.0.0.53\n"))
    write(f"{RESOLVED}/resolv.conf", "nameserver 198.51.100.53\n")
    place = f"{one.upper}/etc/{name}"
    os.mkdir(f"{one.upper}/etc")
    {"link": lambda: os.symlink("/etc/passwd", place), "pipe": lambda: os.mkfifo(place), "directory": lambda: os.mkdir(place)}[kind]()
    before = os.lstat(place)
    one.booted()
    assert os.lstat(place).st_ino == before.st_ino


def test_a_file_that_is_hidden_is_not_shown(subhost, lower):
    lower("hosts", "127.0.0.1 localhost\n198.51.100.9 secret\n")
    root = lower("resolv.conf", "nameserver 127.0.0.53\n")
    write(f"{RESOLVED}/resolv.conf", "nameserver 198.51.100.53\n")
    one = subhost(CABLES="=", HIDE="/etc/hosts /etc/resolv.conf", LOWER=root).booted()
    assert not found(one, "secret") and found(one, one.name)
    assert not os.path.exists(f"{one.upper}/etc/resolv.conf")


# Name servers

def servers(one):
    """The name servers that it sees."""
    return [line.split()[1] for line in one.go("cat", "/etc/resolv.conf").stdout.splitlines() if line.startswith("nameserver")]


def test_a_server_that_everybody_reaches(subhost, lower):
    one = subhost(CABLES="=", LOWER=lower("resolv.conf", "nameserver 127.0.0.1\nnameserver 198.51.100.53\n")).booted()
    assert not os.path.exists(f"{one.upper}/etc/resolv.conf")


def test_systemd_resolved(subhost, lower):
    root = lower("resolv.conf", "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch example.org\n")
    write(f"{RESOLVED}/resolv.conf", "nameserver 198.51.100.53\nnameserver 2001:db8::53\nsearch other\n")
    one = subhost(CABLES="=", LOWER=root).booted()
    assert servers(one) == ["198.51.100.53", "2001:db8::53"]
    assert "search example.org\n" in read(f"{one.upper}/etc/resolv.conf") and "options edns0\n" in read(f"{one.upper}/etc/resolv.conf")
    assert not [line for line in warnings(run(BOOT, "--check", one.conf)) if "resolv" in line]
    one.stopped()
    write(f"{RESOLVED}/resolv.conf", "nameserver 198.51.100.54\n")
    one.booted()
    assert servers(one) == ["198.51.100.54"]
    one.stopped()
    write(f"{root}/etc/resolv.conf", "nameserver 198.51.100.55\n")
    one.booted()
    assert servers(one) == ["198.51.100.55"] and not os.path.exists(f"{one.upper}/etc/resolv.conf")


def test_a_link_to_run(subhost, own_root):
    """As systemd-resolved has it: it leads nowhere in the subhost."""
    write(f"{own_root}/run/resolv.conf", "nameserver 198.51.100.53\n")
    os.symlink("../run/resolv.conf", f"{own_root}/etc/resolv.conf")
    one = subhost(CABLES="=", LOWER=own_root).booted()
    here = [line.split()[1] for line in read("/etc/resolv.conf").splitlines() if line.startswith("nameserver")]
    assert servers(one) == here


@pytest.mark.parametrize("local", ["0.0.0.0", "::", "0:0:0:0:0:0:0:1", "::FFFF:127.0.0.1", "localhost", "fe80::1%eth0\nnameserver 127.0.0.53"])
def test_other_words_for_the_server_of_the_host(subhost, lower, local):
    """What sends to 0.0.0.0 sends to itself, and a name is ignored: then 127.0.0.1 is asked."""
    write("/run/dnsmasq/resolv.conf", "nameserver 198.51.100.53\n")
    write(f"{RESOLVED}/resolv.conf", "nameserver fe80::1%eth0\nnameserver 198.51.100.53\n")
    one = subhost(CABLES="=", LOWER=lower("resolv.conf", f"nameserver {local}\n")).booted()
    assert servers(one) == ["198.51.100.53"]


def test_a_server_on_a_link_of_the_host(subhost, lower):
    """eth0 of the subhost is another one; and the host asks nobody else."""
    root = lower("resolv.conf", "nameserver fe80::1%eth0\n")
    write("/run/dnsmasq/resolv.conf", "nameserver 198.51.100.53\n")
    one = subhost(CABLES="=", LOWER=root)
    assert any("no names will be resolved" in line for line in warnings(run(BOOT, "--check", one.conf)))
    one.booted().stopped()
    assert not os.path.exists(f"{one.upper}/etc/resolv.conf")
    write(f"{root}/etc/resolv.conf", "nameserver fe80::1%eth0\nnameserver 198.51.100.54\n")
    assert not [line for line in warnings(run(BOOT, "--check", one.conf)) if "resolv" in line]
    assert servers(one.booted()) == ["198.51.100.54"]


@pytest.mark.parametrize(("place", "text"), [
    ("/run/dnsmasq/resolv.conf", "nameserver 127.0.0.1\nnameserver 198.51.100.53\n"),
    ("/run/NetworkManager/no-stub-resolv.conf", "nameserver 198.51.100.53\n"),
    ("/etc/dnsmasq.d/x", "server=/local/192.0.2.7\n# server=192.0.2.8\nserver=127.0.0.1#5353\nserver = 198.51.100.53 # there\nserver=192.0.2.9#5353\n"),
    ("/etc/unbound/unbound.conf.d/x.conf", 'forward-zone:\n    name: "local"\n    forward-addr: 192.0.2.7\nforward-zone:\n'
     '    name: "."\n    forward-addr: 198.51.100.53  # there\n    forward-addr: 192.0.2.8@853#name\n')])
def test_others(subhost, lower, directory, place, text):
    root = lower("resolv.conf", "nameserver 127.0.0.1\n")
    over = f"{directory}/over"
    is_below_etc = place.startswith("/etc/")
    if is_below_etc:                    # nothing is left on the machine
        for made in ("upper", "work"):
            os.makedirs(f"{over}/{made}")
        done("mount", "-t", "overlay", "-o", f"lowerdir=/etc,upperdir={over}/upper,workdir={over}/work", "overlay", "/etc")
    try:
        if is_below_etc:
            write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        write(place, text)
        one = subhost(CABLES="=", LOWER=root).booted()
        assert read(f"{one.upper}/etc/resolv.conf").splitlines()[1:] == ["nameserver 198.51.100.53"]
        one.stopped()
    finally:
        if is_below_etc:
            done("umount", "/etc")


def test_nobody_knows(subhost, lower):
    one = subhost(CABLES="=", LOWER=lower("resolv.conf", "nameserver 127.0.0.1\n"))
    assert any("no names will be resolved" in line for line in warnings(run(BOOT, "--check", one.conf)))
    one.booted()
    assert not os.path.exists(f"{one.upper}/etc/resolv.conf")
    assert not any("no names" in line for line in warnings(run(BOOT, "--check", subhost().conf)))


def test_a_file_that_is_mounted_as_in_a_container(subhost, directory):
    """LOWER has another one, or none, beneath."""
    done("mount", "--bind", write(f"{directory}/x", "nameserver 198.51.100.55\n198.51.100.7 mounted\n"), "/etc/hosts")
    try:
        one = subhost().booted()
        assert not found(one, "mounted") and found(one, one.name)
        one.stopped()
    finally:
        done("umount", "/etc/hosts")


def test_hosts_of_all_that_run(subhost):
    one, other = subhost(ADDRESS=ADDRESS).booted(), subhost(CABLES="=").booted()
    assert f"192.0.2.2\t{one.name}\n2001:db8::2\t{one.name}\n" == run(LS, "--hosts").stdout
    assert other.is_running()
    assert run(LS, "--hosts", "--json").returncode == 2
