"""Cables: made as asked for, refused as a whole, gone with the subhost; and real traffic through them."""
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import struct

import pytest
from conftest import cannot_run
from machine import (BOOT, GO, LOGS, LS, MODULES, NETNS, PATIENCE, PYTHON, STOP, TREE, control_group, is_alive, kill, namespaces, new_name,
                     one_line, ours, processes, read, run, start, wait_for, warnings, write)
from network import Monitor, addresses, bridges, can_make_vlans, done, files_of, is_up, links, listed_without_pyroute2, pings, static, within

from overlay_boot import cables as module_cables
from overlay_boot import links as native

pytestmark = pytest.mark.usefixtures("host")

MAC = "06:20:03:4e:a6:f2"


@pytest.fixture
def interface(machine):
    """Makes interfaces on the host, for the time of the test: interface(name, ARGUMENT of ip link add, ...)."""
    made = []

    def make(name, *how):
        done("ip", "link", "add", name, *(how or ("type", "bridge")))      # not every kernel has dummy
        done("ip", "link", "set", name, "up")
        made.append(name)
        machine.look()
        return name

    yield make
    for name in made:
        run("ip", "link", "delete", name)


def state(name):
    """What somebody could have changed of an interface of the host."""
    link = links()[name]
    return link["ifindex"], link["flags"], link.get("master"), addresses(link)


@pytest.fixture
def bridge(interface):
    return lambda name="br0": interface(name, "type", "bridge")


# A stanza of the host's ifupdown
STATIC = "iface {name}0 inet static\n    address 192.0.2.1/24\n"
STATIC_TWICE = STATIC + "iface {name}0 inet6 static\n    address 2001:db8::1/64\n    dad-attempts 0\n"


def with_stanza(one, host, text=STATIC):
    host.stanzas("x", text.format(name=one.name, base=one.base))
    return one


# What is made of a specifier

def test_a_plain_cable(subhost):
    one = subhost(CABLES="=").booted()
    outside, inside = links()[f"{one.name}0"], links(one.name)["eth0"]
    assert is_up(outside) and "master" not in outside
    assert outside["linkinfo"]["info_kind"] == inside["linkinfo"]["info_kind"] == "veth"
    assert outside["link_index"] == inside["ifindex"] and inside["link_index"] == outside["ifindex"]
    assert set(links(one.name)) == {"lo", "eth0"}


def test_what_is_inside_is_left_to_the_subhost(subhost):
    one = subhost(CABLES="= =").booted()
    inside = links(one.name)
    assert is_up(inside["lo"]) and addresses(inside["lo"]) == ["127.0.0.1/8", "::1/128"]
    for name in ("eth0", "eth1"):
        assert not is_up(inside[name]) and inside[name]["addr_info"] == []


@pytest.mark.parametrize("mac", [MAC, MAC.upper(), "02:00:00:00:00:01"])
def test_a_cable_with_an_address(subhost, mac):
    """It is the far end's, and the same at each boot."""
    one = subhost(CABLES=f"={mac}")
    for _ in range(2):
        one.booted()
        assert links(one.name)["eth0"]["address"] == mac.lower()
        assert links()[f"{one.name}0"]["address"] != mac.lower()
        one.stopped()


def both_ends(one, number=0):
    return links()[f"{one.name}{number}"], links(one.name)[f"eth{number}"]


def addresses_of(one):
    """The hardware addresses of a subhost with two cables, booted for the purpose."""
    one.booted()
    found = [end["address"] for number in range(2) for end in both_ends(one, number)]
    one.stopped()
    return found


def test_without_an_address_it_is_the_same_one_each_time(subhost):
    one = subhost(CABLES="= =")
    found = addresses_of(one)
    assert addresses_of(one) == found
    others = addresses_of(subhost(CABLES="= ="))
    assert len({*found, *others}) == 8
    assert all(address[:2] == ("fe", "02")[number % 2] for number, address in enumerate(found))


@pytest.mark.parametrize("machine_id", ["", "0" * 32 + "\n"])
def test_the_address_is_that_of_the_host(subhost, tmp_path, machine_id):
    """Without a machine ID, it is another one each time."""
    one = subhost(CABLES="= =")
    own = addresses_of(one)
    other = tmp_path / "machine-id"
    other.write_text(machine_id)
    done("mount", "--bind", str(other), "/etc/machine-id")
    try:
        found = addresses_of(one)
        assert not {*own} & {*found}
        assert (addresses_of(one) == found) == bool(machine_id)
    finally:
        run("umount", "/etc/machine-id")


@pytest.mark.parametrize("mtu", [1400, 1500, 9000])
def test_a_cable_has_the_mtu_of_its_bridge(subhost, bridge, mtu):
    bridge()
    done("ip", "link", "set", "br0", "mtu", str(mtu))
    one = subhost(CABLES="br0= =").booted()
    assert [end["mtu"] for number in range(2) for end in both_ends(one, number)] == [mtu, mtu, 1500, 1500]
    assert links()["br0"]["mtu"] == mtu


def test_a_bridge_that_takes_its_mtu_from_a_port_keeps_it(subhost, bridge, interface):
    bridge()
    interface("port", "mtu", "9000", "type", "veth", "peer", "name", "other")
    done("ip", "link", "set", "port", "master", "br0")
    assert links()["br0"]["mtu"] == 9000
    one = subhost(CABLES="br0=").booted()
    assert links()["br0"]["mtu"] == 9000
    one.stopped()
    assert links()["br0"]["mtu"] == 9000


@pytest.mark.parametrize("how", ["no port", "no port any more", "a port", "set"])
def test_a_bridge_keeps_its_hardware_address(subhost, bridge, interface, how):
    bridge()
    if how != "no port":
        interface("port", "address", "f2:00:00:00:00:01", "type", "veth", "peer", "name", "other")
        done("ip", "link", "set", "port", "master", "br0")
    if how == "no port any more":
        done("ip", "link", "set", "port", "nomaster")
    if how == "set":
        done("ip", "link", "set", "br0", "address", "02:00:00:00:00:03")
    before = links()["br0"]["address"]
    one = subhost(CABLES="br0= br0=")
    seen = []
    for _ in range(2):
        one.booted()
        seen.append(links()["br0"]["address"])
        one.stopped()
        seen.append(links()["br0"]["address"])
    assert len({*seen}) == 1
    if how == "no port any more":
        assert before == "00:00:00:00:00:00" and seen[0][:2] == "02"
    else:
        assert seen[0] == before


@pytest.mark.parametrize("mac", ["", MAC])
def test_a_cable_to_a_bridge(subhost, bridge, mac):
    bridge()
    one = subhost(CABLES=f"br0={mac}").booted()
    port = links()[f"{one.name}0"]
    assert is_up(port) and port["master"] == "br0" and addresses(port) == []
    assert not mac or links(one.name)["eth0"]["address"] == mac


def test_a_bridge_is_not_configured_by_ifupdown(subhost, host, bridge):
    bridge()
    one = subhost(CABLES="br0=")
    with_stanza(one, host)
    one.booted()
    assert addresses(links()[f"{one.name}0"]) == [] and not host.is_remembered(f"{one.name}0")


def test_several_cables(subhost, bridge):
    bridge("br0")
    bridge("br1")
    one = subhost(CABLES=f"br0=\t=  br1={MAC} =02:00:00:00:00:02").booted()
    outside, inside = links(), links(one.name)
    assert [outside[f"{one.name}{n}"].get("master") for n in range(4)] == ["br0", None, "br1", None]
    assert set(inside) == {"lo", "eth0", "eth1", "eth2", "eth3"}
    assert (inside["eth2"]["address"], inside["eth3"]["address"]) == (MAC, "02:00:00:00:00:02")
    for n in range(4):
        assert inside[f"eth{n}"]["link_index"] == outside[f"{one.name}{n}"]["ifindex"]
        assert is_up(outside[f"{one.name}{n}"])


def test_many_cables_of_a_long_name(subhost):
    name = new_name().ljust(12, "x")
    one = subhost(NAME=name, CABLES=" =" * 12)
    one.name = name
    one.booted()
    assert {f"{name}{n}" for n in range(12)} <= set(links())
    assert {f"eth{n}" for n in range(12)} < set(links(name))


@pytest.mark.parametrize("tail", ["a.b", "a@b", "a#$(x)", "a'\"", "a*?[x", "a\\b", "a=b"])
def test_a_name_of_any_character(subhost, tail):
    name = (new_name() + tail)[:12]
    one = subhost(NAME=name, CABLES=f"={MAC} =")
    one.name = name
    one.log = f"{LOGS}/{name}.log"
    one.booted()
    assert is_up(links()[f"{name}0"]) and set(links(name)) == {"lo", "eth0", "eth1"}
    one.stopped()


def test_cables_that_a_command_tells(subhost, bridge):
    bridge()
    one = subhost(CABLES="!./cables")
    one.script("cables", f"echo 'br0= ={MAC}'\n")
    one.booted()
    assert links()[f"{one.name}0"]["master"] == "br0" and links(one.name)["eth1"]["address"] == MAC


@pytest.mark.parametrize(("settings", "groups"), [
    ({"CABLES": "= br0="}, ["default", "28513"]), ({"ADDRESS": "192.0.2.2/24"}, ["28513"]), ({"NAT": "yes"}, ["28514"])])
def test_the_group_of_what_others_are_to_leave_alone(subhost, bridge, settings, groups):
    """By which udev's rule knows them: debian/host."""
    bridge()
    one = subhost(**settings).booted()
    assert [links()[f"{one.name}{number}"]["group"] for number in range(len(groups))] == groups
    rule = read(f"{TREE}/debian/host/80-overlay-boot.rules")
    assert all(f"{group}" in rule for group in groups if group != "default")


def test_the_far_end_is_never_on_the_host(subhost, bridge):
    bridge()
    one = subhost(CABLES=f"br0= = ={MAC}")
    monitor = Monitor()
    one.booted()
    one.stopped()
    assert monitor.names() == {"br0", f"{one.name}0", f"{one.name}1", f"{one.name}2"}


def test_no_cable(subhost, machine):
    monitor = Monitor()
    one = subhost().booted()
    assert set(links(one.name)) == {"lo"}
    one.stopped()
    assert monitor.seen() == []


def test_a_hook_finds_the_cables(subhost, bridge):
    bridge()
    one = subhost(CABLES="br0= =", PREMOUNT="./premount", POSTMOUNT="./postmount")
    for hook in ("premount", "postmount"):
        one.script(hook, f'ip netns exec "$NAME" ip -brief link >>links\nip link show "${{NAME}}1" >/dev/null\nexec overlay-{hook}\n')
    one.booted()
    assert read(f"{one.base}/links").count("eth1@") == 2


# What is wrong is found before anything is made

WRONG = {
    "br0": "=", "= x": "=", "= =x": "MAC", "==": "MAC", "=06:20:03:4e:a6": "MAC", "=06:20:03:4e:a6:f2:00": "MAC",
    "=06-20-03-4e-a6-f2": "MAC", "=6:20:3:4e:a6:f2": "MAC", "=0g:20:03:4e:a6:f2": "MAC", "=06:20:03:4e:a6:+2": "MAC",
    "=06:20:03:4e:a6:f2.5": "MAC", "=06:20:03:4e:a6:f\u0662": "MAC", "= =01:00:5e:00:00:01": "multicast",
    "=ff:ff:ff:ff:ff:ff": "multicast", "=00:00:00:00:00:00": "zero",
    "= =.": "4094", "= =.x": "4094", "= =.0": "4094", "= =.4095": "4094", "= =.-1": "4094", "= =.1.2": "4094", "= =.\u0663": "4094",
    "= =.0x10": "4094", "= =." + "9" * 5000: "4094", "=.5": "before", "nobr=.5 =": "before", "= =.5 =.5": "twice", "= =.5 =.05": "twice",
    "a/b=": "bridge", "..=": "bridge", "sixteencharacter=": "bridge",
    "nobr=": "nobr", f"= nobr={MAC}": "nobr", "lo=": "bridge", f"= = lo={MAC}": "bridge", "\u00e4=": "\u00e4",
}


@pytest.mark.parametrize("cables", WRONG, ids=lambda cables: cables[:20])
def test_what_is_wrong_is_found_before_anything_is_made(subhost, fails, cables):
    """And the specifier is named; --check says the same."""
    one = subhost(CABLES=cables, PREMOUNT="./touch")
    one.script("touch", "touch hook\n")
    monitor = Monitor()
    wrong = cables.split()[0] if cables in ("=.5", "nobr=.5 =") else cables.split()[-1]
    line = fails(one, "CABLES: ", wrong, WRONG[cables])
    assert fails([BOOT, "--check", one.conf]) == line
    assert monitor.seen() == []
    assert not os.path.exists(f"{one.base}/hook") and os.listdir(one.upper) == []


@pytest.mark.parametrize("cables, length", [("= =.302", 11), ("= =.4094", 10), ("= = =.23", 12), ("= " * 11 + "=.1", 12)])
def test_a_name_of_an_interface_that_is_too_long(subhost, fails, cables, length):
    name = new_name().ljust(length, "x")
    one = subhost(NAME=name, CABLES=cables)
    line = fails(one, "CABLES: ", cables.split()[-1], name, "15")
    assert fails([BOOT, "--check", one.conf]) == line


@pytest.mark.parametrize("cables, at", [("=", 0), (f"= ={MAC} =", 1), ("br0=", 0), ("= =.5", "0.5"), ("= br0=.5", "0.5")])
def test_an_interface_of_that_name_is_there_already(subhost, fails, bridge, interface, cables, at):
    """It is named, with the specifier that asks for it, and left as it is."""
    bridge()
    one = subhost(CABLES=cables)
    name = interface(f"{one.name}{at}")
    before = state(name)
    word = cables.split()[at if isinstance(at, int) else -1]
    line = fails(one, "CABLES: ", f" {word}: ", name, "already")
    assert fails([BOOT, "--check", one.conf]) == line
    assert state(name) == before
    run(STOP, one.conf)
    assert state(name) == before


@pytest.mark.parametrize("device", ["pair0", "port0", "br0.5"])
def test_a_device_that_is_no_bridge(subhost, fails, bridge, interface, device):
    """Not a port of one either."""
    bridge()
    interface("pair0", "type", "veth", "peer", "name", "port0")
    done("ip", "link", "set", "port0", "master", "br0")
    if device == "br0.5":
        if not can_make_vlans():
            pytest.skip("this kernel has no 802.1Q VLANs")
        interface(device, "link", "br0", "type", "vlan", "id", "5")
    one = subhost(CABLES=f"{device}={MAC}")
    line = fails(one, f" {device}={MAC}: ", f"{device} is not a bridge")
    assert fails([BOOT, "--check", one.conf]) == line


def test_check_of_a_running_subhost(subhost, bridge):
    """The interfaces that are there already are its own."""
    bridge()
    one = subhost(CABLES=f"= br0={MAC}").booted()
    checked = run(BOOT, "--check", one.conf)
    assert checked.returncode == 0 and f"CABLES== br0={MAC}\n" in checked.stdout, checked.stderr


def test_check_of_a_file_by_a_relative_path(subhost):
    one = subhost(CABLES="=")
    assert run(BOOT, "--check", f"{one.name}.conf", cwd=one.base).returncode == 0


def test_check_makes_nothing(subhost, machine, bridge):
    bridge()
    one = subhost(CABLES=f"= br0={MAC}")
    monitor = Monitor()
    assert run(BOOT, "--check", one.conf).returncode == 0
    assert monitor.seen() == []
    machine.is_as_before()


def test_check_of_a_killed_subhost_with_somebody_elses_interface(subhost, interface, fails):
    """What was on record is gone: an interface of that name is not its own any more."""
    one = subhost(CABLES="=").booted()
    kill_all(one)
    done("ip", "link", "delete", f"{one.name}0")
    interface(f"{one.name}0")
    checked = one_line(run(BOOT, "--check", one.conf))
    assert one_line(one.boot()) == checked


# What fails half-way

def test_a_kernel_without_vlans(subhost, fails):
    """The cable is made by then, and goes again."""
    if can_make_vlans():
        pytest.skip("this kernel has 802.1Q VLANs")
    one = subhost(CABLES="= = =.5")
    monitor = Monitor()
    fails(one, "CABLES: ", f"{one.name}1.5", "802.1Q")
    assert f"{one.name}1" in monitor.names()
    assert run(BOOT, "--check", one.conf).returncode == 0       # only the kernel knows


def injected(one, call, what, when, command=BOOT):
    """Boot or stop it, with something injected by strace(1) into the when-th such call of each process that only forked."""
    return run("strace", "-f", "-b", "execve", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}",
               *PYTHON, command, one.conf)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_kernel_refuses_a_cable(subhost, machine, bridge, number):
    bridge()
    one = subhost(CABLES="= br0= =")
    line = one_line(injected(one, "sendto", "error=ENOMEM", number))
    assert "CABLES" in line and "Cannot allocate memory" in line
    machine.is_as_before()


@pytest.mark.parametrize("shares", [0, 100, 200, 300, 500])
def test_something_else_fails_while_cables_are_made(subhost, machine, shares):
    """When the boot has said so, nothing is made any more."""
    one = subhost(CABLES=" =" * 60, SHARE=[f"/usr:/share/{n}" for n in range(shares)] + ["/nowhere/x"])
    assert "/nowhere/x" in one_line(one.boot())
    monitor = Monitor()
    assert not [name for name in links() if name.startswith(one.name)]
    machine.is_as_before()
    assert monitor.seen() == []


# Killed

def kill_all(one):
    """SIGKILL to the keeper and to PID 1; it has ended, and nothing was cleared up."""
    init, keeper = one.init, one.keeper
    for pid in (keeper, init):
        kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(keeper) and not is_alive(init))


def is_cleared_by_stop(one, machine):
    """After one overlay-stop, or the boot's own end if that came first, nothing is left."""
    stopped = one.stop(seconds=PATIENCE)
    assert (stopped.returncode, stopped.stderr) in ((0, ""), (1, f"overlay-stop: {one.name} is not running\n")), stopped.stderr
    machine.is_as_before()
    assert not [name for name in links() if name.startswith(one.name)]


@pytest.mark.parametrize("call, first", [("write", 1), ("sendto", 1), ("ioctl", 1), ("socket", 1), ("clone3", 1), ("pipe2", 1),
                                         ("poll", 1), ("wait4", 1)])
def test_killed_at_any_call(subhost, host, machine, call, first):
    """The boot, at its n-th call: the next stop leaves nothing, the next boot works."""
    one = subhost(CABLES=f"= ={MAC}")
    with_stanza(one, host)
    for number in range(first, first + 40):
        booted = injected(one, call, "signal=SIGKILL", number)
        if booted.returncode == 0:
            break
        if number % 2:
            one.booted()
            assert addresses(links()[f"{one.name}0"]) == ["192.0.2.1/24"]
        is_cleared_by_stop(one, machine)
        assert not host.is_remembered(f"{one.name}0")
    else:
        pytest.fail("it never boots")
    assert number > first


def children_of(pid):
    return [process for process, (parent, _, _) in processes().items() if parent == pid]


@contextlib.contextmanager
def waiting_in_ifup(one, host):
    """A boot whose ifup waits, for as long as this lasts, in a stanza of the host."""
    with_stanza(one, host, "iface {name}0 inet static\n    address 192.0.2.1/24\n"
                "    pre-up touch {base}/waits; while [ ! -e {base}/go ]; do sleep 0.02; done\n")
    boot = start(BOOT, one.conf)
    try:
        wait_for(lambda: os.path.exists(f"{one.base}/waits"))
        yield boot
    finally:
        write(f"{one.base}/go")
        boot.communicate()
        wait_for(lambda: not {"ifup", "sh", "sleep"} & set(ours().values()))      # what the stanza runs is the host's own


def is_cleared_at_once(one, host):
    """Nobody waits for the ifup of a subhost that is not to be, and it does not go on."""
    stopped = one.stop(seconds=PATIENCE)
    assert (stopped.returncode, stopped.stderr) in ((0, ""), (1, f"overlay-stop: {one.name} is not running\n")), stopped.stderr
    assert not [name for name in links() if name.startswith(one.name)] and not os.path.exists(f"{NETNS}/{one.name}") and one.is_gone()
    wait_for(lambda: not {"ifup", "ifdown"} & set(ours().values()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_ifup_is_at_work(subhost, host, machine, number):
    one = subhost(CABLES="=")
    with waiting_in_ifup(one, host) as boot:
        kill(boot.pid, number)
        boot.communicate(timeout=PATIENCE)
        assert boot.returncode
        is_cleared_at_once(one, host)
    assert not host.is_remembered(f"{one.name}0")
    machine.is_as_before()
    one.booted()
    assert addresses(links()[f"{one.name}0"]) == ["192.0.2.1/24"]


def test_ifup_is_killed(subhost, host):
    """Which is no failure of the boot, as no failure of it is, but is told."""
    one = subhost(CABLES="=")
    with waiting_in_ifup(one, host) as boot:
        kill(children_of(boot.pid)[0], signal.SIGKILL)
        assert boot.wait(PATIENCE) == 0
        said = boot.stderr.read().decode()
    assert said == f"overlay-boot: CABLES: ifup was killed by signal 9 (what it printed is in LOG={one.log})\n"
    assert is_up(links()[f"{one.name}0"]) and one.is_running()
    one.stopped()
    assert not host.is_remembered(f"{one.name}0")


def test_a_boot_that_fails_does_not_wait_for_ifup(subhost, host, machine):
    one = subhost(CABLES="=", SHARE="/nowhere/x")
    with_stanza(one, host, "iface {name}0 inet manual\n    pre-up touch {base}/waits; sleep 1000\n")
    assert "/nowhere/x" in one_line(one.boot(seconds=PATIENCE))
    assert not [name for name in links() if name.startswith(one.name)] and one.is_gone()
    wait_for(lambda: not {"ifup", "ifdown"} & set(ours().values()))
    for pid, name in ours().items():
        if name == "sleep":             # what the stanza runs is the host's own
            kill(pid, signal.SIGKILL)
    wait_for(lambda: "sleep" not in ours().values())
    assert not host.is_remembered(f"{one.name}0")


def test_stopped_while_ifdown_is_at_work(subhost, host, machine):
    """For an interface of a subhost that was killed, which has to be before the new one is made."""
    one = with_stanza(subhost(CABLES="="), host, "iface {name}0 inet manual\n"
                      "    down touch {base}/waits; while [ ! -e {base}/go ]; do sleep 0.02; done\n")
    host.remember(f"{one.name}0")
    boot = start(BOOT, one.conf)
    wait_for(lambda: os.path.exists(f"{one.base}/waits"))
    kill(boot.pid, signal.SIGTERM)
    assert b"interrupted" in boot.communicate(timeout=PATIENCE)[1]
    write(f"{one.base}/go")
    wait_for(lambda: not {"ifdown", "sh", "sleep"} & set(ours().values()))
    machine.is_as_before()


def test_stopped_while_ifup_is_at_work(subhost, host, machine):
    one = subhost(CABLES="=")
    with waiting_in_ifup(one, host) as boot:
        one.stopped(seconds=PATIENCE)
        boot.communicate(timeout=PATIENCE)
        is_cleared_at_once(one, host)
    machine.is_as_before()


def test_booted_again_while_the_ifup_of_a_killed_boot_is_at_work(subhost, host):
    one = subhost(CABLES="=")
    with waiting_in_ifup(one, host) as boot:
        boot.kill()
        boot.communicate()
        again = start(BOOT, one.conf)
        wait_for(lambda: f"{one.name}0" in links() or again.poll() is not None)
    assert again.wait(PATIENCE) == 0
    again.communicate()
    assert addresses(links()[f"{one.name}0"]) == ["192.0.2.1/24"]


def test_killed_at_any_time(subhost, machine):
    """With what the clock happens to hit: a stop at once afterwards leaves nothing."""
    one = subhost(CABLES=" =" * 10)
    for step in range(40):
        boot = start(BOOT, one.conf)
        try:
            wait_for(lambda step=step: read(one.state).count("cable:") >= step % 11, 2)
        except AssertionError:
            pass                # it had ended before we looked
        kill(boot.pid, signal.SIGKILL)
        boot.communicate()
        is_cleared_by_stop(one, machine)


@pytest.mark.parametrize("victims", ["keeper", "init", "both"])
def test_a_subhost_is_killed(subhost, host, machine, victims):
    one = subhost(CABLES=f"= ={MAC}")
    with_stanza(one, host)
    one.booted()
    init, keeper = one.init, one.keeper
    if victims == "init":
        kill(init, signal.SIGKILL)
        wait_for(lambda: one.is_gone() and not is_alive(keeper))
    else:
        if victims == "both":
            kill_all(one)
        kill(keeper, signal.SIGKILL)
        wait_for(lambda: not is_alive(init))
        one.booted()
        assert addresses(links()[f"{one.name}0"]) == ["192.0.2.1/24"]
        one.stopped()
    machine.is_as_before()
    assert not host.is_remembered(f"{one.name}0")


@pytest.mark.parametrize("call", ["sendto", "clone3", "unlink", "umount2", "rmdir"])
def test_a_stop_is_killed_at_any_call(subhost, host, machine, call):
    """The next one goes on where it was."""
    one = with_stanza(subhost(CABLES=f"= ={MAC}"), host)
    for number in range(1, 40):
        one.booted()
        stopped = injected(one, call, "signal=SIGKILL", number, STOP)
        is_cleared_by_stop(one, machine)
        assert not host.is_remembered(f"{one.name}0")
        if stopped.returncode == 0:
            break
    else:
        pytest.fail("it never stops")
    assert number > 1


# The end

def test_a_stop_removes_the_cables(subhost, machine, bridge):
    bridge()
    one = subhost(CABLES=f"br0= = ={MAC}").booted()
    one.stopped()
    machine.is_as_before()


def test_the_subhosts_own_end_removes_the_cables(subhost, host, machine, bridge):
    bridge()
    one = subhost(CABLES="= br0=", INIT="overlay-init")
    with_stanza(one, host)
    one.booted()
    assert host.is_remembered(f"{one.name}0")
    keeper = one.keeper
    one.go("/bin/sh", "-c", "echo >/run/dummy_service")     # which may be killed with it
    wait_for(one.is_gone)
    wait_for(lambda: not is_alive(keeper))                  # which has removed the last thing of it just now
    machine.is_as_before()
    assert not host.is_remembered(f"{one.name}0")


def test_in_the_foreground(subhost, machine, bridge):
    bridge()
    one = subhost(CABLES="br0= =", INIT="echo exit 3")
    ended = run(BOOT, "--foreground", one.conf)
    assert ended.returncode == 3, ended.stderr
    machine.is_as_before()


@pytest.mark.parametrize("how", ["stop", "end", "killed"])
def test_cables_that_outlive_the_subhost(subhost, machine, how):
    """Somebody on the host is in its network namespace still: the kernel does not take them away."""
    one = subhost(CABLES=f"= ={MAC}").booted()
    guest = start("ip", "netns", "exec", one.name, "sleep", "1000")
    wait_for(lambda: namespaces(guest.pid)["net"] == namespaces(one.init)["net"] and read(f"/proc/{guest.pid}/comm") == "sleep\n")
    try:
        if how == "stop":
            one.stopped()
        elif how == "end":
            kill(one.init, signal.SIGKILL)
            wait_for(one.is_gone)
        else:
            for pid in (one.keeper, one.init):
                kill(pid, signal.SIGKILL)
            one.stop()
        assert not [name for name in links() if name.startswith(one.name)]
    finally:
        guest.kill()
        guest.communicate()
    machine.is_as_before()


@pytest.mark.parametrize("remembered", [False, True])
def test_somebody_elses_interface_of_the_name_is_left_alone(subhost, host, interface, remembered):
    """Cables are known by their index: after a crash, the name may belong to another interface."""
    one = subhost(CABLES="=")
    if remembered:
        with_stanza(one, host)
    one.booted()
    kill_all(one)
    done("ip", "link", "delete", f"{one.name}0")
    name = interface(f"{one.name}0")
    done("ip", "address", "add", "198.51.100.1/24", "dev", name)
    before = state(name)
    assert one_line(one.stop()) == f"overlay-stop: {one.name} is not running"
    assert state(name) == before
    assert one.is_gone()


def test_somebody_elses_interface_of_the_index_is_left_alone(subhost, interface):
    one = subhost(CABLES="=").booted()
    index = links()[f"{one.name}0"]["ifindex"]
    kill_all(one)
    done("ip", "link", "delete", f"{one.name}0")
    interface("other0", "index", str(index), "type", "bridge")
    before = state("other0")
    assert one_line(one.stop()) == f"overlay-stop: {one.name} is not running"
    assert state("other0") == before


def test_an_interface_that_was_given_another_name_goes_too(subhost, machine):
    one = subhost(CABLES="=").booted()
    done("ip", "link", "set", f"{one.name}0", "down")
    done("ip", "link", "set", f"{one.name}0", "name", "other0")
    one.stopped()
    wait_for(lambda: "other0" not in links())


def test_the_indexes_on_record_are_those_of_the_interfaces(subhost):
    one = subhost(CABLES="= =").booted()
    assert {key: int(value) for key, value in one.records().items() if key.startswith("cable:")} == {
        f"cable:{one.name}{n}": links()[f"{one.name}{n}"]["ifindex"] for n in range(2)}


# PREMOUNT

def test_a_stanza_for_each_cable(subhost, bridge):
    bridge()
    one = subhost(CABLES=f"= br0= ={MAC}").booted()
    words = read(f"{one.upper}/etc/network/interfaces").split()
    assert words[:4] == ["#", "Generated", "for", "subhost"]
    assert " ".join(words[5:]) == "auto lo iface lo inet loopback " + " ".join(
        f"auto eth{n} iface eth{n} inet manual" for n in range(3))


def test_interfaces_that_the_subhost_has_are_left(subhost):
    one = subhost(CABLES="=")
    one.write("etc/network/interfaces", "# mine\n")
    one.booted()
    assert read(f"{one.upper}/etc/network/interfaces") == "# mine\n"


def test_the_default_stanzas_bring_the_cables_up(subhost):
    one = subhost(CABLES="= =", START="networking")
    assert told(one.boot()) == [f"{name} has no address: {FILE} is as overlay-premount writes it" for name in ("eth0", "eth1")]
    wait_for(lambda: [is_up(links(one.name)[name]) for name in ("eth0", "eth1")] == [True, True])


FILE = "etc/network/interfaces"


def told(booted):
    """What a boot that succeeds says of cables."""
    assert booted.returncode == 0
    beginning = "overlay-boot: CABLES: "
    assert all(line.startswith(beginning) for line in booted.stderr.splitlines()), booted.stderr
    return [line.removeprefix(beginning) for line in booted.stderr.splitlines()]


@pytest.mark.parametrize(("text", "why"), [
    ("auto lo\niface eth0 inet static\n    address 192.0.2.2/24\n", "does not bring it up"),
    ("auto lo\niface lo inet loopback\n", "does not bring it up"),
    ("auto lo eth0\niface lo inet loopback\n", "has no stanza for it"),
    ("auto eth0\niface eth0 inet manual\n", ""),
    ("allow-hotplug eth0\niface eth0 inet static\n    address 192.0.2.2/24\n", ""),
    ("auto eth0\niface eth0 inet6 auto\n", ""),
    ("auto eth0.5\niface eth0.5 inet manual\n    pre-up true\n", ""),
])
def test_what_the_file_of_the_subhost_gives_no_address(subhost, text, why):
    """Somebody who writes manual means that; and what is to be brought up may get one later."""
    one = subhost(CABLES="=", START="networking")
    one.write(FILE, text)
    assert told(one.boot()) == ([f"eth0 has no address: {FILE} {why}"] if why else [])


@pytest.mark.parametrize("how", ["another service", "a bridge", "another interface", "a client", "no networking", "an address", "INIT"])
def test_an_address_by_other_means(subhost, how):
    """Is as good, from whatever service it comes."""
    text = {"another service": "ip address add 192.0.2.2/24 dev eth0", "a bridge": "ip link add br9 type bridge; ip link set eth0 master br9; ip address add 192.0.2.2/24 dev br9",
            "another interface": "ip link set eth0 down; ip link set eth0 name wan0"}.get(how, "true")
    one = subhost(CABLES="=", **{"a client": {"START": "networking /opt/dhcpcd"}, "no networking": {"START": "/opt/own"},
                                 "an address": {"START": "networking", "ADDRESS": "192.0.2.2/24"},
                                 "INIT": {"START": "networking", "INIT": "overlay-init"}}.get(how, {"START": "networking /opt/own"}))
    for name in ("own", "dhcpcd"):
        one.write(f"opt/{name}", f"#!/bin/sh\n[ $1 != start ] || {{ {text}; }}\n", 0o755)
    if how == "INIT":
        one.configure(CABLES="=", START="networking", INIT=one.init_text("exec /.reaper x /run/dummy_service\n"))
    assert told(one.boot()) == []


def test_check_tells_of_cables_without_an_address(subhost):
    """As far as files tell, and as soon as there is one."""
    one = subhost(CABLES="= =", START="networking")
    assert warnings(run(BOOT, "--check", one.conf)) == []
    one.boot()
    checked = run(BOOT, "--check", one.conf)
    assert checked.returncode == 0 and warnings(checked) == [
        f"overlay-boot: START: networking will leave {name} without an address: {FILE} is as overlay-premount writes it" for name in ("eth0", "eth1")]


# ifupdown, on the host

def test_a_stanza_in_a_file_that_is_sourced(subhost, host):
    one = with_stanza(subhost(CABLES="= ="), host, STATIC_TWICE).booted()
    outside = links()
    assert addresses(outside[f"{one.name}0"]) == ["192.0.2.1/24", "2001:db8::1/64"]
    assert is_up(outside[f"{one.name}1"]) and addresses(outside[f"{one.name}1"]) == []
    assert host.is_remembered(f"{one.name}0")
    one.stopped()
    assert not host.is_remembered(f"{one.name}0")


def test_boot_after_boot(subhost, host):
    one = with_stanza(subhost(CABLES="="), host, STATIC_TWICE)
    for _ in range(3):
        one.booted()
        assert addresses(links()[f"{one.name}0"]) == ["192.0.2.1/24", "2001:db8::1/64"]
        one.stopped()


def test_a_dead_interface_that_ifupdown_remembers(subhost, host):
    one = with_stanza(subhost(CABLES="= ="), host, STATIC_TWICE)
    host.remember(f"{one.name}0")
    host.remember("other0")
    one.booted()
    assert addresses(links()[f"{one.name}0"]) == ["192.0.2.1/24", "2001:db8::1/64"]
    one.stopped()
    assert read(host.remembered) == "other0=other0\n"


def test_a_stanza_that_fails(subhost, host):
    """Is no failure of the boot, which tells where the log is."""
    one = with_stanza(subhost(CABLES="="), host, "iface {name}0 inet static\n    address 192.0.2.1/24\n    pre-up echo rats; exit 3\n")
    done = one.boot()
    assert (done.returncode, done.stderr) == (
        0, f"overlay-boot: CABLES: ifup failed with exit status 1 (what it printed is in LOG={one.log})\n")
    assert is_up(links()[f"{one.name}0"]) and "rats\n" in one.said()
    one.stopped()
    assert not host.is_remembered(f"{one.name}0")


@pytest.mark.parametrize(("text", "why"), [
    ("iface {name}0 inet static\n    up touch {base}/ran\n", "missing required variable: address"),
    ("iface {name}0 inet bogus\n", "unknown or no method"),
    ("iface {name}0 inet static\n    address 192.0.2.1/24\n    pre-up touch {base}/ran; exit 1\n", ""),
    ("mapping {name}0\n    script {base}/mapping\n", ""), ("", "")])
def test_check_tells_of_a_stanza_that_ifup_cannot_use(subhost, host, machine, text, why):
    """It runs nothing of it."""
    one = subhost(CABLES="= =")
    one.script("mapping", f"touch {one.base}/ran\n")
    with_stanza(one, host, text)
    checked = run(BOOT, "--check", one.conf)
    lines = warnings(checked)
    assert checked.returncode == 0 and len(lines) == (2 if "bogus" in text else bool(why))      # the file is not read at all
    assert all(f"CABLES: =: ifup will fail for {one.name}" in line and why in line for line in lines)
    assert not os.path.exists(f"{one.base}/ran")
    machine.is_as_before()


def test_what_a_stanza_runs_is_run_on_the_host(subhost, host):
    one = with_stanza(subhost(CABLES="="), host, "iface {name}0 inet manual\n"
                      "    up for kind in mnt net pid; do readlink /proc/self/ns/$kind; done >{base}/up; cat /proc/self/cgroup >>{base}/up\n"
                      "    down readlink /proc/self/ns/mnt >{base}/down\n").booted()
    here = namespaces("self")
    up = read(f"{one.base}/up").splitlines()
    assert one.name not in " ".join(up[3:])
    assert up[:3] == [here["mnt"], here["net"], here["pid"]]
    one.stopped()
    assert read(f"{one.base}/down").strip() == here["mnt"]


def test_a_daemon_that_a_stanza_starts_is_the_hosts(subhost, host, machine):
    """As the DHCP server for a subhost may be: its root is the host's, not that of the subhost, where others plant its files."""
    one = with_stanza(subhost(CABLES="="), host,
                      "iface {name}0 inet manual\n    up sleep 1000 >/dev/null 2>&1 & echo $! >{base}/pid\n").booted()
    daemon = int(read(f"{one.base}/pid"))
    try:
        assert os.path.exists(f"/proc/{one.init}/root/.reaper") and not os.path.exists(f"/proc/{daemon}/root/.reaper")
        assert os.path.exists(f"/proc/{daemon}/root{one.conf}")
        assert namespaces(daemon) == namespaces("self") and control_group(daemon) == control_group("self")
        one.stopped()
        assert is_alive(daemon)
    finally:
        kill(daemon, signal.SIGKILL)
        wait_for(lambda: not is_alive(daemon))


def test_what_a_stanza_runs_has_nothing_of_the_callers_environment(subhost, host):
    one = with_stanza(subhost(CABLES="="), host, "iface {name}0 inet manual\n    up env >{base}/env\n")
    one.booted(env={"PATH": f"/nowhere:{os.environ['PATH']}", "ENV": "/nowhere", "SECRET": "x"})
    env = read(f"{one.base}/env")
    assert "PATH=" in env and "nowhere" not in env and "SECRET" not in env


def test_a_name_that_means_something_else_to_ifupdown(subhost, host, bridge):
    """ifup a=b configures a, by the stanza of b."""
    name = bridge(new_name())
    one = subhost(NAME=f"{name}=x", CABLES="=")
    one.name = f"{name}=x"
    host.stanzas("x", "iface x0 inet static\n    address 192.0.2.1/24\n")
    before = state(name)
    one.booted()
    assert state(name) == before
    one.stopped()
    assert state(name) == before


def test_without_ifupdown(subhost, host):
    """The cable is brought up, and nothing is said."""
    one = with_stanza(subhost(CABLES="="), host)
    host.hide("/sbin/ifup", "/sbin/ifdown", "/sbin/ifquery")
    assert not os.path.exists("/sbin/ifup") and os.path.exists(BOOT)
    host.remember(f"{one.name}0")
    one.booted()
    assert is_up(links()[f"{one.name}0"]) and addresses(links()[f"{one.name}0"]) == []
    assert one.said() == ""
    one.stopped()


def test_without_a_configuration_of_ifupdown(subhost, host):
    one = subhost(CABLES="=")
    os.unlink(host.interfaces)
    one.booted()
    assert is_up(links()[f"{one.name}0"]) and one.said() == ""


# What is told of them

def test_overlay_ls_tells_of_cables(subhost, bridge):
    bridge()
    one = subhost(CABLES="br0= =").booted()
    other = subhost(CABLES="br0=").booted()
    one.sh("ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad; ip link set eth0 up")
    other.sh("ip addr add 192.0.2.3/24 dev eth0")
    assert [(cable["name"], cable["bridge"], cable["inside"]) for cable in one.row()["cables"]] == [
        (f"{one.name}0", "br0", "eth0"), (f"{one.name}1", None, "eth1")]
    assert one.row()["cables"][0]["addresses"][:2] == ["192.0.2.2/24", "2001:db8::2/64"] and one.row()["cables"][1]["addresses"] == []
    table = run(LS).stdout
    assert f" br0=192.0.2.2,2001:db8::2 {one.name}1 " in table
    assert " br0=192.0.2.3 " in table


def test_overlay_ls_without_pyroute2(subhost, bridge, directory):
    """All but the addresses, and one line however many subhosts there are."""
    bridge()
    one, other = subhost(CABLES="br0=").booted(), subhost(CABLES="=").booted()
    one.sh("ip addr add 192.0.2.2/24 dev eth0")
    for options in ([], ["--json"]):
        listed = listed_without_pyroute2(directory, *options)
        assert listed.returncode == 0 and "pyroute2 is not installed" in listed.stderr and listed.stderr.count("\n") == 1, listed.stderr
        if options:
            rows = {row["name"]: row["cables"] for row in json.loads(listed.stdout)}
            assert rows[one.name] == [{"name": f"{one.name}0", "bridge": "br0", "inside": None, "addresses": None}]
        else:
            assert " br0 " in listed.stdout and f" {other.name}0 " in listed.stdout


@pytest.mark.parametrize("failures", [0, 1, module_cables.DUMPS - 1, module_cables.DUMPS])
def test_interfaces_that_come_and_go_while_they_are_listed(failures):
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
    asked = []

    def dump():
        asked.append(1)
        yield "one"
        if len(asked) <= failures:
            raise NetlinkDumpInterrupted
        yield "other"

    if failures < module_cables.DUMPS:
        assert module_cables.whole(dump) == ["one", "other"] and len(asked) == failures + 1
    else:
        with pytest.raises(OSError, match="the interfaces change all the time"):
            module_cables.whole(dump)


def test_the_cables_of_a_subhost_that_has_just_gone():
    """They are not told of as those of interfaces that change."""
    with pytest.raises(FileNotFoundError):
        module_cables.describe({"none0": 1}, {}, f"{NETNS}/none")


def test_overlay_ls_tells_what_is_and_not_what_was(subhost, bridge):
    bridge()
    one = subhost(CABLES="br0= =").booted()
    done("ip", "link", "set", f"{one.name}0", "nomaster")
    done("ip", "link", "set", f"{one.name}1", "master", "br0")
    one.sh("ip link set eth1 name uplink")
    assert [(cable["bridge"], cable["inside"]) for cable in one.row()["cables"]] == [(None, "eth0"), ("br0", "uplink")]
    done("ip", "link", "delete", f"{one.name}0")
    assert [cable["inside"] for cable in one.row()["cables"]] == [None, "uplink"]


def test_overlay_ls_while_subhosts_come_and_go(subhost):
    """One that ends meanwhile is no error, nor one that is being booted."""
    one, other = subhost(CABLES="=").booted(), subhost(CABLES="=")
    for _ in range(10):
        boot = start(BOOT, other.conf)
        listing = start(LS, "--json")
        said, error = listing.communicate()
        assert listing.returncode == 0 and error == b"", error
        assert one.name in [row["name"] for row in json.loads(said)]
        boot.communicate()
        listing = start(LS, "--json")
        other.stop()
        said, error = listing.communicate()
        assert listing.returncode == 0 and error == b"", error


def test_ip_netns(subhost):
    """ip-netns(8) does what it does for namespaces of its own."""
    one = subhost(CABLES=f"={MAC}").booted()
    assert MAC in done("ip", "netns", "exec", one.name, "ip", "addr")
    assert done("ip", "netns", "pids", one.name).split() == [str(one.init)]
    assert one.name in done("ip", "netns", "list")


def test_a_namespace_that_ip_netns_has_made(subhost, fails, machine):
    """Is not ours."""
    one = subhost(CABLES="=")
    done("ip", "netns", "add", one.name)
    try:
        machine.look()
        fails(one, f"{NETNS}/{one.name}", "already")
        done("ip", "netns", "exec", one.name, "true")
    finally:
        done("ip", "netns", "delete", one.name)
        done("umount", NETNS)           # which ip(8) has mounted


# Traffic

INSIDE = "auto lo eth0\niface lo inet loopback\niface eth0 inet static\n    address {address}/24\n"


def plugged(subhost, bridge, address, rest=""):
    one = subhost(CABLES=f"{bridge}=", START="networking")
    one.write("etc/network/interfaces", INSIDE.format(address=address) + rest)
    return one.booted()


def test_two_subhosts_on_a_bridge(subhost, bridge):
    bridge()
    one, other = plugged(subhost, "br0", "192.0.2.2"), plugged(subhost, "br0", "192.0.2.3")
    pings(one, "192.0.2.3")
    pings(other, "192.0.2.2")
    other.stopped()
    assert one.go("ping", "-c", "1", "-W", "1", "192.0.2.3").returncode != 0


def test_a_subhost_routes_between_two_bridges(subhost, bridge):
    bridge("br0")
    bridge("br1")
    one = plugged(subhost, "br0", "192.0.2.2", "    gateway 192.0.2.1\n")
    other = plugged(subhost, "br1", "198.51.100.2", "    gateway 198.51.100.1\n")
    router = subhost(CABLES=f"br0= br1={MAC}", START="networking")
    router.write("etc/network/interfaces", INSIDE.format(address="192.0.2.1") + "    up sysctl -qw net.ipv4.ip_forward=1\n"
                 "auto eth1\niface eth1 inet static\n    address 198.51.100.1/24\n")
    router.booted()
    pings(one, "198.51.100.2")
    pings(other, "192.0.2.2")
    assert "ttl=63" in one.inside("ping", "-c", "1", "198.51.100.2")
    assert MAC in other.inside("ip", "neigh", "show", "198.51.100.1")


def test_the_host_and_a_subhost(subhost, host):
    """An address at each end, IPv4 and IPv6, by ifupdown at both."""
    one = with_stanza(subhost(CABLES="=", START="networking"), host, STATIC_TWICE)
    one.write("etc/network/interfaces", INSIDE.format(address="192.0.2.2") + "iface eth0 inet6 static\n    address 2001:db8::2/64\n")
    one.booted()
    pings(one, "192.0.2.1")
    pings(one, "2001:db8::1")
    with within(one.name):
        assert addresses(links()["eth0"]) == ["192.0.2.2/24", "2001:db8::2/64"]


# The examples

EXAMPLES = f"{TREE}/conf-examples"


@pytest.mark.parametrize("example", ["bridge", "cables", "ipv6", "nat", "vlan"])
def test_the_examples_of_networks_work(subhost, host, machine, example):
    """With the files that stand in their comments: each address is where it is to be, and they reach each other."""
    if example == "vlan" and not can_make_vlans():
        pytest.skip("this kernel has no 802.1Q VLANs")
    one = subhost()
    text = read(f"{EXAMPLES}/{example}.conf").replace(f"{example}0", f"{one.name}0")
    write(one.conf, re.sub("^START=.*", "START= networking", text, flags=re.MULTILINE))
    files = files_of(text)
    stanzas = files.pop("root/etc/network/interfaces", "")
    inside = [*static(stanzas), *(("eth0", address) for address in re.findall(r"^ADDRESS= (\S+)@", text, re.MULTILINE))]
    if stanzas:
        one.write("etc/network/interfaces", stanzas)
    for path, text in files.items():
        write(path, text)
    for name in bridges(read(one.conf)):
        done("ifup", name)
        machine.look()
    one.booted()
    outside = static("".join(files.values()))
    assert outside and inside
    for interface, address in outside:
        assert address in addresses(links()[interface])
    for interface, address in inside:
        wait_for(lambda interface=interface, address=address: address in addresses(links(one.name).get(interface, {"addr_info": []})))
    for _, address in outside:
        pings(one, address.partition("/")[0])
    assert example != "nat" or "192.168.6.2" in done("nft", "list", "table", "ip", "subhost_nat")
    assert example != "ipv6" or read("/proc/sys/net/ipv6/conf/all/forwarding") == "1\n"
    one.stopped()
    assert run("nft", "list", "ruleset").stdout == ""
    for name in bridges(read(one.conf)):
        done("ifdown", name)


def test_the_example_of_dhcp_works(subhost, host, machine):
    """By a server on the bridge, which knows it by its MAC address."""
    for command in ("dnsmasq", "dhclient"):
        if not shutil.which(command):
            cannot_run(f"there is no {command}(8)")
    one = subhost()
    text = read(f"{EXAMPLES}/dhcp.conf")
    mac = re.search("^CABLES= br0=(.*)", text, re.MULTILINE)[1]
    write(one.conf, re.sub("^START=.*", "START= networking", text, flags=re.MULTILINE))
    one.write("etc/network/interfaces", files_of(text)["root/etc/network/interfaces"])
    done("ip", "link", "add", "br0", "type", "bridge")
    done("ip", "address", "add", "192.0.2.1/24", "dev", "br0")
    done("ip", "link", "set", "br0", "up")
    machine.look()
    server = start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=br0", "--bind-interfaces",
                   "--dhcp-authoritative", "--no-ping", "--dhcp-range=192.0.2.100,192.0.2.199", f"--dhcp-host={mac},192.0.2.77",
                   "--dhcp-option=option:dns-server,192.0.2.53", f"--dhcp-leasefile={one.base}/leases", f"--pid-file={one.base}/pid")
    try:
        booted = one.boot("--wait")
        assert (booted.returncode, booted.stderr) == (0, ""), one.said()
        assert addresses(links(one.name)["eth0"]) == ["192.0.2.77/24"]
        assert "via 192.0.2.1" in done("ip", "-n", one.name, "route", "show", "default")
        assert "nameserver 192.0.2.53" in one.inside("cat", "/etc/resolv.conf")
        assert f" 192.0.2.77 {one.name} " in read(f"{one.base}/leases")
        pings(one, "192.0.2.1")
        one.stopped()
    finally:
        server.terminate()
        server.communicate()
        done("ip", "link", "delete", "br0")


# What is asked of the kernel, by links, in this process

@pytest.fixture
def far():
    """The name of a network namespace, in which the other end is to be, and a descriptor of it."""
    done("ip", "netns", "add", "far")
    fd = os.open(f"{NETNS}/far", os.O_RDONLY | os.O_CLOEXEC)
    yield "far", fd
    os.close(fd)
    done("ip", "netns", "delete", "far")
    done("umount", NETNS)               # which ip(8) has mounted


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("port", [False, True])
@pytest.mark.parametrize("mac", [None, MAC])
@pytest.mark.parametrize("name, inner", [("x0", "eth0"), ("x12345678901234", "eth123456789012")])
def test_a_pair_is_made_as_asked_for(bridge, far, name, inner, mac, port, up):
    bridge()
    monitor = Monitor()
    native.add_veth(name, 70000, inner, far[1], mac=mac and bytes.fromhex(mac.replace(":", "")), bridge="br0" if port else None, up=up)
    near, other = links()[name], links(far[0])[inner]
    assert near["ifindex"] == other["link_index"] == 70000 and near["link_index"] == other["ifindex"]
    assert near["linkinfo"]["info_kind"] == other["linkinfo"]["info_kind"] == "veth"
    assert is_up(near) == up and not is_up(other)
    assert near.get("master") == ("br0" if port else None) and "master" not in other
    assert mac in (None, other["address"]) and near["address"] not in (MAC, other["address"])
    assert near["mtu"] == other["mtu"] == 1500
    assert monitor.names() <= {name, "br0"} and set(links(far[0])) == {"lo", inner}


def test_a_vlan_is_made_as_asked_for(bridge):
    bridge()
    bridge("br1")
    if not can_make_vlans():
        with pytest.raises(OSError, match="not supported") as raised:
            native.add_vlan("br0.302", 70000, "br0", 302)
        assert (raised.value.verb, raised.value.filename) == ("make", "br0.302")
        return
    for number, (master, up) in enumerate([(None, False), ("br1", False), (None, True), ("br1", True)], 1):
        native.add_vlan(f"br0.{number}", 70000 + number, "br0", number, bridge=master, up=up)
        link = links()[f"br0.{number}"]
        assert (link["ifindex"], link["link"], link.get("master"), is_up(link)) == (70000 + number, "br0", master, up)
        assert link["linkinfo"]["info_kind"] == "vlan" and link["linkinfo"]["info_data"]["id"] == number


REFUSED = [
    ({"name": "br0"}, errno.EEXIST, "make br0"),
    ({"bridge": "nobr"}, errno.ENODEV, "find the interface nobr"),
    ({"bridge": "lo"}, errno.EOPNOTSUPP, "make x0"),
    ({"far_namespace": 999}, errno.EBADF, "make x0"),
    ({"mac": b"12345"}, errno.EINVAL, "use the address of x0"),
    ({"near_mac": b"1234567"}, errno.EINVAL, "use the address of x0"),
    ({"mtu": 1 << 20}, errno.EINVAL, "make x0"),
    ({"name": "x123456789012345"}, errno.ENAMETOOLONG, "use the name x123456789012345"),
]


@pytest.mark.parametrize("different, number, words", REFUSED)
def test_what_the_kernel_refuses(bridge, far, different, number, words):
    """Nothing is made of it."""
    bridge()
    with pytest.raises(OSError) as raised:
        native.add_veth(**{"name": "x0", "index": 70000, "far_name": "eth0", "far_namespace": far[1], **different})
    assert raised.value.errno == number and f"{raised.value.verb} {raised.value.filename}" == words
    assert set(links()) == {"lo", "br0"} and set(links(far[0])) == {"lo"}


def test_a_link_is_deleted_by_its_index_and_its_name(interface):
    name = interface("x0")
    index = links()[name]["ifindex"]
    for other in ((index, "x1"), (index + 1, "x0")):
        native.delete_link(*other)
        assert name in links()
    native.delete_link(index, name)
    assert name not in links()
    native.delete_link(index, name)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_list_that_the_kernel_does_not_finish(kind):
    """NLMSG_ERROR or NLMSG_DONE, with -ENOMEM: it is not taken for a short one."""
    error = struct.pack("=IHHIIi", 20, kind, 0, 0, 0, -errno.ENOMEM).hex()
    script = f"import sys; sys.path.insert(0, {MODULES!r}); from overlay_boot import links; print(len(links.addresses()) > 0)"

    def told(*injected):
        return run("strace", "-qq", "-e", "trace=read", *injected, "/usr/bin/python3", "-IS", "-c", script)

    plain = told()
    assert plain.stdout == "True\n"
    calls = [line for line in plain.stderr.splitlines() if line.startswith("read(")]
    number = next(at for at, line in enumerate(calls, 1) if ", 32768) = " in line)
    failed = told("-e", f"inject=read:poke_exit=@arg2={error}:when={number}")
    assert "Cannot allocate memory" in failed.stderr and "True" not in failed.stdout


def messages(calls):
    """What links sends to the kernel for the calls, as pyroute2 reads it."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    script = ["import sys", f"sys.path.insert(0, {MODULES!r})", "from overlay_boot import links"]
    for call in calls:
        script += ["try:", f"    links.{call}", "except OSError:", "    pass"]      # which this kernel may not know
    told = run("strace", "-qq", "-e", "trace=sendto", "-e", "signal=none", "-e", "write=all",
               "/usr/bin/python3", "-IS", "-c", "\n".join(script))
    assert told.returncode == 0, told.stderr
    dumps = re.split("^sendto.*", told.stderr, flags=re.MULTILINE)[1:]
    assert len(dumps) == len(calls), told.stderr
    for dump in dumps:
        message = ifinfmsg(bytes.fromhex("".join(re.findall(r"^ \| [0-9a-f]+  ([0-9a-f ]{48})", dump, re.MULTILINE))))
        message.decode()
        yield message


def attributes(message):
    """{name: value} of all attributes of a message, with those that are in others."""
    found = {}
    for name, value in message["attrs"]:
        found[name] = attributes(value) if hasattr(value, "items") and "attrs" in value else value
    return found


def test_messages_are_what_pyroute2_reads_in_them(bridge):
    """Of what this kernel may not make, too."""
    bridge()
    master = links()["br0"]["ifindex"]
    veth, plain, vlan, port = messages([
        "add_veth('x0', 70000, 'eth0', 0, mac=bytes.fromhex('0620034ea6f2'), bridge='br0', up=True)", "add_veth('x1', 70001, 'eth1', 0)",
        "add_vlan('lo.302', 70002, 'lo', 302)", "add_vlan('br0.4094', 70003, 'br0', 4094, bridge='br0', up=True)"])
    for message, index, flags in ((veth, 70000, 1), (plain, 70001, 0), (vlan, 70002, 0), (port, 70003, 1)):
        # RTM_NEWLINK; NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE
        assert message["header"]["type"] == 16 and message["header"]["flags"] == 0x605
        assert (message["index"], message["flags"], message["change"]) == (index, flags, flags)
    assert attributes(veth) == {
        "IFLA_IFNAME": "x0", "IFLA_MASTER": master, "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth", "IFLA_INFO_DATA": {
            "VETH_INFO_PEER": {"IFLA_IFNAME": "eth0", "IFLA_NET_NS_FD": 0, "IFLA_ADDRESS": MAC}}}}
    assert attributes(plain) == {
        "IFLA_IFNAME": "x1", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth", "IFLA_INFO_DATA": {
            "VETH_INFO_PEER": {"IFLA_IFNAME": "eth1", "IFLA_NET_NS_FD": 0}}}}
    assert attributes(vlan) == {
        "IFLA_IFNAME": "lo.302", "IFLA_LINK": 1, "IFLA_LINKINFO": {"IFLA_INFO_KIND": "vlan", "IFLA_INFO_DATA": {"IFLA_VLAN_ID": 302}}}
    assert attributes(port) == {
        "IFLA_IFNAME": "br0.4094", "IFLA_MASTER": master, "IFLA_LINK": master,
        "IFLA_LINKINFO": {"IFLA_INFO_KIND": "vlan", "IFLA_INFO_DATA": {"IFLA_VLAN_ID": 4094}}}


# What is imported

def test_the_plan_of_cables():
    """What can be told of VLANs where no kernel makes them."""
    from overlay_boot import cables
    planned = cables.parse(["=", "br0=.302", f"br1={MAC.upper()}", "=.07", "=.4094", "="], "x")
    assert [(one.noted_as, one.name, one.bridge, one.up, one.inner) for one in planned] == [
        ("cables", "x0", None, True, "eth0"), ("vlans", "x0.302", "br0", True, None), ("cables", "x1", "br1", True, "eth1"),
        ("vlans", "x1.7", None, False, None), ("vlans", "x1.4094", None, False, None), ("cables", "x2", None, False, "eth2")]
    assert [one.mac for one in planned if one.inner] == [None, bytes.fromhex(MAC.replace(":", "")), None]
    assert [(one.outer, one.tag) for one in planned if not one.inner] == [("x0", 302), ("x1", 7), ("x1", 4094)]


@pytest.fixture
def evil(directory):
    """A PATH with programs in front that tell that they were run."""
    for program in ("file", "uname", "gcc", "cc", "ldconfig", "ip", "ifup", "ifdown", "sh", "service", "id"):
        write(f"{directory}/evil/{program}", f"#!/bin/sh\necho {program} >>{directory}/ran\nexit 1\n", 0o755)
    return {"PATH": f"{directory}/evil:{os.environ['PATH']}"}


def test_no_child_process_has_the_callers_path(subhost, directory, evil, bridge, host):
    """pyroute2 runs programs when it is imported, whichever PATH finds."""
    bridge()
    one = with_stanza(subhost(CABLES="= br0="), host)
    for command in ([BOOT, "--check", one.conf], [BOOT, one.conf], [LS], [LS, "--json"], [STOP, one.conf], [BOOT, "--foreground", one.conf]):
        if "--foreground" in command:
            one.configure(CABLES="= br0=", INIT="echo exit 0")
        done(*command, env=evil)
        assert not os.path.exists(f"{directory}/ran"), f"{command}: {read(f'{directory}/ran')}"


def imported(*command):
    """The modules that a command imports, by python3(1), -X importtime."""
    ended = run("/usr/bin/python3", "-X", "importtime", "-IS", *command)
    assert ended.returncode == 0, ended.stderr
    return {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}


def test_nothing_is_imported_for_nothing(subhost):
    """What makes cables is for those who have some, and pyroute2 is for listing them."""
    one, cabled = subhost(), subhost(CABLES="=")
    commands = [[BOOT, "--check", one.conf], [BOOT, one.conf], [LS], [LS, "--json"], [GO, one.name, "true"], [GO], [STOP, one.conf],
                [BOOT, "--check", cabled.conf], [BOOT, cabled.conf], [GO, cabled.name, "true"], [STOP, cabled.conf]]
    for command in commands:
        modules = imported(*command)
        assert not [name for name in modules if name.startswith("pyroute2")], command
        for module in ("overlay_boot.cables", "overlay_boot.links"):
            assert (module in modules) == (cabled.conf in command), command
    cabled.booted()
    assert "pyroute2" in imported(LS)
