"""What a layer hides, as in overlay-baseline(8): all in the root directory but the software, and some of that.

The Filesystem Hierarchy Standard says what a root directory has besides the software.  Whatever else no package ships,
administrators made.
"""
import os
from typing import TYPE_CHECKING

from .. import host_secrets
from .layer import Layer
from .system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

RESTORED = ("etc", "var")
EMPTY = ("boot", "dev", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp")
MODES = {"root": 0o700, "tmp": 0o1777}
USR, LOCAL = "/usr", "/usr/local"


def hide(layer: Layer, system: System) -> None:
    """Hide all in the root directory but the software, and in that what administrators and subhosts have there."""
    shipped = {path for package in system.database.packages for path in package.paths if path.count("/") == 1}
    for name in (*RESTORED, *EMPTY):
        layer.make_directory(f"/{name}", *system.of_directory(f"/{name}", MODES.get(name, 0o755)), opaque=True)
    for name in system.names("/"):
        if not (name in (*RESTORED, *EMPTY) or f"/{name}" in shipped or leads_into_usr(system.path_of(f"/{name}"))):
            layer.hide(f"/{name}")
    layer.make_directory(USR, *system.of_directory(USR))
    layer.make_directory(LOCAL, *system.of_directory(LOCAL), opaque=True)
    hidden: list[str] = []
    for base in sorted(host_secrets.bases()):
        if not any(base.startswith(f"{outer}/") for outer in hidden):      # else that is hidden with it
            hide_subhost(layer, system, base)
            hidden.append(base)


def leads_into_usr(path: str) -> bool:
    """Tell whether a path is that of a symbolic link into /usr."""
    return os.path.islink(path) and os.readlink(path).removeprefix("/").startswith("usr/")


def hide_subhost(layer: Layer, system: System, base: str) -> None:
    """Hide a subhost's directory, where that is among the software of the system."""
    if not base.startswith(system.path_of("/usr/")) or not os.path.isdir(base):
        return
    path = base.removeprefix(system.directory)
    if path.startswith(LOCAL + "/") or layer.has(path):
        return
    parts = path.split("/")[1:]
    for count in range(1, len(parts)):
        above = "/" + "/".join(parts[:count])
        layer.make_directory(above, *system.of_directory(above))
    layer.hide(path)


def in_software(layer: str) -> "Iterator[str]":
    """Yield the paths that the directory of a layer has among the software: what hides something, or scripts made.

    /usr/local is left out.
    """
    for top in os.listdir(layer):
        if top in (*RESTORED, *EMPTY):
            continue
        yield f"/{top}"
        for here, directories, names in os.walk(f"{layer}/{top}"):
            at = here.removeprefix(layer)
            if at == USR:
                directories[:] = [name for name in directories if f"{USR}/{name}" != LOCAL]
            for name in (*directories, *names):
                yield f"{at}/{name}"
