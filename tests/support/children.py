"""A program that runs a command, and sends a signal when its n-th child process comes to its m-th system call.

strace(1) injects wherever a process comes to the count: a child that does little is never the first one to come there.

    children.py LOG CHILD CALL SIGNAL WHOM COMMAND [ARGUMENT...]

CHILD and CALL count from 1, and SIGNAL is a number.  WHOM is child, or group: the command's process group, which all that
it has begun is in.  LOG gets a line for each child, with the number of system calls that it has come to until it has
executed a program or ended; whether it has executed one; and whether the signal was sent.
"""
import ctypes
import os
import signal
import sys
import time

# ptrace(2), from <linux/ptrace.h> and <sys/wait.h>
TRACEME, CONT, DETACH, SYSCALL, SETOPTIONS = 0, 7, 17, 24, 0x4200
TRACE_SYSTEM_GOOD, TRACE_FORK, TRACE_VFORK, TRACE_CLONE, TRACE_EXEC, EXIT_KILL = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 20
OPTIONS = TRACE_SYSTEM_GOOD | TRACE_FORK | TRACE_VFORK | TRACE_CLONE | TRACE_EXEC | EXIT_KILL
EVENT_EXEC, AT_SYSTEM_CALL, ALL = 4, signal.SIGTRAP | 0x80, 0x40000000
MOMENT = 0.1            # seconds, after which a child that has come to no other call waits for the command

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def ptrace(request, process, data=0):
    """It may have been killed just now: what comes of that, wait(2) tells."""
    LIBC.ptrace(request, process, None, data)


class Child:
    def __init__(self):
        self.stops = 0          # at each call one before it, and one after it
        self.executed = self.hit = False

    def calls(self):
        return (self.stops + 1) // 2


def begun(words):
    """The command, stopped as it begins."""
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        ptrace(TRACEME, 0)
        os.execvp(words[0], words)
    os.waitpid(process, 0)
    ptrace(SETOPTIONS, process, OPTIONS)
    ptrace(CONT, process)
    return process


def awaited(seconds):
    """(process, wait status) of what happens next; (0, 0) if nothing does for so long; None is for ever."""
    if seconds is None:
        return os.waitpid(-1, ALL)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = os.waitpid(-1, ALL | os.WNOHANG)
        if found != (0, 0):
            return found
        time.sleep(0.001)
    return 0, 0


def followed(command, chosen, call, number, whom):
    """(the wait status of the command, its children), once it has ended.

    While a child comes to its calls, the command stands still: else it may have ended that one by then.
    """
    children = {}
    is_held = False
    while True:
        process, status = awaited(MOMENT if is_held else None)
        is_of_child = process not in (0, command)
        if is_held and (not is_of_child or not os.WIFSTOPPED(status) or status >> 16 == EVENT_EXEC
                        or any(child.hit for child in children.values())):
            is_held = False
            ptrace(CONT, command)
        if not os.WIFSTOPPED(status):
            if process == command:
                return status, children.values()
            continue
        stop = os.WSTOPSIG(status)
        if process == command:
            is_held = status >> 16 != 0
            if not is_held:
                ptrace(CONT, process, 0 if stop == signal.SIGTRAP else stop)
        elif process not in children:
            children[process] = Child()
            ptrace(SYSCALL, process)
        elif status >> 16 == EVENT_EXEC:
            children[process].executed = True
            ptrace(DETACH, process)
        elif stop == AT_SYSTEM_CALL:
            child = children[process]
            child.stops += 1
            if child.stops % 2 and (len(children), child.calls()) == (chosen, call):
                child.hit = True
                (os.kill if whom == "child" else os.killpg)(process if whom == "child" else command, number)
            ptrace(SYSCALL, process)
        else:
            ptrace(SYSCALL, process, 0 if stop == signal.SIGTRAP else stop)


def main(log, child, call, number, whom, *words):
    status, children = followed(begun(words), int(child), int(call), int(number), whom)
    with open(log, "w") as file:
        file.writelines(f"{one.calls()} {one.executed:d} {one.hit:d}\n" for one in children)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
