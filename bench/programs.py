"""The programs of one version of overlay-boot, kept beside the installed ones."""

import contextlib
import glob
import os
import shutil
import subprocess

from machine import bind_mounted
from process import Failed

# Where overlay-boot looks for its own parts, by absolute path: its modules; the keeper, and what that executes.
MODULES = "/usr/lib/overlay-boot"
LIBEXEC = "/usr/libexec/overlay-boot"


class Programs:
    """A directory with usr/sbin, usr/lib and usr/libexec, as in the package.

    The modules are compiled here, whatever their origin, so that all versions start alike.
    """

    def __init__(self, directory):
        self.directory = directory
        subprocess.run(["/usr/bin/python3", "-m", "compileall", "-q", "-s", directory, "-p", "/", directory + MODULES],
                       check=True)

    @classmethod
    def of_installation(cls, directory):
        """Copy the installed programs to the directory, which does not exist yet."""
        if not os.path.isdir(MODULES):
            raise Failed("overlay-boot is not installed")
        os.makedirs(f"{directory}/usr/sbin")
        for launcher in glob.glob("/usr/sbin/overlay-*"):
            shutil.copy2(launcher, directory + launcher)
        shutil.copytree(MODULES, directory + MODULES, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(LIBEXEC, directory + LIBEXEC)
        return cls(directory)

    @classmethod
    def of_package(cls, package, directory):
        """Unpack a .deb in the directory, which does not exist yet."""
        done = subprocess.run(["dpkg-deb", "--extract", package, directory],
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Failed(f"cannot unpack {package}: {done.stderr.strip()}")
        if not os.path.isdir(directory + MODULES):
            raise Failed(f"{package} is not a package of overlay-boot 2")
        return cls(directory)

    def command(self, name):
        """Return the path of a command; it works as long as the programs are in place."""
        return f"{self.directory}/usr/sbin/{name}"

    @contextlib.contextmanager
    def in_place(self):
        """Have these programs where the installed ones are, as this mount namespace sees it.

        A subhost that they have booted must be stopped before that ends: its keeper executes one of them.
        """
        with bind_mounted(self.directory + MODULES, MODULES), bind_mounted(self.directory + LIBEXEC, LIBEXEC):
            yield
