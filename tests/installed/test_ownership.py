"""Who owns a subhost: one boot of many, the last of two commands, and nobody who only looks like one of ours."""
import os
import shutil
import signal
import subprocess
import time

import pytest
from machine import (BOOT, GO, LS, PROGRAMS, STATES, STOP, Subhost, descendants, is_alive, kill, new_name, one_line, processes, read, run,
                     start, wait_for, write)


def outcomes(commands, seconds=60):
    """Start all the commands, and wait for them: [(exit status, errors)]."""
    started = [start(*command) for command in commands]
    found = []
    for process in started:
        _, err = process.communicate(timeout=seconds)
        found.append((process.returncode, os.fsdecode(err)))
    return found


def namesake(one, directory):
    """Another subhost of the same NAME, in another directory."""
    os.mkdir(f"{directory}/elsewhere")
    return Subhost(f"{directory}/elsewhere", one.name)


# Many boots

@pytest.mark.parametrize("files", [1, 2])
def test_fifty_boots_at_once(subhost, directory, files):
    """Exactly one wins, and all others say so in a line; from one file or from two."""
    one = subhost()
    confs = [one.conf, namesake(one, directory).conf][:files]
    for _ in range(5):
        found = outcomes((BOOT, confs[number % files]) for number in range(50))
        assert sorted(status for status, _ in found) == [0] + [1] * 49
        for status, err in found:
            if status:
                assert err.count("\n") == 1 and one.name in err and "already" in err, err
            else:
                assert err == ""
        row = one.row()
        assert row["state"] == "running" and row["config"] in confs
        assert read(f"/proc/{row['pid']}/cmdline").split("\0")[1] == one.name
        assert run(STOP, row["config"]).returncode == 0
        assert one.is_gone()


def test_boots_and_stops_at_once(subhost):
    """Whatever the order, each says the truth, and in the end there is one subhost or none."""
    one = subhost()
    for _ in range(5):
        found = outcomes((BOOT if number % 2 else STOP, one.conf) for number in range(20))
        strange = [(status, err) for status, err in found if status not in (0, 1) or err.count("\n") != status]
        assert not strange
        one.stop()
        assert one.is_gone()
        one.booted().stopped()


def test_many_stops_at_once(running):
    found = outcomes([(STOP, running.conf)] * 20)
    assert sorted(status for status, _ in found) == [0] + [1] * 19
    assert {err for status, err in found if status} == {f"overlay-stop: {running.name} is not running\n"}
    assert running.is_gone()


def test_entering_and_listing_while_boots_come_and_go(subhost):
    """None of them fails but for what is the case."""
    one = subhost()
    looking = start("sh", "-c", f"while :; do {LS} >/dev/null || echo failed; {LS} --json >/dev/null || echo failed; done", stderr=subprocess.STDOUT)
    entering = start("sh", "-c", f"while :; do {GO} {one.name} true; done", stderr=subprocess.STDOUT)
    try:
        for _ in range(30):
            one.booted().stopped()
    finally:
        for process in (looking, entering):
            process.kill()
    said = os.fsdecode(looking.communicate()[0])
    assert said == ""
    said = os.fsdecode(entering.communicate()[0])
    assert "Traceback" not in said
    expected = (f"{one.name} is not running", f"{one.name} was stopped, or has ended")
    strange = {line for line in said.splitlines() if not line.endswith(expected)}
    assert not strange


# One during the other

@pytest.fixture
def held(subhost):
    """A subhost whose boot waits in PREMOUNT: (subhost, function to let it go on)."""
    one = subhost(PREMOUNT="./pre")
    os.mkfifo(f"{one.base}/reached")
    os.mkfifo(f"{one.base}/go")
    one.script("pre", f"echo >{one.base}/reached; read x <{one.base}/go; overlay-premount\n")

    def let_go():
        write_text(f"{one.base}/go", "\n")

    return one, let_go


def write_text(path, text):
    with open(path, "w") as file:
        file.write(text)


def test_a_stop_during_a_boot(held, machine):
    """The last command's intent holds: it is stopped."""
    one, _ = held
    boot = start(BOOT, one.conf)
    read(f"{one.base}/reached")
    assert one.row()["state"] == "booting"
    one.stopped()
    _, err = boot.communicate(timeout=20)
    assert boot.returncode != 0 and err.count(b"\n") == 1
    machine.is_as_before()


def test_a_stop_during_a_command_for_a_value(subhost, machine):
    one = subhost()
    os.mkfifo(f"{one.base}/reached")
    script = one.script("value", f"echo >{one.base}/reached; exec sleep 1000000\n")
    one.configure(RAM_SIZE=f"!{script}")
    boot = start(BOOT, one.conf)
    read(f"{one.base}/reached")
    one.stopped()
    assert boot.wait(20) == 1
    machine.is_as_before()


def test_a_stop_during_a_boot_in_the_foreground(held, machine):
    one, _ = held
    boot = start(BOOT, "--foreground", one.conf)
    read(f"{one.base}/reached")
    one.stopped()
    assert boot.wait(20) == 1
    boot.communicate()
    machine.is_as_before()


def test_a_stop_during_a_boot_that_takes_no_notice(subhost, machine):
    """A hook that ignores SIGTERM does not hold it."""
    one = subhost(POSTMOUNT="./post")
    os.mkfifo(f"{one.base}/reached")
    one.script("post", f"trap '' TERM INT HUP; echo >{one.base}/reached; while :; do sleep 0.1; done\n")
    boot = start(BOOT, one.conf)
    read(f"{one.base}/reached")
    one.stopped()
    assert boot.wait(20) == 1
    machine.is_as_before()


def test_nobody_enters_before_pid_1_is_confined(subhost, machine):
    """While PID 1 still has the host's root, there is nothing to enter, whoever asks."""
    one = subhost()
    boot = start("strace", "-f", "-o", "/dev/null", "-e", "inject=pivot_root:delay_enter=3000000", BOOT, one.conf)
    wait_for(lambda: list(descendants(boot.pid).values()).count("keeper") == 2)     # one of them to be PID 1
    for _ in range(3):
        entered = one.go("true")
        assert (entered.returncode, entered.stderr) == (1, f"overlay-go: {one.name} is not running\n")
        assert one.row()["state"] == "booting" and one.row()["pid"] is None
    assert boot.poll() is None, "it was not looked at in time"
    wait_for(one.is_running)
    assert one.inside("readlink", "/proc/1/exe") == "/.reaper"
    one.stopped()
    assert boot.wait(20) == 0


def test_a_boot_during_a_boot(held):
    one, let_go = held
    boot = start(BOOT, one.conf)
    read(f"{one.base}/reached")
    said = one_line(one.boot())
    assert "being booted already" in said and str(boot.pid) in said
    let_go()
    assert boot.wait(20) == 0 and one.is_running()


def test_a_boot_during_a_stop(subhost):
    """It waits, and boots: the last command's intent holds."""
    one = subhost(START="/opt/service", STOP_TIMEOUT="20")
    one.write("opt/service", "#!/bin/sh\n[ $1 = start ] && exec sleep 1000000 &\n[ $1 = stop ] && { touch /stopping; read x </go; }\nexit 0\n", 0o755)
    os.mkfifo(f"{one.upper}/go")
    one.booted()
    wait_for(lambda: read(f"/proc/{one.init}/comm") == ".reaper\n")
    first = one.init
    stop = start(STOP, one.conf)
    wait_for(lambda: os.path.exists(f"{one.upper}/stopping"))
    assert one.row()["state"] == "stopping"
    boot = start(BOOT, one.conf)
    wait_for(lambda: "posix_lock" in read(f"/proc/{boot.pid}/stack") or read(f"/proc/{boot.pid}/wchan").startswith(("fcntl", "posix_lock", "locks_")))
    assert boot.poll() is None
    one.inside("rm", "/stopping")
    one.go("sh", "-c", "echo >/go")
    assert stop.communicate(timeout=20) == (b"", b"") and stop.returncode == 0
    assert boot.communicate(timeout=20) == (b"", b"") and boot.returncode == 0
    assert one.is_running() and one.init != first
    kill(one.init, signal.SIGKILL)


def test_a_boot_when_the_subhost_has_just_ended(subhost):
    """Between PID 1's end and the clearing of it."""
    one = subhost()
    for _ in range(20):
        one.booted()
        kill(one.init, signal.SIGKILL)
        one.booted()
        one.stopped()


def test_a_boot_while_the_killed_subhost_is_ending(running):
    """PID 1 is as good as dead, and waits for one that was let in, whose parent takes its time to reap it."""
    process = start(GO, running.name, "sh", "-c", "echo ready; exec sleep 1000000")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGSTOP)
    try:
        kill(running.init, signal.SIGKILL)
        boot = start(BOOT, running.conf)
        time.sleep(0.5)                 # far longer than a boot waits for one that only may be ending
        assert boot.poll() is None
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate()
    assert boot.communicate(timeout=20) == (b"", b"") and boot.returncode == 0
    running.stopped()


def test_a_clearing_that_comes_too_late(running):
    """The name is another boot's by now."""
    done = run(f"{PROGRAMS}/clear", running.name, "3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert running.is_running() and running.inside("hostname") == running.name
    running.stopped()


def test_a_stop_when_the_subhost_has_just_ended(running):
    kill(running.init, signal.SIGKILL)
    done = running.stop()
    assert done.returncode in (0, 1) and running.is_gone()


# Two files of one name

def test_a_stop_by_another_file_of_the_same_name(running, directory):
    other = namesake(running, directory)
    said = one_line(other.stop())
    assert running.conf in said and other.conf in said
    assert running.is_running() and running.inside("hostname") == running.name


def test_a_boot_by_another_file_of_the_same_name(running, directory, machine):
    other = namesake(running, directory)
    machine.look()
    assert running.conf in one_line(other.boot())
    machine.is_as_before()
    running.stopped()
    other.booted()
    assert other.row()["config"] == other.conf
    other.stopped()


def test_a_stop_by_another_file_during_a_boot(held, directory):
    one, let_go = held
    boot = start(BOOT, one.conf)
    read(f"{one.base}/reached")
    assert one.conf in one_line(namesake(one, directory).stop())
    let_go()
    assert boot.wait(20) == 0 and one.is_running()


def test_leftovers_are_anybodys_to_clear(running, directory):
    """Once nobody runs it, a name is free."""
    kill(running.keeper, signal.SIGKILL)
    other = namesake(running, directory)
    assert other.stop().returncode == 1
    assert running.is_gone()


def test_one_file_by_two_paths(running, directory):
    os.symlink(running.base, f"{directory}/link")
    run_by_link = run(STOP, f"{directory}/link/{running.name}.conf")
    assert run_by_link.returncode == 0 and running.is_gone()


def test_a_configuration_that_is_changed_or_moved_while_it_runs(subhost):
    """All else was noted by the boot."""
    one = subhost()
    one.booted()
    one.configure(BASE="/nowhere", STOP_TIMEOUT="1000", START="/nowhere/x", LOG="/nowhere/y", SHARE="/nowhere")
    one.stopped()


# Impostors

@pytest.fixture
def impostors(directory):
    """Processes that look like those of a subhost: impostors(subhost) starts them."""
    made = []

    def make(one):
        script = write(f"{directory}/overlay-boot", "#!/bin/sh\nwhile :; do sleep 0.1; done\n", 0o755)
        shutil.copy(script, f"{one.base}/{one.name}")
        for words in (["bash", "-c", f"exec -a /.reaper sh {one.name}"], ["bash", "-c", f"exec -a keeper sh {one.name}"],
                      ["bash", "-c", f"exec -a '/.reaper {one.name}' sleep 1000000"],
                      [script, one.conf], ["sh", script, one.conf], ["sh", "-c", f"sleep 1000000; : overlay-boot {one.conf}"],
                      ["unshare", "-pf", "--kill-child", "sleep", "1000000"]):
            made.append(subprocess.Popen(words, start_new_session=True, cwd=one.base, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        copy = shutil.copy("/usr/bin/sleep", f"{directory}/.reaper")
        made.append(subprocess.Popen([copy, "1000000"], start_new_session=True))
        copy = shutil.copy("/usr/bin/sleep", f"{directory}/keeper")
        made.append(subprocess.Popen([copy, "1000000"], start_new_session=True))
        wait_for(lambda: all(processes()[process.pid][1] == "S" for process in made))
        return made

    yield make
    for process in made:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_impostors_are_not_found(subhost, impostors):
    one = subhost()
    found = impostors(one)
    assert one.row() is None
    assert one_line(one.stop()).endswith("is not running")
    assert one.go("true").returncode == 1
    assert one.name not in run(GO).stdout
    assert all(process.poll() is None for process in found)


def test_impostors_are_not_killed(subhost, impostors):
    one = subhost()
    found = impostors(one)
    one.booted()
    assert one.row()["processes"] == 1
    one.stopped()
    one.booted()
    kill(one.keeper, signal.SIGKILL)
    one.booted().stopped()
    assert all(process.poll() is None for process in found)


def test_an_impostor_as_the_noted_pid_1(subhost, impostors):
    """A state file that a killed boot has left, with a process id that somebody else has by now."""
    one = subhost()
    found = impostors(one)
    os.makedirs(STATES, 0o700, exist_ok=True)
    write(one.state, f"config {one.conf}\nstart \ntimeout 1\nlog {one.log}\nsince 1\ninit {found[0].pid}\n")
    assert one.row()["state"] == "dead" and one.go("true").returncode == 1
    assert one_line(one.stop()).endswith("is not running") and one.is_gone()
    write(one.state, f"config {one.conf}\ninit {found[0].pid}\n")
    one.booted().stopped()
    assert all(process.poll() is None for process in found)


def test_a_parent_of_the_wrong_pid_1(subhost, impostors):
    """The keeper's own word for who PID 1 is counts only for a child of it."""
    one = subhost().booted()
    found = impostors(one)
    with open(one.state, "a") as file:
        file.write(f"init {found[0].pid}\n")
    one.go("true")
    one.stop()
    assert all(process.poll() is None for process in found)
    assert wait_for(one.is_gone)


def test_a_name_like_a_command(subhost):
    """NAMEs that mean something to somebody."""
    for name in ("none", "lo", "self", "1"):
        one = subhost(NAME=name)
        if os.path.exists(f"{STATES}/{name}"):
            continue
        one.name = name
        done = one.boot()
        if done.returncode == 0:
            assert one.inside("hostname") == name
            one.stopped()
        else:
            one_line(done)


def test_the_state_is_for_root_only(running):
    assert os.stat(STATES).st_mode & 0o777 == 0o700 and os.stat(running.state).st_mode & 0o777 == 0o600


def test_a_lock_that_is_held_is_all_that_counts(running):
    """Without its state file a subhost is not known; what has it open still holds it."""
    assert is_alive(running.keeper)
    path, hidden = running.state, f"{running.state}.x"
    os.rename(path, hidden)
    try:
        assert running.go("true").returncode == 1
    finally:
        os.rename(hidden, path)
    assert running.go("true").returncode == 0


def test_names_of_this_run_are_short_enough():
    assert len(new_name()) <= 12
