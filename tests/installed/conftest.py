"""Fixtures: subhosts of a test, and the machine before and after it.

The run has a warden: a parent process that every orphan of it comes to, so
that its processes are known by parentage, whatever others run on the machine.
"""
import ctypes
import os
import re
import shutil
import signal
import tempfile

import machine as shared
import pytest
import roots
from network import Host

SUBREAPER = 36      # PR_SET_CHILD_SUBREAPER, prctl(2)
LONGEST = 300       # seconds, for one test


def pytest_configure(config):
    config.addinivalue_line("markers", "deadline(seconds): how long the test may take")
    if os.geteuid() == 0 and not config.option.collectonly:
        ward()


def ward():
    """Go on as a child process; the parent adopts and reaps, and ends as we do."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    warden, child = os.getpid(), os.fork()
    if child == 0:
        shared.WARDEN = warden
        return
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGINT))
    process = status = 0
    while process != child:
        process, status = os.waitpid(-1, 0)
    for left in shared.descendants(warden):
        shared.kill(left, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


@pytest.fixture(autouse=True)
def deadline(request):
    """No test waits for ever; one that is marked takes as many seconds as it says."""
    marked = request.node.get_closest_marker("deadline")
    longest = marked.args[0] if marked else LONGEST

    def over(*_):
        raise TimeoutError(f"the test has not ended within {longest} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(longest)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def cannot_run(why):
    """This test cannot run here: it says so, and fails where it must."""
    if shared.MUST_RUN:
        pytest.fail(f"cannot run: {why}")
    pytest.skip(why)


@pytest.fixture(scope="session")
def bootable():
    """Whether subhosts can be booted here at all; if not, why not."""
    if os.geteuid() != 0:
        return "not root"
    for command in (shared.BOOT, shared.GO, shared.LS, shared.STOP):
        if not os.path.exists(command):
            return f"{command} is not installed"
    tried = shared.run("unshare", "-mpiunCTf", "--mount-proc", "true")
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.fixture(scope="session")
def run_directory(bootable):
    """A directory of this run on a real file system, in which a subhost's files can be."""
    if bootable:
        cannot_run(bootable)
    directory = tempfile.mkdtemp(prefix=f"{shared.PREFIX}.", dir="/var/tmp")
    os.chmod(directory, 0o755)
    # In a container the root is an overlay itself, and no overlay can be written to another.
    covered = shared.run("stat", "-fc", "%T", directory).stdout.strip() == "overlayfs"
    if covered:
        shared.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", directory)
    yield directory
    if covered:
        shared.run("umount", directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session", autouse=True)
def built_in_defaults(request):
    """The defaults that the administrator of the machine has set for all subhosts are not in the way of the run."""
    if os.geteuid() != 0 or not os.path.lexists(shared.SITE_WIDE):
        yield
        return
    place, empty = os.path.dirname(shared.SITE_WIDE), tempfile.mkdtemp(prefix=f"{shared.PREFIX}.", dir="/var/tmp")
    assert shared.run("mount", "--bind", empty, place).returncode == 0
    yield
    assert shared.run("umount", place).returncode == 0
    os.rmdir(empty)


@pytest.fixture(scope="module")
def own_cache(run_directory):
    """The cache of the machine is left alone: for the module's time another one is there."""
    os.makedirs(shared.CACHE, mode=0o755, exist_ok=True)
    assert shared.run("mount", "--bind", tempfile.mkdtemp(dir=run_directory), shared.CACHE).returncode == 0
    yield
    assert shared.run("umount", shared.CACHE).returncode == 0


class Machine:
    """The machine as it was when the test began, and as it was when the test looked last."""

    def __init__(self):
        self.first = self.before = shared.Snapshot()

    def look(self):
        """What the test has done itself so far is no difference."""
        self.before = shared.Snapshot()

    def is_as_before(self):
        differences = shared.Snapshot().differences(self.before)
        assert not differences, f"the machine is not as it was before:\n{differences}"


@pytest.fixture
def machine(run_directory):
    """The machine has to be after the test what it was before."""
    found = Machine()
    yield found
    try:
        shared.wait_for(lambda: not shared.Snapshot().differences(found.first), 2)
    except AssertionError:
        differences = shared.Snapshot().differences(found.first)
        shared.end_all(found.first["processes"])
        pytest.fail(f"the test has left on the machine:\n{differences}")


@pytest.fixture
def host(run_directory, machine):
    """A host of the test's own, with no interfaces and no subhosts but the test's: network.Host."""
    with Host(f"{run_directory}/{shared.new_name()}") as made:
        machine.look()
        yield made


@pytest.fixture
def site_wide(host, machine, run_directory):
    """Writes the site-wide defaults of the test's own host: site_wide(line, ...).  Returns their path."""
    place = os.path.dirname(shared.SITE_WIDE)
    assert shared.run("mount", "--bind", tempfile.mkdtemp(dir=run_directory), place).returncode == 0
    machine.look()
    return lambda *lines: shared.write(shared.SITE_WIDE, "".join(f"{line}\n" for line in lines))


@pytest.fixture
def directory(run_directory, machine):
    """A directory of the test's own."""
    made = tempfile.mkdtemp(dir=run_directory)
    os.chmod(made, 0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def subhost(directory, machine):
    """Makes subhosts, which are stopped when the test ends: subhost(VARIABLE=value, ...)."""
    made = []

    def make(name=None, place=None, **settings):
        one = shared.Subhost(place or directory, name, **settings)
        made.append(one)
        return one

    yield make
    for one in made:
        one.remove()


@pytest.fixture
def running(subhost):
    """A subhost over the machine's own root, booted with START=none."""
    return subhost().booted()


@pytest.fixture
def unfenced(subhost):
    """A subhost like that, in which root has all capabilities."""
    return subhost(**shared.UNFENCED).booted()


@pytest.fixture
def terminal(machine):
    """Runs a command on a terminal of its own: terminal(command, ...)."""
    made = []

    def make(*command, **how):
        made.append(shared.Terminal(*command, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def small_root(run_directory):
    """A root file system of a dozen programs, not to be written to."""
    return shared.small_root(f"{run_directory}/small")


@pytest.fixture(scope="session")
def debian_root(run_directory):
    """A fresh Debian system of the run's own, in a directory: debian_root(kind, packages, hook, ..., suite=another)."""
    def make(kind, packages, *hooks, seconds=280, suite=None):
        if not shutil.which("mmdebstrap") or not roots.suite() or not roots.sources():
            cannot_run("no mmdebstrap(1), or no package sources of Debian's")
        try:
            archive = roots.archive(kind, packages, hooks, seconds, suite or roots.suite())
        except RuntimeError as error:
            cannot_run(str(error))
        root = f"{run_directory}/{suite or 'debian'}.{kind}"
        os.mkdir(root)
        done = shared.run("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", archive, "-C", root, seconds=seconds)
        assert done.returncode == 0, done.stderr
        return root

    return make


@pytest.fixture(scope="session")
def init_root(run_directory):
    """A root file system with an init system, made once, as an example of a configuration says: init_root(example)."""
    if not shutil.which("mmdebstrap"):
        cannot_run("no mmdebstrap")

    def make(example):
        root = f"{run_directory}/{example}.debian"
        if not os.path.exists(root):
            include = re.search(r"mmdebstrap (--include=\S+)", shared.read(f"{shared.TREE}/conf-examples/{example}.conf"))[1]
            ended = shared.run("mmdebstrap", "--mode=root", "--variant=minbase", include, "bookworm", root, seconds=250)
            if ended.returncode:
                shutil.rmtree(root)         # a part of one is none for the next test
                pytest.fail(ended.stderr[-2000:])
        return root

    return make


@pytest.fixture(scope="session")
def systemd_root(init_root):
    """The one with systemd, for a test whose own host has no network to make it by: it is made before that."""
    return init_root("systemd")


@pytest.fixture
def own_root(small_root, directory):
    """A copy of it, for a test to do with as it likes."""
    return shutil.copytree(small_root, f"{directory}/own", symlinks=True)


@pytest.fixture
def apart():
    """Puts what is in a directory on a file system of its own: apart(path)."""
    mounted = []

    def apart(path):
        os.rename(path, f"{path}.moved")
        os.mkdir(path)
        assert shared.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path).returncode == 0
        mounted.append(path)
        shutil.copytree(f"{path}.moved", path, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(f"{path}.moved")
    yield apart
    for path in reversed(mounted):
        assert shared.run("umount", path).returncode == 0, path


@pytest.fixture
def fails(machine):
    """A boot fails: not 0, one line that tells the words, and nothing left.  fails(subhost or words of a command, word, ...)."""
    def check(command, *words, **how):
        done = command.boot(**how) if isinstance(command, shared.Subhost) else shared.run(*command, **how)
        machine.is_as_before()
        line = shared.one_line(done)
        for word in words:
            assert word in line, line
        assert done.stdout == ""
        return line
    return check
