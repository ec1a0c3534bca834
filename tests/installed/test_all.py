"""overlay-boot --all and overlay-stop --all: many subhosts, side by side."""
import os
import signal
import time

import pytest
from machine import BOOT, MODULES, PYTHON, STATES, STOP, control_group, descendants, is_alive, kill, names_running, new_name, one_line, read, run, start, wait_for, write
from network import done

pytestmark = pytest.mark.usefixtures("host")       # no subhosts but those of the test are there to be stopped

LIST = "/etc/subhosts.conf"
STUBBORN = "$SIG{TERM} = 'IGNORE'; open F, '>/ready'; close F; sleep 1000000 while 1"


@pytest.fixture
def listed(directory, host, machine):
    """Makes the list: of lines, or of subhosts."""
    done("mount", "--bind", write(f"{directory}/list"), LIST)
    machine.look()

    def make(*lines):
        write(LIST, "".join(f"{getattr(line, 'conf', line)}\n" for line in lines))
    return make


def all_of(command, *options, **how):
    return run(command, "--all", *options, **how)


def succeeds(command, **how):
    ended = all_of(command, **how)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def waiting(one):
    """Its boot waits for ever."""
    one.configure(PREMOUNT="./pre")
    one.script("pre", "exec sleep 1000000\n")
    return one


def names(many):
    return {one.name for one in many}


def on_one_processor(*command):
    """Then two at a time are at work."""
    return ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]


# What cannot be read, or was not begun

def test_one_whose_file_is_gone(subhost, listed, machine):
    """By its name."""
    first, second = subhost().booted(), subhost().booted()
    os.rename(first.conf, f"{first.conf}~")
    succeeds(STOP)
    assert first.is_gone() and second.is_gone()
    machine.is_as_before()
    os.rename(f"{first.conf}~", first.conf)


def test_a_subhost_of_another_version_is_left_and_told_of_once(subhost, listed):
    one, other = subhost().booted(), subhost().booted()
    with open(one.state) as file:
        text = file.read()
    write(one.state, text + "format 3\n")
    kill(other.keeper, signal.SIGKILL)
    ended = all_of(STOP)
    write(one.state, text)
    assert ended.returncode == 1 and "another version" in one_line(ended) and names_running() == {one.name}


def test_a_subhost_with_a_damaged_state_file_is_stopped_and_told_of(subhost, listed, machine):
    one, other = subhost().booted(), subhost().booted()
    with open(one.state, "a") as file:
        file.write("colour red\n")
    ended = all_of(STOP)
    assert ended.stderr == f"overlay-stop: {one.name}: the state file of {one.name} is damaged: colour red\n"
    assert ended.returncode == 0 and other.is_gone()
    machine.is_as_before()


def test_what_was_killed_before_its_first_record(subhost, listed, machine):
    one = subhost()
    write(one.state, "")
    succeeds(STOP)
    machine.is_as_before()


# The list

def test_every_listed_subhost_is_booted_and_stopped(subhost, listed, machine):
    many = [subhost() for _ in range(5)]
    other = subhost()
    listed("# a comment, with", f"# {other.conf} in it", "", f"  {many[0].conf}\t{many[1].conf} ",
           f"{other.conf} # not this line either", many[2], many[3], many[0], many[4])
    succeeds(BOOT)
    assert names_running() == names(many)
    for one in many:
        assert one.inside("hostname") == one.name
    succeeds(STOP)
    assert names_running() == set()
    machine.is_as_before()


def test_a_subhost_by_several_paths_is_one(subhost, listed, directory):
    one = subhost()
    os.symlink(one.conf, f"{directory}/link.conf")
    listed(one, f"{one.base}/./{one.name}.conf", f"{directory}/link.conf")
    succeeds(BOOT)
    assert names_running() == {one.name}


@pytest.mark.parametrize("lines", [[], ["", "# nothing"]])
def test_nothing_to_do(listed, lines):
    listed(*lines)
    succeeds(BOOT)
    succeeds(STOP)


def test_no_list(host):
    done("mount", "-t", "tmpfs", "tmpfs", "/etc/network")       # a place for what overlayfs says that a file is not there with
    for part in ("upper", "work"):
        os.mkdir(f"/etc/network/{part}")
    os.mknod("/etc/network/upper/subhosts.conf", 0o020000, 0)
    done("mount", "-t", "overlay", "-o", "lowerdir=/etc,upperdir=/etc/network/upper,workdir=/etc/network/work", "overlay", "/etc")
    assert not os.path.exists(LIST)
    succeeds(BOOT)
    succeeds(STOP)


def test_what_runs_already_is_left_alone(subhost, listed):
    first, second = subhost().booted(), subhost()
    before = first.init
    listed(first, second)
    succeeds(BOOT)
    assert names_running() == {first.name, second.name} and first.init == before
    succeeds(BOOT)
    assert first.init == before


def test_one_that_is_being_stopped_is_booted_again(subhost, listed):
    one = subhost(STOP_TIMEOUT="1")
    listed(one)
    one.booted()
    one.sh(f"setsid perl -e \"{STUBBORN.replace('$', chr(92) + '$')}\" </dev/null >/dev/null 2>&1 &")
    wait_for(lambda: os.path.exists(f"{one.upper}/ready"))
    stop = start(STOP, one.conf)
    wait_for(lambda: one.row()["state"] == "stopping")
    succeeds(BOOT)
    assert stop.wait(20) == 0 and one.is_running()
    stop.communicate()


# Failures

def test_each_failure_is_told_and_the_others_go_on(subhost, listed, directory, machine):
    good, bad, twin = subhost(), subhost(LIVE="nowhere"), subhost()
    elsewhere = f"{directory}/elsewhere/{good.name}.conf"
    write(elsewhere, "BASE=.\nSTART=none\n")
    listed(f"{directory}/missing.conf", good, bad, "relative.conf", "--check", twin)
    ended = all_of(BOOT)
    assert ended.returncode == 1 and ended.stdout == ""
    assert sorted(ended.stderr.splitlines()) == sorted([
        f"overlay-boot: {directory}/missing.conf: cannot read {directory}/missing.conf: No such file or directory",
        f"overlay-boot: {bad.conf}: " + one_line(bad.boot()).removeprefix("overlay-boot: "),
        "overlay-boot: relative.conf: not a full path, which /etc/subhosts.conf requires",
        "overlay-boot: --check: not a full path, which /etc/subhosts.conf requires"])
    assert names_running() == names([good, twin])
    listed(elsewhere)
    assert one_line(all_of(BOOT)) == (f"overlay-boot: {elsewhere}: {good.name} is running already, from {good.conf}")
    succeeds(STOP)
    machine.is_as_before()


def test_a_warning_is_passed_on(subhost, listed):
    one = subhost(LOWR="/")
    listed(one)
    ended = all_of(BOOT)
    assert ended.returncode == 0 and ended.stderr.startswith(f"overlay-boot: {one.conf}: {one.conf}: line ")
    assert ended.stderr.count("\n") == 1 and one.is_running()


def test_a_boot_that_is_killed_is_told(subhost, listed):
    one = subhost(PREMOUNT="./pre")
    one.script("pre", "kill -9 $PPID\n")
    listed(one)
    assert one_line(all_of(BOOT)) == f"overlay-boot: {one.conf}: killed by signal 9"
    succeeds(STOP)                      # which clears what that has left


@pytest.mark.parametrize("command", [BOOT, STOP])
def test_called_wrongly(listed, command):
    for options in (["--all", "x.conf"], [], ["--all", "--foreground"]):
        ended = run(command, *options)
        assert ended.returncode == 2 and f"usage: {os.path.basename(command)}" in ended.stderr


def test_a_service_that_fails_is_told_of(subhost, listed):
    one, other = subhost(START="/bin/false"), subhost()
    listed(one, other)
    ended = all_of(BOOT)
    assert (ended.returncode, ended.stderr) == (
        0, f"overlay-boot: {one.conf}: cannot start /bin/false: exit status 1 (what it printed is in LOG={one.log})\n")
    assert names_running() == names([one, other])


def test_services_are_waited_for(subhost, listed):
    """One that has failed is a failure, and its subhost runs."""
    one, other = subhost(START="/opt/fails"), subhost(START="/bin/true")
    one.write("opt/fails", "#!/bin/sh\necho sorry; exit 6\n", 0o755)
    listed(one, other)
    ended = all_of(BOOT, "--wait")
    assert (ended.returncode, ended.stderr) == (
        1, f"overlay-boot: {one.conf}: cannot start /opt/fails: exit status 6: sorry (what it printed is in LOG={one.log})\n")
    assert names_running() == names([one, other])
    ended = all_of(BOOT, "--wait")
    assert (ended.returncode, ended.stderr) == (0, "")


# Side by side, in order

def test_a_hundred(subhost, listed, machine):
    many = [subhost() for _ in range(100)]
    listed(*many)
    succeeds(BOOT)
    assert names_running() == names(many)
    succeeds(STOP)
    assert names_running() == set()
    machine.is_as_before()


def test_so_many_at_a_time_from_the_first(subhost, listed, directory):
    """As many as fit the processors, those that come first in the list; the next one when one of them is done."""
    many = [subhost(PREMOUNT="./pre") for _ in range(5)]
    begun, go = f"{directory}/begun", f"{directory}/go"
    os.mkdir(begun)
    for one in many:
        one.script("pre", f"mkdir {begun}/{one.name}; until [ -e {go}.{one.name} -o -e {go} ]; do sleep 0.01; done; overlay-premount\n")
    listed(*many)
    boot = start(*on_one_processor(BOOT, "--all"))
    wait_for(lambda: len(os.listdir(begun)) == 2)
    time.sleep(0.2)                     # in which a third one had the time to begin
    assert set(os.listdir(begun)) == names(many[:2])
    write(f"{go}.{many[1].name}")
    wait_for(lambda: set(os.listdir(begun)) == names(many[:3]))
    write(go)
    assert boot.communicate(timeout=60) == (b"", b"") and boot.returncode == 0
    assert names_running() == names(many)


def test_services_that_take_their_time_keep_nobody_waiting(subhost, listed, directory):
    """All boots have come as far as their services, though only two of them can be at work at a time."""
    many = [subhost(START="/opt/slow", SHARE=f"{directory}:/meet") for _ in range(6)]
    for one in many:
        one.write("opt/slow", "#!/bin/sh\n[ $1 = stop ] && exit\nhostname >/meet/begun.$(hostname); "
                  "until [ -e /meet/go ]; do sleep 0.02; done; exit 4\n", 0o755)
    listed(*many)
    boot = start(*on_one_processor(BOOT, "--all"))
    wait_for(lambda: all(os.path.exists(f"{directory}/begun.{one.name}") for one in many), 9)
    assert boot.poll() is None
    write(f"{directory}/go")
    _, err = boot.communicate(timeout=60)
    assert boot.returncode == 0 and err.count(b": cannot start /opt/slow: exit status 4 (") == len(many)
    assert names_running() == names(many)


def test_stopped_from_the_last_one_booted(subhost):
    """Listed or not, in the reverse order of their boots."""
    many = [subhost(START="/opt/service") for _ in range(4)]
    for one in many:
        one.write("opt/service", "#!/bin/sh\n[ $1 = start ] || until [ -e /go ]; do sleep 0.01; done\n", 0o755)
        one.write("opt/hold", "#!/bin/sh\nsleep 1000000\n", 0o755)
    many[1], many[2] = many[2], many[1]
    for one in many:
        one.booted()
        one.sh("setsid /opt/hold >/dev/null 2>&1 </dev/null &")
    stop = start(*on_one_processor(STOP, "--all"))
    wait_for(lambda: names_running() == names(many[:2]))
    for one in reversed(many):
        one.go("touch", "/go")          # the stop that this lets go on may end it as well
        wait_for(one.is_gone)
    assert stop.communicate(timeout=60) == (b"", b"") and stop.returncode == 0


def test_what_is_being_booted_and_what_is_dead_is_stopped_too(subhost, machine):
    dead, booting = subhost().booted(), waiting(subhost())
    init = dead.init
    kill(dead.keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    boot = start(BOOT, booting.conf)
    wait_for(lambda: "sleep" in descendants(boot.pid).values())
    succeeds(STOP)
    assert boot.wait(20) == 1
    boot.communicate()
    machine.is_as_before()


# Interrupted

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_boot(subhost, listed, number):
    """What runs goes on, what is being booted is undone, and no other is begun."""
    many = [subhost(), waiting(subhost()), waiting(subhost()), subhost()]
    listed(*many)
    boot = start(*on_one_processor(BOOT, "--all"))
    wait_for(lambda: list(descendants(boot.pid).values()).count("sleep") == 2)
    boot.send_signal(number)
    _, said = boot.communicate(timeout=20)
    assert boot.returncode == 1
    told = [*(f"overlay-boot: {one.conf}: PREMOUNT: interrupted by signal {signal.SIGTERM}" for one in many[1:3]),
            f"overlay-boot: interrupted by signal {number}"]
    assert [line.partition(" (")[0] for line in sorted(said.decode().splitlines())] == sorted(told)
    assert names_running() == {many[0].name}
    assert all(one.is_gone() for one in many[1:])


def test_an_interrupted_stop(subhost, machine):
    many = [subhost(STOP_TIMEOUT="1000").booted() for _ in range(2)]
    for one in many:
        one.write("opt/stubborn.pl", STUBBORN)
        one.sh("setsid perl /opt/stubborn.pl </dev/null >/dev/null 2>&1 &")
        wait_for(lambda one=one: os.path.exists(f"{one.upper}/ready"))
    stop = start(STOP, "--all")
    wait_for(lambda: all("poll" in read(f"/proc/{pid}/wchan") + read(f"/proc/{pid}/stack") for pid in descendants(stop.pid))
             and len(descendants(stop.pid)) == 2 and names_running() == set())
    stop.send_signal(signal.SIGINT)
    _, said = stop.communicate(timeout=20)
    assert stop.returncode == 1 and b"overlay-stop: interrupted by signal 2\n" in said and b"Traceback" not in said
    machine.is_as_before()


# Control groups

@pytest.fixture
def group(machine):
    """Makes a control group of the test's own: its path below the root of the hierarchy."""
    root = next(line.split(" ")[4] for line in read("/proc/self/mountinfo").splitlines() if " - cgroup2 " in line)
    made = []

    def make():
        made.append(f"{root}/{new_name()}")
        os.mkdir(made[-1])
        machine.look()
        return made[-1]

    yield make
    for path in made:
        wait_for(lambda path=path: not read(f"{path}/cgroup.procs"))
        os.rmdir(path)


def in_group(path, *command):
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', path, *command]


def test_the_keepers_of_all_are_in_nobodys_control_group(subhost, listed, group):
    """Else systemd would kill them when the unit ends that has booted all."""
    one, path = subhost(), group()
    listed(one)
    assert run(*in_group(path, BOOT, "--all")).returncode == 0
    assert control_group(one.keeper) == "/" and control_group(one.init) == f"/overlay-boot/{one.name}"
    assert read(f"{path}/cgroup.procs") == ""


@pytest.mark.parametrize("mark", ["trusted.delegate", "user.delegate"])
def test_a_subhost_is_in_the_unit_that_has_its_control_group_delegated(subhost, group, mark):
    one, path = subhost(), group()
    os.setxattr(path, mark, b"1")
    unit = f"/{os.path.basename(path)}"
    process = start(*in_group(path, BOOT, "--foreground", one.conf))
    wait_for(one.is_running)
    assert control_group(one.init) == f"{unit}/{one.name}" and control_group(one.keeper) == unit
    assert one.records()["cgroup"] == f"{unit[1:]}/{one.name}"
    assert one.row()["processes"] == 1
    guest = start("/usr/sbin/overlay-go", one.name, "sleep", "1000000")
    wait_for(lambda: [control_group(pid) for pid, name in descendants(guest.pid).items() if name == "sleep"] == [f"{unit}/{one.name}"])
    assert one.row()["processes"] == 2
    one.stopped()
    process.communicate(timeout=20)
    guest.communicate(timeout=20)
    assert process.returncode == 0 and os.listdir(path) and not os.path.exists(f"{path}/{one.name}")


def test_all_but_those_in_units_are_stopped(subhost, listed, group):
    """For a restart of the list."""
    one, other, path = subhost(), subhost().booted(), group()
    os.setxattr(path, "trusted.delegate", b"1")
    process = start(*in_group(path, BOOT, "--foreground", one.conf))
    wait_for(one.is_running)
    ended = all_of(STOP, "--except-units")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert other.is_gone() and one.is_running() and process.poll() is None
    assert run(STOP, "--except-units", one.conf).returncode == 2 and one.is_running()
    succeeds(STOP)
    assert process.wait(20) == 0
    process.communicate()


def test_leftovers_in_a_unit_that_was_killed(subhost, group):
    one, path = subhost(), group()
    os.setxattr(path, "trusted.delegate", b"1")
    process = start(*in_group(path, BOOT, "--foreground", one.conf))
    wait_for(one.is_running)
    init = one.init
    process.kill()
    process.communicate()
    wait_for(lambda: not is_alive(init))
    assert os.path.exists(f"{path}/{one.name}")
    one.booted()
    assert control_group(one.init) == f"/overlay-boot/{one.name}" and not os.path.exists(f"{path}/{one.name}")


@pytest.mark.parametrize("how", ["unmarked", "a user's"])
def test_a_control_group_that_is_not_delegated(subhost, group, how):
    one, path = subhost(), group()
    if how == "a user's":
        os.setxattr(path, "user.delegate", b"1")
        os.chown(path, 65534, 65534)
    assert run(*in_group(path, BOOT, one.conf)).returncode == 0
    assert control_group(one.init) == f"/overlay-boot/{one.name}"
    one.stopped()


def test_a_control_group_that_is_there(subhost, group, fails):
    """Of the unit's own, or somebody else's: it is not taken for ours."""
    one, path = subhost(), group()
    os.setxattr(path, "trusted.delegate", b"1")
    os.mkdir(f"{path}/{one.name}")
    said = one_line(run(*in_group(path, BOOT, one.conf)))
    assert f"{os.path.basename(path)}/{one.name} exists already, and overlay-boot has no record of it" in said
    os.rmdir(f"{path}/{one.name}")


def test_a_stop_that_had_to_kill_is_no_failure(subhost):
    """A service manager that restarts on failures has to leave it stopped."""
    one = subhost(STOP_TIMEOUT="0.3")
    process = start(BOOT, "--foreground", one.conf)
    wait_for(one.is_running)
    one.write("opt/stubborn.pl", STUBBORN)
    one.sh("setsid perl /opt/stubborn.pl </dev/null >/dev/null 2>&1 &")
    wait_for(lambda: os.path.exists(f"{one.upper}/ready"))
    assert "killed after" in one.stop().stderr
    process.communicate(timeout=20)
    assert process.returncode == 0 and not os.path.exists(STATES)


# No process to be had

def without_processes(when, command):
    """--all, where clone3(2) fails; when counts its calls, not those of the commands that it executes."""
    return run("strace", "-f", "-b", "execve", "-qq", "-o", "/dev/null", "-e", "trace=clone3", "-e", "signal=none",
               "-e", f"inject=clone3:error=EAGAIN:when={when}", *PYTHON, command, "--all")


def test_one_for_which_there_is_no_process_waits_for_another_ones_end(subhost, listed):
    many = [subhost() for _ in range(4)]
    listed(*many)
    for command, up in ((BOOT, names(many)), (STOP, set())):
        ended = without_processes("2", command)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "") and names_running() == up


def test_each_one_for_which_there_is_no_process_is_told_of(subhost, listed):
    many = [subhost() for _ in range(4)]
    listed(*many)
    ended = without_processes("1+", BOOT)
    assert ended.returncode == 1 and ended.stderr.splitlines() == [
        f"overlay-boot: {one.conf}: cannot make a process for {BOOT}: the limit of processes is reached" for one in many]
    succeeds(BOOT)
    ended = without_processes("1+", STOP)
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 4 and names_running() == names(many)


# Bridges that ifupdown is still making

def test_bridges_that_are_still_being_made_are_waited_for(subhost, listed):
    """By --all, in which others are booted meanwhile; a single boot fails at once."""
    several = [subhost(CABLES="br0=") for _ in range(2)]
    other = subhost()
    listed(*several, other)
    assert "there is no bridge br0" in one_line(several[0].boot())
    boots = start(*on_one_processor(BOOT, "--all"))
    wait_for(lambda: names_running() == {other.name})
    assert boots.poll() is None
    done("ip", "link", "add", "br0", "type", "bridge")
    time.sleep(0.5)
    assert names_running() == {other.name}
    done("ip", "link", "set", "br0", "mtu", "1400", "up")
    assert boots.wait(60) == 0
    lines = boots.communicate()[1].decode().splitlines()
    assert sorted(lines) == sorted(f"overlay-boot: {one.conf}: CABLES: waiting for br0, for 30 s at most" for one in several)
    assert names_running() == names([*several, other])
    assert {read(f"/sys/class/net/{one.name}0/mtu") for one in several} == {"1400\n"}
    succeeds(STOP)
    done("ip", "link", "delete", "br0")


@pytest.mark.parametrize("how", ["stop", "interrupt", "time"])
def test_the_end_of_waiting_for_a_bridge(subhost, machine, how):
    one = subhost(CABLES="= br0=")
    patience = 1 if how == "time" else 30
    boot = start("/usr/bin/python3", "-IS", "-c", f"""if 1:
        import sys
        sys.path.insert(0, {MODULES!r})
        from overlay_boot import cables
        from overlay_boot.commands import boot
        cables.BRIDGE_TIMEOUT = {patience}
        sys.argv = ["overlay-boot", "--wait-bridges", {one.conf!r}]
        sys.exit(boot.main())""")
    assert boot.stderr.readline().decode() == f"overlay-boot: CABLES: waiting for br0, for {patience} s at most\n"
    if how == "stop":
        one.stopped()
    elif how == "interrupt":
        kill(boot.pid, signal.SIGINT)
    assert boot.wait(60) == 1
    why = "there is no bridge br0" if how == "time" else "interrupted by signal"
    assert why in boot.communicate()[1].decode().splitlines()[0]
    machine.is_as_before()


def test_what_waits_for_no_bridge(subhost):
    """What is there is none, or an option does not go with it."""
    assert "lo is not a bridge" in one_line(subhost(CABLES="lo=").boot("--wait-bridges"))
    one = subhost(CABLES="=")
    one.booted()
    one.stopped()
    assert one.boot("--wait-bridges").stderr == ""
    assert run(BOOT, "--wait-bridges", "--all").returncode == run(BOOT, "--wait-bridges", "--check", one.conf).returncode == 2
