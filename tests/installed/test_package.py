"""The package as it is installed: completion, maintainer scripts, the paths of version 1."""
import glob
import os
import re

import pytest
from conftest import cannot_run
from machine import BOOT, CACHE, PROGRAMS, faults, one_line, read, run

SCRIPTS = glob.glob("/var/lib/dpkg/info/overlay-boot.p*")
COMPLETION = "/usr/share/bash-completion/bash_completion"


# Completion, in a bash with a user in front of it

@pytest.fixture
def bash(terminal, directory):
    if not os.path.exists(COMPLETION):
        cannot_run("bash-completion is not installed")
    if not glob.glob("/usr/share/bash-completion/completions/overlay-*"):
        cannot_run("overlay-boot is not installed as a package")
    for made in ("one.conf", "only.txt"):
        open(f"{directory}/{made}", "w").close()
    os.mkdir(f"{directory}/roots")
    shell = terminal("bash", "--norc", "--noprofile", "-i", size=(24, 200), env={"PS1": "$ ", "INPUTRC": "/dev/null", "TERM": "dumb"})
    shell.type(f"cd {directory}; bind 'set show-all-if-ambiguous on' 'set bell-style none'; . {COMPLETION}; echo re''ady\n")
    shell.expect("ready")
    shell.expect("$ ")
    return shell


@pytest.mark.parametrize("typed, completed", [
    ("overlay-boot --ch", "overlay-boot --check "),
    ("overlay-boot --check o", "overlay-boot --check one.conf "),
    ("overlay-boot o", "overlay-boot one.conf "),
    ("overlay-diff --files o", "overlay-diff --files one.conf "),
    ("overlay-stop o", "overlay-stop one.conf "),
    ("overlay-ls --j", "overlay-ls --json "),
    ("overlay-go -u daem", "overlay-go -u daemon "),
    ("overlay-go --user daem", "overlay-go --user daemon "),
    ("overlay-go --user=daem", "overlay-go --user=daemon "),
    ("overlay-go any dpkg-quer", "overlay-go any dpkg-query "),
    ("overlay-go any overlay-boot --ch", "overlay-go any overlay-boot --check "),
    ("overlay-go -u root any overlay-boot --check o", "overlay-go -u root any overlay-boot --check one.conf "),
    ("overlay-go --user=root any overlay-baseline ro", "overlay-go --user=root any overlay-baseline roots/"),
    ("overlay-go any overlay-ls --us\tx", "overlay-go any overlay-ls --usx"),     # not an option of overlay-go
    ("overlay-baseline --root r", "overlay-baseline --root roots/"),
    ("overlay-baseline --root . ro", "overlay-baseline --root . roots/"),
    ("overlay-diskfile --create 1G only.", "overlay-diskfile --create 1G only.txt "),
    ("overlay-diskfile --create only.\tq", "overlay-diskfile --create only.q"),           # a size
    ("overlay-diskfile ro", "overlay-diskfile roots/"),
    ("overlay-new --like o", "overlay-new --like one.conf "),
    ("overlay-new ro", "overlay-new roots/"),
    ("overlay-diskfile --fs e", "overlay-diskfile --fs ext4 "),
])
def test_completion(bash, typed, completed):
    bash.type(f"{typed}\t")
    bash.expect(completed)


@pytest.mark.usefixtures("own_cache")
def test_completion_of_layers(bash):
    for made in (f"3a{'0' * 62}", f"3b{'0' * 62}", f"3b{'0' * 62}.part"):
        os.makedirs(f"{CACHE}/layers/{made}")
    bash.type("overlay-layers --remove 3a\t3b\t")
    bash.expect(f"overlay-layers --remove 3a{'0' * 62} 3b{'0' * 62} ")


def test_completion_of_running_subhosts_and_of_their_commands(bash, running):
    bash.type(f"overlay-go {running.name[:-1]}\t")
    bash.expect(f"overlay-go {running.name} ")
    bash.type("dpkg-quer\t")
    bash.expect("dpkg-query ")


def test_completion_offers_every_option(bash):
    bash.type("overlay-boot --\t")
    said = bash.expect("$ overlay-boot --")
    assert {"--check", "--foreground", "--help", "--version"} <= set(said.split())


# Maintainer scripts

@pytest.fixture
def scripts():
    if not SCRIPTS:
        cannot_run("overlay-boot is not installed as a package")
    return SCRIPTS


def test_no_maintainer_script_starts_or_stops_anything(scripts):
    acts = r"invoke-rc\.d|deb-systemd-invoke|systemctl(?! --system daemon-reload)|(^|[;&|])\s*service\b|sbin/overlay-(boot|stop)"
    for path in scripts:
        with open(path) as file:
            assert not [line for line in file if line.lstrip()[:1] != "#" and re.search(acts, line)], path


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("what", [["remove"], ["upgrade", "1.6.4-1"]])
def test_the_package_stays_while_a_subhost_runs(running, what):
    done = run("/var/lib/dpkg/info/overlay-boot.prerm", *what)
    assert running.name in one_line(done).split()
    assert done.returncode == 1 and running.is_running()


CONFIGURE = """
    for place in /etc /var/lib/systemd; do
        if [ -d $place ]; then
            mkdir -p $1$place/upper $1$place/work
            mount -t overlay -o lowerdir=$place,upperdir=$1$place/upper,workdir=$1$place/work overlay $place
        fi
    done
    umask 0
    mkdir -p /etc/overlay-boot
    rm -f /etc/overlay-boot/*
    eval "$2"
    for version in $3; do /var/lib/dpkg/info/overlay-boot.postinst configure "${version#none}" >&2; done
    cd /etc/overlay-boot
    stat -c "%n %F %a" * 2>/dev/null || exit 0
    grep -v "^#" defaults.conf || :
"""
WRITTEN = "defaults.conf regular file 644\nCAPABILITIES= all\nSYSTEM_CALLS= all\nLOWER_MOUNTS= no\n"


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("before, old, after", [
    ("", "none", ""),
    ("", "2.1.0-1", ""),
    ("", "2.1.0-1~bpo13+1", ""),
    ("", "2.10-1", ""),
    ("", "1.6.4-1", WRITTEN),
    ("", "2.0.0-1", WRITTEN),
    ("", "1.6.4-1 1.6.4-1 2.1.0-1 2.0.0-1 2.1.0-1", WRITTEN),
    ("echo RAM_SIZE=1M >/etc/overlay-boot/defaults.conf", "1.6.4-1", "defaults.conf regular file 666\nRAM_SIZE=1M\n"),
    (">/etc/overlay-boot/defaults.conf", "1.6.4-1", "defaults.conf regular empty file 666\n"),
    ("ln -s nowhere /etc/overlay-boot/defaults.conf", "1.6.4-1", "defaults.conf symbolic link 777\n"),
    ("echo half >/etc/overlay-boot/defaults.conf.dpkg-new", "1.6.4-1", WRITTEN),
])
def test_subhosts_go_on_with_what_they_had_before_an_upgrade(directory, before, old, after):
    """In an /etc of its own: the defaults that are written, and not written, for a version that was configured last."""
    done = run("unshare", "--mount", "sh", "-ec", CONFIGURE, "sh", directory, before, old)
    assert done.returncode == 0, done.stderr
    assert done.stdout == after, done.stderr


@pytest.mark.usefixtures("scripts")
def test_what_is_written_is_read_without_a_word(subhost, directory, site_wide):
    text = read("/var/lib/dpkg/info/overlay-boot.postinst").partition("EOF'\n")[2].partition("\tEOF\n")[0]
    site_wide(*text.replace("\t", "").splitlines())
    done = run(BOOT, "--check", subhost().conf)
    assert (done.returncode, faults(done)) == (0, [])
    assert {"CAPABILITIES=all", "SYSTEM_CALLS=all"} <= {*done.stdout.splitlines()}


# Version 1

def test_configurations_find_the_hooks_by_the_paths_of_version_1():
    if not os.path.exists("/var/lib/overlay-boot"):
        cannot_run("overlay-boot is not installed as a package")
    for program in ("overlay-init", "overlay-postmount", "overlay-premount", "reaper"):
        assert os.path.realpath(f"/var/lib/overlay-boot/{program}") == f"{PROGRAMS}/{program}"
