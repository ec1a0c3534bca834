# What root inside does not see of the host's kernel in /proc and /sys, and what it cannot set there; for the keeper.

cdef extern from *:
    """
    /* Of proc(5): hidden are the kernel's memory, addresses, keys and devices. */
    static const char *const PROC_FILES[] = {
        "iomem", "ioports", "kallsyms", "kcore", "key-users", "keys", "kpagecgroup", "kpagecount", "kpageflags",
        "latency_stats", "mtrr", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo", NULL
    };
    static const char *const PROC_DIRECTORIES[] = {
        "acpi", "asound", "bus", "driver", "dynamic_debug", "irq", "scsi", NULL
    };
    static const char *const PROC_READ_ONLY[] = { "fs", "sys", NULL };
    /* What is left to be set: it is of the network or the IPC namespace. */
    static const char *const PROC_OWN[] = {
        "sys/net", "sys/fs/mqueue", "sys/kernel/auto_msgmni", "sys/kernel/msgmax", "sys/kernel/msgmnb", "sys/kernel/msgmni",
        "sys/kernel/sem", "sys/kernel/shm_rmid_forced", "sys/kernel/shmall", "sys/kernel/shmmax", "sys/kernel/shmmni", NULL
    };
    /* Of sysfs(5), all of which is read-only. */
    static const char *const SYS_DIRECTORIES[] = { "devices/virtual/powercap", "firmware", NULL };
    /* They are empty, as long as nothing is mounted there. */
    static const char *const SYS_MOUNT_POINTS[] = {
        "fs/bpf", "fs/pstore", "kernel/config", "kernel/debug", "kernel/security", "kernel/tracing", NULL
    };

    /* Where what masks are made of is mounted meanwhile, on the host's /proc or that of the subhost. */
    #define NOTHING "/proc"
    static const char NO_FILE[] = NOTHING "/file", NO_DIRECTORY[] = NOTHING "/directory", NO_SOCKET[] = NOTHING "/socket";
    """
    const char **PROC_FILES
    const char **PROC_DIRECTORIES
    const char **PROC_READ_ONLY
    const char **PROC_OWN
    const char **SYS_DIRECTORIES
    const char **SYS_MOUNT_POINTS
    const char *NOTHING
    const char *NO_FILE
    const char *NO_DIRECTORY
    const char *NO_SOCKET


cdef int restrict(int at, const char *path, uint64_t attributes) noexcept nogil:
    """Give the mount on path these attributes as well; if path is empty, the mount that at is in."""
    cdef mount_attr change
    memset(&change, 0, sizeof(change))
    change.attr_set = attributes
    return <int>syscall(SYS_mount_setattr, at, path, 0 if path[0] else AT_EMPTY_PATH, &change, sizeof(change))


cdef int make_nothing(bint hides_log) noexcept nogil:
    """Mount a file system on NOTHING with an empty file, an empty directory and, for the log, a socket."""
    cdef int filesystem = <int>syscall(SYS_fsopen, b"tmpfs", FSOPEN_CLOEXEC)
    cdef int made = -1
    cdef int result = -1
    if filesystem < 0:
        return -1
    if (syscall(SYS_fsconfig, filesystem, FSCONFIG_SET_STRING, b"size", b"4k", 0) == 0
            and syscall(SYS_fsconfig, filesystem, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0):
        made = <int>syscall(SYS_fsmount, filesystem, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    if (made >= 0 and mknodat(made, b"file", S_IFREG | 0o444, 0) == 0 and mkdirat(made, b"directory", 0o555) == 0
            and (not hides_log or mknodat(made, b"socket", S_IFSOCK | 0o400, 0) == 0)
            and restrict(made, b"", MOUNT_ATTR_RDONLY) == 0):
        result = <int>syscall(SYS_move_mount, made, b"", AT_FDCWD, NOTHING, MOVE_MOUNT_F_EMPTY_PATH)
    close(made)
    close(filesystem)
    return result


# What follows is done in the directory that the paths are below.  mount(2) takes half as long as open_tree(2) and
# move_mount(2): these make a mount namespace for each mount that nobody sees yet.

cdef int bind(const char *what, const char *path) noexcept nogil:
    """Mount it there.  A path that there is not is passed over; what is to be mounted there is, or that is a failure."""
    if c_mount(what, path, NULL, MS_BIND, NULL) < 0 and (errno != ENOENT or access(path, F_OK) == 0):
        return -1
    return 0


cdef int bind_each(const char *what, const char **path) noexcept nogil:
    """Mount it on each of the paths; NULL stands for what is there."""
    while path[0] != NULL:
        if bind(path[0] if what == NULL else what, path[0]) < 0:
            return -1
        path += 1
    return 0


cdef int hide_log() noexcept nogil:
    """A socket cannot be opened: syslog daemons do without kmsg then, where they would read an empty file for ever."""
    return bind(NO_SOCKET, b"kmsg")


cdef int mask_proc() noexcept nogil:
    cdef const char **path = PROC_READ_ONLY
    # In this order: the mounts of what is its own would be read-only, too.
    if bind_each(NULL, PROC_READ_ONLY) < 0 or bind_each(NULL, PROC_OWN) < 0:
        return -1
    while path[0] != NULL:
        if restrict(AT_FDCWD, path[0], MOUNT_ATTR_RDONLY) < 0:
            return -1
        path += 1
    if bind_each(NO_FILE, PROC_FILES) < 0:
        return -1
    return bind_each(NO_DIRECTORY, PROC_DIRECTORIES)


cdef bint is_hidden(const char *path) noexcept nogil:
    """Whether nothing is mounted there already: no other file system in /sys is a tmpfs that is read-only."""
    cdef statfs_t found
    return statfs(path, &found) == 0 and found.f_type == TMPFS_MAGIC and found.f_flags & ST_RDONLY


cdef int hide_in_sys(const char **path, unsigned long bare) noexcept nogil:
    """Hide directories in /sys: those that are not on the device bare."""
    cdef stat_t found
    while path[0] != NULL:
        if fstatat(AT_FDCWD, path[0], &found, 0) < 0:
            if errno != ENOENT:
                return -1
        elif found.st_dev != bare and not is_hidden(path[0]) and bind(NO_DIRECTORY, path[0]) < 0:
            return -1
        path += 1
    return 0


cdef int mask_sys(int root) noexcept nogil:
    """If it is a sysfs.  It may have been masked before its subhost hibernated."""
    cdef statfs_t found
    cdef stat_t status
    cdef int sys = openat(root, b"sys", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if sys < 0:
        return 0 if errno == ENOENT or errno == ENOTDIR or errno == ELOOP else -1
    if fstatfs(sys, &found) < 0 or fstat(sys, &status) < 0 or fchdir(sys) < 0:
        return -1
    if found.f_type != SYSFS_MAGIC:
        return 0
    if hide_in_sys(SYS_DIRECTORIES, 0) < 0 or hide_in_sys(SYS_MOUNT_POINTS, status.st_dev) < 0:
        return -1
    return restrict(sys, b"", MOUNT_ATTR_RDONLY)
