"""overlay-share: the host's directories and files in a running subhost."""
import os
import re
import shutil
import signal
import stat

import pytest
from machine import GO, SHARE, UNFENCED, mounts, one_line, read, run, start, wait_for, write
from test_hostile import contents, up


def share(*words, **how):
    """Share, or undo it, without a word."""
    done = run(SHARE, *words, **how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def refused(*words, **how):
    """The one line that it fails with."""
    done = run(SHARE, *words, **how)
    assert done.returncode == 1 and done.stdout == ""
    return one_line(done)


@pytest.fixture
def data(directory):
    """A directory and a file of the host."""
    write(f"{directory}/data/file", "from the host")
    write(f"{directory}/single", "single")
    return f"{directory}/data"


def shared(one):
    return [(row["outside"], row["inside"], row["read_only"]) for row in one.row()["shares"]]


# Sharing

def test_what_is_made_to_mount_on_is_for_all(running, data):
    """Whatever the caller's umask."""
    assert run(SHARE, f"{data}:/srv/deep/er", running.name, umask=0o077).returncode == 0
    assert running.sh("stat -c %a /srv /srv/deep").split() == ["755", "755"]


def test_a_directory_under_its_own_path(running, data):
    share(data, running.name)
    assert running.inside("cat", f"{data}/file") == "from the host"
    running.sh(f"echo back >{data}/new; rm {data}/file")
    assert os.listdir(data) == ["new"] and read(f"{data}/new") == "back\n"
    write(f"{data}/later", "later")
    assert running.inside("cat", f"{data}/later") == "later"


def test_a_file(running, data, directory):
    share(f"{directory}/single", running.name)
    running.sh(f"echo changed >{directory}/single")
    assert read(f"{directory}/single") == "changed\n"


def test_under_another_path_that_is_made(running, data, directory):
    share(f"{data}:/srv/deep/er", running.name)
    share(f"{directory}/single:srv/deep/file", running.name)
    assert running.sh("cat /srv/deep/er/file /srv/deep/file") == "from the hostsingle"
    assert os.path.isdir(f"{running.upper}/srv/deep/er") and os.path.isfile(f"{running.upper}/srv/deep/file")
    running.stopped()
    assert os.listdir(f"{running.upper}/srv/deep/er") == [] and read(f"{running.upper}/srv/deep/file") == ""


def test_a_relative_path_is_the_callers(running, data, directory):
    share("data:/srv/data", running.name, cwd=directory)
    share("../data", running.name, cwd=data)
    assert running.sh(f"cat /srv/data/file {data}/file") == "from the host" * 2


def test_a_link_of_the_hosts_leads_where_it_leads(running, data, directory):
    os.symlink("data", f"{directory}/link")
    share(f"{directory}/link:/srv/data", running.name)
    assert running.inside("cat", "/srv/data/file") == "from the host"


def test_read_only(running, data, directory):
    share("--read-only", f"{data}:/srv/data", running.name)
    share("--read-only", f"{directory}/single:/srv/file", running.name)
    assert running.sh("cat /srv/data/file; echo x >/srv/data/new || echo x >/srv/file || echo no") == "from the hostno"
    assert os.listdir(data) == ["file"] and read(f"{directory}/single") == "single"
    write(f"{data}/file", "the host can write")
    assert running.inside("cat", "/srv/data/file") == "the host can write"


def test_below_a_mount_of_the_subhosts_own(running, data):
    share(f"{data}:/run/data", running.name)
    assert running.inside("cat", "/run/data/file") == "from the host"
    assert not os.path.exists(f"{running.upper}/run/data")


def test_nothing_of_it_is_seen_on_the_host(running, data, machine):
    machine.look()
    share(f"{data}:/srv/data", running.name)
    machine.is_as_before()


def test_what_either_side_mounts_below_it_is_not_the_others(unfenced, data):
    """Also where the host's mounts are shared ones, as systemd has it."""
    os.mkdir(f"{data}/mine")
    os.mkdir(f"{data}/theirs")
    done = run("unshare", "-m", "--propagation", "shared", "sh", "-ec", f"""
        {SHARE} {data}:/srv/data {unfenced.name}
        mount -t tmpfs tmpfs {data}/mine
        {GO} {unfenced.name} mount -t tmpfs tmpfs /srv/data/theirs
        grep {data} /proc/self/mountinfo; {GO} {unfenced.name} cat /proc/self/mountinfo""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("/mine ") == 1 and done.stdout.count("/theirs ") == 1
    assert f" {data}/mine " in done.stdout and " /srv/data/theirs " in done.stdout


def test_two_subhosts_share_one_directory(subhost, data):
    one, other = subhost().booted(), subhost().booted()
    for each in (one, other):
        share(f"{data}:/srv/data", each.name)
    one.sh("echo hello >/srv/data/hello")
    assert other.inside("cat", "/srv/data/hello") == "hello"
    share("--undo", f"{data}:/srv/data", one.name)
    assert other.inside("cat", "/srv/data/hello") == "hello" and shared(one) == []


# Listing

def test_it_is_listed(subhost, data, directory):
    one = subhost(SHARE=f"{data}:/srv/conf", **UNFENCED).booted()
    share("--read-only", f"{directory}/single:/srv//./file", one.name)
    share(data, one.name)
    assert shared(one) == [(data, "/srv/conf", False), (f"{directory}/single", "/srv/file", True), (data, data, False)]
    one.sh("umount /srv/conf")
    assert shared(one) == [(f"{directory}/single", "/srv/file", True), (data, data, False)]
    one.stopped()
    one.booted()
    assert shared(one) == [(data, "/srv/conf", False)]


def test_none_are_listed(running):
    assert shared(running) == []


def test_without_a_name_it_lists_what_is_running(running, data):
    done = run(SHARE, data)
    assert done.returncode == 0 and running.name in done.stdout.splitlines()


# Undoing

def test_undo(subhost, data, directory):
    one = subhost(SHARE=f"{data}:/srv/conf").booted()
    before = mounts(one.init)
    share(f"{data}:/srv/data", one.name)
    share(f"{directory}/single:/srv/file", one.name)
    share("--undo", f"{data}:/srv/data", one.name)
    share("--undo", f"{directory}/single:/srv/file", one.name)
    assert mounts(one.init) == before and shared(one) == [(data, "/srv/conf", False)]
    share("--undo", f"{data}:/srv/conf", one.name)
    assert shared(one) == [] and one.sh("ls /srv/conf /srv/data; cat /srv/file") == "/srv/conf:\n\n/srv/data:"
    assert read(f"{data}/file") == "from the host"
    share(f"{data}:/srv/data", one.name)
    assert one.inside("cat", "/srv/data/file") == "from the host"


def test_undo_of_what_is_in_use(running, data):
    share(f"{data}:/srv/data", running.name)
    running.sh("cd /srv/data; sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/sleeper")
    line = refused("--undo", f"{data}:/srv/data", running.name)
    assert line.startswith(f"overlay-share: cannot undo the share of {data}: it is in use by sleep (")
    assert running.inside("cat", "/srv/data/file") == "from the host" and len(shared(running)) == 1
    running.sh("kill $(cat /tmp/sleeper); while [ -e /proc/$(cat /tmp/sleeper)/cwd ]; do :; done")
    share("--undo", f"{data}:/srv/data", running.name)


def test_undo_leaves_what_the_subhost_has_mounted_upon_it(unfenced, data):
    share(f"{data}:/srv/data", unfenced.name)
    unfenced.sh("mount -t tmpfs mine /srv/data")
    assert "the subhost has mounted something else upon it" in refused("--undo", f"{data}:/srv/data", unfenced.name)
    assert unfenced.sh("grep -c ' /srv/data ' /proc/self/mountinfo") == "2"
    unfenced.sh("umount /srv/data")
    share("--undo", f"{data}:/srv/data", unfenced.name)


def test_undo_of_what_the_subhost_has_moved(unfenced, data):
    share(f"{data}:/srv/data", unfenced.name)
    unfenced.sh("mkdir '/srv/o t\\134her'; mount --move /srv/data '/srv/o t\\134her'")
    share("--undo", f"{data}:/srv/data", unfenced.name)
    assert not [line for line in mounts(unfenced.init) if " /srv/" in line]


def test_undo_of_what_the_subhost_has_unmounted(unfenced, data):
    """It may have given the id of the mount to another one."""
    share(f"{data}:/srv/data", unfenced.name)
    unfenced.sh("umount /srv/data; for n in 1 2 3 4 5 6 7 8; do mkdir /srv/$n; mount -t tmpfs mine /srv/$n; done")
    before = mounts(unfenced.init)
    assert shared(unfenced) == []
    refused("--undo", f"{data}:/srv/data", unfenced.name)
    assert mounts(unfenced.init) == before


def test_undo_of_what_was_renamed_on_the_host(running, data, directory):
    share(f"{data}:/srv/data", running.name)
    os.rename(data, f"{directory}/other")
    assert running.inside("cat", "/srv/data/file") == "from the host" and len(shared(running)) == 1
    share("--undo", f"{data}:/srv/data", running.name)
    assert shared(running) == []


def test_undo_of_what_is_not_shared(unfenced, data):
    unfenced.sh("mkdir /srv/data; mount --bind / /srv/data")
    before = mounts(unfenced.init)
    assert refused("--undo", f"{data}:/srv/data", unfenced.name) == \
        f"overlay-share: {data} is not shared with {unfenced.name} as /srv/data"
    assert mounts(unfenced.init) == before


# What is refused

def test_what_is_shared_already(running, data):
    share(f"{data}:/srv/data", running.name)
    line = refused(f"{data}:/srv/data", running.name)
    assert line == f"overlay-share: cannot share {data}: something is shared as /srv/data already"
    assert len(shared(running)) == 1


@pytest.mark.parametrize("inside, why", [("/", "is the root"), ("..", "is the root"), ("/etc/passwd", "Not a directory"),
                                         ("/etc/passwd/x", "Not a directory")])
def test_a_place_that_is_none(running, data, inside, why):
    before = mounts(running.init)
    assert why in refused(f"{data}:{inside}", running.name)
    assert mounts(running.init) == before and shared(running) == []


def test_a_file_on_a_directory(running, directory, data):
    assert f"{directory}/single" in refused(f"{directory}/single:/etc", running.name)


def test_what_is_not_there(running, directory):
    line = refused(f"{directory}/none:/srv/data", running.name)
    assert line == f"overlay-share: cannot share {directory}/none: No such file or directory"
    assert not os.path.exists(f"{running.upper}/srv")


@pytest.mark.parametrize("name", ["none", "..", "a/b"])
def test_who_is_not_running(data, name):
    assert refused(data, name) == f"overlay-share: {name} is not running"


def test_a_line_feed(running, directory):
    os.mkdir(f"{directory}/a\nb")
    assert "line feed" in refused(f"{directory}/a\nb:/srv/data", running.name)


def test_called_wrongly(running, data):
    for words in ([], ["--read-only", "--undo", data, running.name], [data, running.name, "more"]):
        assert run(SHARE, *words).returncode == 2


# A hostile root

@pytest.mark.parametrize("kind", ["absolute", "up", "proc"])
@pytest.mark.parametrize("last", [True, False])
def test_no_link_leads_the_mount_out(subhost, data, directory, small_root, kind, last):
    outside = f"{directory}/outside"
    write(f"{outside}/dir/canary")
    one = subhost(LOWER=small_root).booted()
    before, of_host = contents(outside), mounts()
    leads = {"absolute": f"{outside}/dir", "up": up(f"{outside}/dir"), "proc": f"/proc/1/root{outside}/dir"}[kind]
    os.symlink(leads, f"{one.upper}/link")
    os.makedirs(f"{one.upper}{outside}/dir")
    place = "/link" if last else "/link/below"
    done = run(SHARE, f"{data}:{place}", one.name)
    assert contents(outside) == before and mounts() == of_host
    if kind == "proc":                  # a link of proc is none to follow
        one_line(done)
    else:
        assert done.returncode == 0
        assert one.inside("cat", f"{outside}/dir{place.removeprefix('/link')}/file") == "from the host"


def test_while_in_the_subhosts_mounts_it_opens_nothing(running, data, directory):
    """What Python imported there would be the subhost's."""
    for words in (["data:/srv/data"], ["--undo", "data:/srv/data"]):
        done = run("strace", "-o", f"{directory}/trace", SHARE, *words, running.name, cwd=directory)
        assert done.returncode == 0, done.stderr
        inside = re.search(r"\nsetns\(\d+, CLONE_NEWNS\) += 0\n(.*?)\nsetns\(\d+, CLONE_NEWNS\) += 0\n",
                           read(f"{directory}/trace"), re.DOTALL)[1]
        assert {line.partition("(")[0] for line in inside.splitlines()} <= {"move_mount", "fchdir", "umount2"}


# What keeps a share busy

USES = {"a directory": "cd /srv/data; exec sleep 1000", "a file": "exec sleep 1000 </srv/data/file",
        "the program": "exec /srv/data/program 1000",
        "the root": "exec perl -e 'chroot \"/srv/data\"; sleep 1000'"}


@pytest.mark.parametrize("use", USES)
def test_what_uses_a_share_is_named(running, data, use):
    shutil.copy(shutil.which("sleep"), f"{data}/program")
    share(f"{data}:/srv/data", running.name)
    process = start(GO, running.name, "sh", "-c", USES[use])
    user = wait_for(lambda: next((one for one in process_ids(running) if uses(one, data)), None))
    line = refused("--undo", f"{data}:/srv/data", running.name)
    name = read(f"/proc/{user}/comm").strip()
    assert line == f"overlay-share: cannot undo the share of {data}: it is in use by {name} ({user})"
    os.kill(user, signal.SIGKILL)
    process.wait()
    share("--undo", f"{data}:/srv/data", running.name)


def process_ids(one):
    return [int(line) for line in read(f"{group_of(one)}/cgroup.procs").split()]


def group_of(one):
    mount = next(line.split()[4] for line in read("/proc/self/mountinfo").splitlines() if " - cgroup2 " in line)
    return f"{mount}/{one.records()['cgroup']}"


def uses(process, data):
    for link in ("cwd", "root", "exe", "fd/0"):
        try:
            found = os.stat(f"/proc/{process}/{link}")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in {(one.st_dev, one.st_ino) for one in map(os.stat, (data, f"{data}/file", f"{data}/program"))}:
            return True
    return False


def test_a_user_outside_of_the_subhost_is_named(running, data):
    share(f"{data}:/srv/data", running.name)
    process = start("sleep", "1000", cwd=f"/proc/{running.init}/root/srv/data")
    wait_for(lambda: read(f"/proc/{process.pid}/comm") == "sleep\n")
    assert refused("--undo", f"{data}:/srv/data", running.name).endswith(f": it is in use by sleep ({process.pid})")
    process.kill()
    process.wait()
    share("--undo", f"{data}:/srv/data", running.name)


def test_what_is_mounted_on_a_share_is_named(unfenced, data):
    os.mkdir(f"{data}/below")
    share(f"{data}:/srv/data", unfenced.name)
    unfenced.inside("mount", "-t", "tmpfs", "tmpfs", "/srv/data/below")
    assert refused("--undo", f"{data}:/srv/data", unfenced.name) == (
        f"overlay-share: cannot undo the share of {data}: /srv/data/below in the subhost is mounted on it")
    unfenced.inside("umount", "/srv/data/below")
    share("--undo", f"{data}:/srv/data", unfenced.name)


def test_a_share_without_a_path_outside(running):
    assert refused(":/srv/data", running.name).startswith("overlay-share: cannot share :/srv/data: ")


def test_a_share_while_the_subhost_is_stopped(subhost, data, machine):
    """It is shared, or the subhost is not running; whatever comes between."""
    for number in range(20):
        one = subhost().booted()
        share(f"{data}:/srv/undone", one.name)
        words = [[SHARE, f"{data}:/srv/{number}", one.name] for number in range(3)] + [[SHARE, "--undo", f"{data}:/srv/undone", one.name]]
        at_work = [start(*command) for command in words]
        if number % 2:
            one.stopped()
        else:
            os.kill(one.init, signal.SIGKILL)
        for process in at_work:
            said = process.communicate()[1].decode()
            assert said in ("", f"overlay-share: {one.name} is not running\n") and bool(said) == bool(process.returncode)
        wait_for(one.is_gone)
    machine.is_as_before()


@pytest.mark.parametrize("settings, said", [({}, "no"), ({"CAPABILITIES": "+MKNOD"}, "yes")])
def test_devices_in_a_directory(subhost, directory, settings, said):
    """Who cannot make a device cannot use one that is in a directory, unless it is shared itself."""
    os.mkdir(f"{directory}/devices")
    os.mknod(f"{directory}/devices/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    one = subhost(SHARE=[f"{directory}/devices:/srv/at-boot", f"{directory}/devices/null:/srv/null"], **settings).booted()
    share(f"{directory}/devices:/srv/later", one.name)
    assert one.sh("for at in at-boot/null later/null null; do (: </srv/$at) 2>/dev/null && echo yes || echo no; done").split() == [said, said, "yes"]


# Options

@pytest.fixture
def mounted(data):
    """What is mounted below the directory of the host: two file systems, one in the other."""
    places = [f"{data}/a", f"{data}/a/b"]
    for place in places:
        os.mkdir(place)
        assert run("mount", "-t", "tmpfs", "tmpfs", place).returncode == 0
        write(f"{place}/in", place)
    yield places
    for place in reversed(places):
        assert run("umount", place).returncode == 0


USERS = pytest.mark.parametrize("settings", [{}, {"USERNS": "auto"}], ids=["", "users"])


@USERS
def test_options_of_a_share_at_the_boot(subhost, data, mounted, settings):
    one = subhost(SHARE=[f"{data}:ro", f"{data}:/plain", f"{data}:/all:rbind", f"{data}:/both:ro,rbind"], **settings).booted()
    assert one.sh(f"cat {data}/file; echo x >{data}/x || echo x >/both/x || echo x >/both/a/b/x || echo no; ls /plain/a; cat /all/a/in /both/a/b/in") == (
        f"from the hostno\n{data}/a{data}/a/b")
    one.sh("echo y >/all/a/b/y")
    assert read(f"{data}/a/b/y") == "y\n"
    assert shared(one) == [(data, data, True), (data, "/plain", False)] + [
        (f"{data}{place}", f"{inside}{place}", read_only) for inside, read_only in (("/all", False), ("/both", True)) for place in ("", "/a", "/a/b")]
    checked = one.boot("--check").stdout
    one.stopped()
    assert f"SHARE={data}:{data}:ro\n" in one.boot("--check").stdout and f"SHARE={data}:/both:ro,rbind\n" in one.boot("--check").stdout, checked


@USERS
def test_options_of_a_share_while_it_runs(subhost, data, mounted, settings, machine):
    one = subhost(**settings).booted()
    share(f"{data}:/srv/all:rbind", one.name)
    share("--read-only", f"{data}:/srv/ro:rbind", one.name)
    assert one.sh("cat /srv/all/a/b/in; echo x >/srv/ro/a/x || echo no") == f"{data}/a/bno"
    assert "is mounted on it" in refused("--undo", f"{data}:/srv/all", one.name)
    assert len(shared(one)) == 6
    holder = start(GO, one.name, "sh", "-c", "cd /srv/all/a && echo && exec sleep 1000000")
    assert holder.stdout.readline() == b"\n"
    assert "in use by sleep" in refused("--undo", f"{data}:/srv/all:rbind", one.name)
    holder.terminate()
    holder.communicate()
    share("--undo", f"{data}:/srv/all:rbind", one.name)
    assert [inside for _, inside, _ in shared(one)] == ["/srv/ro", "/srv/ro/a", "/srv/ro/a/b"]
    assert one.sh("ls /srv/all") == ""
    share("--undo", f"{data}:/srv/ro:rbind", one.name)
    assert shared(one) == []
    one.stopped()


def test_a_share_that_fails_below_is_undone(subhost, data, mounted):
    """One of the file systems cannot be id-mapped."""
    os.mkdir(f"{data}/a/b/proc")
    one = subhost(USERNS="auto").booted()
    assert run("mount", "-t", "proc", "proc", f"{data}/a/b/proc").returncode == 0
    try:
        assert f"cannot share {data}/a/b/proc" in refused(f"{data}:/srv/all:rbind", one.name)
        assert shared(one) == [] and one.sh("ls /srv/all") == ""
    finally:
        assert run("umount", f"{data}/a/b/proc").returncode == 0
    one.stopped()


@pytest.mark.parametrize(("text", "words"), [
    (":rw", "rw is no option"), (":srv", "srv is no option"), (":/x:RO", "RO is no option"), (":ro,", "nothing is no option"),
    (":/a:/b", "colon"), (":/x:ro:rbind", "colon"), (":/x:/y:ro", "colon"), (":/x:ro,x", "x is no option")])
def test_what_is_no_option(subhost, running, data, fails, machine, text, words):
    machine.look()
    assert words in fails(subhost(SHARE=f"{data}{text}"), "cannot share")
    assert words in refused(f"{data}{text}", running.name)
    assert shared(running) == []
    assert not os.path.exists(f"{running.upper}/srv")


def test_a_subhost_that_is_below_what_it_shares(subhost):
    """Its own root is not shared with it."""
    one = subhost()
    one.configure(SHARE=f"{os.path.dirname(one.base)}:/srv/all:rbind")
    one.booted()
    assert one.sh(f"ls /srv/all/{one.name}/live; ls -d /srv/all/{one.name}/root") == f"/srv/all/{one.name}/root"
    one.stopped()
