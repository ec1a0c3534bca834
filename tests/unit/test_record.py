"""The schema of the state file, read and written without one."""
import pytest
from overlay_boot import record
from overlay_boot.errors import Failure
from overlay_boot.record import Record, Share

WRITTEN = [
    ("format", record.FORMAT, ""), ("config", "/opt/a b/c.conf", ""), ("cgroup", "overlay-boot/x", ""), ("cables", 70000, "x0"),
    ("vlans", 70001, "x0.302"), ("netns", (8, 4026532387), ""), ("mounts", "/run/overlay-boot/x/mounts", ""),
    ("mount_point", "/run/overlay-boot/x/upper", ""), ("start", ("cron", "/opt/run it"[:8]), ""), ("timeout", 2.5, ""), ("log", "/l\udcff", ""),
    ("upper", "/u", ""), ("lower", "/", "0"), ("layers", "/a.tar.zst", "ab" * 32), ("shares", Share("8:1", 2049, 12, "/srv/a", "/b c"), "836"),
    ("since", 1795787640.538, ""), ("init", 547, ""), ("values", "", "CABLES"), ("values", "a=b: c", "NAME"), ("host_name", "x", ""),
    ("shell", ("1:2", "3:4"), "")]


@pytest.mark.parametrize("attribute, value, name", WRITTEN)
def test_what_is_written_is_read(attribute, value, name):
    found = getattr(Record(record.line(attribute, value, name)), attribute)
    found = found[name] if name else found
    if attribute == "shares":
        assert [getattr(found, slot) for slot in Share.__slots__] == [getattr(value, slot) for slot in Share.__slots__]
    else:
        assert found == value


def test_every_attribute_is_tried():
    assert {attribute for attribute, _, _ in WRITTEN} == set(record.BY_ATTRIBUTE)


def test_the_last_line_counts():
    found = Record("cgroup a\ncgroup b\nlower:0 /x\nlower:0 /y\nlower:1 /z\n")
    assert found.cgroup == "b" and found.lower == {"0": "/y", "1": "/z"}


def test_what_is_taken_back():
    found = Record("cgroup a\ncgroup \nshare:1 8:1 2 3 /a:/a\nshare:2 8:1 2 3 /b:/b\nshare:1 \nstart \n")
    assert found.cgroup is None and list(found.shares) == ["2"] and found.start == ()


def test_nothing_on_record():
    found = Record()
    assert (found.config, found.init, found.cables, found.start, found.timeout) == (None, None, {}, (), 0.0)


@pytest.mark.parametrize("line", ["netns 1", "netns a b", "init x", "color red", "cable: x", "cable:x0", "format 1", "format 3", "share:1 a:b", "since x",
                                  "config", " config x", "\x00\x01", "timeout ten"])
def test_another_version_or_damage(line):
    with pytest.raises(Failure, match="the state file of x is damaged, or of another version of overlay-boot: "):
        Record(f"config /c\n{line}\n", "x")


def test_a_line_that_was_cut_off_is_none():
    assert Record("config /c\nnetns 12").netns is None and Record("init 5").init is None


def test_no_line_has_another_in_it():
    with pytest.raises(Failure, match="no line feed"):
        record.line("upper", "/a\nb")
