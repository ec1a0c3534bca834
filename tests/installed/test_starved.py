"""Starved: too few descriptors, too little memory, files that may not grow.  One line, and nothing is left."""
import os
import resource
import signal

import pytest
from machine import BOOT, STOP, one_line, run
from network import done

MEGABYTE = 1 << 20


def limited(limit, value):
    def limit_child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)       # as a caller may have it
        resource.setrlimit(limit, (value, value))
    return limit_child


def limits_of(what):
    """A limit, and values for it from one that is too low to one that is high enough."""
    if what == "descriptors":
        return resource.RLIMIT_NOFILE, range(44)
    if what == "memory":
        return resource.RLIMIT_AS, range(2 * MEGABYTE, 42 * MEGABYTE, MEGABYTE)
    return resource.RLIMIT_FSIZE, [*range(0, 700, 50), 4096, MEGABYTE]


def tried(command, what):
    """Run a command of ours with each of these values: (value, how it ended), which is without a word or with one line."""
    limit, values = limits_of(what)
    statuses = []
    for value in values:
        ended = run(*command, preexec_fn=limited(limit, value))
        statuses.append(ended.returncode)
        assert ended.stderr == "" if ended.returncode == 0 else one_line(ended).startswith(f"{os.path.basename(command[0])}: "), value
        yield value, ended.returncode == 0
    assert statuses[0] == 1 and statuses[-1] == 0
    assert statuses == sorted(statuses, reverse=True)


@pytest.mark.parametrize("what", ["descriptors", "memory", "sizes of files"])
def test_a_boot(subhost, machine, host, what):
    """It succeeds, or says in a line why not and leaves nothing: not one limit in between has it do anything else."""
    one = subhost()
    done("ip", "link", "add", "br0", "type", "bridge")
    layer = one.write("../layer/etc/of-layer").removesuffix("/etc/of-layer")
    one.configure(CABLES="br0=", LAYER=layer, SHARE="/usr/share")
    machine.look()
    for _, is_done in tried([BOOT, one.conf], what):
        if is_done:
            one.stopped()
        machine.is_as_before()


@pytest.mark.parametrize("what", ["descriptors", "memory"])
def test_a_stop(subhost, machine, what):
    """It ends the subhost and clears all of it, or says why not, and has not begun to."""
    one = subhost()
    machine.look()
    one.booted()
    for value, is_done in tried([STOP, one.conf], what):
        assert not (is_done and one.is_running()), value
        if not one.is_running():
            machine.is_as_before()
            one.booted()


def test_a_check(subhost, own_root):
    """It goes down into a directory of secrets by more descriptors than there can be, and says what for."""
    os.makedirs(f"{own_root}/root{'/deeper' * 60}")
    one = subhost(LOWER=own_root)
    line = one_line(run(BOOT, "--check", one.conf, preexec_fn=limited(resource.RLIMIT_NOFILE, 44)))
    assert line == "overlay-boot: cannot look for the secrets of the host: Too many open files"
