"""A subhost whose root is hostile: whatever stands in UPPER and LIVE, nothing outside is created, written or executed."""
import errno
import os
import shutil
import socket
import stat
import subprocess

import pytest
from conftest import cannot_run
from machine import FOLLOW, GO, PROGRAMS, UNFENCED, kill, mounts, one_line, read, run, start, wait_for, write

# Every path that a boot writes, mounts on or reads.
PATHS = ["etc", "etc/network", "etc/network/interfaces", "etc/hostname", "etc/adjtime", ".reaper", "dev", "sys", "proc", "run", "srv", "srv/share",
         "srv/file"]


@pytest.fixture
def outside(directory):
    """A directory of the host's, which has to be after the test what it was before."""
    place = f"{directory}/outside"
    os.makedirs(f"{place}/dir/sub")
    write(f"{place}/file", "overlay-boot reaper, says the canary\n")
    write(f"{place}/dir/file", "canary")
    write(f"{place}/hostname", "leaked\n")
    before = contents(place)
    yield place
    assert contents(place) == before, "something outside was touched"


def contents(place):
    """All that can be seen of a tree without leaving a trace in it."""
    found = {}
    for directory, folders, files in os.walk(place):
        for name in (".", *folders, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            text = read(path) if stat.S_ISREG(status.st_mode) else ""
            found[path] = (status.st_mode, status.st_uid, status.st_nlink, status.st_size, status.st_mtime_ns, text)
    return found


def up(path):
    """A relative path from a place in the root file system to the host's root, and further."""
    return "../" * 30 + path.lstrip("/")


PLANTS = {
    "link to a file": lambda path, outside: os.symlink(f"{outside}/file", path),
    "link to a directory": lambda path, outside: os.symlink(f"{outside}/dir", path),
    "link up to a file": lambda path, outside: os.symlink(up(f"{outside}/file"), path),
    "link up to a directory": lambda path, outside: os.symlink(up(f"{outside}/dir"), path),
    "link to what is to be made": lambda path, outside: os.symlink(f"{outside}/new", path),
    "link up to what is to be made": lambda path, outside: os.symlink(up(f"{outside}/new"), path),
    "link to itself": lambda path, outside: os.symlink(os.path.basename(path), path),
    "link through proc": lambda path, outside: os.symlink(f"/proc/self/root{outside}/dir", path),
    "fifo": lambda path, outside: os.mkfifo(path),
    "null": lambda path, outside: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "zero": lambda path, outside: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "whiteout": lambda path, outside: os.mknod(path, stat.S_IFCHR, os.makedev(0, 0)),
    "socket": lambda path, outside: bind(path),
    "file": lambda path, outside: write(path, "x"),
    "directory": lambda path, outside: os.mkdir(path),
}


def bind(path):
    """A socket's path may have 107 bytes only."""
    here = os.getcwd()
    os.chdir(os.path.dirname(path))
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.basename(path))
    finally:
        os.chdir(here)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


@pytest.mark.parametrize("root", ["overlay", "bind", "as it is"])
@pytest.mark.parametrize("plant", PLANTS)
def test_planted(subhost, small_root, directory, outside, machine, plant, root):
    """At every path in turn: the boot works, or says in a line what is wrong; and quickly."""
    share = [f"{directory}/shared:/srv/share/deep", f"{directory}/shared/file:/srv/file"]
    write(f"{directory}/shared/file", "shared")
    for path in PATHS:
        one = subhost(SHARE=share, STOP_TIMEOUT="2")
        upper = one.upper
        if root == "overlay":
            one.configure(SHARE=share, STOP_TIMEOUT="2", LOWER=small_root)
        else:
            upper = shutil.copytree(small_root, f"{one.base}/own", symlinks=True)
            one.configure(SHARE=share, STOP_TIMEOUT="2", UPPER="own", LOWER="own", **({"LIVE": "own"} if root == "as it is" else {}))
        os.makedirs(f"{upper}/etc/network", exist_ok=True)
        os.makedirs(f"{upper}/srv", exist_ok=True)
        remove(f"{upper}/{path}")
        PLANTS[plant](f"{upper}/{path}", outside)
        done = one.boot(seconds=20)
        if done.returncode:
            one_line(done)
            assert os.path.lexists(f"{upper}/{path}")
        else:
            # what is mounted on is never found through a link, wherever it leads
            assert "link" not in plant or path not in ("dev", "sys", "proc", "run")
            assert "Traceback" not in done.stderr
            one.go("true", seconds=20)
            assert one.stop(seconds=20).returncode == 0
        machine.is_as_before()
        shutil.rmtree(one.base)


def test_a_boot_with_links_at_all_paths_that_need_not_be_right(subhost, small_root, outside):
    """It works, and what it needs is made inside."""
    one = subhost(LOWER=small_root)
    for path in ("etc/hostname", "etc/network/interfaces", "etc/adjtime"):
        os.makedirs(os.path.dirname(f"{one.upper}/{path}"), exist_ok=True)
        os.symlink(f"{outside}/new", f"{one.upper}/{path}")
    one.booted()
    assert one.sh("hostname") == one.name


def test_the_host_name_is_not_read_outside(subhost, small_root, outside):
    for target in (f"{outside}/hostname", up(f"{outside}/hostname"), f"/proc/self/root{outside}/hostname"):
        one = subhost(LOWER=small_root)
        os.mkdir(f"{one.upper}/etc")
        os.symlink(target, f"{one.upper}/etc/hostname")
        assert one.booted().sh("hostname") == one.name
        one.stopped()


def test_users_are_not_read_outside(subhost, small_root, outside, directory):
    write(f"{directory}/passwd", "evil:x:0:0::/:/bin/sh\n")
    for target in (f"{directory}/passwd", up(f"{directory}/passwd")):
        one = subhost(LOWER=small_root)
        os.mkdir(f"{one.upper}/etc")
        os.symlink(target, f"{one.upper}/etc/passwd")
        one.booted()
        assert "evil" in one_line(run(GO, "-u", "evil", one.name, "true"))
        assert one.sh("echo $HOME") == "/root"
        one.stopped()


@pytest.mark.parametrize("plant", ["fifo", "null", "zero", "directory", "link to itself", "socket"])
def test_users_that_are_no_file(subhost, small_root, outside, plant):
    one = subhost(LOWER=small_root)
    os.mkdir(f"{one.upper}/etc")
    for path in ("passwd", "group"):
        PLANTS[plant](f"{one.upper}/etc/{path}", outside)
    one.booted()
    assert one.go("true", seconds=20).returncode == 0
    one_line(run(GO, "-u", "root", one.name, "true", seconds=20))


@pytest.mark.parametrize("has_nameless", [True, False])
def test_a_file_that_is_written_beneath(directory, monkeypatch, has_nameless):
    """Whether the file system has files without a name or not, nothing of one that could not be written whole is left."""
    from overlay_boot import beneath, files
    opened = files.opened

    def refusing(path, flags=os.O_RDONLY, *rest, **how):
        if flags & os.O_TMPFILE == os.O_TMPFILE and not has_nameless:
            raise OSError(errno.EOPNOTSUPP, "")
        return opened(path, flags, *rest, **how)

    def failing(*_):
        assert os.listdir(directory) == ([] if has_nameless else [".made.overlay-boot"])
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(files, "opened", refusing)
    with opened(directory, files.READ_DIRECTORY) as at:
        with monkeypatch.context() as full:
            full.setattr(files, "write_all", failing)
            with pytest.raises(OSError):
                beneath.write_new(at, "made", "text", 0o644)
        assert os.listdir(directory) == []
        beneath.write_new(at, "made", "text", 0o640, sync=True)
        assert os.listdir(directory) == ["made"] and read(f"{directory}/made") == "text"
        assert stat.S_IMODE(os.stat(f"{directory}/made").st_mode) == 0o640
        with pytest.raises(FileExistsError):
            beneath.write_new(at, "made", "other", 0o644)
        assert os.listdir(directory) == ["made"] and read(f"{directory}/made") == "text"


def test_a_reaper_that_is_a_hard_link(subhost, small_root, directory):
    """An old one is replaced, not written to."""
    one = subhost(LOWER=small_root)
    canary = write(f"{directory}/canary", "overlay-boot reaper of old\n", 0o755)
    os.link(canary, f"{one.upper}/.reaper")
    one.booted()
    assert read(canary) == "overlay-boot reaper of old\n" and read(f"{one.upper}/.reaper") == read(f"{PROGRAMS}/reaper")


@pytest.mark.parametrize("log, upper", [("root/var/log/boot.log", "root"), ("./root/var//log/boot.log", "root"),
                                        ("root/var/log/boot.log", "root/"), ("link/var/log/boot.log", "./root/.")])
def test_a_log_in_the_subhosts_own_files(subhost, outside, log, upper):
    """LOG may be in UPPER, however that is written; where the subhost then has a link, nothing is written by it."""
    one = subhost(LOG=log, UPPER=upper, START="/opt/service")
    os.symlink("root", f"{one.base}/link")
    os.makedirs(f"{one.upper}/var")
    os.symlink(f"{outside}/dir", f"{one.upper}/var/log")
    one.write("opt/service", "#!/bin/sh\necho spoilt\nsleep 1000000 &\n", 0o755)
    done = one.boot()
    if done.returncode:
        assert "LOG=" in one_line(done)


def test_a_log_that_is_no_file(subhost):
    """What the subhost has in its place is not even opened."""
    one = subhost(LOG="root/log")
    os.mkfifo(f"{one.upper}/log")
    assert f"LOG={one.upper}/log: not a regular file" in one_line(one.boot())


@pytest.mark.parametrize("link, to", [("followed", "dir"), ("followed/{store}", "dir"), ("followed/{store}/.status", "file")])
def test_what_the_host_had_in_the_subhosts_own_files(subhost, outside, link, to):
    """BASE may be in UPPER: what is kept there for overlay-follow is written by no link of the subhost's."""
    one = subhost()
    one.configure(BASE="root/base", UPPER=one.upper, WORK=f"{one.base}/work", LIVE=f"{one.base}/live", START="none")
    place = f"{one.upper}/base/{link.format(store=one.upper.replace('/', '%2F'))}"
    os.makedirs(os.path.dirname(place))
    os.symlink(f"{outside}/{to}", place)
    one.booted()
    assert os.path.isfile(f"{one.upper}/base/followed/{one.upper.replace('/', '%2F')}/status") is (to == "file")
    run(FOLLOW, "--view", one.conf)


# Programs of its own

def test_no_program_of_the_subhosts_is_executed_outside(subhost, outside):
    """Whatever a boot, an enter or a stop might run."""
    one = subhost(START="none")
    for program in ("bin/sh", "usr/bin/sh", "usr/bin/dash", "usr/bin/bash", "usr/bin/mount", "usr/bin/umount", "usr/sbin/ip", "usr/bin/ip",
                    "usr/sbin/ifup", "usr/bin/python3", "usr/bin/env", "usr/sbin/service", "usr/bin/uname", "usr/bin/file", "usr/bin/setsid",
                    "usr/libexec/overlay-boot/keeper", "usr/libexec/overlay-boot/reaper", "usr/libexec/overlay-boot/overlay-premount"):
        if program != "bin/sh":
            one.write(program, f"#!/usr/bin/perl\nopen F, '>>', '{outside}/executed'; print F \"$0 @ARGV\\n\"; exec '/bin/true'", 0o755)
    one.booted()
    one.go("true")
    one.go(input="true")
    one.stop()


PRELOAD = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    int fd = open("%s", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0) { write(fd, "loaded\\n", 7); close(fd); }
}
"""


def test_no_library_of_the_subhosts_is_loaded_outside(subhost, directory):
    """etc/ld.so.preload is obeyed inside, and nowhere else."""
    if not shutil.which("cc"):
        cannot_run("there is no C compiler")
    one = subhost(START="/opt/service", PREMOUNT="./pre", POSTMOUNT="./post", INIT="./init")
    write(f"{directory}/preload.c", PRELOAD % f"{directory}/loaded")
    made = run("cc", "-shared", "-fPIC", "-o", f"{one.upper}/preload.so", f"{directory}/preload.c")
    assert made.returncode == 0, made.stderr
    one.write("etc/ld.so.preload", "/preload.so\n")
    one.write("opt/service", "#!/bin/sh\nsleep 1000000 &\n", 0o755)
    for hook in ("pre", "post", "init"):
        one.script(hook, {"pre": "overlay-premount", "post": "overlay-postmount", "init": "overlay-init"}[hook] + " \"$@\"\n")
    one.booted()
    one.sh("true")
    one.go(input="true")
    one.stopped()
    assert not os.path.exists(f"{directory}/loaded")
    assert read(f"{one.upper}{directory}/loaded").startswith("loaded\n")


def test_a_library_that_is_missing_is_not_missed_outside(subhost):
    """ld.so complains on standard error of every process that reads the file."""
    one = subhost(START="none")
    one.write("etc/ld.so.preload", "/nowhere/preload.so\n")
    one.booted()
    assert "cannot be preloaded" in one.go("true").stderr
    one.stopped()


# From inside

@pytest.fixture
def confined(subhost, small_root, directory):
    """A subhost of a small root, and a file of the host's that it must not see: (subhost, path)."""
    canary = write(f"{directory}/canary/file", "the host's\n")
    one = subhost(LOWER=small_root, **UNFENCED).booted()
    return one, canary


LOOK = """
for place in /proc/[0-9]*/root /proc/[0-9]*/cwd /proc/[0-9]*/fd/* /proc/self/fd/* /proc/1/task/1/root /proc/1/task/1/fd/*; do
    for way in "" /.. /../.. /../../../../../../../../..; do
        if test -e "$place$way{path}"; then echo "seen by $place$way"; fi
    done
done 2>/dev/null
echo looked
"""


def test_no_way_out_through_proc(confined):
    one, canary = confined
    assert one.sh(LOOK.format(path=canary)) == "looked"
    assert one.sh("cd /proc/1/root && ls -A") == one.sh("ls -A /")
    assert one.sh("stat -c %d:%i /proc/1/root/ / /proc/1/cwd/").split()[0:1] * 3 == one.sh("stat -c %d:%i /proc/1/root/ / /proc/1/cwd/").split()


def test_no_way_out_through_who_enters(confined, directory):
    """What overlay-go has open while a command runs, with files of the host's as its own standard input and output."""
    one, canary = confined
    with open(canary, "rb") as source, open(f"{directory}/out", "wb") as sink:
        process = start(GO, one.name, "sleep", "1000000", stdin=source, stdout=sink, stderr=sink, cwd=f"{directory}/canary")
    wait_for(lambda: "sleep" in one.sh("cat /proc/[0-9]*/comm"))
    assert one.sh(LOOK.format(path=canary)) == "looked"
    assert one.sh(LOOK.format(path="/file")) == "looked"
    process.terminate()
    process.wait()


@pytest.mark.parametrize("arguments", [["-m"], ["-m", "-r", "-w"], ["-m", "-u", "-i", "-n", "-p", "-C", "-T"], ["--mount=/proc/1/ns/mnt"],
                                       ["-u", "--root=/proc/1/root"], ["-u", "--wd=/proc/1/cwd"]])
def test_no_way_out_through_the_namespaces_of_pid_1(confined, arguments):
    one, canary = confined
    assert one.inside("nsenter", "-t", "1", *arguments, "ls", "-A", "/") == one.sh("ls -A /")
    assert one.go("nsenter", "-t", "1", *arguments, "cat", canary).returncode != 0


CHROOT = """
import os, sys
os.makedirs("/jail", exist_ok=True)
here = os.open("/", os.O_RDONLY)
os.chroot("/jail")
os.fchdir(here)
for _ in range(100):
    os.chdir("..")
os.chroot(".")
print(os.path.exists(sys.argv[1]), os.path.exists("/jail"))
"""


def test_no_way_out_by_chroot(subhost, directory):
    """The old escape leads to the root of the mount namespace, which is the subhost's."""
    os.mkdir(f"{directory}/mnt")
    run("mount", "-t", "tmpfs", "tmpfs", f"{directory}/mnt")
    try:
        canary = write(f"{directory}/mnt/canary", "the host's\n")
        one = subhost().booted()
        assert one.inside("/usr/bin/python3", "-c", CHROOT, canary) == "False True"
        one.stopped()
    finally:
        run("umount", f"{directory}/mnt")


def test_no_way_out_by_unmounting(confined):
    """Beneath its root there is nothing: the host's is not only covered."""
    one, canary = confined
    one.inside("nsenter", "-t", "1", "-m", "ls", "/")
    assert len([line for line in mounts(one.init) if line.split(" ")[2] == "/"]) == 1
    one.go("nsenter", "-t", "1", "-m", "sh", "-c", f"umount -l /proc; umount -l /; ls -A /; cat {canary}; cat /../{canary}")
    kill(one.init, 9)
    wait_for(one.is_gone)
    assert read(canary) == "the host's\n"


def test_mounts_that_are_made_inside_stay_inside(subhost, small_root, directory):
    write(f"{directory}/shared/x", "x")
    one = subhost(LOWER=small_root, SHARE=f"{directory}/shared:/srv/shared", **UNFENCED).booted()
    one.sh("mkdir /srv/shared/mnt && mount -t tmpfs tmpfs /srv/shared/mnt && touch /srv/shared/mnt/inside")
    assert os.listdir(f"{directory}/shared/mnt") == [] and not any(f"{directory}/shared/mnt" in line for line in mounts())
    run("mount", "-t", "tmpfs", "tmpfs", f"{directory}/shared/mnt")
    try:
        assert one.sh("ls /srv/shared/mnt") == "inside"
    finally:
        run("umount", f"{directory}/shared/mnt")


def test_the_hosts_processes_are_not_there(running):
    found = running.sh("ls -d /proc/[0-9]*; kill -9 -1 || :").split()
    assert len(found) <= 3
    assert running.is_running() and os.getppid() > 0


def test_the_hosts_name_cannot_be_changed(subhost):
    running = subhost(**UNFENCED).booted()
    before = os.uname().nodename
    running.inside("hostname", "spoilt")
    assert running.inside("hostname") == "spoilt" and os.uname().nodename == before


def test_a_terminal_multiplexer_that_is_another_device(subhost, terminal):
    """overlay-go opens what stands at /dev/pts/ptmx only if it is what it should be."""
    running = subhost(**UNFENCED).booted()
    running.sh("umount /dev/pts; rm -rf /dev/pts; mkdir /dev/pts; mknod /dev/pts/ptmx c 1 5")
    shown = terminal(GO, running.name, "true")
    assert shown.ended() == 1 and b"ptmx" in shown.said


def test_a_terminal_multiplexer_that_is_a_link(subhost, terminal, directory):
    running = subhost(**UNFENCED).booted()
    running.sh("umount /dev/pts; rm -rf /dev/pts; mkdir /dev/pts; ln -s /dev/ptmx /dev/pts/ptmx")
    shown = terminal(GO, running.name, "true")
    assert shown.ended() == 1 and shown.said.count(b"\n") == 1


def test_output_that_never_ends(subhost):
    """Neither the boot nor the host's memory is at its mercy."""
    one = subhost(LOG="/dev/null")
    one.configure(LOG="/dev/null", INIT=one.init_text("exec yes"), STOP_TIMEOUT="0.1")
    one.booted(seconds=20)
    keeper = one.keeper
    resident = int(read(f"/proc/{keeper}/statm").split()[1])
    assert one.go("true").returncode == 0 and resident < 256
    assert one.stop(seconds=20).returncode == 0


WRITE_TO_PROGRAM = """
import errno, glob, os, signal, time
def waiting():
    for path in glob.glob("/proc/[0-9]*/exe"):
        try:
            if os.readlink(path).endswith("/execute"):
                return path
        except OSError:
            pass
while not waiting():
    time.sleep(0.01)
program = os.open(waiting(), os.O_RDONLY)
os.kill(int(waiting().split("/")[2]), signal.SIGKILL)
number = errno.ETXTBSY
while number == errno.ETXTBSY:
    try:
        number = os.open(f"/proc/self/fd/{program}", os.O_WRONLY)
    except OSError as error:
        number = error.errno
print(number)
"""


@pytest.mark.parametrize("fences", [{}, UNFENCED], ids=["fenced", "unfenced"])
def test_no_program_of_the_hosts_is_within_reach(subhost, fences):
    """A script with /proc/self/exe for its interpreter must not run, and so lay open, overlay-go's own: CVE-2019-5736."""
    one = subhost(**fences).booted()
    one.write("opt/evil", "#!/proc/self/exe\nimport os\nprint(os.stat('/proc/self/exe').st_dev)\n", 0o755)
    done = one.go("/opt/evil")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "execute: to be executed by overlay-boot\n")
    # While it reads its standard input, what the kernel executes for it can be opened, but by nobody be written to.
    waiting = start(GO, one.name, "/opt/evil", stdin=subprocess.PIPE)
    assert one.inside("/usr/bin/python3", "-c", WRITE_TO_PROGRAM) == f"{errno.EROFS}"
    waiting.wait(20)




# Control groups one in the other, with a process in the last one.
DEEP = """if True:
    import os, sys
    os.makedirs("/mnt/groups")
    os.system("mount -t cgroup2 cgroup2 /mnt/groups")
    os.chdir("/mnt/groups")
    for depth in range(2000):
        os.mkdir("deep")
        os.chdir("deep")
    for process in sys.argv[1:]:
        with open("cgroup.procs", "w") as file:
            file.write(process)
    print("made", flush=True)
    os.execvp("sleep", ["sleep", "1000000"])"""


@pytest.mark.parametrize("processes", [["0"], ["0", "1"]], ids=["", "PID 1"])
def test_control_groups_deeper_than_there_are_descriptors(subhost, machine, processes):
    """Nor can the kernel tell the path of those."""
    one = subhost(**UNFENCED).booted()
    holder = start(GO, one.name, "/usr/bin/python3", "-IS", "-c", DEEP, *processes)
    assert holder.stdout.readline() == b"made\n"
    assert one.row()["processes"] == 2 and one.row()["state"] == "running"
    assert one.inside("echo", "there") == "there"
    one.stopped()
    holder.communicate()
    machine.is_as_before()
