"""What can go wrong, by chance: `python3 -P tests/harness SECONDS [KIND...]`, as root, against the installed package.

In sandboxes, one for each processor, rounds of every KIND are played in turn until the time is over: kills, limits,
records, configurations and soak, each a module here.  A round is some commands, after each of which it is judged: see
ground.py.  What is wrong is printed with all that led to it, but once only for each kind of fault, and makes the exit
status 1; so does a run in which no round was played.  --seed and --round play a round again.
"""
import argparse
import os
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

if len(sys.argv) == 2 and sys.argv[1].startswith("/"):     # inside a sandbox
    import sandbox
    from ground import Ground
    sys.exit(sandbox.serve(Ground, sys.argv[1]))

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(f"{os.path.dirname(HERE)}/support")
from sandbox import Sandboxes  # noqa: E402

KINDS = ("kills", "limits", "records", "configurations", "soak")
EVERY = 60          # seconds, from one line on how far it is to the next


class Run:
    """The rounds of a run, divided among the kinds by the time that each has taken."""

    def __init__(self, options):
        self.options = options
        self.spent = dict.fromkeys(options.kinds, 0.0)
        self.next = dict.fromkeys(options.kinds, 0)
        self.played = dict.fromkeys(options.kinds, 0)
        self.commands = dict.fromkeys(options.kinds, 0)
        self.unplayable = {}    # {(kind, why): how often}
        self.found = {}         # {(kind, what, its numbers masked): how often}
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.sandboxes = Sandboxes(HERE, options.jobs)

    def play(self):
        """Play rounds until the time is over.  Several threads do."""
        while time.monotonic() < self.began + self.options.seconds:
            with self.lock:
                kind = min(self.spent, key=self.spent.__getitem__)
                number = self.next[kind]
                self.next[kind] += 1
                self.spent[kind] += 0.1         # the others are to have another one meanwhile
            began = time.monotonic()
            self.play_one(kind, number)
            with self.lock:
                self.spent[kind] += time.monotonic() - began - 0.1

    def play_one(self, kind, number):
        try:
            commands, unplayable, history, wrong = self.sandboxes("round", kind, self.options.seed, number)
        except Exception as error:
            commands, unplayable, history, wrong = 0, "", [], [f"the harness: {str(error).strip().splitlines()[-1]}\n{error}"]
        with self.lock:
            if self.options.round is not None:
                print(*history, sep="\n")
            if unplayable:
                self.unplayable[kind, unplayable] = self.unplayable.get((kind, unplayable), 0) + 1
            else:
                self.played[kind] += 1
            self.commands[kind] += commands
            for one in wrong:
                self.tell(kind, number, *one.split("\n"))

    def tell(self, kind, number, what, *history):
        key = (kind, re.sub(r"\d+", "#", what))
        self.found[key] = self.found.get(key, 0) + 1
        if self.found[key] == 1:
            print(f"\nFOUND {kind}: {what}\n  again: python3 -P tests/harness --seed {self.options.seed} --round {number} {kind}")
            print(*(f"    {line}" for line in history), sep="\n", flush=True)

    def progress(self):
        rounds = ", ".join(f"{kind} {self.played[kind]} ({self.commands[kind]})" for kind in self.played)
        print(f"{time.monotonic() - self.began:6.0f} s: rounds (commands) {rounds}; "
              f"{sum(self.found.values())} found, {len(self.found)} of them different", flush=True)

    def sum_up(self):
        self.progress()
        for (kind, why), count in sorted(self.unplayable.items()):
            print(f"{count:6} {kind} NOT PLAYED: {why}")
        for (kind, what), count in sorted(self.found.items(), key=lambda item: -item[1]):
            print(f"{count:6} {kind}: {what}")

    def has_passed(self):
        return any(self.played.values()) and not self.found


def parse():
    parser = argparse.ArgumentParser(
        prog="tests/harness", description=__doc__.partition("\n")[0],
        usage="%(prog)s [--seed N] [--jobs N] SECONDS [KIND...]\n       %(prog)s --seed N --round N KIND")
    parser.add_argument("words", metavar="SECONDS, KIND", nargs="*",
                        help=f"how long, in all, and which of {', '.join(KINDS)}; all by default")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="where chance begins; the time by default")
    parser.add_argument("--round", type=int, help="play this round alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many sandboxes; one for each processor by default")
    options = parser.parse_intermixed_args()
    options.seconds = 0
    if options.round is None:
        try:
            options.seconds = float(options.words.pop(0))
        except (IndexError, ValueError):
            parser.error("SECONDS is missing")
    options.kinds = options.words or KINDS
    if {*options.kinds} - {*KINDS}:
        parser.error(f"the kinds are {', '.join(KINDS)}")
    if options.round is not None and len(options.kinds) != 1:
        parser.error("--round is of one KIND")
    return options


def main():
    options = parse()
    sys.stdout.reconfigure(errors="backslashreplace")
    run = Run(options)
    print(f"seed {options.seed}", flush=True)
    if options.round is not None:
        run.play_one(*options.kinds, options.round)
    with ThreadPoolExecutor(options.jobs) as threads:
        workers = [threads.submit(run.play) for _ in range(options.jobs)]
        while wait(workers, EVERY).not_done:
            run.progress()
    run.sum_up()
    run.sandboxes.end()
    for worker in workers:
        worker.result()         # raises what it has raised
    return 0 if run.has_passed() else 1


sys.exit(main())
