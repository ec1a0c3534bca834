"""What can be wrong with a configuration on this host, found before anything is made."""
from . import rootfs
from .config import Config
from .rootfs import Sources
from .state import State


def check(config: Config, sources: Sources, own: dict[str, int] | None = None) -> None:
    """Raises Failure if the subhost cannot be booted here.

    own are its interfaces, {name: index}, if it is running.
    """
    rootfs.check(sources)
    if config.layers:
        from . import layers
        layers.check(config.layers)
    if config.cables:
        from . import cables
        cables.check(cables.plan(config.cables, config.name), own)


def interfaces_of(name: str) -> dict[str, int]:
    """Return the interfaces on the host that are on record for a subhost: {name: index}."""
    try:
        with State(name) as state:
            record = state.record()
    except FileNotFoundError:
        return {}
    return record.cables | record.vlans
