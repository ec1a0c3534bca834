"""What Copies would tell, found out with nothing changed: what would be removed from UPPER counts as gone."""
from .. import overlayfs
from .copies import Copies
from .plan import Plan
from .site import Site
from .upper import Upper

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    from collections.abc import Iterator

    from ..files import Fd
    from ..overlayfs import Tree


class Rehearsal(Copies):
    """The files of packages in UPPER, which stay as they are."""

    __slots__ = ()

    def __init__(self, plan: Plan) -> None:
        upper = Untouched(plan.upper.fd, plan.lower)
        super().__init__(plan, Nobody(upper), upper)

    def note_shown(self, at: str) -> None:
        """Note nothing."""

    def show(self, *places: str) -> None:
        """Remove nothing."""


class Untouched(Upper):
    """UPPER, as if what is removed from it was."""

    __slots__ = ("gone",)

    def __init__(self, fd: int, lower: "Tree") -> None:
        super().__init__(fd, lower)
        self.gone: set[str] = set()

    def entries(self, path: str) -> "Iterator[tuple[str, posix.stat_result]]":
        for name, status in super().entries(path):
            if (name if path == "." else f"{path}/{name}") not in self.gone:
                yield name, status

    def opened(self, path: str) -> "Fd | None":
        return None if path in self.gone else super().opened(path)

    def unlink(self, path: str) -> None:
        self.gone.add(path)


class Nobody(Site):
    """In the place of a subhost that runs: nothing is changed, and nothing executed."""

    __slots__ = ("upper",)

    def __init__(self, upper: Untouched) -> None:
        super().__init__("", -1, 0, lambda _: None, lambda: None)
        self.upper = upper

    def write(self, path: str, data: "bytes | Fd", mode: int, uid: int = 0, gid: int = 0, like: int = -1) -> None:
        """Write nothing."""

    def clear_mode(self, path: str, bits: int) -> None:
        """Leave the mode."""

    def remove(self, path: str) -> None:
        """Remove nothing."""

    def remove_directory(self, path: str) -> None:
        """Have a directory count as gone if nothing is seen in it."""
        if all(overlayfs.is_whiteout(status) for _, status in self.upper.entries(path)):
            self.upper.gone.add(path)
