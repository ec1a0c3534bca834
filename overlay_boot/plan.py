"""overlay-boot --check: the values of a configuration, and the plan of its boot."""
from . import (
    beneath,
    cgroup,
    fences,
    files,
    hooks,
    interfaces,
    limits,
    names,
    network,
    order,
    rootfs,
    services,
    state,
    uppers,
)
from .boot import BEGINNING, MAKING, SERVICES_TIMEOUT, WAKING, Boot, check
from .config import AUTO, NO, SECRETS, SITE_WIDE, Config
from .errors import Failure, complain
from .files import Fds
from .sources import Sources
from .state import State
from .subhosts_conf import listed, real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SECRETS = 8        # that are named without verbose


def report(path: str, *, verbose: bool = False) -> None:
    """Print every variable of a configuration file with its effective value.

    With verbose, print where each value comes from, and the plan of a boot, as well.
    Raises Failure if a boot would find something wrong before it makes anything.
    """
    host, own = rootfs.unshare_mounts()     # what a `!` command mounts goes with this process
    config = Config(path, "overlay-check")
    try:
        sources = resolved(config)
        if config.lower_mounts and sources.is_overlay:
            host.enter()
            sources.mounts = rootfs.mounts_below(sources, config.lower_mounts)
            own.enter()
    except Failure as failure:
        config.locate(failure)
        raise
    if sources.is_overlay and not sources.tmpfs and hooks.is_default(config, "PREMOUNT"):   # it mounts nothing there
        rootfs.check_writable(sources)
        rootfs.check_unlocked(sources)
    for line in warnings_of_start(config, sources):
        complain(line)
    if config.is_of_image:
        from . import layers, oci
        for line in oci.unserved(config, layers.config_of(config.layers)):
            complain(config.located(line))
    for line in interfaces.contradictions(config, sources):
        complain(config.located(line))
    if config.cables:
        from . import cables
        for line in cables.refused_stanzas(cables.parse(config.cables, config.name)):
            complain(config.located(line))
    if config.address and config.address != [AUTO]:
        tell_what_is_left(config, sources)
    if config.is_behind_host:
        from . import cables, nat
        for line in nat.in_the_way([cables.parse(config.cables, config.name)[0].name]):
            complain(config.located(f"{nat.variable(config)}: {line}"))
    if config.cables and hooks.is_default(config, "PREMOUNT") and names.lacks_resolver(config, sources):
        complain(config.located("CABLES: no names will be resolved in the subhost: resolv.conf names no server that it "
                                "can reach, and whom the host's own server asks is not known"))
    for variable, lost in fences.lost_by_default(config.capabilities, config.system_calls, config.default_capabilities):
        complain(config.located(f"{variable}: with the default, the subhost would lose {' '.join(lost)}"))
    if sources.is_overlay:
        tell_what_is_seen(config, sources, verbose=verbose)
    for name in unknown_before(config):
        complain(f"{order.unknown(name)}: overlay-boot --all will not boot this subhost")
    settings = config.settings()
    lines = [f"{variable}={value}" for variable, value in settings.items()]
    lines += [f"LAYER={path}" for path in config.layers]
    lines += [":".join([f"SHARE={outside}", inside, *filter(None, [",".join(options)])])
              for outside, inside, options in config.share]
    if verbose:
        repeated = [variable for variable in ("LAYER", "SHARE") if variable in config.assigned]
        lines += ["", *(f"{one}: {source}" for one in (*settings, *repeated) for source in config.sources(one))]
        lines += ["", *(f"{title}: {what}" for title, what in plan(config, sources))]
    files.write_all(1, "\n".join(lines) + "\n")


def resolved(config: Config) -> Sources:
    """Find the values of a configuration.  Return what the root file system is made of.

    Raises Failure if a boot would.
    """
    config.add_site_wide()
    config.resolve_log()
    config.resolve_limits()
    check_limits(config)
    config.resolve()
    if config.image:
        from . import diskfile
        diskfile.mount_image(config)
    sources = Sources(config)
    users = None
    if config.userns != NO:
        from . import userns
        users = userns.make_to_check(config)
    elif fences.reach_no_further(config.capabilities):
        for fd in fences.local_users():
            fd.close()
    check(config, sources, interfaces_of(config.name), users=users)
    uppers.check(sources, config.name)
    if config.address and config.address != [AUTO]:
        from . import addresses, cables
        addresses.refuse_used(addresses.parse(config.address, cables.parse(config.cables, config.name)), config.name)
    fences.wanted(config.capabilities, config.system_calls)
    return sources


def check_limits(config: Config) -> None:
    """Raises Failure for a limit that this host cannot keep.  Of PIDS_MAX, adds the default to a configuration."""
    controllers = cgroup.controllers()
    limits.check_host(config.limits, controllers)
    config.limits = {"PIDS_MAX": cgroup.PIDS_MAX if "pids" in controllers else limits.NONE, **config.limits}


def warnings_of_start(config: Config, sources: Sources) -> list[str]:
    """Return what is to be told of words of START."""
    return [config.located(f"START: {word} will not be started: no {script} was found in UPPER, LAYER or LOWER{hint}")
            for word, script, hint in missing_scripts(config, sources)]


def missing_scripts(config: Config, sources: Sources) -> "Iterator[tuple[str, str, str]]":
    """Yield (word, path of its script, what might help) of each word of START whose script is not there.

    As far as that can be known.
    """
    places = [*sources.layers, *sources.lower, *([] if sources.tmpfs else [sources.upper])]
    if config.share or not hooks.are_default(config) or any(files.kind(place) != files.DIRECTORY for place in places):
        return
    for word in config.start:
        script = word if word.startswith("/") else f"{services.SCRIPTS}{word}"
        # A link that leads from one of them into another is not followed, but for those of the merged /usr.
        if not any(is_in(place, path) for place in places for path in (script, f"/usr{script}")):
            unit = f"{services.UNITS}{word}.service"
            yield word, script, f", {services.ONLY_UNIT}" if any(is_in(place, unit) for place in places) else ""


def unknown_before(config: Config) -> list[str]:
    """Return the names in AFTER for which overlay-boot --all would not boot this subhost."""
    files = listed()
    if not config.after or config.path not in map(real, files):
        return []
    _, named = order.read_all(files)
    return [name for name in config.after if name not in named and name not in order.running()]


def is_in(place: str, path: str) -> bool:
    with rootfs.directory(place, "LOWER") as root:
        return beneath.exists(root, path, beneath.INSIDE)


def tell_what_is_seen(config: Config, sources: Sources, *, verbose: bool) -> None:
    """Complain of what HIDE names in vain, and of secrets of LOWER that can be read; with verbose, of all of these."""
    from . import exposure, hiding
    places = [*sources.layers, *([] if sources.tmpfs else [sources.upper])]
    directories = [place for place in places if files.kind(place) == files.DIRECTORY]       # a LAYER may be an archive
    with rootfs.opened_lower(sources) as lower, rootfs.whole_lower(sources, lower) as below, \
            Fds(rootfs.directory(path, "UPPER") for path in directories) as above:
        for path in sources.hide:
            if path != SECRETS and not hiding.place_to_hide(below, path):
                complain(config.located(f"HIDE: {path} is not in LOWER"))
        try:
            found = exposure.readable(config, sources, below, above)
        except Failure as failure:
            if SECRETS in sources.hide:
                raise
            complain(failure)
            return
    if found:
        most = len(found) if verbose else MOST_SECRETS
        more = f", and {len(found) - most} more" if len(found) > most else ""
        complain(f"the subhost can read secrets of LOWER={':'.join(config.lower)}: {', '.join(found[:most])}{more}; "
                 f"HIDE can hide them")


def tell_what_is_left(config: Config, sources: Sources) -> None:
    """Complain of words of ADDRESS in whose place interfaces(5) of the subhost counts."""
    from . import addresses, cables
    addresses.left_to_file(addresses.parse(config.address, cables.parse(config.cables, config.name)),
                           interfaces.configured(config, sources))


def interfaces_of(name: str) -> dict[str, int]:
    """Return the interfaces on the host that are on record for a subhost: {name: index}."""
    try:
        with State(name) as opened:
            record = opened.record()
    except FileNotFoundError:
        return {}
    return record.cables | record.vlans


def plan(config: Config, sources: Sources) -> list[tuple[str, str]]:
    """Return the steps of a boot of a configuration that is resolved: (title, what it does)."""
    boot = Boot(config)
    boot.sources = sources
    if sources.tmpfs:
        sources.put_upper(rootfs.mount_point_of(config.name))
    if sources.layers:
        sources.put_layers([*dict.fromkeys(reversed(sources.layers))])
    says = {**of_the_host(config), **of_the_root(config, sources)}
    steps = MAKING
    if hibernates(config.name):
        says.update(of_waking(config))
        steps = WAKING
    return [(step.title, says[step.title]) for step in (*BEGINNING, *steps) if step.concerns(boot)]


def hibernates(name: str) -> bool:
    try:
        with State(name) as opened:
            return opened.is_hibernating()
    except FileNotFoundError:
        return False


def of_waking(config: Config) -> dict[str, str]:
    """Return what is different in a boot that wakes a subhost: {title: description}."""
    return {
        "Sweep": "remove the control group, if it is still there",
        "Mount namespace": f"open the one that is kept, and {network.path_of(config.name)}; make a private copy of the "
                           f"host's for hooks",
        "Resolve": "find START, STAY, AFTER, INIT, BOOT_TIMEOUT, STOP_TIMEOUT and LOG anew; the other variables have "
                   "the values that they had",
        "User namespace": "open the one that is kept, and let it make control groups below that of the subhost",
        "PID 1": "start the keeper, which makes PID, IPC, UTS, time and cgroup namespaces and a process in them; that "
                 "enters the mounts and the network that are kept, and executes the commands of INIT",
    }


def of_the_host(config: Config) -> dict[str, str]:
    """Return what the steps do on the host: {title: description}."""
    image = f", mount IMAGE={config.image[0]} on {config.base}/mnt" if config.image else ""
    cables = " ".join(config.cables)
    limited = ", ".join(f"{variable}={value}" for variable, value in config.limits.items())
    users = f", make a user namespace (USERNS={config.userns})" if config.userns != NO else ""
    begin = f"; make the cables {cables}, and start ifup for those without a bridge" if cables else ""
    addresses = " ".join(config.address)
    inside = f"; give the subhost's ends {addresses}" if addresses else ""
    started = "the main process has" if config.is_of_image else f"{', '.join(config.start)} have"
    outside = ", and give the host's ends the addresses of gateways" if addresses else ""
    if config.is_behind_host:
        inside += (f"; make a table of nftables for NAT={config.nat} and PUBLISH={' '.join(config.publish)}, and have "
                   f"the host forward packets")
    return {
        "Read CONF": f"read {config.path}, and {SITE_WIDE} if there is one: NAME={config.name} and LOG={config.log}",
        "Take the name": f"lock the byte COMMAND of {state.file_of(config.name)}",
        "Sweep": "remove what a killed predecessor of that NAME has left behind",
        "Control group": f"make {cgroup.PARENT}/{config.name}, or {config.name} below the group of a delegated unit; "
                         f"limit it by {limited}",
        "Mount namespace": "make a private copy of the host's",
        "Resolve": f"find the values of all other variables{image}{users}, and check the directories and the cables",
        "Log": f"open {config.log} for appending",
        "Network": f"make {network.path_of(config.name)}, with lo up{begin}{inside}",
        "Service groups": f"make a control group below that of the subhost for each of {', '.join(config.start)}",
        "Cables": f"wait for ifup, and bring up what it has left down{outside}",
        "PID 1": f"start the keeper, which makes PID, IPC, UTS, time and cgroup namespaces and a process in them; that "
                 f"makes {config.live} its root, detaches the host's, and executes the commands of INIT",
        "Hand over": "once PID 1 has been executed, the keeper notes its process id, and COMMAND is released",
        "Services": f"wait until {started} been started, for {SERVICES_TIMEOUT} s at most, and tell which fail",
    }


def of_the_root(config: Config, sources: Sources) -> dict[str, str]:
    """Return what the steps do for the root file system: {title: description}."""
    shares = [" ".join([outside if outside == inside else f"{outside} on {inside}", *(f"({one})" for one in options)])
              for outside, inside, options in config.share]
    if config.is_of_image:
        init = "PID 1 is to be the reaper at once, which starts what the image tells of"
    elif hooks.is_default(config, "INIT") and not config.start:
        init = "nothing is to be started: PID 1 is to be the reaper at once"
    else:
        init = f"run {' '.join(config.init)}, which prints the shell commands of PID 1"
    return {
        "Layers": "unpack archives and images that are not in the cache yet; above LOWER lie "
                  f"{', '.join(sources.layers)}",
        "UPPER on a tmpfs": f"mount one of the size {sources.tmpfs} on {rootfs.mount_point_of(config.name)}, and make "
                            f"UPPER and WORK in it",
        "PREMOUNT": f"run {' '.join(config.premount)} {sources.upper}",
        "The root on LIVE": root_on_live(sources),
        "POSTMOUNT": f"run {' '.join(config.postmount)} {sources.live} {sources.upper}",
        "User namespace": "copy the mounts into it, locked, and let it make control groups below that of the subhost",
        "SHARE": f"bind-mount {', '.join(shares)}",
        "INIT": init,
    }


def root_on_live(sources: Sources) -> str:
    """Return in which of the three ways the root file system is mounted."""
    if sources.is_overlay:
        number = len(sources.layers)
        hiding = [f"a layer that hides {', '.join(sources.hide)}"] if sources.hide else []
        beneath_it = ", ".join((*sources.lower[:number], *hiding, *sources.lower[number:]))
        mounts = ", and another one for what is mounted on ".join(["", *(mount.inside for mount in sources.mounts)])
        return f"mount an overlay on {sources.live}: {sources.upper} above {beneath_it}{mounts}"
    if sources.is_premounted:
        return f"{sources.live} serves as it is, with what is mounted below it"
    return f"bind-mount {sources.upper} on {sources.live}"
