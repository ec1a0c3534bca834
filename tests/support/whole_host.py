"""A whole Debian system as a host: in a root and namespaces of its own, with overlay-boot, until the test ends.

Paths of the host are the same outside and inside: below its root is a symbolic link that leads from them to /.
"""
import os

import debs
from machine import Subhost, descendants, run, start, write

SLOW = 1500     # seconds, for what apt and dpkg do to a whole system

# PID 1 waits for whatever is left to it.
BEGIN = """
    mount --bind "$1" "$1"
    cd "$1"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount --rbind /sys/fs/cgroup sys/fs/cgroup
    mount -t tmpfs -o mode=755 run run
    mkdir -p run/lock dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
    rm -f dev/ptmx
    ln -s pts/ptmx dev/ptmx
    mount -t tmpfs -o mode=1777 shm dev/shm
    pivot_root . mnt
    umount -l /mnt
    ip link set lo up
    hostname host
    echo ready
    sleep infinity &
    wait
"""
ENVIRONMENT = {"HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
               "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class WholeHost:
    """A context: the host whose root is a directory."""

    def __init__(self, root):
        self.root = root

    def __enter__(self):
        os.makedirs(os.path.dirname(self.root + self.root), exist_ok=True)
        os.symlink("/", self.root + self.root)
        write(f"{self.root}/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
        self.process = start("unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--net", "--propagation", "private",
                             "sh", "-euc", BEGIN, "sh", self.root)
        assert self.process.stdout.readline() == b"ready\n", self.process.stderr.read()
        self.init = min(pid for pid, name in descendants(self.process.pid).items() if name == "sh")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def run(self, *words, seconds=SLOW, **how):
        """Run a command on it."""
        namespaces = ("--mount", "--pid", "--ipc", "--uts", "--net", "--root", "--wd")
        return run("nsenter", "-t", str(self.init), *namespaces, "--", *words, env=ENVIRONMENT, seconds=seconds, **how)

    def done(self, *words, **how):
        """What a command prints that succeeds."""
        done = self.run(*words, **how)
        assert done.returncode == 0, f"{words}: {done.stdout[-5000:]}{done.stderr[-5000:]}"
        return done.stdout

    def sh(self, text, **how):
        return self.done("sh", "-euc", text, **how)

    def install(self, *paths):
        """Have dpkg install packages, each after what it needs."""
        return self.done("apt-get", "-y", "--no-install-recommends", "install", *paths)

    def subhost(self, **settings):
        return OfWholeHost(self, **settings)


class OfWholeHost(Subhost):
    """A subhost on such a host."""

    def __init__(self, host, **settings):
        self.run = host.run
        self.host = host
        os.makedirs(f"{host.root}/srv/subhosts", exist_ok=True)
        super().__init__(f"{host.root}/srv/subhosts", **settings)
        self.log_inside = self.log
        self.log = f"{host.root}{self.log}"

    @property
    def root(self):
        """Its root directory."""
        return f"/proc/{self.host.init}/root/proc/{self.init}/root"

    def serves(self, *services):
        """It is booted anew with these in START."""
        self.stopped()
        self.configure(START=" ".join(services))
        return self.booted()

    def install(self, *paths):
        """Have apt install packages in it that it has the files of."""
        return self.inside("env", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), "apt-get", "-y", "--no-install-recommends",
                           "-o", "Dpkg::Options::=--force-confold", "install", *paths, seconds=SLOW)

    def status(self):
        """What dpkg has on record in it."""
        with open(f"{self.root}/{debs.RECORDS}/status") as file:
            return debs.status(file.read())

    def version(self, package):
        """The version that it has of a package."""
        return self.inside("dpkg-query", "-Wf", "${Version}", package)

    def is_clean(self):
        """dpkg and apt have nothing to complain of."""
        assert self.inside("dpkg", "--audit") == ""
        changed = [line for line in self.go("dpkg", "-V", seconds=SLOW).stdout.splitlines() if line.split()[1] != "c"]
        assert changed == []
        self.inside("apt-get", "check")

    def services(self):
        """{(user, program)} of what runs in it."""
        return {tuple(line.split()) for line in self.inside("ps", "-eo", "user:32=,comm=").splitlines()}


def differences(one, other, passing=()):
    """{path: (in the one, in the other)} of what two subhosts do not have in common."""
    found = [debs.seen(each.root, passing) for each in (one, other)]
    return {path: (found[0].get(path), found[1].get(path)) for path in {*found[0], *found[1]} if found[0].get(path) != found[1].get(path)}
