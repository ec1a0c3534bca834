"""A layer as it is written: an archive, the program that compresses it, and the SHA-256 sums of both.

Nothing is kept in memory but what is on its way.  What the program has written is read again while it writes more, for
the sum of that: it is in the page cache still.
"""
import fcntl
import hashlib
import posix
from _signal import SIGKILL

from .. import files, namespaces, paths, processes
from ..errors import Failure
from ..files import Fd, Fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .destination import Place

GZIP, ZSTD, NONE = "gzip", "zstd", "none"
# What they write depends on what they read only: no name, no time, and no number of processors.
COMMANDS = {GZIP: ["gzip", "-nc"], ZSTD: ["zstd", "-qc", "-T1"], NONE: []}
NOBODY = (65534, 65534, ())
CHUNK = 1 << 20             # bytes that are written at a time, and the size of the pipe
LONGEST_LINE = 1 << 12


class Blob:
    """The layer, in a place of what is exported.  The end of a with statement ends the program."""

    __slots__ = ("at", "held", "packed", "parts", "place", "plain", "process", "said", "sink", "wanted")

    def __init__(self, place: "Place", compression: str) -> None:
        """Raises Failure if the program is not there."""
        self.place, self.wanted = place, compression
        self.parts: list[bytes] = []
        self.held = 0                       # bytes of the parts
        self.plain, self.packed = hashlib.sha256(), hashlib.sha256()
        self.at = place.start               # up to where of the file is in the sum
        self.process = 0
        self.said = Fd(posix.memfd_create("said"))
        self.sink = self.start() if COMMANDS[compression] else Fd(posix.dup(place.fd))

    def start(self) -> Fd:
        """Start the program; return the descriptor that it reads from, at our end."""
        words = COMMANDS[self.wanted]
        with Fds(posix.pipe()) as ends:
            try:
                fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, CHUNK)
            except OSError:
                pass            # beyond what is left of the limit for all pipes: the usual size does as well
            try:
                self.process, pidfd = namespaces.spawn(
                    processes.candidates(words[0]), words, {}, directory="/", bound=True, user=NOBODY,
                    standard=(ends[0], self.place.fd, self.said))
            except OSError as error:
                posix.close(self.said)
                raise Failure(f"cannot execute {words[0]}: {error.strerror}") from None
            posix.close(pidfd)          # the process is ours to be waited for: its number is its own
            return Fd(ends.pop(1))

    def __enter__(self) -> "Blob":
        return self

    def __exit__(self, *_: object) -> None:
        if self.sink >= 0:
            posix.close(self.sink)
        if self.process:
            posix.kill(self.process, SIGKILL)
            posix.waitpid(self.process, 0)
        posix.close(self.said)

    def write(self, data: bytes) -> None:
        self.parts.append(data)
        self.held += len(data)
        if self.held >= CHUNK:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self.parts)
        self.parts.clear()
        self.held = 0
        self.plain.update(data)
        try:
            files.write_all(self.sink, data)
        except BrokenPipeError:
            self.reap()
            raise Failure(f"{self.wanted} has ended before all was written") from None
        self.catch_up()

    def catch_up(self) -> None:
        """Add what is in the file by now to the sum."""
        while part := posix.pread(self.place.fd, CHUNK, self.at):
            self.packed.update(part)
            self.at += len(part)

    def reap(self) -> None:
        """Wait for the end of the program.  Raises Failure, with the last line that it has printed, if it failed."""
        if self.process:
            status = posix.waitpid(self.process, 0)[1]
            self.process = 0
            if status:
                lines = paths.decode(posix.pread(self.said, LONGEST_LINE, 0)).strip().split("\n")
                raise Failure(f"cannot compress a layer: {lines[-1] or f'{self.wanted} has failed'}")

    def finish(self) -> tuple[str, str, int]:
        """Return the sums, in hexadecimal, of the archive and of the file, and the size of the file."""
        self.flush()
        posix.close(self.sink)
        self.sink = Fd(-1)
        self.reap()
        self.catch_up()
        return self.plain.hexdigest(), self.packed.hexdigest(), self.at - self.place.start
