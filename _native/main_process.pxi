# The main process of a subhost: what the reaper is told of it by MAIN, and its start.

cdef extern from *:
    """
    enum { NOT_EXECUTABLE = 126, NOT_FOUND = 127 };     /* as a shell says it */
    """
    enum: NOT_EXECUTABLE, NOT_FOUND


cdef struct Described:
    uid_t uid
    gid_t gid
    gid_t groups[MOST_OF_MAIN]
    int number_of_groups
    int signal
    char *directory
    char *variables[MOST_OF_MAIN + 1]
    int number_of_variables
    char *words[MOST_OF_MAIN + 1]
    int number_of_words
    bint whole


cdef struct Obstacle:
    # Pointers into the memory that both ends of the pipe have.
    const char *what
    const char *which
    int error


cdef char description[LONGEST_MAIN + 1]


cdef void unescape(char *text) noexcept nogil:
    cdef char *to = text
    while text[0]:
        if text[0] == 92 and text[1]:               # a backslash
            text += 1
            if text[0] == 110:                      # "n"
                text[0] = 10
        to[0] = text[0]
        to += 1
        text += 1
    to[0] = 0


cdef void take_ids(Described *told, char *text) noexcept nogil:
    told.uid = <uid_t>strtoull(text, &text, 10)
    told.gid = <gid_t>strtoull(text, &text, 10)
    while text[0] == 32 and told.number_of_groups < MOST_OF_MAIN:
        told.groups[told.number_of_groups] = <gid_t>strtoull(text, &text, 10)
        told.number_of_groups += 1


cdef void take_line(Described *told, char *line) noexcept nogil:
    cdef char *value = strchr(line, 32)
    if value == NULL:
        told.whole = strcmp(line, b"end") == 0
        return
    value[0] = 0
    value += 1
    unescape(value)
    if strcmp(line, b"user") == 0:
        take_ids(told, value)
    elif strcmp(line, b"signal") == 0:
        told.signal = <int>strtoull(value, NULL, 10)
    elif strcmp(line, b"directory") == 0:
        told.directory = value
    elif strcmp(line, b"variable") == 0 and told.number_of_variables < MOST_OF_MAIN:
        told.variables[told.number_of_variables] = value
        told.number_of_variables += 1
    elif strcmp(line, b"word") == 0 and told.number_of_words < MOST_OF_MAIN:
        told.words[told.number_of_words] = value
        told.number_of_words += 1


cdef bint read_description(Described *told) noexcept nogil:
    """Read what there is of MAIN; whether it was whole, and something is to be executed."""
    cdef size_t size = 0
    cdef ssize_t more = 1
    cdef char *line = description
    cdef char *end
    while more > 0 and size < LONGEST_MAIN:
        more = read(MAIN, description + size, LONGEST_MAIN - size)
        if more > 0:
            size += more
    close(MAIN)
    description[size] = 0
    memset(told, 0, sizeof(told[0]))
    told.signal = SIGTERM
    told.directory = b"/"
    end = strchr(line, 10)
    while end != NULL:
        end[0] = 0
        take_line(told, line)
        line = end + 1
        end = strchr(line, 10)
    return told.whole and told.number_of_words > 0


cdef int make_directory(char *path) noexcept nogil:
    """Make what is missing of the working directory, and enter it."""
    cdef char *at = path
    while at[0]:
        at = strchr(at + 1, 47)                     # "/"
        if at == NULL:
            break
        at[0] = 0
        mkdirat(AT_FDCWD, path, 0o755)
        at[0] = 47
    mkdirat(AT_FDCWD, path, 0o755)
    return chdir(path)


cdef Obstacle become_main(Described *told) noexcept nogil:
    """Everything between fork and execve; returns only what was in the way."""
    global environ
    cdef Obstacle obstacle
    cdef sigset_t none
    memset(&obstacle, 0, sizeof(obstacle))
    setsid()
    if make_directory(told.directory) < 0:
        obstacle.what, obstacle.which, obstacle.error = b"cannot enter the directory ", told.directory, errno
        return obstacle
    if told.uid:
        fchown(1, told.uid, told.gid)               # for /dev/stdout, which is opened anew, to be theirs
    if (setgroups(told.number_of_groups, told.groups) < 0 or setresgid(told.gid, told.gid, told.gid) < 0
            or setresuid(told.uid, told.uid, told.uid) < 0):
        obstacle.what, obstacle.which, obstacle.error = b"cannot become the user of ", told.words[0], errno
        return obstacle
    sigemptyset(&none)
    sigprocmask(SIG_SETMASK, &none, NULL)
    environ = told.variables                        # PATH is looked up there
    execvpe(told.words[0], told.words, told.variables)
    obstacle.what, obstacle.which, obstacle.error = b"cannot start ", told.words[0], errno
    return obstacle


cdef pid_t start_main(Described *told, Obstacle *obstacle) noexcept nogil:
    """Start it; its process id, or -1 with what was in the way."""
    cdef int failed[2]
    cdef pid_t child
    memset(obstacle, 0, sizeof(obstacle[0]))
    if pipe2(failed, O_CLOEXEC) < 0:
        obstacle.what, obstacle.which, obstacle.error = b"cannot start ", told.words[0], errno
        return -1
    child = fork()
    if child == 0:
        obstacle[0] = become_main(told)
        write(failed[1], obstacle, sizeof(obstacle[0]))
        _exit(1)
    if child < 0:
        obstacle.what, obstacle.which, obstacle.error = b"cannot start ", told.words[0], errno
    close(failed[1])
    if child > 0 and read(failed[0], obstacle, sizeof(obstacle[0])) > 0:
        waitpid(child, NULL, 0)
        child = -1
    close(failed[0])
    return child


cdef void tell_obstacle(const Obstacle *obstacle, int fd) noexcept nogil:
    cdef char line[LINE]
    line[0] = 0
    if fd == 2:
        put(line, b"overlay-boot: ")
    put(line, obstacle.what)
    put(line, obstacle.which)
    put(line, b": ")
    put(line, strerror(obstacle.error))
    put(line, b"\n")
    write(fd, line, strlen(line))


cdef void tell_end(const Described *told, int status) noexcept nogil:
    """Have a line in LOG on the end of it."""
    cdef char line[LINE]
    line[0] = 0
    put(line, b"overlay-boot: ")
    put(line, told.words[0])
    if WIFEXITED(status):
        put(line, b" has ended with exit status ")
        put_number(line, WEXITSTATUS(status))
    else:
        put(line, b" was killed by signal ")
        put_number(line, WTERMSIG(status))
    put(line, b"\n")
    write(2, line, strlen(line))


cdef int status_of_main(int status) noexcept nogil:
    """The exit status of PID 1 for it.  The one that would ask for a boot is not meant so."""
    cdef int found = WEXITSTATUS(status) if WIFEXITED(status) else 128 + WTERMSIG(status)
    return 1 if found == REBOOT_STATUS else found
