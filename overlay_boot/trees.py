"""The tree of files that a subhost sees: its layers as they are on record, or as its configuration has them now."""
import posix

from . import files, proc, rootfs, uppers
from .config import Config
from .errors import Failure, complain
from .files import Fd, Fds
from .overlayfs import Tree
from .rootfs import View
from .sources import Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .record import Record


def of_record(record: "Record", keeper: int) -> Tree:
    """Return the tree of a subhost that is on record; keeper is the process id of its keeper, 0 if that has ended.

    It lacks UPPER where nobody but the subhost has that: in an IMAGE or on a tmpfs, once the keeper has ended.
    """
    with Fds() as found:
        upper = upper_of(record, keeper)
        if upper is not None:
            found.keep(upper)
        for number in sorted(record.lower, key=int):
            if record.lower[number] != record.upper:
                found.keep(rootfs.directory(record.lower[number], "LOWER"))
        roots = Fds(found)
        found.let_go()
    return Tree(roots, {*record.lower_mounts.values()}, own=int(upper is not None))


def upper_of(record: "Record", keeper: int) -> Fd | None:
    """Return a descriptor of UPPER, None if it cannot be reached.

    What it is, is on record for every overlay mount of this version.
    """
    is_uncertain = not record.uses and not record.mount_point and files.kind(record.upper) == files.DIRECTORY
    if is_uncertain or any(uppers.is_there(record.upper, one) for one in record.uses):
        return files.opened(record.upper, files.PLACE)
    for path in descriptors(keeper):
        if any(uppers.is_there(path, one) for one in record.uses):
            return files.opened(path, files.PLACE)
    return None


def descriptors(keeper: int) -> list[str]:
    """Return paths of what the keeper has open: it keeps what nothing else leads to, boot.start_keeper()."""
    try:
        return [f"/proc/{keeper}/fd/{name}" for name in posix.listdir(f"/proc/{keeper}/fd")] if keeper else []
    except proc.ENDED:
        return []


def of_config(config: Config, host: View | None = None, own: View | None = None) -> Tree:
    """Return the tree that a subhost would have with its configuration, of which all values are known.

    Where this process sees an IMAGE in a mount namespace of its own, host and own are the views of both.  Raises
    Failure if UPPER is none that can be looked into, or nothing lies beneath it.
    """
    sources = Sources(config)
    if sources.tmpfs:
        raise Failure(f"UPPER={config.upper} is made anew by each boot: there is nothing in it")
    if not sources.is_overlay:
        raise Failure(f"UPPER={sources.upper} is LOWER: there is nothing to compare it with")
    if config.lower_mounts:
        if host and own:
            host.enter()
        sources.mounts = rootfs.mounts_below(sources, config.lower_mounts)
        if host and own:
            own.enter()
    sources.put_layers(unpacked(sources.layers))
    with Fds() as found:
        found.keep(rootfs.directory(sources.upper, "UPPER"))
        for path in sources.lower:
            found.keep(rootfs.directory(path, "LOWER"))
        roots = Fds(found)
        found.let_go()
    return Tree(roots, {mount.inside for mount in sources.mounts}, own=1)


def unpacked(wanted: list[str]) -> list[str]:
    """Return the directories of layers, the topmost first."""
    if not wanted:
        return []
    from . import layers
    found = []
    for path in wanted:
        directory = layers.unpacked(path)
        if directory:
            found.append(directory)
        else:
            complain(f"LAYER={path} is not unpacked yet: what it has is taken for the subhost's own")
    return [*dict.fromkeys(reversed(found))]
