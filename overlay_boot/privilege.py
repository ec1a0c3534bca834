"""Becoming root."""
import os
import sys

from .errors import Failure


def require_root():
    """Run this command again through sudo(8) if it is not root's, where sudo is installed."""
    if os.geteuid() == 0:
        return
    try:
        os.execvp("sudo", ["sudo", "--", os.path.realpath(sys.argv[0]), *sys.argv[1:]])
    except OSError:
        raise Failure("must be run by root (and there is no sudo here)") from None
