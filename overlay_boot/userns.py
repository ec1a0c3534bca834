"""USERNS: a user namespace, in which root of the subhost is nobody of the host's, and mounts that show owners by it.

Files keep their owners on the disk: an id-mapped mount, mount_setattr(2), shows what belongs to 0 there as root's of
the user namespace, and has what that makes belong to 0.  So one boot can have other ids than the next, or none.

First comes the user namespace, with the network namespace that belongs to it; then the mounts are made, by root of the
host; then a copy of all of them, that belongs to the user namespace: nobody in it can take apart what was copied.
"""
import fcntl
import posix
from errno import EINVAL, EPERM

from . import beneath, files, mounts, namespaces, paths, proc, record, users
from .config import AUTO, IDS, Config
from .errors import Failure, doing
from .files import Fd
from .passwd import is_id, rows
from .record import Record
from .state import STATES, State, init_of, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What systemd leaves to containers, https://systemd.io/UIDS-GIDS.  Others, subuid(5) above all, begin with the lowest.
LOWEST, HIGHEST = 0x00080000, 0x6fff0000
NSPAWN = "/run/systemd/nspawn-uid"      # a file for each range that systemd-nspawn(1) uses, named after its first id
ACCOUNTS = (("/etc/passwd", "user"), ("/etc/group", "group"))
SUBORDINATE = ("/etc/subuid", "/etc/subgid")
DEVICE = "device"                       # the name of a copy of one
NOBODY = 65534                          # overflowuid, proc(5)
LONGEST_FILE = 1 << 24                  # bytes of these that are read
# Owners mean nothing there, or are those of a namespace.
WITHOUT_OWNERS = ("cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs")


class UserNamespace:
    """The user namespace of a subhost: its first id on the host, and their number; value is that of USERNS."""

    __slots__ = ("count", "fd", "first", "network", "value")

    def __init__(self, value: str, first: int, count: int, fd: Fd, network: Fd | None = None) -> None:
        self.value, self.first, self.count = value, first, count
        self.fd, self.network = fd, network         # of its network namespace, once that is made

    def has(self, user: int) -> bool:
        """Tell whether a user of the host's is one of the subhost's."""
        return self.first <= user < self.first + self.count

    def map(self, mounted: int, path: str) -> None:
        """Have a mount of a path, that nobody sees yet, show owners by it.

        Raises Unmappable if the kernel never lets it, OSError if it cannot now.
        """
        try:
            namespaces.mount_setattr(mounted, namespaces.IDMAP, users=self.fd)
        except OSError as error:
            if error.errno not in (EINVAL, EPERM):      # its file system cannot; it is id-mapped already
                raise
            raise Unmappable(kind_of(path), self.value, error) from None

    def mapped(self, path: str, what: str) -> Fd:
        """Return a descriptor of a bind mount of a path that shows owners by it, and that nobody sees yet.

        Raises Failure, which calls the path what.
        """
        try:
            mounted = Fd(namespaces.open_tree(path))
        except OSError as error:
            raise Failure(f"{what}: {error.strerror}") from None
        try:
            self.map(mounted, path)
        except Unmappable as failure:
            posix.close(mounted)
            failure.args = (f"{what}: {failure}",)
            raise
        except OSError as error:
            posix.close(mounted)
            raise Failure(f"{what}: {error.strerror}") from None
        return mounted

    def taken_in(self, mounted: Fd, path: str) -> Fd:
        """Return a mount of a path, that nobody sees yet, for the subhost, with its attributes locked.

        Raises Unmappable.  The one given is closed.
        """
        self.map(mounted, path)
        namespaces.mount_setattr(mounted, namespaces.NODEV)
        made = Fd(users.lock_mount(self.fd, mounted, path, "."))
        posix.close(mounted)
        return made

    def device(self, path: str) -> Fd:
        """Return a mount, that nobody sees yet, of a copy of a device file, for the subhost; its attributes are locked.

        What devices are in cannot be mapped.  The copy belongs to whom the file would belong in an id-mapped mount.
        """
        status = posix.stat(path)
        with mounts.new("tmpfs", namespaces.NOSUID | namespaces.NOEXEC, mode="755", nr_inodes="2") as made:
            posix.mknod(DEVICE, status.st_mode, status.st_rdev, dir_fd=made)
            user, group = (self.first + min(number, NOBODY) for number in (status.st_uid, status.st_gid))
            posix.chown(DEVICE, user, group, dir_fd=made)
            posix.chmod(DEVICE, status.st_mode & ~files.KIND, dir_fd=made)      # which a umask was in the way of
            return Fd(users.lock_mount(self.fd, made, "/", DEVICE))

    def check(self, config: Config) -> None:
        """Raises Failure for a LAYER or a SHARE of which no mount can show owners by it."""
        wanted = [("SHARE", outside, outside) for outside, *_ in config.share
                  if files.kind(outside) not in (0, *files.DEVICES)]
        if config.layers:
            from . import layers
            wanted += [("LAYER", path, layers.place_of(path)) for path in config.layers]
        for variable, path, place in wanted:
            with self.mapped(place, f"{variable}={path}"):
                pass

    def mapped_pair(self, one: str, other: str, what: str, *, is_ours: bool) -> list[Fd]:
        """Return descriptors of two directories of one mount, in one bind mount as mapped() has it, and of that.

        Where the file system is ours, and nobody else's, its files are given to the subhost if they cannot be mapped.
        """
        one, other = paths.real(one), paths.real(other)
        above = common(one, other)
        try:
            mounted = self.mapped(above, what)
        except Unmappable:
            if not is_ours:
                raise
            mounted = Fd(namespaces.open_tree(above))       # a tmpfs, before Linux 6.3
            self.give(mounted)
        below = [path[len(above):].strip("/") for path in (one, other)]
        return [*(beneath.directory(mounted, path, beneath.REFUSED) for path in below), mounted]

    def give(self, directory: int) -> None:
        """Have what is in a directory belong to whom it would belong in an id-mapped mount."""
        with files.opened(".", files.READ_DIRECTORY, directory=directory) as read:
            entries = posix.listdir(read)
        for name in (".", *entries):
            status = posix.stat(name, dir_fd=directory, follow_symlinks=False)
            kind, mode = status.st_mode & files.KIND, status.st_mode & ~files.KIND
            if not self.has(status.st_uid):
                posix.chown(name, self.first + status.st_uid, self.first + status.st_gid, dir_fd=directory,
                            follow_symlinks=False)
                if kind != files.SYMLINK:
                    posix.chmod(name, mode, dir_fd=directory)       # chown(2) has taken setuid bits
            if kind == files.DIRECTORY and name != ".":
                with files.opened(name, files.PLACE | posix.O_NOFOLLOW, directory=directory) as below:
                    self.give(below)

    def carry(self, place: str, tell: "Callable[[str], None]", overlays: set[str]) -> "list[tuple[str, Fd]]":
        """Return bind mounts, that nobody sees yet, of what is mounted below a directory: (path in that, descriptor).

        They show owners by it.  tell is called with a line for each that cannot.  Overlay mounts in the places of
        overlays are left out.
        """
        found = []
        for mount in proc.mounts_below(place):
            if mount.kind == "overlay" and mount.place in overlays:
                continue
            mounted = Fd(namespaces.open_tree(mount.place))
            if not self.has(posix.fstat(mounted).st_uid) and mount.kind not in WITHOUT_OWNERS:
                try:
                    self.map(mounted, mount.place)
                except Unmappable as failure:
                    tell(f"{mount.place}: {failure}")
            found.append((mount.place[len(place) + 1:], mounted))
        return found

    def bind(self, path: str, target: int) -> None:
        """A bind mount of a path on what the descriptor target is, which shows owners by it if it can."""
        with Fd(namespaces.open_tree(path)) as mounted:
            try:
                self.map(mounted, path)
            except Unmappable:
                pass
            namespaces.move_mount(mounted, target)

    def copy_mounts(self, root: int) -> tuple[Fd, Fd, Fd]:
        """Return descriptors of a copy of this mount namespace, that it owns, of "/" and of the directory root in that.

        What is mounted by now is locked in there, and no device can be opened below root.
        """
        namespaces.mount_setattr(root, namespaces.NODEV)
        mounts, top, copied = users.copy_mounts(self.fd, root)
        return Fd(mounts), Fd(top), Fd(copied)


class Unmappable(Failure):
    """A file system that no mount can show with other owners."""

    def __init__(self, kind: str, value: str, error: OSError) -> None:
        why = "" if error.errno == EINVAL else f" ({error.strerror})"
        super().__init__(f"its file system, {kind}, cannot be id-mapped, as USERNS={value} needs it{why}")


class Owner:
    """A context: what this process makes belongs to a user, and the group of that number.  It remains root."""

    __slots__ = ("before", "user")

    def __init__(self, user: int) -> None:
        self.user = user

    def __enter__(self) -> None:
        self.before = users.make_files_as(self.user, users.KEEP_CAPABILITIES)

    def __exit__(self, *_: object) -> None:
        users.make_files_as(*self.before)


def kind_of(path: str) -> str:
    """Return the kind of file system that a path is on."""
    mount = proc.mount_of(path)
    return mount.kind if mount else "of an unknown kind"


def common(one: str, other: str) -> str:
    """Return the path of the lowest directory that both paths are in."""
    shared = []
    for part, other_part in zip(one.split("/"), other.split("/"), strict=False):
        if part != other_part:
            break
        shared.append(part)
    return "/".join(shared) or "/"


def attach(root: int, carried: list[tuple[str, Fd]]) -> None:
    """Mount what carry() has returned, below the directory root, and close it."""
    for path, mounted in carried:
        with mounted, beneath.opened(root, path, posix.O_PATH, beneath.REFUSED) as target:
            namespaces.move_mount(mounted, target)


# The choice of the ids

@doing("make a user namespace")
def make(config: Config, state: State) -> UserNamespace:
    """Make the user namespace of a boot.  Its ids are on record from then on.

    Raises Failure if those of USERNS are somebody else's, or none are left.
    """
    with files.opened(STATES, posix.O_RDONLY | posix.O_DIRECTORY) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)        # until they are on record
        first, count = choose(config.userns, config.name)
        state.note("ids", (first, count))
    made = made_with(config.userns, first, count)
    config.userns = f"{first}:{count}"
    return made


@doing("make a user namespace")
def make_to_check(config: Config) -> UserNamespace:
    """Make one that is not on record."""
    return made_with(config.userns, *choose(config.userns, config.name))


def made_with(value: str, first: int, count: int) -> UserNamespace:
    """Make one with these ids.  Raises Failure if a container that this is in has not got them."""
    ids = b"0 %d %d\n" % (first, count)
    try:
        made = namespaces.make_users(ids, ids)
    except PermissionError:
        if has(first, count):
            raise
        raise Failure(f"USERNS={value}: this is a container without the ids {first} to {first + count - 1}") from None
    return UserNamespace(value, first, count, *map(Fd, made))


def has(first: int, count: int) -> bool:
    """Tell whether all of these ids are the host's, or those of a container that this is in."""
    own = (map(int, line.split()) for line in proc.own_ids("uid_map").splitlines())
    return any(lowest <= first and first + count <= lowest + number for lowest, _, number in own)


def of_process(process: int) -> UserNamespace:
    """Return the user namespace of PID 1 of a subhost that runs.  Raises OSError if that has ended."""
    first, count = proc.ids(process) or (0, 0)
    return UserNamespace(f"{first}:{count}", first, count, files.opened(f"/proc/{process}/ns/user", posix.O_RDONLY))


@doing("open the user namespace")
def of_mounts(mounts: int, value: str) -> UserNamespace:
    """Return the user namespace that a mount namespace belongs to; value is its USERNS, FIRST:COUNT."""
    first, count = map(int, value.split(":"))
    return UserNamespace(value, first, count, proc.users_of(mounts))


def choose(value: str, name: str) -> tuple[int, int]:
    """Return the first id and their number for a value of USERNS and the subhost NAME.

    Raises Failure if they are somebody else's, or none are left.
    """
    if value == AUTO:
        return free(name), IDS
    first, count = map(int, value.split(":"))
    for other, number, whose in taken(name):
        if other < first + count and first < other + number:
            raise Failure(f"USERNS={value}: id {max(first, other)} is that of {whose}")
    return first, count


def free(name: str) -> int:
    """Return the first of IDS ids that nobody has, the highest that there are."""
    blocks: set[int] = set()
    for first, count, _ in (*taken(name), *subordinate()):
        last = min(first + count - 1, HIGHEST + IDS - 1)
        blocks.update(range(max(first, LOWEST) // IDS, last // IDS + 1))
    for block in range(HIGHEST // IDS, LOWEST // IDS - 1, -1):
        if block not in blocks:
            return block * IDS
    raise Failure(f"USERNS={AUTO}: no {IDS} ids are left")


def taken(name: str) -> "Iterator[tuple[int, int, str]]":
    """Yield (first, number, whose) of ids in use by others than the subhost NAME."""
    for path, kind in ACCOUNTS:
        for words in rows(text_of(path)):
            if len(words) > 2 and is_id(words[2]):
                yield int(words[2]), 1, f"the host's {kind} {words[0]}"
    for entry in listed(NSPAWN):
        if is_id(entry):
            yield int(entry), IDS, "a container of systemd-nspawn"
    for other in names():
        ids = ids_of(other) if other != name else None
        if ids:
            yield *ids, f"the subhost {other}"


def subordinate() -> "Iterator[tuple[int, int, str]]":
    """Yield (first, number, whose) of ids that subuid(5) and subgid(5) give to users of the host's."""
    for path in SUBORDINATE:
        for words in rows(text_of(path)):
            if len(words) == 3 and is_id(words[1]) and is_id(words[2]):
                yield int(words[1]), int(words[2]), words[0]


def ids_of(name: str) -> tuple[int, int] | None:
    """Return the first id of a subhost, and their number.  A damaged record is no reason to boot no other one."""
    try:
        with State(name) as state:
            found = record.Record()
            for line in record.lines(state.text()):
                found.take(line)
            return found.ids or lost_ids(found, init_of(state.keeper()))
    except (OSError, Failure):
        return None


def lost_ids(found: Record, init: int | None) -> tuple[int, int] | None:
    """Return the ids that a record has lost: those of PID 1, or of one that hibernates those that it was made with."""
    try:
        return proc.ids(init) if init else record.ids(found.values.get("USERNS", ""))
    except (OSError, ValueError):
        return None


def text_of(path: str) -> str:
    """Return the text of a file, "" if there is none."""
    try:
        with files.opened(path) as fd:
            return paths.decode(posix.read(fd, min(posix.fstat(fd).st_size, LONGEST_FILE)))
    except (FileNotFoundError, NotADirectoryError):
        return ""


def listed(path: str) -> list[str]:
    try:
        return posix.listdir(path)
    except FileNotFoundError:
        return []
