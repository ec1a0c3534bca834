"""overlay-oci-init(8): the INIT hook by which what an image tells of is what runs."""
from .. import files
from ..config import of_environment
from ..hooks import main_init
from . import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    if arguments in (["-h"], ["--help"]):
        parser().print_help()
        return
    config = of_environment("overlay-oci-init")
    files.write_all(1, main_init(config, arguments))


def parser() -> "argparse.ArgumentParser":
    import argparse
    parser = argparse.ArgumentParser(prog="overlay-oci-init", description=(
        "An INIT hook of overlay-boot, for a LAYER that is an image of OCI. It prints the shell commands by which PID "
        "1 of the subhost starts what the image tells of. The environment variable CONFIG names the configuration "
        "file."))
    parser.add_argument("--env", metavar="NAME=VALUE", action="append", help="set a variable")
    parser.add_argument("--env-file", metavar="FILE", action="append", help="set the variables that a file assigns")
    parser.add_argument("--entrypoint", metavar="COMMAND", help="execute this command, not that of the image")
    parser.add_argument("--user", metavar="USER[:GROUP]", help="execute it as this user")
    parser.add_argument("argument", metavar="ARGUMENT", nargs="*", help="in the place of Cmd of the image")
    return parser


def main() -> int:
    return run(command)
