"""What all commands begin and end with.  Each has a module here: its usage, its options, and one or two calls."""
import _signal
import posix
import sys

from .. import PATH, files, namespaces, paths
from ..errors import DONE, FAILED, Failure, complain, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

INTERRUPTED: int = 128 + _signal.SIGINT      # as a shell has it


def new_parser(command: str, description: str) -> "argparse.ArgumentParser":
    """Return a parser for a command of users, with --help and --version."""
    import argparse

    from .. import __version__
    parser = argparse.ArgumentParser(prog=command, description=description, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def given(text: str) -> str:
    """The type of an argument: not empty, as a variable that is not set would be in a script."""
    if not text:
        import argparse
        raise argparse.ArgumentTypeError("it is empty")
    return text


def is_plain(arguments: list[str]) -> bool:
    """Tell whether the arguments are one that is no option: no parser is needed for that."""
    return len(arguments) == 1 and arguments[0][:1] not in ("", "-")


def parse_one_or_all(parser: "argparse.ArgumentParser", arguments: list[str],
                     *words: str) -> "argparse.Namespace":
    """Return the options of a command that takes either --all or one subhost, for which the manual has the words."""
    options = parser.parse_args(arguments)
    if options.all and options.conf:
        parser.error(f"--all takes no {' or '.join(words)}")
    if not options.all and not options.conf:
        parser.error(f"give {', '.join(words)} or --all")
    return options


def open_standard() -> None:
    """Open what the caller has closed of 0, 1 and 2, before anything of ours gets these numbers.

    Only if something is closed /dev/null has to be there.
    """
    while (lowest := posix.open("/", posix.O_PATH | posix.O_CLOEXEC)) <= 2:
        posix.close(lowest)
        posix.set_inheritable(files.null(), True)
    posix.close(lowest)


def require_root() -> None:
    """Return if the user is root.  Else execute this command again, by sudo(8).

    Raises Failure if there is no sudo, or for a root that has no rights outside of a user namespace.
    """
    if posix.geteuid() == 0:
        if is_in_user_namespace():
            raise Failure("must be run as root of the host: this is root of a user namespace only")
        return
    command = ["sudo", "--", paths.real(sys.argv[0]), *sys.argv[1:]]
    for directory in PATH.split(":"):
        try:
            posix.execv(f"{directory}/sudo", command)
        except OSError:
            continue
    raise Failure("must be run as root, and sudo is not installed")


def is_in_user_namespace() -> bool:
    """Tell whether this process is in another user namespace than process 1, which a container has for itself."""
    try:
        return files.identity("/proc/1/ns/user") != files.identity("/proc/self/ns/user")
    except PermissionError:         # a root without some of the capabilities is kept off as well
        with files.opened("/proc/1/uid_map") as theirs, files.opened("/proc/self/uid_map") as own:
            return files.read_all(theirs) != files.read_all(own)
    except OSError:                 # no /proc, or no such namespaces
        return False


def run(command: "Callable[[list[str]], int | None]") -> int:
    """Call a command's function with the arguments of this process, and print its failure.  Return the exit status."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)    # ignored, as a caller may have it, ends of children are lost
    return attempted(open_standard) or attempted(lambda: obeyed(command)) or attempted(flush)


def obeyed(command: "Callable[[list[str]], int | None]") -> int | None:
    """Call a command's function.  Meanwhile an interrupt is a KeyboardInterrupt, unless the caller ignores it."""
    sys.unraisablehook = namespaces.interrupt_again
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_DFL:
        return command(sys.argv[1:])
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    status = command(sys.argv[1:])
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    return status


def flush() -> None:
    """Have out what was printed: the device may be full."""
    print(end="", flush=True)


def attempted(action: "Callable[[], int | None]") -> int:
    """Return the exit status of an action, which may fail.  Then the reason is printed, and no interrupt counts."""
    try:
        try:
            return action() or DONE
        except BaseException as error:
            _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
            status, line = told(error)
    except KeyboardInterrupt as interrupt:      # before it was ignored
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        status, line = told(interrupt)
    if line:
        complain(line)
    return status


def told(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the line for what has ended a command.  What nobody has foreseen is raised again."""
    match error:
        case Failure():
            return error.status, str(error)
        case SystemExit():
            return int(error.code or DONE), ""
        case BrokenPipeError():
            return FAILED, ""
        case OSError():
            return FAILED, reason(error)
        case MemoryError() | ImportError() | SystemError():     # so it shows where there is no memory for a module
            return FAILED, str(error) or "out of memory"
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
    if was_interrupted(error):
        return INTERRUPTED, "interrupted"
    raise error


def was_interrupted(error: BaseException) -> bool:
    """Tell whether it is the interpreter's word for an interrupt, as it has one for what ends the making of a class."""
    cause = error.__cause__
    return cause is not None and (isinstance(cause, KeyboardInterrupt) or was_interrupted(cause))
