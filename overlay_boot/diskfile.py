"""Disk images: files that have a file system in them, or partitions with one, mounted by way of a loop device.

The loop device clears itself (loop(4), LO_FLAGS_AUTOCLEAR): it ends with the
mount, and that with its mount namespace, however the processes end.

It keeps the image open, as it was opened here.  So a lock on that open file,
fcntl(2), lasts exactly as long as the mount does, and nobody has to be believed
about it.  It covers the partition only: others of the image are mounted beside.
"""
import posix
import time
from errno import EBUSY, EINVAL, EIO, ENODEV, EROFS

from . import files, interruption, namespaces, paths, proc, processes, rootfs
from .config import size_of
from .errors import Failure, reason

ACTIONS = ("overlay-boot", "overlay-check")     # these have a mount namespace of their own to mount in
MAKERS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
READ_ONLY = ("squashfs", "erofs")               # no subhost writes to these: any number of them can have one
# A copy of an XFS image has the UUID of the original, which is no reason not to mount both.
OPTIONS = {"xfs": {"nouuid": None}}
PATIENCE = 1                                    # seconds, for the mounts of a subhost that was just killed


def mount_image(config):
    """Mount IMAGE, for a boot or a check."""
    path, index = config.image
    mount(path, index, [f"{config.base}/mnt"], config.action)


def mount_for(path, image, index, action, *, read_only=False):
    """Mount an image, or its partition index, so that path is found in it; for overlay-diskfile(8)."""
    above = [path[:at] or "/" for at, letter in enumerate(path) if letter == "/"] or [path]
    places = [place for place in above if files.kind(place) == files.DIRECTORY]
    if not places:
        raise Failure(f"cannot mount {image} on {above[-1]}: no such directory")
    mount(image, index, places, action, read_only=read_only)


def mount(path, index, places, action, *, read_only=False):
    """Mount an image, or its partition index, on the last one of places, unless it is mounted on any of them."""
    try:
        image = Image(path, index, read_only=read_only)
        try:
            if not image.is_mounted(places):
                attach(image, places[-1], action)
        finally:
            image.close()
    except (OSError, Failure) as error:
        raise Failure(f"cannot mount {path} on {places[-1]}: {reason(error)}") from None


def attach(image, place, action):
    point = posix.open(place, files.PLACE)
    mounted = -1
    try:
        if namespaces.mount_of(point)[1]:
            raise Failure("something else is mounted there")
        if action == "overlay-check":
            mounted = image.mount_again()
        if mounted < 0:
            image.lock()
            mounted = image.mount()
        namespaces.move_mount(mounted, point)
    finally:
        posix.close(point)
        if mounted >= 0:
            posix.close(mounted)


class Image:
    """A file, or a block device, or a partition of it, that is open to be mounted."""

    __slots__ = ("fd", "kind", "offset", "read_only", "size")

    def __init__(self, path, index=None, *, read_only=False):
        """Raises Failure if there is no such partition, or no file system in it."""
        try:
            self.fd = opened(path, read_only)
        except OSError as error:
            if error.errno != EROFS:
                raise Failure(error.strerror) from None
            read_only = True
            self.fd = opened(path, read_only)
        try:
            if files.kind_of(self.fd) not in (files.REGULAR, files.BLOCK_DEVICE):
                raise Failure("it is neither a regular file nor a block device")
            place = f"/proc/{posix.getpid()}/fd/{self.fd}"
            self.offset, self.size = partition(place, index) if index else (0, 0)
            self.kind = file_system(place, self.offset, self.size)
            self.read_only = read_only or self.kind in READ_ONLY
        except BaseException:
            posix.close(self.fd)
            raise

    def close(self):
        posix.close(self.fd)

    def is_mounted(self, places):
        """Whether it is mounted on one of the places already."""
        sources = [path for path, is_same, _ in self.loop_devices() if is_same]
        return bool(sources) and any(source_of(place) in sources for place in places)

    def lock(self):
        """Lock it for the life of the mount.  Raises Failure if another one writes to it, or would suffer if we do."""
        end = time.monotonic() + PATIENCE
        while not namespaces.lock_open_file(self.fd, self.offset, self.size, exclusive=not self.read_only):
            if time.monotonic() > end:
                raise Failure("it is in use by another subhost")
            with interruption.Wait():
                time.sleep(0.02)
        # What mount(8) has mounted is not locked.
        for path, _, read_only in self.loop_devices():
            if not (self.read_only and read_only):
                raise Failure(f"it is in use by {path}")

    def loop_devices(self):
        """(path, whether it begins at the same byte, whether it is read-only) of each that has bytes of it."""
        status = posix.fstat(self.fd)
        for name in posix.listdir("/sys/block"):
            if not files.kind(f"/sys/block/{name}/loop"):
                continue
            try:
                device, inode, offset, size, read_only = loop_status(f"/dev/{name}")
            except OSError:             # it has just gone
                continue
            overlaps = (not size or self.offset < offset + size) and (not self.size or offset < self.offset + self.size)
            if overlaps and (device, inode) == (status.st_dev, status.st_ino):
                yield f"/dev/{name}", offset == self.offset, read_only

    def mount(self):
        """A descriptor of a mount of it that nobody sees yet."""
        device, path = self.loop_device()
        try:
            return self.mount_device(path, self.read_only)
        finally:
            posix.close(device)

    def mount_again(self):
        """Another mount of its file system, if that is mounted by now, which disturbs nobody; else -1."""
        for path, is_same, read_only in self.loop_devices():
            if is_same:
                return self.mount_device(path, read_only)
        return -1

    def mount_device(self, path, read_only):
        flags = {"ro": None} if read_only else {}
        try:
            return rootfs.new_mount(self.kind, 0, source=path, **flags, **OPTIONS.get(self.kind, {}))
        except OSError as error:
            raise Failure({
                EINVAL: f"its {self.kind} is damaged, or more than this kernel knows",
                ENODEV: f"this kernel has no {self.kind}",
            }.get(error.errno, error.strerror)) from None

    def loop_device(self):
        """(descriptor, path) of a loop device for it."""
        control = posix.open("/dev/loop-control", posix.O_RDWR | posix.O_CLOEXEC)
        try:
            while True:
                path = f"/dev/loop{namespaces.loop_ctl_get_free(control)}"
                device = posix.open(path, posix.O_RDWR | posix.O_CLOEXEC)
                try:
                    namespaces.loop_configure(device, self.fd, self.offset, self.size, read_only=self.read_only)
                    return device, path
                except OSError as error:
                    posix.close(device)
                    if error.errno != EBUSY:        # another process was faster
                        raise
        finally:
            posix.close(control)


def opened(path, read_only):
    """A descriptor that does not wait for anybody, whatever is there."""
    return posix.open(path, (posix.O_RDONLY if read_only else posix.O_RDWR)
                      | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC)


def source_of(place):
    """The device of which a file system is mounted on the directory; None if it is no mount point."""
    fd = posix.open(place, files.PLACE)
    number, is_root = namespaces.mount_of(fd)
    posix.close(fd)
    return proc.mounts()[number].source if is_root else None


def loop_status(path):
    device = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return namespaces.loop_get_status(device)
    finally:
        posix.close(device)


def partition(path, index):
    """(offset, size) of a partition, in bytes."""
    if not (index.isascii() and index.isdigit() and int(index)):
        raise Failure(f"{index} is not the number of a partition")
    found = asked(["partx", "--raw", "--noheadings", "--nr", index, "--output", "START,SECTORS", path])
    if len(found) != 2:
        raise Failure(f"it has no partition {index}")
    return int(found[0]) << 9, int(found[1]) << 9


def file_system(path, offset, size):
    """The type of the file system in a range of a file; of size 0, to its end."""
    found = asked(["blkid", "--probe", "--offset", str(offset), *(["--size", str(size)] if size else []),
                   "--usages", "filesystem", "--match-tag", "TYPE", "--output", "value", path])
    if len(found) != 1:
        raise Failure("no file system is found in it")
    return found[0]


def asked(words):
    """The words that a program prints; none if it says that there is nothing."""
    null = posix.open("/dev/null", posix.O_WRONLY)
    try:
        return paths.decode(processes.run(words, {}, "/", log=null, output=True)).split()
    except processes.Unsuccessful:
        return []
    finally:
        posix.close(null)


def create(path, size, kind):
    """Make a sparse file with a file system, and in that the directories root and work.

    It has no name before it is complete, so nothing is left of one that is not.
    """
    posix.umask(0o022)
    length = size_of(size)
    if not length:
        raise Failure(f"{size} is no size, as 10G is")
    directory = paths.parent(paths.join(posix.getcwd(), path))
    try:
        if files.kind(path):
            raise Failure("it is there already")
        fd = posix.open(directory, posix.O_TMPFILE | posix.O_RDWR, 0o600)
        try:
            posix.ftruncate(fd, length)
            make_file_system(kind, f"/proc/{posix.getpid()}/fd/{fd}")
            make_directories(f"/proc/self/fd/{fd}")
            posix.fsync(fd)
            # src_dir_fd serves to have linkat(2) called, which can follow
            posix.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
        finally:
            posix.close(fd)
    except OSError as error:
        full = " (the disk may be full)" if error.errno == EIO else ""     # a loop device has no other word for it
        raise Failure(f"cannot create {path}: {error.strerror}{full}") from None
    except Failure as failure:
        raise Failure(f"cannot create {path}: {failure}") from None


def make_file_system(kind, path):
    said = posix.memfd_create("said")
    try:
        processes.run([*MAKERS[kind], path], {}, "/", log=said)
    except processes.Unsuccessful as failure:
        first = [*processes.lines_of(said), "it does not say why"][0]
        raise Failure(f"{failure}: {first.replace(path, 'the file')}") from None
    finally:
        posix.close(said)


def make_directories(path):
    """Raises OSError if not all of it could be written: the file is sparse, and the host's disk may be full."""
    image = Image(path)
    device = -1
    try:
        device, source = image.loop_device()
        mounted = image.mount_device(source, False)
        try:
            for name in ("root", "work"):
                posix.mkdir(name, 0o755, dir_fd=mounted)
            top = posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY, dir_fd=mounted)
            try:
                posix.fsync(top)        # tells of the journal
            finally:
                posix.close(top)
        finally:
            posix.close(mounted)        # which unmounts it: nobody else has it
        posix.fsync(device)             # tells of the rest
    finally:
        image.close()
        if device >= 0:
            posix.close(device)
