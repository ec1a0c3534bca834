"""What can be wrong with a configuration on this host, found before anything is made."""
from . import files, rootfs
from .config import Config
from .state import State


def check(config, own=None):
    """Raises Failure if the subhost cannot be booted here; own are its interfaces, {name: index}, if it is running."""
    rootfs.check(config)
    if config.layers:
        from . import layers
        layers.check(config)
    if config.cables:
        from . import cables
        cables.check(cables.plan(config.cables, config.name), own)


def interfaces_of(name):
    """The interfaces on the host that are on record for a subhost: {name: index}."""
    try:
        records = State(name).records()
    except FileNotFoundError:
        return {}
    return {key.partition(":")[2]: int(index) for key, index in records.items() if key.startswith(("cable:", "vlan:"))}


def report(path):
    """overlay-boot --check: print every variable of a configuration file with its effective value."""
    rootfs.unshare_mounts()         # what a `!` command mounts goes with this process
    config = Config(path, "overlay-check")
    config.resolve_log()
    config.resolve()
    if config.image:
        from . import diskfile
        diskfile.mount_image(config)
    check(config, interfaces_of(config.name))
    lines = [f"{variable}={value}" for variable, value in config.settings().items()]
    lines += [f"LAYER={path}" for path in config.layers]
    lines += [f"SHARE={outside}:{inside}" for outside, inside in config.share]
    files.write_all(1, "\n".join(lines) + "\n")
