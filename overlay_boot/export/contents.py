"""What is in a layer of overlayfs, or in several as they look together, as members of the archive of an OCI layer.

A name that is removed is .wh.NAME there, and a directory that shows nothing of those beneath has .wh..wh..opq in it.  A
directory that was renamed in its layer is written with all that it shows, and a file of which the layer has but the
attributes with its content: an OCI layer has neither.

What is written may be hostile: nothing is followed, no device and no FIFO is opened, and there are bounds.
"""
import posix
from errno import ENODATA, ENXIO, EOPNOTSUPP, EXDEV

from .. import beneath, files, namespaces, overlayfs, paths
from ..errors import Failure, complain
from ..files import Fd
from ..overlayfs import METACOPY, Entry, Tree
from . import headers
from .blob import CHUNK, Blob
from .catalogue import HardLinks, Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    Parts = list[tuple[int, Fd]]
    Records = list[tuple[bytes, bytes]]

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
EMPTY = ("/dev", "/proc", "/run", "/sys")       # what something is mounted on wherever an image runs
REAPER = namespaces.REAPER_PATH                 # which each boot makes
# Attributes that mean something to overlayfs, ours, or the policy of this host only.
NOT_WRITTEN = ("trusted.overlay.", "trusted.overlay-boot.", "user.overlay.", "security.selinux")
ANYTHING = files.READ_ANYTHING | posix.O_NOFOLLOW | posix.O_NOATIME
DEEPEST = 256               # directories in one another
MOST_PIECES = 1 << 14       # of a sparse file; what comes after them is taken for one
SHOWN = 10                  # lines about what is not in the image as it was on the disk
MODE = 0o7777
DISK_BLOCK = 512            # bytes, of st_blocks
LEFT_OUT = {files.SOCKET: "a socket", files.CHARACTER_DEVICE: "a device", files.BLOCK_DEVICE: "a device"}


class Contents:
    """What is written into a layer of the image, of a layer of the tree from a number on."""

    __slots__ = ("blob", "latest", "links", "names", "number", "seconds", "told", "tree")

    def __init__(self, blob: Blob, tree: Tree, number: int, latest: int, seconds: int) -> None:
        """No time is later than latest, in nanoseconds; seconds is when the image is made."""
        self.blob = blob
        self.tree = tree
        self.number = number
        self.latest, self.seconds = latest, seconds
        self.links = HardLinks()
        self.names = Names()
        self.told = 0

    def write_one(self, extra: "tuple[str, bytes] | None" = None) -> None:
        """Write what the one layer has; extra is the path of a program, and its text, that the image has as well."""
        with Fd(posix.dup(self.tree.roots[self.number])) as root:
            self.directory("", root, posix.fstat(root))
            if extra and not files.exists(extra[0][1:], root):
                self.program(*extra)
            self.own("", root, 0)

    def write_rest(self, extra: "tuple[str, bytes] | None" = None) -> None:
        """Write what this layer and all beneath show together."""
        with self.tree.beneath(self.number).root() as root:
            self.directory("", root.parts[0][1], root.status)
            if extra and not any(files.exists(extra[0][1:], part) for _, part in root.parts):
                self.program(*extra)
            self.merged("", root.parts, 0)

    def finish(self) -> None:
        """Write the end of the archive."""
        self.blob.write(headers.END)
        if self.told > SHOWN:
            complain(f"{self.told - SHOWN} more of these are not told")

    # One layer, with what it says of those beneath

    def own(self, place: str, directory: int, depth: int) -> None:
        """Write what is in a directory of the layer."""
        self.refuse_deeper(place, depth)
        if overlayfs.attribute(directory, overlayfs.OPAQUE) == b"y":
            self.marker(f"{place}/{OPAQUE}")
        for name in self.names.of([directory]):
            path = f"{place}/{name}"
            status = status_of(name, directory)
            if status is None or path == REAPER:
                continue
            if overlayfs.is_whiteout(status):
                self.marker(f"{place}/{WHITEOUT}{name}")
            elif self.is_to_be_written(path, name, status):
                if status.st_mode & files.KIND == files.DIRECTORY:
                    self.own_directory(path, name, directory, status, depth)
                else:
                    self.file(path, name, Entry(status, self.number, directory), [])

    def own_directory(self, path: str, name: str, above: int, status: posix.stat_result, depth: int) -> None:
        try:
            fd = beneath.opened(above, name, files.READ_DIRECTORY, beneath.REFUSED | namespaces.NO_MOUNTS)
        except OSError as error:
            if error.errno != EXDEV:            # something is mounted there, which the subhost does not see
                self.refuse_changed(path, error)
            self.directory(path, -1, status)
            return
        with fd:
            self.directory(path, fd, status)
            if path in EMPTY:
                return
            former = self.tree.former_path(fd, path)
            if not former:
                self.own(path, fd, depth + 1)
                return
            self.marker(f"{path}/{OPAQUE}")
            with self.tree.beneath(self.number + 1).find(former) as there:
                self.merged(path, [(self.number, fd), *there.parts], depth + 1)

    # Several, as they look together

    def merged(self, place: str, parts: "Parts", depth: int) -> None:
        """Write what is in a directory that has these parts."""
        self.refuse_deeper(place, depth)
        if len(parts) == 1 and parts[0][0] == len(self.tree.roots) - 1:
            self.lowest(place, parts, depth)
            return
        for name in self.names.of([directory for _, directory in parts]):
            path = f"{place}/{name}"
            with self.tree.child(parts, name, path) as entry:
                if not entry or path == REAPER or not self.is_to_be_written(path, name, entry.status):
                    continue
                if entry.kind != files.DIRECTORY:
                    self.file(path, name, entry, parts)
                elif entry.parts:
                    self.directory(path, entry.parts[0][1], entry.status)
                    if path not in EMPTY:
                        self.merged(path, entry.parts, depth + 1)
                else:
                    self.directory(path, -1, entry.status)

    def lowest(self, place: str, parts: "Parts", depth: int) -> None:
        """merged() of one directory of the lowest layer: nothing depends on what it says of those beneath."""
        number, directory = parts[0]
        for name in self.names.of([directory]):
            path = f"{place}/{name}"
            status = status_of(name, directory)
            if status is None or overlayfs.is_whiteout(status) or path == REAPER:
                continue
            if not self.is_to_be_written(path, name, status):
                continue
            if status.st_mode & files.KIND != files.DIRECTORY:
                self.file(path, name, Entry(status, number, directory), [])
                continue
            try:
                fd = self.opened_lowest(path, name, directory)
            except OSError as error:
                if error.errno != EXDEV:
                    self.refuse_changed(path, error)
                self.directory(path, -1, status)
                continue
            with fd:
                self.directory(path, fd, status)
                if path not in EMPTY:
                    self.merged(path, [(number, fd)], depth + 1)

    def opened_lowest(self, path: str, name: str, above: int) -> Fd:
        """Return a descriptor of a directory, what is mounted on it if that counts.  Raises OSError, EXDEV if not."""
        barred = 0 if path in self.tree.mounts else namespaces.NO_MOUNTS
        return beneath.opened(above, name, files.READ_DIRECTORY, beneath.REFUSED | barred)

    # Members

    def is_to_be_written(self, path: str, name: str, status: posix.stat_result) -> bool:
        """Tell whether an archive can have it; if not, the user is told."""
        what = LEFT_OUT.get(status.st_mode & files.KIND, "")
        if not what and name.startswith(WHITEOUT):
            what = "a name that stands for a removed one"
        if what and not path.startswith(tuple(f"{empty}/" for empty in EMPTY)):
            self.tell(f"{path} is left out: it is {what}")
        return not what

    def tell(self, line: str) -> None:
        self.told += 1
        if self.told <= SHOWN:
            complain(line)

    def refuse_deeper(self, place: str, depth: int) -> None:
        if depth > DEEPEST:
            raise Failure(f"{paths.printable(place)[:100]}... is in more than {DEEPEST} directories")

    def refuse_changed(self, path: str, error: OSError) -> None:
        """Return if a directory has just gone, or is another file now; raise any other error."""
        if error.errno not in files.NOWHERE:
            raise error
        self.tell(f"{path}: it was removed while it was read")

    def time(self, status: posix.stat_result) -> int:
        return min(status.st_mtime_ns, self.latest)

    def member(self, kind: bytes, path: str, status: posix.stat_result, *, size: int = 0, link: bytes = b"",
               records: "Records | None" = None) -> None:
        name = paths.encode(path[1:]) + (b"/" if kind == headers.DIRECTORY else b"")
        self.blob.write(headers.header(kind, name if path else b"./", status.st_mode & MODE,
                                       (status.st_uid, status.st_gid), self.time(status), size=size, link=link,
                                       records=records or ()))

    def marker(self, path: str) -> None:
        """Write an empty file that says something of those beneath."""
        self.blob.write(headers.header(headers.REGULAR, paths.encode(path[1:]), 0o644, (0, 0), 0))

    def program(self, path: str, text: bytes) -> None:
        """Write a program of ours."""
        time = self.seconds * headers.SECOND
        self.blob.write(headers.header(headers.REGULAR, paths.encode(path[1:]), 0o755, (0, 0), time, size=len(text)))
        self.blob.write(text + headers.padding(len(text)))

    def directory(self, path: str, fd: int, status: posix.stat_result) -> None:
        records = xattrs(paths.of_descriptor(fd)) if fd >= 0 else []
        self.member(headers.DIRECTORY, path, status, records=records)

    def file(self, path: str, name: str, entry: Entry, parts: "Parts") -> None:
        """Write what is no directory: by name in the directory of a descriptor, above.  parts are those of that."""
        status, above = entry.status, entry.above
        if status.st_nlink > 1:
            first = self.links.first(paths.encode(path[1:]), status)
            if first:
                self.member(headers.LINK, path, status, link=first)
                return
        if entry.kind == files.SYMLINK:
            place = f"{paths.of_descriptor(above)}/{name}"
            try:
                self.member(headers.SYMLINK, path, status, link=paths.encode(posix.readlink(name, dir_fd=above)),
                            records=xattrs(place, follow=False))
            except OSError as error:
                self.refuse_changed(path, error)
        elif entry.kind == files.PIPE:
            self.member(headers.FIFO, path, status, records=xattrs(f"{paths.of_descriptor(above)}/{name}",
                                                                   follow=False))
        else:
            self.regular(path, name, entry, parts)

    def regular(self, path: str, name: str, entry: Entry, parts: "Parts") -> None:
        """Write a regular file."""
        try:
            fd = opened(name, entry.above)
        except OSError as error:
            self.refuse_changed(path, error)
            return
        with fd:
            found = posix.fstat(fd)
            if found.st_mode & files.KIND != files.REGULAR:
                self.tell(f"{path}: it was replaced while it was read")
                return
            names = posix.listxattr(fd)
            records = read_xattrs(fd, names) if names else []
            if METACOPY in names:
                with self.content_of(path, name, fd, entry, parts) as content:
                    self.data(path, content, found, posix.fstat(content), records)
            else:
                self.data(path, fd, found, found, records)

    def content_of(self, path: str, name: str, fd: int, entry: Entry, parts: "Parts") -> Fd:
        """Return a descriptor of the file in a lower layer that has the content of one with attributes only."""
        former = self.tree.former_path(fd, path)
        below = self.tree.beneath(entry.layer + 1)
        while True:
            if former:
                found, parts = below.find(paths.parent(former)), []
                name = paths.name(former)
            elif not parts:
                found = below.find(paths.parent(path))
            else:
                found = Entry()
            with found:
                for number, directory in found.parts or parts:
                    if number <= entry.layer:
                        continue
                    try:
                        content = opened(name, directory)
                    except OSError:
                        continue
                    if files.kind_of(content) == files.REGULAR and METACOPY not in posix.listxattr(content):
                        return content
                    content.close()
            raise Failure(f"{path}: its content is in none of the layers")

    def data(self, path: str, fd: int, status: posix.stat_result, content: posix.stat_result,
             records: "Records") -> None:
        """Write a file with the attributes of one status, and the content of a descriptor, which has another."""
        size = content.st_size
        pieces = pieces_of(fd, size) if content.st_blocks * DISK_BLOCK < size else None
        if pieces is None:
            self.member(headers.REGULAR, path, status, size=size, records=records)
            self.bytes(path, fd, 0, size)
            stored = size
        else:
            self.blob.write(headers.sparse(paths.encode(path[1:]), status.st_mode & MODE,
                                           (status.st_uid, status.st_gid), self.time(status), size, pieces, records))
            for offset, length in pieces:
                self.bytes(path, fd, offset, length)
            stored = sum(length for _, length in pieces)
        self.blob.write(headers.padding(stored))

    def bytes(self, path: str, fd: int, offset: int, size: int) -> None:
        """Write so many bytes of a file from an offset on, zeroes for those that have gone meanwhile."""
        end = offset + size
        while offset < end:
            part = posix.pread(fd, min(CHUNK, end - offset), offset)
            if not part:
                self.tell(f"{path}: it became shorter while it was read")
                break
            self.blob.write(part)
            offset += len(part)
        while offset < end:
            part = bytes(min(CHUNK, end - offset))
            self.blob.write(part)
            offset += len(part)


def status_of(name: str, directory: int) -> posix.stat_result | None:
    try:
        return posix.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:           # it has just gone
        return None


def opened(name: str, directory: int) -> Fd:
    """Return a descriptor of a file that is regular, unless it was just replaced.  Raises OSError."""
    return files.opened(name, ANYTHING, directory=directory)


def xattrs(path: str, *, follow: bool = True) -> "Records":
    """Return records of the extended attributes of what is at a path."""
    try:
        names = posix.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno != EOPNOTSUPP:
            raise
        return []
    return read_xattrs(path, names, follow=follow) if names else []


def read_xattrs(file: "str | int", names: list[str], *, follow: bool = True) -> "Records":
    found = []
    for name in sorted(names):
        if name.startswith(NOT_WRITTEN):
            continue
        try:
            value = posix.getxattr(file, name) if follow else posix.getxattr(file, name, follow_symlinks=False)
        except OSError as error:
            if error.errno != ENODATA:  # it has just gone
                raise
            continue
        found.append(headers.xattr(paths.encode(name), value))
    return found


def pieces_of(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Return (offset, size) of what is in a file besides holes; None if there are none, or nobody can tell."""
    found = [*every_piece(fd, size)]
    if found == [(0, size)]:
        return None
    if not found or sum(found[-1]) < size:
        found.append((size, 0))         # as GNU tar has it, for a file that ends with a hole
    return found


def every_piece(fd: int, size: int) -> "Iterator[tuple[int, int]]":
    at, number = 0, 0
    while at < size:
        try:
            begin = posix.lseek(fd, at, posix.SEEK_DATA)
        except OSError as error:
            if error.errno != ENXIO:
                yield at, size - at     # its file system tells of no holes
            return
        if begin >= size:               # it has grown
            return
        number += 1
        at = size if number == MOST_PIECES else min(posix.lseek(fd, begin, posix.SEEK_HOLE), size)
        yield begin, at - begin
