"""Processes of a subhost that execute or map files which its layers have replaced or removed since.

The kernel tells of a file that was removed by way of the overlay mount, as rm(1) inside does it, by the word
"(deleted)".  It does not know of what happened in a layer: there the inodes are compared.  A file keeps its inode
number as long as somebody uses it, and overlayfs passes on the number that a file has in its layer.
"""
import posix

from . import beneath, files, namespaces, paths, proc, services

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .overlayfs import Tree
    from .running import Running

INODE_BITS = (1 << 56) - 1      # of a number as overlayfs has it, with xino the number of the layer is above
LONGEST_SCRIPT = 1 << 17        # bytes of an init script that are read
LONGEST_PID_FILE = 64
OF_OTHERS = 0o022               # bits of a mode: who may write besides the owner
IN_PATH = "/._-+"               # what a path has besides letters and digits


class Process:
    """A process that uses old files."""

    __slots__ = ("command", "files", "number", "service", "start")

    def __init__(self, number: int, start: int, old: list[str]) -> None:
        self.number = number
        self.start = start                  # in clock ticks since the machine was started
        self.command = proc.name(number)
        self.files = old                    # paths in the subhost
        self.service: str | None = None     # the word of START that it belongs to; None if that cannot be told


class Finder:
    """Finds them in a running subhost, each file once."""

    __slots__ = ("known", "mounts", "running", "tree")

    def __init__(self, running: "Running", root: int, tree: "Tree") -> None:
        """root is a descriptor of the subhost's root directory, tree what its root file system is made of."""
        self.running = running
        self.mounts = {namespaces.mount_of(root)[0], *(
            number for number, mount in running.mounts().items() if mount.place in tree.mounts)}
        self.tree = tree
        self.known: dict[tuple[str, ...], str] = {}     # {(device, inode, path) of /proc/PID/maps: path if it is old}

    def find(self) -> list[Process]:
        """Return the processes that use old files."""
        found = []
        for process in self.running.members():
            try:
                start = proc.stat(process).start
                old = self.old_files(process)
                if old and proc.stat(process).start == start:
                    found.append(Process(process, start, old))
            except OSError as error:    # it has ended, or hides what it uses behind a path that is too long
                if error.errno in files.SCARCE:
                    raise
        members = self.running.members()        # else the number was another process's by then
        return [one for one in found if one.number in members]

    def old_files(self, process: int) -> list[str]:
        """Return the paths of the old files that a process executes or maps.  Raises OSError if it has ended."""
        with files.opened(f"/proc/{process}/maps", posix.O_RDONLY) as fd:
            lines = paths.decode(files.read_all(fd)).split("\n")[:-1]
        found = {}
        for line in lines:
            addresses, _, _, device, inode, *path = line.split(None, 5)
            if inode == "0":
                continue
            key = (device, inode, *path)
            if key not in self.known:
                self.known[key] = self.path_if_old(process, addresses)
            if self.known[key]:
                found[self.known[key]] = True
        return [*found]

    def path_if_old(self, process: int, addresses: str) -> str:
        """Return the path of the file that a process has mapped there, "" if it is not old, or not of the layers."""
        begin, _, end = addresses.partition("-")
        link = f"/proc/{process}/map_files/{int(begin, 16):x}-{int(end, 16):x}"
        try:
            with files.opened(link, posix.O_PATH) as fd:
                if namespaces.mount_of(fd)[0] not in self.mounts:
                    return ""
                inode = posix.fstat(fd).st_ino
            path = posix.readlink(link)
        except proc.ENDED:                      # or it is mapped no more
            return ""
        return self.judged(path, inode)

    def judged(self, path: str, inode: int) -> str:
        """Return the path of a mapped file if it is old, "" if not."""
        now = self.tree.find(path)
        is_deleted = not now and path.endswith(proc.DELETED)
        if is_deleted:
            path = path.removesuffix(proc.DELETED)
            now = self.tree.find(path)
        with now:
            pass
        if not now:                             # what the subhost has made and removed itself is not old
            return path if not is_deleted and self.tree.own or self.is_beneath(path) else ""
        if now.layer < self.tree.own:           # its own: the number may still be that of the file it was copied from
            return path if is_deleted else ""
        return path if (now.status.st_ino ^ inode) & INODE_BITS else ""

    def is_beneath(self, path: str) -> bool:
        """Tell whether a layer that is not the subhost's own has something of the path, which its own hides."""
        with self.tree.beneath(self.tree.own).find(path) as found:
            return bool(found)


def tell_services(running: "Running", root: int, found: list[Process]) -> None:
    """Tell each of the processes which service of START it belongs to, as far as that can be known.

    The kernel knows what is in the control group of a service.  A service that has nothing there may have been started
    by a script that does not go there by itself.  Then it is the one of which the process, or a parent of it, executes
    a program whose path has the service's name in it, or that its script names; or of which it is the process in a pid
    file.
    """
    if services.are_systemds(running):
        tell_units(running, found)
        return
    if not running.record.start or not found:
        return
    by_group = services.processes(running)
    known: dict[int, str | None] = {running.init: None, **by_group}
    guessed = [Service(root, word) for word in running.record.start if word not in by_group.values()]
    pid_files = numbers_in_run(root, proc.owner(running.init)) if guessed else {}
    members = {*running.members()}

    def of(process: int) -> str | None:
        """Return the service of a process, of its parent if it has none of its own."""
        passed, found = [], None
        while process in members and process not in known:      # else it is the parent of who was let in
            passed.append(process)
            known[process] = None               # a circle would be a number that is used again
            try:
                found = next((one.word for one in guessed if one.has(process, pid_files)), None)
                process = 0 if found else proc.stat(process).parent
            except OSError:                     # it has ended, or its program is out of reach
                break
        found = found or known.get(process)
        known.update(dict.fromkeys(passed, found))
        return found

    for one in found:
        one.service = of(one.number)


def tell_units(running: "Running", found: list[Process]) -> None:
    """tell_services(), where PID 1 is systemd: each unit has a control group of its own."""
    from . import systemd
    for one in found:
        try:
            one.service = systemd.service_of(one.number, running.record.cgroup or "", running.record.start)
        except proc.ENDED:
            pass


class Service:
    """A word of START, and its script."""

    __slots__ = ("name", "script", "word")

    def __init__(self, root: int, word: str) -> None:
        self.word = word
        self.name = paths.name(word)
        place = word if word[0] == "/" else f"/etc/init.d/{word}"
        self.script = paths.decode(beneath.content(root, place, LONGEST_SCRIPT, beneath.INSIDE))

    def has(self, process: int, pid_files: dict[int, str]) -> bool:
        """Tell whether a process is one of its own.  Raises OSError if that has ended."""
        programs = [posix.readlink(f"/proc/{process}/exe").removesuffix(proc.DELETED),
                    *(word for word in proc.arguments(process)[:2] if word[:1] == "/")]
        if self.word in programs or any(self.name in path.split("/") for path in programs):
            return True
        if any(self.mentions(path) for path in programs):
            return True
        pid_file = pid_files.get(int((proc.status(process, "NSpid") or ["0"])[-1]), "")
        return bool(pid_file) and (self.mentions(pid_file) or self.name in pid_file.removesuffix(".pid").split("/"))

    def mentions(self, path: str) -> bool:
        """Tell whether its script has the path in it, not as a part of another one."""
        parts = self.script.split(path)
        return any(not is_in_path(parts[number][-1:]) and not is_in_path(parts[number + 1][:1])
                   for number in range(len(parts) - 1))


def is_in_path(letter: str) -> bool:
    return letter.isalnum() or letter != "" and letter in IN_PATH


def numbers_in_run(root: int, owner: int) -> dict[int, str]:
    """Return {process id inside: path} of the pid files in /run and the directories there, as far as root wrote them.

    owner is root of the subhost, as the host has him.  Nobody else may have the right to put them there.
    """
    found: dict[int, str] = {}
    for directory in ("run", *(f"run/{name}" for name in beneath.names(root, "run", beneath.REFUSED))):
        try:
            with beneath.directory(root, directory, beneath.REFUSED) as at:
                if is_roots(at, owner):
                    found.update(numbers_in(at, f"/{directory}", owner))
        except OSError as error:        # what keeps it from being read is the subhost's business
            if error.errno in files.SCARCE:
                raise
    return found


def numbers_in(directory: int, place: str, owner: int) -> "Iterator[tuple[int, str]]":
    """Yield (process id inside, path) of the pid files of root in a directory, which is at place."""
    for name in beneath.names(directory, ".", beneath.REFUSED):
        if name.endswith(".pid"):
            with beneath.opened(directory, name, posix.O_PATH | posix.O_NOFOLLOW, beneath.REFUSED) as place_of_file:
                if files.kind_of(place_of_file) == files.REGULAR and is_roots(place_of_file, owner):
                    with files.opened(paths.of_descriptor(place_of_file)) as fd:
                        text = posix.read(fd, LONGEST_PID_FILE)
                    if text.strip().isdigit():
                        yield int(text), f"{place}/{name}"


def is_roots(fd: int, owner: int) -> bool:
    """Tell whether a file or directory belongs to root, and nobody else can write to it."""
    status = posix.fstat(fd)
    return status.st_uid == owner and not status.st_mode & OF_OTHERS
