"""Paths as text, words of it, and the bytes that the kernel has for them.

This stands for os.path and os.fsencode: to import os takes 0.85 ms, a fifth of the interpreter's own start.  The system
calls in os come from posix, which is built in.
"""
import posix
import sys
from errno import ENOENT

ENCODING = sys.getfilesystemencoding()
WHITE_SPACE = " \t\n\r\v\f"         # ASCII's


def encode(text: str) -> bytes:
    """Return the bytes that text was decoded from, whatever they are."""
    return text.encode(ENCODING, "surrogateescape")


def decode(data: bytes) -> str:
    """Return bytes as text that keeps every one of them."""
    return data.decode(ENCODING, "surrogateescape")


def printable(text: str) -> str:
    """Return text as one line that does nothing to a terminal: control characters and the like are escaped.

    Bytes that are no text in our encoding stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or "\udc80" <= letter <= "\udcff" else repr(letter)[1:-1]
                   for letter in text)


def words(text: str) -> list[str]:
    """Return the words of text.  Only ASCII's white space is between them: what else Unicode has can be in a path."""
    return [decode(word) for word in encode(text).split()]


def join(directory: str, path: str) -> str:
    """Return path as it is if it is absolute, else as it is found in directory."""
    return path if path.startswith("/") else f"{directory.rstrip('/')}/{path}"


def absolute(path: str) -> str:
    """Return path as it is if it is absolute, else as it is found in the current directory.

    Raises FileNotFoundError, in words, if that was removed.
    """
    if path.startswith("/"):
        return path
    try:
        return join(posix.getcwd(), path)
    except FileNotFoundError as error:
        error.errno, error.strerror, error.filename = ENOENT, "the current directory was removed", path
        error.verb = "find"             # type: ignore[attr-defined]
        raise


def normal(path: str) -> str:
    """Return the absolute path without empty components, `.` and `..`.  Symbolic links do not count."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


def name(path: str) -> str:
    """Return the last component."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """Return all but the last component."""
    return path.rpartition("/")[0] or "/"


def real(path: str) -> str:
    """Return the path without symbolic links, as the kernel has it.  Raises OSError if nothing is there."""
    fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    try:
        return posix.readlink(f"/proc/self/fd/{fd}")
    finally:
        posix.close(fd)


def of_descriptor(fd: int) -> str:
    """Return a path that leads to what is open as fd, for this process."""
    return f"/proc/self/fd/{fd}"


def quoted(word: str) -> str:
    """Return the word for a shell, which takes it as it is."""
    return "'" + word.replace("'", "'\\''") + "'"
