"""What runs of an image: the main process of a subhost, by the configuration of the image, config.md of the image-spec.

All of it is data, for the reaper: no shell has a part in it.  Names of users and groups are the image's own.
"""
import _signal
import posix

from .. import PATH, beneath, files, namespaces, passwd, paths
from ..errors import Failure
from . import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config import Config

LONGEST_FILE = 1 << 20      # bytes that are read of passwd(5), of group(5), and of a file of --env-file
OPTIONS = ("--entrypoint", "--env", "--env-file", "--user")


class Choice:
    """What the words of INIT choose, in the place of what the image tells."""

    __slots__ = ("arguments", "entrypoint", "user", "variables")

    def __init__(self, words: list[str], base: str) -> None:
        """words are what follows the name of the hook; a path is relative to base.  Raises Failure for wrong ones."""
        self.entrypoint = self.user = ""
        self.variables: list[str] = []
        left = [*words]
        while left and left[0].startswith("-"):
            option, equals, value = left.pop(0).partition("=")
            if option == "--" and not equals:
                break
            if option not in OPTIONS:
                raise Failure(f"INIT: {option} is none of {', '.join(OPTIONS)}")
            if not equals:
                value = left.pop(0) if left else ""
            if not value:
                raise Failure(f"INIT: {option} without a value")
            self.take(option, value, base)
        self.arguments = left

    def take(self, option: str, value: str, base: str) -> None:
        if option == "--entrypoint":
            self.entrypoint = value
        elif option == "--user":
            self.user = value
        elif option == "--env":
            self.variables.append(assignment(value, "--env"))
        else:
            self.variables += variables_in(paths.join(base, value))


def assignment(text: str, where: str) -> str:
    """Return NAME=VALUE.  Raises Failure if it is none."""
    name, equals, _ = text.partition("=")
    if not name or not equals:
        raise Failure(f"INIT: {where}: {text} is not NAME=VALUE")
    return text


def variables_in(path: str) -> list[str]:
    """Return the variables in a file of --env-file: a line for each, and lines that begin with # do not count."""
    try:
        with files.opened(path) as fd:
            if files.kind_of(fd) != files.REGULAR:
                raise Failure(f"INIT: --env-file {path} is not a regular file")
            data = files.read_all(fd) if posix.fstat(fd).st_size <= LONGEST_FILE else b"\0"
    except OSError as error:
        raise Failure(f"INIT: --env-file {path}: {error.strerror}") from None
    if b"\0" in data:
        raise Failure(f"INIT: --env-file {path} is not a text file of at most {LONGEST_FILE} bytes")
    lines = (line.rstrip("\r") for line in paths.decode(data).split("\n"))
    return [assignment(line, f"--env-file {path}") for line in lines if line.strip() and not line.startswith("#")]


def described(name: str, data: bytes, root: int, chosen: Choice) -> str:
    """Return what the reaper of the subhost of a name reads of its main process, protocol.pxd.

    data has the configuration of the image, and root is a descriptor of the root directory.  Raises Failure.
    """
    wanted = layout.inner(layout.parsed(data, "the configuration of the image"), "config")
    words = command(wanted, chosen)
    user = User(chosen.user or layout.text(wanted, "User"), root)
    directory = paths.normal(layout.text(wanted, "WorkingDir") or "/")
    lines = [
        f"user {' '.join(map(str, (user.uid, user.gid, *user.groups)))}",
        f"signal {signal(layout.text(wanted, 'StopSignal') or 'SIGTERM')}",
        f"directory {escaped(directory)}",
        *(f"variable {escaped(one)}" for one in environment(wanted, chosen, name, user)),
        *(f"word {escaped(word)}" for word in words),
        "end",
    ]
    text = "\n".join(lines) + "\n"
    if len(lines) > namespaces.MOST_IN_MAIN or len(paths.encode(text)) >= namespaces.LONGEST_MAIN_TEXT:
        raise Failure("the image tells of more arguments and variables than a process can have")
    return text


def unserved(config: "Config", data: bytes) -> "Iterator[str]":
    """Yield what is to be told of the ports and the volumes that an image names, and a configuration does not."""
    wanted = layout.inner(layout.parsed(data, "the configuration of the image"), "config")
    ports, volumes = (sorted(layout.inner(wanted, key)) for key in ("ExposedPorts", "Volumes"))
    if ports and not config.publish:
        yield f"PUBLISH: the image serves {' '.join(ports)}, which no port of the host leads to"
    shared = {inside for _, inside, _ in config.share}
    left = [path for path in volumes if path not in shared]
    if left:
        yield f"SHARE: the image keeps data in {' '.join(left)}, which will be in UPPER"


def command(wanted: "dict[str, object]", chosen: Choice) -> list[str]:
    """Return what is executed, and its arguments.  Another Entrypoint has nothing to do with the Cmd of the image."""
    entrypoint = [chosen.entrypoint] if chosen.entrypoint else layout.texts(wanted, "Entrypoint")
    words = [*entrypoint, *(chosen.arguments or ([] if chosen.entrypoint else layout.texts(wanted, "Cmd")))]
    if not words or not words[0]:
        raise Failure("the image has neither Entrypoint nor Cmd: INIT must say what is to be executed")
    return words


def environment(wanted: "dict[str, object]", chosen: Choice, name: str, user: "User") -> "Iterator[str]":
    """Yield the variables: those that are chosen, of the image, and what others have besides."""
    usual = [f"PATH={PATH}", f"HOME={user.home}", f"HOSTNAME={name}", "container=overlay-boot"]
    found: dict[str, str] = {}
    for one in (*usual, *layout.texts(wanted, "Env"), *chosen.variables):
        variable, equals, value = one.partition("=")
        if variable and equals:
            found[variable] = value
    return (f"{variable}={value}" for variable, value in found.items())


def signal(text: str) -> int:
    """Return the number of a signal, SIGTERM, TERM, 15, or SIGRTMIN+3.  Raises Failure if there is none."""
    word, plus, more = text.upper().removeprefix("SIG").partition("+")
    number = int(word) if is_small(word) else getattr(_signal, f"SIG{word}", 0)
    if plus:
        number = number + int(more) if word == "RTMIN" and is_small(more) else 0
    if not isinstance(number, int) or not 0 < number < _signal.NSIG:
        raise Failure(f"the image has the StopSignal {paths.printable(text[:40])}, which is none")
    return number


def is_small(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 4


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


class User:
    """Who runs it: the numbers that USER[:GROUP] stands for in passwd(5) and group(5) of a root directory."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, text: str, root: int) -> None:
        """Raises Failure if there is no such user or group."""
        name, colon, group = text.partition(":")
        name = name or "0"
        listed = [row for row in entries(root, "etc/passwd", 7) if passwd.is_id(row[3])]
        found = next((row for row in listed if row[0] == name), None) or next(
            (row for row in listed if passwd.is_id(name) and int(row[2]) == int(name)), None)
        if found:
            self.uid, self.gid, self.home = int(found[2]), int(found[3]), found[5] or "/"
        elif passwd.is_id(name):
            self.uid, self.gid, self.home = int(name), 0, "/" if int(name) else "/root"
        else:
            raise Failure(f"the image has no user {paths.printable(name[:100])}")
        groups = [*entries(root, "etc/group", 4)]
        self.groups: list[int] = []
        if colon:
            self.gid = group_of(group, groups)
        elif found:
            self.groups = [int(row[2]) for row in groups if found[0] in row[3].split(",")]


def group_of(name: str, groups: list[list[str]]) -> int:
    row = next((row for row in groups if row[0] == name), None)
    if row:
        return int(row[2])
    if not passwd.is_id(name):
        raise Failure(f"the image has no group {paths.printable(name[:100])}")
    return int(name)


def entries(root: int, path: str, fields: int) -> "Iterator[list[str]]":
    """Yield the well-formed lines of a file of passwd(5) or group(5) below a root directory."""
    for row in passwd.rows(paths.decode(beneath.content(root, path, LONGEST_FILE, beneath.INSIDE))):
        if len(row) == fields and row[0] and passwd.is_id(row[2]) and not any("\0" in field for field in row):
            yield row
