"""The root file system of a subhost, on LIVE, in a mount namespace of its own.

What stands in UPPER and LIVE is the subhost's, and may be hostile: it is
reached by descriptors below the directory, through no symbolic link that leads
out of it, and never opened to be used before it is known for what it is.
"""
import posix

from . import files, namespaces, paths
from .config import size_of
from .errors import Failure, doing

DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC

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


class View:
    """What this process sees of files: its mount namespace, and the root that it has in that, chroot(2)."""

    __slots__ = ("mounts", "root")

    def __init__(self):
        self.mounts = posix.open("/proc/self/ns/mnt", posix.O_RDONLY)
        self.root = posix.open("/", DIRECTORY)

    def enter(self):
        namespaces.setns(self.mounts, namespaces.NEWNS)
        posix.fchdir(self.root)
        posix.chroot(".")

    def close(self):
        posix.close(self.mounts)
        posix.close(self.root)


@doing("make a mount namespace")
def unshare_mounts():
    """Enter a copy of the host's mount namespace, that is ours; the views of the host and of ours."""
    host = View()
    try:
        namespaces.unshare(namespaces.NEWNS)
        own = View()
        here = posix.open(".", DIRECTORY)
        namespaces.setns(own.mounts, namespaces.NEWNS)      # its own root: ours, in a chroot, is no mount
        namespaces.mount(None, "/", None, namespaces.REC | namespaces.PRIVATE)
        own.enter()
        posix.fchdir(here)
        posix.close(here)
    except OSError:
        host.enter()
        raise
    return host, own


def check(config):
    """Raises Failure if the directories of a configuration cannot make a root file system."""
    live = directory(config.live, "LIVE")
    upper = -1 if config.tmpfs else directory(config.upper, "UPPER")
    layers = [directory(path, "LOWER") for path in config.lower]
    try:
        if upper >= 0 and is_overlay(config):
            check_work(config, upper)
        if not is_premounted(config) and namespaces.mount_of(live)[1]:
            raise Failure(f"LIVE={config.live} has something mounted on it already")
    finally:
        for fd in (live, upper, *layers):
            if fd >= 0:
                posix.close(fd)


def check_work(config, upper):
    work = directory(config.work, "WORK")
    try:
        if namespaces.mount_of(work)[0] != namespaces.mount_of(upper)[0]:
            raise Failure(f"WORK={config.work} is not on the same mount as UPPER={config.upper}")
    finally:
        posix.close(work)
    one, other = paths.real(config.work) + "/", paths.real(config.upper) + "/"
    if one.startswith(other) or other.startswith(one):
        raise Failure(f"WORK={config.work} and UPPER={config.upper} must not be inside each other")


def directory(path, variable):
    try:
        return posix.open(path, DIRECTORY)
    except OSError as error:
        raise Failure(f"{variable}={path}: {error.strerror}") from None


def is_overlay(config):
    """Whether the root is made of layers; else UPPER is LOWER, and the root."""
    return len(config.lower) > 1 or bool(config.layers or config.tmpfs) or not same(config.upper, config.lower[0])


def same(one, other):
    """Whether two paths lead to one directory."""
    one, other = posix.stat(one), posix.stat(other)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def is_premounted(config):
    """Whether UPPER, LOWER and LIVE are one directory: the root is there as it is."""
    return not is_overlay(config) and same(config.live, config.upper)


@doing("mount the root file system")
def mount_root(config):
    """Mount the root file system on LIVE, in one of the three ways, and return a descriptor of it."""
    if is_overlay(config):
        mount_overlay(config)
    else:
        mount_bind(config.upper, directory(config.live, "LIVE"), recursive=is_premounted(config))
    return directory(config.live, "LIVE")


def mount_overlay(config):
    # By descriptor, so that no character of a path means anything to the kernel's
    # option parser, and their number is not bounded by the length of the paths.
    layers = [directory(path, "LOWER") for path in config.lower]
    upper, work = directory(config.upper, "UPPER"), directory(config.work, "WORK")
    try:
        for number in outer(config.lower) if len(layers) > 1 else ():
            layers[number] = set_apart(layers[number], config.live)
        options = f"upperdir={place(upper)},workdir={place(work)},lowerdir={':'.join(map(place, layers))}"
        if len(options) >= LONGEST_OPTIONS:
            raise Failure(f"LOWER and LAYER are {len(layers)} directories, more than the kernel takes")
        namespaces.mount("overlay", config.live, "overlay", 0, options)
    except OSError as error:
        raise Failure(f"cannot mount the overlay on LIVE={config.live}: {why_not(error, config)}") from None
    finally:
        for fd in (*layers, upper, work):
            posix.close(fd)


def place(fd):
    return f"/proc/self/fd/{fd}"


def outer(lower):
    """The numbers of those of the directories that have another of them inside, on the same file system."""
    found = [(posix.stat(path).st_dev, paths.real(path).rstrip("/") + "/") for path in lower]
    return [number for number, (device, path) in enumerate(found) if any(
        other == device and inner != path and inner.startswith(path) for other, inner in found)]


def set_apart(layer, live):
    """A descriptor of what that of a directory stands for, as a file system of its own; the other one is closed.

    Overlayfs refuses a lower layer inside another one (since Linux 5.2), as one in the cache
    is inside LOWER=/.  The outer one becomes an overlay mount itself, over an empty directory
    since that takes two.  Both mounts are on LIVE, beneath the one to come.
    """
    mount_new("tmpfs", directory(live, "LIVE"), namespaces.NOSUID | namespaces.NODEV, mode="755", size="4k")
    empty = directory(live, "LIVE")
    namespaces.mount("overlay", live, "overlay", 0, f"lowerdir={place(layer)}:{place(empty)}")
    apart = directory(live, "LIVE")
    posix.close(empty)
    posix.close(layer)
    return apart


@doing("mount a tmpfs for UPPER")
def mount_upper(config, state):
    """Make UPPER and WORK, on a tmpfs of their own that only this mount namespace has."""
    point = state.make_mount_point()
    options = {"mode": "700", "size": config.tmpfs}
    size = size_of(config.tmpfs)
    if size is not None:
        # An empty file takes no page, and still memory of the kernel's: not more of that than of the other.
        options["nr_inodes"] = str(max(1024, size >> 10))
    mount_new("tmpfs", directory(point, "UPPER"), namespaces.NOSUID | namespaces.NODEV, **options)
    config.upper, config.work = f"{point}/root", f"{point}/work"
    posix.mkdir(config.upper, 0o755)
    posix.mkdir(config.work, 0o700)


def why_not(error, config):
    """What an errno of overlayfs means; the bare word would mislead."""
    import errno
    if error.errno == errno.EINVAL and outer(config.lower):
        return "LOWER, which has a LAYER in it, is on an overlay mount itself: LAYER must be on another file system"
    return {
        errno.EINVAL: f"the file system of UPPER={config.upper} cannot serve as an upper layer",
        errno.ELOOP: "LOWER or LAYER is inside UPPER or WORK",
        errno.EBUSY: f"UPPER={config.upper} or WORK={config.work} is in use by another overlay mount",
        errno.ENODEV: "this kernel has no overlay file system",
        errno.ESTALE: f"UPPER={config.upper} was made with another LOWER",
        errno.EROFS: f"the file system of UPPER={config.upper} is read-only",
    }.get(error.errno, error.strerror)


def mount_bind(source, target, *, recursive=False):
    """A bind mount of source on the descriptor target, which is closed."""
    mounted = -1
    try:
        mounted = namespaces.open_tree(source, recursive=recursive)
        namespaces.move_mount(mounted, target)
    finally:
        posix.close(target)
        if mounted >= 0:
            posix.close(mounted)


def mount_new(kind, target, attributes, **options):
    """A new file system on the descriptor target, which is closed; complete before anyone sees it."""
    mounted = -1
    try:
        mounted = new_mount(kind, attributes, source=kind, **options)
        namespaces.move_mount(mounted, target)
    finally:
        for fd in (target, mounted):
            if fd >= 0:
                posix.close(fd)


def new_mount(kind, attributes, **options):
    """A descriptor of a mount that nobody sees yet; an option that is None is a flag."""
    filesystem = namespaces.fsopen(kind)
    try:
        for key, value in options.items():
            namespaces.fsconfig(filesystem, key, value)
        return namespaces.fsmount(filesystem, attributes)
    finally:
        posix.close(filesystem)


def below(root, name):
    """A descriptor of the directory name right below root, made if there is none."""
    try:
        posix.mkdir(name, 0o755, dir_fd=root)
    except FileExistsError:
        pass
    except OSError as error:
        raise Failure(f"cannot make the directory /{name} in the subhost: {error.strerror}") from None
    try:
        return posix.open(name, DIRECTORY | posix.O_NOFOLLOW, dir_fd=root)
    except OSError as error:
        raise Failure(f"/{name} in the subhost is no directory that can be mounted on: {error.strerror}") from None


@doing("mount /dev")
def mount_devices(root):
    """A small /dev, with a devpts of the subhost's own."""
    nosuid_noexec = namespaces.NOSUID | namespaces.NOEXEC
    mount_new("tmpfs", below(root, "dev"), nosuid_noexec, mode="755", size="50M")
    dev = posix.open("dev", DIRECTORY | posix.O_NOFOLLOW, dir_fd=root)
    mask = posix.umask(0)
    try:
        for name, major, minor, mode in DEVICES:
            posix.mknod(name, files.CHARACTER_DEVICE | mode, posix.makedev(major, minor), dir_fd=dev)
        for name in ("console", "tty", "ptmx"):
            posix.chown(name, 0, TTY_GROUP, dir_fd=dev)
        for name, target in LINKS:
            posix.symlink(target, name, dir_fd=dev)
        posix.mkdir("shm", 0o1777, dir_fd=dev)
        mount_new("devpts", below(dev, "pts"), nosuid_noexec, ptmxmode="666", mode="620", gid=str(TTY_GROUP))
    finally:
        posix.umask(mask)
        posix.close(dev)


@doing("mount /sys")
def mount_sys(root, network):
    """A /sys that shows the network namespace, given by a descriptor."""
    host = posix.open("/proc/self/ns/net", posix.O_RDONLY)
    namespaces.setns(network, namespaces.NEWNET)
    try:
        mount_new("sysfs", below(root, "sys"), namespaces.NOSUID | namespaces.NODEV | namespaces.NOEXEC)
    finally:
        namespaces.setns(host, namespaces.NEWNET)
        posix.close(host)


@doing("mount /run")
def mount_run(root, size):
    """A tmpfs on /run, of a size as tmpfs(5) has it, with a lock directory for all."""
    try:
        mount_new("tmpfs", below(root, "run"), namespaces.NOSUID | namespaces.NODEV, mode="755", size=size)
    except OSError as error:
        raise Failure(f"cannot mount a tmpfs of RAM_SIZE={size} on /run: {error.strerror}") from None
    run = posix.open("run", DIRECTORY | posix.O_NOFOLLOW, dir_fd=root)
    mask = posix.umask(0)
    try:
        posix.mkdir("lock", 0o1777, dir_fd=run)
    finally:
        posix.umask(mask)
        posix.close(run)


@doing("mount /etc/adjtime")
def bind_adjtime(root):
    """The host's /etc/adjtime, where both have one."""
    try:
        target = namespaces.openat2(root, "etc/adjtime", posix.O_PATH, namespaces.NO_SYMLINKS)
    except OSError:
        return
    if files.kind_of(target) != files.REGULAR or files.kind("/etc/adjtime") != files.REGULAR:
        posix.close(target)
        return
    mount_bind("/etc/adjtime", target)


def read(root, path, limit):
    """At most limit bytes of a file below root; of what is no regular file, none."""
    fd = namespaces.openat2(root, path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY, namespaces.IN_ROOT)
    with open(fd, "rb", buffering=0) as file:
        return file.read(limit) if files.kind_of(fd) == files.REGULAR else b""


def write_new(directory, name, data, mode):
    """Write a file in the directory of a descriptor, all of it or nothing.  Raises FileExistsError."""
    part = f".{name}.overlay-boot"
    try:
        posix.unlink(part, dir_fd=directory)        # of a boot that was killed
    except FileNotFoundError:
        pass
    fd = posix.open(part, posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, mode, dir_fd=directory)
    try:
        files.write_all(fd, data)
        posix.fchmod(fd, mode)
        posix.link(part, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        posix.close(fd)
        posix.unlink(part, dir_fd=directory)
