"""What root in a subhost can do to its host, and what the fences leave it: overlay-boot(7), SECURITY."""
import os
import re

import pytest
from conftest import cannot_run
from machine import BOOT, GO, TREE, UNFENCED, one_line, read, run, start, warnings

from overlay_boot import capabilities
from overlay_boot.system_calls import DECISIVE

WAYS = re.findall(r"^@way\ndef (\w+)\(", read(f"{TREE}/tests/support/escapes.py"), re.MULTILINE)
STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp")
FENCED = {"CapInh": 0, "CapPrm": capabilities.DEFAULT, "CapEff": capabilities.DEFAULT, "CapBnd": capabilities.DEFAULT, "CapAmb": 0,
          "Seccomp": 2}
NO_LOGIN = "4294967295"


def ways(one):
    """{way: "open", or the error}, tried by root inside."""
    run("mknod", f"{one.upper}/way.null", "c", "1", "3")
    said = one.inside("/usr/bin/python3", "-IS", "-c", read(f"{TREE}/tests/support/escapes.py"))
    return dict(line.split(" ") for line in said.splitlines())


def fences(status):
    """What the text of a /proc/PID/status says of them."""
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {key: int(found[key], 16) for key in STATUS}


# From inside to the host

def test_no_way_leads_to_the_host(subhost):
    found = ways(subhost().booted())
    assert len(found) == len(WAYS) >= 52
    assert [name for name, result in found.items() if result == "open"] == []


def test_the_ways_are_ways(subhost):
    """Without fences they lead there: the test before this one can fail."""
    found = ways(subhost(**UNFENCED).booted())
    assert len([name for name, result in found.items() if result == "open"]) >= 45


# What root of a user namespace can do, and why that does not touch the host.
ITS_OWN = {
    "sysfs": "it shows the subhost's network namespace, and nobody inside owns its files",
    "proc": "it is that of the subhost's PID namespace, and nobody inside owns its settings",
    "cgroup2": "its root is the control group of the subhost",
    "binfmt-misc": "since Linux 6.7 one of the user namespace; before, it cannot be mounted",
    "tmpfs": "memory of the subhost's control group",
    "new-mount-api": "like the tmpfs that it makes",
    "unmasking": "what the boot has mounted is locked",
    "host-name": "in its own UTS namespace",
    "firmware": "it sees what every user of the host can",
    "process-of-another-user": "one of its own users",
    "pivot-root": "in its own mount namespace",
    "reboot": "it ends the subhost, reboot(2)",
    "quota": "the kernel asks for a right on the host next",
    "keys-of-all": "it shows those that who looks can view",
    "new-namespaces": "below its own", "new-user-namespace": "below its own", "namespaces-of-others": "no other one can be opened",
}


def test_no_way_leads_out_of_a_user_namespace(subhost):
    found = ways(subhost(USERNS="auto").booted())
    assert {name for name, result in found.items() if result == "open"} <= set(ITS_OWN)


TRACE = """
import glob, os, time
def name(place):
    with open(f"{place}/comm") as file:
        return file.read().strip()
def opened(path):
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:
        return None
print("watching", flush=True)
seen, end = set(), time.monotonic() + 60
while not os.path.exists("/run/done") and time.monotonic() < end:
    for place in glob.glob("/proc/[0-9]*"):
        try:
            if name(place) != "execute":
                continue
            os.close(os.open("/run/met", os.O_CREAT | os.O_WRONLY))
            for what in ("mem", "environ", "maps", "exe"):
                fd = opened(f"{place}/{what}")
                if fd is not None:
                    os.close(fd)
                    if name(place) == "execute":        # else it was the program inside
                        seen.add(what)
                        os.close(os.open("/run/seen", os.O_CREAT | os.O_WRONLY))
        except OSError:
            pass
print(*sorted(seen))
"""


@pytest.mark.parametrize("settings, seen", [({}, False), ({"USERNS": "auto"}, False), ({"CAPABILITIES": "+SYS_PTRACE"}, False),
                                            ({"CAPABILITIES": "+SYS_PTRACE +SYS_ADMIN"}, True)])
def test_who_enters_cannot_be_traced(subhost, settings, seen):
    """Nobody inside looks into it, nor at its program, from its birth to the program inside that it executes."""
    one = subhost(**settings).booted()
    watching = start(GO, one.name, "/usr/bin/python3", "-IS", "-c", TRACE)
    assert watching.stdout.readline() == b"watching\n"
    while one.go("test", "-e", "/run/seen" if seen else "/run/met").returncode:
        assert watching.poll() is None
    for _ in range(20):
        one.inside("true")
    one.inside("touch", "/run/done")
    out, err = watching.communicate(timeout=60)
    assert (bool(out.strip()), err) == (seen, b"")


def test_devices_of_the_root_are_dead(subhost):
    """Those of UPPER, which a former boot without fences may have left there."""
    one = subhost(SHARE="/dev/null:/opt/null")
    one.write("opt/x", "")
    run("mknod", f"{one.upper}/opt/zero", "c", "1", "5")
    one.booted()
    assert one.go("head", "-c", "1", "/opt/zero").returncode != 0
    assert one.sh("head -c 3 /dev/zero | wc -c; echo x >/opt/null; echo x >/dev/null; echo ok") == "3\nok"


# Who is fenced in

def test_all_that_runs_inside_is_fenced_in(subhost):
    one = subhost(START="/opt/service")
    one.write("opt/service", "#!/bin/sh\ncat /proc/self/status >/$1\n[ $1 = stop ] || sleep 1000000 &\n", 0o755)
    one.booted()
    assert fences(read(f"/proc/{one.init}/status")) == FENCED
    assert fences(one.inside("cat", "/proc/self/status")) == FENCED
    assert fences(read(f"{one.upper}/start")) == FENCED
    user = fences(one.inside("cat", "/proc/self/status", user="nobody"))
    assert user == {**FENCED, "CapPrm": 0, "CapEff": 0}
    one.stopped()
    assert fences(read(f"{one.upper}/stop")) == FENCED


@pytest.mark.parametrize("settings, login", [({}, NO_LOGIN), ({"CAPABILITIES": "+AUDIT_CONTROL"}, "4321")])
def test_who_boots_or_enters_is_not_who_logs_in(subhost, settings, login):
    """PAM inside sets a login UID, which takes a capability where one is set."""
    if not os.path.exists("/proc/self/loginuid"):
        cannot_run("this kernel has no login UIDs")
    one = subhost(**settings)
    for command in ([BOOT, one.conf], [GO, one.name, "cat", "/proc/self/loginuid"]):
        done = run("sh", "-c", 'echo 4321 >/proc/self/loginuid; exec "$@"', "sh", *command)
        assert (done.returncode, done.stderr) == (0, "")
    assert (read(f"/proc/{one.init}/loginuid"), done.stdout) == (login, login)


# Asks for the interfaces of the network namespace at the other end of a cable: rtnetlink(7), <linux/if_link.h>.
OTHER_END = """
import os, socket, struct
RTM_NEWLINK, RTM_GETLINK, REQUEST_DUMP, IFLA_TARGET_NETNSID = 16, 18, 0x301, 46
def dump(attributes=b""):
    asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    asked.send(struct.pack("=IHHII", 32 + len(attributes), RTM_GETLINK, REQUEST_DUMP, 1, 0) + bytes(16) + attributes)
    return asked.recv(1 << 16)
dump()                      # for the kernel to number it
answer = dump(struct.pack("=HHi", 8, IFLA_TARGET_NETNSID, 0))
number, = struct.unpack_from("=i", answer, 16)
print("open" if answer[4] == RTM_NEWLINK else os.strerror(-number))
"""


@pytest.mark.parametrize("settings, answer", [
    ({}, "Permission denied"), ({"USERNS": "auto"}, "Permission denied"), ({"CAPABILITIES": "+SYS_PTRACE"}, "Permission denied"),
    ({"CAPABILITIES": "+SYS_NICE"}, "open"), ({"CAPABILITIES": "+SYS_NICE -NET_ADMIN"}, "Permission denied")])
def test_interfaces_at_the_other_end_of_a_cable(subhost, settings, answer):
    """Which NET_ADMIN rules as well, unless it is that of a user namespace."""
    assert subhost(CABLES="=", **settings).booted().inside("python3", "-c", OTHER_END) == answer


# What both sides of the test of keyrings run: keyctl(2), add_key(2).
KEYS = """
import ctypes, platform, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
SESSION, JOIN, CLEAR, SEARCH = -3, 1, 7, 10

def found():
    return libc.syscall(KEYCTL, SEARCH, SESSION, b"user", b"overlay-boot:test", 0) > 0

def clear():
    return libc.syscall(KEYCTL, CLEAR, SESSION)
"""
WITH_KEY = KEYS + """
assert libc.syscall(KEYCTL, JOIN, None) > 0 and libc.syscall(ADD_KEY, b"user", b"overlay-boot:test", b"secret", 6, SESSION) > 0
assert found()
ended = subprocess.run(sys.argv[1:])
print("kept" if found() else "lost")
sys.exit(ended.returncode)
"""
INSIDE = KEYS + """
print("found" if found() else "none", "cleared" if clear() == 0 else "not cleared")
"""


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_the_session_keyring_of_who_enters_is_not_there(subhost, user):
    """He who enters has one of his own, which he can clear."""
    running = subhost(**UNFENCED).booted()
    ended = run("python3", "-c", WITH_KEY, GO, "-u", user, running.name, "python3", "-c", INSIDE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "none cleared\nkept\n", "")


def test_the_session_keyring_of_who_boots_is_not_there(subhost):
    one = subhost(START="/opt/keys", **UNFENCED)
    one.write("opt/inside.py", INSIDE)
    one.write("opt/keys", "#!/bin/sh\npython3 /opt/inside.py >/keys\nsleep 1000 &\n", 0o755)
    ended = run("python3", "-c", WITH_KEY, BOOT, one.conf)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "kept\n", "")
    assert read(f"{one.upper}/keys") == "none cleared\n"


@pytest.mark.parametrize("text, mask", [
    ("all", None), ("default", capabilities.DEFAULT), ("none", 0), ("CHOWN cap_kill", 1 | 1 << 5), ("-NET_RAW -CHOWN", capabilities.DEFAULT & ~(1 | 1 << 13)),
    ("+SYS_NICE +IPC_LOCK", capabilities.DEFAULT | 1 << 23 | 1 << 14)])
def test_capabilities(subhost, text, mask):
    one = subhost(CAPABILITIES=text).booted()
    if mask is None:
        mask = fences(read("/proc/self/status"))["CapBnd"]
    for status in (read(f"/proc/{one.init}/status"), one.inside("cat", "/proc/self/status")):
        assert fences(status) == {**FENCED, "CapPrm": mask, "CapEff": mask, "CapBnd": mask}


def test_a_call_of_the_default_is_refused(subhost):
    one = subhost(SYSTEM_CALLS="-symlinkat -symlink").booted()
    assert "Operation not permitted" in one.go("ln", "-s", "x", "/way").stderr and one.sh("ln /etc/passwd /etc/x; echo ok").endswith("ok")
    assert fences(one.inside("cat", "/proc/self/status"))["Seccomp"] == 2


def test_a_call_that_is_added(subhost):
    one = subhost(SYSTEM_CALLS="+@keys").booted()
    found = ways(one)
    assert found.pop("user-keyring") == "open" and "open" not in found.values()


def test_a_capability_opens_its_calls(subhost):
    one = subhost(CAPABILITIES="+SYS_TIME").booted()
    found = ways(one)
    assert {name for name, result in found.items() if result == "open"} == {"clock", "time-of-day"}


def test_mounts_take_sys_admin(subhost):
    """Then there is nothing masked either, which root could take away."""
    one = subhost(CAPABILITIES="+SYS_ADMIN").booted()
    one.sh("mount -t tmpfs tmpfs /mnt && umount /mnt && unshare -m true && test -w /proc/sys/kernel/core_pattern")


def test_a_list_of_calls_is_all_there_is(subhost):
    one = subhost(SYSTEM_CALLS="@files @memory @processes @signals @waiting @time").booted()
    assert one.sh("echo ok") == "ok"
    assert one.go("/usr/bin/python3", "-IS", "-c", "import socket; socket.socket()").returncode == 1


@pytest.mark.parametrize("variable, text, said", [
    ("CAPABILITIES", "+SYS_NISE", "there is no capability SYS_NISE (did you mean SYS_NICE?)"),
    ("CAPABILITIES", "+CHOWN KILL", "either all words begin with + or -, or none does"),
    ("CAPABILITIES", "x", "there is no capability x"),
    ("CAPABILITIES", "++CHOWN", "there is no capability +CHOWN (did you mean CHOWN?)"),
    ("CAPABILITIES", "+CHOWN -", "there is no name after + or -"),
    ("CAPABILITIES", "ALL", "all stands alone, and in small letters"),
    ("CAPABILITIES", "none CHOWN", "none stands alone, and in small letters"),
    ("SYSTEM_CALLS", "+mout", "there is no system call mout (did you mean mount?)"),
    ("SYSTEM_CALLS", "+@kees", "there is no group of system calls @kees (did you mean @keys?)"),
    ("SYSTEM_CALLS", "+mount open", "either all words begin with + or -, or none does"),
    ("SYSTEM_CALLS", "+KEYCTL", "there is no system call KEYCTL (did you mean keyctl?)"),
    ("SYSTEM_CALLS", "+mount -", "there is no name after + or -"),
    ("SYSTEM_CALLS", "default +mount", "default stands alone, and in small letters"),
    ("SYSTEM_CALLS", "All", "all stands alone, and in small letters"),
    ("SYSTEM_CALLS", "-execve", "nothing can be executed without execve"),
])
def test_wrong_values(subhost, fails, variable, text, said):
    one = subhost(**{variable: text})
    assert f"{variable}={text}: {said}" in fails([BOOT, one.conf], said)
    assert said in one_line(run(BOOT, "--check", one.conf))


def test_a_check_tells_what_the_default_would_take(subhost):
    done = run(BOOT, "--check", subhost().conf)
    assert (done.returncode, warnings(done)) == (0, [])
    lines = warnings(run(BOOT, "--check", subhost(CAPABILITIES="+SYS_TIME +SYS_NICE", SYSTEM_CALLS="+@keys +bpf").conf))
    assert [line.rpartition("would lose ")[2] for line in lines] == ["SYS_NICE SYS_TIME", "@clock @bpf @keys"]
    lines = warnings(run(BOOT, "--check", subhost(**UNFENCED).conf))
    assert "SYS_ADMIN" in lines[0] and "@mount" in lines[1] and "@io-uring" in lines[1]


@pytest.mark.parametrize("settings, lost", [
    ({}, []), ({"SYSTEM_CALLS": "+@keys"}, ["@keys"]), ({"SYSTEM_CALLS": "+socket"}, ["socket*"]), ({"CAPABILITIES": "+SYS_TIME"}, ["SYS_TIME", "@clock"]),
    ({"CAPABILITIES": "-SYS_ADMIN", "SYSTEM_CALLS": "+@mount"}, [])])
def test_a_check_knows_the_default_of_a_user_namespace(subhost, settings, lost):
    lines = warnings(run(BOOT, "--check", subhost(USERNS="auto", **settings).conf))
    assert [line.rpartition("would lose ")[2] for line in lines] == lost


def test_what_takes_libseccomp_says_so_where_that_is_missing(subhost, directory):
    """In a mount namespace where it is not."""
    one = subhost(SYSTEM_CALLS="-ptrace")
    os.mkdir(f"{directory}/empty")
    done = run("unshare", "-m", "sh", "-c", 'for f in /usr/lib/python3/dist-packages/seccomp*; do mount --bind /dev/null "$f"; done; exec "$@"', "sh",
               BOOT, "--check", one.conf)
    assert "takes the package python3-seccomp" in one_line(done) and done.returncode == 1


# What is left to it

def test_its_own_network_and_ipc_can_be_set(subhost):
    one = subhost().booted()
    assert one.sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 65536 >/proc/sys/kernel/msgmax; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax") \
        == "1\n65536"
    assert read("/proc/sys/kernel/msgmax") != "65536\n"


def test_ordinary_work_goes_on(subhost):
    one = subhost().booted()
    assert one.sh("su nobody -s /bin/sh -c 'strace -qq -o /dev/null -e trace=none true && ping -c 1 127.0.0.1 >/dev/null && echo traced'") == "traced"
    assert one.sh("mkfifo /run/f; mknod /run/g p; chown 1:2 /run/f; chmod 4755 /run/f; stat -c '%u %g %a' /run/f; nice -n 5 true; "
                  "chroot / true; ip link add x type dummy && ip link del x; setcap cap_net_raw+ep /opt/ping 2>/dev/null; echo ok") == "1 2 4755\nok"


def test_a_subhost_that_was_booted_with_other_fences_is_entered_with_those(subhost):
    """Those of its boot count, not those that CONF or the package has by now."""
    one = subhost(CAPABILITIES="CHOWN SETUID SETGID", SYSTEM_CALLS="-symlinkat -symlink").booted()
    one.configure(CAPABILITIES="all")
    found = fences(one.inside("cat", "/proc/self/status"))
    assert found["CapBnd"] == 1 | 1 << 6 | 1 << 7 and found["Seccomp"] == 2
    assert "not permitted" in one.go("ln", "-s", "x", "/way").stderr


def test_a_sysfs_that_a_hook_has_mounted_read_only(subhost):
    if not os.listdir("/sys/firmware"):
        cannot_run("this machine has nothing in /sys/firmware")
    one = subhost()
    one.script("post", 'overlay-postmount && mount -t sysfs -o ro sysfs "$LIVE/sys"')
    one.configure(POSTMOUNT="./post")
    one.booted()
    assert one.sh("ls -A /sys/firmware; test -e /sys/class/net/lo") == ""


def test_what_a_hook_has_mounted_in_sysfs(subhost):
    """Such as all of the host's /sys: where nothing is mounted, these directories are empty anyway."""
    place = next(path for path in ("/sys/kernel/debug", "/sys/kernel/security", "/sys/fs/bpf") if os.path.isdir(path))
    one = subhost()
    one.script("post", f'overlay-postmount && mount -t tmpfs tmpfs "$LIVE{place}" && touch "$LIVE{place}/the-hosts"')
    one.configure(POSTMOUNT="./post")
    one.booted()
    assert one.sh(f"ls -A {place}") == ""
    one.stopped()
    one.configure(POSTMOUNT="./post", **UNFENCED)
    assert one.booted().sh(f"ls -A {place}") == "the-hosts"


@pytest.mark.parametrize("settings, works", [({}, False), ({"USERNS": "auto"}, False), ({"CAPABILITIES": "+MKNOD"}, True)])
def test_devices_on_what_a_hook_has_mounted(subhost, settings, works):
    """But for those in /dev, and for single devices."""
    one = subhost()
    one.script("post", """
        overlay-postmount
        for place in srv opt/below/mnt dev/shm; do
            mkdir -p "$LIVE/$place"
            mount -t tmpfs tmpfs "$LIVE/$place"; mknod -m 666 "$LIVE/$place/null" c 1 3
        done
        mkdir -p "$LIVE/opt"; touch "$LIVE/opt/null"; mount --bind /dev/null "$LIVE/opt/null"
    """)
    one.configure(POSTMOUNT="./post", **settings)
    one.booted()
    for place in ("/srv", "/opt/below/mnt"):
        assert (one.go("sh", "-c", f": <{place}/null").returncode == 0) == works
    one.sh(": </opt/null; : </dev/null" + ("" if settings.get("USERNS") else "; : </dev/shm/null"))


def test_fences_hold_after_hibernation(subhost):
    one = subhost()
    for _ in range(3):
        done = run(BOOT, "--shell", one.conf, input="grep -c . /proc/self/mountinfo; cat /proc/self/status; exit\n")
        assert done.returncode == 0
        assert fences(done.stdout) == FENCED
        before = done.stdout.splitlines()[0]
    one.booted()
    assert one.sh("grep -c . /proc/self/mountinfo") == before           # masks do not pile up
    assert fences(one.inside("cat", "/proc/self/status")) == FENCED
    one.stopped()


# The table of overlay-boot(7): what is fenced off, by what, and what opens it

TABLE = [[cell.strip() for cell in line.split("|")[1:]] for line in
         read(f"{TREE}/man/overlay-boot.7.adoc").partition("=== The fences")[2].split("|===")[1].splitlines()[2:]]

# By how a row begins: the ways of it, by what opens them: capabilities, or a value of SYSTEM_CALLS, or nothing.
ROWS = {
    "loading kernel modules": {
        "SYS_MODULE": "load-module load-module-file unload-module", "SYS_BOOT": "kexec kexec-file reboot",
        "SYS_ADMIN": "swap swap-off quota", "SYS_TIME": "clock time-of-day", "SYS_PACCT": "accounting",
        "SYS_TTY_CONFIG": "hanging-up", "SYSLOG": "kernel-log", "SYS_RAWIO": "io-ports"},
    "higher priorities": {"SYS_NICE": "priority real-time", "SYS_RESOURCE": "limit-beyond-that-of-the-boot"},
    "devices of the host": {
        "MKNOD": "disk-by-mknod fuse-by-mknod loop-control-by-mknod device-in-upper",
        "MKNOD SYS_RAWIO": "memory-by-mknod", "MKNOD SYSLOG": "kernel-messages-by-mknod"},
    "mounts, new namespaces": {
        "SYS_ADMIN": "devtmpfs sysfs proc cgroup-release-agent cgroup2 tracefs debugfs securityfs bpffs binfmt-misc tmpfs new-mount-api "
                     "copy-of-a-mount unmasking pivot-root new-namespaces new-user-namespace namespaces-of-others host-name fanotify"},
    "kernel settings": {"SYS_ADMIN": "core-pattern modprobe-path panic overcommit drop-caches protected-symlinks"},
    "memory, addresses, keys": {
        "SYS_ADMIN": "keys-of-all pages timers sysrq interrupts", "SYS_ADMIN SYS_RAWIO": "kernel-memory",
        "SYS_ADMIN SYSLOG": "kernel-addresses"},
    "devices and settings in": {"SYS_ADMIN": "memory-policy-of-the-host events-of-devices parameters-of-modules firmware"},
    "files of LOWER": {"DAC_READ_SEARCH": "file-handle"},
    "processes of other users": {"SYS_PTRACE": "process-of-another-user"},
    "*bpf*(2)": {"BPF": "bpf", "PERFMON": "perf"},
    "*io_uring*(7)": {
        "SYSTEM_CALLS=+@io-uring +@faults +@keys +socket": "io-uring userfaultfd user-keyring virtual-sockets kernel-cryptography"},
    "sockets of 32-bit": {"SYSTEM_CALLS=+socket": "sockets-by-32-bits"},
    "the host's root": {"": "root-of-the-host"},
    "the rules of": {"": "audit-rules"},
}
# What it takes a caller to see.
ROWS_TESTED_ABOVE = {
    "the caller's session keyring": [test_the_session_keyring_of_who_enters_is_not_there, test_the_session_keyring_of_who_boots_is_not_there],
    "the caller's login UID": [test_who_boots_or_enters_is_not_who_logs_in],
    "the program and the memory": [test_who_enters_cannot_be_traced],
    "network interfaces of": [test_interfaces_at_the_other_end_of_a_cable],
}
TRIED = {}


def begins(row):
    """How that row begins, of those above."""
    found, = (text for text in (*ROWS, *ROWS_TESTED_ABOVE) if row[0].startswith(text))
    return found


def names_in(text):
    return set(re.findall("[A-Z_]+", text)) & {*capabilities.NAMES}


@pytest.fixture
def opened(subhost):
    """The ways that are open in a subhost with these settings, which is booted and asked once for all rows."""
    def look(**settings):
        key = str(settings)
        if key not in TRIED:
            TRIED[key] = {name for name, result in ways(subhost(**settings).booted()).items() if result == "open"}
        return TRIED[key]
    return look


def test_the_table_has_a_row_for_every_way_and_a_way_for_every_row():
    assert sorted(map(begins, TABLE)) == sorted([*ROWS, *ROWS_TESTED_ABOVE])
    named = [name for row in ROWS.values() for names in row.values() for name in names.split()]
    assert sorted(named) == sorted(way.replace("_", "-") for way in WAYS)


def test_the_table_names_every_capability_that_the_filter_asks_for():
    assert {*capabilities.names_of(DECISIVE)} <= {name for row in TABLE for name in names_in(row[1] + row[2])}


@pytest.mark.parametrize("row", [row for row in TABLE if not row[0].startswith((*ROWS_TESTED_ABOVE,))], ids=lambda row: row[0].partition(",")[0])
def test_a_row_of_the_table(opened, row):
    """Its ways are closed by default; what the row names opens them again, as far as this kernel has them at all."""
    fenced, by, opener = row
    expected = ROWS[begins(row)]
    here, shown = opened(**UNFENCED), set()
    for what, words in expected.items():
        names = {*words.split()}
        assert not names & opened(), "by default"
        variable, _, value = what.rpartition("=")
        if variable:
            assert variable in opener
            shown |= names & opened(**{variable: value})
        elif what:
            shown |= names & opened(CAPABILITIES=" ".join(f"+{name}" for name in value.split()))
        assert variable or names_in(what) <= names_in(by if opener == "that capability" else opener)
    assert names_in(by if opener == "that capability" else opener) == {name for what in expected for name in names_in(what.partition("=")[0])}
    possible = {name for words in expected.values() for name in words.split()} & here
    assert shown == possible if opener else not possible
    if opener and not possible:
        cannot_run(f"this kernel has none of these ways: {fenced}")


@pytest.mark.parametrize("settings", [{}, {"USERNS": "auto"}, UNFENCED, {"CAPABILITIES": "+SYSLOG"}, {"USERNS": "auto", "CAPABILITIES": "all", "SYSTEM_CALLS": "all"}],
                         ids=["", "users", "all", "syslog", "users-all"])
def test_messages_of_the_kernel_are_the_hosts_to_read(subhost, settings):
    """/proc/kmsg gives each to one reader.  Without that, a syslog daemon neither waits nor reads for ever."""
    one = subhost(**settings).booted()
    assert one.sh("timeout 5 head -c 1 /proc/kmsg; echo $?; ls /dev/kmsg; echo $?").split()[:2] == ["1", "2"]
    may_look = one.go("dmesg").returncode == 0
    assert may_look or not ("SYSLOG" in settings.get("CAPABILITIES", "") or settings == UNFENCED)
    if "USERNS" in settings:
        assert one.sh("mkdir -p /run/x && mount -t proc proc /run/x && echo mounted") == "mounted"
    one.stopped()
