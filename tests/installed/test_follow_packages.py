"""overlay-follow and packages: a subhost that has followed its host is as one that was made anew over it.

The host is a system of a few programs, in which dpkg installs packages that are made on the spot.
"""
import fcntl
import json
import os
import shutil
import signal

import debs
import pytest
from conftest import cannot_run
from debs import deb, dpkg
from machine import BOOT, DIFF, FOLLOW, STOP, one_line, read, run, start, wait_for, write

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

    def is_as_fresh(self, one, *packages, but=(), then=None):
        """A subhost has the same files and records as one that has just been made, with these packages of its own.

        then does to that what somebody has done to the one himself; after that, dpkg may find it changed.
        """
        fresh = self.subhost(*packages)
        if then:
            then(fresh)
        records, files = ([debs.status(read(f"/proc/{each.init}/root/var/lib/dpkg/status")) for each in (one, fresh)],
                          [debs.seen(f"/proc/{each.init}/root") for each in (one, fresh)])
        assert records[0] == records[1]
        differences = {path: (files[0].get(path), files[1].get(path)) for path in {*files[0], *files[1]}
                       if files[0].get(path) != files[1].get(path) and path not in but}
        assert differences == {}
        assert one.inside("dpkg", "--audit") == ""
        assert one.go("dpkg", "-V").stdout == (fresh.go("dpkg", "-V").stdout if then else "")


@pytest.fixture
def ground(host, subhost):
    return Ground(host, subhost)


def follow(one, *words, status=0):
    done = run(FOLLOW, "--json", *words, one.conf)
    assert (done.returncode, done.stderr) == (status, ""), f"{done}\n{one.said()}"
    [row] = json.loads(done.stdout)
    return row


def follow_as_told(one):
    """The same for one with which something is left to the administrator: the lines are those of a call that changes nothing."""
    before = debs.seen(one.upper)
    told = follow(one, "--dry-run", status=LEFT)
    assert debs.seen(one.upper) == before
    row = follow(one, status=LEFT)
    assert told["left"] == row["left"] and told["packages"] == row["packages"]
    return row


def changes(row):
    return {(each["package"], each["change"]) for each in row["packages"]}


def upper_files(one):
    """The files of UPPER that are no records of dpkg's."""
    return {os.path.relpath(f"{folder}/{name}", one.upper) for folder, _, names in os.walk(one.upper) for name in names
            if "/var/lib/dpkg" not in folder} - {"etc/hostname", "etc/hosts", "etc/network/interfaces", ".reaper", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/scripts"}


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
    assert row["packages"] == [{"package": "lib", "change": "upgraded", "was": "1", "is": "2", "missing": [], "conflicts": []}]
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
    ground.is_as_fresh(one, then=lambda fresh: ground.inside(fresh, "--force-depends", "-i", own))


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
    ground.is_as_fresh(one, then=lambda fresh: ground.inside(fresh, "-P", "lib"))


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
    edit = "echo inside >/etc/lib.conf" if changed in ("inside", "both") else ":"
    ground.is_as_fresh(one, own, but={"/etc/lib.conf.dpkg-dist"}, then=lambda fresh: fresh.sh(edit))


def test_a_conffile_that_cannot_be_put_beside(ground):
    """The host has not got it as it is shipped: that is told before anything is done, in the same words."""
    versions = [deb(ground.root, "lib", version, {"etc/lib.conf": f"shipped {version}\n"}, SCRIPTS, ["etc/lib.conf"]) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    one.sh("echo inside >/etc/lib.conf")
    write(f"{ground.root}/etc/lib.conf", "outside\n")
    dpkg(ground.root, "-i", versions[1])
    os.unlink(f"{ground.root}/etc/lib.conf.dpkg-dist")
    left = ["/etc/lib.conf is the subhost's own, and the host has not got the one that lib 2 ships"]
    assert follow_as_told(one)["left"] == left and one.inside("cat", "/etc/lib.conf") == "inside"
    assert follow(one)["left"] == []


def test_a_conffile_that_came_inside_first(ground):
    """Nobody has changed it: it is the host's again, and on record as that."""
    versions = [deb(ground.root, "lib", version, {"etc/lib.conf": f"shipped {version}\n"}, SCRIPTS, ["etc/lib.conf"]) for version in "123"]
    own = deb(ground.root, "own", "1")
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(own)
    ground.inside(one, "-i", versions[1])
    assert "etc/lib.conf" in upper_files(one)
    dpkg(ground.root, "-i", versions[2])
    assert changes(follow(one)) == {("lib", "upgraded")}
    assert one.inside("cat", "/etc/lib.conf") == "shipped 3" and "etc/lib.conf" not in upper_files(one)
    ground.is_as_fresh(one, own)


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
    ground.is_as_fresh(one, but={"/srv/schema"})
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

    def hold(fresh):
        ground.inside(fresh, "-i", versions["held"][0])
        fresh.sh("echo held hold | dpkg --set-selections")
    ground.is_as_fresh(one, then=hold)


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


def test_an_alternative_that_was_chosen_inside(ground):
    """It stays chosen, also if it was the host's when it was, and whatever the host chooses since."""
    tools = [deb(ground.root, f"tool-{name}", "1", {f"usr/bin/tool-{name}": name}, {
        "postinst": f"update-alternatives --install /usr/bin/tool tool /usr/bin/tool-{name} {number}"}) for number, name in enumerate("ab")]
    dpkg(ground.root, "-i", tools[0])
    one = ground.subhost()
    one.inside("update-alternatives", "--set", "tool", "/usr/bin/tool-a")
    assert changes(follow(one)) == set()
    dpkg(ground.root, "-i", tools[1])
    assert changes(follow(one)) == {("tool-b", "new")}
    assert one.inside("readlink", "/etc/alternatives/tool") == "/usr/bin/tool-a"
    assert one.inside("update-alternatives", "--query", "tool").splitlines()[2] == "Status: manual"
    assert follow(one, "--dry-run")["is_done"] is True


def test_packages_that_cannot_be_there_together(ground):
    """It is told before anything is done, and what it is about."""
    base, lib, lib2 = deb(ground.root, "base", "1"), deb(ground.root, "lib", "1"), deb(ground.root, "lib", "2", Breaks="own (<< 2), other (>= 2)")
    dpkg(ground.root, "-i", base, lib)
    one = ground.subhost(*(deb(ground.root, name, "1", **fields) for name, fields in {
        "own": {}, "other": {}, "picky": {"Conflicts": "new (>> 1), base (>> 1)"}, "fine": {"Conflicts": "fine, new (= 1)"}}.items()))
    dpkg(ground.root, "-i", lib2, deb(ground.root, "new", "2"))
    row = follow(one, "--dry-run", status=LEFT)
    assert {each["package"]: each["conflicts"] for each in row["packages"] if each["conflicts"]} == {"own": ["lib"], "picky": ["new"]}
    assert f"{one.name}: own cannot be there together with lib\n" in run(FOLLOW, "--dry-run", one.conf).stdout


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


LISTENER = {"postinst": '[ ! -e /srv/fails ]; mkdir -p /srv; echo >/srv/begun; while [ -e /srv/waits ]; do :; done; echo "$*" >>/srv/heard'}


def spoken_to(ground):
    """A subhost with a package that listens to a trigger, and its host, whose package has just activated it."""
    listener = deb(ground.root, "listener", "1", {"usr/lib/listener": ""}, LISTENER, triggers="interest-noawait /usr/share/spoken\n")
    versions = [deb(ground.root, "speaker", version, {f"usr/share/spoken/{version}": ""}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(listener)
    one.sh("mkdir -p /srv; rm -f /srv/*")
    dpkg(ground.root, "-i", versions[1])
    return one


def test_a_trigger_that_fails(ground):
    """The next call does what is left, with a package of the subhost's, too."""
    one = spoken_to(ground)
    one.sh("echo >/srv/fails")
    assert "dpkg failed with exit status 1" in one_line(run(FOLLOW, one.conf))
    assert "iF" in one.sh("dpkg -l listener")
    assert "dpkg failed with exit status 1" in one_line(run(FOLLOW, one.conf))
    one.sh("rm /srv/fails")
    assert follow(one, "--dry-run", status=LEFT)["is_done"] is False
    follow(one)
    assert one.inside("cat", "/srv/heard") == "configure 1"       # as dpkg has it after a trigger that has failed
    assert "ii" in one.sh("dpkg -l listener") and one.inside("dpkg", "--audit") == ""
    assert follow(one, "--dry-run")["is_done"] is True


def test_two_uppers_in_one_base(ground):
    """What the host had when one of them followed is not taken for what the other is made over."""
    migrate = {"postinst": 'mkdir -p /srv; echo "$2" >>/srv/configured'}
    versions = [deb(ground.root, "data", version, {}, migrate) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost()
    other = f"{one.base}/other.conf"
    write(other, read(one.conf) + "UPPER= ./other/root\nWORK= other/work\nLIVE= other/live\n")
    for made in ("root", "work", "live"):
        os.makedirs(f"{one.base}/other/{made}")
    assert run(BOOT, other).returncode == 0
    try:
        dpkg(ground.root, "-i", versions[1])
        assert changes(follow(one)) == {("data", "upgraded")} and changes(follow(one)) == set()
        assert sorted(os.listdir(f"{one.base}/followed")) == ["other%2Froot", "root"]
        [row] = json.loads(run(FOLLOW, "--json", other).stdout)
        assert changes(row) == {("data", "upgraded")}
    finally:
        assert run(STOP, other).returncode == 0
    assert read(f"{one.base}/other/root/srv/configured") == read(f"{one.upper}/srv/configured") == "\n1\n1\n"      # the first two are the host's


def test_what_is_hidden_of_the_host_is_no_part_of_a_subhost(ground):
    """Also of one that does not run: nothing of it is copied, and a group that is hidden is none that has come."""
    for name, text in {"group": "root:x:0:\n", "shadow": "root:secret:1::::::\n", "gshadow": "root:*::\n"}.items():
        write(f"{ground.root}/etc/{name}", text)
    versions = [deb(ground.root, "lib", version, {"usr/lib/lib": version, "usr/lib/hidden/file": version, "usr/lib/hidden/moved": version})
                for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"), HIDE="secrets /usr/lib/hidden /etc/group")
    one.sh("echo me:x:1000: >/etc/group; dpkg-divert --local --no-rename --divert /usr/lib/moved --add /usr/lib/hidden/moved")
    one.stopped()
    assert changes(follow(one)) == set()
    write(f"{ground.root}/etc/group", "root:x:0:\ndaemon:x:300:\n")
    assert follow(one, "--dry-run")["is_done"] is True
    dpkg(ground.root, "-i", versions[1])
    assert changes(follow(one, "--dry-run", status=LEFT)) == {("lib", "upgraded")}
    assert changes(follow(one)) == {("lib", "upgraded")} and one.is_gone()
    assert follow(one, "--dry-run")["is_done"] is True
    assert not os.path.exists(f"{one.upper}/usr/lib/hidden") and not os.path.exists(f"{one.upper}/usr/lib/moved")
    one.booted()
    assert one.sh("ls /usr/lib/hidden; cat /etc/group") == "me:x:1000:" and follow(one, "--dry-run")["is_done"] is True


def test_killed_while_a_trigger_runs(ground):
    """The subhost boots in between, and the next call does the rest."""
    one = spoken_to(ground)
    one.sh("echo >/srv/waits")
    child = start(FOLLOW, one.conf)
    wait_for(lambda: os.path.exists(f"{one.upper}/srv/begun"))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    one.stopped()
    one.booted()
    one.sh("rm /srv/waits")
    follow(one)
    assert one.inside("cat", "/srv/heard") == "configure 1" and one.inside("dpkg", "--audit") == ""
    assert "ii" in one.sh("dpkg -l listener") and follow(one, "--dry-run")["is_done"] is True


@pytest.mark.parametrize(("lock", "who"), [("lock", "dpkg"), ("lock-frontend", "apt or dpkg")])
def test_dpkg_that_runs_inside(ground, lock, who):
    versions = [deb(ground.root, "lib", version) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    dpkg(ground.root, "-i", versions[1])
    before = debs.seen(one.upper)
    with open(f"/proc/{one.init}/root/var/lib/dpkg/{lock}", "r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert one_line(run(FOLLOW, one.conf)) == f"overlay-follow: {who} is at work in {one.name}"
        assert debs.seen(one.upper) == before
    assert changes(follow(one)) == {("lib", "upgraded")}


def test_apt_that_runs_on_the_host(ground):
    """Between two runs of dpkg, what is on record is about to change; what is settled can be followed."""
    versions = [deb(ground.root, "lib", version) for version in "123"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    with open(f"{ground.root}/var/lib/dpkg/lock-frontend", "r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        run("chroot", ground.root, "env", "DPKG_FRONTEND_LOCKED=1", "dpkg", "--unpack", versions[1])
        assert one_line(run(FOLLOW, one.conf)) == "overlay-follow: dpkg is at work on the host"
        run("chroot", ground.root, "env", "DPKG_FRONTEND_LOCKED=1", "dpkg", "--configure", "lib")
        assert changes(follow(one)) == {("lib", "upgraded")}


def test_the_plan_is_made_under_the_lock(ground):
    """What dpkg inside does before overlay-follow has the lock is not undone."""
    if not shutil.which("strace"):
        cannot_run("no strace")
    versions = [deb(ground.root, "lib", version) for version in "12"]
    own = [deb(ground.root, name, "1", {f"usr/lib/{name}": ""}) for name in ("own", "more")]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(own[0])
    dpkg(ground.root, "-i", versions[1])
    trace = f"{ground.root}/trace"
    with open(f"/proc/{one.init}/root/var/lib/dpkg/lock", "r+") as lock, open(f"/proc/{one.init}/root/var/lib/dpkg/lock-frontend", "r+") as other:
        for file in (lock, other):
            fcntl.lockf(file, fcntl.LOCK_EX)
        run("strace", "-o", trace, "-e", "trace=fcntl", FOLLOW, one.conf)
    number = [" F_OFD_SETLK," in line for line in read(trace).splitlines()].index(True) + 1
    os.unlink(trace)
    child = start("strace", "-o", trace, "-e", "trace=fcntl", "-e", f"inject=fcntl:delay_enter=2s:when={number}", FOLLOW, one.conf)
    wait_for(lambda: len(read(trace).splitlines()) >= number - 1)
    ground.inside(one, "-i", own[1])
    said, _ = child.communicate()
    assert child.returncode == 0, said
    assert "ii" in one.sh("dpkg -l more")
    ground.is_as_fresh(one, *own)


NET_RAW = bytes.fromhex("0100000200200000" + 24 * "0")       # as setcap(8) writes it


def test_a_copy_of_a_file_of_the_hosts(ground):
    """Its content is the host's, its mode and owner are the subhost's; what somebody has changed stays, and is told."""
    kinds = ("mode", "owner", "back", "changed", "gone", "moved", "same")
    versions = [deb(ground.root, "lib", version, {f"usr/lib/{kind}": version if kind != "same" else "" for kind in kinds
                                                  if version == "1" or kind not in ("gone", "moved")}) for version in "12"]
    versions.append(deb(ground.root, "libnew", "1", {"usr/lib/moved": "2"}, Breaks="lib (<< 2)", Replaces="lib (<< 2)"))
    removed = deb(ground.root, "removed", "1", {"usr/lib/removed/kept": "1", "usr/lib/removed/gone": "1"})
    dpkg(ground.root, "-i", versions[0], removed)
    one = ground.subhost(deb(ground.root, "own", "1"))
    assert changes(follow(one)) == set()
    one.sh("""cd /usr/lib; chmod 4711 mode; chown 7:7 owner; chmod 700 back; chmod 644 back; echo mine >>changed; chmod 600 gone moved same
        chmod 700 removed/*; echo mine >removed/kept""")
    os.setxattr(f"/proc/{one.init}/root/usr/lib/owner", "security.capability", NET_RAW)
    dpkg(ground.root, "-i", *versions[1:])
    dpkg(ground.root, "-P", "removed")
    row = follow_as_told(one)
    assert sorted(row["left"]) == ["/usr/lib/changed is the subhost's own, and hides that of lib",
                                   "/usr/lib/mode is not set-user-ID any more, as that of lib is not (see dpkg-statoverride(1))"]
    assert one.inside("stat", "-c", "%n %a %u %s", *(f"/usr/lib/{kind}" for kind in ("mode", "owner", "back", "changed", "moved", "same"))) == (
        "/usr/lib/mode 711 0 1\n/usr/lib/owner 644 7 1\n/usr/lib/back 644 0 1\n/usr/lib/changed 644 0 6\n/usr/lib/moved 600 0 1\n/usr/lib/same 600 0 0")
    assert one.inside("cat", "/usr/lib/mode", "/usr/lib/owner", "/usr/lib/back", "/usr/lib/moved") == "2222"
    assert os.getxattr(f"{one.upper}/usr/lib/owner", "security.capability") == NET_RAW
    assert upper_files(one) & {"usr/lib/back", "usr/lib/gone"} == set()
    assert one.sh("ls /usr/lib/removed").split() == ["kept"]
    assert follow(one)["left"] == [] and follow(one, "--dry-run")["packages"] == []


def test_a_copy_of_what_is_set_user_id_no_more(ground):
    """A host that does not trust its program any more is not answered by a copy in a subhost that does, but for an override."""
    write(f"{ground.root}/etc/group", "root:x:0:\n")
    names = ("mode", "group", "same", "still", "back", "override", "own", "added", "kept")
    files = [{f"usr/bin/{name}": "" if name in ("same", "kept") else version for name in names} for version in "12"]
    before = dict.fromkeys((f"usr/bin/{name}" for name in names if name not in ("added", "kept")), 0o6755)
    versions = [deb(ground.root, "lib", "1", files[0], modes=before), deb(ground.root, "lib", "2", files[1], modes={"usr/bin/still": 0o6755})]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    assert changes(follow(one)) == set()
    one.sh("""cd /usr/bin; chmod 4711 mode same; chmod 2711 group; chmod 6711 still; chmod 600 back; chmod 6755 back; echo mine >own; chmod 4755 own
        chmod u+s added kept
        dpkg-statoverride --update --add root root 4711 /usr/bin/override""")
    dpkg(ground.root, "-i", versions[1])
    assert {*follow_as_told(one)["left"]} == {
        *(f"/usr/bin/{name} is not {kind} any more, as that of lib is not (see dpkg-statoverride(1))"
          for name, kind in {"mode": "set-user-ID", "same": "set-user-ID", "group": "set-group-ID", "added": "set-user-ID",
                             "kept": "set-user-ID", "back": "set-user-ID and set-group-ID"}.items()),
        "/usr/bin/own is the subhost's own, and hides that of lib"}
    assert one.inside("stat", "-c", "%n %a", *(f"/usr/bin/{name}" for name in names)).replace("/usr/bin/", "").split("\n") == [
        "mode 711", "group 711", "same 711", "still 6711", "back 755", "override 4711", "own 4755", "added 755", "kept 755"]
    assert one.inside("cat", "/usr/bin/mode", "/usr/bin/override", "/usr/bin/back") == "222" and "usr/bin/back" not in upper_files(one)
    assert follow(one)["left"] == [] and follow(one, "--dry-run")["is_done"] is True


def test_what_is_left_of_a_package_that_the_host_has_removed(ground):
    """Directories that only copies of its files were in, and what hid some of them, go; those in which anything else is stay."""
    files = {f"usr/lib/{name}": "1" for name in ("copied/a/b", "hidden/a/b", "both/a", "both/b", "used/a", "used/b")}
    base, lib = deb(ground.root, "base", "1"), deb(ground.root, "lib", "1", files)
    dpkg(ground.root, "-i", base, lib)
    write(f"{ground.root}/usr/lib/used/host", "")
    one = ground.subhost(deb(ground.root, "own", "1"))
    assert changes(follow(one)) == set()
    one.sh("cd /usr/lib; chown -R 7:7 copied; rm hidden/a/b both/a used/a; chmod 600 both/b; mkdir mine; echo mine >used/mine")
    dpkg(ground.root, "-P", "lib")
    assert changes(follow(one)) == {("lib", "removed")}
    assert one.sh("cd /usr/lib; ls -d copied hidden both mine used used/* 2>/dev/null || :").split() == ["mine", "used", "used/host", "used/mine"]
    assert follow(one, "--dry-run")["is_done"] is True


def test_a_copy_of_what_is_of_another_kind_now(ground):
    """A file that was a directory, and the other way round."""
    versions = [deb(ground.root, "lib", "1", {"usr/share/a": "1", "usr/share/b/c/d": "1", "usr/share/e/f": "1"}),
                deb(ground.root, "lib", "2", {"usr/share/a/x": "2", "usr/share/b/c": "2", "usr/share/e": "2"})]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    assert changes(follow(one)) == set()
    one.sh("chmod 700 /usr/share/a /usr/share/b/c/d; echo mine >/usr/share/e/mine")
    dpkg(ground.root, "-i", versions[1])
    assert follow_as_told(one)["left"] == ["/usr/share/e is the subhost's own, and hides that of lib"]
    assert one.inside("cat", "/usr/share/a/x", "/usr/share/b/c", "/usr/share/e/mine") == "22mine"
    assert follow(one, "--dry-run")["is_done"] is True


def test_what_was_changed_and_diverted_inside(ground):
    """A package that was unpacked inside, with an override and a diversion, and files that somebody has changed since."""
    write(f"{ground.root}/etc/group", "root:x:0:\n")
    files = ("override", "diverted", "changed", "new")
    versions = [deb(ground.root, "lib", version, {f"usr/bin/{name}": version for name in files}) for version in "123"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost()
    one.sh("dpkg-statoverride --add root root 0711 /usr/bin/override; dpkg-divert --local --rename --add /usr/bin/diverted")
    ground.inside(one, "-i", versions[1])
    one.sh("echo mine >/usr/bin/changed; rm /usr/bin/new; mkdir /usr/bin/new")
    dpkg(ground.root, "-i", versions[2])
    assert sorted(follow_as_told(one)["left"]) == ["/usr/bin/changed was changed inside, and hides that of lib"]
    assert one.inside("cat", "/usr/bin/override", "/usr/bin/diverted.distrib", "/usr/bin/changed") == "33mine"
    assert one.inside("stat", "-c", "%a", "/usr/bin/override") == "711" and follow(one, "--dry-run")["is_done"] is True


def test_directories_that_processes_are_in(ground):
    """They go on to work there, or are in one that is removed; all others see what the host has."""
    made = {"usr/lib/lib/a": "", "usr/lib/anew/a": "", "usr/lib/mine/a": "", "usr/lib/turned/a": "", "usr/lib/old/a": "", "usr/lib/mounted/a": ""}
    versions = [deb(ground.root, "lib", version, {**made, "usr/lib/lib/host": "3"} if version != "3" else {
        **{path: "3" for path in made if path.split("/")[2] in ("lib", "anew", "mine")}, "usr/lib/turned": "file"}, SCRIPTS)
        for version in "123"]
    dpkg(ground.root, "-i", versions[0])
    write(f"{ground.root}/usr/lib/lib/other", "of nobody")
    one = ground.subhost()
    one.sh("rm -r /usr/lib/anew /usr/lib/mine && mkdir /usr/lib/anew /usr/lib/mine && echo >/usr/lib/mine/file")
    ground.inside(one, "-i", versions[1])
    one.sh("for name in lib anew; do (cd /usr/lib/$name && exec sleep 300) >/dev/null 2>&1 & done; rm -f /usr/lib/mounted/a")
    assert run("nsenter", "-t", str(one.init), "-m", "mount", "-t", "tmpfs", "tmpfs", "/usr/lib/mounted").returncode == 0
    dpkg(ground.root, "-i", versions[2])
    row = follow_as_told(one)
    assert changes(row) == {("lib", "upgraded")}
    assert row["left"] == ["/usr/lib/mine is the subhost's own, and hides that of lib"]
    assert one.inside("ls", "/usr/lib/lib", "/usr/lib/anew", "/usr/lib/mine") == "/usr/lib/anew:\na\n\n/usr/lib/lib:\na\nother\n\n/usr/lib/mine:\nfile"
    assert one.inside("cat", "/usr/lib/lib/a", "/usr/lib/anew/a", "/usr/lib/turned") == "33file"
    one.sh("echo new >/usr/lib/lib/new; echo new >/usr/lib/anew/new")
    assert read(f"{one.upper}/usr/lib/lib/new") == "new\n"
    assert one.go("ls", "/usr/lib/old").returncode == 2 and "/usr/lib/mounted" in one.inside("cat", "/proc/self/mounts")
    assert not os.path.exists(f"{one.followed}/shown")


def test_a_copy_of_which_nobody_knows_what_it_was(ground):
    versions = [deb(ground.root, "lib", version, {"usr/lib/lib": version}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(deb(ground.root, "own", "1"))
    one.sh("chmod 600 /usr/lib/lib")
    dpkg(ground.root, "-i", versions[1])
    assert follow_as_told(one)["left"] == ["/usr/lib/lib is the subhost's own, and hides that of lib"]


def test_an_override_inside_alone(ground):
    """dpkg gives what it installs the owner and the mode of an override, whether that was there before or not."""
    write(f"{ground.root}/etc/group", "root:x:0:\n")
    versions = [deb(ground.root, "lib", version, {"usr/bin/lib": version, "usr/bin/tool": version, "usr/bin/own": version}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(versions[0])
    assert changes(follow(one)) == {("lib", "returned")}
    one.sh("dpkg-statoverride --update --add root root 0711 /usr/bin/lib; dpkg-statoverride --add root root 0700 /usr/bin/tool")
    dpkg(ground.root, "-i", versions[1])
    assert changes(follow(one)) == {("lib", "upgraded")}
    assert one.inside("stat", "-c", "%a %s", "/usr/bin/lib", "/usr/bin/tool") == "711 1\n700 1" and one.inside("cat", "/usr/bin/lib", "/usr/bin/tool") == "22"
    ground.inside(one, "-i", versions[1])
    assert changes(follow(one)) == {("lib", "returned")}
    assert one.inside("stat", "-c", "%a", "/usr/bin/lib", "/usr/bin/tool", "/usr/bin/own") == "711\n700\n755"
    assert "usr/bin/own" not in upper_files(one)


@pytest.mark.parametrize("own", ["", "--add root root 0700 /usr/bin/mine"], ids=["none", "one"])
def test_an_override_for_somebody_who_is_not_there(ground, own):
    """dpkg does not work with it: it is left out until the subhost has the user."""
    write(f"{ground.root}/etc/group", "root:x:0:\n")
    versions = [deb(ground.root, "lib", version, {"usr/bin/lib": version}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost()
    one.sh(f"echo me:x:1000:1000::/: >>/etc/passwd; echo me:x:1000: >>/etc/group; [ -z '{own}' ] || dpkg-statoverride {own}")
    assert changes(follow(one)) == set()
    for name, line in {"passwd": "them:x:1001:1001::/:", "group": "them:x:1001:"}.items():
        write(f"{ground.root}/etc/{name}", read(f"{ground.root}/etc/{name}") + line + "\n")
    run("chroot", ground.root, "dpkg-statoverride", "--add", "them", "them", "0700", "/usr/bin/lib")
    dpkg(ground.root, "-i", versions[1])
    line = "an override of the host's is left out, as the subhost has not got its user or group: them them 700 /usr/bin/lib"
    assert follow(one, status=LEFT)["left"] == [line] and follow(one, status=LEFT)["left"] == [line]
    assert one.inside("dpkg", "--audit") == "" and ("mine" in one.sh("dpkg-statoverride --list || :")) is bool(own)
    one.sh("echo them:x:1001:1001::/: >>/etc/passwd; echo them:x:1001: >>/etc/group")
    assert follow(one)["left"] == [] and "them them 700 /usr/bin/lib" in one.sh("dpkg-statoverride --list")
    assert follow(one, "--dry-run")["is_done"] is True


@pytest.mark.parametrize("unpacked", [False, True], ids=["inherited", "unpacked"])
def test_a_diversion_inside(ground, unpacked):
    """What the host upgrades comes to where the subhost has it, and what stands in its place stays."""
    versions = [deb(ground.root, "lib", version, {"usr/bin/lib": version, f"usr/bin/new{version}": version, "etc/lib.conf": version}, conffiles=["etc/lib.conf"])
                for version in "12"]
    wrapper = deb(ground.root, "wrapper", "1", {"usr/bin/lib": "wrapper"}, {
        "preinst": "dpkg-divert --package wrapper --rename --divert /usr/bin/lib.real --add /usr/bin/lib",
        "postrm": "dpkg-divert --package wrapper --rename --remove /usr/bin/lib"})
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(*([versions[0]] if unpacked else []), wrapper)
    one.sh("dpkg-divert --local --rename --add /usr/bin/new2; dpkg-divert --local --rename --add /etc/lib.conf; echo mine >/usr/bin/new2")
    follow(one)
    assert one.inside("cat", "/usr/bin/lib", "/usr/bin/lib.real") == "wrapper1"
    dpkg(ground.root, "-i", versions[1])
    assert changes(follow(one)) == {("lib", "upgraded")}
    assert one.inside("cat", "/usr/bin/lib", "/usr/bin/lib.real", "/usr/bin/new2", "/usr/bin/new2.distrib", "/etc/lib.conf.distrib") == "wrapper2mine\n22"
    assert one.inside("dpkg", "-V") == "" and "lib.conf\n" not in one.sh("ls /etc")
    assert one.sh("ls -A /usr/bin /etc | grep [.]dpkg- || :") == "" and changes(follow(one)) == set()
    ground.inside(one, "-P", "wrapper")
    follow(one)
    assert one.inside("cat", "/usr/bin/lib") == "2" and "lib.real" not in one.sh("ls /usr/bin")


def test_registers_that_alone_have_changed(ground):
    """No package has, and so it is with what the host removes."""
    write(f"{ground.root}/etc/group", "root:x:0:\n")
    dpkg(ground.root, "-i", deb(ground.root, "lib", "1", {"usr/bin/lib": "1"}))
    one = ground.subhost(deb(ground.root, "own", "1"))
    one.sh("dpkg-statoverride --add root root 0700 /usr/bin/mine; dpkg-divert --local --no-rename --add /usr/bin/mine")
    for change, found in (("--add root root 0750", True), ("--remove", False)):
        run("chroot", ground.root, "dpkg-statoverride", *change.split(), "/usr/bin/lib")
        run("chroot", ground.root, "dpkg-divert", "--local", "--no-rename", change.split()[0], "/usr/bin/other")
        assert changes(follow(one)) == set()
        assert ("/usr/bin/lib" in one.sh("dpkg-statoverride --list")) is found
        assert ("/usr/bin/other" in one.sh("dpkg-divert --list")) is found
        assert "/usr/bin/mine" in one.sh("dpkg-statoverride --list") and "/usr/bin/mine" in one.sh("dpkg-divert --list")
        assert follow(one, "--dry-run")["is_done"] is True


def accounts(root, **lines):
    for name, text in lines.items():
        write(f"{root}/etc/{name}", text)


def test_accounts_that_do_not_fit(ground):
    """Numbers that are another one's, with nothing else to do: they are told, each time, and nobody gets them."""
    accounts(ground.root, group="root:x:0:\n")
    dpkg(ground.root, "-i", deb(ground.root, "lib", "1"))
    one = ground.subhost(deb(ground.root, "own", "1"))
    one.sh("echo 'mine:x:300:' >>/etc/group; echo 'byname:x:310:' >>/etc/group; echo 'us:x:0400:400::/:' >>/etc/passwd")
    assert follow(one)["left"] == []
    with open(f"{ground.root}/etc/passwd") as file:
        passwd = file.read()
    accounts(ground.root, group="root:x:0:\ntheirs:x:300:\nbyname:x:301:\nwhole:x:302:\n",
             passwd=passwd + "theirs:x:300:300::/:\nbyname:x:301:301::/:\nwhole:x:302:302:\u2028 a:/:\nthem:x:400:302::/:\n")
    left = ["byname of group(5) has the number 310 in the subhost, and 301 on the host",
            "theirs of group(5) has a number on the host that is another one's in the subhost: 300",
            "theirs of passwd(5) has a group on the host that it cannot have in the subhost: theirs",
            "them of passwd(5) has a number on the host that is another one's in the subhost: 400"]
    row = follow(one, status=LEFT)
    assert sorted(row["left"]) == left
    assert one.inside("cat", "/etc/passwd").split("\n")[-3:] == ["us:x:0400:400::/:", "byname:x:301:310::/:", "whole:x:302:302:\u2028 a:/:"]
    assert one.inside("cat", "/etc/group").split("\n")[-1] == "whole:x:302:"
    before = debs.seen(one.upper)
    assert sorted(follow(one, status=LEFT)["left"]) == left and debs.seen(one.upper) == before
    assert {line.partition(": ")[2] for line in run(FOLLOW, one.conf).stdout.splitlines()} == {*left}


def test_members_of_groups(ground):
    """What packages have changed is; what people have changed, on either side, stays."""
    with open(f"{ground.root}/etc/passwd") as file:
        passwd = file.read() + "daemon:x:300:300::/:\nweb:x:301:300::/:\nold:x:302:300::/:\nme:x:1000:1000::/:\n"
    accounts(ground.root, passwd=passwd, group="root:x:0:\nkeys:x:300:old,web\n", gshadow="root:*::\nkeys:!::old,web\n")
    dpkg(ground.root, "-i", deb(ground.root, "lib", "1"))
    one = ground.subhost()
    one.sh("echo inside:x:1001:1001::/: >>/etc/passwd; sed -i '/^keys/s/web/web,inside/' /etc/group /etc/gshadow")
    assert follow(one)["left"] == []
    accounts(ground.root, group="root:x:0:\nkeys:x:300:web,daemon,me\nnew:x:303:web,me\n", gshadow="root:*::\nkeys:!::web,daemon,me\nnew:!::web,me\n")
    assert follow(one)["left"] == []
    assert one.inside("cat", "/etc/group") == "root:x:0:\nkeys:x:300:web,inside,daemon\nnew:x:303:web"
    assert one.inside("cat", "/etc/gshadow") == "root:*::\nkeys:!::web,inside,daemon\nnew:!::web"
    assert follow(one, "--dry-run")["is_done"] is True


HOSTILE = {
    "a status file that is long": ("status", lambda path: os.truncate(path, 1 << 32)),
    "one of too many fields": ("status", lambda path: write(path, "Package: a\n" + "a:\n" * (1 << 19))),
    "a list that is long": ("info/lib.list", lambda path: os.truncate(path, 1 << 40)),
    "one of too many lines": ("info/lib.list", lambda path: write(path, "/a\n" * (1 << 20))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_records_that_are_hostile(ground, kind):
    """They cost nobody his memory, or his patience: that is one line."""
    versions = [deb(ground.root, "lib", version, {"usr/lib/lib": version}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(versions[0], deb(ground.root, "own", "1"))
    dpkg(ground.root, "-i", versions[1])
    name, spoil = HOSTILE[kind]
    spoil(f"{one.upper}/var/lib/dpkg/{name}")
    limited = "ulimit -v 400000; exec "
    for command in (FOLLOW, DIFF):
        line = one_line(run("sh", "-c", f"{limited} {command} {one.conf}", seconds=30))
        assert "MiB" in line or "has more than" in line, line


def test_the_first_boot_is_what_a_subhost_was_made_over(ground):
    """It has never been followed, and is not running when its host is upgraded."""
    migrate = 'mkdir -p /srv; echo "$2 to {0}" >>/srv/schema'
    versions = [deb(ground.root, "data", version, {}, {"postinst": migrate.format(version)}) for version in "12"]
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost()
    one.sh("echo mine >>/srv/schema")
    one.stopped()
    dpkg(ground.root, "-i", versions[1])
    one.booted()
    one.stopped()
    assert changes(follow(one)) == {("data", "upgraded")} and one.is_gone()
    assert read(f"{one.upper}/srv/schema").splitlines() == [" to 1", "mine", "1 to 2"]
    shutil.rmtree(one.upper)
    os.mkdir(one.upper)
    dpkg(ground.root, "-i", versions[0])
    one.booted()
    assert changes(follow(one)) == set()        # UPPER is a new one


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


def test_marks_of_packages_that_are_gone(ground):
    """The subhost has none of what the host has removed; those of its own packages stay."""
    marks = "var/lib/apt/extended_states"
    common = {"Architecture": "amd64", "Auto-Installed": "1"}
    stays, gone, turned, own = ({"Package": name, **common} for name in ("stays", "gone", "turned", "own"))
    dpkg(ground.root, "-i", *(deb(ground.root, one["Package"], "1") for one in (stays, gone, turned)))
    one = ground.subhost(deb(ground.root, "own", "1"))
    one.write(marks, stanzas(gone, stays, {**gone, "Package": "unknown"}, turned, own))
    dpkg(ground.root, "-P", "gone", "turned")
    dpkg(ground.root, "-i", deb(ground.root, "turned", "2", Architecture="all"))
    assert ("gone", "removed") in changes(follow(one))
    assert read(f"{one.upper}/{marks}") == stanzas(stays, {**gone, "Package": "unknown"}, turned, own)


@pytest.mark.deadline(600)
def test_killed_anywhere(ground):
    """After each system call that changes something, the next call does the rest; and in between it boots."""
    if not shutil.which("strace"):
        cannot_run("no strace")
    files = {"usr/lib/lib/a": "", "etc/lib.conf": "shipped"}
    versions = [deb(ground.root, "lib", version, {**files, "usr/lib/lib/b": version, f"usr/lib/lib.{version}": ""}, SCRIPTS, ["etc/lib.conf"])
                for version in "123"]
    heard = {"postinst": 'mkdir -p /srv; [ "$1$2" = configure ] || echo >/srv/heard'}
    own = deb(ground.root, "own", "1", {"usr/lib/own": ""}, heard, triggers="interest-noawait /usr/lib/lib\n", Depends="lib")
    dpkg(ground.root, "-i", versions[0])
    one = ground.subhost(own)
    one.sh("rm -r /usr/lib/lib && mkdir /usr/lib/lib")          # which hides the host's
    ground.inside(one, "-i", versions[1])
    one.sh("rm -f /srv/heard")
    one.stopped()
    shutil.rmtree(f"{one.followed}", ignore_errors=True)
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
        shutil.rmtree(f"{one.followed}", ignore_errors=True)
        assert run("cp", "-a", f"{one.base}/saved", one.upper).returncode == 0
        one.booted()

    again()
    assert changes(follow(one)) == {("lib", "upgraded")}
    assert os.path.exists(f"{one.upper}/srv/heard")
    ground.is_as_fresh(one, own, but={"/srv/heard"})
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
