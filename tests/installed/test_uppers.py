"""UPPER and WORK: what makes overlay mounts break is told before, and what is settable of them."""
import os
import shutil

import pytest
from conftest import cannot_run
from machine import BOOT, STATES, faults, mounts, one_line, read, run, wait_for, write

LOWER = "trusted.overlay-boot.lower"


@pytest.fixture
def btrfs(directory):
    """A Btrfs file system, mounted."""
    if not shutil.which("mkfs.btrfs"):
        cannot_run("btrfs-progs is not installed")
    image, place = f"{directory}/btrfs.img", f"{directory}/btrfs"
    with open(image, "wb") as file:
        file.truncate(128 << 20)
    os.mkdir(place)
    assert run("mkfs.btrfs", "-q", image).returncode == 0
    done = run("mount", "-o", "loop", image, place)
    if done.returncode:
        cannot_run(f"no Btrfs here: {done.stderr}")
    yield place
    assert run("umount", place).returncode == 0


def check(one):
    return run(BOOT, "--check", one.conf)


# Subvolumes

@pytest.mark.parametrize("apart", [["root", "work"], ["root"]])
def test_subvolumes(btrfs, subhost, small_root, fails, machine, apart):
    """As WORK beside UPPER, or UPPER alone: no file of LOWER could be written to."""
    machine.look()
    one = subhost(place=btrfs, LOWER=small_root)
    for name in apart:
        os.rmdir(f"{one.base}/{name}")
        assert run("btrfs", "subvolume", "create", f"{one.base}/{name}").returncode == 0
    assert "is in another subvolume than UPPER=" in fails(one, f"WORK={one.work}")
    assert f"WORK={one.work} is in another subvolume than UPPER=" in one_line(check(one))


def test_one_subvolume_for_both(btrfs, subhost, small_root):
    one = subhost(place=btrfs, LOWER=small_root, UPPER="all/root", WORK="all/work")
    assert run("btrfs", "subvolume", "create", f"{one.base}/all").returncode == 0
    for name in ("root", "work"):
        os.mkdir(f"{one.base}/all/{name}")
    one.booted()
    assert one.sh("echo more >>/etc/passwd; wc -l </etc/passwd") == "2"


# In use by another one

def places(one, other):
    """{what it is called: settings of a second subhost that has something of the first one's}."""
    os.makedirs(f"{one.upper}/inner/work", exist_ok=True)
    return {
        "upper": {"UPPER": one.upper},
        "work": {"WORK": one.work},
        "both": {"UPPER": one.upper, "WORK": one.work},
        "crossed": {"UPPER": one.work, "WORK": other.work},
        "below": {"UPPER": f"{one.upper}/inner"},
        "below work": {"WORK": f"{one.work}/inner"},
        "above": {"UPPER": one.base},
    }


@pytest.mark.parametrize("which", ["upper", "work", "both", "crossed", "below", "below work", "above"])
def test_of_a_running_subhost(subhost, small_root, directory, fails, machine, which):
    """Whichever of them runs first, and whoever has left its mark last."""
    one, other = subhost(LOWER=small_root), subhost(LOWER=small_root)
    os.mkdir(f"{one.work}/inner")
    other.configure(LOWER=small_root, **places(one, other)[which])
    for running, refused in ((one, other), (other, one), (one, other)):
        running.booted()
        machine.look()
        line = fails(refused, "in use by the subhost ", running.name)
        assert one_line(check(refused)).partition(": ")[2] == line.partition(": ")[2]
        assert running.sh("echo goes on >/file; cat /file") == "goes on"
        running.stopped()
        machine.look()


def test_by_another_path(subhost, small_root, directory, fails, machine):
    one = subhost(LOWER=small_root).booted()
    os.symlink(one.upper, f"{directory}/link")
    other = subhost(LOWER=small_root, UPPER=f"{directory}/link")
    machine.look()
    fails(other, f"UPPER={directory}/link is in use by the subhost {one.name}")
    place = f"{other.base}/bound"
    os.mkdir(place)
    assert run("mount", "--bind", one.base, place).returncode == 0
    try:
        machine.look()
        other.configure(LOWER=small_root, UPPER="bound/root", WORK="bound/other")
        os.mkdir(f"{one.base}/other")
        fails(other, f"UPPER={place}/root is in use by the subhost {one.name}")
    finally:
        run("umount", place)


def test_of_one_whose_state_file_is_damaged(subhost, small_root, fails, machine):
    one = subhost(LOWER=small_root).booted()
    with open(one.state, "a", encoding="ascii") as file:
        file.write("nothing\n")
    machine.look()
    fails(subhost(LOWER=small_root, UPPER=one.upper), f"is in use by the subhost {one.name}")
    one.stop()


def test_of_one_that_hibernates(subhost, small_root, fails, machine):
    one = subhost(LOWER=small_root)
    assert one.boot("--shell", input="exit\n").returncode == 0
    other = subhost(LOWER=small_root, UPPER=one.upper)
    machine.look()
    fails(other, f"is in use by the subhost {one.name}")
    one.stopped()
    other.booted()


def test_of_one_that_was_killed(subhost, small_root):
    """What it had is free."""
    one = subhost(LOWER=small_root).booted()
    keeper = one.keeper
    os.kill(keeper, 9)
    wait_for(lambda: one.row()["state"] == "dead")
    subhost(LOWER=small_root, UPPER=one.upper).booted()


def test_a_second_boot_reads_no_other_record(subhost, small_root):
    """Its cost does not depend on how many others run."""
    if not shutil.which("strace"):
        cannot_run("strace is not installed")
    other, one = subhost(LOWER=small_root).booted(), subhost(LOWER=small_root)

    def read_by_boot():
        done = run("strace", "-e", "trace=open,openat", "-o", f"{one.base}/trace", "/usr/bin/python3", "-IS", BOOT, one.conf)
        assert done.returncode == 0, done.stderr
        one.stopped()
        return f'"{STATES}/{other.name}/state"' in read(f"{one.base}/trace")

    assert read_by_boot()
    assert not read_by_boot()


# Made over another LOWER

def test_over_another_lower(subhost, small_root, own_root):
    one = subhost(LOWER=small_root).booted()
    one.stopped()
    one.configure(LOWER=own_root)
    told = f"UPPER={one.upper} was made over LOWER={small_root}, not over {own_root}: what it has changed there may not fit"
    assert faults(check(one)) == [f"overlay-boot: {told}"]
    done = one.boot()
    assert (done.returncode, done.stderr) == (0, f"overlay-boot: {told}\n")
    one.stopped()
    one.booted()                                # once is enough
    assert faults(check(one)) == []


def test_lower_was_moved(subhost, own_root):
    """Its file system and inode are the same: there is nothing to say."""
    one = subhost(LOWER=own_root).booted()
    one.stopped()
    os.rename(own_root, f"{own_root}.moved")
    one.configure(LOWER=f"{own_root}.moved")
    assert faults(check(one)) == []
    one.booted()
    assert os.fsencode(f"{own_root}.moved\n") in os.getxattr(one.upper, LOWER)


def test_over_another_lower_with_metacopy(subhost, small_root, own_root, fails):
    one = subhost(LOWER=small_root, OVERLAY="metacopy=on").booted()
    one.stopped()
    one.configure(LOWER=own_root, OVERLAY="metacopy=on")
    fails(one, f"UPPER={one.upper} was made over LOWER={small_root}", f"setfattr -x {LOWER} {one.upper}")
    os.removexattr(one.upper, LOWER)
    one.booted()


def test_layers_are_not_lower(subhost, small_root, directory):
    """They may come and go."""
    write(f"{directory}/layer/file", "layer")
    one = subhost(LOWER=small_root).booted()
    one.stopped()
    one.configure(LOWER=small_root, LAYER=f"{directory}/layer")
    one.booted()


# OVERLAY

def options(one):
    return next(line for line in mounts(one.init) if " / / " in line).split(" - ")[1].split(" ")[2].split(",")


def test_a_directory_of_lower_is_renamed(subhost, own_root):
    """As dpkg(1) does it, which has no other way."""
    write(f"{own_root}/etc/one/two/file", "content")
    one = subhost(LOWER=own_root).booted()
    assert one.sh("mv /etc/one /etc/1; mv /etc/1/two /two; ls /etc/1; test ! -e /etc/one; cat /two/file") == "content"
    assert os.getxattr(f"{one.upper}/two", "trusted.overlay.redirect") == b"/etc/one/two"
    one.stopped()
    assert one.booted().inside("cat", "/two/file") == "content"


def test_a_directory_of_lower_is_renamed_with_a_user_namespace(subhost, own_root):
    write(f"{own_root}/etc/one/file", "content")
    one = subhost(LOWER=own_root, USERNS="auto")
    done = one.boot()
    if "cannot be id-mapped" in done.stderr:
        cannot_run(done.stderr)
    assert one.sh("mv /etc/one /etc/1; cat /etc/1/file") == "content"


def test_it_can_be_had_as_it_was(subhost, own_root):
    write(f"{own_root}/etc/one/file", "content")
    one = subhost(LOWER=own_root, OVERLAY="redirect_dir=nofollow").booted()
    assert "redirect_dir=nofollow" in options(one)
    one.sh("mv /etc/one /etc/1")                # by copying
    assert "trusted.overlay.redirect" not in os.listxattr(f"{one.upper}/etc/1")


def test_what_is_hidden_is_not_reached_by_a_redirect(subhost, own_root):
    """That a hostile UPPER has."""
    write(f"{own_root}/etc/secrets/key", "secret", 0o600)
    write(f"{own_root}/etc/key", "secret", 0o600)
    one = subhost(LOWER=own_root, HIDE="/etc/secrets /etc/key", OVERLAY="metacopy=on")
    os.mkdir(f"{one.upper}/shown")
    os.setxattr(f"{one.upper}/shown", "trusted.overlay.redirect", b"/etc/secrets")
    one.write("file")
    os.setxattr(f"{one.upper}/file", "trusted.overlay.redirect", b"/etc/key")
    os.setxattr(f"{one.upper}/file", "trusted.overlay.metacopy", b"")
    one.booted()
    assert "secret" not in one.go("sh", "-c", "cat /file; ls /shown; cat /shown/*").stdout
    one.stopped()
    one.configure(LOWER=own_root, OVERLAY="metacopy=on")
    assert "secret" in one.booted().go("cat", "/shown/key").stdout


def test_metacopy(subhost, own_root):
    write(f"{own_root}/etc/large", "x" * 100_000)
    one = subhost(LOWER=own_root, OVERLAY="metacopy=on").booted()
    one.sh("mv /etc/large /etc/renamed")
    assert os.stat(f"{one.upper}/etc/renamed").st_blocks * 512 < 100_000
    assert one.sh("wc -c </etc/renamed") == "100000"


def test_volatile(subhost, small_root, fails):
    """The kernel refuses what may lack something; this says so, and what to do."""
    one = subhost(LOWER=small_root, OVERLAY="volatile").booted()
    assert os.path.isdir(f"{one.work}/work/incompat/volatile")
    one.stopped()
    fails(one, f"UPPER={one.upper} was in use with OVERLAY=volatile", f"without {one.work}/work/incompat ")
    assert "OVERLAY=volatile" in one_line(check(one))
    shutil.rmtree(f"{one.work}/work/incompat")
    one.booted()


@pytest.mark.parametrize(("value", "words"), [
    ("redirect_dir=maybe", ["redirect_dir=maybe is none of redirect_dir=on"]),
    ("upperdir=/", ["upperdir=/ is none of"]),
    ("xino=on xino=off", ["xino is set twice"]),
    ("metacopy=on redirect_dir=off", ["metacopy=on needs redirect_dir=on"]),
])
def test_what_overlay_cannot_be(subhost, fails, value, words):
    one = subhost(OVERLAY=value)
    for word in words:
        assert word in fails(one, "OVERLAY: ")
    assert "OVERLAY: " in one_line(check(one))


def test_index_and_hide(subhost, small_root, fails):
    fails(subhost(LOWER=small_root, HIDE="/tmp", OVERLAY="index=on"), "OVERLAY: index=on")
    one = subhost(LOWER=small_root, OVERLAY="index=on xino=on").booted()
    assert {"index=on", "redirect_dir=on"} <= set(options(one))
