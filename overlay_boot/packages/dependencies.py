"""What packages need of each other: Debian Policy, chapter 7."""
from ..dpkg import Stanza
from .version import key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .version import Key

RELATIONS = {"<<": (-1,), "<=": (-1, 0), "=": (0,), ">=": (0, 1), ">>": (1,)}
NEEDS = ("Pre-Depends", "Depends")
REFUSES = ("Conflicts", "Breaks")
MOST = 1 << 4       # versions and architectures of a name that are looked at: a subhost can say that it has any number


class Present:
    """The packages that are there, and what they provide."""

    __slots__ = ("keys", "names", "provided", "refused", "same")

    def __init__(self, stanzas: "Iterable[Stanza]") -> None:
        self.keys: dict[str, Key] = {}                  # {version: what orders it}
        self.names: dict[str, list[str]] = {}           # {name: versions}
        self.provided: dict[str, list[str]] = {}        # {name: versions, "" for none}
        self.same: dict[str, list[Stanza]] = {}         # {name: those of which there may be several architectures}
        self.refused: dict[str, list[tuple[str, str]]] = {}     # {name: (who refuses it, the relation)}
        for one in stanzas:
            note(self.names, one.name, one.version)
            if one.value("Multi-Arch") == "same":
                others = self.same.setdefault(one.name, [])
                if len(others) < MOST:
                    others.append(one)
            for word in one.value("Provides").split(","):
                name, relation, version = parsed(word)
                note(self.provided, name, version if relation else "")
            for word in ",".join(map(one.value, REFUSES)).split(","):
                who = self.refused.setdefault(parsed(word)[0], [])
                if len(who) < MOST:
                    who.append((one.name, word))

    def missing(self, package: Stanza) -> list[str]:
        """Return what a package needs that is not there, as its record has it.

        With others of its name, for other architectures, dpkg configures it in the same version only.
        """
        groups = (group.strip() for field in NEEDS for group in package.value(field).split(","))
        others = self.same.get(package.name, []) if package.value("Multi-Arch") == "same" else []
        return [*(" ".join(group.split()) for group in groups
                  if group and not any(self.has(one) for one in group.split("|"))),
                *(f"{one.record} (= {package.version})" for one in others if one.version != package.version)]

    def refusing(self, package: Stanza) -> list[str]:
        """Return who, as the records have it, cannot be there together with a package."""
        found = []
        for who, word in self.refused.get(package.name, ()):
            _, relation, version = parsed(word)
            if who != package.name and (not relation or holds(self.key(package.version), relation, self.key(version))):
                found.append(who)
        for word in ",".join(map(package.value, REFUSES)).split(","):
            name, relation, version = parsed(word)
            if name != package.name and any(not relation or holds(self.key(one), relation, self.key(version))
                                            for one in self.names.get(name, ())):
                found.append(name)
        return [*dict.fromkeys(found)]

    def has(self, alternative: str) -> bool:
        name, relation, version = parsed(alternative)
        found, provided = self.names.get(name, []), self.provided.get(name, [])
        if not relation:
            return bool(found or provided)
        other = self.key(version)
        return any(holds(self.key(one), relation, other) for one in (*found, *provided) if one)

    def key(self, version: str) -> "Key":
        if version not in self.keys:
            self.keys[version] = key(version)
        return self.keys[version]


def note(found: dict[str, list[str]], name: str, version: str) -> None:
    versions = found.setdefault(name, [])
    if len(versions) < MOST and version not in versions:
        versions.append(version)


def parsed(text: str) -> tuple[str, str, str]:
    """Return (name, relation, version) of `name:arch (>= version)`; of one without a relation, "" for both."""
    name, _, rest = text.strip().partition("(")
    relation = rest.strip(" )").partition(" ")[0]
    version = rest.strip(" )")[len(relation):].strip()
    if relation not in RELATIONS and relation:      # no blank between them
        relation = relation[:2] if relation[:2] in RELATIONS else relation[:1]
        version = rest.strip(" )")[len(relation):].strip()
    return name.strip().partition(":")[0], relation, version


def holds(one: "Key", relation: str, other: "Key") -> bool:
    return (one > other) - (one < other) in RELATIONS.get(relation, ())
