"""Start processes, time them, wait for them, and read what /proc tells of them."""

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import time

# The same for every contestant: what a root shell has, and nothing of the caller's.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
TIMEOUT = 60  # seconds, for what takes milliseconds


class Failed(Exception):
    """Something could not be measured; the text is the reason."""


def now():
    """Return the milliseconds of a clock that only goes forward."""
    return time.perf_counter_ns() / 1e6


def find_program(name):
    """Return the path of a program in ENVIRONMENT's PATH. Raise Failed if there is none."""
    path = shutil.which(name, path=ENVIRONMENT["PATH"])
    if path is None:
        raise Failed(f"{name} is not installed")
    return path


def run(argv, log, stdin=os.devnull):
    """Run a command; return the milliseconds from just before its fork until its exit was seen.

    Raise Failed, with the last line that it has written to the log, if its status is not 0.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        # Appended to: ext4 starts a write to the disk when a file that was truncated is closed.
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    signal.signal(signal.SIGALRM, _raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    start = now()
    # A session of its own: Ctrl-C is for the benchmark, which then stops what runs in an orderly way.
    pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions, setsid=True)
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED)
        elapsed = now() - start
    except BaseException:
        _wait_or_kill(pid)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if ended.si_code != os.CLD_EXITED or ended.si_status:
        raise Failed(f"{shlex.join(argv)}: status {ended.si_status}: {_last_line(log)}")
    return elapsed


def _raise_timeout(_signal, _frame):
    raise Failed(f"no end after {TIMEOUT} s")


def _wait_or_kill(pid):
    """Give a command that was interrupted with us five seconds to come to its own end."""
    with os.fdopen(os.pidfd_open(pid)) as pidfd:
        if not select.select([pidfd], [], [], 5)[0]:
            os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED)


def _last_line(log):
    with open(log, encoding="utf-8", errors="replace") as file:
        return (file.read().rstrip().splitlines() or ["no message"])[-1]


def wait_until(condition, what):
    """Call condition() every half millisecond until it gives something true, and return that."""
    deadline = time.monotonic() + TIMEOUT
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not so after {TIMEOUT} s")
        time.sleep(0.0005)
    return answer


def run_json(argv):
    """Run a command and return what it prints, which is JSON."""
    done = subprocess.run(argv, env=ENVIRONMENT, stdout=subprocess.PIPE, check=False, timeout=TIMEOUT)
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise Failed(f"{shlex.join(argv)}: status {done.returncode}, no JSON") from error


def _read(pid, name):
    """Return the content of /proc/PID/NAME, nothing if the process is gone."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def arguments(pid):
    return _read(pid, "cmdline").decode(errors="replace").split("\0")[:-1]


def parent(pid):
    """Return the parent's PID, 0 if the process is gone."""
    return int((_read(pid, "stat").rpartition(b")")[2].split() or [b"", b"0"])[1])


def children(pid):
    return [int(child) for child in _read(pid, f"task/{pid}/children").split()]


def tree(pid):
    """Return the PIDs of a process and of all its descendants."""
    return [pid, *(member for child in children(pid) for member in tree(child))]


def with_argument(text):
    """Return the PIDs of the processes with an argument that contains the text."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if any(text in argument for argument in arguments(pid))]


def private_dirty(pids):
    """Return the KiB of memory that the processes share with nobody, and that no file can give back."""
    total = 0
    for pid in pids:
        for line in _read(pid, "smaps_rollup").splitlines():
            if line.startswith(b"Private_Dirty:"):
                total += int(line.split()[1])
    return total
