# cython: language_level=3, binding=False, auto_pickle=False
"""The keeper: the parent of a subhost's PID 1, on the host.

    keeper NAME

A boot hands over to it, on standard input, what protocol.pxd defines.  The
keeper holds the keeper's lock on the state file for as long as it lives, makes
the new namespaces, confines PID 1 in the root directory and executes the
command as PID 1, with the environment that it has got itself; what else it has
inherited from its caller, it leaves behind.  Then it passes on what the subhost
prints to the log, and reports which services fail.  What the subhost prints is
the keeper's standard input, to which a stop adds.  If something inside asks for
the end, it runs CLEAR NAME end, which does in order what a stop does.  When
PID 1 has ended, it executes CLEAR NAME STATUS, which removes what the boot made
on the host, and may boot it again.

NOTIFY is a socket as in sd_notify(3), or empty.
"""
from linux cimport *
from protocol cimport *

include "fence.pxi"
include "inherited.pxi"
include "line.pxi"
include "masks.pxi"

cdef extern from *:
    """
    static const char ENTER_USERS[] = "cannot enter the user namespace";
    static const char EXECUTE[] = "PID 1 of the subhost: cannot execute ";
    static const char NAMED[] = "overlay-boot: ";
    """
    const char *ENTER_USERS
    const char *EXECUTE
    const char *NAMED

cdef enum:
    CHUNK = 4096
    ASK_AGAIN = 50          # ms: PID 1 does not tell us when it begins to take signals


cdef struct Subhost:
    handover_t handed
    char *name
    char *notify
    char *clear
    char *hostname
    char *command[MOST_WORDS + 1]
    char *filter
    bint running
    ssize_t reported        # so many bytes of what PID 1 says of its services
    bint complete           # it has said all of that
    bint continues          # the last line of it is not at its end
    bint asked              # something inside has asked for the end
    bint again              # and for a boot to follow


cdef struct Failure:
    # A pointer into the program's own text: both ends of the pipe are one image.
    const char *what
    const char *which
    int error


cdef void tell(int fd, const char *what, const char *which, int error) noexcept nogil:
    cdef char line[LINE]
    line[0] = 0
    if fd == 2:
        put(line, NAMED)
    put(line, what)
    put(line, which)
    if error:
        put(line, b": ")
        put(line, strerror(error))
    if fd == 2:
        put(line, b"\n")
    write(fd, line, strlen(line))


cdef void tell_no_child(int fd, int error) noexcept nogil:
    """Tell why clone3(2) has failed; strerror(3) would mislead where that is a limit."""
    if error == EAGAIN:
        tell(fd, b"cannot make PID 1: ", NO_MORE_PROCESSES, 0)
    elif error == ENOSPC:
        tell(fd, b"cannot make PID 1: ", NO_MORE_NAMESPACES, 0)
    else:
        tell(fd, b"cannot make namespaces and PID 1", b"", error)


cdef int lock(int fd, int command, short kind, long byte) noexcept nogil:
    cdef flock record
    memset(&record, 0, sizeof(record))
    record.l_type = kind
    record.l_start = byte
    record.l_len = 1
    return fcntl(fd, command, &record)


cdef bint is_locked(int fd, long byte) noexcept nogil:
    """By another process."""
    cdef flock record
    memset(&record, 0, sizeof(record))
    record.l_type = F_WRLCK
    record.l_start = byte
    record.l_len = 1
    return fcntl(fd, F_GETLK, &record) == 0 and record.l_type != F_UNLCK


cdef void ready(const char *path) noexcept nogil:
    """Tell the service manager, as sd_notify(3) does."""
    cdef sockaddr_un address
    cdef size_t size = strlen(path)
    cdef int fd
    if size == 0 or size > sizeof(address.sun_path):
        return
    memset(&address, 0, sizeof(address))
    address.sun_family = AF_UNIX
    memcpy(address.sun_path, path, size)
    if path[0] == 64:                   # "@": an abstract address
        address.sun_path[0] = 0
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    sendto(fd, b"READY=1\n", 8, MSG_NOSIGNAL, <sockaddr *>&address,
           <unsigned int>(sizeof(address.sun_family) + size))
    close(fd)


# PID 1, from its first instruction to the execution of COMMAND: nothing of the
# subhost is executed in between.

cdef int mount_proc(int root, bint again) noexcept nogil:
    """Mount a proc of the new PID namespace on proc in the root, through no symbolic link; a descriptor of it.

    again tells whether the root has one, of processes that are gone.
    """
    cdef int filesystem = <int>syscall(SYS_fsopen, b"proc", FSOPEN_CLOEXEC)
    cdef int target, made
    if filesystem < 0 or syscall(SYS_fsconfig, filesystem, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0:
        return -1
    made = <int>syscall(SYS_fsmount, filesystem, FSMOUNT_CLOEXEC,
                        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    if made < 0:
        return -1
    if again:                           # only now: root of a user namespace can make none where there is none
        c_umount2(b"/proc", MNT_DETACH | UMOUNT_NOFOLLOW)
    target = openat(root, b"proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if target < 0:
        return -1
    if syscall(SYS_move_mount, made, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0:
        return -1
    return made


cdef int leave_host_root(int root) noexcept nogil:
    """pivot_root(2) in the way of its manual page: no directory is needed for the old root."""
    if fchdir(root) < 0 or syscall(SYS_pivot_root, b".", b".") < 0:
        return -1
    return c_umount2(b".", MNT_DETACH)


cdef const char *fence_root(int root, int proc, uint64_t capabilities, bint hides_log, bint goes) noexcept nogil:
    """What only capabilities would take back: who has them anyway is not kept from it, but for what takes from the host.

    That is /proc/kmsg: of each message of the kernel's, one reader gets to know.  goes tells that the root that this
    process has now will be unmounted, and what masks were made of with it: alone, that takes as long as ten of them.
    """
    cdef bint masks = not capabilities >> CAP_SYS_ADMIN & 1
    if not capabilities >> CAP_MKNOD & 1 and restrict(root, b"", MOUNT_ATTR_NODEV) < 0:
        return b"cannot keep devices from LIVE"
    if not masks and not hides_log:
        return NULL
    if make_nothing(hides_log) < 0 or fchdir(proc) < 0 or hides_log and hide_log() < 0 or masks and mask_proc() < 0:
        return b"cannot mask LIVE/proc"
    if masks and mask_sys(root) < 0:
        return b"cannot mask LIVE/sys"
    if not goes and c_umount2(NOTHING, MNT_DETACH | UMOUNT_NOFOLLOW) < 0:
        return b"cannot remove what masks were made of"
    return NULL


cdef const char *make_root(int root, uint64_t capabilities, bint hides_log) noexcept nogil:
    """Give PID 1 its root, with a /proc of its own, and fence that.  Returns only what failed, with errno set."""
    cdef const char *wrong
    cdef int own = root
    cdef int proc
    if root < 0:
        own = open(b"/", O_PATH | O_DIRECTORY | O_CLOEXEC)
    proc = mount_proc(own, root < 0)
    if proc < 0:
        return b"cannot mount proc on LIVE/proc"
    wrong = fence_root(own, proc, capabilities, hides_log, root >= 0)
    if wrong != NULL:
        return wrong
    if root >= 0 and leave_host_root(root) < 0 or chdir(b"/") < 0:
        return b"cannot make LIVE the root"
    return NULL


cdef bint is_null(int fd) noexcept nogil:
    """Whether it is open, and the null device, null(4)."""
    cdef stat_t status
    return (fd >= 0 and fstat(fd, &status) == 0 and S_ISCHR(status.st_mode)
            and major(status.st_rdev) == 1 and minor(status.st_rdev) == 3)


cdef int open_null(int nothing) noexcept nogil:
    """The subhost's /dev/null if it is one, else a pipe that has ended."""
    cdef int fd = open(b"/dev/null", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
    return fd if is_null(fd) else nothing


cdef bint maps_ids(const Subhost *subhost) noexcept nogil:
    """Whether its user namespace has other ids than the host: then all that is its own belongs to that."""
    return subhost.handed.users >= 0 and subhost.handed.owner != 0


cdef int enter_users(const Subhost *subhost) noexcept nogil:
    if (c_setns(subhost.handed.users, CLONE_NEWUSER) < 0 or setgroups(0, NULL) < 0
            or setresgid(0, 0, 0) < 0 or setresuid(0, 0, 0) < 0):
        return -1
    return 0


cdef const char *enter(const Subhost *subhost) noexcept nogil:
    """Enter the namespaces that a boot has made, without a login; returns only what failed, with errno set."""
    leave_login(subhost.handed.capabilities)
    if c_setns(subhost.handed.mounts, CLONE_NEWNS) < 0:
        return b"cannot enter the mount namespace"
    if c_setns(subhost.handed.network, CLONE_NEWNET) < 0:
        return b"cannot enter the network namespace"
    # The last one, as it is root of nothing else then.
    if maps_ids(subhost) and enter_users(subhost) < 0:
        return ENTER_USERS
    return NULL


cdef const char *become(Subhost *subhost, int go, int console, int services, int failed) noexcept nogil:
    """Everything between clone and execve; returns only what failed, with errno set."""
    cdef Failure about                  # to be told that execve comes next: nothing has failed
    cdef const char *wrong
    cdef char byte
    cdef int told = -1
    memset(&about, 0, sizeof(about))
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    if read(go, &byte, 1) != 1:         # the keeper was killed before the line above
        _exit(1)
    if not maps_ids(subhost):
        wrong = enter(subhost)
        if wrong != NULL:
            return wrong
    if c_unshare(CLONE_NEWCGROUP) < 0:    # here: its root is the control group that we are in
        return b"cannot make a cgroup namespace"
    if sethostname(subhost.hostname, strlen(subhost.hostname)) < 0:
        return b"cannot set the host name"
    if syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 and errno != ENOSYS:
        return b"cannot leave the session keyring"
    # In a user namespace of other ids nobody can read it, and a mask would keep root from mounting another /proc.
    wrong = make_root(subhost.handed.root, subhost.handed.capabilities,
                      subhost.handed.capabilities >> CAP_SYSLOG & 1 and not maps_ids(subhost))
    if wrong != NULL:
        return wrong
    # Its capabilities reach no further than this then, and its network, which belongs to that.
    if subhost.handed.users >= 0 and not maps_ids(subhost) and enter_users(subhost) < 0:
        return ENTER_USERS
    if bound_capabilities(subhost.handed.capabilities) < 0:
        return b"cannot drop capabilities"
    setsid()
    dup2(open_null(go), 0)
    dup2(console, 1)
    dup2(console, 2)
    if subhost.handed.main >= 0:        # before another one takes its number
        told = fcntl(subhost.handed.main, F_DUPFD_CLOEXEC, MAIN + 1)
    if services >= 0:
        dup2(services, SERVICES)
    if told >= 0:
        dup2(told, MAIN)
    default_signals()
    if strcmp(subhost.command[0], REAPER) != 0:
        unblock_signals()               # the reaper wants them blocked, from its first instruction on
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC)
    if services >= 0:
        fcntl(SERVICES, F_SETFD, 0)
    if told >= 0:
        fcntl(MAIN, F_SETFD, 0)
    if load_filter(subhost.filter, subhost.handed.filter) < 0:
        return b"cannot load the filter of system calls"
    write(failed, &about, sizeof(about))
    execve(subhost.command[0], subhost.command, environ)
    return EXECUTE


cdef void tell_failure(const Subhost *subhost, int failed, const char *what) noexcept nogil:
    """Tell the keeper what failed, with errno set, and end."""
    cdef Failure failure
    failure.error = errno
    failure.what = what
    failure.which = b""
    if what == EXECUTE:
        failure.which = subhost.command[0]
    write(failed, &failure, sizeof(failure))
    _exit(1)


cdef pid_t clone_child(uint64_t flags, uint64_t signal, int group) noexcept nogil:
    cdef clone_args how
    memset(&how, 0, sizeof(how))
    how.flags = flags | CLONE_INTO_CGROUP
    how.exit_signal = signal
    how.cgroup = group
    return <pid_t>syscall(SYS_clone3, &how, sizeof(how))


cdef pid_t clone_init(Subhost *subhost, int console, int services, int *go, int *failed, uint64_t more) noexcept nogil:
    """Make PID 1 in namespaces that belong to the user namespace of this process."""
    cdef pid_t child = clone_child(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWTIME | more,
                                   0 if more else SIGCHLD, subhost.handed.group)
    if child == 0:
        close(go[1])
        tell_failure(subhost, failed[1], become(subhost, go[0], console, services, failed[1]))
    return child


cdef pid_t clone_init_by_another(Subhost *subhost, int console, int services, int *go, int *failed) noexcept nogil:
    """Have a process that has entered the user namespace make PID 1, as a child of the keeper, which stays outside.

    0 if it has told why it could not; or if it has ended without a word, and there may be a PID 1 that waits.
    """
    cdef int made[2]
    cdef const char *wrong
    cdef pid_t child = 0
    cdef pid_t process
    if pipe2(made, O_CLOEXEC | O_NONBLOCK) < 0:
        return -1
    process = clone_child(0, SIGCHLD, subhost.handed.group)
    if process == 0:
        wrong = enter(subhost)
        if wrong != NULL:
            tell_failure(subhost, failed[1], wrong)
        child = clone_init(subhost, console, services, go, failed, CLONE_PARENT)
        if child < 0:
            child = -errno
        write(made[1], &child, sizeof(child))
        _exit(0)
    if process < 0:
        child = -errno
    close(made[1])
    if process > 0:
        waitpid(process, NULL, 0)
        if read(made[0], &child, sizeof(child)) != sizeof(child):       # PID 1, if there is one, has the other end too
            child = 0
    close(made[0])
    if child < 0:
        set_errno(-child)
    return child


cdef bint record(int state, pid_t child) noexcept nogil:
    """Note PID 1 in the state file; whether all of the line could be written."""
    cdef char line[LINE]
    cdef ssize_t length
    line[0] = 0
    put(line, INIT_KEY)
    put(line, b" ")
    put_number(line, child)
    put(line, b"\n")
    length = strlen(line)
    return write(state, line, length) == length


cdef pid_t start(Subhost *subhost, int console, int services) noexcept nogil:
    """Have PID 1 executed; its process id, or 0 when the reason is told."""
    cdef int go[2]
    cdef int failed[2]
    cdef Failure failure
    cdef ssize_t size
    cdef pid_t child
    cdef int own
    if pipe2(go, O_CLOEXEC) < 0 or pipe2(failed, O_CLOEXEC) < 0:
        tell(subhost.handed.report, b"cannot make a pipe", b"", errno)
        return 0
    if subhost.handed.main >= 0:        # what PID 1 tells us by is not to be in the way of that
        own = fcntl(failed[1], F_DUPFD_CLOEXEC, MAIN + 1)
        close(failed[1])
        failed[1] = own
    if not maps_ids(subhost):
        child = clone_init(subhost, console, services, go, failed, 0)
    else:
        child = clone_init_by_another(subhost, console, services, go, failed)
    if child < 0:
        tell_no_child(subhost.handed.report, errno)
        return 0
    close(go[0])
    close(failed[1])
    if child > 0:                       # else whatever PID 1 there is ends
        write(go[1], b"+", 1)
    close(go[1])
    memset(&failure, 0, sizeof(failure))
    size = read(failed[0], &failure, sizeof(failure))
    if size > 0 and failure.what == NULL:
        size = read(failed[0], &failure, sizeof(failure))
        if size == 0:                   # closed by execve
            close(failed[0])
            # Only now: nobody shall enter before PID 1 is confined.
            if record(subhost.handed.state, child):
                return child
            tell(subhost.handed.report, b"cannot write the state file", b"", errno)
            kill(child, SIGKILL)
            waitpid(child, NULL, 0)
            return 0
    if size > 0:
        tell(subhost.handed.report, failure.what, failure.which, failure.error)
    else:
        tell(subhost.handed.report, b"PID 1 was killed before it was executed", b"", 0)
    if child > 0:
        kill(child, SIGKILL)
        waitpid(child, NULL, 0)
    return 0


cdef ssize_t pass_on(int console, int log) noexcept nogil:
    """Copy what was printed; a log that cannot take it (disk full) loses it."""
    cdef char chunk[CHUNK]
    cdef ssize_t size = read(console, chunk, CHUNK)
    if size > 0:
        write(log, chunk, size)
    return size


cdef ssize_t put_lines(Subhost *subhost, char *text, const char *said, ssize_t size) noexcept nogil:
    """Put what a subhost says into text, as lines of ours for a terminal; the size of that."""
    cdef ssize_t at
    cdef ssize_t used = 0
    for at in range(size):
        if not subhost.continues:
            subhost.complete = said[at] == 10
            if subhost.complete:
                continue
            memcpy(text + used, NAMED, strlen(NAMED))
            used += strlen(NAMED)
        subhost.continues = said[at] != 10
        text[used] = said[at] if 32 <= said[at] < 127 or said[at] == 10 else 63        # "?"
        used += 1
    return used


cdef ssize_t report_services(Subhost *subhost, int services) noexcept nogil:
    """Report what PID 1 says of its services: to the boot that waits, or in the foreground on standard error."""
    cdef char said[LONGEST_VERDICT]
    cdef char text[LONGEST_VERDICT * 16]
    cdef ssize_t size = read(services, said, LONGEST_VERDICT)
    cdef ssize_t lines
    if size > 0 and subhost.reported + size <= LONGEST_VERDICT:
        subhost.reported += size
        lines = put_lines(subhost, text, said, size)
        if subhost.handed.boot:
            write(subhost.handed.report, said, size)
        else:
            write(subhost.handed.report, text, lines)
    elif size > 0:                      # more than anybody has to hear, but for the end of it
        put_lines(subhost, text, said, size)
        if subhost.complete and subhost.handed.boot:
            write(subhost.handed.report, b"\n\n", 2)
    return size


cdef void leave_report(Subhost *subhost) noexcept nogil:
    """The boot, which may be waiting still, has heard all of it."""
    if subhost.handed.boot and subhost.handed.report >= 0:
        close(subhost.handed.report)
        subhost.handed.report = -1


cdef void path_in_proc(char *path, pid_t process, const char *name) noexcept nogil:
    """Make path, of LINE bytes, that of an entry of a process's."""
    path[0] = 0
    put(path, b"/proc/")
    put_number(path, process)
    put(path, name)


cdef bint has_sigterm(const char *status, const char *which) noexcept nogil:
    """Whether SIGTERM is in that set of signals of a /proc/PID/status, proc(5)."""
    cdef const char *mask = strstr(status, which)
    return mask != NULL and strtoull(mask + strlen(which), NULL, 16) >> (SIGTERM - 1) & 1


cdef bint heeds_end(pid_t init) noexcept nogil:
    """Whether PID 1 gets SIGTERM: the kernel drops one that it neither catches nor blocks, pid_namespaces(7)."""
    cdef char path[LINE]
    cdef char status[CHUNK]
    cdef ssize_t size
    cdef int fd
    path_in_proc(path, init, b"/status")
    fd = open(path, O_RDONLY | O_CLOEXEC)
    if fd < 0:
        return False
    size = read(fd, status, sizeof(status) - 1)
    close(fd)
    status[size if size > 0 else 0] = 0
    return has_sigterm(status, b"\nSigBlk:") or has_sigterm(status, b"\nSigCgt:")


cdef void ask(pid_t init, stat_t *asked) noexcept nogil:
    """Send PID 1 SIGTERM, if it heeds that, and asked is not the program that it executes.  Until it ends, ask again.

    While services start, PID 1 is a shell.  That blocks signals for each fork(2), and the one that comes then is dropped
    after it: so what counts is that the same program has been there since, and would have dropped nothing.
    """
    cdef char path[LINE]
    cdef stat_t program
    memset(&program, 0, sizeof(program))
    program.st_ino = 1                  # where nobody may know
    path_in_proc(path, init, b"/exe")
    fstatat(AT_FDCWD, path, &program, 0)
    if not heeds_end(init):
        asked.st_ino = 0
    elif asked.st_ino != program.st_ino or asked.st_dev != program.st_dev:
        asked[0] = program
        kill(init, SIGTERM)


cdef void end_in_order(Subhost *subhost, pid_t init) noexcept nogil:
    """Have CLEAR stop the services and PID 1.  What it says goes to LOG."""
    cdef char *command[4]
    cdef pid_t process = fork()
    if process < 0:
        kill(init, SIGTERM)
    if process:
        return                          # it ends before us, or is nobody's then
    command[0], command[1], command[2], command[3] = subhost.clear, subhost.name, b"end", NULL
    dup2(open(b"/dev/null", O_RDWR | O_NOCTTY), 0)
    dup2(subhost.handed.log, 1)
    dup2(1, 2)
    setsid()
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC)
    default_signals()
    unblock_signals()
    execve(subhost.clear, command, environ)
    _exit(1)


cdef void heed(Subhost *subhost, pid_t init) noexcept nogil:
    """Do what is asked for on REQUESTS; of several, the last one tells what follows the end."""
    cdef request_t request
    if (read(subhost.handed.requests, &request, sizeof(request)) != sizeof(request)
            or request.magic != REQUEST_MAGIC or request.command != RUN_LEVEL
            or request.run_level != TO_HALT and request.run_level != TO_REBOOT):
        return
    subhost.again = request.run_level == TO_REBOOT
    if not subhost.asked:
        subhost.asked = True
        end_in_order(subhost, init)


cdef int status_of(const Subhost *subhost, int ended) noexcept nogil:
    """The exit status that a wait status of PID 1 stands for."""
    if subhost.again:
        return REBOOT_STATUS
    if WIFEXITED(ended):
        return WEXITSTATUS(ended)
    return 0 if WTERMSIG(ended) == SIGINT else 128 + WTERMSIG(ended)       # of a halt by reboot(2)


cdef int watch(Subhost *subhost, pid_t child, int signals, int console, int services) noexcept nogil:
    """Until PID 1 ends: its output, and requests for an orderly end.  Returns its wait status."""
    cdef signalfd_siginfo caught
    cdef pollfd awaited[4]
    cdef stat_t asked                   # the program of PID 1 that was told to end
    cdef int status = 0
    cdef bint ending = False
    memset(&asked, 0, sizeof(asked))
    awaited[0].fd = signals
    awaited[1].fd = console
    awaited[2].fd = services
    awaited[3].fd = subhost.handed.requests
    awaited[0].events = awaited[1].events = awaited[2].events = awaited[3].events = POLLIN
    while waitpid(child, &status, WNOHANG) == 0:
        awaited[1].revents = awaited[2].revents = awaited[3].revents = 0
        poll(awaited, 4, ASK_AGAIN if ending else -1)
        if awaited[1].revents and pass_on(console, subhost.handed.log) == 0:
            awaited[1].fd = -1          # the subhost has closed it, all of it
        if awaited[2].revents and report_services(subhost, services) == 0:
            awaited[2].fd = -1
            leave_report(subhost)       # without the end of it, if that is PID 1's, or of what told of them
        if awaited[3].revents:
            heed(subhost, child)
        while read(signals, &caught, sizeof(caught)) > 0:
            if caught.ssi_signo == SIGTERM or caught.ssi_signo == SIGINT:
                ending = True
                asked.st_ino = 0
        if ending:
            ask(child, &asked)
    while pass_on(console, subhost.handed.log) > 0:
        pass
    while services >= 0 and report_services(subhost, services) > 0:
        pass
    leave_report(subhost)
    return status


cdef bint stand_on_null(Subhost *subhost) noexcept nogil:
    """Have /dev/null as standard input; whether that is done."""
    cdef int null = open(b"/dev/null", O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
    if null < 0:
        tell(subhost.handed.report, b"cannot open /dev/null", b"", errno)
    elif not is_null(null):
        tell(subhost.handed.report, b"cannot open /dev/null: it is not the null device", b"", 0)
    else:
        dup2(null, 0)
        close(null)
        return True
    return False


cdef void let_go(Subhost *subhost) noexcept nogil:
    """PID 1 has been executed: what only the boot needed goes, and the boot is told."""
    close(subhost.handed.network)
    close(subhost.handed.users)
    close(subhost.handed.group)
    close(subhost.handed.root)
    close(subhost.handed.main)
    # Of a boot in the foreground, which was this process; any other one leaves the lock when it ends.
    lock(subhost.handed.state, F_SETLK, F_UNLCK, COMMAND_BYTE)
    ready(subhost.notify)
    if not subhost.handed.boot:
        return
    dup2(0, 1)
    dup2(0, 2)
    if not subhost.handed.bound:
        prctl(PR_SET_PDEATHSIG, 0)
    write(subhost.handed.report, DONE, strlen(DONE))
    if not subhost.handed.starts:
        leave_report(subhost)


cdef int clear_up(Subhost *subhost, int status) noexcept nogil:
    """Execute CLEAR, unless a command holds the lock that will do it, as a stop does.

    MOUNTS, which the kernel takes down when nobody has it any more, and syncs
    the file system of UPPER for, are left to us by PID 1: a stop does the rest
    meanwhile.
    """
    cdef char *command[5]
    cdef char number[LINE]
    if lock(subhost.handed.state, F_SETLK, F_WRLCK, COMMAND_BYTE) < 0:
        if not subhost.running:
            return status
        if is_locked(subhost.handed.state, STOP_BYTE):
            return 0                    # as asked for: no failure, on which a service manager boots it again
        lock(subhost.handed.state, F_SETLKW, F_WRLCK, COMMAND_BYTE)
    close(subhost.handed.mounts)
    # Nor has anybody what boot.start_keeper() left open, as UPPER in an IMAGE; with STATE the lock would go.
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC)
    fcntl(subhost.handed.state, F_SETFD, 0)
    number[0] = 0
    put_number(number, status)
    command[0] = subhost.clear
    command[1] = subhost.name
    command[2] = number
    command[3] = command[4] = NULL
    if not subhost.handed.boot:
        command[3] = b"foreground"
    default_signals()
    # Clearing is not interrupted, and comes to its end.  To ignore a signal takes back one that is pending: of the last
    # output, which nobody has read.
    signal(SIGPIPE, SIG_IGN)
    signal(SIGXFSZ, SIG_IGN)
    signal(SIGTERM, SIG_IGN)
    signal(SIGINT, SIG_IGN)
    signal(SIGHUP, SIG_IGN)
    signal(SIGQUIT, SIG_IGN)
    unblock_signals()
    execve(subhost.clear, command, environ)
    return status


cdef int keep(Subhost *subhost) noexcept nogil:
    cdef sigset_t everything
    cdef int console[2]
    cdef int services[2]
    cdef int signals, ended
    cdef int status = 1
    cdef pid_t child
    close(subhost.handed.programs)
    if subhost.handed.boot:
        # until PID 1 has been executed, we live and die with the boot
        prctl(PR_SET_PDEATHSIG, SIGKILL)
        if getppid() != subhost.handed.boot:
            return 1
    if not stand_on_null(subhost):
        return clear_up(subhost, status)
    sigfillset(&everything)
    sigprocmask(SIG_SETMASK, &everything, NULL)
    signal(SIGCHLD, SIG_DFL)            # ignored, there is no end of PID 1 to wait for
    signals = signalfd(-1, &everything, SFD_CLOEXEC | SFD_NONBLOCK)
    services[0] = services[1] = -1
    if signals < 0 or pipe2(console, O_CLOEXEC) < 0 or subhost.handed.starts and pipe2(services, O_CLOEXEC) < 0:
        tell(subhost.handed.report, b"cannot make a pipe for what PID 1 prints", b"", errno)
        return clear_up(subhost, 1)
    if lock(subhost.handed.state, F_SETLK, F_WRLCK, KEEPER_BYTE) < 0:
        tell(subhost.handed.report, b"cannot lock the state file", b"", errno)
        return clear_up(subhost, 1)
    if maps_ids(subhost) and fchown(console[1], subhost.handed.owner, subhost.handed.owner) < 0:
        tell(subhost.handed.report, b"cannot give the subhost what it prints to", b"", errno)   # as /dev/stderr
        return clear_up(subhost, 1)
    child = start(subhost, console[1], services[1])
    if child:
        close(console[1])
        close(services[1])
        fcntl(console[0], F_SETFL, O_NONBLOCK)
        fcntl(services[0], F_SETFL, O_NONBLOCK)
        subhost.running = True
        let_go(subhost)
        dup2(console[0], 0)             # where a stop finds it
        close(console[0])
        ended = watch(subhost, child, signals, 0, services[0])
        status = status_of(subhost, ended)
    return clear_up(subhost, status)


# What a boot has handed over: the texts stay where they were read to.

cdef char area[LONGEST_HANDOVER]


cdef ssize_t read_area() noexcept nogil:
    """Read standard input to its end; the size, or -1."""
    cdef size_t size = 0
    cdef ssize_t more = 1
    while more > 0 and size < LONGEST_HANDOVER:
        more = read(0, area + size, LONGEST_HANDOVER - size)
        if more > 0:
            size += more
    return -1 if more else <ssize_t>size


cdef bint receive(Subhost *subhost) noexcept nogil:
    """Take what stands on standard input; whether it was whole."""
    cdef char *texts[HANDOVER_TEXTS + MOST_WORDS]
    cdef ssize_t size = read_area()
    cdef ssize_t at = sizeof(handover_t)
    cdef int count = 0
    cdef int number
    if size < at:
        return False
    memcpy(&subhost.handed, area, at)
    if not 0 < subhost.handed.words <= MOST_WORDS:
        return False
    while at < size and count < HANDOVER_TEXTS + subhost.handed.words:
        texts[count] = area + at
        at += strlen(area + at) + 1
        count += 1
    if at + subhost.handed.filter != size or count != HANDOVER_TEXTS + subhost.handed.words:
        return False
    subhost.filter = area + at
    subhost.notify, subhost.clear, subhost.hostname = texts[0], texts[1], texts[2]
    for number in range(subhost.handed.words):
        subhost.command[number] = texts[HANDOVER_TEXTS + number]
    subhost.command[subhost.handed.words] = NULL
    return True


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef Subhost subhost
    if argc != 2 or not receive(&subhost):
        tell(2, b"keeper: to be executed by overlay-boot", b"", 0)
        return 2
    subhost.name = argv[1]
    subhost.running = False
    subhost.reported = 0
    subhost.complete = subhost.continues = subhost.asked = subhost.again = False
    leave_limits()
    leave_priority()
    return keep(&subhost)
