"""Paths that lead to what the host has there now, while processes of a subhost still use the file that it has replaced.

As long as a file is in use, overlayfs gives it to everybody who opens its path: a new program would be given an old
library.  So a copy of the new file takes the place of the old one by rename(2), as dpkg(1) inside would have it, and is
then removed from UPPER.  Whoever has opened the copy in between has what he would have got a moment later.
"""
import hashlib
import posix
from errno import EISDIR

from . import beneath, files, followed, namespaces, overlayfs, packages, paths
from .old_files import INODE_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .overlayfs import Tree
    from .packages import Site

COPIES = "copies"       # a file, as long as there may be copies in UPPER: an MD5 sum and a path in each line
LONGEST = 1 << 28       # bytes of a file


def renew(site: "Site", tree: "Tree", store: str, old: "Iterable[str]", mounts: set[int]) -> bool:
    """Have the paths of old files lead to what the host has there now.

    store is the directory with what the host had, mounts are the ids of the overlay mounts of the subhost: nothing is
    put anywhere else.  Returns whether any did not; then the mounts have to ask their layers again.  Raises OSError.
    """
    take_back(tree, store)
    stale = [path.lstrip("/") for path in old if is_stale(site, tree, path.lstrip("/"), mounts)]
    if not stale:
        return False
    new = {path: tree.read(path, LONGEST) for path in stale}
    note(store, [f"{md5(data)} {path}" for path, data in new.items() if data])
    for path, data in new.items():
        found = tree.status(path)
        if found and data:
            site.write(path, data, found.st_mode & 0o7777, found.st_uid, found.st_gid)
            remove(tree, path)
    followed.forget(store, (COPIES,))
    return True


def is_stale(site: "Site", tree: "Tree", path: str, mounts: set[int]) -> bool:
    """Tell whether a path leads to another file than that which the host has there now, which can be copied."""
    with tree.find(path) as now:
        if (not now or now.layer < tree.own or now.kind != files.REGULAR or now.status.st_size >= LONGEST
                or "\n" in path):
            return False
    try:
        with beneath.opened(site.root, path, overlayfs.PLACE, beneath.REFUSED) as fd:
            return (namespaces.mount_of(fd)[0] in mounts
                    and bool((posix.fstat(fd).st_ino ^ now.status.st_ino) & INODE_BITS))
    except OSError as error:
        if error.errno not in files.NOWHERE:
            raise
        return False


def take_back(tree: "Tree", store: str) -> None:
    """Remove the copies that one who was killed has left."""
    if not followed.is_kept(store, COPIES):
        return
    for line in paths.decode(followed.kept(store, COPIES)).splitlines():
        wanted, _, path = line.partition(" ")
        remove(tree, f"{paths.parent(f'/{path}')}/{packages.part_of(paths.name(path))}"[1:])
        if md5(beneath.content(tree.roots[0], path, LONGEST, beneath.REFUSED)) == wanted:
            remove(tree, path)
    followed.forget(store, (COPIES,))


def remove(tree: "Tree", path: str) -> None:
    """Remove a file from UPPER."""
    try:
        with beneath.directory(tree.roots[0], paths.parent(f"/{path}")[1:], beneath.REFUSED) as at:
            posix.unlink(paths.name(path), dir_fd=at)
    except OSError as error:
        if error.errno not in (*files.NOWHERE, EISDIR):     # the subhost may have put something else there
            raise


def note(store: str, lines: list[str]) -> None:
    """Note the copies that are about to be made."""
    with followed.directory(store) as at:
        data = paths.encode("".join(f"{line}\n" for line in lines))
        followed.write(at, COPIES, data, part=f"{COPIES}.new", sync=True)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
