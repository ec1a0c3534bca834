"""Commands without descriptors, memory, processes, or room to write."""
import contextlib
import os
import resource
import signal
import subprocess

from ground import Unplayable
from sandbox import GROUPS, wait_until

COMMANDS = (
    ("overlay-boot", "{conf}"), ("overlay-boot", "{conf}"), ("overlay-boot", "--foreground", "{conf}"),
    ("overlay-boot", "--shell", "{conf}"), ("overlay-boot", "--check", "{conf}"), ("overlay-boot", "--all"),
    ("overlay-stop", "{conf}"), ("overlay-stop", "{name}"), ("overlay-stop", "--all"), ("overlay-go", "{name}", "true"),
    ("overlay-go", "{name}"), ("overlay-ls",), ("overlay-ls", "--json"), ("overlay-share", "{base}/shared:/other", "{name}"),
    ("overlay-diff", "{name}"), ("overlay-log", "{name}"), ("overlay-follow", "{name}"), ("overlay-follow", "--all"),
    ("overlay-new", "{base}/new"), ("overlay-layers",))
BEFORE = ("nothing", "nothing", "running", "hibernating", "dead")
LAYERS = [f"LAYER=layers/{number}" for number in range(17)]
# What the subhost can be after these options though the command has failed: the shell has, or what waits for the boots.
GOES_ON = {"--shell": ("hibernating",), "--all": ("running", "booting")}
PIDS = "pids"           # of cgroups(7); that of version 1 is mounted for a command


def play(round):
    chance = round.random
    one = round.subhost()
    if chance.random() < 0.2:
        for line in LAYERS:
            os.makedirs(f"{one.base}/{line.partition('=')[2]}/etc")
        one.configure("START=none", *LAYERS)
        round.note(f"{one.name}: seventeen layers")
    with open(round.ground.list, "w") as file:
        file.write(f"{one.conf}\n")
    starve = chance.choice((descriptors, descriptors, memory, memory, size_of_files, processes, processes, room, room))
    arrange(round, one, chance.choice(BEFORE))
    for _ in range(chance.randrange(1, 4)):
        command = chance.choice(COMMANDS)
        starve(round, one, [word.format(conf=one.conf, name=one.name, base=one.base) for word in command])


def arrange(round, one, before):
    """Have the subhost be what it is to be before."""
    if before == "nothing":
        return
    if before == "hibernating" and "LOWER=root" in one.lines:       # which has no shell
        before = "running"
    ended = round.run("overlay-boot", *(["--shell"] if before == "hibernating" else []), one.conf, typed=b"exit\n")
    if not ended.is_done():
        round.fault(f"not done: {round.masked([str(ended)])}")
    if before == "dead":
        for process, name in round.strangers():
            if name == "keeper":
                round.send(process, signal.SIGKILL, "the keeper")


def starved(round, one, words, what, *, limits=(), context=contextlib.nullcontext):
    """Run a command that may fail, in a context that gives what prepares its process for that.

    A boot that fails must leave nothing, if nothing was there.
    """
    was_clear = not round.left()
    with context() as prepare:
        round.note(what)
        ended = round.run(*words, typed=b"exit\n", limits=limits, prepare=prepare)
    if not was_clear or words[0] != "overlay-boot" or not ended.status:
        return
    goes_on = GOES_ON.get(words[1], ())
    if goes_on and {state for state, _ in (round.listed() or {}).get(one.name, ())} & {*goes_on}:
        return
    round.must_be_clear(f"{' '.join(words)} with {what.split(' = ')[0]}")


def descriptors(round, one, words):
    most = round.random.randrange(0, 41)
    starved(round, one, words, f"RLIMIT_NOFILE = {most}", limits=[(resource.RLIMIT_NOFILE, most)])


def memory(round, one, words):
    most = round.random.randrange(1 << 20, 48 << 20)
    starved(round, one, words, f"RLIMIT_AS = {most}", limits=[(resource.RLIMIT_AS, most)])


def size_of_files(round, one, words):
    most = round.random.choice((0, 1, 10, 100, round.random.randrange(0, 8192)))
    starved(round, one, words, f"RLIMIT_FSIZE = {most}", limits=[(resource.RLIMIT_FSIZE, most)])


def processes(round, one, words):
    most = round.random.randrange(1, 9)
    starved(round, one, words, f"processes = {most}", context=lambda: few_processes(round, most))


@contextlib.contextmanager
def few_processes(round, most):
    """A group of no more than so many processes: what has a process be in it."""
    with controller_of_processes(round) as (hierarchy, others):
        group = f"{hierarchy}/few-{os.path.basename(round.ground.directory)}"
        os.mkdir(group)
        try:
            write(f"{group}/pids.max", most)
            yield lambda: write(f"{group}/cgroup.procs", os.getpid())
        finally:
            wait_until(lambda: is_removed(group, others), "the group cannot be removed")


@contextlib.contextmanager
def controller_of_processes(round):
    """Where a group can be that has it, and the group of all other processes."""
    with open(f"{GROUPS}/cgroup.subtree_control") as file:
        if PIDS in file.read().split():
            yield GROUPS, f"{GROUPS}/run"
            return
    place = f"{round.directory}/pids"
    os.makedirs(place, exist_ok=True)
    if subprocess.run(["mount", "-t", "cgroup", "-o", PIDS, PIDS, place], check=False, stderr=subprocess.DEVNULL).returncode:
        raise Unplayable("neither hierarchy of control groups has a controller of processes for us")
    try:
        yield place, place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def is_removed(group, others):
    """Whether the group is gone, after what is left in it was moved out of it."""
    with contextlib.suppress(OSError):      # a process has just ended, or been born
        with open(f"{group}/cgroup.procs") as file:
            for process in file:
                write(f"{others}/cgroup.procs", process)
        os.rmdir(group)
        return True
    return False


def write(path, what):
    with open(path, "w") as file:
        file.write(str(what))


def room(round, one, words):
    pages, inodes = round.random.randrange(0, 4), round.random.choice((0, 1, 2, 3, 5, 8, 1000))
    starved(round, one, words, f"room in /run = {pages} pages, {inodes} inodes",
            context=lambda: little_room(pages, inodes))


@contextlib.contextmanager
def little_room(pages, inodes):
    """No more than so much is free in /run."""
    used = os.statvfs("/run")
    size = max(1, used.f_blocks - used.f_bfree + pages) * used.f_frsize
    resize(f"size={size},nr_inodes={used.f_files - used.f_ffree + inodes}")
    try:
        yield
    finally:
        resize(f"size={used.f_blocks * used.f_frsize},nr_inodes={used.f_files}")


def resize(options):
    subprocess.run(["mount", "-o", f"remount,{options}", "/run"], check=True)
