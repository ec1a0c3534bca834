"""overlay-ls(8): list the subhosts."""
import posix
import sys

from .. import environment, files, listing
from ..errors import complain
from . import new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def command(arguments: list[str]) -> None:
    chosen = parser().parse_args(arguments) if arguments else None
    as_json, as_hosts = bool(chosen and chosen.json), bool(chosen and chosen.hosts)
    if environment.variable("NO_COLOR"):
        posix.putenv("TERM", "dumb")        # for sudo(8), which passes only this on
    require_root()
    rows = listing.rows(in_detail=as_json)
    if listing.lacks_addresses(rows):
        why = "interfaces change all the time" if "pyroute2" in sys.modules else "python3-pyroute2 is not installed"
        complain(f"cannot tell the addresses of cables: {why}")
    if as_json:
        import json
        listing.add_limits(rows)
        files.write_all(1, json.dumps(rows, indent=2) + "\n")
    else:
        files.write_all(1, listing.hosts(rows) if as_hosts else listing.text(rows))


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-ls", "List the subhosts that are running, and the others in /etc/subhosts.conf.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, for use by programs")
    form.add_argument("--hosts", action="store_true",
                      help="print the addresses and names of those that are running, as in /etc/hosts")
    return parser


def main() -> int:
    return run(command)
