"""What can be wrong with a configuration on this host, found before anything is made."""
from . import rootfs
from .config import Config
from .errors import write
from .state import State


def check(config, records=None):
    """Raises Failure if the subhost cannot be booted on this host; records are its own if it is running."""
    rootfs.check(config)
    if config.cables:
        from . import cables
        cables.check(cables.plan(config.cables, config.name), cables.recorded(records or {}))


def records(name):
    try:
        return State(name).records()
    except FileNotFoundError:
        return {}


def report(path):
    """overlay-boot --check: print every variable of a configuration file with its effective value."""
    config = Config(path, "overlay-check")
    rootfs.unshare_mounts()         # what a `!` command mounts goes with this process
    config.resolve()
    check(config, records(config.name))
    lines = [f"{variable}={value}" for variable, value in config.settings().items()]
    lines += [f"SHARE={outside}:{inside}" for outside, inside in config.share]
    write(1, "\n".join(lines) + "\n")
