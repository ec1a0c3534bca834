"""What a system has to know of where it is: its name servers, and the sources of its packages."""
import os

from .. import beneath, files
from . import apt
from .layer import Layer
from .system import System

RESOLVER = (b"nameserver", b"search", b"domain", b"options")        # resolv.conf(5)
LONGEST = 1 << 16


def connect(layer: Layer, system: System, directory: str) -> None:
    """Write resolv.conf(5) and sources.list(5), with a directory for apt to work in."""
    layer.make_file("/etc/resolv.conf", resolver(system))
    sources = apt.sources(system, directory)
    if sources:
        layer.make_file("/etc/apt/sources.list", os.fsencode("".join(f"{line}\n" for line in sources)))


def resolver(system: System) -> bytes:
    """Return what the system has in its resolv.conf(5) but for comments."""
    with files.opened(system.directory or "/", files.PLACE) as root:
        try:
            text = beneath.read(root, "etc/resolv.conf", LONGEST, beneath.INSIDE) or b""
        except OSError:
            return b""
    return b"".join(line + b"\n" for line in text.splitlines() if line.startswith(RESOLVER))
