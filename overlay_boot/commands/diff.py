"""overlay-diff(8): what a subhost has of its own."""
from .. import files
from ..running import NotRunning
from ..subhosts import identified
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    require_root()
    from .. import diff
    name, config = identified(options.conf, "overlay-check")
    if not config:
        raise NotRunning(name)
    rows = diff.compared(diff.tree_of(name, config))
    if options.json:
        import json
        files.write_all(1, json.dumps(rows, indent=2) + "\n")
    else:
        files.write_all(1, diff.table(rows) if options.files else diff.summary(rows))


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-diff", "Print what a subhost has of its own: files added, changed and removed.")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--files", action="store_true", help="print every file, instead of a summary")
    kind.add_argument("--json", action="store_true", help="print every file as JSON, for use by programs")
    parser.add_argument("conf", metavar="CONF|NAME", type=given,
                        help="the configuration file of the subhost, or its name if it is running")
    return parser


def main() -> int:
    return run(command)
