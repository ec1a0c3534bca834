"""Images that the programs of others have made, as a subhost sees them, and as umoci(1) unpacks them.

It takes skopeo, umoci, podman and buildah, a static busybox, and a Debian system of its own: not for CI.
"""
import os
import shutil
import stat

import pytest
from conftest import cannot_run
from images import image, member, tar
from machine import read, run, wait_for, write

LONG = 600      # seconds
TOOLS = ("skopeo", "umoci", "podman", "buildah", "busybox", "mmdebstrap")
MADE = {".reaper", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/network", "etc/network/interfaces", "etc", "dev", "proc", "run", "sys", "."}


@pytest.fixture(autouse=True)
def tools(own_cache):
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        cannot_run(f"not installed: {' '.join(missing)}")


@pytest.fixture
def storage(directory):
    """Runs podman or buildah with a storage of the test's own."""
    def call(tool, *words):
        done = run(tool, "--root", f"{directory}/storage", "--runroot", f"{directory}/runroot", "--storage-driver", "vfs", *words, seconds=LONG)
        assert done.returncode == 0, f"{tool} {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()
    return call


def called(*words):
    done = run(*words, seconds=LONG)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def tree(root):
    """{path: all that is told of it} below a directory, less what every subhost has of its own."""
    found, inodes = {}, {}
    for place, folders, files in os.walk(root):
        if place == root:
            folders[:] = [name for name in folders if name not in ("dev", "proc", "run", "sys")]
        for name in (*folders, *files):
            path = os.path.join(place, name)
            short = os.path.relpath(path, root)
            if short in MADE:
                continue
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content = read(path) if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else ""
            of_file = None if kind == stat.S_IFDIR else (int(status.st_mtime), status.st_size)
            links = inodes.setdefault(status.st_ino, short) if kind == stat.S_IFREG and status.st_nlink > 1 else None
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
                      if key.startswith(("security.", "user."))}
            found[short] = (status.st_mode, status.st_uid, status.st_gid, content, of_file, links is not None, xattrs)
    return found


def compare(subhost, place, source, tag):
    """Boot an image, and compare what is seen with what umoci(1) unpacks of a layout with the same."""
    called("skopeo", "--insecure-policy", "copy", source, f"oci:{place}/reference:{tag}")
    called("umoci", "unpack", "--image", f"{place}/reference:{tag}", f"{place}/bundle")
    expected = tree(f"{place}/bundle/rootfs")
    one = subhost(LOWER="empty", LAYER=f"oci:{source.partition(':')[2]}")
    os.mkdir(f"{one.base}/empty")
    one.booted()
    found = tree(f"/proc/{one.init}/root")
    assert expected and {name for name in {*found, *expected} if found.get(name) != expected.get(name)} == set()
    one.stopped()
    return one


@pytest.fixture
def busybox(directory):
    """A tar archive of a root with a busybox, and nothing else."""
    root = f"{directory}/busybox"
    os.makedirs(f"{root}/bin")
    shutil.copy(shutil.which("busybox"), f"{root}/bin/busybox")
    for name in ("sh", "cat", "sleep", "echo"):
        os.symlink("busybox", f"{root}/bin/{name}")
    write(f"{root}/bin/greet", "#!/bin/sh\necho $GREETING $(pwd)\nexec sleep 1000\n", 0o755)
    write(f"{root}/etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")
    called("tar", "-C", root, "--numeric-owner", "-cf", f"{directory}/busybox.tar", ".")
    return f"{directory}/busybox.tar"


@pytest.mark.parametrize("format, kind", [("oci-archive", "oci-archive"), ("docker-archive", "docker-archive"), ("oci-dir", "oci")])
def test_podman_in_its_formats(subhost, directory, storage, busybox, format, kind):
    storage("podman", "import", "--change", "USER=web", "--change", "WORKDIR=/srv/x", "--change", "CMD=/bin/greet",
            "--change", "ENV=GREETING=hello", busybox, "app:1")
    storage("podman", "save", "--format", format, "-o", f"{directory}/saved", "app:1")
    one = compare(subhost, directory, f"{kind}:{directory}/saved", "1")
    one.configure(LOWER="empty", LAYER=f"oci:{directory}/saved", INIT="overlay-oci-init", START=None)
    one.booted()
    wait_for(lambda: "hello /srv/x\n" in one.said())
    assert one.inside("/bin/busybox", "id", user="web") == "uid=33(web) gid=34 groups=34"


def test_busybox_of_buildah(subhost, directory, storage, busybox):
    container = storage("buildah", "from", "scratch")
    storage("buildah", "add", container, busybox, "/")
    storage("buildah", "config", "--cmd", "/bin/sleep 1000", container)
    storage("buildah", "commit", container, f"oci:{directory}/layout:latest")
    compare(subhost, directory, f"oci:{directory}/layout", "latest")


def test_ten_layers_of_umoci(subhost, directory):
    """Files, directories and links that come and go, over one another."""
    layout, bundle = f"{directory}/layout", f"{directory}/changed"
    called("umoci", "init", "--layout", layout)
    called("umoci", "new", "--image", f"{layout}:latest")
    called("umoci", "unpack", "--image", f"{layout}:latest", bundle)
    root = f"{bundle}/rootfs"
    for number in range(10):
        write(f"{root}/all/{number}", str(number), 0o600 + number)
        write(f"{root}/turn/{number % 3}/{number}", str(number))
        os.setxattr(f"{root}/all/{number}", "user.number", b"%d" % number)
        os.link(f"{root}/all/{number}", f"{root}/hard{number}")
        if number % 2:
            os.unlink(f"{root}/all/{number - 1}")
            shutil.rmtree(f"{root}/turn/{(number - 1) % 3}")
            shutil.rmtree(f"{root}/kind")
            write(f"{root}/kind", "a file")
        else:
            if os.path.exists(f"{root}/kind"):
                os.unlink(f"{root}/kind")
            write(f"{root}/kind/of/{number}", "in a directory")
            os.chown(f"{root}/kind", number, 70000)
        called("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:latest", bundle)
    compare(subhost, directory, f"oci:{layout}", "latest")


def test_every_odd_member(subhost, directory):
    import struct
    import tarfile
    capability = os.fsdecode(struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    image(f"{directory}/odd", tar(
        member("./", mode=0o755), member("./a/./b", b"c"), member("x" * 200 + "/" + "y" * 100, b"long"), member("fifo", kind=tarfile.FIFOTYPE, mode=0o640),
        member("twice", b"one"), member("twice", b"two"), member("hard", kind=tarfile.LNKTYPE, link="twice"), member("sticky", mode=0o1777, uid=3),
        member("su", b"su", mode=0o6755, uid=70000, gid=4), member("cap", b"cap", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability}),
        member("link", kind=tarfile.SYMTYPE, link="/nowhere/" + "z" * 300, uid=5), member("\u00fc \n", b"name")), name="latest")
    compare(subhost, directory, f"oci:{directory}/odd", "latest")


@pytest.mark.deadline(1800)
def test_debian(subhost, directory, storage, debian_root):
    """With its devices in /dev, which are left out; a Debian system runs in it."""
    root = debian_root("minbase", "dash")
    called("tar", "-C", root, "--numeric-owner", "--xattrs", "-cf", f"{directory}/debian.tar", ".")
    storage("podman", "import", f"{directory}/debian.tar", "debian:latest")
    storage("podman", "save", "--format", "oci-archive", "-o", f"{directory}/saved", "debian:latest")
    one = compare(subhost, directory, f"oci-archive:{directory}/saved", "latest")
    one.booted()
    assert "Debian" in one.inside("cat", "/etc/os-release") and one.inside("dpkg", "--print-architecture")
