"""The signals that undo a boot.  They are taken where it waits, so that nothing is interrupted half-way."""
import _signal

from .errors import Failure

SIGNALS = (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT)


def hold():
    """From here on a signal raises Failure, at the next wait; overlay-stop sends SIGTERM to a boot under way."""
    def interrupted(number, _frame):
        raise Failure(f"interrupted by signal {number}")

    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        _signal.signal(number, interrupted)


def let_in():
    """From here on a signal raises Failure wherever it arrives."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)


def ignore():
    """What is being undone is not interrupted."""
    for number in SIGNALS:
        _signal.signal(number, _signal.SIG_IGN)


class Wait:
    """A context in which signals that are held back arrive, those of before at once."""

    __slots__ = ("held",)

    def __enter__(self):
        self.held = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)

    def __exit__(self, *_):
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.held)
