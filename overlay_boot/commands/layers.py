"""overlay-layers(8): list, check and remove the layers in the cache."""
from .. import files, paths
from ..errors import DONE, FAILED
from . import given, new_parser, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


def command(arguments: list[str]) -> int | None:
    made = parser()
    options = made.parse_args(arguments)
    if options.json and (options.check or options.remove):
        made.error(f"--json: not allowed with --{'check' if options.check else 'remove'}, which prints no list")
    require_root()
    from .. import layers
    if options.check:
        return report(layers.verify())
    if options.remove:
        for digest in options.remove:
            layers.remove(digest)
        return None
    rows = layers.remove_unused() if options.remove_unused else layers.rows()
    if options.json:
        import json
        files.write_all(1, json.dumps(rows, indent=2) + "\n")
    else:
        files.write_all(1, layers.table(rows))
    return None


def report(checked: "Iterable[tuple[str, str | None]]") -> int:
    """Print (digest, what is wrong) of each layer.  Return the exit status."""
    status = DONE
    for digest, wrong in checked:
        files.write_all(1, f"{digest}: {paths.printable(wrong or 'right')}\n")
        status = FAILED if wrong else status
    return status


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-layers", "List, check or remove the layers that were unpacked from archives.")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--check", action="store_true", help="compare every layer with its archive, unpacked again")
    kind.add_argument("--remove-unused", action="store_true",
                      help="remove and list the layers that no running subhost and nothing in /etc/subhosts.conf uses")
    kind.add_argument("--remove", metavar="DIGEST", nargs="+", type=given,
                      help="remove the layers whose digests begin like this, unless a running subhost uses them")
    parser.add_argument("--json", action="store_true", help="print the list as JSON, for use by programs")
    return parser


def main() -> int:
    return run(command)
