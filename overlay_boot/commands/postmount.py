"""overlay-postmount(8): the default POSTMOUNT hook."""
from .. import files, rootfs
from ..config import of_environment
from ..errors import Failure
from ..hooks import postmount
from ..network import path_of
from . import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    """Any other argument than --help is ignored: hooks that were written for 1.6.4 give LIVE and UPPER."""
    if arguments in (["-h"], ["--help"]):
        parser().print_help()
        return
    config = of_environment("overlay-postmount")
    with rootfs.directory(config.live, "LIVE") as root, opened(path_of(config.name)) as network:
        postmount(config, root, network)


def opened(network: str) -> files.Fd:
    """Return a descriptor of the network namespace of a boot.  Raises Failure if there is none."""
    try:
        return files.opened(network)
    except OSError as error:
        raise Failure(f"cannot open the network namespace {network}: {error.strerror}") from None


def parser() -> "argparse.ArgumentParser":
    import argparse
    return argparse.ArgumentParser(prog="overlay-postmount", description=(
        "The default POSTMOUNT hook of overlay-boot. It mounts /dev, /sys and /run in LIVE, and adds the reaper. "
        "The environment variable CONFIG names the configuration file."))


def main() -> int:
    return run(command)
