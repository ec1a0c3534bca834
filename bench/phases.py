"""What is measured, phase by phase, and the bounds that overlay-boot has to keep."""

import os
import sys
import time

import process
from contestants import (
    CHEAP_CALLS,
    FILE_CALLS,
    PEERS,
    RACE,
    Installed,
    Serving,
    ShellVersion,
    Tar,
    Version,
    boot_all,
    boot_and_unpack,
    expect_services,
)
from machine import bind_mounted
from process import Failed
from programs import Programs
from table import Table

SEPARATE = ("before", "fences", "cables", "nat", "layers", "mounts", "hibernation", "follow", "all", "services",
            "many")  # in Bench
PHASES = RACE + SEPARATE
MANY = 200
UNFENCED = ("CAPABILITIES= all", "SYSTEM_CALLS= all")
LISTED = 100
# The ratio of overlay-boot's median to the contestant's must not exceed these.
BOUNDS = {
    ("boot", ShellVersion.title): 1 / 25,
    ("boot", "runc run"): 0.6,
    ("boot", "lxc-execute"): 1.0,
    ("stop", ShellVersion.title): 1 / 7,
    ("enter", ShellVersion.title): 1 / 2,
}
MEMORY_BOUND = 32  # KiB
# Of the installed version to the earlier one: 1, and what is noise if the standard error is STEADY.
STEADY, LEAST_PAIRS = 0.02, 50
BEFORE_BOUNDS = {"boot": 1.05, "memory": None, "overlay-ls": None, "enter": 1.05, "stop": 1.05, "boot, one cable": None}
# What the fences may cost at a boot and at an entry, what USERNS=auto may add, and a loop of cheap calls inside to one
# outside.
FENCES_MOST, USERNS_MOST, CALLS_BOUND = 0.5, 3, 1.03  # ms, ms
FILTERED = (sys.executable, os.path.join(os.path.dirname(__file__), "filtered.py"))
# Of one cable to none, of ten to one, and of one to the shell version's one.
ONE_BOUND, TEN_BOUND, SHELL_BOUND = 6, 1.5, 1 / 8
PUBLISHED = 47809  # a port of the host that nobody else has
NAT_MOST = 15  # ms that ADDRESS, NAT and PUBLISH may add to a boot with a cable
# Of four layers to none, and of unpacking to tar's.
LAYERS_BOUND, UNPACKING_BOUND = 1.3, 1.2
MOUNTS, MOUNT_MOST = 4, 1.0  # file systems below LOWER, and the ms that each may add
TAKE_UP_BOUND = 1.2  # of a boot that takes up a hibernating subhost, to one that makes everything
FOLLOWING = 50
FOLLOW_ALL_MOST, FOLLOW_MOST = 1000, 300  # ms: of so many that look again, and of one with nothing to do
ALL_BOUND = 1 / 10  # of overlay-boot --all to the shell version's loop
SERVING, SERVICES = 50, ("one", "two", "three")
# Of overlay-boot --all --wait to the same boots one after the other: these keep one processor busy at a time, and the
# start of the next subhost need not wait for services. A quarter is for what does not go side by side.
SERVICES_BOUND = 1 / min(2, len(os.sched_getaffinity(0))) + 0.25
MANY_BOUND = 1.25  # of a boot with many subhosts running to one with none


class Bench:
    """The contestants on the machine, and the table that they fill."""

    def __init__(self, machine, options, stack):
        self.machine = machine
        self.options = options
        self.stack = stack
        self.table = Table()
        self.warming_up = False
        self.installed = self.enlist(Installed, machine, f"{machine.prefix}n")

    def enlist(self, contestant, *arguments, **named):
        """Make a contestant, to be closed at the end."""
        made = contestant(*arguments, **named)
        self.stack.callback(made.close)
        return made

    def own(self, phase, what=None):
        """Return a row of the installed overlay-boot, which has to be measured: a peer may be missing."""
        row = self.table.row(phase, f"{Installed.title}, {what}" if what else Installed.title)
        row.required = True
        return row

    def measure(self, phase, title, action, unit="ms"):
        """Do it, and note what it returns: milliseconds, or a number of another unit."""
        row = self.table.row(phase, title, unit)
        sample = action()
        if not self.warming_up:
            row.samples.append(sample)

    def pause(self):
        """Leave the kernel time to clear up after what has ended."""
        time.sleep(self.options.pause / 1000)

    def turns(self, contestants, rounds, enough=lambda: False):
        """Yield each contestant once in every round, another one first each time, until enough() is true after a round.

        A round to warm up comes before. Who is removed from the list takes part in no further round.
        """
        for number in range(rounds + 1):
            self.warming_up = number == 0
            yield from [*contestants]
            contestants[:] = contestants[1:] + contestants[:1]
            if not self.warming_up and enough():
                break

    def side_by_side(self, phase, actions):
        """Measure actions, {title: function}, in turns. Each leaves things as they were, and returns its time."""
        for title in self.turns([*actions], self.options.rounds):
            self.measure(phase, title, actions[title])
            self.pause()

    # The race: boot, stop, enter, memory

    def race(self):
        """Measure all contestants, side by side."""
        contestants = [self.installed, *self.opponents()]
        for contestant in self.turns(contestants, self.options.rounds):
            try:
                self.lap(contestant)
                self.pause()
            except Failed as failure:
                self.not_measured(contestant, failure)
                contestants.remove(contestant)
        self.compare()

    def opponents(self):
        """Yield those that are here; the rows of the others tell why they are not measured."""
        makers = [(ShellVersion, (self.machine, f"{self.machine.prefix}s", self.options.shell_version))]
        makers += [(peer, (self.machine,)) for peer in PEERS if "boot" in self.options.only]
        for maker, arguments in makers:
            try:
                if None in arguments:
                    raise Failed("no --shell-version given")
                yield self.enlist(maker, *arguments)
            except Failed as failure:
                self.not_measured(maker, failure)

    def not_measured(self, contestant, failure):
        for phase in contestant.phases:
            row = self.table.row(phase, contestant.title)
            row.samples, row.reason = [], str(failure)

    def lap(self, contestant):
        """Measure all that is asked for and that the contestant can do, once."""
        only, title = self.options.only, contestant.title
        self.measure("boot", title, contestant.boot)
        if "memory" in only and "memory" in contestant.phases:
            self.measure("memory", title, contestant.private_memory, "KiB")
        if "enter" in only and "enter" in contestant.phases:
            self.measure("enter", title, contestant.enter)
            if contestant is self.installed:
                self.measure("enter", f"{title}, fed `exit`", contestant.enter_shell)
        if "stop" in contestant.phases:
            self.measure("stop", title, contestant.stop)

    def compare(self):
        """Drop the rows that nobody has asked for, and set the others in relation to overlay-boot's."""
        rows = [row for row in self.table.rows if row.phase in self.options.only]
        rows.sort(key=lambda row: (RACE.index(row.phase), not row.title.startswith(Installed.title)))
        self.table.rows = rows
        for row in rows:
            own = self.own(row.phase)
            if row is not own:
                row.compare(own, row, BOUNDS.get((row.phase, row.title)))
            elif row.phase == "memory":
                row.bound = MEMORY_BOUND

    # The others

    def before(self):
        """Measure the installed version and an earlier one, in pairs."""
        if not self.options.before:
            self.table.row("before", "before").reason = "no --before given"
            return
        directory, prefix = self.machine.directory, self.machine.prefix
        after = Version(self.machine, f"{prefix}v", Installed.title, Programs.of_installation(f"{directory}/after"))
        before = Version(self.machine, f"{prefix}w", "before",
                         Programs.of_package(self.options.before, f"{directory}/before"))
        for version in self.turns([after, before], self.options.pairs, enough=self.versions_are_compared):
            self.lap_of_version(version)

    def lap_of_version(self, version):
        def measure(what, action, unit="ms"):
            self.measure("before", f"{version.title}, {what}", action, unit)

        with version.in_place():
            self.pause()
            measure("boot", version.plain.boot)
            measure("memory", version.plain.private_memory, "KiB")
            measure("overlay-ls", version.plain.list_all)
            measure("enter", version.plain.enter)
            measure("stop", version.plain.stop)
            self.pause()
            measure("boot, one cable", version.cabled.boot_once)

    def versions_are_compared(self):
        """Set the rows of the two versions in relation; return whether what has a bound is steady."""
        compared = []
        for what, bound in BEFORE_BOUNDS.items():
            row = self.table.row("before", f"before, {what}")
            row.compare(self.own("before", what), row, bound)
            compared.append(row)
        steady = all(row.error <= STEADY * row.ratio for row in compared if row.bound)
        return steady and len(compared[0].samples) >= LEAST_PAIRS

    def fences(self):
        """Measure boots and entries with the default fences, with a user namespace as well, and without either."""
        ways = {how: self.enlist(Installed, self.machine, f"{self.machine.prefix}{how[0]}", settings=settings)
                for how, settings in (("fenced", ()), ("USERNS=auto", ("USERNS= auto",)), ("without", UNFENCED))}
        for how in self.turns([*ways], self.options.pairs // 4):
            subhost = ways[how]
            self.measure("fences", f"{Installed.title}, boot, {how}", subhost.boot)
            self.pause()
            self.measure("fences", f"{Installed.title}, enter, {how}", subhost.enter)
            subhost.stop()
            self.pause()
        for what in ("boot", "enter"):
            fenced, mapped, without = (self.own("fences", f"{what}, {how}") for how in ways)
            fenced.compare(fenced, without, 1 + FENCES_MOST / without.median)
            mapped.compare(mapped, fenced, 1 + USERNS_MOST / fenced.median)
        ways["fenced"].boot()
        self.calls(ways["fenced"], "cheap calls", CHEAP_CALLS, CALLS_BOUND)
        self.calls(ways["fenced"], "calls for files", FILE_CALLS)
        ways["fenced"].stop()

    def calls(self, subhost, what, calls, bound=None):
        """Measure system calls inside, and outside: under the shortest of filters, and under none."""
        inside = self.own("fences", f"{what} inside")
        filtered, outside = (self.table.row("fences", f"{what} outside, {under}")
                             for under in ("shortest filter", "no filter"))
        self.side_by_side("fences", {inside.title: lambda: subhost.enter_and_call(calls),
                                     filtered.title: lambda: process.run([*FILTERED, *calls], subhost.log),
                                     outside.title: lambda: process.run([*calls], subhost.log)})
        inside.compare(inside, outside, bound)
        filtered.compare(filtered, outside)

    def cables(self):
        """Measure boots with no cable, one and ten, side by side, and one of the shell version with one."""
        prefix = self.machine.prefix
        none, one, ten = [self.own("cables", what) for what in ("no cable", "one cable", "ten cables")]
        contestants = {row.title: self.enlist(Installed, self.machine, f"{prefix}c{count}", count)
                       for row, count in ((none, 0), (one, 1), (ten, 10))}
        shell = self.table.row("cables", f"{ShellVersion.title}, one cable")
        if self.options.shell_version:
            contestants[shell.title] = self.enlist(ShellVersion, self.machine, f"{prefix}cs",
                                                   self.options.shell_version, 1)
        else:
            shell.reason = "no --shell-version given"
        self.side_by_side("cables", {title: subhost.boot_once for title, subhost in contestants.items()})
        one.compare(one, none, ONE_BOUND)
        ten.compare(ten, one, TEN_BOUND)
        shell.compare(one, shell, SHELL_BOUND)

    def nat(self):
        """Measure boots with a cable, with ADDRESS, NAT and PUBLISH and without."""
        settings = ("ADDRESS= auto", "NAT= yes", f"PUBLISH= {PUBLISHED}:80")
        cable, behind = (self.own("nat", what) for what in ("one cable", "with ADDRESS, NAT and PUBLISH"))
        ways = {cable.title: self.enlist(Installed, self.machine, f"{self.machine.prefix}i", 1),
                behind.title: self.enlist(Installed, self.machine, f"{self.machine.prefix}I", 1, settings=settings)}
        self.side_by_side("nat", {title: subhost.boot_once for title, subhost in ways.items()})
        behind.compare(behind, cable, 1 + NAT_MOST / cable.median)

    def layers(self):
        """Measure boots with layers from the cache, then with one to be unpacked, and tar."""
        with self.machine.own_cache() as cache:
            self.cached_layers()
            cache.empty()
            for compression in ("gzip", "zstd"):
                self.unpacking(compression, cache)

    def cached_layers(self):
        """Measure boots with four layers and with none. The round to warm up unpacks them."""
        archives = [self.machine.archive(f"layer{number}", "zstd", number, 4) for number in range(4)]
        none, four = (self.own("layers", what) for what in ("no layer", "four cached layers"))
        plain = self.enlist(Installed, self.machine, f"{self.machine.prefix}y")
        layered = self.enlist(Installed, self.machine, f"{self.machine.prefix}y4", layers=archives)
        self.side_by_side("layers", {none.title: plain.boot_once, four.title: layered.boot_once})
        four.compare(four, none, LAYERS_BOUND)

    def unpacking(self, compression, cache):
        archive = self.machine.archive(compression, compression)
        subhost = self.enlist(Installed, self.machine, self.machine.prefix + compression[0], layers=[archive])
        tar = Tar(self.machine, compression)
        own = self.own("layers", f"{compression} unpacked")
        other = self.table.row("layers", f"tar, {compression} unpacked")

        def boot():
            self.machine.sync()
            return boot_and_unpack(subhost, cache)

        def unpack():
            self.machine.sync()
            return tar.unpack(archive)

        self.side_by_side("layers", {own.title: boot, other.title: unpack})
        other.compare(own, other, UNPACKING_BOUND)

    def mounts(self):
        """Measure boots over a root in which file systems are mounted, with and without these."""
        top = os.path.join(self.machine.directory, "mounts")
        lower = os.path.join(top, "lower")
        places = [f"/{number}" for number in range(MOUNTS)]
        for place in places:
            os.makedirs(top + place)
            os.makedirs(lower + place)
            self.stack.enter_context(bind_mounted(top + place, lower + place))
        without, own = (self.own("mounts", what) for what in ("none", f"{MOUNTS} below LOWER"))
        ways = {without.title: "no", own.title: " ".join(places)}
        subhosts = {title: self.enlist(Installed, self.machine, f"{self.machine.prefix}{wanted[0].strip('/')}m",
                                       settings=(f"LOWER= {lower}", f"LOWER_MOUNTS= {wanted}"))
                    for title, wanted in ways.items()}
        self.side_by_side("mounts", {title: subhost.boot_once for title, subhost in subhosts.items()})
        own.compare(own, without, 1 + MOUNTS * MOUNT_MOST / without.median)

    def hibernation(self):
        """Measure a boot that makes everything, and one that takes up what is there."""
        anew, taken_up = (self.own("hibernation", what) for what in ("made anew", "hibernating"))
        plain, sleeper = (self.enlist(Installed, self.machine, f"{self.machine.prefix}{suffix}") for suffix in "hH")

        def take_up():
            sleeper.boot_with_shell()
            self.pause()
            return sleeper.boot_once()

        self.side_by_side("hibernation", {anew.title: plain.boot_once, taken_up.title: take_up})
        taken_up.compare(taken_up, anew, TAKE_UP_BOUND)

    def follow(self):
        """Measure how running subhosts are told to look again, and following with nothing to do."""
        crowd = [self.enlist(Installed, self.machine, f"{self.machine.prefix}w{number}") for number in range(FOLLOWING)]
        for subhost in crowd:
            subhost.boot()
        every, one = self.own("follow", f"{FOLLOWING} by --all --view"), self.own("follow", "one, nothing to do")
        self.side_by_side("follow", {every.title: lambda: crowd[0].follow("--all", "--view"),
                                     one.title: lambda: crowd[0].follow(crowd[0].name)})
        every.bound, one.bound = FOLLOW_ALL_MOST, FOLLOW_MOST
        stop_all(crowd)

    def all(self):
        """Measure the boot of listed subhosts at once, and of as many of the shell version one after the other."""
        crowd = [self.enlist(Installed, self.machine, f"{self.machine.prefix}l{number}") for number in range(LISTED)]
        own = self.own("all", f"{LISTED} by --all")
        shell = self.table.row("all", f"{ShellVersion.title}, {LISTED} in a loop")
        with self.machine.listed([subhost.conf for subhost in crowd]):
            for _ in self.turns([crowd], self.options.rounds):
                self.measure("all", own.title, lambda: boot_all(crowd))
                stop_all(crowd)
        if not self.options.shell_version:
            shell.reason = "no --shell-version given"
            return
        others = [self.enlist(ShellVersion, self.machine, f"{self.machine.prefix}s{number}", self.options.shell_version)
                  for number in range(LISTED)]
        self.measure("all", shell.title, lambda: sum(subhost.boot() for subhost in others))
        shell.compare(own, shell, ALL_BOUND)
        stop_all(others)

    def services(self):
        """Measure the boot of listed subhosts with services, which are waited for, at once and one after the other."""
        crowd = [self.enlist(Serving, self.machine, f"{self.machine.prefix}v{number}", SERVICES)
                 for number in range(SERVING)]
        own, single = (self.own("services", f"{SERVING} {how}") for how in ("by --all --wait", "one by one"))

        def one_by_one():
            return sum(subhost.boot_and_wait() for subhost in crowd)

        def measured(boot):
            elapsed = boot()
            expect_services(crowd)
            stop_all(crowd)
            return elapsed

        with self.machine.listed([subhost.conf for subhost in crowd]):
            ways = {own.title: lambda: measured(lambda: boot_all(crowd, "--wait")),
                    single.title: lambda: measured(one_by_one)}
            self.side_by_side("services", ways)
        own.compare(own, single, SERVICES_BOUND)

    def many(self):
        """Measure with none, with 200, and with none again, so that a drift of the machine does not count."""
        self.one_subhost("none running")
        crowd = [self.enlist(Installed, self.machine, f"{self.machine.prefix}{number}") for number in range(MANY)]
        for subhost in crowd:
            subhost.boot()
        self.one_subhost(f"{MANY} running")
        stop_all(crowd)
        self.one_subhost("none running")
        for action, bound in (("boot", MANY_BOUND), ("enter", None), ("stop", None)):
            row = self.own("many", f"{action}, {MANY} running")
            row.compare(row, self.own("many", f"{action}, none running"), bound)

    def one_subhost(self, circumstance):
        """Measure boots, entries and stops of one."""
        time.sleep(1)  # what was booted or stopped before leaves work to the kernel, network namespaces above all
        self.installed.boot_once()
        for _ in range(self.options.rounds):
            for action in ("boot", "enter", "stop"):
                title = f"{Installed.title}, {action}, {circumstance}"
                self.measure("many", title, getattr(self.installed, action))


def stop_all(subhosts):
    for subhost in reversed(subhosts):
        subhost.stop()
