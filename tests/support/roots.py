"""Root file systems of the machine's own suite of Debian, which take minutes to make, and are kept for a week."""
import os
import re
import time

from machine import read, run

CACHE, WEEK = "/var/cache/overlay-boot-suites", 7 * 24 * 3600      # as in tests/shell/root.sh


def suite():
    """The suite, or "" if the machine is not Debian."""
    found = re.search("^VERSION_CODENAME=(.*)$", read("/etc/os-release"), re.MULTILINE)
    return found[1] if found else ""


def sources(of=None):
    """The machine's own package sources that are Debian's; of another suite, if it is to be that."""
    said = run("apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE) $(RELEASE)", "Created-By: Packages").stdout
    words = sorted({tuple(line.split()) for line in said.splitlines() if line.startswith("Debian ")})
    if of and of != suite():
        return "".join(f"deb {site} {of} main\n" for _, site, release in words if release == suite())
    return "".join(f"deb {site} {release} main\n" for _, site, release in words if "backports" not in release)


def archive(kind, packages, hooks, seconds, suite):
    """The path of a tar archive of a root with these packages; hooks are mmdebstrap's.  RuntimeError if that fails."""
    path = f"{CACHE}/{suite}.{kind}.tar"
    if not os.path.exists(path) or time.time() - os.stat(path).st_mtime > WEEK:
        options = [line for line in run("apt-config", "dump").stdout.splitlines() if re.match("Acquire::(http|Check-)", line)]
        os.makedirs(CACHE, exist_ok=True)
        done = run("mmdebstrap", "--quiet", "--mode=root", "--format=tar", "--variant=minbase", "--skip=cleanup/apt/lists",
                   f"--include={packages}", *(f"--aptopt={option}" for option in options),
                   *(f"--customize-hook={hook}" for hook in hooks), suite, f"{path}.new", "-",
                   input=sources(suite), seconds=seconds)
        if done.returncode:
            raise RuntimeError(f"mmdebstrap failed: {done.stderr}")
        os.rename(f"{path}.new", path)
    return path
