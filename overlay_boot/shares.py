"""What of the host is bind-mounted into a subhost: by SHARE at its boot, by overlay-share while it runs.

A share is known by the id of its mount, which is noted before the subhost can
see it.  What the subhost's root has unmounted, the kernel does not list any
more.  It may give the id to another mount: of one that it lists, the device of
the file system is compared, and before anything is unmounted, the inode.

The subhost's root is reached by a descriptor.  Its mount namespace is entered
for single system calls: what Python imports in there would be the subhost's.
"""
import posix
from errno import EBUSY

from . import beneath, files, namespaces, paths, proc, record
from .capabilities import MKNOD
from .config import READ_ONLY, RECURSIVE
from .errors import Failure
from .files import Fd, Fds
from .rootfs import Inside, made_by
from .running import NotRunning, Running
from .running import find as find_running
from .state import MOMENT, State, has_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .config import Shared
    from .rootfs import Seeing
    from .userns import UserNamespace

    class Subhost(Protocol):
        """One that runs or hibernates."""

        record: record.Record
        state: State

        def mounts(self) -> dict[int, proc.Mount]: ...

NO_DEVICE = "-"         # of a file system that mountinfo does not list


class Mounted:
    """A share that is on record, and mounted."""

    __slots__ = ("device", "id", "inode", "inside", "outside", "place", "read_only")

    def __init__(self, number: str, noted: record.Share, mount: proc.Mount) -> None:
        self.id = number
        self.device, self.inode = noted.device, noted.inode
        self.outside, self.inside = noted.outside, noted.inside
        self.place = mount.place
        self.read_only = "ro" in mount.options


def find(name: str) -> Running:
    """Return the running subhost NAME.  Raises Failure if none is, or it has no state file to note a share in."""
    try:
        return find_running(name)
    except NotRunning:
        from . import subhosts
        if any(one.name == name for one in subhosts.inherited()):
            raise Failure(f"{name} was booted by overlay-boot 1.6.4: boot it again to share with it") from None
        raise


def mount_all(wanted: "list[Shared]", noted: State, root: int, live: str, capabilities: int,
              users: "UserNamespace | None" = None, unlocked: "Seeing | Fds | None" = None) -> None:
    """At a boot: mount every SHARE, in order, below the root directory of a descriptor, which is on LIVE.

    unlocked is a context in which this process sees mounts that are not locked: of one with such a mount below it, no
    bind mount can be made.
    """
    for one in wanted:
        for outside, inside in with_mounts_below(one, live):
            try:
                with unlocked or Fds():
                    mounted = bind_mount(outside, users, capabilities, read_only=READ_ONLY in one[2])
                note_and_mount(noted, root, mounted, outside, inside)
            except Failure as failure:
                raise Failure(f"SHARE={outside}: {failure}") from None


def with_mounts_below(one: "Shared", live: str = "") -> list[tuple[str, str]]:
    """Return (host path, path in the subhost) of what is to be mounted: also what is mounted below, if that is wanted.

    Not what is mounted on LIVE, while that is to be seen.
    """
    outside, inside, options = one
    found = [(outside, inside)]
    if RECURSIVE in options:
        above = paths.real(outside).rstrip("/")
        found += [(mount.place, paths.join(inside, mount.place[len(above) + 1:])) for mount in proc.mounts_below(above)
                  if not live or not f"{mount.place}/".startswith(f"{live}/")]
    return found


def share(running: Running, wanted: "Shared") -> None:
    """Mount a path of the host in a running subhost.  Raises Failure, with nothing of it mounted."""
    done: list[tuple[str, str]] = []
    try:
        for outside, inside in with_mounts_below(wanted):
            share_one(running, outside, inside, read_only=READ_ONLY in wanted[2])
            done.insert(0, (outside, inside))
    except BaseException:
        for outside, inside in done:
            undo_one(running, outside, inside)
        raise


def share_one(running: Running, outside: str, inside: str, *, read_only: bool) -> None:
    with root_of(running) as root:
        owner = proc.owner(running.init)
        users = None
        if owner:
            from . import userns
            users = userns.of_process(running.init)
        try:
            with made_by(owner):
                mounted = bind_mount(outside, users, proc.bounding_set(running.init), read_only=read_only)
                note_and_mount(running.state, root, mounted, outside, inside, running)
        except Failure as failure:
            refuse_ended(running)
            raise Failure(f"cannot share {outside}: {failure}") from None


def refuse_ended(running: Running) -> None:
    """Raises NotRunning if the subhost has ended meanwhile, of which errors of system calls tell in their own words."""
    if running.is_ending(MOMENT):
        raise NotRunning(running.name)


def note_and_mount(noted: State, root: int, mounted: Fd, outside: str, inside: str,
                   running: Running | None = None) -> None:
    """Mount what bind_mount() has returned below a root directory, which this process sees, or PID 1 of one that runs.

    It is noted in the state file before.  Raises Failure, with the reason and what leads inside.
    """
    try:
        with mounted, mount_point(root, inside, files.kind_of(mounted) == files.DIRECTORY) as target:
            if running is not None:
                refuse_twice(noted, target, inside)
            key = note(noted, mounted, outside, inside)
            try:
                attach(mounted, target, running)
            except BaseException:
                noted.note("shares", None, key)
                raise
    except OSError as error:
        raise Failure(f"cannot mount it on {inside} in the subhost: {error.strerror}") from None


def bind_mount(path: str, users: "UserNamespace | None", capabilities: int, *, read_only: bool) -> Fd:
    """Return a descriptor of a bind mount of a path that nobody sees yet; with a user namespace, of one for that.

    Who cannot make devices can use one that is shared, and none in a directory.  Raises Failure, with the reason.
    """
    try:
        return made_mount(path, users, capabilities, read_only=read_only)
    except OSError as error:
        raise Failure(error.strerror) from None


def made_mount(path: str, users: "UserNamespace | None", capabilities: int, *, read_only: bool) -> Fd:
    if users and files.kind(path) in files.DEVICES:
        return users.device(path)
    mounted = Fd(namespaces.open_tree(path))
    try:
        attributes = namespaces.RDONLY if read_only else 0
        if files.kind_of(mounted) == files.DIRECTORY and not capabilities & MKNOD:
            attributes |= namespaces.NODEV
        # Private: what either side mounts below it is not for the other one.
        namespaces.mount_setattr(mounted, attributes, namespaces.PRIVATE)
        return users.taken_in(mounted, path) if users else mounted
    except BaseException:
        posix.close(mounted)
        raise


def note(noted: State, mounted: int, outside: str, inside: str) -> str:
    """Note a mount that nobody sees yet in the state file; return its id."""
    key = str(namespaces.mount_of(mounted)[0])
    status = posix.fstat(mounted)
    one = record.Share(device_of(outside, status), status.st_dev, status.st_ino, outside, paths.normal(inside))
    noted.note("shares", one, key)
    return key


def attach(mounted: int, target: int, running: Running | None) -> None:
    """move_mount(2), in the mount namespace of a running subhost if there is one, else in ours."""
    if running is None:
        namespaces.move_mount(mounted, target)
        return
    with Inside(running.init_fd):
        namespaces.move_mount(mounted, target)


def device_of(path: str, mounted: posix.stat_result) -> str:
    """Return the device of the file system, as mountinfo has it: that of an inode is another one in some.

    mounted is the status of a mount of path; a device may be a copy, on a tmpfs.
    """
    if mounted.st_mode & files.KIND in files.DEVICES:
        return f"{posix.major(mounted.st_dev)}:{posix.minor(mounted.st_dev)}"
    mount = proc.mount_of(path)
    return mount.device if mount else NO_DEVICE


def refuse_twice(noted: State, target: int, inside: str) -> None:
    """Raises Failure if the mount point is a share already."""
    number, is_root = namespaces.mount_of(target)
    if is_root and str(number) in noted.record().shares:
        raise Failure(f"something is shared as {inside} already")


def mount_point(root: int, path: str, is_directory: bool) -> Fd:
    """Return a descriptor of path in the subhost; what is missing of it is made, a directory or a file.

    Symbolic links lead to where they lead inside the subhost.
    """
    place = paths.normal(path)
    if place == "/":
        raise Failure(f"{path} is the root directory of the subhost")
    if is_directory:
        return beneath.directory(root, place, beneath.INSIDE, make=0o755)
    with beneath.directory(root, paths.parent(place), beneath.INSIDE, make=0o755) as parent:
        make_file(parent, paths.name(place))
    return beneath.opened(root, place, posix.O_PATH, beneath.INSIDE)


def make_file(directory: int, name: str) -> None:
    """Make an empty file in the directory of a descriptor, unless there is anything of the name."""
    try:
        posix.close(posix.open(name, posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, 0o644, dir_fd=directory))
    except FileExistsError:
        pass


def shares(subhost: "Subhost") -> list[Mounted]:
    """Return what is shared at the moment with a subhost that runs or hibernates, in the order of the mounts."""
    noted = subhost.state.record().shares
    if not noted:
        return []
    mounted = subhost.mounts()
    found = [(number, one, mounted.get(int(number))) for number, one in noted.items()]
    return [Mounted(number, one, mount) for number, one, mount in found
            if mount and one.file_system in (mount.device, NO_DEVICE)]


def undo(running: Running, wanted: "Shared") -> None:
    """Unmount what is shared, with what was shared below it if that is wanted, and nothing else.  Raises Failure."""
    outside, inside = wanted[0], paths.normal(wanted[1])
    if RECURSIVE in wanted[2]:
        above = paths.real(outside).rstrip("/")
        for one in reversed(shares(running)):
            if one.outside.startswith(f"{above}/") and one.inside == paths.join(inside, one.outside[len(above) + 1:]):
                undo_one(running, one.outside, one.inside)
    undo_one(running, outside, inside)


def undo_one(running: Running, outside: str, inside: str) -> None:
    """Unmount what is shared, wherever the subhost has moved it to, and nothing else.  Raises Failure."""
    wanted = (outside, paths.normal(inside))
    try:
        found = [one for one in shares(running) if (one.outside, one.inside) == wanted]
        if not found:
            raise Failure(f"{outside} is not shared with {running.name} as {inside}")
        unmount_share(running, found[-1])
    except (OSError, Failure) as error:
        refuse_ended(running)
        if isinstance(error, Failure):
            raise
        why = used_by(running, found[-1]) if error.errno == EBUSY else ""
        raise Failure(f"cannot undo the share of {outside}: {why or error.strerror}") from None
    running.state.note("shares", None, found[-1].id)


def unmount_share(running: Running, one: Mounted) -> None:
    """umount2(2) without MNT_DETACH: what is in use stays, and so does what the subhost has mounted below it.

    By its name, relative to its directory: an open descriptor of the mount
    itself would be a use of it.
    """
    name = paths.name(one.place)
    with root_of(running) as root, beneath.directory(root, paths.parent(one.place), beneath.INSIDE) as parent:
        if not is_share(one, parent, name):
            raise Failure(f"cannot undo the share of {one.outside}: the subhost has mounted something else upon it")
        with Inside(running.init_fd):
            posix.fchdir(parent)
            namespaces.umount2(name, 0)


def used_by(running: Running, one: Mounted) -> str:
    """Return what keeps a share from being unmounted, "" if that is not to be seen."""
    below = [mount.place for mount in running.mounts().values() if mount.parent == int(one.id)]
    if below:
        return f"{', '.join(below)} in the subhost {'is' if len(below) == 1 else 'are'} mounted on it"
    users = proc.described(proc.users(int(one.id)))
    return users and f"it is in use by {users}"


def is_share(one: Mounted, directory: int, name: str) -> bool:
    """Tell whether what is of that name in the directory of a descriptor is the very mount of the share."""
    with beneath.opened(directory, name, posix.O_PATH | posix.O_NOFOLLOW, beneath.INSIDE) as fd:
        status = posix.fstat(fd)
        return (*namespaces.mount_of(fd), status.st_dev, status.st_ino) == (int(one.id), True, one.device, one.inode)


def root_of(running: Running) -> Fd:
    """Return a descriptor of the root of a subhost's PID 1.  Raises Failure if that has ended."""
    try:
        root = files.opened(f"/proc/{running.init}/root", files.PLACE)
    except FileNotFoundError:
        raise NotRunning(running.name) from None
    if has_ended(running.init_fd):      # the number may be another process's by now
        posix.close(root)
        raise NotRunning(running.name)
    return root
