"""Signals to any process, at any moment of boots, stops and all that can be done meanwhile, of several subhosts at once."""
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

NUMBERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMMANDS = (
    ("overlay-boot", "{conf}"), ("overlay-boot", "{conf}"), ("overlay-boot", "{conf}"), ("overlay-boot", "{conf}"),
    ("overlay-boot", "--foreground", "{conf}"), ("overlay-boot", "--foreground", "{conf}"),
    ("overlay-boot", "--shell", "{conf}"), ("overlay-boot", "--shell", "{conf}"), ("overlay-boot", "--all"),
    ("overlay-stop", "{conf}"), ("overlay-stop", "{conf}"), ("overlay-stop", "{name}"), ("overlay-stop", "--all"),
    ("overlay-go", "{name}", "true"), ("overlay-go", "{name}", "sleep", "1000"), ("overlay-go", "{name}"), ("overlay-ls",),
    ("overlay-ls", "--json"), ("overlay-boot", "--check", "{conf}"), ("overlay-share", "{base}/shared:/other", "{name}"),
    ("overlay-share", "--undo", "/other", "{name}"), ("overlay-follow", "{name}"), ("overlay-follow", "--all"),
    ("overlay-diff", "{name}"), ("overlay-log", "{name}"), ("overlay-new", "{base}/new"))
VICTIMS = ("command", "command", "command", "group", "keeper", "init", "clear", "any")
LASTING = (("overlay-boot", "--foreground"), ("overlay-go", "{name}", "sleep"))
ON_TERMINAL = 0.2       # how often a command is on a terminal
STOPPED = 0.02          # how often a keeper is stopped, which makes commands wait


def play(round):
    subhosts = [round.subhost() for _ in range(round.random.choice((1, 1, 2, 3)))]
    with open(round.ground.list, "w") as file:
        file.writelines(f"{one.conf}\n" for one in subhosts if round.random.random() < 0.8)
    randoms = [random.Random(f"{round.seed} {number}") for number in range(len(subhosts))]
    with ThreadPoolExecutor(len(subhosts)) as threads:
        list(threads.map(act, [round] * len(subhosts), subhosts, randoms))
    round.must_be_listed()


def act(round, one, chance):
    """Some commands for a subhost, most of them hit."""
    for number in range(chance.randrange(2, 8)):
        command = COMMANDS[0] if not number else chance.choice(COMMANDS)
        words = [word.format(conf=one.conf, name=one.name, base=one.base) for word in command]
        stopped = keepers(round) if chance.random() < STOPPED else []
        for process in stopped:
            round.send(process, signal.SIGSTOP, "the keeper")
        round.note(" ".join(words))
        begun = round.begin(*words, typed=chance.choice((b"", b"exit\n", b"sleep 0.02\n", b"sleep 1000\n")),
                            terminal=chance.random() < ON_TERMINAL)
        for again in range(chance.choice((0, 1, 1, 1, 2, 3))):
            most = 0.005 if again and chance.random() < 0.5 else 1.5 * round.ground.pace
            time.sleep(chance.uniform(0, most))
            hit(round, begun, chance)
        if command[:2] in LASTING or command[:3] in LASTING or words[0] == "overlay-go" or "--shell" in words:
            finish(round, begun, chance)
        round.judged(begun)
        for process in stopped:
            round.send(process, signal.SIGCONT, "the keeper")


def hit(round, begun, chance):
    """A signal to somebody."""
    victim, number = chance.choice(VICTIMS), chance.choice(NUMBERS)
    if victim == "command":
        round.send(begun.process.pid, number, "the command")
    elif victim == "group":
        round.send(-begun.process.pid, number, "its process group")
    else:
        named = {"keeper": "keeper", "init": ".reaper", "clear": "clear"}.get(victim)
        found = [(process, name) for process, name in round.strangers() if named in (None, name)]
        if found:
            process, name = chance.choice(found)
            round.send(process, number, f"({name})")


def finish(round, begun, chance):
    """End what does not end by itself, as one who loses patience would."""
    wait(begun, chance.uniform(0, 0.1))
    number = chance.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    for again in range(4):
        if begun.process.poll() is None:
            round.send(begun.process.pid, number if again < 2 else signal.SIGTERM, "the command, to end it")
            wait(begun, chance.uniform(0, 0.02) if again < 2 else 2)
    if begun.process.poll() is None:
        round.send(begun.process.pid, signal.SIGKILL, "the command, to end it")


def wait(begun, seconds):
    try:
        begun.process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def keepers(round):
    return [process for process, name in round.strangers() if name == "keeper"]
