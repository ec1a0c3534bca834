"""The packages of a system, as dpkg(1) has them on record, and what is in their archives, deb(5)."""
import subprocess
import tarfile
from typing import TYPE_CHECKING

from .. import dpkg
from ..errors import Failure, complain, reason
from .root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

RECORDS, INFO, STATUS = f"/{dpkg.RECORDS}", f"/{dpkg.INFO}", f"/{dpkg.STATUS}"
SHELLS = ("#!/bin/sh", "#! /bin/sh", "#!/bin/bash", "#! /bin/bash")


class Package:
    """An installed package."""

    __slots__ = ("architecture", "conffiles", "name", "obsolete", "paths", "priority", "record", "root", "version")

    def __init__(self, stanza: dpkg.Stanza, root: Root) -> None:
        self.root = root
        self.name, self.version, self.architecture = stanza.name, stanza.version, stanza.architecture
        self.priority = stanza.value("Priority")
        self.conffiles: dict[str, str | None] = {}      # {path: md5}; None of one that was never installed
        self.obsolete: set[str] = set()                 # conffiles of former versions
        for path, md5 in stanza.conffiles.items():
            if " " in md5:                              # one of dpkg.FLAGS
                self.obsolete.add(f"/{path}")
            else:
                self.conffiles[f"/{path}"] = md5 if md5 != dpkg.NEW_CONFFILE else None
        self.record = stanza.record                     # the name of its files in INFO, less what kind they are
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
        installed = [stanza for stanza in dpkg.stanzas(text) if stanza.state in dpkg.WORKING]
        self.packages = [Package(stanza, root) for stanza in installed]
        self.status = dpkg.text(map(without_obsolete, installed))       # for a system of these
        self.diverted = {path: (target, package) for path, (target, package) in
                         dpkg.diversions(root.lines(f"/{dpkg.DIVERSIONS}")).items() if package != dpkg.BY_ADMINISTRATOR}

    def installed_path(self, path: str, package: Package) -> str:
        """Return where a path of a package is in the system: elsewhere, if another package has it diverted."""
        target, by = self.diverted.get(path, (path, package.name))
        return path if by == package.name else target


def without_obsolete(stanza: dpkg.Stanza) -> dpkg.Stanza:
    """Return a stanza without conffiles that the installed version has not got."""
    kept = {path: md5 for path, md5 in stanza.conffiles.items() if " " not in md5}
    return stanza.changed(Conffiles=dpkg.conffiles_text(kept))


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
