"""Commands without descriptors, memory, processes, or room to write."""
import contextlib
import os
import resource
import subprocess

from sandbox import wait_until

COMMANDS = (
    ("overlay-boot", "{conf}"), ("overlay-boot", "{conf}"), ("overlay-boot", "--foreground", "{conf}"),
    ("overlay-boot", "--shell", "{conf}"), ("overlay-boot", "--check", "{conf}"), ("overlay-boot", "--all"),
    ("overlay-stop", "{conf}"), ("overlay-stop", "{name}"), ("overlay-stop", "--all"), ("overlay-go", "{name}", "true"),
    ("overlay-go", "{name}"), ("overlay-ls",), ("overlay-ls", "--json"), ("overlay-share", "{base}/shared:/other", "{name}"))
BEFORE = ("nothing", "nothing", "running", "hibernating", "dead")
LAYERS = [f"LAYER=layers/{number}" for number in range(17)]
PIDS = "pids"           # of cgroups(7), version 1: mounted for a round, which removes its group again


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
    round.run("overlay-boot", *(["--shell"] if before == "hibernating" else []), one.conf, typed=b"exit\n")
    if before == "dead":
        for process, name in round.strangers():
            if name == "keeper":
                os.kill(process, 9)
        round.note("the keeper was killed")


def starved(round, words, what, **how):
    """Run a command that may fail; a boot that fails must leave nothing, if nothing was there."""
    was_clear = not round.left()
    round.note(what)
    ended = round.run(*words, hit=True, typed=b"exit\n", **how)
    if was_clear and words[0] == "overlay-boot" and ended.status == 1 and "--shell" not in words:
        round.must_be_clear(f"{' '.join(words)} with {what.split(' = ')[0]}")


def descriptors(round, _one, words):
    most = round.random.randrange(3, 41)
    starved(round, words, f"RLIMIT_NOFILE = {most}", limits=[(resource.RLIMIT_NOFILE, most)])


def memory(round, _one, words):
    most = round.random.randrange(4 << 20, 48 << 20)
    starved(round, words, f"RLIMIT_AS = {most}", limits=[(resource.RLIMIT_AS, most)])


def size_of_files(round, _one, words):
    most = round.random.choice((0, 1, 10, 100, round.random.randrange(0, 8192)))
    starved(round, words, f"RLIMIT_FSIZE = {most}", limits=[(resource.RLIMIT_FSIZE, most)])


def processes(round, _one, words):
    """No more than so many processes."""
    place = f"{round.directory}/pids"
    os.makedirs(place, exist_ok=True)
    group = f"{place}/{os.path.basename(round.ground.directory)}"
    if subprocess.run(["mount", "-t", "cgroup", "-o", PIDS, PIDS, place], check=False, stderr=subprocess.DEVNULL).returncode:
        round.note("no controller of processes here")
        return
    try:
        os.mkdir(group)
        most = round.random.randrange(1, 9)
        write(f"{group}/pids.max", most)
        starved(round, words, f"processes = {most}", prepare=lambda: write(f"{group}/cgroup.procs", os.getpid()))
        wait_until(lambda: is_removed(group, place), "the group cannot be removed")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def is_removed(group, place):
    """Whether the group is gone, after what is left in it was moved out of it."""
    with contextlib.suppress(OSError):      # a process has just ended, or been born
        with open(f"{group}/cgroup.procs") as file:
            for process in file:
                write(f"{place}/cgroup.procs", process)
        os.rmdir(group)
        return True
    return False


def write(path, what):
    with open(path, "w") as file:
        file.write(str(what))


def room(round, _one, words):
    """Little room in /run, and few inodes."""
    used = os.statvfs("/run")
    pages, inodes = round.random.randrange(0, 4), round.random.choice((0, 1, 2, 3, 5, 8, 1000))
    size = max(1, used.f_blocks - used.f_bfree + pages) * used.f_frsize
    before = f"size={used.f_blocks * used.f_frsize},nr_inodes={used.f_files}"
    resize(f"size={size},nr_inodes={used.f_files - used.f_ffree + inodes}")
    try:
        starved(round, words, f"room in /run = {pages} pages, {inodes} inodes")
    finally:
        resize(before)


def resize(options):
    subprocess.run(["mount", "-o", f"remount,{options}", "/run"], check=True)
