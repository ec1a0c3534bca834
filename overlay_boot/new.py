"""The story of overlay-new: the directory of a subhost, all of it or nothing.

It is made beside its place, in a directory of which no other overlay-new makes anything meanwhile, and gets its name at
once.  What a killed one has left there the next one removes.
"""
import fcntl
import os
import shutil

from . import beneath, clearing, config, files, interruption, plan, processes, rootfs, state, template, uppers
from .config import TMPFS, Config
from .errors import Failure, complain, doing
from .files import Fd, Fds
from .sources import Sources, followed
from .subhosts_conf import LIST, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .template import Given

OWN = ("BASE", "LIVE", "UPPER", "WORK")         # no two subhosts have the same
# All that a file has: -a alone would not tell of extended attributes that are lost.
COPY = ("cp", "-a", "-x", "--preserve=all,xattr", "--reflink=auto", "-T", "--")
LARGEST = 1 << 20                               # bytes of a file that is copied with a configuration: an image has more
OPEN, CLOSED = 0o755, 0o700                     # modes: UPPER is the root directory of the subhost


@doing("make the subhost")
def make(directory: str, given: "Given", like: str | None = None, *, with_upper: bool = False) -> tuple[str, str]:
    """Make the directory of a subhost with a configuration that has the values given.  Return its file and its NAME.

    The rest of that is as in the configuration file like, and with_upper, as in its UPPER.  Raises Failure if it could
    not be booted.
    """
    os.umask(0o022)
    interruption.hold()
    directory = checked(directory)
    name = given.get("NAME", [os.path.basename(directory)])[0]
    check_name(name)
    host, _ = rootfs.unshare_mounts()           # what a `!` command mounts goes with this process
    source = source_of(like, directory) if like else None
    text = template.like(source, given, directory) if source else template.new(name, given, directory)
    with Workshop(directory) as workshop:
        file = f"{os.path.basename(directory)}.conf"
        try:
            make_in(workshop.new, file, text, source, with_upper=with_upper)
            check(f"{workshop.new}/{file}")
        except Failure as failure:
            raise Failure(str(failure).replace(workshop.new, directory)) from None
        finally:
            host.enter()                        # where no IMAGE is mounted in what is renamed or removed now
        if os.path.lexists(directory):
            raise there(directory)
        os.rename(workshop.new, directory)
    return f"{directory}/{file}", name


def checked(directory: str) -> str:
    """Return the real path of a directory to be made.  Raises Failure if there is something, or no place for it."""
    above, last = os.path.split(os.path.abspath(directory))
    try:
        directory = os.path.join(os.path.realpath(above, strict=True), last)
    except OSError as error:
        raise Failure(f"cannot make {directory}: {error.strerror}") from None
    if os.path.lexists(directory):
        raise there(directory)
    return directory


def there(directory: str) -> Failure:
    return Failure(f"{directory} is there already")


def check_name(name: str) -> None:
    """Raises Failure if it cannot be a NAME, or is that of another subhost, as far as these are known."""
    if name.startswith("!"):
        return
    config.check_name(name)
    if name in state.names():
        raise Failure(f"there is a subhost {name} already, and it runs or is being booted or stopped")
    for path in listed():
        try:
            other = config.read(path).get("NAME", [os.path.basename(path).removesuffix(".conf")])[0]
        except Failure:                         # which is for its boot to tell
            continue
        if other == name:
            raise Failure(f"there is a subhost {name} already: {path} in {LIST}")


def source_of(path: str, directory: str) -> Config:
    """Return the configuration that a new one is to be like."""
    source = Config(path, "overlay-check", warn=False)
    source.complete()
    if f"{directory}/".startswith(f"{source.base.rstrip('/')}/"):
        raise Failure(f"{directory} is inside BASE={source.base} of {path}")
    return source


class Workshop:
    """Where the directory is made."""

    __slots__ = ("fd", "new", "path")

    def __init__(self, directory: str) -> None:
        above, name = os.path.split(directory)
        self.path = f"{above.rstrip('/')}/.{name}.overlay-new"
        self.new = f"{self.path}/new"

    def __enter__(self) -> "Workshop":
        try:
            self.fd = self.locked()
        except BlockingIOError:
            raise Failure("another overlay-new is making it") from None
        except OSError as error:
            raise Failure(f"cannot make {self.path}: {error.strerror}") from None
        self.clear()                            # of one that was killed
        os.mkdir(self.new, CLOSED)
        return self

    def __exit__(self, *_: object) -> None:
        with self.fd:
            self.clear()
            os.rmdir(self.path)

    def locked(self) -> Fd:
        """Make and lock the directory, which another process may just remove; return a descriptor of it."""
        while True:
            files.make_directory(self.path, CLOSED)
            try:
                fd = files.opened(self.path, files.READ_DIRECTORY)
            except FileNotFoundError:
                continue
            with Fds([fd]) as fds:
                if os.fstat(fd).st_uid:         # who could put something else in the place of what is made
                    raise Failure(f"{self.path} does not belong to root")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink:
                    fds.let_go()
                    return fd

    def clear(self) -> None:
        if os.path.lexists(self.new):
            shutil.rmtree(self.new)


def make_in(place: str, file: str, text: str, source: Config | None, *, with_upper: bool) -> None:
    """Make what is in the directory of a subhost, at the place where that is made."""
    with files.opened(f"{place}/{file}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644) as fd:
        files.write_all(fd, text)
    assigned = config.read(f"{place}/{file}")
    if source:
        copy_files(source, place, file)
        if with_upper:
            copy_upper(source, place, assigned)
    for path, mode in directories(assigned):
        make_directory(place, path, mode)


def directories(assigned: "config.Assignments") -> "list[tuple[str, int]]":
    """Return (path, mode) of the directories that a configuration takes, as far as BASE has them."""
    def value(variable: str) -> str:
        return assigned.get(variable, [str(config.DEFAULTS[variable])])[0]

    found = [(value("LIVE"), CLOSED)]
    if "IMAGE" in assigned:
        found.append(("mnt", CLOSED))
    elif not value("UPPER").startswith(TMPFS):
        found += [(value("UPPER"), OPEN), (value("WORK"), CLOSED)]
    return [(path, mode) for path, mode in found if is_inside(path)]


def is_inside(path: str) -> bool:
    """Tell whether a value is a path in BASE."""
    return path[:1] not in ("!", "/") and ".." not in path.split("/")


def make_directory(place: str, path: str, mode: int) -> None:
    """Make a directory below the place, and those above it, unless it is there."""
    os.makedirs(os.path.dirname(f"{place}/{path}"), CLOSED, exist_ok=True)
    files.make_directory(f"{place}/{path}", mode)
    if mode == OPEN and not os.listdir(f"{place}/{path}"):
        os.chmod(f"{place}/{path}", mode)       # whatever the umask is, and whatever other variable has it too


def copy_files(source: Config, place: str, file: str) -> None:
    """Copy what stands beside a configuration: hooks and the like.  No directories, configurations, logs or images."""
    own = (source.live, source.upper, source.work, source.log)      # a link to one is not for two subhosts
    for entry in os.scandir(source.base):
        if (not entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size <= LARGEST
                and not entry.name.endswith(".conf") and entry.path not in own and entry.name != file):
            copy(entry.path, f"{place}/{entry.name}")


def copy_upper(source: Config, place: str, assigned: "config.Assignments") -> None:
    """Copy UPPER of a subhost that does not run, and is not booted meanwhile."""
    upper = assigned.get("UPPER", [str(config.DEFAULTS["UPPER"])])[0]
    with Held(source):
        if "IMAGE" in assigned or upper.startswith(TMPFS) or not is_inside(upper):
            raise Failure(f"--with-upper: UPPER={upper} is not a directory in that of the new subhost")
        os.makedirs(os.path.dirname(f"{place}/{upper}"), CLOSED, exist_ok=True)
        copy(os.path.realpath(source.upper), f"{place}/{upper}")
        store, copied = Sources(source).followed, followed(place, f"{place}/{upper}")
        if os.path.isdir(store):
            files.make_directory(os.path.dirname(copied), CLOSED)
            copy(store, copied)
    with rootfs.directory(f"{place}/{upper}", "UPPER") as root:
        host_name = beneath.content(root, "etc/hostname", config.LONGEST_NAME + 2, beneath.REFUSED)
        if host_name.strip() == source.name.encode():
            with beneath.directory(root, "etc", beneath.REFUSED) as etc:
                os.unlink("hostname", dir_fd=etc)       # the first boot writes the new one


class Held:
    """A context in which nobody boots a subhost.  Raises Failure if its UPPER is no directory of its own at rest."""

    __slots__ = ("state",)

    def __init__(self, source: Config) -> None:
        if source.image or source.tmpfs or source.assigned.get("UPPER", [""])[0].startswith("!"):
            raise Failure(f"UPPER={source.upper} of {source.path} is in an image, on a tmpfs or made by a command: "
                          f"it cannot be copied")
        try:
            self.state = state.claim(source.name)
            if self.state.is_hibernating():
                self.state.close()
                raise Failure(f"{source.name} is hibernating")
            uppers.check_use(uppers.directories(Sources(source)), source.name)
        except Failure as failure:
            raise Failure(f"cannot copy UPPER={source.upper}: {failure}") from None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self.state.is_empty():
            clearing.forget(self.state)
        else:
            self.state.close()


def copy(path: str, target: str) -> None:
    """cp(1) with all that a file or a directory has; without what is mounted in it.  Raises Failure."""
    with Fd(os.memfd_create("said")) as said:
        try:
            processes.run([*COPY, path, target], {}, "/", log=said)
        except processes.Unsuccessful as failure:
            raise Failure(f"cannot copy {path}: {[*processes.lines_of(said), failure][0]}") from None


def check(path: str) -> None:
    """Raises Failure, or complains, as overlay-boot --check does."""
    found = Config(path, "overlay-check", warn=False)
    try:
        sources = plan.resolved(found)
    except Failure as failure:
        found.locate(failure)
        raise
    for line in plan.warnings_of_start(found, sources):
        complain(line)
