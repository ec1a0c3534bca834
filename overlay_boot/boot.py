"""The story of a boot, step for step as in overlay-boot(8)."""
import posix

from . import (
    cgroup,
    fences,
    files,
    hooks,
    interruption,
    keeper,
    log,
    names,
    namespaces,
    network,
    paths,
    proc,
    rootfs,
    state,
    uppers,
)
from .capabilities import MKNOD
from .clearing import clear, clear_leftovers, hibernate
from .config import NO, SYSTEMD, Config
from .errors import Failure, complain, doing, reason
from .fences import Fences
from .files import Fd, Fds, Reserve
from .hooks import Hooks
from .keeper import Keeper
from .rootfs import Seeing, View
from .sources import Sources
from .state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .addresses import Given
    from .cables import Plugged
    from .record import Record
    from .userns import UserNamespace

SERVICES_TIMEOUT = 10       # seconds, for which services that are being started are waited for
SERVICES_FAILED = 3         # the exit status where services are waited for, and one fails
LOG_TIMEOUT = 1             # seconds, for what a service has printed to come to LOG


class Boot:
    """A boot, and what its steps have made so far."""

    __slots__ = ("addresses", "begun", "behind", "bound", "cables", "command", "config", "fences", "follower",
                 "foreground", "group", "handed_over", "hooks", "host", "hostname", "is_new", "keeper", "kept",
                 "lacking", "log", "logged", "main", "mounts", "network", "own", "reserve", "rights", "root",
                 "services", "shell", "sources", "state", "unlocked", "users", "wait", "wait_bridges")

    config: Config
    sources: Sources            # what the root file system is made of
    is_new: bool                # UPPER has nothing of an earlier boot
    fences: Fences
    state: State
    group: Fd                   # the control group
    mounts: Fd                  # the mount namespace that PID 1 enters
    network: Fd                 # the network namespace
    log: Fd
    begun: int                  # the size of LOG when the boot began, in bytes
    reserve: Reserve            # for undo()
    root: Fd                    # the root directory, on LIVE
    own: View                   # what this process sees in the subhost's mount namespace
    unlocked: View              # what it saw there before its mounts were locked, with a user namespace
    hooks: Hooks
    command: list[str]          # what PID 1 executes
    services: list[str]         # that this starts
    main: Fd | None             # what PID 1 reads of its main process, where an image tells of one
    hostname: str
    keeper: Keeper

    def __init__(self, config: Config, *, foreground: bool = False, shell: bool = False, follower: int | None = None,
                 wait: bool = False, wait_bridges: bool = False) -> None:
        """A subhost for a shell lives no longer than this process: it will be without services, and then hibernate.

        So does one for the process of an overlay-follow.  wait tells whether services are waited for however long they
        take, and one that fails is a failure; wait_bridges, whether bridges are that are not there yet.
        """
        self.config = config
        self.bound = follower is not None or shell
        self.follower = follower
        self.foreground = foreground
        self.shell = shell
        self.wait = wait
        self.wait_bridges = wait_bridges
        self.users: "UserNamespace | None" = None   # where USERNS wants one
        self.rights: int = keeper.NONE              # else a user namespace with the ids of the host, or none
        self.host: View | None = None               # what this process saw before
        self.cables: "Plugged | None" = None
        self.addresses: "Given | None" = None
        self.behind: list[str] = []                 # the cables by which it is behind the host's address
        self.kept = Fds()                           # what the keeper has open as long as it lives
        self.lacking: dict[str, str] = {}           # {interface: why} of what may end without an address
        self.main = None
        self.handed_over = False                    # whatever happens now happens to a subhost that runs
        self.logged: int | None = None              # the size of LOG before the hooks, in bytes

    def run(self) -> None:
        """Take all steps.  Raises Failure, with nothing left of the boot, if one fails.

        In the foreground it does not return: this process becomes the keeper.
        """
        self.reserve = Reserve()
        for one in BEGINNING:
            one.execute(self)
        sleeper = self.state.record() if self.state.is_hibernating() else None
        try:
            for one in WAKING if sleeper else MAKING:
                if one.concerns(self):
                    one.execute(self)
        except BaseException as failure:
            if self.handed_over:
                raise
            try:
                self.undo(sleeper)
            except (OSError, Failure) as error:
                why = reason(failure) if isinstance(failure, Exception) else "interrupted"
                raise Failure(f"{why}; and not all of the boot can be undone: {reason(error)}") from None
            raise

    def undo(self, sleeper: "Record | None") -> None:
        """Remove what the steps have made.  A subhost that hibernated goes on as it was on record.

        Raises OSError or Failure if that cannot be.
        """
        interruption.ignore()
        self.reserve.release()
        if self.cables:
            self.cables.give_up()
        with self.kept:
            pass
        if self.host:
            self.host.enter()
        if sleeper:
            hibernate(self.state)
            self.state.note("since", sleeper.since)
        else:
            clear(self.state)
        self.show_log()

    def show_log(self) -> None:
        """In the foreground, print what the hooks and ifup have printed, which is in LOG; once."""
        if self.logged is not None:
            log.show(self.log, self.logged)
            self.logged = None

    def outside(self) -> Seeing:
        """Return a context in which this process sees what the host sees."""
        assert self.host
        return Seeing(self.host, self.own)


class Step:
    """A step of a boot: its title, as overlay-boot(8) has it, and what is done.

    concerns tells whether there is anything to do for this configuration.  plan.py
    describes each step: a boot need not load those descriptions.
    """

    __slots__ = ("concerns", "execute", "title")

    def __init__(self, title: str, execute: "Callable[[Boot], None]", concerns: "Callable[[Boot], object]") -> None:
        self.title = title
        self.execute = execute
        self.concerns = concerns


def step(title: str, concerns: "Callable[[Boot], object]" = lambda _: True,
         ) -> "Callable[[Callable[[Boot], None]], Step]":
    """Decorate a function to be a step."""
    def decorate(execute: "Callable[[Boot], None]") -> Step:
        return Step(title, execute, concerns)
    return decorate


@step("Read CONF")
def read_conf(boot: Boot) -> None:
    boot.config.add_site_wide()
    boot.config.resolve_log()
    boot.config.resolve_limits()
    if boot.config.limits:
        from . import limits
        limits.check(boot.config.limits)


@step("Take the name")
def take_the_name(boot: Boot) -> None:
    interruption.hold()
    boot.state = state.claim(boot.config.name)
    while boot.state.is_of_2_0_0 and not boot.state.is_hibernating():
        clear(boot.state)               # what is made now has its state in another place
        boot.state = state.claim(boot.config.name)
    if boot.state.is_hibernating():
        from . import hibernation
        hibernation.refuse_others(boot.config, boot.state)


@step("Sweep")
def sweep(boot: Boot) -> None:
    if not boot.state.is_empty():
        from . import salvage
        salvage.mend(boot.state)
        clear_leftovers(boot.state)
        boot.state.forget()
    if network.is_there(boot.config.name):
        from . import subhosts
        subhosts.refuse_inherited(boot.config.name)
    boot.state.begin(boot.config.path)
    if boot.follower:
        boot.state.note("follower", boot.follower)


@step("Control group")
def control_group(boot: Boot) -> None:
    boot.group = cgroup.make(boot.state)
    if boot.config.limits:
        from . import limits
        limits.impose(boot.config.limits, boot.group, boot.state)


@step("Mount namespace")
def mount_namespace(boot: Boot) -> None:
    if boot.shell:
        from . import hibernation
        boot.host, boot.own = hibernation.unshare_kept_mounts(boot.state)
        boot.own.enter()
    else:
        boot.host, boot.own = rootfs.unshare_mounts()
    boot.mounts = boot.own.mounts


@step("Resolve")
def resolve(boot: Boot) -> None:
    boot.config.resolve(boot.group)
    if boot.shell:
        boot.config = boot.config.left_to_shell()
    if boot.config.image:
        from . import diskfile
        diskfile.mount_image(boot.config)
    boot.fences = fences.wanted(boot.config.capabilities, boot.config.system_calls)
    boot.sources = Sources(boot.config)
    if boot.config.userns != NO:
        from . import userns
        boot.users = userns.make(boot.config, boot.state)
    if boot.wait_bridges and boot.config.cables:
        from . import cables
        missing = cables.missing_bridges(boot.config.cables, boot.config.name)
        if missing:
            if not boot.foreground:
                let_others_on()
            cables.await_bridges(missing)
    check(boot.config, boot.sources, users=boot.users)
    boot.is_new = uppers.claim(boot.sources, boot.state)
    if boot.config.lower_mounts and boot.sources.is_overlay:
        with boot.outside():            # what an IMAGE or a `!` command has mounted here is not the host's
            boot.sources.mounts = rootfs.mounts_below(boot.sources, boot.config.lower_mounts)


@step("Layers", lambda boot: boot.sources.layers)
def unpack_layers(boot: Boot) -> None:
    from . import layers
    boot.sources.put_layers(layers.provide(boot.sources.layers, boot.config.layer_limit, boot.state))


@step("UPPER on a tmpfs", lambda boot: boot.sources.tmpfs)
def upper_on_tmpfs(boot: Boot) -> None:
    rootfs.mount_upper(boot.sources, boot.state)
    uppers.note(boot.sources, boot.state)


@step("Log")
def open_log(boot: Boot) -> None:
    with boot.outside():
        boot.log = log.make(boot.config.log, (boot.sources.upper, boot.sources.live))
    log.mark_boot(boot.log, boot.config.path)
    if boot.foreground or boot.config.start:
        boot.begun = posix.fstat(boot.log).st_size
    if boot.foreground:
        boot.logged = boot.begun


@step("Network")
def make_network(boot: Boot) -> None:
    config = boot.config
    with boot.outside():
        made = boot.users.network if boot.users else None
        if config.userns == NO and fences.reach_no_further(config.capabilities):
            boot.rights, made = fences.local_users()
        boot.network = network.make(boot.state, made)
        if config.cables:
            from . import cables
            planned = cables.parse(config.cables, config.name)
            boot.cables = cables.plug(planned, boot.state, boot.network, boot.log, addressed=bool(config.address))
            if config.address:
                from . import addresses, interfaces
                boot.addresses = addresses.give(config, planned, boot.network,
                                                interfaces.configured(config, boot.sources), boot.state)
                if config.is_behind_host:
                    from . import nat
                    boot.behind = nat.make(config, boot.state, boot.addresses,
                                           None if boot.bound else boot.kept)
    boot.hooks = Hooks(config, boot.sources, boot.group, boot.log)
    if not hooks.are_default(config):
        # ip-netns(8) shall do in a hook: the cables are there, the name is in its mount namespace
        if boot.cables:
            connect(boot, boot.cables)
        network.mount_name(config.name, boot.network)


@step("PREMOUNT", lambda boot: not boot.sources.is_premounted)
def premount(boot: Boot) -> None:
    boot.hooks.premount()


@step("The root on LIVE")
def root_on_live(boot: Boot) -> None:
    for number, path in enumerate(boot.sources.lower):
        boot.state.note("lower", path, str(number))
    for number, mount in enumerate(boot.sources.mounts):
        boot.state.note("lower_mounts", mount.inside, str(number))
    # A hook of the user's writes there as root of the host, whom the user namespace does not have.
    users = boot.users if hooks.is_default(boot.config, "POSTMOUNT") else None
    with rootfs.made_for(users):
        boot.root = rootfs.mount_root(boot.sources, users)
        with rootfs.mount_place(boot.root, "proc"):     # for PID 1 to mount on
            pass
    if boot.sources.hiding:
        boot.state.note("hiding", boot.sources.hiding)
    if boot.sources.is_overlay:
        boot.state.note("followed", boot.sources.followed)
        if boot.is_new or not files.kind(f"{boot.sources.followed}/status"):
            keep_beneath(boot)


def keep_beneath(boot: Boot) -> None:
    """Keep what the host has of packages, for overlay-follow to know what the subhost was made over."""
    from . import followed
    try:
        followed.begin(boot.sources.followed, [] if boot.sources.tmpfs else boot.sources.lower, is_new=boot.is_new)
    except OSError:         # BASE is full, or read-only: the next boot keeps it, or overlay-follow
        pass


@step("POSTMOUNT")
def postmount(boot: Boot) -> None:
    if hooks.is_default(boot.config, "POSTMOUNT"):
        with rootfs.made_for(boot.users):
            boot.hooks.postmount(boot.root, boot.network, boot.users)
    else:
        boot.hooks.postmount(boot.root, boot.network)
        if boot.users or not boot.config.capabilities & MKNOD:
            rootfs.keep_devices(boot.sources.live)
        if boot.users:
            boot.root = rootfs.remount_root(boot.sources, boot.root, boot.users, boot.log)
            if boot.sources.hiding:
                boot.state.note("hiding", boot.sources.hiding)
    if boot.shell and boot.sources.apart:
        from . import hibernation
        hibernation.keep_apart(boot.state, boot.sources.apart, boot.outside())


@step("User namespace", lambda boot: boot.config.userns != NO)
def user_namespace(boot: Boot) -> None:
    assert boot.users
    cgroup.delegate(boot.group, boot.users.first)
    boot.unlocked = boot.own
    with boot.root as root:
        if boot.shell:
            from . import hibernation
            assert boot.host
            boot.own, boot.root = hibernation.lock_kept_mounts(boot.state, boot.host, boot.own, root, boot.users)
        else:
            boot.own, boot.root = rootfs.lock_mounts(root, boot.users)
    boot.own.enter()
    boot.mounts = boot.own.mounts


@step("SHARE", lambda boot: boot.config.share)
def share(boot: Boot) -> None:
    from . import shares
    with rootfs.made_for(boot.users):
        shares.mount_all(boot.config.share, boot.state, boot.root, boot.sources.live, boot.config.capabilities,
                         boot.users, Seeing(boot.unlocked, boot.own) if boot.config.userns != NO else None)


@step("INIT")
def init(boot: Boot) -> None:
    boot.command, boot.services = boot.hooks.init(boot.root)
    if boot.config.is_of_image:
        told = hooks.main_process(boot.config, boot.state.record().image, boot.root)
        boot.main = Fd(posix.memfd_create("main"))
        files.write_all(boot.main, told)
        posix.lseek(boot.main, 0, 0)


@step("Service groups", lambda boot: boot.config.start or not hooks.is_default(boot.config, "INIT"))
def service_groups(boot: Boot) -> None:
    if hooks.is_for_systemd(boot.command):
        from . import systemd
        systemd.mount_groups(boot.state.record().cgroup or "", boot.root, boot.mounts, boot.users)
        return
    if not boot.services:               # INIT is a hook that starts none
        return
    from . import services
    services.make_groups(boot.services, boot.state.record().cgroup or "", boot.root, boot.mounts, boot.users)


@step("Cables", lambda boot: boot.config.cables)
def wait_for_cables(boot: Boot) -> None:
    assert boot.cables
    connect(boot, boot.cables)
    if boot.config.start:
        from . import interfaces
        boot.lacking = interfaces.lacking(boot.config, boot.sources)


@step("PID 1")
def pid_1(boot: Boot) -> None:
    note(boot)
    boot.hostname = names.hostname(boot.config, boot.sources)
    if boot.shell:
        from . import hibernation
        require_shell(boot.root)
        hibernation.note(boot.state, hooks.values(boot.config, boot.sources), boot.hostname)
    start_keeper(boot, root=boot.root)


@step("Hand over")
def hand_over(boot: Boot) -> None:
    boot.keeper.wait()
    boot.handed_over = True


@step("Services", lambda boot: boot.config.start or boot.config.is_of_image)
def await_services(boot: Boot) -> None:
    """Wait until PID 1 has started the services, and tell of those that fail, as of one that has not ended in time.

    In the foreground, the keeper does.  Raises Failure if the subhost has ended meanwhile, ServicesFailed if one fails,
    or nobody is left to tell, and they are waited for.
    """
    if boot.main is not None:
        await_main(boot)
    if not boot.services:
        return
    keep_only(boot.keeper.said, boot.log, *([boot.network] if boot.lacking else []))
    place = f"LOG={boot.config.log}"
    failed = False
    last: str | None = ""
    try:
        for line in boot.keeper.services(longest_start(boot) if boot.wait else SERVICES_TIMEOUT):
            failed = True
            if last is not None:
                last = last_line(boot, line)
            complain(f"{line}{last and f': {last}' or ''} (what it printed is in {place})")
    except (TimeoutError, Failure):
        failed = True
        complain(f"the services are still being started (what they print is in {place})")
    except EOFError:
        if state.is_ending(boot.keeper.process):
            state.await_clearing(boot.config.name, boot.keeper.process)
            raise Failure(f"{boot.config.name} has ended while its services were being started (see {place})") from None
        failed = True
        complain("cannot tell which services were started: what watches them was killed "
                 f"(what they print is in {place})")
    else:
        tell_what_has_no_address(boot)
    if failed and boot.wait:
        raise ServicesFailed


def tell_what_has_no_address(boot: Boot) -> None:
    """Complain of cables that have ended without an address, where the services have been started that give it."""
    if not boot.lacking:
        return
    from . import interfaces
    try:
        found = interfaces.without_address(boot.lacking, boot.config, boot.network)
    except OSError:                     # the subhost runs all the same
        return
    for name in found:
        complain(f"CABLES: {name} has no address: {boot.lacking[name]}")


def await_main(boot: Boot) -> None:
    """Wait until the main process was executed.  Raises Failure, once the subhost is cleared, if it could not be."""
    keep_only(boot.keeper.said, boot.log)
    why = ""
    try:
        for line in boot.keeper.services(SERVICES_TIMEOUT):
            why = line
    except TimeoutError:
        complain(f"the main process is still being started (see LOG={boot.config.log})")
    except EOFError:
        state.await_clearing(boot.config.name, boot.keeper.process)
        raise Failure(why or f"{boot.config.name} has ended before its main process was started "
                             f"(see LOG={boot.config.log})") from None


def longest_start(boot: Boot) -> float | None:
    """Return for how many seconds services are waited for that are to be waited for; None for as long as they take.

    PID 1 keeps to BOOT_TIMEOUT for each of them: this is for a subhost that does not.
    """
    from .services import KILLED_AFTER
    seconds = boot.config.patience
    return None if seconds is None else SERVICES_TIMEOUT + (seconds + KILLED_AFTER) * len(boot.services)


class ServicesFailed(Failure):
    """A service has failed, and that was told; the subhost runs."""

    def __init__(self) -> None:
        super().__init__("")
        self.status = SERVICES_FAILED


def last_line(boot: Boot, failure: str) -> str | None:
    """Return what a service has printed last before its failure, "" if nothing; None if LOG has no line of that."""
    import time

    from . import services
    end = time.monotonic() + LOG_TIMEOUT
    while time.monotonic() < end and files.kind_of(boot.log) == files.REGULAR:
        said = log.added(boot.log, boot.begun).decode(paths.ENCODING, "replace")
        if f"{failure}\n" in said:
            return services.last_line(said, failure.removeprefix("cannot start ").partition(":")[0], failure)
        time.sleep(0.01)                # the keeper may have to copy it still
    return None


# A subhost that hibernates has its mounts and its network already.

@step("Sweep")
def sweep_hibernating(boot: Boot) -> None:
    if boot.state.is_cut():             # what is noted next would be a part of that line
        from . import salvage
        salvage.mend(boot.state)
    hibernate(boot.state)


@step("Mount namespace")
def reopen_mounts(boot: Boot) -> None:
    from . import hibernation
    boot.network = network.reopened(boot.state)
    boot.mounts = hibernation.reopened(boot.state.record())
    boot.host, boot.own = rootfs.unshare_mounts()       # for what a `!` command or a hook mounts
    hibernation.unmount_groups(boot.mounts)
    boot.root = hibernation.root_of(boot.mounts)


@step("Resolve")
def resolve_again(boot: Boot) -> None:
    boot.config.resolve(boot.group, boot.state.record().values)
    if boot.shell:
        boot.config = boot.config.left_to_shell()
        require_shell(boot.root)
    boot.fences = fences.wanted(boot.config.capabilities, boot.config.system_calls)
    boot.sources = Sources(boot.config)
    if boot.config.userns == NO and fences.reach_no_further(boot.config.capabilities):
        owner = proc.users_of(boot.network)
        if files.identity(owner) != proc.namespace("self", "user"):     # else it was made without
            boot.rights = owner


@step("User namespace", lambda boot: boot.config.userns != NO)
def reopen_user_namespace(boot: Boot) -> None:
    from . import userns
    boot.users = userns.of_mounts(boot.mounts, boot.config.userns)
    cgroup.delegate(boot.group, boot.users.first)


@step("INIT")
def init_again(boot: Boot) -> None:
    boot.hooks = Hooks(boot.config, boot.sources, boot.group, boot.log)
    init.execute(boot)


@step("PID 1")
def pid_1_again(boot: Boot) -> None:
    note(boot)
    boot.hostname = boot.state.record().host_name
    start_keeper(boot, root=keeper.NONE)


BEGINNING = [read_conf, take_the_name]      # until it is known whether the subhost hibernates
MAKING = [sweep, control_group, mount_namespace, resolve, unpack_layers, upper_on_tmpfs, open_log, make_network,
          premount, root_on_live, postmount, user_namespace, share, init, service_groups, wait_for_cables, pid_1,
          hand_over, await_services]
WAKING = [sweep_hibernating, control_group, reopen_mounts, resolve_again, reopen_user_namespace, open_log,
          init_again, service_groups, pid_1_again, hand_over, await_services]


def boot(config: Config, *, foreground: bool = False, shell: bool = False, follower: int | None = None,
         wait: bool = False, wait_bridges: bool = False) -> None:
    """Boot a subhost.  Returns once its PID 1 has been executed, and has started the services; see Boot."""
    posix.umask(0o022)
    namespaces.close_range(3)
    try:
        Boot(config, foreground=foreground, shell=shell, follower=follower, wait=wait, wait_bridges=wait_bridges).run()
    except Failure as failure:
        config.locate(failure)
        raise


def check(config: Config, sources: Sources, own: dict[str, int] | None = None, *,
          users: "UserNamespace | None" = None) -> None:
    """Raises Failure if the subhost cannot be booted here.

    own are its interfaces, {name: index}, if it is running; users is its user namespace.
    """
    rootfs.check(sources, users)
    if users:
        users.check(config)
    if config.devices:
        from . import devices
        devices.check(config.devices)
    if config.init == [SYSTEMD]:
        from . import systemd
        systemd.check(config)
    if config.layers:
        from . import layers
        layers.check(config.layers)
    if config.is_of_image:
        hooks.check_main(config)
    if config.cables:
        from . import cables
        cables.check(cables.parse(config.cables, config.name), own)
    if config.address:
        from . import addresses
        addresses.check(config, own or ())
        if config.is_behind_host:
            from . import nat
            nat.check(config)


@doing("connect the cables")
def connect(boot: Boot, plugged: "Plugged") -> None:
    """Wait for ifup, and give the host's ends what it has left to ADDRESS."""
    failed = plugged.wait(boot.config.patience)
    if failed:
        complain(f"CABLES: {failed} (what it printed is in LOG={boot.config.log})")
    if boot.addresses:
        boot.addresses.set_near()
    if boot.behind:
        from . import nat
        nat.tell_what_is_in_the_way(boot.config, boot.behind)
        boot.behind = []


def note(boot: Boot) -> None:
    """Note what other commands, and a stop above all, want to know of the subhost."""
    fences.note(boot.state, boot.fences, boot.config.system_calls)
    boot.state.note("start", boot.services)
    boot.state.note("after", boot.config.after)
    boot.state.note("timeout", boot.config.stop_timeout)
    boot.state.note("log", boot.config.log)
    boot.state.note("upper", boot.sources.upper)
    boot.state.note("since", state.now())


def start_keeper(boot: Boot, *, root: int) -> None:
    """Start the keeper, or in the foreground become it.  root is keeper.NONE where the mounts have it already."""
    assert boot.host
    boot.host.enter()
    descriptors = {"state": boot.state.fd, "mounts": boot.mounts, "network": boot.network, "group": boot.group,
                   "users": boot.users.fd if boot.users else boot.rights, "root": root, "log": boot.log,
                   "main": keeper.NONE if boot.main is None else boot.main, "requests": requests(boot)}
    for fd in (*boot.sources.apart, *boot.kept):
        posix.set_inheritable(fd, True)         # the keeper has them as long as it lives
    owner = boot.config.owner
    if boot.foreground:
        boot.show_log()
        keeper.become(boot.config.name, boot.hostname, boot.command, descriptors, boot.fences,
                      starts=bool(boot.services) or boot.main is not None, owner=owner)
    boot.keeper = Keeper(boot.config.name, boot.hostname, boot.command, descriptors, boot.fences,
                         starts=bool(boot.services) or boot.main is not None, bound=boot.bound, owner=owner)


def requests(boot: Boot) -> int:
    """Return what something inside asks for the end of the subhost by, unless that is the end of a shell."""
    if boot.bound:
        return keeper.NONE
    with rootfs.made_for(boot.users):
        found = hooks.requests(boot.command, boot.root)
    return keeper.NONE if found is None else found


def keep_only(*kept: int) -> None:
    """Close all other descriptors: the lock, and what only PID 1 shall have."""
    let_others_on()
    lowest = 3
    for fd in sorted(kept):
        posix.closerange(lowest, fd)
        lowest = fd + 1
    posix.closerange(lowest, posix.sysconf("SC_OPEN_MAX"))


def let_others_on() -> None:
    """End standard output: by that, overlay-boot --all, which begins so many at a time, knows that this one waits."""
    with files.null() as null:
        posix.dup2(null, 1)


def require_shell(root: int) -> None:
    from . import entry
    if not entry.shell_of(root):
        raise Failure("there is no shell in the subhost")
