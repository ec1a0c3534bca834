"""The schema of the state file, read and written without one."""
import random

import pytest
from overlay_boot import record
from overlay_boot.errors import Failure
from overlay_boot.record import Damaged, OtherVersion, Record, Share

WRITTEN = [
    ("format", record.FORMAT, ""), ("config", "/opt/a b/c.conf", ""), ("follower", 4711, ""), ("cgroup", "overlay-boot/x", ""), ("cables", 70000, "x0"),
    ("vlans", 70001, "x0.302"), ("netns", (8, 4026532387), ""), ("mounts", "/run/overlay-boot/x/mounts", ""),
    ("mount_point", "/run/overlay-boot/x/upper", ""), ("system_calls", "AAECAw==", ""), ("start", ("cron", "/opt/run it"[:8]), ""), ("after", ("db", "mail"), ""), ("timeout", 2.5, ""), ("log", "/l\udcff", ""),
    ("upper", "/u", ""), ("followed", "/opt/x/followed/root", ""), ("uses", "/srv/u", "2049:12"), ("lower", "/", "0"), ("lower_mounts", "/home", "0"), ("hiding", (1, 57, 1), ""), ("layers", "/a.tar.zst", "ab" * 32), ("image", "cd" * 32, ""), ("shares", Share("8:1", 2049, 12, "/srv/a", "/b c"), "836"),
    ("since", 1795787640.538, ""), ("init", 547, ""), ("ids", (1879048192, 65536), ""), ("values", "", "CABLES"), ("values", "a=b: c", "NAME"), ("host_name", "x", ""),
    ("limits", "64M", "MEMORY_MAX"), ("shell", ("1:2", "3:4"), ""),
    ("old", ("5:6", "7:8"), ""), ("restart", ("cron", "/opt/it"), ""), ("table", "overlay-boot-x", ""), ("publish", ("80", "192.0.2.1:53/udp"), ""),
    ("addresses", ("=192.0.2.2", "br0=2001:db8::2"), "")]


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


@pytest.mark.parametrize("line", ["netns 1", "netns a b", "ids 1", "ids 1:x", "init x", "color red", "cable: x", "cable:x0", "format x", "share:1 a:b", "since x", "config",
                                  " config x", "\x00\x01", "timeout ten", "timeout nan", "since inf", "since -1", "init -1", "init 4194304",
                                  "system-calls AAE", "cable:x0 -1", "config /a\0b", "netns 1 123456789012345678901"])
def test_damage(line):
    with pytest.raises(Damaged, match="the state file of x is damaged: "):
        Record(f"config /c\n{line}\n", "x")


@pytest.mark.parametrize("line", ["format 1", "format 3", "format 17"])
def test_another_version(line):
    with pytest.raises(OtherVersion, match=f"the state file of x was written by another version of overlay-boot: {line}"):
        Record(f"{line}\nhue 7\n", "x")


def test_a_long_line_is_told_of_by_its_beginning():
    with pytest.raises(Damaged, match=r"damaged: a{80}$"):
        Record("a" * 5000 + "\n", "x")


def test_whatever_stands_in_it():
    """Bytes of a whole one are replaced: it is a Failure, or a record that is written as it is read."""
    chance, whole = random.Random(10), "".join(record.line(*one) for one in WRITTEN)
    for _ in range(5000):
        letters = list(whole)
        for _ in range(chance.randrange(1, 4)):
            letters[chance.randrange(len(letters))] = chance.choice("\0\n :-0123456789azZ\xe9\udcff\u0663")
        try:
            found = Record("".join(letters), "x")
        except Failure:
            continue
        assert record.text(Record(record.text(found))) == record.text(found)


def test_a_record_as_text():
    text = "".join(record.line(*one) for one in WRITTEN)
    assert sorted(record.text(Record(text)).split("\n")) == sorted(text.split("\n"))
    assert record.text(Record()) == ""


def test_a_line_that_was_cut_off_is_none():
    assert Record("config /c\nnetns 12").netns is None and Record("init 5").init is None


def test_no_line_has_another_in_it():
    with pytest.raises(Failure, match="no line feed"):
        record.line("upper", "/a\nb")
