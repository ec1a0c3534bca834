# cython: language_level=3, binding=False, auto_pickle=False
"""What executes the commands, as the first line of each says.

    launch COMMAND [ARGUMENT...]

COMMAND is executed by Python, with SIGINT blocked: Python answers that with a traceback, until COMMAND tells it what to
do.  Where Python or the loader would die or say much, for want of memory or descriptors, a line says why.
"""
from linux cimport *

cdef extern from *:
    """
    static char PYTHON[] = "/usr/bin/python3";
    static char ISOLATED[] = "-IS";
    """
    char *PYTHON
    char *ISOLATED

cdef enum:
    # Python 3.11 comes to a command's first line with 13 MiB of address space, and to its last one with 16.
    LEAST = 24 << 20


cdef void say(const char *text) noexcept nogil:
    write(2, text, strlen(text))


cdef int fail(const char *command, const char *what, const char *why) noexcept nogil:
    cdef const char *name = strrchr(command, c'/')
    say(name + 1 if name else command)
    say(b": cannot ")
    say(what)
    say(b": ")
    say(why)
    say(b"\n")
    return 1


cdef bint lacks_memory() noexcept nogil:
    cdef rlimit_t limit
    return getrlimit(RLIMIT_AS, &limit) == 0 and limit.rlim_cur < LEAST


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef sigset_t interrupt
    sigemptyset(&interrupt)
    sigaddset(&interrupt, SIGINT)
    sigprocmask(SIG_BLOCK, &interrupt, NULL)
    if argc < 2:
        return fail(b"launch", b"be executed", b"it is for the first line of a command")
    cdef char **words = <char **>calloc(argc + 2, sizeof(char *))
    if not words or lacks_memory():
        return fail(argv[1], b"start", b"RLIMIT_AS is less than 24 MiB")
    cdef int descriptor = open(PYTHON, O_RDONLY | O_CLOEXEC)        # as the loader opens libraries
    if descriptor < 0:
        return fail(argv[1], b"open /usr/bin/python3", strerror(errno))
    close(descriptor)
    words[0] = PYTHON
    words[1] = ISOLATED
    memcpy(words + 2, argv + 1, (argc - 1) * sizeof(char *))
    execve(PYTHON, words, environ)
    return fail(argv[1], b"execute /usr/bin/python3", strerror(errno))
