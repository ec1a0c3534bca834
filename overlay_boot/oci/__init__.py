"""Images of OCI, the format of container registries, image-spec 1.1: those that LAYER names, and what runs of them.

Nothing outside of this folder imports another module of it, and each is loaded by the function that needs it.
"""
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config import Config
    from .manifest import Image as Image
    from .manifest import Layer as Layer
    from .process import Choice


def image(path: str) -> "Image":
    """Return the image that PATH[:TAG] names, open for reading.  Raises Failure if it cannot be used here."""
    from .manifest import Image
    return Image(path)


def place_of(path: str) -> str:
    """Return the PATH of PATH[:TAG].  Raises Failure if there is none."""
    from .manifest import split
    return split(path)[0]


def platform() -> dict[str, str]:
    """Return the platform of images that are made on this machine, as an index has it."""
    from .manifest import platform
    return platform()


def choice(words: list[str], base: str) -> "Choice":
    """Return what the words of INIT choose of what runs.  Raises Failure for wrong ones.  base is BASE."""
    from .process import Choice
    return Choice(words, base)


def described(config: "Config", data: bytes, root: int, chosen: "Choice") -> str:
    """Return what the reaper reads of its main process: by the configuration of an image, which is in data.

    root is a descriptor of the root directory of the subhost.  Raises Failure if nothing is to be run, or not so.
    """
    from .process import described
    return described(config.name, data, root, chosen)


def unserved(config: "Config", data: bytes) -> "Iterator[str]":
    """Yield what is to be told of what an image names in data, its configuration, and the one of a subhost does not."""
    from .process import unserved
    return unserved(config, data)
