"""What maintainer scripts make, made again by them.

The scripts of the base system run as a whole, as at a first installation; of all others only the sections that
debhelper(7) wrote, which are known to do no more than to enable services and the like.
"""
from shlex import quote

from .. import paths, progress
from ..errors import complain
from . import alternatives, confinement, hidden
from .layer import Layer
from .packages import INFO, Package
from .system import System
from .workshop import Workshop, discard

BASE_SYSTEM = ("required", "important", "standard")         # priorities, Debian Policy 2.5
# What the others of the base system take for given.
FIRST = ("base-passwd", "base-files", "dpkg", "libc-bin", "debconf", "ucf", "debianutils", "passwd", "login")
SECTIONS = ("dh_installinit", "dh_installsystemd", "dh_installsystemduser", "dh_apparmor", "dh_ucf", "dh_runit",
            "dh_systemd_enable", "dh_installnss")
BEGIN, END = "# Automatically added by ", "# End automatically added section"

# First what the scripts build upon, last what triggers would do.
PROLOGUE = f"""\
{alternatives.SCRIPT}\
export DPKG_MAINTSCRIPT_NAME=postinst DPKG_MAINTSCRIPT_DEBUG=0
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true UCF_FORCE_CONFFNEW=1
"""
EPILOGUE = """\
for command in "systemd-tmpfiles --create --prefix=/etc --prefix=/var" ldconfig; do
    if command -v "${command%% *}"; then $command; fi
done
true
"""
STEP = "step "
FAILURES = {"package": "cannot configure {}: its maintainer script failed",
            "alternative": "cannot choose the alternative {}: update-alternatives(1) failed"}


def run(layer: Layer, system: System, workshop: Workshop) -> bool:
    """Have the scripts make what they make, and choose alternatives; tell whether all succeeded.  Failures are told.

    What they make is kept in /etc and /var but for logs and caches, and in /usr/local.
    """
    shared, written = set(hidden.in_software(workshop.layer)), logs_and_caches(layer)
    progress.tell("choosing the alternatives")
    said = confinement.run(script(system.database.packages), system, workshop, tell_step)
    for path in sorted(set(hidden.in_software(workshop.layer)) - shared):
        discard(f"{workshop.layer}{path}")
    for path in logs_and_caches(layer) - written:
        layer.remove(path)
    failed = [line.partition(" ") for line in said if not line.startswith(STEP)]
    for kind, _, name in failed:
        complain(FAILURES[kind].format(name))
    return not failed


def tell_step(said: bytes) -> None:
    """Show the package that is configured, by what the script has told so far."""
    line = paths.decode(said).rpartition("\n")[0].rpartition("\n")[2]
    if line.startswith(STEP):
        progress.tell(f"running maintainer scripts {line.removeprefix(STEP)}")


def logs_and_caches(layer: Layer) -> set[str]:
    """Return the logs and caches that have anything in them; debconf's cache is no cache, but its memory."""
    return {path for top in ("/var/cache", "/var/log") for path, size in layer.regular_files(top)
            if size and not path.startswith("/var/cache/debconf/")}


def script(packages: list[Package]) -> str:
    """Return the shell commands that run every script, and tell of those that fail: see confinement.py."""
    parts = []
    for package in sorted(packages, key=rank):
        text = package.script("postinst")
        if package.priority in BASE_SYSTEM and text:
            words = f"{quote(f'{INFO}/{package.record}.postinst')} configure ''"
        else:
            words = sections(text)
        if words:
            parts.append((package.name,
                         f"( set -e; export DPKG_MAINTSCRIPT_PACKAGE={quote(package.name)}\n"
                         f"export DPKG_MAINTSCRIPT_ARCH={quote(package.architecture)}\n"
                         f"export DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1\n"
                         f"set -- install\n{sections(package.script('preinst'))}\n"
                         f"set -- configure ''\n{words}\n) 3>&-\n"
                         f"[ $? -eq 0 ] || echo package {quote(package.name)} >&3\n"))
    steps = (f"echo {STEP}{quote(f'({number} of {len(parts)}): {name}')} >&3\n{part}"
             for number, (name, part) in enumerate(parts, 1))
    return "".join([PROLOGUE, *steps, EPILOGUE])


def rank(package: Package) -> tuple[bool, int, str]:
    """Return what orders packages: the base system comes first."""
    place = FIRST.index(package.name) if package.name in FIRST else len(FIRST)
    return package.priority not in BASE_SYSTEM, place, package.name


def sections(text: str) -> str:
    """Return the sections of a maintainer script that debhelper has written, of the tools in SECTIONS."""
    kept, is_theirs = [], False
    for line in text.splitlines():
        if line.startswith(BEGIN):
            is_theirs = line[len(BEGIN):].partition("/")[0].strip() in SECTIONS
        elif line.startswith(END):
            is_theirs = False
        elif is_theirs:
            kept.append(line)
    return "\n".join(kept)
