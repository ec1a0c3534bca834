"""PID 1: what it reaps, what ends it, and what does not."""
import os
import signal

import pytest
from machine import BOOT, PROGRAMS, descendants, is_alive, kill, processes, read, run, start, wait_for

# Makes orphans: children of a process that has ended.  Half of them end before it, and are left to PID 1 as zombies; the
# others end when it does.  A signal ends them all, which is the quickest way.
ORPHANS = """
for (1 .. $ARGV[0] / 100) {
    defined(my $parent = fork) or die;
    if (!$parent) {
        pipe my $end, my $hold;
        for (1 .. 50) {
            defined(my $early = fork) or die;
            kill 9, $$ unless $early;
            defined(my $late = fork) or die;
            next if $late;
            close $hold;
            sysread $end, my $nothing, 1;
            kill 9, $$;
        }
        kill 9, $$;
    }
    waitpid $parent, 0;
}
print "made\n";
"""


def zombies(of):
    """The children of a process that have ended, and are not reaped."""
    return [pid for pid, (parent, state, _) in processes().items() if parent == of and state == "Z"]


def test_a_hundred_thousand_orphans(running, directory):
    """Two makers side by side; then none of the orphans is left, not even as a zombie."""
    init = running.init
    running.write("opt/orphans.pl", ORPHANS)
    makers = [start("/usr/sbin/overlay-go", running.name, "perl", "/opt/orphans.pl", "50000") for _ in range(2)]
    assert [maker.communicate(timeout=300)[0] for maker in makers] == [b"made\n"] * 2
    wait_for(lambda: not zombies(init) and not descendants(init))
    assert is_alive(init) and running.row()["processes"] == 1
    # each has touched a page at least, which is counted for him who has reaped it, proc(5)
    assert int(read(f"/proc/{init}/stat").rpartition(") ")[2].split()[8]) > 100_000


def test_adopted_children(running):
    """One whose parents have ended is PID 1's, and is reaped when it ends."""
    running.sh("setsid sh -c 'sleep 1000000 >/dev/null 2>&1 & echo $! >/run/pid'")
    inner = int(running.sh("cat /run/pid"))
    assert running.sh(f"cat /proc/{inner}/stat").split()[3] == "1"
    running.sh(f"kill -9 {inner}")
    wait_for(lambda: running.row()["processes"] == 1)
    assert zombies(running.init) == []


def test_a_burst_of_ends(running):
    """Signals of one kind are merged; children are not."""
    init = running.init
    running.sh("for i in $(seq 300); do (sleep 1000000 >/dev/null 2>&1 &) ; done")
    wait_for(lambda: running.row()["processes"] == 301)
    running.go("sh", "-c", "kill -9 -1")
    wait_for(lambda: running.row()["processes"] == 1)
    assert zombies(init) == []


# Its end

DAEMON = """#!/bin/sh
case $1 in
start) sleep 1000000 >/dev/null 2>&1 & echo $! >/run/daemon ;;
stop) kill "$(cat /run/daemon)" ;;
restart) "$0" stop && "$0" start && echo again ;;
esac
"""


def with_daemon(subhost, **settings):
    """A booted subhost whose only service is a daemon, and has been started."""
    one = subhost(START="/opt/daemon", **settings)
    one.write("opt/daemon", DAEMON, 0o755)
    one.booted()
    wait_for(lambda: read(f"/proc/{one.init}/comm") == ".reaper\n")
    return one


def test_it_stays_when_its_only_service_ends_and_is_restarted(subhost):
    one = with_daemon(subhost)
    init = one.init
    assert one.sh("/opt/daemon restart") == "again"
    one.sh("/opt/daemon stop")
    wait_for(lambda: not descendants(init))
    # two commands inside, and the reaping of what they leave: it goes on
    assert one.sh("(sleep 0 &) ; /opt/daemon start; echo up") == "up"
    wait_for(lambda: list(descendants(init).values()) == ["sleep"])
    one.sh("kill -9 $(cat /run/daemon)")
    wait_for(lambda: not descendants(init))
    assert one.init == init and one.inside("hostname") == one.name
    one.stopped()


def test_it_stays_where_a_service_leaves_what_ends_at_once(subhost):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\nsleep 0.01 &\n", 0o755)
    for _ in range(5):
        one.booted()
        wait_for(lambda: read(f"/proc/{one.init}/comm") == ".reaper\n" and not descendants(one.init))
        assert one.inside("hostname") == one.name
        one.stopped()


def test_it_ends_with_the_last_service(subhost, machine):
    one = with_daemon(subhost, STAY="no")
    keeper = one.keeper
    one.go("/opt/daemon", "stop")
    wait_for(one.is_gone)
    wait_for(lambda: not is_alive(keeper))      # which has removed the last thing of it just now
    machine.is_as_before()


def test_it_ends_at_once_where_no_service_has_left_a_process(subhost):
    """Which the boot may see, and then fails, or not."""
    one = subhost(START="/bin/true no-such-service", STAY="no")
    done = one.boot()
    assert "cannot start no-such-service" in done.stderr
    wait_for(one.is_gone)


def test_without_services_there_is_nothing_to_end_with(subhost):
    one = subhost(START="none", STAY="no").booted()
    assert read(f"/proc/{one.init}/cmdline").split("\0")[2] == "/run/dummy_service"
    one.stopped()


def test_it_stays_by_a_hook_that_calls_the_default_one(subhost):
    one = with_daemon(subhost, INIT="overlay-init")
    one.sh("/opt/daemon stop")
    wait_for(lambda: not descendants(one.init))
    assert one.inside("hostname") == one.name
    one.stopped()


def test_another_reaper_stays_by_the_dummy_service(subhost, small_root):
    """It may be one that ends with the last process, as that of 1.6.4 does."""
    one = subhost(LOWER=small_root, START="/bin/true")
    one.write("opt/reaper", "#!/bin/sh\ntrap exit TERM\nwhile :; do sleep 0.05; done\n", 0o755)
    for init in (None, "overlay-init"):
        one.configure(START="/bin/true", LOWER=small_root, **({"INIT": init} if init else {}))
        one.booted(env={"REAPER": "/opt/reaper"})
        wait_for(lambda: "dummy_service" in descendants(one.init).values())
        one.stopped()


def test_the_dummy_service_keeps_it_up_and_ends_it(running, machine):
    one = running
    assert one.sh("stat -c '%F %a' /run/dummy_service") == "fifo 600"
    one.go("sh", "-c", "echo >/run/dummy_service")
    wait_for(one.is_gone)
    assert one.stop().returncode == 1


def test_the_dummy_service_of_a_subhost_with_services(subhost):
    """It ends the subhost once there is no other process."""
    one = with_daemon(subhost)
    assert one.sh("stat -c '%F %a' /run/dummy_service") == "fifo 600"
    one.sh("echo >/run/dummy_service")
    assert one.inside("hostname") == one.name
    one.go("/opt/daemon", "stop")
    wait_for(one.is_gone)


def test_somebody_who_enters_early_is_no_service(subhost):
    """The dummy service is for a subhost without services, whoever looks in while it starts."""
    one = subhost()
    os.mkfifo(f"{one.upper}/go-on")
    one.configure(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\n[ $1 = stop ] || read x </go-on\n", 0o755)
    boot = start(BOOT, one.conf)
    wait_for(one.is_running)
    init = one.init
    visitor = start("/usr/sbin/overlay-go", one.name, "sh", "-c", "echo in; sleep 1000000")
    assert visitor.stdout.readline() == b"in\n"
    one.go("sh", "-c", "echo >/go-on")
    wait_for(lambda: one.is_gone() or read(f"/proc/{init}/comm") == ".reaper\n")
    visitor.terminate()
    for process in (visitor, boot):
        process.communicate()
    assert one.go("true").returncode == 0


REBOOT = "import ctypes; ctypes.CDLL(None, use_errno=True).reboot({})"


@pytest.mark.parametrize("how, name", [(0x01234567, "restart"), (0x4321FEDC, "power off"), (0xCDEF0123, "halt")])
def test_reboot(unfenced, machine, how, name):
    """reboot(2) inside ends the subhost, and nothing of it is left on the host."""
    uptime = read("/proc/uptime")
    unfenced.go("/usr/bin/python3", "-c", REBOOT.format(how))
    wait_for(unfenced.is_gone)
    assert float(read("/proc/uptime").split()[0]) >= float(uptime.split()[0])
    assert unfenced.stop().returncode == 1


def test_it_is_killed(running):
    """SIGKILL from outside: everything ends, and the host is cleared."""
    running.sh("setsid sleep 1000000 </dev/null >/dev/null 2>&1 &")
    kill(running.init, signal.SIGKILL)
    wait_for(running.is_gone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGPWR, signal.SIGRTMIN + 3])
def test_a_request_for_an_orderly_end(running, number):
    """From outside: all processes get SIGTERM, and PID 1 ends with the last of them."""
    running.write("opt/ends", "#!/bin/sh\ntrap 'echo told >>/told; exit 0' TERM\necho ready\nwhile :; do sleep 0.05; done\n", 0o755)
    inner = [start("/usr/sbin/overlay-go", running.name, "/opt/ends") for _ in range(3)]
    assert [one.stdout.readline() for one in inner] == [b"ready\n"] * 3
    running.sh("setsid /opt/ends >/dev/null 2>&1 </dev/null &")
    wait_for(lambda: running.row()["processes"] >= 5)
    init = running.init
    wait_for(lambda: sum(name == "ends" for name in descendants(init).values()) == 1)
    kill(init, number)
    wait_for(running.is_gone)
    for one in inner:
        one.communicate(timeout=20)
    assert read(f"{running.upper}/told").count("told") >= 1 and "told" in read(f"{running.upper}/told")


def test_an_orderly_end_waits_for_those_who_take_their_time(running):
    running.write("opt/slow", "#!/bin/sh\ntrap 'read x </go-on; echo done >/done; exit 0' TERM\ntouch /ready\nwhile :; do sleep 0.05; done\n", 0o755)
    os.mkfifo(f"{running.upper}/go-on")
    running.sh("setsid /opt/slow >/dev/null 2>&1 </dev/null &")
    wait_for(lambda: os.path.exists(f"{running.upper}/ready"))
    init = running.init
    kill(init, signal.SIGTERM)
    wait_for(lambda: "sleep" not in descendants(init).values())
    assert is_alive(init) and running.is_running()
    running.go("sh", "-c", "echo >/go-on")
    wait_for(running.is_gone)
    assert read(f"{running.upper}/done") == "done\n"


def test_a_stopped_process_gets_the_request_too(running):
    running.sh("setsid sleep 1000000 </dev/null >/dev/null 2>&1 & echo $! >/run/pid")
    [inner] = wait_for(lambda: [pid for pid, name in descendants(running.init).items() if name == "sleep"])
    kill(inner, signal.SIGSTOP)
    wait_for(lambda: processes()[inner][1] == "T")
    kill(running.init, signal.SIGTERM)
    wait_for(running.is_gone)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGALRM, signal.SIGPIPE, signal.SIGCHLD,
                                    signal.SIGWINCH, signal.SIGTSTP, signal.SIGSEGV, signal.SIGABRT, signal.SIGCONT, signal.SIGRTMIN,
                                    signal.SIGRTMAX])
def test_other_signals_do_nothing(running, number):
    running.sh("setsid sleep 1000000 </dev/null >/dev/null 2>&1 &")
    init = running.init
    wait_for(lambda: len(descendants(init)) == 1)
    kill(init, number)
    kill(running.keeper, signal.SIGCONT)
    assert running.go("kill", f"-{int(number)}", "1").returncode == 0
    # two commands inside, and the reaping of what they leave: it works as before
    running.sh("(sleep 0 &)")
    wait_for(lambda: not zombies(init) and running.row()["processes"] == 2)
    assert is_alive(init) and processes()[init][1] == "S"


def test_a_signal_to_the_keeper_is_a_request_for_an_orderly_end(running):
    kill(running.keeper, signal.SIGTERM)
    wait_for(running.is_gone)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGQUIT, signal.SIGALRM])
def test_other_signals_do_nothing_to_the_keeper(running, number):
    keeper = running.keeper
    kill(keeper, number)
    assert running.inside("hostname") == running.name and running.keeper == keeper
    running.stopped()


def test_the_keeper_is_killed(running):
    """PID 1 dies with it; the next command clears up."""
    init = running.init
    kill(running.keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    assert running.row()["state"] == "dead"
    assert running.stop().returncode == 1
    assert running.is_gone()


def test_a_boot_clears_after_a_killed_keeper(running):
    kill(running.keeper, signal.SIGKILL)
    running.booted()
    running.stopped()


# At rest

def switches(pid):
    return [line for line in read(f"/proc/{pid}/status").splitlines() if line.startswith(("voluntary", "nonvoluntary"))]


def test_neither_it_nor_the_keeper_polls(running, subhost):
    """While other subhosts boot, live and end, they are not scheduled once."""
    init, keeper = running.init, running.keeper
    before = switches(init), switches(keeper)
    other = subhost()
    for _ in range(20):
        other.booted()
        other.sh("for i in 1 2 3 4 5; do (:); done")
        other.stopped()
    assert (switches(init), switches(keeper)) == before


def test_two_processes_a_subhost(running):
    """The keeper and PID 1, no interpreter in either."""
    keeper = running.keeper
    assert descendants(keeper) == {running.init: ".reaper"}
    assert os.path.samefile(f"/proc/{keeper}/exe", f"{PROGRAMS}/keeper")
    for pid in (keeper, running.init):
        assert "python" not in read(f"/proc/{pid}/maps") and "libc" not in read(f"/proc/{pid}/maps")


def test_it_holds_no_file_of_the_hosts(running):
    found = {os.readlink(f"/proc/{running.init}/fd/{fd}") for fd in os.listdir(f"/proc/{running.init}/fd")}
    assert {link.partition(":")[0] for link in found} <= {"/dev/null", "pipe", "anon_inode", "/run/dummy_service"}


def test_called_without_a_name(machine):
    """By itself, on the host, it says so and ends: it harms nobody."""
    done = run(f"{PROGRAMS}/reaper")
    assert done.returncode == 1 and "overlay-boot reaper" in done.stderr
