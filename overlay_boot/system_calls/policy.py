"""The policy, and what a value of SYSTEM_CALLS makes of it."""
from .. import paths
from ..errors import Failure

FILE = f"{__file__.rpartition('/')[0]}/policy"
ALLOWED, REFUSED, UNKNOWN = "allowed", "refused", "unknown"
ALONE = ("all", "default")
# Without these, nothing could be executed under a filter, nor end.
NEEDED = ("execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn", "sigreturn", "write")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


class Condition:
    """What an argument must be: one of the values, or without the bits; "" is no capability that makes it needless."""

    __slots__ = ("argument", "capability", "lacks", "values")

    def __init__(self, argument: int, kind: str, numbers: list[int], capability: str) -> None:
        self.argument = argument
        self.capability = capability
        self.values = numbers if kind == "is" else []
        self.lacks = numbers[0] if kind == "lacks" else 0


class Call:
    """A system call: what becomes of it, and if it is allowed, its condition or None."""

    __slots__ = ("condition", "name", "verdict")

    def __init__(self, name: str, verdict: str, condition: Condition | None = None) -> None:
        self.name = name
        self.verdict = verdict
        self.condition = condition


class Group:
    """Calls with one purpose.  They are refused without the capability; "" is none."""

    __slots__ = ("calls", "capability", "name", "verdict")

    def __init__(self, words: list[str]) -> None:
        self.name, *without, self.verdict = words
        self.capability = without[1] if without else ""
        self.calls: list[Call] = []

    def add(self, text: str) -> None:
        """Take a line of the policy."""
        names, _, condition = text.partition(" if ")
        condition, _, capability = condition.partition(" unless ")
        words = condition.split()
        found = Condition(int(words[0]), words[1], [int(word, 0) for word in words[2:]], capability) if words else None
        self.calls += [Call(name, self.verdict, found) for name in names.split()]


def read(path: str = FILE) -> dict[str, Group]:
    """Return the groups of the policy, by name."""
    groups: dict[str, Group] = {}
    group = None
    with open(path) as file:
        for line in file:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            if text.startswith("@"):
                group = Group(text.split())
                groups[group.name] = group
            elif group:
                group.add(text)
    return groups


def calls(text: str, groups: dict[str, Group], capabilities: "Collection[str]") -> list[Call]:
    """Return every call that a filter for this value of SYSTEM_CALLS knows.  Raises Failure for a wrong value."""
    words = paths.words(text)
    changes = [word for word in words if word[0] in "+-"]
    alone = next((word.lower() for word in words if word.lower() in ALONE), "")
    if words == ["default"]:
        words = []
    elif alone:
        raise Failure(f"SYSTEM_CALLS={text}: {alone} stands alone, and in small letters")
    elif changes and len(changes) != len(words):
        raise Failure(f"SYSTEM_CALLS={text}: either all words begin with + or -, or none does")
    found = {call.name: call for group in groups.values() for call in by_default(group, capabilities)}
    if words and not changes:
        found = {name: Call(name, UNKNOWN if call.verdict == UNKNOWN else REFUSED) for name, call in found.items()}
        words = [f"+{word}" for word in (*words, *NEEDED)]
    for word in words:
        verdict = ALLOWED if word[0] == "+" else REFUSED
        for call in calls_of(word[1:], groups, text, capabilities):
            found[call.name] = Call(call.name, verdict, call.condition if verdict == ALLOWED else None)
    refused = [name for name in NEEDED if found[name].verdict != ALLOWED]
    if refused:
        raise Failure(f"SYSTEM_CALLS={text}: nothing can be executed without {refused[0]}")
    return [*found.values()]


def by_default(group: Group, capabilities: "Collection[str]") -> list[Call]:
    """Return the calls of a group as the policy has them for a subhost with these capabilities."""
    if group.capability in capabilities:
        return [Call(call.name, ALLOWED) for call in group.calls]
    return [Call(call.name, call.verdict) if call.condition and call.condition.capability in capabilities else call
            for call in group.calls]


def calls_of(word: str, groups: dict[str, Group], text: str, capabilities: "Collection[str]") -> list[Call]:
    """Return the calls that a word stands for: those of a group with their conditions, one of its own name without.

    Raises Failure for a word that is unknown.
    """
    if word in groups:
        return by_default(groups[word], capabilities)
    known = {call.name for group in groups.values() for call in group.calls}
    if not word:
        raise Failure(f"SYSTEM_CALLS={text}: there is no name after + or -")
    if word in known:
        return [Call(word, ALLOWED)]
    import difflib
    meant = next(iter(difflib.get_close_matches(word.lower(), [*groups, *known], 1)), "")
    hint = f" (did you mean {meant}?)" if meant else ""
    kind = "group of system calls" if word[:1] == "@" else "system call"
    raise Failure(f"SYSTEM_CALLS={text}: there is no {kind} {word}{hint}")
