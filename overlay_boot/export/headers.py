"""Headers of members of an archive: tar(5), in the format of pax(1), with what GNU tar adds for sparse files.

They are made of bytes by hand, as a layer has one for each file: tarfile of the standard library takes ten times as
long.  Names are bytes, as they stand in the directory.
"""
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    Records = Sequence[tuple[bytes, bytes]]         # (keyword, value) of an extended header
    Pieces = Sequence[tuple[int, int]]              # (offset, size) of what a sparse file has

BLOCK = 512
END = bytes(2 * BLOCK)
REGULAR, LINK, SYMLINK, DIRECTORY, FIFO, EXTENDED = b"0", b"1", b"2", b"5", b"6", b"x"
FORM = Struct("100s8s8s8s12s12s8sc100s8s64s16s155s12x")
NO_SUM = b" " * 8
LONGEST_NAME = 100
LARGEST_ID, LARGEST_NUMBER = 0o7777777, 0o77777777777
SECOND = 10**9                      # nanoseconds
XATTR = b"SCHILY.xattr."


def padding(size: int) -> bytes:
    """Return what follows so many bytes up to the next block."""
    return bytes(-size % BLOCK)


def block(kind: bytes, name: bytes, mode: int, owner: tuple[int, int], size: int, seconds: int, link: bytes) -> bytes:
    """Return a header as it stands in the archive, of what fits in there."""
    uid, gid = owner
    fields = (name[:LONGEST_NAME], b"%07o" % mode, b"%07o" % (uid if uid <= LARGEST_ID else 0),
              b"%07o" % (gid if gid <= LARGEST_ID else 0), b"%011o" % (size if size <= LARGEST_NUMBER else 0),
              b"%011o" % min(max(seconds, 0), LARGEST_NUMBER))
    rest = (kind, link[:LONGEST_NAME], b"ustar\00000", b"", b"0000000\0" + b"0000000\0", b"")
    total = sum(FORM.pack(*fields, NO_SUM, *rest))
    return FORM.pack(*fields, b"%06o\0 " % total, *rest)


def header(kind: bytes, name: bytes, mode: int, owner: tuple[int, int], time: int, *, size: int = 0, link: bytes = b"",
           records: "Records" = ()) -> bytes:
    """Return the header of a member, after an extended one for what does not fit in there; time is in nanoseconds."""
    seconds, rest = divmod(time, SECOND)
    more = [*records]
    if len(name) > LONGEST_NAME:
        more.append((b"path", name))
    if len(link) > LONGEST_NAME:
        more.append((b"linkpath", link))
    if rest or not 0 <= seconds <= LARGEST_NUMBER:
        more.append((b"mtime", decimal(time)))
    if size > LARGEST_NUMBER:
        more.append((b"size", b"%d" % size))
    more += [(key, b"%d" % one) for key, one in zip((b"uid", b"gid"), owner, strict=True) if one > LARGEST_ID]
    own = block(kind, name, mode, owner, size, seconds, link)
    if not more:
        return own
    text = b"".join(record(key, value) for key, value in more)
    return block(EXTENDED, b"PaxHeader", 0o644, (0, 0), len(text), 0, b"") + text + padding(len(text)) + own


def decimal(time: int) -> bytes:
    """Return a time in seconds with their fraction."""
    text = b"%d.%09d" % divmod(abs(time), SECOND)
    return (b"-" if time < 0 else b"") + text


def record(key: bytes, value: bytes) -> bytes:
    """Return a record of an extended header, which begins with its own length."""
    length = len(key) + len(value) + 3
    digits = len(b"%d" % length)
    while len(b"%d" % (length + digits)) != digits:
        digits += 1
    return b"%d %s=%s\n" % (length + digits, key, value)


def xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return the record of an extended attribute, as GNU tar has it."""
    return XATTR + name.replace(b"%", b"%25").replace(b"=", b"%3D"), value


def sparse(name: bytes, mode: int, owner: tuple[int, int], time: int, size: int, pieces: "Pieces",
           records: "Records") -> bytes:
    """Return the header of a sparse file of a size, with the map of its pieces, version 1.0 of GNU tar's format."""
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    text = b"".join(b"%d\n" % number for number in numbers)
    text += padding(len(text))
    more = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % size), *records]
    stored = len(text) + sum(length for _, length in pieces)
    return header(REGULAR, b"GNUSparseFile.0/" + name[-64:], mode, owner, time, size=stored, records=more) + text
