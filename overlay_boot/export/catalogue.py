"""What has no bound and is kept while a layer is written: on disk as soon as it is much.

SQLite's temporary database is a file without a name, of which little is in memory.
"""
from .. import files, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    import sqlite3
    from collections.abc import Iterable, Iterator

MOST_NAMES = 1 << 15        # that are in memory, of all directories that are being written
CACHE = 64                  # KiB, of a database


def database(table: str) -> "sqlite3.Connection":
    import sqlite3
    found = sqlite3.connect("", isolation_level=None)
    for words in (f"PRAGMA cache_size = -{CACHE}", "PRAGMA temp_store = FILE", "PRAGMA journal_mode = OFF",
                  "PRAGMA synchronous = OFF", table):
        found.execute(words)
    return found


class HardLinks:
    """The files with several names, and the first name of each."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: sqlite3.Connection | None = None

    def first(self, path: bytes, status: "posix.stat_result") -> bytes:
        """Return the name that a file was written by, b"" if this is the first one."""
        if self.known is None:
            self.known = database("CREATE TABLE names (file BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID")
        file = b"%d %d" % (status.st_dev, status.st_ino)
        row = self.known.execute("SELECT path FROM names WHERE file = ?", (file,)).fetchone()
        if row:
            return bytes(row[0])
        self.known.execute("INSERT INTO names VALUES (?, ?)", (file, path))
        return b""


class Names:
    """The names in directories, in order, however many they are."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0               # in memory, of all directories that are being gone through

    def of(self, directories: "Iterable[int]") -> "Iterator[str]":
        """Yield each name that one of the directories has, once, in the order of their bytes."""
        found: set[str] = set()
        beyond = None
        for name in every(directories):
            if beyond is None:
                found.add(name)
                if len(found) + self.held > MOST_NAMES:
                    beyond = database("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
                    beyond.executemany("INSERT INTO names VALUES (?)", ((paths.encode(one),) for one in found))
                    found.clear()
            else:
                beyond.execute("INSERT OR IGNORE INTO names VALUES (?)", (paths.encode(name),))
        if beyond is not None:
            for row in beyond.execute("SELECT name FROM names ORDER BY name"):
                yield paths.decode(row[0])
            beyond.close()
            return
        ordered = sorted(found, key=paths.encode)
        found.clear()
        self.held += len(ordered)
        yield from ordered
        self.held -= len(ordered)


def every(directories: "Iterable[int]") -> "Iterator[str]":
    """Yield the names in directories as the kernel has them."""
    import posix
    for directory in directories:
        with files.opened(".", files.READ_DIRECTORY, directory=directory) as fd, posix.scandir(fd) as entries:
            for entry in entries:
                yield entry.name
