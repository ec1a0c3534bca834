"""overlay-premount(8): the default PREMOUNT hook."""
import posix

from ..config import of_environment
from ..hooks import premount
from ..sources import Sources
from . import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    """Any other argument than --help is ignored: hooks that were written for 1.6.4 give UPPER."""
    if arguments in (["-h"], ["--help"]):
        parser().print_help()
        return
    posix.umask(0o022)
    config = of_environment("overlay-premount")
    premount(config, Sources(config))


def parser() -> "argparse.ArgumentParser":
    import argparse
    return argparse.ArgumentParser(prog="overlay-premount", description=(
        "The default PREMOUNT hook of overlay-boot. It gives a subhost a host name and a network configuration. "
        "The environment variable CONFIG names the configuration file."))


def main() -> int:
    return run(command)
