"""What is on record of a subhost: the schema of its state file.

A line is a key, a blank and a value.  If a key occurs more than once, the last line counts.  A key that ends with a
colon is followed by a name, and can occur once for each name.  An empty value takes back what an earlier line noted.

overlay-boot(7), RUNNING SUBHOSTS, describes every key.
"""
from . import namespaces, paths
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Of the file as a whole.  That of 2.0.0 has no such line, the same keys, and another place: state.py.
FORMAT = "2"
LONGEST_SHOWN = 80      # characters of a line that is told of
LONGEST_NUMBER = 20     # digits, of 64 bits
PROCESSES = 1 << 22     # PID_MAX_LIMIT, proc(5)
AGES = 1e11             # seconds: more than a calendar has
UNKNOWN = "a file that is not on record"       # in place of a configuration file
GONE = 0                # in the place of PID 1's process id: the subhost is being cleared


class Damaged(Failure):
    """A line of a state file that says nothing."""

    def __init__(self, whose: str, line: str) -> None:
        super().__init__(f"the state file of {whose} is damaged: {line[:LONGEST_SHOWN]}")


class OtherVersion(Failure):
    """A state file whose keys this version does not know."""

    def __init__(self, whose: str, line: str) -> None:
        super().__init__(f"the state file of {whose} was written by another version of overlay-boot: {line}")


class Share:
    """A path of the host that is mounted in the subhost; see shares.py."""

    __slots__ = ("device", "file_system", "inode", "inside", "outside")

    def __init__(self, file_system: str, device: int, inode: int, outside: str, inside: str) -> None:
        self.file_system = file_system      # its device as mountinfo has it, MAJOR:MINOR
        self.device = device                # that of the inode, which is another one in some file systems
        self.inode = inode
        self.outside = outside
        self.inside = inside


def words(text: str) -> tuple[str, ...]:
    return tuple(paths.words(text))


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER


def number(text: str) -> int:
    """Return a number that is not negative.  Raises ValueError if it is none, as the functions below do."""
    if not is_number(text):
        raise ValueError
    return int(text)


def process(text: str) -> int:
    """Return a process id."""
    if number(text) >= PROCESSES:
        raise ValueError
    return int(text)


def seconds(text: str) -> float:
    """Return a time, or a length of it, in seconds."""
    found = float(text)
    if not 0 <= found < AGES:
        raise ValueError
    return found


def processes(text: str) -> tuple[str, ...]:
    """Return words that are PROCESS:START."""
    found = words(text)
    for word in found:
        of, _, started = word.partition(":")
        process(of), number(started)
    return found


def system_calls(text: str) -> str:
    digits = text.rstrip("=").replace("+", "0").replace("/", "0")
    if text not in ("default", "all") and not (len(text) % 4 == 0 and digits.isascii() and digits.isalnum()):
        raise ValueError
    return text


def share(text: str) -> Share:
    file_system, device, inode, both = text.split(" ", 3)
    outside, _, inside = both.partition(":")
    return Share(file_system, number(device), number(inode), outside, inside)


def share_text(one: Share) -> str:
    return f"{one.file_system} {one.device} {one.inode} {one.outside}:{one.inside}"


def ids(text: str) -> tuple[int, int]:
    first, _, count = text.partition(":")
    return number(first), number(count)


def ids_text(pair: tuple[int, int]) -> str:
    return f"{pair[0]}:{pair[1]}"


def place(text: str) -> tuple[int, int, int]:
    position, device, inode = text.split(" ")
    return number(position), number(device), number(inode)


def place_text(triple: tuple[int, int, int]) -> str:
    return " ".join(map(str, triple))


def inodes(text: str) -> tuple[int, int]:
    of_file, of_namespace = text.split(" ")
    return number(of_file), number(of_namespace)


def inodes_text(pair: tuple[int, int]) -> str:
    return f"{pair[0]} {pair[1]}"


class Field:
    """A key: the attribute of Record that it makes, how its value is read and written, and who clears what it notes."""

    __slots__ = ("attribute", "cleared_by", "empty", "is_many", "key", "read", "write")

    def __init__(self, key: str, attribute: str, read: "Callable[[str], Any]" = str,
                 write: "Callable[[Any], str]" = str, *, empty: object = None, cleared_by: str = "") -> None:
        self.key = key
        self.is_many = key.endswith(":")
        self.attribute = attribute
        self.read = read
        self.write = write
        self.empty = empty              # the attribute where nothing is on record
        self.cleared_by = cleared_by


# What has to be removed from the host comes first, in the order of its removal; clearing.py has the functions.
SCHEMA = (
    Field("shell", "shell", processes, " ".join, empty=(), cleared_by="shellversion.end"),
    Field("cgroup", "cgroup", cleared_by="cgroup.remove"),
    Field("table", "table", empty="", cleared_by="nat.remove"),
    Field("cable:", "cables", number, cleared_by="cables.remove"),
    Field("vlan:", "vlans", number, cleared_by="cables.remove"),
    Field("netns", "netns", inodes, inodes_text, cleared_by="network.remove"),
    Field("mounts", "mounts", cleared_by="hibernation.release"),
    Field("mount-point", "mount_point", cleared_by="rootfs.remove_mount_point"),
    # Facts, which go with the file.
    Field("format", "format"),
    Field("config", "config"),
    Field("follower", "follower", process),
    Field("system-calls", "system_calls", system_calls, empty=""),
    Field("start", "start", words, " ".join, empty=()),
    Field("after", "after", words, " ".join, empty=()),
    Field("timeout", "timeout", seconds, empty=0.0),
    Field("log", "log", empty=""),
    Field("limit:", "limits"),
    Field("ids", "ids", ids, ids_text),
    Field("upper", "upper", empty=""),
    Field("uses:", "uses"),
    Field("followed", "followed", empty=""),
    Field("lower:", "lower"),
    Field("lower-mount:", "lower_mounts"),
    Field("hiding", "hiding", place, place_text),
    Field("layer:", "layers"),
    Field("address", "addresses", words, " ".join, empty=()),
    Field("image", "image", empty=""),
    Field("publish", "publish", words, " ".join, empty=()),
    Field("share:", "shares", share, share_text),
    Field("old", "old", processes, " ".join, empty=()),
    Field("restart", "restart", words, " ".join, empty=()),
    Field("since", "since", seconds, empty=0.0),
    Field(namespaces.INIT, "init", process),
    Field("value:", "values", empty=""),
    Field("host-name", "host_name", empty=""),
)
BY_ATTRIBUTE = {field.attribute: field for field in SCHEMA}
SINGLE = {field.key: field for field in SCHEMA if not field.is_many}
MANY = {field.key: field for field in SCHEMA if field.is_many}


class Record:
    """What a state file says.  What is not on record is None, or empty."""

    __slots__ = tuple(BY_ATTRIBUTE)

    shell: tuple[str, ...]          # of a subhost that 1.6.4 booted: PROCESS:START of those to be ended
    cgroup: str | None              # the path of the control group; None while it hibernates
    table: str                      # the table of nftables
    cables: dict[str, int]          # {interface: index}
    vlans: dict[str, int]           # {interface: index}
    netns: tuple[int, int] | None   # the inodes of /run/netns/NAME, as a file and as a namespace
    mounts: str | None              # the directory in which the mount namespace is kept
    mount_point: str | None         # the directory on which UPPER's tmpfs is mounted
    format: str | None
    config: str | None              # the path of the configuration file; None as long as nothing was made
    follower: int | None            # the overlay-follow that it has been booted for, without its services
    system_calls: str               # "default", "all", or the filter, base64; "" with an earlier version
    start: tuple[str, ...]          # the services that have to be stopped
    after: tuple[str, ...]          # AFTER
    timeout: float                  # STOP_TIMEOUT, in seconds
    log: str                        # LOG
    limits: dict[str, str]          # {variable: value} of the limits that the configuration has
    ids: tuple[int, int] | None     # the first id of its user namespace on the host, and their number
    upper: str                      # UPPER
    uses: dict[str, str]            # {device:inode : real path} of UPPER and WORK of an overlay mount
    followed: str                   # the directory with what the host had, see followed.py; "" with an earlier version
    lower: dict[str, str]           # {number: directory} of what is beneath it, the topmost first
    lower_mounts: dict[str, str]    # {number: path} where what is mounted below LOWER is seen
    hiding: tuple[int, int, int] | None     # the number of layers above the one that hides something, its device, inode
    layers: dict[str, str]          # {digest: archive, or image}
    addresses: tuple[str, ...]      # BRIDGE=ADDRESS of what ADDRESS has given to it, as addresses.py has it
    image: str                      # the digest of the configuration of its image
    publish: tuple[str, ...]        # the words of PUBLISH
    shares: dict[str, Share]        # {id of the mount: share}
    old: tuple[str, ...]            # PROCESS:START of those that overlay-follow found to use old files
    restart: tuple[str, ...]        # the services that it has stopped, and not yet started again
    since: float                    # seconds of the epoch
    init: int | None                # the process id of PID 1, GONE while a subhost that could hibernate is cleared
    values: dict[str, str]          # {variable: value} that a subhost which hibernates was made with
    host_name: str                  # likewise

    def __init__(self, text: str = "", whose: str = "") -> None:
        """Read the text of a state file.  Raises Damaged for a line that says nothing, OtherVersion for such a file."""
        for field in SCHEMA:
            setattr(self, field.attribute, {} if field.is_many else field.empty)
        for line in lines(text):
            if not self.take(line):
                raise OtherVersion(whose, line) if is_of_other_version(line) else Damaged(whose, line)

    def take(self, line: str) -> bool:
        """Take a line; False if it is none of ours."""
        key, blank, value = line.partition(" ")
        field, name = SINGLE.get(key), ""
        if not field:
            one, colon, name = key.partition(":")
            field = MANY.get(one + colon)
        if not field or not blank or "\0" in line:
            return False
        try:
            found = field.read(value) if value else field.empty
        except ValueError:
            return False
        if field.attribute == "format" and found != FORMAT:
            return False
        if not field.is_many:
            setattr(self, field.attribute, found)
        elif found is None:
            getattr(self, field.attribute).pop(name, None)
        else:
            getattr(self, field.attribute)[name] = found
        return True


def legible(text: str) -> Record:
    """Return what a state file says by those of its lines that say something."""
    record = Record()
    for line in lines(text):
        record.take(line)
    return record


def lines(text: str) -> list[str]:
    """Return the lines of a state file, but for one that has no end: a kill or a full disk has cut it off."""
    return [line for line in text.split("\n")[:-1] if line]


def is_of_other_version(line: str) -> bool:
    """Tell whether it is the line with which another version has begun its file."""
    key, _, value = line.partition(" ")
    return key == "format" and value != FORMAT and is_number(value)


def text(record: Record) -> str:
    """Return the text of a state file that says what the record does."""
    found = []
    for field in SCHEMA:
        value = getattr(record, field.attribute)
        named = value if field.is_many else {"": value} if value != field.empty else {}
        found += [line(field.attribute, one, name) for name, one in named.items()]
    return "".join(found)


def line(attribute: str, value: "Any", name: str = "") -> str:
    """Return the line that notes an attribute of Record, or what it has of a name; the value None takes it back."""
    field = BY_ATTRIBUTE[attribute]
    text = f"{field.key}{name} {'' if value is None else field.write(value)}"
    if "\n" in text:
        raise Failure(f"no line feed can be in what is noted: {text}")
    return text + "\n"
