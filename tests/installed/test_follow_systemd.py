"""overlay-follow where PID 1 of the subhost is systemd: it knows the units, and restarts those of START."""
import os
import shutil

import pytest
from machine import FOLLOW, GO, read, run, start, wait_for
from test_follow import LEFT, followed, old_of, replace

SLOW = 60       # seconds, for an init system on a busy machine
UNIT = "[Service]\nType=exec\nExecStart=/usr/sbin/{0} 1000000\nExecStartPost=/bin/sh -c 'echo {0} >>/order'\n"
UNITS = "etc/systemd/system"


@pytest.fixture
def served(subhost, init_root, directory):
    """A subhost with the services one, two.service and three, which START does not name: served(settings)."""
    def make(**settings):
        lower = f"{directory}/lower"
        assert run("cp", "-a", init_root("systemd"), lower, seconds=SLOW).returncode == 0      # it has devices
        made = subhost(**{"LOWER": lower, "INIT": "overlay-systemd", "START": "one two.service", **settings})
        made.lower = lower
        for name in ("one", "two", "three"):
            shutil.copy(f"{lower}/usr/bin/sleep", f"{lower}/usr/sbin/{name}")
            made.write(f"{UNITS}/{name}.service", UNIT.format(name))
        return made
    return make


def programs(path):
    """How many processes execute a program of that path in a subhost."""
    found = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += os.readlink(f"/proc/{process}/exe") == path
        except OSError:
            pass
    return found


def order(one):
    return read(f"{one.upper}/order").split()


@pytest.mark.parametrize("users", ["no", "auto"], ids=["", "users"])
def test_units_are_told_and_restarted(served, users):
    one = served(USERNS=users)
    assert one.boot("--wait", seconds=SLOW).returncode == 0
    one.inside("systemctl", "start", "three")
    other = start(GO, one.name, "/usr/sbin/one", "1000000")
    wait_for(lambda: programs("/usr/sbin/one") == 2)
    for name in ("one", "two", "three"):
        replace(f"{one.lower}/usr/sbin/{name}")
    [row] = followed(one.name, status=LEFT)
    assert sorted((each["service"] or "", *each["files"]) for each in row["old"]) == [
        ("", "/usr/sbin/one"), ("one", "/usr/sbin/one"), ("three.service", "/usr/sbin/three"),
        ("two.service", "/usr/sbin/two")]
    [row] = followed("--restart", one.name, status=LEFT)
    assert row["restarted"] == ["one", "two.service"]
    assert old_of(row) == {(None, "/usr/sbin/one"), ("three.service", "/usr/sbin/three")}
    assert order(one)[2:] == ["three", "one", "two"]
    assert {each["state"] for each in one.row()["services"]} == {"running"}
    assert followed("--restart", one.name, status=LEFT)[0]["restarted"] == []
    other.terminate()
    other.communicate()
    one.stopped(seconds=SLOW)


def test_a_unit_that_fails_is_told(served):
    """The host's new program is none."""
    one = served()
    assert one.boot("--wait", seconds=SLOW).returncode == 0
    replace(f"{one.lower}/usr/sbin/one", "no program")
    os.chmod(f"{one.lower}/usr/sbin/one", 0o755)
    done = run(FOLLOW, "--restart", one.name)
    assert done.stderr == (f"overlay-follow: {one.name}: cannot restart one: systemctl failed with exit status 1 "
                           f"(see overlay-go {one.name} journalctl -u 'one.service')\n")
    assert done.stdout == f"{one.name}: started again: one\n"
    assert {each["name"]: each["state"] for each in one.row()["services"]} == {"one": "failed", "two.service": "running"}
    one.stopped(seconds=SLOW)


def test_a_full_systemd(served):
    """It has units, and START none of them."""
    one = served(INIT="echo exec /sbin/init", START=None, STOP_TIMEOUT="100", USERNS="auto")
    os.makedirs(f"{one.upper}/{UNITS}/multi-user.target.wants")
    os.symlink("/etc/systemd/system/one.service", f"{one.upper}/{UNITS}/multi-user.target.wants/one.service")
    one.booted()
    wait_for(lambda: os.path.exists(f"{one.upper}/order"), SLOW)
    replace(f"{one.lower}/usr/sbin/one")
    [row] = followed("--restart", one.name, status=LEFT)
    assert old_of(row) == {("one.service", "/usr/sbin/one")} and row["restarted"] == []
    one.stopped(seconds=SLOW)
