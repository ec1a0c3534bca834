"""The layers that an image is made of, as a tree: UPPER, what LAYER names, and the root that LOWER makes.

Above the latter is what hides the secrets of the host, as in a boot with HIDE; below both there is nothing.
"""
import posix

from .. import exposure, files, hiding, host_secrets, layers, mounts, namespaces, paths, rootfs, trees
from ..config import SECRETS, Config
from ..errors import Failure
from ..files import Fd, Fds
from ..overlayfs import Tree
from ..rootfs import View
from ..sources import Sources
from ..state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..record import Record


class Layers:
    """The tree, of which so many are single layers, UPPER first."""

    __slots__ = ("names", "single", "tree")

    def __init__(self, tree: Tree, single: list[str], rest: str) -> None:
        """single are the names of the single layers; all that is beneath is one, of which rest is the name."""
        self.tree, self.names, self.single = tree, [*single, rest], len(single)

    def name_of(self, number: int) -> str:
        return self.names[number]

    def __enter__(self) -> "Layers":
        return self

    def __exit__(self, *_: object) -> None:
        with self.tree:
            pass


def opened(config: Config, host: View, own: View, state: State | None, *, secrets: bool) -> Layers:
    """Return the layers of a subhost, in a mount namespace of our own, of which own is the view.

    state is that of one that runs or hibernates.  With secrets, those of the host are among them.
    """
    sources = Sources(config)
    record = state.record() if state else None
    is_overlay = bool(record.uses) if record else sources.is_overlay     # UPPER can be out of sight of one that runs
    if is_overlay and config.lower_mounts:
        host.enter()
        sources.mounts = rootfs.mounts_below(sources, config.lower_mounts)
        own.enter()
    sources.put_layers(unpacked(sources.layers))
    if record:
        refuse_others(record, sources)
    with Fds() as found:
        if not is_overlay:
            found.keep(namespaces.open_tree(sources.upper))
            return Layers(Tree(kept(found), ()), [], f"UPPER={sources.upper}")
        found.keep(upper_of(sources, record, state.keeper() if state else 0))
        for path in sources.layers:
            found.keep(rootfs.directory(path, "LAYER"))
        for fd in whole_lower(sources, config, secrets=secrets):
            found.keep(fd)
        tree = Tree(kept(found), {mount.inside for mount in sources.mounts})
    return Layers(tree, [f"UPPER={sources.upper}", *(f"LAYER={path}" for path in sources.layers)],
                  f"LOWER={':'.join(sources.lower[len(sources.layers):])}")


def kept(found: Fds) -> Fds:
    """Return the same descriptors, of which found lets go."""
    roots = Fds(found)
    found.let_go()
    return roots


def unpacked(wanted: list[str]) -> list[str]:
    """Return the directories of layers, the topmost first."""
    found = []
    for path in wanted:
        directories = layers.unpacked(path)
        if not directories:
            raise Failure(f"LAYER={path} is not unpacked: a boot of the subhost does that")
        found += directories
    return [*dict.fromkeys(reversed(found))]


def refuse_others(record: "Record", sources: Sources) -> None:
    """Raises Failure if the subhost was booted over other directories than its configuration has now."""
    booted = [record.lower[key] for key in sorted(record.lower, key=int)]
    if [path for path in booted if path != record.upper] != [path for path in sources.lower if path != record.upper]:
        raise Failure(f"{sources.name} was booted over {':'.join(booted)}, and its configuration has "
                      f"{':'.join(sources.lower)} now: boot it again, or stop it")


def upper_of(sources: Sources, record: "Record | None", keeper: int) -> Fd:
    """Return a descriptor of UPPER."""
    if record:
        with Fds(trees.apart(record, keeper)) as theirs:
            upper = trees.upper_of(record, theirs)
        if upper is None:
            raise Failure(f"UPPER of {sources.name} is out of reach")
        return upper
    if sources.tmpfs:
        raise Failure(f"UPPER={sources.upper} is made anew by each boot: there is nothing in it")
    return rootfs.directory(sources.upper, "UPPER")


def whole_lower(sources: Sources, config: Config, *, secrets: bool) -> list[Fd]:
    """Return descriptors of what hides something of LOWER, if anything does, and of the root that LOWER makes."""
    with rootfs.opened_lower(sources) as opened:
        below = rootfs.whole_lower(sources, opened[len(sources.layers):])
    sources.hide = [*config.hide]
    if not secrets:
        sources.hide += [SECRETS, *host_secrets.IDENTITIES, *host_secrets.FORMER_ACCOUNTS, host_secrets.MACHINE_ID,
                         *exposure.private_keys(below)]
    if not sources.hide:
        return [below]
    layer = mounts.new("tmpfs", namespaces.NOSUID | namespaces.NODEV, mode="755")
    try:
        hiding.make_layer(layer, below, sources)
    except OSError as error:
        raise Failure(f"cannot hide what is secret: {error.strerror}") from None
    like(layer, below)
    return [layer, below]


def like(layer: int, below: int) -> None:
    """Give the root directory of a layer the attributes of the one beneath."""
    status = posix.fstat(below)
    place = paths.of_descriptor(layer)
    posix.chown(place, status.st_uid, status.st_gid)
    posix.chmod(place, status.st_mode & ~files.KIND)
    posix.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
