"""Becoming root."""
import posix
import sys

from . import PATH, paths
from .errors import Failure


def require_root():
    """Run this command again through sudo(8) if it is not root's, where sudo is installed."""
    if posix.geteuid() == 0:
        return
    command = ["sudo", "--", paths.real(sys.argv[0]), *sys.argv[1:]]
    for directory in PATH.split(":"):
        try:
            posix.execv(f"{directory}/sudo", command)
        except OSError:
            continue
    raise Failure("must be run by root (and there is no sudo here)")
