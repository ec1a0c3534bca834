"""Limits: the variables that are named after control files.

What needs controllers of version 2 is run in fresh machines where this one has not got them: tests/support/fresh.py.
"""
import glob
import os
import time

import pytest
from fresh import RUNNERS, SLOW, Fresh
from machine import (
    BOOT,
    GO,
    LS,
    PATIENCE,
    STOP,
    UNFENCED,
    control_group,
    controllers,
    is_alive,
    one_line,
    read,
    root_of_control_groups,
    run,
    start,
    wait_for,
)

NEEDED = {"cpu", "cpuset", "io", "memory", "pids"}
VALUES = {"MEMORY_MAX": "256M", "MEMORY_HIGH": "200M", "MEMORY_SWAP_MAX": "0", "CPU_MAX": "150%", "CPU_WEIGHT": "50", "CPUSET_CPUS": "0",
          "IO_WEIGHT": "50", "PIDS_MAX": "300"}
WRITTEN = {"memory.max": "268435456", "memory.high": "209715200", "memory.swap.max": "0", "cpu.max": "150000 100000", "cpu.weight": "50",
           "cpuset.cpus": "0", "io.weight": "default 50", "pids.max": "300"}
SHOWN = {"MEMORY_MAX": 256 << 20, "MEMORY_HIGH": 200 << 20, "MEMORY_SWAP_MAX": 0, "CPU_MAX": "150000 100000", "CPU_WEIGHT": 50, "CPUSET_CPUS": "0",
         "IO_WEIGHT": 50, "PIDS_MAX": 300}
WRONG = {"MEMORY_MAX": "0", "MEMORY_HIGH": "10%", "MEMORY_SWAP_MAX": "much", "CPU_MAX": "0%", "CPU_WEIGHT": "0", "CPUSET_CPUS": "4000",
         "IO_WEIGHT": "max", "IO_MAX": "/dev/null rbps=1M", "PIDS_MAX": "0"}
HOG = "perl", "-e", '$x = "x" x (1 << 29)'
# What is out of hand: its limits, the one that it runs against, and what a shell does.
OUT_OF_HAND = {
    "a fork bomb that ignores SIGTERM": ({"PIDS_MAX": "200", "MEMORY_MAX": "256M"}, "exec perl -e '$SIG{TERM} = \"IGNORE\"; fork while 1'"),
    "a fork bomb that heeds it": ({"PIDS_MAX": "200", "MEMORY_MAX": "256M"}, "exec perl -e 'fork while 1'"),
    "a fork bomb of shells": (
        {"PIDS_MAX": "200", "MEMORY_MAX": "256M"}, "exec bash -c 'trap \"\" TERM; b() { b | b & }; b; while :; do sleep 1; done'"),
    "a memory hog": ({"MEMORY_MAX": "64M", "MEMORY_SWAP_MAX": "0"}, f"trap '' TERM; while :; do perl -e '{HOG[2]}'; done"),
    "memory hogs": (
        {"MEMORY_MAX": "64M", "MEMORY_SWAP_MAX": "0"}, f"trap '' TERM; for i in 1 2 3 4; do (while :; do perl -e '{HOG[2]}'; done) & done; wait"),
}
LONG = "100"                    # seconds, STOP_TIMEOUT: nothing here waits for it


@pytest.mark.deadline(2 * SLOW)
@pytest.mark.parametrize("system", RUNNERS)
def test_in_a_machine_that_has_controllers(directory, system):
    """The tests below, where they cannot be run here."""
    if controllers() >= NEEDED:
        pytest.skip("not needed: the tests below are run here")
    Fresh(system).test(directory, "", "test_limits.py")


# What is wrong, or not to be had

@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_value(subhost, fails, variable):
    """Is told before anything is made."""
    one = subhost(**{variable: WRONG[variable]}, PREMOUNT="./hook")
    one.script("hook", "echo >ran")
    for options in (["--check"], []):
        fails([BOOT, *options, one.conf], f"{variable}={WRONG[variable]}")
    assert not os.path.exists(f"{one.base}/ran") and not os.path.exists(one.log)


@pytest.mark.parametrize("variable", VALUES)
def test_a_controller_that_this_host_has_not(subhost, fails, variable):
    controller = variable.partition("_")[0].lower()
    if controller in controllers():
        pytest.skip(f"this host has the controller {controller}")
    one = subhost(**{variable: VALUES[variable]})
    for options in (["--check"], []):
        fails([BOOT, *options, one.conf], f"{variable}={VALUES[variable]}: this host has no controller {controller} for control groups of version 2")


def test_no_limit_needs_no_controller(subhost):
    one = subhost(**dict.fromkeys(("MEMORY_MAX", "MEMORY_HIGH", "MEMORY_SWAP_MAX", "CPU_MAX", "IO_MAX", "PIDS_MAX"), "max")).booted()
    assert not one.row()["limits"]
    one.stopped()


def test_a_command_for_a_limit(subhost, directory):
    """It runs before there is a control group, in the directory of the file. Hooks are told what it has printed."""
    os.mkdir(f"{directory}/base")
    one = subhost(BASE=f"{directory}/base", MEMORY_MAX="!./limit", UPPER="/", LIVE="/", POSTMOUNT="/usr/bin/env")
    one.configure(BASE=one.base, MEMORY_MAX="!./limit", POSTMOUNT="./hook")
    one.script("limit", 'echo "$(pwd) $ACTION" >>limit.called; echo max\n')
    one.script("hook", 'echo "$MEMORY_MAX" >hook.called; exec overlay-postmount\n')
    done = run(BOOT, "--check", one.conf, cwd="/")
    assert done.returncode == 0 and "MEMORY_MAX=max\n" in done.stdout, done.stderr
    one.booted(cwd="/")
    assert read(f"{one.base}/limit.called").splitlines() == [f"{one.base} overlay-check", f"{one.base} overlay-boot"]
    assert read(f"{one.base}/hook.called") == "max\n"


@pytest.mark.parametrize("command, why", [("!/bin/false", "exit status 1"), ("!echo 12 parsecs", "PIDS_MAX=12 parsecs is not a number"), ("!", "no command")])
def test_a_command_that_gives_no_limit(subhost, fails, command, why):
    fails(subhost(PIDS_MAX=command), "PIDS_MAX", why)


# Limits that hold

@pytest.fixture
def controlled(bootable):
    """This machine has all the controllers."""
    missing = NEEDED - controllers()
    if missing:
        pytest.skip(f"not run: this host has no controller {' '.join(sorted(missing))} for control groups of version 2")


def said(one, file):
    """What a control file of a subhost's says."""
    return read(f"{root_of_control_groups()}{control_group(one.init)}/{file}").strip()


def shown(one):
    """The limits that overlay-ls shows: {variable: value}."""
    return {variable: limit["value"] for variable, limit in one.row()["limits"].items()}


def hits(one, variable, key="hits"):
    return one.row()["limits"][variable][key]


def test_limits_are_in_force(controlled, subhost):
    one = subhost(**VALUES).booted()
    assert {file: said(one, file) for file in WRITTEN} == WRITTEN
    assert shown(one) == SHOWN
    assert one.row()["limits"]["PIDS_MAX"] == {"value": 300, "hits": 0} and one.row()["limits"]["CPU_WEIGHT"]["hits"] is None
    assert one.records()["limit:MEMORY_MAX"] == "256M"
    one.stopped()


def test_a_disk_is_limited(controlled, subhost):
    disk = next(path for path in sorted(glob.glob("/sys/block/*")) if os.path.exists(f"/dev/{os.path.basename(path)}"))
    number = read(f"{disk}/dev").strip()
    for name in (f"/dev/{os.path.basename(disk)}", number):
        one = subhost(IO_MAX=f"{name} rbps=10M wiops=100").booted()
        assert said(one, "io.max") == f"{number} rbps=10485760 wbps=max riops=max wiops=100"
        assert shown(one)["IO_MAX"] == f"{number} rbps=10485760 wiops=100"
        one.stopped()


def test_the_default(controlled, subhost):
    one, other = subhost().booted(), subhost(PIDS_MAX="max").booted()
    assert said(one, "pids.max") == "16384" and shown(one) == {"PIDS_MAX": 16384}
    assert said(other, "pids.max") == "max" and shown(other) == {}
    assert "PIDS_MAX=16384\n" in run(BOOT, "--check", one.conf).stdout
    assert int(said(one, "cpu.weight")) == 100 and int(said(one, "memory.current")) > 0


def test_hooks_and_commands_are_limited(controlled, subhost):
    """What runs in the control group was born there, and that had its limits by then."""
    one = subhost(PIDS_MAX="40", START="!./start", POSTMOUNT="./hook")
    look = 'mkdir -p groups; mount -t cgroup2 none groups; cat groups$(sed -n s/^0:://p /proc/self/cgroup)/pids.max >>limits; umount groups\n'
    one.script("start", f"{look}echo none\n")
    one.script("hook", f"{look}exec overlay-postmount\n")
    one.booted()
    assert read(f"{one.base}/limits") == "40\n40\n"


def test_a_subhost_that_wakes_has_the_limits_of_now(controlled, subhost):
    one = subhost(PIDS_MAX="50", MEMORY_MAX="100M")
    assert run(BOOT, "--shell", one.conf, input="exit\n").returncode == 0
    assert one.row()["state"] == "hibernating" and one.row()["limits"] is None
    one.configure(PIDS_MAX="60")
    one.booted()
    assert shown(one) == {"PIDS_MAX": 60} and "limit:MEMORY_MAX" not in {key for key, value in one.records().items() if value}
    one.stop()


def test_limits_that_are_changed_while_it_runs_are_shown(controlled, subhost):
    one = subhost().booted()
    with open(f"{root_of_control_groups()}{control_group(one.init)}/pids.max", "w") as file:
        file.write("77")
    assert shown(one) == {"PIDS_MAX": 77}


def test_a_file_that_the_kernel_has_not(controlled, subhost, fails):
    """The controller is there, but for this kernel, or this limit."""
    one = subhost(CPUSET_CPUS=str(os.cpu_count() + 1000))
    fails(one, f"CPUSET_CPUS={os.cpu_count() + 1000}: the host has no processor")


DIVIDE = """
    mount -t cgroup2 cgroup2 /sys/fs/cgroup; cd /sys/fs/cgroup; mkdir init
    for process in $(cat cgroup.procs); do echo $process >init/cgroup.procs; done
    echo +memory >cgroup.subtree_control
"""


@pytest.mark.parametrize("settings", [{"USERNS": "auto"}, UNFENCED])
def test_one_that_divides_its_control_group(controlled, subhost, settings):
    """As systemd does. It is entered, and its services are stopped, though that has no processes of its own any more."""
    one = subhost(START="/opt/service", **settings)
    one.write("opt/service", """#!/bin/sh
        [ $1 = stop ] || sleep 1000000 &
        grep ^0:: /proc/self/cgroup >/was
        """, 0o755)
    one.booted()
    one.go("/bin/sh", "-c", DIVIDE)
    assert said(one, "../cgroup.subtree_control") == "memory"
    for _ in range(2):
        assert one.sh("grep ^0:: /proc/self/cgroup") == "0::/overlay-go"
    one.stopped()
    assert read(f"{one.upper}/was") == "0::/overlay-go\n"


# A memory hog

def test_a_memory_hog(controlled, subhost):
    """Is killed, and the subhost goes on; that is shown, and told in the log."""
    one = subhost(MEMORY_MAX="64M", MEMORY_SWAP_MAX="0").booted()
    assert one.go(*HOG).returncode == 137
    assert one.is_running() and hits(one, "MEMORY_MAX") > 0 and hits(one, "MEMORY_MAX", "killed") == 1
    one.stopped()
    marks = [line.partition(" overlay-boot: ")[2] for line in read(one.log).splitlines()]
    assert marks[-2:] == ["MEMORY_MAX=64M: 1 process was killed", "stopped"]


def test_a_subhost_that_is_killed_by_its_memory_limit(controlled, subhost):
    one = subhost(MEMORY_MAX="64M", MEMORY_SWAP_MAX="0")
    one.configure(MEMORY_MAX="64M", MEMORY_SWAP_MAX="0", INIT=one.init_text(f"exec perl -e 'sleep 1; {HOG[2]}'\n"))
    one.booted()
    wait_for(one.is_gone)
    marks = [line.partition(" overlay-boot: ")[2] for line in read(one.log).splitlines()]
    assert marks[-2:] == ["MEMORY_MAX=64M: 1 process was killed", "killed by MEMORY_MAX=64M"]


# Fork bombs, and hogs that are killed again and again

def time_of(*command):
    begin = time.monotonic()
    done = run(*command)
    return time.monotonic() - begin, done


@pytest.fixture
def quick(controlled, subhost):
    """The seconds that overlay-stop may take to end what is out of hand: two, and on emulation what any stop takes there."""
    one = subhost(START="/opt/service", STOP_TIMEOUT=LONG)
    one.write("opt/service", "#!/bin/sh\n[ $1 = stop ] || sleep 1000000 &\n", 0o755)
    one.booted()
    usual, done = time_of(STOP, one.conf)
    assert done.returncode == 0, done.stderr
    return 2 + 3 * usual


@pytest.mark.parametrize("what", OUT_OF_HAND)
def test_out_of_hand(controlled, subhost, quick, what):
    """The host goes on as if nothing was, the limit shows, and overlay-stop ends it at once."""
    limits, command = OUT_OF_HAND[what]
    one, other = subhost(**limits, START="/opt/service", STOP_TIMEOUT=LONG), subhost().booted()
    one.write("opt/service", "#!/bin/sh\n[ $1 = stop ] || sleep 1000000 &\n", 0o755)
    one.booted()
    quiet = min(time_of(GO, other.name, "/bin/true")[0] for _ in range(3))
    with open(os.devnull, "w") as null:
        visitor = start(GO, one.name, "/bin/sh", "-c", command, stdout=null, stderr=null)
    wait_for(lambda: hits(one, next(iter(limits))) > 0)
    busy = min(time_of(GO, other.name, "/bin/true")[0] for _ in range(3))
    assert busy < 1 + 5 * quiet
    assert one.row()["processes"] <= int(limits.get("PIDS_MAX", 200))
    seconds, done = time_of(STOP, one.conf)
    visitor.wait(PATIENCE)
    print(f"{what}: entered another subhost in {busy:.2f} s, {quiet:.2f} s before; stopped in {seconds:.2f} s of {quick:.2f}: {done.stderr}")
    assert done.returncode == 0 and one.is_gone() and seconds < quick
    assert len(done.stderr) < 2000
    other.stopped()


def test_a_subhost_that_is_full_says_so(controlled, subhost):
    one = subhost(PIDS_MAX="1").booted()
    assert "the limit of processes is reached" in one_line(one.go("/bin/true"))
    assert hits(one, "PIDS_MAX") > 0
    one.stopped()


def test_who_ends_in_order_has_the_time_that_it_needs(controlled, subhost):
    """Though it is near its limit, and has hit that before."""
    one = subhost(PIDS_MAX="4", START="/opt/service", STOP_TIMEOUT=LONG)
    one.write("opt/service", """#!/bin/sh
        [ $1 = start ] || exit 0
        exec >/dev/null 2>&1
        (trap 'sleep 3; echo in order >/ended; exit' TERM; echo >/run/ready; while :; do sleep 0.1; done) &
        """, 0o755)
    one.booted()
    wait_for(lambda: one.go("test", "-e", "/run/ready").returncode == 0)
    begin = time.monotonic()
    done = one.stop()
    assert done.returncode == 0 and "killed" not in done.stderr, done.stderr
    assert read(f"{one.upper}/ended") == "in order\n" and time.monotonic() - begin > 3


# Units

@pytest.fixture
def unit(controlled, subhost):
    """A subhost with limits, and its unit."""
    if not os.path.isdir("/run/systemd/system"):
        pytest.skip("not needed: systemd is not PID 1 here")
    one = subhost(**VALUES, STOP_TIMEOUT="5")
    name = run("systemd-escape", "--path", "--template=subhosts@.service", one.conf).stdout.strip()
    yield one, name
    run("systemctl", "stop", name)
    run("systemctl", "reset-failed", name)


def test_limits_below_those_of_a_unit(unit):
    one, name = unit
    for _ in range(2):
        started = run("systemctl", "start", name)
        assert started.returncode == 0, run("journalctl", "-u", name).stdout
        group = run("systemctl", "show", "--property=ControlGroup", "--value", name).stdout.strip()
        assert control_group(one.init) == f"{group}/{one.name}"
        assert {file: said(one, file) for file in WRITTEN} == WRITTEN and shown(one) == SHOWN
        assert control_group(one.keeper).startswith(f"{group}/")
        assert one.inside("echo", "in") == "in"
        init = one.init
        assert run("systemctl", "restart", name).returncode == 0 and not is_alive(init) and one.is_running()
        assert run("systemctl", "stop", name).returncode == 0 and one.is_gone()
        assert not os.path.exists(f"{root_of_control_groups()}{group}")
        assert run("systemctl", "is-failed", name).stdout.strip() == "inactive"


def test_a_unit_with_other_processes(controlled, subhost, machine):
    """Its control group cannot hand down controllers; they are left where they are."""
    one = subhost(MEMORY_MAX="64M")
    root = root_of_control_groups()
    with open(f"{root}/cgroup.subtree_control", "w") as file:
        file.write("+memory")
    group = f"{root}/{one.name}.unit"
    os.mkdir(group)
    try:
        os.setxattr(group, "trusted.delegate", b"1")
        done = run("sh", "-c", f"echo $$ >{group}/cgroup.procs; {BOOT} {one.conf}; status=$?; echo $status; exit $status")
        assert "MEMORY_MAX: cannot enable the controller memory: there are processes in the control group above" in one_line(done)
        assert done.stdout == "1\n" and [entry for entry in os.scandir(group) if entry.is_dir()] == []
        one.configure()
        assert run("sh", "-c", f"echo $$ >{group}/cgroup.procs; {BOOT} {one.conf}; exit $?").returncode == 0
        assert control_group(one.init) == f"/{one.name}.unit/{one.name}" and shown(one) == {}
        one.stopped()
    finally:
        wait_for(lambda: not read(f"{group}/cgroup.procs"))
        os.rmdir(group)


def test_the_unit_of_a_subhost_without_limits(unit):
    """Its limits hold, and nothing is between."""
    one, name = unit
    one.configure()
    assert run("systemctl", "start", name).returncode == 0
    assert shown(one) == {} and control_group(one.keeper) == os.path.dirname(control_group(one.init))
    assert run(LS).returncode == 0
