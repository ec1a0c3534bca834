"""UPPER and WORK of an overlay mount: that no other subhost has them in use, and over which LOWER UPPER was made.

The kernel mounts two overlays of one UPPER, and says in its log that what comes of it is undefined.  What subhosts that
run have in use is on record.  So that a boot need not read the records of all others, UPPER and WORK have a mark, an
extended attribute with the name of the subhost that had them last: as long as it is still there, and no directory above
them has one, nobody else has had them, or anything in them.  Whoever takes them replaces the mark, whoever takes a
directory below removes it, and both read the records.

Another mark on UPPER tells of LOWER.  It goes where UPPER goes, as the kernel's own do.
"""
import posix
from errno import ENODATA

from . import files, paths, state
from .errors import Failure, complain
from .sources import Sources
from .state import State

SUBHOST = "trusted.overlay-boot.subhost"
LOWER = "trusted.overlay-boot.lower"        # a line for each directory, the topmost first: those of Place


class Place:
    """A directory: its real path, and what tells it from others when that has changed, also after a reboot."""

    __slots__ = ("identity", "path")

    def __init__(self, identity: str, path: str) -> None:
        self.identity = identity
        self.path = path

    def is_same(self, other: "Place") -> bool:
        return self.path == other.path or self.identity == other.identity


def place_of(path: str) -> Place:
    """Return the place of a directory, with the id of its file system, statvfs(3), and its inode."""
    return Place(f"{posix.statvfs(path).f_fsid}:{posix.stat(path).st_ino}", paths.real(path))


def claim(sources: Sources, noted: State) -> bool:
    """Have UPPER and WORK on record as in use, and mark them.  Raises Failure if another subhost uses them.

    Complains if UPPER was made over another LOWER.  Returns whether it lies over any for the first time.
    """
    if not sources.is_overlay or sources.tmpfs:
        return sources.is_overlay
    mine = directories(sources)
    note(sources, noted)
    marked = [path for path in above(mine) if mark(path, SUBHOST)]
    if marked or any(mark(path, SUBHOST) != noted.name for path in mine.values()):
        for path in mine.values():          # before the records are read: who does the same now sees us, or we him
            set_mark(path, SUBHOST, noted.name)
        check_use(mine, noted.name)
        for path in marked:
            try:
                posix.removexattr(path, SUBHOST)
            except OSError as error:
                if error.errno != ENODATA:      # another boot has
                    raise
    check_lower(sources)
    is_new = not mark(sources.upper, LOWER)
    set_mark(sources.upper, LOWER, text_of(places(sources)))
    return is_new


def note(sources: Sources, noted: State) -> None:
    """Have UPPER and WORK on record as in use."""
    for path in directories(sources).values():
        noted.note("uses", path, identity(path))


def check(sources: Sources, name: str) -> None:
    """Raise Failure, or complain, as claim() does for the subhost NAME; mark nothing."""
    if sources.is_overlay and not sources.tmpfs:
        check_use(directories(sources), name)
        check_lower(sources)


def directories(sources: Sources) -> dict[str, str]:
    """Return {VARIABLE=value: real path} of UPPER and WORK."""
    return {f"{variable}={path}": paths.real(path)
            for variable, path in (("UPPER", sources.upper), ("WORK", sources.work))}


def above(mine: dict[str, str]) -> set[str]:
    """Return the directories that these are in."""
    found = set()
    for path in mine.values():
        while path != "/":
            path = paths.parent(path)
            found.add(path)
    return found


def identity(place: str | int) -> str:
    return ":".join(map(str, files.identity(place)))


def check_use(mine: dict[str, str], name: str) -> None:
    """Raises Failure if another subhost than NAME uses one of the directories, or one in them or above them."""
    for other, used in in_use(name):
        for what, path in mine.items():
            theirs = used.get(identity(path))
            if theirs:
                raise Failure(f"{what} is in use by the subhost {other}")
            for its_identity, theirs in used.items():
                if is_there(theirs, its_identity) and path.startswith(f"{theirs.rstrip('/')}/"):
                    raise Failure(f"{what} is inside {theirs}, which is in use by the subhost {other}")
                if is_there(theirs, its_identity) and theirs.startswith(f"{path.rstrip('/')}/"):
                    raise Failure(f"{what} has {theirs} in it, which is in use by the subhost {other}")


def in_use(name: str) -> "list[tuple[str, dict[str, str]]]":
    """Return (its name, {identity: path} of what it uses) of all others that run, hibernate, or are being booted."""
    found = []
    for other in state.names():
        if other == name:
            continue
        try:
            with State(other) as opened:
                used = opened.legible().uses
                if used and opened.is_in_use():
                    found.append((other, used))
        except (FileNotFoundError, Failure):        # it has just gone, or nobody can tell whether it hibernates
            continue
    return found


def is_there(path: str, expected: str) -> bool:
    """Tell whether a path leads here to where it led for another subhost, in its mount namespace."""
    try:
        return identity(path) == expected
    except OSError:
        return False


def check_lower(sources: Sources) -> None:
    """Complain if UPPER was made over another LOWER than it is to lie over; raise Failure if the kernel needs that."""
    before = [Place(*line.partition(" ")[::2]) for line in mark(sources.upper, LOWER).split("\n") if line]
    now = places(sources)
    if not before or len(before) == len(now) and all(map(Place.is_same, before, now)):
        return
    made_over, lies_over = (":".join(one.path for one in found) for found in (before, now))
    told = f"UPPER={sources.upper} was made over LOWER={made_over}, not over {lies_over}"
    if "metacopy=on" in sources.options:
        raise Failure(f"{told}, and OVERLAY=metacopy=on has left the content of files there: to boot it all the same, "
                      f"remove the attribute with setfattr -x {LOWER} {sources.upper}")
    complain(f"{told}: what it has changed there may not fit")


def places(sources: Sources) -> list[Place]:
    """Return the places of the directories of LOWER, before the layers are put above them."""
    return [place_of(path) for path in sources.lower]


def text_of(found: list[Place]) -> str:
    return "".join(f"{one.identity} {one.path}\n" for one in found)


def mark(path: str, name: str) -> str:
    """Return what a directory is marked with, "" if it is not."""
    try:
        return paths.decode(posix.getxattr(path, name))
    except OSError:
        return ""


def set_mark(path: str, name: str, text: str) -> None:
    """Mark a directory, unless it is marked so, or its file system has no such attributes: then it can be no UPPER."""
    if mark(path, name) != text:
        try:
            posix.setxattr(path, name, paths.encode(text))
        except OSError:
            pass
