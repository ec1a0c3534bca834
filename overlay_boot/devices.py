"""DEVICES: devices of the host in /dev of a subhost.  Loaded only where it names any."""
import posix

from . import beneath, files, paths, rootfs
from .errors import Failure, doing

PLACE = "/dev/"


def check(wanted: list[str]) -> None:
    """Raises Failure for a path that is no device of the host, or that leads to what each subhost has of its own."""
    own = {name for name, *_ in (*rootfs.DEVICES, *rootfs.LINKS)} | {"pts", "shm"}
    for path in wanted:
        if path.removeprefix(PLACE).partition("/")[0] in own:
            raise Failure(f"DEVICES: {path}: the subhost has its own")
        status_of(path)


def status_of(path: str) -> posix.stat_result:
    """Return the status of a device of the host.  Raises Failure if it is none."""
    try:
        status = posix.stat(path)
    except (OSError, ValueError) as error:
        raise Failure(f"DEVICES: {path}: {getattr(error, 'strerror', None) or error}") from None
    if status.st_mode & files.KIND not in files.DEVICES:
        raise Failure(f"DEVICES: {path} is not a device")
    return status


@doing("make the devices of DEVICES")
def make(wanted: list[str], root: int, owner: int) -> None:
    """Make device files in /dev of a root, as the host has them.  owner is root inside, as the host has it."""
    mask = posix.umask(0)
    try:
        with rootfs.mount_place(root, "dev") as dev, rootfs.made_by(owner):
            for path in wanted:
                make_copy(path, dev, owner)
    finally:
        posix.umask(mask)


def make_copy(path: str, dev: int, owner: int) -> None:
    status = status_of(path)
    user, group = status.st_uid, status.st_gid
    if owner:
        from .userns import NOBODY
        user, group = owner + min(user, NOBODY), owner + min(group, NOBODY)
    name = paths.name(path)
    with beneath.directory(dev, f"{paths.parent(path)}/"[len(PLACE):], beneath.REFUSED, make=0o755) as at:
        rootfs.make_device(at, name, status.st_mode, status.st_rdev)
        posix.chown(name, user, group, dir_fd=at)
