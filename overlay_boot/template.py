"""The configuration file that overlay-new writes: one that fits the host, or one like another."""
import os

from . import INTERFACES, beneath, cgroup, files, paths, proc, rootfs, services
from .config import AUTO, DEFAULTS, LIMITS, REPEATABLE, Config, suspect
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    Given = dict[str, list[str]]            # {variable: values}

WIDTH = 80
MOST_NAMED = 30         # services, mounts and bridges of the host that a comment has
PLACES = ("LIVE", "UPPER", "WORK")
# A limit that makes a difference, for each controller.
EXAMPLES = {"memory": "MEMORY_MAX= 512M", "cpu": "CPU_MAX= 150%", "pids": "PIDS_MAX= 500"}


def given(words: list[str]) -> "Given":
    """Return what words that are VARIABLE=VALUE assign.  Raises Failure for one that assigns nothing."""
    found: Given = {}
    for word in words:
        variable, equals, value = word.partition("=")
        variable, value = variable.rstrip(), value.strip()
        if not equals:
            raise Failure(f"{word} is not VARIABLE=VALUE")
        if variable not in DEFAULTS and variable not in REPEATABLE:
            meant = suspect(variable, assigns=True)
            raise Failure(f"{variable}= is not known" + (f" (did you mean {meant}=?)" if meant else ""))
        if variable == "BASE":
            raise Failure("BASE is the directory that is made")
        if variable in found and variable not in REPEATABLE:
            raise Failure(f"{variable} is assigned twice")
        if "\n" in value or "\r" in value:
            raise Failure(f"{variable}: there is a line break in its value")
        found.setdefault(variable, []).append(value)
    return found


def own(variable: str, value: str, directory: str) -> str:
    """Return a value as it is written: a path in the directory of the subhost is relative, for that to be moved."""
    return value.removeprefix(f"{directory}/") if variable in PLACES else value


def assignments(variable: str, values: list[str], directory: str) -> list[str]:
    return [f"{variable}= {own(variable, value, directory)}".rstrip() for value in values]


# For a host

def new(name: str, given: "Given", directory: str) -> str:
    """Return the text of a configuration for this host, with the values given in the place of what is proposed."""
    lines = comment(f"The subhost {name}, made by overlay-new. overlay-boot.conf(5) describes the variables, and "
                    f"overlay-new --list-variables lists them. What is not assigned here is as in "
                    f"/etc/overlay-boot/defaults.conf, or else by default.")
    left = {**given}
    for text, proposal in proposals(given.get("LOWER", ["/"])[0]):
        variable = proposal.removeprefix("# ").partition("=")[0]
        values = left.pop(variable, None)
        if text:
            lines += ["", *comment(text)]
        lines += [proposal] if values is None else assignments(variable, values, directory)
    if left:
        lines += ["", *comment("As overlay-new was told:")]
    for variable, values in left.items():
        lines += assignments(variable, values, directory)
    return "\n".join(lines) + "\n"


def proposals(lower: str) -> "Iterator[tuple[str, str]]":
    """Yield (comment, line) of variables that a new subhost is likely to need, the line being a comment or not."""
    yield "The directory of the subhost. Other paths are relative to it.", "BASE= ."
    scripts = start_scripts(lower)
    wanted = [word for word in str(DEFAULTS["START"]).split() if word in scripts]
    there = named(scripts, "There are scripts for", "There are no scripts for any")
    yield (f"The services to start, in this order, and to stop in reverse order; or none. {there}",
           f"START= {' '.join(wanted) or 'none'}")
    bridges = [one for one in sorted(os.listdir(INTERFACES)) if files.kind(f"{INTERFACES}/{one}/bridge")]
    there = named(bridges, "Bridges here are", "There is no bridge yet")
    yield (f"Cables to bridges of the host, each of which is an interface inside: eth0, eth1 and so on. {there}",
           f"# CABLES= {bridges[0] if bridges else 'br0'}=")
    yield ("Addresses that the boot gives to these, or with auto, and no CABLES, to a cable to the host. Without "
           "ADDRESS, root/etc/network/interfaces has them, which the first boot writes.", "# ADDRESS= auto")
    yield ("What of the host the subhost does not see: secrets stands for password hashes, private keys, homes, mail "
           "and other subhosts. An sshd inside then needs host keys of its own.", "# HIDE= secrets")
    mounted = {mount.place for mount in proc.mounts().values() if mount.kind in proc.DISKS and mount.place != "/"}
    there = named(sorted(mounted), "On disks are", "None is on a disk")
    yield ("Which of the file systems below the root of the host the subhost sees: yes for those on disks, no, or "
           f"paths. {there}", "# LOWER_MOUNTS= no")
    yield ("A user namespace, in which root of the subhost is nobody on the host. The file systems must be able to be "
           "id-mapped.", "# USERNS= auto")
    text = f"Limits, of which overlay-boot.conf(5), LIMITS, has {len(LIMITS)}."
    controllers = cgroup.controllers()
    for controller, example in EXAMPLES.items():
        if controller in controllers:
            yield text, f"# {example}"
            text = ""
    yield "Subhosts of /etc/subhosts.conf that overlay-boot --all boots before this one.", "# AFTER= db"


def named(words: list[str], some: str, none: str) -> str:
    more = ", ..." if len(words) > MOST_NAMED else ""
    return f"{some} {', '.join(words[:MOST_NAMED])}{more}." if words else f"{none}."


def start_scripts(lower: str) -> list[str]:
    """Return the services of LOWER that have a start script and are started in runlevel 2, and the default ones."""
    if files.kind(lower) != files.DIRECTORY:
        return []
    with rootfs.directory(lower, "LOWER") as root:
        there = {*beneath.names(root, services.SCRIPTS, beneath.INSIDE)} - {"subhosts"}
        started = {name[3:] for name in beneath.names(root, "/etc/rc2.d", beneath.INSIDE) if name.startswith("S")}
    return sorted(there & ({*started, *str(DEFAULTS["START"]).split()} if started else there))


def comment(text: str) -> list[str]:
    """Return a text as lines of comment."""
    lines = ["#"]
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1] != "#":
            lines.append("#")
        lines[-1] += f" {word}"
    return lines


# For one like another

def like(source: Config, given: "Given", directory: str) -> str:
    """Return the text of a configuration, changed for a subhost of its own, with the values given in place of others.

    Raises Failure for what two subhosts cannot share.
    """
    with open(source.path, encoding=paths.ENCODING, errors="surrogateescape") as file:
        before = file.read().split("\n")
    lines, placed = [], {"NAME"} - {*given}
    values = {"BASE": ["."], **given}
    for line in before:
        variable = line.partition("=")[0]
        variable = variable.rstrip() if variable.rstrip() in REPEATABLE else variable
        if variable not in DEFAULTS and variable not in REPEATABLE or "=" not in line:
            lines.append(line)
        elif variable in values:
            lines += assignments(variable, values.pop(variable), directory)
            placed.add(variable)
        elif variable not in placed:
            lines.append(changed(variable, line, source))
    while lines and not lines[-1]:
        lines.pop()
    for variable, new_values in values.items():
        lines += assignments(variable, new_values, directory)
    return "\n".join(lines) + "\n"


def changed(variable: str, line: str, source: Config) -> str:
    """Return an assignment, with what belongs to the other subhost alone taken out."""
    value = line.partition("=")[2].strip()
    if variable == "IMAGE" and value:
        raise Failure(f"IMAGE={value} of {source.path}: give another one, such as a copy of it")
    if variable in (*PLACES, "LOG") and is_elsewhere(value) and not value.startswith("!"):
        inside = value.removeprefix(f"{source.base.rstrip('/')}/")
        if not is_elsewhere(inside):
            return f"{variable}= {inside}"
        if variable == "LOG" and files.kind(paths.join(source.base, value)) not in (0, files.REGULAR):
            return line                 # a device, to which many can write
        raise Failure(f"{variable}={value} of {source.path} is not inside its BASE={source.base}: give another one")
    if variable == "ADDRESS" and value not in ("", AUTO) or variable == "USERNS" and ":" in value:
        raise Failure(f"{variable}={value} of {source.path}: give another one, such as {AUTO}")
    if variable == "PUBLISH" and value:
        raise Failure(f"{variable}={value} of {source.path}: give other ones, or none")
    if variable == "CABLES" and not value.startswith("!"):      # an address is for one interface only
        return f"CABLES= {' '.join(without_address(word) for word in value.split())}"
    return line


def is_elsewhere(path: str) -> bool:
    """Tell whether a path may lead out of the directory that it is relative to."""
    return path.startswith("/") or ".." in path.split("/")


def without_address(word: str) -> str:
    bridge, equals, end = word.partition("=")
    return word if end.startswith(".") else f"{bridge}{equals}"
