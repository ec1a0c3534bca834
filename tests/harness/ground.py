"""What a round stands on, inside a sandbox: its subhosts, its commands, and what must hold after each of them.

A command that fails says so in one line of its own, in no traceback, and dies of no signal but one that the round has
sent.  A command ends.  overlay-ls lists what runs.  When all subhosts of the round have been stopped, nothing is left of
them: sandbox.snapshot() is what it was.
"""
import fcntl
import glob
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time

import injection
from sandbox import GROUPS, alive, difference, kill, mount, patiently, snapshot, wait_until

LIMIT = 45              # seconds, for any command: a stop may kill, wait for a keeper, and kill again
FOREGROUND = 0.2        # seconds, for what happens there
LONGEST = 1 << 20       # bytes, of what is said on standard error
LIST = "/etc/subhosts.conf"
SITE_WIDE = "/etc/overlay-boot"
WRITABLE = ("/proc", "/sys", "/dev", "/run", "/var/log", "/var/cache")
ERRNOS = {os.strerror(number) for number in range(1, 134)}
# What a boot says of a configuration file, and goes on.
WARNING = re.compile(r"\.conf: (the byte order mark|line \d+ is ignored|line \d+: no comment)|: CABLES: ifup ")


class Ground:
    """Serves rounds, one after the other: what it was at rest must be there after each."""

    def __init__(self, directory):
        self.directory = directory
        os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8")
        self.list = f"{directory}/subhosts.conf"
        with open(self.list, "w"):
            pass
        if os.path.exists(LIST):
            mount("--bind", self.list, LIST)
        self.site_wide = f"{directory}/site-wide"
        os.mkdir(self.site_wide)
        if os.path.exists(SITE_WIDE):
            mount("--bind", self.site_wide, SITE_WIDE)
        self.pace = 0.05        # seconds that a command takes here, about
        self.protect()
        self.bystander = subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sleep", "infinity"])
        wait_until(lambda: os.readlink(f"/proc/{self.bystander.pid}/exe").endswith("/sleep"), "no bystander")
        self.at_rest = snapshot(directory)

    def protect(self):
        """Have nothing of the machine written to, whatever a configuration says."""
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            mounts = [line.split()[0:5:4] for line in file]
        for number, place in mounts:
            place = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), place)
            if place in (LIST, SITE_WIDE) or any(place == one or place.startswith(f"{one}/") for one in (self.directory, *WRITABLE)):
                continue
            if mounted_at(place) == number:         # else it is covered
                subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)

    def round(self, kind, seed, number):
        """Play a round: (how many commands it took, why it could not be played or "", all that was done, what was wrong).

        What was wrong is a list of texts, in each of which the first line says it, and the others what was done.
        """
        for path in ("/var/log/overlay-boot", "/var/cache/overlay-boot"):
            shutil.rmtree(path, ignore_errors=True)
        with open(self.list, "w"):
            pass
        for name in os.listdir(self.site_wide):
            os.unlink(f"{self.site_wide}/{name}")
        played, unplayable = Round(self, f"{kind} {seed} {number}"), ""
        try:
            importlib.import_module(kind).play(played)
        except Unplayable as why:
            unplayable = str(why)
        played.end()
        return played.commands, unplayable, played.history, played.wrong


def mounted_at(path):
    """The number that mountinfo has for the mount that a path leads to."""
    fd = os.open(path, os.O_PATH)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return re.search(r"mnt_id:\s*(\d+)", file.read())[1]
    finally:
        os.close(fd)


class Unplayable(Exception):
    """Why a round cannot be played on this machine."""


class Ended:
    """How a command has ended; its status is None if it had to be killed."""

    def __init__(self, words, status, said, terminal):
        self.words, self.status, self.said, self.terminal = words, status, said, terminal
        self.command = os.path.basename(words[0])

    def __str__(self):
        return f"{' '.join(self.words)}: exit status {self.status}, {self.said[-2000:]!r}"

    def is_done(self):
        return (self.status, self.said) == (0, "")

    def is_not_running(self, name):
        return (self.status, self.said) == (1, f"overlay-stop: {name} is not running\n")

    def own_lines(self):
        return [line for line in self.said.splitlines() if line.startswith((f"{self.command}: ", "clear: "))]

    def faults(self, signals):
        """What is wrong with that, if these signals may have hit it."""
        if self.status is None:
            return [f"has not ended within {LIMIT} s"]
        if "Traceback" in self.said or "Fatal Python" in self.said or "Exception ignored" in self.said:
            places = re.findall(r'/(\S+)", line \d+, in (\S+)', self.said)
            return [f"a traceback: {self.said.strip().splitlines()[-1]}, in {' '.join(places[-1]) if places else '?'}"]
        if self.status < 0:
            # It has found no more yet than what is odd in the configuration.
            begins = all(" is ignored: " in line for line in self.said.splitlines())
            by_us = -self.status in signals and (self.terminal or begins or "--all" in self.words)
            return [] if by_us else [f"died by signal {-self.status}"]
        passes_on = self.command == "overlay-go" or {"--foreground", "--shell"} & {*self.words}
        ours = self.own_lines()
        others = [line for line in self.said.splitlines() if line not in ours]
        wrong = [] if self.terminal or passes_on or not others else [f"a line that is not its own: {others[0]}"]
        ours = [line for line in ours if not WARNING.search(line)]
        if self.status and len(ours) > 1 and not {"--all", "--check", "--shell"} & {*self.words}:
            wrong.append(f"{len(ours)} lines: {' / '.join(ours)}")
        interrupted = signal.SIGINT in signals and self.status == 128 + signal.SIGINT
        if self.status and not ours and not passes_on and not interrupted:
            wrong.append("fails without a word")
        if any(line.partition(": ")[2] in ERRNOS for line in ours):
            wrong.append(f"a bare errno: {ours[0]}")
        left = self.status == 3 and self.command == "overlay-follow"        # something is left to the administrator
        if self.status not in (0, 1, 2) and not left and not passes_on and not interrupted:
            wrong.append(f"exit status {self.status}")
        return wrong


class Begun:
    """A command under way.

    What it says on standard error is read from a pipe when it has ended, not to the end of the pipe: others may hold it
    open.  No file: RLIMIT_FSIZE would hold for it.  On a terminal, it is what has been shown.
    """

    def __init__(self, directory, words, *, typed=b"", limits=(), prepare=None, terminal=False, output=subprocess.DEVNULL):
        self.words, self.limits, self.prepare, self.terminal = words, limits, prepare, terminal
        self.began = time.monotonic()
        if terminal:
            self.said, tty = os.openpty()
            os.set_blocking(self.said, False)
            os.write(self.said, typed)
            standard, words = (tty,) * 3, ("setsid", "--ctty", *words)
        else:
            self.said, said = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.said, False)
            fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, LONGEST)
            standard = os.memfd_create("typed"), output, said
            os.pwrite(standard[0], typed, 0)
        try:
            self.process = subprocess.Popen(words, cwd=directory, stdin=standard[0], stdout=standard[1], stderr=standard[2],
                                            start_new_session=not terminal, preexec_fn=self.limit if limits or prepare else None)  # noqa: PLW1509
        finally:
            for end in {standard[0], standard[2]}:
                os.close(end)

    def limit(self):
        """Starve this process, as the command is to be."""
        if self.prepare:
            self.prepare()
        for which, value in self.limits:
            resource.setrlimit(which, (value, value))

    def ended(self):
        """Wait for its end."""
        try:
            status = self.process.wait(max(0, self.began + LIMIT - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = None
            self.process.kill()
            self.process.wait()
        said = b""
        try:
            while more := os.read(self.said, LONGEST):
                said += more
        except OSError:         # nothing more; from a terminal that nobody has open EIO
            pass
        os.close(self.said)
        text = said.decode(errors="surrogateescape")
        return Ended(self.words, status, text.replace("\r\n", "\n"), self.terminal)


class Subhost:
    """A directory with a configuration, and all that one can name."""

    def __init__(self, base, name):
        self.base, self.name, self.lines = base, name, ()
        self.conf = f"{base}/{name}.conf"
        for path in ("", "root/proc", "work", "live", "shared", "mnt", "layer/etc"):
            os.makedirs(f"{base}/{path}", exist_ok=True)
        for script, text in injection.SCRIPTS.items():
            self.write(script, f"#!/bin/sh\n{text}\n", 0o755)
        self.write("shared/file", "shared\n")
        self.write("layer/etc/last", "last")

    def write(self, path, text, mode=0o644):
        with open(f"{self.base}/{path}", "w", errors="surrogateescape") as file:
            file.write(text)
        os.chmod(f"{self.base}/{path}", mode)

    def configure(self, *lines):
        self.lines = lines
        self.write(f"{self.name}.conf", "".join(f"{line}\n" for line in ("BASE=.", *lines)))
        return self

    def archive(self):
        """An archive of the layer."""
        self.write("oxide.json", '{"v":"1","t":"layer"}')
        subprocess.run(["tar", "-czf", "layer.tar.gz", "--sort=name", "--transform=s/^layer/root/", "oxide.json", "layer"],
                       cwd=self.base, check=True)


# Configurations that boot, each with a part of what there is.
PLAIN = (("START=none",), ("START=none", "LOWER=root"), ("START=none", "LOWER=root", "LIVE=root"))
PARTS = (
    ("START=/service", "STOP_TIMEOUT=1"), ("CABLES== =",), ("CABLES==", "ADDRESS=auto"), ("CABLES==", "ADDRESS=auto", "NAT=yes", "PUBLISH={port}"), ("USERNS=auto",), ("FOLLOW=packages",), ("SHARE=shared:/data/shared", "SHARE=shared/file:/data/file"),
    ("UPPER=tmpfs:4M",), ("LAYER=layer",), ("LAYER=layer.tar.gz",), ("HIDE=secrets /srv",), ("PREMOUNT=./premount", "POSTMOUNT=./postmount"),
    ("INIT=./init",), ("LOG=log",), ("NAME=!{base}/printed {name}",), ("RAM_SIZE=1M",), ("SHM_SIZE=1M", "DEVICES=/dev/loop-control"))


class Round:
    """The commands of a round, what they did, and what was wrong."""

    def __init__(self, ground, seed):
        self.ground = ground
        self.seed = seed
        self.random = random.Random(seed)
        self.directory = tempfile.mkdtemp(prefix="r", dir=ground.directory)
        os.chmod(self.directory, 0o755)         # root of a user namespace comes to what is shared
        self.subhosts, self.history, self.wrong = [], [], []
        self.sent = []          # (when, number) of signals
        self.commands = 0
        self.began = time.monotonic()

    def subhost(self, *lines, plain=0.3):
        """A subhost with this configuration, or one with some parts, or, so often, one with little."""
        one = Subhost(f"{self.directory}/{len(self.subhosts)}", f"kx{len(self.subhosts)}n")
        self.subhosts.append(one)
        if not lines:
            lines = self.random.choice(PLAIN) if self.random.random() < plain else self.parts(one)
        self.note(f"{one.name}: {' | '.join(lines)}")
        return one.configure(*lines)

    def parts(self, one):
        chosen = {}
        for part in self.random.sample(PARTS, self.random.randrange(1, 6)):
            for line in part:
                variable = line.partition("=")[0]
                if variable == "LAYER" and "tar" in line:
                    one.archive()
                if variable == "SHARE" or variable not in chosen:
                    chosen.setdefault(variable, []).append(line.format(name=one.name, base=one.base, port=8000 + int(one.name[2:-1])))
        if "START" in chosen:
            chosen.pop("UPPER", None)           # the service is in root
        chosen.setdefault("START", ["START=none"])
        return [line for lines in chosen.values() for line in lines]

    def note(self, text):
        text = re.sub(r"(\\n|\\x00|.)\1{49,}", r"\1[...]", text)
        self.history.append(f"{time.monotonic() - self.began:8.4f} {text}")

    def fault(self, what):
        self.note(f"WRONG: {what}")
        self.wrong.append("\n".join([what, *self.history]))

    def begin(self, *words, **how):
        self.commands += 1
        return Begun(self.directory, words, **how)

    def judged(self, begun):
        """The end of a command, which must be as it should."""
        ended = begun.ended()
        if ended.status == 0:
            self.ground.pace += (min(time.monotonic() - begun.began, 0.5) - self.ground.pace) / 10
        self.note(f"ended: {ended}")
        faults = ended.faults({number for at, number in self.sent if at >= begun.began})
        for fault in faults:
            self.fault(self.masked([*ended.words[:-1], f"{ended.words[-1]}: {fault}"]))
        return ended

    def run(self, *words, **how):
        self.note(" ".join(words))
        begun = self.begin(*words, **how)
        if "--foreground" in words:
            self.terminate(begun)
        return self.judged(begun)

    def terminate(self, begun):
        """Have what stays in the foreground end, if it does not by itself."""
        for _ in range(3):
            try:
                begun.process.wait(FOREGROUND)
            except subprocess.TimeoutExpired:
                self.send(begun.process.pid, signal.SIGTERM, "the command, to end it")

    def send(self, process, number, whom):
        """A signal to a process that may have ended."""
        self.note(f"{signal.Signals(number).name} to {whom}")
        self.sent.append((time.monotonic(), number))
        try:
            os.kill(process, number)
        except ProcessLookupError:
            pass

    def listed(self):
        """Run overlay-ls, which must succeed: {name: [(state, process id of PID 1), ...]}; None if it fails."""
        with open(os.memfd_create("listed"), "w+b") as output:
            self.note("overlay-ls --json")
            ended = self.judged(self.begin("overlay-ls", "--json", output=output))
            output.seek(0)
            said = output.read()
        if not ended.is_done():
            self.fault(self.masked([f"not done: {ended}"]))
            return None
        found = {}
        for row in json.loads(said):
            found.setdefault(row["name"], []).append((row["state"], row["pid"]))
        return found

    def must_be_listed(self, spoiled=""):
        """What runs must be listed as that; the subhost whose record is spoiled can be listed as unreadable."""
        for last in (False, True):
            runs, listed = self.running(), self.listed()
            if listed is None:
                return
            wrong = [f"{name}, PID 1 of which is {process}, is listed as {listed.get(name)}" for name, process in runs.items()
                     if listed.get(name) != [("running", process)]
                     and not (name == spoiled and listed.get(name) == [("unreadable", None)])]
            if not wrong or self.running() != runs:
                return
            if last:
                self.fault(f"overlay-ls: {self.masked(wrong)}")
            time.sleep(0.1)         # it may be about to end

    def masked(self, words):
        return re.sub(r"kx\d+n", "NAME", " ".join(words)).replace(self.directory, "...")

    # Processes

    def strangers(self):
        """(process id, name) of what was not there at rest, and is not ours."""
        rest, own = self.ground.at_rest, {os.getpid(), self.ground.bystander.pid}
        found = []
        for process, stat in alive():
            name = stat.rpartition(")")[0][1:]
            if process not in own and f"process {process} ({name})" not in rest:
                found.append((process, name))
        return found

    def running(self):
        """{name: process id of PID 1} of the subhosts whose PID 1 is the reaper by now, by the control groups."""
        found = {}
        for process, name in self.strangers():
            if name == ".reaper":
                try:
                    os.readlink(f"/proc/{process}/exe")         # one that is killed has none, while it waits for others
                    with open(f"/proc/{process}/status") as status, open(f"/proc/{process}/cgroup") as groups:
                        is_first = re.search(r"^NSpid:.*\t1$", status.read(), re.MULTILINE)
                        group = re.search(r"^0::/overlay-boot/(\w+)$", groups.read(), re.MULTILINE)
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if is_first and group:
                    found[group[1]] = process
        return found

    def left(self):
        """What is different from the sandbox at rest; a keeper may just be about to see that there is nothing to clear."""
        def only_clears():
            return all(line.endswith((" (clear)", " (keeper)")) for line in snapshot(self.ground.directory) ^ self.ground.at_rest)

        if only_clears():
            patiently(lambda: snapshot(self.ground.directory) == self.ground.at_rest)
        return difference(self.ground.at_rest, snapshot(self.ground.directory))

    def must_be_clear(self, after):
        left = self.left()
        if left:
            self.fault(f"left after {self.masked([after])}: {self.masked([left])}")
        return left

    def end(self):
        """Stop all, and look: what is left."""
        for process, _ in self.strangers():
            try:
                os.kill(process, signal.SIGCONT)
            except ProcessLookupError:
                pass
        for one in self.subhosts:
            ended = self.run("overlay-stop", one.conf)
            if ended.status and not ended.is_not_running(one.name):
                self.fault(f"in the end: {self.masked([str(ended)])}")
        ended = self.run("overlay-stop", "--all")
        if not ended.is_done():
            self.fault(f"in the end: {self.masked([str(ended)])}")
        left = self.must_be_clear("all stops")
        for one in self.subhosts:
            parts = glob.glob(f"{one.base}/root/.*.overlay-boot")
            if parts:
                self.fault(f"in UPPER: {self.masked(parts)}")
        for path in glob.glob("/var/cache/overlay-boot/layers/*"):
            if not path.endswith(".part") and not os.path.exists(f"{path}/etc/last"):
                self.fault("half a layer in the cache")
        if left:
            for process, _ in self.strangers():
                kill(process)
        shutil.rmtree(self.directory, ignore_errors=True)


def control_group(path):
    return f"{GROUPS}/overlay-boot/{path}"
