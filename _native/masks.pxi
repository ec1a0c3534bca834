# What root inside does not see of the host's kernel in /proc and /sys, and what it cannot set there; for the keeper.

cdef extern from *:
    """
    /* Of proc(5): hidden are the kernel's memory, addresses, keys and devices. */
    static const char *const PROC_HIDDEN[] = {
        "acpi", "asound", "bus", "driver", "dynamic_debug", "iomem", "ioports", "irq", "kallsyms", "kcore", "key-users", "keys",
        "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "mtrr", "sched_debug", "scsi", "slabinfo",
        "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo", NULL
    };
    static const char *const PROC_READ_ONLY[] = { "fs", "sys", NULL };
    /* What is left to be set: it is of the network or the IPC namespace. */
    static const char *const PROC_OWN[] = {
        "sys/net", "sys/fs/mqueue", "sys/kernel/auto_msgmni", "sys/kernel/msgmax", "sys/kernel/msgmnb", "sys/kernel/msgmni",
        "sys/kernel/sem", "sys/kernel/shm_rmid_forced", "sys/kernel/shmall", "sys/kernel/shmmax", "sys/kernel/shmmni", NULL
    };
    /* Of sysfs(5), all of which is read-only. */
    static const char *const SYS_HIDDEN[] = {
        "devices/virtual/powercap", "firmware", "fs/bpf", "fs/pstore", "kernel/config", "kernel/debug", "kernel/security",
        "kernel/tracing", NULL
    };
    enum { OWN = sizeof(PROC_OWN) / sizeof(*PROC_OWN) - 1 };
    """
    const char **PROC_HIDDEN
    const char **PROC_READ_ONLY
    const char **PROC_OWN
    const char **SYS_HIDDEN
    enum: OWN


cdef int copy_of(int at, const char *path) noexcept nogil:
    """A mount of what is there, that nobody sees yet."""
    return <int>syscall(SYS_open_tree, at, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW)


cdef int put_on(int mounted, int at, const char *path) noexcept nogil:
    """Mount it there, and close it."""
    cdef int result = <int>syscall(SYS_move_mount, mounted, b"", at, path, MOVE_MOUNT_F_EMPTY_PATH)
    close(mounted)
    return result


cdef int restrict(int mounted, uint64_t attributes) noexcept nogil:
    cdef mount_attr change
    memset(&change, 0, sizeof(change))
    change.attr_set = attributes
    return <int>syscall(SYS_mount_setattr, mounted, b"", AT_EMPTY_PATH, &change, sizeof(change))


cdef int make_nothing(int proc) noexcept nogil:
    """A file system with an empty file "file", an empty directory "directory" and a "socket", to be copied for masks.

    It is mounted on proc for as long as that: Linux before 6.15 copies no mount that is mounted nowhere.
    """
    cdef int filesystem = <int>syscall(SYS_fsopen, b"tmpfs", FSOPEN_CLOEXEC)
    cdef int made = -1
    if filesystem < 0:
        return -1
    if (syscall(SYS_fsconfig, filesystem, FSCONFIG_SET_STRING, b"size", b"4k", 0) == 0
            and syscall(SYS_fsconfig, filesystem, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0):
        made = <int>syscall(SYS_fsmount, filesystem, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    close(filesystem)
    if made >= 0 and (mknodat(made, b"file", S_IFREG | 0o444, 0) < 0 or mkdirat(made, b"directory", 0o555) < 0
                      or mknodat(made, b"socket", S_IFSOCK | 0o400, 0) < 0 or restrict(made, MOUNT_ATTR_RDONLY) < 0
                      or syscall(SYS_move_mount, made, b"", proc, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0):
        close(made)
        return -1
    return made


cdef int remove_nothing(int nothing) noexcept nogil:
    if fchdir(nothing) < 0 or c_umount2(b".", MNT_DETACH) < 0:
        return -1
    close(nothing)
    return chdir(b"/")


cdef bint is_hidden(int at, const char *path) noexcept nogil:
    """Whether nothing is mounted there already: no other file system in /proc or /sys is a tmpfs that is read-only."""
    cdef statfs_t found
    cdef int fd = openat(at, path, O_PATH | O_NOFOLLOW | O_CLOEXEC)
    cdef int result = fstatfs(fd, &found)
    close(fd)
    return result == 0 and found.f_type == TMPFS_MAGIC and found.f_flags & ST_RDONLY


cdef int hide(int at, const char **path, int nothing, bint again) noexcept nogil:
    """Mount nothing on each of the paths that there is; again, where that is not so already."""
    cdef stat_t found
    cdef int mask
    while path[0] != NULL:
        if fstatat(at, path[0], &found, AT_SYMLINK_NOFOLLOW) == 0 and not (again and is_hidden(at, path[0])):
            mask = copy_of(nothing, b"directory" if S_ISDIR(found.st_mode) else b"file")
            if mask < 0 or put_on(mask, at, path[0]) < 0:
                return -1
        path += 1
    return 0


cdef int hide_log(int proc, int nothing) noexcept nogil:
    """A socket cannot be opened: syslog daemons do without kmsg then, where they would read an empty file for ever."""
    cdef int mask = copy_of(nothing, b"socket")
    return -1 if mask < 0 or put_on(mask, proc, b"kmsg") < 0 and errno != ENOENT else 0


cdef int make_read_only(int at, const char **path) noexcept nogil:
    cdef int mounted
    while path[0] != NULL:
        mounted = copy_of(at, path[0])
        if mounted < 0 or restrict(mounted, MOUNT_ATTR_RDONLY) < 0 or put_on(mounted, at, path[0]) < 0:
            return -1
        path += 1
    return 0


cdef int mask_proc(int proc, int nothing) noexcept nogil:
    cdef int own[OWN]
    cdef int number
    for number in range(OWN):
        own[number] = copy_of(proc, PROC_OWN[number])
        if own[number] < 0 and errno != ENOENT:
            return -1
    if make_read_only(proc, PROC_READ_ONLY) < 0 or hide(proc, PROC_HIDDEN, nothing, False) < 0:
        return -1
    for number in range(OWN):
        if own[number] >= 0 and put_on(own[number], proc, PROC_OWN[number]) < 0:
            return -1
    return 0


cdef int mask_sys(int root, int nothing) noexcept nogil:
    """If it is a sysfs.  One that is read-only may have been masked before its subhost hibernated."""
    cdef statfs_t found
    cdef int sys = openat(root, b"sys", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if sys < 0:
        return 0 if errno == ENOENT or errno == ENOTDIR or errno == ELOOP else -1
    if fstatfs(sys, &found) < 0:
        return -1
    if found.f_type != SYSFS_MAGIC:
        return 0
    if hide(sys, SYS_HIDDEN, nothing, found.f_flags & ST_RDONLY != 0) < 0:
        return -1
    return restrict(sys, MOUNT_ATTR_RDONLY)
