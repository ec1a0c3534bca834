"""The environment of this process, and what of it others get."""
import posix

from . import PATH, PROGRAMS, paths

PACKAGES = "/usr/lib/python3/dist-packages"


def variables() -> dict[str, str]:
    """Return all variables."""
    return {paths.decode(name): paths.decode(value) for name, value in posix.environ.items()}


def variable(name: str) -> str | None:
    """Return the value of a variable, None if it is not set or empty."""
    return paths.decode(posix.environ.get(paths.encode(name), b"")) or None


def for_commands(values: dict[str, str]) -> dict[str, str]:
    """Return the environment of a command that a configuration names: ours, values, and our programs in PATH."""
    path = variable("PATH") or PATH
    return {**variables(), "PATH": f"{path}:{PATH}:{PROGRAMS}", **values}


def find_packages() -> None:
    """Have imports find Debian's Python packages: the launchers leave out site, which knows their place."""
    import sys
    if PACKAGES not in sys.path:
        sys.path.append(PACKAGES)


def inside() -> dict[str, str]:
    """Return all of the environment that enters a subhost.

    What is installed inside starts its services by invoke-rc.d(8), which asks for the run level.
    """
    return {"PATH": PATH, "TERM": variable("TERM") or "linux", "LANG": variable("LANG") or "C.UTF-8",
            "container": "overlay-boot", "RUNLEVEL": "2", "PREVLEVEL": "N"}
