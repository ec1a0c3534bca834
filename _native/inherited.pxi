# What a process inherits from its caller, and what is a subhost's does not: it has what init starts a process with. What
# the caller may not change, as root of a container may not, remains.

cdef extern from *:
    """
    #include <linux/mqueue.h>

    /* Process 1 is started with these by the kernel, but for files: so many can be open in a process of systemd's. */
    static const struct default_limit { int resource; rlim_t soft, hard; } LIMITS[] = {
        { RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY },
        { RLIMIT_CORE, 0, RLIM_INFINITY },
        { RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY },
        { RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY },
        { RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY },
        { RLIMIT_LOCKS, RLIM_INFINITY, RLIM_INFINITY },
        { RLIMIT_MEMLOCK, 8 << 20, 8 << 20 },
        { RLIMIT_MSGQUEUE, MQ_BYTES_MAX, MQ_BYTES_MAX },
        { RLIMIT_NICE, 0, 0 },
        { RLIMIT_NOFILE, 1 << 10, 1 << 19 },
        { RLIMIT_RSS, RLIM_INFINITY, RLIM_INFINITY },
        { RLIMIT_RTPRIO, 0, 0 },
        { RLIMIT_RTTIME, RLIM_INFINITY, RLIM_INFINITY },
        { RLIMIT_STACK, 8 << 20, RLIM_INFINITY },
    };
    /* They follow from the memory of the machine: process 1 has them. */
    static const int LIMITS_OF_MACHINE[] = { RLIMIT_NPROC, RLIMIT_SIGPENDING };
    enum {
        NUMBER_OF_LIMITS = sizeof(LIMITS) / sizeof(*LIMITS),
        NUMBER_OF_MACHINE = sizeof(LIMITS_OF_MACHINE) / sizeof(*LIMITS_OF_MACHINE),
        PROCESSORS = (1 << 13) / 8      /* bytes, a bit for each: no kernel is made for more of them */
    };
    """
    struct default_limit:
        int resource
        uint64_t soft
        uint64_t hard
    const default_limit *LIMITS
    const int *LIMITS_OF_MACHINE
    enum: NUMBER_OF_LIMITS, NUMBER_OF_MACHINE, PROCESSORS


cdef void limit(int resource, rlimit_t *wanted) noexcept nogil:
    """setrlimit(2), as far as the hard limit permits."""
    cdef rlimit_t own
    if setrlimit(resource, wanted) == 0 or getrlimit(resource, &own) < 0:
        return
    wanted.rlim_max = min(wanted.rlim_max, own.rlim_max)
    wanted.rlim_cur = min(wanted.rlim_cur, wanted.rlim_max)
    setrlimit(resource, wanted)


cdef void leave_limits() noexcept nogil:
    """Those of resources, getrlimit(2), and of what else the caller may have kept it to.  /proc is the host's."""
    cdef rlimit_t wanted
    cdef int number, fd
    for number in range(NUMBER_OF_LIMITS):
        wanted.rlim_cur, wanted.rlim_max = LIMITS[number].soft, LIMITS[number].hard
        limit(LIMITS[number].resource, &wanted)
    for number in range(NUMBER_OF_MACHINE):
        if prlimit(1, LIMITS_OF_MACHINE[number], NULL, &wanted) == 0:
            limit(LIMITS_OF_MACHINE[number], &wanted)
    fd = open(b"/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)
    write(fd, b"0", 1)
    close(fd)
    personality(PER_LINUX)
    umask(0o022)


cdef void leave_priority() noexcept nogil:
    """For processors, and for disks; and the processors that it is kept to."""
    cdef char processors[PROCESSORS]
    cdef int priority = 0               # struct sched_param, of which libc's has more members than the kernel's
    syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &priority)
    setpriority(PRIO_PROCESS, 0, 0)
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, 0))
    memset(processors, 0xff, sizeof(processors))
    syscall(SYS_sched_setaffinity, 0, sizeof(processors), processors)
