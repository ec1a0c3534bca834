"""/run/overlay-boot: what is there of a subhost, of another version, or of nobody."""
import json
import os
import re
import signal
import time

import pytest
from machine import BOOT, LAYERS, LS, NETNS, PREFIX, STATES, STOP, is_alive, kill, one_line, read, root_of_control_groups, run, start, wait_for, write
from network import done, links


def rewritten(one, change):
    """Have a state file say something else: change takes its text.  It is the same file, with the same locks."""
    with open(one.state, "r+", errors="surrogateescape") as file:
        text = change(file.read())
        file.seek(0)
        file.truncate()
        file.write(text)


def of_2_0_0(one):
    """Have the state of a subhost where 2.0.0 had it: the state file in the place of its directory."""
    directory, away = os.path.dirname(one.state), f"{STATES}/{one.name}.away"
    rewritten(one, lambda text: text.replace("format 2\n", ""))
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


DAMAGE = {
    "emptied": lambda text: "",
    "cut in the middle": lambda text: text[:len(text) // 2],
    "cut in the last line": lambda text: text[:-2],
    "without a line": lambda text: re.sub("netns .*\n", "", text),
    "another file of the network namespace": lambda text: re.sub("netns ", "netns 1", text) + "nothing\n",
    "another network namespace": lambda text: re.sub("netns .*", "netns 1 2", text),
    "cut behind the configuration file": lambda text: text[:text.index("cgroup")],
    "zeroes": lambda text: "\0" * len(text),
    "a line of nobody": lambda text: text + "colour red\n",
    "numbers that are none": lambda text: re.sub(r"(netns|init|since|timeout) .*", r"\1 nan", text),
    "another control group": lambda text: re.sub("cgroup overlay", "cgroup 0verlay", text),
    "without the place of UPPER": lambda text: re.sub("mount-point .*\n", "", text),
    "places of others": lambda text: re.sub("cgroup .*", "cgroup init.scope\\nmounts /etc\\nmount-point /srv", text) + "nothing\n",
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("word", ["NAME", "CONF", "--all"])
def test_a_damaged_state_file(subhost, machine, host, change, word):
    """A stop says so in a line, and clears what it knows for the subhost's by its place, its keeper and its PID 1."""
    machine.look()
    one = subhost(UPPER="tmpfs:10M").booted()
    init = one.init
    rewritten(one, change)
    assert one.row()["state"] in ("running", "unreadable")
    assert one.name in one_line(one.boot())
    entered = one.go("true")
    assert entered.returncode == 0 or one.name in one_line(entered)
    stopped = run(STOP, {"NAME": one.name, "CONF": one.conf}.get(word, word))
    assert stopped.returncode == 0
    assert re.fullmatch(f"overlay-stop: (.*: )?the state file of {one.name} (is damaged: .*|has lost lines)\n", stopped.stderr)
    assert not is_alive(init)
    machine.is_as_before()


@pytest.mark.parametrize(("pattern", "line", "told"), [
    ("netns .*\n", "nothing\n", "is damaged: nothing"),
    ("(format|config|cgroup|netns|timeout) .*\n", "", "has lost lines"),
    ("(cgroup|netns) .*\n", "", "has lost lines")])
def test_a_damaged_state_file_of_a_subhost_that_is_killed(subhost, machine, pattern, line, told):
    """Its network namespace is not known for its own if no line says so: it is told of, and left."""
    machine.look()
    one = subhost().booted()
    init, keeper, netns = one.init, one.keeper, f"{NETNS}/{one.name}"
    rewritten(one, lambda text: re.sub(pattern, "", text) + line)
    kill(keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    assert one_line(one.stop()) == f"overlay-stop: the state file of {one.name} {told}; {one.name} is not running"
    assert one_line(one.boot()) == f"overlay-boot: a network namespace {netns} exists already, and overlay-boot has no record of it"
    assert run("ip", "netns", "delete", one.name).returncode == 0
    one.booted().stopped()
    machine.is_as_before()


def test_a_state_file_without_lines_of_a_subhost_that_ends(subhost, machine):
    """The clearing that its keeper executes finds what they told of."""
    machine.look()
    one = subhost(UPPER="tmpfs:10M").booted()
    init, keeper = one.init, one.keeper
    rewritten(one, lambda text: re.sub("(cgroup|mount-point) .*\n", "", text))
    kill(init, signal.SIGKILL)
    wait_for(lambda: not is_alive(keeper))
    machine.is_as_before()


@pytest.mark.parametrize("call", ["pwrite64", "ftruncate", "write"])
def test_a_stop_that_is_killed_while_it_mends_the_state_file(subhost, machine, call):
    """What the lines say that can be read is not lost: the network namespace of a dead one is known by them alone."""
    machine.look()
    one = subhost().booted()
    init, keeper = one.init, one.keeper
    rewritten(one, lambda text: text + "nothing\n")
    kill(keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(init))
    killed = run("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL", STOP, one.conf)
    assert killed.returncode == -signal.SIGKILL
    assert one.name in one_line(one.stop())
    machine.is_as_before()


@pytest.mark.parametrize("now", ["", "cable:{name}1 70001\n"])
def test_a_state_file_without_the_line_of_a_cable(subhost, machine, host, now):
    """The cable is removed before the stop returns; the kernel would remove it some time later."""
    machine.look()
    one = subhost(CABLES="= =").booted()
    rewritten(one, lambda text: re.sub(f"cable:{one.name}1 .*\n", now.format(name=one.name), text))
    assert one_line_of(one.stop()) == f"overlay-stop: the state file of {one.name} has lost lines"
    assert not [name for name in links() if name.startswith(one.name)]
    machine.is_as_before()


@pytest.mark.parametrize("nameless", [False, True], ids=["named", "nameless"])
@pytest.mark.parametrize("end", ["NAME", "--all", "boot", "PID 1", "--foreground"])
def test_cables_of_which_no_line_tells(subhost, machine, host, directory, end, nameless):
    """They are gone as soon as the subhost is, however it ends, and also when its network namespace is going already.

    The kernel removes network namespaces one batch after the other, and has a lot of them to remove.
    """
    machine.look()
    one = subhost(CABLES="= =")
    foreground = start(BOOT, "--foreground", one.conf) if end == "--foreground" else one.booted() and None
    wait_for(one.is_running)
    rewritten(one, lambda text: re.sub("cable:.*\n", "", text))
    goes_on = write(f"{directory}/goes-on", "")
    others = start("sh", "-c", f"while [ -e {goes_on} ]; do unshare --net true; done")
    try:
        ended_without_lines(one, end, nameless, foreground)
        assert not [name for name in links() if name.startswith(one.name)]
    finally:
        os.unlink(goes_on)
        others.communicate()
    machine.is_as_before()


def ended_without_lines(one, end, nameless, foreground):
    init, keeper = one.init, one.keeper
    if nameless:
        done("ip", "netns", "delete", one.name)
    if foreground:
        foreground.terminate()
        foreground.communicate()
    else:
        kill(init if end == "PID 1" else keeper, signal.SIGKILL)
        wait_for(lambda: not is_alive(keeper if end == "PID 1" else init))
    if end == "boot":
        one.booted().stopped()
    elif end in ("NAME", "--all"):
        run(STOP, end.replace("NAME", one.name))


def test_cables_where_sysfs_shows_other_interfaces(subhost, machine, host):
    """Those of the network namespace in which it was mounted."""
    machine.look()
    one = subhost(CABLES="= =").booted()
    rewritten(one, lambda text: re.sub("cable:.*\n", "", text))
    done("unshare", "--mount", "sh", "-c", 'umount --lazy /sys && exec "$@"', "sh", STOP, one.name)
    assert not [name for name in links() if name.startswith(one.name)]
    machine.is_as_before()


def test_an_end_while_a_boot_makes_the_directory_of_network_namespaces(subhost, machine, host):
    """The end finds that a boot before was killed before it made that, and is slow to forget it."""
    machine.look()
    one, other = subhost(), subhost()
    traced = ("strace", "-qq", "-o", "/dev/null", "-e")
    run(*traced, "trace=mkdir", "-P", NETNS, "-e", "inject=mkdir:signal=SIGKILL", "/usr/bin/python3", "-IS", BOOT, one.conf)
    note = f"{STATES}/.netns-is-ours"
    assert os.path.exists(note) and not os.path.exists(NETNS)
    ending = start(*traced, "trace=unlink", "-P", note, "-e", "inject=unlink:delay_enter=2000000", "/usr/bin/python3", "-IS", STOP, one.conf)
    time.sleep(1)
    other.booted()
    ending.communicate()
    other.stopped()
    assert not os.path.exists(note) and not os.path.exists(NETNS)
    machine.is_as_before()


def test_a_state_file_without_the_configuration_file(subhost, machine):
    """It is told of in words."""
    machine.look()
    one = subhost()
    unknown = "a file that is not on record"
    one.booted()
    rewritten(one, lambda text: re.sub("config .*\n", "", text))
    assert one_line(one.boot()) == f"overlay-boot: {one.name} is running already, from {unknown}"
    one.stop()
    assert one.boot("--shell", input="exit\n").returncode == 0
    rewritten(one, lambda text: re.sub("config .*\n", "", text))
    assert one_line(one.boot()) == f"overlay-boot: {one.name} is hibernating, and was booted from {unknown}"
    assert "overlay-boot CONF wakes it" in one_line(one.go("true"))
    one.stop()
    machine.is_as_before()


def test_a_state_file_larger_than_any(subhost, machine):
    machine.look()
    one = subhost().booted()
    os.truncate(one.state, 1 << 40)
    assert one.row()["state"] in ("running", "unreadable")
    assert one_line_of(run("prlimit", f"--as={1 << 28}", STOP, one.name)).startswith("overlay-stop: the state file of")
    machine.is_as_before()


@pytest.mark.parametrize("init", ["init 1", "init 0", "init 4194303"])
def test_a_state_file_that_tells_of_another_process(subhost, machine, init):
    """It runs, so it is not told to be stopping."""
    machine.look()
    one = subhost().booted()
    rewritten(one, lambda text: re.sub("init .*", init, text))
    assert one.row()["state"] == "unreadable"
    assert one_line(one.boot()) == f"overlay-boot: {one.name} is running already, from {one.conf}"
    assert one_line_of(one.stop()) == f"overlay-stop: the state file of {one.name} has lost lines"
    machine.is_as_before()


@pytest.mark.parametrize("text", ["", "format 2\n", "format 2\nconfig {conf}\n"])
def test_a_control_group_of_somebody_else(subhost, machine, text):
    """A record of a boot that has just begun does not make it the subhost's."""
    one = subhost().booted()
    group = f"{root_of_control_groups()}/{one.records()['cgroup']}"
    one.stopped()
    os.makedirs(group)
    sleeper = start("sleep", "1000")
    try:
        write(f"{group}/cgroup.procs", str(sleeper.pid))
        machine.look()
        os.makedirs(os.path.dirname(one.state))
        write(one.state, text.format(conf=one.conf))
        assert one.stop().returncode == 1 and is_alive(sleeper.pid)
        machine.is_as_before()
    finally:
        sleeper.kill()
        sleeper.communicate()
        os.rmdir(group)
        run(STOP, one.name)         # which takes back what all subhosts have in common, if there are none


def test_a_control_group_that_is_another_one(subhost, machine):
    """PID 1 tells which one it is in."""
    one = subhost().booted()
    group = one.records()["cgroup"]
    other = f"{PREFIX}/{one.name}"
    os.makedirs(f"{root_of_control_groups()}/{other}")
    try:
        machine.look()
        rewritten(one, lambda text: text.replace(f"cgroup {group}", f"cgroup {other}"))
        assert one_line_of(one.stop()) == f"overlay-stop: the state file of {one.name} has lost lines"
        assert not os.path.exists(f"{root_of_control_groups()}/{group}") and os.path.exists(f"{root_of_control_groups()}/{other}")
    finally:
        os.rmdir(f"{root_of_control_groups()}/{other}")
        os.rmdir(f"{root_of_control_groups()}/{PREFIX}")


def one_line_of(done):
    assert done.returncode == 0
    return done.stderr.removesuffix("\n")


def test_state_of_another_version(subhost):
    """One line says so, and nothing is guessed."""
    one = subhost().booted()
    rewritten(one, lambda text: text + "format 3\n")
    try:
        for ended in (one.stop(), one.go("true")):
            assert one_line(ended).endswith(f"the state file of {one.name} was written by another version of overlay-boot: format 3")
        assert is_alive(int(one.records()["init"])) and one.row()["state"] == "unreadable"
    finally:
        rewritten(one, lambda text: text.removesuffix("format 3\n"))
    one.stopped()


def test_one_whose_state_file_is_damaged_is_listed_once(subhost, host, machine, directory):
    """Nothing tells from which of the listed files it was booted, but its name does."""
    one, other = subhost().booted(), subhost()
    done("mount", "--bind", write(f"{directory}/list", f"{one.conf}\n{other.conf}\n"), "/etc/subhosts.conf")
    original = read(one.state)
    for text, state in (("nothing\n", "unreadable"), (original.replace("/", "/x", 1), "running"),
                        (original.replace("/", "//", 1), "running")):
        rewritten(one, lambda _, text=text: text)
        rows = json.loads(run(LS, "--json").stdout)
        assert [(row["name"], row["state"]) for row in rows] == [(one.name, state), (other.name, "stopped")]
    assert run(STOP, one.name).returncode == 0


def test_the_cables_of_a_damaged_one_are_not_those_of_another(subhost, machine, host):
    """The names of the one begin with the name of the other, and all first cables have the same number inside."""
    done("ip", "link", "add", "br0", "type", "bridge")
    machine.look()
    one = subhost(CABLES="br0=")
    other = subhost(f"{one.name}1", CABLES="br0=")
    one.booted()
    other.booted()
    rewritten(one, lambda text: "")
    assert one.stop().returncode == 0 and f"{other.name}0" in links() and f"{one.name}0" not in links()
    other.stopped()
    machine.is_as_before()


@pytest.mark.parametrize("place", [STATES, f"{STATES}/NAME"])
def test_a_link_that_leads_nowhere(subhost, machine, host, place):
    one = subhost()
    path = place.replace("NAME", one.name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink("/nonexistent", path)
    assert one_line(one.boot()) == f"overlay-boot: {path} is a symbolic link"
    os.unlink(path)
    one.booted().stopped()


@pytest.mark.parametrize("line", ["cgroup overlay-boot", "mounts {mine}", "mount-point {mine}", "cable:lo 1"])
def test_what_is_on_record_and_nobody_s_or_another_s(subhost, machine, directory, line):
    """It is left alone."""
    mine = f"{directory}/mine"
    os.mkdir(mine)
    other = subhost().booted()
    machine.look()
    one = subhost().booted()
    rewritten(one, lambda text: f"{text}{line.format(mine=mine)}\n")
    assert one.stop().returncode == 0
    machine.is_as_before()
    assert other.is_running() and os.path.isdir(mine)


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
