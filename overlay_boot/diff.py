"""What a subhost has of its own, overlay-diff(8): UPPER, compared with what is beneath it.

Nothing of the subhost is executed, and nothing is mounted that it sees.
"""
import posix

from . import beneath, dpkg, files, hooks, overlayfs, paths, rootfs, state, trees
from .columns import columns
from .config import Config
from .errors import Failure, complain, doing
from .overlayfs import ABSENT, METACOPY, Entry, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .files import Fd
    Row = dict[str, Any]

ADDED, CHANGED, COPIED, REMOVED, RENAMED = "added", "changed", "copied", "removed", "renamed"
KINDS = {files.REGULAR: "file", files.DIRECTORY: "directory", files.SYMLINK: "symlink", files.PIPE: "fifo",
         files.SOCKET: "socket", files.CHARACTER_DEVICE: "device", files.BLOCK_DEVICE: "device"}
DEEPEST = 256           # directories in one another that are looked into
CHUNK = 1 << 18         # bytes that are compared at a time
BLOCK = 512             # bytes, of st_blocks
MIB = 1 << 20
EXAMPLES = 3            # paths that the summary names of each line


@doing("find what the subhost is made of")
def tree_of(name: str, config: str) -> Tree:
    """Return the tree of the subhost NAME: as it is on record, or as its configuration file has it now."""
    try:
        with state.State(name) as opened:
            record, keeper = opened.record(), opened.keeper()
    except FileNotFoundError:
        return configured(config)
    tree = trees.of_record(record, keeper, hides=False)
    if tree.own and len(tree) > 1:
        return tree
    if record.mount_point:
        raise Failure(f"UPPER of {name} is in memory, and out of reach")
    with tree:
        return configured(config)       # UPPER is in an IMAGE, or it is no overlay mount


def configured(path: str) -> Tree:
    """Return that of a configuration file, in a mount namespace of our own, in which an IMAGE is mounted."""
    host, own = rootfs.unshare_mounts()
    config = Config(path, "overlay-check")
    config.complete()
    if config.image:
        from . import diskfile
        diskfile.mount_image(config)
    return trees.of_config(config, host, own)


# The comparison

class Comparison:
    """UPPER, compared with what is beneath it."""

    __slots__ = ("below", "counted", "too_deep", "whole")

    def __init__(self, whole: Tree) -> None:
        self.whole = whole
        self.below = self.whole.beneath(1)
        self.counted: set[int] = set()          # inodes with several names
        self.too_deep = 0                       # directories that were not looked into

    def rows(self) -> "list[Row]":
        """Return a row for each file that differs, a directory before what is in it, with the package of each."""
        with self.whole.root() as root:
            found = [*self.directory("", root.parts[0][1], root.parts[1:], 0)]
        owners = dpkg.owners(self.whole, {row["path"] for row in found})
        stanzas = dpkg.stanzas(dpkg.read(self.whole, dpkg.STATUS))
        conffiles = {f"/{path}" for stanza in stanzas for path in stanza.conffiles}
        for row in found:
            row["package"] = owners.get(row["path"])
            row["conffile"] = row["path"] in conffiles
        return found

    def directory(self, place: str, upper: int, below: "list[tuple[int, Fd]]", depth: int) -> "Iterator[Row]":
        """Yield the rows of what is in a directory of UPPER, which has these parts beneath it."""
        if depth > DEEPEST:
            self.too_deep += 1
            return
        for name in overlayfs.listed(upper):
            path = f"{place}/{name}"
            try:
                status = posix.stat(name, dir_fd=upper, follow_symlinks=False)
            except FileNotFoundError:           # it has just gone
                continue
            with self.below.child(below, name, path) as there:
                if overlayfs.is_whiteout(status):
                    if there:
                        yield self.row(path, REMOVED, there)
                elif status.st_mode & files.KIND == files.DIRECTORY:
                    yield from self.inner(path, upper, status, there, depth)
                elif path != hooks.REAPER:
                    mine = Entry(status, above=upper)
                    try:
                        change = change_of(mine, there, name)
                    except OSError:             # it has just been replaced
                        change = CHANGED
                    yield self.row(path, change, mine, there)

    def inner(self, path: str, above: int, status: posix.stat_result, there: Entry, depth: int) -> "Iterator[Row]":
        """Yield the rows of a directory of UPPER, and of what is in it."""
        try:
            upper = beneath.opened(above, paths.name(path), files.PLACE | posix.O_NOFOLLOW, beneath.REFUSED)
        except OSError:                         # it has just gone
            return
        with upper:
            former = self.whole.former_path(upper, path)
            if former:
                with self.below.find(former) as renamed:
                    yield {**self.row(path, RENAMED, Entry(status)), "from": former}
                    yield from self.directory(path, upper, renamed.parts, depth + 1)
                return
            if there.kind != files.DIRECTORY or attributes(status) != attributes(there.status):
                yield self.row(path, CHANGED if there else ADDED, Entry(status), there)
            is_opaque = overlayfs.attribute(upper, overlayfs.OPAQUE) == b"y"
            if is_opaque:
                yield from self.hidden(path, set(overlayfs.listed(upper)), there)
            yield from self.directory(path, upper, there.parts, depth + 1)

    def hidden(self, place: str, own: set[str], there: Entry) -> "Iterator[Row]":
        """Yield what a directory of UPPER that is opaque, and has names of its own, hides beneath it."""
        for name in sorted(self.below.names(there.parts) - own):
            with self.below.child(there.parts, name, f"{place}/{name}") as entry:
                if entry:
                    yield self.row(f"{place}/{name}", REMOVED, entry)

    def row(self, path: str, change: str, entry: Entry, there: Entry = ABSENT) -> "Row":
        """Return a row; there is what is beneath."""
        is_newer = bool(there) and files.DIRECTORY not in (there.kind, entry.kind) and (
            there.status.st_ctime_ns > entry.status.st_ctime_ns)
        return {"path": path, "change": change, "kind": KINDS.get(entry.kind, "file"), "from": None, "package": None,
                "conffile": False, "newer": is_newer, "space": 0 if change == REMOVED else self.space(entry.status)}

    def space(self, status: posix.stat_result) -> int:
        """Return the bytes on the disk, those of a file with several names once."""
        if status.st_nlink > 1 and status.st_mode & files.KIND != files.DIRECTORY:
            if status.st_ino in self.counted:
                return 0
            self.counted.add(status.st_ino)
        return status.st_blocks * BLOCK


def attributes(status: posix.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def change_of(own: Entry, there: Entry, name: str) -> str:
    """Return what a file of UPPER, which is no directory, is to one of the same name beneath it."""
    if not there:
        return ADDED
    if attributes(own.status) != attributes(there.status) or own.status.st_size != there.status.st_size:
        return CHANGED
    if own.kind == files.REGULAR:
        is_same = has_same_bytes(own.above, there.above, name)
    elif own.kind == files.SYMLINK:
        is_same = posix.readlink(name, dir_fd=own.above) == posix.readlink(name, dir_fd=there.above)
    else:
        is_same = own.status.st_rdev == there.status.st_rdev
    return COPIED if is_same else CHANGED


def has_same_bytes(one: int, other: int, name: str) -> bool:
    """Tell whether the files of a name in two directories have the same content, or the first one has none of its own.

    Raises OSError if one has just been replaced by something else.
    """
    with beneath.opened(one, name, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED) as upper, \
            beneath.opened(other, name, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED) as lower:
        if files.kind_of(upper) != files.REGULAR or files.kind_of(lower) != files.REGULAR:
            return False                        # a device does something when it is opened
        if METACOPY in posix.listxattr(paths.of_descriptor(upper)):
            return True
        with files.opened(paths.of_descriptor(upper)) as mine, files.opened(paths.of_descriptor(lower)) as theirs:
            while (part := posix.read(mine, CHUNK)) == posix.read(theirs, CHUNK):
                if not part:
                    return True
    return False


@doing("compare the subhost with what is beneath it")
def compared(tree: Tree) -> "list[Row]":
    """Return a row for each file that a subhost has of its own: a dictionary, see overlay-diff(8)."""
    with tree:
        comparison = Comparison(tree)
        found = comparison.rows()
    if comparison.too_deep:
        complain(f"{comparison.too_deep} directories are in more than {DEEPEST} others, and were not looked into")
    return found


# What is printed

def size(space: int) -> str:
    return f"{space / MIB:.1f}M"


def table(rows: "list[Row]") -> str:
    """Return the text of a table of all rows."""
    return columns(("change", "space", "package", "path"), (
        [row["change"] + ("*" if row["newer"] else ""), size(row["space"]),
         f"{row['package'] or '-'}{' (conffile)' if row['conffile'] else ''}",
         row["path"] + ("/" if row["kind"] == "directory" else "") + (f" (from {row['from']})" if row["from"] else "")]
        for row in rows))


def summary(rows: "list[Row]") -> str:
    """Return the text of ten lines: how many files of each kind, their space, and the largest of them."""
    kinds: "list[tuple[str, Callable[[Row], object]]]" = [
        ("all", lambda row: True),
        *((change, lambda row, change=change: row["change"] == change)
          for change in (ADDED, CHANGED, COPIED, RENAMED, REMOVED)),
        ("of packages", lambda row: row["package"]),
        ("conffiles", lambda row: row["conffile"]),
        ("newer outside", lambda row: row["newer"]),
    ]
    return columns(("what", "files", "space", "the largest"), (line(title, [*filter(is_one, rows)])
                                                                for title, is_one in kinds))


def line(title: str, rows: "list[Row]") -> list[str]:
    counted = [row for row in rows if row["kind"] != "directory" or row["change"] in (REMOVED, RENAMED)]
    largest = sorted(counted, key=lambda row: row["space"], reverse=True)[:EXAMPLES]
    return [title, str(len(counted)), size(sum(row["space"] for row in rows)),
            " ".join(row["path"] for row in largest) or "-"]
