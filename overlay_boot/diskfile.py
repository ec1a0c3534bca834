"""Disk images: files that have a file system in them, or partitions with one, mounted by way of a loop device.

The loop device clears itself (loop(4), LO_FLAGS_AUTOCLEAR): it ends with the
mount, and that with its mount namespace, however the processes end.

It keeps the image open, as it was opened here.  So a lock on that open file,
fcntl(2), lasts exactly as long as the mount does, and nobody has to be believed
about it.  It covers the partition only: others of the image are mounted beside.
"""
import posix
import time
from errno import EACCES, EBUSY, EINVAL, EIO, ENODEV, ENOENT, ENXIO, EPERM, EROFS

from . import files, interruption, mounts, namespaces, paths, proc, processes
from .config import Config, size_of
from .errors import Failure, reason
from .files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ACTIONS = ("overlay-boot", "overlay-check")     # these have a mount namespace of their own to mount in
MAKERS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
READ_ONLY = ("squashfs", "erofs")               # no subhost writes to these: any number of them can have one
# A copy of an XFS image has the UUID of the original, which is no reason not to mount both.
OPTIONS = {"xfs": {"nouuid": None}}
PATIENCE = 1                                    # seconds, for the mounts of a subhost that was just killed
SECTOR, LARGE_SECTOR = 512, 4096                # bytes; partx(8) prints numbers of the former
GPT = b"EFI PART"                               # at the beginning of the second sector of a disk


def mount_image(config: Config) -> None:
    """Mount IMAGE, for a boot or a check.  Raises Failure."""
    assert config.image
    path, index = config.image
    mount(path, index, [f"{config.base}/mnt"], config.action)


def mount_for(path: str, image: str, index: str | None, action: str, *, read_only: bool = False) -> None:
    """Mount an image, or its partition index, so that path is found in it; for overlay-diskfile(8).  Raises Failure."""
    above = [path[:at] or "/" for at, letter in enumerate(path) if letter == "/"] or [path]
    places = [place for place in above if files.kind(place) == files.DIRECTORY]
    if not places:
        raise Failure(f"cannot mount {image} on {above[-1]}: no such directory")
    mount(image, index, places, action, read_only=read_only)


def mount(path: str, index: str | None, places: list[str], action: str, *, read_only: bool = False) -> None:
    """Mount an image, or its partition index, on the last one of places, unless it is mounted on any of them."""
    try:
        file, is_writable = open_image(path, read_only)
        with file:
            image = Image(file, index, read_only=not is_writable)
            if not image.is_mounted(places):
                attach(image, places[-1], action)
    except (OSError, Failure) as error:
        raise Failure(f"cannot mount {path} on {places[-1]}: {reason(error)}") from None


def open_image(path: str, read_only: bool) -> tuple[Fd, bool]:
    """Open a file that is to be an image: a descriptor, and whether it can be written to.

    It cannot if writing is not asked for, or the file system or the block device is read-only.
    Nobody is waited for, whatever is there.
    """
    try:
        try:
            fd = files.opened(path, files.READ_ANYTHING | (0 if read_only else posix.O_RDWR))
        except OSError as error:
            if error.errno != EROFS:
                raise
            return files.opened(path, files.READ_ANYTHING), False
        return fd, not read_only and not is_read_only_device(fd)
    except OSError as error:
        raise Failure(error.strerror) from None         # the path is told by who has asked for it


def is_read_only_device(fd: int) -> bool:
    """Tell whether it is a block device that cannot be written to: it can be opened for writing all the same."""
    status = posix.fstat(fd)
    if status.st_mode & files.KIND != files.BLOCK_DEVICE:
        return False
    with files.opened(f"/sys/dev/block/{posix.major(status.st_rdev)}:{posix.minor(status.st_rdev)}/ro") as ro:
        return posix.read(ro, 1) == b"1"


def attach(image: "Image", place: str, action: str) -> None:
    """Mount an image on a directory on which nothing is mounted yet."""
    with files.opened(place, files.PLACE) as point:
        if namespaces.mount_of(point)[1]:
            raise Failure("something else is mounted there")
        mounted = image.mount_again() if action == "overlay-check" else None
        if mounted is None:
            image.lock()
            mounted = image.mount()
        with mounted:
            namespaces.move_mount(mounted, point)


class Image:
    """A file or a block device that is open to be mounted, or a partition of it."""

    __slots__ = ("fd", "kind", "offset", "read_only", "size")

    def __init__(self, fd: int, index: str | None, *, read_only: bool) -> None:
        """Raises Failure if there is no such partition, or no file system in it."""
        if files.kind_of(fd) not in (files.REGULAR, files.BLOCK_DEVICE):
            raise Failure("it is neither a regular file nor a block device")
        self.fd = fd
        path = f"/proc/{posix.getpid()}/fd/{fd}"        # for programs that are other processes
        self.offset, self.size = partition(fd, path, index) if index else (0, 0)
        self.kind = file_system(path, self.offset, self.size)
        self.read_only = read_only or self.kind in READ_ONLY

    def is_mounted(self, places: list[str]) -> bool:
        """Tell whether it is mounted on one of the places already."""
        sources = [path for path, is_same, _ in self.loop_devices() if is_same]
        return bool(sources) and any(source_of(place) in sources for place in places)

    def lock(self) -> None:
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

    def loop_devices(self) -> "Iterator[tuple[str, bool, bool]]":
        """Yield (path, whether it begins at the same byte, whether it is read-only) of each that has bytes of it."""
        identity = files.identity(self.fd)
        for name in posix.listdir("/sys/block"):
            if not files.kind(f"/sys/block/{name}/loop"):
                continue
            try:
                device, inode, offset, size, read_only = loop_status(f"/dev/{name}")
            except OSError as error:    # it has just gone, or is kept from this container
                if error.errno not in (ENOENT, ENODEV, ENXIO, EACCES, EPERM):
                    raise
                continue
            overlaps = (not size or self.offset < offset + size) and (not self.size or offset < self.offset + self.size)
            if overlaps and (device, inode) == identity:
                yield f"/dev/{name}", offset == self.offset, read_only

    def mount(self) -> Fd:
        """Return a descriptor of a mount of it that nobody sees yet."""
        device, path = self.set_up_loop_device()
        with device:
            return self.mount_device(path, self.read_only)

    def mount_again(self) -> Fd | None:
        """Return another mount of its file system, which disturbs nobody; None if that is not mounted by now."""
        for path, is_same, read_only in self.loop_devices():
            if is_same:
                return self.mount_device(path, read_only)
        return None

    def mount_device(self, path: str, read_only: bool) -> Fd:
        flags = {"ro": None} if read_only else {}
        try:
            return Fd(mounts.new(self.kind, 0, source=path, **flags, **OPTIONS.get(self.kind, {})))
        except OSError as error:
            raise Failure(why_not(error, self.kind, read_only) or error.strerror) from None

    def set_up_loop_device(self) -> tuple[Fd, str]:
        """Return a loop device for it, as a descriptor and as a path.  It lasts until nobody has it open or mounted."""
        with loop_control() as control:
            while True:
                path = f"/dev/loop{namespaces.loop_ctl_get_free(control)}"
                device = files.opened(path, posix.O_RDWR)
                try:
                    namespaces.loop_configure(device, self.fd, self.offset, self.size, read_only=self.read_only)
                    return device, path
                except OSError as error:
                    posix.close(device)
                    if error.errno != EBUSY:        # another process was faster
                        raise


def why_not(error: OSError, kind: str, read_only: bool) -> str | None:
    """Return what an errno of mounting a file system means.  The bare word would mislead."""
    if read_only and error.errno == EROFS:
        return f"its {kind} was not unmounted cleanly, and only a mount that can write to it repairs that"
    if read_only and error.errno == EIO and kind == "btrfs":    # which has no errno of its own for it
        return "its btrfs is damaged, or was not unmounted cleanly: only a mount that can write to it repairs that"
    return {EINVAL: f"its {kind} is damaged, or has features that this kernel does not support",
            ENODEV: f"this kernel does not support {kind}"}.get(error.errno or 0)


def loop_control() -> Fd:
    """Return a descriptor of /dev/loop-control.  Raises Failure where there is none."""
    try:
        return files.opened("/dev/loop-control", posix.O_RDWR)
    except FileNotFoundError:
        raise Failure("there is no /dev/loop-control: a subhost has no loop devices") from None


def source_of(place: str) -> str | None:
    """Return the device of which a file system is mounted on the directory; None if it is no mount point."""
    with files.opened(place, files.PLACE) as fd:
        number, is_root = namespaces.mount_of(fd)
    return proc.mounts()[number].source if is_root else None


def loop_status(path: str) -> tuple[int, int, int, int, bool]:
    """See namespaces.loop_get_status()."""
    with files.opened(path, posix.O_RDONLY) as device:
        return namespaces.loop_get_status(device)


def partition(fd: int, path: str, index: str) -> tuple[int, int]:
    """Return (offset, size) of a partition, in bytes, by partx(8).  Raises Failure if there is none.

    The sectors of a file are taken for those of 4096 bytes where its GPT is in the second one of these.
    A block device tells their size itself; an MBR does not.
    """
    if not (index.isascii() and index.isdigit() and int(index)):
        raise Failure(f"{index} is not the number of a partition")
    is_large = posix.pread(fd, len(GPT), SECTOR) != GPT == posix.pread(fd, len(GPT), LARGE_SECTOR)
    found = words_of(["partx", *(["--sector-size", str(LARGE_SECTOR)] if is_large else []), "--raw", "--noheadings",
                      "--nr", index, "--output", "START,SECTORS", path])
    if len(found) != 2:
        raise Failure(f"it has no partition {index}")
    start, sectors = map(int, found)
    return start * SECTOR, sectors * SECTOR


def file_system(path: str, offset: int, size: int) -> str:
    """Return the type of the file system in a range of a file, of size 0 to its end, by blkid(8).  Raises Failure."""
    found = words_of(["blkid", "--probe", "--offset", str(offset), *(["--size", str(size)] if size else []),
                      "--usages", "filesystem", "--match-tag", "TYPE", "--output", "value", path])
    if len(found) != 1:
        raise Failure("no file system is found in it")
    return found[0]


def words_of(command: list[str]) -> list[str]:
    """Return the words that a program prints; none if it says, by its exit status, that there is nothing."""
    with files.null() as null:
        try:
            return paths.decode(processes.run(command, {}, "/", log=null, output=True)).split()
        except processes.Unsuccessful:
            return []


def create(path: str, size: str, kind: str) -> None:
    """Make a sparse file with a file system of a kind, and in that the directories root and work.

    It has no name before it is complete, so nothing is left of one that is not.
    Raises Failure.
    """
    posix.umask(0o022)
    length = size_of(size)
    if not length:
        raise Failure(f"{size} is not a size such as 10G")
    directory = paths.parent(paths.absolute(path))
    try:
        if files.kind(path):
            raise Failure("it is there already")
        with files.opened(directory, posix.O_TMPFILE | posix.O_RDWR, 0o600) as file:
            posix.ftruncate(file, length)
            make_file_system(kind, f"/proc/{posix.getpid()}/fd/{file}")
            make_directories(file)
            posix.fsync(file)
            # src_dir_fd serves to have linkat(2) called, which can follow
            posix.link(paths.of_descriptor(file), path, src_dir_fd=file, follow_symlinks=True)
    except OSError as error:
        full = " (the disk may be full)" if error.errno == EIO else ""     # a loop device has no other word for it
        why = reason(error) if hasattr(error, "verb") else error.strerror
        raise Failure(f"cannot create {path}: {why}{full}") from None
    except Failure as failure:
        raise Failure(f"cannot create {path}: {failure}") from None


def make_file_system(kind: str, path: str) -> None:
    """Make a file system in a file.  Raises Failure, with the first line that mkfs says."""
    with Fd(posix.memfd_create("said")) as said:
        try:
            processes.run([*MAKERS[kind], path], {}, "/", log=said)
        except processes.Unsuccessful as failure:
            first = [*processes.lines_of(said), "it does not say why"][0]
            raise Failure(f"{failure}: {first.replace(path, 'the file')}") from None


def make_directories(file: int) -> None:
    """Make root and work in the file system of a file, and have all of that written.

    Raises OSError if it could not be: the file is sparse, and the host's disk may be full.
    """
    image = Image(file, None, read_only=False)
    device, path = image.set_up_loop_device()
    with device:
        with image.mount_device(path, False) as mounted:        # nobody else has it: to close it unmounts it
            for name in ("root", "work"):
                posix.mkdir(name, 0o755, dir_fd=mounted)
            with files.opened(".", files.READ_DIRECTORY, directory=mounted) as top:
                posix.fsync(top)        # tells of the journal
        posix.fsync(device)             # tells of the rest
