"""Where files of packages are: in /usr/lib for /lib since Debian 12, and elsewhere where dpkg-divert(1) says so."""
from .. import dpkg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..overlayfs import Tree

ALIASES = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")      # of directories in usr


class Places:
    """Where files of packages are, in a subhost or in its host.  No path begins with a /."""

    __slots__ = ("aliases", "diverted")

    def __init__(self, lower: "Tree", diversions: list[str]) -> None:
        """lower is what the host's layers make; diversions are the lines of dpkg.DIVERSIONS."""
        self.aliases = {name for name in ALIASES if lower.link(name)}
        self.diverted = {path[1:]: (target[1:], package)
                         for path, (target, package) in dpkg.diversions(diversions).items()}

    def real(self, path: str) -> str:
        """Return where a path leads."""
        first, slash, _ = path.partition("/")
        return f"usr/{path}" if slash and first in self.aliases else path

    def of(self, path: str, package: str) -> str:
        """Return where a file is, of its path and package as they are on record."""
        target, diverter = self.diverted.get(path, ("", package))
        return self.real(path if diverter == package else target)
