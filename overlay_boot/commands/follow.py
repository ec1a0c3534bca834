"""overlay-follow(8): have subhosts see their host as it is now."""
from .. import files
from ..errors import DONE, FAILED
from . import given, new_parser, parse_one_or_all, require_root, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

LEFT = 3        # all was done that could be, and something is left to the administrator


def command(arguments: list[str]) -> int:
    options = parse_one_or_all(parser(), arguments, "CONF", "NAME")
    require_root()
    from .. import progress
    from ..follow import Wish, follow, follow_all, follow_each, lines
    wish = Wish(dry_run=options.dry_run, restart=options.restart, packages=not options.view)
    try:
        if options.all:
            rows, succeeded = follow_all(wish)
        elif len(options.conf) > 1:
            rows, succeeded = follow_each([*dict.fromkeys(options.conf)], wish)
        else:
            from ..subhosts import identified
            rows, succeeded = [follow(*identified(options.conf[0], "overlay-follow"), wish)], True
    finally:
        progress.end()
    if options.json:
        import json
        files.write_all(1, json.dumps(rows, indent=2) + "\n")
    else:
        files.write_all(1, "".join(f"{line}\n" for row in rows for line in lines(row)))
    if not succeeded:
        return FAILED
    return LEFT if any(row["old"] or row["left"] or options.dry_run and not row["is_done"] for row in rows) else DONE


def parser() -> "argparse.ArgumentParser":
    parser = new_parser("overlay-follow", "Have subhosts see their host as it is now.")
    parser.add_argument("--all", action="store_true",
                        help="follow with all that run or hibernate, and with the packages of those in the list")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--dry-run", action="store_true", help="only tell what is to be done")
    kind.add_argument("--restart", action="store_true", help="start services anew that use old files")
    parser.add_argument("--view", action="store_true", help="leave the packages of subhosts as they are")
    parser.add_argument("--json", action="store_true", help="print JSON, for use by programs")
    parser.add_argument("conf", metavar="CONF|NAME", nargs="*", type=given,
                        help="the configuration files from which they were booted, or their names")
    return parser


def main() -> int:
    return run(command)
