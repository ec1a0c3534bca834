"""Layers between LOWER and UPPER: what LAYER names, overlay-boot.conf(5), and what overlay-layers(8) does with them.

A LAYER is a directory, an archive, or an image of OCI's, which are unpacked into a cache.  Nothing outside of this
folder imports another module of it, and each is loaded by the function that needs it: a boot whose layers are
directories loads none, one whose archives are in the cache loads cache.py and archive.py, and inventory.py is for
overlay-layers only.
"""
import posix

from .. import BASELINE_MARK, files
from ..config import OCI
from ..errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..state import State
    from .inventory import Row


def check(paths: list[str]) -> None:
    """Raises Failure if a LAYER is not there, or is neither a directory nor a file, or no image for this machine."""
    for path in paths:
        if is_image(path):
            from . import images
            with images.opened(path):
                pass
        elif not is_directory(path):
            from .archive import Archive
            with Archive(path):
                pass            # it can be read


def provide(paths: list[str], limit: tuple[int, int], state: "State") -> list[str]:
    """Return the directories of the layers, the topmost first.  Archives that are not in the cache are unpacked.

    paths are in the order of the configuration file, the lowest first; limit is LAYER_LIMIT, in bytes and members.
    What is used of the cache is on record in the state file afterwards.  Raises Failure if an archive cannot be
    unpacked.
    """
    found = []
    for path in paths:
        if is_image(path):
            from . import images
            found += images.provide(path, limit, state)
        elif is_directory(path):
            found.append(path)
        else:
            from . import cache
            found.append(cache.layer_of(path, limit, state))
    # Beneath itself a layer has no effect, and the kernel would not have it.
    return [*dict.fromkeys(reversed(found))]


def place_of(path: str) -> str:
    """Return a directory that is on the file system of a layer: itself, or one that others are unpacked below."""
    if not is_image(path) and is_directory(path):
        return path
    from .cache import LAYERS as place
    while not is_directory(place):
        place = place.rpartition("/")[0] or "/"
    return place


def unpacked(path: str) -> list[str]:
    """Return the directories of a LAYER, the lowest first; none if it is not all in the cache."""
    if not is_image(path) and is_directory(path):
        return [path]
    from . import inventory
    return inventory.unpacked(path)


def image_config(digest: str) -> bytes:
    """Return the configuration of the image that a subhost has on record.  Raises Failure if it is gone."""
    from . import images
    try:
        return images.config(digest)
    except OSError as error:
        raise Failure(f"cannot read the configuration of the image: {error.strerror}") from None


def config_of(paths: list[str]) -> bytes:
    """Return the configuration of the topmost image among values of LAYER.  Raises Failure if there is none."""
    from . import images
    path = next(filter(is_image, reversed(paths)), "")
    if not path:
        raise Failure("LAYER names no image")
    with images.opened(path) as image:
        return image.data


def own(directories: list[str]) -> list[str]:
    """Return those directories of layers that tell of this subhost, in their order.

    A baseline is for any subhost, and so is an image.  What is not unpacked yet cannot be looked into.
    """
    return [path for path in directories if is_directory(path) and not is_baseline(path)]


def is_baseline(directory: str) -> bool:
    try:
        return BASELINE_MARK in posix.listxattr(directory)
    except OSError:                     # its file system has no extended attributes
        return False


def is_image(path: str) -> bool:
    return path.startswith(OCI)


def is_directory(path: str) -> bool:
    return files.kind(path) == files.DIRECTORY


# overlay-layers(8)

def rows() -> "list[Row]":
    """Return a row for each layer in the cache."""
    from . import inventory
    return inventory.rows()


def table(layers: "list[Row]") -> str:
    """Return rows as the text of a table."""
    from . import inventory
    return inventory.table(layers)


def verify() -> "Iterator[tuple[str, str]]":
    """Yield (digest, what is wrong, or "") for each layer in the cache, compared with its archive."""
    from . import inventory
    return inventory.verify()


def remove(beginning: str) -> None:
    """Remove the layer whose digest begins like this.  Raises Failure if a subhost or a boot uses it."""
    from . import inventory
    inventory.remove(beginning)


def remove_unused() -> "list[Row]":
    """Remove the layers that nothing uses.  Return the rows of those removed."""
    from . import inventory
    return inventory.remove_unused()
