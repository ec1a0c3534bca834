"""Who is measured: overlay-boot, its shell version, other container programs, and tar.

Each contestant of the race has `boot()`, which returns milliseconds, and `close()`. Its `phases` are those in which it
takes part. For "stop" and "enter" it has `stop()` and `enter()`, which return milliseconds, for "memory" it has
`private_memory()`, which returns KiB.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess

import process
from process import Failed

# Of the cheapest calls there are, and of those that most of a service's are.
CHEAP_CALLS = ("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=2000000", "status=none")
FILE_CALLS = ("/usr/bin/perl", "-e", "for (1 .. 4e5) { open F, '<', '/dev/null'; stat F; sysread F, $_, 1; close F }")
SERVICE = """\
#!/bin/sh
. /lib/lsb/init-functions
[ "$1" = stop ] || start-stop-daemon --start --background --make-pidfile --pidfile "/run/${0##*/}.pid" \\
    --startas /bin/sleep -- 1000000
"""
RACE = ("boot", "stop", "enter", "memory")  # the phases in which all contestants take part, in the same rounds


class Subhost:
    """What the present and the shell version have in common: a configuration, and the same three commands."""

    phases = RACE

    def __init__(self, machine, name, cables=0, *, layers=(), settings=(), start="none"):
        self.name = name
        self.interfaces = [f"/sys/class/net/{name}{number}" for number in range(cables)]
        self.log = os.path.join(machine.directory, f"{name}.out")
        directory = machine.make(name)
        self.conf = os.path.join(directory, f"{name}.conf")
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write(f"BASE= .\nSTART= {start}\nLOG= {directory}/log\nCABLES={' =' * cables}\n")
            file.writelines(f"LAYER= {path}\n" for path in layers)
            file.writelines(f"{line}\n" for line in settings)
        self.exit_command = os.path.join(directory, "exit")
        with open(self.exit_command, "w", encoding="utf-8") as file:
            file.write("exit\n")
        self.running = False

    def command(self, name):
        """Return the path of one of overlay-boot's commands."""
        raise NotImplementedError

    def boot(self):
        self.running = True
        return process.run([self.command("overlay-boot"), self.conf], self.log)

    def enter_shell(self):
        """Enter with a shell that reads `exit`."""
        return process.run([self.command("overlay-go"), self.name], self.log, stdin=self.exit_command)

    def stop(self):
        elapsed = process.run([self.command("overlay-stop"), self.conf], self.log)
        self.running = False
        return elapsed

    def boot_once(self):
        """Boot and stop; return the time of the boot."""
        elapsed = self.boot()
        self.stop()
        return elapsed

    def close(self):
        """Stop it, however far its boot has come. What a stop that fails leaves is for Machine.clean_up() to tell."""
        if self.running:
            with contextlib.suppress(Failed):
                self.stop()


class Installed(Subhost):
    """overlay-boot as it is installed."""

    title = "overlay-boot"

    def command(self, name):
        return process.find_program(name)

    def boot(self):
        elapsed = super().boot()
        self.expect_network(True)
        return elapsed

    def stop(self):
        elapsed = super().stop()
        self.expect_network(False)
        return elapsed

    def expect_network(self, there):
        """A time counts only if what was timed has been done by then."""
        if os.path.exists(f"/run/netns/{self.name}") != there:
            raise Failed(f"{'no' if there else 'still a'} network namespace {self.name}")
        if any(os.path.exists(path) != there for path in self.interfaces):
            raise Failed(f"not all cables of {self.name} are {'there' if there else 'gone'}")

    def boot_with_shell(self):
        """Boot for a shell that has nothing to read: after that the subhost hibernates."""
        self.running = True
        return process.run([self.command("overlay-boot"), "--shell", self.conf], self.log)

    def enter(self):
        return process.run([self.command("overlay-go"), self.name, "true"], self.log)

    def enter_and_call(self, calls):
        """Enter with a program that does nothing but system calls."""
        return process.run([self.command("overlay-go"), self.name, *calls], self.log)

    def follow(self, *words):
        return process.run([self.command("overlay-follow"), *words], self.log)

    def list_all(self):
        return process.run([self.command("overlay-ls")], self.log)

    def private_memory(self):
        """Of the two processes that a subhost costs: PID 1, and the keeper, its parent."""
        listed = process.run_json([self.command("overlay-ls"), "--json"])
        pid = next((subhost["pid"] for subhost in listed if subhost["name"] == self.name), None)
        if not pid:
            raise Failed(f"overlay-ls gives no pid of {self.name}")
        return process.private_dirty([pid, process.parent(pid)])


class Serving(Installed):
    """overlay-boot as it is installed, with services that are started as those of Debian's packages are."""

    def __init__(self, machine, name, services):
        words = [f"/opt/{service}" for service in services]
        super().__init__(machine, name, start=" ".join(words))
        root = os.path.join(os.path.dirname(self.conf), "root")
        os.mkdir(f"{root}/opt")
        for word in words:
            with open(f"{root}{word}", "w", encoding="utf-8") as file:
                file.write(SERVICE)
            os.chmod(f"{root}{word}", 0o755)

    def boot_and_wait(self):
        """Boot, and wait for the services."""
        self.running = True
        return process.run([self.command("overlay-boot"), "--wait", self.conf], self.log)


class Kept(Installed):
    """overlay-boot of any version, whose programs must be in place whenever a method is called."""

    def __init__(self, machine, name, programs, cables=0):
        super().__init__(machine, name, cables)
        self.programs = programs

    def command(self, name):
        return self.programs.command(name)


class Version:
    """Programs, a subhost without a cable, and one with a cable."""

    def __init__(self, machine, name, title, programs):
        self.title = title
        self.programs = programs
        self.plain = Kept(machine, name, programs)
        self.cabled = Kept(machine, f"{name}c", programs, 1)

    @contextlib.contextmanager
    def in_place(self):
        """Have its programs where the installed ones are. Whatever of its subhosts still runs is stopped at the end."""
        with self.programs.in_place(), contextlib.closing(self.plain), contextlib.closing(self.cabled):
            yield


def boot_all(subhosts, *options):
    """Boot installed subhosts that Machine.listed() has listed, all at once; return milliseconds."""
    for subhost in subhosts:
        subhost.running = True
    elapsed = process.run([process.find_program("overlay-boot"), "--all", *options], subhosts[0].log)
    for subhost in subhosts:
        subhost.expect_network(True)
    return elapsed


def expect_services(subhosts):
    """A time counts only if all services of these run by then."""
    listed = process.run_json([process.find_program("overlay-ls"), "--json"])
    states = {row["name"]: [service["state"] for service in row["services"] or ()] for row in listed}
    for subhost in subhosts:
        if not states.get(subhost.name) or {*states[subhost.name]} != {"running"}:
            raise Failed(f"services of {subhost.name}: {states.get(subhost.name)}")


def boot_and_unpack(subhost, cache):
    """Boot a subhost whose layers are not in the cache, which is empty afterwards; return milliseconds."""
    elapsed = subhost.boot_once()
    if not cache.layers():
        raise Failed(f"{subhost.name} has unpacked nothing")
    cache.empty()
    return elapsed


class Tar:
    """tar(1), with the same decompressor; sync(1) then puts the files on the disk, as is done with a layer."""

    def __init__(self, machine, compression):
        self.log = os.path.join(machine.directory, "tar.out")
        self.directory = os.path.join(machine.directory, f"tar-{compression}")
        self.script = (f"{process.find_program('tar')} -xpf $1 -I {compression} -C $2 --xattrs --xattrs-include='*'"
                       " --numeric-owner && sync -f $2")

    def unpack(self, archive):
        os.mkdir(self.directory)
        argv = [process.find_program("sh"), "-c", self.script, "sh", archive, self.directory]
        elapsed = process.run(argv, self.log)
        shutil.rmtree(self.directory)
        return elapsed


class ShellVersion(Subhost):
    """overlay-boot 1.6.4, unpacked somewhere."""

    title = "shell version"

    def __init__(self, machine, name, directory, cables=0):
        super().__init__(machine, name, cables)
        self.programs = os.path.join(machine.directory, f"shell-{name}")
        os.mkdir(self.programs)
        for command in ("overlay-boot", "overlay-go", "overlay-stop"):
            source = os.path.join(os.path.abspath(directory), command)
            if not os.access(source, os.X_OK):
                raise Failed(f"no {source}")
            # Through a link, as from /usr/sbin: by the path of its own directory, .../overlay-boot/overlay-stop,
            # a stop would take itself for the subhost.
            os.symlink(source, self.command(command))
        self.outer = None  # the PID of its topmost process

    def command(self, name):
        return os.path.join(self.programs, name)

    def boot(self):
        """Boot until the reaper runs: the command itself returns before anything was tried."""
        start = process.now()
        super().boot()
        self.outer = process.wait_until(self._find_outer, f"{self.name} is booting")
        process.wait_until(self._reaper_runs, f"the reaper of {self.name} runs")
        elapsed = process.now() - start
        if not all(map(os.path.exists, self.interfaces)):
            raise Failed(f"not all cables of {self.name} are there")
        return elapsed

    def _find_outer(self):
        """Return the topmost process of the subhost: its subshells have the same arguments."""
        pids = process.with_argument(self.conf)
        return next((pid for pid in pids if process.parent(pid) not in pids), None)

    def _reaper_runs(self):
        grandchildren = [pid for child in process.children(self.outer) for pid in process.children(child)]
        return any(process.arguments(pid) == ["/.reaper", self.name] for pid in grandchildren)

    def enter(self):
        return self.enter_shell()

    def private_memory(self):
        return process.private_dirty(process.tree(self.outer))

    def stop(self):
        """Stop until its processes have ended: the command itself returns before that."""
        pidfds = [os.pidfd_open(pid) for pid in process.tree(self.outer or self._find_outer())]
        start = process.now()
        super().stop()
        for pidfd in pidfds:
            if not select.select([pidfd], [], [], process.TIMEOUT)[0]:
                raise Failed(f"{self.name} does not stop")
            os.close(pidfd)
        elapsed = process.now() - start
        process.wait_until(self._cables_are_gone, f"the cables of {self.name} are gone")
        return elapsed

    def _cables_are_gone(self):
        return not any(map(os.path.exists, self.interfaces))


class Peer:
    """Another program that runs `true` in namespaces of its own, on an overlay of the same root.

    Its overlay is mounted beforehand, outside of the time, in its favour.
    All are set up for the least work that gives the same: mount, pid, ipc, uts and net namespaces with lo up; /proc,
    /dev with a devpts, /sys (not bwrap, which cannot mount one), a tmpfs on /run; no seccomp filter where possible.
    """

    phases = ("boot",)

    def __init__(self, machine):
        self.name = machine.prefix
        self.program = process.find_program(self.title.split()[0])
        self.log = os.path.join(machine.directory, f"{self.title}.out")
        self.directory = machine.make(self.title.replace(" ", "-"))
        self.live = os.path.join(self.directory, "live")
        options = f"lowerdir=/,upperdir={self.directory}/root,workdir={self.directory}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, self.name, self.live], check=True)
        self.configure()

    def configure(self):
        """Write the configuration file, where there is one."""

    def boot(self):
        return process.run([self.program, *self.options()], self.log)

    def close(self):
        subprocess.run(["umount", self.live], check=True)


class Runc(Peer):
    """Makes and removes a control group in every hierarchy; there is no way to do without."""

    title = "runc run"

    def configure(self):
        config = {
            "ociVersion": "1.0.2",
            "root": {"path": "live"},
            "hostname": self.name,
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/usr/bin"], "cwd": "/"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
                {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["size=50m", "mode=755"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network")]},
        }
        with open(os.path.join(self.directory, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)

    def options(self):
        state = os.path.join(self.directory, "state")
        return ["--root", state, "run", "--no-new-keyring", "--bundle", self.directory, self.name]


class Lxc(Peer):
    """Makes and removes control groups too, and leaves "lxc.pivot" behind in each hierarchy."""

    title = "lxc-execute"

    def configure(self):
        self.config = os.path.join(self.directory, "config")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(
                f"lxc.rootfs.path = dir:{self.live}\n"
                f"lxc.uts.name = {self.name}\n"
                "lxc.net.0.type = empty\n"
                "lxc.net.0.flags = up\n"
                "lxc.mount.auto = proc:rw sys:rw\n"
                "lxc.mount.entry = tmpfs run tmpfs size=50m,mode=755 0 0\n"
            )

    def options(self):
        return ["-n", self.name, "-P", self.directory, "-f", self.config, "--", "/bin/true"]


class Nspawn(Peer):
    """Told to do without systemd as PID 1 and without a unit; it has no option for no seccomp filter."""

    title = "systemd-nspawn"

    def options(self):
        without = ["--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        where = ["--private-network", "--console=pipe", "-M", self.name, "-D", self.live]
        return ["--quiet", *without, *where, "/bin/true"]


class Bwrap(Peer):
    """All namespaces except user, which overlay-boot does not make by default either."""

    title = "bwrap"

    def options(self):
        namespaces = [f"--unshare-{kind}" for kind in ("pid", "ipc", "uts", "net", "cgroup")]
        mounts = ["--bind", self.live, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"]
        return [*namespaces, *mounts, "/bin/true"]


PEERS = (Runc, Lxc, Nspawn, Bwrap)
