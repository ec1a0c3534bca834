"""What dpkg(1) has on record of packages: the stanzas of its status file, deb822(5), and the lists of their files.

The files of /var/lib/dpkg are described in Debian Policy and in dpkg's doc/.
"""
from . import paths
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .overlayfs import Tree

RECORDS = "var/lib/dpkg"
STATUS = f"{RECORDS}/status"
INFO, DIVERSIONS = f"{RECORDS}/info", f"{RECORDS}/diversions"
# What is read of records, which a subhost can write: many times as much as those of the largest systems have.
LONGEST = 1 << 25               # bytes of a record
MOST_BYTES = 1 << 27            # of those of all packages together
MOST_LINES, MOST_FIELDS = 1 << 19, 1 << 19      # of a record
LIST = ".list"
# States in which the files of a package are there, dpkg(1), and those of them in which it works.
PENDING = "triggers-pending"
WORKING = ("installed", "triggers-awaited", PENDING)
UNCONFIGURED = ("unpacked", "half-configured")
PRESENT = (*WORKING, *UNCONFIGURED)
SETTLED = (*WORKING, "config-files", "not-installed")
FLAGS = ("obsolete", "remove-on-upgrade")       # behind a conffile that the version has not got
FURTHER = (" ", "\t")           # begins a further line of a field
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
        return self.fields.get(field, "").strip(paths.WHITE_SPACE)

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
            words = line.strip(" ").split(" ")
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
    fields: dict[str, str] = {}
    at, found = 0, 0
    while at < len(text):
        line = end = end_of_line(text, at)
        while text[end + 1:end + 2] in FURTHER:
            end = end_of_line(text, end + 1)
        colon = text.find(":", at, line)
        if line == at:
            if key in fields:
                yield Stanza(fields)
            fields = {}
        elif colon != -1 and text[at] not in FURTHER:
            fields[text[at:colon]] = text[colon + 1:end]
            found += 1
            if found > MOST_FIELDS:
                raise Failure(f"a record of packages has more than {MOST_FIELDS} fields")
        at = end + 1
    if key in fields:
        yield Stanza(fields)


def end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end == -1 else end


def text(found: "Iterable[Stanza]") -> str:
    """Return the text of a status file."""
    return "".join(f"{one.text()}\n" for one in found)


def read(tree: "Tree", path: str) -> str:
    """Return the text of one of the records in a tree, "" if there is none.  Raises Failure if it is too long."""
    return text_of(tree.read(path, LONGEST + 1) or b"", path)


def text_of(data: bytes, path: str) -> str:
    """Return the text of a record of which at most LONGEST + 1 bytes were read.  Raises Failure if that is too long."""
    if len(data) > LONGEST:
        raise Failure(f"/{path} is longer than {LONGEST >> 20} MiB")
    return paths.decode(data)


def lines(tree: "Tree", path: str) -> list[str]:
    return lines_of(read(tree, path))


def lines_of(text: str) -> list[str]:
    """Return the lines of a record.  What else str.splitlines() takes for the end of one is data."""
    if text.count("\n") > MOST_LINES:
        raise Failure(f"a record of packages has more than {MOST_LINES} lines")
    return text.removesuffix("\n").split("\n") if text else []


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
    size = 0
    for name in sorted(tree.names_in(INFO)):
        if not name.endswith(LIST):
            continue
        package = name.removesuffix(LIST).partition(":")[0]
        text = read(tree, f"{INFO}/{name}")
        size += len(text)
        if size > MOST_BYTES:
            raise Failure(f"/{INFO} has more than {MOST_BYTES >> 20} MiB in lists of files")
        for path in lines_of(text):
            if path in diverted and diverted[path][1] != package:
                path = diverted[path][0]
            if path in wanted:
                found.setdefault(path, package)
            elif path.startswith(OF_USR) and f"/usr{path}" in wanted:
                found.setdefault(f"/usr{path}", package)
    return found
