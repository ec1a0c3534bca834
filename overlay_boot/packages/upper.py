"""What UPPER has of packages: copies of files, whiteouts, and records.

UPPER is hostile ground, and a subhost may be at work in it: everything is reached by beneath.py, without a symbolic
link, and only files that are known for what they are are removed.
"""
import hashlib
import posix

from .. import beneath, dpkg, files, overlayfs, paths
from ..dpkg import INFO, LONGEST, MOST_BYTES
from ..errors import Failure
from ..files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from ..overlayfs import Tree

CHUNK = 1 << 20
MOST_HASHED = 1 << 36       # bytes; a file of a subhost's can say that it has any number of them


class Upper:
    """UPPER, above the layers of its host."""

    __slots__ = ("fd", "hashed", "lower", "read")

    def __init__(self, fd: int, lower: "Tree") -> None:
        """Of its descriptor, and the tree that the host's layers make."""
        self.fd = fd
        self.lower = lower
        self.read = 0           # bytes of records
        self.hashed = 0         # bytes of files

    def records(self) -> tuple[set[str], set[str]]:
        """Return the records of INFO that dpkg has written inside, and those that it has removed there."""
        unpacked: set[str] = set()
        hidden: set[str] = set()
        for name, status in self.entries(INFO):
            record, _, kind = name.rpartition(".")
            if kind == "list":
                (hidden if overlayfs.is_whiteout(status) else unpacked).add(record)
        return unpacked, hidden

    def entries(self, path: str) -> "Iterator[tuple[str, posix.stat_result]]":
        """Yield (name, what stat(2) says of it) of what UPPER has in a directory; nothing if it has none there."""
        try:
            fd = beneath.opened(self.fd, path, files.READ_DIRECTORY, beneath.REFUSED)
        except OSError as error:
            if error.errno not in files.NOWHERE:
                raise
            return
        with fd:
            for name in posix.listdir(fd):
                try:
                    yield name, posix.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    pass

    def status(self, path: str) -> posix.stat_result | None:
        """Return what stat(2) says of what UPPER has at a path, None if that is nothing.  Links are not followed."""
        found = self.opened(path)
        if found is None:
            return None
        with found:
            return posix.fstat(found)

    def opened(self, path: str) -> Fd | None:
        """Return a descriptor, as a place only, of what UPPER has at a path, None if that is nothing."""
        try:
            return beneath.opened(self.fd, path, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED)
        except OSError as error:
            if error.errno not in files.NOWHERE:
                raise
            return None

    def link(self, path: str) -> str:
        """Return where a symbolic link in UPPER leads, "" if there is none."""
        return link_of(self.fd, path)

    def has_file(self, path: str) -> bool:
        """Tell whether UPPER has a regular file of its own at a path."""
        found = self.status(path)
        return found is not None and found.st_mode & files.KIND == files.REGULAR

    def among(self, wanted: "Iterable[str]") -> "Iterator[tuple[str, posix.stat_result]]":
        """Yield (path, what stat(2) says of it) of what UPPER has at paths: by directory, of which it has few."""
        by_parent: dict[str, list[str]] = {}
        for path in wanted:
            by_parent.setdefault(path.rpartition("/")[0], []).append(path)
        for parent, found in by_parent.items():
            there = dict(self.entries(parent or "."))
            if there:
                yield from ((path, there[paths.name(path)]) for path in found if paths.name(path) in there)

    def text(self, path: str) -> str:
        """Return the text of a record in UPPER, "" if it has none.  Raises Failure if there is too much."""
        data = beneath.content(self.fd, path, LONGEST + 1, beneath.REFUSED)
        self.read += len(data)
        if self.read > MOST_BYTES:
            raise Failure(f"the records of packages in UPPER have more than {MOST_BYTES >> 20} MiB")
        return dpkg.text_of(data, path)

    def lines(self, path: str) -> list[str]:
        return dpkg.lines_of(self.text(path))

    def md5(self, path: str) -> str:
        """Return the MD5 sum of a regular file, "" if it is none, or gone.  Raises Failure if there is too much."""
        found = self.status(path)
        self.hashed += found.st_size if found else 0
        if self.hashed > MOST_HASHED:
            raise Failure(f"the files of packages in UPPER have more than {MOST_HASHED >> 30} GiB")
        return md5_of(self.fd, path)

    def md5sums(self, record: str) -> dict[str, str]:
        """Return {path: MD5 sum} of the files that a package has which dpkg has unpacked inside, but for conffiles."""
        return parsed_md5sums(self.lines(f"{INFO}/{record}.md5sums"))

    def paths(self, record: str) -> list[str]:
        """Return the paths of the files that a package has which dpkg has unpacked inside, a directory before these."""
        return sorted(line[1:] for line in self.lines(f"{INFO}/{record}.list") if line not in ("/.", ""))

    def is_shipped_link(self, at: str) -> bool:
        """Tell whether a symbolic link can be the package's: dpkg keeps one that somebody has put for a directory."""
        below = self.lower.status(at)
        return below is None or below.st_mode & files.KIND == files.SYMLINK

    def remove_idle_whiteouts(self, directory: str) -> None:
        """Remove what hides nothing of the host any more: files of a version that was replaced inside."""
        for name, status in [*self.entries(directory)]:
            if overlayfs.is_whiteout(status) and self.lower.status(f"{directory}/{name}") is None:
                self.unlink(f"{directory}/{name}")

    @staticmethod
    def is_directory(found: posix.stat_result | None) -> bool:
        return found is not None and found.st_mode & files.KIND == files.DIRECTORY

    def hides_below(self, at: str) -> bool:
        """Tell whether there is a directory that shows none of what the host has at its path."""
        found = self.opened(at)
        if found is None:
            return False
        with found:
            return files.kind_of(found) == files.DIRECTORY and (
                overlayfs.attribute(found, overlayfs.OPAQUE) == b"y" or bool(
                    overlayfs.attribute(found, overlayfs.REDIRECT))
                or not self.is_directory(self.lower.status(at)))

    def remove_records(self, records: "Collection[str]") -> None:
        """Remove the files of packages in INFO, and what hides those of the host.

        The last one of each is the list, by which the next call knows that there are others, if this is killed.
        """
        for name in sorted((name for name, _ in self.entries(INFO)), key=lambda name: name.endswith(".list")):
            if name.rpartition(".")[0] in records:
                self.unlink(f"{INFO}/{name}")

    def unlink(self, path: str) -> None:
        """Remove a file, which may be gone."""
        with beneath.directory(self.fd, paths.parent(f"/{path}")[1:], beneath.REFUSED) as at:
            try:
                posix.unlink(paths.name(path), dir_fd=at)
            except FileNotFoundError:
                pass


def link_of(root: int, path: str) -> str:
    """Return where a symbolic link below a directory leads, "" if there is none."""
    try:
        with beneath.opened(root, path, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED) as fd:
            return posix.readlink("", dir_fd=fd) if files.kind_of(fd) == files.SYMLINK else ""
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return ""


def md5_of(root: int, path: str) -> str:
    """Return the MD5 sum of a regular file below a directory, "" if it is none, or gone."""
    try:
        with beneath.opened(root, path, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED) as found:
            return md5(found)
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return ""


def md5(place: Fd) -> str:
    """Return the MD5 sum of what a descriptor is the place of, "" if that is no regular file."""
    status = posix.fstat(place)
    if status.st_mode & files.KIND != files.REGULAR:
        return ""                       # a device does something when it is opened
    made, left = hashlib.md5(usedforsecurity=False), status.st_size
    with files.opened(paths.of_descriptor(place)) as fd:
        while chunk := posix.read(fd, min(CHUNK, left)):        # it may grow meanwhile
            made.update(chunk)
            left -= len(chunk)
    return made.hexdigest()


def parsed_md5sums(lines: "Iterable[str]") -> dict[str, str]:
    """Return {path: MD5 sum} of the lines of a package's record of them."""
    parted = (line.partition("  ") for line in lines)
    return {path: md5 for md5, _, path in parted}
