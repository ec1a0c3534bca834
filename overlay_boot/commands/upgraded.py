"""upgraded pre|post: executed by dpkg(1) before and after it has changed the host, as /etc/dpkg/dpkg.cfg.d says."""
from ..errors import Failure
from ..upgrade import host_changed
from . import run

BEFORE, AFTER = "pre", "post"


def command(arguments: list[str]) -> None:
    if arguments not in ([BEFORE], [AFTER]):
        raise Failure(f"to be executed by dpkg, with {BEFORE} or {AFTER}")
    host_changed(before=arguments == [BEFORE])


def main() -> int:
    return run(command)
