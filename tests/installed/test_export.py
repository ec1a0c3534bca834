"""overlay-export: a subhost as an OCI image, unpacked here by another reader, and compared."""
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tarfile

import pytest
from machine import DIFF, DISKFILE, EXPORT, one_line, read, root_of_control_groups, run, start, wait_for, write

SPARSE, HOLE = 1 << 28, 75 << 20        # the length of a sparse file, and where something is in it
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")         # security.capability: net_bind_service
WHITEOUT = ".wh."


def export(*words, **how):
    """Export, without a word; what it prints.  Nothing is compressed unless words say how: that takes longest."""
    done = run(EXPORT, *(() if "--compress" in words else ("--compress", "none")), *words, **how)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def data_of(path):
    with open(path, "rb") as file:
        return file.read()


class Image:
    """An image in a layout, or an archive of one; every blob has the digest that it is named by."""

    def __init__(self, path, tag=None):
        self.files = {}
        if os.path.isdir(path):
            for place, _, names in os.walk(path):
                self.files.update({os.path.relpath(f"{place}/{name}", path): data_of(f"{place}/{name}") for name in names})
        else:
            with tarfile.open(path) as archive:
                self.files = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}
        assert json.loads(self.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        for name, data in self.files.items():
            if name.startswith("blobs/"):
                assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
        self.index = json.loads(self.files["index.json"])
        self.tags = {one["annotations"]["org.opencontainers.image.ref.name"]: one for one in self.index["manifests"]}
        self.manifest = json.loads(self.blob(self.tags[tag or next(iter(self.tags))]))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = [unpacked(self.blob(one), one["mediaType"]) for one in self.manifest["layers"]]
        assert self.config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in self.layers]

    def blob(self, descriptor):
        data = self.files[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert len(data) == descriptor["size"]
        return data

    def members(self, number):
        """{path: member} of a layer, the lowest being 0."""
        with tarfile.open(fileobj=io.BytesIO(self.layers[number])) as archive:
            found = archive.getmembers()
        assert len({one.name for one in found}) == len(found)
        return {one.name: one for one in found}

    def text(self, number, name):
        with tarfile.open(fileobj=io.BytesIO(self.layers[number])) as archive:
            return archive.extractfile(name).read()


def unpacked(data, kind):
    if kind.endswith("+gzip"):
        return gzip.decompress(data)
    if kind.endswith("+zstd"):
        return subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def attributes(member):
    return member.type, member.mode, member.uid, member.gid, member.size, member.linkname


def time_of(member):
    text = member.pax_headers.get("mtime", f"{member.mtime}")
    seconds, _, fraction = text.lstrip("-").partition(".")
    return (-1 if text[0] == "-" else 1) * (int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9]))


def xattrs(member):
    """The extended attributes, which tarfile has as text."""
    return {key.removeprefix("SCHILY.xattr.").replace("%3D", "=").replace("%25", "%"): value.encode("utf-8", "surrogateescape")
            for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}


def same_as(root, members):
    """A layer has every file of a directory, and the same."""
    found = {}
    for place, directories, names in os.walk(root):
        for name in (*directories, *names):
            found[os.path.relpath(f"{place}/{name}", root)] = os.lstat(f"{place}/{name}")
    named = {}
    for path, status in sorted(found.items()):
        if stat.S_ISCHR(status.st_mode) or stat.S_ISSOCK(status.st_mode):
            assert path not in members
            continue
        member = members[path]
        assert time_of(member) == status.st_mtime_ns, path
        assert (member.mode, member.uid, member.gid) == (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid), path
        if stat.S_ISREG(status.st_mode):
            first = named.setdefault(status.st_ino, path)
            assert (member.linkname if member.islnk() else path) == first
            assert member.islnk() or member.size == status.st_size
        elif stat.S_ISLNK(status.st_mode):
            assert member.issym() and member.linkname == os.readlink(f"{root}/{path}")
        else:
            assert member.isdir() == stat.S_ISDIR(status.st_mode) and member.isfifo() == stat.S_ISFIFO(status.st_mode)
        known = {name: os.getxattr(f"{root}/{path}", name, follow_symlinks=False)
                 for name in os.listxattr(f"{root}/{path}", follow_symlinks=False) if not name.startswith("trusted.overlay")}
        assert member.islnk() or xattrs(member) == known, path
    return found


def of_all_kinds(upper):
    """What an UPPER can have: of each kind of file, and names that are long, or hardly any text."""
    write(f"{upper}/srv/one", "one")
    os.link(f"{upper}/srv/one", f"{upper}/srv/two")
    os.symlink("one" * 50, f"{upper}/srv/link")
    os.mkfifo(f"{upper}/srv/fifo", 0o610)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"{upper}/srv/socket")
    os.mknod(f"{upper}/srv/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for name in ("new\nline", os.fsdecode(b"\xff\xfe"), "x" * 200, "ü" * 60):
        write(f"{upper}/srv/{name}", name)
    write(f"{upper}/{'srv/deep' + '/deeper' * 30}/file", "deep")
    os.chown(f"{upper}/srv/{'x' * 200}", 3_000_000, 4_000_000)
    os.setxattr(f"{upper}/srv/one", "user.%=", b"\0\n\xff")
    os.setxattr(f"{upper}/srv/link", "trusted.link", b"1", follow_symlinks=False)
    write(f"{upper}/usr/bin/server", "server", 0o4755)
    os.setxattr(f"{upper}/usr/bin/server", "security.capability", CAPABILITY)
    os.utime(f"{upper}/usr/bin/server", ns=(1, -1_500_000_000))
    os.utime(f"{upper}/srv/two", ns=(1, 1_600_000_000_123_456_789))
    with open(f"{upper}/srv/sparse", "wb") as file:
        file.truncate(SPARSE)
        file.seek(HOLE)
        file.write(b"here")


@pytest.fixture
def lower(own_root):
    for place in ("dev", "run", "sys"):
        os.mkdir(f"{own_root}/{place}")
    write(f"{own_root}/etc/lower", "lower")
    write(f"{own_root}/run/volatile", "x")
    return own_root


def test_upper_is_as_on_the_disk(subhost, lower, directory):
    one = subhost(LOWER=lower)
    of_all_kinds(one.upper)
    done = run(EXPORT, one.conf, f"{directory}/image")
    assert done.returncode == 0
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == [
        "/srv/device is left out: it is a device", "/srv/socket is left out: it is a socket"]
    image = Image(f"{directory}/image")
    members = image.members(1)
    found = same_as(one.upper, members)
    assert set(members) == {".", ".entrypoint", *found} - {"srv/socket", "srv/device"}
    assert len(image.layers[1]) < 1 << 20 and members["srv/sparse"].size == SPARSE
    with tarfile.open(fileobj=io.BytesIO(image.layers[1])) as archive, archive.extractfile("srv/sparse") as file:
        file.seek(HOLE)
        assert file.read(8) == b"here\0\0\0\0"
    assert image.text(1, "srv/new\nline") == b"new\nline"
    base = image.members(0)
    same_as(f"{lower}/usr", {name.removeprefix("usr/"): member for name, member in base.items()})
    assert "run" in base and "run/volatile" not in base


def test_gnu_tar_reads_it_as_well(subhost, lower, directory):
    one = subhost(LOWER=lower)
    of_all_kinds(one.upper)
    os.unlink(f"{one.upper}/srv/device")
    os.unlink(f"{one.upper}/srv/socket")
    export("--compress", "none", one.conf, f"{directory}/image")
    image = Image(f"{directory}/image")
    write(f"{directory}/layer", "")
    with open(f"{directory}/layer", "wb") as file:
        file.write(image.layers[1])
    os.mkdir(f"{directory}/out")
    done = run("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", f"{directory}/layer", "-C", f"{directory}/out")
    assert (done.returncode, [line for line in done.stderr.splitlines() if "implausibly old" not in line]) == (0, [])
    os.unlink(f"{directory}/out/.entrypoint")
    for path in (f"{directory}/out", one.upper):
        assert os.stat(f"{path}/srv/sparse").st_blocks < 100
    same_as(one.upper, image.members(1))
    assert run("diff", "-r", "--no-dereference", "-x", "fifo", one.upper, f"{directory}/out").stdout == ""


def test_what_a_subhost_has_removed_and_renamed(subhost, lower, directory):
    for path in ("etc/dir/a", "etc/dir/b", "etc/opaque/x", "etc/moved/in/file", "etc/large"):
        write(f"{lower}/{path}", path * 1000)
    shutil.copy(shutil.which("chmod"), f"{lower}/usr/bin/chmod")
    one = subhost(LOWER=lower, OVERLAY="metacopy=on").booted()
    one.sh("rm /etc/dir/a; mv /etc/moved /etc/renamed; touch /etc/renamed/in/more; rm -r /etc/opaque; mkdir /etc/opaque; echo x >/etc/opaque/y; "
           "chmod 600 /etc/large /etc/renamed/in/file; mv /etc/large /etc/larger")
    assert all("trusted.overlay.metacopy" in os.listxattr(f"{one.upper}/etc/{path}") for path in ("larger", "renamed/in/file"))
    export(one.name, f"{directory}/image")
    image = Image(f"{directory}/image")
    members = image.members(1)
    etc = {name.removeprefix("etc/") for name in members if name.startswith("etc/")} - {"hosts", "hostname", "network", "network/interfaces", "resolv.conf"}
    assert etc == {"dir", "dir/.wh.a", "opaque", "opaque/.wh..wh..opq", "opaque/y", "renamed", "renamed/.wh..wh..opq", "renamed/in",
                   "renamed/in/file", "renamed/in/more", ".wh.moved", ".wh.large", "larger"}
    assert image.text(1, "etc/renamed/in/file") == b"etc/moved/in/file" * 1000 and members["etc/renamed/in/file"].mode == 0o600
    assert image.text(1, "etc/larger") == b"etc/large" * 1000 and members["etc/larger"].mode == 0o600


def test_layers_have_their_own(subhost, lower, directory):
    write(f"{directory}/below/etc/lower", "layer")
    os.mknod(f"{directory}/below/etc/passwd", stat.S_IFCHR, 0)
    write(f"{directory}/above/etc/above", "layer")
    one = subhost(LOWER=lower, LAYER=[f"{directory}/below", f"{directory}/above"])
    export(one.conf, f"{directory}/image")
    image = Image(f"{directory}/image")
    assert len(image.layers) == 4 and [sorted(name for name in image.members(number) if name.startswith("etc/")) for number in (1, 2)] == [
        ["etc/.wh.passwd", "etc/lower"], ["etc/above"]]
    assert image.config["config"]["Labels"]["overlay-boot.LAYER"] == f"{directory}/below\n{directory}/above"


def test_several_lower_and_a_mount_below(subhost, lower, directory, apart):
    write(f"{directory}/top/etc/lower", "top")
    write(f"{lower}/srv/mounted", "mounted")
    apart(f"{lower}/srv")
    write(f"{lower}/opt/hidden", "hidden")
    one = subhost(LOWER=f"{directory}/top:{lower}", LOWER_MOUNTS="/srv", HIDE="/opt/hidden")
    export(one.conf, f"{directory}/image")
    image = Image(f"{directory}/image")
    assert image.text(0, "etc/lower") == b"top" and image.text(0, "srv/mounted") == b"mounted"
    assert "opt" in image.members(0) and "opt/hidden" not in image.members(0)
    one = subhost(LOWER=lower, LOWER_MOUNTS="no")
    export(one.conf, f"{directory}/another")
    assert "srv" in Image(f"{directory}/another").members(0) and "srv/mounted" not in Image(f"{directory}/another").members(0)


def test_secrets_of_the_host_stay_there(subhost, lower, directory):
    write(f"{lower}/etc/shadow", "root:$6$secret:1::::::\n", 0o640)
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    secret = {"etc/ssh/ssh_host_rsa_key": key, "root/.netrc": "x", "home/me/x": "x", "etc/machine-id": "x", "etc/ssl/private/x": "x", "etc/mine/key": key,
              "etc/hostname": "x", "var/spool/cron/x": "x"}
    for path, text in secret.items():
        write(f"{lower}/{path}", text)
    one = subhost(LOWER=lower)
    write(f"{one.upper}/root/own", "own")
    export(one.conf, f"{directory}/image")
    image = Image(f"{directory}/image")
    assert not set(secret) & set(image.members(0)) and image.text(0, "etc/shadow") == b"root:*:1::::::\n"
    assert image.members(0)["etc/shadow"].mode == 0o640 and "root" in image.members(0) and "root/own" in image.members(1)
    export("--secrets", one.conf, f"{directory}/whole")
    image = Image(f"{directory}/whole")
    assert set(secret) < set(image.members(0)) and b"secret" in image.text(0, "etc/shadow")


def test_upper_that_is_the_root(subhost, lower, directory):
    one = subhost(LOWER=lower, UPPER=lower)
    export(one.conf, f"{directory}/image.tar")
    image = Image(f"{directory}/image.tar")
    assert len(image.layers) == 1 and image.text(0, "etc/lower") == b"lower" and ".entrypoint" in image.members(0)
    assert "is LOWER" in one_line(run(EXPORT, "--base", f"{directory}/image.tar", one.conf, f"{directory}/other.tar"))


def test_upper_in_an_image_and_in_memory(subhost, lower, directory):
    one = subhost(LOWER=lower, UPPER="tmpfs:10M")
    assert "made anew by each boot" in one_line(run(EXPORT, one.conf, f"{directory}/a.tar"))
    one.booted()
    one.sh("echo x >/etc/inside")
    export(one.name, f"{directory}/a.tar")
    assert Image(f"{directory}/a.tar").text(1, "etc/inside") == b"x\n"
    two = subhost(LOWER=lower, IMAGE="two.img", UPPER="", WORK="")
    assert run(DISKFILE, "--create", "16M", f"{two.base}/two.img").returncode == 0
    os.makedirs(f"{two.base}/mnt", exist_ok=True)
    two.booted()
    two.sh("echo x >/etc/inside")
    export(two.name, f"{directory}/running.tar")
    two.stopped()
    export(two.conf, f"{directory}/stopped.tar")
    for name in ("running", "stopped"):
        assert Image(f"{directory}/{name}.tar").text(1, "etc/inside") == b"x\n"


def test_configuration(subhost, lower, directory):
    write(f"{directory}/file", "x")
    one = subhost(LOWER=lower, PUBLISH="8080:80 53/udp", CAPABILITIES="CHOWN KILL", MEMORY_MAX="64M", CPU_MAX="150%",
                  SHARE=[f"{directory}:/srv/data:ro", f"{directory}/file:/etc/file"])
    pod = json.loads(export("--kube", one.conf, f"{directory}/image", "name:1"))
    image = Image(f"{directory}/image", "name:1")
    config = image.config["config"]
    assert (config["Entrypoint"], config["StopSignal"], config["WorkingDir"]) == (["/.entrypoint"], "SIGTERM", "/")
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}} and config["Volumes"] == {"/srv/data": {}}
    labels = config["Labels"]
    assert (labels["overlay-boot.NAME"], labels["overlay-boot.PUBLISH"]) == (one.name, "8080:80 53/udp")
    assert labels["overlay-boot.SHARE"] == f"{directory}:/srv/data:ro\n{directory}/file:/etc/file"
    assert (image.config["os"], len(image.config["history"])) == ("linux", 2)
    container = pod["spec"]["containers"][0]
    assert (pod["kind"], container["image"]) == ("Pod", "localhost/name:1")
    assert container["ports"] == [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "KILL"]}
    assert container["resources"]["limits"] == {"memory": str(64 << 20), "cpu": "1500m"}
    assert [(one["mountPath"], one["readOnly"]) for one in container["volumeMounts"]] == [("/srv/data", True), ("/etc/file", False)]
    assert [one["hostPath"]["type"] for one in pod["spec"]["volumes"]] == ["Directory", "File"]


def test_the_same_bytes_again(subhost, lower, directory):
    one = subhost(LOWER=lower)
    of_all_kinds(one.upper)
    for number, (compression, dest) in enumerate((("gzip", "a.tar"), ("gzip", "b.tar"), ("zstd", "c.tar"), ("zstd", "d.tar"))):
        os.utime(f"{one.upper}/srv/one", ns=(number, 2_000_000_000 * 10**9 + number))      # later than it says
        done = run(EXPORT, "--compress", compression, one.conf, f"{directory}/{dest}", env={"SOURCE_DATE_EPOCH": "1700000000"})
        assert done.returncode == 0
    digests = [hashlib.sha256(data_of(f"{directory}/{dest}.tar")).hexdigest() for dest in "abcd"]
    assert digests[0] == digests[1] != digests[2] == digests[3]
    image = Image(f"{directory}/a.tar")
    assert image.config["created"] == "2023-11-14T22:13:20Z" and max(one.mtime for one in image.members(1).values()) == 1700000000
    assert "is no number" in one_line(run(EXPORT, one.conf, f"{directory}/e.tar", env={"SOURCE_DATE_EPOCH": "x"}))


def test_over_another_image(subhost, lower, directory):
    one = subhost(LOWER=lower)
    export("--compress", "zstd", one.conf, f"{directory}/base.tar", "base:1")
    write(f"{one.upper}/etc/more", "more")
    export("--base", f"{directory}/base.tar:base:1", one.conf, f"{directory}/image", "a")
    base, image = Image(f"{directory}/base.tar"), Image(f"{directory}/image", "a")
    assert image.manifest["layers"][:2] == base.manifest["layers"] and len(image.layers) == 3 and len(image.config["history"]) == 3
    assert image.text(2, "etc/more") == b"more"
    assert "--base" in one_line(run(EXPORT, "--base", f"{directory}/none", one.conf, f"{directory}/image", "b"))
    assert sorted(Image(f"{directory}/image").tags) == ["a"]


def test_what_is_there_already(subhost, lower, directory, machine):
    one = subhost(LOWER=lower)
    dest = f"{directory}/image"
    export(one.conf, dest)
    before = Image(dest).files
    assert f"an image {one.name}:latest already" in one_line(run(EXPORT, one.conf, dest))
    assert Image(dest).files == before
    write(f"{one.upper}/etc/more", "more")
    export(one.conf, dest, "second")
    both = Image(dest, "second")
    assert sorted(both.tags) == sorted([f"{one.name}:latest", "second"]) and set(before) < set(both.files)
    os.mkdir(f"{directory}/other")
    write(f"{directory}/file", "x")
    write(f"{directory}/file.tar", "x")
    for path in ("other", "file", "file.tar"):
        assert "is there already" in one_line(run(EXPORT, one.conf, f"{directory}/{path}"))
    assert "No such file" in one_line(run(EXPORT, one.conf, f"{directory}/none/x.tar"))
    assert "root directory" in one_line(run(EXPORT, one.conf, "/"))
    assert not [name for name in os.listdir(directory) if name.endswith(".overlay-export")]


def test_a_workshop_of_somebody_else(subhost, lower, directory):
    """Where others can write, one may be there before us."""
    one = subhost(LOWER=lower)
    workshop = f"{directory}/.image.overlay-export"
    write(f"{workshop}/theirs", "x")
    os.chown(workshop, 1000, 1000)
    assert "is somebody else's" in one_line(run(EXPORT, one.conf, f"{directory}/image"))
    assert os.listdir(workshop) == ["theirs"]
    shutil.move(workshop, f"{directory}/elsewhere")
    os.symlink("elsewhere", workshop)
    assert run(EXPORT, one.conf, f"{directory}/image").returncode == 1
    assert os.listdir(f"{directory}/elsewhere") == ["theirs"] and not os.path.exists(f"{directory}/image")


def test_wrong_calls(subhost, lower, directory):
    one = subhost(LOWER=lower, INIT="echo exec /sbin/init")
    assert "--entrypoint tells" in one_line(run(EXPORT, one.conf, f"{directory}/a"))
    export("--entrypoint", "/sbin/init -x", one.conf, f"{directory}/a")
    image = Image(f"{directory}/a")
    assert image.config["config"]["Entrypoint"] == ["/sbin/init", "-x"] and ".entrypoint" not in image.members(1)
    assert "is not running" in one_line(run(EXPORT, "nobody", f"{directory}/b"))
    write(f"{directory}/layer.tar.gz", "x")
    two = subhost(LOWER=lower, LAYER="layer.tar.gz")
    shutil.move(f"{directory}/layer.tar.gz", two.base)
    assert "a boot of the subhost does that" in one_line(run(EXPORT, two.conf, f"{directory}/b"))


def test_out_again_and_in_again(subhost, lower, directory, own_cache):
    """What a subhost over the host's root shows is what one over nothing shows, with its image as LAYER."""
    for path in ("etc/dir/a", "etc/dir/b", "etc/opaque/x", "etc/moved/in/file"):
        write(f"{lower}/{path}", path)
    write(f"{directory}/layer/etc/dir/c", "layer")
    os.mknod(f"{directory}/layer/etc/passwd", stat.S_IFCHR, 0)
    one = subhost(LOWER=lower, LAYER=f"{directory}/layer")
    of_all_kinds(one.upper)
    os.unlink(f"{one.upper}/srv/device")
    os.unlink(f"{one.upper}/srv/socket")
    one.booted()
    one.sh("rm /etc/dir/a; mv /etc/moved /etc/renamed; rm -r /etc/opaque; mkdir /etc/opaque; echo y >/etc/opaque/y")
    export(one.name, f"{directory}/image.tar")
    two = subhost(LOWER="empty", LAYER=f"oci:{directory}/image.tar")
    os.mkdir(f"{two.base}/empty")
    two.booted()
    before, after = seen_by(one), seen_by(two)
    assert after.pop(".entrypoint")
    for path in ("etc/hostname", "etc/hosts", "etc/network", "etc/network/interfaces"):
        before.pop(path), after.pop(path)
    assert before == after
    assert run(DIFF, two.conf).returncode == 0
    export(two.name, f"{directory}/again.tar")
    first, second = Image(f"{directory}/image.tar"), Image(f"{directory}/again.tar")
    assert [set(second.members(number)) for number in (1, 2, 3)] == [set(first.members(number)) for number in (0, 1, 2)]


def content_of(path):
    """What is in a file, but for holes of 1 MiB and more."""
    with open(path, "rb") as file:
        return [part for part in iter(lambda: file.read(1 << 20), b"") if part.count(0) < 1 << 20]


def seen_by(one):
    """{path: what there is to say of it} of a running subhost, but for what is mounted in it."""
    root, found = f"/proc/{one.init}/root", {}
    for place, directories, names in os.walk(root):
        if place == root:
            directories[:] = set(directories) - {"dev", "proc", "run", "sys"}
        for name in (*directories, *names):
            path = f"{place}/{name}"
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content = content_of(path) if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else ""
            found[os.path.relpath(path, root)] = (
                (status.st_mode, status.st_uid, status.st_gid, kind != stat.S_IFDIR and (status.st_size, status.st_mtime_ns, status.st_nlink)),
                content,
                {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
                 if not key.startswith("trusted.overlay")})
    found.pop(".reaper", None)
    return found


# One that runs

def group_of(one):
    return f"{root_of_control_groups()}/overlay-boot/{one.name}"


def is_frozen(one):
    return "frozen 1" in read(f"{group_of(one)}/cgroup.events")


@pytest.fixture
def large(subhost, lower):
    """A running subhost of which an export takes some seconds, that writes all the time."""
    one = subhost(LOWER=lower).booted()
    with open(f"{one.upper}/random", "wb") as file:
        for _ in range(32):
            file.write(os.urandom(1 << 20))
    one.sh("(i=0; while :; do i=$((i+1)); echo $i >/tmp/a; echo $i >/tmp/b; done) >/dev/null 2>&1 &")
    return one


def test_a_running_one_stands_still(large, directory):
    process = start(EXPORT, large.name, f"{directory}/image")
    wait_for(lambda: is_frozen(large))
    before = read(f"{large.upper}/tmp/a")
    assert process.poll() is None and read(f"{large.upper}/tmp/a") == before
    assert process.wait(50) == 0, process.stderr.read()
    assert not is_frozen(large)
    wait_for(lambda: read(f"{large.upper}/tmp/a") not in (before, ""))
    image = Image(f"{directory}/image")
    assert (image.text(1, "tmp/a") or b"-") in (before.encode(), b"-")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_it_lets_the_subhost_run(large, directory, number):
    process = start(EXPORT, large.name, f"{directory}/image.tar", start_new_session=True)
    wait_for(lambda: is_frozen(large))
    os.killpg(process.pid, number)
    assert process.wait(10)
    wait_for(lambda: not is_frozen(large))
    assert not os.path.exists(f"{directory}/image.tar")
    export("--compress", "none", large.name, f"{directory}/image.tar")
    assert [name for name in os.listdir(directory) if "image" in name] == ["image.tar"]


def test_stopped_meanwhile(large, directory):
    process = start(EXPORT, large.name, f"{directory}/image")
    wait_for(lambda: is_frozen(large))
    large.stopped()
    assert process.wait(50) == 1 and b"was stopped, or thawed, while" in process.stderr.read()
    assert not [name for name in os.listdir(directory) if "image" in name]


def test_frozen_by_somebody_else(large, directory):
    write(f"{group_of(large)}/cgroup.freeze", "1")
    wait_for(lambda: is_frozen(large))
    export("--compress", "none", large.name, f"{directory}/image")
    assert is_frozen(large)


# What is hostile, and what is much

def test_a_hostile_upper(subhost, lower, directory):
    one = subhost(LOWER=lower)
    write(f"{one.upper}/srv/.wh.etc", "x")
    write(f"{one.upper}/srv/.wh..wh..opq", "x")
    write(f"{directory}/outside/secret", "secret")
    os.symlink(f"{directory}/outside", f"{one.upper}/etc")
    os.symlink(f"{directory}/outside/secret", f"{one.upper}/srv/secret")
    os.mkdir(f"{one.upper}/dev")
    write(f"{one.upper}/dev/x", "x")
    done = run(EXPORT, one.conf, f"{directory}/image")
    assert done.returncode == 0 and done.stderr.count("stands for a removed one") == 2
    image = Image(f"{directory}/image")
    assert sorted(image.members(1)) == [".", ".entrypoint", "dev", "etc", "srv", "srv/secret"] and image.members(1)["etc"].issym()


def test_deeper_than_anybody_needs(subhost, lower, directory):
    one = subhost(LOWER=lower)
    at = os.open(one.upper, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("x", dir_fd=at)
        at, former = os.open("x", os.O_RDONLY, dir_fd=at), at
        os.close(former)
    os.close(at)
    assert "more than 256 directories" in one_line(run(EXPORT, one.conf, f"{directory}/image"))
    assert not os.path.exists(f"{directory}/image")


def test_memory_has_a_bound(subhost, lower, directory):
    """Whatever is much: names in a directory, hard links, a large file."""
    one = subhost(LOWER=lower)
    os.makedirs(f"{one.upper}/srv/many")
    for number in range(34_000):
        with open(f"{one.upper}/srv/many/{number:06}", "x"):
            pass
    for number in range(0, 34_000, 10):
        os.link(f"{one.upper}/srv/many/{number:06}", f"{one.upper}/srv/many/{number:06}l")
    with open(f"{one.upper}/srv/large", "wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    done = run("/usr/bin/python3", "-c", MEASURE, EXPORT, "--compress", "zstd", one.conf, f"{directory}/zstd")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert int(done.stdout) < 64 << 10, done.stdout
    members = Image(f"{directory}/zstd").members(1)
    assert len(members) == 37_400 + 5 and members["srv/many/000010l"].linkname == "srv/many/000010"


MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def test_a_full_disk(subhost, lower, directory):
    one = subhost(LOWER=lower)
    write(f"{one.upper}/srv/random", "")
    with open(f"{one.upper}/srv/random", "wb") as file:
        file.write(os.urandom(8 << 20))
    os.mkdir(f"{directory}/full")
    assert run("mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", f"{directory}/full").returncode == 0
    try:
        for compression in ("gzip", "zstd", "none"):
            for dest in ("a", "a.tar"):
                assert "No space left" in one_line(run(EXPORT, "--compress", compression, one.conf, f"{directory}/full/{dest}"))
                assert os.listdir(f"{directory}/full") == []
    finally:
        assert run("umount", f"{directory}/full").returncode == 0
