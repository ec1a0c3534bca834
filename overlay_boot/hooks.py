"""The hooks: PREMOUNT, POSTMOUNT and INIT, and what the default ones do.

The commands overlay-premount, overlay-postmount and overlay-init call the same
functions as a boot whose configuration names no other.
"""
import posix

from . import PROGRAMS, REAPER_MARK, files, namespaces, paths, processes, rootfs
from .config import DEFAULTS
from .errors import Failure, doing

REAPER = "/.reaper"
DUMMY_FIFO = "/run/dummy_service"
STARTS = "# overlay-init starts:"       # the first line of what overlay-init prints
LONGEST_PROGRAM = 1 << 17               # far more than our reaper has
LONGEST_TEXT = 128 << 10                # of one argument, execve(2)


def is_default(config, variable):
    return getattr(config, variable.lower()) == [DEFAULTS[variable]]


def run(config, variable, arguments, *, cgroup, log, output=False):
    """Run the hook that the configuration names, in the control group cgroup.

    What it prints goes to the descriptor log, unless it is the output that is asked for.
    """
    words = getattr(config, variable.lower())
    try:
        return processes.run([*words, *arguments], config.for_hooks(), config.base,
                             cgroup=cgroup, log=log, output=output)
    except Failure as failure:
        raise Failure(f"{variable}: {failure} (what it printed is in LOG={config.log})") from None


@doing("write into UPPER")
def premount(config):
    """Give UPPER a host name and a network set-up of its own, so that the host's are not used by accident."""
    upper = rootfs.directory(config.upper, "UPPER")
    try:
        for path, text in (("etc/hostname", config.name + "\n"), ("etc/network/interfaces", interfaces(config))):
            if not config.layers or not in_layer(config, path):
                write_missing(upper, path, text)
    finally:
        posix.close(upper)


def in_layer(config, path):
    """Whether a layer of this subhost's has a file of that path."""
    from . import layers
    return any(files.kind(f"{layer}/{path}") for layer in layers.own(config))


def interfaces(config):
    """An interfaces(5) file with lo, and a stanza for each cable that leaves it alone."""
    stanzas = ["auto lo\niface lo inet loopback\n"]
    if config.cables:
        from . import cables
        stanzas += [f"auto {cable.inner}\niface {cable.inner} inet manual\n"
                    for cable in cables.plan(config.cables, config.name) if cable.inner]
    return f"# Generated for subhost {config.name}\n" + "\n".join(stanzas)


def write_missing(root, path, text):
    """Write a file below root, unless there is anything of its name."""
    *parents, name = path.split("/")
    at = posix.open(".", rootfs.DIRECTORY, dir_fd=root)
    try:
        for number, parent in enumerate(parents, 1):
            try:
                posix.mkdir(parent, 0o755, dir_fd=at)
            except FileExistsError:
                pass
            so_far = "/".join(parents[:number])
            try:
                found = namespaces.openat2(root, so_far, rootfs.DIRECTORY, namespaces.IN_ROOT)
            except OSError as error:
                raise Failure(f"UPPER: {so_far} in it is no directory: {error.strerror}") from None
            posix.close(at)
            at = found
        if not files.exists(name, at):
            rootfs.write_new(at, name, text, 0o644)
    except OSError as error:
        raise Failure(f"cannot write {path} into UPPER: {error.strerror}") from None
    finally:
        posix.close(at)


def postmount(config, root, network):
    """Mount /dev, /sys and /run in the root, and put the reaper there."""
    rootfs.mount_devices(root)
    rootfs.mount_sys(root, network)
    if config.ram_size != "none":
        rootfs.mount_run(root, config.ram_size)
    rootfs.bind_adjtime(root)
    install_reaper(root)


@doing("install the reaper")
def install_reaper(root):
    """Copy our reaper to /.reaper, unless the subhost has one that is not from us."""
    name = REAPER[1:]
    with open(f"{PROGRAMS}/reaper", "rb", buffering=0) as file:
        ours = file.read()
    try:
        theirs = rootfs.read(root, REAPER, LONGEST_PROGRAM)
        if theirs == ours or REAPER_MARK not in theirs:
            return
        posix.unlink(name, dir_fd=root)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Failure(f"{REAPER} in the subhost: {error.strerror}") from None
    try:
        rootfs.write_new(root, name, ours, 0o755)
    except OSError as error:
        raise Failure(f"cannot write {REAPER} in the subhost: {error.strerror}") from None


def check_reaper(config, root):
    """Raises Failure if the subhost has not got the reaper that PID 1 is to become."""
    try:
        fd = namespaces.openat2(root, config.reaper, posix.O_PATH, namespaces.IN_ROOT)
    except OSError as error:
        raise Failure(f"REAPER={config.reaper} in the subhost: {error.strerror}") from None
    mode = posix.fstat(fd).st_mode
    posix.close(fd)
    if mode & files.KIND != files.REGULAR or not mode & 0o111:
        raise Failure(f"REAPER={config.reaper} in the subhost is not executable")


def init_command(config, root, *, cgroup, log):
    """What PID 1 executes: (argv, the services that it starts)."""
    if is_default(config, "INIT"):
        check_reaper(config, root)
        if not config.start and is_our_reaper(config, root):
            return [REAPER, config.name, DUMMY_FIFO], []    # nothing for a shell to do
        return ["/bin/sh", "-c", init(config)], config.start
    text = paths.decode(run(config, "INIT", [], cgroup=cgroup, log=log, output=True))
    if not text.strip():
        raise Failure(f"INIT: {config.init[0]} printed nothing")
    if "\0" in text or len(text) >= LONGEST_TEXT:
        raise Failure(f"INIT: {config.init[0]} printed what is no text of less than {LONGEST_TEXT} characters")
    return ["/bin/sh", "-c", text], started(text)


def is_our_reaper(config, root):
    """Whether PID 1 will be the reaper that we come with, which serves as the dummy service as well."""
    if config.reaper != REAPER:
        return False
    with open(f"{PROGRAMS}/reaper", "rb", buffering=0) as ours:
        return rootfs.read(root, REAPER, LONGEST_PROGRAM) == ours.read()


def started(text):
    """The services that a text of overlay-init's starts, wherever a custom INIT has put it."""
    for line in text.split("\n"):
        if line.startswith(STARTS):
            return line[len(STARTS):].split()
    return []


def quoted(word):
    """The word for a shell, which takes it as it is."""
    return "'" + word.replace("'", "'\\''") + "'"


def init(config):
    """The shell commands that PID 1 runs inside: start the services, then become the reaper."""
    lines = [f"{STARTS} {' '.join(config.start)}"]
    if config.start:
        lines.append(START_FUNCTION)
        lines += [f"start {quoted(word)}" for word in config.start]
    lines += [DUMMY_SERVICE, f"exec {quoted(config.reaper)} {quoted(config.name)}"]
    return "\n".join(lines) + "\n"


START_FUNCTION = """\
start() {
    case $1 in
    /*) set -- "$1" start ;;
    *)  if ! command -v service >/dev/null; then
            echo "cannot start $1: the subhost has no command service" >&2
            return
        fi
        set -- service "$1" start ;;
    esac
    if command -v setsid >/dev/null; then set -- setsid "$@"; fi
    "$@" </dev/null || echo "$* failed with exit status $?" >&2
}"""

# The shell that runs this is process 1, and reads /proc without making another.
# Its children are services; whoever has been let in by overlay-go is none.
# Zombies of what failed to start do not count: the reaper will take them away.
DUMMY_SERVICE = f"""\
services=0
for process in /proc/[0-9]*; do
    if read -r stat <"$process/stat"; then
        case ${{stat##*) }} in Z*) ;; ?" 1 "*) services=$((services + 1)) ;; esac
    fi
done 2>/dev/null
if [ $services -eq 0 ]; then
    [ -p {DUMMY_FIFO} ] || mkfifo -m 600 {DUMMY_FIFO}
    (printf dummy_service >/proc/self/comm; read -r _ <{DUMMY_FIFO}) &
fi"""
