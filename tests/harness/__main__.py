"""What can go wrong, by chance: `python3 -P tests/harness SECONDS [KIND...]`, as root, against the installed package.

In sandboxes, one for each processor, rounds of every KIND are played in turn until the time is over: kills, limits,
records, configurations and soak, each a module here.  A round is some commands, after each of which it is judged: see
ground.py.  What is wrong is printed with all that led to it, but once only for each kind of fault, and makes the exit
status 1.  --seed and --round play a round again.
"""
import argparse
import os
import re
import sys
import threading
import time

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
        self.kinds = options.kinds or KINDS
        self.spent = dict.fromkeys(self.kinds, 0.0)
        self.rounds = dict.fromkeys(self.kinds, 0)
        self.commands = dict.fromkeys(self.kinds, 0)
        self.found = {}         # {(kind, what, its numbers masked): how often}
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.sandboxes = Sandboxes(HERE, options.jobs)

    def play(self):
        """Play rounds until the time is over.  Several threads do."""
        while time.monotonic() < self.began + self.options.seconds:
            with self.lock:
                kind = min(self.kinds, key=self.spent.__getitem__)
                number = self.rounds[kind]
                self.rounds[kind] += 1
                self.spent[kind] += 0.1         # the others are to have another one meanwhile
            began = time.monotonic()
            self.play_one(kind, number)
            with self.lock:
                self.spent[kind] += time.monotonic() - began - 0.1

    def play_one(self, kind, number):
        try:
            commands, wrong, history, _ = self.sandboxes("round", kind, self.options.seed, number)
        except Exception as error:
            history = []
            commands, wrong = 0, [[f"the harness: {str(error).strip().splitlines()[-1]}", [str(error)]]]
        if self.options.round is not None:
            print(*history, sep="\n")
        with self.lock:
            self.commands[kind] += commands
            for what, history in wrong:
                self.tell(kind, number, what, history)

    def tell(self, kind, number, what, history):
        key = (kind, re.sub(r"\d+", "#", what))
        self.found[key] = self.found.get(key, 0) + 1
        if self.found[key] == 1:
            print(f"\nFOUND {kind}: {what}\n  again: python3 -P tests/harness --seed {self.options.seed} --round {number} {kind}")
            print(*(f"    {line}" for line in history), sep="\n", flush=True)

    def progress(self):
        rounds = ", ".join(f"{kind} {self.rounds[kind]} ({self.commands[kind]})" for kind in self.kinds)
        print(f"{time.monotonic() - self.began:6.0f} s: rounds (commands) {rounds}; "
              f"{sum(self.found.values())} found, {len(self.found)} of them different", flush=True)

    def sum_up(self):
        self.progress()
        for (kind, what), count in sorted(self.found.items(), key=lambda item: -item[1]):
            print(f"{count:6} {kind}: {what}")


def parse():
    parser = argparse.ArgumentParser(prog="tests/harness", description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", metavar="SECONDS", type=float, nargs="?", default=0, help="how long, in all")
    parser.add_argument("kinds", metavar="KIND", nargs="*", help=f"which of {', '.join(KINDS)}; all by default")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="where chance begins; the time by default")
    parser.add_argument("--round", type=int, help="play this round alone, of one KIND")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many sandboxes; one for each processor by default")
    words = sys.argv[1:]
    if "--round" in words and not any(word.replace(".", "").isdigit() and words[at - 1] not in ("--seed", "--round", "--jobs")
                                      for at, word in enumerate(words)):
        words.insert(0, "0")
    options = parser.parse_intermixed_args(words)
    if {*options.kinds} - {*KINDS} or options.round is not None and len(options.kinds) != 1:
        parser.error(f"the kinds are {', '.join(KINDS)}")
    return options


def main():
    options = parse()
    run = Run(options)
    print(f"seed {options.seed}", flush=True)
    if options.round is not None:
        run.rounds[options.kinds[0]] = options.round + 1
        run.play_one(options.kinds[0], options.round)
    threads = [threading.Thread(target=run.play) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(EVERY)
            if thread.is_alive():
                run.progress()
    run.sandboxes.end()
    run.sum_up()
    return 1 if run.found else 0


sys.exit(main())
