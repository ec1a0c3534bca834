"""overlay-boot --check: a configuration, read and validated, and nothing changed."""
from . import rootfs
from .config import Config
from .errors import write


def check(path):
    """Print every variable of a configuration file with its effective value."""
    config = Config(path, "overlay-check")
    rootfs.unshare_mounts()         # what a `!` command mounts goes with this process
    config.resolve()
    rootfs.check(config)
    lines = [f"{variable}={value}" for variable, value in config.settings().items()]
    lines += [f"SHARE={outside}:{inside}" for outside, inside in config.share]
    write(1, "\n".join(lines) + "\n")
