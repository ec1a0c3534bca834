"""The process that decompresses an archive.  It does so as nobody: what it reads may be hostile."""
import fcntl
import posix
from _signal import SIGKILL

from .. import files, namespaces, processes
from ..errors import Failure
from ..files import Fds

GZIP = (b"\x1f\x8b",)
# A frame of zstd, or one that is skipped, with which pzstd(1) begins: RFC 8878, 3.1.
ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([first, 0x2a, 0x4d, 0x18]) for first in range(0x50, 0x60)))
COMMANDS = {GZIP: ["gzip", "-dcq"], ZSTD: ["zstd", "-dcq"]}       # by an archive's first bytes
LONGEST_MAGIC = 4
NOBODY = (65534, 65534, ())
BUFFER = 1 << 20            # bytes of the pipe; a larger one means fewer changes between the two processes


class Decompressor:
    """The process, and its output, a file open for reading.  The end of a with statement ends it."""

    __slots__ = ("output", "processes")

    def __init__(self, archive: int, part: tuple[int, int] | None = None) -> None:
        """Start it.  It reads from this very open file, from the beginning, or a part of it, (offset, size).

        Such a part need not be compressed.  Raises Failure if the archive is compressed in no known way, or the command
        is not there.
        """
        offset, size = part or (0, 0)
        first = posix.pread(archive, LONGEST_MAGIC, offset)
        words = next((words for magics, words in COMMANDS.items() if first.startswith(magics)), None)
        if not words and not part:
            raise Failure("it is compressed neither by gzip nor by zstd")
        commands = [["head", "-c", str(size)]] if part else []
        if words:
            commands.append(words)
        posix.lseek(archive, offset, 0)
        self.processes: list[int] = []
        with files.null() as null, Fds([posix.dup(archive)]) as source:
            try:
                for command in commands:
                    with Fds(source) as reading:
                        source[:] = [self.start(command, reading[0], null)]
            except BaseException:
                self.end()
                raise
            self.output = open(source.pop(), "rb", buffering=BUFFER)       # noqa: SIM115

    def start(self, words: list[str], source: int, null: int) -> int:
        """Start a process that reads from a descriptor.  Return one of what it writes."""
        with Fds(posix.pipe()) as ends:
            try:
                fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, BUFFER)
            except OSError:
                pass            # beyond what is left of the limit for all pipes: the usual size does as well
            try:
                process, pidfd = namespaces.spawn(processes.candidates(words[0]), words, {}, directory="/",
                                                  standard=(source, ends[1], null), user=NOBODY)
            except OSError as error:
                raise Failure(f"cannot execute {words[0]}: {error.strerror}") from None
            posix.close(pidfd)          # the process is ours to be waited for: its number is its own
            self.processes.append(process)
            return ends.pop(0)

    def __enter__(self) -> "Decompressor":
        return self

    def __exit__(self, *_: object) -> None:
        self.output.close()
        self.end()

    def end(self) -> None:
        for process in self.processes:
            posix.kill(process, SIGKILL)
            posix.waitpid(process, 0)
        self.processes = []

    def check_ended(self) -> None:
        """Wait for its end, once all of its output was read.  Raises Failure if it says that the archive is damaged."""
        status = posix.waitpid(self.processes.pop(), 0)[1]
        if status:
            raise Failure("it is truncated or damaged: its compression is at fault")
