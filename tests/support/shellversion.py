"""overlay-boot 1.6.4, the set of shell scripts that this program replaces, out of Debian's unstable suite."""
import glob
import os
import shutil

from machine import TREE, run

VERSION = "1.6.4-1"
DOWNLOADS = f"{TREE}/build/shellversion"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unavailable(Exception):
    """It cannot be had here; why not."""


def unpacked(directory):
    """Unpack it into the directory; the path of its program directory."""
    done = run("dpkg-deb", "--extract", package(), directory)
    if done.returncode:
        raise Unavailable(done.stderr.strip())
    return f"{directory}/var/lib/overlay-boot"


def package():
    """The .deb, which is downloaded once."""
    pattern = f"{DOWNLOADS}/overlay-boot_{VERSION}_*.deb"
    if not glob.glob(pattern):
        download()
    return glob.glob(pattern)[0]


def download():
    """By apt with package lists of its own: the machine's are not touched."""
    source = unstable()
    os.makedirs(f"{DOWNLOADS}/lists/partial", exist_ok=True)
    with open(f"{DOWNLOADS}/unstable.list", "w") as file:
        file.write(source)
    options = ["-q", "-o", f"Dir::Etc::SourceList={DOWNLOADS}/unstable.list", "-o", "Dir::Etc::SourceParts=/dev/null",
               "-o", f"Dir::State::Lists={DOWNLOADS}/lists", "-o", f"Dir::Cache={DOWNLOADS}/cache",
               "-o", "APT::Sandbox::User=root"]
    try:
        for words in (["update"], ["download", f"overlay-boot={VERSION}"]):
            done = run("apt-get", *options, *words, cwd=DOWNLOADS, seconds=200)
            if done.returncode or not words[1:] and "Err:" in done.stdout:
                raise Unavailable(f"apt-get {words[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    finally:
        for made in ("lists", "cache"):
            shutil.rmtree(f"{DOWNLOADS}/{made}", ignore_errors=True)


def unstable():
    """The source line of the unstable suite, from where the machine gets its own packages."""
    done = run("apt-get", "indextargets", "--format", "$(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for line in done.stdout.splitlines():
        label, component, place = line.split()
        if (label, component) == ("Debian", "main"):
            signed = f" [signed-by={KEYRING}]" if os.path.exists(KEYRING) else ""
            return f"deb{signed} {place} sid main\n"
    raise Unavailable("apt knows no archive of Debian's here")
