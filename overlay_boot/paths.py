"""The few things of os and os.path that this program needs.

To import os takes 0.85 ms, a fifth of the interpreter's own start.  The system
calls in it come from posix, which is built in.
"""
import posix
import sys

ENCODING = sys.getfilesystemencoding()
FILE_TYPE, REGULAR, DIRECTORY = 0o170000, 0o100000, 0o040000        # inode(7)
CHARACTER_DEVICE, BLOCK_DEVICE, PIPE, SOCKET = 0o020000, 0o060000, 0o010000, 0o140000


def encode(text):
    """The bytes that text was decoded from, whatever they are."""
    return text.encode(ENCODING, "surrogateescape")


def decode(data):
    return data.decode(ENCODING, "surrogateescape")


def environment():
    """The environment of this process."""
    return {decode(name): decode(value) for name, value in posix.environ.items()}


def variable(name):
    """The value of an environment variable; None if it is not set, or empty."""
    return decode(posix.environ.get(encode(name), b"")) or None


def join(directory, path):
    return path if path.startswith("/") else f"{directory.rstrip('/')}/{path}"


def normal(path):
    """The absolute path without empty components, `.` and `..`, whatever symbolic links there are."""
    kept = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


def name(path):
    """The last component."""
    return path.rpartition("/")[2]


def parent(path):
    """All but the last component."""
    return path.rpartition("/")[0] or "/"


def real(path):
    """The path without symbolic links, as the kernel has it, of something that exists."""
    fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    try:
        return posix.readlink(f"/proc/self/fd/{fd}")
    finally:
        posix.close(fd)


def unescaped(path):
    """A path of mountinfo, proc(5)."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def kind(path):
    """The file type bits of what path leads to, inode(7); 0 if it leads nowhere."""
    try:
        return posix.stat(path).st_mode & FILE_TYPE
    except (OSError, ValueError):
        return 0


def exists(name, directory):
    """Whether there is anything of the name, a link that leads nowhere too, in the directory of a descriptor."""
    try:
        posix.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def kind_of(fd):
    return posix.fstat(fd).st_mode & FILE_TYPE
