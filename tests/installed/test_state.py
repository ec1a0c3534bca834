"""/run/overlay-boot: what is there of a subhost, of another version, or of nobody."""
import os
import signal

import pytest
from machine import LAYERS, LS, STATES, STOP, is_alive, kill, one_line, run, wait_for


def of_2_0_0(one):
    """Have the state of a subhost where 2.0.0 had it: the state file in the place of its directory."""
    directory, away = os.path.dirname(one.state), f"{STATES}/{one.name}.away"
    with open(one.state, "r+") as file:
        text = file.read().replace("format 2\n", "")
        file.seek(0)
        file.truncate()
        file.write(text)
    os.rename(one.state, away)
    os.rmdir(directory)
    os.rename(away, directory)


def test_what_is_there_while_it_runs(running):
    assert os.listdir(os.path.dirname(running.state)) == ["state"]
    assert running.records()["format"] == "2" and running.records()["config"] == running.conf


def test_a_subhost_that_2_0_0_booted(subhost, machine):
    """It is listed, entered, shared with, not booted twice, and stopped."""
    machine.look()
    one = subhost().booted()
    init = one.init
    of_2_0_0(one)
    assert one.row()["state"] == "running" and one.init == init
    assert one.inside("hostname") == one.name
    assert "is running already" in one_line(one.boot())
    assert one.name in run("/usr/sbin/overlay-share", "/srv").stdout.split()
    one.stopped()
    assert not is_alive(init)
    machine.is_as_before()


def test_a_subhost_that_2_0_0_booted_ends_by_itself(subhost, machine):
    """Its keeper executes the clearing of this version."""
    machine.look()
    one = subhost().booted()
    keeper = one.keeper
    of_2_0_0(one)
    one.go("sh", "-c", "echo >/run/dummy_service")      # which may be killed with it
    wait_for(lambda: not os.path.exists(f"{STATES}/{one.name}"))
    wait_for(lambda: not is_alive(keeper))      # which has removed the last thing of it just now
    machine.is_as_before()


def test_what_a_killed_subhost_of_2_0_0_left(subhost, machine):
    """The next boot clears it, and has its state where that belongs."""
    machine.look()
    one = subhost().booted()
    init = one.init
    of_2_0_0(one)
    kill(one.keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    assert one.row()["state"] == "dead"
    one.booted()
    assert os.path.isfile(one.state)
    one.stopped()
    machine.is_as_before()


@pytest.mark.parametrize("line", ["format 3", "colour red", "netns 1"])
def test_state_of_another_version(subhost, line):
    """One line says so, and nothing is guessed."""
    one = subhost().booted()
    with open(one.state, "a") as file:
        file.write(line + "\n")
    try:
        for ended in (one.stop(), one.go("true")):
            assert one_line(ended).endswith(f"the state file of {one.name} is damaged, or of another version of overlay-boot: {line}")
        assert is_alive(int(one.records()["init"])) and one.row()["state"] == "unreadable"
    finally:
        with open(one.state, "r+") as file:
            text = file.read().replace(line + "\n", "")
            file.seek(0)
            file.truncate()
            file.write(text)
    one.stopped()


def test_what_is_no_subhost_hides_none(running):
    """Files and directories that are nobody's, beside the subhosts."""
    names = [f"{STATES}/{name}" for name in ("nothing", "a-name-that-nobody-can-have", "link")]
    os.mkdir(names[0])
    os.mkdir(names[1])
    os.symlink("nowhere", names[2])
    try:
        assert running.is_running() and running.name in run("/usr/sbin/overlay-go").stdout.split()
        assert run(LS).returncode == 0 and run(LAYERS).returncode == 0
    finally:
        for name in names[:2]:
            if os.path.isdir(name):
                os.rmdir(name)
        os.unlink(names[2])


def test_an_empty_directory_is_cleared(subhost):
    """A boot that was killed before it had a state file has left one."""
    one = subhost()
    os.makedirs(os.path.dirname(one.state))
    assert one_line(run(STOP, one.conf)) == f"overlay-stop: {one.name} is not running"
    assert one.is_gone()
