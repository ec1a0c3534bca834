"""Where maintainer scripts run: in the system as it will be seen through the layer, which they write to.

There is no network, no process but their own, no mount but the system's own, no device of the host's, and no service is
started.
"""
import os
from collections.abc import Callable

from .. import beneath, files, lower_mounts, mounts, namespaces, paths, processes, rootfs
from ..config import YES
from ..errors import Failure
from ..files import Fd, Fds
from .root import Root
from .workshop import Workshop

# Programs that the scripts call in vain: there is no service to start, dpkg is not at work, and caches are not for all.
STUBS = ("invoke-rc.d", "service", "start-stop-daemon", "deb-systemd-invoke", "dpkg-trigger", "udevadm", "mandb",
         "update-initramfs")
STUB = b"#!/bin/sh\nexit 0\n"
BIN, SCRIPT = "/run/bin", "/run/script"
CONFINED = ("env", "-i", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts",
            "--mount-proc=/proc", "--wd=/")

# Descriptor 3 is where a script tells what it is at, and what has failed.
SETUP = f"""\
exec 3>&1 >/dev/null 2>&1
export PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DPKG_ROOT=
hostname localhost
"""


def run(script: str, root: Root, workshop: Workshop, heard: Callable[[bytes], None]) -> list[str]:
    """Run shell commands over the root and the layer in the workshop.  Return the lines that they tell.

    heard is called with these whenever there are more.  Raises Failure if they cannot be run.  The caller
    has a mount namespace of its own.
    """
    mount_overlay(root, workshop)
    try:
        with files.opened(workshop.live, files.PLACE) as live:
            rootfs.mount_devices(live, "100M")
            rootfs.mount_run(live, "100M")
            with rootfs.mount_place(live, "tmp") as tmp:
                rootfs.mount_new("tmpfs", tmp, namespaces.NOSUID | namespaces.NODEV, mode="1777")
            os.close(rootfs.mount_place(live, "proc"))      # for unshare(1) to mount on
            write_programs(live, SETUP + script)
            said = processes.run([*CONFINED, f"--root={workshop.live}", "/bin/sh", SCRIPT], {}, "/",
                                 output=True, heard=heard)
    finally:
        namespaces.umount2(workshop.live, namespaces.DETACH)
    return paths.decode(said).splitlines()


def mount_overlay(root: Root, workshop: Workshop) -> None:
    """Mount the layer over the root, for scripts to write to."""
    lower, upper = root.directory or "/", workshop.layer
    with Fds(files.opened(path, files.PLACE) for path in (lower, upper, workshop.work)) as (below, above, work):
        try:
            mounted = mounts_below(lower, workshop, above, work)
            namespaces.mount("overlay", workshop.live, "overlay", 0,
                             ",".join(f"{key}={value}" for key, value in options(below, above, work).items()))
            with files.opened(workshop.live, files.PLACE) as live:
                lower_mounts.attach(live, mounted)
        except OSError as error:
            raise Failure(f"cannot mount an overlay with {upper} as its upper layer: {error.strerror}") from None


def options(below: int, above: int, work: int) -> dict[str, str]:
    """Return the options of an overlay mount of descriptors."""
    directories = {"lowerdir": below, "upperdir": above, "workdir": work}
    # Of what changes nothing may refer to the layers beneath: they will be upgraded.
    return {**{key: paths.of_descriptor(fd) for key, fd in directories.items()},
            "redirect_dir": "off", "metacopy": "off", "index": "off"}


def mounts_below(lower: str, workshop: Workshop, above: int, work: int) -> list[tuple[str, Fd, int]]:
    """Return what has to be mounted on the overlay mount for the file systems that the root has on its directories.

    They are as a subhost has them, and in the order of the paths.  Raises OSError.
    """
    stacks = lower_mounts.stacks(lower_mounts.find([YES], [lower], workshop.path), [lower], 0, -1, above, work)
    found = []
    for stack in reversed(stacks):          # what is inside another one first, see lower_mounts.py
        with files.opened(f"{lower.rstrip('/')}{stack.inside}", files.PLACE) as theirs, \
                beneath.directory(above, stack.inside[1:], beneath.REFUSED) as own, \
                beneath.directory(work, stack.work, beneath.REFUSED) as own_work:
            mounted = mounts.new("overlay", 0, source="overlay", **options(theirs, own, own_work))
            found.append((stack.inside, mounted, 0))
    return found[::-1]


def write_programs(live: int, script: str) -> None:
    """Put the script and the stubs on /run, which is a file system of ours."""
    with beneath.directory(live, paths.parent(SCRIPT)[1:], beneath.REFUSED) as at:
        beneath.write_new(at, paths.name(SCRIPT), script, 0o755)
    with beneath.directory(live, BIN[1:], beneath.REFUSED, make=0o755) as at:
        for name in STUBS:
            beneath.write_new(at, name, STUB, 0o755)
