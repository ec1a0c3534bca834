"""What stands in a directory that may be hostile, while the host goes on."""
import contextlib
import os
import resource
import signal

import pytest
from overlay_boot import beneath

ATTEMPTS = 20000


@pytest.fixture
def renames(tmp_path):
    """A process that does nothing but rename a file."""
    (tmp_path / "one").touch()
    process = os.fork()
    if not process:
        while True:
            os.rename(tmp_path / "one", tmp_path / "two")
            os.rename(tmp_path / "two", tmp_path / "one")
    yield
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def test_renames_elsewhere_are_no_error(tmp_path, renames):
    """The kernel gives up a path with .. in it if anything is renamed meanwhile: openat2(2), EAGAIN."""
    (tmp_path / "root/below/deeper").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to("below/deeper/../../below/deeper/..")
    root = os.open(tmp_path / "root", os.O_PATH)
    for _ in range(ATTEMPTS):
        with beneath.opened(root, "link", os.O_PATH, beneath.INSIDE) as found:
            assert os.fstat(found).st_ino == os.stat(tmp_path / "root/below").st_ino
    os.close(root)


@contextlib.contextmanager
def no_descriptors():
    """None can be had meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_only_what_is_not_there_has_no_names(tmp_path):
    below = os.open(tmp_path, os.O_PATH)
    assert beneath.names(below, "/etc/ssh", beneath.INSIDE) == []
    (tmp_path / "etc").write_text("a file")
    assert beneath.names(below, "/etc/ssh", beneath.INSIDE) == []
    (tmp_path / "ssh_host_key").write_text("key")
    assert sorted(beneath.names(below, "/", beneath.INSIDE)) == ["etc", "ssh_host_key"]
    with pytest.raises(OSError, match="Too many open files"), no_descriptors():
        beneath.names(below, "/", beneath.INSIDE)
    os.close(below)
