"""The system of which a baseline is made: its files, its packages and its accounts."""
import os
import stat

from .accounts import Accounts
from .packages import Database
from .root import Root


class System(Root):
    """A Debian system in a directory."""

    def __init__(self, directory: str) -> None:
        """Raises Failure if there are no records of packages."""
        super().__init__(directory)
        self.database = Database(self)
        self.accounts = Accounts(self)

    def attributes(self, info: os.stat_result) -> tuple[int, tuple[int, int]]:
        """Return (mode, owner) that a file of which lstat(2) tells has in the layer."""
        return stat.S_IMODE(info.st_mode), self.accounts.owner(info)

    def of_directory(self, path: str, mode: int = 0o755) -> tuple[int, tuple[int, int]]:
        """Return (mode, owner) of a directory; the mode given, and root, if the system has none there."""
        info = self.lstat(path)
        return self.attributes(info) if info and stat.S_ISDIR(info.st_mode) else (mode, (0, 0))
