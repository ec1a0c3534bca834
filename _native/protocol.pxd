# What overlay-boot, its keeper and its reaper agree on, defined once: namespaces.pyx tells the Python side.

cdef extern from *:
    """
    #include <signal.h>
    #include <stdint.h>
    #include <sys/types.h>

    /* The bytes of a state file that are locked, fcntl(2): overlay-boot(7), RUNNING SUBHOSTS. */
    enum { COMMAND_BYTE, KEEPER_BYTE, STOP_BYTE };

    /* The key of a state file that the keeper writes: the process id of PID 1. */
    #define INIT_KEY "init"

    /* Where PID 1 finds the reaper, and the words by which a file is known for one of ours, of whatever version. */
    #define REAPER "/.reaper"
    #define REAPER_MARK "overlay-boot reaper"

    /* What the keeper reports once PID 1 has been executed; else the reason why not. */
    #define DONE "+"

    /* The descriptor of a PID 1 that starts services.  It writes a line there for each that fails, and an empty one in
       the end.  The keeper goes on to report them: so much of it, and no more. */
    enum { SERVICES = 3, LONGEST_VERDICT = 1 << 12 };

    /* What the reaper is told by, as its second argument, that it has a main process; and the descriptor by which it is
       told of that, in lines: a keyword, a blank, and a value, in which a backslash is \\\\ and a line feed \\n.

           user UID GID [GROUP...]      signal NUMBER, which asks it to end
           directory PATH               variable NAME=VALUE, of its environment
           word TEXT, of its command    end

       The reaper tells by SERVICES whether it could be executed. */
    #define WITH_MAIN "main"
    enum { MAIN = 4, LONGEST_MAIN = 1 << 18, MOST_OF_MAIN = 1 << 12 };

    /* With this status PID 1 asks to be booted again.  So the kernel ends it on reboot(2), and by SIGINT on a halt. */
    enum { REBOOT_STATUS = 128 + SIGHUP };

    /* What is written to the FIFO of sysvinit's init(8), its initreq.h: reboot(8) and others do, systemd's too. */
    #define REQUESTS "/run/initctl"
    enum { REQUEST_MAGIC = 0x03091969, RUN_LEVEL = 1, TO_HALT = '0', TO_REBOOT = '6' };
    typedef struct {
        int32_t magic, command, run_level, seconds;
        char data[368];
    } request_t;

    /* What clone(2) and unshare(2) mean by EAGAIN and ENOSPC. */
    #define NO_MORE_PROCESSES "the limit of processes is reached"
    #define NO_MORE_NAMESPACES "the limit of namespaces is reached"

    /* What a boot hands over to the keeper, as the keeper's standard input.  Descriptors stay open under their numbers.
       Behind it stand texts, a NUL after each: NOTIFY, CLEAR, HOSTNAME, and the words of the command of PID 1; and the
       filter of system calls. */
    typedef struct {
        pid_t boot;         /* the boot that waits for REPORT; 0 if the keeper is that process itself (--foreground) */
        int starts;         /* whether PID 1 starts services, and tells of them by SERVICES */
        int bound;          /* whether the keeper lives and dies with the boot, and not only until PID 1 was executed */
        int words;          /* of the command of PID 1 */
        int state;          /* the state file */
        int mounts;         /* the mount namespace of the subhost */
        int network;        /* its network namespace */
        int users;          /* its user namespace; -1 if it has that of the host.  With owner 0, it has the host's ids */
        int group;          /* its control group */
        int root;           /* its root directory; -1 if the mount namespace has it as its root already */
        int log;            /* what the subhost prints goes there */
        int main;           /* what PID 1 has as MAIN; -1 if nothing */
        int requests;       /* its FIFO REQUESTS; -1 if PID 1 reads that itself, or nobody does */
        int programs;       /* by which the keeper was executed: it closes that */
        int report;         /* the keeper writes DONE, or a reason, there; then what SERVICES says */
        int filter;         /* the size of the filter of system calls, in bytes; 0 if there is none */
        unsigned long long capabilities;        /* those of the bounding set, capabilities(7) */
        uid_t owner;        /* root of the user namespace, as the host has it */
    } handover_t;
    enum { HANDOVER_TEXTS = 3, MOST_WORDS = 8, LONGEST_HANDOVER = 1 << 18 };

    /* What the program execute is handed over, in a file with the descriptor that its argument names.  Descriptors stay
       open under their numbers.  Behind it stand GROUPS of the user; texts, a NUL after each: the working directory or
       "", PATHS of which the first that there is is executed, its WORDS, and the VARIABLES of its environment; and the
       filter of system calls. */
    typedef struct {
        pid_t parent;
        int status;         /* errno is written there */
        int bound;          /* whether it is killed when its parent ends */
        int terminal;       /* whether standard input becomes its controlling terminal */
        int inside;         /* a pidfd of the process whose namespaces it enters, but the PID namespace; or -1 */
        int users;          /* whether the user namespace of that is another one, too */
        int prioritized;    /* whether it keeps the priority of the caller there */
        int as_user;
        uid_t uid;
        gid_t gid;
        int groups;
        int paths;
        int words;
        int variables;
        int filter;         /* the size of the filter in bytes, 0 if there is none */
        unsigned long long capabilities;        /* those of the bounding set, if it enters */
    } child_t;
    """
    enum: COMMAND_BYTE, KEEPER_BYTE, STOP_BYTE, HANDOVER_TEXTS, MOST_WORDS, LONGEST_HANDOVER, SERVICES, LONGEST_VERDICT, REBOOT_STATUS
    enum: REQUEST_MAGIC, RUN_LEVEL, TO_HALT, TO_REBOOT
    enum: MAIN, LONGEST_MAIN, MOST_OF_MAIN
    const char *WITH_MAIN
    const char *REQUESTS
    const char *NO_MORE_PROCESSES
    const char *NO_MORE_NAMESPACES
    const char *INIT_KEY
    const char *DONE
    const char *REAPER
    const char *REAPER_MARK
    ctypedef struct request_t:
        int magic
        int command
        int run_level
    ctypedef struct handover_t:
        int boot
        int starts
        int bound
        int words
        int state
        int mounts
        int network
        int users
        int group
        int root
        int log
        int main
        int requests
        int programs
        int report
        unsigned int owner
        int filter
        unsigned long long capabilities
    ctypedef struct child_t:
        int parent
        int status
        int bound
        int terminal
        int inside
        int users
        int prioritized
        int as_user
        unsigned int uid
        unsigned int gid
        int groups
        int paths
        int words
        int variables
        int filter
        unsigned long long capabilities
