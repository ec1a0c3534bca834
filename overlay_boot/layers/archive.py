"""The file that a LAYER names, its SHA-256 sum, and the list of the archives that boots have seen.

    /var/cache/overlay-boot/archives    a line for each: its fingerprint, sum and path

The fingerprint is what stat(2) says: another content cannot have the same inode and the same times.  The line spares
a boot to read the archive.
"""
import posix
import time

from .. import files, interruption, paths
from ..errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

CACHE = "/var/cache/overlay-boot"
SEEN = f"{CACHE}/archives"
TICK = 20_000_000           # nanoseconds: more than what a file system's clock leaps, inode(7)
CHUNK = 1 << 20


class Archive:
    """An archive, open for reading.  The end of a with statement closes it."""

    __slots__ = ("fd", "path", "stat")

    def __init__(self, path: str) -> None:
        """Raises Failure if it is not there, or is no regular file."""
        self.path = path
        try:
            self.fd = files.opened(path)
        except OSError as error:
            raise Failure(f"LAYER={path}: {error.strerror}") from None
        self.stat = posix.fstat(self.fd)
        if self.stat.st_mode & files.KIND != files.REGULAR:
            posix.close(self.fd)
            raise Failure(f"LAYER={path} is neither a directory nor an archive")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self.fd)

    def digest(self) -> str:
        """Return its SHA-256 sum, in hexadecimal.  It is read only if it was not seen before, or was changed.

        Raises Failure if it is changed meanwhile.
        """
        known = fingerprint(self.stat)
        for one, digest, _ in seen():
            if one == known:
                return digest
        # A change within one tick of the clock would not show in the times.
        age = time.time_ns() - self.stat.st_ctime_ns
        if 0 <= age < TICK:
            time.sleep((TICK - age) / 1e9)
        digest = sha256(self.fd)
        self.check_unchanged()
        if "\n" not in self.path:
            add_to_seen(entry(known, digest, self.path))
        return digest

    def check_unchanged(self) -> None:
        """Raises Failure if the file was changed since it was opened."""
        if fingerprint(posix.fstat(self.fd)) != fingerprint(self.stat):
            raise Failure(f"LAYER={self.path}: it was changed while it was read")


def fingerprint(status: posix.stat_result) -> str:
    """Return what of a file's stat(2) another content cannot have as well."""
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def sha256(fd: int) -> str:
    """Return the SHA-256 sum of an open file, in hexadecimal.  The file need not be at its beginning."""
    import hashlib
    found, at = hashlib.sha256(), 0
    with interruption.Wait():
        while chunk := posix.pread(fd, CHUNK, at):
            found.update(chunk)
            at += len(chunk)
    return found.hexdigest()


def is_digest(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")


# The list

def seen() -> list[tuple[str, str, str]]:
    """Return (fingerprint, digest, path) of the archives seen, the latest first.  What is no whole line is none."""
    try:
        with files.opened(SEEN, posix.O_RDONLY) as fd:
            lines = paths.decode(files.read_all(fd)).split("\n")[:-1]
    except FileNotFoundError:
        return []
    split = (line.split(" ", 6) for line in reversed(lines))
    return [(" ".join(words[:5]), words[5], words[6]) for words in split if len(words) == 7 and is_digest(words[5])]


def entry(known: str, digest: str, path: str) -> str:
    return f"{known} {digest} {path}\n"


def add_to_seen(text: str) -> None:
    """Add a line to the list.  It is one write(2), and so never mixed with another process's."""
    with files.opened(SEEN, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_NOFOLLOW, 0o600) as fd:
        posix.write(fd, paths.encode(text))


def forget_all_but(digests: "Container[str]") -> None:
    """Drop the archives of other digests from the list, and all but the latest line of an archive."""
    kept = {}
    for known, digest, path in reversed(seen()):
        if digest in digests:
            kept[path, digest] = entry(known, digest, path)
    anew = f"{SEEN}.part"
    with files.opened(anew, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW, 0o600) as fd:
        files.write_all(fd, "".join(kept.values()))
    posix.rename(anew, SEEN)
