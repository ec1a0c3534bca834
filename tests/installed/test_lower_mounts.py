"""LOWER_MOUNTS: what is mounted below LOWER is a part of the subhost's root."""
import os
import shutil
import stat

import pytest
from conftest import cannot_run
from machine import BOOT, GO, PREFIX, STOP, one_line, read, run, write

KINDS = {"ext4": 16, "xfs": 300, "btrfs": 128}      # and the MiB that one takes


class Disks:
    """File systems in files, mounted."""

    def __init__(self, directory):
        self.directory = directory
        self.mounted = []

    def image(self, kind):
        if not shutil.which(f"mkfs.{kind}"):
            cannot_run(f"mkfs.{kind} is not installed")
        path = f"{self.directory}/{len(os.listdir(self.directory))}.{kind}"
        with open(path, "wb") as file:
            file.truncate(KINDS[kind] << 20)
        done = run(f"mkfs.{kind}", "-q", path)
        assert done.returncode == 0, done.stderr
        return path

    def mount(self, source, place, options="loop"):
        os.makedirs(place, exist_ok=True)
        done = run("mount", "-o", options, source, place)
        if done.returncode:
            cannot_run(f"no such file system here: {done.stderr}")
        self.mounted.append(place)
        return place

    def add(self, kind, place):
        return self.mount(self.image(kind), place)


@pytest.fixture
def disks(directory):
    os.mkdir(f"{directory}/disks")
    made = Disks(f"{directory}/disks")
    yield made
    for place in reversed(made.mounted):
        assert run("umount", place).returncode == 0, place


@pytest.fixture
def lower(own_root, disks, machine):
    """A root with an ext4 on /home, an XFS on /var, and one more ext4 on /var/lib/db."""
    disks.add("ext4", f"{own_root}/home")
    write(f"{own_root}/home/alice/notes", "of alice")
    os.chmod(f"{own_root}/home/alice", 0o700)
    os.chown(f"{own_root}/home/alice", 1000, 1000)
    os.chown(f"{own_root}/home", 0, 50)
    os.chmod(f"{own_root}/home", 0o2775)
    disks.add("xfs", f"{own_root}/var")
    write(f"{own_root}/var/mail/alice", "mail")
    write(f"{own_root}/var/spare/directory/file", "spare")
    disks.add("ext4", f"{own_root}/var/lib/db")
    write(f"{own_root}/var/lib/db/table", "rows")
    machine.look()
    return own_root


def is_as_made(one):
    assert one.inside("cat", "/home/alice/notes", "/var/mail/alice", "/var/lib/db/table") == "of alicemailrows"


# What it is for

def test_they_are_parts_of_one_tree(disks, lower, subhost):
    one = subhost(LOWER=lower).booted()
    is_as_made(one)
    assert one.inside("stat", "-c", "%a %u %g", "/home", "/home/alice") == "2775 0 50\n700 1000 1000"
    one.sh("echo more >>/home/alice/notes; rm /var/mail/alice; mv /var/spare /var/2; echo new >/var/lib/db/new; mkdir /var/lib/db/made")
    assert read(f"{one.upper}/home/alice/notes") == "of alicemore\n"
    assert read(f"{one.upper}/var/lib/db/new") == "new\n"
    assert os.stat(f"{one.upper}/var/mail/alice").st_rdev == 0
    found = os.stat(f"{one.upper}/home")
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o2775, 0, 50)
    one.stopped()
    assert read(f"{lower}/home/alice/notes") == "of alice" and os.path.exists(f"{lower}/var/mail/alice")
    one.booted()
    assert one.sh("ls /var/mail; test ! -e /var/spare && echo gone") == "gone"
    assert one.sh("cat /home/alice/notes /var/2/directory/file /var/lib/db/new") == "of alicemore\nsparenew"


@pytest.mark.parametrize("settings, works", [({}, False), ({"CAPABILITIES": "all"}, True), ({"USERNS": "auto"}, False)],
                         ids=["default", "all", "users"])
def test_devices(disks, lower, subhost, settings, works):
    """Those of UPPER and of LOWER work where those of the root file system do."""
    os.mknod(f"{lower}/home/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    one = subhost(LOWER=lower, **settings)
    os.makedirs(f"{one.upper}/var")
    os.mknod(f"{one.upper}/var/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    one.booted()
    for path in ("/home/zero", "/var/zero"):
        assert (one.go("sh", "-c", f"exec <{path}").returncode == 0) is works, path


@pytest.mark.parametrize("settings", [{"CAPABILITIES": "all"}, {"USERNS": "auto"}, {"HIDE": "/srv/x"}], ids=["all", "users", "hiding"])
def test_what_the_host_forbids_there(disks, own_root, subhost, settings):
    """In the overlay mount as well, for what is written in it; and only there."""
    disks.mount(disks.image("ext4"), f"{own_root}/home", "loop,nosuid,noexec,nodev")
    disks.mount(disks.image("ext4"), f"{own_root}/srv", "loop,nosuid")
    shutil.copy(f"{own_root}/usr/bin/true", f"{own_root}/home/below")
    one = subhost(LOWER=own_root, **settings).booted()
    one.sh("for place in /home /srv /opt; do mkdir -p $place; cp /usr/bin/true $place/true; done")
    assert one.go("/srv/true").returncode == one.go("/opt/true").returncode == 0
    for path in ("/home/true", "/home/below"):
        done = one.go("sh", "-c", path)
        assert done.returncode == 126 and "Permission denied" in done.stderr
    options = {words[4]: {*words[5].split(",")} & {"nosuid", "noexec"}
               for words in map(str.split, read(f"/proc/{one.init}/mountinfo").splitlines()) if words[4] in ("/", "/home", "/srv")}
    assert options == {"/": set(), "/home": {"nosuid", "noexec"}, "/srv": {"nosuid"}}


def test_a_file_that_something_is_mounted_on(disks, own_root, subhost, fails, machine):
    """An overlay mount has a directory: what is beneath is seen, and who wants the file is told how to have it."""
    for name in ("beneath", "above"):
        write(f"{own_root}/etc/{name}", name)
    assert run("mount", "--bind", f"{own_root}/etc/above", f"{own_root}/etc/beneath").returncode == 0
    disks.mounted.append(f"{own_root}/etc/beneath")
    machine.look()
    one = subhost(LOWER=own_root, LOWER_MOUNTS="/etc/beneath")
    fails(one, "LOWER_MOUNTS: /etc/beneath is no directory: mount a file in the subhost by SHARE")
    one.configure(LOWER=own_root)
    one.booted()
    assert one.inside("cat", "/etc/beneath") == "beneath"
    one.stopped()
    one.configure(LOWER=own_root, SHARE=f"{own_root}/etc/beneath:/etc/beneath")
    one.booted()
    assert one.inside("cat", "/etc/beneath") == "above"


def test_a_bind_mount(disks, lower, subhost):
    """It would show elsewhere what is hidden; who wants it names it."""
    os.makedirs(f"{lower}/export/alice")
    disks.mount(f"{lower}/home", f"{lower}/export", "bind")
    disks.mount(f"{lower}/home/alice", f"{lower}/srv", "bind")
    one = subhost(LOWER=lower, HIDE="/home").booted()
    assert one.sh("ls -A /home /export /srv").split() == ["/export:", "alice", "/home:", "/srv:"]
    assert one.sh("ls -A /export/alice") == ""
    one.stopped()
    one.configure(LOWER=lower, HIDE="/home", LOWER_MOUNTS="yes /srv")
    one.booted()
    assert one.sh("ls -A /export/alice; cat /srv/notes") == "of alice"


def test_the_kernel_has_no_complaint(disks, lower, subhost):
    """Two overlay mounts with UPPER in UPPER, in the wrong order, are undefined: its log says so."""
    with open("/dev/kmsg", "w") as log:
        log.write(f"{PREFIX} begins")
    subhost(LOWER=lower, OVERLAY="index=on xino=on").booted().stopped()
    _, begun, said = run("dmesg").stdout.partition(f"{PREFIX} begins")
    if not begun:
        cannot_run("no kernel log here")
    assert [line for line in said.splitlines() if "in-use as upperdir/workdir" in line] == []


def test_upper_is_that_of_one_tree(disks, lower, subhost, small_root, directory):
    """What was made over one file system goes on over three, and back."""
    flat = shutil.copytree(lower, f"{directory}/flat", symlinks=True)
    one = subhost(LOWER=flat).booted()
    one.sh("echo mine >/home/alice/notes; rm /var/lib/db/table; echo mine >/var/own")
    for place in (lower, flat):
        one.stopped()
        one.configure(LOWER=place)
        assert one.boot().returncode == 0       # it says that LOWER is another one
        assert one.sh("cat /home/alice/notes /var/own /var/mail/alice; ls -I lost+found /var/lib/db") == "mine\nmine\nmail"


def test_what_the_subhost_has_in_the_place(disks, lower, subhost):
    """A directory of its own, a link or a file: nothing is mounted there."""
    one = subhost(LOWER=lower)
    os.mkdir(f"{one.upper}/home")
    os.setxattr(f"{one.upper}/home", "trusted.overlay.opaque", b"y")
    os.makedirs(f"{one.upper}/elsewhere/lib/db")
    os.symlink("elsewhere", f"{one.upper}/var")
    one.booted()
    assert one.inside("ls", "-A", "/home", "/var/lib/db") == "/home:\n\n/var/lib/db:"


def test_a_hostile_upper(disks, lower, subhost, directory):
    """A link in it leads nowhere outside."""
    one = subhost(LOWER=lower)
    os.mkdir(f"{directory}/outside")
    os.symlink(f"{directory}/outside", f"{one.upper}/home")
    os.mkdir(f"{one.upper}/var")
    os.symlink(f"{directory}/outside", f"{one.upper}/var/lib")
    one.booted()
    assert os.listdir(f"{directory}/outside") == []


# With others

@pytest.mark.parametrize("settings", [{}, {"POSTMOUNT": "./hook"}])
def test_with_a_user_namespace(disks, lower, subhost, settings):
    one = subhost(LOWER=lower, USERNS="auto", **settings)
    one.script("hook", "overlay-postmount && mount -t tmpfs tmpfs $LIVE/tmp\n")
    done = one.boot()
    if "cannot be id-mapped" in done.stderr:
        cannot_run(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    is_as_made(one)
    assert one.inside("stat", "-c", "%u %g", "/home", "/home/alice") == "0 50\n1000 1000"
    one.sh("echo new >/var/lib/db/new; echo more >>/home/alice/notes")
    for path, owner in (("var/lib/db/new", 0), ("home/alice/notes", 0), ("home/alice", 1000), ("var/lib/db", 0), ("var", 0)):
        assert os.stat(f"{one.upper}/{path}").st_uid == owner, path
    one.stopped()
    one.configure(LOWER=lower)
    assert one.booted().inside("cat", "/var/lib/db/new") == "new"


def test_with_layers_and_what_is_hidden(disks, lower, subhost, directory):
    write(f"{directory}/layer/var/mail/bob", "of the layer")
    write(f"{directory}/layer/home/alice/notes", "of the layer")
    one = subhost(LOWER=lower, LAYER=f"{directory}/layer", HIDE="/home /var/mail/alice /var/lib/db/table").booted()
    assert one.inside("cat", "/home/alice/notes", "/var/mail/bob") == "of the layer" * 2
    assert one.inside("ls", "-A", "/home", "/var/mail", "/var/lib") == "/home:\nalice\n\n/var/lib:\ndb\n\n/var/mail:\nbob"
    assert one.inside("ls", "/var/lib/db") == "lost+found"


def test_a_layer_that_hides_all_of_it(disks, lower, subhost, directory):
    write(f"{directory}/layer/home/own", "own")
    os.setxattr(f"{directory}/layer/home", "trusted.overlay.opaque", b"y")
    one = subhost(LOWER=lower, LAYER=f"{directory}/layer").booted()
    assert one.inside("ls", "-A", "/home") == "own"


def test_a_layer_on_the_same_file_system(disks, lower, subhost):
    """As the cache of layers is on /var: the kernel refuses a layer inside another one."""
    write(f"{lower}/var/cache/layer/var/mail/bob", "of the layer")
    one = subhost(LOWER=lower, LAYER=f"{lower}/var/cache/layer").booted()
    assert one.inside("cat", "/var/mail/bob", "/var/mail/alice") == "of the layermail"


def test_secrets_are_hidden_and_told(disks, lower, subhost):
    write(f"{lower}/var/lib/tor/key", "secret", 0o600)
    one = subhost(LOWER=lower)
    assert "/home" in run(BOOT, "--check", one.conf).stderr
    one.configure(LOWER=lower, HIDE="secrets")
    one.booted()
    assert one.sh("ls -A /home /var/lib/tor /var/mail") == "/home:\n\n/var/lib/tor:\n\n/var/mail:"


def test_in_memory(disks, lower, subhost):
    one = subhost(LOWER=lower, UPPER="tmpfs:10M").booted()
    one.sh("echo more >>/home/alice/notes")
    assert one.inside("cat", "/home/alice/notes") == "of alicemore"
    assert os.listdir(one.upper) == [] and read(f"{lower}/home/alice/notes") == "of alice"


def test_upper_on_one_of_them(disks, lower, subhost):
    os.mkdir(f"{lower}/var/subhosts")
    one = subhost(place=f"{lower}/var/subhosts", LOWER=lower).booted()
    is_as_made(one)
    one.sh("echo more >>/var/mail/alice")
    assert read(f"{one.upper}/var/mail/alice") == "mailmore\n"


def test_what_is_the_subhosts_own_is_left_out(disks, lower, subhost, machine):
    """A disk for BASE, as every subhost may have one."""
    place = f"{lower}/srv/one"
    disks.add("ext4", place)
    one = subhost(place=place)
    one.configure(BASE="..", LOWER=lower, **{variable: f"{one.name}/{path}" for variable, path in (("UPPER", "root"), ("WORK", "work"), ("LIVE", "live"))})
    machine.look()
    one.booted()
    assert one.inside("ls", "-A", "/srv/one") == ""
    is_as_made(one)


def test_it_hibernates(disks, lower, subhost):
    one = subhost(LOWER=lower)
    assert one.boot("--shell", input="echo more >>/home/alice/notes\nexit\n").returncode == 0
    done = one.boot("--shell", input="cat /home/alice/notes /var/lib/db/table\nexit\n")
    assert "of alicemore\nrows" in done.stdout


# What is taken

def test_subvolumes(own_root, disks, subhost, directory, machine):
    """@ and @home of one Btrfs, mounted as Debian does it."""
    image = disks.image("btrfs")
    disks.mount(image, f"{directory}/all")
    for name in ("@", "@home"):
        assert run("btrfs", "subvolume", "create", f"{directory}/all/{name}").returncode == 0
    assert run("cp", "-a", f"{own_root}/.", f"{directory}/all/@").returncode == 0
    device = run("findmnt", "-no", "SOURCE", f"{directory}/all").stdout.partition("[")[0].strip()
    disks.mount(device, f"{directory}/host", "subvol=@")
    disks.mount(device, f"{directory}/host/home", "subvol=@home")
    write(f"{directory}/host/home/alice/notes", "of alice")
    os.mkdir(f"{directory}/host/opt")
    machine.look()
    one = subhost(place=f"{directory}/host/opt", LOWER=f"{directory}/host").booted()
    one.sh("echo more >>/home/alice/notes")
    assert read(f"{one.upper}/home/alice/notes") == "of alicemore\n"


def test_no_others_unless_asked_for(disks, own_root, subhost, machine):
    os.makedirs(f"{own_root}/srv/memory")
    assert run("mount", "-t", "tmpfs", "tmpfs", f"{own_root}/srv/memory").returncode == 0
    disks.mounted.append(f"{own_root}/srv/memory")
    write(f"{own_root}/srv/memory/file", "there")
    disks.add("ext4", f"{own_root}/home")
    write(f"{own_root}/home/file", "there")
    machine.look()
    one = subhost(LOWER=own_root)
    for wanted, seen in ((None, ["home"]), ("no", []), ("/srv/memory", ["srv/memory"]), ("yes /srv/memory", ["home", "srv/memory"])):
        one.configure(LOWER=own_root, LOWER_MOUNTS=wanted)
        one.booted()
        assert [path for path in ("home", "srv/memory") if one.go("cat", f"/{path}/file").stdout == "there"] == seen
        one.stopped()


@pytest.mark.parametrize(("value", "why"), [
    ("/srv", "nothing is mounted on /srv below LOWER"), ("maybe", "maybe is neither an absolute path, nor yes, nor no"), ("/", "the root directory")])
def test_what_cannot_be(subhost, small_root, fails, value, why):
    one = subhost(LOWER=small_root, LOWER_MOUNTS=value)
    fails(one, "LOWER_MOUNTS: ", why)
    assert why in one_line(run(BOOT, "--check", one.conf))


def test_a_part_of_upper_in_another_subvolume(btrfs_place, subhost, lower, fails, machine):
    one = subhost(place=btrfs_place, LOWER=lower)
    assert run("btrfs", "subvolume", "create", f"{one.upper}/home").returncode == 0
    machine.look()
    fails(one, f"{one.upper}/home in UPPER is on another file system, or in another subvolume, than WORK={one.work}")


@pytest.fixture
def btrfs_place(disks, directory):
    return disks.add("btrfs", f"{directory}/btrfs")


def test_the_plan_says_so(disks, lower, subhost):
    done = run(BOOT, "--check", "--verbose", subhost(LOWER=lower).conf)
    assert "and another one for what is mounted on /home, and another one for what is mounted on /var, and another" in done.stdout


# The host's own root

ALONE = """
mount --make-rprivate /
mkdir -p /home /var/{name}
mount -o loop {image} /home
echo of alice >/home/notes
{boot} {conf} || exit
{go} {name} cat /home/notes
{go} {name} sh -c 'echo more >>/home/notes'
{stop} {conf}
"""


def test_the_root_of_the_host(disks, subhost):
    """In a mount namespace of the test's own."""
    one = subhost()
    script = ALONE.format(image=disks.image("ext4"), name=one.name, boot=BOOT, go=GO, stop=STOP, conf=one.conf)
    done = run("unshare", "-m", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("of alice\n", "")
    assert read(f"{one.upper}/home/notes") == "of alice\nmore\n"
