"""The named network namespace of a subhost: /run/netns/NAME, as ip-netns(8) has it."""
import fcntl
import posix
from errno import EACCES, EINVAL, EPERM

from . import files, namespaces, paths
from .errors import Failure, doing
from .files import Fd
from .state import NETNS_NOTE, STATES, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .rootfs import Inside

RUN = "/run"
NETNS = f"{RUN}/netns"
NOTE = f"{STATES}/{NETNS_NOTE}"     # that NETNS, or the mount of it, is ours


def path_of(name: str) -> str:
    """Return the path of the network namespace of a subhost."""
    return f"{NETNS}/{name}"


def is_there(name: str) -> bool:
    """Tell whether there is a network namespace of that name, whoever has made it."""
    return bool(files.kind(path_of(name)))


def already_there(name: str) -> Failure:
    return Failure(f"a network namespace {path_of(name)} exists already, and overlay-boot has no record of it")


class OnHost:
    """A context: this process sees RUN as process 1 does, for single system calls.

    Whoever calls us may be in a mount namespace of its own: ip-netns(8) makes one, and units of systemd and logins can
    have one.  What is mounted there the host does not see, and what is unmounted there the host keeps.  But a mount
    namespace with another /run is a host by itself.
    """

    __slots__ = ("here", "inside")

    here: Fd                        # the working directory, which the other root takes away
    inside: "Inside | None"         # None where that is what this process sees anyway

    def __enter__(self) -> None:
        self.inside = None
        try:
            if files.identity("/proc/1/ns/mnt") == files.identity("/proc/self/ns/mnt"):
                return
            host = files.opened("/proc/1/ns/mnt", posix.O_RDONLY)
        except OSError as error:        # no /proc, or no rights
            if error.errno not in (*files.NOWHERE, EACCES, EPERM):
                raise
            return
        from .rootfs import Inside
        own = files.identity(RUN)
        with host:
            self.here = files.opened(".", files.PLACE)
            self.inside = Inside(host)
            self.inside.__enter__()
            if files.identity(RUN) != own:
                self.__exit__()

    def __exit__(self, *_: object) -> None:
        if self.inside:
            self.inside.__exit__()
            self.inside = None
            with self.here:
                posix.fchdir(self.here)


class Entered:
    """A context: this process is in a network namespace, for single system calls."""

    __slots__ = ("host", "network")

    def __init__(self, network: int) -> None:
        self.network = network

    def __enter__(self) -> None:
        self.host = files.opened("/proc/self/ns/net", posix.O_RDONLY)
        namespaces.setns(self.network, namespaces.NEWNET)

    def __exit__(self, *_: object) -> None:
        with self.host:
            return_to(self.host)


def return_to(host: int) -> None:
    """Enter the host's network namespace again.  If that fails, it is tried once more: a boot is undone there.

    Raises OSError all the same.
    """
    try:
        namespaces.setns(host, namespaces.NEWNET)
    except OSError:
        namespaces.setns(host, namespaces.NEWNET)
        raise


@doing("make the network namespace")
def make(state: State, made: Fd | None = None) -> Fd:
    """Make the network namespace, with lo up, and return a descriptor of it; with a user namespace, it is made already.

    Raises Failure if one of its name is there already.
    """
    if is_there(state.name):
        raise already_there(state.name)
    if made is None:
        network = unshared()
    else:
        network = made
        with Entered(network):
            namespaces.bring_up("lo")
    with OnHost():
        publish(state, network)
    return network


def unshared() -> Fd:
    """Return a descriptor of a new network namespace, with lo up."""
    with files.opened("/proc/self/ns/net", posix.O_RDONLY) as host:
        namespaces.unshare(namespaces.NEWNET)
        try:
            namespaces.bring_up("lo")
            return files.opened("/proc/self/ns/net", posix.O_RDONLY)
        finally:
            return_to(host)


def reopened(state: State) -> Fd:
    """Return a descriptor of the network namespace that make() made.  Raises Failure if it is not there any more."""
    path = path_of(state.name)
    try:
        with OnHost():
            network = files.opened(path, posix.O_RDONLY)
    except OSError as error:
        raise Failure(f"its network namespace {path}: {error.strerror}") from None
    inodes = state.record().netns
    if not inodes or posix.fstat(network).st_ino != inodes[1]:
        posix.close(network)
        raise Failure(f"its network namespace {path} has been replaced by another one")
    return network


def interfaces() -> list[str]:
    """Return the names of the interfaces here: sysfs(5) can be that of another network namespace."""
    with files.opened("/proc/self/net/dev") as fd:
        lines = paths.decode(files.read_all(fd)).split("\n")[2:-1]
    return [line.partition(":")[0].strip() for line in lines]


def opened(name: str, inodes: tuple[int, int]) -> Fd | None:
    """Return a descriptor of the network namespace that make() made, None if it is not mounted on its name any more."""
    path = path_of(name)
    with OnHost():
        return files.opened(path, posix.O_RDONLY) if is_ours(path, inodes[1]) else None


def publish(state: State, network: int) -> None:
    """Mount the namespace on a file of its name, that nobody else has.

    The file has no name until its inode is on record, so that a file of that
    name is known for ours or not, whenever we are killed.
    """
    with locked_directory() as directory:
        with files.opened(NETNS, posix.O_TMPFILE | posix.O_RDWR, 0o444) as file:
            state.note("netns", (posix.fstat(file).st_ino, posix.fstat(network).st_ino))
            try:
                # src_dir_fd serves to have linkat(2) called, which can follow
                posix.link(paths.of_descriptor(file), path_of(state.name), src_dir_fd=directory, follow_symlinks=True)
            except FileExistsError:
                raise already_there(state.name) from None
        mount_name(state.name, network)


def mount_name(name: str, network: int) -> None:
    """Mount the network namespace on its name, in the mount namespace of the caller."""
    namespaces.mount(paths.of_descriptor(network), path_of(name), None, namespaces.BIND)


def locked_directory() -> Fd:
    """Return a descriptor of NETNS, locked and mounted on itself as ip-netns(8) does it.  To close it unlocks it.

    Shared, so that a namespace that is unmounted here goes from the copies of
    the mount in other mount namespaces as well.
    """
    made = False
    while True:
        with locked_note():
            if not files.kind(NETNS):
                note_making(directory=True)
            try:
                posix.mkdir(NETNS, 0o755)
                made = True
            except FileExistsError:
                pass
        directory = files.opened(NETNS, posix.O_RDONLY | posix.O_DIRECTORY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        if posix.fstat(directory).st_nlink:
            break
        posix.close(directory)          # another command has just removed it
    try:
        share_mount(made=made)
    except BaseException:
        posix.close(directory)
        raise
    return directory


def locked_note() -> Fd:
    """Return a descriptor of the directory of the note, locked: NETNS is not made meanwhile, nor the note forgotten."""
    directory = files.opened(STATES, posix.O_RDONLY | posix.O_DIRECTORY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    return directory


def share_mount(*, made: bool) -> None:
    """Mount NETNS on itself, if it is no mount yet, and make it shared.  made tells whether the directory is ours."""
    if made:
        note_making(directory=True)     # again: an end beside us may have taken the note for one of nothing
    try:
        namespaces.mount(None, NETNS, None, namespaces.SHARED | namespaces.REC)
    except OSError as error:
        if error.errno != EINVAL:       # no mount yet
            raise
        note_making(directory=False)
        namespaces.mount(NETNS, NETNS, None, namespaces.BIND | namespaces.REC)
        namespaces.mount(None, NETNS, None, namespaces.SHARED | namespaces.REC)


def note_making(*, directory: bool) -> None:
    """Note that the mount of NETNS is ours, and with directory, that itself is."""
    with files.opened(NOTE, posix.O_CREAT | posix.O_WRONLY, 0o600) as fd:
        if directory:
            posix.write(fd, b"directory\n")


@doing("remove the network namespace")
def remove(name: str, inodes: tuple[int, int]) -> None:
    """Remove what make() made, as far as it got, and nothing that is of somebody else."""
    path = path_of(name)
    of_file, of_namespace = inodes
    with OnHost():
        is_mounted = is_ours(path, of_namespace)
        if is_mounted:
            namespaces.umount2(path, namespaces.DETACH)
        # A file that our namespace was mounted on is ours, though another command may have made it anew.
        if is_mounted and files.kind(path) == files.REGULAR or is_ours(path, of_file):
            posix.unlink(path)


def is_ours(path: str, inode: int) -> bool:
    try:
        return posix.lstat(path).st_ino == inode
    except FileNotFoundError:
        return False


@doing("take back the mount of /run/netns")
def tidy() -> None:
    """Take back what locked_directory() made, if nobody uses it any more."""
    if files.kind(NOTE):
        with OnHost():
            take_back()


def take_back() -> None:
    """Unmount NETNS, and remove it if it is ours, unless it is in use."""
    try:
        directory = files.opened(NETNS, posix.O_RDONLY | posix.O_DIRECTORY)
    except FileNotFoundError:
        forget_nothing()
        return
    with directory:
        fcntl.flock(directory, fcntl.LOCK_EX)
        # Another command may have taken it back meanwhile, and a boot may have made a new one.
        if not files.kind(NOTE) or not posix.fstat(directory).st_nlink or posix.listdir(NETNS):
            return
        try:
            namespaces.umount2(NETNS, namespaces.DETACH)
        except OSError as error:
            if error.errno != EINVAL:       # killed before it was mounted
                raise
        if posix.stat(NOTE).st_size:
            posix.rmdir(NETNS)
        forget_making()


def forget_nothing() -> None:
    """Forget the note of what was not made, unless another command is just making it."""
    try:
        with locked_note():
            if not files.kind(NETNS):
                forget_making()
    except FileNotFoundError:           # nor is anything else there
        pass


def forget_making() -> None:
    try:
        posix.unlink(NOTE)
    except FileNotFoundError:
        pass
