"""One module per command: usage, options, one or two calls.  Here is what all of them begin and end with."""
import _signal
import posix
import sys

from .. import PATH, paths
from ..errors import DONE, FAILED, Failure, complain, reason


def open_standard():
    """Open what the caller has closed of 0, 1 and 2, before anything of ours gets these numbers."""
    fd = posix.open("/dev/null", posix.O_RDWR)
    while fd <= 2:
        posix.set_inheritable(fd, True)
        fd = posix.open("/dev/null", posix.O_RDWR)
    posix.close(fd)


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


def parse_one_or_all(parser, arguments):
    """The options of a command for one configuration file, or for all."""
    options = parser.parse_args(arguments)
    if options.all == (options.conf is not None):
        parser.error("--all or CONF, one of them")
    return options


def run(command):
    """Run a command's function with its arguments; the exit status."""
    open_standard()
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)    # ignored, as a caller may have it, ends of children are lost
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
