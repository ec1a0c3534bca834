"""Hibernation: the mounts and the network of a subhost, kept while it has no process.

A mount namespace lives as long as a process is in it or a file stands for it, namespaces(7).  That
of a subhost booted with --shell is mounted on a file before its PID 1 is executed:

    /run/overlay-boot/hibernation.NAME/mnt

So there is nothing to be done in time when the processes end, in whichever way: a subhost with such
a file and without a keeper hibernates.  The kernel takes such a mount only where it is not propagated,
so the directory is a private mount of itself.
"""
import posix
from errno import EINVAL

from . import namespaces, network, proc, rootfs
from .errors import Failure, doing
from .state import DIRECTORY as STATES

VALUE = "value:"        # what keys of the values of variables begin with, in a state file
STOCK = 4096            # ids of namespaces that Linux 6.18 gives a processor at a time
ATTEMPTS = 8
# The values that are found anew when a subhost is taken up; the others are those that it was made with.
ANEW = ("INIT", "LOG", "START", "STOP_TIMEOUT")


def place(name):
    return f"{STATES}/hibernation.{name}"       # longer than any NAME


@doing("keep the mounts")
def unshare_mounts(state):
    """rootfs.unshare_mounts(), with the new mount namespace kept; this process stays in the host's.

    No namespace can be kept in itself, or in one that was made later.  The kernel goes by their
    ids, of which each processor has some in stock since Linux 6.18: one that was made just now may
    have a lower id than one in which all of this happens, unless that is the first of the machine.
    It is made again then, with an id that is higher than all before.
    """
    directory = place(state.name)
    state.record("mounts", directory)
    posix.mkdir(directory, 0o700)
    namespaces.mount(directory, directory, None, namespaces.BIND)
    namespaces.mount(None, directory, None, namespaces.PRIVATE)
    posix.close(posix.open(f"{directory}/mnt", posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, 0o400))
    views = kept(f"{directory}/mnt") or kept_with_higher_id(f"{directory}/mnt")
    if not views:
        raise Failure("cannot keep the mounts: this mount namespace is younger to the kernel than any that it makes")
    return views


def kept(path):
    """What rootfs.unshare_mounts() returns, with the new namespace mounted on the file path; None if it cannot be."""
    host, own = rootfs.unshare_mounts()
    host.enter()
    if is_kept(own.mounts, path):
        return host, own
    host.close()
    own.close()
    return None


def kept_with_higher_id(path):
    """kept(), after using up what our processor has of ids in stock; again, as it may be another one by then."""
    host = posix.open("/proc/self/ns/uts", posix.O_RDONLY)
    try:
        for _ in range(ATTEMPTS):
            for _ in range(STOCK):
                namespaces.unshare(namespaces.NEWUTS)   # the cheapest: 1 us
            views = kept(path)
            if views:
                return views
    finally:
        namespaces.setns(host, namespaces.NEWUTS)
        posix.close(host)
    return None


def is_kept(mounts, path):
    """Have a mount namespace mounted on the file path; whether the kernel takes it for one that was made later."""
    try:
        namespaces.mount(f"/proc/self/fd/{mounts}", path, None, namespaces.BIND)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        return False
    return True


def note(config, state, host_name):
    """Have on record what will be needed to take the subhost up."""
    for variable, value in config.resolved().items():
        if variable not in ANEW:
            state.record(VALUE + variable, value)
    state.record("host-name", host_name)


@doing("take down what hibernates")
def release(name):
    """Remove what unshare_mounts() made, as far as it got."""
    directory = place(name)
    for remove, path in ((unmount, f"{directory}/mnt"), (posix.unlink, f"{directory}/mnt"),
                         (unmount, directory), (posix.rmdir, directory)):
        try:
            remove(path)
        except FileNotFoundError:
            pass


def unmount(path):
    try:
        namespaces.umount2(path, namespaces.DETACH)
    except OSError as error:
        if error.errno != EINVAL:       # no mount: it was killed before that
            raise


def hand_down(config, state):
    """Give the configuration the values that the subhost was made with; its host name.

    Raises Failure if it was made from another file.
    """
    records = state.records()
    if records["config"] != config.path:
        raise Failure(f"{state.name} is hibernating, and was booted from {records['config']}")
    config.handed = {key.removeprefix(VALUE): value for key, value in records.items() if key.startswith(VALUE)}
    return records["host-name"]


@doing("take up the mounts")
def opened(name):
    """A descriptor of the mount namespace that is kept.  Raises Failure if it is not there any more."""
    path = f"{place(name)}/mnt"
    mounts = posix.open(path, posix.O_RDONLY)
    if posix.fstat(mounts).st_dev != posix.stat("/proc/self/ns/mnt").st_dev:
        posix.close(mounts)
        raise Failure(f"its mount namespace {path} is not there any more")
    return mounts


class Inside:
    """A context: this process is in the mount namespace of a descriptor, and has its root, for single system calls."""

    __slots__ = ("mounts", "outside")

    def __init__(self, mounts):
        self.mounts = mounts
        self.outside = rootfs.View()

    def __enter__(self):
        namespaces.setns(self.mounts, namespaces.NEWNS)

    def __exit__(self, *_):
        self.outside.enter()
        self.outside.close()


def root_of(mounts):
    """A descriptor of the root directory in a mount namespace."""
    with Inside(mounts):
        return posix.open("/", rootfs.DIRECTORY)


class Hibernating:
    """What state.Running is for a subhost that runs."""

    __slots__ = ("name", "network", "records", "state")

    def __init__(self, state):
        self.state, self.name, self.records = state, state.name, state.records()
        self.network = f"{network.DIRECTORY}/{state.name}"

    def mounts(self):
        """{id: Mount} of its mounts."""
        kept, own = opened(self.name), posix.open("/proc/self", rootfs.DIRECTORY)
        try:
            with Inside(kept):
                found = posix.open("mountinfo", posix.O_RDONLY, dir_fd=own)     # tells of where it was opened
        finally:
            posix.close(kept)
            posix.close(own)
        return proc.mounts_in(found)
