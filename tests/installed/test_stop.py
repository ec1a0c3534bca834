"""Stop: services in reverse order, a request to all, and what is left is killed."""
import os
import re
import shutil
import signal
import time

import pytest
from conftest import cannot_run
from machine import (BOOT, GO, NETNS, PYTHON, STOP, control_group, descendants, is_alive, kill, one_line, read, run, start, wait_for,
                     write)

from overlay_boot import cgroup

SERVICE = """#!/bin/sh
echo "${0##*/} $1" >>/order
[ $1 = start ] || { kill $(cat /run/${0##*/}); exit; }
sleep 1000000 &
echo $! >/run/${0##*/}
"""


def started(one):
    """Wait until PID 1 has started all services, and is the reaper."""
    init = one.init
    wait_for(lambda: read(f"/proc/{init}/comm") == ".reaper\n")
    return init


def order(one):
    return read(f"{one.upper}/order").split("\n")[:-1]


# Services

def test_services_are_stopped_in_reverse_order(subhost, machine):
    one = subhost(START="/opt/first /opt/second /opt/third")
    for name in ("first", "second", "third"):
        one.write(f"opt/{name}", SERVICE, 0o755)
    one.booted()
    started(one)
    assert order(one) == ["first start", "second start", "third start"]
    one.stopped()
    machine.is_as_before()
    assert order(one)[3:] == ["third stop", "second stop", "first stop"]


def test_a_frozen_subhost(subhost, machine):
    one = subhost(START="/opt/first")
    one.write("opt/first", SERVICE, 0o755)
    started(one.booted())
    write(f"/proc/self/fd/{cgroup.hierarchy()}{control_group(one.init)}/cgroup.freeze", "1")
    one.stopped()
    machine.is_as_before()
    assert order(one) == ["first start", "first stop"]


def test_a_service_that_cannot_even_be_told_to_stop(subhost, machine):
    """Who is root inside can hold up what enters: STOP_TIMEOUT counts from the beginning."""
    one = subhost(START="/opt/first", STOP_TIMEOUT="1")
    one.write("opt/first", SERVICE, 0o755)
    started(one.booted())
    begin = time.monotonic()
    done = run("strace", "-f", "-o", "/dev/null", "-e", "trace=keyctl", "-e", "inject=keyctl:signal=SIGSTOP", *PYTHON, STOP, one.conf)
    assert time.monotonic() < begin + 30
    assert done.returncode == 0 and "overlay-stop: cannot stop /opt/first: /opt/first has not ended after 1 s\n" in done.stderr
    machine.is_as_before()


def test_a_subhost_by_its_name(subhost, machine, directory):
    """Without its configuration file, too, and from anywhere; a file of the name is one if there is no such subhost."""
    one, other = subhost().booted(), subhost().booted()
    write(f"{directory}/elsewhere/{other.name}", f"NAME={one.name}\nBASE=.\n")
    assert run(STOP, other.name, cwd=f"{directory}/elsewhere").returncode == 0 and other.is_gone()
    assert f"{one.name} is running from {one.conf}" in one_line(run(STOP, other.name, cwd=f"{directory}/elsewhere"))
    os.rename(one.conf, f"{one.conf}.away")
    assert run(STOP, one.name, cwd="/").returncode == 0 and one.is_gone()
    os.rename(f"{one.conf}.away", one.conf)
    assert one_line(run(STOP, one.name, cwd="/")) == f"overlay-stop: {one.name} is not running"
    assert "NAME=a:b: " in one_line(run(STOP, "a:b", cwd="/"))
    machine.is_as_before()


def test_services_by_name(subhost):
    """Names of /etc/init.d scripts, run by service(8)."""
    one = subhost(START="first /opt/second third")
    for path in ("etc/init.d/first", "opt/second", "etc/init.d/third"):
        one.write(path, SERVICE, 0o755)
    one.booted()
    started(one)
    one.stopped()
    assert order(one) == ["first start", "second start", "third start", "third stop", "second stop", "first stop"]


def test_a_stop_script_is_let_finish(subhost):
    """Though what it has stopped was all that kept the subhost up."""
    one = subhost(START="/opt/first /opt/second")
    for name in ("first", "second"):
        one.write(f"opt/{name}", SERVICE.replace("; exit;", "; sleep 0.3; echo ${0##*/} cleared >>/order; exit;"), 0o755)
    one.booted()
    started(one)
    one.stopped()
    assert order(one)[2:] == ["second stop", "second cleared", "first stop", "first cleared"]


def test_all_services_are_stopped_though_the_first_was_the_last_alive(subhost):
    one = subhost(START="/opt/set-up /opt/daemon")
    one.write("opt/set-up", '#!/bin/sh\necho "${0##*/} $1" >>/order\n', 0o755)
    one.write("opt/daemon", SERVICE, 0o755)
    one.booted()
    started(one)
    one.stopped()
    assert order(one)[2:] == ["daemon stop", "set-up stop"]


def test_what_services_are_run_with(subhost):
    """Of the caller's environment and terminal nothing; each in a session of its own."""
    one = subhost(START="/opt/service")
    one.write("opt/service", """#!/bin/sh
        env | sort >/env-$1; ls -l /proc/$$/fd | grep -c -- '->' >/fds-$1; readlink /proc/$$/fd/0 >>/fds-$1
        read -r stat </proc/$$/stat; set -- $1 ${stat##*) }; echo $5 $6 $7 $$ >/stat-$1; pwd >>/stat-$1
        """, 0o755)
    one.booted(env={"SECRET": "x"})
    started(one)
    one.stopped(env={"SECRET": "x"})
    for which in ("start", "stop"):
        keys = {line.partition("=")[0] for line in read(f"{one.upper}/env-{which}").splitlines()}
        assert keys == {"LANG", "PATH", "PREVLEVEL", "PWD", "RUNLEVEL", "TERM", "container"}, which
        session, terminal, foreground, pid = read(f"{one.upper}/stat-{which}").split("\n")[0].split()
        assert session == pid and terminal == "0" and read(f"{one.upper}/stat-{which}").endswith("\n/\n"), (which, foreground)
        assert read(f"{one.upper}/fds-{which}").split()[1].endswith("/dev/null")      # all of its path, where all this is in a chroot


def test_a_service_that_cannot_be_started(subhost):
    """Is told by the boot, in a line that says where LOG is, and in LOG; the others are started."""
    one = subhost(START="/opt/missing /opt/fails no-such-service /opt/good")
    one.write("opt/fails", "#!/bin/sh\nexit 7\n", 0o755)
    one.write("opt/good", SERVICE, 0o755)
    done = one.boot()
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == 3
    for line, (word, why) in zip(lines, (("/opt/missing", "exit status 127: setsid: failed to execute /opt/missing: .*"),
                                         ("/opt/fails", "exit status 7"),
                                         ("no-such-service", "the subhost has no /etc/init.d/no-such-service")), strict=True):
        where = re.escape(f"(what it printed is in LOG={one.log})")
        assert re.fullmatch(f"overlay-boot: cannot start {word}: {why} {where}", line), line
    started(one)
    said = one.said()
    assert "/opt/missing" in said and "cannot start /opt/fails: exit status 7\n" in said and "no-such-service" in said
    assert order(one) == ["good start"]
    one.stop()


def test_a_stop_script_that_is_gone(subhost, machine):
    one = subhost(START="/opt/first /opt/second")
    for name in ("first", "second"):
        one.write(f"opt/{name}", SERVICE, 0o755)
    one.booted()
    started(one)
    one.inside("rm", "/opt/second")
    done = one.stop()
    machine.is_as_before()
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "/opt/second" in done.stderr
    assert order(one)[-1] == "first stop"


def test_a_stop_script_that_hangs(subhost, machine):
    """Is killed after STOP_TIMEOUT, and said to be; the others are run."""
    one = subhost(START="/opt/first /opt/second", STOP_TIMEOUT="0.5")
    one.write("opt/first", SERVICE, 0o755)
    one.write("opt/second", SERVICE.replace("; exit;", "; sleep 1000000;"), 0o755)
    one.booted()
    started(one)
    begin = time.monotonic()
    done = one.stop()
    assert 0.5 <= time.monotonic() - begin < 10
    machine.is_as_before()
    assert done.returncode == 0 and "/opt/second" in done.stderr and "Traceback" not in done.stderr
    assert order(one)[-1] == "first stop"


def test_a_stop_script_that_says_much(subhost):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\n[ $1 = start ] || yes | head -c 300000\nsleep 1000000 &\n", 0o755)
    one.booted()
    started(one)
    one.stopped()
    assert len(one.said()) >= 300000


def test_a_stop_script_that_says_too_much(subhost, machine):
    """It is killed at once, and said to be at fault."""
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\n[ $1 = start ] || { yes | head -c 2000000; sleep 1000000; }\nsleep 1000000 &\n", 0o755)
    one.booted()
    started(one)
    begin = time.monotonic()
    done = one.stop(seconds=30)
    assert time.monotonic() - begin < 10
    machine.is_as_before()
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "/opt/service: more than" in done.stderr


def test_a_stop_script_that_leaves_something(subhost, machine):
    """Its standard output held open by it does not hold the stop."""
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\n[ $1 = start ] || setsid sleep 1000000 &\nsleep 1000000 &\n", 0o755)
    one.booted()
    started(one)
    one.stopped()
    machine.is_as_before()


@pytest.mark.parametrize("gone", ["file", "directory"])
def test_a_log_that_is_gone(subhost, gone):
    """Rotated away, say: the stop goes on."""
    one = subhost(START="/opt/service", LOG="logs/log")
    os.mkdir(f"{one.base}/logs")
    one.write("opt/service", SERVICE, 0o755)
    one.booted()
    started(one)
    if gone == "file":
        os.unlink(f"{one.base}/logs/log")
    else:
        shutil.rmtree(f"{one.base}/logs")
    assert one.stop().returncode == 0 and one.is_gone()
    assert order(one) == ["service start", "service stop"]


def test_a_log_that_is_a_link_by_now(subhost, directory):
    """What the stop says goes where the boot was told, or nowhere."""
    one = subhost(START="/opt/service", LOG="log")
    one.write("opt/service", "#!/bin/sh\necho spoilt\nsleep 1000000 &\n", 0o755)
    one.booted()
    started(one)
    os.unlink(f"{one.base}/log")
    os.symlink(f"{directory}/canary", f"{one.base}/log")
    assert one.stop().returncode == 0 and not os.path.exists(f"{directory}/canary")


def test_services_of_a_custom_init(subhost):
    """Those that overlay-init starts for it are stopped."""
    one = subhost(START="/opt/service", INIT="./init")
    one.script("init", "echo 'echo custom >>/order'; overlay-init\n")
    one.write("opt/service", SERVICE, 0o755)
    one.booted()
    started(one)
    one.stopped()
    assert order(one) == ["custom", "service start", "service stop"]


def test_no_services_of_another_init(subhost):
    """START is nothing to an INIT that does not ask for it."""
    one = subhost(START="/opt/service", INIT="echo exec /.reaper x /run/dummy_service")
    one.write("opt/service", SERVICE, 0o755)
    one.booted()
    started(one)
    one.stopped()
    assert order(one) == []


# Signals

STUBBORN = "#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do sleep 0.05; done\n"
POLITE = "#!/bin/sh\ntrap 'echo told >/told; exit 0' TERM\necho ready\nwhile :; do sleep 0.05; done\n"


def begin(one, name, text):
    """Run a script inside that belongs to no service, until it says that it is ready."""
    one.write(f"opt/{name}", text, 0o755)
    one.sh(f"mkfifo /run/{name}; setsid /opt/{name} >/run/{name} 2>/dev/null </dev/null & read x </run/{name}")


def test_all_get_sigterm(running, machine):
    begin(running, "polite", POLITE)
    running.stopped()
    assert read(f"{running.upper}/told") == "told\n"


def test_a_daemon_gets_sigterm(running):
    """One that has left its session, its parents and its descriptors."""
    running.write("opt/daemon.pl", "use POSIX; fork and exit; POSIX::setsid(); fork and exit; $SIG{TERM} = sub { open F, '>/told'; print F 'told';"
                                   " close F; exit }; open F, '>/ready'; close F; close $_ for *STDIN, *STDOUT, *STDERR; sleep 1000000 while 1")
    running.go("perl", "/opt/daemon.pl")
    wait_for(lambda: os.path.exists(f"{running.upper}/ready"))
    running.stopped()
    assert read(f"{running.upper}/told") == "told"


def test_who_entered_gets_sigterm(running):
    process = start(GO, running.name, "sh", "-c", "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == b"ready\n"
    running.stopped()
    assert process.communicate(timeout=20)[0] == b"told\n" and process.returncode == 3


def test_a_shell_on_a_terminal_is_hung_up(running, terminal):
    """An interactive one takes no notice of SIGTERM."""
    shell = terminal(GO, running.name, env={"TERM": "dumb"})
    shell.type("PS1='rea''dy> '\n")
    shell.expect("ready> ")
    running.stopped()
    assert shell.ended() != 0


def test_who_entered_by_way_of_one_that_was_killed(running):
    """PID 1 is not told of his end, by nobody but the stop."""
    process = start(GO, running.name, "sh", "-c", "trap 'sleep 0.2; exit' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    running.stopped()
    process.communicate()


def test_who_takes_no_notice_is_killed_and_named(subhost, machine):
    one = subhost(STOP_TIMEOUT="0.5").booted()
    begin(one, "stubborn", STUBBORN)
    begin(one, "polite", POLITE)
    [pid] = [pid for pid, name in descendants(one.init).items() if name == "stubborn"]
    started_at = time.monotonic()
    done = one.stop()
    assert 0.5 <= time.monotonic() - started_at < 8
    machine.is_as_before()
    assert done.returncode == 0 and not is_alive(pid)
    assert done.stderr.count("\n") == 1 and f"stubborn ({pid})" in done.stderr and "0.5" in done.stderr and one.name in done.stderr
    assert "polite" not in done.stderr and read(f"{one.upper}/told") == "told\n"


def test_a_service_that_takes_no_notice(subhost, machine):
    one = subhost(START="/opt/stubborn", STOP_TIMEOUT="0.3")
    one.write("opt/stubborn", "#!/bin/sh\n[ $1 = start ] || exit 0\ntrap '' TERM\n(while :; do sleep 0.05; done) &\n", 0o755)
    one.booted()
    started(one)
    done = one.stop()
    machine.is_as_before()
    assert done.returncode == 0 and "stubborn (" in done.stderr


def test_no_patience_at_all(subhost, machine):
    one = subhost(STOP_TIMEOUT="0").booted()
    begin(one, "stubborn", STUBBORN)
    done = one.stop()
    machine.is_as_before()
    assert done.returncode == 0 and "stubborn (" in done.stderr


def test_who_makes_ever_new_processes_is_killed(subhost, machine):
    one = subhost(STOP_TIMEOUT="0.3").booted()
    begin(one, "busy", "#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do (trap '' TERM; sleep 0.2 & sleep 0.01); done\n")
    done = one.stop()
    machine.is_as_before()
    assert done.returncode == 0 and "busy (" in done.stderr


def test_pid_1_alone_is_killed_and_named(subhost):
    one = subhost(INIT="echo exec sleep 1000000", STOP_TIMEOUT="0.2").booted()
    wait_for(lambda: read(f"/proc/{one.init}/comm") == "sleep\n")
    done = one.stop()
    assert done.returncode == 0 and "sleep (" in done.stderr


def test_a_reaper_that_is_not_so_far_as_to_take_requests(subhost, machine):
    """A request to it would be lost, so everybody is asked.  Here one that never is: a program with our reaper's mark."""
    one = subhost()
    with open(shutil.which("sleep"), "rb") as file:
        one.write("opt/reaper", os.fsdecode(file.read() + b"overlay-boot reaper"), 0o755)
    one.write("opt/polite", POLITE.replace("echo ready", ": >/ready"), 0o755)
    one.configure(INIT=one.init_text("/opt/polite & exec /opt/reaper 1000000"), STOP_TIMEOUT="0.5")
    one.booted()
    wait_for(lambda: os.path.exists(f"{one.upper}/ready") and read(f"/proc/{one.init}/comm") == "reaper\n")
    done = one.stop()
    machine.is_as_before()
    assert done.returncode == 0 and f"{one.name}: killed after 0.5 s: reaper (" in done.stderr
    assert read(f"{one.upper}/told") == "told\n"


def test_a_full_freezer(subhost, machine):
    """Stopped processes, and a stopped keeper: nobody can hold it."""
    one = subhost(STOP_TIMEOUT="0.3").booted()
    begin(one, "stubborn", STUBBORN)
    init, keeper = one.init, one.keeper
    for pid in [*descendants(init), keeper]:
        kill(pid, signal.SIGSTOP)
    assert one.stop().returncode == 0
    machine.is_as_before()
    assert not is_alive(keeper)


def test_a_name_that_is_no_text_is_told_as_one_line(subhost):
    """A process's name is its own to choose."""
    one = subhost(STOP_TIMEOUT="0.2").booted()
    one.write("opt/odd.pl", "$SIG{TERM} = 'IGNORE'; $0 = 'x'; open F, '>/proc/self/comm'; syswrite F, \"a\\nb\\xff\\e[31m\"; close F;"
                            " open F, '>/ready'; close F; sleep 1000000 while 1")
    one.sh("setsid perl /opt/odd.pl </dev/null >/dev/null 2>&1 &")
    wait_for(lambda: os.path.exists(f"{one.upper}/ready"))
    done = one.stop()
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


# While services are being started

SLOW = "#!/bin/sh\necho slow $1 >>/order\n[ $1 = stop ] || exec sleep 1000000\n"


def starting(one):
    """A boot that waits for a service that takes its time."""
    one.write("opt/slow", SLOW, 0o755)
    boot = start(BOOT, one.conf)
    wait_for(lambda: order(one) == ["slow start"])
    return boot


def test_a_boot_does_not_wait_for_ever(subhost):
    """It tells that the services are not so far, and where LOG is.  The subhost runs."""
    one = subhost(START="/opt/slow")
    one.write("opt/slow", SLOW, 0o755)
    done = one.boot()
    assert done.returncode == 0
    assert done.stderr == f"overlay-boot: the services are still being started (what they print is in LOG={one.log})\n"
    assert one.is_running() and order(one) == ["slow start"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_boot_that_waits_for_services_is_interrupted(subhost, number):
    """It waits no longer; the subhost runs, and can be entered and stopped all the while."""
    one = subhost(START="/opt/slow")
    boot = starting(one)
    assert one.inside("hostname") == one.name
    kill(boot.pid, number)
    assert b"still being started" in boot.communicate(timeout=5)[1] and boot.returncode == 0
    assert one.is_running()


def test_a_subhost_that_ends_while_its_services_are_started(subhost, machine):
    one = subhost(START="/opt/slow")
    boot = starting(one)
    kill(one.init, signal.SIGKILL)
    _, err = boot.communicate(timeout=20)
    assert boot.returncode == 1
    assert err.decode() == f"overlay-boot: {one.name} has ended while its services were being started (see LOG={one.log})\n"
    assert one.is_gone()


def test_what_a_hostile_subhost_says_of_its_services(subhost):
    """Is neither obeyed by a terminal nor endless."""
    one = subhost(START="/opt/hostile")
    one.write("opt/hostile", "#!/bin/sh\nprintf '\\033[2J\\233x\\n' >/proc/1/fd/3; yes >/proc/1/fd/3 & echo $! >/pid; sleep 1; kill $!\n", 0o755)
    for options in ([], ["--foreground"]):
        boot = start(BOOT, *options, one.conf)
        wait_for(lambda: read(f"{one.upper}/pid"))
        if options:
            wait_for(lambda: read(f"/proc/{one.init}/comm") == ".reaper\n")
            one.stop()
        err = boot.communicate(timeout=30)[1]
        one.stop()
        assert b"\x1b" not in err and b"\x9b" not in err and err.startswith(b"overlay-boot: ") and len(err) < 1 << 18
        os.unlink(f"{one.upper}/pid")


def test_nothing_of_the_report_reaches_a_service(subhost):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\n[ $1 = stop ] || ls -l /proc/$$/fd >/fds; sleep 1000000 &\n", 0o755)
    one.booted()
    started(one)
    pipes = {word for word in read(f"{one.upper}/fds").split() if word.startswith("pipe:")}
    assert pipes == {os.readlink(f"/proc/{one.init}/fd/2")}
    assert os.readlink(f"/proc/{one.init}/fd/3") == "anon_inode:[signalfd]"       # the reaper's own
    assert os.readlink(f"/proc/{one.init}/fd/4") == "/run/dummy_service"
    assert sorted(os.listdir(f"/proc/{one.init}/fd")) == ["0", "1", "2", "3", "4"]


def test_services_of_a_hook_that_leaves_something(subhost):
    """What INIT has started before them may have the report open: the boot does not wait for its end."""
    one = subhost(START="/opt/fails", INIT="./init")
    one.script("init", "echo 'sleep 1000000 &'; overlay-init\n")
    one.write("opt/fails", "#!/bin/sh\nexit 3\n", 0o755)
    begin = time.monotonic()
    one.booted("/opt/fails")
    assert time.monotonic() - begin < 8


def test_a_stop_while_a_service_is_starting(subhost, machine):
    """The services take their time: a stop does not wait for them, nor for STOP_TIMEOUT."""
    one = subhost(START="/opt/slow /opt/after", STOP_TIMEOUT="15")
    one.write("opt/after", "#!/bin/sh\necho after $1 >>/order\n", 0o755)
    boot = starting(one)
    begin = time.monotonic()
    done = one.stop()
    assert done.returncode == 0 and time.monotonic() - begin < 10
    boot.communicate(timeout=20)
    machine.is_as_before()
    assert "killed" not in done.stderr


def test_boots_and_stops_in_quick_succession(subhost):
    """A request for an orderly end is not lost, however far PID 1 has come."""
    one = subhost(START="/bin/true", STOP_TIMEOUT="15")
    begin = time.monotonic()
    for _ in range(20):
        one.booted().stopped()
    one.configure(START="none", STOP_TIMEOUT="15")
    for _ in range(20):
        one.booted().stopped()
    assert time.monotonic() - begin < 14


# Not running

def test_not_running(subhost):
    one = subhost()
    done = one.stop()
    assert done.returncode == 1 and one_line(done) == f"overlay-stop: {one.name} is not running"


def test_stopped_twice(running):
    running.stopped()
    assert running.stop().returncode == 1


def test_leftovers_of_a_killed_subhost(running):
    init = running.init
    kill(running.keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    assert os.path.exists(running.state)
    done = running.stop()
    assert done.returncode == 1 and one_line(done) == f"overlay-stop: {running.name} is not running"
    assert running.is_gone()


def test_leftovers_with_processes_in_them(running):
    """PID 1 and the keeper are killed at once; a hook's process is still there."""
    running.stopped()
    running.configure(PREMOUNT="./pre")
    running.script("pre", f"overlay-premount; setsid sleep 1000000 & echo $! >{running.base}/pid\n")
    running.booted()
    left = int(read(f"{running.base}/pid"))
    kill(running.keeper, signal.SIGKILL)
    assert is_alive(left)
    assert running.stop().returncode == 1
    assert not is_alive(left) and running.is_gone()


@pytest.mark.parametrize("made", ["namespace", "file"])
def test_what_somebody_else_has_in_the_place_of_its_network_namespace(running, made):
    """Known by its inode for what it is not, it stays."""
    place = f"{NETNS}/{running.name}"
    assert run("umount", place).returncode == 0
    try:
        # Beside it at first: where /run is on a disk, the inode of what is gone may be the next one's.
        os.rename(write(f"{place}.mine", "mine"), place)
        if made == "namespace":
            os.unlink(place)
            assert run("ip", "netns", "add", running.name).returncode == 0
        before = os.stat(place)
        running.stopped()
        assert os.path.samestat(os.stat(place), before)
    finally:
        run("umount", place)
        os.unlink(place)


def test_interrupted(subhost, machine):
    """SIGINT cuts its patience short: everything is killed, and cleared."""
    one = subhost(STOP_TIMEOUT="1000").booted()
    begin(one, "stubborn", STUBBORN)
    process = start(STOP, one.conf)
    wait_for(lambda: one.row()["state"] == "stopping" and "poll" in read(f"/proc/{process.pid}/wchan") + read(f"/proc/{process.pid}/stack"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and b"Traceback" not in err
    machine.is_as_before()


@pytest.mark.parametrize("path, why", [("/nowhere/x.conf", "No such file"), ("/", "directory"), ("/dev/null", "regular")])
def test_no_configuration(machine, path, why):
    said = one_line(run(STOP, path))
    assert path in said and why in said


def test_called_wrongly(machine):
    for arguments in ([], ["a", "b"], ["--nonsense", "x"]):
        done = run(STOP, *arguments)
        assert done.returncode == 2 and "usage: overlay-stop" in done.stderr


# Real daemons

RSYSLOG_CONF = """module(load="imuxsock")
*.* /var/log/syslog
"""

RSYSLOG = """#!/bin/sh
case $1 in
start) rsyslogd ;;
stop) kill $(cat /run/rsyslogd.pid) ;;
esac
"""


@pytest.fixture
def daemons(subhost):
    """A subhost with rsyslogd, cron, sshd and a database of its own; the database's log, as a function."""
    for program, package in (("/usr/sbin/cron", "cron"), ("/usr/sbin/rsyslogd", "rsyslog"), ("/usr/sbin/sshd", "openssh-server"),
                             ("/usr/bin/pg_createcluster", "postgresql")):
        if not os.path.exists(program):
            cannot_run(f"{package} is not installed")
    version = max(os.listdir("/usr/lib/postgresql"), key=int)
    one = subhost(STOP_TIMEOUT="60")
    one.write("etc/rsyslog.conf", RSYSLOG_CONF)
    one.write("opt/rsyslog", RSYSLOG, 0o755)
    one.write("etc/cron.d/said", "@reboot root echo by cron >/said\n")
    one.booted()
    one.sh(f"rm -rf /etc/postgresql/* /var/lib/postgresql/* /var/log/postgresql/* /var/log/syslog && pg_createcluster {version} main"
           f" && echo 'fsync = off' >>/etc/postgresql/{version}/main/postgresql.conf")
    one.stopped()
    one.configure(START="/opt/rsyslog cron ssh postgresql", STOP_TIMEOUT="60")

    def log():
        return read(f"{one.upper}/var/log/postgresql/postgresql-{version}-main.log")

    return one, log


def up(one):
    """All four are there, and do what they are for."""
    names = {"cron", "rsyslogd", "sshd", "postgres"}
    wait_for(lambda: names <= set(descendants(one.init).values()))
    wait_for(lambda: one.go("sh", "-c", "pg_lsclusters -h | grep online").returncode == 0)
    return {name: [pid for pid, other in descendants(one.init).items() if other == name] for name in names}


def test_real_daemons(daemons, machine):
    one, log = daemons
    one.booted()
    pids = up(one)
    assert one.inside("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22; head -n 1 <&3").startswith("SSH-2.0-")
    one.sh("logger hello from inside")
    wait_for(lambda: "hello from inside" in read(f"{one.upper}/var/log/syslog"))
    wait_for(lambda: read(f"{one.upper}/said") == "by cron\n")
    assert "42" in one.sh("su postgres -c \"psql -Atc 'create table t as select 42 as x; select x from t'\"")
    one.stopped()
    machine.is_as_before()
    assert not any(is_alive(pid) for group in pids.values() for pid in group)
    # in its own words: the database was shut down, and not interrupted
    assert log().rstrip().endswith("database system is shut down")
    one.booted()
    up(one)
    assert one.sh("su postgres -c \"psql -Atc 'select x from t'\"") == "42"
    assert "database system was shut down at" in log() and "interrupted" not in log() and "not properly shut down" not in log()
    one.stopped()


def test_a_database_complains_when_it_is_killed(daemons):
    """Else the test above would prove nothing."""
    one, log = daemons
    one.booted()
    up(one)
    kill(one.init, signal.SIGKILL)
    wait_for(one.is_gone)
    assert not log().rstrip().endswith("database system is shut down")
    one.booted()
    up(one)
    assert "not properly shut down" in log()
    one.stopped()

