"""What is in a layer's archive: tar(5), in the formats that GNU tar writes, read strictly.

One parser, and what it says is what is written.  To have tar(1) unpack what another parser has found harmless would
leave the decision to the differences between the two.  tarfile of the standard library takes an archive that breaks
off between two members for a whole one, skips what it does not know, reads headers of any size, and is too slow.

Names are bytes, as they stand in the archive.  Numbers are uid and gid, never names of users: those in a layer are not
the host's.
"""
from functools import lru_cache
from zlib import adler32

from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO
    Records = dict[bytes, bytes]        # of extended headers, pax(1): {keyword: value}
    Pieces = list[tuple[int, int]]      # of a sparse file: where there is something in it, (offset, size)

BLOCK = 512
END = bytes(BLOCK)
LONGEST_HEADER = 1 << 20            # of one that has a long name or attributes
CHUNK = 1 << 20
MOST_PIECES = 1 << 16               # of a sparse file

# Types of members: tar.h(0P), and in GNU tar's tar.h those of its own.
AREGTYPE, REGTYPE, LNKTYPE, SYMTYPE, CHRTYPE, BLKTYPE = b"\0", b"0", b"1", b"2", b"3", b"4"
DIRTYPE, FIFOTYPE, CONTTYPE, XHDTYPE, XGLTYPE = b"5", b"6", b"7", b"x", b"g"
GNUTYPE_LONGNAME, GNUTYPE_LONGLINK, GNUTYPE_SPARSE = b"L", b"K", b"S"
EXTENDED = (XHDTYPE, XGLTYPE, GNUTYPE_LONGNAME, GNUTYPE_LONGLINK)      # no members: they tell more of the next one
TOGETHER = (b"x", b"L", b"K", b"LK", b"KL")     # of one member; readers differ about what others, or two of them, mean
REGULAR = (AREGTYPE, REGTYPE, CONTTYPE, GNUTYPE_SPARSE)                # all that are a plain file

XATTR = b"SCHILY.xattr."
XATTR_OF_LIBARCHIVE = b"LIBARCHIVE.xattr."
LABEL_OF_SELINUX = b"RHT.security.selinux"
ACL = b"SCHILY.acl."
SPARSE = b"GNU.sparse."
SPARSE_OF_STAR = b"SCHILY.realsize"


class Stream:
    """An archive's bytes, decompressed: so many as are asked for, and no more in all than a limit."""

    __slots__ = ("limit", "position", "take")

    def __init__(self, file: "BinaryIO", limit: int) -> None:
        self.take = file.read
        self.limit = limit
        self.position = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes.  Raises Failure if there are not so many, or they are beyond the limit."""
        self.position += size
        if self.position > self.limit:
            raise Failure(f"it has more than the {self.limit} bytes of LAYER_LIMIT")
        data = self.take(size)
        if len(data) != size:
            raise Failure("it is truncated")
        return data

    def chunks(self, size: int) -> "Iterator[bytes]":
        """Yield the next bytes, in pieces that memory can hold."""
        while size > 0:
            data = self.read(min(size, CHUNK))
            size -= len(data)
            yield data

    def skip_to(self, position: int) -> None:
        """Read what is before the position."""
        while self.position < position:
            self.read(min(position - self.position, CHUNK))

    def finish(self) -> None:
        """Read what is left, which is nothing but filling.  Only then all checksums of the compression were seen."""
        while data := self.take(CHUNK):
            self.position += len(data)
            if self.position > self.limit or data.count(0) != len(data):
                raise Failure("there is something after its end")


class Member:
    """A member.  Its data are next in the stream."""

    __slots__ = ("device", "end", "gid", "length", "link", "mode", "mtime", "name", "pieces", "type", "uid", "xattrs")

    type: bytes                             # REGTYPE for all that are a plain file
    name: bytes
    link: bytes                             # what a link leads to
    mode: int
    uid: int
    gid: int
    mtime: int                              # in nanoseconds
    device: tuple[int, int] | None          # (major, minor) of a character device
    xattrs: "Sequence[tuple[bytes, bytes]]"
    length: int                             # that of the file
    pieces: "Pieces | None"                 # what of a sparse file is in the stream; None for another file
    end: int                                # the position in the stream at which the next header is


def members(stream: Stream) -> "Iterator[Member]":
    """Yield every member of the archive, in order.  The caller takes a member's data from the stream, or leaves them.

    Raises Failure for what is no archive, or cannot be understood.
    """
    common: "Records" = {}
    while (found := next_member(stream, common)) is not None:
        yield found
        stream.skip_to(found.end)
    stream.finish()


def next_member(stream: Stream, common: "Records") -> Member | None:
    """Return the next member, None at the end.  Records for all members from here on are added to common."""
    own: "Records" = {}
    before = b""                        # the types of the headers before the member's that tell of it
    while (block := stream.read(BLOCK)) != END:
        typeflag, size = type_and_size(block)
        if typeflag not in EXTENDED:
            return read_member(stream, block, typeflag, size, {**common, **own} if common else own)
        if not 0 <= size <= LONGEST_HEADER:
            raise Failure(f"an extended header in it has more than {LONGEST_HEADER} bytes")
        data = stream.read(padded(size))[:size]
        if typeflag != XGLTYPE:
            before += typeflag
            if before not in TOGETHER:
                raise Failure("two extended headers in it are for one member")
        if typeflag == GNUTYPE_LONGNAME:
            own[b"path"] = data.partition(b"\0")[0]
        elif typeflag == GNUTYPE_LONGLINK:
            own[b"linkpath"] = data.partition(b"\0")[0]
        else:
            add_records(common if typeflag == XGLTYPE else own, data)
    if before:
        raise Failure("the last extended header in it is for no member")
    return None


def read_member(stream: Stream, block: bytes, typeflag: bytes, size: int, records: "Records") -> Member:
    """Return the member of a header, with the records of the extended headers before it.

    A record without a value stands for none, pax(1): it takes back a global one.
    """
    vendors = [key for key in records if b"." in key]       # no other keyword has a dot in it, pax(1)
    if records.get(b"size"):
        size = whole(records[b"size"])
    found = attributes(block, typeflag, records)
    found.xattrs = xattrs_in(records, vendors, found) if vendors else ()
    check_numbers(found, size)
    found.length, found.pieces = size, None
    found.end = stream.position + padded(size)
    if SPARSE_OF_STAR in records:
        raise Failure(f"{shown(found.name)}: it is a sparse file as star writes it, which a layer cannot have")
    if typeflag == GNUTYPE_SPARSE:
        start = stream.position
        found.pieces, found.length = gnu_sparse(block, stream)
        found.end += stream.position - start                # its further headers are not counted in its size
    elif vendors and any(key.startswith(SPARSE) for key in vendors):
        found.pieces, found.length = posix_sparse(found, records, stream)
    if found.pieces is not None:
        check_pieces(found, found.end - stream.position)
    return found


def attributes(block: bytes, typeflag: bytes, records: "Records") -> Member:
    """Return a member with what its header says, or its records, which know better."""
    found = Member()
    found.name = records.get(SPARSE + b"name") or records.get(b"path") or short_name(block)
    found.link = records.get(b"linkpath") or block[157:257].partition(b"\0")[0]
    found.type = REGTYPE if typeflag in REGULAR else typeflag
    found.device = None
    try:
        found.mode = number(block[100:108]) & 0o7777
        found.uid = whole(records[b"uid"]) if records.get(b"uid") else number(block[108:116])
        found.gid = whole(records[b"gid"]) if records.get(b"gid") else number(block[116:124])
        found.mtime = nanoseconds(records[b"mtime"]) if records.get(b"mtime") else number(block[136:148]) * 10**9
        if found.type == CHRTYPE:
            found.device = number(block[329:337]), number(block[337:345])
    except ValueError:
        raise Failure(f"{shown(found.name)}: its header is damaged") from None
    return found


def short_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def xattrs_in(records: "Records", vendors: list[bytes], found: Member) -> list[tuple[bytes, bytes]]:
    """Return the extended attributes, (name, value), of a member, by those of its keywords that are vendors'.

    GNU tar writes = and % of a name as %3D and %25.  libarchive writes an attribute twice, its name as in a URL.
    """
    if any(key.startswith(ACL) for key in vendors):
        raise Failure(f"{shown(found.name)}: it has an access control list as text, which cannot be restored")
    xattrs = {}
    for key in vendors:
        if key.startswith(XATTR):
            name = key[len(XATTR):]
            if XATTR_OF_LIBARCHIVE + name not in records:
                xattrs[name.replace(b"%3D", b"=").replace(b"%25", b"%")] = records[key]
        elif key.startswith(XATTR_OF_LIBARCHIVE):
            name, value = xattr_of_libarchive(key, records[key])
            xattrs[name] = value
        elif key == LABEL_OF_SELINUX:
            xattrs[b"security.selinux"] = records[key]
    return [*xattrs.items()]


def xattr_of_libarchive(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return (name, value) of an extended attribute: the name is quoted as in a URL, the value in base 64, unpadded."""
    import binascii
    from urllib.parse import unquote_to_bytes
    try:
        decoded = binascii.a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
        return unquote_to_bytes(key[len(XATTR_OF_LIBARCHIVE):]), decoded
    except binascii.Error:
        raise Failure(f"{shown(key)} in an extended header is malformed") from None


def check_numbers(found: Member, size: int) -> None:
    """Only a plain file has data: who skips those of another, and who does not, would see different members."""
    if size < 0 or size and found.type != REGTYPE:
        raise Failure(f"{shown(found.name)}: its header has an impossible size")
    if not 0 <= found.uid < 0xffffffff or not 0 <= found.gid < 0xffffffff or abs(found.mtime) >= 1 << 63:
        raise Failure(f"{shown(found.name)}: its owner or time is impossible")


def shown(name: bytes) -> str:
    """Return the name of a member, for a message."""
    return name.decode("utf-8", "surrogateescape") or "a member without a name"


# Headers

def type_and_size(block: bytes) -> tuple[bytes, int]:
    """Return the type and the size in a header.  Raises Failure if it is none."""
    try:
        if number(block[148:156]) == checksum(block):
            return block[156:157], number(block[124:136])
    except ValueError:
        pass
    raise Failure("it has no valid header where a member should begin: it is not a tar archive, or is damaged")


def checksum(block: bytes) -> int:
    """Return the sum of a header's bytes, those of the sum itself taken for blanks.

    A half of a block has not got enough of them for the sum in Adler's to wrap round: it is 20 times as fast as sum().
    """
    half = BLOCK // 2
    plain = block[:148] + b" " * 8 + block[156:]
    return (adler32(plain[:half], 0) & 0xffff) + (adler32(plain[half:], 0) & 0xffff)


@lru_cache(1 << 10)
def number(field: bytes) -> int:
    """Return a number of a header, octal, or of base 256 as GNU tar has it.  Raises ValueError if it is none."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True) if field[0] == 0xff else int.from_bytes(
            bytes([field[0] & 0x7f]) + field[1:], "big")
        if abs(value) >= 1 << 63:
            raise ValueError
        return value
    digits = field.strip(b" \0")
    if digits and not digits.isdigit():
        raise ValueError
    return int(digits or b"0", 8)


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def add_records(records: "Records", data: bytes) -> None:
    """Add to records what an extended header says, pax(1).  Raises Failure if it is malformed, or they are too long."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space]
        end = at + int(digits) if space > 0 and digits.isdigit() else 0
        key, equals, value = data[space + 1:end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1:end] != b"\n" or not equals:
            raise Failure("an extended header in it is malformed")
        records[key] = value
        at = end
    if sum(map(len, records)) + sum(map(len, records.values())) > LONGEST_HEADER:
        raise Failure("extended headers in it have too much in them")


def whole(digits: bytes) -> int:
    """Return a whole number of an extended header, or of what a sparse file has.  Raises Failure if it is none."""
    if not digits.isdigit() or len(digits) > 18:
        raise Failure("a number in an extended header is invalid")
    return int(digits)


def nanoseconds(digits: bytes) -> int:
    """Return a time of an extended header, which is in seconds with any fraction."""
    seconds, _, fraction = digits.removeprefix(b"-").partition(b".")
    value = whole(seconds) * 10**9
    if whole(fraction or b"0"):
        value += whole(fraction.ljust(9, b"0")[:9])
    return -value if digits.startswith(b"-") else value


# Sparse files, as "Storing Sparse Files" in GNU tar's manual has them: in the one way that it has for --format=gnu, its
# default, and in the one of three that it takes for --format=posix unless it is asked for an older version.

def gnu_sparse(block: bytes, stream: Stream) -> "tuple[Pieces, int]":
    """Return the pieces and the length in a header of GNUTYPE_SPARSE, and in the blocks that follow it."""
    try:
        pieces, more, length = pieces_in(block[386:482]), block[482], number(block[483:495])
        while more:
            block = stream.read(BLOCK)
            pieces += pieces_in(block[:504])
            more = block[504]
            if len(pieces) > MOST_PIECES:
                raise ValueError
    except ValueError:
        raise Failure("a sparse file in it is malformed") from None
    return pieces, length


def pieces_in(fields: bytes) -> "Pieces":
    return [(number(fields[at:at + 12]), number(fields[at + 12:at + 24]))
            for at in range(0, len(fields), 24) if fields[at + 12] != 0]


def posix_sparse(found: Member, records: "Records", stream: Stream) -> "tuple[Pieces, int]":
    """Return the pieces, which stand in front of the data, and the length of a file of --format=posix."""
    if (records.get(SPARSE + b"major"), records.get(SPARSE + b"minor")) != (b"1", b"0"):
        name = shown(found.name)
        raise Failure(f"{name}: it is a sparse file of a version other than 1.0, which a layer cannot have")
    text = stream.read(BLOCK)
    count = 2 * min(whole(text.partition(b"\n")[0]), MOST_PIECES + 1) + 1
    lines = text.count(b"\n")
    blocks = [text]
    while lines < count:
        blocks.append(stream.read(BLOCK))
        lines += blocks[-1].count(b"\n")
        if len(blocks) > LONGEST_HEADER // BLOCK:
            raise Failure("a sparse file in it has too many pieces")
    numbers = [*map(whole, b"".join(blocks).split(b"\n", count)[1:count])]
    return [*zip(numbers[::2], numbers[1::2], strict=True)], whole(records.get(SPARSE + b"realsize", b""))


def check_pieces(found: Member, left: int) -> None:
    """Raises Failure unless the pieces are in order, in the file, and all that is left of its data in the stream."""
    pieces = found.pieces or []
    ends = [0, *(offset + size for offset, size in pieces)]
    in_order = all(size >= 0 and offset >= end for (offset, size), end in zip(pieces, ends, strict=False))
    total = sum(size for _, size in pieces)
    if not in_order or ends[-1] > found.length or padded(total) != left or len(pieces) > MOST_PIECES:
        raise Failure(f"{shown(found.name)}: as a sparse file it is malformed")
