"""The root file system of a subhost, on LIVE, in a mount namespace of its own.

What stands in UPPER and LIVE is the subhost's, and may be hostile: it is reached
only by way of beneath.py.
"""
import posix
from errno import EINVAL, EPERM

from . import beneath, files, mounts, namespaces, paths, proc
from .config import VOLATILE, YES, size_of
from .errors import Failure, complain, doing
from .files import Fd, Fds
from .sources import LowerMount, Sources
from .state import State, directory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .lower_mounts import Stack
    from .userns import Owner, UserNamespace

# The host's console is not the subhost's: what is written to this one is lost.
DEVICES = (
    ("console", 1, 3, 0o600), ("null", 1, 3, 0o666), ("zero", 1, 5, 0o666), ("full", 1, 7, 0o666),
    ("tty", 5, 0, 0o666), ("random", 1, 8, 0o444), ("urandom", 1, 9, 0o444), ("ptmx", 5, 2, 0o666),
)
LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("core", "/proc/kcore"),
)
LONGEST_OPTION = 3900   # of the 4096 bytes of options after which mount(2) cuts off in silence
LONGEST_VALUE = 256     # bytes of an option of fsconfig(2), with its end
TTY_GROUP = 5           # Debian's, base-passwd


def mounts_below(sources: Sources, wanted: list[str]) -> list[LowerMount]:
    """Return what is mounted below LOWER, as this process sees it, of what the words of LOWER_MOUNTS want."""
    lower = [path for path in sources.lower if files.kind(path)]        # not what only a `!` command has mounted
    if wanted == [YES]:
        above = tuple(f"{paths.real(path).rstrip('/')}/" for path in lower)
        found = proc.mounts_of(proc.DISKS)
        if not any(mount.place != "/" and mount.place.startswith(above) for mount in found.values()):
            return []
    from . import lower_mounts
    return lower_mounts.find(wanted, lower, sources.base)


class View:
    """What this process sees of files: its mount namespace, and the root that it has in that, chroot(2)."""

    __slots__ = ("mounts", "root")

    def __init__(self, mounts: Fd | None = None, root: Fd | None = None) -> None:
        """By default, what this process sees now."""
        self.mounts = files.opened("/proc/self/ns/mnt", posix.O_RDONLY) if mounts is None else mounts
        self.root = files.opened("/", files.PLACE) if root is None else root

    def enter(self) -> None:
        """Have this process see it."""
        namespaces.setns(self.mounts, namespaces.NEWNS)
        posix.fchdir(self.root)
        posix.chroot(".")

    def close(self) -> None:
        posix.close(self.mounts)
        posix.close(self.root)


class Seeing:
    """A context: this process sees what one view has, and after that what another has."""

    __slots__ = ("after", "view")

    def __init__(self, view: View, after: View) -> None:
        self.view, self.after = view, after

    def __enter__(self) -> None:
        self.view.enter()

    def __exit__(self, *_: object) -> None:
        self.after.enter()


class Inside:
    """A context: this process is in another mount namespace, and has its root, for single system calls.

    A descriptor stands for the namespace, or for a process that is in it, setns(2).
    """

    __slots__ = ("fd", "outside")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> None:
        self.outside = View()
        try:
            namespaces.setns(self.fd, namespaces.NEWNS)
        except OSError:
            self.outside.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.outside.enter()
        self.outside.close()


@doing("make a mount namespace")
def unshare_mounts() -> tuple[View, View]:
    """Enter a copy of the host's mount namespace, that is ours.  Return the views of the host and of ours."""
    host = View()
    try:
        namespaces.unshare(namespaces.NEWNS)
        own = View()
        with files.opened(".", files.PLACE) as here:
            namespaces.setns(own.mounts, namespaces.NEWNS)      # its own root: ours, in a chroot, is no mount
            namespaces.mount(None, "/", None, namespaces.REC | namespaces.PRIVATE)
            own.enter()
            posix.fchdir(here)
    except OSError:
        host.enter()
        raise
    return host, own


def check(sources: Sources, users: "UserNamespace | None" = None) -> None:
    """Raises Failure if the directories cannot make a root file system, or not one for a user namespace."""
    if sources.hide and not sources.is_overlay:
        raise Failure("HIDE: where UPPER is LOWER, nothing can be hidden")
    with Fds() as fds:
        live = fds.keep(directory(sources.live, "LIVE"))
        upper = -1 if sources.tmpfs else fds.keep(place(sources.upper, "UPPER", users))
        for path in sources.lower:
            fds.keep(place(path, "LOWER", users))
        if upper >= 0 and sources.is_overlay:
            check_work(sources)
        if not sources.is_premounted and namespaces.mount_of(live)[1]:
            raise Failure(f"LIVE={sources.live} has something mounted on it already")


def check_work(sources: Sources) -> None:
    with directory(sources.work, "WORK") as work, directory(sources.upper, "UPPER") as upper:
        if namespaces.mount_of(work)[0] != namespaces.mount_of(upper)[0]:
            raise Failure(f"WORK={sources.work} is not on the same mount as UPPER={sources.upper}")
        if posix.fstat(work).st_dev != posix.fstat(upper).st_dev:
            raise Failure(f"WORK={sources.work} is in another subvolume than UPPER={sources.upper}")
    one, other = paths.real(sources.work) + "/", paths.real(sources.upper) + "/"
    if one.startswith(other) or other.startswith(one):
        raise Failure(f"WORK={sources.work} and UPPER={sources.upper} must not be inside each other")


def directory(path: str, variable: str) -> Fd:
    """Return a descriptor of a directory, a place to start from.  Raises Failure, which names the variable."""
    try:
        return files.opened(path, files.PLACE)
    except OSError as error:
        raise Failure(f"{variable}={path}: {error.strerror}") from None


def place(path: str, variable: str, users: "UserNamespace | None") -> Fd:
    """Return directory(), with a user namespace that of an id-mapped bind mount."""
    return users.mapped(path, f"{variable}={path}") if users else directory(path, variable)


def made_by(owner: int) -> "Owner | Fds":
    """Return a context: what is made belongs to the host's user owner, who is root inside."""
    if not owner:
        return Fds()
    from .userns import Owner
    return Owner(owner)


def made_for(users: "UserNamespace | None") -> "Owner | Fds":
    """Return a context: what is made belongs to root of the user namespace, if there is one."""
    return made_by(users.first if users else 0)


@doing("mount the root file system")
def mount_root(sources: Sources, users: "UserNamespace | None" = None) -> Fd:
    """Mount the root file system on LIVE, in one of the three ways, and return a descriptor of it.

    With a user namespace its owners are those inside.
    """
    if sources.is_overlay:
        mount_overlay(sources, users)
    elif users:
        bind_mapped(sources, users)
    else:
        with directory(sources.live, "LIVE") as live:
            mount_bind(sources.upper, live, recursive=sources.is_premounted)
    return directory(sources.live, "LIVE")


def bind_mapped(sources: Sources, users: "UserNamespace") -> None:
    """Mount UPPER on LIVE; if it is LIVE, with what is mounted below it."""
    from . import userns
    carried = users.carry(sources.live, complain, set()) if sources.is_premounted else []
    with directory(sources.live, "LIVE") as live, users.mapped(sources.upper, f"UPPER={sources.upper}") as root:
        namespaces.move_mount(root, live)
        userns.attach(root, carried)


@doing("mount the root file system")
def remount_root(sources: Sources, root: Fd, users: "UserNamespace", log: int) -> Fd:
    """Mount anew, for a user namespace, the root file system that a hook has mounted something in; close the former.

    What of that is on a file system that cannot be mapped is named in the log.
    """
    from . import userns

    def tell(line: str) -> None:
        files.write_all(log, f"overlay-boot: {line}\n")

    carried = users.carry(sources.live, tell, {sources.live + mount.inside for mount in sources.mounts})
    with root:
        if sources.is_overlay:          # no two overlay mounts can have one UPPER
            namespaces.umount2(sources.live, namespaces.DETACH)
    with made_for(users):
        root = mount_root(sources, users)
    userns.attach(root, carried)
    return root


@doing("keep devices from what a hook has mounted")
def keep_devices(place: str) -> None:
    """Have no device files work on the mounts below a directory, but for those in its dev, and for single devices."""
    for mount in proc.mounts_below(place):
        if not f"{mount.place}/".startswith(f"{place}/dev/"):
            with files.opened(mount.place, posix.O_PATH | posix.O_NOFOLLOW) as mounted:
                if files.kind_of(mounted) not in files.DEVICES:
                    namespaces.mount_setattr(mounted, namespaces.NODEV)


@doing("lock the mounts")
def lock_mounts(root: int, users: "UserNamespace") -> tuple[View, Fd]:
    """Return a view of a copy of this mount namespace, that a user namespace owns, and a descriptor of root in it."""
    mounts, top, copied = users.copy_mounts(root)
    return View(mounts, top), copied


def upper_and_work(sources: Sources, users: "UserNamespace | None") -> list[Fd]:
    """Return descriptors of UPPER and WORK, and of what has to be open for an overlay mount of them."""
    if users:
        return users.mapped_pair(sources.upper, sources.work, f"UPPER={sources.upper}", is_ours=bool(sources.tmpfs))
    return [directory(sources.upper, "UPPER"), directory(sources.work, "WORK")]


def mount_overlay(sources: Sources, users: "UserNamespace | None") -> None:
    with sources.apart:                 # of a mount that this one takes the place of
        pass
    if sources.is_private:
        sources.apart.keep(directory(sources.upper, "UPPER"))
    with opened_lower(sources, users) as layers:
        hiding = -1
        if sources.hide:
            number = len(sources.layers)
            hiding = mount_hiding_layer(sources, layers[number:], users)
            layers.insert(number, hiding)
            sources.apart.keep(posix.dup(hiding))
            sources.hiding = (number, *files.identity(hiding))
        stacks = stacks_of_mounts(sources, hiding) if sources.mounts else []
        with Fds(upper_and_work(sources, users)) as (upper, work, *both):
            mount_beneath(sources.live, *both)
            for_all = namespaces.NODEV if users or not sources.has_devices else 0   # as the keeper has it for the root
            mounted = [(stack.inside, mount_part(sources, stack, upper, work, users), stack.attributes | for_all)
                       for stack in reversed(stacks)]
            mount_layers(sources, layers, upper, work)
    if mounted:
        from . import lower_mounts
        with directory(sources.live, "LIVE") as root:
            lower_mounts.attach(root, reversed(mounted))


def stacks_of_mounts(sources: Sources, hiding: int) -> "list[Stack]":
    """Return what is to be mounted above what is mounted below LOWER; hiding is the layer for HIDE, or -1."""
    from . import lower_mounts
    with directory(sources.upper, "UPPER") as upper, directory(sources.work, "WORK") as work:
        return lower_mounts.stacks(sources.mounts, sources.lower, len(sources.layers), hiding, upper, work)


def mount_part(sources: Sources, stack: "Stack", upper: int, work: int, users: "UserNamespace | None") -> Fd:
    """Return a descriptor of an overlay mount above what is mounted below LOWER; nobody sees it yet."""
    part = sources.part(stack.inside, stack.paths, stack.number)
    with opened_lower(part, users) as layers, \
            beneath.directory(upper, stack.inside[1:], beneath.REFUSED) as own, \
            beneath.directory(work, stack.work, beneath.REFUSED) as own_work:
        if posix.fstat(own).st_dev != posix.fstat(own_work).st_dev:
            raise Failure(f"{part.upper} in UPPER is on another file system, or in another subvolume, than "
                          f"WORK={sources.work}")
        if stack.hidden is not None:
            layers.insert(stack.number, stack.hidden)
        return overlay_apart(part, layers, own, own_work)


def overlay_apart(sources: Sources, layers: list[int], upper: int, work: int) -> Fd:
    """Return a descriptor of an overlay mount of descriptors, which nobody sees yet.

    To unmount takes the kernel a grace period of RCU, milliseconds on a busy machine, so it is not mounted on LIVE and
    taken away from there, unless its layers are more than fsconfig(2) takes.
    """
    lower = lowerdir(layers)
    if len(lower) >= LONGEST_VALUE:
        mount_layers(sources, layers, upper, work)
        return taken_from(sources.live)
    words = (*sources.options, f"upperdir={paths.of_descriptor(upper)}", f"workdir={paths.of_descriptor(work)}", lower)
    options = {key: value if equals else None for key, equals, value in (word.partition("=") for word in words)}
    try:
        mounted = mounts.new("overlay", 0, source="overlay", **options)
    except OSError as error:
        raise Failure(f"cannot mount the overlay of UPPER={sources.upper}: {why_not(error, sources)}") from None
    if is_read_only(paths.of_descriptor(mounted)):
        with mounted:
            refuse_read_only(sources)
    return mounted


def refuse_read_only(sources: Sources) -> None:
    """Raises Failure for an overlay mount that the kernel has made read-only, as it does if it cannot use WORK."""
    check_writable(sources)
    raise Failure(f"the kernel cannot use WORK={sources.work}: dmesg(1) tells why")


def mount_layers(sources: Sources, layers: list[int], upper: int, work: int) -> None:
    """Mount an overlay on LIVE, of descriptors.

    So no character of a path means anything to the kernel's option parser, and their number is not bounded by the
    length of the paths.
    """
    own = f"upperdir={paths.of_descriptor(upper)},workdir={paths.of_descriptor(work)}"
    try:
        namespaces.mount("overlay", sources.live, "overlay", 0, ",".join((*sources.options, own, lowerdir(layers))))
        if is_read_only(sources.live):
            refuse_read_only(sources)
    except OSError as error:
        raise Failure(f"cannot mount the overlay on LIVE={sources.live}: {why_not(error, sources)}") from None


def opened_lower(sources: Sources, users: "UserNamespace | None" = None) -> Fds:
    """Return descriptors of LOWER's directories that can be layers of one overlay mount, the topmost first."""
    with Fds(place(path, "LOWER", users) for path in sources.lower) as opened:
        if users:
            mount_beneath(sources.live, *opened)
        for number in outer(sources.lower) if len(opened) > 1 else ():
            opened[number] = set_apart(opened[number], sources)
        layers = Fds(opened)
        opened.let_go()
    return layers


def mount_beneath(live: str, *mounts: int) -> None:
    """Mount on LIVE, beneath the root to come, what is mounted nowhere: before Linux 6.15 that cannot be a layer."""
    for mounted in mounts:
        with directory(live, "LIVE") as point:
            namespaces.move_mount(mounted, point)


def lowerdir(layers: list[int]) -> str:
    """Return an option of overlayfs.  Raises Failure if it is longer than what the kernel takes of options."""
    option = f"lowerdir={':'.join(map(paths.of_descriptor, layers))}"
    if len(option) >= LONGEST_OPTION:
        raise Failure(f"LOWER and LAYER are {len(layers)} directories, more than the kernel takes")
    return option


def merged(layers: list[int], live: str) -> Fd:
    """Return a descriptor of the root that layers make together, without what is mounted below them."""
    if len(layers) == 1:
        return Fd(namespaces.open_tree(paths.of_descriptor(layers[0])))
    namespaces.mount("overlay", live, "overlay", namespaces.RDONLY, lowerdir(layers))
    return taken_from(live)


def taken_from(live: str) -> Fd:
    """Return a descriptor of what was just mounted on LIVE, with what is mounted below, and unmount it there."""
    root = Fd(namespaces.open_tree(live, recursive=True))
    namespaces.umount2(live, namespaces.DETACH)
    return root


def whole_lower(sources: Sources, lower: list[int], users: "UserNamespace | None" = None) -> Fd:
    """Return merged() of the descriptors of LOWER, with what is mounted below it and is to be seen."""
    if not sources.mounts:
        return merged(lower, sources.live)
    from . import lower_mounts
    directories, mounted = sources.lower[len(sources.layers):], []
    for mount in sources.mounts:
        stack = lower_mounts.Stack(mount, directories, 0)
        if stack.is_mounted:
            part = sources.part(mount.inside, stack.paths, 0)
            part.apart = Fds()          # nobody looks at it again
            with part.apart, opened_lower(part, users) as layers:
                mounted.append((mount.inside, merged(layers, sources.live), 0))
    with merged(lower, sources.live) as root, directory(sources.live, "LIVE") as live:
        namespaces.move_mount(root, live)
        lower_mounts.attach(root, mounted)
    return taken_from(sources.live)


def mount_hiding_layer(sources: Sources, lower: list[int], users: "UserNamespace | None") -> Fd:
    """Mount the layer that hides something of LOWER, on LIVE, beneath the root to come.  Return a descriptor of it."""
    from . import hiding
    layer = mounts.new("tmpfs", namespaces.NOSUID | namespaces.NODEV, mode="755")
    with whole_lower(sources, lower, users) as below:
        try:
            hiding.make_layer(layer, below, sources)
        except OSError as error:
            raise Failure(f"cannot hide what HIDE names: {error.strerror}") from None
    mount_beneath(sources.live, layer)
    return layer


def check_writable(sources: Sources) -> None:
    """Raises Failure if UPPER and WORK cannot serve an overlay mount that is to be written to."""
    if is_on_overlay(sources.upper):
        raise Failure(f"UPPER={sources.upper} is on an overlay mount itself, as the root of a subhost is: it must be "
                      f"on another file system, such as tmpfs:SIZE")
    for variable, path in (("UPPER", sources.upper), ("WORK", sources.work)):
        if is_read_only(path):
            raise Failure(f"{variable}={path} is on a read-only file system")
    for path in (sources.work, f"{sources.work}/work"):     # the latter is the kernel's
        if files.kind(path) and not posix.access(path, posix.W_OK):
            raise Failure(f"WORK={sources.work} cannot be written to: it may be immutable, see lsattr(1)")
    left = f"{sources.work}/work/incompat"
    if files.kind(f"{left}/{VOLATILE}"):
        raise Failure(f"UPPER={sources.upper} was in use with OVERLAY={VOLATILE}, and may lack what had not reached "
                      f"the disk: without {left} it can be used again")


def check_unlocked(sources: Sources) -> None:
    """Raises Failure if no overlay mount can be over LOWER, as mounts below that are locked, mount_namespaces(7)."""
    for path in sources.lower:
        try:
            Fd(namespaces.open_tree(path)).close()
        except OSError as error:
            if error.errno == EINVAL:
                raise Failure(f"LOWER={path} has mounts below it that are locked, as in a container: it must be "
                              f"another directory") from None


def is_read_only(path: str) -> bool:
    """Tell whether nothing can be written in a directory because of its file system, or of the mount of that."""
    return bool(posix.statvfs(path).f_flag & posix.ST_RDONLY)


def is_on_overlay(path: str) -> bool:
    """Tell whether it is on an overlay mount, which cannot serve another one as UPPER, nor take a whiteout."""
    mount = proc.mount_of(path)
    return bool(mount and mount.kind == "overlay")


def outer(lower: list[str]) -> list[int]:
    """Return the numbers of those of the directories that have another of them inside, on the same file system."""
    found = [(posix.stat(path).st_dev, paths.real(path).rstrip("/") + "/") for path in lower]
    return [number for number, (device, path) in enumerate(found) if any(
        other == device and inner != path and inner.startswith(path) for other, inner in found)]


def set_apart(layer: int, sources: Sources) -> int:
    """Return a descriptor of what layer stands for, as a file system of its own.  layer is closed.

    Overlayfs refuses a lower layer inside another one (since Linux 5.2), as one in the cache
    is inside LOWER=/.  The outer one becomes an overlay mount itself, over an empty directory
    since that takes two.  Both mounts are on LIVE, beneath the one to come, and out of
    reach from then on: a descriptor is kept, for overlay-follow.
    """
    live = sources.live
    with directory(live, "LIVE") as point:
        mount_new("tmpfs", point, namespaces.NOSUID | namespaces.NODEV, mode="755", size="4k")
    with directory(live, "LIVE") as empty:
        lower = f"{paths.of_descriptor(layer)}:{paths.of_descriptor(empty)}"
        namespaces.mount("overlay", live, "overlay", 0, f"lowerdir={lower}")
    posix.close(layer)
    sources.apart.keep(directory(live, "LIVE"))
    return directory(live, "LIVE")


def mount_point_of(name: str) -> str:
    """Return the path of the directory on which UPPER's tmpfs is mounted."""
    return f"{directory_of(name)}/upper"


@doing("mount a tmpfs for UPPER")
def mount_upper(sources: Sources, state: State) -> None:
    """Make UPPER and WORK, on a tmpfs of their own that only this mount namespace has."""
    point = mount_point_of(state.name)
    state.note("mount_point", point)
    posix.mkdir(point, 0o700)
    options = {"mode": "700", "size": sources.tmpfs}
    size = size_of(sources.tmpfs)
    if size is not None:
        # An empty file takes no page, and still memory of the kernel's: not more of that than of the other.
        options["nr_inodes"] = str(max(1024, size >> 10))
    with directory(point, "UPPER") as upper:
        mount_new("tmpfs", upper, namespaces.NOSUID | namespaces.NODEV, **options)
    sources.put_upper(point)
    posix.mkdir(sources.upper, 0o755)
    posix.mkdir(sources.work, 0o700)


@doing("remove the mount point of UPPER")
def remove_mount_point(path: str) -> None:
    """Remove the directory that mount_upper() made, if it got so far."""
    try:
        posix.rmdir(path)
    except FileNotFoundError:
        pass


def why_not(error: OSError, sources: Sources) -> str:
    """Return what an errno of overlayfs means.  The bare word would mislead."""
    import errno
    if error.errno == EINVAL and outer(sources.lower):
        return "LOWER, which has a LAYER in it, is on an overlay mount itself: LAYER must be on another file system"
    if error.errno == EINVAL:
        check_writable(sources)
    if error.errno in (EINVAL, EPERM):
        check_unlocked(sources)
    meanings = {
        EPERM: "in a container whose root has no rights on the host, OVERLAY must be redirect_dir=nofollow",
        EINVAL: f"the file system of UPPER={sources.upper} cannot serve as an upper layer",
        errno.ELOOP: "LOWER or LAYER is inside UPPER or WORK",
        errno.EBUSY: f"UPPER={sources.upper} or WORK={sources.work} is in use by another overlay mount",
        errno.ENODEV: "this kernel has no overlay file system",
        errno.ESTALE: f"UPPER={sources.upper} was made with another LOWER",
    }
    return meanings.get(error.errno or 0) or str(error.strerror)


def mount_bind(source: str, target: int, *, recursive: bool = False) -> None:
    """A bind mount of source on what the descriptor target is."""
    with Fd(namespaces.open_tree(source, recursive=recursive)) as mounted:
        namespaces.move_mount(mounted, target)


def mount_new(kind: str, target: int, attributes: int, **options: str | None) -> None:
    """A new file system on what the descriptor target is; it is complete before anyone sees it."""
    with mounts.new(kind, attributes, source=kind, **options) as mounted:
        namespaces.move_mount(mounted, target)


def mount_sized(variable: str, size: str, target: int, *, mode: str) -> None:
    """A tmpfs of a size as tmpfs(5) has it.  Raises Failure, which names the variable, if the kernel refuses that."""
    try:
        mount_new("tmpfs", target, namespaces.NOSUID | namespaces.NODEV, mode=mode, size=size)
    except OSError as error:
        raise Failure(f"cannot mount a tmpfs of {variable}={size}: {error.strerror}") from None


def mount_place(root: int, name: str) -> Fd:
    """Return a descriptor of the directory name in the root, to be mounted on; it is made if there is none.

    Raises Failure if it cannot be made, or is something else.
    """
    try:
        return beneath.directory(root, name, beneath.REFUSED, make=0o755)
    except OSError as error:
        if files.exists(name, root):
            raise Failure(f"/{name} in the subhost is not a directory that can be mounted on: "
                          f"{error.strerror}") from None
        raise Failure(f"cannot make the directory /{name} in the subhost: {error.strerror}") from None


@doing("mount /dev")
def mount_devices(root: int, shm_size: str, owner: int = 0) -> None:
    """A small /dev, with a devpts and a /dev/shm of the subhost's own.  owner is root inside, as the host has it."""
    nosuid_noexec = namespaces.NOSUID | namespaces.NOEXEC
    with mount_place(root, "dev") as point, made_by(owner):
        mount_new("tmpfs", point, nosuid_noexec, mode="755", size="50M")
    mask = posix.umask(0)
    try:
        with mount_place(root, "dev") as dev, made_by(owner):
            for name, major, minor, mode in DEVICES:
                make_device(dev, name, files.CHARACTER_DEVICE | mode, posix.makedev(major, minor))
            for name in ("tty", "ptmx"):
                posix.chown(name, owner, owner + TTY_GROUP, dir_fd=dev)
            for name, target in LINKS:
                posix.symlink(target, name, dir_fd=dev)
            with mount_place(dev, "shm") as shm:
                mount_sized("SHM_SIZE", shm_size, shm, mode="1777")
            with mount_place(dev, "pts") as pts:
                mount_new("devpts", pts, nosuid_noexec, ptmxmode="666", mode="620", gid=str(owner + TTY_GROUP))
            if owner:           # the kernel has made these for root of the host
                for name in ("pts", "pts/ptmx"):
                    posix.chown(name, owner, owner, dir_fd=dev)
    finally:
        posix.umask(mask)


def make_device(directory: int, name: str, mode: int, device: int) -> None:
    try:
        posix.mknod(name, mode, device, dir_fd=directory)
    except OSError as error:
        if error.errno != EPERM:
            raise
        raise Failure(f"cannot make /dev/{name}: this is a container that may not make device files") from None


@doing("mount /sys")
def mount_sys(root: int) -> None:
    """A /sys that shows the network namespace of this process."""
    with mount_place(root, "sys") as point:
        mount_new("sysfs", point, namespaces.NOSUID | namespaces.NODEV | namespaces.NOEXEC)


@doing("mount /run")
def mount_run(root: int, size: str, owner: int = 0) -> None:
    """A tmpfs on /run, of a size as tmpfs(5) has it, with a lock directory for all, that belong to owner."""
    with mount_place(root, "run") as point, made_by(owner):
        mount_sized("RAM_SIZE", size, point, mode="755")
    mask = posix.umask(0)
    try:
        with mount_place(root, "run") as run, made_by(owner):
            posix.mkdir("lock", 0o1777, dir_fd=run)
    finally:
        posix.umask(mask)


@doing("mount /etc/adjtime")
def bind_adjtime(root: int, users: "UserNamespace | None" = None) -> None:
    """The host's /etc/adjtime, where both have one; id-mapped where there is a user namespace, and it can be."""
    try:
        target = beneath.opened(root, "etc/adjtime", posix.O_PATH, beneath.REFUSED)
    except OSError:
        return
    with target:
        if files.kind_of(target) == files.REGULAR == files.kind("/etc/adjtime"):
            if users:
                users.bind("/etc/adjtime", target)
            else:
                mount_bind("/etc/adjtime", target)
