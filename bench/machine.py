"""The machine that the benchmark borrows: a place to work on, and how it was before."""

import contextlib
import glob
import os
import secrets
import shutil
import subprocess
import tempfile

import process

# What the peers, or the shell version, make outside of their own directories and leave behind.
PEER_GROUPS = ("lxc.pivot", "payload", "supervisor")
MISSPELT_NULL = "/dev/nukk"
NETNS = "/run/netns"
LIST = "/etc/subhosts.conf"
CACHE = "/var/cache/overlay-boot"
# What archives are made of: from each directory, files of so many bytes in all, none larger than one of them.
SOURCES = {"usr/lib": 32 << 20, "usr/share": 32 << 20}
LARGEST = 2 << 20


class Machine:
    """A scratch directory on a real disk, names that nobody else has, and everything as it was afterwards."""

    def __init__(self, parent):
        kind = subprocess.run(
            ["stat", "--file-system", "--format=%T", parent], stdout=subprocess.PIPE, text=True, check=False
        ).stdout.strip()
        if kind in ("", "overlayfs", "tmpfs", "ramfs"):
            raise process.Failed(f"{parent} is on {kind or 'nothing'}, not on a disk")
        self.prefix = "ob" + secrets.token_hex(2)
        # The shell version takes a process with "overlay-boot" and a configuration in its command line for a
        # subhost: the path must not contain that word.
        self.directory = tempfile.mkdtemp(prefix=f"bench-{self.prefix}-", dir=parent)
        self._groups = _control_groups()
        self._had_null = os.path.exists(MISSPELT_NULL)
        self._had_netns = os.path.ismount(NETNS)

    def make(self, name):
        """A new directory in the scratch directory, with the three of a subhost in it."""
        path = os.path.join(self.directory, name)
        for part in ("root", "work", "live"):
            os.makedirs(os.path.join(path, part))
        return path

    @contextlib.contextmanager
    def listed(self, files):
        """For that time /etc/subhosts.conf lists the files; seen in this mount namespace only, which is the benchmark's."""
        path = os.path.join(self.directory, "subhosts.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{one}\n" for one in files)
        subprocess.run(["mount", "--bind", path, LIST], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", LIST], check=True)

    @contextlib.contextmanager
    def own_cache(self):
        """For that time the cache of layers is an empty one in the scratch directory, likewise for the benchmark only."""
        cache = Cache(os.path.join(self.directory, "cache"))
        had_one = os.path.isdir(CACHE)
        os.makedirs(CACHE, exist_ok=True)
        subprocess.run(["mount", "--bind", cache.directory, CACHE], check=True)
        try:
            yield cache
        finally:
            subprocess.run(["umount", CACHE], check=True)
            if not had_one:
                os.rmdir(CACHE)

    def archive(self, name, compression, number=0, of=1):
        """An archive for LAYER, of files of this machine; its path. Of several, each has every so manyth file."""
        path = os.path.join(self.directory, f"{name}.tar.{compression}")
        directory = os.path.join(self.directory, name)
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "oxide.json"), "w", encoding="utf-8") as file:
            file.write('{"v":"1","t":"layer"}\n')
        with open(os.path.join(directory, "list"), "w", encoding="utf-8") as file:
            file.writelines(f"{one}\n" for one in _content()[number::of])
        subprocess.run(["tar", "-C", directory, "-cf", path, "-I", compression, "--format=posix", "--xattrs", "oxide.json",
                        "-C", "/", "--transform=s,^usr,root/usr,S", "--no-recursion", "-T", f"{directory}/list"], check=True)
        return path

    def settle(self):
        """Have what was removed and written on the disk, before anything else is timed."""
        subprocess.run(["sync", "--file-system", self.directory], check=True)

    def tidy(self):
        """Remove what is ours; return a list of what could not be removed."""
        self._remove_left_by_peers()
        left = self._left()
        if any(entry.startswith("mount ") for entry in left):
            left.append(f"directory {self.directory}")  # to delete it might delete through the mount
        else:
            shutil.rmtree(self.directory)
        return left

    def _remove_left_by_peers(self):
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

    def _left(self):
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
        """As it was before anything was unpacked: not even the sum of an archive is known."""
        for path in glob.glob(f"{self.directory}/*"):
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def _content():
    """Directories, files and links of this machine, in the order of their names: the same at each call."""
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
        pass  # never made, made again by somebody else, or in use: tidy() lists what is ours
