"""One form of error: verb, object as the user wrote it, reason."""
import sys

from . import files, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar
    P = ParamSpec("P")
    R = TypeVar("R")

DONE, FAILED = 0, 1

before_line = ""        # on standard error: what takes away the line that progress.py shows


class Failure(Exception):
    """What could not be done, in one line: verb, object as the user wrote it, reason."""

    status = FAILED


def reason(error: Exception) -> str:
    """Return what a Failure says, or an OSError as `cannot VERB OBJECT: REASON`; see `doing`."""
    if not isinstance(error, OSError):
        return str(error)
    text = error.strerror or str(error)
    what = as_text(error.filename)
    verb = getattr(error, "verb", None)
    if verb:
        text = f"cannot {verb} {what}: {text}" if what else f"cannot {verb}: {text}"
    elif what:
        text = f"{what}: {text}"
    during = getattr(error, "during", None)
    return f"cannot {during}: {text}" if during and during != verb and not (verb and what) else text


def doing(what: str) -> "Callable[[Callable[P, R]], Callable[P, R]]":
    """Decorate a function with what it does, for the error of a system call in it that does not say that itself."""
    def decorate(function: "Callable[P, R]") -> "Callable[P, R]":
        def decorated(*arguments: "P.args", **named: "P.kwargs") -> "R":
            try:
                return function(*arguments, **named)
            except OSError as error:
                error.during = what         # type: ignore[attr-defined]
                raise
        return decorated
    return decorate


def as_text(filename: object) -> str:
    if filename is None or isinstance(filename, int):
        return ""
    return paths.decode(filename) if isinstance(filename, bytes) else str(filename)


def complain(text: object) -> None:
    """Print one line on standard error, after the command's name."""
    line = paths.printable(f"{paths.name(sys.argv[0])}: {text}")
    try:
        files.write_all(2, f"{before_line}{line}\n")
    except OSError:
        pass
