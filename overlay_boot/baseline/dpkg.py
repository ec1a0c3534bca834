"""What dpkg(1) has on record of a system's packages, and what is in their archives.

deb(5), deb822(5), dpkg-query(1).  The files of /var/lib/dpkg are described in Debian Policy and in dpkg's doc/.
"""
import subprocess
import tarfile
from typing import TYPE_CHECKING

from ..errors import Failure, complain, reason
from .root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

RECORDS = "/var/lib/dpkg"
INFO = f"{RECORDS}/info"
STATUS = f"{RECORDS}/status"
INSTALLED = ("installed", "triggers-awaited", "triggers-pending")
OBSOLETE = (" obsolete", " remove-on-upgrade")          # the end of a conffile's line, if the version has not got it
SHELLS = ("#!/bin/sh", "#! /bin/sh", "#!/bin/bash", "#! /bin/bash")


class Package:
    """An installed package."""

    __slots__ = ("architecture", "conffiles", "name", "obsolete", "paths", "priority", "record", "root", "version")

    def __init__(self, fields: dict[str, str], root: Root) -> None:
        self.root = root
        self.name, self.version = fields["Package"], fields["Version"]
        self.architecture = fields["Architecture"]
        self.priority = fields.get("Priority", "")
        self.conffiles: dict[str, str | None] = {}      # {path: md5}; None of one that was never installed
        self.obsolete: set[str] = set()                 # conffiles of former versions
        for line in fields.get("Conffiles", "").splitlines():
            if line.endswith(OBSOLETE):
                self.obsolete.add(line.rsplit(" ", 2)[0])
            else:
                path, md5 = line.rsplit(" ", 1)
                self.conffiles[path] = md5 if md5 != "newconffile" else None
        self.record = self.name                         # the name of its files in INFO, less what kind they are
        if root.has(f"{INFO}/{self.name}:{self.architecture}.list"):
            self.record = f"{self.name}:{self.architecture}"
        self.paths = [path for path in self.lines("list") if path not in self.obsolete]

    def lines(self, kind: str) -> list[str]:
        """Return the lines of one of its files in INFO; none if it has no such file."""
        return self.root.lines(f"{INFO}/{self.record}.{kind}")

    def md5sums(self) -> dict[str, str]:
        """Return {path: md5} of the files that are no conffiles; empty if the package has none on record."""
        parted = (line.partition("  ") for line in self.lines("md5sums"))
        return {f"/{path}": md5 for md5, _, path in parted if path}

    def script(self, name: str) -> str:
        """Return the text of a maintainer script; "" if it has none, or none for a shell."""
        try:
            text = self.root.read_text(f"{INFO}/{self.record}.{name}")
        except FileNotFoundError:
            return ""
        return text if text.startswith(SHELLS) else ""


class Database:
    """The records of the packages that are installed."""

    def __init__(self, root: Root) -> None:
        """Raises Failure if there are none."""
        try:
            text = root.read_text(STATUS)
        except OSError as error:
            raise Failure(f"cannot read {root.path_of(STATUS)}: {error.strerror}") from None
        stanzas = [(stanza.strip("\n"), fields(stanza)) for stanza in text.split("\n\n") if stanza.strip()]
        installed = [(stanza, found) for stanza, found in stanzas if is_installed(found)]
        self.packages = [Package(found, root) for _, found in installed]
        self.status = "".join(without_obsolete(stanza) + "\n\n" for stanza, _ in installed)    # for a system of these
        self.diverted = diversions(root)

    def installed_path(self, path: str, package: Package) -> str:
        """Return where a path of a package is in the system: elsewhere, if another package has it diverted."""
        target, by = self.diverted.get(path, (path, package.name))
        return path if by == package.name else target


def fields(stanza: str) -> dict[str, str]:
    """Return {field: value} of a stanza of deb822(5); the further lines of a value without their leading space."""
    found: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] == " " and name:
            found[name] += line[1:] + "\n"
        else:
            name, _, value = line.partition(":")
            found[name] = value.strip()
    return found


def is_installed(found: dict[str, str]) -> bool:
    state = found.get("Status", "").split()
    return len(state) == 3 and state[2] in INSTALLED


def without_obsolete(stanza: str) -> str:
    """Return a stanza of the status file without conffiles that the installed version has not got."""
    lines = stanza.split("\n")
    return "\n".join(line for line in lines if not (line.startswith(" /") and line.endswith(OBSOLETE)))


def diversions(root: Root) -> dict[str, tuple[str, str]]:
    """Return {path: (where it is diverted to, the package that diverts it)}.  Those of administrators are left out."""
    found = root.lines(f"{RECORDS}/diversions")
    each = zip(found[::3], found[1::3], found[2::3], strict=False)
    return {path: (target, package) for path, target, package in each if package != ":"}


def contents(archive: str) -> "Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]":
    """Yield (member, its content as a file or None) of what a package's archive installs, in order; paths as /etc/x.

    If it is broken, yields what precedes the fault, and complains.
    """
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|", errorlevel=0) as tar:
                for member in tar:
                    member.name = "/" + member.name.removeprefix(".").strip("/")
                    yield member, tar.extractfile(member) if member.isreg() else None
        except (tarfile.TarError, OSError, EOFError) as error:
            complain(f"cannot read {archive}: {reason(error) if isinstance(error, OSError) else error}")
