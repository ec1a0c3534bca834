"""What no layer has: the identity of a machine, and secrets."""
from typing import TYPE_CHECKING

from ..host_secrets import BACKUPS, FORMER_ACCOUNTS, IDENTITIES, KEY, LARGEST_KEY, MACHINE_ID, OF_MACHINE
from .hidden import RESTORED
from .layer import Layer
from .packages import RECORDS
from .system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = b"""\
127.0.0.1\tlocalhost
::1\t\tlocalhost ip6-localhost ip6-loopback
ff02::1\t\tip6-allnodes
ff02::2\t\tip6-allrouters
"""
FSTAB = b"# The mounts of a subhost are made by overlay-boot(8).\n"


def anonymise(layer: Layer, system: System) -> None:
    """Leave nobody's accounts, no machine's identity and no private key, whatever maintainer scripts have made."""
    system.accounts.write(layer)
    for path in (*BACKUPS, *FORMER_ACCOUNTS, *IDENTITIES, *OF_MACHINE):
        layer.remove(path)
    layer.make_file(MACHINE_ID, b"", 0o444)     # to be found at the first boot
    layer.make_file("/etc/hosts", HOSTS)
    layer.make_file("/etc/fstab", FSTAB)
    layer.make_symlink("/etc/mtab", "../proc/self/mounts")
    for path in list(private_keys(layer)):
        layer.remove(path)
        layer.remove(f"{path}.pub")


def private_keys(layer: Layer) -> "Iterator[str]":
    """Yield the paths of the files that have a private key in them, as PEM and OpenSSH write it."""
    for top in RESTORED:
        for path, size in layer.regular_files(f"/{top}"):
            if size <= LARGEST_KEY and not path.startswith(f"{RECORDS}/") and KEY in layer.read(path, LARGEST_KEY):
                yield path
