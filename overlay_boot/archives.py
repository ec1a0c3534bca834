"""What is in a layer's archive: tar(5), as tar(1) writes it in every format of its own, read strictly.

One parser, and what it says is what is written.  To have tar(1) unpack what
another parser has found harmless would leave the decision to the differences
between the two.  tarfile of the standard library takes an archive that breaks
off between two members for a whole one, skips what it does not know, reads
headers of any size, and is too slow.

Names are bytes, as they stand in the archive.  Numbers are uid and gid, never
names of users: those in a layer are not the host's.
"""
from functools import lru_cache
from zlib import adler32

from .errors import Failure

BLOCK = 512
END = bytes(BLOCK)
LONGEST_HEADER = 1 << 20            # of one that has a long name or attributes
CHUNK = 1 << 20
MOST_PIECES = 1 << 16               # of a sparse file

FILE, LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
NAMES = {CHARACTER_DEVICE: "a device", BLOCK_DEVICE: "a device", FIFO: "a FIFO"}
LONG_NAME, LONG_LINK, RECORDS, COMMON_RECORDS, OLD_SPARSE = b"L", b"K", b"x", b"g", b"S"
KINDS = {b"\0": FILE, b"7": FILE, OLD_SPARSE: FILE}     # what else is a plain file

XATTR = b"SCHILY.xattr."


class Stream:
    """An archive's bytes, decompressed: so many as are asked for, and no more in all than a limit."""

    __slots__ = ("limit", "position", "take")

    def __init__(self, file, limit):
        self.take = file.read
        self.limit = limit
        self.position = 0

    def read(self, size):
        """The next bytes.  Raises Failure if there are not so many, or they are beyond the limit."""
        self.position += size
        if self.position > self.limit:
            raise Failure(f"it has more than the {self.limit} bytes of LAYER_LIMIT")
        data = self.take(size)
        if len(data) != size:
            raise Failure("it is truncated")
        return data

    def chunks(self, size):
        """The next bytes, in pieces that memory can hold."""
        while size > 0:
            data = self.read(min(size, CHUNK))
            size -= len(data)
            yield data

    def finish(self):
        """Read what is left, which is nothing but filling.  Only then all checksums of the compression were seen."""
        while data := self.take(CHUNK):
            self.position += len(data)
            if self.position > self.limit or data.count(0) != len(data):
                raise Failure("there is something after its end")


class Member:
    """A member: its name, its type, and its attributes; its data are next in the stream.

    pieces are the (offset, size) of what a sparse file has in the stream, None for another
    file.  length is that of the file; mtime is in nanoseconds; device is (major, minor).
    """

    __slots__ = ("device", "gid", "kind", "length", "link", "mode", "mtime", "name", "pieces", "uid", "xattrs")


def members(stream):
    """Every member of the archive, in order.  Raises Failure for what is no archive, or cannot be understood.

    The caller takes a member's data from the stream, or leaves them.
    """
    common, own, name, link = {}, {}, None, None
    while (block := stream.read(BLOCK)) != END:
        kind, size = begin(block)
        if kind in (LONG_NAME, LONG_LINK, RECORDS, COMMON_RECORDS):
            data = header_data(stream, size)
            if kind == LONG_NAME:
                name = data.partition(b"\0")[0]
            elif kind == LONG_LINK:
                link = data.partition(b"\0")[0]
            elif kind == RECORDS:
                own = records(data)
            else:
                common.update(records(data))
                if sum(map(len, common.values())) > LONGEST_HEADER:
                    raise Failure("its common headers have too much in them")
            continue
        values = {**common, **own} if common else own
        rare = [key for key in values if b"." in key]       # none but a vendor's has one, pax(1)
        size = whole(values[b"size"]) if b"size" in values else size
        end = stream.position + padded(size)
        found = member(block, kind, values, name, link)
        found.xattrs = xattrs(found, rare, values) if rare else ()
        found.length, found.pieces = size, None
        if kind == OLD_SPARSE:
            extra = stream.position
            found.pieces, found.length = old_sparse(block, stream)
            end += stream.position - extra      # its further blocks are not counted
        elif rare and any(key.startswith(b"GNU.sparse.") for key in rare):
            found.pieces, found.length = sparse(values, stream)
        check_sizes(found, size)
        if found.pieces is not None:
            check_pieces(found, end - stream.position)
        yield found
        while stream.position < end:
            stream.read(min(end - stream.position, CHUNK))
        own, name, link = {}, None, None
    stream.finish()


def begin(block):
    """(type, size) of a header.  Raises Failure if it is none."""
    try:
        if number(block[148:156]) == checksum(block):
            return block[156:157], number(block[124:136])
    except ValueError:
        pass
    raise Failure("what it has for the header of a member is none: it is no tar archive, or damaged")


def checksum(block):
    """The sum of a header's bytes, those of the sum itself taken for blanks.

    A half of a block has not got enough of them for the sum in Adler's to wrap round: it is 20 times as fast as sum().
    """
    half = BLOCK // 2
    plain = block[:148] + b" " * 8 + block[156:]
    return (adler32(plain[:half], 0) & 0xffff) + (adler32(plain[half:], 0) & 0xffff)


@lru_cache(1 << 10)
def number(field):
    """A number of a header, octal, or of base 256 as GNU tar has it.  Raises ValueError."""
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


def whole(digits):
    """A whole number of an extended header, or of what a sparse file has."""
    if not digits.isdigit() or len(digits) > 18:
        raise Failure("a number in an extended header is none")
    return int(digits)


def nanoseconds(digits):
    """A time of an extended header, in seconds with any fraction."""
    seconds, _, fraction = digits.removeprefix(b"-").partition(b".")
    value = whole(seconds or b"0") * 10**9 + whole((fraction + b"0" * 9)[:9])
    return -value if digits.startswith(b"-") else value


def padded(size):
    return -(-size // BLOCK) * BLOCK


def header_data(stream, size):
    if not 0 <= size <= LONGEST_HEADER:
        raise Failure(f"an extended header in it has more than {LONGEST_HEADER} bytes")
    return stream.read(padded(size))[:size]


def records(data):
    """{key: value} of an extended header, pax(1); of those pieces of a sparse file that may occur many times, all."""
    found = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space]
        end = at + int(digits) if space > 0 and digits.isdigit() else 0
        key, equals, value = data[space + 1:end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1:end] != b"\n" or not equals:
            raise Failure("an extended header in it is malformed")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            found.setdefault(b"GNU.sparse.map", []).append(value)
        else:
            found[key] = value
        at = end
    return found


def member(block, kind, values, name, link):
    """The member that a header and the long names and records before it tell of."""
    found = Member()
    found.name = values.get(b"GNU.sparse.name") or values.get(b"path") or name or short_name(block)
    found.link = values.get(b"linkpath") or link or block[157:257].partition(b"\0")[0]
    found.kind = KINDS.get(kind, kind)
    found.device = None
    try:
        found.mode = number(block[100:108]) & 0o7777
        found.uid = whole(values[b"uid"]) if b"uid" in values else number(block[108:116])
        found.gid = whole(values[b"gid"]) if b"gid" in values else number(block[116:124])
        found.mtime = nanoseconds(values[b"mtime"]) if b"mtime" in values else number(block[136:148]) * 10**9
        if found.kind == CHARACTER_DEVICE:
            found.device = number(block[329:337]), number(block[337:345])
    except ValueError:
        raise Failure(f"{said(found.name)}: its header is damaged") from None
    return found


def xattrs(found, keys, values):
    """The extended attributes, (name, value), of a member that has such keys in its extended header."""
    if any(key.startswith(b"SCHILY.acl.") for key in keys):
        raise Failure(f"{said(found.name)}: it has an access control list as text, which cannot be restored")
    return [(key[len(XATTR):], values[key]) for key in keys if key.startswith(XATTR)]


def short_name(block):
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def said(name):
    """The name of a member, for a message."""
    return name.decode("utf-8", "surrogateescape") or "a member without a name"


def check_sizes(found, size):
    """Only a plain file has data: who skips those of another, and who does not, would see different members."""
    if size < 0 or size and found.kind != FILE:
        raise Failure(f"{said(found.name)}: its header has a size that cannot be")
    if not 0 <= found.uid < 0xffffffff or not 0 <= found.gid < 0xffffffff or abs(found.mtime) >= 1 << 63:
        raise Failure(f"{said(found.name)}: its owner or time cannot be")


# Sparse files, in the four ways of GNU tar

def old_sparse(block, stream):
    """(pieces, length) of a header of the type S, and of the blocks that follow it."""
    try:
        pieces, more, length = old_pieces(block[386:482]), block[482], number(block[483:495])
        while more:
            block = stream.read(BLOCK)
            pieces += old_pieces(block[:504])
            more = block[504]
            if len(pieces) > MOST_PIECES:
                raise ValueError
    except ValueError:
        raise Failure("a sparse file in it is malformed") from None
    return pieces, length


def old_pieces(fields):
    return [(number(fields[at:at + 12]), number(fields[at + 12:at + 24]))
            for at in range(0, len(fields), 24) if fields[at + 12] != 0]


def sparse(values, stream):
    """(pieces, length) of a file whose extended header says that it is sparse."""
    length = values.get(b"GNU.sparse.realsize") or values.get(b"GNU.sparse.size") or b""
    if values.get(b"GNU.sparse.major") == b"1":
        numbers = leading_numbers(stream)
    else:
        numbers = values.get(b"GNU.sparse.map", b"")
        numbers = list(map(whole, numbers if isinstance(numbers, list) else numbers.split(b",") if numbers else ()))
    return list(zip(numbers[::2], numbers[1::2])), whole(length)


def leading_numbers(stream):
    """The numbers that stand in front of a file's data: how many pieces, and each one's offset and size."""
    text = stream.read(BLOCK)
    count = 2 * min(whole(text.partition(b"\n")[0]), MOST_PIECES + 1) + 1
    lines = text.count(b"\n")
    blocks = [text]
    while lines < count:
        blocks.append(stream.read(BLOCK))
        lines += blocks[-1].count(b"\n")
        if len(blocks) > LONGEST_HEADER // BLOCK:
            raise Failure("a sparse file in it has too many pieces")
    return list(map(whole, b"".join(blocks).split(b"\n", count)[1:count]))


def check_pieces(found, left):
    """The pieces of a sparse file are in order, in the file, and all that is left of its data."""
    at = total = 0
    for offset, size in found.pieces:
        if offset < at or size < 0:
            total = -1
            break
        at = offset + size
        total += size
    if at > found.length or total < 0 or padded(total) != left or len(found.pieces) > MOST_PIECES:
        raise Failure(f"{said(found.name)}: as a sparse file it is malformed")
