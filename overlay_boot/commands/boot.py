"""overlay-boot(8): boot a subhost, or all that are to start with the machine."""
from ..boot import boot
from ..config import Config
from ..errors import DONE, FAILED
from . import given, is_plain, new_parser, parse_one_or_all, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> int:
    wait_bridges = arguments[:1] == ["--wait-bridges"]      # as --all executes this command
    wait = arguments[wait_bridges:][:1] == ["--wait"]
    if is_plain(arguments[wait_bridges + wait:]):
        require_root()
        boot(Config(arguments[-1], "overlay-boot"), wait=wait, wait_bridges=wait_bridges)
        return DONE
    options = parsed(arguments)
    require_root()
    if options.all:
        from ..side_by_side import boot_all
        return DONE if boot_all(wait=options.wait) else FAILED
    if options.shell:
        from ..shell import shell
        return shell(Config(options.conf, "overlay-boot"))
    if options.check:
        from ..plan import report
        report(options.conf, verbose=options.verbose)
    else:
        boot(Config(options.conf, "overlay-boot"), foreground=options.foreground, wait=options.wait,
             wait_bridges=options.wait_bridges)
    return DONE


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-boot", "Boot the subhost that a configuration file describes.")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--foreground", action="store_true",
                      help="stay until the subhost ends, and print what it prints")
    kind.add_argument("--shell", action="store_true",
                      help="boot or wake it with a shell on this terminal instead of services; then it hibernates")
    kind.add_argument("--check", action="store_true",
                      help="only read and validate the configuration, and print the effective values")
    kind.add_argument("--all", action="store_true",
                      help="boot every subhost in /etc/subhosts.conf that is not running, several at a time")
    parser.add_argument("--wait", action="store_true",
                        help="wait until all services of START have been started, and fail if one of them does")
    parser.add_argument("--wait-bridges", action="store_true",
                        help="wait for a while for bridges of CABLES that do not exist yet, as --all does")
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="with --check: also print where each value comes from, and the steps of the boot")
    parser.add_argument("conf", metavar="CONF", nargs="?", type=given,
                        help="the configuration file; see overlay-boot.conf(5)")
    return parser


def parsed(arguments: list[str]) -> "argparse.Namespace":
    """Return the options, which fit together."""
    made = parser()
    options = made.parse_args(arguments)
    if options.verbose and not options.check:
        made.error("--verbose requires --check")
    if options.wait and (options.foreground or options.shell or options.check):
        made.error("--wait does not go with --foreground, --shell or --check")
    if options.wait_bridges and (options.shell or options.check or options.all):
        made.error("--wait-bridges does not go with --shell, --check or --all")
    for option in ("foreground", "shell", "check"):
        if getattr(options, option) and not options.conf:
            made.error(f"--{option} requires CONF")
    return parse_one_or_all(made, arguments, "CONF")


def main() -> int:
    return run(command)
