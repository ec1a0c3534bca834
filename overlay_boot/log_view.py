"""What overlay-log(8) shows: LOG of a subhost, from the end of it, and what is added."""
import posix
import time

from . import files, log, paths, terminal
from .config import LOGS, Config, check_name
from .errors import Failure
from .files import Fd
from .record import Record
from .running import find
from .services import are_systemds
from .state import State, names
from .subhosts_conf import listed

CHUNK = 1 << 16         # bytes
LOOK = 0.2              # seconds, between two looks at what is added


def opened(word: str) -> Fd:
    """Open LOG of a subhost, which is given by its name or its configuration file.  Raises Failure."""
    path, own = place(word)
    try:
        with log.existing(path, own, log.TO_READ) as found:      # as a boot opens it, through no link of the subhost's
            if files.kind_of(found) != files.REGULAR:
                raise Failure(f"LOG={path} is not a regular file")
            return files.opened(paths.of_descriptor(found))
    except OSError as error:
        raise Failure(f"cannot read LOG={path}: {error.strerror}") from None


def place(word: str) -> tuple[str, tuple[str, ...]]:
    """Return the path of LOG of a subhost, and the directories with its own files."""
    if word in names():
        record = on_record(word)
        if record.log:                  # else it is at the beginning of its boot, or has just gone
            return record.log, (record.upper,)
        word = record.config or word
    if is_file(word):
        return place_by(Config(word, "overlay-log"))
    check_name(word)
    for path in listed():
        try:
            config = Config(path, "overlay-log")
        except (OSError, Failure):
            continue
        if config.name == word:
            return place_by(config)
    return f"{LOGS}/{word}.log", ()     # whose configuration file nobody knows


def is_file(word: str) -> bool:
    """Tell whether a word that is no running subhost's name stands for a configuration file."""
    return "/" in word or word.endswith(".conf")


def on_record(name: str) -> Record:
    """Return what is on record of a subhost, as far as that can be read."""
    try:
        with State(name) as state:
            return state.legible()
    except FileNotFoundError:
        return Record()


def place_by(config: Config) -> tuple[str, tuple[str, ...]]:
    """Return the path of LOG by a configuration file.  All below BASE may be the subhost's own."""
    config.add_site_wide()
    config.resolve_log()
    here = paths.parent(config.path)
    base = paths.join(here, config.value("BASE", here))
    return paths.join(base, config.log), (base,)


def with_journal(word: str) -> str | None:
    """Return the name of a subhost that runs with systemd, whose units print elsewhere; None of any other one."""
    try:
        one = find(Config(word, "overlay-log").name if word not in names() and is_file(word) else word)
    except Failure:
        return None
    with one.state, one:
        return one.name if are_systemds(one) else None


def show(source: int, lines: int | None, *, follow: bool) -> None:
    """Print the last lines of a file, all of it if that is None; to follow it, also what is added, for ever.

    On a terminal, control characters that the subhost has printed are shown, and do nothing.
    """
    printer = Printer(is_plain=terminal.width(1) is None)
    posix.lseek(source, 0 if lines is None else end_but(source, lines), 0)
    while True:
        chunk = posix.read(source, CHUNK)
        printer.add(chunk)
        if chunk:
            continue
        printer.flush()
        if not follow:
            return
        time.sleep(LOOK)
        if posix.fstat(source).st_size < posix.lseek(source, 0, 1):     # logrotate(8) has cut it
            posix.lseek(source, 0, 0)


def end_but(source: int, lines: int) -> int:
    """Return where the last so many lines of a file begin."""
    end = posix.fstat(source).st_size
    if not lines:
        return end
    last = end - 1                      # that byte ends the last line
    while end > 0:
        begin = max(end - CHUNK, 0)
        chunk = posix.pread(source, end - begin, begin)
        at = min(last, end) - begin
        while (at := chunk.rfind(b"\n", 0, at)) >= 0:
            lines -= 1
            if not lines:
                return begin + at + 1
        end = begin
    return 0


class Printer:
    """Prints bytes by lines.  is_plain tells whether they are printed as they are."""

    __slots__ = ("is_plain", "rest")

    def __init__(self, *, is_plain: bool) -> None:
        self.is_plain = is_plain
        self.rest = b""                 # of a line whose end has not come yet

    def add(self, chunk: bytes) -> None:
        whole, end, rest = chunk.rpartition(b"\n")
        if end:
            self.put(self.rest + whole + end)
            self.rest = rest
        else:
            self.rest += chunk
            if len(self.rest) > CHUNK:
                self.flush()

    def flush(self) -> None:
        """Print what there is of a line without an end."""
        self.put(self.rest)
        self.rest = b""

    def put(self, text: bytes) -> None:
        if not self.is_plain:
            text = paths.encode("".join(map(shown, paths.decode(text))))
        if text:
            files.write_all(1, text)


def shown(letter: str) -> str:
    """Return what a terminal shows for a letter.  A byte that is no text may be half of a control character."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xdc00:02x}"
    return letter if letter in "\n\t" else paths.printable(letter)
