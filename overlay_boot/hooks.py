"""The hooks: PREMOUNT, POSTMOUNT and INIT, and what the default ones do.

The commands overlay-premount, overlay-postmount and overlay-init call the same
functions as a boot whose configuration names no other.
"""
import posix
from errno import ELOOP, ENOENT, ENOTDIR, EROFS

from . import LONGEST_REAPER, PROGRAMS, beneath, files, names, namespaces, network, paths, rootfs
from .config import DEFAULTS, HANDED_DOWN, NO, OCI_INIT, SYSTEMD, Config, place_of_layer
from .errors import Failure, doing
from .files import Fd
from .sources import Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .userns import UserNamespace

REAPER = namespaces.REAPER_PATH
DUMMY_FIFO = "/run/dummy_service"
GENERATED = "# Generated for subhost "      # what interfaces(5) begins with, as long as nobody has written another one
STARTS = f"# {DEFAULTS['INIT']} starts:", f"# {SYSTEMD} starts:"        # the first line of what each of them prints
LONGEST_TEXT = 128 << 10                # of one argument, execve(2)


class Hooks:
    """The hooks of a boot.  The default ones are called here, others are run, in the subhost's control group."""

    __slots__ = ("config", "group", "log", "sources")

    def __init__(self, config: Config, sources: Sources, group: int, log: int) -> None:
        self.config = config
        self.sources = sources
        self.group = group
        self.log = log

    def premount(self) -> None:
        """Run PREMOUNT.  Raises Failure if it fails, as the others do."""
        if is_default(self.config, "PREMOUNT"):
            premount(self.config, self.sources)
        else:
            self.run("PREMOUNT", self.config.premount, [self.sources.upper])

    def postmount(self, root: int, network_namespace: int, users: "UserNamespace | None" = None) -> None:
        """Run POSTMOUNT on the root of a descriptor."""
        if is_default(self.config, "POSTMOUNT"):
            postmount(self.config, root, network_namespace, users)
        else:
            self.run("POSTMOUNT", self.config.postmount, [self.sources.live, self.sources.upper])

    def init(self, root: int) -> tuple[list[str], list[str]]:
        """Run INIT.  Return what PID 1 executes, and the services that this starts."""
        config = self.config
        if config.is_of_image:
            return main_command(config, is_ours=is_our_reaper(config, root)), []
        if is_default(config, "INIT"):
            check_reaper(config, root)
            is_ours = is_our_reaper(config, root)
            if not config.start and is_ours:
                return [REAPER, config.name, DUMMY_FIFO], []    # nothing for a shell to do
            return ["/bin/sh", "-c", init(config, is_ours=is_ours)], config.start
        if config.init == [SYSTEMD]:
            from . import systemd
            return ["/bin/sh", "-c", systemd.init(config)], config.start
        said = self.run("INIT", config.init, [], output=True)
        text = paths.decode(said)
        if not text.strip():
            raise Failure(f"INIT: {config.init[0]} printed nothing")
        if b"\0" in said or len(said) >= LONGEST_TEXT:
            raise Failure(f"INIT: {config.init[0]} printed a NUL byte, or {LONGEST_TEXT} bytes or more")
        return ["/bin/sh", "-c", text], started(text)

    def run(self, variable: str, words: list[str], arguments: list[str], *, output: bool = False) -> bytes:
        """Run a hook that the configuration names.  What it prints goes to LOG, unless it is asked for."""
        from . import processes
        try:
            return processes.run([*words, *arguments], environment_of(self.config, self.sources), self.config.base,
                                 cgroup=self.group, log=self.log, output=output, seconds=self.config.patience)
        except Failure as failure:
            raise Failure(f"{variable}: {failure} (what it printed is in LOG={self.config.log})") from None


def is_default(config: Config, variable: str) -> bool:
    """Tell whether a hook is the default one."""
    return bool(getattr(config, variable.lower()) == [DEFAULTS[variable]])


def are_default(config: Config) -> bool:
    """Tell whether all of them are."""
    return all(is_default(config, variable) for variable in ("PREMOUNT", "POSTMOUNT", "INIT"))


def environment_of(config: Config, sources: Sources) -> dict[str, str]:
    """Return what is added to a hook's environment: the values that the boot has resolved."""
    return {"CONFIG": config.path, "ACTION": config.action, HANDED_DOWN: config.path, "REAPER": config.reaper,
            **values(config, sources)}


def values(config: Config, sources: Sources) -> dict[str, str]:
    """Return the values of all variables, as a boot has them by now: none is to be found again."""
    return {"IMAGE": "", **config.settings(), **sources.settings()}


@doing("write into UPPER")
def premount(config: Config, sources: Sources) -> None:
    """Give UPPER a host name, a network set-up and names of its own, so that the host's are not used by accident."""
    with rootfs.directory(sources.upper, "UPPER") as upper:
        for path, text in (("etc/hostname", config.name + "\n"), ("etc/network/interfaces", interfaces(config))):
            if not sources.layers or not in_layer(sources, path):
                write_missing(upper, sources.upper, path, text)
        for path, said in ((names.HOSTS, names.hosts), (names.RESOLVER, names.resolver)):
            if not sources.layers or not in_layer(sources, path):
                write_anew(upper, sources.upper, path, said(config, sources))


def in_layer(sources: Sources, path: str) -> bool:
    """Tell whether a layer of this subhost's has a file of that path."""
    from . import layers
    for layer in layers.own(sources.layers):
        with rootfs.directory(layer, "LAYER") as root:
            if beneath.exists(root, path, beneath.INSIDE):
                return True
    return False


def interfaces(config: Config) -> str:
    """Return an interfaces(5) file with lo, and a stanza for each cable that leaves it alone.

    The ones of ADDRESS are up by then, and are not to be taken down with networking.
    """
    stanzas = ["auto lo\niface lo inet loopback\n"]
    if config.cables:
        from . import cables
        stanzas += [f"{'# ADDRESS has set up' if cable.inner in config.addressed else 'auto'} {cable.inner}\n"
                    f"iface {cable.inner} inet manual\n"
                    for cable in cables.parse(config.cables, config.name) if cable.inner]
    return f"{GENERATED}{config.name}\n" + "\n".join(stanzas)


def write_missing(upper: int, place: str, path: str, text: str) -> None:
    """Write a file below UPPER, which is at place, unless there is anything of its name."""
    with Written(place, path), beneath.directory(upper, paths.parent(path), beneath.INSIDE, make=0o755) as at:
        if not files.exists(paths.name(path), at):
            beneath.write_new(at, paths.name(path), text, 0o644)


def write_anew(upper: int, place: str, path: str, text: str) -> None:
    """Write a file that begins with names.MARK below UPPER, or in the place of another one that does.

    If text is "", there is none afterwards.  What cannot be written to has to do without.
    """
    with Written(place, path):
        try:
            with beneath.directory(upper, paths.parent(path), beneath.INSIDE, make=0o755 if text else None) as at:
                replace_ours(at, paths.name(path), text)
        except OSError as error:
            if error.errno != EROFS and (text or error.errno != ENOENT):
                raise


def replace_ours(at: int, name: str, text: str) -> None:
    if files.exists(name, at):
        there = beneath.read(at, name, names.LONGEST, beneath.INSIDE) if is_regular(name, at) else None
        if there is None or not there.startswith(names.MARK.encode()) or there == paths.encode(text):
            return
        posix.unlink(name, dir_fd=at)
    if text:
        beneath.write_new(at, name, text, 0o644)


def is_regular(name: str, at: int) -> bool:
    return posix.stat(name, dir_fd=at, follow_symlinks=False).st_mode & files.KIND == files.REGULAR


class Written:
    """A context in which what goes wrong does so because of a path below UPPER, which is at place."""

    __slots__ = ("path", "place")

    def __init__(self, place: str, path: str) -> None:
        self.place = place
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (ENOTDIR, ELOOP, ENOENT):
            raise Failure(f"UPPER={self.place}: {paths.parent(self.path)} in it is not a directory: "
                          f"{error.strerror}") from None
        raise Failure(f"cannot write {self.path} into UPPER={self.place}: {error.strerror}") from None


def postmount(config: Config, root: int, network_namespace: int, users: "UserNamespace | None" = None) -> None:
    """Mount /dev, /sys and /run in the root, and put the reaper there."""
    rootfs.mount_devices(root, config.shm_size, config.owner)
    if config.devices:
        from . import devices
        devices.make(config.devices, root, config.owner)
    with network.Entered(network_namespace):        # /sys shows that of its maker
        rootfs.mount_sys(root)
    if config.ram_size != "none":
        rootfs.mount_run(root, config.ram_size, config.owner)
    rootfs.bind_adjtime(root, users)
    install_reaper(root)


@doing("install the reaper")
def install_reaper(root: int) -> None:
    """Copy our reaper to /.reaper, unless the subhost has one that is not from us."""
    name = REAPER[1:]
    ours = our_reaper()
    try:
        theirs = beneath.read(root, REAPER, LONGEST_REAPER, beneath.INSIDE)
        if theirs is None or theirs == ours:
            return
        # A crash of the host may have left one of ours cut off, or with zeroes for what had not reached the disk.
        if namespaces.MARK_OF_REAPER not in theirs and not ours.startswith(theirs.rstrip(b"\0")):
            return
        posix.unlink(name, dir_fd=root)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Failure(f"{REAPER} in the subhost: {error.strerror}") from None
    try:
        beneath.write_new(root, name, ours, 0o755, sync=True)
    except OSError as error:
        raise Failure(f"cannot write {REAPER} in the subhost: {error.strerror}") from None


def our_reaper() -> bytes:
    """Return the reaper that we come with."""
    with files.opened(f"{PROGRAMS}/reaper") as fd:
        return files.read_all(fd)


def check_reaper(config: Config, root: int) -> None:
    """Raises Failure if the subhost has not got the reaper that PID 1 is to become."""
    try:
        fd = beneath.opened(root, config.reaper, posix.O_PATH, beneath.INSIDE)
    except OSError as error:
        raise Failure(f"REAPER={config.reaper} in the subhost: {error.strerror}") from None
    with fd:
        mode = posix.fstat(fd).st_mode
    if mode & files.KIND != files.REGULAR or not mode & 0o111:
        raise Failure(f"REAPER={config.reaper} in the subhost is not executable")


def is_our_reaper(config: Config, root: int) -> bool:
    """Tell whether PID 1 will be the reaper that we come with, which stays up without a process where it is to."""
    return config.reaper == REAPER and beneath.read(root, REAPER, LONGEST_REAPER, beneath.INSIDE) == our_reaper()


def is_our_reaper_on_live(config: Config) -> bool:
    """is_our_reaper() of the root on LIVE.  Where there is none, a boot will put ours there."""
    try:
        with files.opened(config.live, files.PLACE) as root:
            return is_our_reaper(config, root)
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return config.reaper == REAPER


def requests(command: list[str], root: int) -> Fd | None:
    """Return the FIFO on which reboot(8) and others ask for the end, in the root of a descriptor.  It is made there.

    None if PID 1, which executes command, will not be a reaper; or if no FIFO can be, as where /run is full.
    """
    if command[0] != REAPER and not any(line.startswith(STARTS[0]) for line in command[-1].split("\n")):
        return None
    directory, _, name = namespaces.REQUESTS_PATH[1:].partition("/")
    try:
        with beneath.directory(root, directory, beneath.REFUSED) as run:
            if posix.fstat(run).st_dev == posix.stat(f"/{directory}").st_dev:       # it is shared: that is the host's
                return None
            try:
                posix.mkfifo(name, 0o600, dir_fd=run)
            except FileExistsError:
                pass
            fd = files.opened(name, posix.O_RDWR | posix.O_NONBLOCK | posix.O_NOFOLLOW | posix.O_NOCTTY, directory=run)
            if files.kind_of(fd) == files.PIPE:
                return fd
            fd.close()
    except OSError:
        pass
    return None


def check_main(config: Config) -> None:
    """Raises Failure where INIT is of an image, and LAYER names none, or INIT chooses what cannot be."""
    from . import layers, oci
    oci.choice(config.init[1:], config.base)
    if not any(map(layers.is_image, config.layers)):
        raise Failure(f"INIT={OCI_INIT}: LAYER names no image")


def main_command(config: Config, *, is_ours: bool) -> list[str]:
    """Return what PID 1 executes where it has a main process.  Raises Failure if it could not."""
    if not is_ours:
        raise Failure(f"INIT={OCI_INIT}: {config.reaper} in the subhost is not the reaper of overlay-boot")
    return [REAPER, config.name, namespaces.MAIN_WORD, *([] if config.stay == NO else [DUMMY_FIFO])]


def main_process(config: Config, image: str, root: int) -> str:
    """Return what is told to the reaper of its main process, with the root of a descriptor.

    image is the digest of the configuration of the image.  Raises Failure.
    """
    from . import layers, oci
    return oci.described(config, layers.image_config(image), root, oci.choice(config.init[1:], config.base))


def main_init(config: Config, words: list[str]) -> str:
    """Return the shell commands that PID 1 runs inside to have a main process: for a hook that prints others as well.

    words choose, as those of INIT do.  The root is on LIVE.
    """
    from . import layers, oci
    layered = [place_of_layer(config.base, text) for text in config.assigned.get("LAYER", ())]
    with rootfs.directory(config.live, "LIVE") as root:
        command = main_command(config, is_ours=is_our_reaper_on_live(config))
        told = oci.described(config, layers.config_of(layered), root, oci.choice(words, config.base))
    return (f"exec {namespaces.MAIN_FD}<<'{OCI_INIT}'\n{told}{OCI_INIT}\n"
            f"exec {' '.join(map(paths.quoted, command))}\n")


def started(text: str) -> list[str]:
    """Return the services that a text of overlay-init's starts, wherever a custom INIT has put it."""
    for line in text.split("\n"):
        if line.startswith(STARTS):
            return paths.words(line.partition(":")[2])
    return []


def is_for_systemd(command: list[str]) -> bool:
    """Tell whether PID 1, which executes that, becomes systemd for the services of START."""
    return any(line.startswith(STARTS[1]) for line in command[-1].split("\n"))


def init(config: Config, *, is_ours: bool) -> str:
    """Return the shell commands that PID 1 runs inside: start the services, then become the reaper.

    is_ours tells whether that is ours.  Without services there is nothing whose end could be that of the subhost.
    """
    lines = [f"{STARTS[0]} {' '.join(config.start)}"]
    reaper = f"exec {paths.quoted(config.reaper)} {paths.quoted(config.name)}"
    if config.start:
        from . import services
        lines += [services.limit(config.patience), services.MAKE_RUN, services.START_FUNCTION]
        lines += [f"start {paths.quoted(word)} {paths.quoted(services.name_of(word))}" for word in config.start]
        lines += [services.LOOK_AGAIN, services.ALL_STARTED]
    if config.stay == NO and config.start:
        lines.append(reaper)
    elif is_ours:
        lines.append(f"{reaper} {DUMMY_FIFO}")
    else:
        lines += [DUMMY_SERVICE, reaper]
    return "\n".join(lines) + "\n"


# For a reaper that ends with the last process.
DUMMY_SERVICE = f"""\
[ -p {DUMMY_FIFO} ] || mkfifo -m 600 {DUMMY_FIFO}
(printf dummy_service >/proc/self/comm; read -r _ <{DUMMY_FIFO}) &"""
