"""What dpkg does by itself on a host whose subhosts run: FOLLOW of overlay-boot.conf(5)."""
import os
import shutil
import time

import debs
import pytest
from conftest import cannot_run
from debs import deb, dpkg
from machine import GO, PROGRAMS, read, run, start, wait_for, write
from test_follow import SERVICE

HOOKS = "/etc/dpkg/dpkg.cfg.d/overlay-boot"


@pytest.fixture(scope="module")
def pristine(run_directory):
    return debs.system(f"{run_directory}/hooked")


@pytest.fixture
def host(pristine, directory):
    root = shutil.copytree(pristine, f"{directory}/host", symlinks=True)
    shutil.copy(f"{root}/usr/bin/sleep", f"{root}/usr/sbin/one")
    write(f"{root}/etc/init.d/one", SERVICE.format(name="one"), 0o755)
    return root


def test_dpkg_is_told_of_the_hooks_and_of_nothing_that_could_stop_it():
    lines = [line for line in read(HOOKS).splitlines() if not line.startswith("#")]
    assert [line.partition("=")[0] for line in lines] == ["pre-invoke", "post-invoke"]
    for line in lines:
        done = run("unshare", "-m", "sh", "-ec", f'mount -t tmpfs tmpfs {PROGRAMS}; sh -c "$1"', "sh", line.partition("=")[2])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), line


def test_dpkg_itself_runs_them(host, subhost):
    """The machine's own dpkg, with a root of the test's."""
    one = subhost(LOWER=host).booted()
    lib = deb(host, "lib", "1", {"usr/lib/lib": "1"})
    assert one.go("cat", "/usr/lib/lib").returncode == 1
    done = run("dpkg", f"--root={host}", "-i", f"{host}{lib}")
    assert done.returncode == 0, done.stderr
    assert one.inside("cat", "/usr/lib/lib") == "1" and os.path.exists(f"{one.followed}/md5sums")


IN_BACKGROUND = "the packages follow in the background (overlay-log shows how)"


def version(one, package):
    return one.inside("dpkg-query", "-W", "-f", "${Version}", package)


@pytest.mark.parametrize("wish", ["no", "view", "packages", "restart"])
def test_what_is_done(host, subhost, wish):
    versions = [deb(host, "lib", version, {"usr/lib/lib": version, "usr/sbin/one": read(f"{host}/usr/sbin/one")}) for version in "12"]
    own = deb(host, "own", "1")
    dpkg(host, "-i", versions[0])
    one = subhost(LOWER=host, START="/etc/init.d/one", FOLLOW=wish).booted()
    assert one.go("dpkg", "-i", own).returncode == 0 and one.inside("cat", "/usr/lib/lib") == "1"
    run(f"{PROGRAMS}/upgraded", "pre")
    assert os.path.exists(f"{one.followed}/md5sums") == (wish != "no")
    dpkg(host, "-i", versions[1])
    done = run(f"{PROGRAMS}/upgraded", "post")
    assert done.returncode == 0 and done.stdout == ""
    old = f"upgraded: old files are in use in {one.name} (/etc/init.d/one): overlay-follow --all --restart restarts the services\n"
    background = f"upgraded: {one.name}: {IN_BACKGROUND}\n"
    assert done.stderr == {"no": "", "view": old, "packages": background + old, "restart": background}[wish]
    assert one.inside("cat", "/usr/lib/lib") == ("1" if wish == "no" else "2")
    if wish in ("packages", "restart"):
        wait_for(lambda: "overlay-follow: lib is 2, was 1\n" in read(one.log))
    assert version(one, "lib") == ("2" if wish in ("packages", "restart") else "1")
    assert one.inside("cat", "/order").splitlines()[1:] == (["no one", "one"] if wish == "restart" else [])


def test_between_two_runs_of_dpkg(host, subhost):
    """As apt makes them: what is unpacked is seen, and the rest waits."""
    versions = [deb(host, "lib", version, {"usr/lib/lib": version}) for version in "12"]
    dpkg(host, "-i", versions[0])
    one = subhost(LOWER=host, FOLLOW="restart").booted()
    assert one.go("dpkg", "-i", deb(host, "own", "1")).returncode == 0
    dpkg(host, "--unpack", versions[1])
    assert run(f"{PROGRAMS}/upgraded", "post").stderr == ""
    assert one.inside("cat", "/usr/lib/lib") == "2" and version(one, "lib") == "1"
    dpkg(host, "--configure", "lib")
    assert run(f"{PROGRAMS}/upgraded", "post").stderr == f"upgraded: {one.name}: {IN_BACKGROUND}\n"
    wait_for(lambda: version(one, "lib") == "2")


def locked(path):
    """A file that is locked as dpkg does it, until it is closed: by a process of its own."""
    process = start("python3", "-c", f"""if True:
        import fcntl, sys
        file = open({path!r}, "a")
        fcntl.lockf(file, fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.read()""", stdin=-1)
    assert process.stdout.readline() == b"locked\n"
    return process


def test_apt_goes_first(host, subhost):
    """What is run in a subhost waits until the package manager of the host has come to an end, however often it runs dpkg."""
    versions = [deb(host, "lib", version, {"usr/lib/lib": version}) for version in "123"]
    dpkg(host, "-i", versions[0])
    one = subhost(LOWER=host, FOLLOW="packages").booted()
    assert one.go("dpkg", "-i", deb(host, "own", "1")).returncode == 0
    frontend = locked(f"{host}/var/lib/dpkg/lock-frontend")
    for number in (1, 2):
        done = run("env", "DPKG_FRONTEND_LOCKED=true", "chroot", host, "dpkg", "-i", versions[number])
        assert done.returncode == 0, done.stderr
        assert IN_BACKGROUND in run(f"{PROGRAMS}/upgraded", "post").stderr
        assert version(one, "lib") == "1"
    frontend.communicate()
    wait_for(lambda: version(one, "lib") == "3")
    wait_for(lambda: "lib is 3, was 1\n" in read(one.log))
    assert read(one.log).count("overlay-follow: ") == 1
    run(f"{PROGRAMS}/upgraded", "post")
    wait_for(lambda: "overlay-follow: nothing to follow\n" in read(one.log))


HELD = "[ ! -p /hold ] || read -r line </hold"


def test_dpkg_waits_for_no_maintainer_script(host, subhost):
    """Nor for another overlay-follow that does: what the host has is seen meanwhile."""
    versions = [deb(host, "lib", version, {"usr/lib/lib": version}, scripts={"postinst": HELD}) for version in "123"]
    dpkg(host, "-i", versions[0])
    one = subhost(LOWER=host, FOLLOW="packages").booted()
    assert one.go("dpkg", "-i", deb(host, "own", "1")).returncode == 0
    one.sh("mkfifo /hold")
    for number in (1, 2):
        dpkg(host, "-i", versions[number])
        done = run(f"{PROGRAMS}/upgraded", "post")
        assert (done.returncode, done.stderr) == (0, f"upgraded: {one.name}: {IN_BACKGROUND}\n")
        assert one.inside("cat", "/usr/lib/lib") == f"{number + 1}"
        wait_for(lambda: run("pgrep", "-f", "lib.postinst configure").returncode == 0)
    for told in ("lib is 2, was 1", "lib is 3, was 2"):
        one.sh("echo >/hold")
        wait_for(lambda told=told: told in read(one.log))
    assert version(one, "lib") == "3"


MUTE = """if True:
    import ctypes, os, sys, time
    fuse = os.open("/dev/fuse", os.O_RDWR)
    namespace = os.open(f"/proc/{sys.argv[1]}/ns/mnt", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(namespace, 0) == 0
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    assert libc.mount(b"mute", b"/etc/init.d", b"fuse", 0, options.encode()) == 0, os.strerror(ctypes.get_errno())
    print("mounted", flush=True)
    time.sleep(1000000)
"""


def test_dpkg_waits_for_no_file_system_of_a_subhost(host, subhost):
    """Such as one on which nothing answers, in the place of its start scripts.  Other subhosts are looked at meanwhile."""
    if "fuse\n" not in read("/proc/filesystems"):
        cannot_run("no FUSE")
    one, *others = [subhost(LOWER=host, START="/etc/init.d/one").booted() for _ in range(8)]
    for each in (one, *others):
        each.sh("/etc/init.d/one stop; /etc/init.d/one start")          # by one that is not in the control group of the service
    shutil.copy(f"{host}/usr/sbin/one", f"{host}/usr/sbin/new")
    os.rename(f"{host}/usr/sbin/new", f"{host}/usr/sbin/one")
    mute = [start("python3", "-c", MUTE, str(each.init)) for each in (one, *others[:-1])]
    for each in mute:
        assert each.stdout.readline() == b"mounted\n", each.stderr.read()
    begun = time.monotonic()
    done = run(f"{PROGRAMS}/upgraded", "post")
    assert time.monotonic() - begun < 15
    for each in mute:
        each.kill()
        each.communicate()
    said = done.stderr.splitlines()
    assert done.returncode == 0 and len(said) == 8
    assert f"upgraded: {one.name}: could not be looked at within 10 s: call overlay-follow {one.name}" in said
    assert said[-1].startswith(f"upgraded: old files are in use in {others[-1].name} (/etc/init.d/one): ")


# A chain of processes, the last of which maps a file that has another one in its place.
CHAIN = """#!/bin/sh
[ $1 -eq 0 ] || { "$0" $(($1 - 1)); exit; }
exec /usr/bin/python3 -ISc 'if True:
    import mmap, os, signal
    with open("/var/tmp/old", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    os.rename("/var/tmp/new", "/var/tmp/old")
    print("done", flush=True)
    signal.pause()'
"""


def test_no_subhost_is_in_the_way(subhost):
    """Processes of it can be as odd as they like."""
    one = subhost(START="/opt/service", STOP_TIMEOUT="0.1")
    one.write("opt/service", "#!/bin/sh\n", 0o755)
    one.booted()
    one.sh("echo old >/var/tmp/old; echo new >/var/tmp/new")
    one.write("opt/chain", CHAIN, 0o755)
    chain = start(GO, one.name, "/opt/chain", "1100")
    assert chain.stdout.readline() == b"done\n"
    done = run(f"{PROGRAMS}/upgraded", "post")
    assert done.returncode == 0 and "Traceback" not in done.stderr and "recursion" not in done.stderr
    name = "x" * 250
    deleted = start(GO, one.name, "/usr/bin/python3", "-IS", "-c", f"""if True:
        import mmap, os, time
        with open("/var/tmp/{name}", "w+b") as file:
            file.write(b"x")
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0)
        os.unlink("/var/tmp/{name}")
        print("done", flush=True)
        time.sleep(1000000)""")
    assert deleted.stdout.readline() == b"done\n"
    assert f"{one.name}:" not in run(f"{PROGRAMS}/upgraded", "post").stderr
    assert one.stop().returncode == 0
    chain.communicate(), deleted.communicate()


def test_what_fails_is_told_and_is_no_failure_of_dpkg(host, subhost):
    one = subhost(LOWER=host, FOLLOW="view").booted()
    os.unlink(one.conf)
    done = run(f"{PROGRAMS}/upgraded", "post")
    assert (done.returncode, done.stderr) == (0, f"upgraded: {one.name}: cannot read {one.conf}: No such file or directory\n")
    one.configure(FOLLOW="always")
    assert f"upgraded: {one.name}: FOLLOW=always is none of view, packages, restart and no\n" == run(f"{PROGRAMS}/upgraded", "post").stderr
