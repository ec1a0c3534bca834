"""Disk images: overlay-diskfile, and IMAGE."""
import glob
import os
import shutil
import struct
import subprocess
import uuid
import zlib

import pytest
from conftest import cannot_run
from machine import (
    BOOT,
    DISKFILE,
    GO,
    LOGS,
    PREFIX,
    STOP,
    TREE,
    descendants,
    faults,
    is_alive,
    kill,
    loops,
    mounts,
    new_name,
    one_line,
    read,
    run,
    start,
    wait_for,
    warnings,
    write,
)

MAKERS = {"ext4": ["mkfs.ext4", "-qF"], "xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
PACKERS = {"squashfs": ["mksquashfs", "{tree}", "{image}", "-quiet", "-no-progress"], "erofs": ["mkfs.erofs", "--quiet", "{image}", "{tree}"]}
LARGE = {"ext4": "16M", "xfs": "300M", "btrfs": "128M"}
SECTOR = 512
EXAMPLES = f"{TREE}/conf-examples"


def needs(program):
    if not shutil.which(program, path="/usr/bin:/usr/sbin"):
        cannot_run(f"no {program} here")


def made(path, fs="ext4", size=None):
    """An image from --create."""
    done = run(DISKFILE, "--create", size or LARGE[fs], path, "--fs", fs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return path


def partitioned(path, *parts, before=2048, sector=SECTOR):
    """A file with a partition table of a PC, and these images as its partitions."""
    with open(path, "wb") as disk:
        ranges = filled(path, parts, before, sector)
        for number, (at, sectors) in enumerate(ranges):
            disk.seek(446 + 16 * number)
            disk.write(struct.pack("<B3xB3xII", 0, 0x83, at, sectors))
        disk.seek(510)
        disk.write(b"\x55\xaa")
    return path


def filled(path, parts, at, sector):
    """Copy images into a file, one after the other.  Return (first sector, number of sectors) of each."""
    ranges = []
    for part in parts:
        ranges.append((at, os.path.getsize(part) // sector))
        run("dd", f"if={part}", f"of={path}", f"bs={sector}", f"seek={at}", "conv=notrunc,sparse", "status=none")
        at = sum(ranges[-1])
        os.truncate(path, at * sector)
    return ranges


LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")       # the type of a partition


def with_gpt(path, *parts, sector, before=256):
    """A file with a GPT as UEFI has it, for sectors of that size, and these images as its partitions."""
    write(path)
    ranges = filled(path, parts, before, sector)
    entries = b"".join(struct.pack("<16s16sQQQ72x", LINUX.bytes_le, uuid.uuid4().bytes_le, at, at + sectors - 1, 0)
                       for at, sectors in ranges).ljust(128 * 128, b"\0")
    room = len(entries) // sector
    end = sum(ranges[-1]) + room        # the last sector

    def head(here, other, table):
        fields = [b"EFI PART", 0x10000, 92, 0, 0, here, other, before, end - room - 1, LINUX.bytes_le, table, 128, 128, zlib.crc32(entries)]
        layout = "<8sIIIIQQQQ16sQIII"
        fields[3] = zlib.crc32(struct.pack(layout, *fields))
        return struct.pack(layout, *fields)

    protective = struct.pack("<B3xB3xII", 0, 0xee, 1, end)
    with open(path, "r+b") as disk:
        disk.truncate((end + 1) * sector)
        for at, data in ((446, protective), (510, b"\x55\xaa"), (sector, head(1, end, 2)), (2 * sector, entries),
                         ((end - room) * sector, entries), (end * sector, head(end, 1, end - room))):
            disk.seek(at)
            disk.write(data)
    return path


@pytest.fixture
def device():
    """Makes block devices, by losetup(8): device(word, ...)."""
    made = []

    def make(*words):
        done = run("losetup", "--find", "--show", *words)
        assert done.returncode == 0, done.stderr
        made.append(done.stdout.strip())
        return made[-1]

    yield make
    for path in made:
        run("losetup", "--detach", path)


def with_files(path, script):
    """Run a script in the image, mounted where nobody else sees it."""
    done = run("unshare", "-m", "sh", "-ec", f"mount -o loop '{path}' /mnt; cd /mnt; {script}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def image(directory):
    return made(f"{directory}/{PREFIX}.img")


@pytest.fixture
def make(subhost):
    """A subhost with a directory mnt."""
    def made(**settings):
        one = subhost(**settings)
        os.mkdir(f"{one.base}/mnt")
        return one
    return made


# IMAGE

def test_image(make, image, machine):
    one = make(IMAGE=image)
    machine.look()
    one.booted()
    one.sh("echo kept >/srv/file")
    assert [line for line in mounts() if "/mnt " in line and PREFIX in line] == []
    assert len(loops()) == len(machine.before["loops"]) + 1
    one.stopped()
    machine.is_as_before()
    assert os.listdir(f"{one.base}/mnt") == [] and os.listdir(f"{one.upper}") == []
    assert with_files(image, "cat root/srv/file") == "kept\n"
    one.booted()
    assert one.inside("cat", "/srv/file") == "kept"


def test_image_of_a_name_with_a_blank_relative_to_base(make, image):
    one = make(IMAGE="my  disk.img")
    os.rename(image, f"{one.base}/my  disk.img")
    one.booted()
    one.sh("echo >/kept")
    one.stopped()
    assert with_files(f"{one.base}/my  disk.img", "ls root/kept") == "root/kept\n"


def test_image_with_partitions(make, directory, image):
    other = made(f"{directory}/other.img")
    disk = partitioned(f"{directory}/{PREFIX}-disk.img", image, other)
    one, second = make(IMAGE=f"{disk} 2"), make(IMAGE=f"{disk}\t1")
    one.booted()
    second.booted()         # beside it: other bytes of the same image
    one.sh("echo two >/kept")
    second.sh("echo one >/kept")
    one.stopped()
    second.stopped()
    run("dd", f"if={disk}", f"of={other}", "bs=512", f"skip={2048 + (16 << 20) // 512}", "status=none")
    assert with_files(other, "cat root/kept") == "two\n"


@pytest.mark.parametrize("sector", [512, 4096])
def test_partitions_of_either_size_of_sectors(make, directory, device, sector):
    """In a file, only a GPT tells it; a block device does so itself."""
    images = [made(f"{directory}/{number}.img") for number in "12"]
    disks = [with_gpt(f"{directory}/{PREFIX}-gpt.img", *images, sector=sector)]
    for table in (with_gpt, partitioned):
        disk = table(f"{directory}/{PREFIX}-{table.__name__}.img", *images, sector=sector)
        disks.append(device("--sector-size", str(sector), disk))
    for disk in disks:
        one, second = make(IMAGE=f"{disk} 2"), make(IMAGE=f"{disk} 1")
        one.booted().sh("echo two >/kept")
        second.booted().sh("echo one >/kept")
        for each in (one, second):
            each.stopped()
        assert one.booted().inside("cat", "/kept") == "two"
        one.stopped()


def test_an_mbr_of_large_sectors_in_a_file(make, fails, directory, image):
    disk = partitioned(f"{directory}/{PREFIX}-disk.img", image, before=256, sector=4096)
    fails(make(IMAGE=f"{disk} 1"), disk, "no file system is found in it")


def test_xfs_of_a_disk_with_large_sectors(make, directory):
    needs("mkfs.xfs")
    image = made(f"{directory}/{PREFIX}.img", "xfs")
    assert run("mkfs.xfs", "-q", "-f", "-s", "size=4096", image).returncode == 0
    with_files(image, "mkdir root work")
    make(IMAGE=image).booted().sh("echo >/kept")


def test_upper_and_work_of_ones_own_with_an_image(make, image):
    with_files(image, "mkdir -p a/up a/work; echo here >a/up/file; echo image >root/file")
    one = make(IMAGE=image, UPPER="mnt/a/up", WORK="mnt/a/work").booted()
    assert one.inside("cat", "/file") == "here"
    one.stopped()
    other = make(IMAGE=image, LOWER="mnt/root:/", UPPER="root", WORK="work").booted()
    assert other.inside("cat", "/file") == "image"


def test_an_image_beneath_an_upper_that_is_new_at_every_boot(make, image):
    with_files(image, "echo image >root/file")
    one = make(IMAGE=image, LOWER="mnt/root:/", UPPER="tmpfs:10M").booted()
    assert one.inside("cat", "/file") == "image"
    one.sh("echo new >/file")
    one.stopped()
    assert one.booted().inside("cat", "/file") == "image"


def test_image_as_the_whole_root(make, directory, own_root):
    image = made(f"{directory}/{PREFIX}.img", size="64M")
    with_files(image, f"cp -a {own_root}/. root")
    one = make(IMAGE=image, LOWER="mnt/root").booted()
    assert one.sh("ls -d /usr/share || echo none") == "none"


def test_check_with_an_image(make, image, machine):
    one = make(IMAGE=image)
    machine.look()
    done = one.boot("--check")
    assert done.returncode == 0 and warnings(done) == []
    for line in (f"IMAGE={image}", f"UPPER={one.base}/mnt/root", f"WORK={one.base}/mnt/work"):
        assert line in done.stdout.splitlines()
    machine.is_as_before()
    one.booted()
    assert one.boot("--check").stdout == done.stdout    # its own use of the image is in nobody's way
    one.sh("echo still >/here")


def test_check_of_what_runs_with_a_command(make, image):
    one = make(UPPER=f"!overlay-diskfile mnt/root {image}", WORK=f"!overlay-diskfile mnt/work {image}").booted()
    done = one.boot("--check")
    assert (done.returncode, warnings(done)) == (0, []) and f"UPPER={one.base}/mnt/root\n" in done.stdout


def test_image_on_a_block_device(make, image, device):
    one = make(IMAGE=device(image)).booted()
    one.sh("echo kept >/file")
    one.stopped()
    assert with_files(image, "cat root/file") == "kept\n"


def test_a_block_device_that_is_read_only(make, image, device, machine, fails):
    with_files(image, "echo lower >root/file")
    source = device("--read-only", image)
    one = make(UPPER="root", WORK="work", IMAGE=source, LOWER="mnt/root:/").booted()
    assert one.inside("cat", "/file") == "lower"
    one.stopped()
    machine.look()
    one.configure(IMAGE=source)
    fails(one, f"into UPPER={one.base}/mnt/root: Read-only file system")


def test_a_hook_sees_the_image(make, image):
    one = make(IMAGE=f"{image}", PREMOUNT="./pre", POSTMOUNT="./post")
    one.script("pre", 'set -e; echo "$IMAGE $UPPER" >"$UPPER/seen"; overlay-premount "$@"\n')
    one.script("post", 'set -e; overlay-postmount "$@"\n')
    one.booted()
    assert one.inside("cat", "/seen") == f"{image} {one.base}/mnt/root"


# overlay-diskfile in a value

def test_upper_and_work_on_one_image(make, image, machine):
    one = make(UPPER=f"!overlay-diskfile mnt/root {image}", WORK=f"!overlay-diskfile mnt/work {image}")
    machine.look()
    one.booted()
    assert len(loops()) == len(machine.before["loops"]) + 1
    one.sh("echo kept >/file")
    one.stopped()
    machine.is_as_before()
    assert with_files(image, "cat root/file") == "kept\n"


def test_as_configurations_of_1_6_4_have_it(make, image, directory):
    with_files(image, "mkdir -p some/upper some/work; echo here >some/upper/file")
    disk = partitioned(f"{directory}/{PREFIX}-disk.img", image)
    one = make(UPPER=f"!overlay-diskfile mnt/some/upper {disk} 1", WORK="mnt/some/work").booted()
    assert one.inside("cat", "/file") == "here"


def test_as_lower(make, image, own_root, directory):
    image = made(f"{directory}/{PREFIX}-lower.img", size="64M")
    with_files(image, f"cp -a {own_root}/. .; echo lower >etc/lower")
    one = make(LOWER=f"!overlay-diskfile mnt/ {image}").booted()
    assert one.inside("cat", "/etc/lower") == "lower"
    one.sh("echo changed >/etc/lower")
    one.stopped()
    assert with_files(image, "cat etc/lower") == "lower\n"


def test_read_only_for_many(make, image):
    with_files(image, "echo lower >root/file")
    for _ in range(2):
        one = make(LOWER="!./lower", SHARE="mnt/root:/srv/image")
        one.script("lower", f"overlay-diskfile --read-only mnt/root {image} >/dev/null && echo /\n")
        one.booted()
        assert one.inside("cat", "/srv/image/file") == "lower"
        assert one.go("touch", "/srv/image/new").returncode == 1
    assert "it is in use" in one_line(make(IMAGE=image).boot())


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
def test_file_systems_to_write_to(make, directory, fs):
    needs(MAKERS[fs][0])
    image = made(f"{directory}/{PREFIX}.img", fs)
    one = make(IMAGE=image)
    for turn in ("1", "2"):
        one.booted()
        one.sh("echo x >>/file")
        assert one.inside("wc", "-l", "/file") == f"{turn} /file"
        one.stopped()
    copy = f"{directory}/{PREFIX}-copy.img"
    shutil.copy(image, copy)
    if fs != "btrfs":               # which takes both for one file system
        one.booted()
        assert make(IMAGE=copy).booted().inside("wc", "-l", "/file") == "2 /file"


def not_unmounted(path, fs):
    """An image as a crash leaves it, with the file root/kept in its journal."""
    whole = made(f"{path}.whole", fs)
    with_files(whole, f"echo kept >root/kept; sync root/kept; cp --sparse=always {whole} {path}")
    os.unlink(whole)
    return path


@pytest.mark.parametrize("fs", MAKERS)
def test_a_file_system_that_was_not_unmounted(make, directory, fails, fs):
    """Whoever can write to it repairs it.  To others it is not shown, since something might be missing."""
    needs(MAKERS[fs][0])
    image = not_unmounted(f"{directory}/{PREFIX}.img", fs)
    read_only = make(LOWER=f"!overlay-diskfile --read-only mnt/root {image}")
    before = run("sha256sum", image).stdout
    fails(read_only, f"cannot mount {image} on mnt: its {fs} ", "was not unmounted cleanly")
    assert run("sha256sum", image).stdout == before
    one = make(IMAGE=image).booted()
    assert one.inside("cat", "/kept") == "kept"
    one.stopped()
    read_only.configure(SHARE="mnt/root:/srv/image", PREMOUNT="./premount")
    read_only.script("premount", f"set -e; overlay-premount; overlay-diskfile --read-only mnt/ {image}\n")
    assert read_only.booted().inside("cat", "/srv/image/kept") == "kept"


@pytest.mark.parametrize("fs", PACKERS)
def test_file_systems_to_read_only(make, directory, own_root, fs):
    needs(PACKERS[fs][0])
    write(f"{own_root}/etc/lower", "lower")
    image = f"{directory}/{PREFIX}.img"
    done = run(*(word.format(tree=own_root, image=image) for word in PACKERS[fs]))
    assert done.returncode == 0, done.stderr
    for _ in range(2):              # any number of them
        one = make(LOWER=f"!overlay-diskfile mnt/ {image}").booted()
        assert one.inside("cat", "/etc/lower") == "lower"


def test_data_on_an_image_by_a_hook(make, image):
    with_files(image, "mkdir db")
    one = make(PREMOUNT="./premount", SHARE="mnt/db:/data")
    one.script("premount", f"set -e; overlay-premount; overlay-diskfile mnt/ {image}\n")
    one.booted()
    one.sh("echo kept >/data/file")
    one.stopped()
    assert with_files(image, "cat db/file") == "kept\n"


def test_elsewhere_it_only_prints(directory, image, machine):
    for action in ({}, {"ACTION": "overlay-stop"}, {"ACTION": "overlay-ls"}):
        done = run(DISKFILE, "mnt/root", image, "1", cwd=directory, env=action)
        assert (done.returncode, done.stdout, done.stderr) == (0, "mnt/root\n", "")
    done = run(DISKFILE, "/any/where", env={"ACTION": "overlay-boot"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "/any/where\n", "")
    machine.is_as_before()


# What goes wrong

def test_an_image_that_is_in_use(make, fails, image, machine):
    make(IMAGE=image).booted()
    machine.look()
    for settings in ({"IMAGE": image}, {"UPPER": f"!overlay-diskfile --read-only mnt/root {image}", "WORK": "mnt/work"}):
        fails(make(**settings), image, "it is in use by another subhost")


def test_an_image_that_the_host_has_mounted(make, directory, image, machine):
    """It is not locked, but known by its loop device."""
    os.mkdir(f"{directory}/{PREFIX}-mounted")
    one = make(IMAGE=image)
    run("mount", "-o", "loop", image, f"{directory}/{PREFIX}-mounted")
    machine.look()
    try:
        assert "it is in use by /dev/loop" in one_line(one.boot())
        machine.is_as_before()
    finally:
        run("umount", f"{directory}/{PREFIX}-mounted")


def test_an_image_that_the_host_has_mounted_for_it(make, image):
    """As users of 1.6.4 may do it."""
    one = make(UPPER=f"!overlay-diskfile mnt/root {image}", WORK="mnt/work")
    run("mount", "-o", "loop", image, f"{one.base}/mnt")
    try:
        one.booted().sh("echo >/kept")
        one.stopped()
        assert os.path.exists(f"{one.base}/mnt/root/kept")
    finally:
        run("umount", f"{one.base}/mnt")


def test_two_boots_with_one_image_at_once(make, image):
    both = [make(IMAGE=image) for _ in range(2)]
    boots = [subprocess.Popen([BOOT, one.conf], stderr=subprocess.PIPE) for one in both]
    said = [boot.communicate()[1] for boot in boots]
    assert sorted(boot.returncode for boot in boots) == [0, 1], said
    assert sum(b"in use" in line for line in said) == 1


def is_device(fd, path):
    try:
        return os.stat(fd).st_rdev == os.stat(path).st_rdev
    except FileNotFoundError:           # it has just been closed
        return False


def test_a_boot_with_the_image_of_one_that_has_no_loop_device_yet(make, image):
    """Only the lock tells."""
    needs("strace")
    first, second = make(IMAGE=image), make(IMAGE=image)
    control = "/dev/loop-control"
    boot = start("strace", "-o", "/dev/null", "-P", control, "-e", "trace=openat", "-e", "inject=openat:delay_exit=3000000", BOOT, first.conf)
    wait_for(lambda: any(is_device(fd, control) for pid in descendants(boot.pid) for fd in glob.glob(f"/proc/{pid}/fd/*")))
    assert "it is in use by another subhost" in one_line(second.boot())
    assert boot.communicate(timeout=20) == (b"", b"") and boot.returncode == 0
    assert first.is_running()


@pytest.mark.parametrize("index, why", [("2", "no partition 2"), ("0", "0 is not the number"), ("99999", "no partition 99999")])
def test_a_wrong_index(make, fails, image, directory, index, why):
    disk = partitioned(f"{directory}/{PREFIX}-disk.img", image)
    fails(make(IMAGE=f"{disk} {index}"), disk, why)
    fails(make(UPPER=f"!overlay-diskfile mnt/root {disk} {index}"), "UPPER", disk, why)


def test_a_partition_of_what_has_none(make, fails, image):
    fails(make(IMAGE=f"{image} 1"), image, "no partition 1")


def broken_text(path):
    write(path, "no file system\n" * 1000)


def broken_head(path):
    made(path)
    with open(path, "r+b") as file:
        file.truncate(1 << 20)


def broken_inside(path):
    made(path)
    with open(path, "r+b") as file:
        file.seek(1024 + 0x18)          # the size of a block
        file.write(struct.pack("<I", 60))


@pytest.mark.parametrize("spoil", [broken_text, broken_head, broken_inside, os.mkdir, os.mkfifo,
                                   lambda path: os.symlink("nowhere", path), lambda path: None])
def test_a_broken_image(make, fails, directory, spoil):
    image = f"{directory}/{PREFIX}.img"
    spoil(image)
    line = fails(make(IMAGE=image), f"overlay-boot: cannot mount {image} on ")
    assert "Errno" not in line
    fails(make(UPPER=f"!overlay-diskfile mnt/root {image}"), f"overlay-diskfile: cannot mount {image} on mnt: ")


def test_no_place_to_mount_on(subhost, fails, image):
    fails(subhost(IMAGE=image), "/mnt", "No such file or directory")


def test_a_place_with_another_mount(make, image, fails, machine):
    one = make(IMAGE=image)
    run("mount", "-t", "tmpfs", PREFIX, f"{one.base}/mnt")
    machine.look()
    fails(one, "something else is mounted there")
    run("umount", f"{one.base}/mnt")


def test_an_image_without_root(make, fails, image):
    with_files(image, "rmdir root")
    fails(make(IMAGE=image), "UPPER=", "/mnt/root")


@pytest.mark.parametrize("value", ["IMAGE", "UPPER"])
def test_what_is_killed_leaves_no_loop_device(make, image, machine, value):
    settings = {"IMAGE": {"IMAGE": image}, "UPPER": {"UPPER": f"!overlay-diskfile mnt/root {image}", "WORK": "mnt/work"}}[value]
    one = make(**settings)
    machine.look()
    one.booted()
    keeper, init = one.keeper, one.init
    kill(init, 9)
    wait_for(one.is_gone)
    wait_for(lambda: loops() == machine.before["loops"])
    one.booted()
    kill(one.keeper, 9)
    one.booted()
    one.stopped()
    machine.is_as_before()
    assert keeper != init


def test_while_what_was_killed_is_cleared_its_image_is_free(make, image, machine):
    """When the name is free again, so are the mounts, though the clearing has not quite ended."""
    needs("strace")
    one = make(IMAGE=image)
    machine.look()
    keeper = one.booted().keeper
    tracer = start("strace", "-o", "/dev/null", "-p", str(keeper), "-e", "trace=rmdir", "-e", "inject=rmdir:delay_exit=1000000")
    wait_for(lambda: read(f"/proc/{keeper}/status").partition("TracerPid:\t")[2].split("\n")[0] == str(tracer.pid))
    kill(one.init, 9)
    wait_for(one.is_gone)
    assert is_alive(keeper) and loops() == machine.before["loops"]
    tracer.communicate(timeout=20)


# --create

@pytest.mark.parametrize("fs", MAKERS)
def test_create(directory, machine, fs):
    needs(MAKERS[fs][0])
    image = made(f"{directory}/{PREFIX}.img", fs)
    machine.is_as_before()
    assert os.listdir(directory) == [f"{PREFIX}.img"]
    status = os.stat(image)
    assert status.st_mode & 0o7777 == 0o600 and status.st_blocks * 512 < status.st_size / 2
    assert with_files(image, "stat -c '%n %a %u' root work") == "root 755 0\nwork 755 0\n"
    assert run("blkid", "-p", "-o", "value", "-s", "TYPE", image).stdout == f"{fs}\n"


def test_create_relative_with_sizes(directory):
    for size, number in (("20m", 20 << 20), ("8388608", 8 << 20), ("1g", 1 << 30)):
        assert run(DISKFILE, "--create", size, f"{size}.img", cwd=directory).returncode == 0
        assert os.path.getsize(f"{directory}/{size}.img") == number


def test_create_overwrites_nothing(directory, machine):
    path = write(f"{directory}/{PREFIX}.img", "mine")
    assert one_line(run(DISKFILE, "--create", "16M", path)) == f"overlay-diskfile: cannot create {path}: it is there already"
    assert read(path) == "mine"
    os.symlink("nowhere", f"{directory}/link")
    assert "exists" in one_line(run(DISKFILE, "--create", "16M", f"{directory}/link"))
    assert sorted(os.listdir(directory)) == ["link", f"{PREFIX}.img"]


@pytest.mark.parametrize("size", ["0", "x", "10%", "1e6", "10X", "99999999999T", "1k"])
def test_create_with_a_size_that_is_none(directory, machine, size):
    assert "/proc" not in one_line(run(DISKFILE, "--create", size, f"{directory}/{PREFIX}.img"))
    assert os.listdir(directory) == []
    machine.is_as_before()


def test_create_where_nobody_can(directory):
    assert "No such file" in one_line(run(DISKFILE, "--create", "16M", f"{directory}/none/{PREFIX}.img"))


def test_create_on_a_full_disk(directory, machine):
    """Wherever the room ends: there is an image, complete, or none."""
    answers = set()
    for room in (60, 200, 320, 340, 360, 380, 400, 420, 440, 600):
        done = run("unshare", "-m", "sh", "-c", f"""
            mount -t tmpfs -o size={room}k tmpfs {directory}; cd {directory}
            {DISKFILE} --create 512M {PREFIX}.img; echo $? $(ls -A)
            [ ! -e {PREFIX}.img ] || {{ mount -o loop,ro {PREFIX}.img /mnt; ls -d /mnt/[rw]o*; }}""")
        if done.stdout[0] == "1":
            assert done.stdout == "1\n" and len(done.stderr.splitlines()) == 1, done.stdout + done.stderr
            assert done.stderr.startswith(f"overlay-diskfile: cannot create {PREFIX}.img: ")
        else:
            assert done.stdout == f"0 {PREFIX}.img\n/mnt/root\n/mnt/work\n" and done.stderr == ""
        answers.add(done.stdout[0])
        machine.is_as_before()
    assert len(answers) == 2


def test_create_that_is_killed(directory, machine):
    for number in range(1, 12):
        run("timeout", "-s", "KILL", f"{number * 0.01:.2f}", DISKFILE, "--create", "16M", f"{directory}/{number}.img")
        for name in os.listdir(directory):
            assert with_files(f"{directory}/{name}", "ls -d root work") == "root\nwork\n"
    wait_for(lambda: not [line for line in loops() if "deleted" in line and directory in line])


@pytest.mark.parametrize("words", [[], ["--create", "16M"], ["--fs", "ext4", "mnt/root"], ["--create", "1M", "a", "b"],
                                   ["--create", "1M", "a", "--fs", "vfat"], ["a", "b", "1", "c"]])
def test_called_wrongly(directory, words):
    assert run(DISKFILE, *words, cwd=directory).returncode == 2 and os.listdir(directory) == []


# The predecessor

@pytest.fixture
def bridges(machine):
    made = [f"{PREFIX}b{number}" for number in range(2)]
    for bridge in made:
        assert run("ip", "link", "add", bridge, "type", "bridge").returncode == 0
    yield made
    for bridge in made:
        run("ip", "link", "delete", bridge)


@pytest.mark.parametrize("has_image", [True, False])
def test_a_tree_of_the_predecessor_is_brought_over(directory, bridges, has_image):
    """By the very words of the example."""
    with open(f"{EXAMPLES}/image.conf") as file:
        recipe = "".join(line[1:] for line in file if line.startswith("#     ") and "overlay-diskfile" not in line)
    name = new_name()
    base = f"{directory}/{name}"
    for place in ("live", "root", "work", "mnt"):
        os.makedirs(f"{base}/{place}")
    write(f"{base}/config", f'BRIDGES="{bridges[0]} {bridges[1]}"\n')
    if has_image:
        with_files(made(f"{base}/{name}.img"), "echo old >root/old")
    else:
        write(f"{base}/root/old", "old\n")
    done = run("sh", "-ec", recipe, cwd=base)
    assert (done.returncode, faults(done)) == (0, [])
    assert f"UPPER={base}/{'mnt/' if has_image else ''}root\n" in done.stdout
    try:
        done = run(BOOT, f"{name}.conf", cwd=base)
        assert (done.returncode, done.stderr) == (0, "")
        assert run(GO, name, "cat", "/old").stdout == "old\n"
        assert run(GO, name, "ls", "/sys/class/net").stdout.split() == ["eth0", "eth1", "lo"]
        for number, bridge in enumerate(bridges):
            assert os.path.exists(f"/sys/class/net/{bridge}/brif/{name}{number}")
    finally:
        done = run(STOP, f"{name}.conf", cwd=base)
        os.unlink(f"{LOGS}/{name}.log")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_stops_with_its_image(make, image):
    """A stop asks for no image: it may be gone."""
    one = make(IMAGE=image).booted()
    os.unlink(image)
    assert run(STOP, one.conf).returncode == 0
