# cython: language_level=3, binding=False, auto_pickle=False
"""What executes the commands, as the first line of each says.

    begin COMMAND [ARGUMENT...]

COMMAND is executed by Python, with SIGINT blocked: Python answers an interrupt with a traceback until COMMAND has told
it otherwise.  Unless the caller has blocked it already, COMMAND is told so by -X blocked.  Where address space or
descriptors do not even suffice for Python to begin, a line says why.
"""
from linux cimport *

cdef extern from *:
    """
    static char PYTHON[] = "/usr/bin/python3";
    static char ISOLATED[] = "-IS";
    static char BLOCKED[] = "-Xblocked";
    static const char NAMED[] = ": cannot ";
    static const char BECAUSE[] = ": ";
    static const char END[] = "\\n";
    """
    char *PYTHON
    char *ISOLATED
    char *BLOCKED
    char *NAMED
    char *BECAUSE
    char *END

cdef enum:
    # On amd64, Python 3.11 comes to a command's first line with 13 MiB of address space, and to its last one with 16.
    LEAST = 24 << 20


cdef int fail(char *command, char *what, char *why) noexcept nogil:
    cdef char *name = strrchr(command, c'/')
    cdef char *parts[6]
    cdef iovec line[6]
    parts[0] = name + 1 if name else command
    parts[1] = NAMED
    parts[2] = what
    parts[3] = BECAUSE
    parts[4] = why
    parts[5] = END
    cdef int number
    for number in range(6):
        line[number].iov_base = parts[number]
        line[number].iov_len = strlen(parts[number])
    writev(2, line, 6)
    return 1


cdef bint lacks_memory() noexcept nogil:
    cdef rlimit_t limit
    return getrlimit(RLIMIT_AS, &limit) == 0 and limit.rlim_cur < LEAST


cdef public int main(int argc, char **argv) noexcept nogil:
    cdef sigset_t interrupt, former
    sigemptyset(&interrupt)
    sigaddset(&interrupt, SIGINT)
    sigprocmask(SIG_BLOCK, &interrupt, &former)
    if argc < 2:
        return fail(b"begin", b"be executed", b"it is for the first line of a command")
    if lacks_memory():
        return fail(argv[1], b"start", b"RLIMIT_AS is less than 24 MiB")
    cdef char **words = <char **>calloc(argc + 3, sizeof(char *))
    if not words:
        return fail(argv[1], b"start", strerror(errno))
    cdef int descriptor = open(PYTHON, O_RDONLY | O_CLOEXEC)        # as the loader opens libraries
    if descriptor < 0:
        return fail(argv[1], b"open /usr/bin/python3", strerror(errno))
    close(descriptor)
    words[0] = PYTHON
    words[1] = ISOLATED
    cdef int options = 2
    if not sigismember(&former, SIGINT):
        words[options] = BLOCKED
        options += 1
    memcpy(words + options, argv + 1, (argc - 1) * sizeof(char *))
    execve(PYTHON, words, environ)
    return fail(argv[1], b"execute /usr/bin/python3", strerror(errno))
