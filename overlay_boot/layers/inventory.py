"""What overlay-layers(8) does with the cache of layers: list, check, remove."""
import os
from typing import TYPE_CHECKING, TypedDict

from .. import config, files, paths
from ..columns import columns
from ..errors import Failure, reason
from ..files import Fd, Fds
from ..subhosts_conf import listed
from . import archive, changeset, images, unpacking
from .archive import Archive, fingerprint, seen, sha256
from .cache import LAYERS, PART, Cache, booted, digests, removed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..oci import Image

NO_LIMIT = 1 << 62, 1 << 62
COLUMNS = ("digest", "size", "used by", "archives")
SHORT = 12              # characters of a digest, in the table


class Row(TypedDict):
    """A layer of the cache, as --json prints it."""

    digest: str
    size: int               # bytes on the disk
    used_by: list[str]      # names of subhosts, and configuration files
    archives: list[str]     # their paths


def rows() -> list[Row]:
    """Return a row for each layer of the cache."""
    users, known = used(complete=False), seen()
    return [{"digest": digest, "size": disk_usage(f"{LAYERS}/{digest}"), "used_by": users.get(digest, []),
             "archives": sorted({path for _, found, path in known if found == digest})} for digest in digests()]


def table(layers: list[Row]) -> str:
    """Return rows as the text of a table."""
    return columns(COLUMNS, ([row["digest"][:SHORT], f"{row['size'] / (1 << 20):.1f}M", " ".join(row["used_by"]) or "-",
                              " ".join(row["archives"]) or "-"] for row in layers))


def disk_usage(directory: str) -> int:
    """Return the bytes that the files below a directory take on the disk, each counted once."""
    found = {}
    for place, directories, names in os.walk(directory):
        for name in [".", *directories, *names]:
            status = os.lstat(os.path.join(place, name))
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


# Who uses them

def used(*, complete: bool) -> dict[str, list[str]]:
    """Return {digest: [subhost or configuration file]} of what is running, and of /etc/subhosts.conf.

    If it has to be complete, raises Failure for a configuration file whose layers cannot be known.
    """
    found = booted(complete=complete)
    for conf in listed():
        try:
            for digest in configured(conf):
                found.setdefault(digest, []).append(conf)
        except FileNotFoundError:
            continue
        except (OSError, Failure) as failure:
            if complete:
                raise Failure(f"cannot tell which layers {conf} uses: {failure}") from None
    return found


def configured(conf: str) -> list[str]:
    """Return the digests of the layers that a configuration file names.  No command in it is run.

    Raises Failure if it takes a command to know them, FileNotFoundError if there is no such file.
    """
    here = paths.parent(paths.real(conf))
    assigned = config.read(conf)
    assigned.add(config.read_site_wide())
    values = assigned.get("LAYER", [])
    if not values:
        return []
    base = assigned.get("BASE", ["."])[0]
    if any(value.startswith("!") for value in [*values, base]):
        raise Failure("LAYER or BASE in it is a command")
    try:
        base = paths.real(paths.join(here, base))
    except OSError as error:
        raise Failure(f"BASE={base} in it: {error.strerror}") from None
    known = seen()
    return [digest for value in values for digest in digests_at(config.place_of_layer(base, value), known)]


def digests_at(path: str, known: list[tuple[str, str, str]]) -> list[str]:
    """Return the digest of an archive as it is, or of one that is not there now as it was; none if it is not known.

    Those of all layers of an image, the lowest first; of one that is not there now, of all that it ever was.
    """
    if path.startswith(config.OCI):
        try:
            return images.keys(path)
        except (Failure, OSError):
            return [digest for _, digest, image in known if image == path][::-1]
    try:
        one = fingerprint(os.stat(path))
        return [digest for found, digest, _ in known if found == one][:1]
    except OSError:
        return [digest for _, digest, archived in known if archived == path][:1]


def unpacked(path: str) -> list[str]:
    """Return the directories of the cache in which an archive is, or an image, the lowest first; none if not all is.

    Raises Failure for an image that is not there now: which of the layers that it had belong together is not known.
    """
    wanted = images.keys(path) if path.startswith(config.OCI) else digests_at(path, seen())
    return [f"{LAYERS}/{digest}" for digest in wanted] if {*wanted} <= {*digests()} else []


# Check

def verify() -> "Iterator[tuple[str, str]]":
    """Compare every layer with its archive, unpacked anew.  Yield (digest, what is wrong or "") of each."""
    with Cache() as cache:
        cache.sweep()
        for digest in digests():
            layer = cache.locked(digest)
            if layer is not None:
                with layer:
                    yield digest, what_is_wrong(cache, digest)


def what_is_wrong(cache: Cache, digest: str) -> str:
    """Return where a layer is not what its archive has, or why that cannot be said; "" if it is all right."""
    image = image_of(digest)
    whole = image or archive_of(digest)
    if whole is None:
        return "cannot be checked: its archive is gone, or was changed"
    anew = f"{digest}.check"
    try:
        with whole, Fds() as below, begun(cache, anew) as directory:
            try:
                if image:
                    unpack_of_image(cache, image, digest, directory, below)
                else:
                    unpacking.unpack(whole.fd, directory, NO_LIMIT, digest[:SHORT])     # type: ignore[union-attr]
                found = first_difference(f"{LAYERS}/{digest}", f"{LAYERS}/{anew}{PART}")
            finally:
                cache.remove(anew + PART)
    except (Failure, OSError) as error:
        return f"cannot be checked: {reason(error)}"
    return f"damaged: {found}" if found else ""


def begun(cache: Cache, name: str) -> Fd:
    """Make an empty directory of that name, as Cache.begun() does.  One that another process has is waited for."""
    while (directory := cache.begun(name)) is None:
        pass
    return directory


def image_of(digest: str) -> "Image | None":
    """Return an image that has a layer of that name in the cache, now; None if there is none."""
    for path in {path for _, found, path in seen() if found == digest and path.startswith(config.OCI)}:
        try:
            found = images.opened(path)
        except Failure:
            continue
        if digest in [layer.key for layer in found.layers]:
            return found
        found.layout.close()
    return None


def unpack_of_image(cache: Cache, image: "Image", digest: str, directory: int, below: Fds) -> None:
    """Unpack the layer of an image over those of the cache that are below it, which are kept in below."""
    for layer in image.layers:
        if layer.key == digest:
            changeset.unpack(layer, directory, below[::-1], NO_LIMIT, digest[:SHORT])
            return
        found = cache.locked(layer.key)
        if found is None:
            raise Failure("a layer of the image that is below it is not in the cache")
        below.append(found)


def archive_of(digest: str) -> Archive | None:
    """Return an archive that has that sum, now; None if there is none."""
    for path in {path for _, found, path in seen() if found == digest and not path.startswith(config.OCI)}:
        try:
            found = Archive(path)
        except Failure:
            continue
        if sha256(found.fd) == digest:
            return found
        os.close(found.fd)
    return None


def first_difference(one: str, other: str) -> str:
    """Return the first path, below the two directories, at which they are not alike; "" if they are."""
    for place, directories, names in os.walk(other):
        below = os.path.relpath(place, other)
        here = os.path.join(one, below)
        if not os.path.isdir(here) or sorted(os.listdir(here)) != sorted([*directories, *names]):
            return below
        for name in [".", *directories, *names]:
            if described(os.path.join(here, name)) != described(os.path.join(place, name)):
                return os.path.normpath(os.path.join(below, name))
    return ""


def described(path: str) -> tuple[object, ...]:
    """Return everything about what is at a path that a layer has from its archive, but the times of directories."""
    status = os.lstat(path)
    kind = status.st_mode & files.KIND
    # A directory that no member tells of has the time when it was made.
    of_content = () if kind == files.DIRECTORY else (status.st_size, status.st_nlink, status.st_mtime_ns)
    xattrs = {name: os.getxattr(path, name, follow_symlinks=False)
              for name in os.listxattr(path, follow_symlinks=False)}
    content = ""
    if kind == files.REGULAR:
        with files.opened(path, os.O_RDONLY | os.O_NOFOLLOW) as fd:
            content = sha256(fd)
    elif kind == files.SYMLINK:
        content = os.readlink(path)
    return status.st_mode, status.st_uid, status.st_gid, of_content, xattrs, content


# Remove

def remove_unused() -> list[Row]:
    """Remove the layers that nothing uses, and what killed processes have left.  Return the rows of those removed.

    Raises Failure, with nothing removed, if it cannot be told what uses them.
    """
    with Cache() as cache:
        users = used(complete=True)
        gone = [row for row in rows() if row["digest"] not in users and removed(cache, row["digest"])]
        cache.sweep()
        archive.forget_all_but(digests())
        images.forget_configs()
    return gone


def remove(beginning: str) -> None:
    """Remove the layer whose digest begins like this, whatever configurations say.

    Raises Failure if it is none, or many, or a subhost or a boot uses it.
    """
    found = [digest for digest in digests() if digest.startswith(beginning)]
    if len(found) != 1:
        raise Failure(f"{beginning} is {'the beginning of several layers' if found else 'no layer in the cache'}")
    with Cache() as cache:
        if not removed(cache, found[0]):
            raise Failure(f"cannot remove {beginning}: {' '.join(booted().get(found[0], ['a boot']))} uses it")
        archive.forget_all_but(digests())
