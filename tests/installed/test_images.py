"""LAYER=oci:PATH[:TAG], and INIT=overlay-oci-init: images of OCI and docker."""
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import tarfile

import images
import pytest
from images import ARCHITECTURE, Layout, image, member, tar
from machine import BOOT, CACHE, DIFF, LAYERS, STATES, one_line, read, run, start, wait_for, write

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.fixture(autouse=True)
def empty_cache(own_cache):
    yield
    for name in os.listdir(CACHE):
        path = f"{CACHE}/{name}"
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def cached():
    """What the cache has, but for the list of archives seen."""
    return sorted(name for place in ("layers", "images") if os.path.isdir(f"{CACHE}/{place}") for name in os.listdir(f"{CACHE}/{place}"))


@pytest.fixture(scope="session")
def static_program(run_directory):
    """A static program that does what its first argument says, and needs nothing else."""
    source = f"{run_directory}/program.c"
    with open(source, "w") as file:
        file.write(PROGRAM)
    done = run("musl-gcc", "-static", "-Os", "-s", "-o", f"{run_directory}/program", source)
    assert done.returncode == 0, done.stderr
    with open(f"{run_directory}/program", "rb") as file:
        return file.read()


PROGRAM = r"""
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <grp.h>
extern char **environ;
static void on(int number) { printf("signal %d\n", number); fflush(stdout); _exit(number == SIGQUIT ? 0 : 5); }
int main(int argc, char **argv) {
    char here[4096]; gid_t groups[64]; int i, n;
    if (!strcmp(argv[0], "sh")) return 0;
    if (argc > 2 && !strcmp(argv[1], "exit")) return atoi(argv[2]);
    if (argc > 1 && !strcmp(argv[1], "abort")) { signal(SIGHUP, SIG_DFL); raise(argc > 2 ? SIGHUP : SIGKILL); }
    if (argc > 2 && !strcmp(argv[1], "ls")) { struct stat s; for (i = 2; i < argc; i++) printf("%s %d\n", argv[i], stat(argv[i], &s) ? -errno : (int) (s.st_mode & 0170000)); return 0; }
    for (i = 0; i < argc; i++) printf("word <%s>\n", argv[i]);
    for (i = 0; environ[i]; i++) printf("variable <%s>\n", environ[i]);
    printf("ids %d %d", getuid(), getgid());
    n = getgroups(64, groups); for (i = 0; i < n; i++) printf(" %d", groups[i]);
    printf("\ndirectory %s\nprocess %d %d\n", getcwd(here, sizeof here), getpid() == getsid(0), getppid());
    { FILE *f = fopen("/dev/stdout", "w"); printf("opened %d\n", f != NULL); }
    fflush(stdout);
    signal(SIGTERM, on); signal(SIGQUIT, on);
    for (;;) pause();
}
"""


@pytest.fixture
def alone(subhost, directory, static_program):
    """Makes a subhost of which the image has one static program, /bin/program, and nothing else but these members."""
    def make(*members, settings=(), **config):
        config = {"Entrypoint": ["/bin/program"], **config}
        one = subhost(**{"LOWER": "empty", "LAYER": "oci:image", "INIT": "overlay-oci-init", "START": None, **dict(settings)})
        os.mkdir(f"{one.base}/empty")
        image(f"{one.base}/image", tar(member("bin/program", static_program, mode=0o755), *members), **config)
        return one
    return make


def said(one, word):
    """What the main process has printed, of lines that begin with that word, once the last one is there."""
    wait_for(lambda: "opened " in one.said() or "has ended" in one.said(), what=one.said())
    return [line.partition(" ")[2] for line in one.said().splitlines() if line.startswith(f"{word} ")]


# What runs

def test_a_static_program_and_nothing_else(alone):
    """No shell, no /etc: the directories that a boot mounts on are made, and the program is no PID 1."""
    one = alone(Cmd=["a b", "$HOME", "x\ny\\z", ""], Env=["PATH=/nowhere:/bin", "A=1 2\n3", "EMPTY=", "nonsense"], WorkingDir="/srv/a/../b")
    one.booted()
    assert "word </bin/program>\nword <a b>\nword <$HOME>\nword <x\ny\\z>\nword <>\n" in wait_for(
        lambda: "opened" in one.said() and one.said())
    assert f"variable <PATH=/nowhere:/bin>\nvariable <HOME=/root>\nvariable <HOSTNAME={one.name}>\nvariable <container=overlay-boot>\n" \
           f"variable <A=1 2\n3>\nvariable <EMPTY=>\nids 0 0\ndirectory /srv/b\nprocess 1 1\nopened 1\n" in one.said()
    assert one.go("/bin/program", "ls", "/dev/null", "/proc/1", "/run", "/sys/class", "/.reaper", "/bin/sh").stdout.split() == [
        "/dev/null", str(stat.S_IFCHR), "/proc/1", str(stat.S_IFDIR), "/run", str(stat.S_IFDIR), "/sys/class", str(stat.S_IFDIR),
        "/.reaper", str(stat.S_IFREG), "/bin/sh", "-2"]
    assert one.row()["state"] == "running"
    one.stopped()
    assert "signal 15\noverlay-boot: /bin/program has ended with exit status 5\n" in one.said()


def test_in_three_lines(alone):
    one = alone()
    write(one.conf, "LOWER= empty\nLAYER= oci:image\nINIT= overlay-oci-init\n")
    one.booted()
    assert said(one, "ids") == ["0 0"]


def test_the_signal_to_stop_is_for_the_main_process(alone):
    one = alone(StopSignal="SIGQUIT")
    one.booted()
    said(one, "ids")
    one.stopped()
    assert "signal 3\noverlay-boot: /bin/program has ended with exit status 0\n" in one.said()


@pytest.mark.parametrize("user, ids", [
    ("", "0 0 7"), ("web", "33 44 70 71"), ("33", "33 44 70 71"), ("web:ftp", "33 70"), ("web:9", "33 9"), ("5:6", "5 6"), ("4711", "4711 0"), (":ftp", "0 70")])
def test_users_are_the_images_own(alone, user, ids):
    one = alone(member("etc/passwd", b"nonsense\nroot:x:0:0::/r:/\nweb:x:33:44:::\nbad:x:-1:0:::\n"),
                member("etc/group", b"ftp:x:70:x,web\nw:x:71:web\nwheel:x:7:root\n\xff:x:y:web\n"), User=user)
    one.booted()
    numbers = said(one, "ids")[0].split()
    expected = ids.split()
    assert numbers[:2] == expected[:2] and sorted(numbers[2:]) == sorted(expected[2:])
    assert said(one, "opened") == ["1"]


@pytest.mark.parametrize("path", ["etc/passwd", "etc"])
def test_files_of_users_that_lead_out_or_never_end(alone, fails, path):
    one = alone(member(path, kind=tarfile.SYMTYPE, link="/proc/1/root/etc/passwd"), User="daemon")
    fails(one, "the image has no user daemon")
    two = alone(member("etc/passwd", kind=tarfile.FIFOTYPE), User="daemon")
    fails(two, "the image has no user daemon")


def test_what_init_chooses(alone):
    one = alone(Cmd=["not this"], Env=["A=1", "B=2"], settings={
        "INIT": "overlay-oci-init --env A=3 --env-file=some.env --user 12:13 -- --env x"})
    write(f"{one.base}/some.env", "# comment\n\nSECRET=a b 'c' $D\nB=4\n")
    one.booted()
    assert said(one, "word") == ["</bin/program>", "<--env>", "<x>"]
    assert {"<A=3>", "<B=4>", "<SECRET=a b 'c' $D>"} <= {*said(one, "variable")} and said(one, "ids") == ["12 13"]
    assert not any("SECRET" in read(f"/proc/{process}/cmdline") for process in (one.init, one.keeper))


def test_another_entrypoint(alone):
    one = alone(Cmd=["not this"], Entrypoint=["/nor/this"], settings={"INIT": "overlay-oci-init --entrypoint program"})
    one.booted()
    assert said(one, "word") == ["<program>"]


@pytest.mark.parametrize("words, why", [
    ("--user", "--user without a value"), ("--tty", "--tty is none of"), ("--env A", "A is not NAME=VALUE"),
    ("--env-file none.env", "No such file"), ("--env-file /dev/zero", "is not a regular file")])
def test_wrong_words_of_init(alone, fails, words, why):
    one = alone(settings={"INIT": f"overlay-oci-init {words}"})
    fails(one, why)
    assert why in one_line(run(BOOT, "--check", one.conf))


@pytest.mark.parametrize("config, why", [
    ({"Entrypoint": None}, "neither Entrypoint nor Cmd"), ({"User": "nobody"}, "the image has no user nobody"),
    ({"User": "0:staff"}, "the image has no group staff"), ({"StopSignal": "SIGNONE"}, "StopSignal SIGNONE"),
    ({"Entrypoint": "/bin/program"}, "Entrypoint in it is not an array"),
    ({"Env": ["A=\ud800"]}, "Env in it is not an array of strings"), ({"WorkingDir": "/\udcff"}, "WorkingDir in it is not a string"),
    ({"Entrypoint": ["/none"]}, "cannot start /none: No such file or directory"), ({"Entrypoint": ["none"]}, "cannot start none: No such file"),
    ({"Entrypoint": ["/etc/note"]}, "cannot start /etc/note: Permission denied"), ({"WorkingDir": "/etc/note/x"}, "cannot enter the directory /etc/note/x: Not a dir"),
    ({"Env": [f"A{number}=" for number in range(5000)]}, "more arguments and variables than")])
def test_what_cannot_be_run(alone, fails, config, why):
    fails(alone(member("etc/note", b""), **config), why)


def test_without_an_image(subhost, fails):
    fails(subhost(INIT="overlay-oci-init"), "INIT=overlay-oci-init: LAYER names no image")


# Its end

def test_it_stays_when_the_main_process_has_ended(alone):
    one = alone(Cmd=["exit", "3"])
    one.booted()
    wait_for(lambda: "overlay-boot: /bin/program has ended with exit status 3\n" in one.said())
    assert one.go("/bin/program", "exit", "4").returncode == 4
    one.stopped()


@pytest.mark.parametrize("words, status", [(["exit", "3"], 3), (["exit", "0"], 0), (["abort"], 137), (["exit", "129"], 1)])
def test_it_ends_with_the_main_process(alone, machine, words, status):
    """In the foreground with its exit status; what a reboot would have is none."""
    one = alone(Cmd=words, settings={"STAY": "no"})
    done = one.boot("--foreground")
    assert done.returncode == status, done.stderr
    assert not one.is_running()


def test_it_ends_with_the_main_process_in_the_background(alone):
    one = alone(Cmd=["exit", "0"], settings={"STAY": "no"})
    one.booted()
    wait_for(lambda: not os.path.exists(f"{STATES}/{one.name}"))
    assert "has ended with exit status 0" in one.said()


def test_foreground_is_stopped_in_order(alone):
    one = alone(StopSignal="3")
    boot = start(BOOT, "--foreground", one.conf)
    wait_for(one.is_running)
    boot.send_signal(signal.SIGTERM)
    assert boot.wait(20) == 0


def test_a_hook_that_prints_more(subhost, small_root):
    """It has a shell to run it; the command gives what the boot gives by itself."""
    one = subhost(LAYER="oci:image", LOWER=small_root, START=None, INIT="hook")
    one.configure(LAYER="oci:image", LOWER=small_root, START=None, INIT="./hook")
    image(f"{one.base}/image", tar(member("etc/image", b"")), Entrypoint=["sh", "-c", "printf %s \"$0\" >/tmp/ran; exec sleep 1000", "a'b\\c\ne"], User="0:5")
    one.script("hook", "echo 'echo first >/tmp/first'; overlay-oci-init --env X=y\n")
    one.booted()
    wait_for(lambda: one.go("cat", "/tmp/ran").stdout == "a'b\\c\ne")
    assert one.inside("cat", "/tmp/first") == "first"
    one.stopped()
    assert "overlay-boot: sh was killed by signal 15\n" in one.said()


def test_with_a_user_namespace(alone):
    one = alone(member("etc/passwd", b"web:x:33:44:::\n"), User="web", WorkingDir="/new", settings={"USERNS": "auto"})
    one.booted()
    assert said(one, "ids")[0].split()[:2] == ["33", "44"]
    assert said(one, "opened") == ["1"]


def test_check_tells_of_ports_and_volumes(alone):
    one = alone(ExposedPorts={"80/tcp": {}, "53/udp": {}}, Volumes={"/data": {}})
    done = run(BOOT, "--check", "--verbose", one.conf)
    assert done.returncode == 0
    assert "53/udp 80/tcp" in done.stderr and "/data" in done.stderr
    assert f"LAYER=oci:{one.base}/image\n" in done.stdout and "which starts what the image tells of" in done.stdout


def test_reboot_takes_the_image_anew(alone, static_program):
    """What was kept of a shell's subhost is as it was made, even if the image is gone since."""
    one = alone(Cmd=["exit", "0"])
    one.booted()
    first = cached()
    one.stopped()
    shutil.rmtree(f"{one.base}/image")
    image(f"{one.base}/image", tar(member("bin/program", static_program, mode=0o755)), Entrypoint=["/bin/program", "other"])
    one.booted()
    assert said(one, "word") == ["</bin/program>", "<other>"]
    assert len(cached()) == len(first) + 1          # the same layer, another configuration
    assert run(LAYERS, "--remove-unused").returncode == 0
    assert len(cached()) == 2
    one.stopped()
    assert run(LAYERS, "--remove-unused").returncode == 0 and cached() == []


def test_what_hibernates_runs_what_it_was_made_of(alone):
    """Though the image is gone by then, or is another one."""
    one = alone(member("bin/sh", kind=tarfile.SYMTYPE, link="program"), Cmd=["first"])
    done = run(BOOT, "--shell", one.conf, input="")
    assert done.returncode == 0, done.stderr
    assert one.row()["state"] == "hibernating"
    shutil.rmtree(f"{one.base}/image")
    one.booted()
    assert said(one, "word")[-2:] == ["</bin/program>", "<first>"]


# What a subhost sees

def view(one):
    """{path: what is there} in the root of a subhost that runs, without what every subhost has."""
    found = {}
    root = f"/proc/{one.init}/root"
    for directory, folders, files in os.walk(root):
        if directory == root:
            folders[:] = [name for name in folders if name not in ("dev", "proc", "run", "sys")]
        for name in (*folders, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = read(path) if stat.S_ISREG(status.st_mode) else os.readlink(path) if stat.S_ISLNK(status.st_mode) else stat.S_IFMT(status.st_mode)
            found[os.path.relpath(path, root)] = content
    for name in (".reaper", "etc/hostname", "etc/hosts", "etc/network", "etc/network/interfaces", "dev", "proc", "run", "sys"):
        found.pop(name, None)
    return found


def over(subhost, *layers, settings=(), **how):
    """A subhost that is booted, whose root is an image of these layers."""
    one = subhost(**{"LOWER": "empty", "LAYER": "oci:image", **dict(settings)})
    os.mkdir(f"{one.base}/empty")
    image(f"{one.base}/image", *layers, **how)
    return one.booted()


DIRECTORY = stat.S_IFDIR


def test_whiteouts_and_opaque_directories(subhost):
    """In whatever order a layer has them; what is in the same layer is not hidden."""
    one = over(
        subhost,
        tar(member("a"), member("a/1", b"1"), member("a/2", b"2"), member("b"), member("b/1", b"1"), member("c", b"c"), member("d"), member("d/1", b"1"),
            member("e"), member("e/e"), member("e/e/1", b"1"), member("f"), member("f/1", b"1"), member("g"), member("g/1", b"1")),
        tar(member("a/.wh.1", b""), member("b/2", b"2"), member("b"), member("b/.wh..wh..opq", b""), member("b/3", b"3"), member(".wh.c", b""),
            member(".wh.d", b""), member("d"), member("d/2", b"2"), member("e/e/.wh..wh..opq", b""), member("f", b"a file now"), member("g/2", b"2"), member(".wh.g", b""),
            member("f/.wh.1", b""), member(".wh.nothing", b""), member(".wh..wh.plnk", b""), member(".wh..wh.aufs", b"")),
        tar(member("c"), member("c/new", b"new"), member("e/.wh.e", b""), member("f"), member("f/2", b"2")))
    assert view(one) == {
        "a": DIRECTORY, "a/2": "2", "b": DIRECTORY, "b/2": "2", "b/3": "3", "c": DIRECTORY, "c/new": "new", "d": DIRECTORY, "d/2": "2",
        "e": DIRECTORY, "f": DIRECTORY, "f/2": "2", "g": DIRECTORY, "g/2": "2", "etc": DIRECTORY}


def test_ten_layers_with_whiteouts_over_whiteouts(subhost):
    layers, expected = [], {"etc": DIRECTORY}
    for number in range(10):
        members = [member("d"), member(f"d/{number}", b"%d" % number), member("d/top", b"%d" % number)]
        if number:
            members += [member(f"d/.wh.{number - 1}", b"")]
        members += [member(".wh.turn" if number % 2 else "turn", b"")]
        layers.append(tar(*members))
    one = over(subhost, *layers)
    assert view(one) == {**expected, "d": DIRECTORY, "d/9": "9", "d/top": "9"}
    assert len(os.listdir(f"{CACHE}/layers")) == 10


def test_what_a_layer_does_not_mention_is_as_below(subhost):
    """Directories keep their modes, symbolic links lead to where they lead for the image, and hard links are made to files below."""
    one = over(
        subhost,
        tar(member("tmp", mode=0o1777, uid=3, mtime=1000), member("usr"), member("usr/bin"), member("bin", kind=tarfile.SYMTYPE, link="usr/bin"), member("usr/bin/old", b"old", mode=0o4711, uid=7),
            member("abs", kind=tarfile.SYMTYPE, link="/../../usr/bin/../bin"), member("gone"), member("gone/x", b"")),
        tar(member(".wh.gone", b"")),
        tar(member("tmp/new", b"new"), member("bin/new", b"new"), member("abs/other", b"other"), member("usr/bin/link", kind=tarfile.LNKTYPE, link="usr/bin/old"),
            member("gone/y", b"")))
    assert view(one) == {"tmp": DIRECTORY, "tmp/new": "new", "usr": DIRECTORY, "usr/bin": DIRECTORY, "bin": "usr/bin", "usr/bin/old": "old", "usr/bin/new": "new",
                         "usr/bin/other": "other", "usr/bin/link": "old", "abs": "/../../usr/bin/../bin", "gone": DIRECTORY, "gone/y": "", "etc": DIRECTORY}
    root = f"/proc/{one.init}/root"
    found = os.stat(f"{root}/tmp")
    assert (found.st_mode & 0o7777, found.st_uid, found.st_mtime) == (0o1777, 3, 1000)
    found = os.stat(f"{root}/usr/bin/link")
    assert (found.st_mode & 0o7777, found.st_uid, found.st_nlink) == (0o4711, 7, 2)


def test_every_odd_member(subhost):
    """What archives have that other programs write; what comes later in one takes the place of what came before."""
    directory = tarfile.TarInfo("old/")
    directory.type, directory.mode = tarfile.AREGTYPE, 0o755
    one = over(
        subhost,
        tar(member("./", mode=0o755), member("./a/./b//c", b"c"), (directory, b""), member("x" * 200 + "/" + "y" * 100, b"long"), member("fifo", kind=tarfile.FIFOTYPE, mode=0o640),
            member("dev"), member("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), member("dev/sda", kind=tarfile.BLKTYPE, devmajor=8),
            member("twice", b"one"), member("twice", b"two"), member("kind"), member("kind/in/it", b""), member("kind", b"file"),
            member("back", b"file"), member("back"), member("back/x", b"x"), member("hard", kind=tarfile.LNKTYPE, link="./twice"), member("hard", kind=tarfile.LNKTYPE, link="twice"),
            member("link", kind=tarfile.SYMTYPE, link="a"), member("link", kind=tarfile.SYMTYPE, link="b"), member("cap", b"cap", mode=0o755, uid=70000, gid=4, mtime=1.5,
            pax_headers={"SCHILY.xattr.security.capability": os.fsdecode(CAPABILITY), "SCHILY.xattr.user.note": "n", "mtime": "1.5"}), member("\udcff", b"bytes")))
    assert view(one) == {
        "a": DIRECTORY, "a/b": DIRECTORY, "a/b/c": "c", "old": DIRECTORY, "x" * 200: DIRECTORY, "x" * 200 + "/" + "y" * 100: "long", "fifo": stat.S_IFIFO, "twice": "two",
        "kind": "file", "back": DIRECTORY, "back/x": "x", "hard": "two", "link": "b", "cap": "cap", "\udcff": "bytes", "etc": DIRECTORY}
    path = f"/proc/{one.init}/root/cap"
    assert os.getxattr(path, "security.capability") == CAPABILITY and os.getxattr(path, "user.note") == b"n"
    assert (os.stat(path).st_uid, os.stat(path).st_mtime) == (70000, 1.5)


def test_over_the_hosts_root(subhost):
    one = subhost(LAYER=["below", "oci:image", "above"])
    for layer in ("below", "above"):
        write(f"{one.base}/{layer}/etc/{layer}", layer)
    write(f"{one.base}/above/etc/both", "above")
    image(f"{one.base}/image", tar(member("etc/both", b"image"), member("etc/image", b"image"), member("etc/hostname", b"builder\n"), member("etc/.wh.below", b"")))
    one.booted()
    assert one.inside("cat", "/etc/both", "/etc/above", "/etc/image") == "aboveaboveimage"
    assert one.inside("hostname") == one.inside("cat", "/etc/hostname") == one.name
    assert one.go("cat", "/etc/below").returncode == 1
    done = run(DIFF, one.conf)
    assert done.returncode == 0 and "/etc/image" not in done.stdout and "not unpacked" not in done.stderr


@pytest.mark.parametrize("pack, suffix", [(gzip.compress, "+gzip"), (images.zstd, "+zstd"), (lambda data: data, ""), (images.zstd, "")],
                         ids=["gzip", "zstd", "plain", "zstd, called plain"])
@pytest.mark.parametrize("kind", ["layout", "archive"])
def test_compressions_and_archives(subhost, pack, suffix, kind):
    one = subhost(LOWER="empty", LAYER="oci:image.tar" if kind == "archive" else "oci:image")
    os.mkdir(f"{one.base}/empty")
    layout = image(f"{one.base}/image", tar(member("a", b"a" * 100000)), tar(member("b", b"b")), pack=pack, suffix=suffix)
    if kind == "archive":
        layout.archive(f"{one.base}/image.tar")
        shutil.rmtree(f"{one.base}/image")
    one.booted()
    assert view(one) == {"a": "a" * 100000, "b": "b", "etc": DIRECTORY}


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


def docker_save(path, *layers, tags=("app:1",), linked=False):
    """An archive as docker-save(1) made it before version 25."""
    config = json.dumps({"architecture": ARCHITECTURE, "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": [images.digest_of(layer) for layer in layers]}}).encode()
    names = [f"{number:064x}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": f"{hashlib.sha256(config).hexdigest()}.json", "RepoTags": [*tags], "Layers": names}]
    members = [member(manifest[0]["Config"], config)]
    for name, layer in zip(names, layers, strict=True):
        members.append(member(name, layer))
        if linked:
            members[-1] = member(name.replace("layer", "other"), layer)
            members.append(member(name, kind=tarfile.SYMTYPE, link=f"../{name.replace('layer', 'other')}"))
    put(path, tar(*members, member("manifest.json", json.dumps(manifest).encode())))


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("tag", ["", ":app:1", ":1"])
def test_what_docker_saves(subhost, tag, linked):
    one = subhost(LOWER="empty", LAYER=f"oci:app.tar{tag}")
    os.mkdir(f"{one.base}/empty")
    docker_save(f"{one.base}/app.tar", tar(member("a", b"a")), tar(member("b", b"b")), linked=linked)
    one.booted()
    assert view(one) == {"a": "a", "b": "b", "etc": DIRECTORY}


def test_types_of_docker(subhost):
    one = over(subhost, tar(member("a", b"a")), docker=True)
    assert view(one) == {"a": "a", "etc": DIRECTORY}


# Which image

@pytest.mark.parametrize("names, tag, found", [
    ([None], "", 0), (["only"], "", 0), (["one", "latest"], "", 1), (["one", "two"], "two", 1), (["registry:5000/app:1", "registry:5000/app:latest"], "", 1),
    (["registry:5000/app:1", "registry:5000/app:2"], "1", 0), (["registry:5000/app:1", "b"], "registry:5000/app:1", 0), (["a:1", "1"], "1", 1)])
def test_tags(subhost, names, tag, found):
    one = subhost(LOWER="empty", LAYER=f"oci:im:age{tag and ':'}{tag}")
    os.mkdir(f"{one.base}/empty")
    layout = Layout(f"{one.base}/im:age")
    for number, name in enumerate(names):
        layout.add(layout.image(tar(member("number", b"%d" % number))), name)
    one.booted()
    assert read(f"/proc/{one.init}/root/number") == str(found)


@pytest.mark.parametrize("tag, why", [("", "TAG tells which: one two"), (":three", "there is no image three in it, but one two")])
def test_no_such_tag(subhost, fails, tag, why):
    one = subhost(LAYER=f"oci:image{tag}")
    layout = Layout(f"{one.base}/image")
    for name in ("two", "one"):
        layout.add(layout.image(tar(member(name))), name)
    fails(one, why)
    assert why in one_line(run(BOOT, "--check", one.conf))


def test_the_right_platform_in_nested_indexes(subhost):
    one = subhost(LOWER="empty", LAYER="oci:image")
    os.mkdir(f"{one.base}/empty")
    layout = Layout(f"{one.base}/image")
    others = [layout.image(tar(member(name)), architecture=name) for name in ("s390x", "mips")]
    windows = layout.image(tar(member("windows")), os="windows")
    attested = {**layout.image(tar(member("unknown")), architecture="unknown", os="unknown"), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    mine = layout.image(tar(member("mine")))
    variant = {**layout.image(tar(member("variant"))), "platform": {"os": "linux", "architecture": ARCHITECTURE, "variant": "v9"}}
    inner = layout.blob({"schemaVersion": 2, "manifests": [windows, variant, mine, attested]}, "application/vnd.docker.distribution.manifest.list.v2+json")
    outer = layout.blob({"schemaVersion": 2, "manifests": [*others, inner]}, "application/vnd.oci.image.index.v1+json")
    layout.add(outer, "latest")
    one.booted()
    assert "mine" in view(one)


def test_for_another_machine(subhost, fails):
    one = subhost(LAYER="oci:image")
    image(f"{one.base}/image", tar(member("a")), architecture="s390x")
    fails(one, f"it is for linux/s390x, and not for this machine, linux/{ARCHITECTURE}")


# What is refused

def spoilt(change):
    """A layout of an image, and what is changed in the manifest before it is written."""
    return lambda layout: layout.add(layout.image(tar(member("a", b"a")), tar(member("b", b"b")), spoilt=change))


def change_layer(**values):
    return lambda manifest: manifest["layers"][1].update(values)


def missing(layout):
    layout.add(layout.image(tar(member("a")), spoilt=lambda manifest: os.unlink(f"{layout.place}/blobs/sha256/{manifest['layers'][0]['digest'][7:]}")))


def damaged(which):
    def change(layout):
        def spoil(manifest):
            one = manifest["layers"][1] if which == "layers" else manifest["config"]
            path = f"{layout.place}/blobs/sha256/{one['digest'][7:]}"
            with open(path, "r+b") as file:
                file.seek(-3, 2)
                file.write(b"\0\1\2")
        layout.add(layout.image(tar(member("a")), tar(member("b", b"b")), spoilt=spoil))
    return change


def nested(layout):
    one = layout.image(tar(member("a")))
    for _ in range(20):
        one = layout.blob({"schemaVersion": 2, "manifests": [one]}, f"{images.OCI}.index.v1+json")
    layout.add(one)


def multiplied(layout):
    one = layout.image(tar(member("a")))
    for _ in range(6):
        one = layout.blob({"schemaVersion": 2, "manifests": [one] * 20}, f"{images.OCI}.index.v1+json")
    layout.add(one)


def wrong_content(layout):
    """A layer that is another one than the configuration tells of, with the right digest of its own."""
    def spoil(manifest):
        manifest["layers"][1] = layout.blob(gzip.compress(tar(member("other"))), f"{images.OCI}.layer.v1.tar+gzip")
    layout.add(layout.image(tar(member("a")), tar(member("b", b"b")), spoilt=spoil))


@pytest.mark.parametrize("change, why", [
    (lambda layout: os.unlink(f"{layout.place}/oci-layout"), "it is no image"),
    (lambda layout: layout.write("oci-layout", {"imageLayoutVersion": "2.0"}), "version 2.0"),
    (lambda layout: None, "it has no index.json"),
    (lambda layout: layout.write("index.json", b"{"), "index.json is not JSON"),
    (lambda layout: layout.write("index.json", b"[" * 100000), "index.json is not JSON"),
    (lambda layout: layout.write("index.json", b" " * (5 << 20)), "index.json is longer than"),
    (lambda layout: layout.write("index.json", {"manifests": 3}), "manifests in it is not an array"),
    (lambda layout: layout.write("index.json", {"manifests": []}), "there is no image in it"),
    (lambda layout: layout.write("index.json", {"manifests": [7]}), "mediaType in it is not a string"),
    (lambda layout: layout.add({"mediaType": f"{images.OCI}.manifest.v1+json", "digest": "sha256:../../x", "size": 3, "platform": {"os": "linux", "architecture": ARCHITECTURE}}), "is no digest"),
    (lambda layout: layout.add({"mediaType": "text/plain", "digest": f"sha256:{'0' * 64}", "size": 3}), "there is no manifest"),
    (nested, "indexes in one another"), (multiplied, "manifests, or more than"), (missing, "it has no blobs/sha256/"),
    (damaged("layers"), "is damaged: its digest is another one"), (damaged("config"), "is damaged: its digest is another one"),
    (spoilt(change_layer(size=7)), "should have 7"), (spoilt(change_layer(size=-1)), "size in it is not a number"),
    (spoilt(change_layer(size=1 << 80)), "size in it is not a number"),
    (spoilt(change_layer(digest="sha256:0")), "is no digest"), (spoilt(change_layer(mediaType="application/x-tar")), "of the type application/x-tar"),
    (spoilt(lambda manifest: manifest["layers"].pop()), "does not tell of the same layers"),
    (spoilt(lambda manifest: manifest.update(layers=[])), "does not tell of the same layers"),
    (spoilt(lambda manifest: manifest["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json")), "but an artifact of the type"),
    (wrong_content, "layer 2 of 2: it is not what the configuration of the image says")])
def test_images_that_are_refused(subhost, fails, change, why):
    one = subhost(LAYER="oci:image")
    change(Layout(f"{one.base}/image"))
    fails(one, why)
    assert cached() == []


def hole(name, size):
    return member(name, b"", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)})


@pytest.mark.parametrize("members, why", [
    ([member("/etc/passwd", b"")], "/etc/passwd: its name, or what it is a link to, is an absolute path"),
    ([member("a/../../x", b"")], "has .. in it"), ([member("..", b"")], "has .. in it"),
    ([member("out", kind=tarfile.SYMTYPE, link="/etc"), member("out/x", b"")], "is a symbolic link"),
    ([member("out", kind=tarfile.SYMTYPE, link="../../.."), member("out")  , member("a/x", kind=tarfile.LNKTYPE, link="../etc/passwd")], "has .. in it"),
    ([member("x", kind=tarfile.LNKTYPE, link="/etc/passwd")], "is an absolute path"), ([member("x", kind=tarfile.LNKTYPE, link="nothing")], "not an earlier file"),
    ([member("x", kind=tarfile.LNKTYPE, link="x")], "not an earlier file"),
    ([member("file", b""), member("file/x", b"")], "is not a directory"),
    ([member("a/.wh..", b"")], "hides nothing"), ([member("a/.wh....", b""), member("/x")], "absolute"), ([member(".wh.a/b", b"")], "stands for something else"),
    ([member("sda", kind=tarfile.BLKTYPE, devmajor=8)], "it is a device, and not in /dev"), ([member("etc/dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)], "it is a device"),
    ([member("white", kind=tarfile.CHRTYPE)], "it is a device"),
    ([member("/".join("d" * 300), b"")], "in more than 256 directories"), ([member("n" * 256, b"")], "File name too long"),
    ([member("a", b"", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})], "which a layer cannot have"),
    ([member("bomb", b"\0" * 3_000_000)], "LAYER_LIMIT"), ([member(f"{number}", b"") for number in range(600)], "members of LAYER_LIMIT"),
    ([member(f"{number}/{'/'.join('d' * 100)}/x", b"") for number in range(10)], "members of LAYER_LIMIT")])
def test_hostile_layers(subhost, fails, members, why):
    """One line, and nothing left, of the layer before neither, where there is one."""
    place = len(why) % 2
    one = subhost(LAYER="oci:image", LAYER_LIMIT="2M 500")
    image(f"{one.base}/image", *[tar(member("first", b""))] * place, tar(*members), *[tar(member("third"))] * (1 - place))
    line = fails(one, why)
    assert "cannot unpack LAYER=oci:" in line and f"layer {place + 1} of 2" in line
    assert cached() == []


def test_a_link_of_a_layer_below_leads_nowhere_else(subhost):
    """Whatever it says: the root of the image is where it ends."""
    one = over(subhost, tar(member("out", kind=tarfile.SYMTYPE, link="../../../../../tmp/no.such"), member("loop", kind=tarfile.SYMTYPE, link="loop")), tar(member("out/x", b"x")))
    assert view(one)["tmp/no.such/x"] == "x" and not os.path.exists("/tmp/no.such")


def test_a_loop_of_links_below(subhost, fails):
    one = subhost(LAYER="oci:image")
    image(f"{one.base}/image", tar(member("a", kind=tarfile.SYMTYPE, link="b"), member("b", kind=tarfile.SYMTYPE, link="a")), tar(member("a/x", b"")))
    fails(one, "too many symbolic links")
    assert cached() == []


@pytest.mark.parametrize("data", [b"", b"not an archive", gzip.compress(tar(member("a")))[:-9], gzip.compress(tar(member("a"))) + b"x"],
                         ids=["empty", "text", "cut off", "more"])
def test_layers_that_are_no_archives(subhost, fails, data):
    one = subhost(LAYER="oci:image")
    layout = Layout(f"{one.base}/image")
    layout.add(layout.image(tar(member("a")), pack=lambda _: data))
    fails(one, "cannot unpack LAYER=")
    assert cached() == []


@pytest.mark.parametrize("make, why", [
    (lambda path: write(path, "text"), "it is neither a directory nor an archive of one"),
    (os.mkfifo, "it is neither a directory nor an archive"),
    (lambda path: None, "No such file or directory"),
    (lambda path: put(path, gzip.compress(tar(member("oci-layout", b"{}")))), "as tar writes it uncompressed"),
    (lambda path: put(path, tar(member("oci-layout", b"{}" * 1000))[:1000]), "is truncated"),
    (lambda path: put(path, tar(member("oci-layout", kind=tarfile.SYMTYPE, link="/etc/passwd"))), "it is no image"),
    (lambda path: put(path, tar(member("manifest.json", b"{}"))), "is not a JSON array")])
def test_paths_that_are_no_images(subhost, fails, make, why):
    one = subhost(LAYER="oci:image")
    make(f"{one.base}/image")
    fails(one, why)


def test_blobs_that_lead_out(subhost, fails):
    one = subhost(LAYER="oci:image")
    layout = image(f"{one.base}/image", tar(member("a")))
    shutil.move(f"{layout.place}/blobs", f"{one.base}/elsewhere")
    os.symlink(f"{one.base}/elsewhere", f"{layout.place}/blobs")
    fails(one, "Too many levels of symbolic links")


# The cache

def test_images_share_what_they_have_in_common(subhost, directory):
    base, ours, theirs = tar(member("base", b"base")), tar(member("ours", b"")), tar(member("theirs", b""))
    one, two = over(subhost, base, ours), over(subhost, base, theirs)
    assert len(os.listdir(f"{CACHE}/layers")) == 3 and len(os.listdir(f"{CACHE}/images")) == 2
    rows = json.loads(run(LAYERS, "--json").stdout)
    assert sorted(sorted(row["used_by"]) for row in rows) == sorted([[one.name], [two.name], sorted([one.name, two.name])])
    assert all(path.startswith("oci:/") for row in rows for path in row["archives"])
    done = run(LAYERS, "--check")
    assert done.returncode == 0 and done.stdout.count(": right\n") == 3, done.stdout
    assert run(LAYERS, "--remove", rows[0]["digest"]).returncode == 1
    shared = next(row["digest"] for row in rows if len(row["used_by"]) == 2)
    write(f"{CACHE}/layers/{shared}/base", "changed")
    done = run(LAYERS, "--check")
    assert done.returncode == 1 and f"{shared}: damaged: base\n" in done.stdout
    one.stopped()
    two.stopped()
    assert run(LAYERS, "--remove-unused").returncode == 0 and cached() == []


def test_it_is_unpacked_once_and_read_no_more(subhost):
    one = over(subhost, tar(member("a", b"a")), tar(member("b", b"b")))
    before = [os.stat(f"{CACHE}/layers/{name}").st_ctime_ns for name in cached() if len(name) == 64 and os.path.isdir(f"{CACHE}/layers/{name}")]
    one.stopped()
    one.booted()
    assert before == [os.stat(f"{CACHE}/layers/{name}").st_ctime_ns for name in cached() if os.path.isdir(f"{CACHE}/layers/{name}")]


def test_two_boots_at_a_time(subhost, directory):
    layers = [tar(*(member(f"{number}/{name}", b"x" * 1000) for name in range(300))) for number in range(4)]
    several = [subhost(LOWER="empty", LAYER=f"oci:{directory}/image") for _ in range(3)]
    for one in several:
        os.mkdir(f"{one.base}/empty")
    image(f"{directory}/image", *layers)
    boots = [start(BOOT, one.conf) for one in several]
    assert [boot.wait(60) for boot in boots] == [0, 0, 0]
    assert len(os.listdir(f"{CACHE}/layers")) == 4


def test_configurations_are_kept_one_at_a_time(subhost):
    """The boot of another subhost, or overlay-layers, may be at the same one."""
    one = subhost(LOWER="empty", LAYER="oci:image")
    os.mkdir(f"{one.base}/empty")
    image(f"{one.base}/image", tar(member("a", b"")))
    os.makedirs(f"{CACHE}/images", 0o700)
    directory = os.open(f"{CACHE}/images", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    boot = start(BOOT, one.conf)
    wait_for(lambda: cached() and not cached()[0].endswith(".part"))
    with pytest.raises(subprocess.TimeoutExpired):
        boot.wait(0.5)
    assert os.listdir(directory) == []
    os.close(directory)
    assert boot.wait(60) == 0 and len(os.listdir(f"{CACHE}/images")) == 1


def test_an_image_that_is_gone_is_not_mixed_with_what_was_there_before(subhost):
    one = over(subhost, tar(member("base", b"")), tar(member("first", b"")))
    one.stopped()
    shutil.rmtree(f"{one.base}/image")
    image(f"{one.base}/image", tar(member("base", b"")), tar(member("second", b"")))
    assert run(DIFF, one.conf).returncode == 0
    one.booted()
    one.stopped()
    shutil.rmtree(f"{one.base}/image")
    assert "LAYER=oci:" in one_line(run(DIFF, one.conf)) and len(os.listdir(f"{CACHE}/layers")) == 3


def test_killed_at_it(subhost, directory):
    """What is left of a boot that is killed while it unpacks goes with the next one."""
    one = subhost(LOWER="empty", LAYER="oci:image")
    os.mkdir(f"{one.base}/empty")
    image(f"{one.base}/image", tar(member("first", b"")), tar(*(member(f"{number}", b"x" * 2000) for number in range(3000))))
    boot = start(BOOT, one.conf)
    wait_for(lambda: any(name.endswith(".part") for name in cached()) and len(cached()) == 2)
    boot.kill()
    boot.wait()
    assert any(name.endswith(".part") for name in cached())
    one.booted()
    assert not any(name.endswith(".part") for name in cached()) and len(os.listdir(f"{CACHE}/layers")) == 2


def test_a_plain_boot_loads_nothing_of_it(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer")
    os.mkdir(f"{one.base}/layer")
    done = run("/usr/bin/python3", "-IS", "-X", "importtime", BOOT, one.conf)
    assert done.returncode == 0 and "overlay_boot" in done.stderr
    assert ".oci" not in done.stderr and "json" not in done.stderr and "layers.images" not in done.stderr


def test_memory_is_bounded(subhost):
    """A layer of 100 MB in less than 64 MiB."""
    one = subhost(LOWER="empty", LAYER="oci:image")
    os.mkdir(f"{one.base}/empty")
    image(f"{one.base}/image", tar(member("zeros", bytes(100_000_000))), pack=lambda data: subprocess.run(["gzip", "-1c"], input=data, stdout=subprocess.PIPE, check=True).stdout)
    done = run("/usr/bin/python3", "-c", "import resource, subprocess, sys; r = subprocess.run(sys.argv[1:]).returncode; "
               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, r)", BOOT, one.conf)
    most, status = map(int, done.stdout.split())
    assert status == 0 and most < 64 << 10, done
