"""A full init system as PID 1: Debian's systemd and sysvinit, each in a root file system made by mmdebstrap(1)."""
import os
import re

import pytest
from machine import TREE, is_alive, read, wait_for, write
from network import files_of

EXAMPLES = f"{TREE}/conf-examples"
SLOW = 60       # seconds, for an init system
UNIT = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/usr/bin/touch /was-stopped\n"
RC = "#!/bin/sh\necho $1 >/was-left-for\n[ $1 != 0 ] || exec halt -f\n"


@pytest.fixture
def booted(subhost, init_root):
    """A subhost as the example has it, over such a root."""
    def boot(example, more=None, users="no"):
        """With files of the example's own, and more of them: {path: text}, programs where that begins with #!.

        With a user namespace the fences are the default ones there.
        """
        one = subhost()
        text = read(f"{EXAMPLES}/{example}.conf")
        if users != "no":
            text = re.sub("^(CAPABILITIES|SYSTEM_CALLS)=.*\n", "", text, flags=re.MULTILINE) + f"USERNS= {users}\n"
        write(one.conf, re.sub("^LOWER=.*", f"LOWER={init_root(example)}", text, flags=re.MULTILINE))
        for path, content in files_of(text).items():
            one.write(path.removeprefix("root/"), content)
        for path, content in (more or {}).items():
            one.write(path, content, 0o755 if content.startswith("#!") else 0o644)
        return one.booted()
    return boot


def stops_by_itself(one):
    """It is asked, shuts down, and nobody has to be killed."""
    init = one.init
    one.stopped(seconds=SLOW)
    assert not is_alive(init)


def test_systemd(booted, terminal):
    one = booted("systemd", {"etc/systemd/system/x.service": UNIT})
    wait_for(lambda: one.go("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"), SLOW)
    assert one.go("systemctl", "is-active", "multi-user.target").stdout == "active\n"
    assert one.sh("cat /proc/1/comm") == "systemd"
    assert "systemd-journal" in one.sh("cat /proc/[0-9]*/comm")
    one.inside("systemctl", "start", "x")
    shell = terminal("overlay-go", one.name)
    shell.type("echo $HOME $USER; tty; exit\n")
    assert "/root root" in shell.expect("/dev/pts/")
    assert shell.ended() == 0
    stops_by_itself(one)
    assert os.path.exists(f"{one.upper}/was-stopped")


def test_systemd_in_a_user_namespace(subhost, init_root):
    """With the capabilities and system calls that are the default there."""
    one = subhost(LOWER=init_root("systemd"), INIT="echo exec /sbin/init", STOP_TIMEOUT="100", USERNS="auto").booted()
    wait_for(lambda: one.go("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"), SLOW)
    assert one.inside("systemctl", "is-active", "multi-user.target", "systemd-journald") == "active\nactive"
    stops_by_itself(one)


@pytest.mark.parametrize("users", ["no", "auto"])
def test_sysvinit(booted, users):
    one = booted("sysvinit", {"etc/init.d/rc": RC}, users)
    wait_for(lambda: "2" in one.go("runlevel").stdout.split(), SLOW)
    assert one.sh("cat /proc/1/comm") == "init"
    stops_by_itself(one)
    assert read(f"{one.upper}/was-left-for") == "0\n"


@pytest.mark.parametrize("example", ["systemd", "sysvinit"])
def test_a_poweroff_from_inside(booted, example):
    one = booted(example)
    if example == "systemd":
        wait_for(lambda: one.go("systemctl", "is-active", "multi-user.target").returncode == 0, SLOW)
        one.go("systemctl", "poweroff")
    else:
        wait_for(lambda: "2" in one.go("runlevel").stdout.split(), SLOW)
        one.go("shutdown", "-h", "now")
    wait_for(one.is_gone, SLOW)


def test_one_that_takes_no_notice_is_killed(subhost, init_root):
    """As Debian's inittab has it: SIGPWR comes to nothing."""
    one = subhost(LOWER=init_root("sysvinit"), INIT="echo exec /sbin/init", STOP_TIMEOUT="1").booted()
    wait_for(lambda: "2" in one.go("runlevel").stdout.split(), SLOW)
    stopped = one.stop()
    assert stopped.returncode == 0 and stopped.stderr.count("\n") == 1
    assert f"{one.name}: killed after 1 s: " in stopped.stderr
