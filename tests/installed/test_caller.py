"""What the caller of a command is does not matter to a subhost: limits, priority, and what else a process inherits."""
import os
import re

import pytest
from machine import BOOT, GO, STOP, read, run

# Not what init starts a process with, in any of what that inherits.  Hard limits are lowered where they can be raised again.
SYS_RESOURCE = 24
CAN_RAISE = int(re.search(r"^CapEff:\s*(\S+)", read("/proc/self/status"), re.MULTILINE)[1], 16) >> SYS_RESOURCE & 1
LOWERED = {"nofile": "300:400", "core": "1000:2000", "fsize": "100000000:200000000", "stack": "4194304:33554432", "memlock": "65536:65536",
           "nproc": "5000:6000", "cpu": "3000:4000", "data": "2000000000:2000000000", "sigpending": "50:60"}
ODD = ("prlimit", *(f"--{name}={text if CAN_RAISE else text.partition(':')[0] + ':'}" for name, text in LOWERED.items()),
       "choom", "-n", "777", "--", "nice", "-n", "7", "ionice", "-c", "2", "-n", "6", "taskset", "-c", "0", "chrt", "-b", "0",
       "setarch", "-R", "--3gb")
LIMITS = {
    "cpu time": ("unlimited", "unlimited"), "file size": ("unlimited", "unlimited"), "data size": ("unlimited", "unlimited"),
    "stack size": ("8388608", "unlimited"), "core file size": ("0", "unlimited"), "resident set": ("unlimited", "unlimited"),
    "open files": ("1024", "524288"), "locked memory": ("8388608", "8388608"), "address space": ("unlimited", "unlimited"),
    "file locks": ("unlimited", "unlimited"), "msgqueue size": ("819200", "819200"), "nice priority": ("0", "0"),
    "realtime priority": ("0", "0"), "realtime timeout": ("unlimited", "unlimited")}


def limits(process):
    lines = re.findall(r"^Max (.*?)  +(\S+) +(\S+)", read(f"/proc/{process}/limits"), re.MULTILINE)
    return {name: (soft, hard) for name, soft, hard in lines}


def due(name):
    """Soft and hard limit of what is a subhost's, booted from here."""
    own = limits("self")[name][1]
    soft, hard = limits(1)[name] if name in ("processes", "pending signals") else LIMITS[name]
    if not CAN_RAISE and own != "unlimited" and (hard == "unlimited" or int(own) < int(hard)):
        hard = own
        soft = hard if soft == "unlimited" or int(soft) > int(hard) else soft
    return soft, hard


def priority(process):
    """Nice value, policy, processors, and class of input and output."""
    fields = read(f"/proc/{process}/stat").rpartition(")")[2].split()
    [processors] = re.findall(r"^Cpus_allowed_list:\s*(\S+)", read(f"/proc/{process}/status"), re.MULTILINE)
    return fields[16], fields[38], processors, run("ionice", "-p", str(process)).stdout


def what_else(process):
    [umask] = re.findall(r"^Umask:\s*(\S+)", read(f"/proc/{process}/status"), re.MULTILINE)
    return read(f"/proc/{process}/oom_score_adj"), read(f"/proc/{process}/personality"), umask


def check_limits(process):
    found = limits(process)
    assert found == {name: due(name) for name in found}
    assert what_else(process) == ("0\n", "00000000\n", "0022")


def line(name):
    """That of /proc/self/limits, as a pattern."""
    return rf"(?m)^Max {name} +{due(name)[0]} +{due(name)[1]} "


PLAIN = ("0", "0")      # nice value and policy of what init starts


@pytest.fixture
def processors():
    """Those that this machine lets every process have."""
    assert run("taskset", "-c", "0", "true").returncode == 0
    done = run("taskset", "-pc", f"0-{os.cpu_count() - 1}", str(os.getpid()))
    assert done.returncode == 0, done.stderr
    return priority("self")[2]


@pytest.mark.parametrize("settings", [{}, {"USERNS": "auto"}, {"CAPABILITIES": "all"}], ids=["", "users", "all"])
def test_who_boots_does_not_matter(subhost, processors, settings):
    one = subhost(START="/opt/service", **settings)
    one.write("opt/service", "#!/bin/sh\n[ $1 = stop ] || { sleep 1000000 >/dev/null 2>&1 & }\n", 0o755)
    done = run(*ODD, BOOT, one.conf, umask=0o077)
    assert (done.returncode, done.stderr) == (0, "")
    [service] = run("pgrep", "-P", str(one.init)).stdout.split()
    for process in (one.init, service, one.keeper):
        check_limits(process)
        nice, policy, own, io = priority(process)
        assert (nice, policy, own, io) == (*PLAIN, processors, "none: prio 0\n")
    one.stopped()


def test_who_boots_in_the_foreground_does_not_matter(subhost, processors):
    one = subhost(START="none", INIT="./init")
    one.script("init", "echo 'cat /proc/self/limits /proc/self/oom_score_adj; nice; exit 3'")
    done = run(*ODD, BOOT, "--foreground", one.conf)
    assert done.returncode == 3, done.stderr
    assert re.search(line("open files"), done.stdout) and done.stdout.endswith("\n0\n0\n")


def test_who_enters_sets_the_priority_and_no_more(running, processors):
    said = run(*ODD, GO, running.name, "sh", "-c", "grep -h . /proc/self/limits /proc/self/oom_score_adj /proc/self/personality; "
               "umask; nice; taskset -pc $$; ionice -p $$; chrt -p $$", umask=0o077).stdout
    for name in LIMITS:
        assert re.search(line(name), said), name
    assert said.split("\n", 17)[17].splitlines()[:3] == ["0", "00000000", "0022"]
    assert "\n7\n" in said and "list: 0\n" in said and "best-effort: prio 6" in said and "SCHED_BATCH" in said


def test_who_stops_does_not_matter(subhost):
    """What a service is stopped by has the limits of the boot, and its priority."""
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\ncat /proc/self/limits /proc/self/oom_score_adj >/said; { umask; nice; } >>/said\n", 0o755)
    one.booted()
    done = run(*ODD, STOP, one.conf, umask=0o077)
    assert (done.returncode, done.stderr) == (0, "")
    said = read(f"{one.upper}/said")
    assert re.search(line("open files"), said) and said.endswith("\n0\n0022\n0\n")


def test_who_cannot_raise_a_limit_boots_all_the_same(subhost):
    """As root without CAP_SYS_RESOURCE: a limit that is lower stays, and others are as ever."""
    one = subhost()
    done = run("prlimit", "--nofile=300:400", "--memlock=8192:8192", "setpriv", "--bounding-set=-sys_resource,-sys_nice", "nice", "-n", "5",
               BOOT, one.conf)
    assert (done.returncode, done.stderr) == (0, "")
    found = limits(one.init)
    assert (found["open files"], found["locked memory"]) == (("400", "400"), ("8192", "8192"))
    assert found["stack size"] == due("stack size") and priority(one.init)[0] == "5"
    one.stopped()
