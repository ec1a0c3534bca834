"""Services of START: their control groups, what is seen of them, and waiting for them."""
import os
import shutil
import signal

import pytest
from conftest import cannot_run
from machine import BOOT, GO, LS, kill, read, run, start, wait_for, write

# For any service: what it does is in the file of its name in /what.
SERVICE = """#!/bin/sh
. /lib/lsb/init-functions
what=$(cat "/what/${0##*/}")
case $1 in
start) eval "$what" ;;
restart) eval "$what"; echo again ;;
esac
"""
DAEMON = "sleep 1000000 >/dev/null 2>&1 & echo $! >/run/${0##*/}.pid"


@pytest.fixture
def with_services(subhost):
    """A subhost with init scripts of its own: with_services({name: what it does when it is started}, ...)."""
    def make(what, **settings):
        one = subhost(START=" ".join(what), **settings)
        for name, text in what.items():
            one.write(f"etc/init.d/{name}", SERVICE, 0o755)
            one.write(f"what/{name}", text + "\n")
        return one
    return make


def services(one):
    """{name: (state, status, processes)}, as overlay-ls tells."""
    return {each["name"]: (each["state"], each["status"], each["processes"]) for each in one.row()["services"]}


def group(one, name):
    """The process ids in the control group of a service."""
    [line] = [line for line in read(f"/proc/{one.init}/cgroup").splitlines() if line.startswith("0::")]
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        path = f"{root}{line[3:]}/{name}.service/cgroup.procs"
        if os.path.exists(path):
            return read(path).split()
    raise AssertionError(f"no control group of {name}")


def table(one):
    """The column of services, in the table of overlay-ls."""
    title, *lines = run(LS).stdout.splitlines()
    begin, end = title.index("SVCS"), title.index("CABLES")
    return next(line[begin:end].strip() for line in lines if line.split()[0] == one.name)


USERS = pytest.mark.parametrize("settings", [{}, {"USERNS": "auto"}], ids=["", "users"])


@USERS
def test_services_are_seen(with_services, machine, settings):
    one = with_services({"daemon": DAEMON, "oneshot": "true", "broken": "echo x; echo no such luck; exit 3"}, **settings)
    done = one.boot()
    assert done.returncode == 0
    assert done.stderr == f"overlay-boot: cannot start broken: exit status 3: no such luck (what it printed is in LOG={one.log})\n"
    assert services(one) == {"daemon": ("running", 0, 1), "oneshot": ("done", 0, 0), "broken": ("failed", 3, 0)}
    assert table(one) == "2/3 broken"
    daemon = one.row()["services"][0]
    assert daemon["memory"] > 0 and one.row()["since"] - 2 < daemon["since"] < one.row()["since"] + 100
    [process] = group(one, "daemon")
    assert read(f"/proc/{process}/comm") == "sleep\n"
    # One that is no more is seen, and so is one that is started again from inside, by its script.
    one.sh("kill -9 $(cat /run/daemon.pid)")
    wait_for(lambda: services(one)["daemon"] == ("ended", 0, 0))
    assert table(one) == "1/3 daemon broken"
    assert one.inside("service", "daemon", "restart") == "again"
    assert services(one)["daemon"] == ("running", 0, 1) and table(one) == "2/3 broken"
    one.stopped()
    machine.is_as_before()


def test_a_service_by_its_path(subhost):
    one = subhost(START="/opt/x/run /etc/init.d/other")
    for path in ("opt/x/run", "etc/init.d/other"):
        one.write(path, f"#!/bin/sh\n[ $1 = stop ] || {{ {DAEMON}; }}\n", 0o755)
    one.booted()
    assert services(one) == {"/opt/x/run": ("running", 0, 1), "/etc/init.d/other": ("running", 0, 1)} and table(one) == "2/2"
    one.sh("kill $(cat /run/run.pid)")
    wait_for(lambda: services(one)["/opt/x/run"] == ("ended", 0, 0))
    assert table(one) == "1/2 /opt/x/run"
    one.stopped()


def test_a_service_by_its_path_that_is_restarted(subhost):
    """By overlay-go, or from inside by a script that reads what those of Debian read, or goes by itself."""
    one = subhost(START="/opt/x/run /opt/y/run /opt/z/run /etc/init.d/other")
    restart = f"#!/bin/sh\n%s\n[ $1 = start ] || kill $(cat /run/%s.pid)\n{DAEMON.replace('${0##*/}', '%s')}\n"
    for path, name, reads in (("opt/x/run", "x", ":"), ("opt/y/run", "y", ". /lib/lsb/init-functions"),
                              ("opt/z/run", "z", "echo 0 >/run/overlay-services/opt-z-run"), ("etc/init.d/other", "other", ":")):
        one.write(path, restart % (reads, name, name), 0o755)
    one.booted()
    running = dict.fromkeys(("/opt/x/run", "/opt/y/run", "/opt/z/run", "/etc/init.d/other"), ("running", 0, 1))
    assert services(one) == running
    one.inside("/opt/x/run", "restart")
    one.inside("/etc/init.d/other", "restart")
    one.sh("cd /opt; /bin/sh y/run restart; /opt/y/run restart; z/run restart")
    assert services(one) == running
    assert group(one, "opt-x-run") and group(one, "opt-y-run") and group(one, "other")
    one.stopped()


def test_what_a_start_leaves_for_a_moment(with_services):
    """Such as what ifup(8) runs in the background; a daemon of that is seen to have ended."""
    one = with_services({"helped": "sleep 0.3 >/dev/null 2>&1 &", "daemon": "setsid sleep 0.6 >/dev/null 2>&1 & sleep 0.2", "other": "sleep 1"})
    one.booted()
    assert services(one) == {"helped": ("done", 0, 0), "daemon": ("ended", 0, 0), "other": ("done", 0, 0)}
    one.stopped()


@USERS
def test_a_root_that_has_not_got_what_start_scripts_read(subhost, small_root, own_root, settings):
    """It gets that, if it has what reads it; and another version is replaced."""
    functions = "lib/lsb/init-functions"
    for file in (functions, f"{functions}.d/50-overlay-boot"):
        assert os.path.exists(f"/{file}")
    write(f"{own_root}/{functions}", "for file in /lib/lsb/init-functions.d/*; do . $file; done\n")
    one = subhost(LOWER=own_root, START="/etc/init.d/daemon", **settings)
    one.write("etc/init.d/daemon", f"#!/bin/sh\n. /{functions}\n[ $1 = stop ] || {{ {DAEMON.replace('${0##*/}', 'daemon')}; }}\n", 0o755)
    for _ in range(2):
        one.booted()
        one.sh("kill -9 $(cat /run/daemon.pid); cd /etc/init.d; ./daemon start")
        assert services(one) == {"/etc/init.d/daemon": ("running", 0, 1)}
        assert one.inside("cat", f"/{functions}.d/50-overlay-boot") == read(f"/{functions}.d/50-overlay-boot").strip("\n")
        one.sh(f"echo : >/{functions}.d/50-overlay-boot")       # which belongs to root there
        one.stopped()
    other = subhost(LOWER=small_root, START="/etc/init.d/daemon")
    other.write("etc/init.d/daemon", "#!/bin/sh\n", 0o755)
    assert other.booted().sh("[ -e /lib/lsb ] || echo none") == "none"
    other.stopped()


def test_what_tmpfiles_d_asks_for_in_run(subhost):
    if not shutil.which("systemd-tmpfiles"):
        cannot_run("no systemd-tmpfiles(8)")
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\nstat -c '%n %a %G' /run/own*\nls -d /run/systemd /run/nologin /srv/own\n:\n", 0o755)
    one.write("usr/lib/tmpfiles.d/own.conf", "".join(f"{line}\n" for line in (
        "d /run/own 1770 root utmp", "d /var/run/own2 0700", "d /srv/own", "f /run/systemd/own", "f+! /run/nologin", "d /run/nobody - none none")))
    one.booted()
    said = one.said()
    assert "/run/own 1770 utmp\n/run/own2 700 root\n" in said
    for missing in ("/run/systemd", "/run/nologin", "/srv/own"):
        assert f"'{missing}': No such file" in said, said
    one.stopped()
    one.configure(START="none")
    assert one.booted().sh("ls /run").split() == ["dummy_service", "initctl", "lock"]
    one.stopped()


def test_services_where_run_cannot_be_written_to(subhost, small_root):
    """They are started all the same; there is no telling what became of them."""
    one = subhost(START="/opt/service", RAM_SIZE="none", PREMOUNT="./pre")
    one.script("pre", "overlay-premount; mkdir -p $UPPER/run; echo >$UPPER/run/overlay-services\n")
    one.write("opt/service", f"#!/bin/sh\n[ $1 = stop ] || {{ {DAEMON}; }}\n", 0o755)
    one.booted()
    assert one.row()["services"] is None and one.row()["processes"] == 2 and table(one) == "-"
    one.stopped()


def test_a_service_that_has_but_a_unit(subhost):
    """What would help is told by the boot, and by --check before it."""
    one = subhost(START="has-but-a-unit")
    one.write("usr/lib/systemd/system/has-but-a-unit.service")
    checked, booted = one.boot("--check"), one.boot()
    for done in (checked, booted):
        assert done.returncode == 0
        assert done.stderr.count("only a unit for systemd; the package orphan-sysvinit-scripts has scripts for some services, "
                                 "and INIT=overlay-systemd starts units") == 1
    assert services(one) == {"has-but-a-unit": ("failed", 127, 0)}
    one.stopped()


def test_no_services(running):
    assert running.row()["services"] == [] and table(running) == "-"


def test_services_while_they_are_started(with_services):
    one = with_services({"daemon": DAEMON, "slow": "read x </go", "late": "true"})
    os.mkfifo(f"{one.upper}/go")
    boot = start(BOOT, "--wait", one.conf)
    wait_for(lambda: one.row() and one.row()["services"] and services(one).get("slow", ("",))[0:1] == ("starting",)
             and services(one)["daemon"][0] == "running")
    assert services(one)["late"] == ("starting", None, 0) and table(one) == "1/3"
    one.go("sh", "-c", "echo >/go")
    assert boot.wait(20) == 0
    assert services(one)["slow"] == ("done", 0, 0) and table(one) == "3/3"
    boot.communicate()
    one.stopped()


@USERS
def test_services_of_a_subhost_that_hibernated(with_services, settings):
    """Its doors are those of control groups that are gone; there are others when it is woken."""
    one = with_services({"daemon": DAEMON}, **settings)
    assert one.boot("--shell", input="exit 0").returncode == 0
    for _ in range(2):
        one.booted()
        assert services(one) == {"daemon": ("running", 0, 1)}
        kill(one.init, signal.SIGTERM)
        wait_for(lambda: one.row()["state"] == "hibernating")
    one.stopped()


def test_what_the_subhost_says_of_services_is_not_believed_further(with_services):
    """Whoever is root inside can say what it likes, and break no command."""
    one = with_services({"daemon": DAEMON})
    one.booted()
    for text in ("x", "7 1 daemon\n\nformat 9\n99999999 1 daemon\n-1 1 daemon\n7 1", "\\377\\000\\n", "0 1 other\n"):
        one.sh(f"printf '{text}' >/run/overlay-services/.verdicts")
        assert services(one)["daemon"][0] in ("running", "starting")
    one.sh("rm /run/overlay-services/.verdicts; ln -s /etc/passwd /run/overlay-services/.verdicts")
    assert one.row()["state"] == "running"
    one.sh("rm /run/overlay-services/.verdicts; mkdir /run/overlay-services/.verdicts")
    assert one.row()["state"] == "running"
    one.sh("rmdir /run/overlay-services/.verdicts; mkfifo /run/overlay-services/.verdicts")
    assert one.row()["state"] == "running"
    one.sh("rm /run/overlay-services/.verdicts; echo 0 1 daemon >/run/overlay-services/.verdicts")
    holder = start(GO, one.name, "/usr/bin/python3", "-IS", "-c", """if True:
        import fcntl, os, signal, time
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(os.open("/run/overlay-services/.verdicts", os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        print("held", flush=True)
        time.sleep(1000000)""")
    assert holder.stdout.readline() == b"held\n"
    assert (one.row()["state"], one.row()["services"]) == ("running", None)
    one.stopped()
    holder.communicate()


@USERS
def test_another_file_in_the_place_of_verdicts(with_services, settings):
    """Root of a user namespace can mount one there."""
    one = with_services({"daemon": DAEMON}, **settings)
    one.booted()
    if settings:
        for path in ("/proc/kmsg", "/proc/1/mem", "/etc/hostname"):
            one.sh(f"mount --bind {path} /run/overlay-services/.verdicts")
            assert (one.row()["state"], one.row()["services"]) == ("running", None)
            one.sh("umount /run/overlay-services/.verdicts")
    assert services(one)["daemon"] == ("running", 0, 1)
    one.stopped()


# Mounts a FUSE that it serves, and an overlay over that on PLACE; then it serves no more.
HUNG = """if True:
    import ctypes, os, struct, time
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    def mount(kind, place, options):
        if libc.mount(kind, place, kind, 0, options):
            raise OSError(ctypes.get_errno(), kind)
    mount(b"fuse", b"/mnt", f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode())
    attributes = struct.pack("<QII6Q10I", 0, 0, 0, 1, *[0] * 8, 0o40755, 2, *[0] * 5)
    answers = {3: attributes, 17: bytes(80), 26: struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 1, 1, 4096, 1, 0, 0, 0, *[0] * 7), 27: bytes(16), 28: b"", 29: b"", 34: b""}
    refused = {1: -2, 22: -61, 23: -61}
    child = os.fork()
    if not child:
        mount(b"overlay", b"PLACE", b"lowerdir=/mnt:/srv")
        os._exit(0)
    os.set_blocking(fuse, False)
    while not os.waitpid(child, os.WNOHANG)[0]:
        try:
            request = os.read(fuse, 1 << 17)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        _, call, unique = struct.unpack_from("<IIQ", request)
        if call != 2:
            said = answers.get(call, b"")
            os.write(fuse, struct.pack("<IiQ", 16 + len(said), 0 if call in answers else refused.get(call, -38), unique) + said)
    print(open("/proc/self/mountinfo").read().count(" PLACE "), flush=True)
    time.sleep(1000000)"""


@pytest.mark.parametrize("place", ["/run", "/run/overlay-services"])
def test_a_mount_that_hangs(with_services, place):
    """Of an overlay over a file system that a process of the subhost's serves, and does not any more."""
    if not os.path.exists("/dev/fuse"):
        cannot_run("no /dev/fuse here")
    one = with_services({"daemon": DAEMON}, USERNS="auto", DEVICES="/dev/fuse")
    one.booted()
    holder = start(GO, one.name, "/usr/bin/python3", "-IS", "-c", HUNG.replace("PLACE", place))
    assert holder.stdout.readline() == (b"2\n" if place == "/run" else b"1\n")
    try:
        assert run(LS, "--json", seconds=10).returncode == 0
        assert one.row()["services"] is None and table(one) == "-"
    finally:
        holder.terminate()
        holder.communicate()
    one.stopped()


def test_more_failures_than_anybody_reads(with_services):
    """The end of them is told all the same."""
    names = [f"missing-{'x' * 80}-{number}" for number in range(60)]
    one = with_services({"daemon": DAEMON})
    one.configure(START=" ".join(["daemon", *names]))
    done = one.boot("--wait")
    assert done.returncode == 3 and 0 < len(done.stderr.splitlines()) < 60
    one.stopped()


# --wait

def test_wait_says_which_has_failed(with_services):
    one = with_services({"daemon": DAEMON, "broken": "echo why >&2; exit 4", "silent": "exit 5"})
    done = one.boot("--wait")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"overlay-boot: cannot start broken: exit status 4: why (what it printed is in LOG={one.log})",
        f"overlay-boot: cannot start silent: exit status 5 (what it printed is in LOG={one.log})"]
    assert one.is_running()
    one.stopped()


def test_wait_where_nothing_fails(with_services):
    one = with_services({"daemon": DAEMON})
    done = one.boot("--wait")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    one.stopped()
    one.configure(START="none")
    assert one.boot("--wait").returncode == 0
    one.stopped()


@pytest.mark.parametrize("option", ["--foreground", "--shell", "--check"])
def test_wait_is_for_boots_that_return(subhost, option):
    assert run(BOOT, "--wait", option, subhost().conf).returncode == 2
