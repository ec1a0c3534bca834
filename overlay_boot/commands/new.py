"""overlay-new(8): make the directory of a subhost, with a configuration."""
from .. import files
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    options = parsed(arguments)
    if options.list_variables:
        from ..variables import table
        files.write_all(1, table())
        return
    require_root()
    import shlex

    from .. import new, template
    conf, name = new.make(options.directory, template.given(options.assignments), options.like,
                          with_upper=options.with_upper)
    conf = shlex.quote(conf)
    files.write_all(1, f"look at {conf}, then: overlay-boot {conf}\n"
                       f"for a shell in it: overlay-go {name}\n"
                       f"to start it with the machine: echo {conf} >>/etc/subhosts.conf\n")


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-new", "Make the directory of a subhost, with a configuration that fits this host.")
    parser.add_argument("--like", metavar="CONF", type=given,
                        help="make it like the subhost of another configuration file")
    parser.add_argument("--with-upper", action="store_true",
                        help="with --like: copy the files of that subhost, too, which must not be running")
    parser.add_argument("--list-variables", action="store_true",
                        help="list the variables of overlay-boot.conf(5), with their defaults")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=given,
                        help="the directory, which must not exist; its name is that of the subhost")
    parser.add_argument("assignments", metavar="VARIABLE=VALUE", nargs="*", type=given,
                        help="what the configuration is to assign; see overlay-boot.conf(5)")
    return parser


def parsed(arguments: list[str]) -> "argparse.Namespace":
    """Return the options, which fit together."""
    made = parser()
    options = made.parse_args(arguments)
    if options.list_variables and (options.directory or options.like or options.with_upper):
        made.error("--list-variables stands alone")
    if not options.list_variables and not options.directory:
        made.error("give DIR")
    if options.with_upper and not options.like:
        made.error("--with-upper requires --like")
    return options


def main() -> int:
    return run(command)
