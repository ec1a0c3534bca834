"""What UPPER has of packages: copies of files, whiteouts, and records.

UPPER is hostile ground, and a subhost may be at work in it: everything is reached by beneath.py, without a symbolic
link, and only files that are known for what they are are removed.
"""
import hashlib
import posix
from errno import EBUSY, EEXIST, ENOTEMPTY

from .. import beneath, files, overlayfs, paths
from ..dpkg import INFO, LONGEST
from ..files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..overlayfs import Tree
    Remover = Callable[..., None]

ALIASES = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")      # of directories in usr
CHUNK = 1 << 20


class Upper:
    """UPPER, above the layers of its host."""

    __slots__ = ("aliases", "fd", "lower")

    def __init__(self, fd: int, lower: "Tree") -> None:
        """Of its descriptor, and the tree that the host's layers make."""
        self.fd = fd
        self.lower = lower
        self.aliases = {name for name in ALIASES if lower.link(name)}

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

    def place(self, path: str) -> str:
        """Return where a path of a package is: dpkg has /lib/x on record for what is in /usr/lib since Debian 12."""
        first, slash, _ = path.partition("/")
        return f"usr/{path}" if slash and first in self.aliases else path

    def status(self, path: str) -> posix.stat_result | None:
        """Return what stat(2) says of what UPPER has at a path, None if that is nothing.  Links are not followed."""
        try:
            with beneath.opened(self.fd, path, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED) as fd:
                return posix.fstat(fd)
        except OSError as error:
            if error.errno not in files.NOWHERE:
                raise
            return None

    def link(self, path: str) -> str:
        """Return where a symbolic link in UPPER leads, "" if there is none."""
        return link_of(self.fd, path)

    def has_file(self, path: str) -> bool:
        """Tell whether UPPER has a regular file of its own at a path of a package."""
        found = self.status(self.place(path))
        return found is not None and found.st_mode & files.KIND == files.REGULAR

    def text(self, path: str) -> str:
        """Return the text of a file that UPPER has; "" if it has none."""
        return paths.decode(beneath.content(self.fd, path, LONGEST, beneath.REFUSED))

    def lines(self, path: str) -> list[str]:
        return self.text(path).splitlines()

    def remove_copies(self, record: str, conffiles: dict[str, str], shipped: set[str]) -> list[str]:
        """Remove the files of a package that dpkg has unpacked inside and nobody has changed.

        conffiles are {path: MD5 sum} as they were shipped; shipped are the paths that the host has of the package.
        Returns the paths of what was changed, and stays.
        """
        parted = (line.partition("  ") for line in self.lines(f"{INFO}/{record}.md5sums"))
        md5sums = {path: md5 for md5, _, path in parted}
        kept, directories = [], []
        for path in sorted((line[1:] for line in self.lines(f"{INFO}/{record}.list") if line != "/."), reverse=True):
            at = self.place(path)
            found = self.status(at)
            if found is None or overlayfs.is_whiteout(found):
                continue
            kind = found.st_mode & files.KIND
            if kind == files.DIRECTORY:
                directories.append(at)
            elif kind == files.SYMLINK and path not in conffiles and self.is_shipped_link(at) or (
                    kind == files.REGULAR and self.is_unchanged(at, path, md5sums, conffiles, shipped)):
                self.unlink(at)
            elif path not in conffiles:
                kept.append(f"/{path}")
        for at in directories:              # the deepest first
            self.remove_idle_whiteouts(at)
            self.remove_directory(at)
        return kept

    def is_shipped_link(self, at: str) -> bool:
        """Tell whether a symbolic link can be the package's: dpkg keeps one that somebody has put for a directory."""
        below = self.lower.status(at)
        return below is None or below.st_mode & files.KIND == files.SYMLINK

    def remove_idle_whiteouts(self, directory: str) -> None:
        """Remove what hides nothing of the host any more: files of a version that was replaced inside."""
        for name, status in [*self.entries(directory)]:
            if overlayfs.is_whiteout(status) and self.lower.status(f"{directory}/{name}") is None:
                self.unlink(f"{directory}/{name}")

    def is_unchanged(self, at: str, path: str, md5sums: dict[str, str], conffiles: dict[str, str],
                     shipped: set[str]) -> bool:
        """Tell whether UPPER has a file as it was shipped.  A conffile that the host has not got counts as changed."""
        if path in conffiles and (path not in shipped or self.lower.status(at) is None):
            return False
        wanted = conffiles[path].partition(" ")[0] if path in conffiles else md5sums.get(path)
        return wanted is not None and md5_of(self.fd, at) == wanted

    def remove_directory(self, at: str) -> None:
        """Remove a directory if nothing is in it, and the host has the same one, or none."""
        found, below = self.status(at), self.lower.status(at)
        if below and found and (below.st_mode, below.st_uid, below.st_gid) != (
                found.st_mode, found.st_uid, found.st_gid):
            return
        self.remove(posix.rmdir, at)

    def remove_whiteouts(self, shipped: set[str], conffiles: dict[str, str]) -> None:
        """Remove what hides files of a package of the host, but for conffiles, which somebody has removed."""
        for path in shipped:
            found = self.status(self.place(path)) if path not in conffiles else None
            if found and overlayfs.is_whiteout(found):
                self.unlink(self.place(path))

    def remove_records(self, record: str) -> None:
        """Remove the files of a package in INFO, and what hides those of the host.

        The last one is the list, by which the next call knows that there are others, if this is killed.
        """
        for name in sorted((name for name, _ in self.entries(INFO)), key=lambda name: name.endswith(".list")):
            if name.rpartition(".")[0] == record:
                self.unlink(f"{INFO}/{name}")

    def unlink(self, path: str) -> None:
        self.remove(posix.unlink, path)

    def remove(self, remove: "Remover", path: str) -> None:
        """Call unlink(2) or rmdir(2) for a path, which may be gone, or be a directory with something in it."""
        with beneath.directory(self.fd, paths.parent(f"/{path}")[1:], beneath.REFUSED) as at:
            try:
                remove(paths.name(path), dir_fd=at)
            except FileNotFoundError:
                pass
            except OSError as error:
                if remove is not posix.rmdir or error.errno not in (ENOTEMPTY, EEXIST, EBUSY):
                    raise


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
    if files.kind_of(place) != files.REGULAR:
        return ""                       # a device does something when it is opened
    made = hashlib.md5(usedforsecurity=False)
    with files.opened(paths.of_descriptor(place)) as fd:
        while chunk := posix.read(fd, CHUNK):
            made.update(chunk)
    return made.hexdigest()
