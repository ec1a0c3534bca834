"""The machine that the benchmark borrows: where it works, and how it gives everything back as it was."""

import contextlib
import glob
import os
import secrets
import shutil
import subprocess
import tempfile

import process

# What lxc, runc and systemd-nspawn make outside of their own directories and leave behind.
PEER_GROUPS = ("lxc.pivot", "payload", "supervisor")
# A regular file that the shell version makes: it discards output into this.
MISSPELT_NULL = "/dev/nukk"
NETNS = "/run/netns"
LIST = "/etc/subhosts.conf"
CACHE = "/var/cache/overlay-boot"
# The archives hold files of these directories, up to so many bytes of each, and no file larger than LARGEST.
SOURCES = {"usr/lib": 32 << 20, "usr/share": 32 << 20}
LARGEST = 2 << 20


class Machine:
    """A scratch directory on a disk, names that nobody else has, and the removal of all that was made."""

    def __init__(self, parent):
        kind = subprocess.run(
            ["stat", "--file-system", "--format=%T", parent], stdout=subprocess.PIPE, text=True, check=False
        ).stdout.strip()
        if kind in ("", "overlayfs", "tmpfs", "ramfs"):
            raise process.Failed(f"{parent} is on {kind or 'nothing'}, not on a disk")
        self.prefix = "ob" + secrets.token_hex(2)
        # The shell version takes a process with "overlay-boot" and a configuration in its command line for a
        # subhost: the path must not contain that word.
        self.directory = tempfile.mkdtemp(prefix=f"bench-{self.prefix}-", dir=os.path.abspath(parent))
        self._groups = _control_groups()
        self._had_null = os.path.exists(MISSPELT_NULL)
        self._had_netns = os.path.ismount(NETNS)

    def make(self, name):
        """Make a directory in the scratch directory, with the three of a subhost in it, and return its path."""
        path = os.path.join(self.directory, name)
        for part in ("root", "work", "live"):
            os.makedirs(os.path.join(path, part))
        return path

    @contextlib.contextmanager
    def listed(self, files):
        """Have /etc/subhosts.conf list the files, as the benchmark's mount namespace sees it."""
        path = os.path.join(self.directory, "subhosts.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{one}\n" for one in files)
        with bind_mounted(path, LIST):
            yield

    @contextlib.contextmanager
    def own_cache(self):
        """Have an empty cache of layers, as the benchmark's mount namespace sees it."""
        cache = Cache(os.path.join(self.directory, "cache"))
        with contextlib.ExitStack() as stack:
            if not os.path.isdir(CACHE):
                os.mkdir(CACHE)
                stack.callback(os.rmdir, CACHE)
            stack.enter_context(bind_mounted(cache.directory, CACHE))
            yield cache

    def archive(self, name, compression, part=0, parts=1):
        """Make an archive for LAYER of this machine's files, and return its path.

        With 4 parts, for example, it holds every fourth file, from number `part` on.
        """
        path = os.path.join(self.directory, f"{name}.tar.{compression}")
        directory = os.path.join(self.directory, name)
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "oxide.json"), "w", encoding="utf-8") as file:
            file.write('{"v":"1","t":"layer"}\n')
        with open(os.path.join(directory, "list"), "w", encoding="utf-8") as file:
            file.writelines(f"{one}\n" for one in _files_for_archives()[part::parts])
        subprocess.run(["tar", "-C", directory, "-cf", path, "-I", compression, "--format=posix", "--xattrs",
                        "oxide.json", "-C", "/", "--transform=s,^usr,root/usr,S", "--no-recursion",
                        "-T", f"{directory}/list"], check=True)
        return path

    def sync(self):
        """Have all that was written and removed on the disk, so that it is not written while something is timed."""
        subprocess.run(["sync", "--file-system", self.directory], check=True)

    def clean_up(self):
        """Remove all that was made; return a list of what could not be removed."""
        self._remove_left_by_others()
        left = self._left_behind()
        if any(entry.startswith("mount ") for entry in left):
            left.append(f"directory {self.directory}")  # to delete it might delete through the mount
        else:
            shutil.rmtree(self.directory)
        return left

    def _remove_left_by_others(self):
        for path in sorted(_control_groups() - self._groups, reverse=True):
            if os.path.basename(path).startswith((*PEER_GROUPS, self.prefix)):
                _try(os.rmdir, path)
        if not self._had_null:
            _try(os.unlink, MISSPELT_NULL)
        for path in glob.glob(f"/run/systemd/nspawn/propagate/{self.prefix}*"):
            _try(os.rmdir, path)
        for path, _, _ in os.walk(f"/run/lxc/lock{self.directory}", topdown=False):
            _try(os.removedirs, path)
        if not self._had_netns:
            # "ip netns add" makes a mount of it. While it is in use by anyone else this fails, as it should.
            subprocess.run(["umount", NETNS], stderr=subprocess.DEVNULL, check=False)

    def _left_behind(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            left = [f"mount {line.split()[4]}" for line in file if self.prefix in line]
        left += [f"process {pid}" for pid in process.with_argument(self.prefix) if pid != os.getpid()]
        left += [f"control group {path}" for path in _control_groups() if self.prefix in path]
        for directory in ("/sys/class/net", NETNS, "/run/overlay-boot"):
            left += glob.glob(f"{directory}/{self.prefix}*")
        return left


class Cache:
    """A cache of layers that only this benchmark has."""

    def __init__(self, directory):
        self.directory = directory
        os.mkdir(directory)

    def layers(self):
        return glob.glob(f"{self.directory}/layers/*")

    def empty(self):
        """Remove the layers, and what is noted of the archives: not even their sums are known then."""
        for path in glob.glob(f"{self.directory}/*"):
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


@contextlib.contextmanager
def bind_mounted(source, target):
    """Have source mounted on target, as the benchmark's mount namespace sees it."""
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield
    finally:
        # A process that was executed from there does not keep it mounted: a subhost whose stop has failed has one.
        subprocess.run(["umount", "--lazy", target], check=True)


def _files_for_archives():
    """Return paths of directories, files and links, relative to /: the same ones, in the same order, at each call."""
    found = []
    for top, room in SOURCES.items():
        for path in _below(f"/{top}"):
            size = 0 if os.path.isdir(path) else os.lstat(path).st_size
            if size <= LARGEST and "\n" not in path:
                found.append(path[1:])
                room -= size
            if room < 0:
                break
    return found


def _below(top):
    for place, directories, files in os.walk(top):
        directories.sort()
        yield place
        yield from (os.path.join(place, name) for name in sorted(files))


def _control_groups():
    return {path for path, _, _ in os.walk("/sys/fs/cgroup")}


def _try(function, path):
    try:
        function(path)
    except OSError:
        pass  # never made, made again by somebody else, or in use: clean_up() lists what is ours
