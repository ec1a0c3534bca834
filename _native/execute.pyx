# cython: language_level=3, binding=False, auto_pickle=False
"""A child of a command, from its birth to the execution of what it is for.

    execute DESCRIPTOR

It stands between the two so that nothing of the command is left in it: not its memory, not its descriptors, and not its
program, which a script inside could reach as /proc/self/exe.  DESCRIPTOR is of a file with what protocol.pxd defines;
namespaces.spawn() writes it.
"""
from linux cimport *
from protocol cimport *

include "fence.pxi"
include "inherited.pxi"


cdef struct Texts:
    char *directory
    char **paths
    char **argv
    char **variables


cdef void keep_to_itself() noexcept nogil:
    """Nobody may trace it, nor look into it by way of /proc.  A change of user would take that back, prctl(2)."""
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


cdef int enter(const child_t *child) noexcept nogil:
    """Enter the namespaces, with a session keyring that is new, and without a login."""
    keep_to_itself()
    leave_login(child.capabilities)
    leave_limits()
    if not child.prioritized:
        leave_priority()
    if c_setns(child.inside, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
               | CLONE_NEWTIME | (CLONE_NEWUSER if child.users else 0)) < 0:
        return -1
    # The caller's session keyring, keyrings(7), is none of the subhost's business.
    if syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 and errno != ENOSYS:
        return -1
    return 0


cdef int become_user(const child_t *child, const gid_t *groups) noexcept nogil:
    """Capabilities are kept, which a filter takes to be loaded: execve(2) drops them."""
    if prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 or setgroups(child.groups, groups) < 0:
        return -1
    if setresgid(child.gid, child.gid, child.gid) < 0 or setresuid(child.uid, child.uid, child.uid) < 0:
        return -1
    keep_to_itself()
    return 0


cdef int execute(const child_t *child, const gid_t *groups, const Texts *texts, const char *filter) noexcept nogil:
    """Returns only to fail, with errno set."""
    cdef char **path = texts.paths
    cdef int error = ENOENT
    if child.bound:
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        if child.inside < 0 and getppid() != child.parent:      # it has ended before that
            set_errno(ESRCH)
            return -1
    if child.inside >= 0 and enter(child) < 0:
        return -1
    setsid()
    if child.terminal and ioctl(0, TIOCSCTTY, 0) < 0:
        return -1
    if child.as_user and become_user(child, groups) < 0:
        return -1
    if child.bound:                     # again: another user takes it back
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if texts.directory[0] and chdir(texts.directory) < 0 and chdir(b"/") < 0:
        return -1
    default_signals()
    unblock_signals()
    if child.inside >= 0 and (bound_capabilities(child.capabilities) < 0 or load_filter(filter, child.filter) < 0):
        return -1
    while path[0] != NULL:
        execve(path[0], texts.argv, texts.variables)
        if errno != ENOENT and errno != ENOTDIR:
            error = errno
            if error != EACCES:
                break
        path += 1
    set_errno(error)
    return -1


cdef char **read_vector(char **text, int count) noexcept nogil:
    """A NULL-terminated array of the next texts; NULL without memory for it."""
    cdef char **vector = <char **>calloc(count + 1, sizeof(char *))
    cdef int number
    if vector != NULL:
        for number in range(count):
            vector[number] = text[0]
            text[0] += strlen(text[0]) + 1
    return vector


cdef int execute_handed(int descriptor, size_t size, const child_t *child) noexcept nogil:
    cdef const char *area = <const char *>mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0)
    cdef const gid_t *groups = <const gid_t *>(area + sizeof(child_t))
    cdef char *text = <char *>(groups + child.groups)
    cdef Texts texts
    if area == MAP_FAILED:
        return -1
    texts.directory = text
    text += strlen(text) + 1
    texts.paths = read_vector(&text, child.paths)
    texts.argv = read_vector(&text, child.words)
    texts.variables = read_vector(&text, child.variables)
    if texts.paths == NULL or texts.argv == NULL or texts.variables == NULL:
        return -1
    return execute(child, groups, &texts, text)


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef int descriptor = <int>strtoull(argv[1], NULL, 10) if argc == 2 else -1
    cdef child_t child
    cdef stat_t status
    cdef int error
    if fstat(descriptor, &status) < 0 or read(descriptor, &child, sizeof(child)) != sizeof(child):
        write(2, b"execute: to be executed by overlay-boot\n", 40)
        return 2
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC)
    execute_handed(descriptor, status.st_size, &child)
    error = errno
    write(child.status, &error, sizeof(error))
    return 127
