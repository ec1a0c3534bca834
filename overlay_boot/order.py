"""AFTER: which subhosts wait for which, where many are booted or stopped together."""
import time

from . import paths, services, state, subhosts
from .config import DEFAULTS, Config, read
from .errors import Failure
from .running import find
from .subhosts_conf import LIST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# Seconds, for which a service of a subhost that somebody else has booted is believed to be starting still.
LONGEST_START = float(DEFAULTS["BOOT_TIMEOUT"] or 0) + services.KILLED_AFTER


class Order:
    """What comes before what.  A word is a configuration file or a name, as side_by_side.py has it."""

    __slots__ = ("before", "outside")

    def __init__(self) -> None:
        self.before: dict[str, set[str]] = {}       # {word: words that have to be done before it}
        self.outside: dict[str, set[str]] = {}      # {word: names of subhosts that run already, likewise}

    def next_of(self, waiting: list[str], at_work: "Collection[str]") -> str | None:
        """Return the first of the words that wait for none of the others, nor of those at work; None if all wait."""
        pending = {*waiting, *at_work}
        free = [word for word in waiting if not pending.intersection(self.before.get(word, ()))]
        if not free and not at_work:
            free = waiting              # in a circle, which those that were booted one by one can be
        return next((word for word in free if not any(map(is_starting, self.outside.get(word, ())))), None)

    def awaited(self) -> set[str]:
        """Return the words that others wait for."""
        return {word for words in self.before.values() for word in words}


def of_boots(files: list[str]) -> tuple[Order, dict[str, str]]:
    """Return the order in which configuration files are booted, and {file: what is told of it} of what cannot be.

    What is wrong with a file otherwise, its boot tells.
    """
    order = Order()
    refused: dict[str, str] = {}
    if not any(map(assigns, files)):
        return order, refused
    configs, named = read_all(files)
    elsewhere = running()
    for path, config in configs.items():
        for name in config.after:
            if name in named:
                order.before.setdefault(path, set()).update(named[name])
            elif name in elsewhere:
                order.outside.setdefault(path, set()).add(name)
            else:
                refused[path] = f"{path}: {unknown(name)}"
    for circle in circles({path: {*before} for path, before in order.before.items()}):
        why = " after ".join(configs[path].name for path in (*circle, circle[0]))
        refused.update(dict.fromkeys(circle, f"AFTER is a circle: {why}"))
    return order, refused


def of_stops() -> Order:
    """Return the order in which subhosts are stopped that have a record."""
    order = Order()
    for name, record in state.noted({}):
        for other in record.after:
            order.before.setdefault(other, set()).add(name)
    return order


def assigns(path: str) -> bool:
    """Tell whether a configuration file assigns AFTER, which no other file can do for it."""
    try:
        return "AFTER" in read(path)
    except Failure:
        return False


def read_all(files: "Iterable[str]") -> tuple[dict[str, Config], dict[str, list[str]]]:
    """Return {file: its configuration, as far as AFTER}, and {NAME: the files that have it}.

    A file that cannot be read has the NAME that it would have without assigning one.
    """
    configs: dict[str, Config] = {}
    named: dict[str, list[str]] = {}
    for path in files:
        name = paths.name(path).removesuffix(".conf")
        try:
            config = Config(path, "overlay-boot", warn=False)
            config.resolve_after()
            configs[path], name = config, config.name
        except Failure:
            pass
        named.setdefault(name, []).append(path)
    return configs, named


def running() -> set[str]:
    """Return the names of the subhosts that run, hibernate, or are being booted or stopped."""
    return {*state.names(), *(one.name for one in subhosts.inherited())}


def unknown(name: str) -> str:
    return f"AFTER: {name} is neither in {LIST} nor running"


def circles(before: dict[str, set[str]]) -> list[list[str]]:
    """Return the circles in a graph, each as a list of words that come one after the other; it is used up by that."""
    found = []
    while before:
        ends = [word for word, others in before.items() if not others.intersection(before)]
        if ends:
            for word in ends:
                del before[word]
            continue
        way = [next(iter(before))]      # each has another one before it: so there is a circle on the way
        while way.count(way[-1]) == 1:
            way.append(min(before[way[-1]].intersection(before)))
        found.append(way[way.index(way[-1]):-1])
        for word in found[-1]:
            del before[word]
    return found


def is_starting(name: str) -> bool:
    """Tell whether a subhost that runs still starts its services, as far as that is to be believed."""
    from . import listing
    try:
        one = find(name)
    except Failure:
        return False
    with one.state, one:
        if time.time() > one.record.since + LONGEST_START * len(one.record.start):
            return False
        return any(service["state"] == services.STARTING for service in listing.services_of(one) or ())
