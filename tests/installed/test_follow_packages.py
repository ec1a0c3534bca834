"""overlay-follow and packages: a subhost that has followed its host is as one that was made anew over it.

The host is a system of a few programs, in which dpkg installs packages that are made on the spot.
"""
import json
import os
import shutil

import debs
import pytest
from conftest import cannot_run
from debs import deb, dpkg
from machine import FOLLOW, one_line, read, run, write

LEFT = 3
CONFIGURED = 'echo "$DPKG_MAINTSCRIPT_PACKAGE $*" >>/var/log/scripts'
SCRIPTS = {"postinst": CONFIGURED}


@pytest.fixture(scope="module")
def pristine(run_directory):
    return debs.system(f"{run_directory}/pristine")


@pytest.fixture
def host(pristine, directory):
    """The root of a host of the test's own."""
    return shutil.copytree(pristine, f"{directory}/host", symlinks=True)


class Ground:
    """A host, and the subhosts over it."""

    def __init__(self, root, subhost):
        self.root, self.new = root, subhost

    def subhost(self, *packages, **settings):
        """A subhost that runs, with packages of its own."""
        made = self.new(LOWER=self.root, **settings).booted()
        if packages:
            self.inside(made, "-i", *packages)
        return made

    def inside(self, one, *words):
        """Have dpkg work in a subhost."""
        done = one.go("dpkg", "--force-confold", *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def is_as_fresh(self, one, *packages, but=()):
        """A subhost has the same files and records as one that has just been made, with these packages of its own."""
        fresh = self.subhost(*packages)
        records, files = ([debs.status(read(f"/proc/{each.init}/root/var/lib/dpkg/status")) for each in (one, fresh)],
                          [debs.seen(f"/proc/{each.init}/root") for each in (one, fresh)])
        assert records[0] == records[1]
        differences = {path: (files[0].get(path), files[1].get(path)) for path in {*files[0], *files[1]}
                       if files[0].get(path) != files[1].get(path) and path not in but}
        assert differences == {}
        assert one.inside("dpkg", "--audit") == "" and one.inside("dpkg", "-V") == ""


@pytest.fixture
def ground(host, subhost):
    return Ground(host, subhost)


def follow(one, *words, status=0):
    done = run(FOLLOW, "--json", *words, one.conf)
    assert (done.returncode, done.stderr) == (status, ""), f"{done}\n{one.said()}"
    [row] = json.loads(done.stdout)
    return row


def changes(row):
    return {(each["package"], each["change"]) for each in row["packages"]}


def upper_files(one):
    """The files of UPPER that are no records of dpkg's."""
    return {os.path.relpath(f"{folder}/{name}", one.upper) for folder, _, names in os.walk(one.upper) for name in names
            if "/var/lib/dpkg" not in folder} - {"etc/hostname", "etc/network/interfaces", ".reaper", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/scripts"}


def test_an_upgrade_of_the_host(ground):
    """What the subhost has for itself stays; what is the host's is configured inside, with the version before."""
    lib1, lib2 = (deb(ground.root, "lib", version, {"usr/lib/lib": version}, SCRIPTS) for version in "12")
    own = deb(ground.root, "own", "1", {"usr/lib/own": "own"}, Depends="lib")
    dpkg(ground.root, "-i", lib1)
    one = ground.subhost(own)
    assert changes(follow(one)) == set()
    dpkg(ground.root, "-i", lib2)
    assert "Version: 1" in one.inside("dpkg", "-s", "lib")              # else there would be nothing to do
    before = debs.seen(one.upper)
    row = follow(one, "--dry-run", status=LEFT)
    assert row["packages"] == [{"package": "lib", "change": "upgraded", "was": "1", "is": "2", "missing": []}]
    assert debs.seen(one.upper) == before
    assert changes(follow(one)) == {("lib", "upgraded")}
    assert read(f"{one.upper}/var/log/scripts").splitlines()[-1] == "lib configure 1"
    assert changes(follow(one)) == set() and changes(follow(one, "--dry-run")) == set()
    ground.is_as_fresh(one, own)


def test_a_host_with_var_on_a_file_system_of_its_own(ground, apart):
    """The records of packages are in the overlay mount that this has in the subhost."""
    apart(f"{ground.root}/var")
    lib1, lib2 = (deb(ground.root, "lib", version, {"usr/lib/lib": version, "var/lib/lib/data": version}, SCRIPTS) for version in "12")
    own = deb(ground.root, "own", "1", {"usr/lib/own": "own", "var/lib/own/data": "own"}, Depends="lib")
    dpkg(ground.root, "-i", lib1, deb(ground.root, "base", "1"))
    one = ground.subhost(own, LOWER_MOUNTS="/var")
    assert changes(follow(one)) == set()
    dpkg(ground.root, "-i", lib2)
    assert changes(follow(one)) == {("lib", "upgraded")} and changes(follow(one)) == set()
    assert read(f"{one.upper}/var/log/scripts").splitlines()[-1] == "lib configure 1"
    assert one.inside("cat", "/usr/lib/lib", "/var/lib/lib/data", "/var/lib/own/data") == "22own"
    ground.inside(one, "-r", "own")
    assert changes(follow(one)) == set()
    one.stop()
    dpkg(ground.root, "-r", "lib")
    assert changes(follow(one)) == {("lib", "removed")}


@pytest.mark.parametrize("settings", [{"UPPER": "tmpfs:32M"}, {"USERNS": "auto"}], ids=["tmpfs", "mapped"])
def test_an_upper_that_is_not_as_it_is_seen(ground, settings):
    """Nobody else sees it, or its owners are others."""
    lib1, lib2 = (deb(ground.root, "lib", version, {"usr/lib/lib": version, "etc/lib.conf": version}, SCRIPTS, ["etc/lib.conf"]) for version in "12")
    dpkg(ground.root, "-i", lib1)
    one = ground.subhost(**settings)
    ground.inside(one, "-i", lib1)
    one.sh("echo mine >/etc/lib.conf")
    dpkg(ground.root, "-i", lib2)
    assert changes(follow(one)) == {("lib", "upgraded")} and changes(follow(one)) == set()
    assert one.inside("cat", "/usr/lib/lib", "/etc/lib.conf", "/etc/lib.conf.dpkg-dist") == "2mine\n2"
    assert one.inside("cat", "/var/log/scripts").endswith("lib configure 1")
    assert one.inside("stat", "-c", "%u:%g", "/var/lib/dpkg/status", "/etc/lib.conf", "/etc/lib.conf.dpkg-dist") == "0:0\n0:0\n0:0"
    assert one.inside("dpkg", "--audit") == ""


def test_an_upgrade_inside_first_and_then_outside(ground):
    """As long as the subhost is ahead it stays so; then it has the host's, and its copies are gone."""
    versions = [deb(ground.root, "lib", version, {"usr/lib/lib": version, f"usr/lib/lib.{version}": ""}, SCRIPTS) for version in "123"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost()
    ground.inside(one, "-i", versions[1])
    assert changes(follow(one)) == set() and one.inside("cat", "/usr/lib/lib") == "2"
    dpkg(ground.root, "-i", versions[1])
    assert changes(follow(one)) == {("lib", "returned")} and upper_files(one) == set()
    assert not os.path.exists(f"{one.upper}/var/lib/dpkg/status")       # it is the host's again
    ground.inside(one, "-i", versions[1])                               # again
    dpkg(ground.root, "-i", versions[2])
    assert changes(follow(one)) == {("lib", "upgraded")} and one.inside("cat", "/usr/lib/lib") == "3"
    assert upper_files(one) == set() and read(f"{one.upper}/var/log/scripts").splitlines()[-1] == "lib configure 2"
    ground.is_as_fresh(one)


def test_removal_outside(ground):
    lib, other = (deb(ground.root, name, "1", {f"usr/lib/{name}": ""}) for name in ("lib", "other"))
    own = deb(ground.root, "own", "1", Depends="lib (>= 1), other")
    dpkg(ground.root, "-i", lib, other)
    one = ground.subhost(own)
    dpkg(ground.root, "-P", "lib")
    row = follow(one)
    assert {(each["package"], each["change"], *each["missing"]) for each in row["packages"]} == {
        ("lib", "removed"), ("own", "own", "lib (>= 1)")}
    assert "lib needs" not in run(FOLLOW, one.conf).stdout
    assert run(FOLLOW, one.conf).stdout == f"{one.name}: own needs what the host has not got any more: lib (>= 1)\n"
    assert one.go("dpkg", "-s", "lib").returncode == 1 and one.go("dpkg", "-s", "other").returncode == 0


def test_removal_inside(ground):
    """It stays removed, with whatever the host's next version brings."""
    one_deb, two = (deb(ground.root, "lib", version, {"usr/lib/lib": version, f"usr/lib/lib.{version}": ""}, SCRIPTS) for version in "12")
    dpkg(ground.root, "-i", one_deb)
    one = ground.subhost()
    ground.inside(one, "-P", "lib")
    assert changes(follow(one)) == set()
    dpkg(ground.root, "-i", two)
    assert one.go("ls", "/usr/lib/lib.2").returncode == 0
    follow(one)
    assert one.go("ls", "/usr/lib/lib.2").returncode == 2 and one.go("dpkg", "-s", "lib").returncode == 1
    assert "lib" not in one.sh("ls /var/lib/dpkg/info")
    assert follow(one, "--dry-run")["packages"] == []


@pytest.mark.parametrize("changed", ["inside", "outside", "both", "neither"])
@pytest.mark.parametrize("unpacked", [False, True], ids=["inherited", "unpacked"])
def test_a_conffile(ground, changed, unpacked):
    """An administrator's file stays, and the new one is beside it; what nobody has changed is the host's."""
    versions = [deb(ground.root, "lib", version, {"etc/lib.conf": f"shipped {version}\n"}, SCRIPTS, ["etc/lib.conf"]) for version in "12"]
    own = deb(ground.root, "own", "1")
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(own)
    if unpacked:
        ground.inside(one, "-i", versions[0])
    if changed in ("inside", "both"):
        one.sh("echo inside >/etc/lib.conf")
    if changed in ("outside", "both"):
        write(f"{ground.root}/etc/lib.conf", "outside\n")
    dpkg(ground.root, "-i", versions[1])
    assert changes(follow(one)) == {("lib", "upgraded")}
    found = {"inside": "inside", "both": "inside", "outside": "outside", "neither": "shipped 2"}[changed]
    assert one.inside("cat", "/etc/lib.conf") == found
    beside = one.go("cat", "/etc/lib.conf.dpkg-dist").stdout
    assert beside == ("shipped 2\n" if changed != "neither" else "")
    assert "lib.conf.dpkg-new" not in one.sh("ls /etc")
    assert [words for words in one.inside("dpkg-query", "-f", "${Conffiles}\n", "-W", "lib").split() if len(words) == 32] == [
        debs.hashlib.md5(b"shipped 2\n").hexdigest()]
    assert follow(one, "--dry-run")["packages"] == []


def test_data_that_a_maintainer_script_migrates(ground):
    """A subhost without records of its own: it is known what it had from the time when it followed last."""
    migrate = {"postinst": 'mkdir -p /srv; echo "$2 to {0}" >>/srv/schema'}
    versions = [deb(ground.root, "data", version, {"usr/bin/data": version}, {"postinst": migrate["postinst"].format(version)}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost()
    one.sh("echo mine >>/srv/schema")
    assert changes(follow(one)) == set()
    dpkg(ground.root, "-i", versions[1])
    assert changes(follow(one)) == {("data", "upgraded")}
    assert one.inside("cat", "/srv/schema").splitlines() == [" to 1", "mine", "1 to 2"]
    assert not os.path.exists(f"{one.upper}/var/lib/dpkg/status")
    assert changes(follow(one)) == set()


def test_new_packages_a_transitional_one_and_multi_arch(ground):
    same = {"Multi_Arch": "same"}
    old = [deb(ground.root, "tool", "1", {"usr/bin/tool": "1"}), deb(ground.root, "libm", "1", {"usr/lib/libm": "1"}, SCRIPTS, **same)]
    new = [deb(ground.root, "tool", "2", SCRIPTS and {}, SCRIPTS, Depends="tool-ng"), deb(ground.root, "libm", "2", {"usr/lib/libm": "2"}, SCRIPTS, **same),
           deb(ground.root, "tool-ng", "2", {"usr/bin/tool": "2"}, SCRIPTS, Depends="dep", Replaces="tool (<< 2)", Breaks="tool (<< 2)"),
           deb(ground.root, "dep", "1", {"usr/lib/dep": ""}, SCRIPTS)]
    own = deb(ground.root, "own", "1", Depends="tool")
    dpkg(ground.root, "-i", *old)
    one = ground.subhost(own)
    dpkg(ground.root, "-i", *new)
    write(f"{one.upper}/var/log/scripts")
    assert changes(follow(one)) == {("tool", "upgraded"), ("libm:amd64", "upgraded"), ("tool-ng", "new"), ("dep", "new")}
    assert {*read(f"{one.upper}/var/log/scripts").splitlines()} == {"tool configure 1", "libm configure 1", "tool-ng configure ", "dep configure "}
    ground.is_as_fresh(one, own)


def test_a_held_package_and_one_that_is_half_installed(ground):
    versions = {name: [deb(ground.root, name, version, {f"usr/lib/{name}": version}) for version in "12"] for name in ("held", "half", "whole")}
    failing = deb(ground.root, "half", "1", {"usr/lib/half": "1"}, {"postinst": "exit 1"})
    dpkg(ground.root, "-i", versions["held"][0], versions["whole"][0])
    one = ground.subhost()
    ground.inside(one, "-i", versions["held"][0])
    one.sh("echo held hold | dpkg --set-selections")
    assert one.go("dpkg", "-i", failing).returncode == 1
    for name in versions:
        dpkg(ground.root, "-i", versions[name][1])
    row = follow(one)
    assert changes(row) == {("whole", "upgraded"), ("half", "upgraded")}
    assert one.inside("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n").splitlines() == [
        "half 2 install ok installed", "held 1 hold ok installed", "whole 2 install ok installed"]
    assert one.inside("cat", "/usr/lib/held", "/usr/lib/half") == "12"


def test_accounts_overrides_and_triggers(ground):
    """What packages have made on the host is merged; what people have made stays where it is."""
    listener = deb(ground.root, "listener", "1", {"usr/lib/listener/x": ""}, {"postinst": '[ "$1" != triggered ] || echo "heard $2" >>/var/log/heard'},
                   triggers="interest-noawait /usr/share/spoken\n")
    versions = [deb(ground.root, "speaker", version, {f"usr/share/spoken/{version}": ""}) for version in "12"]
    for name in ("group", "shadow", "gshadow"):
        write(f"{ground.root}/etc/{name}", {"group": "root:x:0:\n", "shadow": "root:*:1::::::\n", "gshadow": "root:*::\n"}[name])
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(listener)
    one.sh("echo me:x:1000:1000::/:/bin/sh >>/etc/passwd; echo me:x:1000: >>/etc/group; echo me:secret:1:::::: >>/etc/shadow")
    assert changes(follow(one)) == set()
    for name, lines in {"passwd": "daemon:x:300:300::/:/bin/false\nperson:x:1001:1001::/:/bin/sh\n", "group": "daemon:x:300:\n",
                        "shadow": "daemon:hash:1::::::\nperson:hash:1::::::\n"}.items():
        write(f"{ground.root}/etc/{name}", read(f"{ground.root}/etc/{name}") + lines)
    dpkg(ground.root, "-i", versions[1])
    one.sh("rm -f /var/log/heard")
    ground.inside(one, "--add-architecture", "arm64")
    dpkg(ground.root, "--add-architecture", "i386")
    assert changes(follow(one)) == {("speaker", "upgraded")}
    assert one.inside("dpkg", "--print-foreign-architectures") == "arm64\ni386"
    assert one.inside("cat", "/etc/passwd").splitlines()[-2:] == ["me:x:1000:1000::/:/bin/sh", "daemon:x:300:300::/:/bin/false"]
    assert one.inside("cat", "/etc/group").splitlines()[-2:] == ["me:x:1000:", "daemon:x:300:"]
    assert one.inside("cat", "/etc/shadow").splitlines()[-2:] == ["me:secret:1::::::", "daemon:!:1::::::"]
    assert one.inside("cat", "/var/log/heard") == "heard /usr/share/spoken"
    assert changes(follow(one)) == set()


def test_an_override_of_both(ground):
    """dpkg refuses two for one path: the subhost's counts."""
    write(f"{ground.root}/etc/group", "root:x:0:\n")
    versions = [deb(ground.root, "lib", version, {"usr/bin/lib": version}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    assert one.go("dpkg-statoverride", "--update", "--add", "root", "root", "0711", "/usr/bin/lib").returncode == 0
    dpkg(ground.root, "-i", versions[1])
    run("chroot", ground.root, "dpkg-statoverride", "--add", "root", "root", "0750", "/usr/bin/lib")
    follow(one)
    assert one.inside("dpkg-statoverride", "--list", "/usr/bin/lib").split() == ["root", "root", "711", "/usr/bin/lib"]
    assert one.inside("dpkg", "--audit") == ""


def test_a_link_in_the_place_of_a_directory(ground):
    """dpkg keeps one that the administrator has put there, and so does a subhost whose packages follow."""
    versions = [deb(ground.root, "lib", version, {"var/lib/data/readme": version}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(versions[1])
    one.sh("mkdir -p /srv/data && rm -r /var/lib/data && ln -s /srv/data /var/lib/data")
    dpkg(ground.root, "-i", versions[1])
    run(FOLLOW, one.conf)
    assert one.inside("readlink", "/var/lib/data") == "/srv/data"


def test_alternatives(ground):
    """What is gone with a package of the host is no choice any more; when the host has the same record, it is the host's."""
    tools = {}
    for number, name in enumerate("abc", 1):
        tools[name] = deb(ground.root, f"tool-{name}", "1", {f"usr/bin/tool-{name}": name}, {
            "postinst": f"update-alternatives --install /usr/bin/tool tool /usr/bin/tool-{name} {number}",
            "prerm": f"update-alternatives --remove tool /usr/bin/tool-{name}"})
    dpkg(ground.root, "-i", tools["a"], tools["b"])
    one = ground.subhost(tools["c"])
    assert one.inside("readlink", "/etc/alternatives/tool") == "/usr/bin/tool-c"
    dpkg(ground.root, "-P", "tool-b")
    assert changes(follow(one)) == {("tool-b", "removed")}
    assert "tool-b" not in one.inside("update-alternatives", "--list", "tool")
    ground.is_as_fresh(one, tools["c"])
    dpkg(ground.root, "-i", tools["c"])
    assert changes(follow(one)) == {("tool-c", "returned")}
    assert not os.path.exists(f"{one.upper}/etc/alternatives/tool") and upper_files(one) == set()
    ground.is_as_fresh(one)


def test_one_that_does_not_run(ground):
    """It is booted for that alone, and stopped again."""
    versions = [deb(ground.root, "lib", version, {"usr/lib/lib": version}, SCRIPTS) for version in "12"]
    own = deb(ground.root, "own", "1")
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(own)
    one.stopped()
    assert changes(follow(one)) == set() and one.is_gone()
    dpkg(ground.root, "-i", versions[1])
    row = follow(one, "--dry-run", status=LEFT)
    assert row["state"] == "stopped" and changes(row) == {("lib", "upgraded")} and one.is_gone()
    assert changes(follow(one)) == {("lib", "upgraded")} and one.is_gone()
    assert read(f"{one.upper}/var/log/scripts").splitlines()[-1] == "lib configure 1"
    assert changes(follow(one)) == set()
    ground.is_as_fresh(one.booted(), own)


def test_a_maintainer_script_that_fails(ground):
    versions = [deb(ground.root, "lib", version, {}, {"postinst": "test ! -e /srv/fails"}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    one.sh("mkdir -p /srv; echo >/srv/fails")
    dpkg(ground.root, "-i", versions[1])
    line = one_line(run(FOLLOW, one.conf))
    assert line == f"overlay-follow: {one.name}: dpkg failed with exit status 1 (what it printed is in LOG={one.log})"
    assert "lib" in one.said() and "iF" in one.sh("dpkg -l lib")
    one.sh("rm /srv/fails")
    follow(one)
    assert "ii" in one.sh("dpkg -l lib") and follow(one, "--dry-run")["packages"] == []


STEP = 1 if os.environ.get("OVERLAY_BOOT_KILL") == "all" else 4      # how many calls further on it is killed next
CHANGING = ("unlinkat", "renameat", "rmdir", "fsync", "rename")


def stanzas(*found):
    return "".join("".join(f"{field}: {value}\n" for field, value in one.items()) + "\n" for one in found)


def test_answers_and_marks(ground):
    """What the host was asked for its packages is answered inside; what was answered inside stays."""
    config, templates, marks = "var/cache/debconf/config.dat", "var/cache/debconf/templates.dat", "var/lib/apt/extended_states"
    dpkg(ground.root, "-i", deb(ground.root, "base", "1"))
    both = {"Name": "base/both", "Template": "base/both", "Value": "old", "Owners": "base"}
    own = {"Name": "own/own", "Template": "own/own", "Owners": "own"}
    mark = {"Package": "own", "Architecture": "amd64", "Auto-Installed": "1"}
    one = ground.subhost()
    ground.inside(one, "-i", deb(ground.root, "own", "1"))
    for path, text in ((config, stanzas(both, own)), (templates, stanzas({"Name": "own/own", "Type": "string"})), (marks, stanzas(mark))):
        one.write(path, text)
    dpkg(ground.root, "-i", deb(ground.root, "lib", "1"))
    asked = {"Name": "lib/asked", "Template": "shared/asked", "Value": "yes", "Owners": "lib, other", "Flags": "seen"}
    template = {"Name": "shared/asked", "Type": "boolean"}
    theirs = {"Name": "other/theirs", "Template": "other/theirs", "Owners": "other"}
    lib = {"Package": "lib", "Architecture": "amd64", "Auto-Installed": "1"}
    write(f"{ground.root}/{config}", stanzas({**both, "Value": "new"}, asked, theirs))
    write(f"{ground.root}/{templates}", stanzas(template, {"Name": "other/theirs", "Type": "note"}))
    write(f"{ground.root}/{marks}", stanzas({**lib, "Package": "base"}, lib))
    assert changes(follow(one)) == {("lib", "new")}
    assert read(f"{one.upper}/{config}") == stanzas(both, own, asked)
    assert read(f"{one.upper}/{templates}") == stanzas({"Name": "own/own", "Type": "string"}, template)
    assert read(f"{one.upper}/{marks}") == stanzas(mark, lib)


@pytest.mark.deadline(600)
def test_killed_anywhere(ground):
    """After each system call that changes something, the next call does the rest; and in between it boots."""
    if not shutil.which("strace"):
        cannot_run("no strace")
    files = {"usr/lib/lib/a": "", "etc/lib.conf": "shipped"}
    versions = [deb(ground.root, "lib", version, {**files, "usr/lib/lib/b": version, f"usr/lib/lib.{version}": ""}, SCRIPTS, ["etc/lib.conf"])
                for version in "123"]
    own = deb(ground.root, "own", "1", {"usr/lib/own": ""}, Depends="lib")
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(own)
    ground.inside(one, "-i", versions[1])
    one.stopped()
    shutil.rmtree(f"{one.base}/followed", ignore_errors=True)
    dpkg(ground.root, "-i", versions[2])
    assert run("cp", "-a", one.upper, f"{one.base}/saved").returncode == 0

    def state():
        root = f"/proc/{one.booted().init}/root"
        assert one.go("dpkg", "--audit").stdout == ""
        found = debs.seen(root), debs.status(read(f"{root}/var/lib/dpkg/status"))
        one.stopped()
        return found

    def again():
        shutil.rmtree(one.upper)
        shutil.rmtree(f"{one.base}/followed", ignore_errors=True)
        assert run("cp", "-a", f"{one.base}/saved", one.upper).returncode == 0
        one.booted()

    again()
    assert changes(follow(one)) == {("lib", "upgraded")}
    ground.is_as_fresh(one, own)
    one.stopped()
    expected, killed = state(), 0
    for call in CHANGING:
        for number in range(1, 40, STEP):
            again()
            done = run("strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}", FOLLOW, one.conf)
            if done.returncode == 0:
                one.stopped()
                break
            killed += 1
            one.stopped()
            one.booted()                    # in between
            follow(one)
            one.stopped()
            assert state() == expected, (call, number)
    assert killed > 8 // STEP
