"""What a command is at: for whoever waits at a terminal, a line on standard error, which the next one replaces."""
from . import columns, errors, files, paths, terminal


def tell(what: str) -> None:
    """Show what the command is at now.  Where standard error is no terminal, or a dumb one, nothing is shown."""
    room = terminal.width(2)
    if room is not None and terminal.takes_escapes():
        errors.before_line = terminal.ERASE
        write(columns.shortened(paths.printable(what), room - 1))


def end() -> None:
    """Show nothing any more."""
    if errors.before_line:
        write("")
        errors.before_line = ""


def write(text: str) -> None:
    try:
        files.write_all(2, errors.before_line + text)
    except OSError:         # the terminal is gone, and nobody waits any more
        pass
