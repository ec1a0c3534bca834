# What fences a process in, for the programs that execute what is a subhost's.

cdef void leave_login(uint64_t mask) noexcept nogil:
    """Take back the login UID that the caller's login has set, unless mask has what pam_loginuid(8) inside takes for that.

    Without it, that module can only set one that is not set, and else refuses the logins of ssh and the jobs of cron.
    This is done where /proc is the host's.  Some kernels have no login UIDs, and in some they are immutable, auditctl(8).
    """
    cdef int fd
    if mask >> CAP_AUDIT_CONTROL & 1:
        return
    fd = open(b"/proc/self/loginuid", O_WRONLY | O_CLOEXEC)
    write(fd, b"4294967295", 10)
    close(fd)


cdef int bound_capabilities(uint64_t mask) noexcept nogil:
    """Leave of the bounding set, capabilities(7), what is in mask, and nothing to be inherited by another way.

    execve(2) leaves root with that set then, and everybody else without a capability.
    """
    cdef cap_header header
    cdef cap_data data[2]
    cdef int number
    memset(&header, 0, sizeof(header))
    header.version = _LINUX_CAPABILITY_VERSION_3
    if syscall(SYS_capget, &header, data) < 0:
        return -1
    for number in range(2):
        data[number].inheritable = 0
        data[number].effective = data[number].permitted     # which a change of user has emptied
    if syscall(SYS_capset, &header, data) < 0 or prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0:
        return -1
    for number in range(64):
        if not mask >> number & 1 and prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            return 0 if errno == EINVAL else -1             # the kernel has no more
    return 0


cdef int load_filter(const char *instructions, size_t size) noexcept nogil:
    """seccomp(2): a filter of system calls, as bytes.  No other calls than execve(2), write(2) and exit(2) may follow."""
    cdef sock_fprog program
    if size == 0:
        return 0
    program.len = <unsigned short>(size // sizeof(sock_filter))
    program.filter = <sock_filter *>instructions
    return <int>syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)


cdef void default_signals() noexcept nogil:
    cdef int number
    for number in range(1, NSIG):
        signal(number, SIG_DFL)


cdef void unblock_signals() noexcept nogil:
    cdef sigset_t none
    sigemptyset(&none)
    sigprocmask(SIG_SETMASK, &none, NULL)
