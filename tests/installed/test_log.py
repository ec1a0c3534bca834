"""overlay-log."""
import os
import signal
import time

import pytest
from machine import LOG, run, start, write


@pytest.fixture
def logged(subhost, directory):
    """A subhost that was never booted, with a log of thirty lines, the last one without an end."""
    one = subhost(LOG=f"{directory}/log")
    write(f"{directory}/log", "\n".join(f"line {number}" for number in range(1, 31)))
    return one


def last(count, end=30):
    return "\n".join(f"line {number}" for number in range(end - count + 1, end + 1))


def test_all_of_it(logged):
    done = run(LOG, logged.conf)
    assert (done.returncode, done.stdout, done.stderr) == (0, last(30), "")


@pytest.mark.parametrize("lines, shown", [(0, 0), (1, 1), (7, 7), (30, 30), (1000, 30)])
def test_the_last_lines(logged, directory, lines, shown):
    assert run(LOG, "-n", str(lines), logged.conf).stdout == last(shown)
    write(f"{directory}/log", last(30) + "\n")
    assert run(LOG, f"--lines={lines}", logged.conf).stdout == last(shown) + "\n" * (shown > 0)
    write(f"{directory}/log", "\n" * 30)
    assert run(LOG, "-n", str(lines), logged.conf).stdout == "\n" * shown


def test_the_last_of_many(logged, directory):
    """More than is read at a time."""
    write(f"{directory}/log", last(100_000, 100_000) + "\n")
    assert run(LOG, "-n", "50000", logged.conf).stdout == last(50_000, 100_000) + "\n"


def test_a_log_on_a_file_system_that_is_read_only(logged, directory):
    os.mkdir(f"{directory}/ro")
    os.rename(f"{directory}/log", f"{directory}/ro/log")
    logged.configure(LOG=f"{directory}/ro/log")
    assert run("mount", "--bind", "-o", "ro", f"{directory}/ro", f"{directory}/ro").returncode == 0
    try:
        done = run(LOG, logged.conf)
    finally:
        assert run("umount", f"{directory}/ro").returncode == 0
    assert (done.returncode, done.stdout, done.stderr) == (0, last(30), "")


def test_by_name_while_it_runs_and_after(subhost):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\necho it $1s\n", 0o755)
    one.booted()
    assert run(LOG, one.name).stdout.endswith("\noverlay-boot: /opt/service start\nit starts\n")
    one.stopped()
    assert run(LOG, "-n", "2", one.name).stdout.startswith("it stops\n")    # the default of LOG


def test_by_the_name_of_one_whose_state_file_is_damaged(running):
    with open(running.state, "a", encoding="ascii") as file:
        file.write("nothing\n")
    shown = run(LOG, running.name)
    assert "boot from" in shown.stdout and (shown.returncode, shown.stderr) == (0, "")


def test_follow(running):
    shown = start(LOG, "-f", "-n", "1", running.name)
    assert b"boot from" in shown.stdout.readline()
    for text in ("one\n", "two\n"):
        with open(running.log, "a", encoding="ascii") as file:
            file.write(text)
        assert shown.stdout.readline() == text.encode()
    write(running.log, "three\n")           # shorter than it was: as logrotate(8) cuts it
    assert shown.stdout.readline() == b"three\n"
    shown.send_signal(signal.SIGINT)
    assert shown.wait(20) == -signal.SIGINT and shown.communicate()[1] in (b"", None)


def test_control_characters_do_not_reach_the_terminal(terminal, logged, directory):
    write(f"{directory}/log", "a\x1b]0;title\x07b\nnext\n")
    shown = terminal(LOG, logged.conf, env={"TERM": "xterm"})
    assert shown.ended() == 0
    assert shown.said.split() == [b"a\\x1b]0;title\\x07b", b"next"]
    assert run(LOG, logged.conf).stdout == "a\x1b]0;title\x07b\nnext\n"


def test_nor_do_halves_of_them(terminal, logged, directory):
    """A control character of two bytes, of which overlay-log -f sees one at a time."""
    write(f"{directory}/log", "")
    shown = terminal(LOG, "-f", logged.conf, env={"TERM": "xterm"})
    for part in (b"\xc2", b"\x9b31m\n"):
        time.sleep(0.5)
        with open(f"{directory}/log", "ab") as file:
            file.write(part)
    assert shown.expect("31m").endswith("\\xc2\\x9b")
    shown.process.terminate()


def test_a_line_without_an_end(logged, directory):
    """Of a subhost that fills the disk."""
    with open(f"{directory}/log", "wb") as file:
        file.write(b"x" * (1 << 24))
    done = run(LOG, "-n", "1", logged.conf)
    assert done.returncode == 0 and len(done.stdout) == 1 << 24


def test_no_link_of_the_subhosts_is_followed(subhost, directory):
    one = subhost(LOG="root/log").booted()
    secret = write(f"{directory}/secret", "secret\n")
    os.unlink(f"{one.upper}/log")
    os.symlink(secret, f"{one.upper}/log")
    for word in (one.name, one.conf):
        done = run(LOG, word)
        assert done.returncode == 1 and done.stdout == "" and "cannot read LOG=" in done.stderr and done.stderr.count("\n") == 1
    one.stopped()
    assert run(LOG, one.conf).returncode == 1


@pytest.mark.parametrize("words, status, why", [
    (["nobody-here"], 1, "cannot read LOG=/var/log/overlay-boot/nobody-here.log: No such file or directory"),
    (["/nowhere/x.conf"], 1, "cannot read /nowhere/x.conf: No such file or directory"), (["../x"], 1, "cannot read ../x: "),
    ([], 2, "usage: overlay-log"), (["-n", "x", "y"], 2, "not a number of lines: x"), ([""], 2, "it is empty")])
def test_what_cannot_be_shown(words, status, why):
    done = run(LOG, *words)
    assert done.returncode == status and why in done.stderr and done.stdout == ""
