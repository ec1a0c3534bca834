"""overlay-new: the directory of a subhost, all of it or nothing."""
import os
import re
import signal
import stat
import time

import pytest
from machine import BOOT, DISKFILE, GO, LOGS, NEW, STOP, TREE, kill, new_name, one_line, read, run, start, wait_for, write
from network import done
from test_manual import ACL, tree

LIST = "/etc/subhosts.conf"
LOCAL = pytest.mark.usefixtures("host")


@pytest.fixture
def place(directory):
    """A path for a new subhost; one that is booted is stopped in the end."""
    path = f"{directory}/{new_name()}"
    yield path
    run(STOP, os.path.basename(path))
    if os.path.exists(f"{LOGS}/{os.path.basename(path)}.log"):
        os.unlink(f"{LOGS}/{os.path.basename(path)}.log")


def conf(place):
    return f"{place}/{os.path.basename(place)}.conf"


def make(place, *words):
    """Make it, which succeeds without a word but for what to do next."""
    ended = run(NEW, *words[:words.index("DIR")] if "DIR" in words else (), place, *words[words.index("DIR") + 1 if "DIR" in words else 0:])
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout.splitlines()


def assignments(place):
    return [line for line in read(conf(place)).splitlines() if line and not line.startswith("#")]


def is_nothing_made(place):
    return not [name for name in os.listdir(os.path.dirname(place)) if os.path.basename(place) in name]


# Made

def test_made_booted_and_entered_as_it_says(place, machine):
    lines = make(place, "START=none")
    name = os.path.basename(place)
    assert [line.rpartition(": ")[2] for line in lines] == [
        f"overlay-boot {conf(place)}", f"overlay-go {name}", f"echo {conf(place)} >>/etc/subhosts.conf"]
    modes = {made: stat.S_IMODE(os.stat(f"{place}/{made}").st_mode) for made in ("", "root", "work", "live")}
    assert modes == {"": 0o700, "root": 0o755, "work": 0o700, "live": 0o700}
    assert sorted(os.listdir(place)) == sorted(["root", "work", "live", f"{name}.conf"])
    assert os.listdir(os.path.dirname(place)) == [name]
    assert run("sh", "-ec", lines[0].rpartition(": ")[2]).stderr == ""
    assert run(GO, name, "su", "nobody", "-s", "/bin/sh", "-c", "cat /etc/hostname").stdout == f"{name}\n"


@LOCAL
def test_it_fits_the_host(place, machine):
    """What it names is there: services, bridges, file systems."""
    done("ip", "link", "add", "br7", "type", "bridge")
    done("mount", "-t", "tmpfs", "tmpfs", "/etc/network/if-up.d")
    make(place)
    text = read(conf(place))
    services = re.search(r"There are scripts for (.*?)\.\n", text.replace("\n# ", " "), re.DOTALL)[1].split(", ")
    assert "ssh" in services and all(os.path.exists(f"/etc/init.d/{service}") for service in services)
    assert assignments(place) == ["BASE= .", "START= networking ssh"]
    assert "Bridges here are br7." in text.replace("\n# ", " ") and "\n# CABLES= br7=\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert run(BOOT, "--check", conf(place)).returncode == 0
    done("ip", "link", "delete", "br7")


@LOCAL
def test_every_proposal_can_be_taken(place, host):
    """By removing the # before it."""
    done("ip", "link", "add", "br7", "type", "bridge")
    make(place, "START=none")
    text = read(conf(place))
    proposed = re.findall("^# ([A-Z_]+= .*)$", text, re.MULTILINE)
    assert {line.partition("=")[0] for line in proposed} >= {"CABLES", "ADDRESS", "HIDE", "LOWER_MOUNTS", "USERNS", "AFTER"}
    write(conf(place), re.sub("^# (?=(CABLES|HIDE|LOWER_MOUNTS|AFTER)=)", "", text, flags=re.MULTILINE))
    ended = run(BOOT, "--check", conf(place))
    assert ended.returncode == 0, ended.stderr
    assert {"CABLES=br7=", "HIDE=secrets", "LOWER_MOUNTS=no", "AFTER=db"} <= set(ended.stdout.splitlines())
    done("ip", "link", "delete", "br7")


def test_what_is_given_takes_the_place_of_what_is_proposed(place, directory):
    write(f"{directory}/b c")
    make(place, "START= none ", "SHARE=/srv", f"SHARE={directory}/b c:/b", f"UPPER={place}/own/root", "WORK=own/work", "LIVE=here",
         "HIDE=secrets", "RAM_SIZE=7M")
    assert assignments(place) == ["BASE= .", "START= none", "HIDE= secrets", "SHARE= /srv", f"SHARE= {directory}/b c:/b", "UPPER= own/root",
                                  "WORK= own/work", "LIVE= here", "RAM_SIZE= 7M"]
    assert all(os.path.isdir(f"{place}/{made}") for made in ("own/root", "own/work", "here")) and not os.path.exists(f"{place}/root")
    moved = f"{place}.moved"
    os.rename(place, moved)
    assert f"UPPER={moved}/own/root\n" in run(BOOT, "--check", f"{moved}/{os.path.basename(place)}.conf").stdout


def test_without_directories_that_are_not_taken(place, directory):
    make(place, "UPPER=tmpfs:20M", "START=none")
    assert sorted(os.listdir(place)) == sorted(["live", f"{os.path.basename(place)}.conf"])
    assert run(DISKFILE, "--create", "20M", f"{directory}/image").returncode == 0
    make(f"{place}i", f"IMAGE={directory}/image", "START=none")
    assert sorted(os.listdir(f"{place}i")) == sorted(["live", "mnt", f"{os.path.basename(place)}i.conf"])
    assert run(BOOT, "--check", conf(f"{place}i")).returncode == 0


def test_an_odd_path(directory):
    place = f"{directory}/a b'c/x"
    os.mkdir(os.path.dirname(place))
    lines = make(place, "START=none", "NAME=" + new_name())
    ended = run("sh", "-ec", lines[0].partition("then: ")[2].replace("overlay-boot", "overlay-boot --check"))
    assert ended.returncode == 0 and f"UPPER={place}/root\n" in ended.stdout


def test_a_service_without_a_script_is_told_of(place):
    ended = run(NEW, place, "START=nosuch")
    assert ended.returncode == 0 and ended.stderr.startswith("overlay-new: START: nosuch will not be started")


# Refused

@pytest.mark.parametrize("word, why", [
    ("LOWR=/x", "LOWR= is not known (did you mean LOWER=?)"), ("x", "x is not VARIABLE=VALUE"), ("BASE=/x", "BASE is the directory"),
    ("START=none\nNAME=x", "line break"), ("START=./x", "neither a service's name"), ("RAM_SIZE=much", "RAM_SIZE=much"),
    ("LOWER=/nowhere", "/nowhere"), ("CABLES=nosuchbr=", "there is no bridge nosuchbr"), ("WORK=root", "WORK"), ("UPPER=../x", "UPPER"),
    ("NAME=a/b", "NAME=a/b"), ("NAME=!false", "NAME: false failed"), ("AFTER=a/b", "AFTER"), ("MEMORY_MAX=x", "MEMORY_MAX"),
    ("IMAGE=nosuch", "nosuch"), ("LIVE=!./nosuch", "LIVE: cannot execute"), ("BOOT_TIMEOUT=0", "BOOT_TIMEOUT=0")])
def test_what_could_not_be_booted(place, machine, word, why):
    line = one_line(run(NEW, place, word))
    assert line.startswith("overlay-new: ") and why in line and ".overlay-new" not in line
    assert is_nothing_made(place)
    machine.is_as_before()


def test_twice(place):
    assert "START is assigned twice" in one_line(run(NEW, place, "START=a", "START=b")) and is_nothing_made(place)


def test_what_it_lacks(place, machine):
    machine.look()
    for limit in ("--fsize=0", *(f"--nofile={most}" for most in range(3, 16))):
        ended = run("prlimit", limit, NEW, place)
        if ended.returncode == 0:
            assert limit != "--fsize=0"
            break
        assert not re.fullmatch("overlay-new: [A-Z][a-z ]+", one_line(ended)) and not os.path.lexists(place)
        machine.is_as_before()


def test_an_image_is_left_alone_by_what_fails_afterwards(place, directory):
    """It is mounted for the check, in what is removed then."""
    assert run(DISKFILE, "--create", "20M", f"{directory}/image").returncode == 0
    assert "CABLES" in one_line(run(NEW, place, f"IMAGE={directory}/image", "CABLES=nosuchbr="))
    assert is_nothing_made(place)
    make(place, f"IMAGE={directory}/image")             # its directories are there still


@pytest.mark.parametrize("there", ["directory", "empty", "file", "link", "nowhere", "long"])
def test_where_none_can_be_made(directory, place, there):
    if there == "directory":
        write(f"{place}/file")
    elif there == "empty":
        os.mkdir(place)
    elif there == "file":
        write(place)
    elif there == "link":
        os.symlink("nowhere", place)
    target = {"nowhere": f"{place}/x", "long": f"{directory}/a.long.name.1"}.get(there, place)
    before = sorted(os.listdir(directory))
    line = one_line(run(NEW, target))
    assert {"nowhere": "No such file", "long": "longer than 12 characters"}.get(there, "is there already") in line
    assert sorted(os.listdir(directory)) == before


@LOCAL
def test_a_name_that_another_one_has(place, directory, subhost, host):
    other = subhost()
    write(f"{directory}/list", f"{other.conf}\n/nowhere/x.conf\n")
    done("mount", "--bind", f"{directory}/list", LIST)
    assert f"a subhost {other.name} already: {other.conf} in {LIST}" in one_line(run(NEW, place, f"NAME={other.name}"))
    write(LIST)
    other.booted()
    assert f"a subhost {other.name} already" in one_line(run(NEW, place, f"NAME={other.name}"))
    done("umount", LIST)


def test_called_wrongly(place):
    for words in ([], [""], ["--list-variables", place], ["--with-upper", place], ["--like", place]):
        ended = run(NEW, *words)
        assert ended.returncode == 2 and "usage: overlay-new" in ended.stderr
    assert is_nothing_made(place)


# One like another

@pytest.fixture
def source(subhost):
    """A subhost that has changed its root in every way that UPPER has to note, and is stopped."""
    one = subhost()
    one.configure(START="none", PREMOUNT="./pre", HIDE="secrets", UPPER=one.upper, RAM_SIZE="8M",
                  NAME=one.name, CABLES="= =06:20:03:4e:a6:f2 =.302")
    one.script("pre", "overlay-premount; echo >>hooked\n")
    one.configure(START="none", PREMOUNT="./pre", HIDE="secrets", UPPER=one.upper, RAM_SIZE="8M", NAME=one.name)
    one.booted()
    one.sh("""
        rm /etc/debian_version; rm -r /etc/skel; mkdir -m 2750 /etc/skel; mv /usr/share/doc /usr/share/docs
        cd /root; echo text >file; ln file same; ln -s nowhere link; mkfifo fifo; chown 4321:1234 file; chmod 4755 file
        touch -d '2001-02-03 04:05:06.789' file; truncate -s 1M sparse; touch acl able; mkdir -p "a b/c"
    """)
    os.setxattr(f"{one.upper}/root/acl", "system.posix_acl_access", ACL)        # which nobody inside has looked at
    os.setxattr(f"{one.upper}/root/same", "user.test", b"value")
    os.setxattr(f"{one.upper}/root/able", "security.capability", bytes.fromhex("0100000200040000" + "00" * 12))
    one.stopped()
    return one


def test_like_another_without_its_files(place, source):
    write(source.conf, f"# what it is for\nLAYER=\n{read(source.conf)}CABLES== br0=06:20:03:4e:a6:f2 =.302\nSHARE=/a\nSHARE=/b\n")
    os.symlink("/srv", f"{source.base}/link"), os.mkdir(f"{source.base}/directory"), write(f"{source.base}/other.conf")
    write(f"{source.base}/image", "x" * (1 << 20) + "x")
    make(place, "--like", source.conf, "DIR", "RAM_SIZE=9M", "SHARE=/srv", "CABLES==", "STAY=no")
    assert read(conf(place)).startswith("# what it is for\nLAYER=\n")
    assert assignments(place) == ["LAYER=", "BASE= .", "START=none", "PREMOUNT=./pre", "HIDE=secrets", "UPPER= root", "RAM_SIZE= 9M",
                                  "CABLES= =", "SHARE= /srv", "STAY= no"]
    assert sorted(os.listdir(place)) == sorted(["root", "work", "live", "pre", "hooked", "link", f"{os.path.basename(place)}.conf"])
    assert os.listdir(f"{place}/root") == [] and os.access(f"{place}/pre", os.X_OK)


def test_hardware_addresses_are_not_copied(place, source):
    write(source.conf, f"{read(source.conf)}CABLES== =06:20:03:4e:a6:f2 =.302\n")
    make(place, "--like", source.conf, "DIR")
    assert "CABLES= = = =.302" in assignments(place)


@pytest.mark.parametrize("line", ["ADDRESS=192.0.2.2/24", "USERNS=600000:65536", "PUBLISH=8080"])
def test_numbers_that_only_one_can_have(place, source, line):
    write(source.conf, f"{read(source.conf)}{line}\n")
    assert f"{line} of {source.conf}: give " in one_line(run(NEW, "--like", source.conf, place)) and is_nothing_made(place)
    make(place, "--like", source.conf, "DIR", f"{line.partition('=')[0]}=")
    assert line not in read(conf(place))


@pytest.mark.parametrize("log, copied", [("{base}/log/x", "LOG= log/x"), ("log", "LOG=log"), ("/dev/null", "LOG=/dev/null"), ("/var/log/x.log", None),
                                         ("../x.log", None)])
def test_no_log_is_written_by_two(place, source, log, copied):
    log = log.format(base=source.base)
    write(source.conf, f"{read(source.conf)}LOG={log}\n")
    if copied:
        make(place, "--like", source.conf, "DIR")
        assert assignments(place)[-1] == copied
        return
    assert f"LOG={log} of {source.conf} is not inside its BASE={source.base}: give another one" in one_line(run(NEW, "--like", source.conf, place)) and is_nothing_made(place)
    make(place, "--like", source.conf, "DIR", "LOG=/var/log/y.log")
    assert assignments(place)[-1] == "LOG= /var/log/y.log"


def test_like_another_with_its_files(place, source):
    before = tree(source.upper)
    make(place, "--like", source.conf, "--with-upper", "DIR")
    after = tree(f"{place}/root")
    assert before.pop("etc/hostname") and "etc/hostname" not in after
    etc = before.pop("etc"), after.pop("etc")
    assert etc[0][:4] == etc[1][:4]
    assert after == before and tree(source.upper).keys() - before.keys() == {"etc", "etc/hostname"}
    assert before["etc/debian_version"][0] == stat.S_IFCHR and "trusted.overlay.opaque" in before["etc/skel"][-1]
    assert "trusted.overlay.redirect" in before["usr/share/docs"][-1]
    assert before["root/file"][6] == before["root/same"][6] and os.stat(f"{place}/root/root/sparse").st_blocks == 0
    assert os.getxattr(f"{place}/root/root/able", "security.capability")
    assert run(BOOT, conf(place)).returncode == 0
    inside = run(GO, os.path.basename(place), "sh", "-c", "uname -n; cat /root/file; ls /etc/skel /etc/debian_version")
    assert inside.stdout == f"{os.path.basename(place)}\ntext\n/etc/skel:\n"
    source.booted()                     # beside it


def test_files_of_one_that_runs_are_not_copied(place, source):
    source.booted()
    line = one_line(run(NEW, "--like", source.conf, "--with-upper", place))
    assert f"cannot copy UPPER={source.upper}: {source.name} is running already" in line and is_nothing_made(place)
    make(place, "--like", source.conf, "DIR")
    assert source.is_running()


def test_nor_of_one_that_hibernates(place, source):
    assert run(BOOT, "--shell", source.conf, input="").returncode == 0
    assert f"{source.name} is hibernating" in one_line(run(NEW, "--like", source.conf, "--with-upper", place)) and is_nothing_made(place)
    assert source.row()["state"] == "hibernating"


@pytest.mark.parametrize("settings", [{"UPPER": "tmpfs:9M"}, {"UPPER": "!echo root"}])
def test_files_that_are_nowhere_to_be_copied_from(place, subhost, settings):
    one = subhost(**settings)
    assert "cannot be copied" in one_line(run(NEW, "--like", one.conf, "--with-upper", place)) and is_nothing_made(place)


@pytest.mark.parametrize("word", ["UPPER=../../victim", "UPPER=../x", "UPPER=tmpfs:9M", "UPPER=!echo root", "IMAGE=/nowhere"])
def test_files_that_have_no_place_in_the_new_one(place, directory, source, word):
    write(f"{directory}/victim/etc/hostname", f"{source.name}\n")
    line = one_line(run(NEW, "--like", source.conf, "--with-upper", place, word))
    assert "--with-upper: UPPER=" in line and is_nothing_made(place)
    assert tree(f"{directory}/victim").keys() == {".", "etc", "etc/hostname"}


def test_files_behind_a_link(place, directory, source):
    os.rename(source.upper, f"{directory}/moved")
    os.symlink(f"{directory}/moved", source.upper)
    make(place, "--like", source.conf, "--with-upper", "DIR")
    assert os.path.isdir(f"{place}/root/etc") and not os.path.islink(f"{place}/root")
    assert os.path.exists(f"{directory}/moved/etc/hostname")
    make(f"{place}2", "--like", source.conf, "DIR")
    assert not os.path.islink(f"{place}2/root") and os.listdir(f"{place}2/root") == []


def test_what_the_files_were_made_over_is_copied_with_them(place, source):
    write(f"{source.followed}/status", "Package: x\n")
    write(f"{source.base}/followed/other/status", "Package: y\n")
    make(place, "--like", source.conf, "--with-upper", "DIR")
    assert read(f"{place}/followed/root/status") == "Package: x\n" and os.listdir(f"{place}/root")
    assert os.listdir(f"{place}/followed") == ["root"] and os.stat(f"{place}/followed").st_mode & 0o777 == 0o700
    make(f"{place}2", "--like", source.conf, "--with-upper", "DIR", "UPPER=its/files")
    assert os.listdir(f"{place}2/followed") == ["its%2Ffiles"] and read(f"{place}2/followed/its%2Ffiles/status") == "Package: x\n"
    make(f"{place}3", "--like", source.conf, "DIR")
    assert not os.path.exists(f"{place}3/followed")


def test_a_workshop_of_somebody_else(place):
    """Who is not root could put something else in it, for root to boot."""
    workshop = f"{os.path.dirname(place)}/.{os.path.basename(place)}.overlay-new"
    os.mkdir(workshop)
    os.chown(workshop, 65534, 65534)
    assert f"{workshop} does not belong to root" in one_line(run(NEW, place))
    os.rmdir(workshop)
    os.symlink("/tmp", workshop)
    one_line(run(NEW, place))
    assert is_nothing_made(place) or os.path.islink(workshop)


def test_what_two_cannot_share(place, directory, subhost):
    one = subhost(UPPER=f"{directory}/u", WORK=f"{directory}/w")
    os.mkdir(f"{directory}/u"), os.mkdir(f"{directory}/w")
    assert f"UPPER={directory}/u of {one.conf} is not inside its BASE" in one_line(run(NEW, "--like", one.conf, place))
    one.configure(UPPER="../u", WORK="../w")
    assert f"UPPER=../u of {one.conf} is not inside its BASE" in one_line(run(NEW, "--like", one.conf, place))
    make(place, "--like", one.conf, "DIR", "UPPER=root", "WORK=work")
    assert "is inside BASE=" in one_line(run(NEW, "--like", one.conf, f"{one.base}/x"))
    assert run(DISKFILE, "--create", "20M", f"{one.base}/i").returncode == 0
    os.mkdir(f"{one.base}/mnt")
    one.configure(IMAGE="i")
    assert "IMAGE=i of " in one_line(run(NEW, "--like", one.conf, f"{place}2"))


def test_the_source_cannot_be_booted_meanwhile(place, source):
    with open(f"{source.upper}/large", "wb") as file:
        file.write(b"x" * (300 << 20))
    new = start(NEW, "--like", source.conf, "--with-upper", place)
    wait_for(lambda: os.path.exists(source.state))
    line = one_line(source.boot())
    assert "is being booted already" in line and new.wait(60) == 0
    new.communicate()
    assert source.is_gone() and os.path.getsize(f"{place}/root/large") == 300 << 20
    source.booted()


# Killed

def test_what_is_made_is_whole_or_nothing(place, source):
    """Whenever it is killed; and the next one makes it."""
    words = [NEW, "--like", source.conf, "--with-upper", place]
    begin = time.monotonic()
    assert run(*words).returncode == 0
    took, whole = time.monotonic() - begin, set(tree(place))
    run("rm", "-r", place)
    for number in range(25):
        process = start(*words)
        time.sleep(took * number / 25)
        kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not os.path.exists(place) or set(tree(place)) == whole
        run("rm", "-rf", place)
    write(f"{os.path.dirname(place)}/.{os.path.basename(place)}.overlay-new/new/half/of/it")
    assert run(*words).returncode == 0 and set(tree(place)) == whole
    assert not [name for name in os.listdir(os.path.dirname(place)) if "overlay-new" in name]
    source.booted()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(place, source, number):
    with open(f"{source.upper}/large", "wb") as file:
        file.write(b"x" * (300 << 20))
    new = start(NEW, "--like", source.conf, "--with-upper", place)
    wait_for(lambda: os.path.exists(source.state))
    new.send_signal(number)
    assert new.communicate(timeout=20) == (b"", b"overlay-new: interrupted by signal %d\n" % number) and new.returncode == 1
    assert is_nothing_made(place) and source.is_gone()


def test_two_at_a_time(place):
    many = [start(NEW, place, "START=none") for _ in range(4)]
    said = [process.communicate(timeout=60)[1].decode() for process in many]
    assert sorted(process.returncode for process in many) == [0, 1, 1, 1], said
    assert all(re.search("is there already|another overlay-new is making it", line) for line in said if line)
    assert os.listdir(os.path.dirname(place)) == [os.path.basename(place)]


# The table

def test_the_table_is_the_manuals():
    """And the code's: no variable is missing, in the order of the manual, with the defaults that hold."""
    from overlay_boot.config import DEFAULTS, REPEATABLE
    ended = run(NEW, "--list-variables", user=65534, group=65534, extra_groups=[])
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [re.split("  +", line) for line in ended.stdout.splitlines()]
    manual = read(f"{TREE}/man/overlay-boot.conf.5.adoc").partition("\n== VARIABLES\n")[2].partition("\n== ")[0]
    assert rows[0] == ["VARIABLE", "DEFAULT", "MEANING"]
    assert [row[0] for row in rows[1:]] == re.findall(r"^\*([A-Z_]+)\*::$", manual, re.MULTILINE)
    found = {row[0]: row for row in rows[1:]}
    assert set(found) == {*DEFAULTS, *REPEATABLE}
    for variable, default in DEFAULTS.items():
        if default and variable != "CAPABILITIES":
            assert re.match(rf"{re.escape(default)}($|[,;])", found[variable][1]), variable
        assert len(found[variable]) == 3 and found[variable][2], variable
        assert not re.search(r"\*|__|\+\+", found[variable][2]), variable
