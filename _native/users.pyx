# cython: language_level=3, binding=False, auto_pickle=False
"""What is done in user namespaces, and the ids of the files that are made.

Each function raises OSError with errno, and in `verb` what could not be done.
"""
from linux cimport *

from cpython.bytes cimport PyBytes_AsString

from overlay_boot.namespaces import limit as _limit

include "python.pxi"
include "helper.pxi"


cdef object cannot(str verb):
    """Return failure(), in other words than those of strerror(3) where a limit is reached."""
    error = failure(verb)
    error.strerror = _limit(error.errno) or error.strerror
    return error


# What only a process in the user namespace can do.

cdef enum:
    MOST = 3


cdef struct Copy:
    int users
    int root                # of all mounts, or the mount to be copied
    const char *path
    const char *name
    int error
    int fds[MOST]


cdef pid_t run_helper(int (*function)(void *) noexcept nogil, void *argument) noexcept nogil:
    """clone_helper(), which has ended when we go on.  Its errno is ours, too."""
    cdef char stack[STACK]
    return clone_helper(function, argument, stack, CLONE_VFORK)


cdef int enter(int users) noexcept nogil:
    """In a copy of the mount namespace: what is mounted by now is locked there, mount_namespaces(7)."""
    return -1 if c_setns(users, CLONE_NEWUSER) < 0 else c_unshare(CLONE_NEWNS)


cdef int copy_tree(int flags, const char *path) noexcept nogil:
    return <int>syscall(SYS_open_tree, AT_FDCWD, path, flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)


cdef int copy_mounts_in(void *argument) noexcept nogil:
    cdef Copy *copy = <Copy *>argument
    # pivot_root(2) takes no mount that is locked to where it is.  A bind mount of that is not.
    if fchdir(copy.root) == 0 and enter(copy.users) == 0:
        copy.fds[2] = copy_tree(AT_RECURSIVE, b".")
    if copy.fds[2] >= 0 and syscall(SYS_move_mount, copy.fds[2], b"", AT_FDCWD, b".", MOVE_MOUNT_F_EMPTY_PATH) == 0:
        copy.fds[0] = open(b"/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)
    if copy.fds[0] >= 0:
        copy.fds[1] = open(b"/", O_PATH | O_DIRECTORY | O_CLOEXEC)
    copy.error = errno if copy.fds[1] < 0 else 0
    return 0


cdef int lock_mount_in(void *argument) noexcept nogil:
    cdef Copy *copy = <Copy *>argument
    cdef const char *place
    if (c_unshare(CLONE_NEWNS) == 0 and c_mount(NULL, b"/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 and syscall(
            SYS_move_mount, copy.root, b"", AT_FDCWD, copy.path, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) == 0):
        place = copy.name if fchdir(copy.root) == 0 else copy.path      # "/" is what is beneath that mount
        if (place == copy.name or errno == ENOTDIR) and enter(copy.users) == 0:
            copy.fds[0] = copy_tree(0, place)
    copy.error = errno if copy.fds[0] < 0 else 0
    return 0


cdef object made_by_helper(str verb, int (*function)(void *) noexcept nogil, Copy *copy, int count):
    """Have a helper do it: count descriptors."""
    cdef pid_t process
    cdef int number
    copy.error = ESRCH                  # which remains if the helper is killed
    for number in range(MOST):
        copy.fds[number] = -1
    process = run_helper(function, copy)
    if process < 0:
        raise cannot(verb)
    wait_for(process)
    if copy.error:
        for number in range(MOST):
            close(copy.fds[number])
        set_errno(copy.error)
        raise told_by_helper(cannot(verb))
    return tuple([copy.fds[number] for number in range(count)])


def copy_mounts(int users, int root):
    """A copy of this process' mount namespace that the user namespace owns: descriptors of it, of "/" and of root in it.

    Nobody in the user namespace can unmount what is mounted by now, lay open what is beneath, or change attributes.
    root is the root of a mount.
    """
    cdef Copy copy
    copy.users, copy.root = users, root
    return made_by_helper("copy the mounts into the user namespace", copy_mounts_in, &copy, 3)


def lock_mount(int users, int mounted, path, name):
    """A copy of a mount of path, that nobody sees yet, the attributes of which nobody in the user namespace can change.

    Of a directory, name tells what of it is copied, which can be ".".
    """
    cdef Copy copy
    cdef bytes place = encoded(path)
    cdef bytes below = encoded(name)
    copy.users, copy.root, copy.path, copy.name = users, mounted, PyBytes_AsString(place), PyBytes_AsString(below)
    return made_by_helper("lock the mount of", lock_mount_in, &copy, 1)[0]


def make_files_as(unsigned int user, int securebits):
    """setfsuid(2), setfsgid(2): what this process makes from now on belongs to that user and group, with securebits set.

    Returns both as they were, to be given again.  By KEEP_CAPABILITIES it keeps its capabilities.
    """
    cdef int before = prctl(PR_GET_SECUREBITS)
    cdef int parent_signal = 0
    cdef uid_t user_before
    if (before < 0 or prctl(PR_GET_PDEATHSIG, &parent_signal) < 0
            or securebits & KEEP_CAPABILITIES and prctl(PR_SET_SECUREBITS, securebits) < 0):
        raise failure("keep the capabilities")
    setfsgid(user)
    user_before = setfsuid(user)
    if setfsuid(<uid_t>-1) != <int>user or setfsgid(<gid_t>-1) != <int>user:
        raise failure("make files as root of the user namespace", None, EPERM)
    if prctl(PR_SET_SECUREBITS, securebits) < 0:
        raise failure("keep the capabilities")
    prctl(PR_SET_PDEATHSIG, parent_signal)      # which setfsuid(2) takes back
    return user_before, before


KEEP_CAPABILITIES = SECBIT_NO_SETUID_FIXUP
