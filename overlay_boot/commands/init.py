"""overlay-init(8): the default INIT hook."""
from .. import files
from ..config import of_environment
from ..hooks import init
from . import run


def command(arguments):
    if arguments in (["-h"], ["--help"]):
        parser().parse_args(arguments)
    files.write_all(1, init(of_environment("overlay-init")))


def parser():
    import argparse
    return argparse.ArgumentParser(prog="overlay-init", description=(
        "The default INIT hook of overlay-boot. It prints the shell commands that PID 1 of the subhost runs. "
        "The environment variable CONFIG names the configuration file."))


def main():
    return run(command)
