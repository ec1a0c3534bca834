"""overlay-boot --check: the values of a configuration, and the plan of its boot."""
from . import beneath, cgroup, files, hooks, interfaces, network, rootfs, state
from .boot import BEGINNING, MAKING, SERVICES_TIMEOUT, WAKING, Boot, check
from .config import Config
from .errors import complain
from .rootfs import Sources
from .state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def report(path: str, *, verbose: bool = False) -> None:
    """Print every variable of a configuration file with its effective value; with verbose, the plan of a boot as well.

    Raises Failure if a boot would find something wrong before it makes anything.
    """
    rootfs.unshare_mounts()         # what a `!` command mounts goes with this process
    config = Config(path, "overlay-check")
    config.resolve_log()
    config.resolve()
    if config.image:
        from . import diskfile
        diskfile.mount_image(config)
    sources = Sources(config)
    check(config, sources, interfaces_of(config.name))
    if sources.is_overlay and not sources.tmpfs and hooks.is_default(config, "PREMOUNT"):   # it mounts nothing there
        rootfs.check_writable(sources)
    for word, script in missing_scripts(config, sources):
        complain(f"START: {word} will not be started: no {script} was found in UPPER, LAYER or LOWER")
    for line in interfaces.contradictions(config, sources):
        complain(line)
    lines = [f"{variable}={value}" for variable, value in config.settings().items()]
    lines += [f"LAYER={path}" for path in config.layers]
    lines += [f"SHARE={outside}:{inside}" for outside, inside in config.share]
    if verbose:
        lines += ["", *(f"{title}: {what}" for title, what in plan(config, sources))]
    files.write_all(1, "\n".join(lines) + "\n")


def missing_scripts(config: Config, sources: Sources) -> "Iterator[tuple[str, str]]":
    """Yield (word, path of its script) of each word of START whose script is not there, as far as that can be known."""
    places = [*sources.layers, *sources.lower, *([] if sources.tmpfs else [sources.upper])]
    if config.share or not hooks.are_default(config) or any(files.kind(place) != files.DIRECTORY for place in places):
        return
    for word in config.start:
        script = word if word.startswith("/") else f"/etc/init.d/{word}"
        # A link that leads from one of them into another is not followed, but for those of the merged /usr.
        if not any(is_in(place, path) for place in places for path in (script, f"/usr{script}")):
            yield word, script


def is_in(place: str, path: str) -> bool:
    with rootfs.directory(place, "LOWER") as root:
        return beneath.exists(root, path, beneath.INSIDE)


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
        "Resolve": "find START, INIT, STOP_TIMEOUT and LOG anew; the other variables have the values that they had",
        "PID 1": "start the keeper, which makes PID, IPC, UTS, time and cgroup namespaces and a process in them; that "
                 "enters the mounts and the network that are kept, and executes the commands of INIT",
    }


def of_the_host(config: Config) -> dict[str, str]:
    """Return what the steps do on the host: {title: description}."""
    image = f", mount IMAGE={config.image[0]} on {config.base}/mnt" if config.image else ""
    cables = " ".join(config.cables)
    begin = f"; make the cables {cables}, and start ifup for those without a bridge" if cables else ""
    return {
        "Read CONF": f"{config.path} gives NAME={config.name} and LOG={config.log}",
        "Take the name": f"lock the byte COMMAND of {state.file_of(config.name)}",
        "Sweep": "remove what a killed predecessor of that NAME has left behind",
        "Control group": f"make {cgroup.PARENT}/{config.name}, or {config.name} below the group of a delegated unit",
        "Mount namespace": "make a private copy of the host's",
        "Resolve": f"find the values of all other variables{image}, and check the directories and the cables",
        "Log": f"open {config.log} for appending",
        "Network": f"make {network.path_of(config.name)}, with lo up{begin}",
        "Cables": "wait for ifup, and bring up what it has left down",
        "PID 1": f"start the keeper, which makes PID, IPC, UTS, time and cgroup namespaces and a process in them; that "
                 f"makes {config.live} its root, detaches the host's, and executes the commands of INIT",
        "Hand over": "once PID 1 has been executed, the keeper notes its process id, and COMMAND is released",
        "Services": f"wait until {', '.join(config.start)} have been started, for {SERVICES_TIMEOUT} s at most, and "
                    f"tell which fail",
    }


def of_the_root(config: Config, sources: Sources) -> dict[str, str]:
    """Return what the steps do for the root file system: {title: description}."""
    shares = [outside if outside == inside else f"{outside} on {inside}" for outside, inside in config.share]
    if hooks.is_default(config, "INIT") and not config.start:
        init = "nothing is to be started: PID 1 is to be the reaper at once"
    else:
        init = f"run {' '.join(config.init)}, which prints the shell commands of PID 1"
    return {
        "Layers": f"unpack archives that are not in the cache yet; above LOWER lie {', '.join(sources.layers)}",
        "UPPER on a tmpfs": f"mount one of the size {sources.tmpfs} on {rootfs.mount_point_of(config.name)}, and make "
                            f"UPPER and WORK in it",
        "PREMOUNT": f"run {' '.join(config.premount)} {sources.upper}",
        "The root on LIVE": root_on_live(sources),
        "POSTMOUNT": f"run {' '.join(config.postmount)} {sources.live} {sources.upper}",
        "SHARE": f"bind-mount {', '.join(shares)}",
        "INIT": init,
    }


def root_on_live(sources: Sources) -> str:
    """Return in which of the three ways the root file system is mounted."""
    if sources.is_overlay:
        return f"mount an overlay on {sources.live}: {sources.upper} above {', '.join(sources.lower)}"
    if sources.is_premounted:
        return f"{sources.live} serves as it is, with what is mounted below it"
    return f"bind-mount {sources.upper} on {sources.live}"
