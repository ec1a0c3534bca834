"""overlay-ls(8): list the subhosts."""
from .. import files, listing
from . import new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    as_json = bool(arguments) and parser().parse_args(arguments).json
    require_root()
    rows = listing.rows()
    if as_json:
        import json
        files.write_all(1, json.dumps(rows, indent=2) + "\n")
    else:
        files.write_all(1, listing.text(rows))


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-ls", "List the subhosts that are running, and the others in /etc/subhosts.conf.")
    parser.add_argument("--json", action="store_true", help="print JSON, for use by programs")
    return parser


def main() -> int:
    return run(command)
