"""overlay-ls(8): list the subhosts."""
from .. import files, listing
from . import require_root, run


def command(arguments):
    options = parser().parse_args(arguments) if arguments else None
    require_root()
    rows = listing.rows()
    if options and options.json:
        import json
        files.write_all(1, json.dumps(rows, indent=2) + "\n")
    else:
        files.write_all(1, listing.text(rows))


def parser():
    import argparse

    from .. import __version__
    parser = argparse.ArgumentParser(
        prog="overlay-ls", description="List the subhosts that are running, and the others in /etc/subhosts.conf.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--json", action="store_true", help="print JSON, for use by programs")
    return parser


def main():
    return run(command)
