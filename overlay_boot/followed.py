"""What the host had when the packages of a subhost followed it last, in a directory for its UPPER: sources.followed().

What is kept there has the names in KEPT, and those below.  BASE may be inside of UPPER, and so the subhost's own: no
symbolic link in it is followed.
"""
import posix

from . import beneath, files, paths
from .dpkg import DIVERSIONS, LONGEST, RECORDS, STATUS, lines_of
from .errors import doing
from .files import Fd

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
        with directory(store) as at:
            return beneath.content(at, name, LONGEST, beneath.REFUSED)
    except FileNotFoundError:
        return b""


def kept_lines(store: str, name: str) -> list[str]:
    return lines_of(paths.decode(kept(store, name)))


def is_kept(store: str, name: str) -> bool:
    return bool(files.kind(f"{store}/{name}"))


def directory(store: str, *, make: bool = False) -> Fd:
    """Return a descriptor of the directory, a place to start from; with make, one that only root can open is made."""
    above = paths.parent(store)
    base = paths.parent(above)
    with files.opened(base, files.PLACE) as at:
        return beneath.directory(at, f"{paths.name(above)}/{paths.name(store)}", beneath.REFUSED,
                                 make=0o700 if make else None)


def write(at: int, name: str, data: bytes, *, part: str, sync: bool) -> None:
    """Write or replace a file in the directory of a descriptor, which has the name part until it is whole."""
    try:
        posix.unlink(part, dir_fd=at)               # of one that was killed
    except FileNotFoundError:
        pass
    with files.opened(part, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o600, directory=at) as fd:
        files.write_all(fd, data)
        if sync:
            posix.fsync(fd)
    posix.rename(part, name, src_dir_fd=at, dst_dir_fd=at)


@doing("keep what the host has")
def keep(store: str, found: dict[str, bytes], *, sync: bool = True) -> None:
    """Keep what the host has, for the next time: {name: data}.  With sync it is on the disk then."""
    with directory(store, make=True) as at:
        for name, data in found.items():
            if data != kept(store, name) or not is_kept(store, name):
                write(at, name, data, part=f".{name}", sync=sync)


def forget(store: str, names: "Iterable[str]" = (*KEPT, MD5SUMS, CHOSEN, UNFINISHED, SHOWN)) -> None:
    """Have nothing kept of these."""
    try:
        at = directory(store)
    except FileNotFoundError:
        return
    with at:
        for name in names:
            try:
                posix.unlink(name, dir_fd=at)
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
