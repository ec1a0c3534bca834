"""The tree of files that a subhost sees: its layers as they are on record, or as its configuration has them now."""
import posix

from . import files, hibernation, proc, rootfs, uppers
from .config import Config
from .errors import Failure, complain
from .files import Fd, Fds
from .overlayfs import Tree
from .rootfs import View
from .sources import Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .record import Record


def of_record(record: "Record", keeper: int, *, hides: bool = True) -> Tree:
    """Return the tree of a subhost that is on record; keeper is the process id of its keeper, 0 if that has ended.

    Without hides, what HIDE hides is seen.  It lacks UPPER where that is out of reach, or the layer that hides it is:
    both can be where the keeper alone has them.
    """
    hiding = record.hiding if hides else None
    with Fds(apart(record, keeper)) as theirs, Fds() as found:
        layer = next((fd for fd in theirs if hiding and files.identity(fd) == hiding[1:]), None)
        upper = None if hiding and layer is None else upper_of(record, theirs)
        if upper is not None:
            found.keep(upper)
        for number, path in enumerate(record.lower[key] for key in sorted(record.lower, key=int)):
            if hiding and layer is not None and number == hiding[0]:
                found.keep(posix.dup(layer))
            if path != record.upper:
                found.keep(rootfs.directory(path, "LOWER"))
        roots = Fds(found)
        found.let_go()
    return Tree(roots, {*record.lower_mounts.values()}, own=int(upper is not None))


def upper_of(record: "Record", theirs: "Iterable[int]") -> Fd | None:
    """Return a descriptor of UPPER, which can be one of theirs, None if it cannot be reached.

    What it is, is on record for every overlay mount of this version.
    """
    is_uncertain = not record.uses and not record.mount_point and files.kind(record.upper) == files.DIRECTORY
    if is_uncertain or any(uppers.is_there(record.upper, one) for one in record.uses):
        return files.opened(record.upper, files.PLACE)
    return next((Fd(posix.dup(fd)) for fd in theirs if uppers.identity(fd) in record.uses), None)


def apart(record: "Record", keeper: int) -> list[Fd]:
    """Return descriptors of what no path leads to, boot.start_keeper(), or hibernation.keep_apart() has mounted."""
    found = []
    for path in descriptors(keeper):
        try:
            if files.kind(path) == files.DIRECTORY:
                found.append(files.opened(path, files.PLACE))
        except FileNotFoundError:               # closed meanwhile
            pass
    return found + hibernation.kept_apart(record)


def descriptors(keeper: int) -> list[str]:
    """Return paths of what the keeper has open."""
    try:
        return [f"/proc/{keeper}/fd/{name}" for name in posix.listdir(f"/proc/{keeper}/fd")] if keeper else []
    except proc.ENDED:
        return []


def of_config(config: Config, host: View | None = None, own: View | None = None, *, hides: bool = False) -> Tree:
    """Return the tree that a subhost would have with its configuration, of which all values are known.

    Where this process sees an IMAGE in a mount namespace of its own, host and own are the views of both.  With hides,
    what HIDE hides is not seen.  Raises Failure if UPPER is none that can be looked into, or nothing lies beneath it.
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
        if hides and sources.hide:
            found.insert(1 + len(sources.layers), hiding_layer(sources))
        roots = Fds(found)
        found.let_go()
    return Tree(roots, {mount.inside for mount in sources.mounts}, own=1)


def hiding_layer(sources: Sources) -> Fd:
    """Return a descriptor of a layer that hides what HIDE names, as a boot makes it, and that nobody else sees."""
    host, own = rootfs.unshare_mounts()
    try:
        with sources.apart, rootfs.opened_lower(sources) as layers:
            return rootfs.mount_hiding_layer(sources, layers[len(sources.layers):], None)
    finally:
        host.enter()
        host.close()
        own.close()


def unpacked(wanted: list[str]) -> list[str]:
    """Return the directories of layers, the topmost first."""
    if not wanted:
        return []
    from . import layers
    found = []
    for path in wanted:
        directories = layers.unpacked(path)
        found += directories
        if not directories:
            complain(f"LAYER={path} is not unpacked yet: what it has is taken for the subhost's own")
    return [*dict.fromkeys(reversed(found))]
