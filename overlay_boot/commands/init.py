"""overlay-init(8): the default INIT hook."""
from .. import files
from ..config import of_environment
from ..hooks import init, is_our_reaper_on_live
from . import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    if arguments in (["-h"], ["--help"]):
        parser().print_help()
        return
    config = of_environment("overlay-init")
    files.write_all(1, init(config, is_ours=is_our_reaper_on_live(config)))


def parser() -> "argparse.ArgumentParser":
    import argparse
    return argparse.ArgumentParser(prog="overlay-init", description=(
        "The default INIT hook of overlay-boot. It prints the shell commands that PID 1 of the subhost runs. "
        "The environment variable CONFIG names the configuration file."))


def main() -> int:
    return run(command)
