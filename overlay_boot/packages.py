"""The packages of a Debian system: what dpkg(1) has on record of them, and their archives.

deb(5), dpkg-query(1); the files of /var/lib/dpkg are described in the
Debian Policy and in dpkg's doc/.
"""
import os
import subprocess

from .errors import Failure, complain, reason

CACHE = "var/cache/apt/archives"


class Package:
    """An installed package."""

    __slots__ = ("architecture", "conffiles", "name", "obsolete", "paths", "priority", "record", "version")

    def __init__(self, fields, directory):
        self.name, self.version = fields["Package"], fields["Version"]
        self.architecture = fields["Architecture"]
        self.priority = fields.get("Priority", "")
        self.conffiles, self.obsolete = {}, set()
        for line in fields.get("Conffiles", "").splitlines():
            path, md5, *flags = line.rsplit(" ", 2) if line.endswith((" obsolete", " remove-on-upgrade")) \
                else line.rsplit(" ", 1)
            if flags:
                self.obsolete.add(path)
            else:
                self.conffiles[path] = md5 if md5 != "newconffile" else None     # never installed: removed before
        record = f"{directory}/info/{self.name}:{self.architecture}"
        self.record = record if os.path.exists(record + ".list") else f"{directory}/info/{self.name}"
        self.paths = [path for path in lines(self.record + ".list") if path not in self.obsolete]

    def sums(self):
        """{path: md5} of the files that are no conffiles; empty if the package has none on record."""
        parted = (line.partition("  ") for line in lines(self.record + ".md5sums"))
        return {f"/{path}": md5 for md5, _, path in parted if path}

    def script(self, name):
        """The text of a maintainer script; "" if it has none, or none for a shell."""
        try:
            with open(f"{self.record}.{name}", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except FileNotFoundError:
            return ""
        return text if text.startswith(("#!/bin/sh", "#! /bin/sh", "#!/bin/bash", "#! /bin/bash")) else ""


def lines(path):
    """The lines of a record; none if there is no such record."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


class Database:
    """dpkg's records of the system in the directory root.  Raises Failure if there are none."""

    def __init__(self, root):
        self.directory = f"{root}/var/lib/dpkg"
        try:
            with open(f"{self.directory}/status", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError as error:
            raise Failure(f"cannot read {self.directory}/status: {error.strerror}") from None
        stanzas = [(stanza, fields(stanza)) for stanza in text.split("\n\n") if stanza.strip()]
        installed = [(stanza, found) for stanza, found in stanzas if is_installed(found)]
        self.packages = [Package(found, self.directory) for _, found in installed]
        self.status = "".join(without_obsolete(stanza.strip("\n")) + "\n\n" for stanza, _ in installed)
        self.diverted = diversions(f"{self.directory}/diversions")

    def place(self, path, package):
        """Where a path of a package is in the system: elsewhere, if another package has it diverted."""
        target, by = self.diverted.get(path, (path, package.name))
        return path if by == package.name else target


def fields(stanza):
    """{field: value} of a stanza of deb822(5); the further lines of a value without their leading space."""
    found, name = {}, None
    for line in stanza.splitlines():
        if line[:1] == " " and name:
            found[name] += line[1:] + "\n"
        else:
            name, _, value = line.partition(":")
            found[name] = value.strip()
    return found


def is_installed(found):
    state = found.get("Status", "").split()
    return len(state) == 3 and state[2] in ("installed", "triggers-awaited", "triggers-pending")


def without_obsolete(stanza):
    """A stanza of the status file without conffiles that the installed version has not got."""
    return "\n".join(line for line in stanza.split("\n")
                     if not (line.startswith(" /") and line.endswith((" obsolete", " remove-on-upgrade"))))


def diversions(path):
    """{path: (where it is diverted to, the package that diverts it)}; those of administrators are left out."""
    found = lines(path)
    return {one: (target, package) for one, target, package in zip(found[::3], found[1::3], found[2::3])
            if package != ":"}


def archives(packages, root, directory, *, offline):
    """{package: its archive}: of the very versions that are installed, from apt's cache or fetched to directory.

    A package that cannot be had is not in it.
    """
    found = {}
    for package in packages:
        name = f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
        path = f"{root}/{CACHE}/{name}"
        if os.path.isfile(path):
            found[package] = path
        else:
            found[package] = None if offline else f"{directory}/{name}"
    wanted = [package for package, path in found.items() if path and path.startswith(f"{directory}/")]
    # All at once, which is quick; one that is gone from its source hinders all the others.
    if wanted and not download(wanted, root, directory) and len(wanted) > 1:
        for package in wanted:
            download([package], root, directory)
    return {package: path for package, path in found.items() if path and os.path.isfile(path)}


def download(packages, root, directory):
    """Fetch archives with apt-get(8), which checks their signatures; whether it has got all of them."""
    words = [f"{package.name}:{package.architecture}={package.version}" for package in packages]
    return apt(["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::http::Timeout=20", "download", *words],
               root, directory) is not None


def apt(words, root, directory):
    """What apt-get(8) prints, of the sources of the system in root; None if it fails."""
    configuration = f"{directory}/apt.conf"
    with open(configuration, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f'Dir "{root}/";\n')
    try:
        done = subprocess.run(["apt-get", *words], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, env={**os.environ, "APT_CONFIG": configuration, "LC_ALL": "C"},
                              encoding="utf-8", errors="surrogateescape", check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def members(archive):
    """(member, its content as a file or None) of the files of an archive, in order; paths as /etc/x.

    Of one that is broken it is what comes before the fault, which is complained of.
    """
    import tarfile
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|", errorlevel=0) as tar:
                for member in tar:
                    member.name = "/" + member.name.removeprefix(".").strip("/")
                    yield member, tar.extractfile(member) if member.isreg() else None
        except (tarfile.TarError, OSError, EOFError) as error:
            complain(f"cannot read {archive}: {reason(error) if isinstance(error, OSError) else error}")
        finally:
            process.stdout.close()
