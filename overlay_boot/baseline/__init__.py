"""The story of a baseline, as in overlay-baseline(8): a layer that shows a system as its packages shipped it.

Nothing outside of this folder imports another module of it.
"""
import os

from .. import BASELINE_MARK, progress, rootfs
from . import hidden, maintainer_scripts
from .identity import anonymise
from .layer import Layer, set_xattr
from .records import copy_records
from .shipped import Shipped, restore_registered
from .surroundings import connect
from .system import System
from .workshop import Workshop


def make(directory: str, root: str = "", *, offline: bool = False) -> bool:
    """Make the baseline of the system in root, or make it anew; tell whether all of it could be had.

    root has no slash at its end: "" stands for /.  What could not be had is told on standard error.  Raises Failure,
    with what was in the directory left as it was, if the baseline cannot be made.
    """
    os.umask(0o022)
    rootfs.unshare_mounts()                     # what is mounted here goes with this process
    with Workshop(directory) as workshop, Layer(workshop.layer) as layer:
        progress.tell("reading the records of the packages")
        system = System(root)
        hidden.hide(layer, system)
        progress.tell("restoring files as the packages shipped them")
        complete = [Shipped(system).restore(layer, workshop.archives, offline=offline),
                    restore_registered(layer, system)]
        progress.tell("copying the records of the packages")
        copy_records(layer, system)
        anonymise(layer, system)                # for maintainer scripts to find the accounts
        complete.append(maintainer_scripts.run(layer, system, workshop))
        anonymise(layer, system)                # whatever these have made of them
        progress.tell("looking up the sources of packages")
        connect(layer, system, workshop.archives)
        set_xattr(layer.fd, BASELINE_MARK, b"1")
        workshop.deliver()
    return all(complete)
