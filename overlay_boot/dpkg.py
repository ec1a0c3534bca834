"""What dpkg(1) has on record of packages: the stanzas of its status file, deb822(5), and the lists of their files.

The files of /var/lib/dpkg are described in Debian Policy and in dpkg's doc/.
"""
from . import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .overlayfs import Tree

RECORDS = "var/lib/dpkg"
STATUS = f"{RECORDS}/status"
INFO, DIVERSIONS = f"{RECORDS}/info", f"{RECORDS}/diversions"
LONGEST = 1 << 28               # bytes of a record that are read
LIST = ".list"
# States in which the files of a package are there, dpkg(1), and those of them in which it works.
PENDING = "triggers-pending"
WORKING = ("installed", "triggers-awaited", PENDING)
PRESENT = (*WORKING, "unpacked", "half-configured")
SETTLED = (*WORKING, "config-files", "not-installed")
FLAGS = ("obsolete", "remove-on-upgrade")       # behind a conffile that the version has not got
NEW_CONFFILE = "newconffile"                    # in the place of an MD5 sum: nothing was installed before
BY_ADMINISTRATOR = ":"                          # in the place of the package that diverts
OF_USR = ("/bin/", "/lib", "/sbin/")            # where a package may have on record what is below /usr


class Stanza:
    """What is on record of a package: its fields, in order, each with its further lines as they stand there."""

    __slots__ = ("fields",)

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields

    def value(self, field: str) -> str:
        """Return the value of a field, "" if it has none."""
        return self.fields.get(field, "").strip()

    @property
    def name(self) -> str:
        return self.value("Package")

    @property
    def architecture(self) -> str:
        return self.value("Architecture")

    @property
    def version(self) -> str:
        return self.value("Version")

    @property
    def want(self) -> str:
        return self.words[0]

    @property
    def state(self) -> str:
        return self.words[2]

    @property
    def is_broken(self) -> bool:
        """Whether it has to be installed again."""
        return self.words[1] != "ok"

    @property
    def words(self) -> list[str]:
        """What is wanted, whether something is wrong, and the state: dpkg(1)."""
        found = self.fields.get("Status", "").split()
        return found if len(found) == 3 else ["unknown", "ok", "not-installed"]

    @property
    def is_present(self) -> bool:
        return self.state in PRESENT

    @property
    def configured(self) -> str:
        """The version that was configured last, "" if none was."""
        return self.version if self.state in WORKING else self.value("Config-Version")

    @property
    def record(self) -> str:
        """The name of its files in INFO, less what kind they are."""
        return f"{self.name}:{self.architecture}" if self.value("Multi-Arch") == "same" else self.name

    @property
    def conffiles(self) -> dict[str, str]:
        """{path, without the first /: the MD5 sum as it was shipped, and one of FLAGS behind it}."""
        found = {}
        for line in self.value("Conffiles").split("\n"):
            words = line.strip().split(" ")
            ends = 2 if words[-1] in FLAGS else 1
            path = " ".join(words[:-ends])
            if path.startswith("/"):
                found[path[1:]] = " ".join(words[-ends:])
        return found

    def text(self) -> str:
        return "".join(f"{name}:{value}\n" for name, value in self.fields.items())

    def changed(self, **fields: str | None) -> "Stanza":
        """Return a copy with other fields, those that are None left out; _ stands for - in a name."""
        made = dict(self.fields)
        for name, value in fields.items():
            field = name.replace("_", "-")
            if value is None:
                made.pop(field, None)
            else:
                made[field] = value if value[:1] == "\n" else f" {value}"
        return Stanza(made)


def conffiles_text(conffiles: dict[str, str]) -> str | None:
    """Return the value of a field of Conffiles, None for none."""
    return "".join(f"\n /{path} {rest}" for path, rest in conffiles.items()) or None


class Database:
    """The stanzas of a status file, by name and architecture."""

    def __init__(self, text: str) -> None:
        """Of the text of the file."""
        self.stanzas = {(one.name, one.architecture): one for one in stanzas(text)}
        self.of_name: dict[str, list[Stanza]] = {}
        for one in self.stanzas.values():
            self.of_name.setdefault(one.name, []).append(one)

    def counterpart(self, other: Stanza) -> Stanza | None:
        """Return the stanza of the package that another database has, which may be for all architectures there."""
        found = self.stanzas.get((other.name, other.architecture))
        if found:
            return found
        candidates = self.of_name.get(other.name, [])
        if len(candidates) == 1 and "all" in (other.architecture, candidates[0].architecture):
            return candidates[0]
        return None


def stanzas(text: str, key: str = "Package") -> "Iterator[Stanza]":
    """Yield the stanzas of a status file, or of another file in which each has the field key."""
    for part in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in part.split("\n"):
            if line[:1] in (" ", "\t"):
                if name:
                    fields[name] += f"\n{line}"
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value
        if key in fields:
            yield Stanza(fields)


def text(found: "Iterable[Stanza]") -> str:
    """Return the text of a status file."""
    return "".join(f"{one.text()}\n" for one in found)


def read(tree: "Tree", path: str) -> str:
    """Return the text of one of the records in a tree, "" if there is none."""
    return paths.decode(tree.read(path, LONGEST) or b"")


def lines(tree: "Tree", path: str) -> list[str]:
    return read(tree, path).splitlines()


def diversions(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Return {path: (where it is diverted to, the package that diverts it, or BY_ADMINISTRATOR)}, of DIVERSIONS."""
    each = zip(lines[::3], lines[1::3], lines[2::3], strict=False)
    return {path: (target, package) for path, target, package in each}


def owners(tree: "Tree", wanted: set[str]) -> dict[str, str]:
    """Return {path: package} of those of the absolute paths that a package has; of several packages, any one.

    What another package, or an administrator, has diverted belongs to the package where it is.
    """
    found: dict[str, str] = {}
    diverted = diversions(lines(tree, DIVERSIONS))
    for name in sorted(tree.names_in(INFO)):
        if not name.endswith(LIST):
            continue
        package = name.removesuffix(LIST).partition(":")[0]
        for path in lines(tree, f"{INFO}/{name}"):
            if path in diverted and diverted[path][1] != package:
                path = diverted[path][0]
            if path in wanted:
                found.setdefault(path, package)
            elif path.startswith(OF_USR) and f"/usr{path}" in wanted:
                found.setdefault(f"/usr{path}", package)
    return found
