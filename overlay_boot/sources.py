"""The directories that a root file system is made of."""
from . import files, paths
from .capabilities import MKNOD
from .config import Config
from .files import Fds

WORKS = "mounts"        # the directory in WORK that has the work directories of what is mounted below LOWER
FOLLOWED = "followed"   # that in BASE with what the host had, see followed.py: a directory for each UPPER
LONGEST_NAME = 255      # bytes, of a file


class LowerMount:
    """What is mounted below LOWER: the path where it is in the subhost, and the identities of its root directories."""

    __slots__ = ("attributes", "inside", "roots")

    def __init__(self, inside: str) -> None:
        self.inside = inside
        self.attributes = 0                             # nosuid and the like, of mount_setattr(2)
        self.roots: set[tuple[int, int]] = set()        # more than one where several directories of LOWER have one

    @property
    def work(self) -> str:
        """The path of its work directory in WORK; none is inside another one."""
        return f"{WORKS}/{self.inside[1:].replace('%', '%25').replace('/', '%2F')}"


class Sources:
    """The directories that the root file system is made of, and LIVE, where it is mounted.

    At first they are as the configuration has them.  A boot unpacks layers and
    puts them above LOWER, and makes an UPPER that does not persist.
    """

    __slots__ = ("apart", "base", "followed", "has_devices", "hide", "hiding", "is_private", "layers", "live", "lower",
                 "mounts", "name", "options", "tmpfs", "upper", "work")

    def __init__(self, config: Config) -> None:
        self.name = config.name
        self.base = config.base
        self.hide = config.hide
        self.live = config.live
        self.upper = config.upper       # with tmpfs no path before it is made
        self.work = config.work
        self.lower = [*config.lower]    # the topmost first, layers among them
        self.layers = [*config.layers]  # as LAYER has them; once put above LOWER directories, the topmost first
        self.tmpfs = config.tmpfs       # the size of an UPPER that does not persist, else ""
        upper = f"tmpfs:{config.name}" if config.tmpfs else config.upper
        self.followed = followed(config.base, upper, config.image)      # the directory with what the host had
        self.options = config.overlay
        self.has_devices = bool(config.capabilities & MKNOD)    # else device files in them do not work
        self.is_private = bool(config.tmpfs or config.image)     # no path of the host's leads to UPPER
        self.apart = Fds()              # what nothing else leads to: UPPER then, the mounts of rootfs.set_apart(), and
        # the layer that hides something: the number of those above it, its device, and its inode.
        self.hiding: tuple[int, int, int] | None = None
        self.mounts: list[LowerMount] = []      # what is mounted below LOWER, and is to be seen

    def put_layers(self, directories: list[str]) -> None:
        """Put the directories of the layers, the topmost first, above LOWER."""
        self.layers = directories
        self.lower[:0] = directories

    def put_upper(self, mount_point: str) -> None:
        """Have UPPER and WORK on the tmpfs that is mounted there."""
        self.upper, self.work = f"{mount_point}/root", f"{mount_point}/work"

    def part(self, inside: str, lower: list[str], number: int) -> "Sources":
        """Return what a part of the root file system is made of, without what is mounted below.

        number of the directories are layers.
        """
        copy = Sources.__new__(Sources)
        for attribute in Sources.__slots__:
            setattr(copy, attribute, getattr(self, attribute))
        copy.lower, copy.layers, copy.hide, copy.mounts = lower, lower[:number], [], []
        copy.upper = self.upper + inside
        return copy

    def settings(self) -> dict[str, str]:
        """Return the variables that name them, with the values that they have by now."""
        return {"LIVE": self.live, "UPPER": self.upper, "WORK": self.work, "LOWER": ":".join(self.lower),
                "LAYER": ":".join(self.layers)}

    @property
    def is_overlay(self) -> bool:
        """Whether the root is an overlay mount; else UPPER is LOWER, and the root."""
        return len(self.lower) > 1 or bool(self.layers or self.tmpfs) or not is_same(self.upper, self.lower[0])

    @property
    def is_premounted(self) -> bool:
        """Whether UPPER, LOWER and LIVE are one directory: the root is there as it is."""
        return not self.is_overlay and is_same(self.live, self.upper)


def followed(base: str, upper: str, image: tuple[str, str] | None = None) -> str:
    """Return the path of the directory in BASE with what the host had when UPPER, which may be in an IMAGE, followed.

    It is named after UPPER: several configurations can have one BASE.
    """
    words = [paths.normal(word).removeprefix(f"{base.rstrip('/')}/") if word[0] == "/" else word
             for word in (*(image or ()), upper) if word]
    name = ":".join(words).replace("%", "%25").replace("/", "%2F")
    if len(paths.encode(name)) > LONGEST_NAME:
        import hashlib
        name = hashlib.sha256(paths.encode(name)).hexdigest()
    return f"{base}/{FOLLOWED}/{name}"


def is_same(one: str, other: str) -> bool:
    """Tell whether two paths lead to one directory."""
    return files.identity(one) == files.identity(other)
