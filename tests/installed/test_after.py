"""AFTER: the order in which overlay-boot --all and overlay-stop --all take subhosts."""
import os
import signal

import pytest
from machine import BOOT, SITE_WIDE, STOP, descendants, names_running, new_name, one_line, read, run, start, wait_for, warnings, write
from network import done

pytestmark = pytest.mark.usefixtures("host")       # no subhosts but those of the test are there to be stopped

LIST = "/etc/subhosts.conf"
SLOW = "#!/bin/sh\nhostname >/meet/$1.$(hostname)\nuntil [ -e /meet/go.$1 ]; do sleep 0.02; done\nexit {status}\n"


@pytest.fixture
def listed(directory, host, machine):
    """Makes the list."""
    done("mount", "--bind", write(f"{directory}/list"), LIST)
    machine.look()
    return lambda *ones: write(LIST, "".join(f"{getattr(one, 'conf', one)}\n" for one in ones))


@pytest.fixture
def slow(subhost, directory):
    """Makes a subhost with a service that starts when a file is there, and stops when another one is."""
    def make(*after, status=0, **settings):
        one = subhost(START="/opt/slow", SHARE=f"{directory}:/meet", AFTER=" ".join(other.name for other in after), **settings)
        one.write("opt/slow", SLOW.format(status=status), 0o755)
        return one

    yield make
    for what in ("start", "stop"):
        write(f"{directory}/go.{what}")


def has_come(directory, what, one):
    return os.path.exists(f"{directory}/{what}.{one.name}")


# Booted

@pytest.mark.parametrize("options", [[], ["--wait"]])
def test_a_subhost_is_booted_when_the_services_of_others_have_started(slow, subhost, listed, directory, options):
    """However long they take, and in whichever order they are listed. What waits for nobody does not wait."""
    first = slow()
    second = slow(first)
    third, other = subhost(AFTER=f"{second.name} {first.name}"), subhost()
    listed(third, second, first, other)
    boot = start(BOOT, "--all", *options)
    wait_for(lambda: has_come(directory, "start", first) and other.name in names_running())
    assert ["--wait", first.conf] in [read(f"/proc/{pid}/cmdline").split("\0")[-3:-1] for pid in descendants(boot.pid)]
    assert names_running() == {first.name, other.name} and not os.path.exists(f"/run/overlay-boot/{second.name}")
    write(f"{directory}/go.start")
    assert boot.communicate(timeout=60) == (b"", b"") and boot.returncode == 0
    assert names_running() == {one.name for one in (first, second, third, other)}
    assert first.row()["since"] < second.row()["since"] < third.row()["since"]


@pytest.mark.parametrize("options, status", [([], 0), (["--wait"], 1)])
def test_a_service_that_fails_holds_nobody_up(slow, subhost, listed, directory, options, status):
    """AFTER is about order only."""
    first = slow(status=4)
    second = subhost(AFTER=first.name)
    listed(first, second)
    write(f"{directory}/go.start")
    ended = run(BOOT, "--all", *options)
    assert ended.returncode == status and "cannot start /opt/slow: exit status 4" in ended.stderr and ended.stderr.count("\n") == 1
    assert names_running() == {first.name, second.name}


def test_nor_does_a_boot_that_fails(subhost, listed):
    first, gone = subhost(LIVE="nowhere"), new_name()
    second = subhost(AFTER=f"{first.name} {gone}")
    listed(second, first, f"/nowhere/{gone}.conf")
    ended = run(BOOT, "--all")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 2 and "LIVE=" in ended.stderr
    assert names_running() == {second.name}


def test_a_circle_is_an_error(subhost, listed):
    """Of those in it, before anything is booted; who comes after it is no part of it."""
    name = new_name()
    first = subhost(AFTER=name)
    second = subhost(AFTER=first.name)
    third = subhost(name, AFTER=second.name)
    behind, other = subhost(AFTER=first.name), subhost()
    listed(first, second, behind, third, other)
    line = one_line(run(BOOT, "--all"))
    assert line.startswith("overlay-boot: AFTER is a circle: ")
    words = line.partition("circle: ")[2].split(" after ")
    assert words[0] == words[-1] and set(words) == {first.name, second.name, third.name} and len(words) == 4
    assert names_running() == {behind.name, other.name}
    assert one_line(run(BOOT, "--all")) == line


def test_an_unknown_name_is_an_error(subhost, listed):
    one, other = subhost(AFTER="nobody"), subhost()
    listed(one, other)
    line = one_line(run(BOOT, "--all"))
    assert line == f"overlay-boot: {one.conf}: AFTER: nobody is neither in {LIST} nor running"
    assert names_running() == {other.name}


def test_names_are_those_that_the_files_say(subhost, listed):
    """By a command as well."""
    other = new_name()
    first = subhost(NAME=f"!echo {other}")
    second = subhost(AFTER="!cat after", LOWR="x")
    write(f"{second.base}/after", f"{other}\n")
    listed(second, first)
    ended = run(BOOT, "--all")
    assert ended.returncode == 0 and ended.stderr.count("LOWR") == 1        # said once
    assert names_running() == {other, second.name}
    assert run(STOP, "--all").returncode == 0


def test_what_others_have_booted_is_waited_for(slow, subhost, listed, directory):
    """Listed or not: a boot is of one subhost, and waits for no other one."""
    first = slow()
    second = subhost(AFTER=first.name)
    listed(second)
    by_hand = start(BOOT, first.conf)
    wait_for(lambda: has_come(directory, "start", first))
    boot = start(BOOT, "--all")
    with pytest.raises(AssertionError):
        wait_for(second.is_running, 0.6)
    write(f"{directory}/go.start")
    for process in (boot, by_hand):
        assert process.communicate(timeout=20) == (b"", b"") and process.returncode == 0
    assert second.is_running()


def test_units_that_others_have_booted_are_waited_for(systemd_root, subhost, listed):
    """Of a subhost in which systemd starts them."""
    first = subhost(LOWER=systemd_root, INIT="overlay-systemd", START="slow")
    first.write("etc/systemd/system/slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'until [ -e /go ]; do sleep 0.02; done'\n")
    second = subhost(AFTER=first.name)
    listed(second)
    by_hand = start(BOOT, first.conf)
    wait_for(lambda: first.is_running() and first.row()["services"] and first.row()["services"][0]["state"] == "starting")
    boot = start(BOOT, "--all")
    with pytest.raises(AssertionError):
        wait_for(second.is_running, 1)
    first.sh("touch /go")
    for process in (boot, by_hand):
        assert process.communicate(timeout=60) == (b"", b"") and process.returncode == 0
    assert second.is_running()


def test_one_alone_waits_for_nobody(subhost):
    one = subhost(AFTER="nobody").booted()
    assert one.records()["after"] == "nobody"


def test_a_wake_takes_it_anew(subhost):
    one = subhost(AFTER="nobody")
    for after in ("nobody", "other", ""):
        one.configure(AFTER=after)
        assert one.boot("--shell", input="").returncode == 0
        assert one.records()["after"] == after


def test_interrupted(slow, subhost, listed, directory):
    first = slow()
    second = subhost(AFTER=first.name)
    listed(first, second)
    boot = start(BOOT, "--all")
    wait_for(lambda: has_come(directory, "start", first))
    boot.send_signal(signal.SIGTERM)
    assert b"interrupted by signal 15" in boot.communicate(timeout=20)[1] and boot.returncode == 1
    assert names_running() == {first.name} and second.is_gone()


# Stopped

def test_stopped_in_reverse(slow, directory):
    """By what was noted at the boot, whichever was booted last."""
    first = slow()
    second = slow(first)
    write(f"{directory}/go.start")
    for one in (second, first):
        one.booted()
    second.configure()
    stop = start(STOP, "--all")
    wait_for(lambda: has_come(directory, "stop", second))
    with pytest.raises(AssertionError):
        wait_for(lambda: has_come(directory, "stop", first), 0.4)
    assert first.is_running()
    write(f"{directory}/go.stop")
    assert stop.communicate(timeout=20) == (b"", b"") and stop.returncode == 0


def test_those_in_a_circle_are_stopped(subhost, machine):
    name = new_name()
    first = subhost(AFTER=name).booted()
    subhost(name, AFTER=first.name).booted()
    ended = run(STOP, "--all", seconds=20)
    assert (ended.returncode, ended.stderr) == (0, "")
    machine.is_as_before()


# What it can be

@pytest.mark.parametrize("value, why", [("x a/b", "a/b: not usable"), ("-x", "-x: not usable"), ("a\u00e4", "only printable ASCII"),
                                        ("abcdefghijklm", "longer than 12 characters"), ("{name}", "it is this subhost itself")])
def test_what_is_no_name(subhost, value, why):
    one = subhost()
    one.configure(AFTER=value.format(name=one.name))
    for ended in (run(BOOT, "--check", one.conf), one.boot()):
        assert "overlay-boot: AFTER: " in one_line(ended) and why in ended.stderr


def test_not_for_all(subhost, site_wide):
    site_wide("AFTER=db")
    assert one_line(subhost().boot()) == f"overlay-boot: {SITE_WIDE}: line 1: AFTER cannot be set for all subhosts"


def test_check_tells_of_unknown_names(subhost, listed):
    """Where they matter."""
    first = subhost()
    second = subhost(AFTER=f"{first.name} nobody")
    assert warnings(run(BOOT, "--check", second.conf)) == []
    listed(first, second)
    ended = run(BOOT, "--check", second.conf)
    assert ended.returncode == 0 and f"AFTER={first.name} nobody\n" in ended.stdout
    assert warnings(ended) == [f"overlay-boot: AFTER: nobody is neither in {LIST} nor running: overlay-boot --all will not boot this subhost"]
