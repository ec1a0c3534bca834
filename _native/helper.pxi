# For the extensions: a child process in our memory and with our descriptors.

cdef enum:
    STACK = 1 << 14


cdef pid_t clone_helper(int (*function)(void *) noexcept nogil, void *argument, char *stack, int more) noexcept nogil:
    """clone(2): have a child run it, which is to be waited for by wait_for(); -1 with errno set.  stack is of size STACK."""
    cdef sigset_t every, before
    cdef pid_t process
    cdef int number
    sigfillset(&every)
    sigprocmask(SIG_BLOCK, &every, &before)     # the interpreter's handlers are not for the child
    process = clone(function, stack + STACK, CLONE_VM | CLONE_FILES | more | SIGCHLD, argument)
    number = errno
    sigprocmask(SIG_SETMASK, &before, NULL)
    set_errno(number)
    return process


cdef object told_by_helper(error):
    """What it has failed with: ESRCH where it was killed before it could tell."""
    if error.errno == ESRCH:
        error.strerror = "the process that does it was killed"
    return error


cdef void wait_for(pid_t process) noexcept nogil:
    while waitpid(process, NULL, 0) < 0 and errno == EINTR:
        pass
