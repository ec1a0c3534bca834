"""Boot: what fails and how, and what the subhost is like when it has not."""
import os
import re
import select
import signal
import socket
import subprocess
import time

import pytest
from machine import (BOOT, LOGS, LS, NETNS, PROGRAMS, STATES, STOP, UNFENCED, control_group, descendants, is_alive, kill, mounts, namespaces,
                     one_line, ours, read, run, start, wait_for, write)

# A plain program as PID 1; it takes no notice of SIGTERM.
HOLD = {"INIT": "echo exec sleep 1000000", "STOP_TIMEOUT": "0.1"}


# What cannot be read

@pytest.mark.parametrize("path, why", [
    ("/nowhere/x.conf", "No such file"), ("/etc/passwd/x.conf", "Not a directory"), ("/", "directory"), ("/dev/null", "regular"),
    ("/proc/self/mem", "Input/output"), ("/" + "x" * 5000, "too long"), ("/dev/full", "regular")])
def test_no_configuration_file(fails, path, why):
    fails([BOOT, path], path, why)


def test_conf_is_a_loop_of_links(fails, directory):
    os.symlink("loop.conf", f"{directory}/loop.conf")
    fails([BOOT, f"{directory}/loop.conf"], "loop.conf", "symbolic links")


def test_conf_is_a_fifo(fails, directory):
    os.mkfifo(f"{directory}/x.conf")
    fails([BOOT, f"{directory}/x.conf"], "x.conf", "regular")


@pytest.mark.parametrize("text, why", [
    (b"BASE=.\0\n", "text"), (b"\x7fELF\x02\x01\x01\0", "text"), (b"BASE=.\r\nSTART=none\r\n", "line 1"),
    (b"BASE=.\n#" + b"x" * (1 << 20) + b"\nSTART=none\n", "line 2"), (b"#\n" * (3 << 20), "longer")], ids=range(5))
def test_conf_is_no_text_of_lines(subhost, fails, text, why):
    one = subhost()
    with open(one.conf, "wb") as file:
        file.write(text)
    fails(one, one.conf, why)


def test_an_empty_configuration_will_do(subhost):
    """Everything has a default, BASE too."""
    one = subhost()
    write(one.conf, "")
    one.booted()
    wait_for(lambda: read(f"/proc/{one.init}/comm") == ".reaper\n")
    one.stopped()


# Directories

@pytest.mark.parametrize("variable", ["BASE", "LIVE", "UPPER", "WORK", "LOWER"])
@pytest.mark.parametrize("value, why", [("/nowhere/x", ""), ("file", "irectory"), ("file/x", "irectory")])
def test_a_directory_that_is_none(subhost, fails, variable, value, why):
    one = subhost(**{variable: value})
    write(f"{one.base}/file")
    fails(one, f"{variable}=", value, why)


def test_one_of_several_lower_directories_is_missing(subhost, fails):
    fails(subhost(LOWER="/usr:/nowhere/x:/"), "LOWER=/nowhere/x")


@pytest.mark.parametrize("work, upper", [("root/work", "root"), ("root", "root"), ("work", "work/root"), ("root/../root/work", "root")])
def test_work_and_upper_inside_each_other(subhost, fails, work, upper):
    one = subhost(WORK=work, UPPER=upper)
    for made in ("root/work", "work/root"):
        os.mkdir(f"{one.base}/{made}")
    fails(one, "WORK=", "UPPER=")


def test_work_in_upper_by_a_link(subhost, fails):
    one = subhost(WORK="link")
    os.mkdir(f"{one.upper}/work")
    os.symlink("root/work", f"{one.base}/link")
    fails(one, "WORK=")


@pytest.fixture
def mounted(directory):
    """Mounts something for the time of the test: mounted(target, ARGUMENT...)."""
    made = []

    def mount(target, *arguments):
        assert run("mount", *arguments, target).returncode == 0
        made.append(target)
        return target

    yield mount
    for target in reversed(made):
        run("umount", target)


@pytest.fixture
def host(mounted, machine):
    """The same, for a boot that fails and leaves it as it is."""
    def mount(target, *arguments):
        mounted(target, *arguments)
        machine.look()

    return mount


@pytest.mark.parametrize("how", [("-t", "tmpfs", "tmpfs"), ("--bind", "{base}/root")])
def test_work_on_another_mount(subhost, fails, host, how):
    one = subhost()
    host(one.work, *(word.format(base=one.base) for word in how))
    fails(one, "WORK=", one.work)


@pytest.mark.parametrize("settings", [{}, {"LOWER": "root"}])
def test_something_is_mounted_on_live(subhost, fails, host, settings):
    one = subhost(**settings)
    host(one.live, "-t", "tmpfs", "tmpfs")
    fails(one, "LIVE=", one.live, "mounted")


def test_live_is_the_root(subhost, fails):
    fails(subhost(LIVE="/"), "LIVE=/")


def test_lower_inside_upper(subhost, fails):
    one = subhost(LOWER="root/low")
    os.mkdir(f"{one.upper}/low")
    fails(one, "LOWER", "UPPER")


# Values

@pytest.mark.parametrize("name", ["1234567890123", "a/b", "a b", "..", ".", "/", "-x", "\u00e4"])
def test_a_name_that_cannot_be(subhost, fails, name):
    fails(subhost(NAME=name), f"NAME={name}")


def test_a_file_whose_name_is_none(subhost, fails):
    one = subhost()
    for file in (".conf", "much-too-long-a-name.conf"):
        write(f"{one.base}/{file}", "BASE=.\n")
        fails([BOOT, f"{one.base}/{file}"], "NAME=")


@pytest.mark.parametrize("size", ["much", "-5M", "1.5M", "50 M", "M", "99999999999999999999999G", "5M,mode=777", "1%x"])
def test_a_size_of_run_that_cannot_be(subhost, fails, size):
    fails(subhost(RAM_SIZE=size), f"RAM_SIZE={size}")


@pytest.mark.parametrize("variable", ["NAME", "BASE", "LIVE", "RAM_SIZE", "LOG", "INIT"])
@pytest.mark.parametrize("command, why", [("/nowhere/x", "No such file"), ("false", "status 1"), ("true", "nothing"), ("./killed", "signal 15")])
def test_a_command_for_a_value_fails(subhost, fails, variable, command, why):
    one = subhost(**{variable: f"!{command}"})
    one.script("killed", "kill $$\n")
    fails(one, variable, why, cwd=one.base)


@pytest.mark.parametrize("variable", ["PREMOUNT", "POSTMOUNT", "INIT"])
@pytest.mark.parametrize("hook, why", [
    ("./missing", "No such file"), ("no-such-command", "No such file"), ("./plain", "ermission denied"), ("/usr", "ermission denied"),
    ("false", "status 1"), ("./exits", "status 77"), ("./killed", "signal 9"), ("./no-interpreter", "No such file")])
def test_a_hook_fails(subhost, fails, variable, hook, why):
    one = subhost(**{variable: hook})
    one.script("plain", "", mode=0o644)
    one.script("exits", "echo something; exit 77\n")
    one.script("killed", "echo something; kill -9 $$\n")
    write(f"{one.base}/no-interpreter", "#!/nowhere/sh\n", 0o755)
    fails(one, variable, why)


def test_a_hook_that_fails_and_has_hidden_what_has_to_be_removed(subhost, fails):
    """A boot is undone where the host's mounts are."""
    one = subhost(PREMOUNT="./pre")
    one.script("pre", "mount -t tmpfs tmpfs /run\nexit 1\n")
    fails(one, "PREMOUNT")


@pytest.mark.parametrize("variable", ["PREMOUNT", "POSTMOUNT", "INIT"])
def test_a_hook_that_fails_leaves_no_process_of_its_own(subhost, fails, variable):
    one = subhost(**{variable: "./hook"})
    one.script("hook", "sleep 1000000 & setsid sleep 1000000 & exit 3\n")
    fails(one, variable, "status 3")


@pytest.mark.parametrize("prints", ["true", "printf \\000", "head -c 200000 /bin/sh", "yes"])
def test_an_init_that_prints_no_commands(subhost, fails, prints):
    fails(subhost(INIT=prints), "INIT")


@pytest.mark.parametrize("share", ["/nowhere/x", "/nowhere/x:/y", "missing", "/etc/passwd/x"])
def test_a_share_of_nothing(subhost, fails, share):
    fails(subhost(SHARE=share), "SHARE=", share.partition(":")[0])


@pytest.mark.parametrize("inside", ["/", "/etc/passwd/x", "/usr/../..", "/etc/hostname/x/y", "."])
def test_a_share_with_no_place_inside(subhost, fails, inside):
    fails(subhost(SHARE=f"/usr:{inside}"), "SHARE", inside)


def test_a_directory_shared_on_a_file(subhost, fails):
    fails(subhost(SHARE="/usr:/etc/passwd"), "SHARE=/usr", "/etc/passwd")


def test_a_file_shared_on_a_directory(subhost, fails):
    fails(subhost(SHARE="/etc/passwd:/usr"), "SHARE=/etc/passwd", "/usr")


def test_a_log_that_cannot_be_written(subhost, fails, host):
    one = subhost()
    os.mkdir(f"{one.base}/mnt")
    host(f"{one.base}/mnt", "-r", "-t", "tmpfs", "tmpfs")
    os.symlink("/etc/passwd", f"{one.base}/link")
    os.mkfifo(f"{one.base}/fifo")
    for log in ("/nowhere/x.log", one.live, f"{one.base}/mnt/x.log", f"{one.base}/link", f"{one.base}/fifo", "/etc/passwd/x", "/"):
        one.configure(LOG=log)
        fails(one, f"LOG={log}")


@pytest.mark.parametrize("reaper, why", [("/nowhere/reaper", "No such file"), ("/etc", "executable"), ("/etc/passwd", "executable"),
                                         ("/etc/passwd/x", "Not a directory")])
def test_a_reaper_that_cannot_be(subhost, fails, reaper, why):
    fails(subhost(), f"REAPER={reaper}", why, env={"REAPER": reaper})


def test_a_root_without_a_shell(subhost, fails, own_root):
    """PID 1's command cannot be executed: the program at fault is named."""
    os.unlink(f"{own_root}/usr/bin/sh")
    fails(subhost(LOWER=own_root, START="cron"), "/bin/sh", "No such file")


def test_a_root_without_any_mount_point(subhost, own_root):
    """dev, sys and run are not in the small root; proc is made as well."""
    os.rmdir(f"{own_root}/proc")
    one = subhost(LOWER=own_root).booted()
    assert one.sh("cat /proc/1/comm") == ".reaper"


# What somebody else has

def test_a_network_namespace_of_somebody_else(subhost, fails, machine):
    one = subhost()
    assert run("ip", "netns", "add", one.name).returncode == 0
    try:
        machine.look()
        fails(one, f"{NETNS}/{one.name}")
        assert run("ip", "netns", "exec", one.name, "true").returncode == 0
    finally:
        run("ip", "netns", "del", one.name)
        if not any(line.split(" ")[2] == NETNS for line in machine.first["mounts"]) and not os.listdir(NETNS):
            run("umount", NETNS)


def test_a_file_of_somebody_else_for_a_network_namespace(subhost, fails, machine):
    one = subhost()
    os.makedirs(NETNS, exist_ok=True)
    path = write(f"{NETNS}/{one.name}", "mine")
    try:
        machine.look()
        fails(one, path)
        assert read(path) == "mine"
    finally:
        os.unlink(path)


def cgroup2():
    return next(line.split(" ")[2] for line in mounts() if " - cgroup2 " in line)


def test_a_control_group_of_somebody_else(subhost, fails, machine):
    one = subhost()
    group = f"{cgroup2()}/overlay-boot/{one.name}"
    os.makedirs(group)
    sleeper = subprocess.Popen(["sleep", "1000000"])
    try:
        write_text(f"{group}/cgroup.procs", str(sleeper.pid))
        machine.look()
        fails(one, f"overlay-boot/{one.name}")
        assert sleeper.poll() is None and control_group(sleeper.pid) == f"/overlay-boot/{one.name}"
        assert one.stop().returncode == 1
        assert sleeper.poll() is None and os.path.isdir(group)
    finally:
        sleeper.kill()
        sleeper.wait()
        wait_for(lambda: "populated 0" in read(f"{group}/cgroup.events"))
        os.rmdir(group)
        try:
            os.rmdir(os.path.dirname(group))
        except OSError:
            pass


def write_text(path, text):
    with open(path, "w") as file:
        file.write(text)


LOCKER = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, int(sys.argv[2]), 1, 0))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("byte", [0, 1])
def test_a_lock_of_somebody_else(subhost, fails, machine, byte):
    """COMMAND: it is being booted or stopped; KEEPER: it is running."""
    one = subhost()
    os.makedirs(os.path.dirname(one.state), 0o700, exist_ok=True)
    holder = start("/usr/bin/python3", "-IS", "-c", LOCKER, one.state, str(byte), stdin=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"locked\n"
        machine.look()
        fails(one, one.name, "already")
        assert holder.poll() is None
    finally:
        holder.communicate()
    assert one.stop().returncode == 1 and one.is_gone()


@pytest.mark.parametrize("made", ["directory", "link"])
def test_a_state_file_that_is_none(subhost, machine, made):
    one = subhost()
    path = one.state
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    {"directory": os.mkdir, "link": lambda path: os.symlink(one.conf, path)}[made](path)
    try:
        assert path in one_line(one.boot(seconds=20)) and path in one_line(one.stop(seconds=20))
        assert os.path.lexists(path) and "BASE=" in read(one.conf)
    finally:
        (os.rmdir if made == "directory" else os.unlink)(path)
        os.rmdir(os.path.dirname(path))
        try:
            os.rmdir(STATES)
        except OSError:
            pass


# Not root

@pytest.fixture
def as_nobody(directory):
    """Runs a command as nobody, where sudo is what the test says, or is not there at all."""
    def execute(sudo, *command):
        for made in ("upper", "work"):
            os.mkdir(f"{directory}/{made}")
        if sudo is None:
            os.mknod(f"{directory}/upper/sudo", 0o020000, 0)     # as overlayfs says that there is none
        else:
            write(f"{directory}/upper/sudo", sudo, 0o755)
        return run("unshare", "-m", "sh", "-ec", f"""
            mount -t overlay -o lowerdir=/usr/bin,upperdir={directory}/upper,workdir={directory}/work overlay /usr/bin
            exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@" """, "sh", *command)

    return execute


@pytest.mark.parametrize("command", ["boot", "stop", "go", "ls"])
def test_not_root_and_no_sudo(subhost, as_nobody, command):
    one = subhost()
    arguments = {"boot": [one.conf], "stop": [one.conf], "go": [one.name], "ls": []}[command]
    assert "root" in one_line(as_nobody(None, f"/usr/sbin/overlay-{command}", *arguments))


@pytest.mark.parametrize("options", [[], ["--foreground"], ["--check"]])
def test_not_root_and_sudo(subhost, as_nobody, options):
    """The same command again, by its full path, with the same arguments."""
    one = subhost()
    done = as_nobody("#!/bin/sh\nprintf '%s|' \"$@\"\n", BOOT, *options, one.conf)
    assert done.stdout == "|".join(["--", BOOT, *options, one.conf, ""])


def test_no_colours_through_sudo(as_nobody, monkeypatch):
    """sudo passes TERM on, and not NO_COLOR."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert as_nobody("#!/bin/sh\necho $TERM\n", LS).stdout == "dumb\n"


# The root file system

def test_an_overlay(subhost, small_root):
    one = subhost(LOWER=small_root).booted()
    assert one.sh("cat /etc/passwd") == read(f"{small_root}/etc/passwd").strip()
    one.sh("echo x >/etc/new; rm /etc/passwd")
    assert read(f"{one.upper}/etc/new") == "x\n" and os.path.exists(f"{small_root}/etc/passwd")
    assert not os.path.exists(f"{small_root}/etc/new")
    one.stopped()
    one.booted()
    assert one.sh("cat /etc/new; ls /etc") == "x\nhostname\nhosts\nnetwork\nnew"


def test_several_lower_directories_topmost_first(subhost, small_root):
    one = subhost(LOWER=f"a:b:{small_root}")
    for which in "ab":
        write(f"{one.base}/{which}/etc/both", which)
        write(f"{one.base}/{which}/etc/only-{which}", which)
    one.booted()
    assert one.sh("cat /etc/both /etc/only-a /etc/only-b") == "aab"


def test_a_bind_mount(subhost, own_root):
    """UPPER = LOWER, and LIVE another: no WORK is needed."""
    one = subhost(UPPER=own_root, LOWER=own_root, WORK="/nowhere")
    before = mounts()
    one.booted()
    one.sh("echo x >/etc/new")
    assert read(f"{own_root}/etc/new") == "x\n"
    assert [line.split(" ")[2] for line in mounts() if one.base in line] == [line.split(" ")[2] for line in before if one.base in line]
    assert os.listdir(one.live) == []
    one.stopped()


def test_a_directory_as_it_is(subhost, own_root, mounted):
    """UPPER = LOWER = LIVE: mounted already, with what is mounted below; PREMOUNT is not run."""
    one = subhost(UPPER=own_root, LOWER=own_root, LIVE=own_root, PREMOUNT="false", WORK="/nowhere")
    os.mkdir(f"{own_root}/data")
    mounted(own_root, "--bind", own_root)
    mounted(f"{own_root}/data", "-t", "tmpfs", "tmpfs")
    write(f"{own_root}/data/x", "x")
    one.booted()
    assert one.sh("cat /data/x; echo y >/data/y; cat /proc/1/comm") == "x.reaper"
    assert read(f"{own_root}/data/y") == "y\n"
    assert not os.path.exists(f"{own_root}/etc/hostname")
    one.stopped()
    assert read(f"{own_root}/data/x") == "x"


def test_of_the_hosts_mounts_none_is_inside(subhost, small_root, mounted):
    """Not even one made below LIVE's own directories; and none of the subhost's is outside."""
    one = subhost(LOWER=small_root)
    before = mounts()
    one.booted()
    assert mounts() != [] and [line for line in mounts() if one.base in line] == [line for line in before if one.base in line]
    found = [line.split(" ")[2] for line in mounts(one.init)]
    own = [place for place in found if not place.startswith(("/proc/", "/sys/"))]       # else masks
    assert sorted(own) == ["/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/run", "/sys"]
    # nor does one that is made later come in
    mounted(one.live, "-t", "tmpfs", "tmpfs")
    assert [line.split(" ")[2] for line in mounts(one.init)] == found


def test_nothing_spreads_where_the_hosts_mounts_are_shared(directory, subhost, mounted, small_root):
    """As systemd has them: what is mounted in one mount namespace comes to the others."""
    place = f"{directory}/shared"
    os.mkdir(place)
    mounted(place, "--bind", place)
    assert run("mount", "--make-shared", place).returncode == 0
    one = subhost(place=place, PREMOUNT="./pre", LOWER=small_root)
    os.mkdir(f"{one.base}/mnt")
    one.script("pre", f"overlay-premount && mount -t tmpfs tmpfs {one.base}/mnt\n")
    before = mounts()
    one.booted()
    assert [line for line in mounts() if place in line] == [line for line in before if place in line]
    mounted(one.live, "-t", "tmpfs", "tmpfs")
    assert "tmpfs" not in [line.split(" - ")[1].split()[0] for line in mounts(one.init) if line.split(" ")[2] == "/"]
    one.stopped()


def test_the_host_can_unmount_what_it_had_when_a_subhost_booted(subhost, directory):
    """No subhost holds a mount of the host's."""
    os.mkdir(f"{directory}/mnt")
    run("mount", "-t", "tmpfs", "tmpfs", f"{directory}/mnt")
    holder = os.open(f"{directory}/mnt", os.O_RDONLY)
    device = os.fstat(holder).st_dev
    os.close(holder)
    subhost().booted()
    assert run("umount", f"{directory}/mnt").returncode == 0
    held = f"{os.major(device)}:{os.minor(device)} "
    assert not [pid for pid in ours() if any(line.startswith(held) for line in mounts(pid))]


# What stands in it

def test_devices(running):
    found = running.sh("cd /dev; stat -c '%n %F %t:%T %a' console null zero full tty random urandom ptmx pts shm; for l in fd stdin stdout"
                       " stderr core; do echo $l $(readlink $l); done")
    assert found.splitlines() == [
        "console character special file 1:3 600", "null character special file 1:3 666", "zero character special file 1:5 666",
        "full character special file 1:7 666", "tty character special file 5:0 666", "random character special file 1:8 444",
        "urandom character special file 1:9 444", "ptmx character special file 5:2 666", "pts directory 0:0 755", "shm directory 0:0 1777",
        "fd /proc/self/fd", "stdin /proc/self/fd/0", "stdout /proc/self/fd/1", "stderr /proc/self/fd/2", "core /proc/kcore"]
    assert running.sh("ls -A /dev/pts") == "ptmx"
    assert running.sh("echo x >/dev/null; head -c 3 /dev/zero | wc -c; echo x >/dev/shm/x && cat /dev/shm/x").split() == ["3", "x"]


def test_a_terminal_pair_can_be_made_inside(running):
    assert running.sh("script -qec 'tty' /dev/null").strip().startswith("/dev/pts/")
    assert running.sh("script -qec 'stat -c \"%a %G\" $(tty)' /dev/null").strip() == "620 tty"


def test_run_proc_and_sys(running):
    assert running.sh("stat -fc %T /run /proc /sys; stat -c '%a %F' /run /run/lock; ls /sys/class/net").splitlines() == [
        "tmpfs", "proc", "sysfs", "755 directory", "1777 directory", "lo"]
    assert int(running.sh("echo $(($(stat -f -c '%b * %S' /run)))")) == 50 << 20


def test_what_is_mounted_inside_is_for_no_more_than_its_purpose(running):
    options = {line.split(" ")[2]: set(line.split(" ")[3].split(",")) for line in mounts(running.init)}
    for place in ("/dev", "/dev/pts"):
        assert options[place] >= {"nosuid", "noexec"}
    for place in ("/proc", "/sys"):
        assert options[place] >= {"nosuid", "nodev", "noexec"}
    assert options["/run"] >= {"nosuid", "nodev"}


def test_ram_size(subhost):
    one = subhost(RAM_SIZE="2M").booted()
    assert int(one.sh("echo $(($(stat -f -c '%b * %S' /run)))")) == 2 << 20
    assert one.go("sh", "-c", "head -c 3000000 /dev/zero >/run/x").returncode != 0


def test_no_ram(subhost, small_root):
    one = subhost(RAM_SIZE="none", LOWER=small_root)
    write(f"{one.upper}/run/x", "x")
    one.booted()
    assert one.sh("cat /run/x") == "x"
    assert "/run" not in [line.split(" ")[2] for line in mounts(one.init)]


def test_the_hosts_adjtime(subhost, own_root):
    """In a mount namespace where the host has one, whether or not it has."""
    one = subhost(UPPER=own_root, LOWER=own_root, LIVE=own_root)
    write(f"{own_root}/etc/adjtime", "the subhost's")
    os.mkdir(f"{one.base}/etc")
    os.mkdir(f"{one.base}/etcwork")
    done = run("unshare", "-m", "sh", "-ec", f"""
        mount -t overlay -o lowerdir=/etc,upperdir={one.base}/etc,workdir={one.base}/etcwork overlay /etc
        echo host >/etc/adjtime
        mount -t tmpfs tmpfs /run
        mkdir /run/netns
        touch /run/netns/{one.name}
        mount --bind /proc/self/ns/net /run/netns/{one.name}
        {PROGRAMS}/overlay-postmount
        cat {own_root}/etc/adjtime""", env={"CONFIG": one.conf})
    assert (done.stdout, done.stderr) == ("host\n", "")
    assert read(f"{own_root}/etc/adjtime") == "the subhost's"


def test_the_reaper_is_put_there_and_one_of_the_subhosts_own_is_kept(subhost, small_root):
    one = subhost(LOWER=small_root, STOP_TIMEOUT="0.1").booted()
    assert read(f"{one.upper}/.reaper") == read(f"{PROGRAMS}/reaper") and os.access(f"{one.upper}/.reaper", os.X_OK)
    one.stopped()
    own = write(f"{one.upper}/.reaper", "#!/bin/sh\nexec sleep 1000000\n", 0o755)
    one.booted()
    assert read(own) == "#!/bin/sh\nexec sleep 1000000\n"
    assert wait_for(lambda: read(f"/proc/{one.init}/comm") == "sleep\n")


def test_an_old_reaper_of_ours_is_replaced(subhost, small_root):
    one = subhost(LOWER=small_root)
    write(f"{one.upper}/.reaper", "\x7fELF overlay-boot reaper of another version", 0o755)
    one.booted()
    assert read(f"{one.upper}/.reaper") == read(f"{PROGRAMS}/reaper")
    inode = os.stat(f"{one.upper}/.reaper").st_ino
    one.stopped()
    one.booted()
    assert os.stat(f"{one.upper}/.reaper").st_ino == inode      # once is enough


@pytest.mark.parametrize("left", [b"", b"\x7fELF", bytes(1000), None], ids=["empty", "cut off", "zeroes", "half of it zeroes"])
def test_a_reaper_that_a_crash_has_damaged_is_replaced(subhost, small_root, left):
    one = subhost(LOWER=small_root)
    with open(f"{PROGRAMS}/reaper", "rb") as file:
        whole = file.read()
    with open(f"{one.upper}/.reaper", "wb") as file:
        file.write(whole[:4096] + bytes(len(whole) - 4096) if left is None else left)
    one.booted()
    with open(f"{one.upper}/.reaper", "rb") as file:
        assert file.read() == whole


def test_another_reaper(subhost, small_root):
    one = subhost(LOWER=small_root, STOP_TIMEOUT="0.1")
    write(f"{one.upper}/opt/reaper", "#!/bin/sh\necho I am $0 $*\nexec sleep 1000000\n", 0o755)
    one.booted(env={"REAPER": "/opt/reaper"})
    wait_for(lambda: f"I am /opt/reaper {one.name}\n" in one.said())


# Its name

def test_a_name_of_its_own(running):
    assert running.inside("hostname") == running.name
    assert read(f"{running.upper}/etc/hostname") == f"{running.name}\n"


def test_the_name_that_its_upper_says(subhost):
    one = subhost()
    one.write("etc/hostname", "www.example.org\n")
    assert one.booted().inside("hostname") == "www.example.org"
    assert read(f"{one.upper}/etc/hostname") == "www.example.org\n"
    one.stopped()
    one.write("etc/hostname", "# of this machine\n\n  ns.example.org\nmore\n")
    assert one.booted().inside("hostname") == "ns.example.org"


@pytest.mark.parametrize("text", ["", "two words\n", "x" * 65, "a/b\n", "\u00e4\n", "-\0-\n", "\n"])
def test_what_is_no_host_name_is_not_taken(subhost, text):
    one = subhost()
    one.write("etc/hostname", text)
    assert one.booted().inside("hostname") == one.name


def test_the_hosts_name_is_never_taken(subhost, own_root):
    """A custom PREMOUNT writes no etc/hostname; that of LOWER is not the subhost's."""
    write(f"{own_root}/etc/hostname", "the-host\n")
    one = subhost(PREMOUNT="true", LOWER=own_root).booted()
    assert one.sh("hostname") == one.name


def test_network_set_up_is_the_subhosts_own(subhost, small_root):
    one = subhost(LOWER=small_root).booted()
    text = read(f"{one.upper}/etc/network/interfaces")
    assert "iface lo inet loopback" in text and "auto lo" in text
    one.stopped()
    one.write("etc/network/interfaces", "# mine\n")
    one.booted()
    assert read(f"{one.upper}/etc/network/interfaces") == "# mine\n"


# Isolation

def test_namespaces_of_its_own(running):
    host, own = namespaces("self"), namespaces(running.init)
    for kind in ("mnt", "pid", "pid_for_children", "ipc", "uts", "net", "time", "time_for_children", "cgroup", "user"):
        assert own[kind] != host[kind], kind
    keeper = namespaces(running.keeper)
    assert all(keeper[kind] == host[kind] for kind in ("mnt", "ipc", "uts", "net", "cgroup", "time", "user"))


@pytest.mark.parametrize("settings, shared", [({}, []), (UNFENCED, ["user"])])
def test_two_subhosts_share_nothing(subhost, settings, shared):
    one, other = (namespaces(subhost(**settings).booted().init) for _ in range(2))
    assert [kind for kind in one if one[kind] == other[kind]] == shared


def test_the_network_namespace_has_the_name(running):
    done = run("ip", "netns", "exec", running.name, "sh", "-c", "readlink /proc/self/ns/net; cat /sys/class/net/lo/flags; ls /sys/class/net")
    assert done.stdout.split() == [namespaces(running.init)["net"], "0x9", "lo"]
    assert running.sh("cat /sys/class/net/lo/flags") == "0x9"


def test_pid_1_is_the_reaper(running):
    assert running.sh("cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l").split()[0] == ".reaper"
    assert running.sh("readlink /proc/1/exe") == "/.reaper"
    assert read(f"/proc/{running.init}/cmdline").split("\0")[:2] == ["/.reaper", running.name]


def test_the_command_line_of_the_keeper(running):
    """Of the configuration, and what a caller has typed, it shows nothing."""
    assert read(f"/proc/{running.keeper}/cmdline").split("\0")[1:] == [running.name, ""]
    assert os.path.basename(read(f"/proc/{running.keeper}/cmdline").split("\0")[0]) == "keeper"


def test_the_control_group(running):
    assert control_group(running.init) == f"/overlay-boot/{running.name}"
    assert "0::/\n" in running.sh("cat /proc/1/cgroup") + "\n"
    assert control_group(running.keeper) == control_group("self")


def test_ipc_is_apart(running):
    running.inside("ipcmk", "-Q")
    key = next(line.split()[0] for line in running.inside("ipcs", "-q").splitlines() if line.startswith("0x"))
    assert key not in run("ipcs", "-q").stdout


def test_pid_1_is_executed_when_the_boot_returns(subhost):
    """Not the keeper's image any more, whatever the machine has to do."""
    for _ in range(20):
        one = subhost(**HOLD).booted()
        init = int(one.records()["init"])
        assert os.path.basename(os.readlink(f"/proc/{init}/exe")) not in ("keeper", "python3.11")
        wait_for(lambda init=init: read(f"/proc/{init}/cmdline"))   # execve fills it in when it can fail no more
        kill(init, signal.SIGKILL)


# What enters it

def test_environment_of_pid_1(subhost):
    one = subhost(**HOLD).booted(env={"SECRET": "1", "LANG": "de_DE.UTF-8", "TERM": "vt100", "LD_PRELOAD": "", "NOTIFY_SOCKET": "/x"})
    wait_for(lambda: read(f"/proc/{one.init}/comm") == "sleep\n")
    assert sorted(read(f"/proc/{one.init}/environ").split("\0")[:-1]) == [
        "LANG=de_DE.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PREVLEVEL=N", "PWD=/",
        "RUNLEVEL=2", "TERM=vt100", "container=overlay-boot"]


def test_environment_of_pid_1_has_defaults(running):
    keys = [entry.partition("=")[0] for entry in read(f"/proc/{running.init}/environ").split("\0")[:-1]]
    assert sorted(keys) == ["LANG", "PATH", "PREVLEVEL", "RUNLEVEL", "TERM", "container"]


def test_descriptors_of_pid_1(subhost, directory):
    one = subhost(**HOLD)
    extra = [os.open(directory, os.O_RDONLY) for _ in range(20)]
    one.booted(pass_fds=extra)
    wait_for(lambda: read(f"/proc/{one.init}/comm") == "sleep\n")
    links = {fd: os.readlink(f"/proc/{one.init}/fd/{fd}") for fd in os.listdir(f"/proc/{one.init}/fd")}
    assert sorted(links) == ["0", "1", "2"] and links["0"] == "/dev/null"
    assert all(links[fd].startswith("pipe:") for fd in "12")
    for fd in extra:
        os.close(fd)


def test_what_is_no_null_device_is_not_the_input_of_pid_1(subhost, small_root):
    one = subhost()
    one.write("dev/null", "x")
    one.configure(LOWER=small_root, POSTMOUNT="true", INIT=one.init_text("cat >/said; echo ended >>/said; exec sleep 1000000"), STOP_TIMEOUT="0.1")
    one.booted()
    assert wait_for(lambda: read(f"{one.upper}/said")) == "ended\n"


@pytest.mark.parametrize("options", [[], ["--foreground"]], ids=["background", "foreground"])
def test_descriptors_of_a_hook_and_of_the_keeper(subhost, directory, options):
    """Who reads from the caller's pipe until its end does not wait for the subhost's."""
    one = subhost(PREMOUNT="./pre")
    one.script("pre", "readlink /proc/$$/fd/* >seen\nexec overlay-premount\n")
    extra = os.open(directory, os.O_RDONLY)
    boot = start(BOOT, *options, one.conf, pass_fds=[extra])
    wait_for(one.is_running)
    seen, keeper = read(f"{one.base}/seen").splitlines(), one.keeper
    assert "/dev/null" in seen and directory not in seen
    assert directory not in {os.readlink(f"/proc/{keeper}/fd/{fd}") for fd in os.listdir(f"/proc/{keeper}/fd")}
    one.stopped()
    boot.communicate(timeout=20)
    os.close(extra)


def test_signals_of_pid_1_are_as_new(subhost):
    """What the caller ignores or blocks is its own affair."""
    def prepare():
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))

    one = subhost(**HOLD).booted(preexec_fn=prepare)
    wait_for(lambda: read(f"/proc/{one.init}/comm") == "sleep\n")
    status = dict(line.split(":\t", 1) for line in read(f"/proc/{one.init}/status").splitlines())
    libc = 0b111 << 31      # signals that a libc keeps for itself, and lets nobody set
    assert (int(status["SigBlk"], 16), int(status["SigIgn"], 16) & ~libc) == (0, 0)
    one.stop(preexec_fn=prepare)


def test_a_caller_that_ignores_the_end_of_children(subhost):
    """SIGCHLD ignored, which is inherited, makes the kernel forget how a child has ended."""
    def prepare():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    one = subhost(PREMOUNT="./pre", START="/opt/service")
    one.script("pre", "overlay-premount\n")
    one.write("opt/service", "#!/bin/sh\nsleep 1000000 &\n", 0o755)
    one.booted(preexec_fn=prepare)
    assert one.go("sh", "-c", "exit 7", preexec_fn=prepare).returncode == 7
    one.stopped(preexec_fn=prepare)
    one.configure(PREMOUNT="false")
    assert "PREMOUNT: false failed with exit status 1" in one_line(one.boot(preexec_fn=prepare))


def test_pid_1_stands_in_the_root_with_a_plain_umask(subhost):
    one = subhost()
    one.configure(INIT=one.init_text("pwd >/said; umask >>/said; exec sleep 1000000"), STOP_TIMEOUT="0.1")
    one.booted(umask=0o077, cwd="/usr")
    assert wait_for(lambda: read(f"{one.upper}/said").count("\n") == 2) and read(f"{one.upper}/said") == "/\n0022\n"


def test_what_a_boot_makes_is_not_for_its_caller_only(subhost):
    """Whatever the caller's umask."""
    one = subhost(SHARE=["/usr:/srv/deep/er", "/etc/passwd:/srv/file"]).booted(umask=0o077)
    modes = one.sh("stat -c %a /etc/hostname /etc/network /etc/network/interfaces /run /run/lock /dev /dev/null /dev/shm; umount /srv/deep/er /srv/file;"
                   " stat -c %a /srv/deep /srv/deep/er /srv/file")
    assert modes.split() == ["644", "755", "644", "755", "1777", "755", "666", "1777", "755", "755", "644"]


def test_a_caller_with_nothing_open(subhost):
    """A caller without standard input, output and error boots as any other."""
    one = subhost()
    done = run("sh", "-c", f"exec {BOOT} {one.conf} <&- >&- 2>&-")
    assert done.returncode == 0
    assert one.is_running() and one.inside("hostname") == one.name
    one.stopped()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-"])
def test_a_caller_with_some_of_them_closed(subhost, closed):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\necho $1 >>/said\n", 0o755)
    assert run("sh", "-c", f"exec {BOOT} {one.conf} {closed}").returncode == 0
    assert one.is_running() and one.inside("hostname") == one.name
    assert run("sh", "-c", f"exec /usr/sbin/overlay-stop {one.conf} {closed}").returncode == 0
    assert read(f"{one.upper}/said") == "start\nstop\n"


def test_a_caller_whose_directory_is_gone(subhost, directory):
    one = subhost()
    os.mkdir(f"{directory}/gone")
    done = run("sh", "-c", f"cd {directory}/gone && rmdir {directory}/gone && exec {BOOT} {one.conf}")
    assert (done.returncode, done.stderr) == (0, "")


# SHARE

def test_share(subhost, directory):
    write(f"{directory}/data/file", "data")
    write(f"{directory}/single", "single")
    one = subhost(SHARE=[f"{directory}/data", f"{directory}/data:/srv/deep/er", f"{directory}/single:/etc/single", "own:rel/ative"])
    write(f"{one.base}/own/x", "own")
    one.booted()
    assert one.sh(f"cat {directory}/data/file /srv/deep/er/file /etc/single /rel/ative/x") == "datadatasingleown"
    one.sh("echo new >/srv/deep/er/new; echo changed >/etc/single")
    assert read(f"{directory}/data/new") == "new\n" and read(f"{directory}/single") == "changed\n"
    assert os.path.isdir(f"{one.upper}/srv/deep/er") and os.path.isfile(f"{one.upper}/etc/single")
    assert [line for line in mounts() if "/srv/deep" in line] == []
    one.stopped()
    assert os.listdir(f"{one.upper}/srv/deep/er") == [] and read(f"{directory}/data/file") == "data"


def test_share_on_what_is_there(subhost, directory):
    write(f"{directory}/data/file", "data")
    write(f"{directory}/passwd", "root:x:0:0::/:/bin/sh\n")
    one = subhost(SHARE=[f"{directory}/data:/opt", f"{directory}/passwd:/etc/passwd", f"{directory}/data:/run/x", f"{directory}/data:/dev/shm"])
    one.booted()
    assert one.sh("cat /opt/file /etc/passwd /run/x/file /dev/shm/file") == "dataroot:x:0:0::/:/bin/sh\ndatadata"


def test_share_of_a_fifo_a_socket_and_a_device(subhost, directory):
    os.mkfifo(f"{directory}/fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{directory}/socket")
    one = subhost(SHARE=[f"{directory}/fifo:/run/fifo", f"{directory}/socket:/run/socket", "/dev/null:/run/null"]).booted()
    assert one.sh("stat -c %F /run/fifo /run/socket /run/null").splitlines() == ["fifo", "socket", "character special file"]
    listener.close()


def test_share_of_a_link_is_of_what_it_leads_to(subhost, directory):
    write(f"{directory}/data/x", "data")
    os.symlink("data", f"{directory}/link")
    one = subhost(SHARE=f"{directory}/link:/srv/x").booted()
    assert one.sh("cat /srv/x/x") == "data"


def test_share_of_a_path_that_goes_up(subhost, directory):
    write(f"{directory}/data/x", "data")
    one = subhost(SHARE=["../data:/srv/x", "../data"]).booted()
    assert one.sh(f"cat /srv/x/x {directory}/data/x") == "datadata"


def test_share_through_a_link_inside(subhost, directory, small_root):
    """As a process inside would go."""
    write(f"{directory}/data/x", "data")
    one = subhost(SHARE=f"{directory}/data:/link/here", LOWER=small_root)
    os.makedirs(f"{one.upper}/opt/target")
    os.symlink("/opt/target", f"{one.upper}/link")
    one.booted()
    assert one.sh("cat /opt/target/here/x") == "data"


# LOG

def test_the_log(subhost):
    one = subhost(START="/opt/service", PREMOUNT="./pre", STOP_TIMEOUT="5")
    one.script("pre", "echo premount out; echo premount err >&2; overlay-premount\n")
    one.write("opt/service", "#!/bin/sh\necho service $1 out; echo service $1 err >&2\n", 0o755)
    one.booted()
    wait_for(lambda: one.said().count("\nservice start ") == 2)
    one.stopped()
    assert one.said().split("\n") == ["premount out", "premount err", "overlay-boot: /opt/service start", "service start out", "service start err", "service stop out",
                                      "service stop err", ""]
    assert os.stat(one.log).st_mode & 0o7777 == 0o640
    one.booted()
    wait_for(lambda: one.said().count("\nservice start ") == 4)


def test_a_log_elsewhere(subhost):
    one = subhost()
    one.configure(LOG="../my.log", INIT=one.init_text("echo hello; exec sleep 1000000"), STOP_TIMEOUT="0.1")
    one.booted()
    path = os.path.join(one.base, "../my.log")
    wait_for(lambda: read(path).endswith("\nhello\n"))
    assert one.row() and not os.path.exists(one.log)


def test_a_log_among_the_subhosts_own_files_is_for_root(subhost):
    one = subhost(LOG="root/my.log").booted()
    assert os.stat(f"{one.upper}/my.log").st_mode & 0o7777 == 0o640


def test_the_directory_of_the_logs_is_made_for_root_and_his_group(subhost):
    one = subhost()
    done = run("unshare", "-m", "sh", "-ec", f"mount -t tmpfs tmpfs /var/log; {BOOT} {one.conf}; stat -c %a {LOGS}; {STOP} {one.conf}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "750\n", "")


def test_what_is_printed_last_is_in_the_log(subhost):
    """PID 1 has ended before its output was taken."""
    one = subhost()
    one.configure(LOG="my.log", INIT=one.init_text("exec head -c 60000 /dev/zero"))
    for number in range(1, 6):
        one.booted()
        wait_for(one.is_gone)
        assert read(f"{one.base}/my.log").count("\0") == 60000 * number


def test_a_log_that_takes_nothing(subhost):
    one = subhost()
    one.configure(LOG="/dev/full", INIT=one.init_text("echo hello; exec sleep 1000000"), STOP_TIMEOUT="0.1")
    one.booted()
    assert one.inside("hostname") == one.name


def test_much_output_does_not_stop_the_subhost(subhost):
    one = subhost()
    one.configure(LOG="my.log", INIT=one.init_text("head -c 3000000 /dev/zero; exec sleep 1000000"), STOP_TIMEOUT="0.1")
    one.booted()
    wait_for(lambda: read(f"{one.base}/my.log").count("\0") == 3_000_000)
    assert one.is_running()


# Hooks

HOOK = 'printf "%s|" "$PWD" "$CONFIG" "$ACTION" "$NAME" "$BASE" "$LIVE" "$UPPER" "$LOWER" "$WORK" "$@" >{0}/{1}.env\n'


def test_custom_hooks(subhost):
    """What they are told, and where they run."""
    one = subhost(PREMOUNT="./pre x", POSTMOUNT="./post y", INIT="./init z")
    one.script("pre", HOOK.format(one.base, "pre") + f"readlink /proc/self/ns/mnt /proc/self/ns/net >{one.base}/ns; overlay-premount\n")
    one.script("post", HOOK.format(one.base, "post") + "overlay-postmount && echo y >$LIVE/etc/post\n")
    one.script("init", HOOK.format(one.base, "init") + "echo 'echo i >/etc/init-was'; overlay-init\n")
    one.booted(cwd="/")
    told = [one.base, one.conf, "overlay-boot", one.name, one.base, one.live, one.upper, "/", one.work]
    assert read(f"{one.base}/pre.env").split("|")[:-1] == [*told, "x", one.upper]
    assert read(f"{one.base}/post.env").split("|")[:-1] == [*told, "y", one.live, one.upper]
    assert read(f"{one.base}/init.env").split("|")[:-1] == [*told, "z"]
    assert read(f"{one.base}/ns").split() == [namespaces(one.init)["mnt"], namespaces("self")["net"]]
    assert read(f"{one.upper}/etc/post") == "y\n"
    wait_for(lambda: read(f"{one.upper}/etc/init-was") == "i\n")
    assert one.inside("hostname") == one.name


def test_hooks_by_the_path_of_their_programs(subhost):
    one = subhost(PREMOUNT=f"{PROGRAMS}/overlay-premount", POSTMOUNT=f"{PROGRAMS}/overlay-postmount", INIT=f"{PROGRAMS}/overlay-init")
    one.booted()
    assert one.sh("hostname; cat /proc/1/comm; stat -fc %T /run /dev/pts").split() == [one.name, ".reaper", "tmpfs", "devpts"]
    one.stopped()


def test_what_a_hook_mounts_lives_and_dies_with_the_subhost(subhost, small_root):
    one = subhost(LOWER=small_root, PREMOUNT="./pre", POSTMOUNT="./post")
    one.script("pre", f"mount -t tmpfs tmpfs {one.base}/data && mkdir -p {one.base}/data/up/etc {one.base}/data/work &&"
                      f" echo yes >{one.base}/data/up/etc/x\n")
    one.script("post", "overlay-postmount && mkdir -p $LIVE/mnt && mount -t tmpfs -o size=1M tmpfs $LIVE/mnt\n")
    os.makedirs(f"{one.base}/data/up")
    os.mkdir(f"{one.base}/data/work")
    one.configure(LOWER=small_root, PREMOUNT="./pre", POSTMOUNT="./post", UPPER="data/up", WORK="data/work")
    before = mounts()
    one.booted()
    assert one.sh("cat /etc/x") == "yes"
    assert "/mnt" in [line.split(" ")[2] for line in mounts(one.init)]
    assert [line for line in mounts() if one.base in line] == [line for line in before if one.base in line]
    one.stopped()
    assert os.listdir(f"{one.base}/data/up") == []


def test_a_command_for_a_value_mounts_for_the_subhost(subhost, small_root):
    """As overlay-diskfile does: UPPER on a mount that nobody else sees."""
    one = subhost(LOWER=small_root, UPPER="!./data up", WORK="!./data work")
    one.script("data", f"mountpoint -q {one.base}/mnt || mount -t tmpfs tmpfs {one.base}/mnt\n"
                       f"mkdir -p {one.base}/mnt/$1 && echo {one.base}/mnt/$1\n")
    os.mkdir(f"{one.base}/mnt")
    one.booted()
    one.sh("echo x >/etc/x")
    assert os.listdir(f"{one.base}/mnt") == []
    one.stopped()


def test_a_process_that_a_hook_leaves_ends_with_the_subhost(subhost):
    one = subhost(PREMOUNT="./pre")
    one.script("pre", f"overlay-premount; setsid sleep 1000000 & echo $! >{one.base}/pid\n")
    one.booted()
    left = int(read(f"{one.base}/pid"))
    assert is_alive(left)
    one.stopped()
    assert not is_alive(left)


def test_another_init_system(subhost):
    """As with INIT=echo exec /sbin/init: a PID 1 that is not ours."""
    one = subhost(INIT="echo exec /opt/init a b", STOP_TIMEOUT="5")
    one.write("opt/init", "#!/bin/sh\necho $$ $0 $*\ntrap 'echo ending; exit 0' TERM\nwhile :; do sleep 1000000 & wait $!; done\n", 0o755)
    one.booted()
    wait_for(lambda: one.said() == "1 /opt/init a b\n")
    one.stopped()
    assert one.said().endswith("\nending\n")


# Odd names

@pytest.mark.parametrize("name", ["a'b", 'a"b', "a\\b", "$(id)", "`id`", "a;b&c|d", "a*?[b]", "a=b", "~a", "#a", "{a,b}", "-n"[1:] + "-", "(a)<b>", "..a"])
def test_a_name_means_nothing_to_a_shell(subhost, name):
    """With services, for which PID 1 is a shell at first."""
    one = subhost(NAME=name, START="/opt/service")
    one.write("opt/service", "#!/bin/sh\nsleep 1000000 &\n", 0o755)
    one.name, one.log = name, f"/var/log/overlay-boot/{name}.log"
    if os.path.lexists(f"{STATES}/{name}"):
        pytest.skip("somebody runs a subhost of this name")
    one.booted()
    assert one.row()["config"] == one.conf
    assert wait_for(lambda: read(f"/proc/{one.init}/cmdline").split("\0")[:2] == ["/.reaper", name])
    assert one.sh("cat /proc/1/comm") == ".reaper"
    one.stopped()


@pytest.mark.parametrize("settings", [{"LIVE": "root"}, {"LIVE": "work"}, {"LIVE": "."}, {"LIVE": "root/etc"}, {"LOWER": "low:low"}, {"LOWER": "low:low/in"},
                                      {"UPPER": "low", "LOWER": "low/in"}, {"UPPER": "low/in", "LOWER": "low"}, {"WORK": "."}, {"UPPER": "."}])
def test_directories_in_odd_relations(subhost, machine, settings):
    """It boots, or says in a line what is wrong; nothing is left either way."""
    one = subhost()
    for made in ("root/etc", "low/in/etc"):
        os.makedirs(f"{one.base}/{made}")
    one.configure(**settings)
    done = one.boot()
    if done.returncode:
        assert any(variable in one_line(done) for variable in ("LIVE", "UPPER", "WORK", "LOWER", "/bin/sh")), done.stderr
    else:
        assert one.stop().returncode == 0
    machine.is_as_before()


# More than one

def test_a_second_boot_is_refused(running, fails, machine):
    machine.look()
    fails(running, running.name, "running", running.conf)
    assert running.is_running()


def test_boot_after_boot(subhost):
    one = subhost()
    for _ in range(5):
        one.booted().stopped()


def test_many_at_once(subhost):
    """Side by side, each a subhost of its own."""
    made = [subhost() for _ in range(20)]
    started = [start(BOOT, one.conf) for one in made]
    assert [(one.wait(60), one.stderr.read()) for one in started] == [(0, b"")] * 20
    assert sorted(one.inside("hostname") for one in made) == sorted(one.name for one in made)
    ended = [start("/usr/sbin/overlay-stop", one.conf) for one in made]
    assert [(one.wait(60), one.stderr.read()) for one in ended] == [(0, b"")] * 20


# --foreground

@pytest.fixture
def foreground(machine):
    """Boots in the foreground; the process."""
    made = []

    def boot(one, **how):
        made.append(start(BOOT, "--foreground", one.conf, **how))
        return made[-1]

    yield boot
    for process in made:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def notified(directory):
    """A service manager's socket; (path for NOTIFY_SOCKET, the socket)."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(f"{directory}/notify")
    listener.settimeout(20)
    yield f"{directory}/notify", listener
    listener.close()


def nothing_to_receive(listener):
    ready, _, _ = select.select([listener], [], [], 0)
    return not ready


def test_foreground_says_when_it_is_ready(subhost, foreground, notified):
    path, listener = notified
    one = subhost(PREMOUNT="./pre")
    os.mkfifo(f"{one.base}/reached")
    os.mkfifo(f"{one.base}/go")
    one.script("pre", f"echo >{one.base}/reached; read x <{one.base}/go; overlay-premount\n")
    process = foreground(one, env={"NOTIFY_SOCKET": path})
    read(f"{one.base}/reached")
    assert nothing_to_receive(listener)
    write_text(f"{one.base}/go", "\n")
    assert listener.recv(100) == b"READY=1\n"
    row = one.row()
    assert row["state"] == "running" and os.path.basename(os.readlink(f"/proc/{row['pid']}/exe")) == ".reaper"
    assert process.poll() is None
    one.stopped()
    assert process.wait(20) == 0


def test_foreground_and_an_abstract_socket(subhost, foreground):
    one = subhost()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{one.name}")
        listener.settimeout(20)
        process = foreground(one, env={"NOTIFY_SOCKET": f"@{one.name}"})
        assert listener.recv(100) == b"READY=1\n"
    one.stopped()
    assert process.wait(20) == 0


def test_no_readiness_of_a_boot_that_fails(subhost, foreground, notified):
    path, listener = notified
    process = foreground(subhost(POSTMOUNT="false"), env={"NOTIFY_SOCKET": path})
    assert process.wait(20) == 1 and b"POSTMOUNT" in process.stderr.read()
    assert nothing_to_receive(listener)


def test_foreground_gives_pid_1s_exit_status(subhost, foreground):
    one = subhost(INIT="echo exit 7")
    assert foreground(one).wait(20) == 7
    assert one.is_gone()
    one.configure(**HOLD)
    process = foreground(one)
    wait_for(one.is_running)
    kill(one.init, signal.SIGKILL)
    assert process.wait(20) == 128 + 9


def test_foreground_has_the_console_here(subhost, foreground):
    one = subhost()
    one.configure(INIT=one.init_text("echo out; echo err >&2; exit 0"))
    process = foreground(one)
    assert process.wait(20) == 0
    assert sorted((process.stdout.read() + process.stderr.read()).split()) == [b"err", b"out"]
    assert one.said() == ""


def test_foreground_tells_of_services_that_fail(subhost, foreground):
    one = subhost(START="/opt/fails /opt/too")
    one.write("opt/fails", "#!/bin/sh\necho $1\nexit 7\n", 0o755)
    one.write("opt/too", "#!/bin/sh\nexit 8\n", 0o755)
    process = foreground(one)
    wait_for(lambda: one.is_running() and read(f"/proc/{one.init}/comm") == ".reaper\n")
    one.stopped()
    out, err = process.communicate(timeout=20)
    assert err.decode() == "".join(f"overlay-boot: cannot start /opt/{word}: exit status {status}\n" for word, status in (("fails", 7), ("too", 8)))
    assert out.startswith(b"overlay-boot: /opt/fails start\nstart\ncannot start /opt/fails: exit status 7\n")


def test_foreground_prints_what_hooks_and_stops_print(subhost, foreground):
    """As a service manager's journal is to have it; it is in LOG as well."""
    one = subhost(START="/opt/service", PREMOUNT="./pre")
    one.script("pre", "echo premount out; echo premount err >&2; overlay-premount\n")
    one.write("opt/service", "#!/bin/sh\necho service $1\n", 0o755)
    for _ in range(2):
        process = foreground(one)
        wait_for(lambda: one.is_running() and read(f"/proc/{one.init}/comm") == ".reaper\n")
        one.stopped()
        out, err = process.communicate(timeout=20)
        assert (out.decode(), err) == ("premount out\npremount err\noverlay-boot: /opt/service start\nservice start\nservice stop\n", b"")
    assert one.said() == "premount out\npremount err\nservice stop\n" * 2
    one.configure(PREMOUNT="./pre", POSTMOUNT="false")
    process = foreground(one)
    out, err = process.communicate(timeout=20)
    assert out == b"premount out\npremount err\n" and err.count(b"\n") == 1 and f"LOG={one.log}".encode() in err


def test_foreground_shows_the_end_of_a_hook_that_says_much(subhost, foreground):
    """Whoever reads none of it keeps no boot waiting."""
    one = subhost(PREMOUNT="./pre")
    one.script("pre", "yes | head -c 1000000; echo last; overlay-premount\n")
    process = foreground(one)
    wait_for(one.is_running)
    one.stopped()
    out, _ = process.communicate(timeout=20)
    assert out.endswith(b"y\nlast\n") and 10000 < len(out) <= 1 << 15
    assert len(one.said()) == 1000005


def test_foreground_ends_when_the_subhost_does(subhost, foreground, machine):
    one = subhost()
    process = foreground(one)
    wait_for(one.is_running)
    one.go("sh", "-c", "echo >/run/dummy_service")
    assert process.wait(20) == 0
    machine.is_as_before()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_foreground_ends_in_order_on_a_signal(subhost, foreground, machine, number):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\n[ $1 = start ] || exit\n(trap 'echo told; exit 0' TERM; while :; do sleep 0.05; done) &\n", 0o755)
    process = foreground(one)
    wait_for(lambda: one.is_running() and one.row()["processes"] > 1)
    process.send_signal(number)
    assert process.wait(20) == 0
    assert b"told\n" in process.stdout.read()
    machine.is_as_before()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_foreground_ends_on_a_signal_that_comes_while_services_start(subhost, foreground, machine, number):
    """PID 1 is a shell then, which the kernel spares such a signal."""
    one = subhost(START="/opt/slow /opt/service")
    one.write("opt/slow", "#!/bin/sh\n[ $1 = start ] || exit\necho slow\nmkfifo /run/go\nread line </run/go\n", 0o755)
    one.write("opt/service", "#!/bin/sh\n[ $1 = start ] || exit\nmkfifo /run/ready\n"
              "(trap 'echo told >&2' TERM; echo >/run/ready; sleep 1000000 & wait; kill $!) &\nread line </run/ready\n", 0o755)
    process = foreground(one)
    assert [process.stdout.readline() for _ in range(2)] == [b"overlay-boot: /opt/slow start\n", b"slow\n"]
    process.send_signal(number)
    wait_for(lambda: not int(read(f"/proc/{process.pid}/status").partition("SigPnd:")[2].split()[0], 16))
    assert one.go("sh", "-c", "echo >/run/go").returncode in (0, 137)
    assert process.wait(20) == 0
    assert process.stdout.read().count(b"told\n") == 1
    machine.is_as_before()


@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02])
def test_foreground_clears_up_whatever_signals_come(subhost, foreground, machine, delay):
    one = subhost()
    process = foreground(one)
    wait_for(one.is_running)
    process.send_signal(signal.SIGTERM)
    time.sleep(delay)
    while process.poll() is None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            process.send_signal(number)
    assert process.returncode == 0
    machine.is_as_before()


def test_a_keeper_that_does_not_end_is_not_waited_for_for_ever(subhost):
    one = subhost().booted()
    keeper, init = one.keeper, one.init
    kill(keeper, signal.SIGSTOP)
    kill(init, signal.SIGKILL)
    wait_for(lambda: read(f"/proc/{init}/stat").rpartition(")")[2].split()[0] == "Z")
    line = f"overlay-boot: process {keeper}, which is to clear up after {one.name}, is stopped: SIGCONT lets it go on"
    assert one_line(one.boot()) == line
    waiting = start(BOOT, one.conf)
    wait_for(lambda: int(re.search(r"SigCgt:\s*(\w+)", read(f"/proc/{waiting.pid}/status"))[1], 16) >> signal.SIGTERM - 1 & 1)
    waiting.terminate()
    assert waiting.wait(10) == 1 and b"interrupted" in waiting.stderr.read()
    kill(keeper, signal.SIGCONT)
    wait_for(one.is_gone)


def test_output_that_nobody_reads_any_more_does_not_keep_the_end_from_being_cleared(subhost, machine):
    """The last of it, which is still to be read when PID 1 has ended, is written with no reader: SIGPIPE."""
    machine.look()
    one = subhost()
    one.configure(INIT=one.init_text("mkfifo /run/go; read line </run/go; head -c 60000 /dev/zero"))
    booted = start(BOOT, "--foreground", one.conf)
    wait_for(lambda: os.path.exists(f"/proc/{one.init}/root/run/go") if one.is_running() else False)
    init = one.init
    booted.stdout.close()
    booted.send_signal(signal.SIGSTOP)          # which is the keeper
    assert one.go("sh", "-c", "echo >/run/go").returncode in (0, 137)
    wait_for(lambda: read(f"/proc/{init}/stat").rpartition(")")[2].split()[0] == "Z")
    booted.send_signal(signal.SIGCONT)
    booted.wait(20)
    machine.is_as_before()


def test_boots_and_ends_are_marked_in_the_log(subhost):
    one = subhost().booted()
    one.stopped()
    one.booted()
    one.go("sh", "-c", "echo >/run/dummy_service")
    wait_for(one.is_gone)
    words = [line.split(" ", 2) for line in read(one.log).splitlines()]
    assert [text for _, _, text in words] == [f"overlay-boot: {what}" for what in (
        f"boot from {one.conf}", "stopped", f"boot from {one.conf}", "ended")]
    assert all(time.strptime(f"{day} {hour}", "%Y-%m-%d %H:%M:%S") for day, hour, _ in words)


def test_foreground_survives_a_hangup(subhost, foreground):
    one = subhost()
    process = foreground(one)
    wait_for(one.is_running)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH):
        process.send_signal(number)
    assert one.inside("hostname") == one.name and process.poll() is None
    one.stopped()
    assert process.wait(20) == 0


def test_foreground_whose_reader_goes_away(subhost, foreground):
    """What is printed then is lost, and nothing else."""
    one = subhost()
    one.configure(INIT=one.init_text("echo first; read x </run/go; echo second; echo third; exec /.reaper x /run/dummy_service"),
                  POSTMOUNT="./post")
    one.script("post", "overlay-postmount && mkfifo $LIVE/run/go\n")
    process = foreground(one)
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    process.stderr.close()
    one.sh("echo >/run/go")
    init = one.init
    wait_for(lambda: read(f"/proc/{init}/comm") == ".reaper\n")
    assert process.poll() is None and one.inside("hostname") == one.name
    one.stopped()
    assert process.wait(20) == 0
    process.stdout = process.stderr = None


def test_foreground_whose_reader_does_not_read(subhost, foreground):
    """The subhost waits; it can be stopped all the same."""
    one = subhost()
    one.configure(INIT=one.init_text("yes & exec /.reaper x"), STOP_TIMEOUT="1")
    process = foreground(one)
    wait_for(one.is_running)
    wait_for(lambda: "yes" in descendants(one.init).values())
    assert one.stop(seconds=30).returncode == 0
    wait_for(lambda: process.poll() is not None)


def test_foreground_is_the_keeper_itself(subhost, foreground):
    """No process more than in the background: a service manager's main process is the subhost's."""
    one = subhost()
    process = foreground(one)
    wait_for(one.is_running)
    assert one.keeper == process.pid and sorted(descendants(process.pid)) == [one.init]
    one.stopped()


def test_foreground_on_a_terminal(subhost, terminal):
    one = subhost()
    one.configure(INIT=one.init_text("echo hello; exec /.reaper x"))
    shown = terminal(BOOT, "--foreground", one.conf)
    shown.expect("hello")
    assert shown.ended() == 0


def test_foreground_leaves_the_terminal_outside(subhost, terminal):
    """PID 1 has a session of its own: /dev/tty is not the caller's, to type into."""
    one = subhost()
    shown = terminal(BOOT, "--foreground", one.conf)
    wait_for(one.is_running)
    session, device = read(f"/proc/{one.init}/stat").rpartition(") ")[2].split()[3:5]
    assert (int(session), device) == (one.init, "0")
    one.stopped()
    assert shown.ended() == 0


@pytest.mark.parametrize("how", ["PREMOUNT", "BASE", "POSTMOUNT", "INIT"])
def test_foreground_fails_like_any_boot(subhost, fails, how):
    one = subhost(**{how: "/nowhere/x"})
    fails([BOOT, "--foreground", one.conf], how)


def test_foreground_of_a_root_without_a_shell(subhost, fails, own_root):
    os.unlink(f"{own_root}/usr/bin/sh")
    fails([BOOT, "--foreground", subhost(LOWER=own_root, START="cron").conf], "/bin/sh")


# Signals to a boot under way

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_boot_that_is_interrupted_leaves_nothing(subhost, machine, number):
    one = subhost(PREMOUNT="./pre")
    os.mkfifo(f"{one.base}/reached")
    one.script("pre", f"echo >{one.base}/reached; exec sleep 1000000\n")
    process = start(BOOT, one.conf)
    read(f"{one.base}/reached")
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0 and err.count(b"\n") == 1 and b"Traceback" not in err
    machine.is_as_before()


# Misuse

@pytest.mark.parametrize("arguments", [[], ["--foreground"], ["--nonsense", "x"], ["a", "b"], ["--foreground", "--check", "x"]])
def test_called_wrongly(arguments):
    done = run(BOOT, *arguments)
    assert done.returncode == 2 and "usage: overlay-boot" in done.stderr and done.stdout == ""

