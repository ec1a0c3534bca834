"""What the host had when the packages of a subhost followed it last, in a directory for its UPPER: sources.followed().

What is kept there has the names in KEPT, and those below.
"""
import posix

from . import beneath, files, paths
from .dpkg import DIVERSIONS, LONGEST, RECORDS, STATUS, lines_of
from .errors import doing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

OVERRIDES, ARCHITECTURES = f"{RECORDS}/statoverride", f"{RECORDS}/arch"
MD5SUMS = "md5sums"         # of all files of packages, compressed
CHOSEN = "alternatives"     # what the links of update-alternatives(1) lead to: a name and a path in each line
KEPT = {"passwd": "etc/passwd", "group": "etc/group", "statoverride": OVERRIDES, "diversions": DIVERSIONS,
        "arch": ARCHITECTURES, "status": STATUS}       # in this order: the status is what counts
UNFINISHED = "unfinished"   # the packages that were not configured before it, each in a line: they are left alone
SHOWN = "shown"             # the path of what UPPER has ceased to hide, but for a whiteout that may be there still


def kept(store: str, name: str) -> bytes:
    """Return what the host had in a file when it was followed last, b"" if that is not known."""
    try:
        with files.opened(f"{store}/{name}", posix.O_RDONLY) as fd:
            return files.read_all(fd)
    except FileNotFoundError:
        return b""


def kept_lines(store: str, name: str) -> list[str]:
    return lines_of(paths.decode(kept(store, name)))


def is_kept(store: str, name: str) -> bool:
    return bool(files.kind(f"{store}/{name}"))


def make(store: str) -> None:
    """Make the directory, unless it is there; only root can open it."""
    for path in (paths.parent(store), store):
        files.make_directory(path, 0o700)


@doing("keep what the host has")
def keep(store: str, found: dict[str, bytes], *, sync: bool = True) -> None:
    """Keep what the host has, for the next time: {name: data}.  With sync it is on the disk then."""
    make(store)
    for name, data in found.items():
        if data != kept(store, name) or not is_kept(store, name):
            with files.opened(f"{store}/.{name}", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600) as fd:
                files.write_all(fd, data)
                if sync:
                    posix.fsync(fd)
            posix.rename(f"{store}/.{name}", f"{store}/{name}")


def forget(store: str, names: "Iterable[str]" = (*KEPT, MD5SUMS, CHOSEN, UNFINISHED, SHOWN)) -> None:
    """Have nothing kept of these."""
    for name in names:
        try:
            posix.unlink(f"{store}/{name}")
        except FileNotFoundError:
            pass


def begin(store: str, lower: list[str], *, is_new: bool) -> None:
    """Keep what the host has when a subhost is booted for the first time.

    lower are the directories beneath UPPER, the topmost first.  is_new tells that UPPER has just been made: what was
    kept for another one before does not count.
    """
    if is_new:
        forget(store)
    elif is_kept(store, "status"):
        return
    found = {name: content(lower, path) for name, path in KEPT.items()}
    if found["status"]:
        keep(store, found, sync=False)


def content(directories: list[str], path: str) -> bytes:
    """Return the content of the file that the first of the directories has which has any."""
    for directory in directories:
        with files.opened(directory, files.PLACE) as root:
            data = beneath.content(root, path, LONGEST, beneath.INSIDE)
        if data:
            return data
    return b""
