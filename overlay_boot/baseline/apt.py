"""What apt-get(8) does for a baseline: it fetches packages' archives, and tells the sources of packages."""
import os
import subprocess
from collections.abc import Iterable

from .. import paths, progress
from .packages import Package
from .root import Root

CACHE = "/var/cache/apt/archives"
TIMEOUT = 20        # seconds, for each source


def fetch(packages: Iterable[Package], root: Root, directory: str, *, offline: bool) -> dict[Package, str]:
    """Return {package: the path of its archive}, of the very versions that are installed.

    An archive comes from apt's cache, or is fetched into the directory unless this is to be offline.  A package that
    cannot be had is not in it.
    """
    found: dict[Package, str] = {}
    wanted = []
    for package in packages:
        name = f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
        found[package] = root.path_of(f"{CACHE}/{name}")
        if not os.path.isfile(found[package]) and not offline:
            found[package] = f"{directory}/{name}"
            wanted.append(package)
    # All at once, which is quick; one that is gone from its source hinders all the others.
    if wanted and not download(wanted, root, directory) and len(wanted) > 1:
        for package in wanted:
            download([package], root, directory)
    return {package: path for package, path in found.items() if os.path.isfile(path)}


def download(packages: list[Package], root: Root, directory: str) -> bool:
    """Fetch archives into the directory; apt checks their signatures.  Tell whether it has got all of them."""
    progress.tell(f"fetching {', '.join(package.name for package in packages)}")
    words = [f"{package.name}:{package.architecture}={package.version}" for package in packages]
    options = ["-q", "-o", "APT::Sandbox::User=root", "-o", f"Acquire::http::Timeout={TIMEOUT}"]
    return apt_get([*options, "download", *words], root, directory) is not None


def sources(root: Root, directory: str) -> list[str]:
    """Return the lines of sources.list(5) for the sources that are the distribution's own, without any password."""
    vendor = paths.name(os.path.realpath(root.path_of("/etc/dpkg/origins/default")))
    wanted = "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)"
    said = apt_get(["indextargets", "--format", wanted, "Created-By: Packages"], root, directory) or ""
    keyring = f"/usr/share/keyrings/{vendor}-archive-keyring.gpg"
    signed = f"[signed-by={keyring}] " if root.has(keyring) else ""
    components: dict[tuple[str, str], dict[str, None]] = {}
    for words in map(str.split, said.splitlines()):
        if len(words) == 4 and words[0].lower() == vendor and "@" not in words[1]:
            components.setdefault((words[1], words[2]), {})[words[3]] = None
    return [f"deb {signed}{uri} {release} {' '.join(found)}" for (uri, release), found in components.items()]


def apt_get(words: list[str], root: Root, directory: str) -> str | None:
    """Run apt-get(8) in the directory with the sources of the system.  Return what it prints; None if it fails."""
    configuration = f"{directory}/apt.conf"
    with open(configuration, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f'Dir "{root.directory}/";\n')
    try:
        done = subprocess.run(["apt-get", *words], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, env={**os.environ, "APT_CONFIG": configuration, "LC_ALL": "C"},
                              encoding="utf-8", errors="surrogateescape", check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
