"""What dpkg does by itself on a host whose subhosts run: FOLLOW of overlay-boot.conf(5)."""
import contextlib
import fcntl
import os
import shutil

import debs
import pytest
from debs import deb, dpkg
from machine import GO, PROGRAMS, read, run, start, write
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
    assert one.inside("cat", "/usr/lib/lib") == "1" and os.path.exists(f"{one.base}/followed/md5sums")


@pytest.mark.parametrize("wish", ["no", "view", "packages", "restart"])
def test_what_is_done(host, subhost, wish):
    versions = [deb(host, "lib", version, {"usr/lib/lib": version, "usr/sbin/one": read(f"{host}/usr/sbin/one")}) for version in "12"]
    own = deb(host, "own", "1")
    dpkg(host, "-i", versions[0])
    one = subhost(LOWER=host, START="/etc/init.d/one", FOLLOW=wish).booted()
    assert one.go("dpkg", "-i", own).returncode == 0 and one.inside("cat", "/usr/lib/lib") == "1"
    run(f"{PROGRAMS}/upgraded", "pre")
    assert os.path.exists(f"{one.base}/followed/md5sums") == (wish != "no")
    dpkg(host, "-i", versions[1])
    done = run(f"{PROGRAMS}/upgraded", "post")
    assert done.returncode == 0 and done.stdout == ""
    said = f"upgraded: old files are in use in {one.name} (/etc/init.d/one): overlay-follow --all --restart restarts the services\n"
    assert done.stderr == (said if wish in ("view", "packages") else "")
    assert one.inside("cat", "/usr/lib/lib") == ("1" if wish == "no" else "2")
    assert one.inside("dpkg-query", "-W", "-f", "${Version}", "lib") == ("2" if wish in ("packages", "restart") else "1")
    assert one.inside("cat", "/order").splitlines()[1:] == (["no one", "one"] if wish == "restart" else [])


def test_between_two_runs_of_dpkg(host, subhost):
    """As apt makes them: what is unpacked is seen, and the rest waits."""
    versions = [deb(host, "lib", version, {"usr/lib/lib": version}) for version in "12"]
    dpkg(host, "-i", versions[0])
    one = subhost(LOWER=host, FOLLOW="restart").booted()
    assert one.go("dpkg", "-i", deb(host, "own", "1")).returncode == 0
    for words, version in ((("--unpack", versions[1]), "1"), (("--configure", "lib"), "2")):
        dpkg(host, *words)
        assert run(f"{PROGRAMS}/upgraded", "post").stderr == ""
        assert one.inside("cat", "/usr/lib/lib") == "2"
        assert one.inside("dpkg-query", "-W", "-f", "${Version}", "lib") == version


def test_it_waits_for_no_other_one(host, subhost):
    """Which may be at work with maintainer scripts of the subhost, for hours."""
    one = subhost(LOWER=host).booted()
    with open_directory(f"/run/overlay-boot/{one.name}") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(f"{PROGRAMS}/upgraded", "post")
    assert (done.returncode, done.stderr) == (0, f"upgraded: {one.name}: another overlay-follow is at work with it\n")
    assert run(f"{PROGRAMS}/upgraded", "post").stderr == ""


@contextlib.contextmanager
def open_directory(path):
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield held
    os.close(held)


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
