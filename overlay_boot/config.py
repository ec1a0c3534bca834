"""The configuration file, and the defaults that a site has for all of them: overlay-boot.conf(5)."""
import posix
from errno import ELOOP

from . import capabilities, files, namespaces, paths
from .errors import Failure, complain
from .files import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Shared = tuple[str, str, tuple[str, ...]]       # path on the host, path in the subhost, SHARE_OPTIONS

MOST_MEMBERS = "1000000"
NONE, SECRETS = "none", "secrets"       # words of HIDE; the first one also of BOOT_TIMEOUT
YES, NO = "yes", "no"                   # of LOWER_MOUNTS, NAT, STAY and USERNS
LIMITS = ("PIDS_MAX", "MEMORY_MAX", "MEMORY_HIGH", "MEMORY_SWAP_MAX", "CPU_MAX", "CPU_WEIGHT", "CPUSET_CPUS", "IO_MAX",
          "IO_WEIGHT")
DEFAULTS: dict[str, str | None] = {
    "NAME": None,
    "BASE": ".",
    "IMAGE": "",
    "LIVE": "live",
    "UPPER": "root",
    "WORK": "work",
    "LOWER": "/",
    "LOWER_MOUNTS": YES,
    "HIDE": NONE,
    "CABLES": "",
    "ADDRESS": "",
    "ADDRESS_POOL": "10.231.0.0/16 ula",
    "NAT": NO,
    "PUBLISH": "",
    "START": "networking ssh",
    "STAY": "yes",
    "AFTER": "",
    "PREMOUNT": "overlay-premount",
    "POSTMOUNT": "overlay-postmount",
    "INIT": "overlay-init",
    "LOG": None,
    "RAM_SIZE": "50M",
    "SHM_SIZE": "50%",
    "DEVICES": "",
    "LAYER_LIMIT": f"10G {MOST_MEMBERS}",
    "BOOT_TIMEOUT": "90",
    "STOP_TIMEOUT": "10",
    "CAPABILITIES": "default",
    "SYSTEM_CALLS": "default",
    **dict.fromkeys(LIMITS, ""),
    "USERNS": "no",
    "FOLLOW": "view",
    "OVERLAY": "redirect_dir=on",
}
SYSTEMD = "overlay-systemd"     # the other values of INIT that are ours
OCI_INIT = "overlay-oci-init"
OCI = "oci:"                    # what a LAYER begins with that is an image
REPEATABLE = ("SHARE", "LAYER")
SITE_WIDE = "/etc/overlay-boot/defaults.conf"
# No two subhosts can have the same.
NOT_SITE_WIDE = ("NAME", "BASE", "IMAGE", "LIVE", "UPPER", "WORK", "AFTER", "PUBLISH")
IN_IMAGE = {"UPPER": "mnt/root", "WORK": "mnt/work"}            # the defaults where there is an IMAGE
WARNERS = ("overlay-boot", "overlay-check")                     # the commands that warn of suspect lines
HANDED_DOWN = "OVERLAY_BOOT_VALUES"     # in a hook's environment: the boot has resolved them

LOGS = "/var/log/overlay-boot"
TMPFS = "tmpfs:"                        # what an UPPER that is made anew begins with
AUTO = "auto"                           # of USERNS and ADDRESS
FOLLOWS = VIEW, PACKAGES, RESTART = "view", "packages", "restart"       # of FOLLOW: each does what the former do
IDS = 1 << 16                           # so many at least has a user namespace: Debian's own go up to 65534, nobody
HIGHEST_ID = (1 << 32) - 2              # the one above stands for none, credentials(7)
SHARE_OPTIONS = READ_ONLY, RECURSIVE = "ro", "rbind"
VOLATILE = "volatile"
# The words of OVERLAY: the kernel's Documentation/filesystems/overlayfs.rst.
OVERLAY_OPTIONS = (
    *(f"redirect_dir={value}" for value in ("on", "off", "follow", "nofollow")),
    *(f"{option}={value}" for option in ("metacopy", "index", "xino") for value in ("on", "off")),
    "xino=auto", VOLATILE,
)

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

BYTE_ORDER_MARK = b"\xef\xbb\xbf"      # as UTF-8 has it

LONGEST_LINE = 1 << 16
LONGEST_FILE = 1 << 22
LONGEST_NAME = 12
LONGEST_BOOT_TIMEOUT = 864000       # seconds: ten days
LONGEST_VARIABLE = 20           # of what is taken for a misspelt one


class Assignments(dict[str, list[str]]):
    """The assignments of a configuration file: {variable: [value, ...]}, and where they stand."""

    __slots__ = ("emptied", "places")

    emptied: set[str]                           # the variables that are assigned without a value
    places: dict[str, list[tuple[str, int]]]    # file and line of each value

    def __init__(self) -> None:
        self.emptied = set()
        self.places = {}

    def add(self, other: "Assignments") -> None:
        """Add what another file assigns to variables that this one does not assign, not even without a value."""
        for variable, values in other.items():
            if variable not in self and variable not in self.emptied:
                self[variable], self.places[variable] = values, other.places[variable]


def read(path: str, *, warn: bool = False) -> Assignments:
    """Return the assignments of a configuration file.

    Raises Failure for what is no configuration file, in the user's words.  With warn, complains of suspect lines.
    """
    try:
        with files.opened(path) as fd:
            data = content(fd, path)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            paths.absolute(path)        # which may be what cannot be found
        raise Failure(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    return parse(data, path, complain if warn else lambda _: None)


def read_site_wide(*, warn: bool = False) -> Assignments:
    """Return the assignments of /etc/overlay-boot/defaults.conf, none if it is not there.

    Raises Failure, as read() does, if others than root can write to it, or if it assigns what each subhost has to.
    """
    try:
        with opened_site_wide() as fd:
            found = posix.fstat(fd)
            if found.st_uid != 0:
                raise Failure(f"{SITE_WIDE} does not belong to root, but to the user {found.st_uid}")
            if found.st_mode & 0o022:
                raise Failure(f"{SITE_WIDE} has the mode {found.st_mode & 0o7777:04o}: only root may write to it")
            data = content(fd, SITE_WIDE)
    except FileNotFoundError:
        return Assignments()
    except OSError as error:
        raise Failure(f"cannot read {SITE_WIDE}: {error.strerror}") from None
    assigned = parse(data, SITE_WIDE, complain if warn else lambda _: None)
    for variable in NOT_SITE_WIDE:
        if variable in assigned:
            _, line = assigned.places[variable][0]
            raise Failure(f"{SITE_WIDE}: line {line}: {variable} cannot be set for all subhosts")
    return assigned


def opened_site_wide() -> Fd:
    """Open /etc/overlay-boot/defaults.conf.  Raises FileNotFoundError if there is none.

    A symbolic link that leads nowhere is an error of another kind: it was to lead to one.
    """
    try:
        return files.opened(SITE_WIDE, files.READ_ANYTHING | posix.O_NOFOLLOW)
    except OSError as error:
        if error.errno != ELOOP:
            raise
    try:
        return files.opened(SITE_WIDE)
    except FileNotFoundError:
        raise Failure(f"cannot read {SITE_WIDE}: it is a symbolic link that leads nowhere") from None


def content(fd: int, path: str) -> bytes:
    """Return what is in the configuration file of a descriptor.  Raises Failure, which names it as path, or OSError."""
    if files.kind_of(fd) not in (files.REGULAR, files.DIRECTORY):
        raise Failure(f"{path} is not a regular file")
    data = posix.read(fd, min(posix.fstat(fd).st_size, LONGEST_FILE) + 1)
    if len(data) > LONGEST_FILE:
        raise Failure(f"{path} is longer than {LONGEST_FILE} bytes: not a configuration file")
    if b"\0" in data:
        raise Failure(f"{path} is not a text file")
    return data


def name_in(path: str) -> str:
    """Return the NAME that a configuration file assigns, or has itself; a command there is not run.

    Raises Failure or OSError if it cannot be read.
    """
    return read(path).get("NAME", [paths.name(path).removesuffix(".conf")])[0]


def parse(data: bytes, path: str, warn: "Callable[[str], None]" = complain) -> Assignments:
    """Return the assignments in the bytes of a configuration file, and warn of suspect lines.

    Messages name it as path.
    """
    found = Assignments()
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
            found.emptied.add(name)
            continue
        if b" #" in value or b"\t#" in value:
            warn(f"{path}: line {number}: no comment can follow a value: # is part of it")
        if name in found and name not in REPEATABLE:
            warn(f"{path}: line {number} is ignored: {name} is assigned in line {found.places[name][0][1]}")
        found.setdefault(name, []).append(paths.decode(value))
        found.places.setdefault(name, []).append((path, number))
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

    NAME is there from the start; resolve_log(), resolve_limits() and then resolve() find the others,
    before which add_site_wide() adds what is said for all subhosts.
    Paths are absolute.
    """

    __slots__ = ("action", "address", "address_pool", "after", "assigned", "base", "boot_timeout", "cables",
                 "capabilities", "defaults", "devices", "follow", "handed", "hide", "image", "init", "layer_limit",
                 "layers", "limits", "live", "log", "lower", "lower_mounts", "name", "nat", "overlay", "path",
                 "postmount", "premount", "publish", "ram_size", "reaper", "share", "shm_size", "start", "stay",
                 "stop_timeout", "system_calls", "tmpfs", "upper", "userns", "work")

    action: str                         # the command at work, for ACTION
    assigned: Assignments               # what the file has, and what it leaves to the site-wide defaults
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
    lower_mounts: list[str]             # absolute paths, and YES
    hide: list[str]                     # absolute paths, and SECRETS
    layers: list[str]                   # as in the file, the lowest first; handed down, the topmost first
    layer_limit: tuple[int, int]        # bytes, members
    cables: list[str]                   # the words, as those of the next two
    address: list[str]
    address_pool: list[str]
    nat: str                            # YES or NO
    publish: list[str]                  # the words
    start: list[str]
    stay: str                           # YES or NO
    after: list[str]                    # names of other subhosts
    premount: list[str]                 # the words of a command line, as those of the next two
    postmount: list[str]
    init: list[str]
    log: str
    ram_size: str
    shm_size: str
    devices: list[str]                  # paths below /dev
    boot_timeout: str                   # seconds, or NONE; "" until it is found
    stop_timeout: str                   # seconds
    capabilities: int                   # a bit for each
    system_calls: str                   # as it stands there
    userns: str                         # NO, AUTO or FIRST:COUNT
    follow: str                         # one of FOLLOWS
    overlay: list[str]                  # options of overlayfs
    share: "list[Shared]"
    limits: dict[str, str]              # those of LIMITS that are set, as in the file

    def __init__(self, path: str, action: str, handed: dict[str, str] | None = None, *, warn: bool = True) -> None:
        """Read the file.  Raises Failure if it is no configuration file, or has a NAME that cannot be one."""
        self.action = action
        self.handed = handed or {}
        self.assigned = read(path, warn=warn and action in WARNERS and not handed)
        self.defaults = DEFAULTS
        self.path = paths.real(path)
        self.limits = {}
        self.boot_timeout = ""
        self.name = self.value("NAME", ".") or paths.name(path).removesuffix(".conf")
        check_name(self.name)
        if "\n" in self.path:
            raise Failure(f"{path}: the path of a configuration file cannot contain a line feed")

    def add_site_wide(self) -> None:
        """Have site-wide defaults for what the file does not assign.  Raises Failure if they cannot be read."""
        self.assigned.add(read_site_wide(warn=self.action in WARNERS and not self.handed))

    def resolve_log(self) -> None:
        """Find LOG, whose command runs where the caller is, as NAME's does."""
        self.log = self.value("LOG", ".") or f"{LOGS}/{self.name}.log"

    def resolve_limits(self) -> None:
        """Find the limits, which limits.py makes sense of.  Commands run where the file is, in no control group."""
        here = paths.parent(self.path)
        found = {variable: self.value(variable, here) for variable in LIMITS}
        self.limits = {variable: text for variable, text in found.items() if text}

    def resolve_after(self) -> None:
        """Find AFTER, whose command runs where the file is."""
        self.after = paths.words(self.value("AFTER", paths.parent(self.path)))
        for name in self.after:
            why = "it is this subhost itself" if name == self.name else why_no_name(name)
            if why:
                raise Failure(f"AFTER: {name}: {why}")

    def resolve_base(self, cgroup: int = -1) -> None:
        """Find BASE and FOLLOW, which is all that is needed to follow a subhost that runs."""
        here = paths.parent(self.path)
        base = paths.join(here, self.value("BASE", here, cgroup))
        if files.kind(base) != files.DIRECTORY:
            raise Failure(f"BASE={base} is not a directory")
        self.base = paths.real(base)
        self.follow = checked_follow(self.value("FOLLOW", self.base, cgroup))

    def resolve(self, cgroup: int = -1, handed: dict[str, str] | None = None) -> None:
        """Find all the others.  Commands run in BASE, in the control group of the descriptor cgroup.

        handed has values that are not to be found again.  Raises Failure, which
        names the variable.
        """
        from . import environment
        self.reaper = environment.variable("REAPER") or namespaces.REAPER_PATH
        self.handed = handed or self.handed
        self.resolve_base(cgroup)

        def value(variable: str) -> str:
            return self.value(variable, self.base, cgroup)

        self.boot_timeout = checked_boot_timeout(value("BOOT_TIMEOUT"))
        self.image = image_of(value("IMAGE"), self.base)
        if self.image:
            self.defaults = {**DEFAULTS, **IN_IMAGE}
        self.resolve_root(value)
        self.lower_mounts = mount_points(value("LOWER_MOUNTS"))
        self.hide = hidden(value("HIDE"))
        self.layers = self.layers_of(cgroup)
        self.layer_limit = checked_limit(value("LAYER_LIMIT"))
        self.address, self.address_pool = paths.words(value("ADDRESS")), paths.words(value("ADDRESS_POOL"))
        self.nat, self.publish = checked_nat(value("NAT")), paths.words(value("PUBLISH"))
        if self.is_behind_host and not self.address:
            self.address = [AUTO]
        self.cables = paths.words(value("CABLES")) or ["="] * bool(self.address)
        self.stay = checked_stay(value("STAY"))
        self.resolve_after()
        self.premount, self.postmount = paths.words(value("PREMOUNT")), paths.words(value("POSTMOUNT"))
        self.init = paths.words(value("INIT"))
        self.start = [] if self.is_of_image else services(value("START"))
        self.ram_size = checked_ram_size(value("RAM_SIZE"))
        self.shm_size = checked_shm_size(value("SHM_SIZE"))
        self.devices = devices(value("DEVICES"))
        self.stop_timeout = checked_stop_timeout(value("STOP_TIMEOUT"))
        self.userns = checked_userns(value("USERNS"))
        self.overlay = overlay_options(value("OVERLAY"), self.hide)
        self.capabilities = capabilities.parse(value("CAPABILITIES"), self.default_capabilities)
        self.system_calls = " ".join(paths.words(value("SYSTEM_CALLS")))
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
        return [place_of_layer(self.base, self.effective("LAYER", text, self.base, cgroup))
                for text in self.assigned.get("LAYER", ())]

    @property
    def default_capabilities(self) -> int:
        """What CAPABILITIES=default stands for: in a user namespace they are for what belongs to that only."""
        return capabilities.DEFAULT if self.userns == NO else capabilities.OWN

    @property
    def owner(self) -> int:
        """Root of the subhost, as the host has it, once the ids of USERNS are chosen."""
        first = self.userns.partition(":")[0]
        return int(first) if first not in (AUTO, NO) else 0

    @property
    def patience(self) -> float | None:
        """For how many seconds a command of a boot is waited for, None if that is for as long as it takes.

        The commands of what is found before BOOT_TIMEOUT, and its own, have the default where it is a command itself.
        """
        text = self.boot_timeout or self.assigned.get("BOOT_TIMEOUT", ("!",))[0]
        text = str(DEFAULTS["BOOT_TIMEOUT"]) if text.startswith("!") else checked_boot_timeout(text)
        return None if text == NONE else float(text)

    @property
    def is_of_image(self) -> bool:
        """Whether an image tells what is run, in the place of START."""
        return self.init[:1] == [OCI_INIT]

    @property
    def is_behind_host(self) -> bool:
        """Whether addresses are translated between it and the world."""
        return self.nat == YES or bool(self.publish)

    @property
    def addressed(self) -> set[str]:
        """The interfaces in the subhost that ADDRESS names."""
        named = [word.partition(":")[0] for word in self.address]
        return {name if name.startswith("eth") else "eth0" for name in named}

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
                                         cgroup=cgroup, output=True, seconds=self.patience)
        except Failure as failure:
            raise Failure(f"{variable}: {failure}") from None
        first = paths.decode(said.partition(b"\n")[0].strip())
        if not first:
            raise Failure(f"{variable}: {words[0]} printed nothing")
        if "\0" in first:
            raise Failure(f"{variable}: {words[0]} printed a NUL byte")
        return first

    def sources(self, variable: str) -> list[str]:
        """Return where each value of a variable comes from."""
        places = self.assigned.places.get(variable)
        if not places:
            return [f"the name of {self.path}" if variable == "NAME" else "built in"]
        return [f"{path}: line {line}" for path, line in (places if variable in REPEATABLE else places[:1])]

    def located(self, text: str) -> str:
        """Return a message, preceded by its place if the first variable that it names has a site-wide default."""
        words = (word.partition("=")[0].partition(":")[0] for word in text.split())
        variable = next((word for word in words if word in DEFAULTS or word in REPEATABLE), "")
        sources = [source for source in self.sources(variable) if source.startswith(SITE_WIDE)]
        return ": ".join([*sources[:1], text])

    def complete(self) -> None:
        """Find all values, as a boot does step by step.  Raises Failure, which says where a wrong one comes from."""
        try:
            self.add_site_wide()
            self.resolve_log()
            self.resolve()
        except Failure as failure:
            self.locate(failure)
            raise

    def locate(self, failure: Failure) -> None:
        """Have a Failure say where a value stands that is wrong, unless it is in the file of the subhost."""
        failure.args = (self.located(str(failure)),)

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
            "LOWER": ":".join(self.lower), "LOWER_MOUNTS": " ".join(self.lower_mounts) or NO,
            "HIDE": " ".join(self.hide) or NONE, "CABLES": " ".join(self.cables),
            "ADDRESS": " ".join(self.address), "ADDRESS_POOL": " ".join(self.address_pool),
            "NAT": self.nat, "PUBLISH": " ".join(self.publish),
            "START": " ".join(self.start) or "none", "STAY": self.stay, "AFTER": " ".join(self.after),
            "PREMOUNT": " ".join(self.premount), "POSTMOUNT": " ".join(self.postmount), "INIT": " ".join(self.init),
            "LOG": self.log,
            "RAM_SIZE": self.ram_size, "SHM_SIZE": self.shm_size, "DEVICES": " ".join(self.devices),
            "LAYER_LIMIT": " ".join(map(str, self.layer_limit)),
            "BOOT_TIMEOUT": self.boot_timeout, "STOP_TIMEOUT": self.stop_timeout,
            "CAPABILITIES": capabilities.text_of(self.capabilities), "SYSTEM_CALLS": self.system_calls,
            "USERNS": self.userns, "FOLLOW": self.follow, "OVERLAY": " ".join(self.overlay), **self.limits,
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
    config.complete()
    return config


def check_name(name: str) -> None:
    """Raises Failure unless NAME can be that of an interface, a network namespace and a control group."""
    why = why_no_name(name)
    if why:
        raise Failure(f"NAME={name}: {why}")


def why_no_name(name: str) -> str:
    """Return why this cannot be a NAME, "" if it can."""
    if not name:
        return "it is empty"
    if len(name) > LONGEST_NAME:
        return f"longer than {LONGEST_NAME} characters"
    if not all("!" <= letter <= "~" for letter in name):
        return "only printable ASCII characters without space can be used"
    if name in (".", "..") or name[0] == "-" or any(letter in "/:%" for letter in name):
        return "not usable as the name of an interface and a namespace"
    return ""


def image_of(text: str, base: str) -> tuple[str, str] | None:
    """Return (file, partition or "") of an IMAGE, None if there is none."""
    if not text:
        return None
    *_, last = paths.words(text)
    file = text.removesuffix(last).rstrip(paths.WHITE_SPACE)
    if not (file and is_number(last)):
        file, last = text, ""
    return paths.join(base, file), last


def place_of_layer(base: str, text: str) -> str:
    """Return a LAYER, whose path may be relative to BASE."""
    kind = OCI if text.startswith(OCI) else ""
    return kind + paths.join(base, text[len(kind):])


def hidden(text: str) -> list[str]:
    """Return the words of HIDE.  Raises Failure for what can be no path in the subhost."""
    words = paths.words(text)
    if words == [NONE]:
        return []
    for word in words:
        if word[0] != "/" and word != SECRETS:
            raise Failure(f"HIDE: {word} is neither an absolute path nor {SECRETS}")
    found = [word if word == SECRETS else paths.normal(word) for word in words]
    if "/" in found:
        raise Failure("HIDE: the root directory cannot be hidden")
    return found


def mount_points(text: str) -> list[str]:
    """Return the words of LOWER_MOUNTS.  Raises Failure for what can be no path in the subhost."""
    words = paths.words(text)
    if words == [NO]:
        return []
    for word in words:
        if word[0] != "/" and word != YES:
            raise Failure(f"LOWER_MOUNTS: {word} is neither an absolute path, nor {YES}, nor {NO}")
    found = [word if word == YES else paths.normal(word) for word in words]
    if "/" in found:
        raise Failure("LOWER_MOUNTS: the root directory is LOWER itself")
    return found


def services(text: str) -> list[str]:
    """Return the words of START.  Raises Failure for what is no service."""
    words = paths.words(text)
    if words == ["none"]:
        return []
    for word in words:
        if word[0] == "-" or "/" in word and word[0] != "/":
            raise Failure(f"START: {word} is neither a service's name nor an absolute path")
    return words


def share_of(text: str, base: str | None = None) -> "Shared":
    """Return (host path, path in the subhost, options) of OUTSIDE, with :INSIDE, :OPTIONS, or both behind it.

    The first may be relative to base, by default to the current directory.  Raises Failure if there is none, and for
    what is neither a path with a slash nor a list of options.
    """
    outside, *rest = text.split(":")
    options = rest.pop() if rest and rest[-1] and "/" not in rest[-1] and rest[-1] not in (".", "..") else ""
    wrong = next((word for word in options.split(",") if options and word not in SHARE_OPTIONS), None)
    if not outside:
        raise Failure(f"cannot share {text}: it names no path outside")
    if wrong is not None:
        raise Failure(f"cannot share {text}: {wrong or 'nothing'} is no option, as {' and '.join(SHARE_OPTIONS)} are")
    if len(rest) > 1:
        raise Failure(f"cannot share {text}: a path cannot have a colon in it")
    outside = paths.normal(paths.join(base, outside) if base else paths.absolute(outside))
    return outside, rest[0] if rest and rest[0] else outside, tuple(options.split(",")) if options else ()


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


def checked_shm_size(text: str) -> str:
    if size_of(text) is None and not is_share(text):
        raise Failure(f"SHM_SIZE={text} is not a size such as 50M")
    return text


def devices(text: str) -> list[str]:
    """Return the words of DEVICES, each once.  Raises Failure for what is no path below /dev."""
    found = {word: paths.normal(word) for word in paths.words(text)}
    for word, path in found.items():
        if word[0] != "/" or not path.startswith("/dev/"):
            raise Failure(f"DEVICES: {word} is no path below /dev")
    return [*dict.fromkeys(found.values())]


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


def is_seconds(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 10


def checked_stop_timeout(text: str) -> str:
    if not is_seconds(text):
        raise Failure(f"STOP_TIMEOUT={text} is not a number of seconds")
    return text


def checked_boot_timeout(text: str) -> str:
    if text != NONE and not (is_seconds(text) and 0 < float(text) <= LONGEST_BOOT_TIMEOUT):
        raise Failure(f"BOOT_TIMEOUT={text} is neither a number of seconds, more than 0 and at most "
                      f"{LONGEST_BOOT_TIMEOUT}, nor {NONE}")
    return text


def checked_follow(text: str) -> str:
    if text not in (*FOLLOWS, NO):
        raise Failure(f"FOLLOW={text} is none of {', '.join(FOLLOWS)} and {NO}")
    return text


def overlay_options(text: str, hide: list[str]) -> list[str]:
    """Return the words of OVERLAY, with the default of what they leave out.  Raises Failure for what cannot be."""
    words = paths.words(text)
    for word in words:
        if word not in OVERLAY_OPTIONS:
            raise Failure(f"OVERLAY: {word} is none of {', '.join(OVERLAY_OPTIONS)}")
    options = [word.partition("=")[0] for word in words]
    twice = next((option for option in options if options.count(option) > 1), "")
    if twice:
        raise Failure(f"OVERLAY: {twice} is set twice")
    if "redirect_dir" not in options:
        words.insert(0, str(DEFAULTS["OVERLAY"]))
    if "metacopy=on" in words and DEFAULTS["OVERLAY"] not in words:
        raise Failure("OVERLAY: metacopy=on needs redirect_dir=on")
    if "index=on" in words and hide:
        raise Failure("OVERLAY: index=on refuses a layer that is another one at each boot, as that of HIDE is")
    if "index" not in options and hide:
        words.append("index=off")
    return words


def checked_stay(text: str) -> str:
    if text not in (YES, NO):
        raise Failure(f"STAY={text} is neither {YES} nor {NO}")
    return text


def checked_nat(text: str) -> str:
    if text not in (YES, NO):
        raise Failure(f"NAT={text} is neither {YES} nor {NO}")
    return text


def checked_userns(text: str) -> str:
    if text in (AUTO, NO):
        return text
    first, _, count = text.partition(":")
    if not (is_number(first) and is_number(count)):
        raise Failure(f"USERNS={text} is neither {AUTO}, nor {NO}, nor two numbers such as 524288:{IDS}")
    if not int(first):
        raise Failure(f"USERNS={text}: root of the subhost would be root of the host")
    if int(count) < IDS:
        raise Failure(f"USERNS={text}: a subhost needs {IDS} ids at least")
    if int(first) + int(count) - 1 > HIGHEST_ID:
        raise Failure(f"USERNS={text}: the highest id is {HIGHEST_ID}")
    return f"{int(first)}:{int(count)}"
