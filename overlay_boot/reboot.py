"""A boot that follows the end of a subhost, as something inside has asked for."""
import _signal
import posix
import time

from . import PATH, environment, files, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .record import Record

PROGRAM = "/usr/sbin/overlay-boot"
# By what clears, see keeper.pyx.
IGNORED = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGPIPE, _signal.SIGXFSZ)
SHORTEST = 2        # seconds from one boot to the next: root inside shall not keep the host busy with them


def boot_again(record: "Record", *, foreground: bool) -> None:
    """Execute overlay-boot for the configuration on record of a subhost that has ended.

    In the background, what it says goes to LOG.
    """
    if not record.config:
        return
    time.sleep(min(SHORTEST, max(0, (record.since or 0) + SHORTEST - time.time())))
    with files.null() as null:
        posix.dup2(null, 0)
    if not foreground:
        with log.make(record.log, (record.upper,)) as said:
            posix.dup2(said, 1)
            posix.dup2(said, 2)
    for number in IGNORED:
        _signal.signal(number, _signal.SIG_DFL)
    inside = environment.inside()
    posix.execve(PROGRAM, [PROGRAM, *(["--foreground"] if foreground else []), record.config],
                 {"PATH": PATH, "TERM": inside["TERM"], "LANG": inside["LANG"]})
