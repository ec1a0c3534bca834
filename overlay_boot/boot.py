"""The story of a boot, step for step as in overlay-boot(8)."""
import _signal
import posix

from . import PROGRAMS, cgroup, environment, hooks, interruption, namespaces, network, rootfs
from . import log as logs
from .check import check
from .clearing import clear, clear_leftovers, hibernate
from .errors import Failure, complain, doing, reason
from .state import LOWER, claim, now


def boot(config, *, foreground=False, shell=False):
    """Boot the subhost.  Returns once its PID 1 has been executed.

    In the foreground it does not return: this process becomes the keeper.  For a
    shell it will live as long as this process, without services, and then hibernate.
    Raises Failure, with nothing left of the boot, if a step fails.
    """
    posix.umask(0o022)
    namespaces.close_range(3)
    config.resolve_log()
    interruption.hold()
    state = claim(config.name)
    if state.is_hibernating():
        return take_up(config, state, foreground=foreground, shell=shell)
    host = cables = None
    try:
        clear_leftovers(state)
        state.forget()
        refuse_inherited(config.name)
        state.record("config", config.path)
        group = cgroup.make(state)
        host, own = unshare_mounts(state, kept=shell)
        config.resolve(group)
        if shell:
            config.leave_to_shell()
        mount_image(config)
        check(config)
        make_layers(config, state)
        host.enter()
        log = logs.make(config.log, (config.upper, config.live))
        net = network.make(state)
        cables = plug(config, state, net, log)
        own.enter()
        hook = Hook(config, group, log, net, cables)
        if not rootfs.is_premounted(config):
            hook.premount()
        root = rootfs.mount_root(config)
        posix.close(rootfs.below(root, "proc"))     # for the keeper's child to mount on
        hook.postmount(root)
        mount_shares(config, state, root)
        command, started = hook.init(root)
        cables.wait()
        note(config, state, started)
        host_name = hostname(config)
        host.enter()
        if shell:
            prepare_shell(config, state, root, host_name)
        start_keeper(config, command, foreground=foreground, bound=shell, host_name=host_name,
                     state=state, mounts=own.mounts, net=net, group=group, root=root, log=log)
    except BaseException:
        interruption.ignore()
        if cables:
            cables.give_up()
        if host:
            host.enter()
        undo(clear, state)
        raise


def take_up(config, state, *, foreground, shell):
    """Boot a subhost that hibernates: its mounts and its network are as they are.

    Raises Failure if a step fails; it goes on hibernating then.
    """
    from . import hibernation
    host_name = hibernation.hand_down(config, state)
    host = None
    try:
        hibernate(state)                            # whatever was killed since
        group = cgroup.make(state)
        net = network.opened(state)
        mounts = hibernation.opened(state.name)
        host, own = rootfs.unshare_mounts()
        config.resolve(group)
        log = logs.make(config.log, (config.upper, config.live))
        root = hibernation.root_of(mounts)
        if shell:
            config.leave_to_shell()
            require_shell(root)
        command, started = Hook(config, group, log, net, NoCables()).init(root)
        note(config, state, started)
        host.enter()
        start_keeper(config, command, foreground=foreground, bound=shell, host_name=host_name,
                     state=state, mounts=mounts, net=net, group=group, root=-1, log=log)
    except BaseException:
        interruption.ignore()
        if host:
            host.enter()
        undo(hibernate, state)
        raise


def undo(clear_up, state):
    try:
        clear_up(state)
    except (OSError, Failure) as error:
        complain(f"cannot undo all of the boot: {reason(error)}")


def unshare_mounts(state, *, kept):
    """Enter a mount namespace of the subhost's, which is kept if it will hibernate; the views of the host and of it."""
    if not kept:
        return rootfs.unshare_mounts()
    from . import hibernation
    host, own = hibernation.unshare_mounts(state)
    own.enter()
    return host, own


def prepare_shell(config, state, root, host_name):
    """Have the subhost hibernate when the shell has ended, or was killed."""
    from . import hibernation
    require_shell(root)
    hibernation.note(config, state, host_name)


def require_shell(root):
    from . import entry
    if not entry.shell_of(root):
        raise Failure("there is no shell in the subhost")


def note(config, state, started):
    """What other commands, and a stop above all, want to know of the subhost."""
    state.record("start", " ".join(started))
    state.record("timeout", config.stop_timeout)
    state.record("log", config.log)
    state.record("upper", config.upper)
    state.record("since", now())


def refuse_inherited(name):
    """A network namespace of that name may be of a subhost that the shell version has booted."""
    if network.is_there(name):
        from . import shellversion
        shellversion.refuse_running(name)


def mount_image(config):
    if config.image:
        from . import diskfile
        diskfile.mount_image(config)


def mount_shares(config, state, root):
    if config.share:
        from . import shares
        shares.mount_all(config, state, root)


def make_layers(config, state):
    """Have archives unpacked that are layers, and UPPER made where it does not persist; note what is beneath it."""
    if config.layers:
        from . import layers
        layers.provide(config, state)
    if config.tmpfs:
        rootfs.mount_upper(config, state)
    for number, path in enumerate(config.lower):
        state.record(f"{LOWER}{number}", path)


def plug(config, state, net, log):
    """Make the cables; ifup(8) may be at work on them while the mounts go on."""
    if not config.cables:
        return NoCables()
    from . import cables
    return cables.plug(cables.plan(config.cables, config.name), state, net, log)


class NoCables:
    def wait(self):
        pass

    def give_up(self):
        pass


class Hook:
    """The hooks of a boot: the default ones are called here, others are run."""

    def __init__(self, config, group, log, net, cables):
        self.config = config
        self.network = net
        self.child = {"cgroup": group, "log": log}
        if not all(hooks.is_default(config, variable) for variable in ("PREMOUNT", "POSTMOUNT", "INIT")):
            # ip-netns(8) shall do in a hook: the cables are there, the name is in its mount namespace
            cables.wait()
            network.mount_name(config.name, net)

    def premount(self):
        if hooks.is_default(self.config, "PREMOUNT"):
            hooks.premount(self.config)
        else:
            hooks.run(self.config, "PREMOUNT", [self.config.upper], **self.child)

    def postmount(self, root):
        if hooks.is_default(self.config, "POSTMOUNT"):
            hooks.postmount(self.config, root, self.network)
        else:
            hooks.run(self.config, "POSTMOUNT", [self.config.live, self.config.upper], **self.child)

    def init(self, root):
        return hooks.init_command(self.config, root, **self.child)


@doing("start the keeper")
def start_keeper(config, command, *, foreground, bound, host_name, state, mounts, net, group, root, log):
    """Start the keeper, and wait until it has PID 1 executed; or become it.  See _native/keeper.pyx."""
    source, report = (-1, 2) if foreground else posix.pipe()
    boot = 0 if foreground else posix.getpid()
    notify = foreground and environment.variable("NOTIFY_SOCKET") or ""
    descriptors = (state.fd, mounts, net, group, root, 1 if foreground else log, report)
    for fd in descriptors:
        if fd >= 0:
            posix.set_inheritable(fd, True)
    program = f"{PROGRAMS}/keeper"
    argv = ["keeper", config.name, *map(str, (boot, int(bound), *descriptors)), notify, f"{PROGRAMS}/clear",
            host_name, *command]
    with interruption.Wait():
        pass                            # the last moment for it
    if foreground:
        posix.execve(program, argv, environment.inside())
    process = posix.posix_spawn(program, argv, environment.inside(), setsid=True)
    posix.close(report)
    try:
        with interruption.Wait():
            said = read_all(source)
    except BaseException:
        posix.kill(process, _signal.SIGKILL)
        posix.waitpid(process, 0)
        raise
    if said != b"+":
        posix.kill(process, _signal.SIGKILL)
        posix.waitpid(process, 0)
        raise Failure(said.decode() or "the keeper was killed")


def read_all(fd):
    """What is written to a pipe until PID 1 has been executed or cannot be."""
    said = chunk = posix.read(fd, 4096)
    while chunk and said != b"+":
        chunk = posix.read(fd, 4096)
        said += chunk
    return said


def read_own(config, path, limit):
    """At most limit bytes of a file in UPPER, else in a layer that tells of this subhost; b"" if there is none."""
    places = [config.upper]
    if config.layers:
        from . import layers
        places += layers.own(config)
    for place in places:
        root = rootfs.directory(place, "UPPER")
        try:
            return rootfs.read(root, path, limit)
        except OSError:
            continue
        finally:
            posix.close(root)
    return b""


def hostname(config):
    """What UPPER or a layer has as /etc/hostname if it is one, else NAME; never the host's own, which LOWER has."""
    text = read_own(config, "etc/hostname", 65)
    name = text.strip().decode("ascii", "replace")
    is_one = 0 < len(name) <= 64 and all(letter.isalnum() or letter in "-." for letter in name) and name.isascii()
    return name if is_one else config.name
