"""clear NAME STATUS: executed by the keeper when PID 1 of the subhost has ended."""
from ..clearing import clear_ended
from ..errors import Failure
from . import run


def command(arguments: list[str]) -> int:
    try:
        name, status = arguments[0], int(arguments[1])
    except (IndexError, ValueError):
        raise Failure("to be executed by the keeper, with NAME and STATUS") from None
    clear_ended(name, status)
    return status


def main() -> int:
    return run(command)
