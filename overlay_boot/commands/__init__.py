"""One module per command: usage, options, one or two calls.  Here is what all of them begin and end with."""
import posix
import sys

from .. import PATH, paths
from ..errors import DONE, FAILED, Failure, complain, reason


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


def run(command):
    """Run a command's function with its arguments; the exit status."""
    try:
        return command(sys.argv[1:]) or DONE
    except Failure as failure:
        complain(failure)
        return failure.status
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        complain(reason(error))
        return FAILED
    except MemoryError:
        complain("out of memory")
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
