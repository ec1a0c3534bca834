"""Tables: what fits, and how."""
import pytest

columns = pytest.importorskip("overlay_boot.columns")
terminal = pytest.importorskip("overlay_boot.terminal")
listing = pytest.importorskip("overlay_boot.listing")


@pytest.fixture
def on(monkeypatch):
    """Has standard output be a terminal of that width, or none."""
    def of(width, colours=False):
        monkeypatch.setattr(terminal, "width", lambda _: width)
        monkeypatch.setattr(terminal, "has_colours", lambda: colours)
    return of


def test_the_ordinary_list_is_not_wide(on):
    on(None)
    cable = {"name": "mta0", "bridge": "br0", "inside": "eth0", "addresses": ["192.168.8.2/24", "fe80::1/64"]}
    rows = [listing.row(name, "running", f"/opt/{name}/{name}.conf", pid=4194303, since=0, processes=112, memory=999 << 20, cables=[cable],
                        services=[{"name": "cron", "state": "running"}])
            for name in ("mta", "web")]
    lines = listing.text(rows).splitlines()
    assert max(map(len, lines)) <= 86
    assert all(line.endswith(f"  br0=192.168.8.2  /opt/{name}/{name}.conf") for line, name in zip(lines[1:], ("mta", "web"), strict=True))


@pytest.mark.parametrize("memory, said", [(0, "0.0M"), (12345678, "11.8M"), (999 << 20, "999.0M"), (1000 << 20, "1.0G"), (48 << 30, "48.0G")])
def test_memory(memory, said):
    assert listing.said({"memory": memory}, "memory") == said


def test_the_time(monkeypatch):
    now = listing.time.mktime((2026, 11, 27, 12, 0, 0, 0, 0, -1))
    clock = listing.time.localtime
    monkeypatch.setattr(listing.time, "localtime", lambda seconds=now: clock(seconds))
    assert [listing.moment(now - hours * 3600) for hours in (0, 11, 13, 24 * 330, 24 * 340)] == ["12:00", "01:00", "Nov26", "Jan01", "2025"]


@pytest.mark.parametrize("width", range(1, 60))
def test_only_the_last_two_columns_are_shortened(on, width):
    on(width)
    cells = ["a-name", "running", "c" * 20, "d" * 30]
    title, line = columns.columns(["name", "state", "long", "longer"], [cells]).splitlines()
    assert title.split() == ["NAME", "STATE", "LONG", "LONGER"] and line.split()[:2] == cells[:2]
    assert len(line) == min(max(width, len("a-name  running  LONG  LONGER")), len("  ".join(cells)))
    for word, cell in zip(line.split(), cells, strict=True):
        assert word == cell or word[-1] == "…" and cell.startswith(word[:-1])


@pytest.mark.parametrize("room, shown", [(-1, "…"), (0, "…"), (1, "…"), (2, "a…"), (3, "abc"), (4, "abc")])
def test_however_narrow(room, shown):
    assert columns.shortened("abc", room) == shown


def test_letters_that_take_two_columns_or_none(on):
    on(20)
    lines = columns.columns(["a", "b", "c"], [["日本", "x", "y"], ["é", "e\u0301", "日本日本日本日本日本"]]).splitlines()
    assert lines == ["A     B  C", "日本  x  y", "é     e\u0301  日本日本日…"]


def test_colours_are_those_of_a_column(on):
    rows, colours = [["dead", "dead", "x"]], {"state": {"dead": columns.RED}}
    on(80, colours=True)
    assert columns.columns(["name", "state", "c"], rows, colours) == "NAME  STATE  C\ndead  \x1b[31mdead\x1b[0m   x\n"
    on(80)
    assert "\x1b" not in columns.columns(["name", "state", "c"], rows, colours)
    on(None, colours=True)
    assert "\x1b" not in columns.columns(["name", "state", "c"], rows, colours)


@pytest.mark.parametrize("text, printed", [("a b", "a b"), ("a\nb\tc", "a\\nb\\tc"), ("\x1b[2J\x07\x7f", "\\x1b[2J\\x07\\x7f"),
                                           ("\x9b1m\u202e", "\\x9b1m\\u202e"), ("é\udcff", "é\udcff")])
def test_what_a_cell_has_is_printable(on, text, printed):
    on(None)
    assert columns.columns(["a", "b"], [[text, "x"]]).splitlines()[1:] == [f"{printed}  x"]
