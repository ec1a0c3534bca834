"""An image as files: the layout of OCI's image-spec, and what docker-save(1) writes; their types, and JSON in them.

    oci-layout              {"imageLayoutVersion": "1.0.0"}
    index.json              which images there are
    blobs/ALGORITHM/HEX     manifests, configurations and layers, by their digests

    manifest.json           of docker-save(1), which had nothing else before version 25

Both are a directory, or a tar archive of one, which is read where it is.  Whatever is in them may be hostile.
"""
import posix

from .. import beneath, files, interruption, paths, tar
from ..errors import Failure
from ..files import Fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI, DOCKER = "application/vnd.oci.", "application/vnd.docker."
INDEX = f"{OCI}image.index.v1+json"
MANIFEST = f"{OCI}image.manifest.v1+json"
CONFIG = f"{OCI}image.config.v1+json"
LAYER_TAR = f"{OCI}image.layer.v1.tar"
INDEXES = (INDEX, f"{DOCKER}distribution.manifest.list.v2+json")
MANIFESTS = (MANIFEST, f"{DOCKER}distribution.manifest.v2+json")
CONFIGS = (CONFIG, f"{DOCKER}container.image.v1+json")
# How they are compressed is told by their first bytes: not everybody gets it right here.
LAYERS = tuple(f"{kind}{compression}" for kind in (
    LAYER_TAR, f"{OCI}image.layer.nondistributable.v1.tar", f"{DOCKER}image.rootfs.diff.tar",
    f"{DOCKER}image.rootfs.foreign.diff.tar") for compression in ("", "+gzip", "+zstd", ".gzip", ".zstd"))
REF_NAME = "org.opencontainers.image.ref.name"
OF_CONTAINERD = "io.containerd.image.name"
TYPE_FILE, INDEX_FILE, DOCKER_FILE = "oci-layout", "index.json", "manifest.json"
VERSION = "1."              # what its version, imageLayoutVersion, begins with

LENGTHS = {"sha256": 64, "sha512": 128}         # of the digests in hexadecimal
LONGEST_JSON = 4 << 20      # bytes: registries take no manifest that is longer
MOST_MEMBERS = 10000        # of an archive
CHUNK = 1 << 20


class Blob:
    """A part of a file that is open: all of it, or a member of an archive."""

    __slots__ = ("fd", "name", "offset", "size")

    def __init__(self, fd: int, offset: int, size: int, name: str) -> None:
        self.fd, self.offset, self.size, self.name = fd, offset, size, name

    def check(self, digest: str) -> None:
        """Raises Failure unless it has that digest."""
        import hashlib
        algorithm, wanted = split(digest)
        found, at = hashlib.new(algorithm), 0
        with interruption.Wait():
            while at < self.size:
                chunk = posix.pread(self.fd, min(CHUNK, self.size - at), self.offset + at)
                if not chunk:
                    raise Failure(f"{self.name} is truncated")
                found.update(chunk)
                at += len(chunk)
        if found.hexdigest() != wanted:
            raise Failure(f"{self.name} is damaged: its digest is another one")

    def content(self) -> bytes:
        """Return all of it.  Raises Failure if that is too much for JSON."""
        if self.size > LONGEST_JSON:
            raise Failure(f"{self.name} is longer than {LONGEST_JSON} bytes")
        data = b""
        while len(data) < self.size:
            more = posix.pread(self.fd, self.size - len(data), self.offset + len(data))
            if not more:
                raise Failure(f"{self.name} is truncated")
            data += more
        return data

    def stamp(self) -> tuple[int, int, int]:
        """Return what changes with the file."""
        status = posix.fstat(self.fd)
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Layout:
    """The files of an image, or of many.  The end of a with statement closes them."""

    __slots__ = ("fd", "fds", "members")

    def __init__(self, path: str) -> None:
        """Raises Failure, with the reason only, if it cannot be read."""
        self.fds = Fds()
        self.members: dict[str, tuple[int, int] | str] | None = None
        try:
            self.fd = self.fds.keep(files.opened(path))
        except OSError as error:
            raise Failure(str(error.strerror)) from None
        try:
            kind = files.kind_of(self.fd)
            if kind == files.REGULAR:
                self.members = members(self.fd)
            elif kind != files.DIRECTORY:
                raise Failure("it is neither a directory nor an archive")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Layout":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self.fds:
            pass

    def find(self, name: str) -> Blob | None:
        """Return a file in it, None if there is none of that name.  Raises Failure if it is of another kind."""
        if self.members is None:
            return self.find_file(name)
        place = self.members.get(name)
        if isinstance(place, str):              # older ones of docker-save(1) have a layer once, and links to it
            place = self.members.get(place)
        if place is None:
            return None
        if isinstance(place, str):
            raise Failure(f"{name} in it is a symbolic link to another one")
        return Blob(self.fd, *place, name)

    def find_file(self, name: str) -> Blob | None:
        try:
            with beneath.opened(self.fd, name, posix.O_PATH, beneath.REFUSED) as found:
                if files.kind_of(found) != files.REGULAR:
                    raise Failure(f"{name} in it is not a regular file")
                fd = self.fds.keep(files.opened(paths.of_descriptor(found)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{name} in it: {error.strerror}") from None
        return Blob(fd, 0, posix.fstat(fd).st_size, name)

    def file(self, name: str) -> Blob:
        """Return find().  Raises Failure if there is none."""
        found = self.find(name)
        if found is None:
            raise Failure(f"it has no {paths.printable(name)}")
        return found

    def blob(self, descriptor: "Any") -> Blob:
        """Return the blob of a descriptor of JSON, of the size that this tells.  Its digest is not checked."""
        digest, size = digest_in(descriptor), whole(descriptor, "size")
        found = self.file("blobs/" + digest.replace(":", "/"))
        if found.size != size:
            raise Failure(f"{found.name} has {found.size} bytes, and should have {size}")
        return found

    def json(self, descriptor: "Any") -> tuple[bytes, dict[str, "Any"]]:
        """Return the bytes, and what they say, of the blob of a descriptor, whose digest is right."""
        found = self.blob(descriptor)
        data = found.content()
        check(data, digest_in(descriptor), found.name)
        return data, parsed(data, found.name)

    def is_oci(self) -> bool:
        """Tell whether it has what an image layout has.  Raises Failure if it is of a version that is not known."""
        said = self.find(TYPE_FILE)
        if said is None:
            return False
        version = text(parsed(said.content(), TYPE_FILE), "imageLayoutVersion")
        if not version.startswith(VERSION):
            raise Failure(f"{TYPE_FILE} in it says version {paths.printable(version)}, which is not known")
        return True


def members(fd: int) -> dict[str, tuple[int, int] | str]:
    """Return where files are in the tar archive of a descriptor, (offset, size), or what a symbolic link leads to."""
    found: dict[str, tuple[int, int] | str] = {}
    try:
        with open(posix.dup(fd), "rb") as file:
            stream = Seekable(file, posix.fstat(fd).st_size)
            for member in tar.members(stream):
                name = "/".join(part for part in paths.decode(member.name).split("/") if part not in ("", "."))
                if member.type == tar.REGTYPE and member.pieces is None:
                    found[name] = stream.position, member.length
                elif member.type == tar.SYMTYPE:
                    found[name] = paths.normal(f"/{paths.parent(name)}/{paths.decode(member.link)}").lstrip("/")
                if len(found) > MOST_MEMBERS:
                    raise Failure(f"it has more than {MOST_MEMBERS} members")
    except Failure as failure:
        raise Failure(f"it is neither a directory nor an archive of one, as tar writes it uncompressed: {failure}"
                      ) from None
    return found


class Seekable(tar.Stream):
    """An archive in a file, of which what is between two headers need not be read."""

    __slots__ = ("file",)

    def __init__(self, file: "Any", size: int) -> None:
        super().__init__(file, size)
        self.file = file

    def skip_to(self, position: int) -> None:
        """As Stream has it.  Raises Failure if the archive ends before."""
        if position > self.limit:
            raise Failure("it is truncated")
        self.position = position
        self.file.seek(position)


# Digests

def split(digest: str) -> tuple[str, str]:
    """Return (algorithm, hexadecimal) of a digest.  Raises Failure if it is none, or of an algorithm not known."""
    algorithm, _, value = digest.partition(":")
    if len(value) != LENGTHS.get(algorithm) or value.strip("0123456789abcdef"):
        raise Failure(f"{paths.printable(digest[:100]) or 'an empty one'} in it is no digest of SHA-256 or SHA-512")
    return algorithm, value


def check(data: bytes, digest: str, name: str) -> None:
    """Raises Failure unless bytes have that digest."""
    import hashlib
    algorithm, wanted = split(digest)
    if hashlib.new(algorithm, data).hexdigest() != wanted:
        raise Failure(f"{name} is damaged: its digest is another one")


def digest_in(descriptor: "Any") -> str:
    """Return the digest of a descriptor.  Raises Failure if it has none."""
    digest = text(descriptor, "digest")
    split(digest)
    return digest


# JSON

def parsed(data: bytes, name: str) -> dict[str, "Any"]:
    """Return the object that JSON has.  Raises Failure if it has another thing, or is none."""
    found = loaded(data, name)
    if not isinstance(found, dict):
        raise Failure(f"{name} is not a JSON object")
    return found


def loaded(data: bytes, name: str) -> "Any":
    import json
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Failure(f"{name} is not JSON") from None


def text(of: "Any", key: str) -> str:
    """Return a string in an object, "" if it has none.  Raises Failure for what is another thing."""
    found = of.get(key) if isinstance(of, dict) else []
    if found is None:
        return ""
    if not is_text(found):
        raise Failure(f"{key} in it is not a string")
    return str(found)


def is_text(found: object) -> bool:
    """Tell whether it is a string that a path or an argument can be: JSON can have a NUL, and halves of characters."""
    return isinstance(found, str) and "\0" not in found and not any("\ud800" <= letter <= "\udfff" for letter in found)


def whole(of: "Any", key: str) -> int:
    """Return a number in an object.  Raises Failure if it has none."""
    found = of.get(key) if isinstance(of, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 63:
        raise Failure(f"{key} in it is not a number")
    return found


def many(of: "Any", key: str) -> "list[Any]":
    """Return an array in an object, empty if it has none.  Raises Failure for what is another thing."""
    found = of.get(key) if isinstance(of, dict) else None
    if found is None:
        return []
    if not isinstance(found, list):
        raise Failure(f"{key} in it is not an array")
    return found


def texts(of: "Any", key: str) -> list[str]:
    """Return an array of strings in an object."""
    found = many(of, key)
    if not all(map(is_text, found)):
        raise Failure(f"{key} in it is not an array of strings")
    return found


def inner(of: "Any", key: str) -> "dict[str, Any]":
    """Return an object in an object, empty if it has none."""
    found = of.get(key) if isinstance(of, dict) else None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Failure(f"{key} in it is not an object")
    return found
