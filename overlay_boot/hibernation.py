"""Hibernation: the mounts and the network of a subhost, kept while it has no process.

A mount namespace lives as long as a process is in it or a file stands for it, namespaces(7).  That
of a subhost booted with --shell is mounted on a file before its PID 1 is executed:

    /run/overlay-boot/NAME/mounts/mnt

What only the keeper has open otherwise, such as an UPPER in an IMAGE, is mounted beside it, by numbers.

So there is nothing to be done in time when the processes end, in whichever way: a subhost with such
a file and without a keeper hibernates.  The kernel takes such a mount only where it is not propagated,
so the directory is a private mount of itself.  A mount namespace keeps the user namespace that it belongs to.
"""
import posix
from errno import EINVAL

from . import files, namespaces, network, paths, proc
from .config import Config
from .errors import Failure, doing
from .files import Fd
from .record import UNKNOWN, Record
from .rootfs import Inside, View, lock_mounts, unshare_mounts
from .state import State, directory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from .rootfs import Seeing
    from .userns import UserNamespace

    Made = TypeVar("Made", Fd, View)

STOCK = 4096            # ids of namespaces that Linux 6.18 gives a processor at a time
ATTEMPTS = 8
# The values that are found anew when a subhost is woken; the others are those that it was made with.
ANEW = ("AFTER", "BOOT_TIMEOUT", "INIT", "LOG", "START", "STAY", "STOP_TIMEOUT")


@doing("keep the mounts")
def unshare_kept_mounts(state: State) -> tuple[View, View]:
    """rootfs.unshare_mounts(), with the new mount namespace kept.  This process stays in the host's."""
    directory = mounts_of(state.name)
    state.note("mounts", directory)
    posix.mkdir(directory, 0o700)
    with network.OnHost():
        namespaces.mount(directory, directory, None, namespaces.BIND)
        namespaces.mount(None, directory, None, namespaces.PRIVATE)
    file = file_in(directory)
    with files.opened(file, posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, 0o400):
        pass

    def make() -> tuple[View, View]:
        host, own = unshare_mounts()
        host.enter()
        return own, host

    own, host = keep(file, make)
    return host, own


@doing("keep the mounts")
def lock_kept_mounts(state: State, host: View, own: View, root: int, users: "UserNamespace") -> tuple[View, Fd]:
    """rootfs.lock_mounts() in own, with the copy kept in the place of that.  This process is in host then."""
    def make() -> tuple[View, Fd]:
        own.enter()
        try:
            return lock_mounts(root, users)
        finally:
            host.enter()

    file = file_in(mounts_of(state.name))
    host.enter()
    with network.OnHost():
        unmount(file)
    return keep(file, make)


@doing("keep what nothing else leads to")
def keep_apart(state: State, apart: "Iterable[int]", outside: "Seeing") -> None:
    """Mount on the host what descriptors lead to, and nothing else does but the keeper, which will end.

    They are of this mount namespace; outside is that of the caller.
    """
    directory = mounts_of(state.name)
    for number, fd in enumerate(apart):
        with Fd(namespaces.open_tree(paths.of_descriptor(fd))) as mounted, outside, network.OnHost():
            place = f"{directory}/{number}"
            posix.mkdir(place, 0o700)
            with files.opened(place, files.PLACE) as target:
                namespaces.move_mount(mounted, target)


def kept_apart(record: Record) -> list[Fd]:
    """Return descriptors of what keep_apart() has mounted."""
    with network.OnHost():
        return [files.opened(path, files.PLACE) for path in kept_apart_in(record.mounts or "")]


def kept_apart_in(directory: str) -> list[str]:
    """Return the paths of what keep_apart() has mounted."""
    try:
        return [f"{directory}/{name}" for name in posix.listdir(directory) if name.isdigit()] if directory else []
    except FileNotFoundError:
        return []


def mounts_of(name: str) -> str:
    """Return the path of the directory in which the mounts of a subhost are kept."""
    return f"{directory_of(name)}/mounts"


def file_in(directory: str) -> str:
    """Return the path of the file that stands for the mount namespace."""
    return f"{directory}/mnt"


def keep(path: str, make: "Callable[[], tuple[View, Made]]") -> "tuple[View, Made]":
    """Return what make() does, a view of a new mount namespace and more, with that namespace mounted on the file path.

    No namespace can be kept in itself, or in one that was made later.  The kernel goes by their
    ids, of which each processor has some in stock since Linux 6.18: one that was made just now may
    have a lower id than one in which all of this happens, unless that is the first of the machine.
    It is made again then, with an id that is higher than all before.
    """
    made = kept(path, make) or kept_with_higher_id(path, make)
    if not made:
        raise Failure("cannot keep the mounts: to the kernel, every new mount namespace is older than this one")
    return made


def kept(path: str, make: "Callable[[], tuple[View, Made]]") -> "tuple[View, Made] | None":
    """keep(), or None if it cannot be."""
    view, other = make()
    if is_kept(view.mounts, path):
        return view, other
    view.close()
    other.close()
    return None


def kept_with_higher_id(path: str, make: "Callable[[], tuple[View, Made]]") -> "tuple[View, Made] | None":
    """kept(), after using up what our processor has of ids in stock.  Again, as it may be another one by then."""
    with files.opened("/proc/self/ns/uts", posix.O_RDONLY) as host:
        try:
            for _ in range(ATTEMPTS):
                for _ in range(STOCK):
                    namespaces.unshare(namespaces.NEWUTS)   # the cheapest: 1 us
                made = kept(path, make)
                if made:
                    return made
        finally:
            namespaces.setns(host, namespaces.NEWUTS)
    return None


def is_kept(mounts: int, path: str) -> bool:
    """Mount a mount namespace on the file path.  Return whether the kernel takes it for one that was made later."""
    try:
        with network.OnHost():
            namespaces.mount(paths.of_descriptor(mounts), path, None, namespaces.BIND)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        return False
    return True


def note(state: State, values: dict[str, str], hostname: str) -> None:
    """Note what will be needed to wake the subhost: values of variables, and its host name."""
    for variable, value in values.items():
        if variable not in ANEW:
            state.note("values", value, variable)
    state.note("host_name", hostname)


@doing("remove what hibernates")
def release(directory: str) -> None:
    """Remove what unshare_kept_mounts() made, as far as it got."""
    file = file_in(directory)
    with network.OnHost():
        apart = kept_apart_in(directory)
        for remove, path in (*((unmount, path) for path in (file, *apart)), (posix.unlink, file),
                             *((posix.rmdir, path) for path in apart), (unmount, directory), (posix.rmdir, directory)):
            try:
                remove(path)
            except FileNotFoundError:
                pass


def unmount(path: str) -> None:
    try:
        namespaces.umount2(path, namespaces.DETACH)
    except OSError as error:
        if error.errno != EINVAL:       # no mount: it was killed before that
            raise


def refuse_others(config: Config, state: State) -> None:
    """Raises Failure if the subhost was made from another configuration file."""
    made_from = state.record().config
    if made_from != config.path:
        raise Failure(f"{state.name} is hibernating, and was booted from {made_from or UNKNOWN}")


@doing("wake the subhost")
def reopened(record: Record) -> Fd:
    """Return a descriptor of the mount namespace that is kept.  Raises Failure if it is not there any more."""
    path = file_in(record.mounts or "")
    with network.OnHost():
        mounts = files.opened(path, posix.O_RDONLY)
    if files.identity(mounts)[0] != files.identity("/proc/self/ns/mnt")[0]:     # no namespace, but the file beneath
        posix.close(mounts)
        raise Failure(f"its mount namespace {path} no longer exists")
    return mounts


def root_of(mounts: int) -> Fd:
    """Return a descriptor of the root directory in a mount namespace."""
    with Inside(mounts):
        return files.opened("/", files.PLACE)


def unmount_groups(mounts: int) -> None:
    """Unmount the control groups in a mount namespace that is kept: they are gone."""
    with Inside(mounts):
        try:
            namespaces.umount2("/sys/fs/cgroup", namespaces.DETACH)
        except OSError:                 # nothing is mounted there
            pass


class Hibernating:
    """What running.Running is for a subhost that runs."""

    __slots__ = ("name", "network", "record", "state")

    def __init__(self, state: State) -> None:
        self.state, self.name, self.record = state, state.name, state.record()
        self.network = network.path_of(state.name)

    def mounts(self) -> dict[int, proc.Mount]:
        """Return {id: Mount} of its mounts."""
        with reopened(self.record) as mounts, files.opened("/proc/self", files.PLACE) as own, Inside(mounts):
            found = posix.open("mountinfo", posix.O_RDONLY, dir_fd=own)     # tells of where it was opened
        return proc.mounts_in(found)
