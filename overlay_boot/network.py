"""The named network namespace of a subhost: /run/netns/NAME, as ip-netns(8) has it."""
import fcntl
import posix
from errno import EINVAL

from . import files, namespaces
from .errors import Failure, doing
from .state import DIRECTORY as STATES

DIRECTORY = "/run/netns"
MADE = f"{STATES}/.netns-is-ours"       # no NAME is that long


def is_there(name):
    """Whether there is a network namespace of that name, whoever has made it."""
    return bool(files.kind(f"{DIRECTORY}/{name}"))


@doing("make the network namespace")
def make(state):
    """Make the network namespace, with lo up, and return a descriptor of it."""
    if is_there(state.name):
        raise Failure(f"a network namespace {DIRECTORY}/{state.name} is there already, and is not ours")
    host = posix.open("/proc/self/ns/net", posix.O_RDONLY)
    namespaces.unshare(namespaces.NEWNET)
    try:
        namespaces.bring_up("lo")
        network = posix.open("/proc/self/ns/net", posix.O_RDONLY)
    finally:
        namespaces.setns(host, namespaces.NEWNET)
        posix.close(host)
    publish(state, network)
    return network


def opened(state):
    """A descriptor of the network namespace that make() made.  Raises Failure if it is not there any more."""
    path = f"{DIRECTORY}/{state.name}"
    try:
        network = posix.open(path, posix.O_RDONLY)
    except OSError as error:
        raise Failure(f"its network namespace {path}: {error.strerror}") from None
    if posix.fstat(network).st_ino != int(state.records()["netns"].split()[1]):
        posix.close(network)
        raise Failure(f"its network namespace {path} is another one by now")
    return network


def publish(state, network):
    """Mount the namespace on a file of its name, that nobody else has.

    The file has no name until its inode is on record, so that a file of that
    name is known for ours or not, whenever we are killed.
    """
    path = f"{DIRECTORY}/{state.name}"
    directory = locked_directory()
    try:
        file = posix.open(DIRECTORY, posix.O_TMPFILE | posix.O_RDWR, 0o444)
        try:
            state.record("netns", f"{posix.fstat(file).st_ino} {posix.fstat(network).st_ino}")
            try:
                # src_dir_fd serves to have linkat(2) called, which can follow
                posix.link(f"/proc/self/fd/{file}", path, src_dir_fd=directory, follow_symlinks=True)
            except FileExistsError:
                raise Failure(f"a network namespace {path} is there already, and is not ours") from None
        finally:
            posix.close(file)
        mount_name(state.name, network)
    finally:
        posix.close(directory)


def mount_name(name, network):
    """Mount the network namespace on its name, in the mount namespace of the caller."""
    namespaces.mount(f"/proc/self/fd/{network}", f"{DIRECTORY}/{name}", None, namespaces.BIND)


def locked_directory():
    """DIRECTORY, locked and mounted on itself as ip-netns(8) does it; it is unlocked by close.

    Shared, so that a namespace that is unmounted here goes from the copies of
    the mount in other mount namespaces as well.
    """
    made = False
    while True:
        if not files.kind(DIRECTORY):
            note_making(True)
            made = True
        try:
            posix.mkdir(DIRECTORY, 0o755)
        except FileExistsError:
            pass
        directory = posix.open(DIRECTORY, posix.O_RDONLY | posix.O_DIRECTORY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        if posix.fstat(directory).st_nlink:
            break
        posix.close(directory)          # another command has just removed it
    try:
        share_mount(made)
    except BaseException:
        posix.close(directory)
        raise
    return directory


def share_mount(made):
    """Mount DIRECTORY on itself, if it is no mount yet, and make it shared."""
    try:
        namespaces.mount(None, DIRECTORY, None, namespaces.SHARED | namespaces.REC)
    except OSError as error:
        if error.errno != EINVAL:       # no mount yet
            raise
        note_making(made)
        namespaces.mount(DIRECTORY, DIRECTORY, None, namespaces.BIND | namespaces.REC)
        namespaces.mount(None, DIRECTORY, None, namespaces.SHARED | namespaces.REC)


def note_making(directory):
    """Note that the mount of DIRECTORY is ours, and with directory, that itself is."""
    fd = posix.open(MADE, posix.O_CREAT | posix.O_WRONLY | posix.O_CLOEXEC, 0o600)
    try:
        if directory:
            posix.write(fd, b"directory\n")
    finally:
        posix.close(fd)


@doing("remove the network namespace")
def remove(name, record):
    """Remove what make() made, as far as it got, and nothing that is of somebody else."""
    path = f"{DIRECTORY}/{name}"
    file_inode, network_inode = map(int, record.split())
    if is_ours(path, network_inode):
        namespaces.umount2(path, namespaces.DETACH)
    if is_ours(path, file_inode):
        posix.unlink(path)


def is_ours(path, inode):
    try:
        return posix.lstat(path).st_ino == inode
    except FileNotFoundError:
        return False


@doing("take back the mount of /run/netns")
def tidy():
    """Take back what locked_directory() made, if nobody uses it any more."""
    if not files.kind(MADE):
        return
    try:
        directory = posix.open(DIRECTORY, posix.O_RDONLY | posix.O_DIRECTORY)
    except FileNotFoundError:
        unnote_making()
        return
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        # Another command may have taken it back meanwhile, and a boot may have made a new one.
        if not files.kind(MADE) or not posix.fstat(directory).st_nlink or posix.listdir(DIRECTORY):
            return
        try:
            namespaces.umount2(DIRECTORY, namespaces.DETACH)
        except OSError as error:
            if error.errno != EINVAL:       # killed before it was mounted
                raise
        if posix.stat(MADE).st_size:
            posix.rmdir(DIRECTORY)
        unnote_making()
    finally:
        posix.close(directory)


def unnote_making():
    try:
        posix.unlink(MADE)
    except FileNotFoundError:
        pass
