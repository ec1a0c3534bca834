"""overlay-boot --shell: a shell is the life of the subhost, which hibernates after it."""
import os
import signal
import subprocess

import pytest
from machine import BOOT, DISKFILE, GO, NETNS, PREFIX, SHARE, STATES, STOP, UNFENCED, control_groups, is_alive, kill, one_line, read, run, start, wait_for, write
from network import done, links

from overlay_boot import cgroup

CPUSETS = "/sys/fs/cgroup/cpuset"
STUBBORN = "trap '' TERM HUP; while :; do sleep 1; done"


@pytest.fixture
def shell():
    """Boot with a shell that is fed commands: shell(subhost, commands)."""
    def fed(one, commands="", **how):
        return run(BOOT, "--shell", one.conf, input=commands, **how)
    return fed


@pytest.fixture
def hibernating(subhost, shell):
    """A subhost over the machine's own root that hibernates."""
    one = subhost()
    assert shell(one).returncode == 0
    return one


def test_its_life_is_a_shell(subhost, shell):
    one = subhost(START="/service", INIT="echo exec /bin/false")
    one.write("service", "#!/bin/sh\n: >/started\n", 0o755)
    ended = shell(one, "hostname; tr '\\0' ' ' </proc/1/cmdline; echo; ls /started; sleep 1000 & exit 7")
    assert (ended.returncode, ended.stdout) == (7, f"{one.name}\n/.reaper {one.name} /run/dummy_service \n")
    assert "cannot access '/started'" in ended.stderr
    assert one.row()["state"] == "hibernating"


def test_no_process_is_left_and_all_else_is(hibernating, machine):
    machine.look()
    assert machine.before["processes"] == machine.first["processes"]
    assert machine.before["groups"] == machine.first["groups"]
    row = hibernating.row()
    assert (row["state"], row["pid"], row["processes"], row["config"]) == ("hibernating", None, 0, hibernating.conf)
    hibernating.stopped()
    assert hibernating.row() is None


def test_it_is_taken_up_as_it_is(subhost, shell, host):
    """Mounts, files in memory, shares, addresses, routes, firewall rules, cables."""
    one = subhost(CABLES="=", SHARE=f"{host.network}:/data", **UNFENCED)
    write(f"{host.network}/file", "shared\n")
    shell(one, "set -e; mkdir /more; mount -t tmpfs tmpfs /more; echo kept >/more/file; echo kept >/run/file; "
               "ip addr add 192.0.2.9/24 dev eth0; ip link set eth0 up; ip route add 198.51.100.0/24 via 192.0.2.1; "
               "nft add table ip kept").check_returncode()
    row = one.row()
    assert row["state"] == "hibernating" and "192.0.2.9/24" in row["cables"][0]["addresses"]
    assert row["shares"] == [{"outside": host.network, "inside": "/data", "read_only": False}]
    assert run(SHARE, host.network, one.name).returncode == 1
    looked = "cat /more/file /run/file /data/file; ip -4 -o addr; ip route; nft list tables; mount | grep -c ' /proc '"
    one.booted()
    first = one.sh(looked)
    assert first.split("\n")[:3] == ["kept", "kept", "shared"]
    assert all(word in first for word in ("192.0.2.9/24", "198.51.100.0/24 via 192.0.2.1", "table ip kept")) and first.endswith("\n1")
    assert one.row()["state"] == "running" and one.row()["shares"] == row["shares"]
    kill(one.init, signal.SIGKILL)
    wait_for(lambda: one.row()["state"] == "hibernating")
    again = shell(one, looked)
    assert again.stdout.strip() == first
    one.stopped()
    assert f"{one.name}0" not in links()


def test_what_the_configuration_says_now_is_for_what_is_started(subhost, shell, directory):
    """UPPER, and commands for it, are as they were; START and INIT are as they are."""
    one = subhost(UPPER="!./upper")
    one.script("upper", "echo called >>calls; echo root")
    shell(one).check_returncode()
    one.configure(UPPER="!./upper", START="/service", LOWER="nowhere")
    one.write("service", "#!/bin/sh\n[ $1 = stop ] || : >/started\n", 0o755)
    one.booted()
    wait_for(lambda: os.path.exists(f"{one.upper}/started"))
    assert read(f"{one.base}/calls") == "called\n"
    one.stopped()


@pytest.mark.parametrize("init", ["echo exec /bin/sleep 1000", "./init"])
def test_an_init_of_its_own(subhost, shell, init):
    one = subhost(INIT=init, STOP_TIMEOUT="1")      # sleep(1) as PID 1 takes no notice
    one.script("init", 'ip netns exec "$NAME" true && echo "exec /bin/sleep 1000" && echo "$UPPER" >seen')
    shell(one).check_returncode()
    one.booted()
    assert one.sh("cat /proc/1/comm") == "sleep"
    if init == "./init":
        assert read(f"{one.base}/seen") == one.upper + "\n"


def test_in_the_foreground(hibernating):
    hibernating.configure(INIT="echo exec /bin/sh -c 'exit 3'")
    assert run(BOOT, "--foreground", hibernating.conf).returncode == 3
    assert hibernating.row()["state"] == "hibernating"


def test_an_upper_on_a_tmpfs(subhost, shell):
    one = subhost(UPPER="tmpfs:10M")
    shell(one, "echo kept >/file").check_returncode()
    assert shell(one, "cat /file").stdout == "kept\n"
    one.stopped()
    assert shell(one, "cat /file").returncode == 1


def test_an_image_stays_its_own(subhost, shell, directory, machine):
    image = f"{directory}/{PREFIX}.img"
    done(DISKFILE, "--create", "32M", image)
    one, other = subhost(IMAGE=image), subhost(IMAGE=image)
    for each in (one, other):
        os.mkdir(f"{each.base}/mnt")
    machine.look()
    shell(one, "echo kept >/file").check_returncode()
    assert "in use by another subhost" in one_line(other.boot())
    assert shell(one, "cat /file").stdout == "kept\n"
    one.stopped()
    machine.is_as_before()
    other.booted()


def test_a_root_in_place(subhost, shell, own_root):
    """UPPER, LOWER and LIVE are one directory."""
    one = subhost(UPPER=own_root, LOWER=own_root, LIVE=own_root)
    shell(one, "echo kept >/run/file").check_returncode()
    assert shell(one, "cat /run/file").stdout == "kept\n"


def test_on_a_terminal(subhost, terminal):
    one = subhost()
    shell = terminal(BOOT, "--shell", one.conf, size=(33, 99))
    shell.expect("# ")
    shell.type("stty size; tty; sleep 1000\n")
    shell.expect("33 99")
    shell.expect("/dev/pts/0")
    wait_for(lambda: "sleep" in one.go("ps", "-eo", "comm").stdout.split())
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.type("jobs\n")
    shell.expect("Stopped")
    shell.type("exit 5\n")
    assert shell.process.wait(20) == 5
    assert one.row()["state"] == "hibernating"


def test_an_interrupt_without_a_terminal(subhost):
    one = subhost()
    shell = start(BOOT, "--shell", one.conf, stdin=subprocess.PIPE)
    shell.stdin.write(b"sleep 1000\n")
    shell.stdin.flush()
    wait_for(lambda: one.is_running() and "sleep" in one.go("ps", "-eo", "comm").stdout.split())
    shell.send_signal(signal.SIGINT)
    shell.communicate()
    assert shell.returncode == 128 + signal.SIGINT
    assert one.row()["state"] == "hibernating"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_goes_away(subhost, terminal, number):
    one = subhost()
    shell = terminal(BOOT, "--shell", one.conf)
    shell.expect("# ")
    shell.type("sleep 1000 &\n")
    wait_for(lambda: "sleep" in one.go("ps", "-eo", "comm").stdout.split())
    shell.process.send_signal(number)
    assert shell.process.wait(5) == 128 + number
    assert one.row()["state"] == "hibernating"


def test_stopped_from_elsewhere(subhost, terminal, machine):
    one = subhost()
    shell = terminal(BOOT, "--shell", one.conf)
    shell.expect("# ")
    stopped = run(STOP, one.conf)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    shell.process.wait(5)
    assert one.row() is None
    machine.is_as_before()


def test_stopped_from_elsewhere_before_it_takes_notice(subhost, terminal, machine):
    """Its shell was killed, and all that was of the subhost is gone."""
    one = subhost(STOP_TIMEOUT="0")
    shell = terminal(BOOT, "--shell", one.conf)
    shell.expect("# ")
    kill(shell.process.pid, signal.SIGSTOP)
    stopped = start(STOP, one.conf)
    wait_for(lambda: not any(path.endswith(f"/{one.name}") for path in control_groups()))
    kill(shell.process.pid, signal.SIGCONT)
    assert shell.ended() in (128 + signal.SIGHUP, 128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert b"No such file" not in shell.said
    stopped.communicate()
    assert stopped.returncode == 0
    machine.is_as_before()


def test_what_does_not_end_with_the_shell_is_killed(subhost, shell):
    one = subhost(STOP_TIMEOUT="1")
    ended = shell(one, f"setsid sh -c \"{STUBBORN}\" & sleep 0.3; exit 4")
    assert ended.returncode == 4 and f"{one.name}: killed after 1 s: sh (" in ended.stderr
    assert one.row()["state"] == "hibernating"


@pytest.mark.parametrize("victim", ["boot", "keeper", "init"])
def test_killed(subhost, terminal, victim):
    """Whatever is killed: no process of it is left, and it hibernates."""
    one = subhost()
    shell = terminal(BOOT, "--shell", one.conf)
    shell.expect("# ")
    shell.type("mount -t tmpfs tmpfs /srv; : >/srv/kept; sleep 1000\n")
    wait_for(lambda: "sleep" in one.go("ps", "-eo", "comm").stdout.split() and one.go("test", "-e", "/srv/kept").returncode == 0)
    members = [one.keeper, one.init]
    kill({"boot": shell.process.pid, "keeper": one.keeper, "init": one.init}[victim], signal.SIGKILL)
    shell.process.wait(20)
    wait_for(lambda: not any(map(is_alive, members)))
    wait_for(lambda: one.row()["state"] == "hibernating")
    one.booted()
    assert one.go("test", "-e", "/srv/kept").returncode == 0


def test_each_command_says_what_to_do(hibernating):
    for words in ([GO, hibernating.name], [GO, hibernating.name, "true"], [SHARE, "/srv", hibernating.name]):
        line = one_line(run(*words))
        assert all(word in line for word in ("is hibernating", f"overlay-boot {hibernating.conf}", "--shell", "overlay-stop")), line
    assert hibernating.name not in run(GO).stdout.split()


def test_another_file_of_the_same_name(hibernating, subhost):
    other = subhost(NAME=hibernating.name)
    for command in ([BOOT], [BOOT, "--shell"], [STOP]):
        assert f"is hibernating, and was booted from {hibernating.conf}" in one_line(run(*command, other.conf))
    assert hibernating.row()["state"] == "hibernating"


def test_a_boot_that_fails_leaves_it_hibernating(hibernating, machine):
    machine.look()
    since = hibernating.row()["since"]
    hibernating.configure(INIT="/bin/false")
    assert "INIT" in one_line(hibernating.boot())
    machine.is_as_before()
    assert hibernating.row()["since"] == since
    hibernating.configure(LOG="/proc/nowhere")
    assert "LOG=" in one_line(hibernating.boot())
    machine.is_as_before()
    hibernating.configure()
    hibernating.booted()


def test_its_network_namespace_is_gone(hibernating):
    run("umount", f"{NETNS}/{hibernating.name}")
    assert f"{NETNS}/{hibernating.name} has been replaced by another one" in one_line(hibernating.boot())
    hibernating.stopped()


def test_a_network_namespace_that_is_not_on_record_any_more(hibernating):
    """It is told of and left: it may be somebody else's."""
    place = f"{NETNS}/{hibernating.name}"
    with open(hibernating.state) as file:
        text = file.read()
    with open(hibernating.state, "w") as file:
        file.writelines(line for line in text.splitlines(keepends=True) if not line.startswith("netns"))
    line = f"overlay-stop: the state file of {hibernating.name} does not note its network namespace: {place} is left"
    assert one_line(hibernating.stop()) == line and os.path.exists(place)
    assert run("ip", "netns", "delete", hibernating.name).returncode == 0
    assert one_line(hibernating.stop()) == f"overlay-stop: {hibernating.name} is not running"


def test_a_control_group_of_its_name_is_not_its_own(hibernating):
    """Its own is gone since its last process: somebody else may have made one."""
    root = cgroup.hierarchy()
    group = f"/proc/self/fd/{root}/{cgroup.PARENT}/{hibernating.name}"
    os.makedirs(group)
    try:
        assert "overlay-boot has no record of it" in one_line(hibernating.boot())
        hibernating.stopped()
        assert os.path.isdir(group)
    finally:
        os.rmdir(group)
        os.close(root)
        cgroup.tidy()


def test_its_mount_namespace_is_gone(subhost, shell, host):
    """All others are listed, still."""
    one = subhost(SHARE=host.network)
    shell(one).check_returncode()
    place = f"{STATES}/{one.name}/mounts/mnt"
    done("umount", place)
    assert (one.row()["state"], one.row()["shares"]) == ("hibernating", None)
    assert f"its mount namespace {place} no longer exists" in one_line(one.boot())
    one.stopped()


def test_control_groups_are_mounted_anew(subhost, shell):
    """As an init system does it that is PID 1, wherever nothing is mounted yet."""
    one = subhost(**UNFENCED)
    for _ in range(2):
        ended = shell(one, "mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup; "
                           "mkdir /sys/fs/cgroup/own && cat /proc/self/cgroup /sys/fs/cgroup/cgroup.procs | grep -c .")
        assert ended.returncode == 0 and ended.stderr == ""


def test_no_shell_in_the_root(subhost, directory, machine):
    os.mkdir(f"{directory}/empty")
    one = subhost(LOWER=f"{directory}/empty")
    machine.look()
    assert one_line(run(BOOT, "--shell", one.conf)) == "overlay-boot: there is no shell in the subhost"
    machine.is_as_before()


def test_not_while_it_runs(running):
    assert f"{running.name} is running already" in one_line(run(BOOT, "--shell", running.conf))
    assert running.is_running()


def test_what_is_kept_is_not_in_sight_of_the_host(hibernating):
    found = [line.split()[4] for line in read("/proc/self/mountinfo").splitlines() if hibernating.name in line]
    place = f"{STATES}/{hibernating.name}/mounts"
    assert sorted(found) == sorted([place, f"{place}/mnt", f"{NETNS}/{hibernating.name}"])


@pytest.mark.parametrize("users", ["no", "auto"])
def test_on_whatever_processor(subhost, shell, machine, users):
    """In a mount namespace of our own, on one processor after the other: Linux 6.18 numbers namespaces by processor."""
    one = subhost(USERNS=users)
    for first in os.sched_getaffinity(0):
        for second in os.sched_getaffinity(0):
            done("taskset", "-c", str(first), "unshare", "--mount", "--propagation", "shared", "sh", "-ec",
                 f"umount /run/netns 2>/dev/null || true; mount -t tmpfs tmpfs /run; taskset -c {second} {BOOT} --shell {one.conf} </dev/null; "
                 f"{GO} {one.name} 2>&1 | grep -q hibernating; {STOP} {one.conf}")


@pytest.mark.skipif(not os.path.exists(f"{CPUSETS}/cpuset.cpus"), reason="no cpuset(7) that can be changed under a subhost")
def test_it_is_bound_to_no_processor(subhost):
    """When its cpuset(7) grows, so does what it runs on."""
    one = subhost()
    cpuset = f"{CPUSETS}/{one.name}"
    every = read(f"{CPUSETS}/cpuset.cpus").strip()
    os.mkdir(cpuset)
    try:
        write(f"{cpuset}/cpuset.mems", read(f"{CPUSETS}/cpuset.mems"))
        write(f"{cpuset}/cpuset.cpus", "0")
        shell = start("sh", "-c", f"echo $$ >{cpuset}/tasks; exec {BOOT} --shell {one.conf}", stdin=subprocess.PIPE)
        shell.stdin.write(b"echo up; read line; grep Cpus_allowed_list /proc/1/status\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == b"up\n", shell.communicate()
        write(f"{cpuset}/cpuset.cpus", every)
        assert shell.communicate(b"line\n")[0].decode().split()[1] == every
        one.stopped()
    finally:
        one.stop()
        shell.kill()
        wait_for(lambda: not read(f"{cpuset}/tasks"))
        os.rmdir(cpuset)
