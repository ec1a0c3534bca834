"""A program for sandbox.py, by which strace(1) kills a process, or fails a system call, anywhere in a command.

test_killed.py starts it in Sandboxes.
"""
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time

from limited import HANDED_DOWN
from machine import PYTHON
from sandbox import GROUPS, alive, difference, kill, mount, patiently, serve, snapshot, wait_until

NAME = "kx"
PATIENCE = 15       # seconds, for any command
PROGRAMS = "/usr/libexec/overlay-boot"
KEEPER = f"{PROGRAMS}/keeper"

# System calls

# What changes nothing but the process itself, or nothing at all.  All others are taken to change the sandbox.
PURE = set("""
access arch_prctl brk chdir clock_gettime clock_nanosleep close close_range dup dup2 dup3 epoll_create1 epoll_ctl epoll_wait exit
capget capset fgetxattr flistxattr getxattr lgetxattr listxattr llistxattr seccomp
exit_group faccessat faccessat2 fadvise64 fchdir fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getpgrp
getpid getppid getrandom getresgid getresuid getsid gettid getuid lseek lstat madvise mmap mprotect mremap munmap
newfstatat pidfd_open pipe pipe2 poll ppoll pread64 prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask
rt_sigreturn rt_sigtimedwait select sched_getaffinity set_robust_list set_tid_address sigaltstack socket stat statfs
statx sysinfo umask uname wait4 waitid
""".split())

# In which a process waits, and others may change something meanwhile.
WAITING_CALLS = set("clock_nanosleep epoll_wait futex poll ppoll rt_sigtimedwait select wait4 waitid".split())
# What ends with the process: who is killed after it leaves what one leaves who is killed before.
OWN = set("""
chroot fsconfig fsmount fsopen ioprio_set memfd_create personality prctl sched_setaffinity sched_setscheduler setfsgid setfsuid
setns setpriority setsid signalfd4 unshare
""".split())

# How a call may well fail.
ERRORS = {
    "chmod": "EPERM", "chown": "EPERM", "fchmod": "EPERM", "fchmodat": "EPERM", "fchown": "EPERM", "fchownat": "EPERM",
    "clone": "ENOMEM", "clone3": "ENOMEM EPERM EBUSY", "fork": "ENOMEM", "vfork": "ENOMEM", "execve": "ENOMEM EPERM",
    "fcntl": "ENOLCK", "flock": "ENOLCK ENOMEM",
    "fsconfig": "ENOMEM EPERM", "fsmount": "ENOMEM EPERM", "fsopen": "ENOMEM EPERM", "mount": "ENOMEM EPERM EBUSY",
    "mount_setattr": "ENOMEM EPERM", "move_mount": "ENOMEM EPERM EBUSY", "open_tree": "ENOMEM EPERM",
    "pivot_root": "EBUSY EPERM", "umount2": "EBUSY EPERM",
    "ioctl": "ENOMEM EPERM EIO", "sendto": "ENOMEM EPERM", "write": "ENOSPC ENOMEM EBUSY",
    "capset": "EPERM", "seccomp": "ENOMEM EPERM",
    "sethostname": "EPERM", "signalfd4": "ENOMEM", "socket": "ENOMEM",
    "kill": "EPERM", "pidfd_send_signal": "EPERM", "pidfd_open": "ENOMEM", "pipe2": "ENOMEM",
    "link": "ENOSPC EPERM", "linkat": "ENOSPC EPERM", "symlink": "ENOSPC EPERM", "symlinkat": "ENOSPC EPERM",
    "mkdir": "ENOSPC EPERM", "mkdirat": "ENOSPC EPERM", "mknod": "ENOSPC EPERM", "mknodat": "ENOSPC EPERM",
    "getdents64": "ENOMEM", "lstat": "ENOMEM", "newfstatat": "ENOMEM", "readlink": "ENOMEM", "readlinkat": "ENOMEM", "stat": "ENOMEM",
    "setxattr": "ENOSPC EPERM", "utimensat": "EPERM",
    "open": "ENOMEM ENOSPC", "openat": "ENOMEM ENOSPC", "openat2": "ENOMEM", "rename": "ENOSPC", "renameat2": "ENOSPC",
    "rmdir": "EBUSY", "unlink": "EBUSY", "unlinkat": "EBUSY",
    "setns": "ENOMEM EPERM", "unshare": "ENOSPC ENOMEM EPERM",
}

LOOKUPS = ("open", "openat", "openat2", "getdents64", "lstat", "newfstatat", "readlink", "readlinkat", "stat")
PYTHONS = r'["<](/usr/(?!libexec/overlay-boot/reaper)|/lib|/etc/ld|/dev/null)'      # what Python looks up for itself
# In the working directory the layer that hides is made, and looked at what it hides: one file is as good as another.
ALIKE = ("chmod", "chown", "fchmodat", "fchownat", "lchown", "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat",
         "setxattr", "utimensat")
HERE = r'\A(AT_FDCWD<[^>]*>, )?"[^/"][^"]*"'


class Call:
    """A system call of a trace: the count-th one of that name by its process."""

    LINE = re.compile(r"(?:(\d+) +)?([a-z0-9_]+)\((.*)")

    def __init__(self, line, counts, directory):
        process, self.name, rest = self.LINE.fullmatch(line).groups()
        self.rest = rest.replace(directory, "...")
        self.process = process or "0"
        key = (self.process, self.name)
        self.count = counts[key] = counts.get(key, 0) + 1
        self.executed = counts.get((self.process, "execve"), 0)     # how many programs, at that time

    def site(self):
        """Where in the program it is, as far as can be told: the call without what is another one each time.

        What a call gives back by its arguments, or a killed one does not, is no part of it either.
        """
        text = re.sub(r"( <unfinished| <detached|\) += ).*", "", self.rest)
        text = re.sub(r"\\x[0-9a-f]{2}", r"\\x#", text)          # a message of netlink(7)
        text = re.sub(r"(</memfd:.*?>.*?),.*", r"\1", text)       # process ids may be in it, as bytes
        text = re.sub(r"0x[0-9a-f]+|[0-9]+", "#", text)
        path = r'[^"]*"[^"]*"'
        kept = {"ioctl": r"[^,]*, [^,)]*", "pipe2": "", "clone": r"[^}]*", "clone3": r"[^}]*", "getdents64": "[^,]*", "lstat": path, "prctl": "[^,)]*",
                "newfstatat": path, "readlink": path, "readlinkat": path, "stat": path}.get(self.name, ".*")
        text = re.match(kept, text)[0]
        if self.name in ALIKE:
            text = re.sub(HERE, "HERE", text)
        return f"{self.name}({text})"

    def is_pure(self):
        if self.name in ("open", "openat", "openat2"):
            return not re.search(r"O_CREAT|O_TMPFILE|O_TRUNC", self.rest)
        if self.name == "fcntl":
            return not re.search(r"F_SETLKW?\b|F_OFD_SETLK", self.rest)
        if self.name == "ioctl":
            return bool(re.search(r"TCGETS|FIO|TIOCGWINSZ|SIOCGIF", self.rest))
        if self.name == "prctl":
            return self.rest.startswith("PR_GET_")
        return self.name in PURE

    def is_own(self):
        """Whether what it changes ends with the process."""
        if self.name == "openat":
            return "O_TMPFILE" in self.rest
        if self.name in ("fchmod", "fchown", "fsync", "write"):
            return bool(re.match(r"\d+<[^>]*>\(deleted\)", self.rest))
        return self.name in OWN

    def waits(self):
        if self.name == "read":
            return bool(re.match(r"\d+<(pipe|socket|anon_inode|/dev/)", self.rest))
        return self.name in WAITING_CALLS

    def can_fail(self, error):
        if error not in ERRORS.get(self.name, "").split():
            return False
        if self.name in LOOKUPS:        # Python's own are of no interest, nor is what is open already
            return (error == "ENOMEM" or not self.is_pure()) and not re.search(f"{PYTHONS}|AT_EMPTY_PATH", self.rest)
        if self.name == "fcntl":
            return not self.is_pure()
        if self.name == "ioctl":
            terminal = re.search(r"\bTCSETS|TIOC[GS]WINSZ", self.rest)
            return (error == "EIO") == bool(terminal) and not re.search("TCGETS|FIO", self.rest)
        if self.name == "write":
            to = re.match(r"\d+<([^>]*)>", self.rest)[1]
            is_control_file = to.startswith(GROUPS) or os.path.basename(to) in HANDED_DOWN
            kind = "EBUSY" if is_control_file else "ENOMEM" if to.startswith("pipe") else "ENOSPC"
            return error == kind and not to.endswith("/said") and not to.startswith("/dev/") and "cgroup.kill" not in to
        if self.name == "unlinkat" and "AT_REMOVEDIR" in self.rest:
            return GROUPS not in self.rest      # there it says that the directory is not empty
        return True


def calls(log, directory):
    """The calls of a trace, and with each the lines that strace adds to it: (call, [line, ...]).

    Without the first one, strace's own execve(2) of the command, which it does not count either.
    """
    counts, last, found = {}, {}, []
    with open(log, errors="replace") as file:
        for line in file.read().splitlines()[1:]:
            if Call.LINE.fullmatch(line):
                call = Call(line, counts, directory)
                last[call.process] = [line]
                found.append((call, last[call.process]))
            else:
                process = re.match(r"(\d+) |", line)[1] or "0"
                last.setdefault(process, []).append(line)
    return found


def aims(found, begin, injections, every):
    """What can be injected, from where begin is opened in the trace on: [aim, ...].

    strace counts calls by process, and injects wherever a process comes to the
    count: only the first one to come there can be meant.
    """
    calls = [call for call, _ in found]
    begun = next(at for at, call in enumerate(calls) if call.name.startswith("open") and begin in call.rest) if begin else 0
    first = {}
    for call in calls:
        first.setdefault((call.name, call.count), call)

    def can_be_meant(call):
        return first[call.name, call.count] is call

    chosen = {}
    for injection in injections:
        for call, where in injected(calls[begun:], injection, can_be_meant, every):
            chosen.setdefault((injection, where, call.name, call.count), {
                "call": call.name, "count": call.count, "injection": injection, "where": where,
                "site": call.site(), "process": call.process, "executed": call.executed})
    return list(chosen.values())


def injected(calls, injection, can_be_meant, every):
    """(call, where that is) for all that an injection is of interest for.

    A signal comes before what changes something, and after it.  From one change to the next all is the same, unless the
    process waits in between: but for every call, once is enough.
    """
    if not injection.startswith("SIG"):
        return [(call, f"in {call.site()}") for call in calls if can_be_meant(call) and call.can_fail(injection)]
    found = []
    changed = {}        # the last call of each process, if it changed anything
    after = {}          # where each process came from its last change
    for call in calls:
        process = call.process
        if changed.get(process):
            after[process] = (call, f"after {changed[process]}")
        changes = not call.is_pure() and (every or injection != "SIGKILL" or not call.is_own())
        changed[process] = call.site() if changes else ""
        if process in after and (every or call.waits() or changes and not can_be_meant(call)):
            found.append(after.pop(process))
        if changes:
            found.append((call, f"before {call.site()}"))
            after.pop(process, None)
    return [(call, where) for call, where in [*found, *after.values()] if can_be_meant(call)]


def hit(found, aim):
    """Where the injection has happened; None if it has not."""
    mark = {"SIGKILL": "+++ killed by SIGKILL", "SIGTERM": "--- SIGTERM"}.get(aim["injection"], "(INJECTED)")
    for call, lines in found:
        if (call.name, call.count) == (aim["call"], aim["count"]) and any(mark in line for line in lines):
            return call.site()
    return None


# The scenarios

MINIMAL = "BASE=.\nSTART=none\n"
BIND = MINIMAL + "LOWER=root\n"
IN_PLACE = BIND + "LIVE=root\n"
IMAGE = MINIMAL + "IMAGE= kx.img\n"
BY_DISKFILE = MINIMAL + "UPPER= !overlay-diskfile mnt/root kx.img\nWORK= mnt/work\n"
CABLED = MINIMAL + "CABLES= = =\n"
PUBLISHED = MINIMAL + "NAT= yes\nPUBLISH= 8080:80\n"
SHARING = MINIMAL + "SHARE= shared:/data\n"
WHOLE = """\
NAME= !./printed kx
BASE= !./printed .
START= /service
PREMOUNT= ./premount
POSTMOUNT= ./postmount
INIT= ./init
RAM_SIZE=8M
STOP_TIMEOUT=3
LOG=log
SHARE= shared:/data/shared
SHARE= shared/file:/data/file
"""
LAYERED = MINIMAL + "UPPER= tmpfs:4M\nLAYER= layer.tar.gz\n"
HIDING = MINIMAL + "LOWER= lower\nHIDE= secrets /srv/hidden /srv/later\n"
LIMITED = MINIMAL + "MEMORY_MAX= 256M\nPIDS_MAX= 300\n"
MAPPED = LAYERED + "USERNS= auto\nSHARE= shared:/data\n"
MAPPED_WHOLE = WHOLE + "USERNS= auto\nHIDE= /etc/shadow\n"
ENDING = MINIMAL + "INIT= echo exec /bin/true\n"        # a subhost that ends at once
DYING = MINIMAL + "PREMOUNT= ./die\n"                   # its boot is killed half-way
WAITING = MINIMAL + "PREMOUNT= ./wait\n"                # its boot stays half-way

SCRIPTS = {
    "printed": 'echo "$1"',
    "premount": 'overlay-premount "$@"',
    "postmount": 'overlay-postmount "$@"',
    "init": "overlay-init",
    "die": "setsid sleep 1000 & kill -KILL $PPID; sleep 1000",
    "killed": "setsid sleep 1000 & kill -KILL $$",
    "wait": "setsid sleep 1000 & : >waits; sleep 1000",
    "root/service": 'case $1 in start) sleep 1000 & echo $! >/run/service ;; stop) kill "$(cat /run/service)" ;; esac',
}


def hooked(variable, script):
    return f"{MINIMAL.replace('BASE=.', '') if variable == 'BASE' else MINIMAL}{variable}= {'!' * (variable == 'BASE')}./{script}\n"


class Scenario:
    """A command to be hit, and what is there before it runs."""

    def __init__(self, command, conf, *, before=None, hibernates=False, neighbour=False, keeper=False, execs=False,
                 terminal=False, varies=False, takes_long=False):
        self.command = command.split()
        self.conf = conf                # what the command finds
        self.before = before            # a configuration that was booted before
        self.hibernates = hibernates    # whether that was with a shell, which has ended
        self.neighbour = neighbour      # whether there is another subhost
        self.keeper = keeper            # whether the keeper is hit, not the command
        self.execs = execs              # whether to go on beyond execve(2)
        self.terminal = terminal
        self.takes_long = takes_long    # so that only who has hours tries it
        self.varies = varies            # whether it does what those before it do, and something else in between
        self.boots = self.command[0] == "overlay-boot"
        self.shell = "--shell" in self.command
        self.enters = self.command[0] in ("overlay-go", "overlay-share")
        # What is opened first that concerns the subhost; what is before it is Python's start.
        self.begin = "" if keeper else "kx.conf" if "kx.conf" in self.command else "/run/overlay-boot/kx"


TYPED = b"exit\n"       # on a terminal, for a shell
# What the terminals and bash make of that, with the line that greets whoever enters, before the command says anything.
SESSION = re.compile(rb"\A(?:exit\r\n)*(?:The services of [^\n]*\n)?(?:exit\r\n)*(?:\x1b\[\?2004h.*?\x1b\[\?2004l\r)?(?:exit\r\n)*", re.DOTALL)
BOOT_COMMAND = "overlay-boot kx.conf"
SHELL_COMMAND = "overlay-boot --shell kx.conf"
STOP_COMMAND = "overlay-stop kx.conf"
SCENARIOS = {
    "boot": Scenario(BOOT_COMMAND, MINIMAL),
    "boot-second": Scenario(BOOT_COMMAND, MINIMAL, neighbour=True),
    "boot-whole": Scenario(BOOT_COMMAND, WHOLE, neighbour=True),
    "boot-bind": Scenario(BOOT_COMMAND, BIND, neighbour=True),
    "boot-in-place": Scenario(BOOT_COMMAND, IN_PLACE, neighbour=True),
    "boot-layers": Scenario(BOOT_COMMAND, LAYERED),
    "boot-after-crash": Scenario(BOOT_COMMAND, MINIMAL, before=DYING, neighbour=True),
    "keeper": Scenario(BOOT_COMMAND, MINIMAL, keeper=True),
    "foreground": Scenario("overlay-boot --foreground kx.conf", ENDING, execs=True),
    "stop": Scenario(STOP_COMMAND, MINIMAL, before=MINIMAL),
    "stop-whole": Scenario(STOP_COMMAND, WHOLE, before=WHOLE, neighbour=True),
    "stop-after-crash": Scenario(STOP_COMMAND, MINIMAL, before=DYING),
    "stop-while-booting": Scenario(STOP_COMMAND, MINIMAL, before=WAITING),
    "boot-image": Scenario(BOOT_COMMAND, IMAGE),
    "boot-cables": Scenario(BOOT_COMMAND, CABLED, neighbour=True),
    "stop-cables": Scenario(STOP_COMMAND, CABLED, before=CABLED, neighbour=True),
    "diskfile": Scenario(BOOT_COMMAND, BY_DISKFILE),
    "boot-shell": Scenario(SHELL_COMMAND, MINIMAL, neighbour=True),
    "shell-terminal": Scenario(SHELL_COMMAND, MINIMAL, neighbour=True, terminal=True),
    "boot-hibernating": Scenario(BOOT_COMMAND, WHOLE, before=WHOLE, hibernates=True),
    "boot-shell-hibernating": Scenario(SHELL_COMMAND, LAYERED, before=LAYERED, hibernates=True),
    "foreground-hibernating": Scenario("overlay-boot --foreground kx.conf", ENDING, before=ENDING, hibernates=True, execs=True),
    "stop-hibernating": Scenario(STOP_COMMAND, WHOLE, before=WHOLE, hibernates=True, neighbour=True),
    "share": Scenario("overlay-share shared:/data kx", MINIMAL, before=MINIMAL, neighbour=True),
    "share-undo": Scenario("overlay-share --undo shared:/data kx", SHARING, before=SHARING, neighbour=True),
    "follow": Scenario("overlay-follow kx", MINIMAL, before=MINIMAL, neighbour=True),
    "go": Scenario("overlay-go kx true", MINIMAL, before=MINIMAL, neighbour=True),
    "go-terminal": Scenario("overlay-go kx true", MINIMAL, before=MINIMAL, neighbour=True, terminal=True),
    # What HIDE, USERNS and limits add.
    "boot-hiding": Scenario(BOOT_COMMAND, HIDING, varies=True),
    "boot-limited": Scenario(BOOT_COMMAND, LIMITED, neighbour=True, varies=True),
    "stop-limited": Scenario(STOP_COMMAND, LIMITED, before=LIMITED, neighbour=True, varies=True),
    "boot-published": Scenario(BOOT_COMMAND, PUBLISHED, varies=True, takes_long=True),
    "stop-published": Scenario(STOP_COMMAND, PUBLISHED, before=PUBLISHED, varies=True, takes_long=True),
    "boot-mapped": Scenario(BOOT_COMMAND, MAPPED, varies=True),
    "boot-mapped-whole": Scenario(BOOT_COMMAND, MAPPED_WHOLE, neighbour=True, varies=True),
    "keeper-mapped": Scenario(BOOT_COMMAND, MAPPED, keeper=True, varies=True),
    "stop-mapped-whole": Scenario(STOP_COMMAND, MAPPED_WHOLE, before=MAPPED_WHOLE, neighbour=True, varies=True),
    "share-mapped": Scenario("overlay-share shared:/other kx", MAPPED, before=MAPPED, varies=True),
    "go-mapped": Scenario("overlay-go kx /.reaper go", MAPPED, before=MAPPED, varies=True),
}


class Ended:
    """How a command has ended."""

    def __init__(self, words, status, said):
        self.command = words[0]
        self.status = status
        self.said = said

    def __str__(self):
        return f"{self.command}: exit status {self.status}, {self.said!r}"

    def is_failure(self):
        """Whether it failed as is right: with one line that is its own (or the keeper's, for one in the foreground),
        and more than a bare errno.  Before that, it may tell of an ifup that has failed.
        """
        line = re.fullmatch(f"(?:{self.command}: CABLES: ifup .+\n)?(?:{self.command}|clear): (.+)\n", self.said)
        return bool(self.status in (1, 126, 127) and line and line[1] not in map(os.strerror, range(1, 134)))

    def is_not_running(self):
        return (self.status, self.said) == (1, f"overlay-stop: {NAME} is not running\n")

    def is_running_already(self):
        return self.status == 1 and f"{NAME} is running already" in self.said


class Inside:
    """What runs in the sandbox.  The methods without underscore are called from outside."""

    def __init__(self, directory):
        self.directory = directory
        self.number = 0
        self.base = directory
        self.scenario = None
        self.neighbour = self.wrapped = False
        self.booting = None
        self.log, self.options = f"{directory}/trace", f"{directory}/options"
        self.keeper = shutil.copy(KEEPER, f"{directory}/keeper")
        self.bystander = subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sleep", "infinity"])
        os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8")
        wait_until(lambda: os.readlink(f"/proc/{self.bystander.pid}/exe").endswith("/sleep"), "no bystander")
        self.at_first = self.at_rest = snapshot(directory)

    # Called by tests

    def aims(self, name, children, injections, every):
        """What can be injected in a scenario, or in its child processes, found by a run of it without any injection."""
        self._arrange(SCENARIOS[name])
        ended = self._traced(children)
        if ended.status and not ended.is_not_running():
            raise RuntimeError(f"{name}, without any injection: {ended}")
        seen = calls(self.log, self.directory)
        wrong = self._recovered("stop", False)
        if wrong:
            raise RuntimeError(f"{name}, without any injection: {ended}: {wrong}")
        parent = seen[0][0].process
        return [{**aim, "children": children} for aim in aims(seen, self.scenario.begin, injections, every)
                if not children or aim["process"] != parent], []

    def inject(self, name, aim, recovery):
        """Inject, and recover: (where it happened or None, what is wrong)."""
        self._arrange(SCENARIOS[name])
        try:
            return self._injected(aim, recovery)
        except subprocess.TimeoutExpired as error:
            return None, [str(error)]

    def _injected(self, aim, recovery):
        ended = self._traced(aim["children"], aim)
        seen = calls(self.log, self.directory)
        wrong = self._judged(ended, aim)
        wrong += self._recovered(recovery, self._must_run(ended, aim))
        return hit(seen, aim), [*wrong, str(ended)] if wrong else []

    def kill_running(self, conf, victims, recovery):
        """Kill processes of a running subhost: [what is wrong]."""
        self._arrange(Scenario(STOP_COMMAND, conf, before=conf))
        init = json.loads(subprocess.check_output(["overlay-ls", "--json"]))[0]["pid"]
        with open(f"/proc/{init}/stat") as file:
            keeper = int(file.read().rpartition(")")[2].split()[1])
        chosen = {"keeper": [keeper], "init": [init], "both": [init, keeper], "all": [keeper, *self._members()]}
        for process in chosen[victims]:
            kill(process)
        if recovery == "none":
            if not patiently(lambda: snapshot(self.directory) == self.at_rest):
                return [[f"it has not cleared up by itself: {difference(self.at_rest, snapshot(self.directory))}"]]
            recovery = "stop"
        return [self._recovered(recovery, False)]

    def helpers(self, name):
        """The processes that the scenario's command begins, and that execute nothing: {the n-th child: number of its calls}."""
        self._arrange(SCENARIOS[name])
        ended, children = self._followed(0, 0, 0, "child")
        if ended.status:
            raise RuntimeError(f"{name}, without any signal: {ended}")
        return {number: calls for number, (calls, executed, _) in enumerate(children, 1) if not executed}, self._recovered("stop", True)

    def signal_helper(self, name, helper, number, whom, recovery):
        """Signal one, at a call of it, or its process group: [what is wrong]."""
        self._arrange(SCENARIOS[name])
        ended, children = self._followed(*helper, number, whom)
        if not any(hit for *_, hit in children):
            return [[f"there was no such call: {children}"]]
        why = "was killed" if whom == "child" else f"interrupted by signal {number}"
        is_right = (ended.status == 0 and whom == "child" or ended.is_failure() and why in ended.said
                    or whom == "group" and not self.scenario.boots and ended.status in (-number, 128 + number))
        wrong = [] if is_right else [str(ended)]
        if ended.status and self.scenario.boots:
            left = self._left()
            wrong += [f"the failed boot left: {left}"] if left else []
        return [wrong + self._recovered(recovery, ended.status == 0 or self.scenario.enters)]

    def _followed(self, child, call, number, whom):
        """Run the scenario's command by children.py: (how it has ended, [[calls, executed, hit], ...])."""
        words = (self.log, str(child), str(call), str(number), whom)
        ended = self._run(sys.executable, "-I", f"{self.directory}/program/children.py", *words,
                          *self._interpreted(*self.scenario.command))
        with open(self.log) as file:
            return ended, [[int(word) for word in line.split()] for line in file]

    def kill_everything(self, conf, delay, recovery):
        """Kill everything at once, so many seconds after a boot was begun: [what is wrong]."""
        self._arrange(Scenario(BOOT_COMMAND, conf))
        before = {process for process, _ in alive()}
        boot = self._begun(*BOOT_COMMAND.split())
        time.sleep(delay)
        for process, _ in alive():
            if process not in before:
                kill(process)
        boot.wait()
        return [self._recovered(recovery, False)]

    def kill_going(self, terminal):
        """Kill overlay-go while its command runs: [what is wrong]."""
        self._arrange(SCENARIOS["go"])
        ends = os.openpty() if terminal else (None, subprocess.DEVNULL)
        before = len(self._members())
        going = self._begun("overlay-go", NAME, "sleep", "1000", standard=ends[1])
        wait_until(lambda: len(self._members()) > before, "overlay-go has not begun")
        going.kill()
        going.wait()
        for end in ends if terminal else ():
            os.close(end)
        return [self._recovered("stop", True)]

    def kill_hook(self, variable):
        """Have a hook killed: [what is wrong]."""
        self._arrange(Scenario(BOOT_COMMAND, hooked(variable, "killed")))
        ended = self._run(*BOOT_COMMAND.split())
        wrong = [] if ended.is_failure() and variable in ended.said else [str(ended)]
        left = self._left()
        return [wrong + ([f"the failed boot left: {left}"] if left else [])]

    def kill_in_hook(self, variable, recovery):
        """Kill a boot while a hook runs: [what is wrong]."""
        self._arrange(Scenario(BOOT_COMMAND, hooked(variable, "wait")))
        boot = self._begun(*BOOT_COMMAND.split())
        wait_until(lambda: os.path.exists(f"{self.base}/waits"), "the boot has not come to its hook")
        boot.kill()
        boot.wait()
        self._write(f"{NAME}.conf", MINIMAL)
        return [self._recovered(recovery, False)]

    def _members(self):
        with open(f"{GROUPS}/overlay-boot/{NAME}/cgroup.procs") as file:
            return [int(line) for line in file]

    def _begun(self, *words, standard=subprocess.DEVNULL):
        return subprocess.Popen(words, cwd=self.base, stdin=standard, stdout=standard, stderr=standard)

    # The steps of a test

    def _arrange(self, scenario):
        """All as it is to be before the scenario's command runs, in a directory of its own."""
        self.scenario = scenario
        self._rest(scenario)
        for path in glob.glob("/var/log/overlay-boot/*"):
            os.unlink(path)
        if os.path.exists("/var/log/overlay-boot"):
            os.rmdir("/var/log/overlay-boot")
        shutil.rmtree("/var/cache/overlay-boot", ignore_errors=True)
        self.number += 1
        self.base = f"{self.directory}/{self.number}"
        for path in ("", "root/proc", "work", "live", "shared", "mnt"):
            os.makedirs(f"{self.base}/{path}")
        for name, text in SCRIPTS.items():
            self._write(name, f"#!/bin/sh\n{text}\n")
            os.chmod(f"{self.base}/{name}", 0o755)
        self._write("shared/file", "shared\n")
        for name, text in HANDED_DOWN.items():
            self._write(name, text)
        if "kx.img" in scenario.conf:
            self._image(f"{self.base}/kx.img")
        if "LAYER=" in scenario.conf:
            self._write_layer()
        if "LOWER= lower" in scenario.conf:
            self._write_lower()
        if scenario.before:
            self._write(f"{NAME}.conf", scenario.before)
            self._boot_before(scenario.before, SHELL_COMMAND if scenario.hibernates else BOOT_COMMAND)
        self._write(f"{NAME}.conf", scenario.conf)

    def _image(self, path):
        made = f"{self.directory}/made.img"
        if not os.path.exists(made):
            subprocess.run(["overlay-diskfile", "--create", "8M", made], check=True)
        subprocess.run(["cp", "--sparse=always", made, path], check=True)

    def _write_layer(self):
        """An archive with a layer of a few files, the last of which tells that all are there."""
        self._write("oxide.json", '{"v":"1","t":"layer"}')
        os.makedirs(f"{self.base}/layer/etc")
        for name in ("first", "second", "last"):
            self._write(f"layer/etc/{name}", name)
        subprocess.run(["tar", "-czf", "layer.tar.gz", "--sort=name", "--transform=s/^layer/root/", "oxide.json", "layer/etc/first",
                        "layer/etc/second", "layer/etc/last"], cwd=self.base, check=True)

    def _write_lower(self):
        """A root with something of each kind that is hidden."""
        for path in ("etc", "root", "home/user", "srv/hidden", "var/spool/cron/crontabs", "var/spool/mail"):
            os.makedirs(f"{self.base}/lower/{path}")
        os.chown(f"{self.base}/lower/var/spool/mail", 8, 8)
        os.symlink("spool/mail", f"{self.base}/lower/var/mail")
        self._write("lower/etc/shadow", "root:secret:::::::\n")

    def _boot_before(self, conf, command):
        if conf == WAITING:
            self.booting = self._begun(*BOOT_COMMAND.split())
            wait_until(lambda: os.path.exists(f"{self.base}/waits"), "the boot has not come to its hook")
            return
        ended = self._run(*self._interpreted(*command.split()))
        if ended.status != (-signal.SIGKILL if conf == DYING else 0):
            raise RuntimeError(f"cannot boot: {ended}")

    def _write(self, name, text):
        with open(f"{self.base}/{name}", "w") as file:
            file.write(text)

    def _rest(self, scenario):
        """With or without a neighbour, and with or without strace in the keeper's place."""
        if (self.neighbour, self.wrapped) == (scenario.neighbour, scenario.keeper):
            return
        if self.neighbour != scenario.neighbour:
            self._boot_or_stop_neighbour()
        if self.wrapped != scenario.keeper:
            self._wrap_or_unwrap_keeper()
        self.at_rest = snapshot(self.directory)
        if not self.neighbour and not self.wrapped and self.at_rest != self.at_first:
            raise RuntimeError(difference(self.at_first, self.at_rest))

    def _boot_or_stop_neighbour(self):
        self.neighbour = not self.neighbour
        self.base = f"{self.directory}/neighbour"
        if self.neighbour:
            for path in ("root", "work", "live"):
                os.makedirs(f"{self.base}/{path}", exist_ok=True)
            self._write("kxother.conf", MINIMAL + "LOG=log\n")
        ended = self._run("overlay-boot" if self.neighbour else "overlay-stop", "kxother.conf")
        if ended.status:
            raise RuntimeError(f"the neighbour: {ended}")

    def _wrap_or_unwrap_keeper(self):
        """A script in the keeper's place, that has it traced while there are options for that.

        -D: the process stays the boot's child, and keeps its locks.
        """
        self.wrapped = not self.wrapped
        if not self.wrapped:
            subprocess.run(["umount", KEEPER], check=True)
            return
        wrapper = f"{self.directory}/wrapper"
        with open(wrapper, "w") as file:
            file.write(f"#!/bin/sh\nread -r options 2>/dev/null <{self.options} || exec {self.keeper} \"$@\"\n"
                       f"exec strace -D $options {self.keeper} \"$@\"\n")
        os.chmod(wrapper, 0o755)
        mount("--bind", wrapper, KEEPER)

    def _traced(self, children, aim=None):
        """Run the scenario's command under strace, alone or with its children; no strace is left."""
        follow = ([] if not children else ["-f"] if self.scenario.keeper else ["-f", "-b", "execve"])
        inject = []
        if aim:
            what = "signal" if aim["injection"].startswith("SIG") else "error"
            inject = ["-e", f"trace=execve,{aim['call']}", "-e", f"inject={aim['call']}:{what}={aim['injection']}:when={aim['count']}"]
        options = [*follow, "-y", "-s", "200", "-o", self.log, *inject]
        if not self.scenario.keeper:
            command = self._interpreted(*self.scenario.command)
            return self._run("strace", *options, *command, terminal=self.scenario.terminal)
        with open(self.options, "w") as file:
            print(*options, file=file)
        ended = self._run(*self.scenario.command)
        os.unlink(self.options)
        wait_until(lambda: not [kill(process) for process, stat in alive()
                                if stat.startswith("(strace)")], "strace goes on")
        return ended

    def _interpreted(self, command, *words):
        """A command as what strace can leave: with controllers, if the scenario needs some, and this host has none."""
        with open(f"{GROUPS}/cgroup.controllers") as file:
            lacks = {*HANDED_DOWN["cgroup.controllers"].split()} - {*file.read().split()}
        limited = (f"{self.directory}/program/limited.py", self.base) if lacks and self.scenario.conf == LIMITED else ()
        return (*PYTHON, *limited, shutil.which(command), *words)

    def _run(self, *words, terminal=False):
        """Run a command to its end.  What it says on standard error is taken by a file: others may hold it open."""
        command = next(name for name in map(os.path.basename, words) if name.startswith("overlay-"))
        with open(f"{self.directory}/said", "w+b") as file:
            ends = os.openpty() if terminal else ()
            standard = (ends[1],) * 3 if terminal else (subprocess.DEVNULL, subprocess.DEVNULL, file)
            if terminal:
                os.write(ends[0], TYPED)
            process = subprocess.Popen(words, cwd=self.base, stdin=standard[0], stdout=standard[1], stderr=standard[2],
                                       start_new_session=terminal)
            try:
                status = process.wait(PATIENCE)
            finally:
                process.kill()
                said = shown(*ends) if ends else b""
            file.seek(0)
            said = SESSION.sub(b"", said) + file.read()
        return Ended([command], status, said.decode(errors="replace").replace("\r\n", "\n"))

    def _judged(self, ended, aim):
        """What is wrong with the way in which the command that was hit has ended."""
        injection = aim["injection"]
        if "Traceback" in ended.said:
            return ["a traceback"]
        if ended.status < 0:
            return [] if injection.startswith("SIG") else [f"died by signal {-ended.status}"]
        if ended.status == 0:
            early = self.scenario.keeper and aim["children"] and not aim["executed"] and injection == "SIGKILL"
            early &= aim["call"] != "exit_group"        # of who has made PID 1, and has told so
            return ["the boot said that PID 1 has been executed"] if early else self._kept_secret(ended, aim)
        if injection.startswith("SIG") and (self.scenario.enters or self.scenario.execs or self.scenario.shell) and not ended.said:
            return []           # passed on from what was killed in the subhost
        wrong = self._kept_secret(ended, aim) if ended.is_failure() else ["not one line that says what failed, and why"]
        if self.scenario.boots and not self.scenario.before and not self.scenario.execs and injection != "ENOLCK":
            left = self._left()
            wrong += [f"the failed boot left: {left}"] if left and not (self.scenario.shell and self._hibernates()) else []
        if self.scenario.boots and self.scenario.hibernates and not self._hibernates():
            wrong.append("the failed boot has ended the hibernation")
        return wrong

    def _kept_secret(self, ended, aim):
        """What a stop has left, without a word of that; but for an empty directory, which the next command removes."""
        if self.scenario.command[0] != "overlay-stop" or ended.status and not ended.is_not_running() or aim["call"] == "rmdir":
            return []
        left = self._left()
        return [f"the stop does not say that it has left: {left}"] if left else []

    def _hibernates(self):
        listed = json.loads(subprocess.check_output(["overlay-ls", "--json"]))
        return [row["state"] for row in listed if row["name"] == NAME] == ["hibernating"]

    def _must_run(self, ended, aim):
        """Whether the subhost has to be running after that."""
        if self.scenario.keeper and aim["children"] and aim["executed"]:
            return False        # PID 1 itself was hit
        booted = self.scenario.boots and ended.status == 0
        return self.scenario.enters or booted and not aim["injection"].startswith("SIG")

    def _recovered(self, recovery, must_run):
        """What is wrong after an overlay-stop, or an overlay-boot and an overlay-stop."""
        wrong = []
        if recovery == "boot":
            wrong += self._booted_again()
        ended = self._run(*STOP_COMMAND.split())
        may_not_run = self.scenario.conf == ENDING or recovery == "stop" and not must_run
        if (ended.status or ended.said) and not (may_not_run and ended.is_not_running()):
            wrong.append(f"then {ended}")
        left = self._left()
        if left:
            wrong.append(f"then left: {left}")
        wrong += [f"half a layer: {path}" for path in glob.glob("/var/cache/overlay-boot/layers/*")
                  if not path.endswith(".part") and not os.path.exists(f"{path}/etc/last")]
        if self.booting and not wrong:
            self.booting.wait(PATIENCE)
        self.booting = None
        return wrong

    def _left(self):
        """What is different from the sandbox at rest.

        A keeper that was about to clear up after PID 1 may still be there to
        see that there is nothing to clear up any more.
        """
        found = set()

        def is_settled():
            nonlocal found
            found = snapshot(self.directory)
            return found == self.at_rest or not all(line.endswith(" (clear)") for line in found ^ self.at_rest)

        patiently(is_settled)
        return difference(self.at_rest, found)

    def _booted_again(self):
        ended = self._run(*self._interpreted(*BOOT_COMMAND.split()))
        if self.booting and ended.status == 1 and "is being booted already" in ended.said:
            return []
        if ended.status and not ended.is_running_already():
            return [f"then {ended}"]
        if self.scenario.conf == ENDING:
            return []
        wrong = [f"then {path} is not what it should be" for path in self._incomplete_files()]
        ended = self._run("overlay-go", NAME, "/.reaper", "go")     # a command that every subhost has
        return [*wrong, f"then {ended}"] if ended.status else wrong

    def _incomplete_files(self):
        """Files that boots have put into the subhost, and that a killed one has left half-written."""
        with open(f"{PROGRAMS}/reaper", "rb") as file:
            reaper = file.read()
        for path, expected in ((".reaper", reaper), ("etc/hostname", NAME.encode()), ("etc/network/interfaces", b"lo")):
            try:
                with open(f"{self.base}/root/{path}", "rb") as file:
                    if expected not in file.read():
                        yield path
            except FileNotFoundError:
                pass


def shown(user, tty):
    """What a terminal has shown, of which all has arrived when nobody has it open any more; it is closed."""
    os.close(tty)
    said = b""
    while select.select([user], [], [], 0.2)[0]:
        try:
            said += os.read(user, 1 << 16)
        except OSError:         # EIO
            break
    os.close(user)
    return said


if __name__ == "__main__":
    sys.exit(serve(Inside, sys.argv[1]))
