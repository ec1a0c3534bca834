"""The secrets of the host that a subhost can read, for overlay-boot --check."""
import os

from . import beneath, files, hiding, host_secrets, paths
from .config import SECRETS, Config
from .errors import doing
from .sources import Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@doing("look for the secrets of the host")
def readable(config: Config, sources: Sources, below: int, above: list[int]) -> list[str]:
    """Return the places of secrets in LOWER that neither HIDE nor what lies above hides, other keys in /etc with them.

    below is a descriptor of the root that LOWER makes; above are those of UPPER and the layers.
    """
    hidden = places(below, [path for path in sources.hide if path != SECRETS])
    known = places(below, (*host_secrets.PASSWORDS, *host_secrets.SPOOLS,
                           *host_secrets.files_and_directories(below, config.lower, config.name, config.base)))
    found = set() if SECRETS in sources.hide else {place for place in known if is_secret(below, place)}
    found.update(place for place in private_keys(below) if not is_in(place, known))
    return sorted(place for place in found
                  if not is_in(place, hidden) and not any(is_covered(directory, place) for directory in above))


def places(below: int, wanted: "Iterable[str]") -> set[str]:
    """Return the places of the paths that lead anywhere."""
    return {place for path in wanted if (place := hiding.place_of(below, path))}


def is_in(place: str, directories: set[str]) -> bool:
    """Tell whether a place is one of the directories, or below one."""
    return any(place == directory or place.startswith(f"{directory}/") for directory in directories)


def is_secret(below: int, place: str) -> bool:
    """Tell whether there is more at a place than locked accounts, a public key, or directories without a file."""
    if place in host_secrets.PASSWORDS:
        return has_password(content(below, place, hiding.LONGEST_TEXT))
    try:
        status = os.stat(place[1:], dir_fd=below, follow_symlinks=False)
    except OSError:
        return False
    if status.st_mode & files.KIND != files.DIRECTORY:
        return status.st_size > 0 and not place.endswith(".pub")
    return any(is_regular(name, fd) for _, _, names, fd in os.fwalk(place[1:], dir_fd=below) for name in names)


def is_regular(name: str, directory: int) -> bool:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode & files.KIND == files.REGULAR
    except OSError:                     # it has just gone
        return False


def has_password(text: bytes) -> bool:
    """Tell whether there is a hash in a file as passwd(5) or shadow(5): there `x`, `*` and `!` are none."""
    return any(line.count(b":") > 1 and line.split(b":")[1].strip(b"x*!") for line in text.split(b"\n"))


def private_keys(below: int) -> "Iterator[str]":
    """Yield the places of the files in /etc that have a private key in them."""
    place = hiding.place_of(below, "/etc")
    if not place:
        return
    for directory, _, names, fd in os.fwalk(place[1:], dir_fd=below):
        for name in names:
            if is_regular(name, fd) and host_secrets.KEY in content(fd, name, host_secrets.LARGEST_KEY):
                yield f"/{directory}/{name}"


def content(directory: int, path: str, limit: int) -> bytes:
    """Return at most limit bytes of a regular file, b"" if there is none."""
    try:
        return beneath.read(directory, path.lstrip("/"), limit, beneath.REFUSED) or b""
    except OSError:
        return b""


def is_covered(directory: int, place: str) -> bool:
    """Tell whether a layer in a directory hides what is at a place beneath: by a file, a whiteout, or opaquely."""
    parts = place.split("/")
    for number in range(2, len(parts) + 1):
        try:
            found = beneath.opened(directory, "/".join(parts[1:number]), os.O_PATH | os.O_NOFOLLOW, beneath.REFUSED)
        except OSError:
            return False                # nothing is there
        with found:
            if files.kind_of(found) != files.DIRECTORY or is_opaque(found):
                return True
    return False


def is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(paths.of_descriptor(directory), hiding.OPAQUE) == b"y"
    except OSError:
        return False
