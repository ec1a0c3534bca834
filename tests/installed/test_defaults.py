"""The site-wide defaults, /etc/overlay-boot/defaults.conf: what counts where, where it comes from, and what is wrong with it."""
import os
import re

import pytest
from machine import BOOT, GO, PROGRAMS, SITE_WIDE, STOP, TREE, faults, one_line, read, run, write


@pytest.fixture(autouse=True)
def on_a_host_of_its_own(site_wide):
    """What a test writes there, nobody else's subhosts are booted with."""


def check(one, *options, **how):
    done = run(BOOT, "--check", *options, one.conf, **how)
    done.stderr = "".join(f"{line}\n" for line in faults(done))
    return done


def values(one, **how):
    """What --check prints, without a word on standard error: [(variable, value)]."""
    done = check(one, **how)
    assert (done.returncode, done.stderr) == (0, "")
    return [tuple(line.split("=", 1)) for line in done.stdout.splitlines()]


def sources(one):
    """What --check --verbose prints of the sources: [(variable, source)]."""
    done = check(one, "--verbose")
    assert (done.returncode, done.stderr) == (0, "")
    return [tuple(line.split(": ", 1)) for line in done.stdout.split("\n\n")[1].splitlines()]


# What counts

def test_the_own_file_counts_first_and_then_the_site_wide_defaults(subhost, site_wide):
    one = subhost(RAM_SIZE="1M")
    site_wide("# for all", "RAM_SIZE=2M", "", "STOP_TIMEOUT= 3.5 ", "CABLES=", "START=cron", "LOG=own.log", "LOWER=/usr:/etc", "STOP_TIMEOUT=4")
    done = check(one)
    assert done.stderr == f"overlay-boot: {SITE_WIDE}: line 9 is ignored: STOP_TIMEOUT is assigned in line 4\n"
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert [found[name] for name in ("RAM_SIZE", "STOP_TIMEOUT", "START", "LOG", "LOWER", "CABLES", "PREMOUNT")] == [
        "1M", "3.5", "none", f"{one.base}/own.log", "/usr:/etc", "", "overlay-premount"]


def test_each_value_has_its_source(subhost, site_wide):
    one = subhost(SHARE=["/srv", "/mnt"], RAM_SIZE=["", "1M", "2M"])
    site_wide("RAM_SIZE=3M", "STOP_TIMEOUT=4", "SHARE=/etc", "LAYER=/usr", "LAYER=/srv")
    done = check(one, "--verbose")
    assert done.stderr.splitlines() == [f"overlay-boot: {one.conf}: line 7 is ignored: RAM_SIZE is assigned in line 6"]
    assignments, places, _ = done.stdout.split("\n\n")
    assert assignments + "\n" == check(one).stdout
    places = [line.split(": ", 1) for line in places.splitlines()]
    assert [variable for variable, _ in places] == [line.partition("=")[0] for line in assignments.splitlines()]
    assert [place for place in places if place[1] != "built in"] == [
        ["NAME", f"the name of {one.conf}"], ["BASE", f"{one.conf}: line 1"], ["START", f"{one.conf}: line 2"],
        ["RAM_SIZE", f"{one.conf}: line 6"], ["STOP_TIMEOUT", f"{SITE_WIDE}: line 2"],
        ["LAYER", f"{SITE_WIDE}: line 4"], ["LAYER", f"{SITE_WIDE}: line 5"],
        ["SHARE", f"{one.conf}: line 3"], ["SHARE", f"{one.conf}: line 4"]]


def test_an_empty_value_returns_to_what_is_built_in(subhost, site_wide):
    site_wide("RAM_SIZE=2M", "CABLES==", "SHARE=/srv", "LAYER=/srv", "START=cron", "LOG=x.log", "PREMOUNT=./pre")
    one = subhost(**dict.fromkeys(("RAM_SIZE", "CABLES", "SHARE", "LAYER", "START", "LOG", "PREMOUNT"), ""))
    done = check(one)
    os.unlink(SITE_WIDE)
    assert done.returncode == 0 and (done.stdout, done.stderr) == ((other := check(one)).stdout, other.stderr)
    site_wide("RAM_SIZE=2M")
    write(one.conf, "BASE=.\nSTART=none\nRAM_SIZE=\nRAM_SIZE=3M\n")
    assert ("RAM_SIZE", "3M") in values(one)


def test_layers_and_shares_are_replaced(subhost, site_wide, directory):
    for layer in ("one", "two", "own"):
        write(f"{directory}/{layer}/etc/layer", layer)
    write(f"{directory}/shared", "shared")
    site_wide(f"LAYER={directory}/one", f"LAYER={directory}/two", f"SHARE={directory}/shared:/srv/shared")
    one = subhost().booted()
    assert one.inside("cat", "/etc/layer", "/srv/shared") == "twoshared"
    other = subhost(LAYER=f"{directory}/own", SHARE="/etc/hostname:/srv/other").booted()
    assert other.sh("cat /etc/layer; test -e /srv/shared || echo; ls /srv") == "own\nother"
    third = subhost(LAYER="", SHARE="").booted()
    assert third.sh("ls /etc/layer /srv/shared 2>&1 | grep -c 'No such file'") == "2"


def test_a_command_is_run_as_if_it_stood_in_the_own_file(subhost, site_wide):
    one, other = subhost(), subhost()
    site_wide("PREMOUNT= !./say pre", "LOG= !./log")
    for each in (one, other):
        each.script("say", f'echo "{each.name},$CONFIG,$ACTION,$(pwd),$*"\n')
        found = dict(values(each, cwd=write(f"{each.base}/here/log", '#!/bin/sh\necho "/x$(pwd)"\n', 0o755).removesuffix("/log")))
        assert found["PREMOUNT"] == f"{each.name},{each.conf},overlay-check,{each.base},pre"
        assert found["LOG"] == f"/x{each.base}/here"


def test_a_boot_has_them(subhost, site_wide):
    one = subhost()
    site_wide("RAM_SIZE=7M", "LOG=own.log", "PREMOUNT=./pre")
    one.script("pre", "echo heard; overlay-premount\n")
    one.booted()
    assert int(one.sh("echo $(($(stat -f -c '%b * %S' /run)))")) == 7 << 20
    assert "heard\n" in read(f"{one.base}/own.log") and not os.path.exists(one.log)
    one.stopped()


def fences(one):
    """The bounding set and the kind of filter of PID 1, and of what enters."""
    found = [one.sh(f"grep -E '^(CapBnd|Seccomp):' /proc/{process}/status").split()[1::2] for process in (1, "self")]
    assert found[0] == found[1]
    return found[0]


def test_the_fences_of_a_site_and_those_of_a_subhost(subhost, site_wide):
    built_in = fences(subhost().booted())
    site_wide("CAPABILITIES= all", "SYSTEM_CALLS= all")
    one, other = subhost(), subhost(CAPABILITIES="", SYSTEM_CALLS="default")
    none = fences(one.booted())
    assert none[1] == "0" and none[0] == re.search(r"^CapBnd:\s*(\w+)", read("/proc/self/status"), re.MULTILINE)[1]
    assert fences(other.booted()) == built_in != none and built_in[1] == "2"
    third = subhost(CAPABILITIES="+SYS_NICE")
    added = [{*dict(values(each))["CAPABILITIES"].split()} for each in (third, other)]
    assert added[0] - added[1] == {"SYS_NICE"} and added[1] < added[0]      # to what is built in


def test_hooks_are_given_what_the_boot_has_resolved(subhost, site_wide):
    """Though the file is another one by now; what a hook takes out of its environment is found anew."""
    one = subhost(POSTMOUNT="./post")
    one.script("count", f"echo x >>{one.base}/counted; echo 9M\n")
    one.script("pre", f"echo RAM_SIZE=8M >{SITE_WIDE}; overlay-premount\n")
    one.script("post", f"{PROGRAMS}/overlay-postmount\n")
    site_wide("RAM_SIZE=!./count", "PREMOUNT=./pre")
    one.booted()
    size = "echo $(($(stat -f -c '%b * %S' /run)))"
    assert read(f"{one.base}/counted") == "x\n" and int(one.sh(size)) == 9 << 20
    one.stopped()
    one.script("post", f"env -u RAM_SIZE {PROGRAMS}/overlay-postmount\n")
    one.booted()
    assert int(one.sh(size)) == 8 << 20


def test_a_subhost_that_is_woken_finds_some_anew(subhost, site_wide):
    one = subhost()
    one.script("init", f'echo "$RAM_SIZE $STOP_TIMEOUT $LOG" >{one.base}/values; overlay-init\n')
    site_wide("RAM_SIZE=7M", "STOP_TIMEOUT=7", "LOG=seven.log")
    assert run(BOOT, "--shell", one.conf, input="").returncode == 0
    site_wide("RAM_SIZE=8M", "STOP_TIMEOUT=8", "LOG=eight.log", "INIT=./init")
    one.booted()
    assert read(f"{one.base}/values") == f"7M 8 {one.base}/eight.log\n"
    one.stopped()


# What is there, and what it costs that it is not

def test_one_call_of_the_kernel_where_there_are_none(subhost, directory):
    one = subhost()
    trace = f"{directory}/trace"
    assert run("strace", "-qq", "-o", trace, BOOT, one.conf).returncode == 0
    assert [line.rpartition(" = ")[0].rstrip() for line in read(trace).splitlines() if SITE_WIDE in line] == [
        f'openat(AT_FDCWD, "{SITE_WIDE}", O_RDONLY|O_NOCTTY|O_NONBLOCK|O_NOFOLLOW|O_CLOEXEC)']


def test_a_symbolic_link_is_followed(subhost, site_wide, directory):
    write(f"{directory}/all.conf", "RAM_SIZE=7M\n")
    os.symlink(f"{directory}/all.conf", SITE_WIDE)
    assert ("RAM_SIZE", f"{SITE_WIDE}: line 1") in sources(subhost())


def test_the_example_is_right(subhost, site_wide):
    site_wide(*read(f"{TREE}/conf-examples/defaults.conf").splitlines())
    one = subhost()
    assert check(one).stderr == "" and [place for _, place in sources(one) if SITE_WIDE in place]
    text = read(f"{TREE}/conf-examples/defaults.conf")
    site_wide(*re.sub("^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE).splitlines())
    write(one.conf, "BASE=.\nSTART=none\nLAYER=\n")
    assert check(one).stderr == ""


# What is wrong

@pytest.mark.parametrize("variable", ["NAME", "BASE", "IMAGE", "LIVE", "UPPER", "WORK"])
def test_what_each_subhost_has_of_its_own_cannot_be_set(subhost, site_wide, fails, variable):
    one = subhost(**{} if variable in ("BASE", "IMAGE") else {variable: {"NAME": "x"}.get(variable, variable.lower())})
    site_wide("START=none", f"{variable}=", f"{variable}= x")
    line = f"overlay-boot: {SITE_WIDE}: line 3: {variable} cannot be set for all subhosts"
    assert one_line(check(one)) == fails(one) == line


@pytest.mark.parametrize("make, why", [
    (os.mkdir, "cannot read {}: Is a directory"),
    (os.mkfifo, "{} is not a regular file"),
    (lambda path: os.mknod(path, 0o20644, os.makedev(1, 3)), "{} is not a regular file"),
    (lambda path: os.symlink("nowhere", path), "cannot read {}: it is a symbolic link that leads nowhere"),
    (lambda path: os.symlink("defaults.conf", path), "cannot read {}: Too many levels of symbolic links"),
    (lambda path: write(path, "START=none\r\n"), "{}: line 1 ends with CR LF, as on Windows, not with LF"),
    (lambda path: write(path, "START=none\nLOG=\0\n"), "{} is not a text file"),
    (lambda path: write(path, "\n" + "x" * (1 << 17)), "{}: line 2 is longer than 65536 bytes"),
    (lambda path: write(path, "x\n" * (1 << 21) + "x"), "{} is longer than 4194304 bytes: not a configuration file"),
    (lambda path: write(path, "START=none\n", 0o646), "{} has the mode 0646: only root may write to it"),
    (lambda path: write(path, "START=none\n", 0o664), "{} has the mode 0664: only root may write to it"),
    (lambda path: os.chown(write(path, "START=none\n"), 1, 0), "{} does not belong to root, but to the user 1"),
    (lambda path: os.symlink(write(f"{path}.other", "START=none\n", 0o666), path), "{} has the mode 0666: only root may write to it"),
], ids=lambda value: value[:50] if isinstance(value, str) else "")
def test_no_boot_by_a_file_that_is_wrong_but_a_stop(subhost, site_wide, fails, machine, make, why):
    one, running = subhost(), subhost().booted()
    machine.look()
    make(SITE_WIDE)
    assert fails(one) == one_line(check(one)) == f"overlay-boot: {why.format(SITE_WIDE)}"
    assert run(GO, running.name, "true").returncode == 0 and running.is_running()
    assert run(STOP, running.name).returncode == 0
    assert one_line(one.stop()) == f"overlay-stop: {one.name} is not running"


def test_the_directory_need_not_be_there_but_nothing_else_may(subhost):
    one, place = subhost(), os.path.dirname(SITE_WIDE)
    in_an_empty_etc = ("unshare", "-m", "sh", "-ec", f'mount -t tmpfs tmpfs {os.path.dirname(place)}; $1; exec {BOOT} --check "$2"', "sh")
    assert run(*in_an_empty_etc, "true", one.conf).returncode == 0
    assert one_line(run(*in_an_empty_etc, f"touch {place}", one.conf)) == f"overlay-boot: cannot read {SITE_WIDE}: Not a directory"


@pytest.mark.parametrize("line, why", [
    ("RAM_SIZE=much", "RAM_SIZE=much is neither a size such as 50M nor none"),
    ("LAYER_LIMIT=x", "LAYER_LIMIT=x is not a size such as 10G, optionally followed by a number of members"),
    ("STOP_TIMEOUT=long", "STOP_TIMEOUT=long is not a number of seconds"),
    ("STOP_TIMEOUT=!./none", "STOP_TIMEOUT: cannot execute ./none: No such file or directory"),
    ("LOG=!false", "LOG: false failed with exit status 1"),
    ("CABLES=no-such=", "CABLES: no-such=: there is no bridge no-such"),
    ("LOWER=/nowhere", "LOWER=/nowhere: No such file or directory"),
    ("LAYER=/nowhere", "LAYER=/nowhere: No such file or directory"),
])
def test_an_error_has_the_line_that_it_is_in(subhost, site_wide, fails, line, why):
    site_wide("#", line)
    one = subhost()
    assert one_line(check(one)) == f"overlay-boot: {SITE_WIDE}: line 2: {why}" == fails(one)
    one.configure(**dict([line.split("=", 1)]))
    assert one_line(check(one)) == f"overlay-boot: {why}" == fails(one)
    one.configure(**{line.partition("=")[0]: ""})
    assert check(one).returncode == 0


@pytest.mark.parametrize("line, why", [
    ("PREMOUNT=./none", "PREMOUNT: cannot execute ./none: No such file or directory"),
    ("INIT=true", "INIT: true printed nothing"),
    ("SHARE=/nowhere", "SHARE=/nowhere: No such file or directory"),
    ("LOG=/nowhere/log", "cannot write LOG=/nowhere/log: No such file or directory"),
])
def test_an_error_that_only_a_boot_finds_has_its_line(subhost, site_wide, fails, line, why):
    site_wide("", "", line)
    assert fails(subhost()).startswith(f"overlay-boot: {SITE_WIDE}: line 3: {why}")


def test_a_service_without_a_script_has_its_line(subhost, site_wide, small_root):
    one = subhost(LOWER=small_root, START=None)
    site_wide("START=nothing")
    assert check(one).stderr == (f"overlay-boot: {SITE_WIDE}: line 1: START: nothing will not be started: "
                                 "no /etc/init.d/nothing was found in UPPER, LAYER or LOWER\n")


def test_a_boot_warns_once(subhost, site_wide):
    one = subhost()
    one.script("pre", "overlay-premount\n")
    site_wide("PREMOUNT=./pre", "RAMSIZE=1M")
    warning = f"overlay-boot: {SITE_WIDE}: line 2 is ignored: RAMSIZE= is not known (did you mean RAM_SIZE=?)\n"
    assert check(one).stderr == warning
    done = one.boot()
    assert (done.returncode, done.stderr) == (0, warning) and "RAMSIZE" not in one.said()
