"""Subhosts that 1.6.4 has booted, real ones: they run on, and the commands handle them as ours; nobody can pass for one."""
import json
import os
import shutil
import signal

import pytest
import shellversion
from conftest import cannot_run
from machine import (
    BOOT,
    GO,
    NETNS,
    SHARE,
    STATES,
    STOP,
    Subhost,
    descendants,
    is_alive,
    kill,
    namespaces,
    one_line,
    processes,
    read,
    run,
    start,
    wait_for,
    write,
)
from network import listed_without_pyroute2

SERVICE = """#!/bin/sh
echo "${0##*/} $1" >>/order
[ $1 = start ] || { kill $(cat /run/${0##*/}); exit; }
sleep 1000000 &
echo $! >/run/${0##*/}
"""
ENDLESS_STOP = SERVICE.replace("|| {", "|| { sleep 1000000;")
DEAF = """#!/bin/sh
[ $1 = stop ] || sh -c 'trap "" TERM; while :; do sleep 1; done' &
"""


@pytest.fixture(scope="session")
def programs(run_directory):
    """The programs of 1.6.4."""
    if not shutil.which("pivot_root", path="/usr/sbin:/sbin"):
        cannot_run("1.6.4 needs pivot_root(8), which is not installed")
    try:
        return shellversion.unpacked(f"{run_directory}/shell")
    except shellversion.Unavailable as why:
        cannot_run(f"overlay-boot {shellversion.VERSION}: {why}")


@pytest.fixture(scope="session")
def netns(run_directory):
    """ip-netns(8) mounts /run/netns when it is used first, and never takes that back."""
    was = os.path.ismount(NETNS)
    run("ip", "netns", "add", "overlaytests")
    run("ip", "netns", "delete", "overlaytests")
    yield
    if not was and not os.listdir(NETNS):       # else subhosts of others have come to use it
        run("umount", NETNS)
        os.rmdir(NETNS)


class Inherited(Subhost):
    """A subhost that 1.6.4 has booted, and whose scripts an upgrade has removed meanwhile."""

    def boot_by_shell(self, programs, argument, ready, env):
        self.configure_log()
        place = shutil.copytree(programs, f"{self.base}/programs")
        self.command = [f"{place}/overlay-boot", argument or self.conf]
        done = run(*self.command, cwd=self.base, env=env)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: self.outer and read(f"/proc/{self.tree[-1]}/comm") == f"{ready}\n", what=read(self.log))
        shutil.rmtree(place)
        return self

    def configure_log(self):
        self.log = f"{self.base}/log"
        with open(self.conf, "a") as file:
            file.write(f"LOG={self.log}\n")

    @property
    def outer(self):
        """The shell, whose subshells have the same arguments."""
        found = {pid: parent for pid, (parent, _, _) in processes().items()
                 if read(f"/proc/{pid}/cmdline").split("\0")[1:3] == self.command}
        return next((pid for pid, parent in found.items() if parent not in found), None)

    @property
    def tree(self):
        """The shell, unshare and PID 1."""
        found = [self.outer]
        while len(found) < 3:
            found.append(next((pid for pid, (parent, _, _) in processes().items() if parent == found[-1]), 0))
        return found

    def remove(self):
        run(STOP, self.conf)
        for pid in self.tree if self.outer else []:
            kill(pid, signal.SIGKILL)
        run("ip", "netns", "delete", self.name)
        remove_control_group(self.name)


def remove_control_group(name):
    """1.6.4 leaves it."""
    from overlay_boot import cgroup
    root = cgroup.hierarchy()
    if name in os.listdir(root):
        os.rmdir(name, dir_fd=root)
    os.close(root)


@pytest.fixture
def inherited(programs, netns, directory, machine):
    """Boots subhosts with 1.6.4: inherited(VARIABLE=value, ...); files are {path: text} of scripts in UPPER."""
    made = []

    def make(*, argument=None, place=None, files=None, ready=".reaper", env=None, **settings):
        one = Inherited(place or directory, **settings)
        made.append(one)
        for path, text in (files or {}).items():
            one.write(path, text, 0o755)
        return one.boot_by_shell(programs, argument and argument(one), ready, env)

    yield make
    for one in made:
        one.remove()


def order(one):
    return read(f"{one.upper}/order").split("\n")[:-1]


def is_there(interface):
    return os.path.exists(f"/sys/class/net/{interface}")


# As one of ours

def test_nothing_is_shared_with_it(inherited):
    one = inherited()
    assert one_line(run(SHARE, "/srv", one.name)) == \
        f"overlay-share: {one.name} was booted by overlay-boot 1.6.4: boot it again to share with it"


def test_it_is_listed_entered_and_stopped(inherited, machine):
    one = inherited()
    row = one.row()
    assert row["state"] == "running" and row["pid"] == one.tree[-1] and row["config"] == one.conf
    assert row["processes"] == len(descendants(one.tree[1])) and row["memory"] > 100000 and row["cables"] == []
    assert abs(row["since"] - os.stat(f"/proc/{row['pid']}").st_ctime) < 5
    assert one.name in run(GO).stdout.split()
    inside = one.sh("for kind in mnt pid net uts ipc time; do readlink /proc/self/ns/$kind; done").split()
    assert inside == [namespaces(row["pid"])[kind] for kind in ("mnt", "pid", "net", "uts", "ipc", "time")]
    assert one.go("sh", "-c", "exit 7").returncode == 7 and one.go("sh", "-c", "kill -9 $$").returncode == 137
    one.stopped()
    machine.is_as_before()
    assert one_line(one.stop()) == f"overlay-stop: {one.name} is not running"


def test_it_is_among_all(inherited):
    """For --all of overlay-boot it runs, for that of overlay-stop it is one to be stopped."""
    from overlay_boot import side_by_side
    one = inherited()
    assert one.conf in side_by_side.configs_running() and one.conf in side_by_side.there({})


def test_on_a_terminal(inherited, terminal):
    one = inherited()
    screen = terminal(GO, one.name, "/bin/sh")
    screen.type("echo $((6*7)); tty\n")
    screen.expect("42")
    screen.expect("/dev/pts/")
    screen.type("exit 3\n")
    assert screen.ended() == 3


def test_services_are_stopped_in_reverse_order(inherited, machine):
    one = inherited(START="/opt/first /opt/second", files={"opt/first": SERVICE, "opt/second": SERVICE})
    assert order(one) == ["first start", "second start"]
    one.stopped()
    machine.is_as_before()
    assert order(one)[2:] == ["second stop", "first stop"]


def test_what_does_not_end_is_killed(inherited, machine):
    one = inherited(START="/opt/deaf", STOP_TIMEOUT="0.5", files={"opt/deaf": DEAF})
    done = one.stop()
    assert done.returncode == 0 and "killed after 0.5 s: sh (" in done.stderr
    machine.is_as_before()


def test_who_has_entered_is_ended(inherited, machine):
    one = inherited()
    entered = start(GO, one.name, "sleep", "1000000")
    wait_for(lambda: one.row()["processes"] == 3)
    one.stopped()
    assert entered.wait(20) != 0
    entered.communicate()
    machine.is_as_before()


def test_cables(inherited, machine):
    """Those of an interface's name whose other end is not inside are somebody else's."""
    one = inherited(CABLES="= =02:00:00:00:00:07")
    other = f"{one.name}5"
    run("ip", "link", "add", other, "type", "veth", "peer", "name", f"{other}p")
    one.sh("ip address add 192.0.2.1/24 dev eth1")
    assert [(cable["name"], cable["inside"], cable["addresses"][:1]) for cable in one.row()["cables"]] == [
        (f"{one.name}0", "eth0", []), (f"{one.name}1", "eth1", ["192.0.2.1/24"])]
    one.stopped()
    assert not is_there(f"{one.name}0") and is_there(other)
    run("ip", "link", "delete", other)
    machine.is_as_before()


def test_cables_without_pyroute2(inherited, directory):
    """One line, however many there are; nobody can tell whose they are but by their names."""
    one, other = inherited(CABLES="= ="), inherited(CABLES="=")
    done = listed_without_pyroute2(directory, "--json")
    assert (done.returncode, done.stderr) == (0, "overlay-ls: cannot tell the addresses of cables: python3-pyroute2 is not installed\n")
    cables = {row["name"]: [(cable["name"], cable["addresses"]) for cable in row["cables"]] for row in json.loads(done.stdout)}
    assert sorted(cables[one.name]) == [(f"{one.name}0", None), (f"{one.name}1", None)] and cables[other.name] == [(f"{other.name}0", None)]


def test_it_is_not_booted_twice(inherited, directory, machine):
    one = inherited(CABLES="=")
    tree = one.tree
    twin = shutil.copy(one.conf, f"{directory}/{one.name}.conf")
    machine.look()
    for conf in (one.conf, twin):
        assert one_line(run(BOOT, conf)) == f"overlay-boot: {one.name} is running already, from {one.conf}"
    assert one_line(run(STOP, twin)) == f"overlay-stop: {one.name} is running from {one.conf}, not from {twin}"
    assert one.tree == tree and not os.path.exists(f"{STATES}/{one.name}")
    machine.is_as_before()


def test_two_stops_at_once(inherited, machine):
    """The second one waits for the first, and finds nothing."""
    one = inherited(CABLES="=", START="/opt/first", files={"opt/first": SERVICE})
    stops = [start(STOP, one.conf) for _ in range(2)]
    said = sorted(stop.communicate()[1].decode() for stop in stops)
    assert sorted(stop.returncode for stop in stops) == [0, 1]
    assert said == ["", f"overlay-stop: {one.name} is not running\n"]
    machine.is_as_before()


def test_our_boot_follows_the_stop(inherited, machine):
    one = inherited(CABLES="=", START="/opt/first", files={"opt/first": SERVICE})
    one.stopped()
    one.booted()
    wait_for(lambda: len(order(one)) == 3)
    assert one.is_running()
    one.stopped()
    machine.is_as_before()


def test_an_error_in_the_configuration_stops_nothing(inherited, machine):
    one = inherited()
    text = read(one.conf)
    machine.look()
    write(one.conf, text + "STOP_TIMEOUT=soon\n")
    assert "STOP_TIMEOUT=soon" in one_line(one.stop())
    machine.is_as_before()
    assert one.is_running()
    write(one.conf, text)
    one.stopped()


def test_it_knows_no_site_wide_defaults(site_wide, inherited):
    """Not even damaged ones."""
    one = inherited(START="/opt/one", files={"opt/one": SERVICE, "opt/other": SERVICE})
    write(one.conf, read(one.conf).replace("START=/opt/one", "STOP_TIMEOUT=9"))
    site_wide("START=/opt/other", "UPPER=x", "CABLES=x\r")
    one.stopped()
    assert order(one) == ["one start"]


def test_an_init_of_its_own(inherited, directory, machine):
    """There is no reaper then, of any name."""
    init = write(f"{directory}/init", "#!/bin/sh\necho exec sleep 1000000\n", 0o755)
    one = inherited(INIT=init, ready="sleep", STOP_TIMEOUT="0.5")
    assert one.is_running() and one.inside("cat", "/proc/1/comm") == "sleep"
    done = one.stop()
    assert done.returncode == 0 and "killed after 0.5 s: sleep (" in done.stderr
    machine.is_as_before()


def test_a_relative_path(inherited, directory, machine):
    """By the time, the mount that the shell was started in is detached, and its path cut short."""
    place = f"{directory}/mounted"
    os.mkdir(place)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    try:
        one = inherited(place=place, argument=lambda one: f"{one.name}.conf")
        assert one.row()["config"] == one.conf
        one.stopped()
    finally:
        run("umount", "-l", place)
    machine.is_as_before()


# What 1.6.4 does itself at the end

def test_no_program_of_the_subhost_is_run_on_the_host(inherited, machine):
    """Its shell is in the subhost's root, and in the host's PID namespace: its exit trap would call umount there."""
    evidence = '#!/bin/sh\necho "$PPID" >>/evidence\n'
    path = f"/usr/local/sbin:{os.environ['PATH']}"
    ours, theirs = (inherited(files={"usr/local/sbin/umount": evidence}, env={"PATH": path}) for _ in range(2))
    kill(theirs.tree[-1], signal.SIGKILL)
    wait_for(lambda: not theirs.outer)
    assert os.path.exists(f"{theirs.upper}/evidence")       # else this would prove nothing
    ours.stopped()
    assert not os.path.exists(f"{ours.upper}/evidence")


# Crash-only

@pytest.fixture
def half_stopped(inherited):
    """One whose stop was killed in the middle."""
    one = inherited(START="/opt/first", CABLES="=", files={"opt/first": ENDLESS_STOP})
    stop = start(STOP, one.conf)
    wait_for(lambda: order(one) == ["first start", "first stop"])
    stop.kill()
    stop.communicate()
    assert is_alive(one.tree[-1])
    return one


def test_a_stop_is_killed_and_the_next_one_ends_it(half_stopped, machine):
    write(f"{half_stopped.upper}/opt/first", SERVICE, 0o755)
    done = run(STOP, half_stopped.conf)
    assert done.returncode == 0, done.stderr
    machine.is_as_before()


def test_a_stop_is_killed_and_the_next_boot_ends_it(half_stopped, machine):
    tree = half_stopped.tree
    write(f"{half_stopped.upper}/opt/first", SERVICE, 0o755)
    half_stopped.booted()
    assert not any(map(is_alive, tree)) and half_stopped.is_running()
    half_stopped.stopped()
    machine.is_as_before()


def test_a_stop_is_killed_and_the_rest_ends_by_itself(half_stopped, machine):
    kill(half_stopped.tree[-1], signal.SIGKILL)
    assert "is not running" in one_line(half_stopped.stop())
    machine.is_as_before()


# Those who only look like one

class Impostor(Subhost):
    """The tree of processes, with everything as 1.6.4 makes it, but for who has made it."""

    def pretend(self, root, *before, options="", name="overlay-boot"):
        script = self.script(name, f"unshare {options} --fork --pid --net --root={root} --kill-child "
                                   "/bin/sh -c 'sleep 1000000; :'\n:\n")
        os.chmod(self.base, 0o755)
        self.process = start(*before, script, self.conf)
        wait_for(lambda: "sleep" in self.family().values(), what=self.family)
        unshare = next(pid for pid, name in self.family().items() if name == "unshare"
                       and "sleep" in descendants(pid).values())
        write(f"{NETNS}/{self.name}")
        run("mount", "--bind", f"/proc/{unshare}/ns/net", f"{NETNS}/{self.name}")
        return self

    def family(self):
        return descendants(self.process.pid)

    def is_unharmed(self):
        return "sleep" in self.family().values()

    def remove(self):
        for pid in self.family():
            kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()
        if os.path.exists(f"{NETNS}/{self.name}"):
            run("umount", f"{NETNS}/{self.name}")
            os.unlink(f"{NETNS}/{self.name}")


@pytest.fixture
def user_namespaces():
    if run("unshare", "--user", "true").returncode:
        pytest.skip("not run: no user namespaces here, as in a chroot")


@pytest.fixture
def impostor(netns, directory, machine):
    one = Impostor(directory)
    yield one
    one.remove()


def is_not_taken_for_one(one):
    assert one.row() is None and one.name not in run(GO).stdout.split()
    assert one_line(one.go("true")) == f"overlay-go: {one.name} is not running"
    assert one_line(one.stop()) == f"overlay-stop: {one.name} is not running"
    assert f"a network namespace {NETNS}/{one.name} exists already, and overlay-boot has no record of it" in one_line(one.boot())
    assert one.is_unharmed() and os.path.exists(f"{NETNS}/{one.name}")


def test_the_impostor_is_a_good_one(impostor, small_root):
    """The host's root can make one: there is nothing else to tell it by."""
    impostor.pretend(small_root, "unshare", "--mount")
    assert impostor.is_running() and impostor.inside("echo", "in") == "in"


def test_a_user_is_no_root(user_namespaces, impostor, small_root):
    impostor.pretend(small_root, "unshare", "--mount", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                     options="--user --map-root-user")
    is_not_taken_for_one(impostor)


def test_a_user_with_all_that_it_takes_is_no_root(impostor, small_root):
    able = "+sys_admin,+sys_chroot"
    impostor.pretend(small_root, "unshare", "--mount", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                     f"--inh-caps={able}", f"--ambient-caps={able}")
    is_not_taken_for_one(impostor)


def test_root_of_a_user_namespace_is_no_root(user_namespaces, impostor, small_root):
    impostor.pretend(small_root, "unshare", "--mount", "--user", "--map-root-user")
    is_not_taken_for_one(impostor)


def test_root_in_a_subhost_is_not_the_hosts(impostor, unfenced, small_root):
    impostor.pretend(small_root, GO, unfenced.name, "unshare", "--mount")
    is_not_taken_for_one(impostor)


def test_one_that_has_not_left_the_hosts_root_is_none_yet(impostor):
    """All of the host would be within reach of who enters."""
    impostor.pretend("/", "unshare", "--mount")
    is_not_taken_for_one(impostor)


def test_another_script_is_none(impostor, small_root):
    impostor.pretend(small_root, "unshare", "--mount", name="overlay")
    is_not_taken_for_one(impostor)


def test_a_tree_in_the_hosts_mount_namespace_is_none(impostor, small_root):
    impostor.pretend(small_root)
    is_not_taken_for_one(impostor)
