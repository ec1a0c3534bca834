"""Enter: commands, shells, users and terminals inside."""
import os
import select
import signal
import socket
import stat
import subprocess
import termios

import pytest
from machine import (GO, PATIENCE, PYTHON, UNFENCED, control_group, descendants, is_alive, kill, namespaces, new_name, one_line, read, run, start,
                     wait_for, write)
from overlay_boot import cgroup


# Exit statuses

@pytest.mark.parametrize("status", [0, 1, 2, 7, 126, 127, 128, 255])
def test_the_commands_exit_status(running, status):
    done = running.go("sh", "-c", f"exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE, signal.SIGTERM])
def test_a_command_that_a_signal_kills(running, number):
    assert running.go("sh", "-c", f"kill -{int(number)} $$").returncode == 128 + number


@pytest.mark.parametrize("command", ["no-such-command", "/nowhere/x", "/etc/passwd/x", "./x"])
def test_a_command_that_is_not_there(running, command):
    done = running.go(command)
    assert done.returncode == 127 and command in one_line(done)


def test_a_command_that_cannot_be_executed(running):
    running.write("opt/plain", "echo x\n", 0o644)
    running.write("opt/no-format", "echo x\n", 0o755)
    running.write("opt/no-interpreter", "#!/nowhere/sh\n", 0o755)
    os.symlink("loop", f"{running.upper}/opt/loop")
    for command in ("/opt/plain", "/etc", "/opt/no-format", "/opt/loop"):
        done = running.go(command)
        assert done.returncode == 126 and command in one_line(done), command
    assert running.go("/opt/no-interpreter").returncode in (126, 127)


def test_a_command_is_looked_for_inside(running):
    running.write("usr/local/bin/mine", "#!/bin/sh\necho mine\n", 0o755)
    running.write("usr/local/sbin/mine2", "", 0o644)
    running.write("usr/bin/mine2", "#!/bin/sh\necho mine2\n", 0o755)
    assert running.inside("mine") == "mine" and running.inside("mine2") == "mine2"


def test_arguments_are_taken_as_they_are(running):
    words = ["a b", "", "it's", '"', "\\", "$HOME", "$(id)", "`id`", "*", ";", "\n", "-u", "--help", "--", os.fsdecode(b"\xff"), "\u20ac"]
    done = running.go("printf", "%s|", *words)
    assert done.stdout == "|".join([*words, ""])


def test_options_behind_the_command_are_the_commands(running):
    assert "usage: overlay-go" not in running.inside("ls", "--help")
    assert running.inside("sh", "-c", "echo $0 $1", "-u", "x") == "-u x"
    assert "Usage" in run(GO, "-u", "root", running.name, "ls", "--help").stdout


# Standard input, output and errors

def test_commands_on_standard_input(running):
    done = running.go(input="echo out; echo err >&2; hostname; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, f"out\n{running.name}\n", "err\n")


def test_the_shell_is_bash(running):
    assert running.go(input="echo $BASH_VERSION").stdout.strip() != ""


def test_no_bash_then_sh(running):
    running.sh("rm -f /bin/bash /usr/bin/bash")
    assert stat.S_ISCHR(os.lstat(f"{running.upper}/usr/bin/bash").st_mode)      # a whiteout
    done = running.go(input='echo "$0,$BASH_VERSION"')
    assert (done.returncode, done.stdout) == (0, "sh,\n")


def test_no_shell_at_all(running):
    running.inside("rm", "-f", "/usr/bin/bash", "/usr/bin/sh", "/usr/bin/dash")
    done = running.go(input="echo x")
    assert done.returncode == 127 and "sh" in one_line(done)


def test_much_data_through_pipes(running):
    data = os.urandom(3 << 20)
    done = run(GO, running.name, "cat", input=os.fsdecode(data))
    assert os.fsencode(done.stdout) == data


def test_much_data_through_files(running, directory):
    data = os.urandom(3 << 20)
    with open(f"{directory}/in", "wb") as file:
        file.write(data)
    with open(f"{directory}/in", "rb") as source, open(f"{directory}/out", "wb") as sink:
        assert run(GO, running.name, "cat", stdin=source, stdout=sink).returncode == 0
    with open(f"{directory}/out", "rb") as sink:
        assert sink.read() == data


def test_output_is_appended_where_the_caller_appends(running, directory):
    path = write(f"{directory}/out", "before\n")
    with open(path, "ab") as sink:
        running.go("sh", "-c", "echo out; echo err >&2", stdout=sink, stderr=sink)
    assert sorted(read(path).split()) == ["before", "err", "out"] and read(path).startswith("before\n")


def test_input_ends(running, directory):
    path = write(f"{directory}/in", "x\n")
    with open(path, "rb") as source:
        assert running.go("sh", "-c", "cat; cat; echo end", stdin=source).stdout == "x\nend\n"
    assert running.go("sh", "-c", "cat; echo end", stdin=subprocess.DEVNULL).stdout == "end\n"


def test_a_command_that_does_not_read_its_input(running, directory):
    path = write(f"{directory}/in", "x" * (1 << 20))
    with open(path, "rb") as source:
        assert running.go("true", stdin=source, seconds=20).returncode == 0
    assert running.go("true", input="x" * (1 << 20), seconds=20).returncode == 0


def test_a_reader_that_goes_away(running):
    done = run("sh", "-c", f"{GO} {running.name} yes | head -n 1", seconds=20)
    assert done.stdout == "y\n"
    wait_for(lambda: "yes" not in descendants(running.keeper).values())


def test_what_a_command_leaves_in_the_background_does_not_hold_it(running, directory):
    with open(f"{directory}/out", "wb") as sink:
        done = running.go("sh", "-c", "sleep 1000000 & echo said", stdout=sink, stderr=sink, seconds=20)
    assert done.returncode == 0 and read(f"{directory}/out") == "said\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_descriptors_that_are_closed(running, closed):
    """The command runs, with something harmless in their place."""
    done = run("sh", "-c", f"exec {GO} {running.name} sh -c 'hostname >/said; readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 >>/said; exit 7' {closed}")
    assert done.returncode == 7
    assert read(f"{running.upper}/said").startswith(running.name + "\n")


# What enters

def test_environment(running):
    found = running.inside("env", env={"SECRET": "x", "LD_PRELOAD": "", "TERM": "vt220", "LANG": "C", "LC_ALL": "C.UTF-8", "USER": "me"})
    assert sorted(found.splitlines()) == [
        "HOME=/root", "LANG=C", "LOGNAME=root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PREVLEVEL=N",
        "RUNLEVEL=2", "SHELL=/bin/bash", "TERM=vt220", "USER=root", "container=overlay-boot"]


@pytest.mark.parametrize("with_terminal", [True, False])
def test_a_session_whose_subhost_is_stopped(subhost, terminal, with_terminal):
    """It says so."""
    one = subhost().booted()
    line = f"overlay-go: {one.name} was stopped, or has ended"
    if with_terminal:
        session = terminal(GO, one.name)
        session.type("echo be''gun\n")
        session.expect("begun\r\n")
        one.stopped()
        session.expect(line)
    else:
        session = start(GO, one.name, "sh", "-c", "echo begun; exec sleep 1000")
        assert session.stdout.readline() == b"begun\n"
        one.stopped()
        _, said = session.communicate(timeout=10)
        assert said.decode().splitlines() == [line] and session.returncode == 143


def test_a_frozen_subhost(running):
    """Whoever is born in its control group waits: it is told instead."""
    group = f"/proc/self/fd/{cgroup.hierarchy()}{control_group(running.init)}"
    write(f"{group}/cgroup.freeze", "1")
    try:
        wait_for(lambda: "frozen 1" in read(f"{group}/cgroup.events"))
        assert one_line(running.go("true")) == f"overlay-go: the control group of {running.name} is frozen"
    finally:
        write(f"{group}/cgroup.freeze", "0")
    assert running.go("true").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_before_the_command_is_executed(running, number):
    """Which who is root inside can hold up as long as he likes."""
    traced = start("strace", "-f", "-o", "/dev/null", "-e", "trace=keyctl", "-e", "inject=keyctl:signal=SIGSTOP",
                   *PYTHON, GO, running.name, "true", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    def those_called(name):
        return [pid for pid in descendants(traced.pid) if read(f"/proc/{pid}/comm") == f"{name}\n"]

    try:
        wait_for(lambda: those_called("execute"))
        held_up, = those_called("execute")
        kill(those_called("overlay-go")[0], number)
        traced.wait(10)
        assert traced.returncode and not is_alive(held_up)
    finally:
        traced.kill()
        traced.wait()


def test_the_run_level(running):
    """As invoke-rc.d(8) asks for it, when a package is installed inside."""
    assert running.inside("runlevel") == "N 2"


@pytest.fixture
def entered(running):
    """A command inside that goes on: (pid on the host, overlay-go's process)."""
    process = start(GO, running.name, "sh", "-c", "echo ready; exec sleep 1000000", stdin=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    [inner] = wait_for(lambda: descendants(process.pid))
    wait_for(lambda: read(f"/proc/{inner}/comm") == "sleep\n")
    yield inner, process
    kill(inner, signal.SIGKILL)
    process.communicate()


def test_all_namespaces_are_those_of_pid_1(running, entered):
    inner, _ = entered
    assert namespaces(inner) == namespaces(running.init)
    assert control_group(inner) == control_group(running.init)
    assert read(f"/proc/{inner}/cgroup") == read(f"/proc/{running.init}/cgroup") or control_group(inner) != control_group("self")
    assert os.stat(f"/proc/{inner}/root").st_ino == os.stat(f"/proc/{running.init}/root").st_ino


def test_it_sees_itself_among_the_subhosts_processes(running, entered):
    assert "sleep" in running.sh("cat /proc/[0-9]*/comm").split()
    assert running.sh("cat /proc/self/cgroup | grep ^0:") == "0::/"


def test_no_descriptor_of_the_callers_enters(running, directory):
    extra = [os.open(directory, os.O_RDONLY) for _ in range(5)]
    extra.append(socket.socket().detach())
    done = run(GO, running.name, "ls", "/proc/self/fd", pass_fds=extra)
    assert done.stdout.split() == ["0", "1", "2", "3"]       # 3 is ls's own
    for fd in extra:
        os.close(fd)


def test_no_file_of_the_callers_enters(running, directory):
    """From a file that is open for reading, /proc would make one to write."""
    canary = write(f"{directory}/canary", "host\n")
    with open(canary, "rb") as source, open(f"{directory}/out", "wb") as sink:
        done = running.go("sh", "-c", "echo spoilt >/proc/self/fd/0; readlink /proc/self/fd/*", stdin=source, stdout=sink)
    assert read(canary) == "host\n"
    assert directory not in read(f"{directory}/out") and done.returncode != 127


def test_signals_are_as_new(running):
    def prepare():
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    found = dict(line.split(":\t") for line in running.sh("cat /proc/self/status", preexec_fn=prepare).splitlines() if line.startswith("Sig"))
    assert int(found["SigBlk"], 16) == 0 and int(found["SigIgn"], 16) & ~(0b111 << 31) == 0


def test_a_session_of_its_own(running):
    found = running.sh("cat /proc/self/stat").rpartition(") ")[2].split()
    assert found[4] == "0"      # no controlling terminal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_handed_on(running, number):
    process = start(GO, running.name, "sh", "-c", f"trap 'echo got; exit 9' {int(number)}; echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == b"got\n" and process.returncode == 9


def test_it_ends_with_the_subhost(running, entered):
    inner, process = entered
    running.stopped()
    assert process.wait(20) in (128 + signal.SIGTERM, 128 + signal.SIGKILL) and not is_alive(inner)


def test_it_does_not_hold_the_subhost(running, entered):
    inner, process = entered
    running.go("sh", "-c", "echo >/run/dummy_service")
    wait_for(running.is_gone)
    assert process.wait(20) == 128 + signal.SIGKILL and not is_alive(inner)


def test_twenty_at_once(running):
    started = [start(GO, running.name, "sh", "-c", f"echo {number}") for number in range(20)]
    assert [process.communicate(timeout=60)[0] for process in started] == [b"%d\n" % number for number in range(20)]


# Users

PASSWD = """root:x:0:0:root:/root:/bin/sh
web:x:1234:2345:Web:/srv/web:/bin/sh
lost:x:1235:2345::/nowhere:/bin/false
bare:x:1236:2346:::
bad:x:12:abc::/:/bin/sh
huge:x:99999999999999999999:1::/:/bin/sh
none:x:4294967295:1::/:/bin/sh
nogid:x:1237:4294967295::/:/bin/sh
short:x:1:1
"""
GROUP = "root:x:0:\nweb:x:2345:\nadm:x:4:web,other\nstaff:x:50:other,web\nodd:x:abc:web\nlost:x:51:webby\n"


@pytest.fixture
def users(subhost, small_root):
    """A subhost with users of its own."""
    one = subhost(LOWER=small_root)
    one.write("etc/passwd", PASSWD)
    one.write("etc/group", GROUP)
    os.makedirs(f"{one.upper}/srv/web")
    return one.booted()


def test_a_user_of_the_subhost(users):
    assert users.sh("id -u; id -g; id -G; pwd; echo $HOME $USER $LOGNAME $SHELL", user="web").splitlines() == [
        "1234", "2345", "2345 4 50", "/srv/web", "/srv/web web web /bin/sh"]
    status = users.sh("cat /proc/self/status", user="web")
    assert "Uid:\t1234\t1234\t1234\t1234" in status and "Gid:\t2345\t2345\t2345\t2345" in status
    assert "CapEff:\t0000000000000000" in status and "CapPrm:\t0000000000000000" in status
    assert users.go("sh", "-c", "echo x >/root/x", user="web").returncode != 0


def test_a_user_without_a_home(users):
    assert users.sh("pwd; echo $HOME", user="lost").splitlines() == ["/", "/nowhere"]
    assert users.sh("pwd; echo $HOME $SHELL", user="bare").splitlines() == ["/", "/ /bin/sh"]


def test_without_a_user_it_is_root(users):
    assert users.sh("id -u; id -G; pwd; echo $HOME $USER $SHELL").splitlines() == ["0", "0", "/root", "/root root /bin/sh"]


@pytest.mark.parametrize("user", ["nobody", "daemon", "web:x", "4294967295", "-1", "short", "bad", "huge", "none", "nogid", "../x", "\u00e4"])
def test_no_such_user(users, user):
    """Those of the host do not count, nor does an entry that is none: (uid_t)-1 would leave root as it is."""
    done = run(GO, "-u", user, users.name, "id")
    assert done.returncode == 1 and done.stdout == ""
    one_line(done)


def test_a_user_by_number(users):
    """One that is listed has the groups and the home of its name."""
    said = "id -u; id -G; echo $USER $HOME; pwd"
    assert users.sh(said, user="1234").splitlines() == ["1234", "2345 4 50", "web /srv/web", "/srv/web"]
    assert users.sh(said, user="4711").splitlines() == ["4711", "4711", "4711 /", "/"]
    assert users.go("sh", "-c", "echo x >/root/x", user="4711").returncode != 0


def test_a_shell_as_a_user(users):
    assert run(GO, "-u", "web", users.name, input="id -u; pwd").stdout == "1234\n/srv/web\n"
    assert run(GO, "--user", "web", users.name, "id", "-u").stdout == "1234\n"
    assert run(GO, "--user=web", users.name, "id", "-u").stdout == "1234\n"


def test_no_passwd_at_all(subhost, small_root):
    one = subhost(LOWER=small_root).booted()
    one.inside("rm", "/etc/passwd")
    assert one.sh("echo $HOME $USER") == "/root root"
    assert run(GO, "-u", "root", one.name, "true").returncode == 1


# On a terminal

@pytest.fixture
def shell(running, terminal):
    """An interactive shell inside, on a terminal."""
    made = terminal(GO, running.name, env={"TERM": "dumb"})
    made.type("PS1='rea''dy> '\n")
    made.expect("ready> ")
    return made


def test_a_terminal_of_the_subhosts_own(running, terminal):
    shown = terminal(GO, running.name, "sh", "-c", "tty; stat -c %t:%T $(tty); echo $TERM; ls -x /dev/pts", env={"TERM": "vt52"})
    shown.expect("/dev/pts/0\r\n88:0\r\nvt52\r\n0  ptmx\r\n")
    assert shown.ended() == 0


def test_the_callers_terminal_is_out_of_reach(running, terminal):
    """No process inside has it open, or as its controlling terminal."""
    shown = terminal(GO, running.name, "sh", "-c", "echo rea''dy; exec sleep 1000000")
    shown.expect("ready")
    [inner] = descendants(shown.process.pid)
    mine = os.fstat(shown.tty)
    for fd in os.listdir(f"/proc/{inner}/fd"):
        found = os.stat(f"/proc/{inner}/fd/{fd}")
        assert (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino)
    controlling = int(read(f"/proc/{inner}/stat").rpartition(") ")[2].split()[4])
    assert os.major(controlling) == 136 and controlling != mine.st_rdev or os.stat(f"/proc/{inner}/fd/0").st_dev != mine.st_dev
    shown.process.terminate()


def test_a_controlling_terminal_stays_outside(running, terminal, directory):
    """With none of the three a terminal, /dev/tty inside is nobody's."""
    shown = terminal("sh", "-c", f"{GO} {running.name} sh -c 'echo spoilt >/dev/tty' </dev/null >{directory}/out 2>&1; echo $?")
    assert shown.ended() == 0
    assert b"spoilt" not in shown.said and shown.said != b"0\r\n"


def test_the_size_is_passed_and_changed(shell):
    shell.type("stty size\n")
    shell.expect("24 80")
    shell.expect("ready> ")
    shell.type("trap 'stty size' WINCH; echo tra''pped\n")
    shell.expect("trapped")
    shell.expect("ready> ")
    shell.resize((50, 132))
    shell.type("\n")
    shell.expect("50 132")
    shell.type("stty size\n")
    shell.expect("50 132")


def test_the_size_is_there_from_the_start(running, terminal):
    shown = terminal(GO, running.name, "stty", "size", size=(33, 99))
    shown.expect("33 99")
    assert shown.ended() == 0


def test_an_interrupt_goes_to_the_foreground_job(shell):
    shell.type("echo beg''un; cat\n")
    shell.expect("begun\r\n")
    shell.type("hello\n")
    shell.expect("hello\r\nhello")
    shell.type("\x03")
    shell.expect("ready> ")
    shell.type("echo $?\n")
    shell.expect("130")


def test_job_control(shell):
    shell.type("sh -c 'echo st''arted; read x; echo got $x'\n")
    shell.expect("started")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.expect("ready> ")
    shell.type("jobs\n")
    shell.expect("Stopped")
    shell.expect("ready> ")
    shell.type("fg\n")
    shell.expect("read x")
    shell.type("input\n")
    shell.expect("got input")


def test_end_of_input_ends_the_shell(shell):
    shell.type("exit 5\n")
    assert shell.ended() == 5


def test_control_d_ends_the_shell(shell):
    shell.type("\x04")
    assert shell.ended() == 0


def test_the_callers_terminal_is_as_before(running, terminal):
    shown = terminal(GO, running.name)
    before = termios.tcgetattr(shown.tty)
    shown.type("echo in''side\n")
    shown.expect("inside")
    wait_for(lambda: not termios.tcgetattr(shown.tty)[3] & termios.ECHO)
    shown.type("exit\n")
    assert shown.ended() == 0 and termios.tcgetattr(shown.tty) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_hangs_up_and_leaves_the_terminal_as_before(running, terminal, number):
    shown = terminal(GO, running.name, "sh", "-c", "echo rea''dy; exec sleep 1000000")
    before = termios.tcgetattr(shown.tty)
    shown.expect("ready")
    [inner] = descendants(shown.process.pid)
    shown.process.send_signal(number)
    assert shown.ended() == 128 + number
    wait_for(lambda: not is_alive(inner))
    before[3] |= termios.ECHO | termios.ICANON
    assert termios.tcgetattr(shown.tty)[3] & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON


def test_what_is_printed_last_is_not_lost(running, terminal):
    for _ in range(5):
        shown = terminal(GO, running.name, "sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; echo; echo the end")
        shown.expect("the end")
        assert shown.ended() == 0


def test_a_paste(running, terminal):
    """More than a terminal takes before somebody reads it: that it takes more by then is not taken for the end of output."""
    lines = "".join(f"line {number}\n" for number in range(30000))
    shown = terminal(GO, running.name, "sh", "-c", "stty -echo; echo re''ady; sleep 0.5; cat >/pasted; echo do''ne")
    shown.expect("ready")
    shown.type(lines + "\x04")
    shown.expect("done")
    assert shown.ended() == 0 and read(f"{running.upper}/pasted") == lines


@pytest.mark.parametrize("blocking", [True, False])
def test_much_data_both_ways_with_a_slow_reader(running, terminal, blocking):
    """Byte for byte, though what is printed is read only when no more can be typed."""
    data = os.urandom(10 << 20)
    shown = terminal(GO, running.name, "sh", "-c", f"stty raw -echo; echo re''ady; exec head -c {len(data)}")
    shown.expect("ready\n")
    os.set_blocking(shown.tty, blocking)        # of the open file, which overlay-go has as well
    os.set_blocking(shown.user, False)
    left, printed = memoryview(data), bytearray()
    while len(printed) < len(data):
        if left and select.select([], [shown.user], [], 0)[1]:
            left = left[os.write(shown.user, left):]
        else:
            readable, writable, _ = select.select([shown.user], [shown.user] if left else [], [], PATIENCE)
            assert readable or writable, f"stuck after {len(data) - len(left)} bytes in, {len(printed)} out"
            if readable:
                printed += os.read(shown.user, 1 << 16)
    assert printed == data and shown.ended() == 0


def test_only_the_input_is_a_terminal(running, terminal, directory):
    shown = terminal("sh", "-c", f"{GO} {running.name} sh -c 'tty; read x; echo got $x' >{directory}/out; echo st''atus $?")
    shown.type("typed\n")
    shown.expect("status 0")
    assert read(f"{directory}/out") == "/dev/pts/0\ngot typed\n"


def test_only_the_output_is_a_terminal(running, terminal):
    shown = terminal("sh", "-c", f"echo piped | {GO} {running.name} sh -c 'cat; tty <&1; tty'; echo st''atus $?")
    before = shown.expect("status 1")
    assert "piped" in before and "/dev/pts/0" in before and "not a tty" in before


def test_only_errors_are_a_terminal(running, terminal, directory):
    shown = terminal("sh", "-c", f"{GO} {running.name} sh -c 'echo out; echo err >&2' </dev/null >{directory}/out; echo st''atus $?")
    assert "err" in shown.expect("status 0") and read(f"{directory}/out") == "out\n"


def test_a_user_on_a_terminal(users, terminal):
    shown = terminal(GO, "-u", "web", users.name, "sh", "-c", "id -u; echo to the terminal >/dev/tty")
    shown.expect("1234")
    shown.expect("to the terminal")
    assert shown.ended() == 0


def test_a_subhost_without_a_terminal_to_give(subhost, terminal):
    """Its /dev/pts is no devpts: it says so, in one line, and nothing that is there in its place is opened."""
    running = subhost(**UNFENCED).booted()
    running.sh("umount /dev/pts && mkfifo /dev/pts/ptmx")
    shown = terminal(GO, running.name, "true")
    assert shown.ended() == 1
    assert shown.said.startswith(b"overlay-go: ") and shown.said.count(b"\n") == 1


# What is running

def test_what_goes_on_writing_does_not_keep_it(running, directory):
    """A file gets what is there when the command ends."""
    with open(f"{directory}/said", "wb") as file:
        done = running.go("sh", "-c", "echo first; yes & exit 3", stdout=file, stderr=subprocess.DEVNULL, seconds=10)
    assert done.returncode == 3 and read(f"{directory}/said").startswith("first\n")
    assert os.path.getsize(f"{directory}/said") < 10 << 20


def test_without_a_name_the_list(subhost):
    made = [subhost().booted() for _ in range(3)]
    found = run(GO).stdout.splitlines()
    assert [name for name in found if name in {one.name for one in made}] == [one.name for one in made]
    made[1].stopped()
    assert made[1].name not in run(GO).stdout.splitlines()


def test_not_running(subhost):
    one = subhost()
    done = one.go("true")
    assert done.returncode == 1 and one_line(done) == f"overlay-go: {one.name} is not running"
    one.booted().stopped()
    assert one.go("true").returncode == 1


@pytest.mark.parametrize("name", ["..", ".", "../passwd", "a/b", "/", "x" * 300, "\u00e4", "-", " "])
def test_a_name_that_is_none(machine, name):
    done = run(GO, name, "true")
    assert done.returncode == 1 and "is not running" in one_line(done)


def test_a_name_by_another_path(running):
    assert run(GO, f"./{running.name}", "true").returncode == 1
    assert run(GO, f"../overlay-boot/{running.name}", "true").returncode == 1


def test_called_wrongly(machine):
    done = run(GO, "-u")
    assert done.returncode == 2 and "usage: overlay-go" in done.stderr
    assert run(GO, "--nonsense", new_name()).returncode == 2
