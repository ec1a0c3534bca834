"""The own replacements for os and os.path do as those do."""
import os
import stat

import pytest

paths = pytest.importorskip("overlay_boot.paths")
environment = pytest.importorskip("overlay_boot.environment")
files = pytest.importorskip("overlay_boot.files")
in_line = pytest.importorskip("overlay_boot.subhosts_conf").in_line

ABSOLUTE = ["/a", "/a/b", "/a/b.conf", "/a b/c\n", "/a/" + os.fsdecode(b"\xff"), "/\u20ac/x", "/..", "/a/../b"]


@pytest.mark.parametrize("path", ABSOLUTE)
def test_the_parts_of_a_path(path):
    assert paths.name(path) == os.path.basename(path) and paths.parent(path) == os.path.dirname(path)


@pytest.mark.parametrize("directory", ["/", "/a", "/a/", "/a b"])
@pytest.mark.parametrize("path", ["b", "b/c", "/b", "../b", ".", "./b", "b/"])
def test_join(directory, path):
    assert paths.join(directory, path) == os.path.join(directory, path)


def test_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("a/b")
    os.symlink("a/b", "link")
    os.symlink(f"{tmp_path}/link/../b", "other")
    for name in ("new\nline", "sp ace", os.fsdecode(b"\xff\xfe"), "\u20ac", "back\\slash", "x (deleted)"):
        os.mkdir(name)
    for path in (".", "a", "a/b/..", "link", "other", "link/.", str(tmp_path), *os.listdir(".")):
        assert paths.real(path) == os.path.realpath(path)
    with pytest.raises(OSError):
        paths.real("nowhere")


def test_kind(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.symlink("nowhere", tmp_path / "dangling")
    os.symlink("fifo", tmp_path / "link")
    assert [files.kind(str(tmp_path / name)) for name in (".", "fifo", "link", "dangling", "none", "a\0b")] == [
        stat.S_IFDIR, stat.S_IFIFO, stat.S_IFIFO, 0, 0, 0]


@pytest.mark.parametrize("text", ["", "a", "\u20ac", os.fsdecode(bytes(range(1, 256)))])
def test_bytes_round_trip(text):
    assert paths.encode(text) == os.fsencode(text) and paths.decode(paths.encode(text)) == text


def test_environment(monkeypatch):
    assert environment.variable("NO_SUCH_VARIABLE_AT_ALL") is None
    for name, value in environment.variables().items():
        assert name and isinstance(value, str)


def test_words_are_between_white_space_of_ascii():
    assert paths.words(" a\tb\u00a0c\u3000\n d ") == ["a", "b\u00a0c\u3000", "d"] and paths.words(" \v\f\r") == []


@pytest.mark.parametrize("line, found", [
    ("/opt/a/a.conf\n", ["/opt/a/a.conf"]), (" /opt/my sub/a.conf\t/b.conf \n", ["/opt/my sub/a.conf", "/b.conf"]),
    ("relative.conf /b.conf", ["relative.conf", "/b.conf"]), ("\n", []), ("/a\u00a0/b", ["/a\u00a0/b"]), ("/a  b/c", ["/a  b/c"])])
def test_a_line_of_the_list(line, found):
    assert in_line(line) == found
