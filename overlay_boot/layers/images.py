"""The layers of images that LAYER names by oci:PATH[:TAG], in the cache of layers, and their configurations.

    /var/cache/overlay-boot/images/DIGEST   a configuration, by its SHA-256 sum

What is unpacked of a layer depends on those below it, and so does its name in the cache: images with the same layers at
the bottom share them.
"""
import fcntl
import posix

from .. import files, interruption, oci, state
from ..config import OCI
from ..errors import Failure, doing, reason
from ..files import Fd, Fds
from . import archive
from .archive import CACHE
from .cache import LAYERS, Cache, removed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci import Image
    from ..state import State

CONFIGS = f"{CACHE}/images"
PART = ".part"
NO_ARCHIVE = "0 0 0 0 0"        # in the place of a fingerprint: an image is many files
LONGEST_CONFIG = 4 << 20


def opened(path: str) -> "Image":
    """Return the image that a LAYER names, open for reading.  Raises Failure."""
    try:
        return oci.image(path.removeprefix(OCI))
    except Failure as failure:
        raise Failure(f"LAYER={path}: {failure}") from None


@doing("use the cache of layers")
def provide(path: str, limit: tuple[int, int], record: "State") -> list[str]:
    """Return the directories of the layers of an image, the lowest first.  They are unpacked if they are not there yet.

    They and the configuration are on record in the state file then.  Raises Failure, with nothing left of the image, if
    one cannot be unpacked.
    """
    with opened(path) as image, Cache() as cache:
        made: list[str] = []
        try:
            with Fds() as locked:
                for number, layer in enumerate(image.layers):
                    while (fd := cache.locked(layer.key)) is None:
                        if cache.unpack(layer.key, Filling(image, number, locked[::-1], limit)):
                            made.append(layer.key)
                    locked.append(fd)
                record.note("image", image.digest)       # first: what is on record is not forgotten
                keep_config(image)
                for layer in image.layers:
                    record.note("layers", path, layer.key)
        except BaseException:
            record.note("image", "")
            for key in reversed(made):
                removed(cache, key, but=record.name)
            raise
        remember(path, [layer.key for layer in image.layers])
    return [f"{LAYERS}/{layer.key}" for layer in image.layers]


class Filling:
    """What unpacks one of the layers of an image, over those of the descriptors below, the topmost first."""

    __slots__ = ("below", "image", "limit", "number")

    def __init__(self, image: "Image", number: int, below: list[int], limit: tuple[int, int]) -> None:
        self.image, self.number, self.below, self.limit = image, number, below, limit

    def __call__(self, directory: Fd) -> None:
        """Unpack it into a directory, and have all of it on the disk.  Raises Failure if that fails."""
        from .. import namespaces
        from . import changeset
        layer, path = self.image.layers[self.number], self.image.path
        which = f"layer {self.number + 1} of {len(self.image.layers)}"
        try:
            changeset.unpack(layer, directory, self.below, self.limit, f"{path}, {which}")
            namespaces.sync(directory)
        except (Failure, OSError) as error:
            raise Failure(f"cannot unpack LAYER={OCI}{path}: {which}: {reason(error)}") from None


def remember(path: str, keys: list[str]) -> None:
    """Have the list of archives seen name the image for its layers, unless it does already."""
    known = {(digest, named) for _, digest, named in archive.seen()}
    for key in keys:
        if (key, path) not in known and "\n" not in path:
            archive.add_to_seen(archive.entry(NO_ARCHIVE, key, path))


def keys(path: str) -> list[str]:
    """Return the names in the cache of the layers of an image, the lowest first.  Raises Failure."""
    with opened(path) as image:
        return [layer.key for layer in image.layers]


# Configurations

def locked_configs() -> Fd:
    """Return a descriptor of their directory, which one process at a time has locked."""
    files.make_directory(CONFIGS, 0o700)
    with Fds([files.opened(CONFIGS, files.READ_DIRECTORY)]) as fds, interruption.Wait():
        fcntl.flock(fds[0], fcntl.LOCK_EX)
        return Fd(fds.pop())


def keep_config(image: "Image") -> None:
    """Have the configuration of an image, which is on record, among them."""
    path = f"{CONFIGS}/{image.digest}"
    with locked_configs():
        if files.kind(path):
            return
        with files.opened(path + PART, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW, 0o600) as fd:
            files.write_all(fd, image.data)
            posix.fsync(fd)
        posix.rename(path + PART, path)


def config(digest: str) -> bytes:
    """Return the configuration of an image that is in use.  Raises OSError if somebody has removed it."""
    with files.opened(f"{CONFIGS}/{digest}") as fd:
        return files.read_all(fd)


def forget_configs() -> None:
    """Remove the configurations that no subhost uses.  Raises Failure if that cannot be told."""
    with locked_configs() as directory:
        # Whoever came before us is on record; whoever comes now waits for the lock.
        used = {noted.image for _, noted in state.noted(None)}
        for name in posix.listdir(directory):
            if name not in used:
                posix.unlink(name, dir_fd=directory)
