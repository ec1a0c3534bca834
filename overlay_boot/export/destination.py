"""DEST: an OCI image layout, a directory, or in one file, an archive; written whole or not at all.

It is made in a directory beside it, .NAME.overlay-export, which is locked by who makes it, and which the next export to
the same place clears if that was killed.  A blob has its name only once its sum is known: in an archive its header is
written after it.
"""
import fcntl
import hashlib
import json
import os
import shutil

from .. import files, paths
from ..errors import Failure
from ..files import Fd, Fds
from . import headers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    Json = dict[str, Any]

ARCHIVE = ".tar"            # what the name of one ends with
VERSION = {"imageLayoutVersion": "1.0.0"}
LAYOUT, INDEX, BLOBS = "oci-layout", "index.json", "blobs/sha256"
OF_INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
LONGEST = 1 << 22           # bytes of a layout's JSON
WRITABLE = 0o022            # by others


def text_of(value: "Json") -> bytes:
    """Return JSON, the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogateescape")


def printed(value: "Json") -> bytes:
    """Return JSON for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


class Place:
    """Where a blob is being written: a descriptor, and the offset at which it begins."""

    __slots__ = ("fd", "start")

    def __init__(self, fd: Fd, start: int = 0) -> None:
        self.fd, self.start = fd, start


class Destination:
    """DEST.  The end of a with statement removes what was not delivered."""

    def __init__(self, dest: str, tag: str, time: int) -> None:
        """time is that of members of an archive, in seconds.  Raises Failure if something else is there already."""
        self.path = real_place(dest)
        self.tag = tag
        self.time = time
        self.index = index_of(self.path, tag)           # of a layout that is there
        self.workshop = f"{paths.parent(self.path).rstrip('/')}/.{paths.name(self.path)}.overlay-export"
        self.written: set[str] = set()                  # sums of blobs

    def __enter__(self) -> "Destination":
        try:
            self.lock = self.locked()
        except BlockingIOError:
            raise Failure(f"cannot write {self.path}: another overlay-export is writing it") from None
        except OSError as error:
            raise Failure(f"cannot make {self.workshop}: {error.strerror}") from None
        try:
            clear(self.lock)                            # of one that was killed
            self.index = index_of(self.path, self.tag)  # which another one may just have written
            self.begin()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.remove()

    def remove(self) -> None:
        with self.lock:
            clear(self.lock)
            os.rmdir(self.workshop)

    @property
    def inside(self) -> str:
        """The path of that directory by its descriptor: who renames it, or puts another one there, leads us nowhere."""
        return paths.of_descriptor(self.lock)

    @property
    def made(self) -> str:
        """The path of what will be DEST."""
        return f"{self.inside}/image"

    def locked(self) -> Fd:
        """Make and lock the directory, which another process may just remove; return a descriptor of it.

        Raises Failure if somebody else has made it.
        """
        while True:
            try:
                os.mkdir(self.workshop, 0o700)
            except FileExistsError:
                pass
            try:
                fd = files.opened(self.workshop, files.READ_DIRECTORY)
            except FileNotFoundError:
                continue
            with Fds([fd]) as fds:
                status = os.fstat(fd)
                if status.st_uid != os.geteuid() or status.st_mode & WRITABLE:
                    raise Failure(f"cannot write {self.path}: {self.workshop} is somebody else's")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink:
                    fds.let_go()
                    return fd

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        pass

    def new_blob(self) -> Place:
        raise NotImplementedError

    def keep_blob(self, place: Place, digest: str, size: int) -> None:
        """Give a blob that was written its name."""
        raise NotImplementedError

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the layout."""
        raise NotImplementedError

    def add(self, value: "Json") -> "Json":
        """Write a blob of JSON; return what a descriptor says of it, but for its type."""
        data = text_of(value)
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.written:
            self.written.add(digest)
            self.put(f"{BLOBS}/{digest}", data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def copy_blob(self, source: int, offset: int, size: int, digest: str) -> str:
        """Write a blob that is part of a file; return its sum.

        Raises Failure if that is not the one of a digest, which is "" if nobody knows.
        """
        place = self.new_blob()
        with place.fd:
            found, left = hashlib.sha256(), size
            while left and (part := os.pread(source, min(left, 1 << 20), offset + size - left)):
                found.update(part)
                files.write_all(place.fd, part)
                left -= len(part)
            if left or digest and digest != f"sha256:{found.hexdigest()}":
                raise Failure(f"the layer {digest} is damaged: it has another sum, or another size")
            self.keep_blob(place, found.hexdigest(), size)
        return found.hexdigest()

    def deliver(self, manifest: "Json") -> None:
        """Have DEST be, with an index that names the descriptor of a manifest."""
        manifests = [*self.index.get("manifests", ()), {**manifest, "annotations": {REF_NAME: self.tag}}]
        index = {"schemaVersion": 2, "mediaType": OF_INDEX, **self.index, "manifests": manifests}
        self.put(INDEX, text_of(index))
        self.publish()
        with files.opened(paths.parent(self.path), files.READ_DIRECTORY) as directory:
            os.fsync(directory)

    def publish(self) -> None:
        raise NotImplementedError


class Directory(Destination):
    """A layout that is a directory; a new one, or one that gets another image."""

    def begin(self) -> None:
        os.mkdir(self.made, 0o755)
        os.makedirs(f"{self.made}/{BLOBS}", 0o755)
        os.chmod(self.made, 0o755)
        self.put(LAYOUT, text_of(VERSION))

    def new_blob(self) -> Place:
        return Place(files.opened(f"{self.inside}/blob", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644))

    def keep_blob(self, place: Place, digest: str, size: int) -> None:
        self.written.add(digest)
        os.fsync(place.fd)
        os.rename(f"{self.inside}/blob", f"{self.made}/{BLOBS}/{digest}")

    def put(self, name: str, data: bytes) -> None:
        with files.opened(f"{self.made}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) as fd:
            files.write_all(fd, data)
            os.fsync(fd)

    def publish(self) -> None:
        """The index comes last: it is what names the blobs."""
        for place in (self.made, f"{self.made}/blobs", f"{self.made}/{BLOBS}"):
            sync(place)
        if not self.index:
            os.rename(self.made, self.path)
            return
        os.makedirs(f"{self.path}/{BLOBS}", 0o755, exist_ok=True)
        for name in os.listdir(f"{self.made}/{BLOBS}"):
            os.rename(f"{self.made}/{BLOBS}/{name}", f"{self.path}/{BLOBS}/{name}")
        sync(f"{self.path}/{BLOBS}")
        os.rename(f"{self.made}/{INDEX}", f"{self.path}/{INDEX}")
        sync(self.path)


class Archive(Destination):
    """A layout that is an archive of tar(5)."""

    def begin(self) -> None:
        self.fd = files.opened(self.made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        for name in ("blobs", BLOBS):
            self.write_member(headers.header(headers.DIRECTORY, f"{name}/".encode(), 0o755, (0, 0), self.nanoseconds))
        self.put(LAYOUT, text_of(VERSION))

    def end(self) -> None:
        self.fd.close()

    @property
    def nanoseconds(self) -> int:
        return self.time * headers.SECOND

    def write_member(self, data: bytes) -> None:
        files.write_all(self.fd, data)

    def new_blob(self) -> Place:
        """Return a place after one for a header.  A blob of 8 GiB or more needs an extended one, so there is room."""
        start = os.lseek(self.fd, 0, os.SEEK_END) + 3 * headers.BLOCK
        os.lseek(self.fd, start, os.SEEK_SET)
        return Place(Fd(os.dup(self.fd)), start)

    def keep_blob(self, place: Place, digest: str, size: int) -> None:
        first = place.start - 3 * headers.BLOCK
        if digest in self.written:
            os.ftruncate(self.fd, first)
        else:
            self.written.add(digest)
            name = f"{BLOBS}/{digest}".encode()
            # The record of the size is there for small ones as well: one form of header for all.
            data = headers.header(headers.REGULAR, name, 0o644, (0, 0), self.nanoseconds, size=size,
                                  records=[(b"size", b"%d" % size)] if size <= headers.LARGEST_NUMBER else [])
            os.pwrite(self.fd, data, first)
            os.ftruncate(self.fd, place.start + size + len(headers.padding(size)))
        os.lseek(self.fd, 0, os.SEEK_END)

    def put(self, name: str, data: bytes) -> None:
        self.write_member(headers.header(headers.REGULAR, name.encode(), 0o644, (0, 0), self.nanoseconds,
                                         size=len(data)) + data + headers.padding(len(data)))

    def publish(self) -> None:
        self.write_member(headers.END)
        os.fsync(self.fd)
        os.rename(self.made, self.path)


def at(dest: str, tag: str, time: int) -> Destination:
    """Return DEST, of the kind that its name tells."""
    return (Archive if dest.endswith(ARCHIVE) else Directory)(dest, tag, time)


def real_place(dest: str) -> str:
    """Return the absolute path of DEST, whose directory is there."""
    path = paths.normal(paths.absolute(dest))
    if path == "/":
        raise Failure(f"cannot write {dest}: it is the root directory")
    try:
        return paths.join(paths.real(paths.parent(path)), paths.name(path))
    except OSError as error:
        raise Failure(f"cannot write {dest}: {paths.parent(path)}: {error.strerror}") from None


def index_of(path: str, tag: str) -> "Json":
    """Return the index of the layout in a directory, {} if nothing is there.

    Raises Failure if it is none, or has an image of that tag.
    """
    if not os.path.lexists(path):
        return {}
    if path.endswith(ARCHIVE) or not os.path.isdir(path):
        raise Failure(f"cannot write {path}: it is there already")
    try:
        version, index = (json.loads(content(f"{path}/{name}")) for name in (LAYOUT, INDEX))
        is_layout = version["imageLayoutVersion"].startswith("1.") and index["schemaVersion"] == 2
        tags = [one.get("annotations", {}).get(REF_NAME) for one in index["manifests"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_layout = False
    if not is_layout:
        raise Failure(f"cannot write {path}: it is there already, and is no OCI image layout to add an image to")
    if tag in tags:
        raise Failure(f"cannot write {path}: it has an image {tag} already")
    return dict(index)


def content(path: str) -> bytes:
    with files.opened(path) as fd:
        return os.read(fd, LONGEST)


def sync(directory: str) -> None:
    with files.opened(directory, files.READ_DIRECTORY) as fd:
        os.fsync(fd)


def clear(directory: int) -> None:
    """Remove all that is in the directory of a descriptor."""
    for name in os.listdir(directory):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=directory)
