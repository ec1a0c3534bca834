# cython: language_level=3, binding=False, auto_pickle=False
"""The kernel's calls that Python has not got: a function each, named as the kernel's call where it is no more than that.

Each raises OSError with errno, the path (if there is one) as filename, and in
`verb` what could not be done.
"""
from linux cimport *
from protocol cimport *

from cpython.exc cimport PyErr_CheckSignals
from cpython.bytes cimport PyBytes_AsString

from overlay_boot import PROGRAMS as _PROGRAMS

include "python.pxi"
include "helper.pxi"

# protocol.pxd
COMMAND, KEEPER, STOP = COMMAND_BYTE, KEEPER_BYTE, STOP_BYTE
INIT = INIT_KEY.decode()
DONE_REPORT = <bytes>DONE
SERVICES_FD = SERVICES
MAIN_FD = MAIN
LONGEST_MAIN_TEXT = LONGEST_MAIN
MOST_IN_MAIN = MOST_OF_MAIN
MAIN_WORD = WITH_MAIN.decode()
REBOOT = REBOOT_STATUS
REQUESTS_PATH = REQUESTS.decode()
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
IDMAP = MOUNT_ATTR_IDMAP
# openat2(2)
IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
NO_SYMLINKS = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
NO_MOUNTS = RESOLVE_NO_XDEV

cdef enum:
    MOST_ATTEMPTS = 1 << 10     # at openat2(2)
    MOMENT = 100                # milliseconds


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


def reconfigure(int root):
    """fspick(2), then fsconfig(2) with CMD_RECONFIGURE and no option: a mount that root is the root directory of.

    The kernel drops all names that the file system has cached and nobody uses.
    """
    cdef int status = -1
    cdef int fd = <int>syscall(SYS_fspick, root, b"", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)
    if fd >= 0:
        status = <int>syscall(SYS_fsconfig, fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0)
    if status < 0:
        error = failure("reconfigure the file system")
    if fd >= 0:
        close(fd)
    if status < 0:
        raise error


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


def mount_setattr(int mounted, unsigned long attributes, unsigned long propagation=0, *, int users=-1, bint recursive=False):
    """mount_setattr(2): more attributes, and a propagation, for the mount of a descriptor, or with all below it.

    With IDMAP, what belongs to 0 on the disk belongs in the mount to root of the user namespace of the descriptor users.
    """
    cdef mount_attr change
    cdef int flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    memset(&change, 0, sizeof(change))
    change.attr_set = attributes
    change.propagation = propagation
    if users >= 0:
        change.userns_fd = users
    if syscall(SYS_mount_setattr, mounted, b"", flags, &change, sizeof(change)) < 0:
        raise failure("change the attributes of the mount")


def openat2(int directory, path, unsigned long flags, unsigned long resolve, unsigned long mode=0):
    """openat2(2): path below directory, resolved as resolve (IN_ROOT, NO_SYMLINKS) says.

    Any rename or mount on the host meanwhile may have it ask for another attempt, if there is a .. in a link.
    """
    cdef open_how how
    cdef bytes at = encoded(path)
    cdef int attempts = MOST_ATTEMPTS
    memset(&how, 0, sizeof(how))
    how.flags = flags | O_CLOEXEC
    how.resolve = resolve
    how.mode = mode
    cdef int fd = <int>syscall(SYS_openat2, directory, PyBytes_AsString(at), &how, sizeof(how))
    while fd < 0 and errno == EAGAIN and attempts:
        attempts -= 1
        fd = <int>syscall(SYS_openat2, directory, PyBytes_AsString(at), &how, sizeof(how))
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

cdef int LOOKS = 500        # in as many milliseconds


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
    """The process id of the other process that has locked the byte, or 0.  Of one that cannot be seen from here: EPERM.

    One that was killed has it as long as a child has its descriptors, helper.pxi, which is killed as well.
    """
    cdef flock record
    cdef int again
    for again in range(LOOKS):
        record = one_byte(F_WRLCK, byte)
        if fcntl(fd, F_GETLK, &record) < 0:
            raise failure("ask for the lock of the state file")
        if record.l_type == F_UNLCK:
            return 0
        if record.l_pid > 0:
            return record.l_pid
        poll(NULL, 0, 1)
    raise failure("see the process that has locked the state file", None, EPERM)        # in another PID namespace


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


def handover(*, int boot, bint starts, bint bound, int state, int mounts, int network, int users, int group, int root, int log, int main,
             int requests, int programs, int report, unsigned int owner, capabilities, bytes filter, str notify, str clear, str hostname, list command):
    """What the keeper reads as its standard input; protocol.pxd tells what each of it means.

    boot is a process id, or 0; state to report are descriptors, users, root, main and requests may be -1; owner is a
    user.
    Raises ValueError if the keeper could not take it: a NUL byte in a text, or too much text.
    """
    cdef handover_t head
    cdef list texts = [encoded(one) for one in (notify, clear, hostname, *command)]
    memset(&head, 0, sizeof(head))
    head.boot, head.starts, head.bound, head.words = boot, starts, bound, len(command)
    head.state, head.mounts, head.network, head.group = state, mounts, network, group
    head.users, head.root, head.log, head.report, head.owner = users, root, log, report, owner
    head.programs, head.requests, head.main = programs, requests, main
    head.capabilities, head.filter = capabilities, len(filter)
    made = (<char *>&head)[:sizeof(head)] + b"".join([one + b"\0" for one in texts]) + filter
    if len(made) >= LONGEST_HANDOVER or not 0 < len(command) <= MOST_WORDS or any([b"\0" in one for one in texts]):
        raise ValueError("the command of PID 1 is too long, or has a NUL byte in it")
    return made


# A user namespace: a helper is born in it, and stays until it is opened and has a map of its ids.  What is below /proc/PID
# of a process that has ended belongs to root of the host, so that root of a container could not write a map there.

cdef struct Stay:
    pid_t parent
    int is_over             # futex(2)
    char stack[STACK]


cdef int stay(void *argument) noexcept nogil:
    cdef Stay *until = <Stay *>argument
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    while getppid() == until.parent and not until.is_over:
        syscall(SYS_futex, &until.is_over, FUTEX_WAIT, 0, NULL, NULL, 0)
    return 0


cdef void end_stay(Stay *until) noexcept nogil:
    until.is_over = True
    syscall(SYS_futex, &until.is_over, FUTEX_WAKE, 1, NULL, NULL, 0)


cdef pid_t clone_into_own(Stay *until) noexcept nogil:
    return clone_helper(stay, until, until.stack, CLONE_NEWUSER | CLONE_NEWNET)


cdef pid_t clone_out_of_chroot(Stay *until) noexcept nogil:
    """The same with the root of the mount namespace, as nobody in a chroot(2) may make a user namespace."""
    cdef int mounts = open(b"/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)
    cdef int root = open(b"/", O_PATH | O_DIRECTORY | O_CLOEXEC)
    cdef int directory = open(b".", O_PATH | O_DIRECTORY | O_CLOEXEC)
    cdef pid_t process = -1
    cdef int number
    if root >= 0 and directory >= 0 and c_setns(mounts, CLONE_NEWNS) == 0:
        process = clone_into_own(until)
        number = errno
        if fchdir(root) < 0 or chroot(b".") < 0 or fchdir(directory) < 0:
            abort()         # all that follows would be done to other files
        set_errno(number)
    number = errno
    close(mounts)
    close(root)
    close(directory)
    set_errno(number)
    return process


cdef bint permits_users() noexcept nogil:
    """Whether there can be user namespaces here, namespaces(7)."""
    cdef int fd = open(b"/proc/sys/user/max_user_namespaces", O_RDONLY | O_CLOEXEC)
    cdef char most[2]
    cdef bint is_zero = read(fd, most, 2) == 2 and most[0] == b"0" and most[1] == b"\n"
    close(fd)
    return not is_zero


cdef object no_users():
    """Return limited(), in words that help where that is the limit of user namespaces."""
    error = limited("make a user namespace")
    if error.errno == ENOSPC and not permits_users():
        error.strerror = ("user.max_user_namespaces is 0; raise it by sysctl(8), or see \"How far capabilities reach\" in "
                          "overlay-boot(7)")
    return error


cdef int opened(pid_t process, str name) except -1:
    cdef bytes path = f"/proc/{process}/ns/{name}".encode()
    cdef int fd = open(PyBytes_AsString(path), O_RDONLY | O_CLOEXEC)
    if fd < 0:
        raise told_by_helper(failure("open the user namespace", None, ESRCH if errno == ENOENT else errno))
    return fd


cdef object map_ids(pid_t process, str name, bytes text):
    cdef bytes path = f"/proc/{process}/{name}".encode()
    cdef int fd = open(PyBytes_AsString(path), O_WRONLY | O_CLOEXEC)
    cdef ssize_t size = len(text)
    if fd < 0 or write(fd, PyBytes_AsString(text), size) != size:
        error = failure("map the ids of the user namespace")
        close(fd)
        raise error
    close(fd)


def make_users(bytes uid_map, bytes gid_map):
    """user_namespaces(7): a user namespace with these maps, and a network namespace of its own; descriptors of both."""
    cdef Stay until
    cdef pid_t process
    until.parent, until.is_over = getpid(), False
    process = clone_into_own(&until)
    if process < 0 and errno == EPERM:
        process = clone_out_of_chroot(&until)
    if process < 0:
        raise no_users()
    try:
        map_ids(process, "uid_map", uid_map)
        map_ids(process, "gid_map", gid_map)
        users = opened(process, "user")
        try:
            return users, opened(process, "net")
        except OSError:
            close(users)
            raise
    finally:
        end_stay(&until)
        wait_for(process)


# A child process: from clone3(2) to the program execute, which does the rest.

cdef extern from *:
    """
    #define BELOW "overlay-go"
    """
    const char *BELOW


cdef struct Child:
    const char *program
    char **argv
    int standard[3]
    int kept[3]             # descriptors for the program, or -1
    int status              # one of them: errno is written there


cdef int become(Child *child) noexcept nogil:
    """What the child does; it returns only to fail, with errno set."""
    cdef char *nothing = NULL
    cdef int number
    for number in range(3):
        if dup2(child.standard[number], number) < 0:
            return -1
    for number in range(3):
        if child.kept[number] >= 0 and fcntl(child.kept[number], F_SETFD, 0) < 0:
            return -1
    return execve(child.program, child.argv, &nothing)


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


cdef pid_t clone_below(Child *child, int cgroup, int *pidfd) noexcept nogil:
    """clone_child() below a control group that hands down controllers, and so can have no processes of its own."""
    cdef pid_t process
    cdef int below, number
    if mkdirat(cgroup, BELOW, 0o755) < 0 and errno != EEXIST:
        return -1
    below = openat(cgroup, BELOW, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if below < 0:
        return -1
    process = clone_child(child, below, pidfd)
    number = errno
    close(below)
    set_errno(number)
    return process


cdef int file_with(bytes data) except -1:
    """A file that has no name, to be read from its beginning."""
    cdef int fd = memfd_create(b"handover", MFD_CLOEXEC)
    cdef ssize_t size = len(data)
    if fd < 0 or write(fd, PyBytes_AsString(data), size) != size or lseek(fd, 0, SEEK_SET) < 0:
        error = failure("hand over to a child process")
        close(fd)
        raise error
    return fd


def programs():
    """A descriptor of the directory of our programs: as long as it is open, they can be executed through it.

    What runs like that is written to by nobody who reaches it as /proc/PID/exe.
    """
    cdef int fd = open_tree(_PROGRAMS, recursive=True)
    try:
        mount_setattr(fd, RDONLY, recursive=True)
    except OSError:
        close(fd)
        raise
    return fd


cdef int reported(int status, is_over) except -1:
    """Wait for what a child says of its execution: 0, or an errno.  Raises TimeoutError if is_over says so."""
    cdef pollfd awaited
    cdef int number = 0
    awaited.fd, awaited.events = status, POLLIN
    while is_over is not None and poll(&awaited, 1, MOMENT) <= 0:
        if is_over():
            raise TimeoutError
    while read(status, &number, sizeof(number)) < 0 and errno == EINTR:
        pass
    return number


cdef void kill_soon(pid_t process, int pidfd) noexcept nogil:
    """Kill a child, and wait a second for its end: a file system that the subhost serves can hold it up even then."""
    cdef pollfd ended
    ended.fd, ended.events = pidfd, POLLIN
    kill(process, SIGKILL)
    poll(&ended, 1, 1000)
    waitpid(process, NULL, WNOHANG)


def spawn(paths, argv, env, *, standard, directory=None, int cgroup=-1, bint bound=False,
          int inside=-1, bint users=False, bint prioritized=False, bint terminal=False, user=None, capabilities=0, bytes filter=b"",
          is_over=None):
    """clone3(2) and execve(2): a child process in a session of its own; (pid, pidfd).

    It executes the first of paths that there is, with standard as its
    descriptors 0, 1, 2 and no other, and the environment env (a dictionary).
    cgroup is a descriptor of the control group to be born in; bound children
    are killed when this process ends.  user is (uid, gid, groups).

    inside is a pidfd: all namespaces of that process are entered but the PID
    namespace (for which this process must have called setns(inside, NEWPID)
    before); the user namespace if users tells that it is another one, in which
    the user is root by default.  Of capabilities, a bit for each, no others are
    left then, and the filter holds, seccomp(2).  Limits are those that init starts
    a process with, and so is the priority, unless prioritized tells that it is
    that of this process.  Where cgroup hands down controllers,
    the child is born in overlay-go below it.

    What it enters can hold it up: is_over is asked every MOMENT whether to give up then.  Raises OSError if the child
    could not be executed, with the first path; TimeoutError after giving up.
    """
    cdef Child child
    cdef child_t head
    cdef int ends[2]
    cdef int handed = -1
    cdef int folder = -1
    cdef int pidfd = -1
    cdef int number = 0
    cdef ssize_t size
    cdef gid_t group
    cdef pid_t process
    cdef char *words[3]
    cdef bytes program, word
    cdef list parts = [b""]
    memset(&head, 0, sizeof(head))
    if pipe2(ends, O_CLOEXEC) < 0:
        raise failure("make a pipe")
    try:
        head.parent, head.status, head.bound, head.terminal, head.inside = getpid(), ends[1], bound, terminal, inside
        head.paths, head.words, head.variables = len(paths), len(argv), len(env)
        head.capabilities, head.filter = capabilities, len(filter)
        head.prioritized = prioritized
        if users:
            head.users = True
            user = user or (0, 0, [0])
        if user is not None:
            head.as_user = True
            head.uid, head.gid, groups = user
            head.groups = len(groups)
            for group in groups:
                parts.append((<char *>&group)[:sizeof(group)])
        for one in (directory or "", *paths, *argv, *[f"{name}={value}" for name, value in env.items()]):
            parts += (encoded(one), b"\0")
        parts[0] = (<char *>&head)[:sizeof(head)]
        parts.append(filter)
        handed = file_with(b"".join(parts))
        folder = programs()
        program, word = b"/proc/self/fd/%d/execute" % folder, b"%d" % handed
        child.program = words[0] = PyBytes_AsString(program)
        words[1], words[2] = PyBytes_AsString(word), NULL
        child.argv = words
        for number in range(3):
            child.standard[number] = standard[number]
        child.kept[0], child.kept[1], child.kept[2] = handed, ends[1], inside
        child.status = ends[1]
        process = clone_child(&child, cgroup, &pidfd)
        if process < 0 and errno == EBUSY and inside >= 0:
            process = clone_below(&child, cgroup, &pidfd)
        if process < 0:
            raise limited("make a process for", paths[0])
        close(ends[1])
        ends[1] = -1
        try:
            number = reported(ends[0], is_over)
        except BaseException:
            kill_soon(process, pidfd)
            close(pidfd)
            raise
        if number:
            wait_for(process)
            close(pidfd)
            raise failure("execute", paths[0], number)
        return process, pidfd
    finally:
        for number in (ends[0], ends[1], handed, folder):
            if number >= 0:
                close(number)
