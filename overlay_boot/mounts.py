"""Mounts that nobody sees yet, fsopen(2)."""
from . import namespaces
from .files import Fd


def new(kind: str, attributes: int, **options: str | None) -> Fd:
    """Return a descriptor of a new file system of that kind.  An option that is None is a flag.  Raises OSError."""
    with Fd(namespaces.fsopen(kind)) as filesystem:
        for key, value in options.items():
            namespaces.fsconfig(filesystem, key, value)
        return Fd(namespaces.fsmount(filesystem, attributes))
