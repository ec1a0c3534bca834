"""One form of error: verb, object as the user wrote it, reason."""
import posix
import sys

from . import paths

DONE, FAILED, MISUSED = 0, 1, 2


class Failure(Exception):
    """What could not be done, in one line: verb, object as the user wrote it, reason."""

    status = FAILED


class Misuse(Failure):
    """The command was called wrongly."""

    status = MISUSED


def reason(error):
    """What a Failure says; an OSError as `cannot VERB OBJECT: REASON`, with the step that it is from (see `step`)."""
    if isinstance(error, Failure):
        return str(error)
    text = error.strerror or str(error)
    what = name(error.filename)
    verb = getattr(error, "verb", None)
    if verb:
        text = f"cannot {verb} {what}: {text}" if what else f"cannot {verb}: {text}"
    elif what:
        text = f"{what}: {text}"
    during = getattr(error, "step", None)
    return f"cannot {during}: {text}" if during and not (verb and what) else text


def step(what):
    """A decorator: what the function does, to be told when a system call in it fails that does not say that itself."""
    def decorate(function):
        def decorated(*arguments, **named):
            try:
                return function(*arguments, **named)
            except OSError as error:
                error.step = what
                raise
        return decorated
    return decorate


def name(filename):
    if filename is None or isinstance(filename, int):
        return ""
    return filename if isinstance(filename, str) else paths.decode(filename)


def write(fd, text):
    """Write all of text, with the very bytes that it was read from; or of bytes."""
    data = text if isinstance(text, bytes) else paths.encode(text)
    while data:
        data = data[posix.write(fd, data):]


def complain(text):
    """One line on standard error, after the command's name."""
    line = "".join(letter if letter.isprintable() or "\udc80" <= letter <= "\udcff" else repr(letter)[1:-1]
                   for letter in f"{paths.name(sys.argv[0])}: {text}")
    try:
        write(2, line + "\n")
    except OSError:
        pass
