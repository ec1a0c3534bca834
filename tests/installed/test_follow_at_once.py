"""overlay-follow beside another one, a boot or a stop of the same subhost: one after the other, whoever began first."""
import json
import os
import shutil

import debs
import pytest
from debs import deb, dpkg
from machine import BOOT, FOLLOW, read, run, start, wait_for

HELD = '[ ! -p /hold ] || { echo "$1 $2" >>/var/log/scripts; read -r line </hold; }'


@pytest.fixture(scope="module")
def pristine(run_directory):
    return debs.system(f"{run_directory}/at_once")


@pytest.fixture
def held(pristine, directory, subhost):
    """A subhost that is stopped and has something to follow: a maintainer script, which waits until it is told to go on."""
    host = shutil.copytree(pristine, f"{directory}/host", symlinks=True)
    first, second = (deb(host, "lib", version, scripts={"postinst": HELD}) for version in "12")
    dpkg(host, "-i", first)
    one = subhost(LOWER=host).booted()
    assert one.go("dpkg", "-i", deb(host, "own", "1")).returncode == 0
    one.sh("mkfifo /hold")
    one.stopped()
    dpkg(host, "-i", second)
    one.host = host
    return one


def begun(one, *words):
    """An overlay-follow that waits for the script."""
    process = start(FOLLOW, "--json", *words, one.conf)
    wait_for(lambda: "configure 1" in read(f"{one.upper}/var/log/scripts"))
    return process


def let_on(one):
    one.sh("echo >/hold")


def told(process):
    """What it tells of packages."""
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    [row] = json.loads(output)
    return {(each["package"], each["change"]) for each in row["packages"]}


def ran(one):
    return read(f"{one.upper}/var/log/scripts").split("\n").count("configure 1")


@pytest.mark.parametrize("is_running", [False, True], ids=["stopped", "running"])
def test_two_of_them(held, is_running):
    if is_running:
        held.booted()
    one = begun(held)
    other = start(FOLLOW, "--json", held.conf)
    wait_for(lambda: waits(other))
    let_on(held)
    assert told(one) == {("lib", "upgraded")} and told(other) == set()
    assert ran(held) == 1


def test_one_with_cables_that_is_stopped(held):
    """It is booted without them."""
    held.configure(LOWER=held.host, CABLES="=", ADDRESS="192.0.2.2/24", PUBLISH="8080:80", BOOT_TIMEOUT="5")
    one = begun(held)
    assert not os.path.exists(f"/sys/class/net/{held.name}0")
    let_on(held)
    assert told(one) == {("lib", "upgraded")}


def waits(process):
    """Whether it waits for a lock."""
    return "flock" in read(f"/proc/{process.pid}/wchan") or "flock" in read(f"/proc/{process.pid}/stack")


def test_a_boot_waits(held):
    """The subhost is booted for its packages alone: who boots it with its services has that end first."""
    one = begun(held)
    boot = start(BOOT, held.conf)
    said = f"overlay-boot: {held.name}: waiting for overlay-follow, which has packages configured in it\n"
    assert boot.stderr.readline().decode() == said
    let_on(held)
    assert told(one) == {("lib", "upgraded")}
    assert (boot.communicate(), boot.returncode) == ((b"", b""), 0)
    assert held.row()["state"] == "running" and held.inside("dpkg-query", "-Wf", "${Version}", "lib") == "2"


def test_a_boot_that_waits_can_be_interrupted(held):
    one = begun(held)
    boot = start(BOOT, held.conf)
    boot.stderr.readline()
    boot.terminate()
    assert boot.communicate()[1] == b"overlay-boot: interrupted by signal 15\n" and boot.returncode == 1
    let_on(held)
    assert told(one) == {("lib", "upgraded")}


def test_a_stop_ends_it_and_the_next_call_does_the_rest(held):
    """As of a subhost that runs: whoever stops it does not wait for a script."""
    for _ in range(2):
        one = begun(held)
        assert run("/usr/sbin/overlay-stop", held.conf).returncode == 0
        one.communicate()
        assert one.returncode == 1
        os.truncate(f"{held.upper}/var/log/scripts", 0)
        held.booted()
    said = run(FOLLOW, "--dry-run", held.conf)
    assert (said.returncode, said.stdout) == (3, f"{held.name}: its packages have not followed to the end\n")
    one = begun(held)
    let_on(held)
    told(one)
    assert held.inside("dpkg-query", "-Wf", "${Status} ${Version}", "lib") == "install ok installed 2"


def test_a_boot_that_began_first(held):
    """The subhost is followed as it runs then."""
    held.script("premount", "echo >begun; sleep 1; exec overlay-premount")
    held.configure(LOWER=held.host, PREMOUNT="./premount")
    boot = start(BOOT, held.conf)
    wait_for(lambda: os.path.exists(f"{held.base}/begun"))
    one = start(FOLLOW, "--json", held.conf)
    boot.communicate()
    wait_for(lambda: "configure 1" in read(f"{held.upper}/var/log/scripts"))
    let_on(held)
    assert told(one) == {("lib", "upgraded")} and held.row()["state"] == "running"
