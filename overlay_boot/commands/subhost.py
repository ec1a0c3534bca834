"""ocf_overlay-boot_subhost(7): the resource agent, as Pacemaker calls it."""
from .. import environment, files
from ..errors import Failure, reason
from ..resource import ERROR, act
from . import run

EXIT_REASON = "ocf-exit-reason:"        # unless the caller has another word for it


def command(arguments: list[str]) -> int:
    action = arguments[0] if len(arguments) == 1 else environment.variable("__OCF_ACTION") or ""
    level = environment.variable("OCF_CHECK_LEVEL") or ""
    try:
        return act(action, environment.variable("OCF_RESKEY_conf"), int(level) if level.isdecimal() else 0)
    except (Failure, OSError) as error:
        prefix = environment.variable("OCF_EXIT_REASON_PREFIX") or EXIT_REASON
        files.write_all(2, f"{prefix}{reason(error)}\n")
        return getattr(error, "status", ERROR)


def main() -> int:
    return run(command)
