"""clear: executed by the keeper.

clear NAME STATUS [foreground] is what it becomes when PID 1 of the subhost has ended; clear NAME end is to end that.
"""
from ..clearing import clear_ended
from ..errors import Failure
from . import run


def command(arguments: list[str]) -> int:
    if arguments[1:] == ["end"]:
        from .. import stop
        stop.end(arguments[0])
        return 0
    try:
        name, status = arguments[0], int(arguments[1])
    except (IndexError, ValueError):
        raise Failure("to be executed by the keeper, with NAME and STATUS") from None
    again = clear_ended(name, status)
    if again:
        from .. import reboot
        reboot.boot_again(again, foreground=arguments[2:] == ["foreground"])
    return status


def main() -> int:
    return run(command)
