"""The root directory of a system, which is only read.

It is the host's own, or one whose maintainer scripts will be run: what stands there is not hostile.
"""
import errno
import os
import stat
import sys

from .. import files
from ..files import Fd

NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
NO_FILE = (*NOT_THERE, errno.ELOOP, errno.ENXIO)        # nothing, a symbolic link, or a socket


class Root:
    """A root directory.  Paths in it are as /etc/passwd."""

    def __init__(self, directory: str) -> None:
        self.directory = directory          # without a slash at its end: "" stands for /

    def path_of(self, path: str) -> str:
        """Return where a path of the system is for this process."""
        return self.directory + path

    def has(self, path: str) -> bool:
        """Tell whether the path leads to anything."""
        return os.path.exists(self.path_of(path))

    def names(self, path: str) -> list[str]:
        """Return the names in a directory.  Raises OSError if it is none."""
        return os.listdir(self.path_of(path))

    def lstat(self, path: str) -> os.stat_result | None:
        """Return what lstat(2) says of a path; None if nothing is there."""
        try:
            return os.lstat(self.path_of(path))
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            raise

    def read_text(self, path: str) -> str:
        """Return the content of a text file.  Raises OSError if it cannot be read."""
        with open(self.path_of(path), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def lines(self, path: str) -> list[str]:
        """Return the lines of a text file; none if there is no such file."""
        try:
            return self.read_text(path).splitlines()
        except FileNotFoundError:
            return []

    def read_file(self, path: str, largest: int = sys.maxsize) -> tuple[bytes, os.stat_result] | None:
        """Return the content of a regular file and what fstat(2) says of it.

        Returns None if the path is no regular file, or one of more than largest bytes.  Raises OSError if it cannot be
        read.
        """
        try:
            fd = os.open(self.path_of(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno in NO_FILE:
                return None
            raise
        with Fd(fd):
            info = os.fstat(fd)
            return (files.read_all(fd), info) if stat.S_ISREG(info.st_mode) and info.st_size <= largest else None
