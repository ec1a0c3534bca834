"""Child processes: what the configuration names is run here, without a shell."""
import posix
import select
import time

from . import PATH, environment, files, interruption, namespaces, paths
from .errors import Failure, doing

LIMIT = 1 << 20     # bytes of a command's output


class Unsuccessful(Failure):
    """A command was executed, and has ended with another exit status than 0."""


def candidates(word, path=PATH):
    """The paths that a command's first word may stand for, in their order."""
    if "/" in word:
        return [word]
    return [f"{directory}/{word}" for directory in path.split(":") if directory]


def run(words, values, directory, *, cgroup=-1, log=2, output=False):
    """Run a command line to its end; what it printed, where output is asked for.

    What it prints otherwise goes to the descriptor log.  values are added to its
    environment; it is killed when this process ends.  Raises Failure if it cannot
    be executed, fails, is killed, or says more than LIMIT bytes.
    """
    env = environment.for_commands(values)
    places = [paths.join(directory, path) for path in candidates(words[0], env["PATH"])]
    null = posix.open("/dev/null", posix.O_RDONLY)
    source, sink = make_pipe() if output else (-1, log)
    try:
        try:
            process, pidfd = namespaces.spawn(
                places, words, env, standard=(null, sink, log), directory=directory, cgroup=cgroup, bound=True)
        except OSError as error:
            raise Failure(f"cannot execute {words[0]}: {error.strerror}") from None
        try:
            if output:
                posix.close(sink)
                sink = log
            said = gather(source, pidfd)
            ended = posix.waitstatus_to_exitcode(posix.waitpid(process, 0)[1])
        except BaseException:
            posix.kill(process, 9)         # ours, and not yet waited for
            posix.waitpid(process, 0)
            raise
        finally:
            posix.close(pidfd)
    finally:
        for fd in (null, source, sink):
            if fd not in (-1, log):
                posix.close(fd)
    if ended:
        how = f"was killed by signal {-ended}" if ended < 0 else f"failed with exit status {ended}"
        raise Unsuccessful(f"{words[0]} {how}")
    return said


def run_telling(words, values, directory, **how):
    """run(); of a command without success, the last line that it has said on standard error is part of the Failure."""
    said = posix.memfd_create("said")
    lines = []
    try:
        try:
            return run(words, values, directory, log=said, **how)
        finally:
            lines = lines_of(said)
    except Unsuccessful as failure:
        reason = f"{failure}: {lines.pop()}" if lines else str(failure)
        raise Unsuccessful(reason) from None
    finally:
        files.write_all(2, "".join(line + "\n" for line in lines))
        posix.close(said)


def lines_of(fd):
    """The lines in a file that are not blank."""
    return [line for line in paths.decode(posix.pread(fd, LIMIT, 0)).split("\n") if line.strip()]


def run_inside(inside, words, env, cgroup, seconds):
    """Run a command in the namespaces of the process of the pidfd inside; what it printed.

    Its standard output and error are a pipe: no file of the host's is within
    reach of the subhost.  The caller has called setns(inside, NEWPID).  Raises
    Failure if it cannot be executed, or has not ended after so many seconds.
    """
    null = posix.open("/dev/null", posix.O_RDONLY)
    source, sink = make_pipe()
    try:
        process, pidfd = namespaces.spawn(candidates(words[0]), words, env, standard=(null, sink, sink),
                                          directory="/", cgroup=cgroup, inside=inside, bound=True)
    except OSError as error:
        posix.close(source)
        raise Failure(f"cannot execute {words[0]}: {error.strerror}") from None
    finally:
        posix.close(null)
        posix.close(sink)
    try:
        said = gather(source, pidfd, seconds)
        if said is None:
            posix.kill(process, 9)
    finally:
        posix.close(source)
        posix.close(pidfd)
        posix.waitpid(process, 0)
    if said is None:
        raise Failure(f"{words[0]} has not ended after {seconds:g} s")
    return said


@doing("make a pipe")
def make_pipe():
    return posix.pipe()


def gather(source, pidfd, seconds=None):
    """What comes from source (-1: nothing) until the process has ended; None if time runs out before.

    A daemon that the process leaves behind may hold the other end open.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if source >= 0:
        posix.set_blocking(source, False)
        poll.register(source, select.POLLIN)
    end = None if seconds is None else time.monotonic() + seconds
    said = b""
    while True:
        with interruption.Wait():
            ready = dict(poll.poll(None if end is None else max(0, end - time.monotonic()) * 1000))
        if not ready:
            return None
        if source >= 0:
            said += available(source)
        if len(said) > LIMIT:
            raise Failure(f"more than {LIMIT} bytes of output")
        if pidfd in ready:
            return said
        if not ready[source] & select.POLLIN:       # hung up
            poll.unregister(source)


def available(source):
    """What there is to be read now, or more than LIMIT bytes of it."""
    said = b""
    while len(said) <= LIMIT:
        try:
            chunk = posix.read(source, 1 << 16)
        except BlockingIOError:
            break
        if not chunk:
            break
        said += chunk
    return said
