"""LAYER: archives and directories between LOWER and UPPER, and the cache of those unpacked."""
import gzip
import io
import json
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine import BOOT, CACHE, LAYERS, MODULES, UNFENCED, Terminal, descendants, one_line, read, run, start, wait_for, write

LABEL = b'{"v":"1","t":"layer"}'
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)       # cap_net_raw=ep, capabilities(7)


@pytest.fixture(autouse=True)
def empty_cache(own_cache):
    yield
    for name in os.listdir(CACHE):
        path = f"{CACHE}/{name}"
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def layers():
    try:
        return sorted(os.listdir(f"{CACHE}/layers"))
    except FileNotFoundError:
        return []


def member(name, data=None, kind=None, link="", **attributes):
    info = tarfile.TarInfo(name)
    info.type = kind or (tarfile.REGTYPE if data is not None else tarfile.DIRTYPE)
    info.mode = 0o644 if data is not None else 0o755
    info.linkname = link
    info.size = len(data or b"")
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def tar(*members, label=LABEL, format=tarfile.PAX_FORMAT):
    """The bytes of a tar archive: oxide.json, root/ and the members."""
    file = io.BytesIO()
    first = [member("oxide.json", label)] if label is not None else []
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for info, data in [*first, *members]:
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return file.getvalue()


def archive(directory, *members, name="layer.tar.gz", **how):
    path = f"{directory}/{name}"
    with open(path, "wb") as file:
        file.write(gzip.compress(tar(*members, **how), 1))
    return path


def text_layer(directory, text, name="layer.tar.gz"):
    return archive(directory, member("root/etc/layer", text.encode()), name=name)


# What a subhost sees

@pytest.mark.parametrize("lower", [None, "small"], ids=["the host's root", "a small root"])
def test_layers_are_in_order_over_lower(subhost, directory, small_root, lower):
    """Archives and directories, the last above the first, UPPER above all, LOWER beneath."""
    one = subhost(LOWER=small_root if lower else None, LAYER=["first.tar.gz", "second", "third.tar.gz"])
    archive(one.base, *(member(f"root/etc/{name}", b"first") for name in ("l1", "l2", "l3", "l4")), name="first.tar.gz")
    for name in ("l2", "l3", "l4"):
        write(f"{one.base}/second/etc/{name}", "second")
    archive(one.base, *(member(f"root/etc/{name}", b"third") for name in ("l3", "l4")), name="third.tar.gz")
    one.write("etc/l4", "upper")
    one.booted()
    assert [one.inside("cat", f"/etc/l{number}") for number in range(1, 5)] == ["first", "second", "third", "upper"]
    assert one.inside("cat", "/etc/passwd") == read(f"{small_root if lower else ''}/etc/passwd").strip("\n")
    one.sh("echo new >/etc/l1")
    one.stopped()
    assert read(f"{one.upper}/etc/l1") == "new\n"
    first = next(name for name in layers() if os.path.exists(f"{CACHE}/layers/{name}/etc/l1"))
    assert read(f"{CACHE}/layers/{first}/etc/l1") == "first"


def test_over_several_lower_directories(subhost, small_root):
    one = subhost(LOWER=f"below:{small_root}", LAYER="layer.tar.gz")
    write(f"{one.base}/below/etc/b", "below")
    write(f"{one.base}/below/etc/layer", "below")
    text_layer(one.base, "layer")
    one.booted()
    assert (one.inside("cat", "/etc/b"), one.inside("cat", "/etc/layer")) == ("below", "layer")


def test_forty_layers(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER=[f"layer{number}.tar.gz" for number in range(40)])
    for number in range(40):
        archive(one.base, member("root/top", b"%d" % number), member(f"root/n{number}", b""), name=f"layer{number}.tar.gz")
    one.booted()
    assert one.inside("cat", "/top") == "39"
    assert all(f"n{number}" in one.inside("ls", "/").split() for number in range(40))


def test_more_layers_than_the_kernel_takes(subhost, fails, small_root):
    one = subhost(LOWER=small_root, LAYER=[f"layer{number}" for number in range(300)])
    for number in range(300):
        os.mkdir(f"{one.base}/layer{number}")
    fails(one, "more than the kernel takes")


def test_a_capability_over_the_hosts_root(subhost):
    """Where the cache is on the file system of LOWER, the overlay is one over another overlay."""
    one = subhost(LAYER="layer.tar.gz", **UNFENCED)
    with open("/usr/bin/cat", "rb") as file:
        program = file.read()
    info = member("root/reads", program, mode=0o755, pax_headers={"SCHILY.xattr.security.capability": os.fsdecode(
        struct.pack("<5I", 0x02000001, 1 << 2, 0, 0, 0))})
    archive(one.base, info)
    one.booted()
    assert one.go("/reads", "/etc/shadow", user="nobody").returncode == 0
    assert one.go("cat", "/etc/shadow", user="nobody").returncode == 1


def test_the_same_layer_twice(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER=["layer.tar.gz", "other", "layer.tar.gz"])
    text_layer(one.base, "layer")
    write(f"{one.base}/other/etc/layer", "other")
    one.booted()
    assert one.inside("cat", "/etc/layer") == "layer"


def test_layer_by_a_command(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="!echo layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted()
    assert one.inside("cat", "/etc/layer") == "layer"


def test_hooks_see_the_layers_in_lower(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER=["layer.tar.gz", "other"])
    text_layer(one.base, "layer")
    os.mkdir(f"{one.base}/other")
    hook = one.script("hook", 'echo "$LOWER" >lower; overlay-postmount')
    one.configure(LOWER=small_root, LAYER=["layer.tar.gz", "other"], POSTMOUNT=hook)
    one.booted()
    assert read(f"{one.base}/lower") == f"{one.base}/other:{CACHE}/layers/{layers()[0]}:{small_root}\n"


@pytest.mark.parametrize("premount", [None, "overlay-premount"])
def test_what_a_layer_has_for_the_subhost_counts(subhost, small_root, premount):
    """Its host name and its network are not hidden by what PREMOUNT writes where there is none; a baseline's are."""
    one = subhost(LOWER=small_root, LAYER=["base", "site"], PREMOUNT=premount and f"env {premount}")
    for layer in ("site", "base"):
        write(f"{one.base}/{layer}/etc/hostname", f"{layer}.example\n")
    write(f"{one.base}/base/etc/network/interfaces", "# the baseline's\n")
    os.setxattr(f"{one.base}/base", "trusted.overlay_boot.baseline", b"1")
    one.booted()
    assert one.inside("hostname") == one.inside("cat", "/etc/hostname") == "site.example"
    assert one.inside("cat", "/etc/network/interfaces").startswith("# Generated for")
    assert sorted(os.listdir(f"{one.upper}/etc")) == ["hosts", "network"]


def test_zstd(subhost, directory, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.zst")
    with open(f"{one.base}/layer.tar", "wb") as file:
        file.write(tar(member("root/etc/layer", b"z" * 3000000)))
    assert run("zstd", "-q", f"{one.base}/layer.tar").returncode == 0
    one.booted()
    assert one.inside("wc", "-c", "/etc/layer") == "3000000 /etc/layer"


def test_pzstd(subhost, small_root):
    """It begins with a frame that is to be skipped."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.zst")
    with open(f"{one.base}/layer.tar", "wb") as file:
        file.write(tar(member("root/etc/layer", random.Random(1).randbytes(3000000))))
    assert run("pzstd", "-q", "-p", "2", f"{one.base}/layer.tar").returncode == 0
    with open(f"{one.base}/layer.tar.zst", "rb") as file:
        assert file.read(4) == b"\x50\x2a\x4d\x18"
    one.booted()
    assert one.inside("wc", "-c", "/etc/layer") == "3000000 /etc/layer"


@pytest.mark.parametrize("pack", [
    lambda data: b"\x5f\x2a\x4d\x18\x03\0\0\0xyz" + zstd(data), lambda data: zstd(data[:3000]) + zstd(data[3000:]),
    lambda data: gzip.compress(data[:3000]) + gzip.compress(data[3000:]), lambda data: gzip.compress(data) + bytes(1024)],
    ids=["skippable frame", "two frames", "two members", "padded"])
def test_archives_compressed_in_parts(subhost, small_root, pack):
    one = subhost(LOWER=small_root, LAYER="layer")
    with open(f"{one.base}/layer", "wb") as file:
        file.write(pack(tar(member("root/etc/layer", b"layer"))))
    one.booted()
    assert one.inside("cat", "/etc/layer") == "layer"


def zstd(data):
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


def test_whiteouts_hide_what_is_below(subhost, small_root):
    """As overlayfs makes them in UPPER, which thereby can be made a layer."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    archive(one.base, member("root/etc/passwd", kind=tarfile.CHRTYPE),
            member("root/var", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}), member("root/var/new", b""))
    one.booted()
    assert one.inside("ls", "/etc").split() == [] or "passwd" not in one.inside("ls", "/etc").split()
    assert one.inside("ls", "/var").split() == ["new"]


def test_an_upper_as_a_layer(subhost, small_root):
    """tar(1) finds in UPPER all that the layer needs, and some notes of overlayfs that are left out."""
    one, other = subhost(LOWER=small_root), subhost(LOWER=small_root, LAYER="layer.tar.gz")
    one.booted()
    one.sh("rm /etc/passwd; rm -r /var; mkdir /var; echo new >/var/new; echo more >>/usr/bin/true")
    one.stopped()
    write(f"{one.base}/oxide.json", LABEL.decode())
    done = run("tar", "-czf", f"{other.base}/layer.tar.gz", "--format=posix", "--xattrs", "-C", one.base, "oxide.json", "root")
    assert done.returncode == 0, done.stderr
    other.booted()
    assert "passwd" not in other.inside("ls", "/etc").split() and other.inside("ls", "/var") == "new"


# What is kept

def tree(place):
    """Everything about what is below a directory."""
    found = {}
    for directory, folders, files in os.walk(place):
        for name in (".", *folders, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            is_directory = stat.S_ISDIR(status.st_mode)
            found[os.path.relpath(path, place)] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns,
                None if is_directory else (status.st_size, status.st_nlink),
                {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)},
                os.readlink(path) if stat.S_ISLNK(status.st_mode) else read(path) if stat.S_ISREG(status.st_mode) else "")
    return found


def full_tree(place):
    """A tree with all that an archive can have."""
    write(f"{place}/oxide.json", LABEL.decode())
    root = f"{place}/root"
    write(f"{root}/bin/ping", "ping", 0o755)
    os.setxattr(f"{root}/bin/ping", "security.capability", CAPABILITY)
    write(f"{root}/bin/su", "su")
    os.chown(f"{root}/bin/su", 0, 42)
    os.chmod(f"{root}/bin/su", 0o6755)
    os.link(f"{root}/bin/su", f"{root}/hard")
    os.setxattr(write(f"{root}/etc/x", "x"), "user.note", b"a\0b\xff\n")
    os.setxattr(f"{root}/etc/x", "user.=%3D%", b"")
    os.setxattr(f"{root}/etc", "user.on.directory", b"1")
    os.symlink("/nowhere/" + "y" * 200, f"{root}/etc/link")
    os.chown(f"{root}/etc/link", 3, 70000, follow_symlinks=False)
    write(f"{root}/" + "/".join(["long" * 20] * 6) + "/" + "n" * 200, "deep")
    write(f"{root}/etc/\udcff\udcfe\n", "bytes")
    with open(f"{root}/sparse", "wb") as file:
        for at in (0, 1 << 20, 9 << 20, 50 << 20):
            file.seek(at)
            file.write(random.Random(at).randbytes(5000))
        file.truncate(60 << 20)
    with open(f"{root}/hole", "wb") as file:
        file.truncate(1 << 20)
    for path, mode, owner in (("var/tmp", 0o1777, 0), ("srv/shut", 0o500, 3000000000)):
        os.makedirs(f"{root}/{path}")
        os.chmod(f"{root}/{path}", mode)
        os.chown(f"{root}/{path}", owner, owner)
    write(f"{root}/srv/shut/in", "in", 0)
    os.utime(f"{root}/etc/x", ns=(1, -1234567890123456789))
    os.utime(f"{root}/srv", ns=(1, 987654321987654321))
    os.utime(f"{root}/etc/link", ns=(1, 1), follow_symlinks=False)


@pytest.mark.parametrize("options", ["--format=posix --xattrs --sparse", "--format=posix --xattrs", "--format=gnu --sparse", "--format=gnu",
                                     "--format=oldgnu"])
def test_everything_of_a_file_is_kept(subhost, directory, small_root, options):
    """Of what tar(1) puts into the archive, which in its own formats is neither an extended attribute nor a part of a second."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    source = f"{directory}/source"
    full_tree(source)
    done = run("tar", "-czf", f"{one.base}/layer.tar.gz", *options.split(), "-C", source, "oxide.json", "root")
    assert done.returncode == 0, done.stderr
    one.booted()
    one.stopped()
    expected, found = tree(f"{source}/root"), tree(f"{CACHE}/layers/{layers()[0]}")
    if "posix" not in options:
        expected = {path: (*about[:3], about[3] // 10**9 * 10**9, about[4], {}, about[6]) for path, about in expected.items()}
    assert found == expected
    if "--sparse" in options:
        assert os.stat(f"{CACHE}/layers/{layers()[0]}/sparse").st_blocks * 512 < 1 << 20
        assert os.stat(f"{CACHE}/layers/{layers()[0]}/hole").st_blocks == 0


# Extended headers

def header_of(size, **fields):
    return plain(b"0", size=size, mtime=1000, uid=3, **fields)


DATA = b"data".ljust(512, b"\0")
ODD = {
    "global": lambda: pax((b"uid", b"7"), (b"mtime", b"5.5"), kind=b"g") + header_of(0) + header_of(0, name="root/y"),
    "global and own": lambda: pax((b"uid", b"7"), kind=b"g") + pax((b"uid", b"8")) + header_of(0) + header_of(0, name="root/y"),
    "own and global": lambda: pax((b"uid", b"8")) + pax((b"uid", b"7"), (b"gid", b"9"), kind=b"g") + header_of(0) + header_of(0, name="root/y"),
    "global name": lambda: pax((b"path", b"root/y"), kind=b"g") + header_of(0),
    "global comment": lambda: pax((b"comment", b"0123456789"), kind=b"g") + header_of(0) + pax((b"comment", b"x"), kind=b"g"),
    "size": lambda: pax((b"size", b"4")) + header_of(0) + DATA + header_of(0, name="root/y"),
    "size of another": lambda: pax((b"size", b"4")) + header_of(512) + DATA + header_of(0, name="root/y"),
    "no records": lambda: plain(b"x") + header_of(4) + DATA,
    "the last of two": lambda: pax((b"uid", b"5"), (b"uid", b"6")) + header_of(0),
    "negative time": lambda: pax((b"mtime", b"-1.5")) + header_of(0),
    "long fraction": lambda: pax((b"mtime", b"1.123456789999")) + header_of(0),
    "no fraction": lambda: pax((b"mtime", b"17.")) + header_of(0),
    "bytes": lambda: pax((b"hdrcharset", b"BINARY"), (b"path", b"root/\xff\xfe")) + header_of(0),
    "line feed": lambda: pax((b"path", b"root/a\nb")) + header_of(0),
    "records in a record": lambda: pax((b"comment", b"x\n17 path=root/no\n\n")) + header_of(0),
    "unknown": lambda: pax((b"SOME.thing", b"x"), (b"SCHILY.dev", b"1"), (b"uname", b"root"), (b"atime", b"1.5")) + header_of(0),
    "link": lambda: pax((b"linkpath", b"n" * 300), (b"gid", b"70000")) + plain(b"2"),
    "attributes": lambda: pax((b"SCHILY.xattr.user.a%3Db%25c%2541", b"1=\n\0"), (b"SCHILY.xattr.user.none", b"")) + header_of(0),
}


@pytest.mark.parametrize("case", ODD)
def test_extended_headers_mean_what_tar_takes_them_for(subhost, directory, small_root, case):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    data = with_raw(ODD[case]())
    with open(f"{one.base}/layer.tar.gz", "wb") as file:
        file.write(gzip.compress(data, 1))
    os.mkdir(f"{directory}/tar")
    done = subprocess.run(["tar", "-xpf", "-", "--xattrs", "--xattrs-include=*", "-C", f"{directory}/tar"], input=data, stderr=subprocess.PIPE,
                          check=False)
    assert done.returncode == 0, done.stderr
    one.booted().stopped()
    expected, found = tree(f"{directory}/tar/root"), tree(f"{CACHE}/layers/{layers()[0]}")
    del expected["."], found["."]
    assert expected and found == expected


def test_a_record_without_a_value_takes_back_a_global_one(subhost, small_root):
    """As pax(1) has it; tar(1) calls it malformed."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    empty = [(key, b"") for key in (b"path", b"linkpath", b"uid", b"gid", b"mtime", b"size")]
    with open(f"{one.base}/layer.tar.gz", "wb") as file:
        file.write(gzip.compress(with_raw(
            pax((b"path", b"root/no"), (b"uid", b"7"), (b"gid", b"7"), (b"mtime", b"7"), (b"size", b"7"), kind=b"g"),
            pax(*empty), header_of(4), DATA, pax(*empty, kind=b"g"), header_of(0, name="root/y"))))
    one.booted()
    assert one.sh("stat -c '%n %u %g %Y %s' /x /y").splitlines() == ["/x 3 0 1000 4", "/y 3 0 1000 0"]


def test_extended_attributes_as_libarchive_writes_them(subhost, small_root):
    """An attribute is there twice, and its name is quoted both times; or once."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    with open(f"{one.base}/layer.tar.gz", "wb") as file:
        file.write(gzip.compress(with_raw(pax(
            (b"LIBARCHIVE.xattr.user.%C3%BC%3D%25", b"MgoA"), (b"SCHILY.xattr.user.%C3%BC%3D%25", b"2\n\0"),
            (b"SCHILY.xattr.user.empty", b""), (b"LIBARCHIVE.xattr.user.empty", b""), (b"LIBARCHIVE.xattr.user.once", b"Mg"),
            (b"LIBARCHIVE.creationtime", b"1.5"), (b"RHT.security.selinux", b"a_u:b_r:c_t:s0")), header_of(0))))
    one.booted()
    assert tree(f"{CACHE}/layers/{layers()[0]}")["x"][5] == {
        "user.\xfc=%": b"2\n\0", "user.empty": b"", "user.once": b"2", "security.selinux": b"a_u:b_r:c_t:s0"}


def test_directories_that_are_not_in_it_are_made(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    archive(one.base, member("root/a/b/c/d", b"d"))
    one.booted()
    assert one.inside("stat", "-c", "%a %u", "/a/b") == "755 0"


def test_the_cache_is_for_root_alone(subhost, small_root):
    """There may be programs with the set-user-ID bit in it."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted()
    assert stat.S_IMODE(os.stat(f"{CACHE}/layers").st_mode) == 0o700


# What is refused, in one line and with nothing left

def plain(kind, data=b"", **fields):
    """A header of a member with the parts of it that tarfile would not write."""
    info = tarfile.TarInfo(fields.pop("name", "root/x"))
    info.type, info.size = kind, fields.pop("size", len(data))
    for key, value in fields.items():
        setattr(info, key, value)
    block = info.tobuf(tarfile.GNU_FORMAT)
    return block + data + bytes(-len(data) % 512)


def with_raw(*blocks):
    """An archive with blocks of its own before its end."""
    return tar()[:1024] + b"".join(blocks) + bytes(1024)


def broken_sum():
    data = bytearray(tar(member("root/x", b"x")))
    data[1024 + 100] ^= 1
    return bytes(data)


def pax(*pairs, kind=b"x"):
    text = b""
    for key, value in pairs:
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        text += b"%d %s=%s\n" % (length, key, value)
    return plain(kind, text)


SPARSE = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"root/x"), (b"GNU.sparse.realsize", b"100")]

REFUSED = {
    "absolute": (lambda: tar(member("/root/x", b"")), "absolute"),
    "absolute after root": (lambda: tar(member("//root/x", b"")), "absolute"),
    "dots": (lambda: tar(member("root/../x", b"")), ".."),
    "dots in front": (lambda: tar(member("../root/x", b"")), ".."),
    "dots at the end": (lambda: tar(member("root/x/..")), ".."),
    "dots by pax": (lambda: with_raw(pax((b"path", b"root/../../x")), plain(b"0")), ".."),
    "dots by a GNU long name": (lambda: with_raw(plain(b"L", b"root/../x\0"), plain(b"0")), ".."),
    "empty component": (lambda: tar(member("root//x", b"")), "valid path"),
    "outside root": (lambda: tar(member("etc/x", b"")), "not below root/"),
    "nearly root": (lambda: tar(member("rootx/x", b"")), "not below root/"),
    "second label": (lambda: tar(member("oxide.json", LABEL)), "not below root/"),
    "root is a file": (lambda: tar(member("root", b"")), "directory"),
    "root is a link": (lambda: tar(member("root", kind=tarfile.SYMTYPE, link="/")), "directory"),
    "through a link": (lambda: tar(member("root/l", kind=tarfile.SYMTYPE, link="{outside}"), member("root/l/x", b"")), "symbolic link"),
    "through a link up": (lambda: tar(member("root/a/l", kind=tarfile.SYMTYPE, link="../../.."), member("root/a/l/x", b"")), "symbolic link"),
    "through a link inside": (lambda: tar(member("root/d"), member("root/l", kind=tarfile.SYMTYPE, link="d"), member("root/l/x", b"")), "symbolic link"),
    "directory through a link": (lambda: tar(member("root/l", kind=tarfile.SYMTYPE, link="{outside}"), member("root/l/x")), "symbolic link"),
    "directory over a link": (lambda: tar(member("root/l", kind=tarfile.SYMTYPE, link="{outside}"), member("root/l")), "symbolic link"),
    "file over a link": (lambda: tar(member("root/l", kind=tarfile.SYMTYPE, link="{outside}/new"), member("root/l", b"x")), "twice"),
    "below a file": (lambda: tar(member("root/f", b""), member("root/f/x", b"")), "not a directory"),
    "twice": (lambda: tar(member("root/f", b"1"), member("root/f", b"2")), "twice"),
    "hard link out": (lambda: tar(member("root/h", kind=tarfile.LNKTYPE, link="{outside}/file")), "absolute"),
    "hard link up": (lambda: tar(member("root/h", kind=tarfile.LNKTYPE, link="root/../../file")), ".."),
    "hard link through a link": (lambda: tar(member("root/l", kind=tarfile.SYMTYPE, link="{outside}"),
                                             member("root/h", kind=tarfile.LNKTYPE, link="root/l/file")), "symbolic link"),
    "hard link to nothing": (lambda: tar(member("root/h", kind=tarfile.LNKTYPE, link="root/none")), "not an earlier file"),
    "hard link to nothing far": (lambda: tar(member("root/h", kind=tarfile.LNKTYPE, link="root/none/x")), "not an earlier file"),
    "hard link to a directory": (lambda: tar(member("root/d"), member("root/h", kind=tarfile.LNKTYPE, link="root/d")), "not an earlier file"),
    "character device": (lambda: tar(member("root/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)), "device"),
    "block device": (lambda: tar(member("root/sda", kind=tarfile.BLKTYPE, devmajor=8)), "device"),
    "block device 0:0": (lambda: tar(member("root/b", kind=tarfile.BLKTYPE)), "device"),
    "fifo": (lambda: tar(member("root/fifo", kind=tarfile.FIFOTYPE)), "FIFO"),
    "unknown type": (lambda: with_raw(plain(b"V")), "type"),
    "too deep": (lambda: tar(member("root/" + "d/" * 300 + "x", b"")), "256 directories"),
    "redirect": (lambda: tar(member("root/d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/root"})), "trusted.overlay.redirect"),
    "metacopy": (lambda: tar(member("root/f", b"", pax_headers={"SCHILY.xattr.trusted.overlay.metacopy": ""})), "trusted.overlay.metacopy"),
    "attribute of no kind": (lambda: tar(member("root/f", b"", pax_headers={"SCHILY.xattr.evil": ""})), "evil"),
    "access control list": (lambda: tar(member("root/f", b"", pax_headers={"SCHILY.acl.access": "user::rwx"})), "access control list"),
    "no label": (lambda: tar(member("root/f", b""), label=None), "first member"),
    "label later": (lambda: tar(member("root/f", b""), member("oxide.json", LABEL), label=None), "first member"),
    "label is a link": (lambda: tar(member("oxide.json", kind=tarfile.SYMTYPE, link="/etc/passwd"), label=None), "first member"),
    "label of another type": (lambda: tar(label=b'{"v":"1","t":"app"}'), "does not say"),
    "label of another version": (lambda: tar(label=b'{"v":"2","t":"layer"}'), "does not say"),
    "label is no object": (lambda: tar(label=b'["v"]'), "does not say"),
    "label is no JSON": (lambda: tar(label=b"\xff{"), "does not say"),
    "label is nested": (lambda: tar(label=b"[" * 60000), "does not say"),
    "label is huge": (lambda: tar(label=b" " * 70000 + LABEL), "too large"),
    "empty": (lambda: b"", "truncated"),
    "no members": (lambda: bytes(10240), "first member"),
    "no tar": (lambda: random.Random(1).randbytes(4096), "not a tar archive"),
    "text": (lambda: b"text\n" * 1000, "not a tar archive"),
    "checksum": (broken_sum, "not a tar archive"),
    "no end": (lambda: tar(member("root/x", b"x"))[:2048], "truncated"),
    "ends in a file": (lambda: tar(member("root/x", b"x" * 5000))[:3000], "truncated"),
    "ends in a header": (lambda: tar(member("root/x", b"x"))[:1100], "truncated"),
    "more after its end": (lambda: tar() + tar(), "after its end"),
    "link with data": (lambda: with_raw(plain(b"2", b"x" * 512, linkname="x")), "size"),
    "directory with data": (lambda: with_raw(plain(b"5", size=1 << 30)), "size"),
    "negative size": (lambda: with_raw(plain(b"0", size=-512)), "size"),
    "negative owner": (lambda: with_raw(plain(b"0", uid=-1)), "owner"),
    "owner beyond": (lambda: with_raw(plain(b"0", gid=0xffffffff)), "owner"),
    "time beyond": (lambda: with_raw(pax((b"mtime", b"9" * 18)), plain(b"0")), "time"),
    "huge header": (lambda: with_raw(plain(b"x", size=1 << 40)), "extended header"),
    "malformed records": (lambda: with_raw(plain(b"x", b"99 path=x\n")), "malformed"),
    "records of length 0": (lambda: with_raw(plain(b"x", b"0 path=x\n")), "malformed"),
    "records without a number": (lambda: with_raw(plain(b"x", b"path=root/x\n")), "malformed"),
    "records of digits": (lambda: with_raw(plain(b"x", b"1" * 65536)), "malformed"),
    "records of a wrong length": (lambda: with_raw(plain(b"x", b"12 path=root\n"), plain(b"0")), "malformed"),
    "records without an equals sign": (lambda: with_raw(plain(b"x", b"6 uid\n"), plain(b"0")), "malformed"),
    "records and more": (lambda: with_raw(plain(b"x", b"7 uid=5\n\0"), plain(b"0")), "malformed"),
    "two headers of records": (lambda: with_raw(pax((b"uid", b"5")), pax((b"gid", b"5")), plain(b"0")), "for one member"),
    "two long names": (lambda: with_raw(plain(b"L", b"root/a\0"), plain(b"L", b"root/b\0"), plain(b"0")), "for one member"),
    "records and a long name": (lambda: with_raw(pax((b"path", b"root/a")), plain(b"L", b"root/b\0"), plain(b"0")), "for one member"),
    "records of no member": (lambda: with_raw(pax((b"uid", b"5"))), "for no member"),
    "a long link of no member": (lambda: with_raw(plain(b"K", b"x\0")), "for no member"),
    "owner beyond in records": (lambda: with_raw(pax((b"uid", b"4294967295")), plain(b"0")), "owner"),
    "owner that is no number": (lambda: with_raw(pax((b"gid", b"staff")), plain(b"0")), "number"),
    "time that is none": (lambda: with_raw(pax((b"mtime", b"-")), plain(b"0")), "number"),
    "time with a sign": (lambda: with_raw(pax((b"mtime", b"+5")), plain(b"0")), "number"),
    "fraction that is none": (lambda: with_raw(pax((b"mtime", b"1.123456789x")), plain(b"0")), "number"),
    "size of a link": (lambda: with_raw(pax((b"size", b"5")), plain(b"2", linkname="x")), "size"),
    "size of all": (lambda: with_raw(pax((b"size", b"5"), kind=b"g"), plain(b"5")), "size"),
    "name of all": (lambda: with_raw(pax((b"path", b"root/x"), kind=b"g"), plain(b"0"), plain(b"0")), "twice"),
    "attribute of libarchive": (lambda: with_raw(pax((b"LIBARCHIVE.xattr.user.a", b"M!")), plain(b"0")), "malformed"),
    "attribute without a name": (lambda: with_raw(pax((b"SCHILY.xattr.", b"x")), plain(b"0")), "cannot have"),
    "redirect of libarchive": (lambda: with_raw(pax((b"LIBARCHIVE.xattr.trusted.overlay.redirect", b"L3g")), plain(b"5")), "redirect"),
    "redirect, quoted": (lambda: with_raw(pax((b"LIBARCHIVE.xattr.trusted.overlay.redi%72ect", b"L3g")), plain(b"5")), "redirect"),
    "sparse of star": (lambda: with_raw(pax((b"SCHILY.realsize", b"100")), plain(b"0")), "star"),
    "no number in records": (lambda: with_raw(pax((b"size", b"-1")), plain(b"0")), "number"),
    "NUL in a name": (lambda: with_raw(pax((b"path", b"root/a\0b")), plain(b"0")), "valid path"),
    "NUL in a link": (lambda: with_raw(pax((b"linkpath", b"a\0b")), plain(b"2")), "NUL"),
    "name of 300": (lambda: tar(member("root/" + "x" * 300, b"")), "too long"),
    "sparse backwards": (lambda: with_raw(pax(*SPARSE), plain(b"0", b"2\n50\n10\n0\n10\n".ljust(512, b"\0") + b"x" * 20)), "sparse"),
    "sparse beyond": (lambda: with_raw(pax(*SPARSE), plain(b"0", b"1\n95\n10\n".ljust(512, b"\0") + b"x" * 10)), "sparse"),
    "sparse of more than it has": (lambda: with_raw(pax(*SPARSE), plain(b"0", b"1\n0\n90\n".ljust(512, b"\0"))), "sparse"),
    "sparse of many": (lambda: with_raw(pax(*SPARSE), plain(b"0", b"9999999999\n" + b"1\n" * 3000000)), "sparse"),
    "sparse of no number": (lambda: with_raw(pax(*SPARSE), plain(b"0", b"x\n".ljust(512, b"\0"))), "number"),
    "sparse of version 0.0": (lambda: with_raw(pax((b"GNU.sparse.size", b"100"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.offset", b"0"),
                                                   (b"GNU.sparse.numbytes", b"10")), plain(b"0", b"x" * 10)), "other than 1.0"),
    "sparse of version 0.1": (lambda: with_raw(pax((b"GNU.sparse.size", b"100"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.name", b"root/x"),
                                                   (b"GNU.sparse.map", b"0,10")), plain(b"0", b"x" * 10)), "other than 1.0"),
    "old sparse of no number": (lambda: with_raw(old_sparse(b"x" * 24)), "sparse"),
}


def old_sparse(fields):
    block = bytearray(plain(b"S"))
    block[386:386 + len(fields)] = fields
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


@pytest.fixture
def outside(directory):
    """A directory where nothing may be written."""
    os.mkdir(f"{directory}/outside")
    write(f"{directory}/outside/file", "canary")
    before = tree(f"{directory}/outside")
    yield f"{directory}/outside"
    assert tree(f"{directory}/outside") == before


@pytest.mark.parametrize("case", REFUSED)
def test_a_foreign_or_hostile_archive(subhost, fails, outside, small_root, case):
    make, why = REFUSED[case]
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    data = make()
    if b"{outside}" in data:
        with tarfile.open(fileobj=io.BytesIO(data)) as read_back:
            members = [(info, read_back.extractfile(info).read() if info.isreg() else None) for info in read_back]
        for info, _ in members:
            info.linkname = info.linkname.replace("{outside}", outside)
        data = tar(*members, label=None)
    with open(f"{one.base}/layer.tar.gz", "wb") as file:
        file.write(gzip.compress(data, 1))
    line = fails(one, f"LAYER={one.base}/layer.tar.gz", why)
    assert line.startswith(f"overlay-boot: cannot unpack LAYER={one.base}/layer.tar.gz: ")
    assert layers() == []


def test_a_hard_link_to_a_symbolic_link(subhost, small_root):
    """It is one of the link itself, not of what that leads to: here a file of the host's, on the file system of the cache."""
    canary = write(f"{CACHE}/canary", "canary")
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    archive(one.base, member("root/l", kind=tarfile.SYMTYPE, link=canary), member("root/h", kind=tarfile.LNKTYPE, link="root/l"))
    one.booted()
    assert one.inside("readlink", "/l", "/h").split() == [canary, canary]
    assert os.stat(canary).st_nlink == 1


@pytest.mark.parametrize("data, why", [
    (b"", "compressed neither"), (b"text", "compressed neither"), (tar(), "compressed neither"), (gzip.compress(tar())[:-4], "damaged"),
    (gzip.compress(tar())[:60], "truncated"), (gzip.compress(tar()) + b"x", "damaged"), (b"\x28\xb5\x2f\xfdx", "truncated"),
    (gzip.compress(tar(member("root/x", random.Random(1).randbytes(100000))))[:50000], "truncated")], ids=range(8))
def test_an_archive_whose_compression_is_wrong(subhost, fails, data, why):
    one = subhost(LAYER="layer.tar.gz")
    with open(f"{one.base}/layer.tar.gz", "wb") as file:
        file.write(data)
    fails(one, f"LAYER={one.base}/layer.tar.gz", why)
    assert layers() == []


def test_a_damaged_byte(subhost, fails):
    one = subhost(LAYER="layer.tar.gz")
    data = bytearray(gzip.compress(tar(member("root/x", random.Random(1).randbytes(100000)))))
    data[50000] ^= 4
    with open(f"{one.base}/layer.tar.gz", "wb") as file:
        file.write(data)
    fails(one, "damaged")
    assert layers() == []


@pytest.mark.parametrize("limit, why", [("100k", "102400 bytes"), ("1M 10", "10 members")])
def test_a_bomb(subhost, fails, limit, why):
    one = subhost(LAYER="layer.tar.gz", LAYER_LIMIT=limit)
    archive(one.base, *(member(f"root/x{number}", bytes(2000)) for number in range(100)))
    fails(one, "LAYER_LIMIT", why)
    assert layers() == []
    one.configure(LAYER="layer.tar.gz", LAYER_LIMIT="1M 100")
    one.booted()


@pytest.mark.parametrize("limit", ["x", "10G x", "-1", "1G -5", "50%", "1G 2 3"])
def test_a_limit_that_is_none(subhost, fails, limit):
    fails(subhost(LAYER_LIMIT=limit), f"LAYER_LIMIT={limit}")


def test_a_layer_that_is_not_there(subhost, fails):
    fails(subhost(LAYER="none.tar.gz"), "LAYER=", "none.tar.gz", "No such file")


def test_a_layer_that_is_a_fifo(subhost, fails):
    one = subhost(LAYER="fifo")
    os.mkfifo(f"{one.base}/fifo")
    fails(one, "LAYER=", "neither a directory nor an archive")


def test_no_room_for_it(subhost, fails):
    one = subhost(LAYER="layer.tar.gz")
    archive(one.base, member("root/x", bytes(3 << 20)))
    assert run("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", CACHE).returncode == 0
    try:
        done = one.boot()
        line = one_line(done)
        assert "No space left" in line and "root/x" in line
        assert layers() == []
    finally:
        run("umount", CACHE)


BASES = [tar(member("root/d"), member("root/f", b"x" * 700, uid=5), member("root/l", kind=tarfile.SYMTYPE, link="f"), format=format)
         for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)] + [
    tar(member("root/" + "n" * 180, b"y", pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"})),
    with_raw(pax(*SPARSE), plain(b"0", b"1\n10\n90\n".ljust(512, b"\0") + b"x" * 90)), tar(member("root/s", b""))[:1024] + old_sparse(b"")]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=st.sampled_from(BASES), changes=st.lists(st.tuples(st.integers(0, 4000), st.sampled_from(
    [b"\0", b"7", b"/", b"..", b"\xff", b"\x80", b"S", b"x", b"L", b" ", b"9999999"])), max_size=4), mend=st.booleans())
def test_whatever_an_archive_has_is_refused_or_unpacked(run_directory, base, changes, mend):
    """Nothing else is ever raised, and nothing is written elsewhere."""
    from overlay_boot.errors import Failure
    from overlay_boot import tar as reader
    from overlay_boot.layers import unpacking
    data = bytearray(base)
    for at, new in changes:
        at %= len(data)
        data[at:at + len(new)] = new
    if mend:
        for at in range(0, len(data) - 511, 512):
            data[at + 148:at + 156] = b" " * 8
            data[at + 148:at + 155] = b"%06o\0" % sum(data[at:at + 512])
    place = f"{run_directory}/fuzz"
    os.makedirs(f"{place}/target")
    target = os.open(f"{place}/target", os.O_RDONLY)
    try:
        stream = reader.Stream(io.BytesIO(bytes(data)), 1 << 20)
        with unpacking.Unpacker(target) as unpacker:
            for one in reader.members(stream):
                if one.name != b"oxide.json":
                    unpacker.add(one, stream)
            unpacker.finish()
    except Failure:
        pass
    finally:
        os.close(target)
        assert os.listdir(place) == ["target"]
        shutil.rmtree(place)


@given(block=st.binary(min_size=512, max_size=512) | st.sampled_from([bytes(512), b"\xff" * 512]))
def test_the_sum_of_a_header(block):
    from overlay_boot import tar as reader
    assert reader.checksum(block) == sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


# The cache

def test_a_second_boot_does_not_unpack(subhost, small_root):
    """Nor does it read the archive: it takes the layer that is there, by what it knows of the file."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    path = text_layer(one.base, "layer")
    one.booted().stopped()
    layer = f"{CACHE}/layers/{layers()[0]}"
    inode = os.stat(layer).st_ino
    trace = f"{one.base}/trace"
    done = run("strace", "-e", "trace=read,pread64,openat", "-y", "-o", trace, BOOT, one.conf)
    assert done.returncode == 0, done.stderr
    assert path in read(trace)
    assert not [line for line in read(trace).splitlines() if f"<{path}>" in line and "read" in line.split("(")[0]]
    assert "layers" in read(trace) and "unpacking" not in read(trace) and "hashlib" not in read(trace)
    assert os.stat(layer).st_ino == inode and one.inside("cat", "/etc/layer") == "layer"


def test_without_a_layer_nothing_of_it_is_imported(subhost):
    one = subhost()
    done = run("/usr/bin/python3", "-IS", "-X", "importtime", BOOT, one.conf)
    assert done.returncode == 0 and "layers" not in done.stderr.replace(MODULES, "")


def test_a_changed_archive_is_another_layer(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    path = text_layer(one.base, "one")
    status = os.stat(path)
    one.booted().stopped()
    text_layer(one.base, "two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(path).st_size == status.st_size
    one.booted()
    assert one.inside("cat", "/etc/layer") == "two" and len(layers()) == 2


def test_a_copy_of_an_archive_is_the_same_layer(subhost, small_root):
    one, other = subhost(LOWER=small_root, LAYER="layer.tar.gz"), subhost(LOWER=small_root, LAYER="copy.tar.gz")
    shutil.copy(text_layer(one.base, "layer"), f"{other.base}/copy.tar.gz")
    one.booted()
    other.booted()
    assert len(layers()) == 1
    assert one.inside("cat", "/etc/layer") == other.inside("cat", "/etc/layer") == "layer"


def big_layer(directory):
    return archive(directory, *(member(f"root/d{number % 50}/{number}", b"%d" % number) for number in range(8000)))


def test_two_boots_at_once(subhost, small_root):
    """One unpacks, the others wait for it; all get the whole layer."""
    first = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    path = big_layer(first.base)
    many = [first, *(subhost(LOWER=small_root, LAYER=path) for _ in range(3))]
    boots = [start(BOOT, one.conf) for one in many]
    assert [boot.wait() for boot in boots] == [0] * 4, [boot.stderr.read() for boot in boots]
    for boot in boots:
        boot.stdout.close()
        boot.stderr.close()
    assert len(layers()) == 1
    assert {one.sh("ls /d7 | wc -l") for one in many} == {"160"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_boot_that_is_killed_while_it_unpacks(subhost, machine, small_root, number):
    """There never is a half layer under its name; the next boot clears up and unpacks it."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    big_layer(one.base)
    boot = start(BOOT, one.conf, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: [name for name in layers() if os.path.exists(f"{CACHE}/layers/{name}/d20")])
    boot.send_signal(number)
    boot.wait()
    assert boot.returncode in (-signal.SIGKILL, 1)
    assert layers() == [] if number == signal.SIGTERM else [name[64:] for name in layers()] == [".part"]
    one.booted()
    assert one.sh("ls /d7 | wc -l") == "160"
    assert len(layers()) == 1 and len(layers()[0]) == 64


def test_the_decompressor_is_nobody(subhost, small_root):
    """What it reads may be hostile."""
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    big_layer(one.base)
    boot = start(BOOT, one.conf)
    status = wait_for(lambda: "".join(read(f"/proc/{pid}/status") for pid, name in descendants(boot.pid).items() if name == "gzip"))
    values = dict(line.split(":\t", 1) for line in status.splitlines())
    assert values["Uid"].split() == values["Gid"].split() == ["65534"] * 4
    assert values["Groups"].split() == [] and int(values["CapEff"], 16) == 0
    assert boot.communicate(timeout=60) == (b"", b"") and boot.returncode == 0


def test_what_another_layer_has_left_is_cleared(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    os.makedirs(f"{CACHE}/layers/{'0' * 64}.part/some/thing")
    text_layer(one.base, "layer")
    one.booted()
    assert [len(name) for name in layers()] == [64]


@pytest.mark.parametrize("text", ["", "x", "1 2 3 4 5 nothing /x\n", "\n\n", "\xff\n"])
def test_a_damaged_list_of_archives(subhost, small_root, text):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted().stopped()
    write(f"{CACHE}/archives", text)
    one.booted()
    assert one.inside("cat", "/etc/layer") == "layer" and len(layers()) == 1


def test_progress_is_for_a_terminal(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    archive(one.base, *(member(f"root/{number}", b"") for number in range(60000)))
    terminal = Terminal(BOOT, one.conf)
    try:
        assert terminal.ended(60) == 0
        assert b"unpacking layer.tar.gz" in terminal.said and terminal.said.endswith(b"\r\x1b[K")
    finally:
        terminal.close()


# --check and overlay-layers

def test_check_tells_the_layers_and_unpacks_none(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER=["layer.tar.gz", "other"])
    text_layer(one.base, "layer")
    os.mkdir(f"{one.base}/other")
    lines = one.boot("--check").stdout.splitlines()
    assert [line for line in lines if line.startswith("LAYER=")] == [f"LAYER={one.base}/layer.tar.gz", f"LAYER={one.base}/other"]
    assert f"LOWER={small_root}" in lines and layers() == []


def rows():
    done = run(LAYERS, "--json")
    assert done.returncode == 0, done.stderr
    return {row["digest"]: row for row in json.loads(done.stdout)}


@pytest.fixture
def listed(directory):
    """Has /etc/subhosts.conf list files, for the time of the test."""
    os.mkdir(f"{directory}/etc")
    listing = f"{directory}/etc/subhosts.conf"
    write(listing)
    made = not os.path.exists("/etc/subhosts.conf")
    if made:
        write("/etc/subhosts.conf")
    assert run("mount", "--bind", listing, "/etc/subhosts.conf").returncode == 0
    yield lambda *paths: write(listing, "".join(f"{path}\n" for path in paths))
    run("umount", "/etc/subhosts.conf")
    if made:
        os.unlink("/etc/subhosts.conf")


def test_overlay_layers_lists(subhost, small_root, listed):
    one, other = subhost(LOWER=small_root, LAYER="layer.tar.gz"), subhost(LOWER=small_root, LAYER="layer.tar.gz")
    path, unused = text_layer(one.base, "layer"), text_layer(other.base, "other")
    other.booted().stopped()
    one.booted()
    listed(one.conf)
    found = {tuple(row["archives"]): row for row in rows().values()}
    assert found[path,]["used_by"] == [one.name, one.conf] and found[unused,]["used_by"] == []
    assert 0 < found[path,]["size"] < 1 << 20
    lines = run(LAYERS).stdout.splitlines()
    assert lines[0].split() == ["DIGEST", "SIZE", "USED", "BY", "ARCHIVES"] and len(lines) == 3


def test_overlay_layers_removes_what_is_not_used(subhost, small_root, listed):
    """Not that of a running subhost, nor one that is configured; and the boot that wants it again unpacks it."""
    one, other, third = (subhost(LOWER=small_root, LAYER="layer.tar.gz") for _ in range(3))
    for number, each in enumerate((one, other, third)):
        text_layer(each.base, f"{number}")
        each.booted()
    other.stopped()
    third.stopped()
    listed(other.conf)
    os.makedirs(f"{CACHE}/layers/{'0' * 64}.part/left")
    gone = json.loads(run(LAYERS, "--remove-unused", "--json").stdout)
    assert [row["archives"] for row in gone] == [[f"{third.base}/layer.tar.gz"]]
    assert len(layers()) == 2 and third.base not in read(f"{CACHE}/archives")
    assert one.inside("cat", "/etc/layer") == "0"
    third.booted()
    assert third.inside("cat", "/etc/layer") == "2"


def test_a_layer_of_the_site_wide_defaults_is_used_by_each_that_names_no_other(site_wide, subhost, small_root, listed):
    one = subhost(LOWER=small_root)
    site_wide("LAYER=layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted().stopped()
    listed(one.conf)
    assert [row["used_by"] for row in rows().values()] == [[one.conf]]
    assert run(LAYERS, "--remove-unused").returncode == 0 and len(layers()) == 1
    one.configure(LOWER=small_root, LAYER="")
    assert run(LAYERS, "--remove-unused").returncode == 0 and layers() == []


def test_nothing_is_removed_if_it_cannot_be_known(subhost, small_root, listed):
    one = subhost(LOWER=small_root, LAYER="!echo layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted().stopped()
    listed(one.conf)
    assert "is a command" in one_line(run(LAYERS, "--remove-unused")) and len(layers()) == 1
    one.configure(LAYER="layer.tar.gz", BASE=f"{one.base}/not-mounted")
    assert "not-mounted" in one_line(run(LAYERS, "--remove-unused")) and len(layers()) == 1


def test_overlay_layers_removes_one(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted()
    digest = layers()[0]
    assert f"{one.name} uses it" in one_line(run(LAYERS, "--remove", digest[:10]))
    one.stopped()
    assert "no layer in the cache" in one_line(run(LAYERS, "--remove", "x"))
    assert run(LAYERS, "--remove", digest[:10]).returncode == 0 and layers() == []


def test_a_layer_whose_archive_has_no_directories_is_right(subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted().stopped()
    assert run(LAYERS, "--check").stdout == f"{layers()[0]}: right\n"


def test_overlay_layers_lists_beside_a_damaged_state_file(running, subhost, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    text_layer(one.base, "layer")
    one.booted().stopped()
    text = read(running.state)
    write(running.state, text + "colour red\n")
    listed, removed = run(LAYERS), run(LAYERS, "--remove-unused")
    write(running.state, text)
    assert listed.returncode == 0 and layers()[0][:8] in listed.stdout
    assert "damaged" in one_line(removed) and len(layers()) == 1


def test_overlay_layers_checks(subhost, directory, small_root):
    one = subhost(LOWER=small_root, LAYER="layer.tar.gz")
    full_tree(f"{directory}/source")
    run("tar", "-czf", f"{one.base}/layer.tar.gz", "--format=posix", "--xattrs", "--sparse", "-C", f"{directory}/source", "oxide.json", "root")
    one.booted().stopped()
    digest, = layers()
    done = run(LAYERS, "--check")
    assert (done.returncode, done.stdout) == (0, f"{digest}: right\n")
    for damage in (lambda path: write(f"{path}/etc/x", "y"), lambda path: write(f"{path}/etc/new", ""), lambda path: os.unlink(f"{path}/hard"),
                   lambda path: os.chmod(f"{path}/etc", 0o700)):
        damage(f"{CACHE}/layers/{digest}")
        done = run(LAYERS, "--check")
        assert done.returncode == 1 and f"{digest}: damaged: " in done.stdout, done.stdout
        run(LAYERS, "--remove", digest)
        one.booted().stopped()
    os.unlink(f"{one.base}/layer.tar.gz")
    done = run(LAYERS, "--check")
    assert done.returncode == 1 and "archive is gone" in done.stdout and layers() == [digest]
