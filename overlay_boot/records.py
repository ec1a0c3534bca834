"""The records of dpkg(1) and the tools beside it, for the packages in a layer to be managed with."""
import os
import stat

from . import paths
from .packages import lines
from .shipped import leads_into_system

DPKG = "/var/lib/dpkg"
DPKG_FILES = ("arch", "available", "diversions", "info/format", "triggers/File")
TOOLS_FILES = ("/var/lib/apt/extended_states", "/var/lib/ucf/hashfile", "/var/lib/ucf/registry")


def copy_records(tree, root, database, accounts):
    """dpkg's database, less what administrators put into it, and what apt and ucf remember of the packages."""
    for made in ("", "/info", "/updates", "/parts", "/triggers", "/alternatives"):
        tree.directory(DPKG + made)
    tree.file(f"{DPKG}/status", os.fsencode(database.status))
    for path in (*(f"{DPKG}/{name}" for name in DPKG_FILES), *TOOLS_FILES):
        copy(tree, root, path)
    for name in os.listdir(f"{root}{DPKG}/triggers"):
        if name[0].islower():                   # who is interested in it; Lock and Unincorp are of a run
            copy(tree, root, f"{DPKG}/triggers/{name}")
    copy_info(tree, root, database)
    names = {row[0] for row in (*accounts.users, *accounts.groups)}
    overrides = [line for line in lines(f"{root}{DPKG}/statoverride") if set(line.split()[:2]) <= names]
    tree.file(f"{DPKG}/statoverride", os.fsencode("".join(f"{line}\n" for line in overrides)))


def copy_info(tree, root, database):
    """The records of each package; in its list of paths no conffile that the installed version has not got."""
    packages = {paths.name(package.record): package for package in database.packages}
    for name in os.listdir(f"{root}{DPKG}/info"):
        record, _, kind = name.rpartition(".")
        if record not in packages:
            continue
        if kind == "list" and packages[record].obsolete:
            text = "".join(f"{path}\n" for path in packages[record].paths)
            tree.file(f"{DPKG}/info/{name}", os.fsencode(text))
        else:
            copy(tree, root, f"{DPKG}/info/{name}")


def copy(tree, root, path):
    """A regular file, if there is one."""
    try:
        fd = os.open(root + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode):
            tree.file(path, file.read(), stat.S_IMODE(info.st_mode))


class Alternative:
    """A group of update-alternatives(1), with those of its choices that packages can have brought."""

    def __init__(self, root, name):
        self.name, self.root = name, root
        rest = iter(lines(f"{root}{DPKG}/alternatives/{name}"))
        next(rest, None)                        # auto or manual: it will be auto
        self.link = next(rest, "")
        self.slaves = [(slave, next(rest, "")) for slave in iter(lambda: next(rest, ""), "")]
        choices = [(path, next(rest, ""), [next(rest, "") for _ in self.slaves])
                   for path in iter(lambda: next(rest, ""), "")]
        self.choices = [choice for choice in choices if choice[1].lstrip("-").isdigit() and self.is_shipped(choice[0])]

    def is_shipped(self, path):
        return leads_into_system("/", path) and os.path.lexists(self.root + path)

    def text(self):
        words = ["auto", self.link, *(word for slave in self.slaves for word in slave), ""]
        for path, priority, slaves in self.choices:
            words += [path, priority, *slaves]
        return "\n".join([*words, "", ""])

    def links(self):
        """(path, target) of each symbolic link that update-alternatives makes in /etc and /var."""
        path, _, slaves = max(self.choices, key=lambda choice: int(choice[1]))
        made = [(self.name, self.link, path), *((*slave, to) for slave, to in zip(self.slaves, slaves))]
        for name, link, target in made:
            if target and os.path.lexists(self.root + target):
                yield f"/etc/alternatives/{name}", target
                if link.startswith(("/etc/", "/var/")):
                    yield link, f"/etc/alternatives/{name}"


def restore_alternatives(tree, root):
    """Every alternative as update-alternatives(1) chooses it by itself."""
    for name in os.listdir(f"{root}{DPKG}/alternatives"):
        one = Alternative(root, name)
        if not one.choices:
            continue
        tree.file(f"{DPKG}/alternatives/{name}", os.fsencode(one.text()))
        for path, target in one.links():
            tree.link(path, target)
