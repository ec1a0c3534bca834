"""Commands that are called in namespaces other than those of the host.

In some containers the namespaces of process 1 are closed, to root as well.  The tests of mount namespaces are run there
below a process 1 of their own.
"""
import os
import re
import sys

import pytest
from conftest import cannot_run
from machine import ALONE, BOOT, GO, LAYERS, LS, NETNS, SHARE, STOP, is_alive, kill, mounts, one_line, run, wait_for, write

OTHERS = "subhosts of others may come and go"
CLOSED = "the namespaces of process 1 are closed"
LIMIT = 300     # seconds

OF_ITS_OWN = {
    "private": ["unshare", "--mount"],
    "slave": ["unshare", "--mount", "--propagation", "slave"],
    "shared": ["unshare", "--mount", "--propagation", "unchanged"],
    "as ip-netns(8) makes it": ["unshare", "--mount", "--net", "--propagation", "slave", "sh", "-ec", 'mount -t sysfs sysfs /sys; exec "$@"', "sh"],
}


@pytest.fixture(params=OF_ITS_OWN.values(), ids=OF_ITS_OWN)
def within(request, machine):
    """Runs a command in another mount namespace than that of process 1: within(word, ...)."""
    if not ALONE:
        cannot_run(OTHERS)
    if closed():
        pytest.skip(f"not run: {CLOSED}")
    made = not os.path.exists(NETNS)
    if made:
        os.mkdir(NETNS)         # somebody else's, which is not removed with the last subhost
    before = of_netns()
    try:
        yield lambda *words, **how: run(*request.param, *words, **how)
        assert of_netns() == before
    finally:
        if made:
            os.rmdir(NETNS)


def closed():
    try:
        os.stat("/proc/1/ns/mnt")
        return False
    except PermissionError:
        return True


def of_netns():
    return [line for line in mounts() if f" {NETNS} " in line]


def succeeded(done):
    assert (done.returncode, done.stderr) == (0, "")


def has_name(one):
    return os.stat(f"{NETNS}/{one.name}").st_ino == os.stat(f"/proc/{one.init}/ns/net").st_ino


# Mount namespaces

@pytest.mark.deadline(2 * LIMIT)
def test_below_a_process_1_of_its_own():
    """The tests below, where they cannot be run here."""
    if not ALONE:
        cannot_run(OTHERS)
    if not closed():
        pytest.skip("not needed: the namespaces of process 1 are open, the tests below are run here")
    # The shell waits for what becomes an orphan.
    ended = run("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", '"$@" & wait $!', "sh",
                sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-rs", "--tb=short", __file__, seconds=LIMIT)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
    assert "not needed" in ended.stdout and CLOSED not in ended.stdout
    assert int(re.search(r"(\d+) passed", ended.stdout)[1]) >= 4 * len(OF_ITS_OWN)


def test_the_network_of_a_boot_has_its_name_on_the_host(within, subhost, machine):
    one = subhost()
    machine.look()
    succeeded(within(BOOT, os.path.basename(one.conf), cwd=one.base))
    assert has_name(one)
    one.stopped()
    machine.is_as_before()


def test_what_ends_there_leaves_nothing_on_the_host(within, subhost, machine):
    one = subhost()
    machine.look()
    succeeded(within(BOOT, one.conf))
    keeper = one.keeper
    kill(one.init, 9)
    wait_for(lambda: not is_alive(keeper))
    machine.is_as_before()


def test_a_stop_leaves_nothing_on_the_host(within, subhost, machine):
    one = subhost()
    machine.look()
    one.booted()
    succeeded(within(STOP, one.conf))
    machine.is_as_before()


def test_hibernation_outlives_the_mount_namespace(within, subhost, machine):
    one = subhost()
    machine.look()
    succeeded(within(BOOT, "--shell", one.conf, input=""))
    assert one.row()["state"] == "hibernating"
    one.booted()
    assert has_name(one)
    kill(one.init, 9)
    wait_for(lambda: one.row()["state"] == "hibernating")
    succeeded(within(BOOT, one.conf))
    assert has_name(one)
    succeeded(within(STOP, one.conf))
    machine.is_as_before()


def test_the_files_are_those_that_the_caller_sees(subhost):
    one = subhost(SHARE="data:/data")
    write(f"{one.base}/data/file", "not seen")
    succeeded(run("unshare", "--mount", "sh", "-ec", f"""
        mount -t tmpfs tmpfs {one.base}/data; echo seen >{one.base}/data/file; exec {BOOT} {one.conf}"""))
    assert one.inside("cat", "/data/file") == "seen"


# User namespaces

@pytest.mark.parametrize("options", ["-Ur", "-Urm", "-Urmn"])
def test_root_of_a_user_namespace_is_refused(host, subhost, machine, options):
    if run("unshare", options, "true").returncode:
        cannot_run("no user namespaces here")
    one, other = subhost().booted(), subhost()
    machine.look()
    for words in ([BOOT, other.conf], [BOOT, "--all"], [BOOT, "--shell", other.conf], [BOOT, "--check", other.conf], [GO, one.name, "true"],
                  [LS], [LAYERS, "--remove-unused"], [SHARE, "/usr", one.name], [STOP, one.conf], [STOP, one.name], [STOP, "--all"]):
        assert one_line(run("unshare", options, *words)).endswith(": must be run as root of the host: this is root of a user namespace only")
        machine.is_as_before()
    assert one.is_running()
    one.stopped()


def test_root_of_a_container_is_not_refused_for_that(machine):
    """It has a process 1 of its own."""
    if run("unshare", "-Ur", "true").returncode:
        cannot_run("no user namespaces here")
    succeeded(run("unshare", "-Urmpf", "--mount-proc", LS))
