"""Ways from a root shell in a subhost to its host: run inside, it tries them all, and prints which are open.

    python3 escapes.py          prints NAME open, or NAME ERROR, a line for each

No way is gone to its end.  Where a call would change the host, an argument is wrong, and an error that tells of that
argument, instead of a right that is missing, counts as open.
"""
import ctypes
import errno
import os
import platform
import socket
import subprocess

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
# <asm/unistd_64.h> and <asm-generic/unistd.h>
NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "clock_settime": (227, 112),
    "clone": (56, 220), "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsopen": (430, 430),
    "init_module": (175, 105), "io_uring_setup": (425, 425), "ioperm": (173, None), "iopl": (172, None),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "lookup_dcookie": (212, 18),
    "migrate_pages": (256, 238), "mount": (165, 40), "move_mount": (429, 429), "move_pages": (279, 239),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241), "pivot_root": (155, 41),
    "ptrace": (101, 117), "quotactl": (179, 60), "reboot": (169, 142), "request_key": (249, 218), "sethostname": (170, 161), "setns": (308, 268),
    "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39),
    "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58),
}
BAD = ctypes.c_void_p(8)        # an address that nobody has
WAYS = {}


def way(function):
    WAYS[function.__name__.replace("_", "-")] = function
    return function


def call(name, *arguments):
    """A system call.  Raises OSError."""
    number = NUMBERS[name][0 if X86 else 1]
    if number is None:
        raise OSError(errno.ENOSYS, "not here")
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def reached(name, *arguments, by=(errno.EFAULT, errno.EINVAL, errno.ENOENT, errno.EBADF, errno.ESRCH)):
    """A call that cannot do anything; the kernel says so only to who may make it."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno not in by:
            raise


def writable(path):
    os.close(os.open(path, os.O_WRONLY))


def mounted(kind, *look):
    """A new mount of a file system of that kind, with these files in it."""
    os.makedirs("/mnt/way", exist_ok=True)
    try:
        if libc.mount(kind.encode(), b"/mnt/way", kind.encode(), 0, b"release_agent,none,name=x" if kind == "cgroup" else None) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for name in look:
            os.stat(f"/mnt/way/{name}")
    finally:
        libc.umount2(b"/mnt/way", 2)


def device(kind, major, minor):
    path = f"/dev/way.{kind}{major}.{minor}"
    os.mknod(path, {"b": 0o060600, "c": 0o020600}[kind], os.makedev(major, minor))
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENODEV, errno.EIO):
            raise
    finally:
        os.unlink(path)


def contents(path):
    with open(path, "rb") as file:
        if not file.read(1):
            raise OSError(errno.ENODATA, "empty")


# Devices

@way
def disk_by_mknod():
    with open("/proc/partitions") as file:
        major, minor = next(line.split()[:2] for line in file if line[:1] == " ")
    device("b", int(major), int(minor))

@way
def memory_by_mknod(): device("c", 1, 1)

@way
def kernel_messages_by_mknod(): device("c", 1, 11)

@way
def fuse_by_mknod(): device("c", 10, 229)

@way
def loop_control_by_mknod(): device("c", 10, 237)

@way
def device_in_upper():
    os.close(os.open("/way.null", os.O_RDONLY))     # which the test has made from outside

# File systems

@way
def devtmpfs(): mounted("devtmpfs", "null")

@way
def sysfs(): mounted("sysfs", "kernel")

@way
def proc(): mounted("proc", "sys")

@way
def cgroup_release_agent(): mounted("cgroup", "release_agent")

@way
def cgroup2(): mounted("cgroup2", "cgroup.procs")

@way
def tracefs(): mounted("tracefs", "trace")

@way
def debugfs(): mounted("debugfs")

@way
def securityfs(): mounted("securityfs")

@way
def bpffs(): mounted("bpf")

@way
def binfmt_misc(): mounted("binfmt_misc", "register")

@way
def tmpfs(): mounted("tmpfs")

@way
def new_mount_api(): call("fsopen", b"tmpfs", 0)

@way
def host_name(): reached("sethostname", BAD, 8)

@way
def copy_of_a_mount(): call("open_tree", -100, b"/", 1)

@way
def unmasking(): reached("umount2", b"/nowhere", 2)

@way
def pivot_root(): reached("pivot_root", BAD, BAD)

@way
def file_handle():
    # The root of the file system of a SHARE, by inode 2 of it.
    handle = ctypes.create_string_buffer(b"\x08\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0", 16)
    reached("open_by_handle_at", os.open("/", os.O_RDONLY), handle, 0, by=(errno.ESTALE, errno.EINVAL))

# Settings

@way
def core_pattern(): writable("/proc/sys/kernel/core_pattern")

@way
def modprobe_path(): writable("/proc/sys/kernel/modprobe")

@way
def panic(): writable("/proc/sys/kernel/panic")

@way
def overcommit(): writable("/proc/sys/vm/overcommit_memory")

@way
def drop_caches(): writable("/proc/sys/vm/drop_caches")

@way
def protected_symlinks(): writable("/proc/sys/fs/protected_symlinks")

@way
def sysrq(): writable("/proc/sysrq-trigger")

@way
def interrupts(): writable("/proc/irq/default_smp_affinity")

@way
def memory_policy_of_the_host(): writable("/sys/kernel/mm/transparent_hugepage/enabled")

@way
def events_of_devices(): writable("/sys/kernel/uevent_helper" if os.path.exists("/sys/kernel/uevent_helper") else "/sys/kernel/profiling")

@way
def parameters_of_modules():
    names = [f"/sys/module/{one}/parameters" for one in os.listdir("/sys/module")]
    path = next(f"{place}/{one}" for place in names if os.path.isdir(place) for one in os.listdir(place)
                if os.stat(f"{place}/{one}").st_mode & 0o200)
    writable(path)

# What the kernel shows

@way
def kernel_memory(): contents("/proc/kcore")

@way
def kernel_addresses():
    with open("/proc/kallsyms") as file:
        if not any(int(line.split()[0], 16) for line in file):
            raise OSError(errno.ENODATA, "no addresses")

@way
def keys_of_all(): contents("/proc/keys")

@way
def pages(): contents("/proc/kpageflags")

@way
def timers(): contents("/proc/timer_list")

@way
def firmware():
    if not os.listdir("/sys/firmware"):
        raise OSError(errno.ENODATA, "empty")

@way
def kernel_log():
    call("syslog", 3, ctypes.create_string_buffer(64), 64)

# The kernel's own rights

@way
def load_module(): reached("init_module", BAD, 64, BAD)

@way
def load_module_file(): reached("finit_module", -1, BAD, 0)

@way
def unload_module(): reached("delete_module", b"nothing_of_that_name", 0o4000)

@way
def kexec(): reached("kexec_load", 0, 99, BAD, 0xFFFF)

@way
def kexec_file(): reached("kexec_file_load", -1, -1, 0, BAD, 0xFFFFFF)

@way
def reboot(): reached("reboot", 0, 0, 0, BAD)

@way
def clock(): reached("clock_settime", 0, BAD)

@way
def time_of_day(): reached("settimeofday", BAD, BAD)

@way
def swap(): reached("swapon", b"/nowhere", 0)

@way
def swap_off(): reached("swapoff", b"/nowhere")

@way
def quota(): reached("quotactl", 0x80000100, b"/nowhere", 0, BAD, by=(errno.ENOENT, errno.ENOTBLK, errno.EFAULT, errno.EINVAL))

@way
def accounting(): reached("acct", b"/nowhere")

@way
def io_ports(): call("iopl", 3)

@way
def bpf(): reached("bpf", 0, BAD, 32)

@way
def perf(): reached("perf_event_open", BAD, 0, -1, -1, 0)

@way
def io_uring(): reached("io_uring_setup", 1, BAD)

@way
def userfaultfd(): os.close(call("userfaultfd", 1))        # UFFD_USER_MODE_ONLY, which takes no capability

@way
def fanotify(): os.close(call("fanotify_init", 0, 0))

@way
def user_keyring(): call("keyctl", 0, -4, 0)

@way
def new_namespaces():
    pid = os.fork()
    if not pid:
        try:
            call("unshare", 0x00020000)
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise OSError(errno.EPERM, "")

@way
def new_user_namespace():
    if subprocess.run(["unshare", "-Ur", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        raise OSError(errno.EPERM, "")

@way
def namespaces_of_others(): reached("setns", -1, 0)

@way
def process_of_another_user():
    """Traced, ptrace(2)."""
    ready, go_on = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.setuid(65534)
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        call("ptrace", 0x4206, pid, 0, 0)       # PTRACE_SEIZE
    finally:
        os.write(go_on[1], b"x")
        os.waitpid(pid, 0)

@way
def priority(): os.setpriority(os.PRIO_PROCESS, 0, -20)

@way
def real_time(): os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))

@way
def limit_beyond_that_of_the_boot():
    import resource
    soft, hard = resource.getrlimit(13)         # RLIMIT_NICE: 0, unless the administrator has raised it
    resource.setrlimit(13, (soft, hard + 1))

@way
def hanging_up():
    pid = os.fork()
    if not pid:
        os.setsid()                             # of which no terminal is
        try:
            call("vhangup")
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        raise OSError(errno.EPERM, "")

@way
def virtual_sockets(): socket.socket(40, socket.SOCK_STREAM).close()

@way
def kernel_cryptography(): socket.socket(38, socket.SOCK_SEQPACKET).close()

@way
def audit_rules():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as audit:
        # AUDIT_GET, with an acknowledgement
        audit.settimeout(2)
        audit.send((16).to_bytes(4, "little") + (1000).to_bytes(2, "little") + (5).to_bytes(2, "little") + bytes(8))
        number = int.from_bytes(audit.recv(64)[16:20], "little", signed=True)
        if number:
            raise OSError(-number, "")

@way
def sockets_by_32_bits():
    """AF_VSOCK by the entry of 32-bit programs."""
    if not X86:
        raise OSError(errno.ENOSYS, "")
    import mmap
    # push rbx; mov eax, 359; mov ebx, 40; mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
    code = b"\x53\xb8" + (359).to_bytes(4, "little") + b"\xbb\x28\0\0\0\xb9\x01\0\0\0\x31\xd2\xcd\x80\x5b\xc3"
    area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(code)
    result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()
    if result < 0:
        raise OSError(-result, os.strerror(-result))

@way
def root_of_the_host():
    """Another /proc/1/root than our own root."""
    if os.path.samefile("/proc/1/root", "/"):
        raise OSError(errno.ENODATA, "it is ours")


def main():
    for name, function in WAYS.items():
        try:
            function()
        except OSError as error:
            print(name, errno.errorcode.get(error.errno, error.errno), flush=True)
        except (StopIteration, ValueError):
            print(name, "ENODATA", flush=True)
        else:
            print(name, "open", flush=True)


if __name__ == "__main__":
    main()
