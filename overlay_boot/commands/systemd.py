"""overlay-systemd(8): the INIT hook for systemd as PID 1."""
from .. import files, systemd
from ..config import of_environment
from . import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    if arguments in (["-h"], ["--help"]):
        parser().print_help()
        return
    files.write_all(1, systemd.init(of_environment("overlay-systemd")))


def parser() -> "argparse.ArgumentParser":
    import argparse
    return argparse.ArgumentParser(prog="overlay-systemd", description=(
        "An INIT hook of overlay-boot. It prints the shell commands by which PID 1 of the subhost becomes systemd, for "
        "the services of START. The environment variable CONFIG names the configuration file."))


def main() -> int:
    return run(command)
