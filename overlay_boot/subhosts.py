"""Which subhosts run, whoever has booted them: the one door to what the shell version, 1.6.4, has booted.

Until Debian 15: nobody can then have upgraded from 1.6.4 to the version at hand.  This module and shellversion.py go,
and running.py serves in the place of this one.
"""
import posix

from . import files, network, running, state
from .config import Config, check_name
from .errors import Failure
from .record import Damaged
from .running import NotRunning, Running
from .state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import shellversion
    Subhost = Running | shellversion.Inherited


def find_inherited(name: str) -> "shellversion.Inherited":
    """Return the running subhost NAME that 1.6.4 has booted.  Raises NotRunning if there is none."""
    for one in inherited():
        if one.name == name:
            return one
    raise NotRunning(name)


def boots() -> list[tuple[float, str]]:
    """Return (time of its boot, name) of every running subhost, the first boot first."""
    return sorted([*running.boots(), *((one.record.since, one.name) for one in inherited())])


def inherited() -> "list[shellversion.Inherited]":
    """Return those that 1.6.4 has booted.  They have a network namespace, and no state file."""
    try:
        names = set(posix.listdir(network.NETNS)).difference(state.names())
    except FileNotFoundError:
        return []
    if not names:
        return []
    from . import shellversion
    return shellversion.find(names)


def refuse_inherited(name: str) -> None:
    """Raises Failure if 1.6.4 has booted one of that name, and it is running."""
    from . import shellversion
    for found in shellversion.find({name}):
        raise Failure(f"{name} is running already, from {found.record.config}")


def identified(word: str, command: str) -> tuple[str, str]:
    """Return (name, path of the configuration file or "") of a subhost, of which word is the one or the other.

    command is what a `!` command is told as ACTION.  Raises Failure for what can be neither.
    """
    if word not in state.names():
        if "/" in word or word.endswith(".conf") or files.kind(word) not in (0, files.DIRECTORY):
            config = Config(word, command)
            return config.name, config.path
        check_name(word)
    return word, config_of(word)


def config_of(name: str) -> str:
    """Return the path of the configuration file of the subhost NAME, "" if there is no such subhost, or no saying."""
    try:
        with State(name) as found:
            return found.record().config or ""
    except Damaged:
        return ""
    except FileNotFoundError:
        return next((one.record.config for one in inherited() if one.name == name), None) or ""


def taken_over(config: str, noted: State) -> "shellversion.Inherited | None":
    """Return the running one of a configuration file, with what has to be removed in its state file; or None.

    Raises Failure if it was booted from another file.
    """
    if not network.is_there(noted.name):
        return None
    from . import shellversion
    return shellversion.take_over(config, noted)


def end_inherited(name: str, processes: tuple[str, ...]) -> None:
    """End what is left of the processes on record of one that 1.6.4 has booted."""
    from . import shellversion
    shellversion.end(name, processes)
