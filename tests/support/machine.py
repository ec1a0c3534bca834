"""What the tests share: subhosts made for a test, the machine as a whole, and terminals.

Every name and path of a run begins with PREFIX, so that two runs, or a user's
own subhosts, never meet.  Nothing here sleeps: wait_for() asks until a deadline.
"""
import errno
import fcntl
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import termios
import time

BOOT, GO, LS, STOP = (f"/usr/sbin/overlay-{command}" for command in ("boot", "go", "ls", "stop"))
BASELINE, DIFF, DISKFILE, EXPORT, FOLLOW, LAYERS, LOG, NEW, SHARE = (
    f"/usr/sbin/overlay-{command}" for command in ("baseline", "diff", "diskfile", "export", "follow", "layers", "log", "new", "share"))
TREE = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
PROGRAMS = "/usr/libexec/overlay-boot"
PYTHON = ("/usr/bin/python3", "-IS")        # as begin executes a command: for strace(1) that leaves what is executed
MODULES = "/usr/lib/overlay-boot"
UNFENCED = {"CAPABILITIES": "all", "SYSTEM_CALLS": "all"}
MARK = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d overlay-boot: (boot from /.*|stopped|ended|killed by .*)\n")      # in LOG
STATES, NETNS, LOGS = "/run/overlay-boot", "/run/netns", "/var/log/overlay-boot"
CACHE = "/var/cache/overlay-boot"
SITE_WIDE = "/etc/overlay-boot/defaults.conf"

MUST_RUN = os.environ.get("OVERLAY_BOOT_TESTS_MUST_RUN") == "1"
ALONE = os.environ.get("CI") == "true"      # nobody else's subhosts come and go here meanwhile
PATIENCE = 20                               # seconds, for what takes milliseconds


def base36(number):
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return (base36(number // 36) if number >= 36 else "") + digits[number % 36]


PREFIX = f"t{base36(time.time_ns() // 1000 * 32768 + os.getpid())[-6:]}"
_names = itertools.count(1)


def new_name():
    """A NAME that no run but this one has, of at most 12 characters."""
    return f"{PREFIX}{base36(next(_names))}"


def wait_for(condition, seconds=PATIENCE, what=""):
    """What condition() returns, as soon as that is true.  AssertionError if it is not in time."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not so within {seconds} s: {what or condition}"
        time.sleep(0.002)


def run(*command, input=None, env=None, seconds=60, **how):
    """Run a command: its exit status, output and errors, as text that keeps every byte."""
    if input is None:
        how.setdefault("stdin", subprocess.DEVNULL)
    else:
        input = os.fsencode(input)
    how.setdefault("stdout", subprocess.PIPE)
    how.setdefault("stderr", subprocess.PIPE)
    if env is not None:
        env = {**os.environ, **env}
    done = subprocess.run(command, input=input, env=env, timeout=seconds, check=False, **how)
    done.stdout, done.stderr = os.fsdecode(done.stdout or b""), os.fsdecode(done.stderr or b"")
    return done


def start(*command, env=None, **how):
    """Start a command that goes on beside the test, with its output in pipes unless told otherwise."""
    for stream in ("stdin", "stdout", "stderr"):
        how.setdefault(stream, subprocess.DEVNULL if stream == "stdin" else subprocess.PIPE)
    if env is not None:
        env = {**os.environ, **env}
    return subprocess.Popen(command, env=env, **how)


# Processes, by proc(5)

def read(path):
    """The text of a file, or "" if it (or its process) is gone."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read())
    except OSError:
        return ""


def processes():
    """{pid: (parent, state, name)} of all processes."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            name, bracket, rest = read(f"/proc/{entry}/stat").partition(" (")[2].rpartition(") ")
            if bracket:
                found[int(entry)] = (int(rest.split()[1]), rest[0], name)
    return found


def descendants(of):
    """{pid: name} of the living descendants of a process."""
    everything = processes()
    children = {}
    for pid, (parent, _, _) in everything.items():
        children.setdefault(parent, []).append(pid)
    found, rest = {}, children.get(of, [])
    while rest:
        pid = rest.pop()
        rest += children.get(pid, [])
        if everything[pid][1] not in "ZX":
            found[pid] = everything[pid][2]
    return found


def is_alive(pid):
    return processes().get(pid, (0, "X", ""))[1] not in "ZX"


def namespaces(pid):
    """{kind: identity} of the namespaces of a process."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in os.listdir(f"/proc/{pid}/ns")}


def control_group(pid):
    """The process's control group, version 2."""
    return next(line[3:] for line in read(f"/proc/{pid}/cgroup").splitlines() if line.startswith("0::"))


# The machine

WARDEN = 0      # our parent, to which all orphans of the run come: conftest.py


class Snapshot(dict):
    """The machine: what a boot adds to it, and its end has to take away.

    With CI=true, all of it; else only what belongs to names of this run, since
    other subhosts come and go on the machine.
    """

    def __init__(self):
        super().__init__(
            mounts=kept(mounts()), interfaces=kept(name for _, name in socket.if_nameindex()),
            namespaces=kept(listed(NETNS)), states=kept(listed(STATES)), groups=kept(control_groups()),
            loops=kept(loops()), processes=ours())

    def differences(self, before):
        """What is there now, and was not before, or the other way round: a text, empty if nothing."""
        lines = []
        for part, now in self.items():
            was = before[part]
            lines += [f"{part}: + {one}" for one in sorted(now, key=str) if one not in was]
            if part != "processes":     # one of the test's own may have ended
                lines += [f"{part}: - {one}" for one in sorted(was, key=str) if one not in now]
        return "\n".join(lines)


def kept(things):
    return [thing for thing in things if ALONE or PREFIX in thing]


def mounts(of="self"):
    """The mounts of a process's mount namespace, less their running numbers."""
    return [" ".join(line.split(" ")[2:]) for line in read(f"/proc/{of}/mountinfo").splitlines()]


def listed(directory):
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def root_of_control_groups():
    """The root of the cgroup2 hierarchy, wherever that is mounted."""
    root = next((line.split(" ")[4] for line in read("/proc/self/mountinfo").splitlines()
                 if " - cgroup2 " in line), None)
    if root is None:
        from overlay_boot import cgroup
        root = f"/proc/self/fd/{cgroup.hierarchy()}"
    return root


def controllers():
    """The controllers that control groups of version 2 can have here."""
    return set(read(f"{root_of_control_groups()}/cgroup.controllers").split())


def control_groups():
    root = root_of_control_groups()
    return [os.path.relpath(directory, root) for directory, _, _ in os.walk(root)]


def loops():
    return [f"{name} {read(f'/sys/block/{name}/loop/backing_file')}" for name in listed("/sys/block")
            if os.path.exists(f"/sys/block/{name}/loop/backing_file")]


def ours():
    """{pid: name} of the processes that this run has started."""
    return {pid: name for pid, name in descendants(WARDEN or os.getpid()).items() if pid != os.getpid()}


# Subhosts

class Subhost:
    """A directory with a configuration, root, work and live; START is none unless told otherwise."""

    run = staticmethod(run)

    def __init__(self, directory, name=None, **settings):
        self.name = name or new_name()
        self.base = f"{directory}/{self.name}"
        self.conf = f"{self.base}/{self.name}.conf"
        self.upper, self.work, self.live = (f"{self.base}/{place}" for place in ("root", "work", "live"))
        self.log = f"{LOGS}/{self.name}.log"
        self.followed = f"{self.base}/followed/root"
        for made in (self.base, self.upper, self.work, self.live):
            os.mkdir(made)
        self.configure(**settings)

    def configure(self, **settings):
        """Write the configuration; a value None is no line, a list one line each."""
        settings = {"BASE": ".", "START": "none", **settings}
        lines = [b"%s=%s\n" % (os.fsencode(variable), os.fsencode(value))
                 for variable, values in settings.items() if values is not None
                 for value in (values if isinstance(values, list) else [values])]
        with open(self.conf, "wb") as file:
            file.writelines(lines)

    def write(self, path, text="", mode=0o644):
        """A file in UPPER; its path as it is on the host."""
        return write(f"{self.upper}/{path}", text, mode)

    def script(self, name, text, mode=0o755):
        """A shell script in BASE, for a hook or a `!` command; its path."""
        return write(f"{self.base}/{name}", "#!/bin/sh\n" + text, mode)

    def init_text(self, text):
        """A value for INIT: PID 1 is a shell that runs this text."""
        return f"cat {write(f'{self.base}/init.text', text)}"

    def boot(self, *options, **how):
        return self.run(BOOT, *options, self.conf, **how)

    def booted(self, *failing, **how):
        """Boot it, which succeeds, with a line for each of the services that fail."""
        done = self.boot(**how)
        assert done.returncode == 0, f"boot: {done.stderr}\nlog: {self.said()}"
        lines = done.stderr.splitlines()
        assert done.stdout == "" and len(lines) == len(failing), done.stderr
        for line, word in zip(lines, failing, strict=True):
            assert line.startswith(f"overlay-boot: cannot start {word}: ") and " (what it printed is in LOG=" in line, line
        return self

    def stop(self, **how):
        return self.run(STOP, self.conf, **how)

    def stopped(self, **how):
        """Stop it, which succeeds without a word."""
        done = self.stop(**how)
        assert done.returncode == 0, f"stop: {done.stderr}\nlog: {self.said()}"
        assert done.stderr == "" and done.stdout == ""

    def go(self, *words, user=None, **how):
        return self.run(GO, *(["-u", user] if user else []), self.name, *words, **how)

    def inside(self, *words, **how):
        """What a command that succeeds prints inside."""
        done = self.go(*words, **how)
        assert done.returncode == 0, f"overlay-go {self.name} {' '.join(words)}: {done.returncode} {done.stderr}"
        return done.stdout.strip("\n")

    def sh(self, text, **how):
        return self.inside("/bin/sh", "-c", text, **how)

    def row(self):
        """What overlay-ls tells of it, or None."""
        rows = json.loads(self.run(LS, "--json").stdout)
        return next((row for row in rows if row["name"] == self.name), None)

    def is_running(self):
        row = self.row()
        return bool(row) and row["state"] == "running"

    @property
    def init(self):
        """The process id of its PID 1, on the host."""
        return self.row()["pid"]

    @property
    def keeper(self):
        return processes()[self.init][0]

    def records(self):
        return dict(line.split(" ", 1) for line in read(self.state).splitlines())

    @property
    def state(self):
        """The state file."""
        return f"{STATES}/{self.name}/state"

    def said(self):
        """What stands in its log, but for the marks of boots and ends."""
        return MARK.sub("", read(self.log))

    def is_gone(self):
        return not os.path.exists(f"{STATES}/{self.name}")

    def remove(self):
        self.run(STOP, self.conf)
        if os.path.exists(self.log):
            os.unlink(self.log)


def names_running():
    """The names of all subhosts that run."""
    return {row["name"] for row in json.loads(run(LS, "--json").stdout) if row["state"] == "running"}


def write(path, text="", mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(os.fsencode(text))
    os.chmod(path, mode)
    return path


def small_root(directory):
    """A root file system of its own: the host's programs, none of its contents.  Small, and so quick to make."""
    for made in ("etc", "proc", "tmp", "usr/bin", "usr/sbin", "usr/lib", "root", "var/log"):
        os.makedirs(f"{directory}/{made}")
    for link in ("bin", "sbin", "lib"):
        os.symlink(f"usr/{link}", f"{directory}/{link}")
    needed = set()
    for program in ("sh", "cat", "cp", "mv", "ls", "echo", "sleep", "mkdir", "rm", "mount", "readlink", "stat", "touch", "env",
                    "nsenter", "hostname", "true", "mkfifo", "ps", "id", "wc"):
        found = shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin")
        shutil.copy(found, f"{directory}/usr/bin/{program}")
        needed.update(word for word in run("ldd", found).stdout.split() if word[0] == "/")
    for library in needed:
        target = f"{directory}{library}"
        if library.startswith("/lib64/"):
            os.makedirs(f"{directory}/lib64", exist_ok=True)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.realpath(library), target)
    write(f"{directory}/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    return directory


def warnings(done):
    """The lines that a check gives on standard error, less the one of secrets, as the machine itself has."""
    return [line for line in done.stderr.splitlines() if " can read secrets of LOWER=" not in line]


def faults(done):
    """These, less those of what the default fences would take."""
    return [line for line in warnings(done) if "with the default, the subhost would lose" not in line]


def one_line(done):
    """The one line of reason that a failed command gives."""
    lines = done.stderr.splitlines()
    assert done.returncode != 0, f"it did not fail: {done.stdout}"
    assert len(lines) == 1 and done.stderr.endswith("\n"), f"not one line: {done.stderr!r}"
    assert "Traceback" not in done.stderr
    assert lines[0].startswith(("overlay-", "clear: ")), lines[0]
    return lines[0]


# Terminals

class Terminal:
    """A command on a terminal of its own, of which we are the user."""

    def __init__(self, *command, size=(24, 80), env=None):
        self.user, self.tty = pty.openpty()
        self.name = os.ttyname(self.tty)
        self.resize(size)
        self.said = b""
        self.process = subprocess.Popen(
            command, stdin=self.tty, stdout=self.tty, stderr=self.tty, start_new_session=True,
            env={**os.environ, **(env or {})}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))     # noqa: PLW1509

    def resize(self, size):
        fcntl.ioctl(self.user, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def type(self, text):
        os.write(self.user, text.encode())

    def expect(self, text, seconds=PATIENCE):
        """Read what is printed until text occurs; all that came before."""
        wanted = text.encode()
        end = time.monotonic() + seconds
        while wanted not in self.said:
            assert time.monotonic() < end, f"no {text!r} in {self.said!r}"
            assert self.read(0.1) or self.process.poll() is None, f"ended without {text!r}: {self.said!r}"
        before, _, self.said = self.said.partition(wanted)
        return os.fsdecode(before)

    def read(self, seconds):
        """Take what is printed within the time; whether there was anything."""
        ready, _, _ = select.select([self.user], [], [], seconds)
        if not ready:
            return False
        try:
            chunk = os.read(self.user, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            chunk = b""
        self.said += chunk
        return bool(chunk)

    def ended(self, seconds=PATIENCE):
        """The exit status, once the command has ended by itself."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it has not ended: {self.said!r}"
            self.read(0.02)
        while self.read(0):
            pass
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.user, self.tty):
            os.close(fd)


# Signals, as others send them

def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def end_all(before):
    """SIGKILL to every process of this run that was not there before."""
    def left():
        return [pid for pid in ours() if pid not in before]

    for pid in left():
        kill(pid, signal.SIGKILL)
    try:
        wait_for(lambda: not left(), 5)
    except AssertionError:
        pass


def kind(path):
    """The file type of a path itself, as in inode(7)."""
    return stat.S_IFMT(os.lstat(path).st_mode)
