"""/dev of a subhost: DEVICES, and /dev/shm."""
import os

import pytest
from conftest import cannot_run
from machine import one_line, run

USERS = pytest.mark.parametrize("settings", [{}, {"USERNS": "auto"}, {"POSTMOUNT": "./post"}, {"USERNS": "auto", "POSTMOUNT": "./post"}],
                                ids=["", "users", "hook", "users-hook"])
# Makes a network interface by /dev/net/tun: TUNSETIFF, IFF_TAP.
TUN = """if True:
    import fcntl, struct
    with open("/dev/net/tun", "r+b", buffering=0) as tun:
        fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", b"inside0", 2))
        print(open("/proc/net/dev").read().count("inside0"))
"""


@pytest.fixture
def made(subhost):
    def make(**settings):
        one = subhost(**settings)
        one.script("post", "exec overlay-postmount\n")
        return one
    return make


@pytest.fixture
def device():
    """A device of the host's own, with an owner and a mode: device(path, kind, major, minor)."""
    paths = []

    def make(path, kind, *numbers):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mknod(path, kind | 0o640, os.makedev(*numbers))
        os.chown(path, 7, 70000)
        os.chmod(path, 0o640)
        paths.append(path)
        return path
    yield make
    for path in paths:
        os.unlink(path)
        if os.path.dirname(path) != "/dev":
            os.rmdir(os.path.dirname(path))


@USERS
def test_devices_of_the_host(made, device, settings):
    """With its owner and mode; one that can be used."""
    zero = device("/dev/overlay-boot-test/zero", 0o020000, 1, 5)
    disk = device("/dev/overlay-boot-disk", 0o060000, 7, 200)
    link = "/dev/overlay-boot-link"
    os.symlink("overlay-boot-test/zero", link)
    try:
        one = made(DEVICES=f"{zero} {disk} {link}", **settings).booted()
    finally:
        os.unlink(link)
    group = 70000 if "USERNS" not in settings else 65534
    assert one.sh(f"stat -c '%F %t:%T %u:%g %a' {zero} {disk} {link}; stat -c %a /dev/overlay-boot-test").splitlines() == [
        f"character special file 1:5 7:{group} 640", f"block special file 7:c8 7:{group} 640", f"character special file 1:5 7:{group} 640", "755"]
    assert one.sh(f"head -c 5 {zero} | wc -c") == "5"
    # It is one of the subhost's own.
    one.sh(f"chmod 666 {zero}; rm {disk}")
    assert os.stat(zero).st_mode & 0o777 == 0o640 and os.path.exists(disk)
    one.stopped()


def require(path):
    if not os.path.exists(path):
        cannot_run(f"no {path} here")


@USERS
def test_a_tunnel(made, settings):
    require("/dev/net/tun")
    one = made(DEVICES="/dev/net/tun", **settings).booted()
    assert one.inside("/usr/bin/python3", "-IS", "-c", TUN) == "1"
    assert not os.path.exists("/sys/class/net/inside0")
    one.stopped()


def test_a_file_system_of_a_process(made):
    require("/dev/fuse")
    one = made(DEVICES="/dev/fuse", USERNS="auto").booted()
    assert one.sh("exec 3<>/dev/fuse && mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 fuse /mnt && stat -fc %T / >/dev/null && grep -c ' /mnt ' /proc/self/mountinfo; umount -l /mnt") == "1"
    one.stopped()


def test_none_is_there_that_is_not_named(made):
    one = made().booted()
    assert one.sh("ls /dev").split() == ["console", "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
                                         "stdout", "tty", "urandom", "zero"]


@pytest.mark.parametrize(("value", "words"), [
    ("/dev/none", ("/dev/none", "No such file")), ("/dev/shm/..", ("below /dev",)), ("/dev/null/x", ("the subhost has its own",)),
    ("/etc/passwd", ("/etc/passwd", "below /dev")), ("net/tun", ("net/tun", "below /dev")), ("/dev/../etc/passwd", ("below /dev",)), ("/dev", ("below /dev",)),
    ("/dev/null", ("/dev/null: the subhost has its own",)), ("/dev/pts/ptmx", ("the subhost has its own",)), ("/dev/shm/x", ("the subhost has its own",)),
    ("/dev/stdin", ("the subhost has its own",)), ("/dev/none /dev/tty9", ("/dev/none",))])
def test_what_is_no_device(made, fails, value, words):
    one = made(DEVICES=value)
    fails(one, "DEVICES", *words)
    checked = one.boot("--check")
    assert checked.returncode == 1 and "DEVICES" in one_line(checked)


# /dev/shm

@USERS
def test_shared_memory_has_a_tmpfs_of_its_own(made, settings):
    one = made(SHM_SIZE="200M", **settings).booted()
    assert one.sh("stat -c %a:%u /dev/shm; stat -fc %T /dev/shm; df -B1 --output=size /dev/shm | tail -1; grep ' /dev/shm ' /proc/self/mountinfo").split()[:3] == [
        "1777:0", "tmpfs", str(200 << 20)]
    assert one.sh("head -c 100000000 /dev/zero >/dev/shm/x && stat -c %s /dev/shm/x; echo y >/dev/y && cat /dev/y").split() == ["100000000", "y"]
    assert one.sh("cp /bin/true /dev/shm/true && /dev/shm/true && echo yes") == "yes"
    one.stopped()


def test_the_size_is_that_of_the_kernel(made):
    one = made().booted()
    memory = run("sh", "-c", "mount -t tmpfs tmpfs /mnt && df -B1 --output=size /mnt | tail -1; umount /mnt").stdout
    assert abs(int(one.sh("df -B1 --output=size /dev/shm | tail -1")) - int(memory)) <= 1 << 16      # it is rounded to pages


@pytest.mark.parametrize("size", ["none", "x", "-1", "101%", "1.5G"])
def test_what_is_no_size(made, fails, size):
    fails(made(SHM_SIZE=size), f"SHM_SIZE={size}")

