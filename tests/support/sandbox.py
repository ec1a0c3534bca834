"""Sandboxes: namespaces in which a command can be killed, starved and led astray, and all that it leaves be seen.

Each has namespaces of its own of every kind but user, with a /run, a /var/log, a /var/cache, a control group and a
cgroup2 hierarchy of its own.  So nothing of what else runs at the same time, of other tests or of somebody's containers,
is to be seen there: everything can be compared, the first subhost of a sandbox is the first one, and what a test may
leave behind ends with the sandbox.  The mounts of it are shared with a bystander in another mount namespace, as systemd
has it.

What runs inside is a program, of a file or a folder, that calls serve().
"""
import concurrent.futures
import contextlib
import glob
import json
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

GROUPS = "/sys/fs/cgroup"
NETFILTER, DUMP, NEWTABLE, GETTABLE = 12, 0x301, 0xa00, 0xa01       # netlink(7), <linux/netfilter/nf_tables.h>


# From outside

class Sandbox:
    """A sandbox, and the calls of the methods of what a program serves in it."""

    def __init__(self, program):
        self.directory = tempfile.mkdtemp(prefix="kx", dir="/var/tmp")
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-I", __file__, program,
             self.directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def __call__(self, method, *arguments):
        try:
            self.process.stdin.write(json.dumps([method, *arguments]) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the sandbox is gone ({error}), at {method}{arguments}") from None
        if "raised" in answer:
            raise RuntimeError(answer["raised"])
        return answer["returned"]

    def end(self):
        """End it, with all that is in it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        status = self.process.wait()
        self.process.stdout.close()
        os.rmdir(self.directory)
        if status:
            raise RuntimeError(f"the sandbox ended with exit status {status}")


class Sandboxes:
    """Some sandboxes, among which work is divided; one in which something went wrong is not used again."""

    def __init__(self, program, number):
        self.program = program
        self.idle = queue.SimpleQueue()
        for _ in range(number):
            self.idle.put(None)
        self.workers = concurrent.futures.ThreadPoolExecutor(number)

    def __call__(self, method, *arguments):
        """Call a method that returns what is wrong last, as a list.  What is wrong with the end of the sandbox is added."""
        sandbox, kept = self.idle.get(), None
        try:
            sandbox = sandbox or Sandbox(self.program)
            try:
                answer = sandbox(method, *arguments)
            except RuntimeError as error:
                raise RuntimeError("\n".join([*failed_end(sandbox), str(error)])) from None
            if answer[-1]:
                answer[-1] += failed_end(sandbox)
            else:
                kept = sandbox
            return answer
        finally:
            self.idle.put(kept)

    def map(self, method, works):
        """The answer to each of works, the arguments of a call."""
        return list(self.workers.map(lambda work: self(method, *work), works))

    def end(self):
        """End them all.  Raises RuntimeError if one of them does not end well."""
        self.workers.shutdown()
        wrong = []
        while not self.idle.empty():
            sandbox = self.idle.get()
            if sandbox:
                wrong += failed_end(sandbox)
        if wrong:
            raise RuntimeError("\n".join(wrong))


def failed_end(sandbox):
    """End a sandbox: [what was wrong with that], if anything."""
    try:
        sandbox.end()
    except (OSError, RuntimeError) as error:
        return [str(error)]
    return []


def make(program, directory):
    """Make the sandbox around directory, have it served from inside, take it away; in a mount namespace of our own.

    What the program consists of is copied, with the modules beside this one: where they are may be hidden inside.
    """
    group = f"{cgroup2()}/{os.path.basename(directory)}"

    def enter():
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")

    os.makedirs(f"{group}/run")
    try:
        for path in foreign_mounts():
            subprocess.run(["umount", "--lazy", path], check=True)
        for path in (directory, "/run", "/var/log", "/var/cache"):
            mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
        copy_program(program, f"{directory}/program")
        # No process may be in the root of the hierarchy, in which controllers are enabled.
        return subprocess.call(
            ["unshare", "--cgroup", "sh", "-c", f'echo 0 >{group}/run/cgroup.procs && exec "$@"', "sh",
             "unshare", "--pid", "--net", "--ipc", "--uts", "--mount", "--propagation", "shared", "--fork",
             "--kill-child", "--mount-proc", sys.executable, "-I", f"{directory}/program", directory],
            preexec_fn=enter)
    finally:
        wait_until(lambda: remove_groups(group), "the sandbox's control groups cannot be removed")


def copy_program(program, place):
    shutil.copytree(os.path.dirname(__file__), place)
    if os.path.isdir(program):
        shutil.copytree(program, place, dirs_exist_ok=True)
    else:
        shutil.copy(program, f"{place}/__main__.py")


def foreign_mounts():
    """Where something of somebody else's is mounted that may go away at any time."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        places = [line.split()[4] for line in file]
    return [place.replace("\\040", " ") for place in reversed(places)
            if place.startswith(("/run/", "/tmp/", "/var/", "/mnt/"))]


def cgroup2():
    """Where the hierarchy is mounted; it is mounted if nobody has."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            if " - cgroup2 " in line:
                return line.split()[4]
    mount("-t", "cgroup2", "none", GROUPS)
    return GROUPS


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def remove_groups(group):
    try:
        for path, _, _ in os.walk(group, topdown=False):
            os.rmdir(path)
    except OSError:
        return False
    return True


def patiently(condition, seconds=10):
    """Whether the condition holds in the end."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def wait_until(condition, otherwise):
    if not patiently(condition):
        raise RuntimeError(otherwise)


def serve(inside, directory):
    """As process 1 of the sandbox, reap, and end when the one child ends that answers the calls.

    inside is the class whose methods they call.
    """
    # mount(2) refuses to mount a file system over itself, whatever control group each shows as the root.
    if cgroup2() == GROUPS:
        subprocess.run(["umount", "--lazy", GROUPS], check=True)
    mount("-t", "sysfs", "none", "/sys")        # which shows the interfaces of the namespace that it is mounted in
    mount("-t", "cgroup2", "none", GROUPS)
    for controller in ("memory", "pids"):
        with contextlib.suppress(OSError), open(f"{GROUPS}/cgroup.subtree_control", "w") as file:
            file.write(f"+{controller}")        # not every host has it for us
    server = os.fork()
    if server == 0:
        answer(inside(directory))
        os._exit(0)
    while True:
        process, status = os.wait()
        if process == server:
            return os.waitstatus_to_exitcode(status)


def answer(inside):
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            said = {"returned": getattr(inside, method)(*arguments)}
        except Exception:
            said = {"raised": traceback.format_exc()}
        print(json.dumps(said), flush=True)


# What is compared

def snapshot(directory):
    """All that a subhost could leave in the sandbox, as lines of text."""
    while True:
        try:
            return {*process_lines(), *mount_lines(), *interface_lines(), *firewall_lines(), *control_group_lines(),
                    *loop_device_lines(directory), *file_lines("/run")}
        except OSError:
            pass                # something has just gone


def alive():
    """(process id, its stat(5) fields from the name on) of all processes but zombies."""
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, errors="surrogateescape") as file:
                process, rest = file.read().split(" ", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if rest.rpartition(")")[2].split()[0] not in "ZX":
            yield int(process), rest


def kill(process):
    """SIGKILL to a process that may have ended, of itself or with its PID 1."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


def process_lines():
    for process, stat in alive():
        yield f"process {process} {stat.rpartition(')')[0]})"


def by_namespace(kind):
    """A process for every namespace of a kind."""
    found = {}
    for process, _ in alive():
        found.setdefault(os.readlink(f"/proc/{process}/ns/{kind}"), process)
    return found.items()


def mount_lines():
    for namespace, process in by_namespace("mnt"):
        with open(f"/proc/{process}/mountinfo", errors="surrogateescape") as file:
            for line in file:
                yield f"mount in {namespace}: {line.strip()}"


def interface_lines():
    for namespace, process in by_namespace("net"):
        with open(f"/proc/{process}/net/dev", errors="surrogateescape") as file:
            for line in file.readlines()[2:]:
                yield f"interface in {namespace}: {line.partition(':')[0].strip()}"


def firewall_lines():
    """The tables of nftables, and whether packets are forwarded."""
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/{setting}") as file:
            yield f"{setting} {file.read().strip()}"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as asked:
        asked.send(struct.pack("=IHHIIBBH", 20, GETTABLE, DUMP, 1, 0, 0, 0, 0))
        data = asked.recv(1 << 16)
        while data:
            size, kind = struct.unpack_from("=IH", data)
            if kind == NEWTABLE:
                yield f"table {data[24:20 + struct.unpack_from('=H', data, 20)[0]].rstrip(bytes(1))!r}"       # its name comes first
            data = data[size:]


def control_group_lines():
    for path, _, _ in os.walk(GROUPS):
        yield f"control group {path}"


def loop_device_lines(directory):
    """Those of the sandbox's own files: there are no namespaces of loop devices.

    By the file system that the file is on; where that is mounted by now, or was, is no matter.
    """
    if not glob.glob("/sys/block/loop*/loop"):
        return
    device = os.stat(directory).st_dev
    found = subprocess.run(["losetup", "--list", "--noheadings", "--raw", "--output", "BACK-MAJ:MIN,NAME"],
                           capture_output=True, text=True, check=False).stdout
    for line in found.splitlines():
        if line.startswith(f"{os.major(device)}:{os.minor(device)} "):
            yield f"loop device {line.split()[1]}"


def file_lines(top):
    for path, directories, names in os.walk(top):
        if path == "/run" and "network" in directories:
            directories.remove("network")       # ifupdown's
        for name in (*directories, *names):
            found = os.lstat(f"{path}/{name}")
            yield f"file {path}/{name} {found.st_mode:o} {found.st_size if name in names else ''}"


def difference(before, after):
    """What is in one snapshot and not in the other."""
    return "; ".join([*(f"{line} is gone" for line in sorted(before - after)), *sorted(after - before)])


if __name__ == "__main__":
    sys.exit(make(*sys.argv[1:]))
