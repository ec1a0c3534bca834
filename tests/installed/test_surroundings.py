"""Odd surroundings: a subhost, a read-only UPPER, no /dev/null, no current directory, no process to be had."""
import os
import shutil

import pytest
from conftest import cannot_run
from machine import BASELINE, BOOT, DISKFILE, GO, LAYERS, LS, PROGRAMS, SHARE, STATES, STOP, UNFENCED, one_line, run, warnings


def in_mounts(script, *words, **how):
    """Run a shell script in a mount namespace of its own: "$@" are the words."""
    return run("unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", *words, **how)


# In a subhost

@pytest.fixture
def nested(subhost):
    """A running subhost with a tmpfs on /run/t, where another one can be: inner.conf."""
    one = subhost(**UNFENCED).booted()
    one.sh("mkdir -p /run/t; mount -t tmpfs tmpfs /run/t; cd /run/t; mkdir root work live; printf 'START=none\n' >inner.conf; "
           "mkdir -p /opt/x/root /opt/x/work /opt/x/live; printf 'START=none\n' >/opt/x/x.conf")
    return one


def test_a_subhost_in_a_subhost(nested):
    """Wherever UPPER can be one, as on a tmpfs."""
    assert nested.inside(BOOT, "/run/t/inner.conf") == ""
    assert nested.inside(GO, "inner", "hostname") == "inner"
    assert "inner" in nested.inside(LS) and nested.inside(SHARE, "/run/t", "inner") == ""
    assert nested.inside(STOP, "--all") == ""
    assert nested.go("test", "-e", STATES).returncode == 1
    assert nested.inside(BOOT, "/run/t/inner.conf") == ""
    nested.stopped()


def test_a_subhost_in_a_subhost_on_a_tmpfs_or_a_share(nested, directory):
    for place in ("root", "work"):
        os.makedirs(f"{directory}/shared/{place}")
    assert run(SHARE, f"{directory}/shared:/srv/shared", nested.name).returncode == 0
    for values in ("UPPER=tmpfs:50M", "UPPER=/srv/shared/root\nWORK=/srv/shared/work"):
        nested.sh(f"printf 'START=none\n{values}\n' >/opt/x/x.conf")
        assert nested.inside(BOOT, "--check", "/opt/x/x.conf") and nested.inside(BOOT, "/opt/x/x.conf") == ""
        assert nested.inside(GO, "x", "touch", "/written") == "" and nested.inside(STOP, "x") == ""
    assert os.path.exists(f"{directory}/shared/root/written")


@pytest.mark.parametrize("options", [[], ["--check"], ["--foreground"], ["--shell"]])
def test_upper_on_the_root_of_a_subhost(nested, options):
    line = one_line(nested.go(BOOT, *options, "/opt/x/x.conf"))
    assert line.startswith("overlay-boot: UPPER=/opt/x/root is on an overlay mount itself"), line
    assert nested.go("test", "-e", STATES).returncode == 1


def test_an_image_in_a_subhost(nested):
    nested.sh("cd /run/t; mkdir mnt; echo 'IMAGE=x.img' >>inner.conf; truncate -s 8M x.img; mkfs.ext4 -q x.img")
    for command in ([DISKFILE, "--create", "8M", "/run/t/y.img"], [BOOT, "/run/t/inner.conf"], [BOOT, "--check", "/run/t/inner.conf"]):
        assert "there is no /dev/loop-control" in one_line(nested.go(*command))


def test_a_baseline_in_a_subhost(nested):
    """A whiteout cannot be made in its root."""
    line = one_line(nested.go(BASELINE, "--offline", "/opt/x/baseline"))
    assert line.startswith("overlay-baseline: cannot hide /") and "overlay mount" in line
    assert nested.inside("ls", "-A", "/opt/x").split() == ["live", "root", "work", "x.conf"]


# In a container whose root is none of the host's, as a subhost with USERNS is one

@pytest.fixture
def contained(subhost, small_root):
    """What a boot that fails in such a one says, with these options, though UPPER is on a tmpfs: contained(option, VARIABLE=value, ...)."""
    outer = subhost(USERNS="auto", SHARE=f"{small_root}:/srv/root").booted()
    outer.sh("mkdir -p /run/t; mount -t tmpfs tmpfs /run/t; cd /run/t; mkdir root work live")

    def attempt(*options, **settings):
        outer.sh("cat >/run/t/inner.conf", input="START=none\n" + "".join(f"{name}={value}\n" for name, value in settings.items()))
        line = one_line(outer.go(BOOT, *options, "/run/t/inner.conf"))
        assert outer.go("test", "-e", STATES).returncode == 1
        return line
    attempt.outer = outer
    return attempt


BOTH = pytest.mark.parametrize("options", [[], ["--check"]])


@BOTH
def test_mounts_that_are_locked(contained, options):
    why = "LOWER=/ has mounts below it that are locked, as in a container: it must be another directory"
    assert contained(*options).endswith(why)


def test_no_device_files(contained):
    assert contained(LOWER="/srv/root", OVERLAY="redirect_dir=nofollow") == "overlay-boot: cannot make /dev/console: this is a container that may not make device files"


@BOTH
def test_ids_that_are_not_the_containers(contained, options):
    line = contained(*options, USERNS="100000:65536")
    assert line == "overlay-boot: USERNS=100000:65536: this is a container without the ids 100000 to 165535"


@BOTH
@pytest.mark.parametrize("users", ["no", "auto"])
def test_no_user_namespaces(contained, options, users):
    """As on a host with that setting."""
    contained.outer.sh("echo 0 >/proc/sys/user/max_user_namespaces")
    line = contained(*options, USERNS=users)
    assert line == ("overlay-boot: cannot make a user namespace: user.max_user_namespaces is 0; raise it by sysctl(8), or see "
                    '"How far capabilities reach" in overlay-boot(7)')


# A root that is not that of the mount namespace, chroot(2)

@pytest.mark.parametrize("users", ["no", "auto"])
def test_a_subhost_in_a_chroot(subhost, directory, machine, users):
    one = subhost(START="none", USERNS=users)
    os.mkdir(f"{directory}/jail")
    done = in_mounts('mount --rbind / "$1"; cd "$1/tmp"; shift; exec chroot "$PWD/.." /bin/sh -euc "$@"', f"{directory}/jail",
                     f"""{BOOT} "$1"; {GO} "$2" sh -c 'echo $(readlink /proc/1/ns/user) $(stat -c %u /)'; readlink /proc/self/ns/user; {STOP} "$2" """,
                     "sh", one.conf, one.name)
    assert (done.returncode, warnings(done)) == (0, [])
    users_inside, owner, users_here = done.stdout.split()
    assert owner == "0" and users_inside != users_here
    machine.is_as_before()


# A read-only UPPER

@pytest.fixture
def on_tmpfs(subhost):
    """A subhost that was booted and stopped once, on a tmpfs that can be made read-only: on_tmpfs(script, command...)."""
    one = subhost()

    def attempt(script, *command):
        return in_mounts(f"""
            mount -t tmpfs tmpfs "$1"; cd "$1"; mkdir root work live; printf 'START=none\\n' >"$2"; {BOOT} "$2"; {STOP} "$2"
            {script}
            shift 2; exec "$@"
        """, one.base, one.conf, *command)
    attempt.one = one
    return attempt


@pytest.mark.parametrize("script", ["mount -o remount,ro .", "mount --bind . .; cd .; mount -o remount,bind,ro \"$PWD\""])
@pytest.mark.parametrize("options", [[], ["--check"], ["--shell"]])
def test_upper_on_a_read_only_file_system(on_tmpfs, machine, script, options):
    """Though nothing is to be written into it any more: the first boot has done that."""
    one = on_tmpfs.one
    line = one_line(on_tmpfs(script, BOOT, *options, one.conf))
    assert line == f"overlay-boot: UPPER={one.upper} is on a read-only file system"
    machine.is_as_before()


def test_a_new_upper_on_a_read_only_file_system(on_tmpfs, machine):
    one = on_tmpfs.one
    line = one_line(on_tmpfs("rm -r root/etc; mount -o remount,ro .", BOOT, one.conf))
    assert line == f"overlay-boot: cannot write etc/hostname into UPPER={one.upper}: Read-only file system"
    machine.is_as_before()


@pytest.mark.parametrize("place", [".", "work"])
def test_a_work_that_is_immutable(subhost, fails, place):
    """The kernel would mount the root read-only, without a word."""
    one = subhost().booted()
    one.stopped()
    if run("chattr", "+i", f"{one.work}/{place}").returncode:
        cannot_run("the file system has no chattr(1)")
    try:
        assert f"WORK={one.work} cannot be written to" in fails(one)
        assert f"WORK={one.work} cannot be written to" in one_line(run(BOOT, "--check", one.conf))
    finally:
        run("chattr", "-i", f"{one.work}/{place}")
    one.booted()


# /dev/null

NULL = """
    mkdir /run/dev.$$; mount --rbind /dev /run/dev.$$; mount -t tmpfs tmpfs /dev
    for one in /run/dev.$$/*; do case $one in */null) ;; *) ln -s "$one" /dev ;; esac; done
"""
NO_NULL = {"missing": ("", "No such file or directory"), "a file": (">/dev/null", "it is not the null device"),
           "a directory": ("mkdir /dev/null", "Is a directory"), "a FIFO": ("mkfifo /dev/null", "it is not the null device"),
           "another device": ("mknod /dev/null c 1 5", "it is not the null device")}


@pytest.fixture(params=NO_NULL)
def no_null(request):
    """Run a command where /dev/null is no null device; the reason that it has to give is no_null.why."""
    make, why = NO_NULL[request.param]

    def attempt(*command, **how):
        done = in_mounts(f'{NULL}{make}\ntrap "umount -l /run/dev.$$; rmdir /run/dev.$$" EXIT; "$@"', *command, **how)
        assert "Traceback" not in done.stderr
        return done
    attempt.why = f"cannot open /dev/null: {why}"
    return attempt


@pytest.mark.parametrize("options", [[], ["--foreground"], ["--shell"]])
def test_a_boot_without_dev_null(subhost, machine, no_null, options):
    """One that starts nothing, too: the keeper would keep the caller's files open."""
    one = subhost()
    assert one_line(no_null(BOOT, *options, one.conf)) == f"overlay-boot: {no_null.why}"
    machine.is_as_before()


def test_commands_that_do_not_need_dev_null(running, directory, no_null):
    for command in ([LS], [GO, running.name, "true"], [SHARE, directory, running.name], [SHARE, "--undo", directory, running.name],
                    [BOOT, "--check", running.conf], [LAYERS], [STOP, running.conf]):
        done = no_null(*command)
        assert (done.returncode, warnings(done)) == (0, [])


def test_commands_that_need_dev_null(subhost, directory, no_null):
    one = subhost(UPPER="!echo root")
    assert one_line(no_null(BOOT, "--check", one.conf)) == f"overlay-boot: {no_null.why}"
    assert one_line(no_null(DISKFILE, "--create", "8M", f"{directory}/x.img")) == (
        f"overlay-diskfile: cannot create {directory}/x.img: {no_null.why}")
    assert one_line(no_null("sh", "-c", f"{LS} <&-")) == f"overlay-ls: {no_null.why}"


# A current directory that was removed

@pytest.fixture
def nowhere(directory):
    """Run a command in a directory that was removed."""
    def attempt(*command):
        return run("sh", "-euc", 'mkdir "$0"; cd "$0"; rmdir "$0"; exec "$@"', f"{directory}/gone", *command)
    return attempt


@pytest.mark.parametrize("command", [
    [BOOT, "x"], [BOOT, "--check", "x"], [BOOT, "--foreground", "x"], [BOOT, "--shell", "x"], [STOP, "x.conf"], [SHARE, "x", "y"],
    [SHARE, "--undo", "x", "y"], [DISKFILE, "--create", "8M", "x"], ["env", "ACTION=overlay-boot", DISKFILE, "y", "x"],
    [BASELINE, "x"], [BASELINE, "--root", "x", "/x"], *(["env", "CONFIG=x", f"{PROGRAMS}/overlay-{hook}"] for hook in ("init", "premount", "postmount")),
], ids=lambda command: " ".join(map(os.path.basename, command)))
def test_a_relative_path_in_a_removed_directory(nowhere, machine, command):
    path = "x.conf" if "x.conf" in command else "x"
    assert one_line(nowhere(*command)).endswith(f": cannot find {path}: the current directory was removed")
    machine.is_as_before()


def test_absolute_paths_in_a_removed_directory(subhost, directory, nowhere):
    one = subhost()
    image = f"{directory}/x.img"
    for command in ([BOOT, "--check", one.conf], [BOOT, one.conf], [LS], [GO, one.name, "true"], [SHARE, directory, one.name],
                    [SHARE, "--undo", directory, one.name], [STOP, one.conf], [LAYERS], [DISKFILE, "--create", "8M", image]):
        done = nowhere(*command)
        assert (done.returncode, warnings(done)) == (0, []), command


# No process to be had

LIMITS = {"EAGAIN": "the limit of processes is reached", "ENOSPC": "the limit of namespaces is reached"}


def without(call, error, *command, when="1+"):
    """Run a command in which a system call fails, as where a limit is reached."""
    if not shutil.which("strace"):
        cannot_run("strace is not installed")
    return run("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", "signal=none",
               "-e", f"inject={call}:error={error}:when={when}", *command)


@pytest.mark.parametrize("error", LIMITS)
@pytest.mark.parametrize(("options", "what"), [([], "start the keeper"), (["--foreground"], "make PID 1"), (["--shell"], "start the keeper")])
def test_no_process_for_a_boot(subhost, machine, error, options, what):
    """In the foreground, the boot is the keeper by then."""
    one = subhost()
    assert one_line(without("clone3", error, BOOT, *options, one.conf)) == f"overlay-boot: cannot {what}: {LIMITS[error]}"
    machine.is_as_before()


def test_no_namespace_for_a_boot(subhost, machine):
    one = subhost()
    assert one_line(without("unshare", "ENOSPC", BOOT, one.conf)).endswith(f": {LIMITS['ENOSPC']}")
    machine.is_as_before()


def test_no_process_for_a_command(subhost, running, directory):
    one = subhost(UPPER="!echo root")
    for command in ([BOOT, "--check", one.conf], [BOOT, one.conf], [GO, running.name, "true"], [DISKFILE, "--create", "8M", f"{directory}/x.img"]):
        line = one_line(without("clone3", "EAGAIN", *command))
        assert "cannot execute " in line and line.endswith(f": {LIMITS['EAGAIN']}"), line
    assert not os.path.exists(f"{directory}/x.img")


def test_no_process_to_stop_a_service(subhost):
    """It gets SIGTERM like the others."""
    one = subhost(START="/etc/one")
    one.write("etc/one", "#!/bin/sh\nexit 0\n", 0o755)
    one.booted()
    done = without("clone3", "EAGAIN", STOP, one.conf)
    assert (done.returncode, done.stderr) == (0, f"overlay-stop: cannot stop /etc/one: cannot execute /etc/one: {LIMITS['EAGAIN']}\n")
    assert one.is_gone()
