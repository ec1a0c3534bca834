"""The configuration file: overlay-boot.conf(5)."""
import posix

from . import files, namespaces, paths
from .errors import Failure, complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

MOST_MEMBERS = "1000000"
DEFAULTS: dict[str, str | None] = {
    "NAME": None,
    "BASE": ".",
    "IMAGE": "",
    "LIVE": "live",
    "UPPER": "root",
    "WORK": "work",
    "LOWER": "/",
    "CABLES": "",
    "START": "networking ssh",
    "PREMOUNT": "overlay-premount",
    "POSTMOUNT": "overlay-postmount",
    "INIT": "overlay-init",
    "LOG": None,
    "RAM_SIZE": "50M",
    "LAYER_LIMIT": f"10G {MOST_MEMBERS}",
    "STOP_TIMEOUT": "10",
}
REPEATABLE = ("SHARE", "LAYER")
IN_IMAGE = {"UPPER": "mnt/root", "WORK": "mnt/work"}            # the defaults where there is an IMAGE
WARNERS = ("overlay-boot", "overlay-check")                     # the commands that warn of suspect lines
HANDED_DOWN = "OVERLAY_BOOT_VALUES"     # in a hook's environment: the boot has resolved them

LOGS = "/var/log/overlay-boot"
TMPFS = "tmpfs:"                        # what an UPPER that is made anew begins with

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

BYTE_ORDER_MARK = b"\xef\xbb\xbf"      # as UTF-8 has it

LONGEST_LINE = 1 << 16
LONGEST_FILE = 1 << 22
LONGEST_NAME = 12
LONGEST_VARIABLE = 20           # of what is taken for a misspelt one


def read(path: str, *, warn: bool = False) -> dict[str, list[str]]:
    """Return the assignments of a configuration file: {variable: [value, ...]}.

    Raises Failure for what is no configuration file, in the user's words.  With warn, complains of suspect lines.
    """
    try:
        with files.opened(path) as fd:
            if files.kind_of(fd) not in (files.REGULAR, files.DIRECTORY):
                raise Failure(f"{path} is not a regular file")
            data = posix.read(fd, min(posix.fstat(fd).st_size, LONGEST_FILE) + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            paths.absolute(path)        # which may be what cannot be found
        raise Failure(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LONGEST_FILE:
        raise Failure(f"{path} is longer than {LONGEST_FILE} bytes: not a configuration file")
    if b"\0" in data:
        raise Failure(f"{path} is not a text file")
    return parse(data, path, complain if warn else lambda _: None)


def parse(data: bytes, path: str, warn: "Callable[[str], None]" = complain) -> dict[str, list[str]]:
    """Return the assignments in the bytes of a configuration file, and warn of suspect lines.

    Messages name it as path.
    """
    found: dict[str, list[str]] = {}
    lines: dict[str, int] = {}          # where a variable is assigned
    if data.startswith(BYTE_ORDER_MARK):
        warn(f"{path}: the byte order mark at its beginning is ignored")
        data = data.removeprefix(BYTE_ORDER_MARK)
    for number, line in enumerate(data.split(b"\n"), 1):
        if len(line) > LONGEST_LINE:
            raise Failure(f"{path}: line {number} is longer than {LONGEST_LINE} bytes")
        if line.endswith(b"\r"):
            raise Failure(f"{path}: line {number} ends with CR LF, as on Windows, not with LF")
        left, equals, value = line.partition(b"=")
        name = paths.decode(left)
        if paths.decode(left.rstrip()) in REPEATABLE:
            name = paths.decode(left.rstrip())
        if not equals or name not in DEFAULTS and name not in REPEATABLE:
            meant = suspect(name, assigns=bool(equals))
            if meant:
                what = name[:LONGEST_VARIABLE].strip() + paths.decode(equals)
                warn(f"{path}: line {number} is ignored: {what} is not known (did you mean {meant}=?)")
            continue
        value = value.strip()
        if not value:
            continue
        if b" #" in value or b"\t#" in value:
            warn(f"{path}: line {number}: no comment can follow a value: # is part of it")
        if name in found and name not in REPEATABLE:
            warn(f"{path}: line {number} is ignored: {name} is assigned in line {lines[name]}")
        lines.setdefault(name, number)
        found.setdefault(name, []).append(paths.decode(value))
    return found


def suspect(text: str, *, assigns: bool) -> str:
    """Return the variable that a line seems to mean, of what is before its = if it assigns something; "" if none."""
    name, colon, _ = text.partition(":")
    *before, word = name.upper().split() or [""]
    if not assigns and not colon or before not in ([], ["EXPORT"], ["SET"]):
        return ""
    if not word.isidentifier() or len(word) > LONGEST_VARIABLE:
        return ""
    import difflib
    return next(iter(difflib.get_close_matches(word, [*DEFAULTS, *REPEATABLE], 1, 0.75)), "")


class Config:
    """A subhost's configuration: every variable with its effective value, as the file says.

    NAME is there from the start; resolve_log() and then resolve() find the others.
    Paths are absolute.
    """

    __slots__ = ("action", "assigned", "base", "cables", "defaults", "handed", "image", "init", "layer_limit", "layers",
                 "live", "log", "lower", "name", "path", "postmount", "premount", "ram_size", "reaper", "share",
                 "start", "stop_timeout", "tmpfs", "upper", "work")

    action: str                         # the command at work, for ACTION
    assigned: dict[str, list[str]]      # what the file has
    defaults: dict[str, str | None]
    handed: dict[str, str]              # values that are not to be found again
    path: str
    name: str
    reaper: str                         # REAPER of the environment
    base: str
    image: tuple[str, str] | None       # the file, and the partition or ""
    live: str
    upper: str                          # as it stands there where tmpfs is set
    work: str
    tmpfs: str                          # the size of an UPPER that does not persist, else ""
    lower: list[str]                    # the topmost first
    layers: list[str]                   # as in the file, the lowest first; handed down, the topmost first
    layer_limit: tuple[int, int]        # bytes, members
    cables: list[str]                   # the words
    start: list[str]
    premount: list[str]                 # the words of a command line, as those of the next two
    postmount: list[str]
    init: list[str]
    log: str
    ram_size: str
    stop_timeout: str                   # seconds
    share: list[tuple[str, str]]        # (path on the host, path in the subhost)

    def __init__(self, path: str, action: str, handed: dict[str, str] | None = None) -> None:
        """Read the file.  Raises Failure if it is no configuration file, or has a NAME that cannot be one."""
        self.action = action
        self.handed = handed or {}
        self.assigned = read(path, warn=action in WARNERS and not handed)
        self.defaults = DEFAULTS
        self.path = paths.real(path)
        self.name = self.value("NAME", ".") or paths.name(path).removesuffix(".conf")
        check_name(self.name)
        if "\n" in self.path:
            raise Failure(f"{path}: the path of a configuration file cannot contain a line feed")

    def resolve_log(self) -> None:
        """Find LOG, whose command runs where the caller is, as NAME's does."""
        self.log = self.value("LOG", ".") or f"{LOGS}/{self.name}.log"

    def resolve(self, cgroup: int = -1, handed: dict[str, str] | None = None) -> None:
        """Find all the others.  Commands run in BASE, in the control group of the descriptor cgroup.

        handed has values that are not to be found again.  Raises Failure, which
        names the variable.
        """
        from . import environment
        self.reaper = environment.variable("REAPER") or namespaces.REAPER_PATH
        self.handed = handed or self.handed
        here = paths.parent(self.path)
        base = paths.join(here, self.value("BASE", here, cgroup))
        if files.kind(base) != files.DIRECTORY:
            raise Failure(f"BASE={base} is not a directory")
        self.base = paths.real(base)

        def value(variable: str) -> str:
            return self.value(variable, self.base, cgroup)

        self.image = image_of(value("IMAGE"), self.base)
        if self.image:
            self.defaults = {**DEFAULTS, **IN_IMAGE}
        self.resolve_root(value)
        self.layers = self.layers_of(cgroup)
        self.layer_limit = checked_limit(value("LAYER_LIMIT"))
        self.cables = paths.words(value("CABLES"))
        self.start = services(value("START"))
        self.premount, self.postmount = paths.words(value("PREMOUNT")), paths.words(value("POSTMOUNT"))
        self.init = paths.words(value("INIT"))
        self.ram_size = checked_ram_size(value("RAM_SIZE"))
        self.stop_timeout = checked_seconds(value("STOP_TIMEOUT"))
        self.log = self.place(self.log)
        self.share = [share_of(text, self.base) for text in self.assigned.get("SHARE", ())]

    def resolve_root(self, value: "Callable[[str], str]") -> None:
        """Find the variables of the root file system."""
        self.live, self.upper, self.work = self.place(value("LIVE")), value("UPPER"), self.place(value("WORK"))
        self.tmpfs = ""
        if self.upper.startswith(TMPFS):
            self.tmpfs = checked_tmpfs(self.upper.removeprefix(TMPFS))
            self.refuse_work()
            self.work = self.upper
        else:
            self.upper = self.place(self.upper)
        lower = value("LOWER")
        is_one = files.kind(self.place(lower)) == files.DIRECTORY
        self.lower = [self.place(path) for path in ([lower] if is_one else lower.split(":"))]

    def layers_of(self, cgroup: int) -> list[str]:
        if "LAYER" in self.handed:
            return [*filter(None, self.handed["LAYER"].split(":"))]
        return [self.place(self.effective("LAYER", text, self.base, cgroup)) for text in self.assigned.get("LAYER", ())]

    def place(self, path: str) -> str:
        """Return a path that may be relative to BASE."""
        return paths.join(self.base, path)

    def left_to_shell(self) -> "Config":
        """Return a copy by which nothing is started: an interactive shell will be in the place of the services."""
        copy = Config.__new__(Config)
        for attribute in Config.__slots__:
            setattr(copy, attribute, getattr(self, attribute))
        copy.start, copy.init = [], [str(DEFAULTS["INIT"])]
        return copy

    def value(self, variable: str, directory: str, cgroup: int = -1) -> str:
        """Return the value of a variable, of one that begins with `!` what its command prints; "" if it has none."""
        if variable in self.handed:
            return self.handed[variable]
        text = self.assigned.get(variable, (self.defaults[variable],))[0] or ""
        return self.effective(variable, text, directory, cgroup)

    def effective(self, variable: str, text: str, directory: str, cgroup: int = -1) -> str:
        """Return the value that an assignment, or its command, gives a variable.  Raises Failure, which names it."""
        if not text.startswith("!"):
            return text
        words = paths.words(text[1:])
        if not words:
            raise Failure(f"{variable}: no command after !")
        from . import processes
        try:
            said = processes.run_telling(words, {"CONFIG": self.path, "ACTION": self.action}, directory,
                                         cgroup=cgroup, output=True)
        except Failure as failure:
            raise Failure(f"{variable}: {failure}") from None
        first = paths.decode(said.partition(b"\n")[0].strip())
        if not first:
            raise Failure(f"{variable}: {words[0]} printed nothing")
        if "\0" in first:
            raise Failure(f"{variable}: {words[0]} printed a NUL byte")
        return first

    def refuse_work(self) -> None:
        """Raises Failure if WORK is to be elsewhere than an UPPER that is made anew."""
        if "WORK" in self.assigned:
            raise Failure(f"WORK={self.assigned['WORK'][0]}: with UPPER={self.upper}, WORK is on the same tmpfs, and "
                          f"cannot be set")

    def settings(self) -> dict[str, str]:
        """Return the variables and their effective values, in the manual's order.  None is given to a shell."""
        image = {"IMAGE": " ".join(filter(None, self.image))} if self.image else {}
        return {
            "NAME": self.name, "BASE": self.base, **image, "LIVE": self.live, "UPPER": self.upper, "WORK": self.work,
            "LOWER": ":".join(self.lower), "CABLES": " ".join(self.cables),
            "START": " ".join(self.start) or "none", "PREMOUNT": " ".join(self.premount),
            "POSTMOUNT": " ".join(self.postmount), "INIT": " ".join(self.init), "LOG": self.log,
            "RAM_SIZE": self.ram_size, "LAYER_LIMIT": " ".join(map(str, self.layer_limit)),
            "STOP_TIMEOUT": self.stop_timeout,
        }


def of_environment(action: str) -> Config:
    """Return the configuration for a hook command: CONFIG's, with the values of the boot that calls it.

    action stands in the place of an ACTION that is not set.  Raises Failure
    without a CONFIG.
    """
    from . import environment
    path = environment.variable("CONFIG")
    if not path:
        raise Failure("CONFIG is not in the environment: this command is for hooks of overlay-boot")
    handed_down = environment.variable(HANDED_DOWN)
    if handed_down and handed_down == paths.real(path):
        found = environment.variables()
        handed = {variable: found[variable] for variable in (*DEFAULTS, "LAYER") if variable in found}
    else:
        handed = {}
    config = Config(path, environment.variable("ACTION") or action, handed)
    config.resolve_log()
    config.resolve()
    return config


def check_name(name: str) -> None:
    """Raises Failure unless NAME can be that of an interface, a network namespace and a control group."""
    def refuse(why: str) -> "NoReturn":
        raise Failure(f"NAME={name}: {why}")

    if not name:
        refuse("it is empty")
    if len(name) > LONGEST_NAME:
        refuse(f"longer than {LONGEST_NAME} characters")
    if not all("!" <= letter <= "~" for letter in name):
        refuse("only printable ASCII characters without space can be used")
    if name in (".", "..") or name[0] == "-" or any(letter in "/:%" for letter in name):
        refuse("not usable as the name of an interface and a namespace")


def image_of(text: str, base: str) -> tuple[str, str] | None:
    """Return (file, partition or "") of an IMAGE, None if there is none."""
    if not text:
        return None
    *_, last = paths.words(text)
    file = text.removesuffix(last).rstrip(paths.WHITE_SPACE)
    if not (file and is_number(last)):
        file, last = text, ""
    return paths.join(base, file), last


def services(text: str) -> list[str]:
    """Return the words of START.  Raises Failure for what is no service."""
    words = paths.words(text)
    if words == ["none"]:
        return []
    for word in words:
        if word[0] == "-" or "/" in word and word[0] != "/":
            raise Failure(f"START: {word} is neither a service's name nor an absolute path")
    return words


def share_of(text: str, base: str | None = None) -> tuple[str, str]:
    """Return (host path, path in the subhost) of OUTSIDE or OUTSIDE:INSIDE.

    The first may be relative to base, by default to the current directory.  Raises Failure if there is none.
    """
    outside, _, inside = text.partition(":")
    if not outside:
        raise Failure(f"cannot share {text}: it names no path outside")
    outside = paths.normal(paths.join(base, outside) if base else paths.absolute(outside))
    return outside, inside or outside


def size_of(text: str) -> int | None:
    """Return the bytes of a size as tmpfs(5) has it, None if it is none, or a share of the memory."""
    unit = UNITS.get(text[-1:].lower(), 1)
    number = text if unit == 1 else text[:-1]
    size = int(number) * unit if is_number(number) else 1 << 63
    return size if size < 1 << 63 else None


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def is_share(text: str) -> bool:
    """Tell whether it is a share of the memory, in percent."""
    return text.endswith("%") and is_number(text[:-1]) and int(text[:-1]) <= 100


def checked_ram_size(text: str) -> str:
    if text != "none" and size_of(text) is None and not is_share(text):
        raise Failure(f"RAM_SIZE={text} is neither a size such as 50M nor none")
    return text


def checked_tmpfs(text: str) -> str:
    """Return the size of an UPPER that is made anew.  To tmpfs(5) 0 means that there is no limit."""
    if size_of(text) is None and not is_share(text):
        raise Failure(f"UPPER={TMPFS}{text}: {text or 'nothing'} is not a size such as 50M")
    if not int(text.rstrip("%kmgtKMGT")):
        raise Failure(f"UPPER={TMPFS}{text}: a tmpfs of size 0 has no limit")
    return text


def checked_limit(text: str) -> tuple[int, int]:
    """Return (bytes, members) of a LAYER_LIMIT.  The members have a default."""
    most, *members = paths.words(text) or [""]
    size, count = size_of(most), members[0] if members else MOST_MEMBERS
    if size is None or len(members) > 1 or not is_number(count):
        raise Failure(f"LAYER_LIMIT={text} is not a size such as 10G, optionally followed by a number of members")
    return size, int(count)


def checked_seconds(text: str) -> str:
    if not (text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 10):
        raise Failure(f"STOP_TIMEOUT={text} is not a number of seconds")
    return text
