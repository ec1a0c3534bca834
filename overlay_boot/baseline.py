"""The story of a baseline, as in overlay-baseline(8): a layer that shows a system as its packages shipped it."""
import os
import stat

from . import BASELINE_MARK, beneath, files, paths, rootfs
from .accounts import Accounts
from .errors import complain
from .maintainer import run_scripts
from .packages import Database, apt
from .records import copy_records, restore_alternatives
from .shipped import Shipped, report, restore_registered
from .tree import Tree, set_xattr
from .workshop import Workshop, base_of, configurations, discard, place

# What the Filesystem Hierarchy Standard has in the root directory besides the
# software, which is shared. Whatever else no package ships, administrators made.
FILLED = ("etc", "var")
EMPTY = ("boot", "dev", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp")
MODES = {"root": 0o700, "tmp": 0o1777}
LOCAL = "/usr/local"

IDENTITIES = ("/etc/hostname", "/etc/mailname", "/var/lib/dbus/machine-id", "/var/lib/systemd/random-seed",
              "/var/lib/systemd/credential.secret")
KEY, LARGEST_KEY = b"PRIVATE KEY-----", 1 << 16
BACKUPS = ("passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-")

HOSTS = b"""\
127.0.0.1\tlocalhost
::1\t\tlocalhost ip6-localhost ip6-loopback
ff02::1\t\tip6-allnodes
ff02::2\t\tip6-allrouters
"""
FSTAB = b"# The mounts of a subhost are made by overlay-boot(8).\n"
RESOLVER = (b"nameserver", b"search", b"domain", b"options")


def make(directory, root="", *, offline=False):
    """Make the baseline of the system in root, or make it anew; whether all of it could be had.

    Raises Failure, with what was there left as it was, if it cannot be made.
    """
    os.umask(0o022)
    directory = place(directory)
    with Workshop(directory) as workshop:
        rootfs.unshare_mounts()                 # what is mounted here goes with this process
        database, accounts = Database(root), Accounts(root)
        tree = Tree(workshop.layer)
        try:
            cover(tree, root, database, accounts)
            missing = restore(tree, root, database, accounts, workshop.archives, offline)
            failed = configure(tree, root, database, workshop)
            anonymise(tree, accounts)
            connect(tree, root, workshop.archives)
            set_xattr(tree.fd, BASELINE_MARK, b"1")
        finally:
            tree.close()
        for name in failed:
            complain(f"cannot configure {name}: its maintainer script failed")
        workshop.deliver()
    return not (missing or failed)


def cover(tree, root, database, accounts):
    """Hide all in the root directory but the software, and in that what administrators and subhosts have there."""
    shipped = {path for package in database.packages for path in package.paths if path.count("/") == 1}
    for name in (*FILLED, *EMPTY):
        attributes = as_on(root, f"/{name}", accounts, MODES.get(name, 0o755))
        tree.directory(f"/{name}", *attributes, opaque=True)
    for entry in os.scandir(root or "/"):
        is_software = f"/{entry.name}" in shipped or entry.is_symlink() and leads_to_usr(os.readlink(entry.path))
        if entry.name not in (*FILLED, *EMPTY) and not is_software:
            tree.hide(f"/{entry.name}")
    tree.directory("/usr", *as_on(root, "/usr", accounts))
    tree.directory(LOCAL, *as_on(root, LOCAL, accounts), opaque=True)
    for here, assigned in configurations():
        base = base_of(here, assigned)
        if base:
            hide_subhost(tree, root, base, accounts)


def as_on(root, path, accounts, mode=0o755):
    """(mode, owner) of a directory of the system; as given, if it has none."""
    try:
        info = os.lstat(root + path)
    except FileNotFoundError:
        return mode, (0, 0)
    return (stat.S_IMODE(info.st_mode), accounts.owner(info)) if stat.S_ISDIR(info.st_mode) else (mode, (0, 0))


def leads_to_usr(target):
    return target.removeprefix("/").startswith("usr/")


def hide_subhost(tree, root, base, accounts):
    """Hide a subhost's directory, where that is among the software of the system."""
    if not base.startswith((root or "") + "/usr/") or not os.path.isdir(base):
        return
    path = base.removeprefix(root)
    if path.startswith(LOCAL + "/") or tree.has(path):
        return
    parts = path.split("/")[1:]
    for count in range(1, len(parts)):
        above = "/" + "/".join(parts[:count])
        tree.directory(above, *as_on(root, above, accounts))
    tree.hide(path)


def restore(tree, root, database, accounts, directory, offline):
    """Write what packages shipped, and the records of them; what could not be had."""
    missing = Shipped(database, root, accounts).restore(tree, directory, offline=offline)
    report(missing)
    unknown = restore_registered(tree, root, database, accounts)
    for path in unknown:
        complain(f"cannot get {path} as its package has registered it")
    copy_records(tree, root, database, accounts)
    restore_alternatives(tree, root)
    anonymise(tree, accounts)
    return missing or unknown


def configure(tree, root, database, workshop):
    """Have maintainer scripts make what they make; in /etc, /var and /usr/local, and no logs or caches."""
    shared, noted = set(in_shared(workshop.layer)), notes(tree)
    failed = run_scripts(root, workshop.layer, workshop.path, database.packages)
    for path in sorted(set(in_shared(workshop.layer)) - shared):
        discard(f"{workshop.layer}{path}")
    for path in notes(tree) - noted:
        tree.remove(path)
    return failed


def anonymise(tree, accounts):
    """Nobody's accounts and no machine's identity, whatever scripts have made of them."""
    accounts.write(tree)
    for name in BACKUPS:
        tree.remove(f"/etc/{name}")
    for path in IDENTITIES:
        tree.remove(path)
    tree.file("/etc/machine-id", b"", 0o444)    # machine-id(5): to be found at the first boot
    tree.file("/etc/hosts", HOSTS)
    tree.file("/etc/fstab", FSTAB)
    tree.link("/etc/mtab", "../proc/self/mounts")
    for top in FILLED:
        for path, size in list(tree.regular_files(f"/{top}")):
            if size <= LARGEST_KEY and KEY in tree.read(path) and not path.startswith("/var/lib/dpkg/"):
                tree.remove(path)
                tree.remove(f"{path}.pub")


def notes(tree):
    """The logs and caches that have anything in them; debconf's cache is no cache, but its memory."""
    return {path for top in ("/var/cache", "/var/log") for path, size in tree.regular_files(top)
            if size and not path.startswith("/var/cache/debconf/")}


def connect(tree, root, directory):
    """What a system has to know of where it is: its name servers, and the distribution's package sources."""
    at = os.open(root or "/", files.PLACE)
    try:
        text = beneath.read(at, "etc/resolv.conf", 1 << 16, beneath.INSIDE)
    except OSError:
        text = b""
    finally:
        os.close(at)
    lines = [line for line in text.splitlines() if line.startswith(RESOLVER)]
    tree.file("/etc/resolv.conf", b"".join(line + b"\n" for line in lines))
    sources = distribution_sources(root, directory)
    if sources:
        tree.file("/etc/apt/sources.list", os.fsencode("".join(f"{line}\n" for line in sources)))


def distribution_sources(root, directory):
    """The lines of sources.list(5) for the sources that are the distribution's own, without any password."""
    vendor = paths.name(os.path.realpath(f"{root}/etc/dpkg/origins/default"))
    said = apt(["indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
               root, directory) or ""
    keyring = f"/usr/share/keyrings/{vendor}-archive-keyring.gpg"
    signed = f"[signed-by={keyring}] " if os.path.exists(root + keyring) else ""
    found = {}
    for words in map(str.split, said.splitlines()):
        if len(words) == 4 and words[0].lower() == vendor and "@" not in words[1]:
            found.setdefault((words[1], words[2]), {})[words[3]] = None
    return [f"deb {signed}{uri} {release} {' '.join(components)}" for (uri, release), components in found.items()]


def in_shared(layer):
    """The paths that the layer has among the software of the system: what hides something, or scripts have made."""
    for top in os.listdir(layer):
        if top in (*FILLED, *EMPTY):
            continue
        yield f"/{top}"
        for here, directories, files in os.walk(f"{layer}/{top}"):
            at = here.removeprefix(layer)
            if at == paths.parent(LOCAL):
                directories[:] = [name for name in directories if name != paths.name(LOCAL)]
            for name in (*directories, *files):
                yield f"{at}/{name}"
