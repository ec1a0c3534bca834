"""What of the host is bind-mounted into a subhost: by SHARE at its boot, by overlay-share while it runs.

A share is known by the id of its mount, which is noted before the subhost can
see it.  What the subhost's root has unmounted, the kernel does not list any
more.  It may give the id to another mount: of one that it lists, the device of
the file system is compared, and before anything is unmounted, the inode.

The subhost's root is reached by a descriptor.  Its mount namespace is entered
for single system calls: what Python imports in there would be the subhost's.
"""
import posix

from . import files, namespaces, paths, proc, record, rootfs, state
from .errors import Failure
from .running import NotRunning
from .running import find as find_running

# In the state file: this, the mount's id, and MAJOR:MINOR DEVICE INODE OUTSIDE:INSIDE, or nothing once it is undone.
RECORD = "share:"


class Mounted:
    """A share that is on record, and mounted."""

    __slots__ = ("device", "id", "inode", "inside", "outside", "place", "read_only")

    def __init__(self, number, noted, mount):
        self.id = number
        self.device, self.inode = noted.device, noted.inode
        self.outside, self.inside = noted.outside, noted.inside
        self.place = mount.place
        self.read_only = "ro" in mount.options


def find(name):
    """The running subhost NAME.  Raises Failure if it is not, or has no state file in which a share can be noted."""
    try:
        return find_running(name)
    except NotRunning:
        from . import subhosts
        if any(one.name == name for one in subhosts.inherited()):
            raise Failure(f"{name} was booted by the shell version: boot it again to share with it") from None
        raise


def mount_all(wanted, noted, root):
    """At a boot: mount every SHARE, in order, below the descriptor root."""
    for outside, inside in wanted:
        try:
            mount(noted, root, outside, inside)
        except OSError as error:
            raise Failure(f"SHARE={outside}: {error.strerror}") from None
        except Failure as failure:
            raise Failure(f"SHARE={outside}: {failure}") from None


def share(running, outside, inside, *, read_only=False):
    """Mount a path of the host in a running subhost."""
    root = root_of(running)
    host = rootfs.View()

    def attach(mounted, target):
        refuse_twice(running.state, target, inside)
        try:
            namespaces.setns(running.init_fd, namespaces.NEWNS)
            namespaces.move_mount(mounted, target)
        finally:
            host.enter()

    try:
        mount(running.state, root, outside, inside, read_only=read_only, attach=attach)
    except OSError as error:
        raise Failure(f"cannot share {outside}: {error.strerror}") from None
    except Failure as failure:
        raise Failure(f"cannot share {outside}: {failure}") from None
    finally:
        posix.close(root)


def mount(noted, root, outside, inside, *, read_only=False, attach=namespaces.move_mount):
    """Note the mount in a state file, and have it attached where it belongs.  Raises OSError if there is no outside."""
    mounted = namespaces.open_tree(outside)
    target = -1
    key = str(namespaces.mount_of(mounted)[0])
    try:
        # Private: what either side mounts below it is not for the other one.
        namespaces.mount_setattr(mounted, namespaces.RDONLY if read_only else 0, namespaces.PRIVATE)
        target = mount_point(root, inside, files.kind_of(mounted) == files.DIRECTORY)
        status = posix.fstat(mounted)
        noted.note("shares", record.Share(device_of(outside), status.st_dev, status.st_ino, outside, paths.normal(inside)), key)
        try:
            attach(mounted, target)
        except BaseException:
            noted.note("shares", None, key)
            raise
    except OSError as error:
        raise Failure(f"cannot mount it on {inside} in the subhost: {error.strerror}") from None
    finally:
        for fd in (mounted, target):
            if fd >= 0:
                posix.close(fd)


def device_of(path):
    """The device of the file system, as mountinfo has it: that of an inode is another one in some."""
    fd = posix.open(path, posix.O_PATH)
    try:
        return proc.mounts()[namespaces.mount_of(fd)[0]].device
    except KeyError:                    # mounted above our root, chroot(2)
        return "-"
    finally:
        posix.close(fd)


def refuse_twice(noted, target, inside):
    number, is_root = namespaces.mount_of(target)
    if is_root and str(number) in noted.record().shares:
        raise Failure(f"something is shared as {inside} already")


def mount_point(root, path, is_directory):
    """A descriptor of path in the subhost; what is missing of it is made, a directory or a file.

    Symbolic links lead to where they lead inside the subhost (openat2(2), IN_ROOT).
    """
    parts = paths.normal(path).split("/")[1:]
    if parts == [""]:
        raise Failure(f"{path} is no place in a subhost to mount on")
    at = posix.open(".", files.PLACE, dir_fd=root)
    try:
        for number, part in enumerate(parts, 1):
            so_far = "/".join(parts[:number])
            flags = posix.O_PATH | (0 if number == len(parts) and not is_directory else posix.O_DIRECTORY)
            try:
                found = namespaces.openat2(root, so_far, flags, namespaces.IN_ROOT)
            except FileNotFoundError:
                if flags & posix.O_DIRECTORY:
                    posix.mkdir(part, 0o755, dir_fd=at)
                else:
                    posix.close(posix.open(part, posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, 0o644, dir_fd=at))
                found = namespaces.openat2(root, so_far, flags, namespaces.IN_ROOT)
            posix.close(at)
            at = found
        return at
    except BaseException:
        posix.close(at)
        raise


def shares(subhost):
    """What is shared at the moment with a subhost that runs or hibernates, in the order in which it was mounted."""
    noted = {int(number): one for number, one in subhost.state.record().shares.items()}
    if not noted:
        return []
    mounted = subhost.mounts()
    return [Mounted(number, one, mounted[number]) for number, one in noted.items()
            if number in mounted and one.file_system in (mounted[number].device, "-")]


def undo(running, outside, inside):
    """Unmount what is shared, wherever the subhost has moved it to, and nothing else."""
    wanted = (outside, paths.normal(inside))
    found = [one for one in shares(running) if (one.outside, one.inside) == wanted]
    if not found:
        raise Failure(f"{outside} is not shared with {running.state.name} as {inside}")
    one = found[-1]
    try:
        unmount(running, one)
    except OSError as error:
        raise Failure(f"cannot undo the share of {outside}: {error.strerror}") from None
    running.state.note("shares", None, str(one.id))


def unmount(running, one):
    """umount2(2) without MNT_DETACH: what is in use stays, and so does what the subhost has mounted below it.

    By its name, relative to its directory: an open descriptor of the mount
    itself would be a use of it.
    """
    root = root_of(running)
    directory, name = paths.parent(one.place), paths.name(one.place)
    host = rootfs.View()
    parent = -1
    try:
        parent = namespaces.openat2(root, directory, files.PLACE, namespaces.IN_ROOT)
        if not is_there(one, parent, name):
            raise Failure(f"cannot undo the share of {one.outside}: the subhost has mounted something else upon it")
        try:
            namespaces.setns(running.init_fd, namespaces.NEWNS)
            posix.fchdir(parent)
            namespaces.umount2(name, 0)
        finally:
            host.enter()
    finally:
        for fd in (root, parent):
            if fd >= 0:
                posix.close(fd)


def is_there(one, directory, name):
    """Whether name is the very mount of the share."""
    fd = namespaces.openat2(directory, name, posix.O_PATH | posix.O_NOFOLLOW, namespaces.IN_ROOT)
    try:
        status = posix.fstat(fd)
        return (*namespaces.mount_of(fd), status.st_dev, status.st_ino) == (one.id, True, one.device, one.inode)
    finally:
        posix.close(fd)


def root_of(running):
    """A descriptor of the root of a subhost's PID 1."""
    root = posix.open(f"/proc/{running.init}/root", files.PLACE)
    if state.has_ended(running.init_fd):      # the number may be another process's by now
        posix.close(root)
        raise Failure(f"{running.state.name} is not running")
    return root
