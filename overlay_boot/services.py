"""The services of START: a control group for each, and what has become of them.

A service is in a control group of its own, NAME.service below that of the subhost, from its first process on.  Its
start script goes there by itself, through a door: a file in the directory DOORS of the subhost, which is cgroup.procs
of the group.  So PID 1 starts it, and so does a script that is called later from inside, debian/lsb/50-overlay-boot.

When the start of a service has returned, PID 1 appends a line to VERDICTS: the exit status, 1 if a process is left or
nothing, and the word of START.  Not every process that is left is the service: ifup(8), for one, runs scripts which end
in the background.  So one that is in the session of the start script is not counted after all, if it has ended by the
time when all services are started: then there is another line.
"""
import posix
from errno import EACCES, EINVAL, ENODEV

from . import beneath, cgroup, files, namespaces, paths, proc
from .files import Fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .running import Running
    from .userns import UserNamespace
    Seen = dict[str, Any]

LONGEST = 1 << 16           # bytes of VERDICTS
LONGEST_NAME = 255          # bytes of a file's, NAME_MAX
LONGEST_SHOWN = 200         # characters of a line of output
DOORS = "/run/overlay-services"
VERDICTS, SESSION = f"{DOORS}/.verdicts", f"{DOORS}/.session"
# What start scripts read to go through a door, and what reads that: paths in any root.
FUNCTIONS, READER = "lib/lsb/init-functions.d/50-overlay-boot", "lib/lsb/init-functions"
LONGEST_FUNCTIONS = 1 << 14
SCRIPTS, UNITS = "/etc/init.d/", "/usr/lib/systemd/system/"
ONLY_UNIT = ("only a unit for systemd; the package orphan-sysvinit-scripts has scripts for some services, "
             "and INIT=overlay-systemd starts units")
BEGINS = "overlay-boot:"    # in LOG, before the command by which a service is started
END = ".service"
KILLED_AFTER = 5            # seconds, what does not end on SIGTERM after BOOT_TIMEOUT
# What a service can be.  Of these, it is well if it is one of the last two.
STARTING, FAILED, ENDED, RUNNING, DONE = "starting", "failed", "ended", "running", "done"
WELL = (RUNNING, DONE)

# On SERVICES the keeper is told of failures, and of the end: see protocol.pxd.  It is not there where the text of
# overlay-init is run by another program than a boot's PID 1.
SERVICES = namespaces.SERVICES_FD
# One that is not started in time is ended by timeout(1), and what that leaves in the control group after it; by what
# timeout exits with, the one is not told from the other.
START_FUNCTION = f"""\
clock() {{ {{ read -r seconds _ </proc/uptime; }} 2>/dev/null; seconds=${{seconds%.*}}; }}
end_all() {{
    for again in 1 2 3 4 5 6 7 8; do
        while read -r process; do kill -9 "$process"; done <"$1"
    done 2>/dev/null
}}
is_loose() {{
    read -r session <{SESSION} || return
    while read -r process; do
        read -r stat <"/proc/$process/stat" || continue
        set -- ${{stat##*) }}
        [ "$4" = "$session" ] || return
    done <"$door"
}} 2>/dev/null
look_again() {{
    while [ $# != 0 ]; do
        left=
        {{ read -r left <"{DOORS}/$1"; }} 2>/dev/null
        word=$2
        [ "$left" ] || verdict 0
        shift 2
    done
}}
verdict() {{
    [ ! -d {DOORS} ] || echo "$1 $2 $word" >>{VERDICTS}
    [ $1 -eq 0 ] && return
    echo "cannot start $word: $3" >&2
    {{ echo "cannot start $word: $3" >&{SERVICES}; }} 2>/dev/null
}}
start() {{
    word=$1 door={DOORS}/$2
    case $1 in
    /*) set -- "$1" start ;;
    *)  if ! command -v service >/dev/null; then
            verdict 127 '' "the subhost has no command service"
            return
        elif [ ! -e "{SCRIPTS}$1" ]; then
            why="the subhost has no {SCRIPTS}$1"
            [ ! -e "{UNITS}$1.service" ] || why="$why, {ONLY_UNIT}"
            verdict 127 '' "$why"
            return
        fi
        set -- service "$1" start ;;
    esac
    echo "overlay-boot: $*"
    if command -v setsid >/dev/null; then
        set -- /bin/sh -c '{{ echo "$$" >{SESSION}; }} 2>/dev/null; exec setsid "$@"' sh "$@"
    fi
    if [ "$limit" ] && command -v timeout >/dev/null; then set -- timeout -k {KILLED_AFTER} "$limit" "$@"; fi
    status=0 left= seconds=0
    clock
    begin=$seconds
    (
        if [ -e "$door" ]; then echo 0 >"$door"; fi 2>/dev/null
        exec "$@"
    ) </dev/null {SERVICES}>&- || status=$?
    why="exit status $status"
    case $status in
    124 | 137)
        clock
        if [ "$limit" ] && [ $((seconds - begin)) -ge "${{limit%.*}}" ]; then
            end_all "$door"
            why="it has not ended after BOOT_TIMEOUT=$limit seconds"
        fi ;;
    esac
    {{ read -r left <"$door"; }} 2>/dev/null
    verdict $status "${{left:+1}}" "$why"
    if [ "$left" ] && [ $status = 0 ] && is_loose; then loose="$loose ${{door##*/}} $word"; fi
}}"""
# tmpfiles.d(5), where the subhost has what does it: what services want in /run.  Not what is systemd's own, nor what is
# for the boot of a machine, as /run/nologin is.
MAKE_RUN = f"""\
if command -v systemd-tmpfiles >/dev/null; then
    set -- systemd-tmpfiles --create --prefix=/run --exclude-prefix=/run/systemd --exclude-prefix=/run/log
    if [ "$limit" ] && command -v timeout >/dev/null; then set -- timeout -k {KILLED_AFTER} "$limit" "$@"; fi
    "$@" </dev/null {SERVICES}>&-
fi"""
ALL_STARTED = f"{{ echo >&{SERVICES}; }} 2>/dev/null\nexec {SERVICES}>&-"
LOOK_AGAIN = "set -f\nlook_again $loose\nset +f"


def limit(seconds: float | None) -> str:
    """Return the line that tells START_FUNCTION for how many seconds a start is waited for, None for no limit."""
    return "limit=" if seconds is None else f"limit={seconds:g}"


def name_of(word: str) -> str:
    """Return by which name a word of START is known: that of the script, or of a path, with - for /."""
    return word.removeprefix(SCRIPTS).strip("/").replace("/", "-")


def group_of(word: str) -> str:
    """Return the name of the control group of a service.  No control file has such a name."""
    return name_of(word) + END


def make_groups(words: list[str], group: str, root: int, mounts: int, users: "UserNamespace | None") -> None:
    """Make the control groups of services, and the doors to them in the root of a descriptor.

    group is the path of the control group of the subhost, mounts the mount namespace with that root.  Where that cannot
    be, because /run there is read-only, full, or no directory, services are started all the same, and not seen.
    """
    from .rootfs import made_for
    try:
        make_groups_and_doors(words, group, root, mounts, users)
        with made_for(users):
            install_functions(root)
    except OSError:
        pass


def install_functions(root: int) -> None:
    """Have the root of a descriptor FUNCTIONS of ours, if it has READER, and is not the host's, which has them.

    Raises OSError.
    """
    with files.opened(f"/{FUNCTIONS}") as fd:
        ours = files.read_all(fd)
    links = beneath.INSIDE | namespaces.NO_MOUNTS
    name = paths.name(FUNCTIONS)
    try:
        theirs = beneath.read(root, FUNCTIONS, LONGEST_FUNCTIONS, links)
    except FileNotFoundError:
        theirs = None
        if not beneath.exists(root, READER, links):
            return
    if theirs == ours:
        return
    with beneath.directory(root, paths.parent(FUNCTIONS), links, make=0o755) as at:
        if theirs is not None:          # of another version
            posix.unlink(name, dir_fd=at)
        beneath.write_new(at, name, ours, 0o644)


def make_groups_and_doors(words: list[str], group: str, root: int, mounts: int, users: "UserNamespace | None") -> None:
    from .rootfs import Inside, made_for
    with beneath.directory(root, "run", beneath.REFUSED) as run:
        if posix.fstat(run).st_dev == posix.stat("/run").st_dev:       # it is shared: the host is not to see doors
            return
    with Fds() as opened, cgroup.in_sight(group) as own:
        doors = {name_of(word): opened.keep(made_group(group_of(word), own, users)) for word in words if is_name(word)}
        with made_for(users), beneath.directory(root, DOORS[1:], beneath.REFUSED, make=0o755) as place, Inside(mounts):
            posix.fchdir(place)
            remove_doors()
            for name, door in doors.items():
                mount_door(name, door)


def is_name(word: str) -> bool:
    """Tell whether a word can be the name of a control group, and of a door."""
    return name_of(word)[:1] not in ("", ".") and len(paths.encode(group_of(word))) <= LONGEST_NAME


def made_group(name: str, own: int, users: "UserNamespace | None") -> int:
    """Make a control group below the one of a descriptor.  Return a mount of the file to which its processes write."""
    files.make_directory(name, 0o755, directory=own)
    door = f"{name}/cgroup.procs"
    if users:
        posix.chown(door, users.first, users.first, dir_fd=own)
    return namespaces.open_tree(f"{paths.of_descriptor(own)}/{door}")


def mount_door(name: str, door: int) -> None:
    """Mount a door in the working directory.  Raises OSError."""
    posix.close(posix.open(name, posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY, 0o600))
    try:
        with files.opened(name, posix.O_PATH | posix.O_NOFOLLOW) as target:
            namespaces.move_mount(door, target)
    except OSError:
        posix.unlink(name)
        raise


def remove_doors() -> None:
    """Remove what another boot has left in the working directory: the doors of control groups that are gone."""
    for name in posix.listdir("."):
        try:
            while True:
                namespaces.umount2(name, namespaces.DETACH)
        except OSError as error:
            if error.errno != EINVAL:       # nothing is mounted there, any more
                raise
        posix.unlink(name)


def seen(running: "Running", memory: "dict[int, int] | None" = None) -> "list[Seen] | None":
    """Return what has become of the services of a subhost, in the order of START; None if that is not to be seen.

    A dictionary for each: name (its word of START), state, status (with which its start has returned), processes; with
    what is known of the memory of processes, also memory (bytes), and since (when its oldest process was started, in
    seconds of the epoch).  None where there is nothing to tell.
    """
    record = running.record
    if not record.start:
        return []
    verdicts = verdicts_of(running)
    if verdicts is None:
        return None
    with cgroup.group(record.cgroup or "") as own:
        return [one_seen(word, verdicts.get(word), own, memory) for word in record.start]


def one_seen(word: str, verdict: "tuple[int, bool] | None", own: int, memory: "dict[int, int] | None") -> "Seen":
    """Return what has become of a service, by what PID 1 says of its start, and by its control group."""
    members = members_of(group_of(word), own)
    status, has_left = verdict or (None, False)
    if status is None:
        state = STARTING
    elif members:
        state = RUNNING
    elif status:
        state = FAILED
    else:
        state = ENDED if has_left else DONE
    found = {"name": word, "state": state, "status": status, "processes": len(members)}
    return {**found, **details(members, memory)}


def are_systemds(running: "Running") -> bool:
    """Tell whether PID 1 of a subhost is systemd, which starts and knows the services."""
    return proc.program(running.init) == "systemd"


def processes(running: "Running") -> dict[int, str]:
    """Return {process id: word of START} of what is in the control groups of services."""
    found: dict[int, str] = {}
    try:
        with cgroup.group(running.record.cgroup or "") as own:
            for word in running.record.start:
                found.update(dict.fromkeys(members_of(group_of(word), own), word))
    except FileNotFoundError:       # another command has just cleared that
        pass
    return found


def members_of(path: str, own: int) -> list[int]:
    """Return the processes in the control group of a path below the one of a descriptor."""
    try:
        with cgroup.directory(path, own) as group:
            return cgroup.members(group)
    except OSError as error:
        if error.errno not in (*files.NOWHERE, ENODEV):     # it has just been removed
            raise
        return []


def details(members: list[int], memory: "dict[int, int] | None") -> "Seen":
    """Return what is told in detail of a service with these processes; see seen()."""
    if memory is None:
        return {}
    known = (memory[process] if process in memory else proc.memory(process) for process in members)
    return {"memory": sum(known), "since": since(members)}


def since(members: list[int]) -> float | None:
    """Return when the oldest of processes was started, in seconds of the epoch, None if there is none (any more)."""
    found = []
    for process in members:
        try:
            found.append(proc.stat(process).start)
        except proc.ENDED:
            pass
    return proc.moment_of(min(found)) if found else None


def verdicts_of(running: "Running") -> dict[str, tuple[int, bool]] | None:
    """Return {word: (exit status of its start, whether that has left a process)}; None if there is no telling.

    It is what the subhost says: a line of nonsense tells of nothing.
    """
    try:
        text = paths.decode(read_verdicts(running))
    except OSError as error:
        if error.errno in files.SCARCE:
            raise
        return None
    return {word: (int(status), left == "1") for status, left, word in map(split, text.splitlines())
            if status.isascii() and status.isdigit() and len(status) < 4}


def read_verdicts(running: "Running") -> bytes:
    """Return what is in VERDICTS, nothing while there is none.  Raises OSError if there are no doors.

    Nothing is looked for where the subhost could keep us waiting, on a file system that a process of its own serves.
    """
    mounts = running.mounts()
    if not all(is_plain(mount) for mount in mounts.values() if mount.place in ("/run", DOORS)):
        raise PermissionError(EACCES, posix.strerror(EACCES))
    with Fds() as fds:
        at = fds.keep(files.opened(f"/proc/{running.init}/root", files.PLACE))
        own = namespaces.mount_of(at)[0]
        for name in DOORS[1:].split("/"):
            at = fds.keep(beneath.directory(at, name, beneath.REFUSED))
            number = namespaces.mount_of(at)[0]
            if number != own and (number not in mounts or not is_plain(mounts[number])):
                raise PermissionError(EACCES, posix.strerror(EACCES))
        try:
            return beneath.read(at, paths.name(VERDICTS), LONGEST, beneath.REFUSED | namespaces.NO_MOUNTS) or b""
        except FileNotFoundError:
            return b""


def is_plain(mount: proc.Mount) -> bool:
    """Tell whether a mount is of a file system that no process, and no other machine, can let us wait for."""
    return mount.kind in ("tmpfs", *proc.DISKS)


def split(line: str) -> tuple[str, str, str]:
    status, _, rest = line.partition(" ")
    left, _, word = rest.partition(" ")
    return status, left, word


def summary(services: "list[Seen]") -> str:
    """Return how many of the services are well, and the names of those that have failed or ended."""
    well = sum(one["state"] in WELL for one in services)
    return " ".join([f"{well}/{len(services)}", *ill(services)])


def ill(services: "list[Seen]") -> list[str]:
    """Return the names of those services that have failed or ended."""
    return [one["name"] for one in services if one["state"] in (FAILED, ENDED)]


def last_line(said: str, word: str, failure: str) -> str:
    """Return the last line that a service has printed before its failure, of what LOG has since the boot; or ""."""
    before, found, _ = f"\n{said}".partition(f"\n{failure}\n")
    begins = f"\n{BEGINS} {word} start\n" if word[:1] == "/" else f"\n{BEGINS} service {word} start\n"
    printed = before.partition(begins)[2] if found else ""
    return next((line.strip() for line in reversed(printed.split("\n")) if line.strip()), "")[:LONGEST_SHOWN]
