"""overlay-diff: what a subhost has of its own."""
import json
import os
import shutil
import stat
import subprocess

import pytest
from machine import DIFF, DISKFILE, one_line, read, run, write

STATUS = """Package: one
Status: install ok installed
Conffiles:
 /etc/one.conf 0123456789abcdef0123456789abcdef
 /etc/gone.conf 0123456789abcdef0123456789abcdef obsolete
Description: one
 /etc/passwd is no conffile

"""


@pytest.fixture
def lower(own_root):
    """A root with two packages: one has old paths of the merged /usr, the other is of a foreign architecture."""
    for place in ("dev", "run", "sys"):
        os.mkdir(f"{own_root}/{place}")
    write(f"{own_root}/var/lib/dpkg/status", STATUS)
    write(f"{own_root}/var/lib/dpkg/info/one.list", "/.\n/etc\n/etc/one.conf\n/bin/cat\n/etc/dir\n/etc/dir/a\n/etc/dir/b\n")
    write(f"{own_root}/var/lib/dpkg/info/two:arm64.list", "/.\n/usr/share/two\n")
    for path in ("etc/one.conf", "etc/dir/a", "etc/dir/b", "usr/share/two", "etc/copied", "etc/opaque/x", "etc/opaque/y", "etc/moved/file"):
        write(f"{own_root}/{path}", path)
    return own_root


def rows(what, *options):
    done = run(DIFF, "--json", *options, what)
    assert (done.returncode, done.stderr) == (0, "")
    return {row["path"]: row for row in json.loads(done.stdout)}


def changes(what):
    return {path: row["change"] for path, row in rows(what).items() if not path.startswith(("/etc/hostname", "/etc/hosts", "/etc/network"))}


def made_its_own(one):
    """A subhost that has something of every kind."""
    one.booted()
    one.sh("echo own >>/etc/one.conf; rm /etc/dir/a /bin/cat; echo new >/etc/new; mkdir /srv; echo new >/srv/new; mv /etc/moved /etc/renamed; "
           "touch /etc/renamed/more; rm -rf /etc/opaque; mkdir /etc/opaque; echo x >/etc/opaque/x; touch /etc/copied /usr/share/two")
    return one


def test_of_every_kind(subhost, lower, machine):
    one = made_its_own(subhost(LOWER=lower))
    found = rows(one.name)
    assert {path: row["change"] for path, row in found.items() if not path.startswith(("/etc/hostname", "/etc/hosts", "/etc/network"))} == {
        "/etc/one.conf": "changed", "/etc/dir/a": "removed", "/usr/bin/cat": "removed", "/etc/new": "added", "/srv": "added", "/srv/new": "added",
        "/etc/moved": "removed", "/etc/renamed": "renamed", "/etc/renamed/more": "added", "/etc/opaque/x": "changed", "/etc/opaque/y": "removed",
        "/etc/copied": "copied", "/usr/share/two": "copied"}
    assert {path: row["package"] for path, row in found.items() if row["package"]} == {
        "/etc/one.conf": "one", "/etc/dir/a": "one", "/usr/bin/cat": "one", "/usr/share/two": "two"}
    assert [path for path, row in found.items() if row["conffile"]] == ["/etc/one.conf"]
    assert found["/etc/renamed"]["from"] == "/etc/moved" and found["/etc/new"]["from"] is None
    assert found["/etc/new"]["space"] == os.stat(f"{one.upper}/etc/new").st_blocks * 512 > found["/etc/dir/a"]["space"] == 0
    assert {found[path]["kind"] for path in ("/srv", "/etc/moved")} == {"directory"} and found["/usr/bin/cat"]["kind"] == "file"


def test_a_running_one_and_a_stopped_one(subhost, lower):
    one = made_its_own(subhost(LOWER=lower))
    by_name = rows(one.name)
    assert rows(one.conf) == by_name
    one.stopped()
    assert rows(one.conf) == by_name
    assert "is not running" in one_line(run(DIFF, one.name))


def test_what_the_host_has_newer(subhost, lower):
    one = made_its_own(subhost(LOWER=lower))
    assert [path for path, row in rows(one.name).items() if row["newer"]] == []
    write(f"{lower}/etc/.one", "upgraded")
    os.rename(f"{lower}/etc/.one", f"{lower}/etc/one.conf")
    assert [path for path, row in rows(one.name).items() if row["newer"]] == ["/etc/one.conf"]


def test_packages_of_the_subhost(subhost, lower):
    """Those that were installed or removed inside count."""
    one = made_its_own(subhost(LOWER=lower))
    one.sh("echo /etc/new >/var/lib/dpkg/info/three.list; rm /var/lib/dpkg/info/one.list")
    found = rows(one.name)
    assert (found["/etc/new"]["package"], found["/etc/dir/a"]["package"], found["/usr/share/two"]["package"]) == ("three", None, "two")


def test_owner_and_mode(subhost, lower):
    one = subhost(LOWER=lower).booted()
    one.stopped()
    os.makedirs(f"{one.upper}/etc/dir")
    shutil.copy2(f"{lower}/etc/dir/b", f"{one.upper}/etc/dir/b")
    os.chown(f"{one.upper}/etc/dir/b", 7, 0)
    os.chmod(f"{one.upper}/etc/dir", 0o700)
    assert changes(one.conf) == {"/etc/dir": "changed", "/etc/dir/b": "changed"}


def test_metacopy(subhost, lower):
    write(f"{lower}/etc/large", "x" * 100_000)
    one = subhost(LOWER=lower, OVERLAY="metacopy=on").booted()
    one.sh("mv /etc/large /etc/large2; mv /etc/large2 /etc/large")
    found = rows(one.name)["/etc/large"]
    assert found["change"] == "copied" and found["space"] < 100_000


def test_a_file_with_two_names(subhost, lower):
    one = subhost(LOWER=lower)
    one.write("srv/one", "x" * 100_000)
    os.link(f"{one.upper}/srv/one", f"{one.upper}/srv/two")
    found = rows(one.conf)
    assert sorted(found[path]["space"] for path in ("/srv/one", "/srv/two")) == [0, os.stat(f"{one.upper}/srv/one").st_blocks * 512]


# What is printed

def test_the_summary(subhost, lower):
    one = made_its_own(subhost(LOWER=lower))
    done = run(DIFF, one.name)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr, len(lines)) == (0, "", 10)
    for title, number in (("added", 6), ("changed", 2), ("copied", 2), ("renamed", 1), ("removed", 4)):
        assert next(words for words in lines if words[0] == title)[1] == str(number), done.stdout
    assert next(words for words in lines if words[0] == "conffiles")[1:] == ["1", "0.0M", "/etc/one.conf"]


def test_every_file(subhost, lower):
    one = made_its_own(subhost(LOWER=lower))
    lines = run(DIFF, "--files", one.name).stdout.splitlines()
    assert lines[0].split() == ["CHANGE", "SPACE", "PACKAGE", "PATH"]
    assert [line.split() for line in lines if line.endswith(("/etc/one.conf", "moved)"))] == [
        ["changed", "0.0M", "one", "(conffile)", "/etc/one.conf"], ["renamed", "0.0M", "-", "/etc/renamed/", "(from", "/etc/moved)"]]


def test_names_do_nothing_to_a_terminal(subhost, lower):
    one = subhost(LOWER=lower)
    name = "a\x1b[31m\nb\udcff"
    one.write(f"srv/{name}")
    for options in ([], ["--files"]):
        said = run(DIFF, *options, one.conf).stdout
        assert "\x1b" not in said and "a\\x1b[31m\\nb\udcff" in said
    assert f"/srv/{name}" in rows(one.conf)


# An UPPER that is hostile

def test_nothing_is_followed_opened_or_executed(subhost, lower, directory):
    one = subhost(LOWER=lower)
    os.symlink("/", f"{one.upper}/link")
    os.symlink("/etc", f"{one.upper}/srv")
    os.makedirs(f"{one.upper}/etc/dir")
    for path in ("etc/dir/a", "fifo"):
        os.mkfifo(f"{one.upper}/{path}", 0o644)
    os.mknod(f"{one.upper}/etc/dir/b", stat.S_IFCHR | 0o644, os.makedev(5, 0))
    os.makedirs(f"{one.upper}/redirected")
    os.setxattr(f"{one.upper}/redirected", "trusted.overlay.redirect", b"/../../../etc")
    assert changes(one.conf) == {"/link": "added", "/srv": "added", "/etc/dir/a": "changed", "/fifo": "added", "/etc/dir/b": "changed",
                                 "/redirected": "renamed"}


def test_directories_without_end(subhost, lower):
    one = subhost(LOWER=lower)
    at = os.open(one.upper, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=at)
        inner = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    done = run(DIFF, one.conf)
    assert (done.returncode, done.stderr) == (0, "overlay-diff: 1 directories are in more than 256 others, and were not looked into\n")
    subprocess.run(["rm", "-r", f"{one.upper}/deep"], check=True)


# Where UPPER and LOWER are

def test_in_an_image(subhost, lower):
    one = subhost(LOWER=lower, IMAGE="disk")
    os.mkdir(f"{one.base}/mnt")
    assert run(DISKFILE, "--create", "16M", f"{one.base}/disk").returncode == 0
    one.booted()
    one.sh("echo new >/etc/new")
    assert changes(one.name) == {"/etc/new": "added"}
    one.stopped()
    assert changes(one.conf) == {"/etc/new": "added"}


def test_what_is_diverted_belongs_to_the_package_where_it_is(subhost, lower):
    write(f"{lower}/var/lib/dpkg/info/three.list", "/.\n/etc/one.conf\n")
    write(f"{lower}/var/lib/dpkg/diversions", "/etc/one.conf\n/etc/one.conf.real\nthree\n")
    one = subhost(LOWER=lower).booted()
    one.sh("echo own >>/etc/one.conf; echo own >/etc/one.conf.real")
    found = rows(one.name)
    assert [found[path]["package"] for path in ("/etc/one.conf", "/etc/one.conf.real")] == ["three", "one"]


def test_in_memory(subhost, lower):
    one = subhost(LOWER=lower, UPPER="tmpfs:10M")
    assert "is made anew by each boot" in one_line(run(DIFF, one.conf))
    one.booted().sh("echo own >/etc/new")
    assert changes(one.name) == {"/etc/new": "added"}


def test_over_layers(subhost, lower, directory):
    write(f"{directory}/layer/etc/layer", "layer")
    os.mknod(f"{directory}/layer/etc/one.conf", stat.S_IFCHR, 0)
    one = subhost(LOWER=lower, LAYER=f"{directory}/layer").booted()
    one.sh("echo >>/etc/layer; echo own >/etc/one.conf")
    for what in (one.name, one.conf):
        assert changes(what) == {"/etc/layer": "changed", "/etc/one.conf": "added"}
    one.stopped()
    assert changes(one.conf) == {"/etc/layer": "changed", "/etc/one.conf": "added"}


def test_over_what_is_mounted(subhost, lower, machine):
    os.makedirs(f"{lower}/home")
    assert run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", f"{lower}/home").returncode == 0
    try:
        write(f"{lower}/home/file", "there")
        machine.look()
        for wanted, change in (("/home", "changed"), ("no", "added")):
            one = subhost(LOWER=lower, LOWER_MOUNTS=wanted).booted()
            one.sh("echo own >/home/file")
            assert changes(one.name) == {"/home/file": change}
            one.stopped()
            assert changes(one.conf) == {"/home/file": change}
    finally:
        run("umount", f"{lower}/home")


def test_where_upper_is_lower(subhost, own_root):
    assert "there is nothing to compare it with" in one_line(run(DIFF, subhost(LOWER=own_root, UPPER=own_root).conf))


def test_nothing_is_changed(subhost, lower):
    one = made_its_own(subhost(LOWER=lower))
    one.stopped()

    def state():
        return run("sh", "-c", f"cd {one.base} && find . -printf '%p %i %m %s %C@\\n' | sort").stdout
    before = state()
    assert rows(one.conf) and state() == before and read(one.conf)
