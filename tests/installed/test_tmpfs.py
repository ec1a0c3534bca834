"""UPPER= tmpfs:SIZE: made anew at each boot."""
import os

import pytest
from machine import BOOT, STATES, kill, mounts, read, run, start, wait_for


@pytest.fixture
def ephemeral(subhost):
    """A subhost with such an UPPER, and without the directories root and work."""
    def make(size="8M", **settings):
        one = subhost(UPPER=f"tmpfs:{size}", **settings)
        os.rmdir(one.upper)
        os.rmdir(one.work)
        return one
    return make


def test_nothing_persists(ephemeral):
    one = ephemeral().booted()
    one.sh("echo x >/etc/new; rm /etc/passwd")
    assert one.sh("cat /etc/new; ls /etc/passwd || true") == "x"
    one.stopped()
    one.booted()
    assert one.sh("ls /etc/new || true; ls /etc/passwd") == "/etc/passwd"
    assert sorted(os.listdir(one.base)) == ["live", f"{one.name}.conf"]


def test_full_means_enospc_inside(ephemeral):
    one = ephemeral("4M").booted()
    done = one.go("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=9")
    assert done.returncode and "No space left" in done.stderr
    assert 3 << 20 < int(one.sh("stat -c %s /big")) <= 4 << 20
    one.sh("rm /big; echo x >/etc/x")


def test_empty_files_have_a_limit_too(ephemeral):
    """They take no page, and still memory."""
    one = ephemeral("2M").booted()
    done = one.go("sh", "-c", "mkdir /many && cd /many && i=0 && while : >f$i; do i=$((i+1)); done")
    assert done.returncode and "No space left" in done.stderr
    assert int(one.sh("ls /many | wc -l")) <= 2048


def test_the_host_does_not_see_it(ephemeral):
    one = ephemeral().booted()
    assert not [line for line in mounts() if f"{one.name}/upper" in line]
    assert os.listdir(f"{STATES}/{one.name}/upper") == []
    one.stopped()
    assert not os.path.exists(f"{STATES}/{one.name}/upper")


def test_inside_only_the_overlay_is_seen(ephemeral):
    one = ephemeral().booted()
    assert not [line for line in mounts(one.init) if f"{one.name}/upper" in line]


def test_hooks_get_upper_as_a_path(ephemeral):
    one = ephemeral()
    pre = one.script("pre", 'overlay-premount && echo "pre $1" >"$1/pre" && test "$1" = "$UPPER" && test -d "$WORK"')
    post = one.script("post", 'overlay-postmount && cat "$2/pre" >"$1/post"')
    one.configure(UPPER="tmpfs:8M", PREMOUNT=pre, POSTMOUNT=post)
    one.booted()
    assert one.inside("cat", "/pre", "/post") == "\n".join([f"pre {STATES}/{one.name}/upper/root"] * 2)
    assert one.inside("hostname") == one.name == one.inside("cat", "/etc/hostname")


def test_lower_may_be_a_whole_root(ephemeral, small_root):
    one = ephemeral(LOWER=small_root).booted()
    assert one.sh("echo x >/x && cat /x") == "x"


def test_in_percent(ephemeral):
    ephemeral("1%").booted()


@pytest.mark.parametrize("size", ["", "x", "0", "0k", "-1", "none", "101%", "5MM"])
def test_a_size_that_is_none(ephemeral, fails, size):
    fails(ephemeral(size), f"UPPER=tmpfs:{size}")


def test_work_is_on_it(ephemeral, fails):
    fails(ephemeral(WORK="work"), "WORK=work", "UPPER=tmpfs:8M")


def test_check_changes_nothing(ephemeral, machine):
    one = ephemeral()
    done = one.boot("--check")
    assert done.returncode == 0 and "UPPER=tmpfs:8M\n" in done.stdout and "WORK=tmpfs:8M\n" in done.stdout
    machine.is_as_before()


def test_a_boot_that_fails_leaves_nothing(ephemeral, fails):
    fails(ephemeral(POSTMOUNT="false"), "POSTMOUNT")


def test_a_boot_that_is_killed(ephemeral):
    one = ephemeral()
    hook = one.script("hook", "touch here; sleep 1000")
    one.configure(UPPER="tmpfs:8M", POSTMOUNT=hook)
    boot = start(BOOT, one.conf)
    wait_for(lambda: os.path.exists(f"{one.base}/here"))
    assert os.path.exists(f"{STATES}/{one.name}/upper")
    kill(boot.pid, 9)
    boot.communicate()
    assert run("overlay-stop", one.conf).returncode == 1
    assert not os.path.exists(f"{STATES}/{one.name}/upper")


def test_pid_1_ends(ephemeral):
    one = ephemeral().booted()
    kill(one.init, 9)
    wait_for(one.is_gone)
    assert not os.path.exists(f"{STATES}/{one.name}/upper") and read(one.conf)
