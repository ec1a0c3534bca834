"""The configuration file as text: what needs neither root nor a subhost."""
import os

import pytest
from overlay_boot import config
from overlay_boot.config import LONGEST_LINE, check_name, checked_limit, checked_ram_size, checked_stop_timeout, checked_tmpfs, parse, services
from overlay_boot.errors import Failure


def only(text):
    """What is assigned to NAME by a file of this text."""
    return parse(text, "x.conf").get("NAME")


def refused(function, *arguments):
    with pytest.raises(Failure) as failure:
        function(*arguments)
    return str(failure.value)


@pytest.mark.parametrize("value", [
    b"plain", b"two words", b"a  b\tc", b"'", b'"', b"it's \"quoted\"", b"\\", b"\\n", b"a\\ b", b"$HOME", b"$(id)", b"`id`",
    b"${x:-y}", b"a;b", b"a&b", b"a|b", b"<a>", b"#no comment", b"a=b", b"==", b"*?[a]", b"~", b"%s", "\u00e4\u20ac\U0001f427".encode(),
    b"\xff\xfe", b"\xc3", b"\xa0", b"a\rb", b"\x01\x7f", "\u2028".encode(), "\u0085".encode()])
def test_a_value_is_taken_as_it_is(value):
    [found] = only(b"NAME=" + value + b"\n")
    assert os.fsencode(found) == value


@pytest.mark.parametrize("text", [b"NAME=a", b"NAME= a", b"NAME=a ", b"NAME=\ta\t \n", b"NAME=\v\fa\n"])
def test_values_are_trimmed(text):
    assert only(text) == ["a"]


@pytest.mark.parametrize("text", [b"", b"\n", b"NAME", b"NAME\n", b"# NAME=a\n", b"#NAME=a\n", b"NAME:a", b"export NAME=a",
                                  b"XNAME=a", b"NAME+=a", b"=a", b"=\n", b"name\0=a"])
def test_other_lines_are_ignored(text):
    assert parse(text, "x.conf") == {}


@pytest.mark.parametrize("text", [b"NAME=", b"NAME= \n", b"NAME=\t\t\n"])
def test_an_empty_value_is_none(text):
    assert parse(text, "x.conf") == {}


def test_an_empty_value_does_not_hide_a_later_one():
    assert only(b"NAME=\nNAME=a\n") == ["a"]


def test_it_is_known_where_a_value_stands():
    found = parse(b"NAME=\n# two\nNAME=x\nSHARE=/b\nSHARE= /a\nLOG=\n", "x.conf")
    assert found.places == {"NAME": [("x.conf", 3)], "SHARE": [("x.conf", 4), ("x.conf", 5)]}


def test_another_file_adds_what_one_does_not_assign():
    own = parse(b"NAME=x\nLOG=\nSTART=\nSTART=y\n", "x.conf")
    own.add(parse(b"NAME=z\nLOG=z\nSTART=z\nSHARE=/z\nSHARE=/y\nBASE=\n", "z.conf"))
    assert own == {"NAME": ["x"], "START": ["y"], "SHARE": ["/z", "/y"]}
    assert own.places == {"NAME": [("x.conf", 1)], "START": [("x.conf", 4)], "SHARE": [("z.conf", 4), ("z.conf", 5)]}


def test_the_assignments_of_a_variable_are_kept_in_order():
    assert parse(b"SHARE=/b\nNAME=x\nSHARE=/a\nSHARE=/c:/d\n", "x.conf") == {"NAME": ["x"], "SHARE": ["/b", "/a", "/c:/d"]}


def test_a_last_line_needs_no_end():
    assert only(b"BASE=.\nNAME=a") == ["a"]


def test_cr_lf_is_refused_with_the_line():
    assert "x.conf: line 2 " in refused(parse, b"NAME=a\nBASE=.\r\n", "x.conf")


@pytest.mark.parametrize("text, said", [
    ("\ufeffNAME=a\n", "byte order mark"),
    ("NAME=a\nBASE=.\nNAME=b\n", "line 3 is ignored: NAME is assigned in line 1"),
    ("START=ssh # and cron\n", "line 1: no comment"),
    ("LOG=!log #1\n", "line 1: no comment"),
    ("export START=ssh\n", "line 1 is ignored: export START= is not known (did you mean START=?)"),
    ("START: ssh\n", "line 1 is ignored: START: ssh is not known (did you mean START=?)"),
    ("start=ssh\n", "did you mean START=?")])
def test_what_is_warned_of(text, said, capfd):
    assert parse(text.encode(), "x.conf") is not None
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


@pytest.mark.parametrize("text", ["# NAME: of this\n", "", "a text: of words\n", "SHARE=/a\nSHARE=/b\n", "LOG=!log\n", "LOWER=/a#b\n"])
def test_what_is_not_warned_of(text, capfd):
    parse(text.encode(), "x.conf")
    assert capfd.readouterr().err == ""


def test_a_long_line_is_refused_with_the_line():
    assert "x.conf: line 3 " in refused(parse, b"\n\n" + b"a" * (1 << 20) + b"\n", "x.conf")
    assert only(b"NAME=" + b"a" * (LONGEST_LINE - 5)) == ["a" * (LONGEST_LINE - 5)]


@pytest.mark.parametrize("line, meant", [
    (b"NAMES=a", "NAME"), (b"name=a", "NAME"), (b"Name=a", "NAME"), (b" NAME=a", "NAME"), (b"NAME =a", "NAME"), (b"LOWR=/", "LOWER"),
    (b"UPER=/", "UPPER"), (b"PRE_MOUNT=x", "PREMOUNT"), (b"POSTMONT=x", "POSTMOUNT"), (b"RAMSIZE=1M", "RAM_SIZE"),
    (b"CABLE==", "CABLES"), (b"SHARES=/x", "SHARE"), (b"STOPTIMEOUT=1", "STOP_TIMEOUT"), (b"STRAT=ssh", "START")])
def test_a_misspelt_name_is_warned_of(line, meant, capfd):
    assert parse(line + b"\n", "x.conf") == {}
    said = capfd.readouterr().err
    assert "x.conf: line 1 " in said and f"{meant}=?" in said and said.count("\n") == 1


@pytest.mark.parametrize("line", [b"# NAME= is set below", b"FOO=bar", b"EMAIL=a@b", b"if [ a = b ]", b"x = y", b"", b"a == b",
                                  b"http://x/?NAME=a", b"\xff\xfe=a", b"PATH=/bin", "\u00c4=x".encode()])
def test_what_is_no_misspelt_name_is_not_warned_of(line, capfd):
    parse(line + b"\n", "x.conf")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a", "ex1", "a.b", "a_b-c", "A", "123456789012", "1", "..a", "a..b", "a,b", "a=b", "a+b", "a@b", "~a"])
def test_a_name_can_be(name):
    check_name(name)


@pytest.mark.parametrize("name, why", [
    ("", "empty"), ("1234567890123", "12"), ("a/b", "usable"), ("/", "usable"), ("a b", "ASCII"), ("a\tb", "ASCII"), ("..", "usable"),
    (".", "usable"), ("a\n", "ASCII"), ("\u00e4", "ASCII"), ("\udcff", "ASCII"), ("a\x7f", "ASCII"), ("-a", "usable"), ("a:b", "usable"),
    ("a%d", "usable"), ("x" * 1000, "12")])
def test_a_name_cannot_be(name, why):
    said = refused(check_name, name)
    assert said.startswith("NAME=") and why in said


@pytest.mark.parametrize("text, words", [
    ("none", []), ("ssh", ["ssh"]), ("networking  ssh", ["networking", "ssh"]), ("/opt/a/run cron", ["/opt/a/run", "cron"]),
    ("none ssh", ["none", "ssh"])])
def test_services(text, words):
    assert services(text) == words


@pytest.mark.parametrize("text", ["./script", "a/b", "ssh ../x", "-ssh"])
def test_what_is_no_service(text):
    assert "START" in refused(services, text)


@pytest.mark.parametrize("size", ["50M", "1", "4096", "10k", "10K", "1g", "1G", "10%", "none"])
def test_a_size_can_be(size):
    assert checked_ram_size(size) == size


@pytest.mark.parametrize("size", ["M", "-1", "1.5M", "5MB", "fifty", "1 M", "0x10", "%", "\u00b2", "\u0665", "10M,mode=777", "1\u0665M", "None",
                                  "\udcff"])
def test_a_size_cannot_be(size):
    assert f"RAM_SIZE={size}" in refused(checked_ram_size, size)


@pytest.mark.parametrize("seconds", ["0", "10", "0.5", ".5", "3600"])
def test_seconds_can_be(seconds):
    assert checked_stop_timeout(seconds) == seconds


@pytest.mark.parametrize("seconds", ["", "-1", "1s", "ten", "1e9", "nan", "inf", "1.2.3", ".", "\u0665", "9999999999"])
def test_seconds_cannot_be(seconds):
    assert "STOP_TIMEOUT" in refused(checked_stop_timeout, seconds)


def test_every_variable_has_a_default_and_a_place_in_the_settings():
    assert set(config.DEFAULTS) >= {"NAME", "BASE", "LIVE", "UPPER", "WORK", "LOWER", "CABLES", "START", "PREMOUNT", "POSTMOUNT",
                                    "INIT", "LOG", "RAM_SIZE"}


def test_many_lines_are_read_at_once():
    """4 MB of lines that are no assignments: no comparison of each with every other."""
    text = b"# a comment of some length = \n" * 130_000
    assert parse(text, "x.conf") == {}


@pytest.mark.parametrize("text", ["", "0", "0k", "00", "none", "0%", "101%", "-1", "1M "])
def test_a_tmpfs_for_upper_has_a_limit(text):
    assert f"UPPER=tmpfs:{text}" in refused(checked_tmpfs, text)


@pytest.mark.parametrize("text, limit", [("10G 1000000", (10 << 30, 1000000)), ("1k", (1 << 10, 1000000)), ("7  3", (7, 3)), ("0 0", (0, 0))])
def test_a_limit_of_layers(text, limit):
    assert checked_limit(text) == limit


@pytest.mark.parametrize("text", ["", "x", "1%", "1% 1", "10G x", "10G -1", "10G 1 2", "-1", "none", "1\u0665"])
def test_a_limit_of_layers_cannot_be(text):
    assert f"LAYER_LIMIT={text}" in refused(checked_limit, text)
