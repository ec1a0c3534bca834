"""INIT= overlay-systemd: systemd as PID 1, for the services of START and nothing else."""
import json
import os
import time

import pytest
from conftest import cannot_run
from machine import BOOT, GO, LOG, LS, is_alive, one_line, read, run, start, wait_for
from test_services_seen import HUNG

SLOW = 60       # seconds, for an init system on a busy machine
SHORT = "echo {0} starts; exec sleep 1000000"
DAEMON = "[Unit]\n{1}\n[Service]\nExecStart=/bin/sh -c '" + SHORT + "'\nExecStop=/bin/sh -c 'echo {0} >>/stopped'\n{2}\n"
BROKEN = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no such luck; exit 4'\n"
SCRIPT = "#!/bin/sh\necho $1 >>/called\n[ $1 = stop ] || sleep 1000000 &\n"
UNITS = "etc/systemd/system"


@pytest.fixture(params=["no", "auto"], ids=["", "users"])
def users(request):
    """USERNS: by default, and in a user namespace."""
    return request.param


@pytest.fixture
def with_units(subhost, init_root):
    """A subhost with units of its own: with_units(START, {name: text}, ...)."""
    def make(words, units=(), **settings):
        one = subhost(**{"LOWER": init_root("systemd"), "INIT": "overlay-systemd", "START": words, **settings})
        for name, text in dict(units).items():
            one.write(f"{UNITS}/{name}", text)
        return one
    return make


def daemon(name, unit="", service=""):
    return DAEMON.format(name, unit, service)


def units(one, kind):
    """The names of the units of a kind that are active."""
    lines = one.inside("systemctl", "list-units", "--plain", "--no-legend", f"--type={kind}", "--state=active").splitlines()
    return {line.split()[0] for line in lines}


def services(one):
    """{name: (state, status, processes)}, as overlay-ls tells."""
    return {each["name"]: (each["state"], each["status"], each["processes"]) for each in one.row()["services"] or []}


def test_what_START_names_is_started_and_nothing_else(with_units, users):
    one = with_units("one two.service", {
        "one.service": daemon("one", "Requires=three.service\nAfter=two.service three.service", "PrivateTmp=yes\nProtectKernelTunables=yes"),
        "two.service": daemon("two"), "three.service": daemon("three"),
        "unwanted.service": daemon("unwanted")}, USERNS=users)
    for target in ("multi-user", "sysinit", "basic", "default", "sockets", "timers"):
        os.makedirs(f"{one.upper}/{UNITS}/{target}.target.wants")
        os.symlink("/etc/systemd/system/unwanted.service", f"{one.upper}/{UNITS}/{target}.target.wants/unwanted.service")
    one.write("etc/fstab", "none /mnt tmpfs defaults 0 0\nLABEL=x /home ext4 defaults 0 2\n")
    done = one.boot("--wait", seconds=SLOW)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), one.said()
    assert one.sh("cat /proc/1/comm") == "systemd"
    assert units(one, "service") == {"one.service", "two.service", "three.service", "systemd-journald.service", "overlay-boot-tmpfiles.service"}
    assert units(one, "socket") == {"systemd-journald.socket", "systemd-journald-dev-log.socket"}
    assert units(one, "timer,automount,swap,path,device") == set()
    assert one.inside("systemctl", "--failed", "--plain", "--no-legend") == ""
    assert one.go("systemctl", "is-system-running").stdout == "running\n"
    assert {line.split()[2] for line in one.sh("cat /proc/mounts").splitlines()}.isdisjoint({"debugfs", "tracefs", "securityfs", "hugetlbfs"})
    assert services(one) == {"one": ("running", 0, 1), "two.service": ("running", 0, 1)}
    assert {one["memory"] > 0 for one in one.row()["services"]} == {True}
    assert one.inside("journalctl", "-qo", "cat", "_SYSTEMD_UNIT=one.service") == "one starts"
    assert one.sh("systemctl daemon-reload; systemctl is-active one unwanted || true") == "active\ninactive"
    init = one.init
    one.stopped(seconds=SLOW)
    assert not is_alive(init)
    assert read(f"{one.upper}/stopped").splitlines()[0] == "one"     # in the order of After=, backwards
    assert sorted(os.listdir(f"{one.upper}/{UNITS}")) == sorted(
        [*(f"{name}.service" for name in ("one", "two", "three", "unwanted")),
         *(f"{name}.target.wants" for name in ("multi-user", "sysinit", "basic", "default", "sockets", "timers"))])


def test_what_fails_is_told_and_seen(with_units, users):
    one = with_units("good broken missing masked.service needs refused", {
        "good.service": daemon("good"), "broken.service": BROKEN, "refused.service": daemon("x", "ConditionPathExists=/nowhere"),
        "needs.service": daemon("needs", "Requires=broken.service\nAfter=broken.service")}, USERNS=users)
    os.symlink("/dev/null", f"{one.upper}/{UNITS}/masked.service")
    done = one.boot("--wait", seconds=SLOW)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"overlay-boot: cannot start {line} (what it printed is in LOG={one.log})" for line in (
            "broken: exit status 4: no such luck", "missing: the subhost has no unit missing.service",
            "masked.service: the unit masked.service is masked", "needs: a unit that it requires has failed",
            "refused: a condition of the unit refused.service is not met")]
    assert services(one) == {
        "good": ("running", 0, 1), "broken": ("failed", 4, 0), "missing": ("failed", None, 0), "masked.service": ("failed", None, 0),
        "needs": ("failed", None, 0), "refused": ("failed", None, 0)}
    assert "1/6 broken missing masked.service needs refused" in run(LS).stdout
    assert one.inside("systemctl", "--failed", "--plain", "--no-legend").split()[0] == "broken.service"
    one.stopped(seconds=SLOW)


WAITS = {"slow.service": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'until [ -e /go ]; do sleep 0.02; done'\n"}
KILL_WATCHER = """for process in $(cat /proc/1/task/1/children); do
    ! grep -q 'overlay-systemd starts' /proc/$process/cmdline || { kill -9 $process; echo killed; }
done"""


@pytest.mark.parametrize("options, status", [([], 0), (["--wait"], 3)])
def test_what_tells_of_services_is_killed(with_units, options, status):
    """By root inside, while a service may take as long as it likes."""
    one = with_units("slow", WAITS, BOOT_TIMEOUT="none")
    boot = start(BOOT, *options, one.conf)
    wait_for(lambda: one.is_running() and one.row()["services"] and services(one)["slow"][0] == "starting", SLOW)
    assert one.sh(KILL_WATCHER) == "killed"
    assert boot.communicate(timeout=SLOW)[1].decode() == (
        f"overlay-boot: cannot tell which services were started: what watches them was killed (what they print is in LOG={one.log})\n")
    assert boot.returncode == status and one.is_running()
    one.stopped(seconds=SLOW)


def test_a_service_that_crashes_is_supervised(with_units):
    one = with_units("kept lost", {"kept.service": daemon("kept", service="Restart=always\nRestartSec=50ms"), "lost.service": daemon("lost")}).booted()
    one.inside("systemctl", "kill", "-s", "KILL", "kept", "lost")
    wait_for(lambda: services(one)["lost"] == ("failed", 137, 0))
    wait_for(lambda: "1/2 lost" in run(LS).stdout)
    for word in (one.name, one.conf):
        said = run(LOG, word)
        assert (said.returncode, said.stderr) == (0, f"overlay-log: what units of {one.name} print is in its journal: overlay-go {one.name} journalctl\n")
    assert "signal=KILL" not in said.stdout and "status=9/KILL" in one.inside("journalctl", "-qu", "lost")
    wait_for(lambda: services(one)["kept"] == ("running", 0, 1) and one.inside("systemctl", "show", "-PNRestarts", "kept") == "1")
    one.inside("systemctl", "stop", "kept")
    assert services(one)["kept"] == ("ended", 143, 0)
    one.stopped(seconds=SLOW)


def test_a_path_is_a_script(with_units):
    """Whatever is in its name; and what it has left goes on."""
    path = "/srv/a%n-$HOME'\";`x`\\é"
    one = with_units(path)
    one.write(path, SCRIPT, 0o755)
    done = one.boot("--wait", seconds=SLOW)
    assert (done.returncode, done.stderr) == (0, ""), one.said()
    [(state, status, processes)] = services(one).values()
    assert (state, status, processes) == ("running", 0, 1)
    one.stopped(seconds=SLOW)
    assert read(f"{one.upper}/called") == "start\nstop\n"


def test_its_control_group_is_limited(with_units, users):
    """Only what is delegated can be written to, and what is below does not keep the host busy."""
    one = with_units("one", {"one.service": daemon("one")}, USERNS=users).booted(seconds=SLOW)
    written = one.sh("find /sys/fs/cgroup -maxdepth 1 -type f -perm -200 -writable -printf '%f\\n'")
    assert sorted(written.split()) == ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
    deep = "cd /sys/fs/cgroup; n=0; while [ $n -lt 1500 ] && mkdir x 2>/dev/null; do cd ./x; n=$((n + 1)); done; echo $n"
    assert one.sh(deep) == "32"
    assert services(one) == {"one": ("running", 0, 1)}
    one.stopped(seconds=SLOW)


SAYS = {"NUL": r"printf 'ControlGroup=/a\0b\n'", "out": "echo ControlGroup=/../..", "file": "echo ControlGroup=/cgroup.procs",
        "much": "yes", "nothing": "sleep 1000000"}


@pytest.mark.parametrize("how", SAYS)
def test_a_systemctl_that_says_nonsense(with_units, how):
    one = with_units("one", {"one.service": daemon("one")})
    one.write("srv/systemctl", f"#!/bin/sh\n{SAYS[how]}\n", 0o755)
    one.booted(seconds=SLOW).sh("cp -a /usr/bin/systemctl /srv/own; mv /srv/systemctl /usr/bin/systemctl")
    assert [each["processes"] for each in one.row()["services"] or []] in ([], [0])
    assert run(LS, seconds=10).returncode == 0
    one.sh("mv /srv/own /usr/bin/systemctl")            # systemd calls it to end
    one.stopped(seconds=SLOW)


def test_a_systemctl_that_cannot_be_killed(with_units):
    """Its path leads to a file system that a process of the subhost's serves: it takes requests, and answers none."""
    if not (os.path.exists("/dev/fuse") and os.path.exists("/usr/lib/systemd/systemd")):
        cannot_run("no /dev/fuse, or no systemd here")
    served = HUNG.replace("PLACE", "/usr/local/sbin").replace(
        "    time.sleep(1000000)", "    os.set_blocking(fuse, True)\n    while True:\n        os.read(fuse, 1 << 17)")
    one = with_units("one", {"one.service": daemon("one")}, LOWER="/", USERNS="auto", DEVICES="/dev/fuse").booted(seconds=SLOW)
    holder = start(GO, one.name, "/usr/bin/python3", "-IS", "-c", served)
    assert holder.stdout.readline() == b"1\n"
    try:
        assert run(LS, seconds=10).returncode == 0
    finally:
        holder.terminate()
        holder.communicate()
    one.stopped(seconds=SLOW)


def test_those_that_do_not_answer_are_asked_together(with_units):
    """Beside one that does."""
    hung = [with_units("one", {"one.service": daemon("one")}).booted(seconds=SLOW) for _ in range(3)]
    well = with_units("one", {"one.service": daemon("one")}).booted(seconds=SLOW)
    for one in hung:
        one.sh("cp -a /usr/bin/systemctl /srv/own; printf '#!/bin/sh\nsleep 1000000\n' >/usr/bin/systemctl")
    begin = time.monotonic()
    listed = {row["name"]: row["services"] for row in json.loads(run(LS, "--json").stdout)}
    assert time.monotonic() < begin + 2 * 2         # seconds: less than two of them, one after the other, take
    assert [listed[one.name] for one in hung] == [None] * 3 and listed[well.name][0]["state"] == "running"
    for one in hung:
        one.sh("mv /srv/own /usr/bin/systemctl")
    for one in (*hung, well):
        one.stopped(seconds=SLOW)


@pytest.mark.parametrize("word", ["a'b", "$(reboot)", "a%n", "é", "x" * 260, "@x"])
@pytest.mark.parametrize("options", [[], ["--check"]])
def test_what_cannot_be_a_unit(with_units, word, options):
    one = with_units(word)
    assert f"START: {word} cannot be the name of a unit" in one_line(one.boot(*options))
    assert not one.is_running()


def test_without_systemd(subhost, small_root):
    one = subhost(LOWER=small_root, INIT="overlay-systemd", START="x")
    assert "has ended while its services were being started" in one_line(one.boot())
    assert "the subhost has no /usr/lib/systemd/systemd" in read(one.log)


def test_without_services_and_after_a_shell(with_units, terminal):
    """What hibernates is booted with systemd then."""
    one = with_units("none")
    shell = terminal(BOOT, "--shell", one.conf)
    shell.type("echo $((6 * 7)); exit\n")
    shell.expect("42")
    assert shell.ended() == 0
    one.booted(seconds=SLOW)
    wait_for(lambda: one.go("systemctl", "is-system-running").stdout == "running\n", SLOW)
    assert one.row()["services"] == []
    one.stopped(seconds=SLOW)


# The end, as it is asked for inside

INITS = {"scripts": {"INIT": None, "START": "d"}, "systemd": {"START": "d"}, "users": {"START": "d", "USERNS": "auto"}}
INITS["sysvinit"] = INITS["scripts"]


@pytest.fixture
def rebooting(with_units, init_root):
    """A subhost with a service d, by a script or a unit, which notes that it was stopped: rebooting(key of INITS).

    Its commands are those of systemd; or of sysvinit.
    """
    def make(how):
        one = with_units("d", {"d.service": daemon("d")}, LOWER=init_root("sysvinit" if how == "sysvinit" else "systemd"), **INITS[how])
        one.write("etc/init.d/d", "#!/bin/sh\n[ $1 = start ] || { echo d >>/stopped; exit; }\nsleep 1000000 &\n", 0o755)
        return one
    return make


def stopped(one):
    return read(f"{one.upper}/stopped")


@pytest.mark.parametrize("how, command", [*((how, "reboot") for how in INITS), ("scripts", "shutdown -r now"), ("sysvinit", "init 6")])
def test_reboot_and_poweroff(rebooting, how, command):
    """Init scripts, too, are stopped in order."""
    one = rebooting(how).booted(seconds=SLOW)
    before = one.init
    one.go(*command.split())
    wait_for(lambda: not is_alive(before) and one.is_running() and one.row()["services"], SLOW)
    assert stopped(one) == "d\n"
    wait_for(lambda: services(one) == {"d": ("running", 0, 1)}, SLOW)
    one.go("poweroff")
    wait_for(one.is_gone, SLOW)
    assert stopped(one) == "d\n" * 2
    assert read(one.log).count(" overlay-boot: boot from ") == 2


@pytest.mark.parametrize("how", ["scripts", "systemd"])
def test_reboot_in_the_foreground(rebooting, how):
    """It is the same process that a service manager waits for."""
    one = rebooting(how)
    process = start(BOOT, "--foreground", one.conf)
    wait_for(lambda: one.is_running() and services(one) == {"d": ("running", 0, 1)}, SLOW)
    before = one.init
    one.go("reboot")
    wait_for(lambda: not is_alive(before) and one.is_running() and services(one) == {"d": ("running", 0, 1)}, SLOW)
    one.go("halt")
    assert process.wait(SLOW) == 0
    assert stopped(one) == "d\n" * 2
    process.communicate()


def test_nothing_else_is_asked_for(rebooting):
    """What is no request, or one of another kind."""
    one = rebooting("scripts").booted()
    one.sh("echo 6 >/run/initctl; head -c 5000 /dev/zero >/run/initctl")
    one.sh("printf '\\151\\31\\11\\3\\1\\0\\0\\0q\\0\\0\\0' >/tmp/q; head -c 372 /dev/zero >>/tmp/q; cat /tmp/q >/run/initctl")
    one.stopped()
    assert stopped(one) == "d\n"


def test_a_subhost_that_cannot_be_booted_again(rebooting):
    one = rebooting("scripts").booted()
    os.rename(one.work, f"{one.work}.away")
    one.go("poweroff", "--reboot")
    wait_for(lambda: "WORK" in read(one.log), SLOW)
    wait_for(one.is_gone)
    os.rename(f"{one.work}.away", one.work)
