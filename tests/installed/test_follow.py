"""overlay-follow: a subhost sees its host as it is now, and nothing old is used in it."""
import json
import os
import shutil

import pytest
from conftest import cannot_run
from machine import BOOT, DIFF, DISKFILE, FOLLOW, GO, LS, descendants, one_line, read, run, start, wait_for, write

LEFT = 3
SERVICE = """#!/bin/sh
case $1 in
start) /usr/sbin/{name} 1000000 </dev/null >/dev/null 2>&1 & echo $! >/run/{name}.pid; echo {name} >>/order ;;
stop) kill $(cat /run/{name}.pid); echo no {name} >>/order ;;
esac
"""


def replace(path, content=None):
    """As dpkg does: a new file, by rename."""
    if content is None:
        shutil.copy(path, f"{path}.dpkg-new")
    else:
        write(f"{path}.dpkg-new", content)
    os.rename(f"{path}.dpkg-new", path)


def followed(*words, status=0):
    """What overlay-follow --json tells."""
    done = run(FOLLOW, "--json", *words)
    assert (done.returncode, done.stderr) == (status, ""), done
    return json.loads(done.stdout)


def nothing(one, state):
    """What is told of a subhost that has nothing to follow."""
    return {"name": one.name, "state": state, "is_done": True, "packages": [], "left": [], "restarted": [], "old": []}


@pytest.fixture
def serving_root(own_root):
    """A root of the test's own, with the services one and two."""
    for name in ("one", "two"):
        shutil.copy(f"{own_root}/usr/bin/sleep", f"{own_root}/usr/sbin/{name}")
        write(f"{own_root}/etc/init.d/{name}", SERVICE.format(name=name), 0o755)
    return own_root


@pytest.fixture
def served(serving_root, subhost):
    """A subhost with these services."""
    made = subhost(LOWER=serving_root, START="/etc/init.d/one /etc/init.d/two").booted()
    made.lower = serving_root
    return made


def libc(root):
    return next(f"{folder}/{name}" for folder, _, names in os.walk(root) for name in names if name.startswith("libc.so"))


def test_what_the_host_has_replaced_removed_and_made_is_seen(served):
    for path in ("replaced", "removed"):
        write(f"{served.lower}/etc/{path}", "old")
        assert served.inside("cat", f"/etc/{path}") == "old"
    assert served.go("cat", "/etc/made").returncode == 1
    replace(f"{served.lower}/etc/replaced", "new")
    os.unlink(f"{served.lower}/etc/removed")
    write(f"{served.lower}/etc/made", "new")
    assert served.inside("cat", "/etc/replaced") == "old"            # else there would be nothing to do
    assert followed("--dry-run", served.name) == [nothing(served, "running")]
    assert served.inside("cat", "/etc/replaced") == "old"
    assert followed(served.conf) == [nothing(served, "running")]
    assert served.inside("cat", "/etc/replaced", "/etc/made") == "newnew"
    assert served.go("cat", "/etc/removed").returncode == 1


def test_several(serving_root, subhost, directory):
    """Those that there are are followed, and what is wrong with another one is told."""
    one, two = (subhost(LOWER=serving_root).booted() for _ in range(2))
    assert {row["name"] for row in followed(one.name, two.conf, one.name)} == {one.name, two.name}
    done = run(FOLLOW, "--json", one.name, f"{directory}/none.conf", two.name)
    assert done.returncode == 1 and "none.conf" in done.stderr
    assert {row["name"] for row in json.loads(done.stdout)} == {one.name, two.name}


def test_what_the_subhost_has_of_its_own_stays(served):
    served.sh("echo mine >/etc/mine; echo mine >/etc/passwd; rm /etc/init.d/two")
    followed("--all")
    assert served.inside("cat", "/etc/mine", "/etc/passwd") == "mine\nmine"
    assert served.inside("ls", "/etc/init.d") == "one"


def old_of(row):
    return {(one["service"], *one["files"]) for one in row["old"]}


def test_services_that_use_old_files_are_told_and_started_anew(served):
    replace(f"{served.lower}/usr/sbin/one")
    [row] = followed(served.name, status=LEFT)
    assert old_of(row) == {("/etc/init.d/one", "/usr/sbin/one")} and row["old"][0]["command"] == "one"
    assert served.row()["old"] == [row["old"][0]["pid"]] and served.row()["state"] == "running"
    table = [line.split() for line in run(LS).stdout.splitlines()]
    assert [words[1] for words in table if words[0] == served.name] == ["outdated"]
    assert followed("--dry-run", served.name, status=LEFT) == [row]
    done = run(FOLLOW, served.name)
    assert (done.returncode, done.stdout) == (LEFT, f"{served.name}: /etc/init.d/one uses old files: /usr/sbin/one\n")
    [row] = followed("--restart", served.name)
    assert (row["restarted"], row["old"]) == (["/etc/init.d/one"], [])
    assert served.row()["old"] == [] and served.inside("cat", "/order") == "one\ntwo\nno one\none"
    assert followed("--restart", served.name)[0]["restarted"] == []


def group_of(process):
    return read(f"/proc/{process}/cgroup").strip().rpartition("/")[2]


def with_nobody(one):
    one.sh("echo nobody:x:65534:65534::/:/bin/sh >>/etc/passwd; echo nogroup:x:65534: >>/etc/group")


def test_a_service_is_what_is_in_its_control_group(served):
    """Whatever it executes; and somebody else who executes its program is none of it, also after it was started anew."""
    shutil.copy(f"{served.lower}/usr/bin/sleep", f"{served.lower}/usr/bin/hidden")
    write(f"{served.lower}/etc/init.d/two", "#!/bin/sh\n/usr/bin/hid*n 1000000 </dev/null >/dev/null 2>&1 &\n", 0o755)
    served.stopped()
    served.booted()
    with_nobody(served)
    other = start(GO, "-u", "nobody", served.name, "/usr/sbin/one", "1000000")
    wait_for(lambda: served.row()["processes"] == 4)
    for path in ("usr/bin/hidden", "usr/sbin/one"):
        replace(f"{served.lower}/{path}")
    [row] = followed(served.name, status=LEFT)
    assert {(one["service"], group_of(one["pid"]), *one["files"]) for one in row["old"]} == {
        ("/etc/init.d/one", "one.service", "/usr/sbin/one"), ("/etc/init.d/two", "two.service", "/usr/bin/hidden"),
        (None, served.name, "/usr/sbin/one")}
    followed("--restart", served.name, status=LEFT)
    replace(f"{served.lower}/usr/sbin/one")
    [row] = followed(served.name, status=LEFT)
    assert sorted((one["service"] or "", group_of(one["pid"])) for one in row["old"] if one["files"] == ["/usr/sbin/one"]) == [
        ("", served.name), ("/etc/init.d/one", "one.service")]
    other.terminate()
    other.communicate()


def test_a_script_that_fails_is_told(served):
    """What it has left running is asked to end; what does not do so uses old files still."""
    write(f"{served.lower}/etc/init.d/one", SERVICE.format(name="one").replace("kill $(cat /run/one.pid)", "exit 1"), 0o755)
    served.stopped()
    stubborn = "#!/bin/sh\ncase $1 in start) (trap '' TERM; exec /usr/sbin/two 1000000 </dev/null >/dev/null 2>&1) & ;; stop) exit 1 ;; esac\n"
    write(f"{served.lower}/etc/init.d/two", stubborn, 0o755)
    served.configure(LOWER=served.lower, START="/etc/init.d/one /etc/init.d/two", STOP_TIMEOUT="0.5")
    served.booted()
    for name in ("one", "two"):
        replace(f"{served.lower}/usr/sbin/{name}")
    done = run(FOLLOW, "--restart", served.name)
    assert done.returncode == LEFT
    assert done.stderr == "".join(f"overlay-follow: {served.name}: cannot stop /etc/init.d/{name}: /etc/init.d/{name} failed with exit status 1 "
                                  f"(what it printed is in LOG={served.log})\n" for name in ("two", "one"))
    assert done.stdout.splitlines() == [f"{served.name}: started again: /etc/init.d/one /etc/init.d/two",
                                        f"{served.name}: /etc/init.d/two uses old files: /usr/sbin/two"]


def test_a_pid_file_that_is_not_roots_is_not_believed(served):
    """A service that has nothing in its control group is found by these; /run/lock is for all to write to."""
    with_nobody(served)
    served.sh("read -r pid </run/two.pid; kill $pid; rm /run/two.pid; mkdir /run/open /run/given")
    os.chmod(f"/proc/{served.init}/root/run/open", 0o777)
    os.chown(f"/proc/{served.init}/root/run/given", 65534, 65534)
    shutil.copy(f"{served.lower}/usr/bin/sleep", f"{served.lower}/usr/bin/mine")
    begin = "/usr/bin/mine 1000000 </dev/null >/dev/null 2>&1 & for place in lock open given; do echo $! >/run/$place/two.pid; done"
    served.inside("sh", "-c", begin, user="nobody")
    served.sh("read -r pid </run/lock/two.pid; echo $pid >/run/lock/roots; mv /run/lock/roots /run/lock/two.pid")
    replace(f"{served.lower}/usr/bin/mine")
    [row] = followed(served.name, status=LEFT)
    assert old_of(row) == {(None, "/usr/bin/mine")}
    served.sh("read -r pid </run/lock/two.pid; echo $pid >/run/two.pid")
    [row] = followed(served.name, status=LEFT)
    assert old_of(row) == {("/etc/init.d/two", "/usr/bin/mine")}


def test_what_is_mounted_below_lower(serving_root, subhost, apart):
    """What the host has on a file system of its own is followed in the overlay mount that this has in the subhost."""
    apart(f"{serving_root}/usr")
    one = subhost(LOWER=serving_root, LOWER_MOUNTS="/usr", START="/etc/init.d/one /etc/init.d/two").booted()
    assert one.go("cat", "/usr/lib/made").returncode == 1
    write(f"{serving_root}/usr/lib/made", "new")
    replace(f"{serving_root}/usr/sbin/one")
    [row] = followed(one.name, status=LEFT)
    assert one.inside("cat", "/usr/lib/made") == "new"
    assert old_of(row) == {("/etc/init.d/one", "/usr/sbin/one")}
    [row] = followed("--restart", one.name)
    assert (row["restarted"], row["old"]) == (["/etc/init.d/one"], [])


@pytest.mark.parametrize("hibernates", [False, True], ids=["booted", "woken"])
@pytest.mark.parametrize("settings", [{"UPPER": "tmpfs:16M"}, {"IMAGE": "../disk.img"}, {"UPPER": "tmpfs:16M", "HIDE": "/usr/bin/mine"}],
                         ids=["tmpfs", "image", "hiding"])
def test_an_upper_that_nobody_else_sees(serving_root, subhost, settings, hibernates, directory, machine):
    """The keeper has it open, or what hibernates keeps it: what the subhost has there is its own, and is not old."""
    machine.look()
    assert run(DISKFILE, "--create", "16M", f"{directory}/disk.img").returncode == 0
    one = subhost(LOWER=serving_root, START="/etc/init.d/one", **settings)
    os.mkdir(f"{one.base}/mnt")
    if hibernates:
        assert run(BOOT, "--shell", one.conf, input="").returncode == 0
        write(f"{serving_root}/etc/made", "new")
        assert followed(one.name) == [{**nothing(one, "hibernating"), "packages": None}]
    one.booted()
    one.sh("cp /usr/bin/sleep /usr/bin/mine; /usr/bin/mine 1000 </dev/null >/dev/null 2>&1 &")
    wait_for(lambda: "mine" in one.inside("ps", "ax"))
    assert followed(one.name) == [nothing(one, "running")]
    replace(f"{serving_root}/usr/sbin/one")
    [row] = followed(one.name, status=LEFT)
    assert old_of(row) == {("/etc/init.d/one", "/usr/sbin/one")} and row["packages"] == []
    assert one.go("sh", "-c", "exec /usr/sbin/one 0.01").returncode == 0
    assert [line.split()[-1] for line in run(DIFF, "--files", one.name).stdout.splitlines() if "mine" in line] == ["/usr/bin/mine"]
    one.stopped()
    machine.is_as_before()


def test_a_library_of_all_of_them(served):
    """All of them are stopped before the first one is started.  A subhost that ends with its services does not end then."""
    served.stopped()
    os.unlink(f"{served.upper}/order")
    served.configure(LOWER=served.lower, START="/etc/init.d/one /etc/init.d/two", STAY="no")
    served.booted()
    path = libc(served.lower)
    replace(path)
    [row] = followed(served.name, status=LEFT)
    inside = path.removeprefix(served.lower)
    assert old_of(row) == {("/etc/init.d/one", inside), ("/etc/init.d/two", inside)}
    [row] = followed("--restart", served.name)
    assert (row["restarted"], row["old"]) == (["/etc/init.d/one", "/etc/init.d/two"], [])
    assert served.inside("cat", "/order") == "one\ntwo\nno two\nno one\none\ntwo"
    served.go("sh", "-c", "for name in one two; do read -r pid </run/$name.pid; kill $pid; done")
    wait_for(served.is_gone)


def everything(directory):
    """{path: content} of all files in a directory."""
    return {f"{folder}/{name}": read(f"{folder}/{name}") for folder, _, names in os.walk(directory) for name in names}


def test_who_opens_the_path_of_a_file_in_use_gets_the_new_one(served):
    """As it is on the host: programs that are started later have the new libraries, and UPPER is as before."""
    path, inside = f"{served.lower}/usr/sbin/one", "/usr/sbin/one"
    for number in (1, 2):
        before = everything(served.base)
        replace(path, f"new {number}")
        [row] = followed("--view", served.name, status=LEFT)
        assert old_of(row) == {("/etc/init.d/one", inside)}
        assert served.inside("cat", inside) == f"new {number}"
        assert everything(served.base) == before
    assert served.inside("stat", "-c", "%a %u", inside) == "644 0"


def test_nothing_of_what_is_hidden_is_copied(served):
    """HIDE hides a file of the host's, of which a process uses the one that the host had before; all else is renewed."""
    write(f"{served.lower}/etc/shadow", "root:$y$secret:1::::::\n")
    served.stopped()
    served.configure(LOWER=served.lower, START="/etc/init.d/one", HIDE="secrets")
    served.booted()
    holder = start(GO, served.name, "sh", "-c", "exec 3</etc/shadow; echo done; exec tail -f /dev/null")
    assert holder.stdout.readline() == b"done\n"
    replace(f"{served.lower}/usr/sbin/one", "new")
    replace(f"{served.lower}/etc/shadow", "root:$y$secret:2::::::\n")
    [row] = followed("--view", served.name, status=LEFT)
    assert old_of(row) == {("/etc/init.d/one", "/usr/sbin/one")}
    assert "secret" not in served.inside("cat", "/etc/shadow")
    assert served.inside("cat", "/usr/sbin/one") == "new"
    served.stopped()
    holder.communicate()


@pytest.mark.parametrize("boots", [1, 2])
def test_a_program_that_is_hidden(served, boots):
    """A program of the subhost's own in the place of one that HIDE hides is none of the host's, at each boot."""
    served.stopped()
    write(f"{served.lower}/var/lib/dpkg/status", "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n")
    served.configure(LOWER=served.lower, START="/etc/init.d/one", HIDE="/usr/sbin/two")
    served.write("usr/sbin/own", "")
    shutil.copy(f"{served.lower}/usr/sbin/one", f"{served.upper}/usr/sbin/own")
    for again in range(boots):
        if again:
            served.stopped()
        served.booted()
    assert served.go("ls", "/usr/sbin/two").returncode
    served.sh("cp /usr/sbin/own /usr/sbin/two; /usr/sbin/two 1000000 </dev/null >/dev/null 2>&1 & wait_for=$!; sleep 0.2; rm /usr/sbin/two")
    assert followed("--view", served.name)[0]["old"] == []


@pytest.mark.parametrize("call, number", [("renameat", 1), ("renameat", 2), ("unlinkat", 3), ("unlinkat", 4)])
def test_one_that_was_killed_while_a_copy_was_in_the_place_of_a_file(served, call, number):
    """The next call removes the copy, also where nobody uses the old file any more."""
    if not shutil.which("strace"):
        cannot_run("no strace")
    path, inside = f"{served.lower}/usr/sbin/one", "/usr/sbin/one"
    before = everything(served.base)
    replace(path, "new")
    killed = run("strace", "-fo", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}", FOLLOW, "--view", served.name)
    assert killed.returncode != LEFT, killed
    left = {*everything(served.base)} - {*before}
    assert {os.path.basename(one) for one in left} & {"copies", "copies.new"}
    served.sh("read -r pid </run/one.pid; kill $pid")
    followed(served.name)
    left = {os.path.relpath(one, served.base) for one in {*everything(served.base)} - {*before}}
    assert {one for one in left if not one.startswith("followed/")} <= {"copies.new"}
    replace(path, "newer")
    followed(served.name)
    assert served.inside("cat", inside) == "newer"


def test_a_process_that_is_no_service_is_told_and_left_alone(served):
    process = start(GO, served.name, "sleep", "1000000")
    wait_for(lambda: "sleep" in descendants(process.pid).values())      # it has been executed
    os.unlink(f"{served.lower}/usr/bin/sleep")
    [row] = followed("--restart", served.name, status=LEFT)
    assert row["restarted"] == [] and old_of(row) == {(None, "/usr/bin/sleep")} and row["old"][0]["command"] == "sleep"
    done = run(FOLLOW, served.name)
    assert done.stdout == f"{served.name}: sleep ({row['old'][0]['pid']}) uses old files: /usr/bin/sleep\n"
    process.terminate()
    process.communicate()
    assert followed(served.name)[0]["old"] == []


def test_what_the_subhost_replaces_itself(served):
    """A program that is upgraded inside is old as well; what it has made and removed itself is none of the host's."""
    served.sh("cp /usr/sbin/one /usr/sbin/new; mv /usr/sbin/new /usr/sbin/one; cp /usr/bin/sleep /usr/bin/temporary; "
              "(/usr/bin/temporary 1000000 & echo $! >/run/it) </dev/null >/dev/null 2>&1; rm /usr/bin/temporary")
    [row] = followed(served.name, status=LEFT)
    assert old_of(row) == {("/etc/init.d/one", "/usr/sbin/one")}
    followed("--restart", served.name)
    assert served.row()["old"] == []


def test_a_file_that_was_written_to_is_not_old(served):
    """It is copied to UPPER, and is the same file for who has it mapped."""
    served.sh("read -r pid </run/one.pid; kill $pid; rm /run/one.pid; cat /usr/sbin/one >/copy; touch /usr/sbin/one")
    served.sh("/usr/sbin/one 1000000 </dev/null >/dev/null 2>&1 &")
    assert followed(served.name)[0]["old"] == []


def test_all_of_them(served, subhost):
    other = subhost(LOWER=served.lower).booted()
    stopped = subhost(LOWER=served.lower)
    replace(f"{served.lower}/usr/sbin/one")
    rows = {row["name"]: row for row in followed("--all", status=LEFT)}
    assert rows[served.name]["old"] and rows[other.name]["old"] == [] and stopped.name not in rows
    rows = {row["name"]: row for row in followed("--all", "--restart")}
    assert rows[served.name]["restarted"] == ["/etc/init.d/one"]


def test_a_layer_that_is_inside_lower(own_root, subhost):
    """LOWER is an overlay mount of its own then, which has names in its cache, too."""
    layer = write(f"{own_root}/var/layer/etc/of-layer", "layer")
    write(f"{own_root}/etc/replaced", "old")
    one = subhost(LOWER=own_root, LAYER=layer.removesuffix("/etc/of-layer")).booted()
    assert one.inside("cat", "/etc/of-layer", "/etc/replaced") == "layerold" and one.go("cat", "/etc/made").returncode == 1
    replace(f"{own_root}/etc/replaced", "new")
    write(f"{own_root}/etc/made", "new")
    followed(one.name)
    assert one.inside("cat", "/etc/of-layer", "/etc/replaced", "/etc/made") == "layernewnew"


def test_one_that_is_not_running(subhost, machine):
    one = subhost()
    assert followed("--view", one.conf) == [{**nothing(one, "stopped"), "packages": None}]
    assert one_line(run(FOLLOW, "/nowhere/x.conf")) == "overlay-follow: cannot read /nowhere/x.conf: No such file or directory"
    machine.is_as_before()


def test_a_restart_that_was_killed_is_finished(served):
    """By the next call, whatever that was to do."""
    replace(f"{served.lower}/usr/sbin/one")
    write(f"{served.lower}/etc/init.d/one", SERVICE.format(name="one").replace(
        "start)", "start) echo held $$ >>/order; read -r line </hold;"), 0o755)
    served.sh("mkfifo /hold")
    process = start(FOLLOW, "--restart", served.name)
    wait_for(lambda: "held" in served.inside("cat", "/order"))
    process.kill()
    process.wait()
    process.stdout.close(), process.stderr.close()
    served.sh("kill $(sed -n 's/^held //p' /order) || :; rm /hold; echo >/hold")
    assert followed(served.name)[0]["restarted"] == ["/etc/init.d/one"]
    assert served.row()["processes"] == 3 and followed(served.name)[0]["restarted"] == []
