# cython: language_level=3, binding=False, auto_pickle=False
"""PID 1 of a subhost: /.reaper NAME [main] [FIFO].

Reaps every child, of its own and adopted, and exits when none is left.  With
FIFO it also stays, with no child, until something is written to that (if it
can be made: /run may be full, or read-only), or until it is asked to end.
SIGTERM, SIGINT, SIGPWR and SIGRTMIN+3 are requests for an orderly end: all
processes get SIGTERM.  Those that overlay-go let in are no children, but they
too are given time to end: overlay-go sends SIGCHLD when one has.  SIGUSR1 tells
it to stay, even without a child, until it is asked to end: what stops the
services shall not be killed with the last of them.  SIGUSR2 takes that back:
they were started again.  No other signal does anything.

With main, it first starts the process that it is told of by MAIN, as protocol.pxd has it.  What asks for an orderly end
asks that process alone then, by its own signal; the others get SIGTERM when it has ended.  Without FIFO its end is that
of all, and the exit status is the one of that process.

overlay-boot knows its own reaper by the words "overlay-boot reaper" in the file.
"""
from linux cimport *
from protocol cimport LONGEST_MAIN, MAIN, MOST_OF_MAIN, REAPER_MARK, REBOOT_STATUS, SERVICES, WITH_MAIN

include "line.pxi"
include "main_process.pxi"

# As glibc, systemd and everybody counts; musl keeps one more for itself.
cdef enum: SIGRTMIN_3 = 34 + 3


cdef void block_signals() noexcept nogil:
    cdef sigset_t everything
    sigfillset(&everything)
    sigprocmask(SIG_SETMASK, &everything, NULL)


cdef int watch_signals() noexcept nogil:
    cdef sigset_t everything
    block_signals()
    sigfillset(&everything)
    return signalfd(-1, &everything, SFD_CLOEXEC | SFD_NONBLOCK)


cdef int open_fifo(const char *path) noexcept nogil:
    """The FIFO, for reading and writing: it then never reads as ended."""
    cdef stat_t status
    mkfifo(path, 0o600)
    cdef int fd = open(path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)
    if fd >= 0 and (fstat(fd, &status) < 0 or not S_ISFIFO(status.st_mode)):
        close(fd)
        return -1
    return fd


cdef void ask_all() noexcept nogil:
    kill(-1, SIGTERM)
    kill(-1, SIGCONT)                   # a stopped process, too, shall see it


cdef bint ends(uint32_t number) noexcept nogil:
    return number == SIGTERM or number == SIGINT or number == SIGPWR or number == SIGRTMIN_3


cdef int start_told(Described *told, pid_t *process) noexcept nogil:
    """Start the main process, and tell by SERVICES whether it was executed; 0, or the exit status if it was not."""
    cdef Obstacle obstacle
    cdef bint reports = fcntl(SERVICES, F_GETFD) >= 0
    if reports:
        fcntl(SERVICES, F_SETFD, FD_CLOEXEC)
    if not read_description(told):
        write(2, b"overlay-boot: the main process is not told of\n", 46)
        return NOT_EXECUTABLE
    process[0] = start_main(told, &obstacle)
    if process[0] < 0:
        tell_obstacle(&obstacle, 2)
        if reports:
            tell_obstacle(&obstacle, SERVICES)
        return NOT_FOUND if obstacle.error == ENOENT else NOT_EXECUTABLE
    if reports:
        write(SERVICES, b"\n", 1)
        close(SERVICES)
    return 0


cdef Described described


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef signalfd_siginfo caught
    cdef pollfd awaited[2]
    cdef pid_t child
    cdef pid_t process = 0              # the main one
    cdef int ended, wrong
    cdef int status = 0
    cdef bint has_main = argc > 2 and strcmp(argv[2], WITH_MAIN) == 0
    cdef char *fifo = argv[2 + has_main] if argc > 2 + has_main else NULL
    cdef bint waits = fifo != NULL
    cdef bint stays = waits
    cdef bint ending = False
    prctl(PR_SET_NAME, b".reaper")
    awaited[0].fd = awaited[1].fd = -1
    if argc > 1 and has_main:           # before another descriptor takes the numbers of its own
        block_signals()
        wrong = start_told(&described, &process)
        if wrong:
            return wrong
    awaited[0].fd = watch_signals()
    if waits:
        awaited[1].fd = open_fifo(fifo)
    awaited[0].events = awaited[1].events = POLLIN
    if argc < 2 or awaited[0].fd < 0:
        write(2, REAPER_MARK, strlen(REAPER_MARK))
        write(2, b": cannot start\n", 15)
        return 1
    while True:
        while read(awaited[0].fd, &caught, sizeof(caught)) > 0:
            if caught.ssi_signo == SIGUSR1:
                stays = True
            elif caught.ssi_signo == SIGUSR2:
                stays = waits
            elif ends(caught.ssi_signo):
                stays = waits = False
                ending = True
                if process > 0:
                    kill(process, described.signal)
                    kill(process, SIGCONT)
                else:
                    ask_all()
        child = waitpid(-1, &ended, WNOHANG)
        while child > 0:
            if child == process:
                process = 0
                tell_end(&described, ended)
                if not ending:
                    status = status_of_main(ended)
                if ending or not stays:
                    ending = True
                    ask_all()
            child = waitpid(-1, &ended, WNOHANG)
        if child < 0 and not stays and not (ending and kill(-1, 0) == 0):
            return status
        awaited[1].revents = 0
        poll(awaited, 2, -1)
        if awaited[1].revents:
            stays = waits = False
            awaited[1].fd = -1
