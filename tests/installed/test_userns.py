"""USERNS: root of the subhost is nobody on the host, and files keep their owners on the disk."""
import os
import re
import shutil
import stat

import pytest
from conftest import cannot_run
from machine import BOOT, SHARE, STATES, STOP, is_alive, one_line, read, run, start, wait_for, write

IDS = 1 << 16
WHOLE = (0, 0, 0xffffffff)      # the map of the host's own user namespace


def id_map(process):
    return tuple(map(int, read(f"/proc/{process}/uid_map").split()))


def owner(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid


@pytest.fixture
def auto(subhost):
    return subhost(USERNS="auto").booted()


def test_root_inside_is_nobody_outside(auto):
    inside, first, count = id_map(auto.init)
    assert inside == 0 and first >= IDS and count == IDS
    assert read(f"/proc/{auto.init}/gid_map").split() == ["0", str(first), str(IDS)]
    assert auto.inside("id", "-u") == auto.inside("id", "-g") == "0"
    auto.sh("sleep 60 >/dev/null 2>&1 &")

    def sleeping():
        return [process for process in os.listdir("/proc") if process.isdigit() and read(f"/proc/{process}/comm") == "sleep\n"
                and read(f"/proc/{process}/uid_map").split() == ["0", str(first), str(count)]]

    assert os.stat(f"/proc/{wait_for(sleeping)[0]}").st_uid == first


def test_owners_on_the_disk(auto):
    auto.sh("umask 022; echo text >/one; chown 5:6 /one; mkdir /two; ln -s x /three; cp -p /bin/true /four; chmod 4755 /four")
    assert owner(f"{auto.upper}/one") == (5, 6)
    assert [owner(f"{auto.upper}/{name}") for name in ("two", "three", "four", ".reaper", "etc/hostname")] == [(0, 0)] * 5
    assert stat.S_IMODE(os.stat(f"{auto.upper}/four").st_mode) == 0o4755
    assert auto.sh("stat -c %u:%g /one /two / /etc /etc/passwd /dev/null /run /run/lock /dev/pts /dev/shm").split() == [
        "5:6", *["0:0"] * 9]


def test_with_and_without_in_turn(subhost):
    one = subhost()
    one.write("mine")
    os.chown(f"{one.upper}/mine", 33, 34)
    for number, value in enumerate(("no", "auto", "no", "300000:65536", None)):
        one.configure(USERNS=value)
        one.booted()
        assert (id_map(one.init) == WHOLE) == (value in ("no", None))
        assert one.sh("stat -c %u:%g /mine") == "33:34"
        one.sh(f"touch /made{number}; chown 7 /made{number}; rm -f /made{number - 1}; stat -c %u /root")
        assert owner(f"{one.upper}/made{number}") == (7, 0)
        one.stopped()


def test_two_have_no_id_in_common(auto, subhost):
    other = subhost(USERNS="auto").booted()
    assert abs(id_map(auto.init)[1] - id_map(other.init)[1]) >= IDS


def test_ids_of_a_stopped_one_are_free_again(subhost):
    one = subhost(USERNS="400000:65536").booted()
    other = subhost(USERNS="465535:65536")
    assert f"USERNS=465535:65536: id 465535 is that of the subhost {one.name}" in one_line(other.boot())
    assert one_line(other.boot("--check"))
    one.stopped()
    other.booted()
    assert id_map(other.init) == (0, 465535, 65536)
    assert other.boot("--check").returncode == 0


@pytest.fixture
def own_file(directory):
    """Puts another file in the place of one of the host's, for the time of the test."""
    covered = []

    def cover(path, more):
        other = write(f"{directory}/{os.path.basename(path)}", read(path) + more)
        assert run("mount", "--bind", other, path).returncode == 0
        covered.append(path)

    yield cover
    for path in covered:
        assert run("umount", path).returncode == 0


@pytest.mark.parametrize("path, line", [
    ("/etc/passwd", "mrx:x:{}:100::/:/bin/sh"), ("/etc/group", "mrx:x:{}:"), ("/etc/subuid", "mrx:{}:10"), ("/etc/subgid", "mrx:{}:10")])
def test_ids_of_others_are_avoided(own_file, subhost, path, line):
    one = subhost(USERNS="auto").booted()
    first = id_map(one.init)[1]
    one.stopped()
    if not os.path.exists(path):
        cannot_run(f"no {path}")
    own_file(path, "\n" + line.format(first + 1000) + "\n")
    one.booted()
    assert id_map(one.init)[1] + IDS <= first + 1000 or id_map(one.init)[1] > first + 1000
    if "sub" not in path:
        one.stopped()
        one.configure(USERNS=f"{first}:{IDS}")
        assert f"id {first + 1000} is that of the host's " in one_line(one.boot())


@pytest.mark.parametrize("value, why", [
    ("yes", "is neither auto, nor no, nor two numbers"), ("1:2:3", "is neither"), ("-1:65536", "is neither"), ("100000", "is neither"),
    ("0:65536", "root of the subhost would be root of the host"), ("100000:1000", "needs 65536 ids at least"),
    ("4294901761:65536", "the highest id is 4294967294"), ("65534:65536", "id 65534 is that of the host's user nobody")])
def test_wrong_values(subhost, fails, value, why):
    one = subhost(USERNS=value)
    fails(one, f"USERNS={value}", why)
    assert why in one_line(one.boot("--check"))


@pytest.fixture
def mounted(directory):
    """Mounts a file system of a kind: mounted(kind), the place of it."""
    place = f"{directory}/mounted"

    def mount(kind):
        os.mkdir(place)
        options = ["-o", f"lowerdir=/etc:{directory}"] if kind == "overlay" else []
        assert run("mount", "-t", kind, *options, kind, place).returncode == 0
        return place

    yield mount
    assert run("umount", place).returncode == 0


@pytest.mark.parametrize("kind, variable", [
    ("overlay", "LOWER"), ("overlay", "LAYER"), ("overlay", "SHARE"), ("ramfs", "LOWER"), ("ramfs", "UPPER"), ("ramfs", "LAYER"),
    ("ramfs", "SHARE"), ("proc", "SHARE"), ("sysfs", "SHARE"), ("cgroup2", "SHARE"), ("devpts", "SHARE")])
def test_a_file_system_that_cannot_be_mapped(subhost, mounted, fails, kind, variable, machine):
    """It is named, with its variable, before anything is made, and it is fit for a subhost without USERNS."""
    place = mounted(kind)
    machine.look()
    settings = {variable: place, **({"WORK": f"{place}/work"} if variable == "UPPER" else {})}
    if variable == "UPPER":
        settings[variable] = f"{place}/root"
        for path in settings.values():
            os.mkdir(path)
    one = subhost(USERNS="auto", **settings)
    line = fails(one, f"{variable}={settings[variable]}: its file system, {kind}, cannot be id-mapped, as USERNS=auto needs it")
    assert not os.path.exists(one.log)
    assert one_line(one.boot("--check")) == line
    one.configure(**settings)
    assert one.boot("--check").returncode == 0


def test_the_network_belongs_to_it(subhost):
    one = subhost(USERNS="auto", CABLES="=").booted()
    assert one.inside("sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=2").count("=") == 2
    one.sh("ip address add 192.0.2.1/24 dev eth0; ip link set eth0 up; ip address show eth0 | grep -q 192.0.2.1")
    one.sh("nft add table inet t; nft list tables | grep -q 'inet t'")
    assert "1 received" in one.inside("ping", "-c1", "-W5", "127.0.0.1")
    assert one.sh("ls /sys/class/net").split() == ["eth0", "lo"]


def test_root_inside_is_root_of_what_is_its_own(auto):
    auto.sh("""set -e; mkdir -p /a /b /c
        mount -t tmpfs tmpfs /a; mkdir /a/upper /a/work
        mount -t overlay -o lowerdir=/etc,upperdir=/a/upper,workdir=/a/work overlay /b; touch /b/new; test -e /a/upper/new
        mount -t proc proc /c; test -e /c/1; mount -t sysfs sysfs /c; umount /c
        chroot / true; unshare --mount --uts --ipc --net --pid --fork true; unshare --user --map-root-user true
        hostname other; sysctl -qw kernel.shmmni=5000; ipcmk -S 1 >/dev/null
        mount --bind /etc /c; umount /c""")
    assert auto.inside("hostname") == "other"


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_bubblewrap(auto, user):
    """In namespaces of its own, of an ordinary user as well."""
    if not shutil.which("bwrap"):
        cannot_run("bubblewrap is not installed")
    for words, number in (["--unshare-all"], auto.inside("id", "-u", user=user)), (["--unshare-user", "--unshare-pid", "--uid", "5"], "5"):
        said = auto.inside("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/mnt", *words,
                           "/bin/sh", "-c", "id -u; cat /proc/1/comm; touch /mnt/own", user=user)
        assert said == f"{number}\nbwrap"
    assert not os.path.exists(f"{auto.upper}/mnt/own") and auto.sh("ls -A /mnt/own 2>/dev/null || echo none") == "none"


def test_what_is_not_its_own(auto):
    """What is locked, what the kernel keeps to root of the host, and what others have."""
    for refused in ("umount -l /dev", "umount -l /sys", "umount -l /run", "mount -o remount,bind,dev /", "mknod /dev/x b 8 0",
                    "echo x >/proc/sys/kernel/core_pattern", "date -s 12:00", "dmesg", "swapon /bin/true",
                    "mount -t ext4 /dev/null /mnt", "chown 70000 /root", "sysctl -w vm.swappiness=10"):
        assert auto.go("/bin/sh", "-c", refused).returncode != 0, refused


def test_devices_of_upper_are_none(auto):
    os.mknod(f"{auto.upper}/disk", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert "Permission denied" in auto.go("/bin/sh", "-c", "echo >/disk").stderr


def test_entering(auto, terminal):
    first = id_map(auto.init)[1]
    assert auto.inside("id", "-u", user="www-data") == "33" and auto.inside("id", "-u", user="1234") == "1234"
    assert "NoNewPrivs" in auto.sh("cat /proc/self/status; echo again >/dev/stderr")
    assert auto.inside("/bin/sh", "-c", "echo again >/dev/stdout", user="www-data") == "again"
    shell = terminal("overlay-go", "-u", "www-data", auto.name, "/bin/sh")
    shell.type("echo terminal >$(tty); stat -c %u:%g $(tty); exit\n")
    shell.expect("33:5")
    assert shell.ended() == 0
    assert auto.sh("cat /proc/self/uid_map").split() == ["0", str(first), str(IDS)]


@pytest.mark.parametrize("user, why", [
    ("65536", "user 65536"), ("4294967001", "user 4294967001"), ("evil", "user 4294967000"), ("far", "group 65536"), ("lost", "group 70000")])
def test_who_has_no_id_in_it_does_not_enter(auto, user, why):
    """Nothing is given to an id of others on the host, whatever root inside has written."""
    auto.sh("echo evil:x:4294967000:5::/:/bin/sh >>/etc/passwd; echo far:x:5:65536::/:/bin/sh >>/etc/passwd; "
            "echo lost:x:6:6::/:/bin/sh >>/etc/passwd; echo other:x:70000:lost >>/etc/group")
    assert one_line(auto.go("true", user=user)).endswith(f"cannot enter the subhost as {user}: USERNS has no {why}")
    assert auto.inside("id", "-u", user="65535") == "65535"


def test_services(subhost):
    one = subhost(USERNS="auto", START="/service")
    one.write("service", "#!/bin/sh\necho $1 by $(id -u) >>/said\n[ $1 = stop ] || sleep 600 &\n", 0o755)
    one.booted().stopped()
    assert read(f"{one.upper}/said") == "start by 0\nstop by 0\n"
    assert owner(f"{one.upper}/said") == (0, 0)


def test_what_services_print_can_be_opened_again(subhost):
    one = subhost(USERNS="auto")
    one.configure(USERNS="auto", INIT=one.init_text("echo hello >/dev/stderr; exec /.reaper x"))
    one.booted()
    wait_for(lambda: "hello" in one.said())


def test_shares(subhost, directory):
    for name in ("data", "more"):
        os.makedirs(f"{directory}/{name}")
    os.chown(write(f"{directory}/file"), 9, 9)
    one = subhost(USERNS="auto", SHARE=[f"{directory}/data:/data", f"{directory}/file:/a/file"]).booted()
    one.sh("touch /data/new; chown 8:8 /data/new; stat -c %u /a/file | grep -q 9")
    assert owner(f"{directory}/data/new") == (8, 8) and owner(f"{one.upper}/a") == owner(f"{one.upper}/data") == (0, 0)
    for path in (f"{directory}/more:/b/more", f"{directory}/file:/b/file"):
        assert run(SHARE, path, one.name).returncode == 0
    one.sh("touch /b/more/new; test -f /b/file")
    assert owner(f"{directory}/more/new") == owner(f"{one.upper}/b") == (0, 0)
    for path in (f"{directory}/more:/b/more", f"{directory}/data:/data"):
        assert run(SHARE, "--undo", path, one.name).returncode == 0
    assert one.sh("ls /b/more /data").split() == ["/b/more:", "/data:"]


def test_devices_that_are_shared(subhost):
    """Each is a device file of the subhost's own, whatever that of the host is on."""
    one = subhost(USERNS="auto", SHARE=["/dev/zero:/a/zero", "/dev/tty:/tty"]).booted()
    assert run(SHARE, "/dev/full:/b/full", one.name).returncode == 0
    for path, place in (("zero", "/a/zero"), ("tty", "/tty"), ("full", "/b/full")):
        assert one.sh(f"stat -c '%t:%T %u:%g %a %F' {place}") == run("stat", "-c", "%t:%T %u:%g %a %F", f"/dev/{path}").stdout.strip()
    assert one.sh("head -c 3 /a/zero | od -An -tx1; echo >/b/full || echo full").split()[:4] == ["00", "00", "00", "full"]
    before = os.stat("/dev/full").st_mode
    one.sh("chmod 600 /b/full")
    assert os.stat("/dev/full").st_mode == before
    assert [share["inside"] for share in one.row()["shares"]] == ["/a/zero", "/tty", "/b/full"]
    for path in ("/dev/full:/b/full", "/dev/zero:/a/zero"):
        assert run(SHARE, "--undo", path, one.name).returncode == 0
    assert one.sh("stat -c %F /a/zero /b/full") == "regular empty file\nregular empty file"
    assert one.go("mknod", "/tty2", "c", "5", "0").returncode != 0


@pytest.mark.parametrize("path", ["directory", "file"])
def test_a_read_only_share_remains_so(auto, directory, path):
    os.mkdir(f"{directory}/directory")
    write(f"{directory}/file")
    assert run(SHARE, "--read-only", f"{directory}/{path}:/shared", auto.name).returncode == 0
    for tried in ("mount -o remount,bind,rw /shared", "echo >/shared", "touch /shared/x", "mount -o remount,rw /shared"):
        assert auto.go("/bin/sh", "-c", tried).returncode != 0
    assert os.listdir(f"{directory}/directory") == [] and read(f"{directory}/file") == ""
    assert run(SHARE, "--undo", f"{directory}/{path}:/shared", auto.name).returncode == 0


def test_layers(subhost, own_cache, directory):
    os.makedirs(f"{directory}/layer/etc")
    os.chown(write(f"{directory}/layer/etc/of-layer"), 12, 13)
    write(f"{directory}/oxide.json", '{"v":"1","t":"layer"}')
    assert run("tar", "-C", directory, "--transform", "s,^layer,root,", "-czf", f"{directory}/l.tar.gz", "oxide.json", "layer").returncode == 0
    for layer in (f"{directory}/layer", f"{directory}/l.tar.gz"):
        one = subhost(USERNS="auto", LAYER=layer).booted()
        assert one.sh("stat -c %u:%g /etc/of-layer; stat -c %u /bin/true /") == "12:13\n0\n0"
        one.sh("chown 14 /etc/of-layer")
        assert owner(f"{one.upper}/etc/of-layer") == (14, 13) and owner(f"{directory}/layer/etc/of-layer") == (12, 13)


def test_upper_on_a_tmpfs(subhost):
    one = subhost(USERNS="auto", UPPER="tmpfs:20M", WORK=None).booted()
    one.sh("echo >/new; chown 5 /new; rm /etc/motd; stat -c %u:%g /new /etc/hostname /.reaper / /etc >/told")
    assert one.sh("cat /told") == "5:0\n0:0\n0:0\n0:0\n0:0"


def test_an_image(subhost):
    one = subhost(USERNS="auto", IMAGE="disk.img")
    os.mkdir(f"{one.base}/mnt")
    assert run("/usr/sbin/overlay-diskfile", "--create", "64M", f"{one.base}/disk.img").returncode == 0
    one.booted().sh("touch /new; chown 5 /new")
    one.stopped()
    one.configure(IMAGE="disk.img")
    assert one.booted().sh("stat -c %u /new") == "5"


def test_one_directory_is_all_of_the_root(subhost, own_root):
    for live in ("live", own_root):
        one = subhost(USERNS="auto", LOWER=own_root, UPPER=own_root, LIVE=live).booted()
        one.sh("touch /new; stat -c %u / /new; rm /new")
        assert one.sh("stat -c %u / /usr /run") == "0\n0\n0"
        one.stopped()
        assert owner(f"{own_root}/.reaper") == (0, 0)


def test_hooks_of_the_users_own(subhost, directory):
    """They see the root as it is on the disk; what they mount in it is mapped, where it can be."""
    os.mkdir(f"{directory}/data")
    one = subhost()
    one.script("post", f"""set -e
        overlay-postmount
        mkdir "$LIVE/data" "$LIVE/made" "$LIVE/etc-too"; chown 5 "$LIVE/made"; echo "$USERNS" >"$LIVE/ids"
        mount --bind {directory}/data "$LIVE/data"
        mkdir -p "$LIVE/ram/covered"; mount -t tmpfs tmpfs "$LIVE/ram/covered"
        mount -t tmpfs tmpfs "$LIVE/ram"; touch "$LIVE/ram/file"
        mount -t overlay -o lowerdir=/etc:/usr overlay "$LIVE/etc-too" """)
    one.configure(USERNS="auto", POSTMOUNT="./post")
    one.booted()
    assert one.sh("stat -c %u / /data /made /dev /dev/null /run /dev/pts /dev/pts/ptmx") == "0\n0\n5\n0\n0\n0\n0\n0"
    one.sh("touch /data/new; test -e /proc/1; test -e /sys/class/net/lo; test -e /ram/file; test -e /etc-too/passwd")
    assert owner(f"{directory}/data/new") == owner(f"{one.upper}/data") == (0, 0)
    assert owner(f"{one.upper}/made") == (5, 0)
    assert read(f"{one.upper}/ids") == f"{id_map(one.init)[1]}:{IDS}\n"
    told = [line for line in one.said().splitlines() if "/etc-too" in line]
    assert len(told) == 1 and "its file system, overlay, cannot be id-mapped" in told[0]
    assert f"{one.live}/data" not in one.said()


def test_bounds_of_a_control_group(auto):
    """Root inside can make groups below its own."""
    auto.sh("""mkdir /cg; mount -t cgroup2 cgroup2 /cg; mkdir /cg/below; echo $$ >/cg/below/cgroup.procs
        grep -q '^0::/below$' /proc/self/cgroup""")
    # Not so many, nor so deep, that a command of the host's would be held up by them.
    deepest = auto.sh("""cd /cg; number=0; while mkdir x 2>/dev/null && cd x; do number=$((number + 1)); done; echo $number
        echo threaded >/cg/x/cgroup.type; ! echo max >/cg/cgroup.max.depth""")
    assert 8 < int(deepest) < 100 and auto.row()["state"] == "running"
    auto.stopped()


def test_stopped_and_killed(auto, machine):
    inside = auto.init
    os.kill(auto.keeper, 9)
    wait_for(lambda: not is_alive(inside))
    auto.stop()
    assert not os.path.exists(f"{STATES}/{auto.name}")
    auto.booted().stopped()


def shell(one, commands=""):
    done = run(BOOT, "--shell", one.conf, input=commands)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("upper", ["root", "tmpfs:20M"])
def test_hibernation(subhost, directory, upper):
    """The user namespace, its mounts and its network are those that there were."""
    os.mkdir(f"{directory}/data")
    one = subhost(USERNS="auto", CABLES="=", SHARE=f"{directory}/data:/data", UPPER=upper)
    which = shell(one, """set -e; mkdir /more; mount -t tmpfs tmpfs /more; echo kept >/more/file; touch /data/one; chown 7 /data/one
        ip address add 192.0.2.9/24 dev eth0; ip link set eth0 up; nft add table ip kept; readlink /proc/self/ns/user; cat /proc/self/uid_map""")
    assert one.row()["state"] == "hibernating" and "192.0.2.9/24" in one.row()["cables"][0]["addresses"]
    looked = "readlink /proc/self/ns/user; cat /proc/self/uid_map"
    one.configure(CABLES="=", UPPER=upper)          # what it was made with counts
    assert shell(one, looked) == which
    one.booted()
    assert one.sh(looked).split() == which and list(map(str, id_map(one.init))) == which[1:]
    assert one.sh("cat /more/file; nft list tables; stat -c %u / /etc /data/one; mount | grep -c ' /proc '").split() == [
        "kept", "table", "ip", "kept", "0", "0", "7", "1"]
    one.sh("ip address show eth0 | grep -q 192.0.2.9; ip link add dummy9 type dummy; mount -t proc proc /mnt; touch /data/two")
    one.sh("mount -t cgroup2 cgroup2 /srv; mkdir /srv/below; echo $$ >/srv/below/cgroup.procs")
    assert one.go("umount", "-l", "/dev").returncode != 0
    assert owner(f"{directory}/data/two") == (0, 0)
    one.stopped()
    assert not os.path.exists(f"{STATES}/{one.name}")


def test_ids_of_one_that_hibernates_are_its_own(subhost, fails, machine):
    one = subhost(USERNS="auto")
    first = shell(one, "cat /proc/self/uid_map")[1]
    machine.look()
    fails(subhost(USERNS=f"{first}:{IDS}"), f"id {first} is that of the subhost {one.name}")
    other = subhost(USERNS="auto").booted()
    assert abs(id_map(other.init)[1] - int(first)) >= IDS


def without(one, *keys):
    """Its state file loses lines."""
    lines = [line for line in read(one.state).splitlines(keepends=True) if not line.startswith(keys)]
    with open(one.state, "w") as file:
        file.writelines(lines)


@pytest.mark.parametrize("state", ["running", "hibernating"])
def test_ids_that_are_not_on_record_any_more(subhost, fails, machine, state):
    """Nobody else gets them."""
    one = subhost(USERNS="auto")
    if state == "running":
        one.booted()
    else:
        shell(one)
    first, count = one.records()["ids"].split(":")
    without(one, "ids ")
    assert one.row()["state"] == state and "ids" not in one.records()
    machine.look()
    other = subhost(USERNS=f"{first}:{count}")
    fails(other, f"id {first} is that of the subhost {one.name}")
    other.configure(USERNS="auto")
    assert abs(id_map(other.booted().init)[1] - int(first)) >= IDS


def test_a_stop_notes_ids_anew(subhost):
    """With what else the state file has lost."""
    one = subhost(USERNS="auto", START="/service")
    one.write("service", "#!/bin/sh\ncase $1 in start) sleep 600 & ;; stop) mkfifo /wait; read x </wait ;; esac\n", 0o755)
    ids = one.booted().records()["ids"]
    without(one, "ids ", "netns ")
    stopping = start(STOP, one.conf)
    wait_for(lambda: os.path.exists(f"{one.upper}/wait"))
    assert one.records()["ids"] == ids
    one.sh("echo >/wait")
    assert stopping.communicate()[1].decode() == f"overlay-stop: the state file of {one.name} has lost lines\n"
    assert stopping.returncode == 0


def test_one_that_has_unmounted_proc_hibernates_for_good(subhost):
    """The kernel gives root of a user namespace a proc only where there is one."""
    one = subhost(USERNS="auto")
    shell(one, "umount -l /proc")
    assert one_line(one.boot()) == "overlay-boot: cannot mount proc on LIVE/proc: Operation not permitted"
    assert one.row()["state"] == "hibernating"
    one.stopped()


def test_foreground(subhost):
    one = subhost(USERNS="auto", INIT="echo exec /bin/sh -c 'id -u; cat /proc/self/uid_map; exit 3'")
    done = one.boot("--foreground")
    assert done.returncode == 3 and re.match(r"0\n +0 +[1-9]\d+ +65536\n", done.stdout), (done.stdout, done.stderr)


def test_it_is_shown_by_the_check(subhost):
    one = subhost(USERNS="auto")
    assert "USERNS=auto\n" in one.boot("--check").stdout
    assert "\nUser namespace: " in one.boot("--check", "--verbose").stdout
    one.configure()
    assert "USERNS=no\n" in one.boot("--check").stdout
    assert "\nUser namespace: " not in one.boot("--check", "--verbose").stdout


@pytest.mark.deadline(400)
def test_apt_and_dpkg(subhost):
    """A package is built, installed, configured and removed, by the usual programs."""
    one = subhost(USERNS="auto").booted()
    one.sh("""set -e; mkdir -p /p/DEBIAN /p/srv/p
        printf 'Package: pp\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' >/p/DEBIAN/control
        printf '#!/bin/sh\\nadduser --system --group --no-create-home pp-user >/dev/null; chown pp-user:pp-user /srv/p\\n' >/p/DEBIAN/postinst
        chmod 755 /p/DEBIAN/postinst; dpkg-deb --root-owner-group -b /p /p.deb >/dev/null""")
    done = one.go("apt-get", "-y", "-q", "install", "/p.deb", seconds=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
    user = one.sh("stat -c %U:%u /srv/p").split(":")
    assert user[0] == "pp-user" and owner(f"{one.upper}/srv/p")[0] == int(user[1])
    assert one.go("dpkg", "-P", "pp").returncode == 0
