"""What dpkg's records are read as, and what becomes of them in a baseline."""
import os
import subprocess

import pytest
from overlay_boot import dpkg
from overlay_boot.baseline import alternatives
from overlay_boot.baseline.accounts import Accounts
from overlay_boot.baseline.packages import Database
from overlay_boot.baseline.maintainer_scripts import sections
from overlay_boot.baseline.root import Root
from overlay_boot.baseline.shipped import leads_into_system
from overlay_boot.errors import Failure

STATUS = """\
Package: cron
Status: install ok installed
Priority: important
Architecture: amd64
Version: 1:3.0
Conffiles:
 /etc/crontab 00000000000000000000000000000001
 /etc/cron old 00000000000000000000000000000002
 /etc/cron.gone 00000000000000000000000000000003 obsolete
 /etc/cron.never newconffile
Description: runs
 what is due

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


@pytest.fixture
def write(tmp_path):
    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return write


@pytest.fixture
def root(tmp_path, write):
    write("var/lib/dpkg/status", STATUS)
    write("var/lib/dpkg/info/cron.list", "/.\n/etc\n/etc/crontab\n/etc/cron.gone\n")
    write("var/lib/dpkg/info/cron.md5sums", "abc  usr/sbin/cron\n")
    write("var/lib/dpkg/diversions", "/etc/a\n/etc/a.real\nother\n/etc/b\n/etc/b.mine\n:\n")
    return tmp_path


def test_packages(root):
    database = Database(Root(str(root)))
    (cron,) = database.packages
    assert (cron.name, cron.version, cron.architecture, cron.priority) == ("cron", "1:3.0", "amd64", "important")
    assert cron.conffiles == {"/etc/crontab": f"{1:032}", "/etc/cron old": f"{2:032}", "/etc/cron.never": None}
    assert cron.obsolete == {"/etc/cron.gone"} and "/etc/cron.gone" not in cron.paths
    assert cron.md5sums() == {"/usr/sbin/cron": "abc"}
    assert "obsolete" not in database.status and "removed" not in database.status and "/etc/crontab" in database.status


def test_diversions(root):
    database = Database(Root(str(root)))
    (cron,) = database.packages
    assert database.installed_path("/etc/a", cron) == "/etc/a.real"
    assert database.installed_path("/etc/b", cron) == "/etc/b"       # an administrator's own
    cron.name = "other"
    assert database.installed_path("/etc/a", cron) == "/etc/a"


EDITOR = ("/usr/bin/editor\neditor.1\n/usr/share/editor.1\neditor.conf\n/etc/editor.conf\n\n"
          "/usr/bin/nano\n40\n\n\n/usr/bin/vi\n50\n/usr/share/vi.1\n/usr/share/gone\n")


@pytest.fixture
def choose(root, write):
    """Has update-alternatives(1) choose from records, {name: text}; what is left of them, and what it has linked in /etc."""
    def choose(records):
        for name, text in records.items():
            write(f"var/lib/dpkg/alternatives/{name}", text)
        (root / "etc/alternatives").mkdir(parents=True)
        done = subprocess.run(["sh", "-c", f"exec 3>&1 >/dev/null 2>&1\n{alternatives.SCRIPT}"], stdout=subprocess.PIPE, check=False,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DPKG_ROOT": str(root), "LC_ALL": "C"})
        assert (done.returncode, done.stdout) == (0, b"")
        links = {str(path.relative_to(root)): os.readlink(path) for path in (root / "etc").rglob("*") if path.is_symlink()}
        return {path.name: path.read_text() for path in (root / "var/lib/dpkg/alternatives").iterdir()}, links
    return choose


def test_an_alternative_is_automatic_and_of_packages(write, choose):
    for name in ("/usr/bin/nano", "/usr/bin/vi", "/usr/share/vi.1", "/usr/local/bin/ed"):
        write(name[1:], "")
    records, links = choose({"editor": f"manual\n{EDITOR}/usr/local/bin/ed\n99\n\n\n\n"})
    assert links == {"etc/alternatives/editor": "/usr/bin/vi", "etc/alternatives/editor.1": "/usr/share/vi.1"}
    assert records == {"editor": f"auto\n{EDITOR}\n"}


def test_what_is_linked_in_etc_is_linked(write, choose):
    write("usr/share/vi.conf", "")
    _, links = choose({"vi.conf": "auto\n/etc/vi.conf\n\n/usr/share/vi.conf\n1\n\n"})
    assert links == {"etc/alternatives/vi.conf": "/usr/share/vi.conf", "etc/vi.conf": "/etc/alternatives/vi.conf"}


@pytest.mark.parametrize("path", ["/usr/local/bin/x", "/srv/x", "/usr/../srv/x", "/usr/bin/is not there"])
def test_an_alternative_of_administrators_is_none(root, write, choose, path):
    if "not there" not in path:
        write(path[1:], "")
    (root / "usr").mkdir(exist_ok=True)
    assert choose({"x": f"manual\n/usr/bin/x\n\n{path}\n1\n\n"}) == ({}, {})


@pytest.mark.parametrize("name", ["x", "-x", "*", "$(false)", "';false;'"])
@pytest.mark.parametrize("path", ["/usr/bin/x", "/usr/bin/$(touch x)", "/usr/bin/';touch x;'", "/usr/a b/*", "/usr/bin/\\t"])
def test_names_and_paths_are_no_shell_text(write, choose, name, path):
    write(path[1:], "")
    records, links = choose({name: f"auto\n/usr/link\n\n{path}\n1\n\n"})
    assert links == {f"etc/alternatives/{name}": path} and [*records] == [name]


@pytest.mark.parametrize("text", ["", "auto\n", "nothing\n/usr/bin/x\n\n/usr/bin/y\n1\n\n"])
def test_a_record_of_alternatives_that_is_damaged_is_none(write, choose, text):
    write("usr/bin/y", "")
    assert choose({"x": text}) == ({}, {})


def test_accounts(root, write):
    write("usr/share/base-passwd/passwd.master", "root:*:0:0:root:/root:/bin/bash\n")
    write("usr/share/base-passwd/group.master", "root:*:0:\nadm:*:4:\n")
    write("etc/login.defs", "UID_MIN  500\n# GID_MIN 7\n")
    write("etc/passwd", "root:$y$x:0:0:boss:/root:/bin/zsh\ntoor::0:0::/:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n"
                        "alice:x:600:600::/people/alice:/bin/sh\n+::::::\nbroken\nbig:x:60001:4::/:/bin/sh\n")
    write("etc/group", "root:x:0:alice\nadm:x:4:alice,sshd\nalice:x:1000:\nssh:x:101:alice\n")
    found = Accounts(Root(str(root)))
    assert [row[0] for row in found.users] == ["root", "sshd", "big"]
    assert found.users[0] == ["root", "*", "0", "0", "root", "/root", "/bin/bash"]
    assert [(row[0], row[3]) for row in found.groups] == [("root", ""), ("adm", "sshd"), ("ssh", "")]


def test_sections_of_a_script():
    text = ("#!/bin/sh\ncreate secret\n# Automatically added by dh_installinit/13.1\nupdate-rc.d x defaults\n"
            "# End automatically added section\nmore\n# Automatically added by dh_python3\npy3compile\n"
            "# End automatically added section\n")
    assert sections(text) == "update-rc.d x defaults"


@pytest.mark.parametrize("place, target, leads", [
    ("/etc/os-release", "../usr/lib/os-release", True), ("/etc/x", "/usr/local/x", False), ("/etc/x", "/srv/x", False),
    ("/etc/x", "../root/x", False), ("/etc/x", "/usr/../srv/x", False), ("/etc/mtab", "/proc/self/mounts", True),
])
def test_links(place, target, leads):
    assert leads_into_system(place, target) is leads


def test_what_ends_a_line_of_a_record():
    """Nothing but a line feed: else a path of a package, or a name of a user, would be two."""
    odd = "a\u2028b\x0bc\x85d\re"
    assert dpkg.lines_of(f"{odd}\n\nx\n") == [odd, "", "x"]
    assert dpkg.lines_of("") == [] and dpkg.lines_of("x") == ["x"]
    [stanza] = dpkg.stanzas(f"Package: a\nConffiles:\n /etc/{odd} 1\n")
    assert stanza.conffiles == {f"etc/{odd}": "1"}


@pytest.mark.parametrize(("text", "found"), [
    ("", []),
    ("Package: a\nB: b\n c\n\td\n\n\nPackage: e", [{"Package": " a", "B": " b\n c\n\td"}, {"Package": " e"}]),
    (" further\nno field\nPackage:a\n\nOther: x\n\n", [{"Package": "a"}]),
])
def test_stanzas(text, found):
    assert [one.fields for one in dpkg.stanzas(text)] == found


def test_records_that_nobody_has():
    with pytest.raises(Failure):
        list(dpkg.stanzas("Package: a\n" + "a:\n" * dpkg.MOST_FIELDS))
    with pytest.raises(Failure):
        dpkg.lines_of("\n" * (dpkg.MOST_LINES + 1))
    further = "Package: a\n" + " x\n" * (1 << 20)       # in no more time than it takes to read it
    assert len(next(dpkg.stanzas(further)).fields) == 1
