"""What overlay-layers does with the cache of layers: list, check, remove."""
import fcntl
import os

from . import files, paths, unpacking
from .columns import columns
from .config import read
from .errors import Failure, reason
from .layers import (
    ARCHIVES,
    LAYERS,
    PART,
    archives,
    identity,
    is_digest,
    locked,
    open_cache,
    opened,
    remove,
    sum_of,
    sweep,
)
from .state import noted
from .subhosts_conf import listed

NO_LIMIT = 1 << 62, 1 << 62
COLUMNS = ("digest", "size", "used by", "archives")
SHORT = 12              # characters of a digest, in the table


def layers():
    """Every layer of the cache, a row each: digest, size (bytes on the disk), used_by, archives (paths)."""
    users, seen = used(complete=False), archives()
    return [{"digest": digest, "size": size(f"{LAYERS}/{digest}"), "used_by": users.get(digest, []),
             "archives": sorted({path for _, found, path in seen if found == digest})} for digest in digests()]


def digests():
    try:
        return sorted(filter(is_digest, os.listdir(LAYERS)))
    except FileNotFoundError:
        return []


def size(directory):
    """What the files below a directory take on the disk, each once."""
    found = {}
    for place, directories, names in os.walk(directory):
        for name in [".", *directories, *names]:
            status = os.lstat(os.path.join(place, name))
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def used(*, complete):
    """{digest: [subhost or configuration file]} of what is running, and of /etc/subhosts.conf.

    If it has to be complete, raises Failure for a configuration whose layers cannot be known.
    """
    found = running()
    for conf in listed():
        if not files.kind(conf):
            continue
        try:
            for digest in configured(conf):
                found.setdefault(digest, []).append(conf)
        except Failure as failure:
            if complete:
                raise Failure(f"cannot tell which layers {conf} uses: {failure}") from None
    return found


def running():
    """{digest: [name]} of the layers on record for a subhost, that is booted or waits to be cleared."""
    found = {}
    for name, record in noted():
        for digest in record.layers:
            found.setdefault(digest, []).append(name)
    return found


def configured(conf):
    """The digests of the layers that a configuration file names.  No command in it is run."""
    assigned = read(conf)
    values = assigned.get("LAYER", [])
    base = assigned.get("BASE", ["."])[0]
    if any(value.startswith("!") for value in [*values, base]) and values:
        raise Failure("LAYER or BASE in it is a command")
    base = paths.join(paths.parent(paths.real(conf)), base)
    seen = archives()
    return [digest for value in values for digest in of_archive(paths.join(base, value), seen)]


def of_archive(path, seen):
    """The digest of an archive as it is; of one that is not there now, as it was."""
    try:
        known = identity(os.stat(path))
        return [digest for found, digest, _ in seen if found == known][:1]
    except OSError:
        return [digest for _, digest, archive in seen if archive == path][:1]


# Check

def check():
    """Compare every layer with its archive, unpacked anew; (digest, what is wrong or "") of each."""
    cache = open_cache()
    try:
        sweep(cache)
        for digest in digests():
            layer = locked(cache, digest)
            if layer >= 0:
                try:
                    yield digest, difference(cache, digest)
                finally:
                    os.close(layer)
    finally:
        os.close(cache)


def difference(cache, digest):
    """Where a layer is not what its archive has; "" if it is nowhere."""
    archive = archive_of(digest)
    if archive < 0:
        return "cannot be checked: its archive is gone, or was changed"
    anew = f"{digest}.check{PART}"
    try:
        os.mkdir(anew, 0o700, dir_fd=cache)
        fd = locked(cache, anew, fcntl.LOCK_EX)
        try:
            unpacking.unpack(archive, fd, NO_LIMIT, digest[:SHORT])
            found = compare(f"{LAYERS}/{digest}", f"{LAYERS}/{anew}")
        finally:
            remove(cache, anew)
            os.close(fd)
    except (Failure, OSError) as error:
        return f"cannot be checked: {reason(error)}"
    finally:
        os.close(archive)
    return f"damaged: {found}" if found else ""


def archive_of(digest):
    """A descriptor of an archive that has that sum, now; -1 if there is none."""
    for path in {path for _, found, path in archives() if found == digest}:
        try:
            fd = opened(path)
        except Failure:
            continue
        if sum_of(fd) == digest:
            return fd
        os.close(fd)
    return -1


def compare(one, other):
    """The first path, below the two directories, at which they are not alike; "" if they are."""
    for place, directories, names in os.walk(other):
        below = os.path.relpath(place, other)
        here = os.path.join(one, below)
        if not os.path.isdir(here) or sorted(os.listdir(here)) != sorted([*directories, *names]):
            return below
        for name in [".", *directories, *names]:
            if told(os.path.join(here, name)) != told(os.path.join(place, name)):
                return os.path.normpath(os.path.join(below, name))
    return ""


def told(path):
    """Everything about what is at a path that a layer has from its archive."""
    status = os.lstat(path)
    kind = status.st_mode & files.KIND
    length = 0 if kind == files.DIRECTORY else status.st_size
    links = 0 if kind == files.DIRECTORY else status.st_nlink
    attributes = {name: os.getxattr(path, name, follow_symlinks=False)
                  for name in os.listxattr(path, follow_symlinks=False)}
    if kind == files.REGULAR:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        content = sum_of(fd)
        os.close(fd)
    else:
        content = os.readlink(path) if os.path.islink(path) else ""
    return status.st_mode, status.st_uid, status.st_gid, length, links, status.st_mtime_ns, attributes, content


# Remove

def remove_unused():
    """Remove the layers that nothing uses, and what killed ones have left; the rows of those removed."""
    cache = open_cache()
    try:
        users = used(complete=True)
        gone = [row for row in layers() if row["digest"] not in users and take_away(cache, row["digest"])]
        sweep(cache)
        forget_archives()
    finally:
        os.close(cache)
    return gone


def remove_layer(beginning):
    """Remove the layer whose digest begins so, whatever configurations say.  Raises Failure if a subhost uses it."""
    found = [digest for digest in digests() if digest.startswith(beginning)]
    if len(found) != 1:
        raise Failure(f"{beginning} is {'the beginning of several layers' if found else 'no layer in the cache'}")
    cache = open_cache()
    try:
        if not take_away(cache, found[0]):
            raise Failure(f"cannot remove {beginning}: {' '.join(running().get(found[0], ['a boot']))} uses it")
        forget_archives()
    finally:
        os.close(cache)


def take_away(cache, digest):
    """Remove a layer, unless a subhost or a boot uses it; whether it was removed."""
    layer = locked(cache, digest, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if layer < 0:
        return False
    try:
        # Whoever came before us is on record; whoever comes now waits for the lock.
        if digest in running():
            return False
        part = digest + PART
        if files.exists(part, cache):
            sweep(cache)
        os.rename(digest, part, src_dir_fd=cache, dst_dir_fd=cache)     # never a half one under its name
        remove(cache, part)
    finally:
        os.close(layer)
    return True


def forget_archives():
    """Drop the archives whose layers are gone, and all but the last of what was known of a path."""
    kept = {}
    for known, digest, path in reversed(archives()):
        if os.path.isdir(f"{LAYERS}/{digest}"):
            kept[path, digest] = f"{known} {digest} {path}\n"
    anew = ARCHIVES + PART
    with open(anew, "wb") as file:
        file.write(paths.encode("".join(kept.values())))
    os.chmod(anew, 0o600)
    os.rename(anew, ARCHIVES)


def text(rows):
    """The rows as a table."""
    return columns(COLUMNS, ([row["digest"][:SHORT], f"{row['size'] / (1 << 20):.1f}M", " ".join(row["used_by"]) or "-",
                            " ".join(row["archives"]) or "-"] for row in rows))
