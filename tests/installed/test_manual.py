"""The commands that overlay-boot(7) gives for backing up, restoring, renaming and removing a subhost, as they stand there."""
import os
import re
import stat
import struct

import pytest
from machine import CACHE, GO, LOGS, STOP, TREE, listed, new_name, read, run, write

SECTIONS = ("Back up", "Rename", "Remove")
ACL = struct.pack("<I" + "HHI" * 5, 2, 1, 6, 0xFFFFFFFF, 2, 4, 4321, 4, 4, 0xFFFFFFFF, 0x10, 4, 0xFFFFFFFF, 0x20, 0, 0xFFFFFFFF)


def blocks(section):
    """The commands of each block of a section, as one text for a shell."""
    text = read(f"{TREE}/man/overlay-boot.7.adoc").partition(f"\n=== {section}\n")[2]
    text = re.split("^===? ", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = [re.sub("^# ", "", block, flags=re.MULTILINE) for block in re.findall(r"^\.{4}\n(# .*?)^\.{4}\n", text, re.MULTILINE | re.DOTALL)]
    assert found
    return found


def test_nothing_else_is_said_to_be_run():
    """Of what follows, only rsync(1) to another machine and units are not tried here."""
    rest = [block for section in SECTIONS for block in blocks(section) if not re.match("rsync |systemctl ", block)]
    assert [block.split()[-1] for block in rest] == ["/opt/mta/mta.conf", "/opt/mta/mta.conf", "/opt/mx/mx.conf", "--remove-unused"]


@pytest.fixture
def names(host, directory, own_cache):
    """The names that mta and mx stand for here. All places that the commands name are the test's own."""
    for place in ("/opt", "/var/backups", LOGS):
        os.makedirs(f"{directory}{place}")
        assert run("mount", "--bind", f"{directory}{place}", place).returncode == 0
    for made in ("etc", "work"):
        os.mkdir(f"{directory}/{made}")
    assert run("mount", "-t", "overlay", "-o", f"lowerdir=/etc,upperdir={directory}/etc,workdir={directory}/work", "overlay", "/etc").returncode == 0
    made = {"mta": new_name(), "mx": new_name()}
    yield made
    for name in made.values():
        run(STOP, name)


@pytest.fixture
def type_in(names):
    """Runs the commands of a block for these names; each succeeds."""
    def run_all(text):
        done = run("sh", "-exc", re.sub(r"\b(mta|mx)\b", lambda found: names[found[0]], text), input="y\n")     # which rm asks for
        assert done.returncode == 0, done.stderr
    return run_all


@pytest.fixture
def mta(subhost, names):
    """A subhost that is running, and has changed its root in every way that UPPER has to note."""
    one = subhost(names["mta"], "/opt")
    write("/etc/subhosts.conf", f"/opt/one/one.conf\n{one.conf}\n")
    one.booted()
    one.sh("""
        rm /etc/debian_version
        rm -r /etc/skel
        mkdir -m 2750 /etc/skel
        cd /root
        echo text >file
        ln file same
        ln -s nowhere link
        mkfifo fifo
        chown 4321:1234 file
        chmod 4755 file
        touch -d '2001-02-03 04:05:06.789' file
        truncate -s 1M sparse
        touch acl
    """)
    os.setxattr(f"{one.upper}/root/acl", "system.posix_acl_access", ACL)        # which nobody inside has looked at
    os.setxattr(f"{one.upper}/root/same", "user.test", b"value")
    return one


def tree(top):
    """{path: all that a copy must have} below a directory, but for the kind of a file system it is on."""
    found, inodes = {}, {}
    for directory, directories, files in os.walk(top):
        for path in (directory, *(f"{directory}/{name}" for name in (*directories, *files))):
            of = os.lstat(path)
            kind = stat.S_IFMT(of.st_mode)
            content = os.readlink(path) if kind == stat.S_IFLNK else read(path) if kind == stat.S_IFREG else ""
            found[os.path.relpath(path, top)] = (
                of.st_mode, of.st_uid, of.st_gid, of.st_rdev, kind == stat.S_IFREG and of.st_mtime_ns, content,
                inodes.setdefault(of.st_ino, path.removeprefix(top)),
                {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)})
    return found


def test_a_backup_is_whole(mta, type_in):
    back_up, restore = blocks("Back up")[:2]
    type_in(back_up)
    assert mta.is_running()
    before = tree(mta.upper)
    assert {"trusted.overlay.opaque"} <= set(before["etc/skel"][-1]) and before["etc/debian_version"][0] == stat.S_IFCHR
    mta.sh("touch /root/later; rm /root/file; echo later >/etc/debian_version")
    type_in(restore)
    assert tree(mta.upper) == before
    assert mta.sh("ls /etc/skel; cat /root/file; test -e /etc/debian_version || echo hidden") == "text\nhidden"
    assert os.path.exists(f"/opt/{mta.name}.old/root/root/later")


def test_a_renamed_subhost_is_the_same(mta, names, type_in):
    before, new = tree(mta.upper), names["mx"]
    type_in(blocks("Rename")[0])
    assert run(GO).stdout == f"{new}\n" and os.listdir("/opt") == [new]
    assert run(GO, new, "uname", "-n").stdout == f"{new}\n"
    after = tree(f"/opt/{new}/root")
    marks = [found["."][-1].pop("trusted.overlay-boot.subhost") for found in (before, after)]
    assert marks == [name.encode() for name in names.values()]
    for path in ("etc/hostname", "etc/hosts"):
        assert before.pop(path) != after.pop(path)
    assert after == before
    assert read("/etc/subhosts.conf") == f"/opt/one/one.conf\n/opt/{new}/{new}.conf\n"
    assert "boot from" in read(f"{LOGS}/{new}.log") and listed(LOGS) == [f"{new}.log"]


def test_nothing_is_left_of_what_is_removed(mta, directory, type_in):
    """Not even in the cache of layers; and the other line of the list is as it was."""
    assert mta.stop().returncode == 0
    write(f"{directory}/oxide.json", '{"v":"1","t":"layer"}')
    write(f"{directory}/root/etc/layer")
    assert run("tar", "-czf", f"{mta.base}/site.tar.gz", "-C", directory, "oxide.json", "root").returncode == 0
    mta.configure(LAYER="site.tar.gz")
    mta.booted()
    assert listed(f"{CACHE}/layers")
    write("/opt/one/one.conf", "BASE=.\n")
    assert "rm -rI " in blocks("Remove")[0]
    type_in(blocks("Remove")[0])
    assert listed("/opt") == ["one"] and listed(LOGS) == [] and listed(f"{CACHE}/layers") == []
    assert read("/etc/subhosts.conf") == "/opt/one/one.conf\n"
