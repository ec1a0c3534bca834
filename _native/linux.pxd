# What the kernel's and libc's headers say, for the extensions and the programs alike.
# No number of the kernel's is typed in here: Cython only learns the names.

cdef extern from "<errno.h>" nogil:
    int errno
    enum:
        EINTR, ESRCH, EAGAIN, ENOENT, ENOSPC, ENOTDIR, EACCES, ENXIO, ENODEV, EINVAL, EPROTO, EPROTONOSUPPORT, EOPNOTSUPP, ENAMETOOLONG, EPERM, ENOSYS
        ELOOP, EBUSY, EEXIST

cdef extern from *:
    """
    static inline void set_errno(int number) { errno = number; }
    """
    void set_errno(int number) noexcept nogil

cdef extern from "<stdint.h>" nogil:
    ctypedef unsigned int uint32_t
    ctypedef unsigned long long uint64_t

cdef extern from "<string.h>" nogil:
    char *strerror(int error)
    size_t strlen(const char *text)
    int strcmp(const char *one, const char *other)
    int strncmp(const char *one, const char *other, size_t size)
    char *strchr(const char *text, int character)
    char *strrchr(const char *text, int character)
    char *strstr(const char *text, const char *part)
    void *memset(void *area, int value, size_t size)
    void *memcpy(void *to, const void *source, size_t size)

cdef extern from "<stdlib.h>" nogil:
    void *calloc(size_t count, size_t size)
    void abort()
    uint64_t strtoull(const char *text, char **end, int base)

cdef extern from "<stdio.h>" nogil:
    enum: RENAME_EXCHANGE
    int renameat2(int old_directory, const char *old, int new_directory, const char *new, unsigned int flags)

cdef extern from "<unistd.h>" nogil:
    ctypedef int pid_t
    ctypedef unsigned int uid_t
    ctypedef unsigned int gid_t
    ctypedef long ssize_t
    char **environ
    long syscall(long number, ...)
    ssize_t read(int fd, void *buffer, size_t size)
    ssize_t write(int fd, const void *buffer, size_t size)
    int close(int fd)
    int pipe2(int *ends, int flags)
    int dup2(int fd, int target)
    int chdir(const char *path)
    int chroot(const char *path)
    int fchdir(int fd)
    int syncfs(int fd)
    long lseek(int fd, long offset, int whence)
    enum: SEEK_SET
    int fchown(int fd, uid_t user, gid_t group)
    int mkfifo(const char *path, unsigned int mode)
    int sethostname(const char *name, size_t size)
    int execve(const char *path, char *const *argv, char *const *envp)
    int execvpe(const char *file, char *const *argv, char *const *envp)
    pid_t getpid()
    pid_t getppid()
    pid_t setsid()
    int setgroups(size_t count, const gid_t *groups)
    int setresuid(uid_t real, uid_t effective, uid_t saved)
    int setresgid(gid_t real, gid_t effective, gid_t saved)
    void _exit(int status)

cdef extern from "<grp.h>" nogil:
    pass

cdef extern from "<fcntl.h>" nogil:
    struct flock:
        short l_type
        long l_start
        long l_len
        pid_t l_pid
    int open(const char *path, int flags, ...)
    int openat(int directory, const char *path, int flags, ...)
    int access(const char *path, int mode)
    int fcntl(int fd, int command, ...)
    enum: O_RDONLY, O_WRONLY, O_RDWR, O_CLOEXEC, O_NONBLOCK, O_NOFOLLOW, O_PATH, O_DIRECTORY, O_NOCTTY
    enum: AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW
    enum: F_OK, F_RDLCK, F_WRLCK, F_UNLCK, F_SETLK, F_SETLKW, F_GETLK, F_GETFD, F_SETFD, FD_CLOEXEC, F_DUPFD_CLOEXEC, F_SETFL, F_OFD_SETLK

cdef extern from "<sys/stat.h>" nogil:
    struct stat_t "stat":
        unsigned long st_dev
        unsigned long st_ino
        unsigned int st_mode
        unsigned long st_rdev
        long st_size
    struct statx_t "statx":
        uint64_t stx_attributes
        uint64_t stx_mnt_id
    int statx(int directory, const char *path, int flags, unsigned int mask, statx_t *found)
    enum: STATX_MNT_ID, STATX_ATTR_MOUNT_ROOT
    int fstat(int fd, stat_t *status)
    int S_ISCHR(unsigned int mode)
    int fstatat(int directory, const char *path, stat_t *status, int flags)
    int mkdirat(int directory, const char *path, unsigned int mode)
    int mknodat(int directory, const char *path, unsigned int mode, unsigned long device)
    enum: S_IFREG, S_IFSOCK
    int S_ISFIFO(unsigned int mode)
    unsigned int umask(unsigned int mask)

cdef extern from "<sys/statfs.h>" nogil:
    struct statfs_t "statfs":
        long f_type
        long f_flags
    int statfs(const char *path, statfs_t *found)
    int fstatfs(int fd, statfs_t *found)

cdef extern from "<sys/statvfs.h>" nogil:
    enum: ST_RDONLY

cdef extern from "<linux/magic.h>" nogil:
    enum: CGROUP2_SUPER_MAGIC, SYSFS_MAGIC, TMPFS_MAGIC

cdef extern from "<sys/sysmacros.h>" nogil:
    unsigned int major(unsigned long device)
    unsigned int minor(unsigned long device)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)
    enum: TIOCSCTTY, TIOCGPTPEER, TIOCSPTLCK, SIOCGIFFLAGS, SIOCSIFFLAGS

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, ...)
    enum: PR_SET_NAME, PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP
    enum: PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_GET_PDEATHSIG, PR_GET_SECUREBITS, PR_SET_SECUREBITS

cdef extern from "<linux/securebits.h>" nogil:
    enum: SECBIT_NO_SETUID_FIXUP

cdef extern from "<sys/fsuid.h>" nogil:
    int setfsuid(uid_t user)
    int setfsgid(gid_t group)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t size, int protection, int flags, int fd, long offset)
    int memfd_create(const char *name, unsigned int flags)
    void *MAP_FAILED
    enum: PROT_READ, PROT_WRITE, MAP_PRIVATE, MFD_CLOEXEC

cdef extern from "<linux/capability.h>" nogil:
    struct cap_header "__user_cap_header_struct":
        uint32_t version
    struct cap_data "__user_cap_data_struct":
        uint32_t effective
        uint32_t permitted
        uint32_t inheritable
    enum: _LINUX_CAPABILITY_VERSION_3, CAP_SYS_ADMIN, CAP_MKNOD, CAP_AUDIT_CONTROL, CAP_SYSLOG

cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        pass
    struct sock_fprog:
        unsigned short len
        sock_filter *filter

cdef extern from "<linux/seccomp.h>" nogil:
    enum: SECCOMP_SET_MODE_FILTER

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    enum: POLLIN

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    ctypedef void (*handler_t)(int) noexcept nogil
    handler_t signal(int number, handler_t handler)
    handler_t SIG_DFL, SIG_IGN
    int sigfillset(sigset_t *signals)
    int sigemptyset(sigset_t *signals)
    int sigaddset(sigset_t *signals, int number)
    int sigismember(const sigset_t *signals, int number)
    int sigprocmask(int how, const sigset_t *signals, sigset_t *former)
    int kill(pid_t process, int number)
    int c_raise "raise"(int number)
    enum: SIG_SETMASK, SIG_BLOCK, SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPWR, SIGKILL, SIGUSR1, SIGUSR2, SIGCONT, NSIG, SIGPIPE, SIGXFSZ

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *parts, int count)

cdef extern from "<sys/resource.h>" nogil:
    struct rlimit_t "rlimit":
        uint64_t rlim_cur
        uint64_t rlim_max
    int getrlimit(int resource, rlimit_t *limit)
    int setrlimit(int resource, const rlimit_t *limit)
    int prlimit(pid_t process, int resource, const rlimit_t *limit, rlimit_t *former)
    int setpriority(int which, unsigned int who, int priority)
    enum: RLIMIT_AS, PRIO_PROCESS

cdef extern from "<linux/ioprio.h>" nogil:
    int IOPRIO_PRIO_VALUE(int kind, int data)
    enum: IOPRIO_WHO_PROCESS, IOPRIO_CLASS_NONE

cdef extern from "<sys/personality.h>" nogil:
    int personality(unsigned long persona)
    enum: PER_LINUX

cdef extern from "<sys/signalfd.h>" nogil:
    struct signalfd_siginfo:
        uint32_t ssi_signo
    int signalfd(int fd, const sigset_t *signals, int flags)
    enum: SFD_CLOEXEC, SFD_NONBLOCK

cdef extern from "<sys/wait.h>" nogil:
    pid_t waitpid(pid_t process, int *status, int options)
    pid_t fork()
    int WIFEXITED(int status)
    int WEXITSTATUS(int status)
    int WTERMSIG(int status)
    enum: WNOHANG

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        pass
    int socket(int domain, int kind, int protocol)
    int setsockopt(int fd, int level, int option, const void *value, unsigned int size)
    ssize_t sendto(int fd, const void *text, size_t size, int flags, const sockaddr *to, unsigned int length)
    enum: AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, SOCK_RAW, SOCK_DGRAM, SOCK_CLOEXEC, MSG_NOSIGNAL
    enum: SOL_SOCKET, SO_SNDBUFFORCE

cdef extern from "<net/if.h>" nogil:
    struct ifreq:
        char *ifr_name
        short ifr_flags
    enum: IFNAMSIZ, IFF_UP
    unsigned int if_nametoindex(const char *name)
    char *if_indextoname(unsigned int index, char *name)

cdef extern from "<linux/if_ether.h>" nogil:
    enum: ETH_ALEN

cdef extern from "<linux/rtnetlink.h>" nogil:
    struct nlmsghdr:
        uint32_t nlmsg_len
        unsigned short nlmsg_type
        unsigned short nlmsg_flags
    struct nlmsgerr:
        int error
    struct rtgenmsg:
        unsigned char rtgen_family
    struct ifinfomsg:
        int ifi_index
        unsigned int ifi_flags
        unsigned int ifi_change
    struct ifaddrmsg:
        unsigned char ifa_family
        unsigned char ifa_prefixlen
        unsigned char ifa_flags
        unsigned int ifa_index
    struct rtmsg:
        unsigned char rtm_family
        unsigned char rtm_dst_len
        unsigned char rtm_table
        unsigned char rtm_protocol
        unsigned char rtm_scope
        unsigned char rtm_type
        unsigned int rtm_flags
    struct rtattr:
        unsigned short rta_len
        unsigned short rta_type
    unsigned int NLMSG_LENGTH(unsigned int size)
    unsigned int NLMSG_ALIGN(unsigned int size)
    bint NLMSG_OK(nlmsghdr *message, int size)
    void *NLMSG_DATA(nlmsghdr *message)
    unsigned int RTA_LENGTH(unsigned int size)
    unsigned int RTA_ALIGN(unsigned int size)
    void *RTA_DATA(rtattr *attribute)
    enum: NETLINK_ROUTE, RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE
    enum: RTM_GETNSID
    enum: NLMSG_ERROR, NLMSG_DONE, NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_DUMP, NLM_F_DUMP_INTR
    enum: NLM_F_APPEND, NLM_F_MULTI
    enum: IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD
    enum: RTA_DST, RTA_GATEWAY, RTA_OIF, RTNH_F_ONLINK
    enum: RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST, RTN_LOCAL
    enum: IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD
    enum: IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_VLAN_ID, IFLA_GROUP, IFLA_LINK_NETNSID

cdef extern from "<linux/net_namespace.h>" nogil:
    enum: NETNSA_FD, NETNSA_NSID, NETNSA_NSID_NOT_ASSIGNED

cdef extern from "<linux/veth.h>" nogil:
    enum: VETH_INFO_PEER

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "<sched.h>" nogil:
    int c_unshare "unshare"(int flags)
    int c_setns "setns"(int fd, int kind)
    enum: SCHED_OTHER
    int clone(int (*function)(void *) noexcept nogil, void *stack, int flags, void *argument)

cdef extern from "<linux/sched.h>" nogil:
    struct clone_args:
        uint64_t flags
        uint64_t pidfd
        uint64_t exit_signal
        uint64_t cgroup
    enum: CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWCGROUP, CLONE_NEWTIME
    enum: CLONE_FILES, CLONE_NEWUSER, CLONE_PARENT, CLONE_PIDFD, CLONE_VFORK, CLONE_VM
    uint64_t CLONE_INTO_CGROUP

cdef extern from "<sys/mount.h>" nogil:
    int c_mount "mount"(const char *source, const char *target, const char *kind, unsigned long flags, const void *data)
    int c_umount2 "umount2"(const char *target, int flags)
    enum: MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED, MNT_DETACH, UMOUNT_NOFOLLOW

cdef extern from "<linux/mount.h>" nogil:
    struct mount_attr:
        uint64_t attr_set
        uint64_t propagation
        uint64_t userns_fd
    enum: FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC, FSCONFIG_SET_STRING, FSCONFIG_SET_FLAG, FSCONFIG_CMD_CREATE
    enum: FSPICK_CLOEXEC, FSPICK_EMPTY_PATH, FSCONFIG_CMD_RECONFIGURE
    enum: MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, MOVE_MOUNT_T_SYMLINKS
    enum: OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC
    enum: MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_RDONLY, MOUNT_ATTR_IDMAP

cdef extern from "<linux/loop.h>" nogil:
    struct loop_info64:
        uint64_t lo_device
        uint64_t lo_inode
        uint64_t lo_offset
        uint64_t lo_sizelimit
        uint32_t lo_flags
    struct loop_config:
        uint32_t fd
        loop_info64 info
    enum: LOOP_CTL_GET_FREE, LOOP_CONFIGURE, LOOP_GET_STATUS64, LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY

cdef extern from "<linux/openat2.h>" nogil:
    struct open_how:
        uint64_t flags
        uint64_t mode
        uint64_t resolve
    enum: RESOLVE_IN_ROOT, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV

cdef extern from "<linux/close_range.h>" nogil:
    enum: CLOSE_RANGE_CLOEXEC

cdef extern from "<linux/futex.h>" nogil:
    enum: FUTEX_WAIT, FUTEX_WAKE

cdef extern from "<linux/keyctl.h>" nogil:
    enum: KEYCTL_JOIN_SESSION_KEYRING

cdef extern from "<sys/syscall.h>" nogil:
    enum: SYS_capget, SYS_capset, SYS_seccomp, SYS_keyctl, SYS_clone3, SYS_openat2, SYS_close_range, SYS_pivot_root
    enum: SYS_sched_setscheduler, SYS_sched_setaffinity, SYS_ioprio_set
    enum: SYS_futex, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_move_mount, SYS_open_tree, SYS_mount_setattr
