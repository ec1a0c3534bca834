"""overlay-premount(8): the default PREMOUNT hook."""
from ..config import of_environment
from ..hooks import premount
from ..rootfs import Sources
from . import run


def command(arguments):
    if arguments in (["-h"], ["--help"]):
        parser().parse_args(arguments)
    config = of_environment("overlay-premount")
    premount(config, Sources(config))


def parser():
    import argparse
    parser = argparse.ArgumentParser(prog="overlay-premount", description=(
        "The default PREMOUNT hook of overlay-boot. It gives a subhost a host name and a network configuration. "
        "The environment variable CONFIG names the configuration file."))
    parser.add_argument("upper", metavar="UPPER", nargs="?", help="ignored: the path is in the configuration")
    return parser


def main():
    return run(command)
