"""clear NAME STATUS: executed by the keeper when PID 1 of the subhost has ended."""
from ..clearing import clear_ended
from . import run


def command(arguments: list[str]) -> int:
    name, status = arguments
    clear_ended(name)
    return int(status)


def main() -> int:
    return run(command)
