"""overlay-ls: what is running, and what is not."""
import json
import os
import shutil
import subprocess
import time

import pytest
from machine import BOOT, GO, LS, descendants, read, run, start, wait_for, write

TITLES = ["NAME", "STATE", "PID", "SINCE", "PROCS", "MEMORY", "SVCS", "CABLES", "CONFIG"]
KEYS = ["name", "state", "pid", "since", "processes", "memory", "services", "cables", "shares", "limits", "config", "old"]


@pytest.fixture
def listing(directory):
    """Runs overlay-ls where /etc/subhosts.conf is the text; that of the machine is not touched."""
    def ls(text, *options, **how):
        for made in ("upper", "work"):
            os.makedirs(f"{directory}/{made}", exist_ok=True)
        if text is None:
            shutil.rmtree(f"{directory}/upper")
            os.mkdir(f"{directory}/upper")
            os.mknod(f"{directory}/upper/subhosts.conf", 0o020000, 0)       # as overlayfs says that there is none
        else:
            write(f"{directory}/upper/subhosts.conf", text)
        done = run("unshare", "-m", "sh", "-ec", f"""
            mount -t overlay -o lowerdir=/etc,upperdir={directory}/upper,workdir={directory}/work overlay /etc
            exec {LS} "$@" """, "sh", *options, **how)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return done.stdout
    return ls


def rows(text):
    return {row["name"]: row for row in json.loads(text)}


def test_a_running_subhost(subhost):
    one = subhost()
    before = time.time()
    one.booted()
    row = one.row()
    assert list(row) == KEYS
    assert (row["name"], row["state"], row["config"], row["processes"], row["cables"]) == (one.name, "running", one.conf, 1, [])
    assert before - 0.01 <= row["since"] <= time.time()
    assert read(f"/proc/{row['pid']}/comm") == ".reaper\n" and f"NSpid:\t{row['pid']}\t1\n" in read(f"/proc/{row['pid']}/status")
    assert 0 < row["memory"] < 64 << 20


def test_the_table(running, subhost):
    long = subhost("t" + running.name[1:] + "x"[:11 - len(running.name)]).booted()
    lines = run(LS).stdout.splitlines()
    assert lines[0].split() == TITLES
    found = {line.split()[0]: line for line in lines[1:]}
    row = running.row()
    name, state, pid, since, processes, memory, services, cables, config = found[running.name].split()
    assert services == "-"
    assert (name, state, pid, processes, cables, config) == (running.name, "running", str(row["pid"]), "1", "-", running.conf)
    assert since in [time.strftime(form, time.localtime(row["since"])) for form in ("%H:%M", "%b%d", "%Y")]     # midnight may come
    assert memory.endswith("M")
    # one column beneath the other
    assert {line.index("running") for line in (found[running.name], found[long.name])} == {lines[0].index("STATE")}
    assert {line.index("/var") for line in (found[running.name], found[long.name])} == {lines[0].index("CONFIG")}


def printed(terminal, *command, size=(24, 80), **env):
    """The lines that a command prints on a terminal, which has ended."""
    shown = terminal(*command, size=size, env={"TERM": "xterm", "NO_COLOR": "", **env})
    assert shown.ended() == 0
    return os.fsdecode(shown.said).splitlines()


@pytest.mark.parametrize("columns, room", [(72, 72), (78, 78), (0, 80), (1000, 1000)])
def test_the_table_fits_the_terminal(terminal, running, columns, room):
    """But for those of which the names alone are longer; what is cut says so."""
    lines = printed(terminal, LS, size=(24, columns), NO_COLOR="1")
    line = next(line for line in lines if line.startswith(f"{running.name} "))
    whole = next(line for line in run(LS).stdout.splitlines() if line.startswith(f"{running.name} "))
    assert whole.endswith(f" {running.conf}") and (len(whole) > room) == (room < 1000)
    assert len(line) == room if room < len(whole) else line.split() == whole.split()
    assert line.endswith("…") == (room < len(whole))


def test_colours(terminal, running):
    def state(**env):
        lines = printed(terminal, LS, **env)
        return next(line for line in lines if line.startswith(f"{running.name} ")).split()[1], "".join(lines).count("\x1b")

    assert state()[0] == "\x1b[32mrunning\x1b[0m"
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}):
        assert state(**env) == ("running", 0), env
    assert "\x1b" not in run(LS, env={"TERM": "xterm", "NO_COLOR": ""}).stdout


def test_control_characters_do_not_reach_the_terminal(subhost, listing, directory):
    """In the path, and in NAME; each subhost is a line."""
    os.mkdir(f"{directory}/a\x1b[2Jb")
    one = subhost(place=f"{directory}/a\x1b[2Jb", NAME="n\x1b]0;title\x07\x9b1m")
    line = next(line for line in listing(one.conf).splitlines() if one.name in line)
    assert line.split() == ["n\\x1b]0;title\\x07\\x9b1m", "stopped", *"------", one.conf.replace("\x1b", "\\x1b")]
    assert one.conf in [row["config"] for row in json.loads(listing(one.conf, "--json"))]


def test_processes_and_memory_are_counted(running):
    before = running.row()
    process = start(GO, running.name, "/usr/bin/python3", "-c", "x = bytearray(60 << 20); print('made', flush=True); input()", stdin=subprocess.PIPE)
    assert process.stdout.readline() == b"made\n"
    row = running.row()
    assert row["processes"] == before["processes"] + 1
    assert 60 << 20 < row["memory"] - before["memory"] < 160 << 20
    process.communicate(b"\n")
    assert wait_for(lambda: running.row()["processes"] == before["processes"])


def test_processes_are_those_of_the_control_group(subhost):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\nfor i in 1 2 3 4 5; do sleep 1000000 & done\n", 0o755)
    one.booted()
    wait_for(lambda: list(descendants(one.init).values()).count("sleep") == 5)
    wait_for(lambda: read(f"/proc/{one.init}/comm") == ".reaper\n")
    assert one.row()["processes"] == 6


def test_oldest_first(subhost):
    made = [subhost().booted() for _ in range(4)]
    made[1].stopped()
    made[1].booted()
    names = [row["name"] for row in json.loads(run(LS, "--json").stdout)]
    assert [name for name in names if name in {one.name for one in made}] == [made[at].name for at in (0, 2, 3, 1)]


def test_states(subhost):
    """booting, running, dead, and none."""
    one = subhost(PREMOUNT="./pre")
    os.mkfifo(f"{one.base}/reached")
    os.mkfifo(f"{one.base}/go")
    one.script("pre", f"echo >{one.base}/reached; read x <{one.base}/go; overlay-premount\n")
    assert one.row() is None
    boot = start(BOOT, one.conf)
    read(f"{one.base}/reached")
    row = one.row()
    assert (row["state"], row["pid"], row["config"]) == ("booting", None, one.conf)
    assert [line.split()[1] for line in run(LS).stdout.splitlines() if line.startswith(f"{one.name} ")] == ["booting"]
    with open(f"{one.base}/go", "w") as file:
        file.write("\n")
    boot.communicate(timeout=20)
    assert one.row()["state"] == "running"
    os.kill(one.keeper, 9)
    wait_for(lambda: one.row()["state"] == "dead")
    assert one.row()["pid"] is None
    one.stop()
    assert one.row() is None


def test_more_subhosts_than_it_may_have_files_open(subhost):
    many = [subhost().booted() for _ in range(12)]
    for command in (LS, GO):
        said = run("prlimit", "--nofile=20", command)
        assert said.stderr == "" and all(f"{one.name}" in said.stdout for one in many)


# /etc/subhosts.conf

def test_those_that_are_listed_and_do_not_run(subhost, listing):
    one, other, named, running = subhost(), subhost(), subhost(NAME="other-name"), subhost().booted()
    text = f"""# {other.conf}
{one.conf}   {named.conf}

   {running.conf}
/nowhere/{other.name}.conf
{other.base}
"""
    found = rows(listing(text, "--json"))
    assert found[one.name] == {"name": one.name, "state": "stopped", "pid": None, "since": None, "processes": None, "memory": None,
                               "services": None, "cables": None, "shares": None, "limits": None, "config": one.conf, "old": None}
    assert found["other-name"]["state"] == "stopped" and found["other-name"]["config"] == named.conf
    assert found[running.name]["state"] == "running"
    assert [row["state"] for row in json.loads(listing(text, "--json")) if row["config"].startswith(f"/nowhere/{other.name}")] == ["unreadable"]
    assert [row["state"] for row in json.loads(listing(text, "--json")) if row["config"] == other.base] == ["unreadable"]
    assert other.conf not in listing(text)
    assert [line.split()[1:4] for line in listing(text).splitlines() if line.endswith(one.conf)] == [["stopped", "-", "-"]]


def test_one_that_is_listed_by_a_link(running, listing, directory):
    os.symlink(running.conf, f"{directory}/link.conf")
    assert [row["state"] for row in json.loads(listing(f"{directory}/link.conf\n{running.conf}\n", "--json"))
            if running.name in row["config"] or "link" in row["config"]] == ["running"]


def test_no_command_in_a_listed_file_is_run(subhost, listing, directory):
    one = subhost(NAME=f"!touch {directory}/canary", LOG=f"!touch {directory}/canary")
    listing(one.conf, "--json")
    assert not os.path.exists(f"{directory}/canary")


@pytest.mark.parametrize("text", [None, "", "\n\n", "# nothing\n"])
def test_none_is_listed(running, listing, text):
    assert [row["state"] for row in json.loads(listing(text, "--json")) if row["name"] == running.name] == ["running"]
    assert not [row for row in json.loads(listing(text, "--json")) if row["state"] in ("stopped", "unreadable")]


def test_a_list_of_odd_bytes(subhost, listing, directory):
    os.mkdir(os.fsencode(directory) + b"/\xff\xc3")
    place = os.fsdecode(os.fsencode(directory) + b"/\xff\xc3")
    one = subhost(place=place)
    assert os.fsdecode(b"\xff\xc3") in listing(one.conf)
    assert [row["config"] for row in json.loads(listing(one.conf, "--json")) if row["name"] == one.name] == [one.conf]
    one.booted()
    assert one.row()["config"] == one.conf and one.conf in run(LS).stdout


def test_a_list_that_cannot_be_read(directory, machine):
    for made in ("upper/subhosts.conf", "work"):
        os.makedirs(f"{directory}/{made}")
    done = run("unshare", "-m", "sh", "-ec", f"""
        mount -t overlay -o lowerdir=/etc,upperdir={directory}/upper,workdir={directory}/work overlay /etc; exec {LS}""")
    assert done.returncode == 1 and "/etc/subhosts.conf" in done.stderr and done.stderr.count("\n") == 1


def test_a_reader_that_goes_away(machine):
    done = run("sh", "-c", f"{LS} --json >&-; {LS} | true")
    assert "Traceback" not in done.stderr


def test_called_wrongly(machine):
    for arguments in (["--nonsense"], ["a"]):
        done = run(LS, *arguments)
        assert done.returncode == 2 and "usage: overlay-ls" in done.stderr
