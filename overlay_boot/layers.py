"""Layers between LOWER and UPPER, and the cache of those that come as archives.

    /var/cache/overlay-boot/layers/DIGEST       a layer: what the archive of that SHA-256 sum has below root/
    /var/cache/overlay-boot/layers/DIGEST.part  one that is being unpacked, or whose unpacking was killed
    /var/cache/overlay-boot/archives            a line for every archive seen: what stat(2) said of it, sum, path

A layer gets its name when it is whole, and on the disk.  Who unpacks or removes one has its
directory locked, flock(2), exclusively; a boot has it locked, shared, until it is on record
in the state file.  The line of an archive spares a boot to read it: another content cannot
have the same inode and the same times.

The directory of the layers is root's alone: programs in them may have the set-user-ID bit.
"""
import fcntl
import posix
import time

from . import BASELINE_MARK, files, interruption, namespaces, paths
from .errors import Failure, doing, reason

CACHE = "/var/cache/overlay-boot"
LAYERS = f"{CACHE}/layers"
ARCHIVES = f"{CACHE}/archives"
PART = ".part"
TICK = 20_000_000           # nanoseconds: more than what a file system's clock leaps, inode(7)
CHUNK = 1 << 20

DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


def check(paths_):
    """Raises Failure if a LAYER is not there, or neither a directory nor a file."""
    for path in paths_:
        if files.kind(path) != files.DIRECTORY:
            posix.close(opened(path))


def opened(path):
    """A descriptor of an archive."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"LAYER={path}: {error.strerror}") from None
    if files.kind_of(fd) != files.REGULAR:
        posix.close(fd)
        raise Failure(f"LAYER={path} is neither a directory nor an archive")
    return fd


def provide(wanted, limit, state):
    """Put the layers in front of LOWER, archives unpacked and on record; config.layers are directories then."""
    found = [path if files.kind(path) == files.DIRECTORY else cached(path, limit, state)
             for path in wanted]
    # Beneath itself a layer has no effect, and the kernel would not have it.
    return [*dict.fromkeys(reversed(found))]


def own(layers):
    """The directories of the layers that tell of this subhost, the uppermost first: a baseline is for any."""
    return [path for path in layers if BASELINE_MARK not in posix.listxattr(path)]


@doing("use the cache of layers")
def cached(path, limit, state):
    """The directory of an archive's layer, unpacked now if it is not there yet, and on record."""
    archive = opened(path)
    cache = open_cache()
    try:
        before = posix.fstat(archive)
        digest = digest_of(archive, before, path)
        layer = locked(cache, digest)
        while layer < 0:
            unpack(cache, digest, archive, before, path, limit)
            layer = locked(cache, digest)
        state.note("layers", path, digest)
        # Now its removal is refused for what is on record.
        posix.close(layer)
    finally:
        posix.close(cache)
        posix.close(archive)
    return f"{LAYERS}/{digest}"


def open_cache():
    """A descriptor of the directory of layers, made if there is none."""
    for directory, mode in ((CACHE, 0o755), (LAYERS, 0o700)):
        try:
            posix.mkdir(directory, mode)
        except FileExistsError:
            pass
    fd = posix.open(LAYERS, DIRECTORY)
    posix.fchmod(fd, 0o700)
    return fd


# Archives, and their sums

def identity(status):
    """What of a file's stat(2) another content cannot have as well."""
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def digest_of(archive, before, path):
    """The SHA-256 sum of an archive, in hexadecimal; it is read only if it was not seen before, or was changed.

    before is what stat(2) says of it.
    """
    known = identity(before)
    for line in archives():
        if line[0] == known:
            return line[1]
    # A change within one tick of the clock would not show in the times.
    age = time.time_ns() - before.st_ctime_ns
    if 0 <= age < TICK:
        time.sleep((TICK - age) / 1e9)
    digest = sum_of(archive)
    unchanged(archive, before, path)
    if "\n" not in path:
        note(f"{identity(before)} {digest} {path}\n")
    return digest


def sum_of(archive):
    """The SHA-256 sum of the file of a descriptor, which need not be at its beginning."""
    import hashlib
    found, at = hashlib.sha256(), 0
    with interruption.Wait():
        while chunk := posix.pread(archive, CHUNK, at):
            found.update(chunk)
            at += len(chunk)
    return found.hexdigest()


def unchanged(archive, before, path):
    if identity(posix.fstat(archive)) != identity(before):
        raise Failure(f"LAYER={path}: it was changed while it was read")


def note(line):
    """Add a line to the archives.  One write(2), and so never mixed with another's."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(ARCHIVES, flags, 0o600)
    try:
        posix.write(fd, paths.encode(line))
    finally:
        posix.close(fd)


def archives():
    """(identity, digest, path) of the archives seen, the latest first; what is no whole line is none."""
    try:
        with open(ARCHIVES, "rb", buffering=0) as file:
            lines = paths.decode(file.read()).split("\n")[:-1]
    except FileNotFoundError:
        return []
    split = (line.split(" ", 6) for line in reversed(lines))
    return [(" ".join(words[:5]), words[5], words[6]) for words in split if len(words) == 7 and is_digest(words[5])]


def is_digest(name):
    return len(name) == 64 and not name.strip("0123456789abcdef")


# Layers

def is_called(cache, name, fd):
    """Whether the directory of a descriptor has that name in the cache, still."""
    try:
        found = posix.stat(name, dir_fd=cache, follow_symlinks=False)
    except FileNotFoundError:
        return False
    own = posix.fstat(fd)
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def locked(cache, name, how=fcntl.LOCK_SH):
    """A descriptor of the directory of that name, locked; -1 if there is none, or (with LOCK_NB) another has it."""
    try:
        fd = posix.open(name, DIRECTORY, dir_fd=cache)
    except FileNotFoundError:
        return -1
    try:
        with interruption.Wait():
            fcntl.flock(fd, how)
        if is_called(cache, name, fd):
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        posix.close(fd)
        raise
    posix.close(fd)
    return -1


def unpack(cache, digest, archive, before, path, limit):
    """Unpack an archive to where its layer has to be; another boot may be doing so, and is waited for."""
    sweep(cache)
    part = digest + PART
    try:
        posix.mkdir(part, 0o700, dir_fd=cache)
    except FileExistsError:
        pass
    fd = locked(cache, part, fcntl.LOCK_EX)
    if fd < 0:
        return                                      # the other boot has given it its name
    try:
        if posix.listdir(fd) or files.exists(digest, cache):
            remove(cache, part)                     # the other boot was killed; or it had done it before we came
            return
        fill(fd, archive, before, path, limit)
        posix.rename(part, digest, src_dir_fd=cache, dst_dir_fd=cache)
    except BaseException:
        remove(cache, part)
        raise
    finally:
        posix.close(fd)


def fill(fd, archive, before, path, limit):
    """Unpack an archive into a directory, and have all of it on the disk."""
    from . import unpacking
    try:
        unpacking.unpack(archive, fd, limit, path)
        unchanged(archive, before, path)
        namespaces.sync(fd)
    except (Failure, OSError) as error:
        raise Failure(f"cannot unpack LAYER={path}: {reason(error)}") from None


@doing("remove from the cache of layers")
def remove(cache, name):
    """Remove a directory from the cache, which the caller has locked."""
    import shutil
    shutil.rmtree(name, dir_fd=cache)


def sweep(cache):
    """Remove what was being unpacked, or removed, by those that were killed."""
    for name in posix.listdir(cache):
        if name.endswith(PART):
            fd = locked(cache, name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if fd >= 0:
                remove(cache, name)
                posix.close(fd)
