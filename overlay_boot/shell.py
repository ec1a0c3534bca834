"""The story of overlay-boot --shell: a subhost whose life is an interactive shell on this terminal."""
import _signal
import posix

from . import interruption
from .boot import boot
from .config import Config
from .entry import enter
from .running import find
from .state import PATIENCE, has_ended
from .stop import Watch, terminate


def shell(config: Config) -> int:
    """Boot the subhost with a shell in the place of its services.  Return the exit status of that.

    Then all its processes are ended, and it hibernates.  If this process is
    killed they are killed, and it hibernates as well.
    """
    boot(config, shell=True)
    posix.closerange(3, posix.sysconf("SC_OPEN_MAX"))       # with COMMAND, and what only PID 1 shall have
    subhost = find(config.name)
    try:
        interruption.let_in()
        return enter(subhost, [])
    finally:
        interruption.ignore()
        reap_for_good()
        terminate(subhost, Watch(subhost))
        has_ended(subhost.keeper_fd, PATIENCE)


def reap_for_good() -> None:
    """Leave no zombie: to PID 1, the shell would seem to be there still."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    try:
        while posix.waitpid(-1, posix.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
