"""Roots that are no Debian: empty, of one program, read-only, of busybox, of another suite, of another architecture.

What they are made of mmdebstrap(1) fetches and unpacks, and nothing of it is installed.  For another architecture the
kernel is told of an emulator, by binfmt_misc and under a name of this run, and no longer than the test lasts.
"""
import glob
import os
import shutil
import signal
import subprocess

import pytest
from conftest import cannot_run
from machine import GO, PREFIX, PROGRAMS, UNFENCED, is_alive, listed, one_line, read, run, start, wait_for, write

SUITE = "bookworm"
OTHER_SUITE = "trixie" if f"VERSION_CODENAME={SUITE}\n" in read("/etc/os-release") else SUITE
MADE = {".reaper", "dev", "etc", "proc", "run", "sys"}
# The other architecture: its name in Debian, in uname(1), and the beginning of its ELF files, elf(5), for binfmt_misc.
FOREIGN = {"x86_64": ("arm64", "aarch64", 183), "aarch64": ("amd64", "x86_64", 62)}
PROGRAM = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    printf("%d %s\n", argc, argv[argc - 1]);
    fflush(stdout);
    if (argc > 2)
        pause();
    return argc > 1 ? atoi(argv[1]) : 0;
}
"""
APPLETS = "sh ash cat echo hostname id kill ls mkdir mkfifo mount ps setsid sleep touch true tty uname wc".split()
SERVICE = """\
#!/bin/sh
echo "$1" >>/did
case $1 in
start) sleep 1000 & echo $! >/run/pid ;;
stop) kill $(cat /run/pid) ;;
esac
"""


def needs(program):
    return shutil.which(program, path="/usr/sbin:/usr/bin") or cannot_run(f"no {program} here")


def in_three_ways(test):
    return pytest.mark.parametrize("way", ["laid over", "bound", "as it is"])(test)


@pytest.fixture
def over(subhost, directory):
    """Makes a subhost of a root file system in one of the three ways: over(way, root)."""
    def make(way, root, **settings):
        where = {"laid over": {"LOWER": root}, "bound": {"LOWER": root, "UPPER": root},
                 "as it is": {"LOWER": root, "UPPER": root, "LIVE": root}}[way]
        one = subhost(**where, **settings)
        one.upper = where.get("UPPER", one.upper)
        return one
    return make


@pytest.fixture
def empty(directory):
    os.mkdir(f"{directory}/empty")
    return f"{directory}/empty"


@pytest.fixture(scope="session")
def program(run_directory):
    """A static program: it prints how many arguments it has and the last, waits if there are two, exits with the first."""
    path = f"{run_directory}/program"
    ended = run(needs("gcc"), "-static", "-o", path, "-xc", "-", input=PROGRAM)
    assert ended.returncode == 0, ended.stderr
    return path


# Nothing

@in_three_ways
def test_nothing_at_all(over, empty, machine, terminal, way):
    """It boots, is listed, has nothing that could be entered, and is stopped.  What is made in it is what the manual says."""
    one = over(way, empty).booted()
    row = one.row()
    assert (row["state"], row["processes"]) == ("running", 1)
    assert one_line(one.go()) == "overlay-go: cannot execute a shell in the subhost: it has neither bash nor sh"
    for words in ([], ["ls"], ["/prog", "x"]):
        done = one.go(*words)
        assert done.returncode == 127 and one_line(done) and done.stdout == ""
    shown = terminal(GO, one.name)
    assert shown.ended() == 127 and shown.said.count(b"\n") == 1
    assert "has no user web" in one_line(one.go(user="web"))
    one.stopped()
    machine.is_as_before()
    written = {"etc"} if way == "laid over" else MADE - {"etc"} if way == "as it is" else MADE
    assert written <= set(os.listdir(one.upper)) <= MADE
    assert way != "laid over" or os.listdir(empty) == []


def test_nothing_is_booted_again(over, empty):
    """Over what the first boot has made."""
    one = over("bound", empty)
    for _ in range(2):
        one.booted().stopped()


def test_services_take_a_shell(over, empty, fails):
    for settings in ({"START": "ssh"}, {"START": None}, {"INIT": "echo exec /prog"}):
        assert fails(over("laid over", empty, **settings), "/bin/sh").endswith("cannot execute /bin/sh: No such file or directory")


def test_a_life_as_a_shell_takes_one(over, empty, fails):
    fails(["overlay-boot", "--shell", over("laid over", empty).conf], "there is no shell in the subhost")


def test_what_is_shared_with_nothing(over, empty, directory, program):
    """The mount points are made."""
    write(f"{directory}/shared/file", "shared")
    one = over("laid over", empty, SHARE=[f"{directory}/shared:/data/in", f"{program}:/opt/prog"]).booted()
    assert one.inside("/opt/prog") == "1 /opt/prog"
    assert os.path.isdir(f"{one.upper}/data/in") and one.row()["shares"]


# One program

@in_three_ways
def test_one_static_program(over, empty, program, machine, way):
    shutil.copy(program, f"{empty}/prog")
    one = over(way, empty).booted()
    assert one.inside("/prog") == "1 /prog"
    for status in (0, 1, 77, 255):
        assert one.go("/prog", f"{status}").returncode == status
    assert one.go("prog").returncode == 127 and one.go().returncode == 127
    guest = start(GO, one.name, "/prog", "0", "wait")
    assert guest.stdout.readline() == b"3 wait\n"
    assert one.row()["processes"] == 2
    guest.send_signal(signal.SIGTERM)
    assert guest.wait() == 128 + signal.SIGTERM
    guest.communicate()
    guest = start(GO, one.name, "/prog", "0", "wait")
    assert guest.stdout.readline() == b"3 wait\n"
    one.stopped()
    guest.communicate()
    machine.is_as_before()


def test_a_program_on_a_terminal(over, empty, program, terminal):
    shutil.copy(program, f"{empty}/prog")
    one = over("laid over", empty).booted()
    shown = terminal(GO, one.name, "/prog", "5")
    shown.expect("2 5\r\n")
    assert shown.ended() == 5


def test_a_program_without_its_loader(over, empty):
    """ENOENT is that of the loader, not of the program; with another C library's it runs."""
    ended = run(needs("musl-gcc"), "-o", f"{empty}/prog", "-xc", "-", input=PROGRAM)
    assert ended.returncode == 0, ended.stderr
    one = over("bound", empty).booted()
    done = one.go("/prog")
    assert done.returncode == 127
    assert one_line(done) == "overlay-go: cannot execute /prog in the subhost: the interpreter or loader that /prog needs is not there"
    loader, = glob.glob("/lib/ld-musl-*.so.1")
    os.mkdir(f"{empty}/lib")
    shutil.copy(loader, f"{empty}{loader}")
    assert one.inside("/prog", "0") == "2 0"


# Roots that cannot be written to

@pytest.fixture
def complete(own_root):
    """A root in which a boot has nothing to make."""
    for made in ("dev", "sys", "run"):
        os.mkdir(f"{own_root}/{made}")
    write(f"{own_root}/etc/hostname", "readonly\n")
    write(f"{own_root}/etc/network/interfaces")
    shutil.copy(f"{PROGRAMS}/reaper", f"{own_root}/.reaper")
    return own_root


@pytest.fixture(params=["squashfs", "bind"])
def read_only(request, subhost, complete):
    """Makes a subhost whose UPPER and LOWER are that root, read-only, mounted by commands in its configuration."""
    def make(**settings):
        one = subhost(UPPER=f"!{GIVEN[request.param]}", LOWER="mnt", **settings)
        os.mkdir(f"{one.base}/mnt")
        if request.param == "squashfs":
            packed(complete, f"{one.base}/image")
        else:
            one.script("bound", f"mount --bind -o ro {complete} mnt && echo mnt\n")
        return one
    return make


GIVEN = {"squashfs": "overlay-diskfile mnt image", "bind": "./bound"}


def packed(root, image):
    ended = run(needs("mksquashfs"), root, image, "-quiet", "-no-progress")
    assert ended.returncode == 0, ended.stderr


def test_a_read_only_root(read_only):
    one = read_only().booted()
    assert one.sh("hostname; echo x >/run/x; cat /run/x; ls /dev/null") == "readonly\nx\n/dev/null"
    done = one.go("touch", "/etc/x")
    assert done.returncode == 1 and "Read-only file system" in done.stderr
    one.stopped()


@pytest.mark.parametrize("missing, said", [
    ("etc/hostname", "cannot write etc/hostname into UPPER={upper}"), ("etc/network", "cannot write etc/network/interfaces into UPPER={upper}"),
    ("proc", "cannot make the directory /proc in the subhost"), ("dev", "cannot make the directory /dev in the subhost"),
    ("sys", "cannot make the directory /sys in the subhost"), ("run", "cannot make the directory /run in the subhost"),
    (".reaper", "cannot write /.reaper in the subhost")])
def test_what_a_read_only_root_has_not_got(read_only, complete, fails, missing, said):
    path = f"{complete}/{missing}"
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    one = read_only()
    upper = one.base + "/mnt"
    assert fails(one) == f"overlay-boot: {said.format(upper=upper)}: Read-only file system"
    if missing == "run":
        one.configure(UPPER=read(one.conf).partition("UPPER=")[2].partition("\n")[0], LOWER="mnt", RAM_SIZE="none")
        one.booted()


def test_a_read_only_root_with_an_older_reaper(read_only, complete, fails):
    with open(f"{complete}/.reaper", "ab") as file:
        file.write(b"\0")
    assert fails(read_only()) == "overlay-boot: /.reaper in the subhost: Read-only file system"


def test_a_tmpfs_over_a_read_only_root(subhost, complete):
    """What the manual has for a root that cannot be written to, and lacks something."""
    shutil.rmtree(f"{complete}/etc")
    one = subhost(LOWER="!overlay-diskfile mnt system.squashfs", UPPER="tmpfs:1M")
    os.mkdir(f"{one.base}/mnt")
    packed(complete, f"{one.base}/system.squashfs")
    one.booted()
    assert one.sh("echo x >/etc/x; hostname") == one.name


# Busybox, as Alpine Linux has it

def extracted(package, architecture, path, into):
    """One file of a package, for whatever architecture; nothing is installed."""
    fetch = [needs("mmdebstrap"), "--quiet", "--mode=root", "--variant=extract", f"--include={package}",
             f"--architectures={architecture}", "--format=tar", SUITE, "-"]
    with subprocess.Popen(fetch, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as fetching:
        with open(into, "wb") as file:
            taken = subprocess.run(["tar", "-xO", f"./{path}"], stdin=fetching.stdout, stdout=file, check=False)
        said = fetching.stderr.read()
    if fetching.returncode or taken.returncode:
        cannot_run(f"mmdebstrap cannot get {package} for {architecture}: {os.fsdecode(said)}")
    os.chmod(into, 0o755)
    return into


@pytest.fixture(scope="session")
def busybox(run_directory):
    """A static busybox of an architecture."""
    made = {}

    def make(architecture):
        if architecture not in made:
            made[architecture] = extracted("busybox-static", architecture, "bin/busybox", f"{run_directory}/busybox.{architecture}")
        return made[architecture]
    return make


def native():
    return run("dpkg", "--print-architecture").stdout.strip()


def lay_out(root, busybox, programs="bin"):
    """A system of busybox alone: no bash, no login, no service(8), no getent; root's shell is ash; links are absolute."""
    os.makedirs(f"{root}/{programs}")
    if programs != "bin":
        os.symlink(programs, f"{root}/bin")
    shutil.copy(busybox, f"{root}/{programs}/busybox")
    for applet in APPLETS:
        os.symlink(f"/{programs}/busybox", f"{root}/bin/{applet}")
    write(f"{root}/etc/passwd", "root:x:0:0:root:/root:/bin/ash\nguest:x:405:100:guest:/dev/null:/bin/ash\n")
    write(f"{root}/etc/group", "root:x:0:root\nusers:x:100:games\n")
    write(f"{root}/etc/init.d/svc", SERVICE, 0o755)
    return root


@pytest.fixture(params=["bin", "usr/bin"], ids=["split", "merged"])
def busybox_root(request, busybox, directory):
    return lay_out(f"{directory}/alpine", busybox(native()), request.param)


def test_busybox(over, busybox_root, terminal):
    one = over("laid over", busybox_root).booted()
    assert one.go(input='echo "$0 $PWD $SHELL"; exit 3').stdout == "sh / /bin/ash\n"
    assert one.go(input="exit 3").returncode == 3
    assert one.inside("hostname") == one.name
    assert one.inside("id", user="guest").startswith("uid=405(guest) gid=100(users)")
    assert "/.reaper" in one.inside("ps")
    shown = terminal(GO, one.name)
    shown.type("tty; exit 4\n")
    shown.expect("/dev/pts/0")
    assert shown.ended() == 4
    one.stopped()


def test_a_life_as_a_shell_of_busybox(over, busybox_root):
    one = over("laid over", busybox_root, **UNFENCED)
    done = one.boot("--shell", input="mount -t tmpfs tmpfs /etc/init.d; exit 3")
    assert (done.returncode, done.stderr) == (3, "")
    one.booted()
    assert " /etc/init.d " in one.inside("cat", "/proc/mounts")
    one.stopped()


def test_a_service_of_busybox(over, busybox_root):
    """By its path, since there is no service(8); what is not there is told in the log."""
    one = over("bound", busybox_root, START="/etc/init.d/svc").booted()
    wait_for(lambda: read(f"{one.upper}/did") == "start\n")
    wait_for(lambda: "sleep" in one.inside("ps"))
    one.stopped()
    assert read(f"{one.upper}/did") == "start\nstop\n"


def test_no_service_command(over, busybox_root):
    one = over("laid over", busybox_root, START="ssh").booted("ssh")
    assert "cannot start ssh: the subhost has no command service" in one.said()
    done = one.stop()
    assert (done.returncode, done.stderr) == (0, "overlay-stop: cannot stop ssh: cannot execute service: No such file or directory\n")


def test_busybox_as_init(over, busybox_root):
    """It takes SIGTERM, the request that everybody gets, for one to shut down."""
    for applet in ("init", "reboot"):
        os.symlink("busybox", f"{busybox_root}/bin/{applet}")
    write(f"{busybox_root}/etc/inittab", "::sysinit:/bin/touch /was-booted\n::shutdown:/bin/touch /was-shut-down\n")
    one = over("bound", busybox_root, INIT="echo exec /bin/init").booted()
    wait_for(lambda: os.path.exists(f"{one.upper}/was-booted"))
    init = one.init
    one.stopped()
    assert not is_alive(init) and os.path.exists(f"{one.upper}/was-shut-down")


# Another release, with another C library than the host's

@pytest.fixture(scope="session")
def another(run_directory):
    root = f"{run_directory}/{OTHER_SUITE}"
    ended = run(needs("mmdebstrap"), "--quiet", "--mode=root", "--variant=essential", OTHER_SUITE, root, seconds=250)
    if ended.returncode:
        cannot_run(f"mmdebstrap cannot make a root of {OTHER_SUITE}: {ended.stderr[-500:]}")
    return root


@in_three_ways
def test_another_release(over, another, way):
    one = over(way, another).booted()
    assert f"VERSION_CODENAME={OTHER_SUITE}" in one.inside("cat", "/etc/os-release").splitlines()
    assert one.go(input="echo $0 ${BASH_VERSION%%.*}; exit 6").returncode == 6
    assert one.inside("ldd", "--version").splitlines()[0] != run("ldd", "--version").stdout.splitlines()[0]
    assert one.inside("id", "-un", user="daemon") == "daemon"
    assert one.sh("cat /proc/1/comm") == ".reaper"
    one.stopped()


# Another architecture

def other():
    return FOREIGN.get(os.uname().machine) or cannot_run(f"no other architecture is known for {os.uname().machine}")


@pytest.fixture(scope="session")
def emulator(run_directory):
    name = f"qemu-{other()[1]}-static"
    return shutil.which(name) or extracted("qemu-user-static", native(), f"usr/bin/{name}", f"{run_directory}/{name}")


@pytest.fixture
def foreign(emulator, busybox, directory, machine):
    """A root of another architecture, which the kernel executes; the emulator stays outside, by the flag F."""
    architecture, _, number = other()
    root = lay_out(f"{directory}/foreign", busybox(architecture))
    formats = f"{directory}/binfmt_misc"
    os.mkdir(formats)
    if run("mount", "-t", "binfmt_misc", "binfmt_misc", formats).returncode:
        cannot_run("this kernel has no binfmt_misc")
    magic = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + number.to_bytes(2, "little")
    mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
    rule = f":{PREFIX}:M:0:{escaped(magic)}:{escaped(mask)}:{emulator}:PF"
    with open(f"{formats}/register", "w") as file:
        file.write(rule)
    machine.look()
    yield root
    with open(f"{formats}/{PREFIX}", "w") as file:
        file.write("-1")                        # removes it
    assert run("umount", formats).returncode == 0


def escaped(data):
    return "".join(f"\\x{byte:02x}" for byte in data)


@in_three_ways
def test_another_architecture(over, foreign, terminal, machine, way):
    """PID 1 is our reaper, of the host's architecture; all else is emulated."""
    one = over(way, foreign).booted()
    assert one.inside("uname", "-m") == other()[1]
    assert one.go(input="echo $0 $(echo forked); exit 5").stdout == "sh forked\n"
    for status in (0, 1, 77, 255):
        assert one.go("sh", "-c", f"exit {status}").returncode == status
    assert one.go("sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    assert one.inside("id", user="guest").startswith("uid=405(guest) gid=100(users)")
    shown = terminal(GO, one.name)
    shown.type("tty; exit 4\n")
    shown.expect("/dev/pts/0")
    assert shown.ended() == 4
    guest = start(GO, one.name, "sleep", "1000")
    wait_for(lambda: one.row()["processes"] == 2)
    one.stopped()
    guest.communicate()
    machine.is_as_before()


def test_services_of_another_architecture(over, foreign):
    one = over("bound", foreign, START="nothing /etc/init.d/svc").booted("nothing")
    wait_for(lambda: read(f"{one.upper}/did") == "start\n")
    wait_for(lambda: read(f"/proc/{one.init}/comm") == ".reaper\n")     # the shell before it was emulated
    done = one.stop()
    assert done.stderr == "overlay-stop: cannot stop nothing: cannot execute service: No such file or directory\n"
    assert read(f"{one.upper}/did") == "start\nstop\n"


def test_another_architecture_that_the_kernel_does_not_know(over, busybox, directory, fails):
    """It boots; it cannot be entered, which is told."""
    architecture, name, _ = other()
    if any(name in rule for rule in listed("/proc/sys/fs/binfmt_misc")):
        cannot_run(f"this machine executes {name}")
    root = lay_out(f"{directory}/foreign", busybox(architecture))
    one = over("laid over", root).booted()
    for words, word in ([], "sh"), (["ls"], "ls"):
        done = one.go(*words)
        assert (done.returncode, one_line(done)) == (126, f"overlay-go: cannot execute {word} in the subhost: Exec format error")
    one.stopped()
    fails(over("laid over", root, START="ssh"), "PID 1 of the subhost: cannot execute /bin/sh: Exec format error")
