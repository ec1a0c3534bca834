"""overlay-boot --check: the values of a configuration, and the plan of its boot."""
from . import files, rootfs
from .boot import plan
from .check import check, interfaces_of
from .config import Config
from .rootfs import Sources


def report(path: str, *, verbose: bool = False) -> None:
    """overlay-boot --check: print every variable of a configuration file with its effective value.

    With verbose, print the plan of a boot, too.
    """
    rootfs.unshare_mounts()         # what a `!` command mounts goes with this process
    config = Config(path, "overlay-check")
    config.resolve_log()
    config.resolve()
    if config.image:
        from . import diskfile
        diskfile.mount_image(config)
    check(config, Sources(config), interfaces_of(config.name))
    lines = [f"{variable}={value}" for variable, value in config.settings().items()]
    lines += [f"LAYER={path}" for path in config.layers]
    lines += [f"SHARE={outside}:{inside}" for outside, inside in config.share]
    if verbose:
        lines += ["", *(f"{title}: {what}" for title, what in plan(config))]
    files.write_all(1, "\n".join(lines) + "\n")
