"""The signals that undo a boot.  They are taken where it waits, so that nothing is interrupted half-way."""
import _signal

from .errors import Failure

SIGNALS = (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT)


def hold() -> None:
    """Hold the signals back until the next `Wait`, where they raise Failure.  overlay-stop ends a boot by SIGTERM.

    Only the first one raises it: another one that is pending would interrupt what undoes the boot.
    """
    is_first = True

    def interrupted(number: int, _frame: object) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            raise Failure(f"interrupted by signal {number}")

    _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        _signal.signal(number, interrupted)


def let_in() -> None:
    """Let the signals raise Failure wherever they arrive from now on."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)


def ignore() -> None:
    """Ignore the signals from now on: what undoes a boot is not interrupted."""
    for number in SIGNALS:
        _signal.signal(number, _signal.SIG_IGN)


class Wait:
    """A context that lets in the signals that are held back.  One that is pending already raises Failure at once."""

    __slots__ = ("held",)

    def __enter__(self) -> None:
        self.held = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)

    def __exit__(self, *_: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.held)
