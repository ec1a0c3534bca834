"""What dpkg's records are read as, and what becomes of them in a baseline."""
import pytest
from overlay_boot.accounts import Accounts
from overlay_boot.maintainer import sections
from overlay_boot.packages import Database
from overlay_boot.records import Alternative
from overlay_boot.shipped import leads_into_system

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
    database = Database(str(root))
    (cron,) = database.packages
    assert (cron.name, cron.version, cron.architecture, cron.priority) == ("cron", "1:3.0", "amd64", "important")
    assert cron.conffiles == {"/etc/crontab": f"{1:032}", "/etc/cron old": f"{2:032}", "/etc/cron.never": None}
    assert cron.obsolete == {"/etc/cron.gone"} and "/etc/cron.gone" not in cron.paths
    assert cron.sums() == {"/usr/sbin/cron": "abc"}
    assert "obsolete" not in database.status and "removed" not in database.status and "/etc/crontab" in database.status


def test_diversions(root):
    database = Database(str(root))
    (cron,) = database.packages
    assert database.place("/etc/a", cron) == "/etc/a.real"
    assert database.place("/etc/b", cron) == "/etc/b"       # an administrator's own
    cron.name = "other"
    assert database.place("/etc/a", cron) == "/etc/a"


def test_an_alternative_is_automatic_and_of_packages(root, write):
    for name in ("/usr/bin/nano", "/usr/bin/vi", "/usr/share/vi.1", "/usr/local/bin/ed"):
        write(name[1:], "")
    write("var/lib/dpkg/alternatives/editor",
          "manual\n/usr/bin/editor\neditor.1\n/usr/share/editor.1\neditor.conf\n/etc/editor.conf\n\n"
          "/usr/bin/nano\n40\n\n\n/usr/bin/vi\n50\n/usr/share/vi.1\n/usr/share/gone\n/usr/local/bin/ed\n99\n\n\n\n")
    one = Alternative(str(root), "editor")
    assert list(one.links()) == [("/etc/alternatives/editor", "/usr/bin/vi"), ("/etc/alternatives/editor.1", "/usr/share/vi.1")]
    assert one.text() == ("auto\n/usr/bin/editor\neditor.1\n/usr/share/editor.1\neditor.conf\n/etc/editor.conf\n\n"
                          "/usr/bin/nano\n40\n\n\n/usr/bin/vi\n50\n/usr/share/vi.1\n/usr/share/gone\n\n")


def test_accounts(root, write):
    write("usr/share/base-passwd/passwd.master", "root:*:0:0:root:/root:/bin/bash\n")
    write("usr/share/base-passwd/group.master", "root:*:0:\nadm:*:4:\n")
    write("etc/login.defs", "UID_MIN  500\n# GID_MIN 7\n")
    write("etc/passwd", "root:$y$x:0:0:boss:/root:/bin/zsh\ntoor::0:0::/:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n"
                        "alice:x:600:600::/people/alice:/bin/sh\n+::::::\nbroken\nbig:x:60001:4::/:/bin/sh\n")
    write("etc/group", "root:x:0:alice\nadm:x:4:alice,sshd\nalice:x:1000:\nssh:x:101:alice\n")
    found = Accounts(str(root))
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
