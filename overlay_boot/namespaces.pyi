# The types of _native/namespaces.pyx, which tells what each function does. A test holds the two together.
from collections.abc import Callable, Mapping, Sequence
from sys import UnraisableHookArgs
from typing import Final, TypeAlias

_Text: TypeAlias = str | bytes

COMMAND: Final[int]
KEEPER: Final[int]
STOP: Final[int]
INIT: Final[str]
REAPER_PATH: Final[str]
DONE_REPORT: Final[bytes]
SERVICES_FD: Final[int]
MAIN_FD: Final[int]
LONGEST_MAIN_TEXT: Final[int]
MOST_IN_MAIN: Final[int]
MAIN_WORD: Final[str]
REBOOT: Final[int]
REQUESTS_PATH: Final[str]
MARK_OF_REAPER: Final[bytes]
NEWNS: Final[int]
NEWUTS: Final[int]
NEWNET: Final[int]
NEWPID: Final[int]
BIND: Final[int]
REC: Final[int]
PRIVATE: Final[int]
SHARED: Final[int]
DETACH: Final[int]
RDONLY: Final[int]
NOSUID: Final[int]
NODEV: Final[int]
NOEXEC: Final[int]
IDMAP: Final[int]
IN_ROOT: Final[int]
NO_SYMLINKS: Final[int]
NO_MOUNTS: Final[int]

def limit(number: int) -> str | None: ...
def interrupt_again(found: UnraisableHookArgs) -> None: ...
def unshare(flags: int) -> None: ...
def setns(fd: int, kind: int) -> None: ...
def mount(source: _Text | None, target: _Text, kind: _Text | None, flags: int, data: _Text | None = None) -> None: ...
def umount2(target: _Text, flags: int) -> None: ...
def fsopen(kind: str) -> int: ...
def fsconfig(fd: int, key: str, value: _Text | None) -> None: ...
def fsmount(fd: int, attributes: int) -> int: ...
def reconfigure(root: int) -> None: ...
def open_tree(path: _Text, *, recursive: bool = False) -> int: ...
def move_mount(mounted: int, target: int) -> None: ...
def mount_setattr(
    mounted: int, attributes: int, propagation: int = 0, *, users: int = -1, recursive: bool = False,
) -> None: ...
def openat2(directory: int, path: _Text, flags: int, resolve: int, mode: int = 0) -> int: ...
def exchange(one: _Text, other: _Text) -> None: ...
def make_users(uid_map: bytes, gid_map: bytes) -> tuple[int, int]: ...
def close_range(first: int) -> None: ...
def sync(fd: int) -> None: ...
def is_cgroup2(path: str) -> bool: ...
def mount_of(fd: int) -> tuple[int, bool]: ...
def bring_up(interface: str) -> None: ...
def lock(fd: int, byte: int, *, wait: bool = False) -> bool: ...
def locked_by(fd: int, byte: int) -> int: ...
def lock_open_file(fd: int, start: int, length: int, *, exclusive: bool) -> bool: ...
def loop_ctl_get_free(control: int) -> int: ...
def loop_configure(device: int, file: int, offset: int, size: int, *, read_only: bool) -> None: ...
def loop_get_status(device: int) -> tuple[int, int, int, int, bool]: ...
def terminal_peer(master: int) -> int: ...
def handover(
    *,
    boot: int,
    starts: bool,
    bound: bool,
    state: int,
    mounts: int,
    network: int,
    users: int,
    group: int,
    root: int,
    log: int,
    main: int,
    requests: int,
    programs: int,
    report: int,
    owner: int,
    capabilities: int,
    filter: bytes,
    notify: str,
    clear: str,
    hostname: str,
    command: list[str],
) -> bytes: ...
def programs() -> int: ...
def spawn(
    paths: Sequence[_Text],
    argv: Sequence[_Text],
    env: Mapping[str, str],
    *,
    standard: Sequence[int],
    directory: _Text | None = None,
    cgroup: int = -1,
    bound: bool = False,
    inside: int = -1,
    users: bool = False,
    prioritized: bool = False,
    terminal: bool = False,
    user: tuple[int, int, Sequence[int]] | None = None,
    capabilities: int = 0,
    filter: bytes = b"",
    is_over: Callable[[], bool] | None = None,
) -> tuple[int, int]: ...
