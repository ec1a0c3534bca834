"""/etc/subhosts.conf: the list of the subhosts that start with the machine."""
from . import paths

LIST = "/etc/subhosts.conf"


def listed():
    """The configuration files in the list, as it names them; none where there is no list."""
    try:
        with open(LIST, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return []
    return [path for line in lines if "#" not in line for path in line.split()]


def real(path):
    """The path as a running subhost has it on record; as it is, if it leads nowhere."""
    try:
        return paths.real(path)
    except OSError:
        return path
