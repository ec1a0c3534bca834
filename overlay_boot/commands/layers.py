"""overlay-layers(8): list, check and remove the layers in the cache."""
from .. import files
from ..errors import FAILED
from . import require_root, run


def command(arguments):
    options = parser().parse_args(arguments)
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


def report(checked):
    """Print how each layer was found; the exit status."""
    status = 0
    for digest, wrong in checked:
        files.write_all(1, f"{digest}: {wrong or 'right'}\n")
        status = FAILED if wrong else status
    return status


def parser():
    import argparse

    from .. import __version__
    parser = argparse.ArgumentParser(
        prog="overlay-layers", description="List, check or remove the layers that were unpacked from archives.")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--check", action="store_true", help="compare every layer with its archive, unpacked again")
    kind.add_argument("--remove-unused", action="store_true",
                      help="remove and list the layers that no running subhost and nothing in /etc/subhosts.conf uses")
    kind.add_argument("--remove", metavar="DIGEST", nargs="+",
                      help="remove the layers whose digests begin like this, unless a running subhost uses them")
    parser.add_argument("--json", action="store_true", help="print the list as JSON, for use by programs")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main():
    return run(command)
