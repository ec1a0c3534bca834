"""overlay-postmount(8): the default POSTMOUNT hook."""
from .. import files, rootfs
from ..config import of_environment
from ..hooks import postmount
from ..network import path_of
from . import run


def command(arguments):
    if arguments in (["-h"], ["--help"]):
        parser().parse_args(arguments)
    config = of_environment("overlay-postmount")
    with rootfs.directory(config.live, "LIVE") as root, files.opened(path_of(config.name)) as network:
        postmount(config, root, network)


def parser():
    import argparse
    parser = argparse.ArgumentParser(prog="overlay-postmount", description=(
        "The default POSTMOUNT hook of overlay-boot. It mounts /dev, /sys and /run in LIVE, and adds the reaper. "
        "The environment variable CONFIG names the configuration file."))
    parser.add_argument("live", metavar="LIVE", nargs="?", help="ignored: the path is in the configuration")
    parser.add_argument("upper", metavar="UPPER", nargs="?", help="ignored: the path is in the configuration")
    return parser


def main():
    return run(command)
