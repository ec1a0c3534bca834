"""Unpacking a layer's archive, as root, into a directory that nobody else can reach.

The archive may be hostile.  Nothing is written through a symbolic link or out of the
directory: every name is resolved below it by openat2(2) in directories that are this
archive's own, and made with O_EXCL.  What reads the compression does so as nobody.
"""
import posix
import time

from . import archives as tar
from . import files, interruption, namespaces, paths, processes
from .errors import Failure, reason

FORMATS = {b"\x1f\x8b": ["gzip", "-dcq"], b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"]}     # by their first bytes
NOBODY = (65534, 65534, ())
PIPE = 1 << 20              # bytes; a larger one means fewer changes between the two processes
LABEL = "oxide.json"
LONGEST_LABEL = 1 << 16
DEEPEST = 256               # directories in one another: to remove them takes a descriptor for each
NEW_FILE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
ACCESS = 0o777              # of a mode: to change the owner takes none of these away
PLACE = namespaces.NO_SYMLINKS
XATTRS = (b"user.", b"security.", b"system.posix_acl_", b"trusted.")
OVERLAY = b"trusted.overlay."
OPAQUE = OVERLAY + b"opaque"
# What overlayfs notes in UPPER of the place where that is; in an archive of it they mean nothing.
NOTES = {OVERLAY + note for note in (b"impure", b"nlink", b"origin", b"protattr", b"upper", b"uuid")}


def unpack(archive, target, limit, name):
    """Unpack the archive of one descriptor into the empty directory of another, both open for reading.

    limit is (bytes, members); name is what progress is told of.  Raises Failure, with the reason only.
    """
    process = Decompressor(archive)
    progress = Progress(archive, name)
    mask = posix.umask(0)               # files are made with the modes that they have in the archive
    try:
        with open(process.output, "rb", buffering=PIPE) as output, interruption.Wait():
            stream = tar.Stream(output, limit[0])
            found = tar.members(stream)
            check_label(next(found, None), stream)
            tree = Tree(target)
            for number, member in enumerate(found, 1):
                if number > limit[1]:
                    raise Failure(f"it has more than the {limit[1]} members of LAYER_LIMIT")
                tree.add(member, stream)
                progress.tell(number)
            tree.finish()
        process.ended()
    finally:
        posix.umask(mask)
        process.end()
        progress.end()


class Decompressor:
    """The process that decompresses an archive, and the pipe that it writes to."""

    def __init__(self, archive):
        words = next((words for magic, words in FORMATS.items() if posix.pread(archive, len(magic), 0) == magic), None)
        if not words:
            raise Failure("it is neither compressed by gzip nor by zstd")
        import fcntl
        posix.lseek(archive, 0, 0)
        self.output, sink = posix.pipe()
        try:
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE)
        except OSError:
            pass                # beyond what is left of the limit for all pipes: the usual size does as well
        null = posix.open("/dev/null", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            self.process, self.pidfd = namespaces.spawn(processes.candidates(words[0]), words, {},
                                                        standard=(archive, sink, null), directory="/", user=NOBODY)
        except OSError as error:
            posix.close(self.output)
            raise Failure(f"cannot execute {words[0]}: {error.strerror}") from None
        finally:
            posix.close(sink)
            posix.close(null)

    def ended(self):
        """Once all of its output was read.  Raises Failure if it has not taken the archive for a whole one."""
        status = posix.waitpid(self.process, 0)[1]
        self.process = 0
        if status:
            raise Failure("it is truncated or damaged: its compression is at fault")

    def end(self):
        if self.process:
            posix.kill(self.process, 9)
            posix.waitpid(self.process, 0)
        posix.close(self.pidfd)


class Progress:
    """How far it is, on standard error if that is a terminal."""

    def __init__(self, archive, name):
        self.archive, self.name = archive, paths.name(name)
        self.size = posix.fstat(archive).st_size
        self.next = time.monotonic() + 0.3 if posix.isatty(2) else float("inf")
        self.told = False

    def tell(self, number):
        if number & 63 or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + 0.1
        self.told = True
        # The decompressor reads from this very open file.
        part = posix.lseek(self.archive, 0, 1) * 100 // max(1, self.size)
        name = "".join(letter if letter.isprintable() else "?" for letter in self.name)
        files.write_all(2, f"\r\033[Kunpacking {name}: {part} %")

    def end(self):
        if self.told:
            files.write_all(2, "\r\033[K")


def check_label(member, stream):
    """Raises Failure unless the first member says that this is a layer."""
    if member is None or member.name.removeprefix(b"./") != LABEL.encode() or member.kind != tar.FILE:
        raise Failure(f"its first member is not {LABEL}")
    if member.pieces is not None or member.length > LONGEST_LABEL:
        raise Failure(f"{LABEL} in it is too large")
    import json
    try:
        label = json.loads(stream.read(member.length))
    except (ValueError, RecursionError):
        label = None
    if not isinstance(label, dict) or label.get("v") != "1" or label.get("t") != "layer":
        raise Failure(f'{LABEL} in it does not say {{"v":"1","t":"layer"}}')


def place(name):
    """The path below root/ of the name of a member, without slashes at its ends; b"" of root itself."""
    parts = name.removeprefix(b"./").rstrip(b"/").split(b"/")
    if name.startswith(b"/"):
        raise Failure("its name is an absolute path")
    if b".." in parts:
        raise Failure("its name has .. in it")
    if parts[0] != b"root":
        raise Failure("it is not below root/")
    if b"" in parts or b"." in parts or b"\0" in name:
        raise Failure("its name is no path")
    if len(parts) > DEEPEST:
        raise Failure(f"it is in more than {DEEPEST} directories")
    return b"/".join(parts[1:])


class Tree:
    """What is unpacked, below the directory of a descriptor."""

    def __init__(self, root):
        self.root = root
        self.at, self.directory = b"", posix.open(".", posix.O_PATH | posix.O_DIRECTORY, dir_fd=root)
        self.directories = {}           # their attributes, when nothing will be made in them any more

    def add(self, member, stream):
        """Make what the member tells of.  Raises Failure, which names it."""
        try:
            path = place(member.name)
            above, _, name = path.rpartition(b"/")
            if member.kind == tar.DIRECTORY:
                self.make_directory(path, above, name)
                self.directories[path] = member
                return
            if not name or member.name.endswith(b"/"):
                raise Failure("it has the name of a directory, and is none")
            self.enter(above)
            self.make(member, name, stream)
        except Failure as failure:
            raise Failure(f"{tar.said(member.name)}: {failure}") from None
        except FileExistsError:
            raise Failure(f"{tar.said(member.name)}: it is in it twice") from None
        except ValueError:
            raise Failure(f"{tar.said(member.name)}: it has a NUL byte where none can be") from None
        except OSError as error:
            raise Failure(f"{tar.said(member.name)}: {error.strerror}") from None

    def enter(self, path):
        """Make the directory at path the one that names are made in."""
        if path != self.at:
            found = self.opened(path, make=True)
            posix.close(self.directory)
            self.at, self.directory = path, found

    def opened(self, path, *, make=False):
        """A descriptor of the directory at path; what is missing of it is made, if it may be."""
        try:
            return namespaces.openat2(self.root, path or b".", posix.O_PATH | posix.O_DIRECTORY, PLACE)
        except FileNotFoundError:
            if not make:
                raise Failure("it is a link to what is not in it") from None
        except OSError as error:
            raise Failure(f"it is below what is no directory, or a symbolic link: {error.strerror}") from None
        at = posix.open(".", posix.O_PATH | posix.O_DIRECTORY, dir_fd=self.root)
        for part in path.split(b"/"):
            try:
                posix.mkdir(part, 0o755, dir_fd=at)
            except FileExistsError:
                pass
            below = namespaces.openat2(at, part, posix.O_PATH | posix.O_DIRECTORY, PLACE)
            posix.close(at)
            at = below
        return at

    def make_directory(self, path, above, name):
        """Make one, usually in a directory that is there, and often in the one that was the last to be entered."""
        try:
            if name:
                self.enter(above)
                posix.mkdir(name, 0o755, dir_fd=self.directory)
        except FileExistsError:
            posix.close(self.opened(path))          # it has to be a directory

    def make(self, member, name, stream):
        if member.kind == tar.FILE:
            self.make_file(member, name, stream)
        elif member.kind == tar.SYMLINK:
            posix.symlink(member.link, name, dir_fd=self.directory)
            self.mark(member, name)
        elif member.kind == tar.LINK:
            self.make_link(member, name)
        elif member.kind == tar.CHARACTER_DEVICE and member.device == (0, 0):
            # A whiteout, as overlayfs makes one in UPPER: it hides what is below.  No device can be reached by it.
            posix.mknod(name, files.CHARACTER_DEVICE | member.mode, 0, dir_fd=self.directory)
            self.mark(member, name)
        else:
            raise Failure(f"it is {tar.NAMES.get(member.kind, 'of a type that a layer cannot have')}")

    def make_file(self, member, name, stream):
        fd = posix.open(name, NEW_FILE, member.mode & ACCESS, dir_fd=self.directory)
        try:
            if member.pieces is None:
                for chunk in stream.chunks(member.length):
                    files.write_all(fd, chunk)
            else:
                for offset, size in member.pieces:
                    posix.lseek(fd, offset, 0)
                    for chunk in stream.chunks(size):
                        files.write_all(fd, chunk)
                posix.ftruncate(fd, member.length)
            attribute(fd, member, made_with=member.mode & ACCESS)
        finally:
            posix.close(fd)

    def make_link(self, member, name):
        above, _, target = place(member.link).rpartition(b"/")
        directory = self.opened(above)
        try:
            posix.link(target, name, src_dir_fd=directory, dst_dir_fd=self.directory, follow_symlinks=False)
        except (FileNotFoundError, PermissionError):
            raise Failure("it is a link to what is no file in it") from None
        finally:
            posix.close(directory)

    def mark(self, member, name):
        """Give what cannot be opened, a symbolic link or a whiteout, its attributes."""
        posix.chown(name, member.uid, member.gid, dir_fd=self.directory, follow_symlinks=False)
        for key, value in checked(member.xattrs):
            posix.setxattr(f"/proc/self/fd/{self.directory}/".encode() + name, key, value, follow_symlinks=False)
        posix.utime(name, ns=(member.mtime, member.mtime), dir_fd=self.directory, follow_symlinks=False)

    def finish(self):
        """Give the directories their attributes, which what was made in them has changed, or would have inherited."""
        posix.close(self.directory)
        for path, member in self.directories.items():
            fd = namespaces.openat2(self.root, path or b".", posix.O_RDONLY | posix.O_DIRECTORY, PLACE)
            try:
                attribute(fd, member)
            except (OSError, ValueError, Failure) as error:
                why = str(error) if isinstance(error, ValueError) else reason(error)
                raise Failure(f"{tar.said(member.name)}: {why}") from None
            finally:
                posix.close(fd)


def attribute(fd, member, made_with=None):
    """Owner, mode, extended attributes and time, in this order: to change the owner drops some of the others."""
    if member.uid or member.gid:
        posix.fchown(fd, member.uid, member.gid)
    if member.mode != made_with:
        posix.fchmod(fd, member.mode)
    for key, value in checked(member.xattrs):
        posix.setxattr(fd, key, value)
    posix.utime(fd, ns=(member.mtime, member.mtime))


def checked(xattrs):
    """The extended attributes that a layer can have; those that lead an overlay mount elsewhere, it cannot."""
    for key, value in xattrs:
        if key in NOTES:
            continue
        if not key.startswith(XATTRS) or key.startswith(OVERLAY) and key != OPAQUE:
            raise Failure(f"it has the extended attribute {tar.said(key)}, which a layer cannot have")
        yield key, value
