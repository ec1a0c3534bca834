"""What packages need of each other: Debian Policy, chapter 7."""
from ..dpkg import Stanza
from .version import key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RELATIONS = {"<<": (-1,), "<=": (-1, 0), "=": (0,), ">=": (0, 1), ">>": (1,)}
NEEDS = ("Pre-Depends", "Depends")


class Present:
    """The packages that are there, and what they provide."""

    __slots__ = ("names", "provided", "same")

    def __init__(self, stanzas: "Iterable[Stanza]") -> None:
        self.names: dict[str, list[str]] = {}           # {name: versions}
        self.provided: dict[str, list[str]] = {}        # {name: versions, "" for none}
        self.same: dict[str, list[Stanza]] = {}         # {name: those of which there may be several architectures}
        for one in stanzas:
            self.names.setdefault(one.name, []).append(one.version)
            if one.value("Multi-Arch") == "same":
                self.same.setdefault(one.name, []).append(one)
            for word in one.value("Provides").split(","):
                name, relation, version = parsed(word)
                self.provided.setdefault(name, []).append(version if relation else "")

    def missing(self, package: Stanza) -> list[str]:
        """Return what a package needs that is not there, as its record has it.

        With others of its name, for other architectures, dpkg configures it in the same version only.
        """
        groups = (group.strip() for field in NEEDS for group in package.value(field).split(","))
        others = self.same.get(package.name, []) if package.value("Multi-Arch") == "same" else []
        return [*(" ".join(group.split()) for group in groups
                  if group and not any(self.has(one) for one in group.split("|"))),
                *(f"{one.record} (= {package.version})" for one in others if one.version != package.version)]

    def has(self, alternative: str) -> bool:
        name, relation, version = parsed(alternative)
        return any(not relation or holds(found, relation, version) for found in self.names.get(name, [])) or any(
            not relation or found != "" and holds(found, relation, version) for found in self.provided.get(name, []))


def parsed(text: str) -> tuple[str, str, str]:
    """Return (name, relation, version) of `name:arch (>= version)`; of one without a relation, "" for both."""
    name, _, rest = text.strip().partition("(")
    relation = rest.strip(" )").partition(" ")[0]
    version = rest.strip(" )")[len(relation):].strip()
    if relation not in RELATIONS and relation:      # no blank between them
        relation = relation[:2] if relation[:2] in RELATIONS else relation[:1]
        version = rest.strip(" )")[len(relation):].strip()
    return name.strip().partition(":")[0], relation, version


def holds(found: str, relation: str, version: str) -> bool:
    one, other = key(found), key(version)
    return (one > other) - (one < other) in RELATIONS.get(relation, ())
