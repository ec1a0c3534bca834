"""The root file system of a subhost, on LIVE, in a mount namespace of its own.

What stands in UPPER and LIVE is the subhost's, and may be hostile: it is reached
only by way of beneath.py.
"""
import posix

from . import beneath, files, namespaces, paths, proc
from .config import Config, size_of
from .errors import Failure, doing
from .files import Fd, Fds
from .state import State, directory_of

DEVICES = (
    ("console", 5, 1, 0o622), ("null", 1, 3, 0o666), ("zero", 1, 5, 0o666), ("full", 1, 7, 0o666),
    ("tty", 5, 0, 0o666), ("random", 1, 8, 0o444), ("urandom", 1, 9, 0o444), ("ptmx", 5, 2, 0o666),
)
LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("core", "/proc/kcore"),
)
LONGEST_OPTIONS = 4096  # and what is longer, mount(2) cuts off in silence
TTY_GROUP = 5           # Debian's, base-passwd


class Sources:
    """The directories that the root file system is made of, and LIVE, where it is mounted.

    At first they are as the configuration has them.  A boot unpacks layers and
    puts them above LOWER, and makes an UPPER that does not persist.
    """

    __slots__ = ("layers", "live", "lower", "tmpfs", "upper", "work")

    def __init__(self, config: Config) -> None:
        self.live = config.live
        self.upper = config.upper       # with tmpfs no path before it is made
        self.work = config.work
        self.lower = [*config.lower]    # the topmost first, layers among them
        self.layers = [*config.layers]  # as LAYER has them; once put above LOWER directories, the topmost first
        self.tmpfs = config.tmpfs       # the size of an UPPER that does not persist, else ""

    def put_layers(self, directories: list[str]) -> None:
        """Put the directories of the layers, the topmost first, above LOWER."""
        self.layers = directories
        self.lower[:0] = directories

    def put_upper(self, mount_point: str) -> None:
        """Have UPPER and WORK on the tmpfs that is mounted there."""
        self.upper, self.work = f"{mount_point}/root", f"{mount_point}/work"

    def settings(self) -> dict[str, str]:
        """Return the variables that name them, with the values that they have by now."""
        return {"LIVE": self.live, "UPPER": self.upper, "WORK": self.work, "LOWER": ":".join(self.lower),
                "LAYER": ":".join(self.layers)}

    @property
    def is_overlay(self) -> bool:
        """Whether the root is an overlay mount; else UPPER is LOWER, and the root."""
        return len(self.lower) > 1 or bool(self.layers or self.tmpfs) or not is_same(self.upper, self.lower[0])

    @property
    def is_premounted(self) -> bool:
        """Whether UPPER, LOWER and LIVE are one directory: the root is there as it is."""
        return not self.is_overlay and is_same(self.live, self.upper)


def is_same(one: str, other: str) -> bool:
    """Tell whether two paths lead to one directory."""
    return files.identity(one) == files.identity(other)


class View:
    """What this process sees of files: its mount namespace, and the root that it has in that, chroot(2)."""

    __slots__ = ("mounts", "root")

    def __init__(self) -> None:
        self.mounts = files.opened("/proc/self/ns/mnt", posix.O_RDONLY)
        self.root = files.opened("/", files.PLACE)

    def enter(self) -> None:
        """Have this process see it."""
        namespaces.setns(self.mounts, namespaces.NEWNS)
        posix.fchdir(self.root)
        posix.chroot(".")

    def close(self) -> None:
        posix.close(self.mounts)
        posix.close(self.root)


class Inside:
    """A context: this process is in another mount namespace, and has its root, for single system calls.

    A descriptor stands for the namespace, or for a process that is in it, setns(2).
    """

    __slots__ = ("fd", "outside")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.outside = View()

    def __enter__(self) -> None:
        namespaces.setns(self.fd, namespaces.NEWNS)

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


def check(sources: Sources) -> None:
    """Raises Failure if the directories cannot make a root file system."""
    with Fds() as fds:
        live = fds.keep(directory(sources.live, "LIVE"))
        upper = -1 if sources.tmpfs else fds.keep(directory(sources.upper, "UPPER"))
        for path in sources.lower:
            fds.keep(directory(path, "LOWER"))
        if upper >= 0 and sources.is_overlay:
            check_work(sources, upper)
        if not sources.is_premounted and namespaces.mount_of(live)[1]:
            raise Failure(f"LIVE={sources.live} has something mounted on it already")


def check_work(sources: Sources, upper: int) -> None:
    with directory(sources.work, "WORK") as work:
        if namespaces.mount_of(work)[0] != namespaces.mount_of(upper)[0]:
            raise Failure(f"WORK={sources.work} is not on the same mount as UPPER={sources.upper}")
    one, other = paths.real(sources.work) + "/", paths.real(sources.upper) + "/"
    if one.startswith(other) or other.startswith(one):
        raise Failure(f"WORK={sources.work} and UPPER={sources.upper} must not be inside each other")


def directory(path: str, variable: str) -> Fd:
    """Return a descriptor of a directory, a place to start from.  Raises Failure, which names the variable."""
    try:
        return files.opened(path, files.PLACE)
    except OSError as error:
        raise Failure(f"{variable}={path}: {error.strerror}") from None


@doing("mount the root file system")
def mount_root(sources: Sources) -> Fd:
    """Mount the root file system on LIVE, in one of the three ways, and return a descriptor of it."""
    if sources.is_overlay:
        mount_overlay(sources)
    else:
        with directory(sources.live, "LIVE") as live:
            mount_bind(sources.upper, live, recursive=sources.is_premounted)
    return directory(sources.live, "LIVE")


def mount_overlay(sources: Sources) -> None:
    # By descriptor, so that no character of a path means anything to the kernel's
    # option parser, and their number is not bounded by the length of the paths.
    try:
        with Fds(directory(path, "LOWER") for path in sources.lower) as layers, \
                directory(sources.upper, "UPPER") as upper, directory(sources.work, "WORK") as work:
            for number in outer(sources.lower) if len(layers) > 1 else ():
                layers[number] = set_apart(layers[number], sources.live)
            options = ",".join((f"upperdir={paths.of_descriptor(upper)}", f"workdir={paths.of_descriptor(work)}",
                                f"lowerdir={':'.join(map(paths.of_descriptor, layers))}"))
            if len(options) >= LONGEST_OPTIONS:
                raise Failure(f"LOWER and LAYER are {len(layers)} directories, more than the kernel takes")
            namespaces.mount("overlay", sources.live, "overlay", 0, options)
            if is_read_only(sources.live):      # what the kernel makes of a WORK that it cannot use
                check_writable(sources)
                raise Failure(f"the kernel cannot use WORK={sources.work}: dmesg(1) tells why")
    except OSError as error:
        raise Failure(f"cannot mount the overlay on LIVE={sources.live}: {why_not(error, sources)}") from None


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


def is_read_only(path: str) -> bool:
    """Tell whether nothing can be written in a directory because of its file system, or of the mount of that."""
    return bool(posix.statvfs(path).f_flag & posix.ST_RDONLY)


def is_on_overlay(path: str) -> bool:
    """Tell whether it is on an overlay mount, which cannot serve another one as UPPER, nor take a whiteout."""
    with files.opened(path, posix.O_PATH) as fd:
        mount = proc.mounts().get(namespaces.mount_of(fd)[0])
    return bool(mount and mount.kind == "overlay")


def outer(lower: list[str]) -> list[int]:
    """Return the numbers of those of the directories that have another of them inside, on the same file system."""
    found = [(posix.stat(path).st_dev, paths.real(path).rstrip("/") + "/") for path in lower]
    return [number for number, (device, path) in enumerate(found) if any(
        other == device and inner != path and inner.startswith(path) for other, inner in found)]


def set_apart(layer: int, live: str) -> int:
    """Return a descriptor of what layer stands for, as a file system of its own.  layer is closed.

    Overlayfs refuses a lower layer inside another one (since Linux 5.2), as one in the cache
    is inside LOWER=/.  The outer one becomes an overlay mount itself, over an empty directory
    since that takes two.  Both mounts are on LIVE, beneath the one to come.
    """
    with directory(live, "LIVE") as point:
        mount_new("tmpfs", point, namespaces.NOSUID | namespaces.NODEV, mode="755", size="4k")
    with directory(live, "LIVE") as empty:
        lower = f"{paths.of_descriptor(layer)}:{paths.of_descriptor(empty)}"
        namespaces.mount("overlay", live, "overlay", 0, f"lowerdir={lower}")
    apart = directory(live, "LIVE")
    posix.close(layer)
    return apart


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
    if error.errno == errno.EINVAL and outer(sources.lower):
        return "LOWER, which has a LAYER in it, is on an overlay mount itself: LAYER must be on another file system"
    if error.errno == errno.EINVAL:
        check_writable(sources)
    meanings = {
        errno.EINVAL: f"the file system of UPPER={sources.upper} cannot serve as an upper layer",
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
    with new_mount(kind, attributes, source=kind, **options) as mounted:
        namespaces.move_mount(mounted, target)


def new_mount(kind: str, attributes: int, **options: str | None) -> Fd:
    """Return a descriptor of a mount that nobody sees yet.  An option that is None is a flag."""
    with Fd(namespaces.fsopen(kind)) as filesystem:
        for key, value in options.items():
            namespaces.fsconfig(filesystem, key, value)
        return Fd(namespaces.fsmount(filesystem, attributes))


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
def mount_devices(root: int) -> None:
    """A small /dev, with a devpts of the subhost's own."""
    nosuid_noexec = namespaces.NOSUID | namespaces.NOEXEC
    with mount_place(root, "dev") as place:
        mount_new("tmpfs", place, nosuid_noexec, mode="755", size="50M")
    mask = posix.umask(0)
    try:
        with mount_place(root, "dev") as dev:
            for name, major, minor, mode in DEVICES:
                posix.mknod(name, files.CHARACTER_DEVICE | mode, posix.makedev(major, minor), dir_fd=dev)
            for name in ("console", "tty", "ptmx"):
                posix.chown(name, 0, TTY_GROUP, dir_fd=dev)
            for name, target in LINKS:
                posix.symlink(target, name, dir_fd=dev)
            posix.mkdir("shm", 0o1777, dir_fd=dev)
            with mount_place(dev, "pts") as pts:
                mount_new("devpts", pts, nosuid_noexec, ptmxmode="666", mode="620", gid=str(TTY_GROUP))
    finally:
        posix.umask(mask)


@doing("mount /sys")
def mount_sys(root: int) -> None:
    """A /sys that shows the network namespace of this process."""
    with mount_place(root, "sys") as place:
        mount_new("sysfs", place, namespaces.NOSUID | namespaces.NODEV | namespaces.NOEXEC)


@doing("mount /run")
def mount_run(root: int, size: str) -> None:
    """A tmpfs on /run, of a size as tmpfs(5) has it, with a lock directory for all."""
    with mount_place(root, "run") as place:
        try:
            mount_new("tmpfs", place, namespaces.NOSUID | namespaces.NODEV, mode="755", size=size)
        except OSError as error:
            raise Failure(f"cannot mount a tmpfs of RAM_SIZE={size} on /run: {error.strerror}") from None
    mask = posix.umask(0)
    try:
        with mount_place(root, "run") as run:
            posix.mkdir("lock", 0o1777, dir_fd=run)
    finally:
        posix.umask(mask)


@doing("mount /etc/adjtime")
def bind_adjtime(root: int) -> None:
    """The host's /etc/adjtime, where both have one."""
    try:
        target = beneath.opened(root, "etc/adjtime", posix.O_PATH, beneath.REFUSED)
    except OSError:
        return
    with target:
        if files.kind_of(target) == files.REGULAR == files.kind("/etc/adjtime"):
            mount_bind("/etc/adjtime", target)
