"""The configuration file: overlay-boot.conf(5)."""
import posix

from . import environment, files, paths
from .errors import Failure, complain

DEFAULTS = {
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
    "LAYER_LIMIT": "10G 1000000",
    "STOP_TIMEOUT": "10",
}
REPEATABLE = ("SHARE", "LAYER")
IN_IMAGE = {"UPPER": "mnt/root", "WORK": "mnt/work"}            # the defaults where there is an IMAGE
HANDED_DOWN = "OVERLAY_BOOT_VALUES"     # in a hook's environment: the boot has resolved them

LOGS = "/var/log/overlay-boot"
TMPFS = "tmpfs:"                        # what an UPPER that is made anew begins with

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

LONGEST_LINE = 1 << 16
LONGEST_FILE = 1 << 22
LONGEST_NAME = 12


def read(path):
    """The assignments of a configuration file: {variable: [value, ...]}.

    Raises Failure for what is no configuration file, in the user's words.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        with open(fd, "rb", buffering=0) as file:
            if files.kind_of(fd) not in (files.REGULAR, files.DIRECTORY):
                raise Failure(f"{path} is not a regular file")
            data = file.read(min(posix.fstat(fd).st_size, LONGEST_FILE) + 1) or b""
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LONGEST_FILE:
        raise Failure(f"{path} is longer than {LONGEST_FILE} bytes: not a configuration file")
    if b"\0" in data:
        raise Failure(f"{path} is not a text file")
    return parse(data, path)


def parse(data, path):
    """The assignments in the bytes of a configuration file, which path is named for."""
    found = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if len(line) > LONGEST_LINE:
            raise Failure(f"{path}: line {number} is longer than {LONGEST_LINE} bytes")
        if line.endswith(b"\r"):
            raise Failure(f"{path}: line {number} ends with CR LF, as on Windows, not with LF")
        name, equals, value = line.partition(b"=")
        name = paths.decode(name)
        if name.rstrip() in REPEATABLE:
            name = name.rstrip()
        if not equals or name not in DEFAULTS and name not in REPEATABLE:
            suspect(name, equals, path, number)
            continue
        value = value.strip()
        if value:
            found.setdefault(name, []).append(paths.decode(value))
    return found


def suspect(name, equals, path, number):
    """Warn of a line that looks as if it was to be an assignment."""
    word = name.strip().upper()
    if not equals or not word.isidentifier() or len(word) > 20:
        return
    import difflib
    close = difflib.get_close_matches(word, [*DEFAULTS, *REPEATABLE], 1, 0.75)
    if close:
        complain(f"{path}: line {number} is ignored: {name}= is not known (did you mean {close[0]}=?)")


class Config:
    """A subhost's configuration: every variable with its effective value.

    NAME is there from the start; resolve_log() and then resolve() find the others.
    Paths are absolute; lower, layers, start, cables and share are lists.
    tmpfs is the size of an UPPER that is made anew, and has no path before it is.
    """

    __slots__ = ("action", "assigned", "base", "cables", "defaults", "handed", "image", "init", "layer_limit", "layers",
                 "live", "log", "lower", "name", "path", "postmount", "premount", "ram_size", "reaper", "share",
                 "start", "stop_timeout", "tmpfs", "upper", "work")

    def __init__(self, path, action, handed=None):
        self.action = action
        self.handed = handed or {}
        self.assigned = read(path)
        self.defaults = DEFAULTS
        self.path = paths.real(path)
        self.name = self.value("NAME", ".")
        if self.name is None:
            self.name = paths.name(path).removesuffix(".conf")
        check_name(self.name)
        if "\n" in self.path:
            raise Failure(f"{path}: no line feed can be in the path of a configuration file")
        self.reaper = environment.variable("REAPER") or "/.reaper"

    def resolve_log(self):
        """Find LOG, whose command runs where the caller is, as NAME's does."""
        self.log = self.value("LOG", ".") or f"{LOGS}/{self.name}.log"

    def resolve(self, cgroup=-1):
        """Find all the others; commands are run in BASE, in the control group cgroup."""
        here = paths.parent(self.path)
        base = paths.join(here, self.value("BASE", here, cgroup))
        if files.kind(base) != files.DIRECTORY:
            raise Failure(f"BASE={base} is not a directory")
        self.base = paths.real(base)

        def value(variable):
            return self.value(variable, self.base, cgroup)

        def place(path):
            return paths.join(self.base, path)

        self.image = image_of(value("IMAGE"), self.base)
        if self.image:
            self.defaults = {**DEFAULTS, **IN_IMAGE}
        self.live, self.upper, self.work = place(value("LIVE")), value("UPPER"), place(value("WORK"))
        self.tmpfs = ""
        if self.upper.startswith(TMPFS):
            self.tmpfs = checked_tmpfs(self.upper.removeprefix(TMPFS))
            self.refuse_work()
            self.work = self.upper
        else:
            self.upper = place(self.upper)
        lower = value("LOWER")
        is_one = files.kind(place(lower)) == files.DIRECTORY
        self.lower = [place(path) for path in ([lower] if is_one else lower.split(":"))]
        self.layers = [*filter(None, self.handed["LAYER"].split(":"))] if "LAYER" in self.handed else [
            place(self.effective("LAYER", text, self.base, cgroup)) for text in self.assigned.get("LAYER", ())]
        self.layer_limit = checked_limit(value("LAYER_LIMIT"))
        self.cables = value("CABLES").split()
        self.start = services(value("START"))
        self.premount, self.postmount = value("PREMOUNT").split(), value("POSTMOUNT").split()
        self.init = value("INIT").split()
        self.ram_size = checked_ram_size(value("RAM_SIZE"))
        self.stop_timeout = checked_seconds(value("STOP_TIMEOUT"))
        self.log = place(self.log)
        self.share = [share_of(text, self.base) for text in self.assigned.get("SHARE", ())]

    def leave_to_shell(self):
        """Have nothing started: an interactive shell will be in the place of the services."""
        self.start, self.init = [], [DEFAULTS["INIT"]]

    def value(self, variable, directory, cgroup=-1):
        """The value of a variable; of one that begins with `!`, what the command prints first."""
        if variable in self.handed:
            return self.handed[variable]
        return self.effective(variable, self.assigned.get(variable, (self.defaults[variable],))[0], directory, cgroup)

    def effective(self, variable, text, directory, cgroup=-1):
        """The value that an assignment, or its command, gives a variable."""
        if text is None or not text.startswith("!"):
            return text
        words = text[1:].split()
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

    def refuse_work(self):
        """Raises Failure if WORK is to be elsewhere than an UPPER that is made anew."""
        if "WORK" in self.assigned:
            raise Failure(f"WORK={self.assigned['WORK'][0]}: with UPPER={self.upper}, WORK is on the same tmpfs")

    def settings(self):
        """The variables and their effective values, in the manual's order; none is given to a shell."""
        image = {"IMAGE": " ".join(filter(None, self.image))} if self.image else {}
        return {
            "NAME": self.name, "BASE": self.base, **image, "LIVE": self.live, "UPPER": self.upper, "WORK": self.work,
            "LOWER": ":".join(self.lower), "CABLES": " ".join(self.cables),
            "START": " ".join(self.start) or "none", "PREMOUNT": " ".join(self.premount),
            "POSTMOUNT": " ".join(self.postmount), "INIT": " ".join(self.init), "LOG": self.log,
            "RAM_SIZE": self.ram_size, "LAYER_LIMIT": " ".join(map(str, self.layer_limit)),
            "STOP_TIMEOUT": self.stop_timeout,
        }

    def resolved(self):
        """What to hand down, to a hook or a boot that takes a subhost up: nothing of it is to be resolved again."""
        return {"IMAGE": "", "LAYER": ":".join(self.layers), **self.settings()}

    def for_hooks(self):
        """A hook's environment: the values that the boot has resolved."""
        return {"CONFIG": self.path, "ACTION": self.action, HANDED_DOWN: self.path, "REAPER": self.reaper,
                **self.resolved()}


def of_environment(action):
    """The configuration for a hook command: CONFIG's, with the values of the boot that calls it."""
    path = environment.variable("CONFIG")
    if not path:
        raise Failure("CONFIG is not in the environment: this command is for hooks of overlay-boot")
    if environment.variable(HANDED_DOWN) == paths.real(path):
        found = environment.variables()
        handed = {variable: found[variable] for variable in (*DEFAULTS, "LAYER") if variable in found}
    else:
        handed = {}
    config = Config(path, environment.variable("ACTION") or action, handed)
    config.resolve_log()
    config.resolve()
    return config


def check_name(name):
    """NAME serves as the name of an interface, a network namespace and a control group."""
    def refuse(why):
        raise Failure(f"NAME={name}: {why}")

    if not name:
        refuse("it is empty")
    if len(name) > LONGEST_NAME:
        refuse(f"longer than {LONGEST_NAME} characters")
    if not all("!" <= letter <= "~" for letter in name):
        refuse("only printable ASCII characters without space can be used")
    if name in (".", "..") or name[0] == "-" or any(letter in "/:%" for letter in name):
        refuse("not usable as the name of an interface and a namespace")


def image_of(text, base):
    """(file, partition or "") of an IMAGE, or nothing if there is none."""
    if not text:
        return ()
    file, *index = text.rsplit(None, 1)
    if not (index and index[0].isdigit()):
        file, index = text, [""]
    return paths.join(base, file), index[0]


def services(text):
    words = text.split()
    if words == ["none"]:
        return []
    for word in words:
        if word[0] == "-" or "/" in word and word[0] != "/":
            raise Failure(f"START: {word} is neither a service's name nor an absolute path")
    return words


def share_of(text, base):
    """(path on the host, path in the subhost) of OUTSIDE or OUTSIDE:INSIDE; the first may be relative to base."""
    outside, _, inside = text.partition(":")
    outside = paths.normal(paths.join(base, outside))
    return outside, inside or outside


def size_of(text):
    """The bytes of a size as tmpfs(5) has it; None if it is none, or a share of the memory."""
    unit = UNITS.get(text[-1:].lower(), 1)
    number = text if unit == 1 else text[:-1]
    size = int(number) * unit if is_number(number) else 1 << 63
    return size if size < 1 << 63 else None


def is_number(text):
    return text.isascii() and text.isdigit() and len(text) < 20


def is_share(text):
    """Whether it is a share of the memory, in percent."""
    return text.endswith("%") and is_number(text[:-1]) and int(text[:-1]) <= 100


def checked_ram_size(text):
    if text != "none" and size_of(text) is None and not is_share(text):
        raise Failure(f"RAM_SIZE={text} is neither a size, as 50M, nor none")
    return text


def checked_tmpfs(text):
    """The size of an UPPER that is made anew.  To tmpfs(5) 0 means that there is no limit."""
    if size_of(text) is None and not is_share(text):
        raise Failure(f"UPPER={TMPFS}{text}: {text or 'nothing'} is no size, as 50M is one")
    if not int(text.rstrip("%kmgtKMGT")):
        raise Failure(f"UPPER={TMPFS}{text}: of the size 0, a tmpfs has no limit")
    return text


def checked_limit(text):
    """(bytes, members) of a LAYER_LIMIT; the members have a default."""
    size, _, members = text.partition(" ")
    size, members = size_of(size), members.strip() or DEFAULTS["LAYER_LIMIT"].split()[1]
    if size is None or not is_number(members):
        raise Failure(f"LAYER_LIMIT={text} is no size, as 10G, and no number of members behind it")
    return size, int(members)


def checked_seconds(text):
    if not (text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 10):
        raise Failure(f"STOP_TIMEOUT={text} is not a number of seconds")
    return text
