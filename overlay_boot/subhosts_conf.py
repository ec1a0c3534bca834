"""/etc/subhosts.conf: the list of the subhosts that start with the machine."""
from . import paths

LIST = "/etc/subhosts.conf"


def listed() -> list[str]:
    """Return the configuration files in the list, as it names them; none if there is no list."""
    try:
        with open(LIST, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return []
    return [path for line in lines if "#" not in line for path in line.split()]


def real(path: str) -> str:
    """Return a path as the record of a running subhost has it, without symbolic links; as it is if it leads nowhere."""
    try:
        return paths.real(path)
    except OSError:
        return path
