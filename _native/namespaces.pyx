# cython: language_level=3, binding=False, auto_pickle=False
"""The kernel's calls that Python has not got: a function each, named as the kernel's call where it is no more than that.

Each raises OSError with errno, the path (if there is one) as filename, and in
`verb` what could not be done.
"""
from linux cimport *
from protocol cimport *

from cpython.exc cimport PyErr_CheckSignals
from cpython.bytes cimport PyBytes_AsString
from libc.stdlib cimport calloc, free

include "python.pxi"

# protocol.pxd
COMMAND, KEEPER, STOP = COMMAND_BYTE, KEEPER_BYTE, STOP_BYTE
INIT = INIT_KEY.decode()
DONE_REPORT = <bytes>DONE
SERVICES_FD = SERVICES
REAPER_PATH = REAPER.decode()
MARK_OF_REAPER = <bytes>REAPER_MARK
# unshare(2), setns(2)
NEWNS = CLONE_NEWNS
NEWUTS = CLONE_NEWUTS
NEWNET = CLONE_NEWNET
NEWPID = CLONE_NEWPID
# mount(2), umount2(2)
BIND = MS_BIND
REC = MS_REC
PRIVATE = MS_PRIVATE
SHARED = MS_SHARED
DETACH = MNT_DETACH
# fsmount(2), mount_setattr(2)
RDONLY = MOUNT_ATTR_RDONLY
NOSUID = MOUNT_ATTR_NOSUID
NODEV = MOUNT_ATTR_NODEV
NOEXEC = MOUNT_ATTR_NOEXEC
# openat2(2)
IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
NO_SYMLINKS = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


cdef const char *text(bytes value) except? NULL:
    return NULL if value is None else PyBytes_AsString(value)


cdef object limited(str verb, path=None):
    """Return failure(), in other words than those of strerror(3) where a limit is reached: these would mislead."""
    error = failure(verb, path)
    error.strerror = limit(error.errno) or error.strerror
    return error


def limit(int number):
    """The limit that an errno of clone(2) or unshare(2) tells of, in words; None if it tells of something else."""
    if number == EAGAIN:
        return NO_MORE_PROCESSES.decode()
    return NO_MORE_NAMESPACES.decode() if number == ENOSPC else None


def interrupt_again(found):
    """For sys.unraisablehook: a KeyboardInterrupt that cannot be raised, in a callback of the interpreter's, comes again.

    A hook in Python would not do: the interpreter would raise it in that.
    """
    if found.exc_type is KeyboardInterrupt:
        c_raise(SIGINT)
    else:
        from sys import __unraisablehook__
        __unraisablehook__(found)


def unshare(int flags):
    """unshare(2): leave namespaces for new ones."""
    if c_unshare(flags) < 0:
        raise limited("make new namespaces")


def setns(int fd, int kind):
    """setns(2): enter the namespace, or those of the process, that fd stands for."""
    if c_setns(fd, kind) < 0:
        raise failure("enter the namespaces")


def mount(source, target, kind, unsigned long flags, data=None):
    """mount(2): a new mount of a file system, a bind mount, or a change of propagation."""
    cdef bytes of = None if source is None else encoded(source)
    cdef bytes at = encoded(target)
    cdef bytes type_ = None if kind is None else encoded(kind)
    cdef bytes options = None if data is None else encoded(data)
    cdef int result
    cdef const char *c_of = text(of)
    cdef const char *c_at = text(at)
    cdef const char *c_type = text(type_)
    cdef const char *c_options = text(options)
    with nogil:
        result = c_mount(c_of, c_at, c_type, flags, c_options)
    if result < 0:
        raise failure("mount", target)


def umount2(target, int flags):
    """umount2(2), following no symbolic link."""
    cdef bytes at = encoded(target)
    if c_umount2(PyBytes_AsString(at), flags | UMOUNT_NOFOLLOW) < 0:
        raise failure("unmount", target)


def fsopen(str kind):
    """fsopen(2): a file system to be configured."""
    cdef bytes name = kind.encode()
    cdef int fd = <int>syscall(SYS_fsopen, PyBytes_AsString(name), FSOPEN_CLOEXEC)
    if fd < 0:
        raise failure("open the file system", kind)
    return fd


def fsconfig(int fd, str key, value):
    """fsconfig(2) with a string, or a flag if value is None: a mount option."""
    cdef bytes name = key.encode()
    cdef bytes data = None if value is None else encoded(value)
    cdef int kind = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    if syscall(SYS_fsconfig, fd, kind, PyBytes_AsString(name), text(data), 0) < 0:
        raise failure("use the mount option", key if value is None else f"{key}={value}")


def fsmount(int fd, unsigned int attributes):
    """fsconfig(2) with CMD_CREATE, then fsmount(2): a mount that nobody sees yet."""
    cdef int made = -1
    if syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0:
        made = <int>syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes)
    if made < 0:
        raise failure("make a mount")
    return made


def open_tree(path, *, bint recursive=False):
    """open_tree(2): a copy of the mount that path is in, from there down."""
    cdef bytes at = encoded(path)
    cdef int fd = <int>syscall(SYS_open_tree, AT_FDCWD, PyBytes_AsString(at), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
                               | (AT_RECURSIVE if recursive else 0))
    if fd < 0:
        raise failure("take a bind mount of", path)
    return fd


def move_mount(int mounted, int target):
    """move_mount(2): from one descriptor to the place that the other one is."""
    if syscall(SYS_move_mount, mounted, b"", target, b"",
               MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0:
        raise failure("mount")


def mount_setattr(int mounted, unsigned long attributes, unsigned long propagation):
    """mount_setattr(2): more attributes, and a propagation, for the mount of a descriptor."""
    cdef mount_attr change
    memset(&change, 0, sizeof(change))
    change.attr_set = attributes
    change.propagation = propagation
    if syscall(SYS_mount_setattr, mounted, b"", AT_EMPTY_PATH, &change, sizeof(change)) < 0:
        raise failure("change the attributes of the mount")


def openat2(int directory, path, unsigned long flags, unsigned long resolve, unsigned long mode=0):
    """openat2(2): path below directory, resolved as resolve (IN_ROOT, NO_SYMLINKS) says."""
    cdef open_how how
    cdef bytes at = encoded(path)
    memset(&how, 0, sizeof(how))
    how.flags = flags | O_CLOEXEC
    how.resolve = resolve
    how.mode = mode
    cdef int fd = <int>syscall(SYS_openat2, directory, PyBytes_AsString(at), &how, sizeof(how))
    if fd < 0:
        raise failure("open", path)
    return fd


def exchange(one, other):
    """renameat2(2) with EXCHANGE: what the two paths name change places, at once."""
    cdef bytes old = encoded(one)
    cdef bytes new = encoded(other)
    if renameat2(AT_FDCWD, PyBytes_AsString(old), AT_FDCWD, PyBytes_AsString(new), RENAME_EXCHANGE) < 0:
        raise failure("replace", other)


def close_range(int first):
    """close_range(2): no descriptor from first on is to survive an execve(2)."""
    if syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC) < 0:
        raise failure("close what the caller has left open")


def sync(int fd):
    """syncfs(2): write to the disk what the file system of fd has not written yet."""
    cdef int result
    with nogil:
        result = syncfs(fd)
    if result < 0:
        raise failure("write to the disk")


def is_cgroup2(str path):
    """statfs(2): whether a cgroup2 file system is there."""
    cdef bytes at = encoded(path)
    cdef statfs_t found
    return statfs(PyBytes_AsString(at), &found) == 0 and found.f_type == CGROUP2_SUPER_MAGIC


def mount_of(int fd):
    """statx(2): (id of the mount that fd is in, whether fd is the root of that mount)."""
    cdef statx_t found
    if statx(fd, b"", AT_EMPTY_PATH, STATX_MNT_ID, &found) < 0:
        raise failure("examine")
    return found.stx_mnt_id, bool(found.stx_attributes & STATX_ATTR_MOUNT_ROOT)


def bring_up(str interface):
    """SIOCSIFFLAGS, netdevice(7): bring the interface up."""
    cdef bytes name = interface.encode()
    cdef ifreq request
    cdef int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    cdef int result = -1
    memset(&request, 0, sizeof(request))
    memcpy(request.ifr_name, PyBytes_AsString(name), min(<size_t>len(name), <size_t>IFNAMSIZ - 1))
    if fd >= 0 and ioctl(fd, SIOCGIFFLAGS, &request) == 0:
        request.ifr_flags |= IFF_UP
        result = ioctl(fd, SIOCSIFFLAGS, &request)
    if result < 0:
        error = failure("bring up", interface)
        close(fd)
        raise error
    close(fd)


# Record locks, fcntl(2), of one byte of a file.  They belong to the process,
# and the kernel tells which: closing ANY descriptor of the file drops them.

cdef flock one_byte(short kind, long byte):
    cdef flock record
    memset(&record, 0, sizeof(record))
    record.l_type = kind
    record.l_start = byte
    record.l_len = 1
    return record


def lock(int fd, long byte, *, bint wait=False):
    """Lock the byte for this process.  False if another has it and wait is not set."""
    cdef flock record = one_byte(F_WRLCK, byte)
    cdef int command = F_SETLKW if wait else F_SETLK
    cdef int result
    while True:
        with nogil:
            result = fcntl(fd, command, &record)
        if result == 0:
            return True
        if errno == EINTR:
            PyErr_CheckSignals()
        elif errno == EAGAIN or errno == EACCES:
            return False
        else:
            raise failure("lock the state file")


def locked_by(int fd, long byte):
    """The process id of the other process that has locked the byte, or 0.  Of one that cannot be seen from here: EPERM."""
    cdef flock record = one_byte(F_WRLCK, byte)
    if fcntl(fd, F_GETLK, &record) < 0:
        raise failure("ask for the lock of the state file")
    if record.l_type != F_UNLCK and record.l_pid <= 0:      # in another PID namespace
        raise failure("see the process that has locked the state file", None, EPERM)
    return 0 if record.l_type == F_UNLCK else record.l_pid


def lock_open_file(int fd, long start, long length, *, bint exclusive):
    """F_OFD_SETLK, fcntl(2): lock a range of the open file, for as long as anybody has it open; length 0: to its end.

    False if it is locked by way of another open file.
    """
    cdef flock record
    memset(&record, 0, sizeof(record))
    record.l_type = F_WRLCK if exclusive else F_RDLCK
    record.l_start = start
    record.l_len = length
    if fcntl(fd, F_OFD_SETLK, &record) < 0:
        if errno == EAGAIN or errno == EACCES:
            return False
        raise failure("lock")
    return True


def loop_ctl_get_free(int control):
    """LOOP_CTL_GET_FREE, loop(4): the number of a loop device that nobody uses at the moment."""
    cdef int number = ioctl(control, LOOP_CTL_GET_FREE)
    if number < 0:
        raise failure("find a free loop device")
    return number


def loop_configure(int device, int file, uint64_t offset, uint64_t size, *, bint read_only):
    """LOOP_CONFIGURE, loop(4): a range of the file as a block device, until nobody uses that; size 0: to its end."""
    cdef loop_config wanted
    memset(&wanted, 0, sizeof(wanted))
    wanted.fd = file
    wanted.info.lo_offset = offset
    wanted.info.lo_sizelimit = size
    wanted.info.lo_flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else 0)
    if ioctl(device, LOOP_CONFIGURE, &wanted) < 0:
        raise failure("set up the loop device")


def loop_get_status(int device):
    """LOOP_GET_STATUS64, loop(4): (device and inode of the file, offset, size, whether it is read-only)."""
    cdef loop_info64 found
    if ioctl(device, LOOP_GET_STATUS64, &found) < 0:
        raise failure("examine the loop device")
    return found.lo_device, found.lo_inode, found.lo_offset, found.lo_sizelimit, bool(found.lo_flags & LO_FLAGS_READ_ONLY)


def terminal_peer(int master):
    """TIOCSPTLCK, TIOCGPTPEER, ioctl_tty(2): the other end of the pseudo-terminal, by no path."""
    cdef int locked = 0
    cdef int fd = -1
    if ioctl(master, TIOCSPTLCK, &locked) == 0:
        fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)
    if fd < 0:
        raise failure("open the terminal")
    return fd


def handover(*, int boot, bint starts, bint bound, int state, int mounts, int network, int group, int root, int log, int report,
             str notify, str clear, str hostname, list command):
    """What the keeper reads as its standard input; protocol.pxd tells what each of it means.

    boot is a process id, or 0; state to report are descriptors, root may be -1.
    Raises ValueError if the keeper could not take it: a NUL byte in a text, or too much text.
    """
    cdef handover_t head
    cdef list texts = [encoded(one) for one in (notify, clear, hostname, *command)]
    memset(&head, 0, sizeof(head))
    head.boot, head.starts, head.bound, head.words = boot, starts, bound, len(command)
    head.state, head.mounts, head.network, head.group = state, mounts, network, group
    head.root, head.log, head.report = root, log, report
    made = (<char *>&head)[:sizeof(head)] + b"".join([one + b"\0" for one in texts])
    if len(made) >= LONGEST_HANDOVER or not 0 < len(command) <= MOST_WORDS or any([b"\0" in one for one in texts]):
        raise ValueError("the command of PID 1 is too long, or has a NUL byte in it")
    return made


# A child process, from clone3(2) to execve(2).

cdef struct Child:
    char **paths            # what to execute: the first that there is
    char **argv
    char **envp
    char *directory
    int standard[3]
    int status              # where the child writes errno
    int inside              # pidfd of the process whose namespaces it enters, or -1
    int namespaces
    bint bound              # it is killed when this process ends
    pid_t parent            # this process
    bint terminal           # standard input becomes its controlling terminal
    bint as_user
    uid_t uid
    gid_t gid
    size_t group_count
    gid_t *groups


cdef int become(Child *child) noexcept nogil:
    """What the child does; it returns only to fail, with errno set."""
    cdef sigset_t none
    cdef int number
    cdef int error = ENOENT
    cdef char **path = child.paths
    if child.bound:
        prctl(PR_SET_PDEATHSIG, SIGKILL)
        if child.inside < 0 and getppid() != child.parent:      # it has ended before that
            set_errno(ESRCH)
            return -1
    if child.inside >= 0:
        if c_setns(child.inside, child.namespaces) < 0:
            return -1
        # The caller's session keyring, keyrings(7), is none of the subhost's business.
        if syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 and errno != ENOSYS:
            return -1
    for number in range(3):
        if dup2(child.standard[number], number) < 0:
            return -1
    for number in range(1, NSIG):
        signal(number, SIG_DFL)
    sigemptyset(&none)
    sigprocmask(SIG_SETMASK, &none, NULL)
    setsid()
    if child.terminal and ioctl(0, TIOCSCTTY, 0) < 0:
        return -1
    if child.as_user and (setgroups(child.group_count, child.groups) < 0
                          or setresgid(child.gid, child.gid, child.gid) < 0
                          or setresuid(child.uid, child.uid, child.uid) < 0):
        return -1
    if child.directory != NULL and chdir(child.directory) < 0 and chdir(b"/") < 0:
        return -1
    if syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0:
        return -1
    while path[0] != NULL:
        execve(path[0], child.argv, child.envp)
        if errno != ENOENT and errno != ENOTDIR:
            error = errno
            if error != EACCES:
                break
        path += 1
    set_errno(error)
    return -1


cdef pid_t clone_child(Child *child, int cgroup, int *pidfd) noexcept nogil:
    cdef clone_args how
    cdef pid_t process
    cdef int number
    memset(&how, 0, sizeof(how))
    how.flags = CLONE_PIDFD
    how.pidfd = <uint64_t><size_t>pidfd
    how.exit_signal = SIGCHLD
    if cgroup >= 0:
        how.flags |= CLONE_INTO_CGROUP
        how.cgroup = cgroup
    process = <pid_t>syscall(SYS_clone3, &how, sizeof(how))
    if process == 0:
        become(child)
        number = errno
        write(child.status, &number, sizeof(number))
        _exit(127)
    return process


cdef char **vector(list strings) except NULL:
    """A NULL-terminated array into the strings, which must stay alive."""
    cdef char **made = <char **>calloc(len(strings) + 1, sizeof(char *))
    cdef Py_ssize_t at
    if made == NULL:
        raise MemoryError
    for at in range(len(strings)):
        made[at] = PyBytes_AsString(strings[at])
    return made


def spawn(paths, argv, env, *, standard, directory=None, int cgroup=-1, bint bound=False,
          int inside=-1, bint terminal=False, user=None):
    """clone3(2) and execve(2): a child process in a session of its own; (pid, pidfd).

    It executes the first of paths that there is, with standard as its
    descriptors 0, 1, 2 and no other, and the environment env (a dictionary).
    cgroup is a descriptor of the control group to be born in; bound children
    are killed when this process ends; inside is a pidfd: all namespaces of
    that process are entered but the PID namespace (for which this process must
    have called setns(inside, NEWPID) before).  user is (uid, gid, groups).

    Raises OSError if the child could not be executed, with the first path.
    """
    cdef Child child
    cdef int ends[2]
    cdef int pidfd = -1
    cdef int number = 0
    cdef int at
    cdef ssize_t size
    cdef pid_t process
    cdef list kept = [[encoded(one) for one in many] for many in
            (paths, argv, [f"{name}={value}" for name, value in env.items()])]
    cdef bytes where = None if directory is None else encoded(directory)
    memset(&child, 0, sizeof(child))
    for at in range(3):
        child.standard[at] = standard[at]
    child.inside = inside
    child.namespaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWTIME
    child.bound = bound
    child.parent = getpid()
    child.terminal = terminal
    child.directory = <char *>text(where)
    if pipe2(ends, O_CLOEXEC) < 0:
        raise failure("make a pipe")
    child.status = ends[1]
    try:
        child.paths, child.argv, child.envp = vector(kept[0]), vector(kept[1]), vector(kept[2])
        if user is not None:
            child.as_user = True
            child.uid, child.gid, groups = user
            child.group_count = len(groups)
            child.groups = <gid_t *>calloc(len(groups) + 1, sizeof(gid_t))
            if child.groups == NULL:
                raise MemoryError
            for at in range(len(groups)):
                child.groups[at] = groups[at]
        process = clone_child(&child, cgroup, &pidfd)
        if process < 0:
            raise limited("make a process for", paths[0])
        close(ends[1])
        ends[1] = -1
        size = read(ends[0], &number, sizeof(number))
        while size < 0 and errno == EINTR:
            size = read(ends[0], &number, sizeof(number))
        if size > 0:
            waitpid(process, NULL, 0)
            close(pidfd)
            raise failure("execute", paths[0], number)
        return process, pidfd
    finally:
        close(ends[0])
        if ends[1] >= 0:
            close(ends[1])
        free(child.paths)
        free(child.argv)
        free(child.envp)
        free(child.groups)
