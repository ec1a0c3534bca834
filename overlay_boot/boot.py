"""The story of a boot, step for step as in overlay-boot(8)."""
import posix

from . import (
    beneath,
    cgroup,
    hooks,
    interruption,
    keeper,
    log,
    namespaces,
    network,
    rootfs,
    state,
)
from .check import check
from .clearing import clear, clear_leftovers, hibernate
from .config import Config
from .errors import Failure, complain, doing, reason
from .files import Fd
from .hooks import Hooks
from .keeper import Handover, Keeper
from .rootfs import Sources, View
from .state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cables import Plugging

LONGEST_HOSTNAME = 64       # HOST_NAME_MAX, gethostname(2)


class Boot:
    """A boot, and what its steps have made so far."""

    __slots__ = ("cables", "command", "config", "foreground", "group", "hooks", "host", "hostname", "keeper", "log",
                 "mounts", "network", "own", "root", "services", "shell", "sources", "state")

    config: Config
    sources: Sources            # what the root file system is made of
    state: State
    group: Fd                   # the control group
    mounts: Fd                  # the mount namespace that PID 1 enters
    network: Fd                 # the network namespace
    log: Fd
    root: Fd                    # the root directory, on LIVE
    own: View                   # what this process sees in the subhost's mount namespace
    hooks: Hooks
    command: list[str]          # what PID 1 executes
    services: list[str]         # that this starts
    hostname: str
    keeper: Keeper

    def __init__(self, config: Config, *, foreground: bool = False, shell: bool = False) -> None:
        """For a shell, the subhost will live as long as this process, without services, and then hibernate."""
        self.config = config
        self.foreground = foreground
        self.shell = shell
        self.host: View | None = None               # what this process saw before
        self.cables: "Plugging | None" = None

    def run(self) -> None:
        """Take all steps.  Raises Failure, with nothing left of the boot, if one fails.

        In the foreground it does not return: this process becomes the keeper.
        """
        for step in BEGINNING:
            step.execute(self)
        hibernates = self.state.is_hibernating()
        try:
            for step in TAKING_UP if hibernates else MAKING:
                if step.concerns(self):
                    step.execute(self)
        except BaseException:
            self.undo(hibernates=hibernates)
            raise

    def undo(self, *, hibernates: bool) -> None:
        """Remove what the steps have made.  A subhost that hibernated goes on hibernating."""
        interruption.ignore()
        if self.cables:
            self.cables.give_up()
        if self.host:
            self.host.enter()
        try:
            hibernate(self.state) if hibernates else clear(self.state)
        except (OSError, Failure) as error:
            complain(f"cannot undo all of the boot: {reason(error)}")

    def outside(self) -> "Outside":
        """Return a context in which this process sees what the host sees."""
        return Outside(self)


class Outside:
    __slots__ = ("boot",)

    def __init__(self, boot: Boot) -> None:
        self.boot = boot

    def __enter__(self) -> None:
        assert self.boot.host
        self.boot.host.enter()

    def __exit__(self, *_: object) -> None:
        self.boot.own.enter()


class Step:
    """A step of a boot."""

    title: str                  # as in overlay-boot(8)

    def concerns(self, boot: Boot) -> bool:
        """Tell whether there is anything to do for this configuration."""
        return True

    def describe(self, boot: Boot) -> str:
        """Return what it does, for a plan.  CONF is resolved, and nothing made."""
        raise NotImplementedError

    def execute(self, boot: Boot) -> None:
        """Do it.  Raises Failure or OSError."""
        raise NotImplementedError


class ReadConf(Step):
    title = "Read CONF"

    def describe(self, boot: Boot) -> str:
        return f"{boot.config.path} gives NAME={boot.config.name} and LOG={boot.config.log}"

    def execute(self, boot: Boot) -> None:
        boot.config.resolve_log()


class TakeTheName(Step):
    title = "Take the name"

    def describe(self, boot: Boot) -> str:
        return f"lock the byte COMMAND of {state.directory_of(boot.config.name)}/state"

    def execute(self, boot: Boot) -> None:
        interruption.hold()
        boot.state = state.claim(boot.config.name)
        if boot.state.is_hibernating():
            from . import hibernation
            hibernation.refuse_others(boot.config, boot.state)


class Sweep(Step):
    title = "Sweep"

    def describe(self, boot: Boot) -> str:
        return "remove what a killed predecessor of that name has left behind"

    def execute(self, boot: Boot) -> None:
        if boot.state.is_of_2_0_0:
            clear(boot.state)
            boot.state = state.claim(boot.config.name)
        clear_leftovers(boot.state)
        boot.state.forget()
        if network.is_there(boot.config.name):
            from . import subhosts
            subhosts.refuse_inherited(boot.config.name)
        boot.state.begin(boot.config.path)


class ControlGroup(Step):
    title = "Control group"

    def describe(self, boot: Boot) -> str:
        return f"make {cgroup.PARENT}/{boot.config.name}, or {boot.config.name} below the group of a delegated unit"

    def execute(self, boot: Boot) -> None:
        boot.group = cgroup.make(boot.state)


class MountNamespace(Step):
    title = "Mount namespace"

    def describe(self, boot: Boot) -> str:
        return "make a private copy of the host's"

    def execute(self, boot: Boot) -> None:
        if boot.shell:
            from . import hibernation
            boot.host, boot.own = hibernation.unshare_kept_mounts(boot.state)
            boot.own.enter()
        else:
            boot.host, boot.own = rootfs.unshare_mounts()
        boot.mounts = boot.own.mounts


class Resolve(Step):
    title = "Resolve"

    def describe(self, boot: Boot) -> str:
        image = f", mount IMAGE={boot.config.image[0]} on {boot.config.base}/mnt" if boot.config.image else ""
        return f"find the values of all other variables{image}, and check the directories and the cables"

    def execute(self, boot: Boot) -> None:
        boot.config.resolve(boot.group)
        if boot.shell:
            boot.config = boot.config.left_to_shell()
        if boot.config.image:
            from . import diskfile
            diskfile.mount_image(boot.config)
        boot.sources = Sources(boot.config)
        check(boot.config, boot.sources)


class Layers(Step):
    title = "Layers"

    def concerns(self, boot: Boot) -> bool:
        return bool(boot.sources.layers)

    def describe(self, boot: Boot) -> str:
        return f"unpack archives that are not in the cache yet; above LOWER lie {', '.join(boot.sources.layers)}"

    def execute(self, boot: Boot) -> None:
        from . import layers
        boot.sources.put_layers(layers.provide(boot.sources.layers, boot.config.layer_limit, boot.state))


class UpperOnTmpfs(Step):
    title = "UPPER on a tmpfs"

    def concerns(self, boot: Boot) -> bool:
        return bool(boot.sources.tmpfs)

    def describe(self, boot: Boot) -> str:
        point = f"{state.directory_of(boot.config.name)}/upper"
        return f"mount one of the size {boot.sources.tmpfs} on {point}, and make UPPER and WORK in it"

    def execute(self, boot: Boot) -> None:
        rootfs.mount_upper(boot.sources, boot.state)


class Log(Step):
    title = "Log"

    def describe(self, boot: Boot) -> str:
        return f"open {boot.config.log} for appending"

    def execute(self, boot: Boot) -> None:
        with boot.outside():
            boot.log = log.make(boot.config.log, (boot.sources.upper, boot.sources.live))


class Network(Step):
    title = "Network"

    def describe(self, boot: Boot) -> str:
        begin = f"; begin the cables {' '.join(boot.config.cables)}" if boot.config.cables else ""
        return f"make {network.path_of(boot.config.name)}, with lo up{begin}"

    def execute(self, boot: Boot) -> None:
        config = boot.config
        with boot.outside():
            boot.network = network.make(boot.state)
            if config.cables:
                from . import cables
                boot.cables = cables.Plugging(config, boot.state, boot.network, boot.log)
        boot.hooks = Hooks(config, boot.sources, boot.group, boot.log)
        if not hooks.are_default(config):
            # ip-netns(8) shall do in a hook: the cables are there, the name is in its mount namespace
            if boot.cables:
                boot.cables.wait()
            network.mount_name(config.name, boot.network)


class Premount(Step):
    title = "PREMOUNT"

    def concerns(self, boot: Boot) -> bool:
        return not boot.sources.is_premounted

    def describe(self, boot: Boot) -> str:
        return f"run {' '.join(boot.config.premount)} {boot.sources.upper}"

    def execute(self, boot: Boot) -> None:
        boot.hooks.premount()


class RootOnLive(Step):
    title = "The root on LIVE"

    def describe(self, boot: Boot) -> str:
        sources = boot.sources
        if sources.is_overlay:
            return f"mount an overlay on {sources.live}: {sources.upper} above {', '.join(sources.lower)}"
        if sources.is_premounted:
            return f"{sources.live} serves as it is, with what is mounted below it"
        return f"bind-mount {sources.upper} on {sources.live}"

    def execute(self, boot: Boot) -> None:
        for number, path in enumerate(boot.sources.lower):
            boot.state.note("lower", path, str(number))
        boot.root = rootfs.mount_root(boot.sources)
        with rootfs.mount_place(boot.root, "proc"):     # for PID 1 to mount on
            pass


class Postmount(Step):
    title = "POSTMOUNT"

    def describe(self, boot: Boot) -> str:
        return f"run {' '.join(boot.config.postmount)} {boot.sources.live} {boot.sources.upper}"

    def execute(self, boot: Boot) -> None:
        boot.hooks.postmount(boot.root, boot.network)


class Share(Step):
    title = "SHARE"

    def concerns(self, boot: Boot) -> bool:
        return bool(boot.config.share)

    def describe(self, boot: Boot) -> str:
        pairs = [outside if outside == inside else f"{outside} on {inside}" for outside, inside in boot.config.share]
        return f"bind-mount {', '.join(pairs)}"

    def execute(self, boot: Boot) -> None:
        from . import shares
        shares.mount_all(boot.config.share, boot.state, boot.root)


class Init(Step):
    title = "INIT"

    def describe(self, boot: Boot) -> str:
        if hooks.is_default(boot.config, "INIT") and not boot.config.start:
            return "nothing is to be started: PID 1 is to be the reaper at once"
        return f"run {' '.join(boot.config.init)}, which prints the shell commands of PID 1"

    def execute(self, boot: Boot) -> None:
        boot.command, boot.services = boot.hooks.init(boot.root)


class Cables(Step):
    title = "Cables"

    def concerns(self, boot: Boot) -> bool:
        return bool(boot.config.cables)

    def describe(self, boot: Boot) -> str:
        return "wait until the cables are there"

    def execute(self, boot: Boot) -> None:
        assert boot.cables
        boot.cables.wait()


class PidOne(Step):
    title = "PID 1"

    def describe(self, boot: Boot) -> str:
        return (f"start the keeper, which makes PID, IPC, UTS, time and cgroup namespaces and a process in them; "
                f"that makes {boot.sources.live} its root, detaches the host's, and executes the commands of INIT")

    def execute(self, boot: Boot) -> None:
        note(boot)
        boot.hostname = hostname(boot.config, boot.sources)
        if boot.shell:
            from . import hibernation
            require_shell(boot.root)
            hibernation.note(boot.state, hooks.values(boot.config, boot.sources), boot.hostname)
        start_keeper(boot)


class HandOver(Step):
    title = "Hand over"

    def describe(self, boot: Boot) -> str:
        return "once PID 1 has been executed, the keeper notes its process id and releases COMMAND"

    def execute(self, boot: Boot) -> None:
        boot.keeper.wait()


# A subhost that hibernates has its mounts and its network already.

class SweepHibernating(Sweep):
    def execute(self, boot: Boot) -> None:
        hibernate(boot.state)


class MountsTakenUp(MountNamespace):
    def execute(self, boot: Boot) -> None:
        from . import hibernation
        boot.network = network.reopened(boot.state)
        boot.mounts = hibernation.reopened(boot.state.record())
        boot.host, boot.own = rootfs.unshare_mounts()       # for what a `!` command or a hook mounts
        boot.root = hibernation.root_of(boot.mounts)


class ResolveAgain(Resolve):
    def execute(self, boot: Boot) -> None:
        boot.config.resolve(boot.group, boot.state.record().values)
        if boot.shell:
            boot.config = boot.config.left_to_shell()
            require_shell(boot.root)
        boot.sources = Sources(boot.config)


class InitAgain(Init):
    def execute(self, boot: Boot) -> None:
        boot.hooks = Hooks(boot.config, boot.sources, boot.group, boot.log)
        super().execute(boot)


class PidOneAgain(PidOne):
    def execute(self, boot: Boot) -> None:
        note(boot)
        boot.hostname = boot.state.record().host_name
        boot.root = Fd(keeper.NONE)
        start_keeper(boot)


BEGINNING: tuple[Step, ...] = (ReadConf(), TakeTheName())
MAKING: tuple[Step, ...] = (Sweep(), ControlGroup(), MountNamespace(), Resolve(), Layers(), UpperOnTmpfs(), Log(), Network(), Premount(),
          RootOnLive(), Postmount(), Share(), Init(), Cables(), PidOne(), HandOver())
TAKING_UP: tuple[Step, ...] = (SweepHibernating(), ControlGroup(), MountsTakenUp(), ResolveAgain(), Log(), InitAgain(), PidOneAgain(),
             HandOver())


def boot(config: Config, *, foreground: bool = False, shell: bool = False) -> None:
    """Boot a subhost.  Returns once its PID 1 has been executed; see Boot."""
    posix.umask(0o022)
    namespaces.close_range(3)
    Boot(config, foreground=foreground, shell=shell).run()


def plan(config: Config) -> list[tuple[str, str]]:
    """Return the steps of a boot of a configuration that is resolved: (title, what it does)."""
    would_be = Boot(config)
    would_be.sources = Sources(config)
    return [(step.title, step.describe(would_be)) for step in (*BEGINNING, *MAKING) if step.concerns(would_be)]


def note(boot: Boot) -> None:
    """Note what other commands, and a stop above all, want to know of the subhost."""
    boot.state.note("start", boot.services)
    boot.state.note("timeout", boot.config.stop_timeout)
    boot.state.note("log", boot.config.log)
    boot.state.note("upper", boot.sources.upper)
    boot.state.note("since", state.now())


@doing("start the keeper")
def start_keeper(boot: Boot) -> None:
    """Start the keeper, or in the foreground become it."""
    handover = Handover()
    handover.name, handover.hostname, handover.command = boot.config.name, boot.hostname, boot.command
    handover.state, handover.mounts, handover.network = boot.state.fd, boot.mounts, boot.network
    handover.group, handover.root, handover.log = boot.group, boot.root, boot.log
    handover.bound = boot.shell
    assert boot.host
    boot.host.enter()
    if boot.foreground:
        keeper.become(handover)
    boot.keeper = Keeper(handover)


def require_shell(root: int) -> None:
    from . import entry
    if not entry.shell_of(root):
        raise Failure("there is no shell in the subhost")


def hostname(config: Config, sources: Sources) -> str:
    """Return what UPPER or a layer has as /etc/hostname if it is one, else NAME; never the host's own, which LOWER has."""
    text = read_own(sources, "etc/hostname", LONGEST_HOSTNAME + 1)
    name = text.strip().decode("ascii", "replace")
    is_one = 0 < len(name) <= LONGEST_HOSTNAME and all(letter.isalnum() or letter in "-." for letter in name)
    return name if is_one and name.isascii() else config.name


def read_own(sources: Sources, path: str, limit: int) -> bytes:
    """Return at most limit bytes of a file in UPPER, else in a layer that tells of this subhost, b"" if there is none."""
    places = [sources.upper]
    if sources.layers:
        from . import layers
        places += layers.own(sources.layers)
    for place in places:
        try:
            with rootfs.directory(place, "UPPER") as root:
                return beneath.read(root, path, limit, beneath.INSIDE)
        except OSError:
            continue
    return b""
