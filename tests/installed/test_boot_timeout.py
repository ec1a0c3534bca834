"""BOOT_TIMEOUT: a hook, a command, ifup or a service that hangs holds nobody up."""
import signal
import time

import pytest
from machine import BOOT, kill, one_line, ours, run, start, wait_for

HANG = "sleep 1000000 & exec sleep 1000000\n"      # with something that it has started
DEADLINE = 20                                       # seconds: the limit is not this, nor the default


def hung(one, variable, what, seconds="0.3"):
    """What is said of that; the rest of the line tells of LOG."""
    return f"overlay-boot: {variable}: {what} was killed: it has not ended after BOOT_TIMEOUT={seconds} seconds"


def sleeps():
    return [pid for pid, name in ours().items() if name == "sleep"]


@pytest.mark.parametrize("variable", ["PREMOUNT", "POSTMOUNT", "INIT"])
def test_a_hook_that_hangs(subhost, machine, variable):
    """The boot is undone, and whatever the hook has started is ended."""
    one = subhost(BOOT_TIMEOUT="0.3", **{variable: "./hook"})
    one.script("hook", f"setsid sleep 1000000 & {HANG}")
    line = one_line(one.boot(seconds=DEADLINE))
    assert line == f"{hung(one, variable, './hook')} (what it printed is in LOG={one.log})"
    machine.is_as_before()


@pytest.mark.parametrize("variable", ["NAME", "LOG", "MEMORY_MAX", "BASE", "LOWER", "START"])
def test_a_command_that_hangs(subhost, machine, variable):
    """Also one that runs before there is a control group."""
    one = subhost(BOOT_TIMEOUT="0.3")
    one.configure(BOOT_TIMEOUT="0.3", **{variable: f"!{one.script('slow', HANG)}"})
    assert one_line(one.boot(seconds=DEADLINE)) == hung(one, variable, f"{one.base}/slow")
    wait_for(lambda: not sleeps())
    assert one_line(run(BOOT, "--check", one.conf, seconds=DEADLINE)) == hung(one, variable, f"{one.base}/slow")
    machine.is_as_before()


def test_what_a_command_said_before_it_hung(subhost, machine):
    one = subhost(BOOT_TIMEOUT="0.3", UPPER="!./slow")
    one.script("slow", f"echo waiting for the database >&2\n{HANG}")
    assert one_line(one.boot(seconds=DEADLINE)) == f"{hung(one, 'UPPER', './slow')}: waiting for the database"
    machine.is_as_before()


def test_the_limit_is_a_command_itself(subhost, machine):
    one = subhost(BOOT_TIMEOUT="!echo 0.3", PREMOUNT="./hook")
    one.script("hook", HANG)
    assert hung(one, "PREMOUNT", "./hook") in one_line(one.boot(seconds=DEADLINE))


@pytest.mark.parametrize("limit", ["none", "864000", "30."])
def test_what_takes_its_time_is_not_ended(subhost, limit):
    one = subhost(BOOT_TIMEOUT=limit, PREMOUNT="./hook", RAM_SIZE="!./command", START="/opt/slow")
    one.script("hook", "sleep 0.4; overlay-premount\n")
    one.script("command", "sleep 0.4; echo 5M\n")
    one.write("opt/slow", "#!/bin/sh\nsleep 0.4\n", 0o755)
    one.booted()
    assert [line for line in one.said().splitlines() if "timeout" in line] == []


@pytest.mark.parametrize("value", ["0", "0.0", "-1", "soon", "864001", "9" * 30, "1e3", "no", "\u0663"])
def test_what_is_no_limit(subhost, machine, value):
    one = subhost(BOOT_TIMEOUT=value, NAME="!echo x")
    assert f"BOOT_TIMEOUT={value} is neither a number of seconds, more than 0 " in one_line(one.boot())
    machine.is_as_before()


def test_ifup_that_hangs(host, subhost):
    """As one that fails, it is told of, and no failure of the boot. What it has started is ended with it."""
    one = subhost(CABLES="=", BOOT_TIMEOUT="0.3")
    host.stanzas("x", f"iface {one.name}0 inet manual\n    up sleep 1000000\n")
    done = one.boot(seconds=DEADLINE)
    assert (done.returncode, done.stderr) == (0, f"{hung(one, 'CABLES', 'ifup')} (what it printed is in LOG={one.log})\n")
    assert one.is_running()
    wait_for(lambda: not sleeps())


# Services

@pytest.fixture
def hanging(subhost):
    """A subhost, over the machine's own root, of whose three services the second one hangs."""
    one = subhost(BOOT_TIMEOUT="1", START="/opt/one /opt/hangs /opt/two")
    for name in ("one", "two"):
        one.write(f"opt/{name}", "#!/bin/sh\n[ $1 = stop ] || sleep 1000001 &\n", 0o755)
    one.write("opt/hangs", "#!/bin/sh\n[ $1 = stop ] || { setsid sleep 1000002 & sh -c 'trap : TERM; sleep 1000003 & "
              "while :; do wait; done' & sleep 1000004; }\n", 0o755)
    return one


def test_a_service_that_hangs_has_failed(hanging):
    """All that it has started is ended, and nothing else; the next one is started."""
    begin = time.monotonic()
    done = hanging.boot("--wait", seconds=DEADLINE)
    assert (done.returncode, done.stderr) == (
        3, f"overlay-boot: cannot start /opt/hangs: it has not ended after BOOT_TIMEOUT=1 seconds "
           f"(what it printed is in LOG={hanging.log})\n")
    assert time.monotonic() - begin < 5
    assert hanging.sh("ps -o args= -C sleep").split() == ["sleep", "1000001", "sleep", "1000001"]
    services = {service["name"]: service["state"] for service in hanging.row()["services"]}
    assert services == {"/opt/one": "running", "/opt/hangs": "failed", "/opt/two": "running"}
    assert "cannot start /opt/hangs: it has not ended after BOOT_TIMEOUT=1 seconds\n" in hanging.said()
    hanging.stopped()


def test_a_boot_that_does_not_wait_for_it(hanging):
    """The limit holds whoever waits: it is told in LOG then."""
    hanging.configure(BOOT_TIMEOUT="1", START="/opt/hangs /opt/one")
    boot = start(BOOT, hanging.conf)
    wait_for(lambda: "/opt/hangs start" in hanging.said())
    kill(boot.pid, signal.SIGTERM)
    assert b"still being started" in boot.communicate(timeout=DEADLINE)[1] and boot.returncode == 0
    wait_for(lambda: "/opt/hangs: it has not ended after BOOT_TIMEOUT=1 seconds" in hanging.said())
    wait_for(lambda: [service["state"] for service in hanging.row()["services"]] == ["failed", "running"])


def test_one_that_does_not_heed_sigterm(subhost):
    """Is killed, 5 seconds later."""
    one = subhost(BOOT_TIMEOUT="0.2", START="/opt/deaf")
    one.write("opt/deaf", "#!/bin/sh\n[ $1 = stop ] && exit\ntrap '' TERM\nsleep 1000001\nsleep 1000002\n", 0o755)
    assert "it has not ended after BOOT_TIMEOUT=0.2 seconds" in one_line(run(BOOT, "--wait", one.conf, seconds=DEADLINE))
    assert one.sh("ps -o args= -C sleep; true") == ""


@pytest.mark.parametrize("status", [124, 137])
def test_an_exit_status_as_of_one_that_hangs(subhost, status):
    one = subhost(START="/opt/fails")
    one.write("opt/fails", f"#!/bin/sh\nexit {status}\n", 0o755)
    assert f"cannot start /opt/fails: exit status {status} (" in one_line(run(BOOT, "--wait", one.conf))


def test_a_daemon_does_not_end_with_the_limit(subhost):
    """timeout(1) is gone once the start has returned, and has nothing to do with what that has left."""
    one = subhost(BOOT_TIMEOUT="0.5", START="/opt/daemon")
    one.write("opt/daemon", "#!/bin/sh\n[ $1 = stop ] || sleep 1000001 &\n", 0o755)
    one.booted()
    time.sleep(0.8)
    assert one.sh("ps -eo comm=").split() == [".reaper", "sleep", "sh", "ps"]


def test_without_control_groups(subhost, small_root):
    """And without timeout(1): nothing is limited then."""
    one = subhost(LOWER=small_root, BOOT_TIMEOUT="0.3", START="/opt/slow")
    one.write("opt/slow", "#!/bin/sh\nsleep 0.6\n", 0o755)
    one.booted()


def test_a_stop_that_hangs_ends_with_all_that_it_has_started(subhost):
    """What is its own, in its process group; what is not goes on, until the subhost is asked to end."""
    one = subhost(START="/opt/service", STOP_TIMEOUT="1")
    one.write("opt/service", "#!/bin/sh\n[ $1 = start ] || { sleep 1000001 & sh -c 'trap : TERM; sleep 1000002'; }\n", 0o755)
    one.booted()
    begin = time.monotonic()
    done = one.stop(seconds=DEADLINE)
    assert (done.returncode, done.stderr) == (0, "overlay-stop: cannot stop /opt/service: /opt/service has not ended after 1 s\n")
    assert time.monotonic() - begin < 2.9           # else what it has started would have taken a second STOP_TIMEOUT
    assert one.is_gone()
