"""systemd as PID 1, for the services of START and nothing else: the INIT hook overlay-systemd.

PID 1 is the systemd of the subhost's own root.  The shell that becomes it writes what it is to do into /run there: a
target that wants the units of START, and empty files in the place of what the targets of the host want besides.
"""
import posix

from . import beneath, cgroup, files, namespaces, paths, proc, services
from .capabilities import SYS_ADMIN
from .config import DEFAULTS, SYSTEMD, Config
from .errors import Failure, doing
from .files import Fd, Fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .running import Running
    from .services import Seen
    from .userns import UserNamespace

PROGRAMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
KINDS = (".service", ".socket", ".timer", ".mount", ".target", ".path", ".slice")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_."
LONGEST_NAME = 255                      # characters of a unit's, systemd.unit(5)
TARGET = "overlay-boot.target"
KILLED = ("2", "3")                     # CLD_KILLED, CLD_DUMPED, sigaction(2)
TIMEOUT = 2                             # seconds, for an answer of systemctl(1)
GROUPS = "sys/fs/cgroup"
# It insists on a file system of their own on these, and others have one there as well.
MOUNTED = {"dev/shm": {"mode": "1777"}, "run/lock": {"mode": "1777", "size": "5m"}}

# The place for units that comes before all others, systemd.unit(5).
CONTROL = "/run/systemd/system.control"
UNITS = {
    # What services need of those that all of them require.
    "sysinit.target": """\
[Unit]
Description=System Initialization
Wants=systemd-journald.socket systemd-journald.service overlay-boot-tmpfiles.service
After=systemd-journald.socket systemd-journald.service overlay-boot-tmpfiles.service
""",
    "overlay-boot-tmpfiles.service": """\
[Unit]
Description=Files and Directories in /run
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=systemd-tmpfiles --create --boot --prefix=/run
SuccessExitStatus=65 73
""",
    "systemd-reboot.service": f"""\
[Unit]
Description=Reboot of the Subhost
DefaultDependencies=no
Requires=shutdown.target umount.target final.target
After=shutdown.target umount.target final.target
SuccessAction=exit-force
SuccessActionExitStatus={namespaces.REBOOT}
[Service]
Type=oneshot
ExecStart=/bin/true
""",
    "tmp.mount": "",                    # some services require it where it is there
}
# The journal is not on the disk, where the host's is.
JOURNAL = "/run/systemd/journald.conf.d/50-overlay-boot.conf"
MANAGER = "/run/systemd/system.conf.d/50-overlay-boot.conf"
# Of all services: what they would fail for where no namespaces can be made.  Systemd passes over the others by itself.
UNABLE = f"{CONTROL}/service.d/50-overlay-boot.conf"

# Without these a service is as it is on a host, and the host's targets and its fstab(5) bring in nothing.  The
# generators of other packages, such as postgresql's, make units that theirs want.
MASK = """\
mask() {
    mkdir -p "$2"
    for path in "$1"/*; do
        [ ! -L "$path" ] && [ ! -e "$path" ] || : >"$2/${path##*/}"
    done
}
for place in /etc /usr/local/lib /usr/lib /lib; do
    for wants in "$place"/systemd/system/*.target.wants "$place"/systemd/system/*.target.requires; do
        case $wants in *'*'*) continue ;; esac
        of=${wants##*/} of=${of%.*}
        case " $targets " in *" $of "*) continue ;; esac
        mask "$wants" "$control/${wants##*/}"
    done
    for path in "$place"/systemd/system-generators/systemd-*; do
        case $path in *-sysv-generator|*'*'*) continue ;; esac
        : >"$generators/${path##*/}"
    done
done"""

# It is in the background, and has what PID 1 has printed to.  What it tells of is systemd's to know.
REPORT = f"""\
fail() {{
    printf 'cannot start %s: %s\\n' "$word" "$1" >&2
    {{ printf 'cannot start %s: %s\\n' "$word" "$1" >&{services.SERVICES}; }} 2>/dev/null
}}
judge() {{
    case $word in
    /*) command=$word ;;
    *)  command="service $word" ;;
    esac
    printf '%s %s start\\n' "{services.BEGINS}" "$command"
    case $load,$active,$sub in
    not-found,*) fail "the subhost has no unit $unit" ;;
    masked,*) fail "the unit $unit is masked" ;;
    loaded,failed,*|loaded,*,auto-restart*)
        journalctl -qn 20 -o cat "_SYSTEMD_UNIT=$unit" 2>/dev/null
        case $result,$status in
        exit-code,0) fail "$result" ;;
        exit-code,*) fail "exit status $status" ;;
        signal,*|core-dump,*) fail "killed by signal $status" ;;
        *) fail "$result" ;;
        esac ;;
    loaded,inactive,*)
        if [ "$since" != 0 ]; then return; fi
        case $condition,$judged in
        no,[!0]*) fail "a condition of the unit $unit is not met" ;;
        *)  fail "a unit that it requires has failed" ;;
        esac ;;
    loaded,*) ;;
    *)  fail "the unit $unit is wrong ($load)" ;;
    esac
}}
judge_all() {{
    while [ $# != 0 ]; do
        word=$1 unit=$2 load='' active='' sub='' result='' status='' since='' condition='' judged=''
        shift 2
        while read -r line && [ "$line" ]; do
            case $line in
            LoadState=*) load=${{line#*=}} ;;
            ActiveState=*) active=${{line#*=}} ;;
            SubState=*) sub=${{line#*=}} ;;
            Result=*) result=${{line#*=}} ;;
            ExecMainStatus=*) status=${{line#*=}} ;;
            ConditionResult=*) condition=${{line#*=}} ;;
            ConditionTimestampMonotonic=*) judged=${{line#*=}} ;;
            InactiveExitTimestampMonotonic=*) since=${{line#*=}} ;;
            esac
        done
        judge
    done
}}
report() {{
    until [ -S /run/systemd/private ]; do sleep 0.01; done
    systemctl is-system-running --wait
}} </dev/null >/dev/null 2>&1 {services.SERVICES}>&-"""
PROPERTIES = ("LoadState", "ActiveState", "SubState", "Type", "Result", "ExecMainCode", "ExecMainStatus",
              "ConditionResult", "ConditionTimestampMonotonic", "InactiveExitTimestampMonotonic", "Job", "ControlGroup")
SHOW = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--"]


def check(config: Config) -> None:
    """Raises Failure for a word of START that cannot be a unit, or a configuration without what systemd needs."""
    for word in config.start:
        unit_of(word)
    if config.ram_size == "none" and config.postmount == [DEFAULTS["POSTMOUNT"]]:
        raise Failure(f"RAM_SIZE=none: with INIT={SYSTEMD} there must be a file system on /run")


def unit_of(word: str) -> str:
    """Return the name of the unit of a word of START.  Raises Failure if it cannot be one."""
    name = escaped(word) if word[:1] == "/" else word
    if word[:1] == "/" or not name.endswith(KINDS):
        name += services.END
    if len(name) > LONGEST_NAME or name[:1] in ".@" or any(letter not in f"{LETTERS}-@\\" for letter in name):
        raise Failure(f"START: {word} cannot be the name of a unit")
    return name


def escaped(path: str) -> str:
    """Return a path as it is in the name of a unit, as systemd-escape(1) --path has it."""
    text = "/".join(part for part in path.split("/") if part)
    return "".join("-" if letter == "/" else letter if letter in LETTERS and (letter != "." or number)
                   else hexadecimal(letter) for number, letter in enumerate(text))


def hexadecimal(text: str) -> str:
    """Return each byte as systemd's files have what is no letter."""
    return "".join(f"\\x{byte:02x}" for byte in paths.encode(text))


def unit_of_script(path: str) -> str:
    """Return the text of a unit for a program that is called with start and stop, as an init script is."""
    kept = {**{letter: letter for letter in f"{LETTERS}-/"}, "%": "%%", "$": "$$"}
    word = "".join(kept.get(letter) or hexadecimal(letter) for letter in path)
    return f"""\
[Service]
Type=forking
RemainAfterExit=yes
GuessMainPID=no
KillMode=process
TimeoutSec=5min
ExecStart=/bin/sh -c 'exec "$$0" start' "{word}"
ExecStop=/bin/sh -c 'exec "$$0" stop' "{word}"
"""


def init(config: Config) -> str:
    """Return the shell commands that PID 1 runs inside: write what systemd is to do, then become it."""
    units = {word: unit_of(word) for word in config.start}
    wanted = " ".join(units.values())
    targets = " ".join(unit for unit in units.values() if unit.endswith(".target"))
    written = {f"{CONTROL}/{name}": text for name, text in UNITS.items() if name not in units.values()}
    written[f"{CONTROL}/{TARGET}"] = f"[Unit]\nDescription=The Services of START\nWants={wanted}\nAfter={wanted}\n"
    written.update({f"{CONTROL}/{unit}": unit_of_script(word) for word, unit in units.items() if word[:1] == "/"})
    if not config.capabilities & SYS_ADMIN:
        written[UNABLE] = "[Service]\nPrivateUsers=no\n"
    written[JOURNAL] = "[Journal]\nStorage=volatile\n"
    longest = "infinity" if config.patience is None else config.boot_timeout
    written[MANAGER] = ("[Manager]\n"
                        f"DefaultTimeoutStartSec={longest}\nDefaultTimeoutStopSec={config.stop_timeout}\n")
    pairs = " ".join(f"{paths.quoted(word)} {paths.quoted(unit)}" for word, unit in units.items())
    lines = [
        f"# {SYSTEMD} starts: {' '.join(config.start)}",
        f"control={CONTROL} generators=/run/systemd/system-generators targets={paths.quoted(targets)}",
        f'mkdir -p "$control" "$generators" {JOURNAL.rpartition("/")[0]} {MANAGER.rpartition("/")[0]} '
        f'{UNABLE.rpartition("/")[0]} /run/systemd/system',
        MASK,
        *(f"printf %s {paths.quoted(text)} >{paths.quoted(path)}" for path, text in written.items()),
    ]
    if units:
        shown = " ".join(map(paths.quoted, [*SHOW, *units.values()]))
        lines += [REPORT, "{", "    report", f"    {shown} | judge_all {pairs}", services.ALL_STARTED, "} </dev/null &"]
    lines += [f"for systemd in {' '.join(PROGRAMS)}; do",
              f'    [ ! -x "$systemd" ] || exec "$systemd" --unit={TARGET} {services.SERVICES}>&-',
              "done",
              f'echo "the subhost has no {PROGRAMS[0]}: the package systemd is not installed in it" >&2',
              "exit 1"]
    return "\n".join(lines) + "\n"


@doing("mount the control groups for systemd")
def mount_groups(group: str, root: int, inside: int, users: "UserNamespace | None") -> None:
    """Mount in the root of a descriptor what systemd cannot do without, and could not mount itself.

    That is the control group of the subhost, whose path is group, and a tmpfs.  inside is the mount namespace with that
    root.  What is not delegated to the subhost is read-only in it.
    """
    from .rootfs import Inside, made_for, mount_new
    with Fds() as fds, cgroup.in_sight(group) as own:
        whole = fds.keep(namespaces.open_tree(paths.of_descriptor(own)))
        fixed: dict[str, int] = {}
        if not users:                       # root of a user namespace does not own them
            cgroup.limit_descendants(own)
            fixed = {file: fds.keep(read_only(own, file)) for file in cgroup.not_delegated(own)}
        place = fds.keep(beneath.directory(root, GROUPS, beneath.REFUSED))
        others = {path: fds.keep(beneath.directory(root, path, beneath.REFUSED, make=0o1777)) for path in MOUNTED}
        with made_for(users), Inside(inside):
            namespaces.move_mount(whole, place)
            for file, mounted in fixed.items():
                with files.opened(file, posix.O_PATH | posix.O_NOFOLLOW, directory=whole) as target:
                    namespaces.move_mount(mounted, target)
            for path, one in others.items():
                if not namespaces.mount_of(one)[1]:
                    mount_new("tmpfs", one, namespaces.NOSUID | namespaces.NODEV, **MOUNTED[path])


def read_only(group: int, file: str) -> Fd:
    """Return a read-only mount of a control file, that nobody sees yet."""
    mounted = Fd(namespaces.open_tree(f"{paths.of_descriptor(group)}/{file}"))
    namespaces.mount_setattr(mounted, namespaces.RDONLY)
    return mounted


def seen(running: "Running", memory: "dict[int, int] | None") -> "list[Seen] | None":
    """Return what services.seen() does, as systemctl(1) of the subhost tells it; None if that does not answer."""
    words = running.record.start
    try:
        text = asked(running, [*SHOW, *map(unit_of, words)])
    except (Failure, OSError) as error:
        if isinstance(error, OSError) and error.errno in files.SCARCE:
            raise
        return None
    blocks = text.strip("\n").split("\n\n")
    if len(blocks) != len(words):
        return None
    with cgroup.group(running.record.cgroup or "") as own:
        return [one_seen(word, dict(line.partition("=")[::2] for line in block.split("\n")), own, memory)
                for word, block in zip(words, blocks, strict=True)]


class Question:
    """seen(), asked by a child process: one that is not answered keeps no other one waiting."""

    __slots__ = ("process", "source")

    def __init__(self, running: "Running", memory: "dict[int, int] | None") -> None:
        """Raises OSError."""
        import marshal

        from .processes import make_pipe
        self.source, sink = map(Fd, make_pipe())
        with Fds([self.source]) as fds, sink:
            self.process = posix.fork()
            if not self.process:
                try:
                    files.write_all(sink, marshal.dumps(outcome(running, memory)))
                finally:
                    posix._exit(0)
            fds.let_go()

    def answer(self) -> "list[Seen] | None":
        """Wait for the answer.  Raises OSError for want of descriptors or memory."""
        import marshal
        with self.source:
            said = files.read_all(self.source)
        posix.waitpid(self.process, 0)
        error, found = marshal.loads(said) if said else (0, None)
        if error:
            raise OSError(error, posix.strerror(error))
        answer: "list[Seen] | None" = found
        return answer


def outcome(running: "Running", memory: "dict[int, int] | None") -> "tuple[int, list[Seen] | None]":
    """Return (errno, what seen() does)."""
    try:
        return 0, seen(running, memory)
    except OSError as error:
        return error.errno or 0, None


def one_seen(word: str, said: dict[str, str], own: int, memory: "dict[int, int] | None") -> "Seen":
    """Return what has become of a service, by what systemd says of its unit, and by its control group."""
    place = said.get("ControlGroup", "").strip("/")
    is_below = place and ".." not in place.split("/") and "\0" not in place
    members = services.members_of(place, own) if is_below else []
    return {"name": word, "state": state_of(said, members), "status": status_of(said),
            "processes": len(members), **services.details(members, memory)}


def service_of(process: int, group: str, words: tuple[str, ...] | list[str]) -> str | None:
    """Return the service that a process belongs to: a word of START, or a unit that is none; None if it is in no unit.

    That is told by its control group, below the one of the subhost, whose path is group.  Raises OSError if the process
    has ended.
    """
    below = proc.control_group(process).partition(f"{group}/")[2]
    unit = next((name for name in below.split("/") if not name.endswith(".slice")), "").removeprefix("_")
    if not unit.endswith(KINDS):            # a scope, as of PID 1 and of sessions, is no service
        return None
    return next((word for word in words if unit_of(word) == unit), unit)


def state_of(said: dict[str, str], members: list[int]) -> str:
    """Return the state in the words of services, of what systemd says of a unit."""
    active = said.get("ActiveState")
    if active in ("active", "reloading", "refreshing"):
        return services.DONE if said.get("SubState") == "exited" and not members else services.RUNNING
    if active == "activating":
        return services.FAILED if said.get("SubState", "").startswith("auto-restart") else services.STARTING
    if active == "failed":
        return services.FAILED
    if said.get("Job", "") not in ("", "0") and active == "inactive":
        return services.STARTING
    if said.get("LoadState") != "loaded" or not is_begun(said):
        return services.FAILED
    return services.DONE if said.get("Type") == "oneshot" else services.ENDED


def status_of(said: dict[str, str]) -> int | None:
    """Return the exit status of the main process of a unit, as a shell has it; 0 while it runs, None if it has none."""
    status = said.get("ExecMainStatus", "")
    if not (is_begun(said) and status.isascii() and status.isdigit() and len(status) < 4):
        return None
    return int(status) + (128 if said.get("ExecMainCode") in KILLED else 0)


def is_begun(said: dict[str, str]) -> bool:
    """Tell whether a unit has been active, or has tried to be."""
    return said.get("InactiveExitTimestampMonotonic", "0") != "0"


def asked(running: "Running", command: list[str]) -> str:
    """Return what a command prints that is run inside, in the fences.  Raises Failure or OSError."""
    from . import environment, fences, processes
    record = running.record
    with cgroup.group(record.cgroup or "") as group, files.opened("/proc/self/ns/pid", posix.O_RDONLY) as own:
        if cgroup.is_frozen(group):
            raise Failure(f"the control group of {running.name} is frozen")
        try:
            namespaces.setns(running.init_fd, namespaces.NEWPID)        # for children
            said = processes.run_inside(running.init_fd, command, environment.inside(), group, TIMEOUT,
                                        fences.around(running.init, record.system_calls), is_over=lambda: False,
                                        users=proc.has_other_users(running.init))
        finally:
            namespaces.setns(own, namespaces.NEWPID)
    return paths.decode(said)
