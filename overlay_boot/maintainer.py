"""What maintainer scripts make, made again by them: confined, in the system as it will be seen through a layer.

The scripts of the base system run as a whole, as at a first installation; of all
others only the sections that debhelper(7) wrote, which are known to do no more
than to enable services and the like.  There is no network, no process but their
own, no other mount, no device, and no service is started.
"""
import os
import posix

from . import files, namespaces, paths, processes, rootfs
from .errors import Failure

BASE_SYSTEM = ("required", "important", "standard")         # priorities, Debian Policy 2.5
SECTIONS = ("dh_installinit", "dh_installsystemd", "dh_installsystemduser", "dh_apparmor", "dh_ucf", "dh_runit",
            "dh_systemd_enable", "dh_installnss")
BEGIN, END = "# Automatically added by ", "# End automatically added section"

# Programs that the scripts call in vain: there is no service to start, dpkg is not
# at work, and caches are not for all.
STUBS = ("invoke-rc.d", "service", "start-stop-daemon", "deb-systemd-invoke", "dpkg-trigger", "udevadm", "mandb",
         "update-initramfs")
BIN, SCRIPT = "/run/bin", "/run/script"
CONFINED = ("env", "-i", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts",
            "--mount-proc=/proc", "--wd=/")

# First what the scripts build upon, last what triggers would do.
PROLOGUE = f"""\
exec 3>&1 >/dev/null 2>&1
export PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DPKG_ROOT= DPKG_MAINTSCRIPT_NAME=postinst
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true UCF_FORCE_CONFFNEW=1 DPKG_MAINTSCRIPT_DEBUG=0
hostname localhost
"""
EPILOGUE = """\
for command in "systemd-tmpfiles --create --prefix=/etc --prefix=/var" ldconfig; do
    if command -v "${command%% *}"; then $command; fi
done
true
"""


def run_scripts(root, layer, directory, packages):
    """Run them over the root and the layer, with the empty directory to work in; the packages whose scripts failed."""
    live, work = f"{directory}/live", f"{directory}/work"
    mount(root, layer, work, live)
    at = posix.open(live, files.PLACE)
    try:
        rootfs.mount_devices(at)
        rootfs.mount_run(at, "100M")
        rootfs.mount_new("tmpfs", rootfs.mount_place(at, "tmp"), namespaces.NOSUID | namespaces.NODEV, mode="1777")
        posix.close(rootfs.mount_place(at, "proc"))
        write(at, script(packages))
        said = processes.run([*CONFINED, f"--root={live}", "/bin/sh", SCRIPT], {}, "/", output=True)
    finally:
        posix.close(at)
        namespaces.umount2(live, namespaces.DETACH)
    return os.fsdecode(said).split()


def mount(root, layer, work, live):
    """The overlay that the scripts write to; in a mount namespace of this process."""
    fds = [posix.open(path, files.PLACE) for path in (root or "/", layer, work)]
    below, upper, working = (f"/proc/self/fd/{fd}" for fd in fds)
    try:
        # Of what changes nothing may refer to the layers beneath: they will be upgraded.
        namespaces.mount("overlay", live, "overlay", 0, f"lowerdir={below},upperdir={upper},workdir={working},"
                                                        "redirect_dir=off,metacopy=off,index=off")
    except OSError as error:
        raise Failure(f"cannot mount an overlay with {layer} as its upper layer: {error.strerror}") from None
    finally:
        for fd in fds:
            posix.close(fd)


def write(at, text):
    """Put the script and the stubs on /run, which is a file system of ours."""
    os.mkdir(BIN[1:], dir_fd=at)
    for path, content in ((SCRIPT, text), *((f"{BIN}/{name}", "#!/bin/sh\nexit 0\n") for name in STUBS)):
        fd = os.open(path[1:], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o755, dir_fd=at)
        with open(fd, "wb") as file:
            file.write(os.fsencode(content))


def script(packages):
    """The shell commands that run every script; the name is printed of each package whose script fails."""
    parts = [PROLOGUE]
    for package in in_order(packages):
        text = package.script("postinst")
        if package.priority in BASE_SYSTEM and text:
            words = f"/var/lib/dpkg/info/{paths.name(package.record)}.postinst configure ''"
        else:
            words = sections(text)
        if words:
            parts.append(f"( set -e; export DPKG_MAINTSCRIPT_PACKAGE={package.name}\n"
                         f"export DPKG_MAINTSCRIPT_ARCH={package.architecture} DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1\n"
                         f"set -- install\n{sections(package.script('preinst'))}\n"
                         f"set -- configure ''\n{words}\n) 3>&-\n[ $? -eq 0 ] || echo {package.name} >&3\n")
    return "".join([*parts, EPILOGUE])


def in_order(packages):
    """The base system first, and in it what the others take for given."""
    first = ("base-passwd", "base-files", "dpkg", "libc-bin", "debconf", "ucf", "debianutils", "passwd", "login")

    def rank(package):
        place = first.index(package.name) if package.name in first else len(first)
        return package.priority not in BASE_SYSTEM, place, package.name

    return sorted(packages, key=rank)


def sections(text):
    """The sections of a maintainer script that debhelper has written, of the tools in SECTIONS."""
    kept, writing = [], False
    for line in text.splitlines():
        if line.startswith(BEGIN):
            writing = line[len(BEGIN):].partition("/")[0].strip() in SECTIONS
        elif line.startswith(END):
            writing = False
        elif writing:
            kept.append(line)
    return "\n".join(kept)
