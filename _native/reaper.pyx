# cython: language_level=3, binding=False, auto_pickle=False
"""PID 1 of a subhost: /.reaper NAME [FIFO].

Reaps every child, of its own and adopted, and exits when none is left.  With
FIFO it also stays, with no child, until something is written to that (if it
can be made: /run may be full, or read-only), or until it is asked to end.
SIGTERM, SIGINT, SIGPWR and SIGRTMIN+3 are requests for an orderly end: all
processes get SIGTERM.  Those that overlay-go let in are no children, but they
too are given time to end: overlay-go sends SIGCHLD when one has.  SIGUSR1 tells
it to stay, even without a child, until it is asked to end: what stops the
services shall not be killed with the last of them.  SIGUSR2 takes that back:
they were started again.  No other signal does anything.

overlay-boot knows its own reaper by the words "overlay-boot reaper" in the file.
"""
from linux cimport *
from protocol cimport REAPER_MARK

# As glibc, systemd and everybody counts; musl keeps one more for itself.
cdef enum: SIGRTMIN_3 = 34 + 3


cdef int watch_signals() noexcept nogil:
    cdef sigset_t everything
    sigfillset(&everything)
    sigprocmask(SIG_SETMASK, &everything, NULL)
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


cdef bint ends(uint32_t number) noexcept nogil:
    return number == SIGTERM or number == SIGINT or number == SIGPWR or number == SIGRTMIN_3


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef signalfd_siginfo caught
    cdef pollfd awaited[2]
    cdef pid_t child
    cdef bint waits = argc > 2
    cdef bint stays = waits
    cdef bint ending = False
    awaited[0].fd = watch_signals()
    awaited[1].fd = open_fifo(argv[2]) if waits else -1
    awaited[0].events = awaited[1].events = POLLIN
    prctl(PR_SET_NAME, b".reaper")
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
                kill(-1, SIGTERM)
                kill(-1, SIGCONT)       # a stopped process, too, shall see it
        child = waitpid(-1, NULL, WNOHANG)
        while child > 0:
            child = waitpid(-1, NULL, WNOHANG)
        if child < 0 and not stays and not (ending and kill(-1, 0) == 0):
            return 0
        awaited[1].revents = 0
        poll(awaited, 2, -1)
        if awaited[1].revents:
            stays = waits = False
            awaited[1].fd = -1
