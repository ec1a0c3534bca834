"""Limits as they stand in a configuration, and as the kernel has them."""
import glob
import os
import tracemalloc

import pytest
from overlay_boot import limits
from overlay_boot.config import DEFAULTS, LIMITS
from overlay_boot.errors import Failure

DISKS = [os.path.basename(os.path.realpath(path)) for path in sorted(glob.glob("/sys/dev/block/*")) if not os.path.exists(f"{path}/partition")]


@pytest.mark.parametrize("variable, text, lines", [
    ("MEMORY_MAX", "512M", ["536870912"]), ("MEMORY_MAX", "4096", ["4096"]), ("MEMORY_HIGH", "1g", ["1073741824"]), ("MEMORY_SWAP_MAX", "0", ["0"]),
    ("MEMORY_MAX", "max", []), ("MEMORY_HIGH", "max", []), ("MEMORY_SWAP_MAX", "max", []), ("CPU_MAX", "max", []), ("IO_MAX", "max", []),
    ("PIDS_MAX", "max", []), ("PIDS_MAX", "1", ["1"]), ("PIDS_MAX", "4194304", ["4194304"]), ("CPU_MAX", "150%", ["150000 100000"]),
    ("CPU_MAX", "1%", ["1000 100000"]), ("CPU_MAX", "5000", ["5000 100000"]), ("CPU_MAX", "5000  20000", ["5000 20000"]),
    ("CPU_MAX", "max 20000", ["max 20000"]), ("CPU_WEIGHT", "1", ["1"]), ("CPU_WEIGHT", "10000", ["10000"]), ("IO_WEIGHT", "50", ["50"]),
    ("CPUSET_CPUS", "0", ["0"]), ("CPUSET_CPUS", "0,0-0", ["0,0-0"])])
def test_what_the_kernel_is_told(variable, text, lines):
    assert limits.written(variable, text) == lines


@pytest.mark.parametrize("variable, texts", [
    ("MEMORY_MAX", ["", "0", "4095", "-1", "10%", "512MB", "1.5G", "Max", "none", "5 M", "512M 1G", "99999999999T"]),
    ("MEMORY_HIGH", ["0", "x"]), ("MEMORY_SWAP_MAX", ["", "x", "-1", "5%"]),
    ("CPU_MAX", ["", "%", "0%", "-5%", "1.5%", "999", "max 999", "1000 1000001", "1000 100000 1", "x", "50 %", "100000 max", "1\u0665%"]),
    ("CPU_WEIGHT", ["0", "10001", "max", "idle", "1.5", "-1", "\u0665"]), ("IO_WEIGHT", ["0", "10001", "max", "default 100"]),
    ("CPUSET_CPUS", ["max", "x", "1-", "-1", "3-1", "0,", ",0", "0 1", "0-0-0", "0-1:1/2", "99999", "0,99999"]),
    ("IO_MAX", ["x", "rbps=1", "/dev/null rbps=1", "/dev/missing rbps=1", "/etc rbps=1", "4095:1 rbps=1", "8 rbps=1", "8:x rbps=1", ":"]),
    ("PIDS_MAX", ["0", "-1", "4194305", "1k", "100%", "many"])])
def test_what_is_refused(variable, texts):
    for text in texts:
        with pytest.raises(Failure) as failure:
            limits.written(variable, text)
        assert str(failure.value).startswith((f"{variable}={text} is not ", f"{variable}={text}: ")), text


def test_a_long_list_of_processors_takes_no_memory():
    """Of the numbers in it, none beyond the first that is missing is looked at."""
    tracemalloc.start()
    try:
        with pytest.raises(Failure, match=r"the host has no processor \d+$"):
            limits.written("CPUSET_CPUS", "0-4194304,0-4194304")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.fixture
def disk():
    """MAJOR:MINOR of a disk that is there."""
    if not DISKS:
        pytest.skip("this machine has no disk")
    with open(f"/sys/class/block/{DISKS[0]}/dev") as file:
        return file.read().strip()


@pytest.mark.parametrize("text, line", [
    ("rbps=10M", "rbps=10485760"), ("rbps=1 wbps=2k riops=3 wiops=max", "rbps=1 wbps=2048 riops=3 wiops=max"),
    ("riops=4294967295", "riops=4294967295")])
def test_limits_of_a_disk(disk, text, line):
    assert limits.written("IO_MAX", f"{disk}  {text}") == [f"{disk} {line}"]


def test_limits_of_two_disks(disk):
    assert limits.written("IO_MAX", f"{disk} rbps=1 wbps=2 {disk} riops=3") == [f"{disk} rbps=1 wbps=2", f"{disk} riops=3"]


@pytest.mark.parametrize("text", ["", "rbps=", "rbps=0", "rbps=x", "rbps=-1", "riops=1k", "riops=4294967296", "speed=1", "rbps", "rbps=1 /dev/missing",
                                  "rbps=1 4095:1"])
def test_what_limits_no_disk(disk, text):
    with pytest.raises(Failure, match=r"^IO_MAX="):
        limits.written("IO_MAX", f"{disk} {text}")


def test_every_limit_has_a_notation_and_none_is_set():
    assert set(LIMITS) == set(limits.NOTATIONS) == set(limits.MEANT) and all(DEFAULTS[variable] == "" for variable in LIMITS)
    assert limits.file_of("MEMORY_SWAP_MAX") == "memory.swap.max" and limits.controller_of("CPUSET_CPUS") == "cpuset"


def test_a_controller_that_is_missing():
    values = {"MEMORY_MAX": "max", "PIDS_MAX": "5", "IO_WEIGHT": "5"}
    limits.check_host(values, {"pids", "io"})
    with pytest.raises(Failure, match=r"^IO_WEIGHT=5: this host has no controller io for control groups of version 2$"):
        limits.check_host(values, {"pids", "memory"})


@pytest.mark.parametrize("file, text, value", [
    ("memory.max", "max\n", None), ("memory.max", "4096\n", 4096), ("cpu.max", "max 100000\n", None), ("cpu.max", "max 5000\n", "max 5000"),
    ("cpu.max", "150000 100000\n", "150000 100000"), ("cpu.weight", "100\n", None), ("cpu.weight", "50\n", 50), ("io.weight", "default 100\n", None),
    ("io.weight", "default 50\n", 50), ("cpuset.cpus", "\n", None), ("cpuset.cpus", "0\n", "0"), ("io.max", "", None),
    ("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=max wbps=2 riops=max wiops=max\n", "8:0 rbps=1 8:16 wbps=2"),
    ("pids.max", "16384\n", 16384)])
def test_what_the_kernel_says(tmp_path, file, text, value):
    (tmp_path / file).write_text(text)
    group = os.open(tmp_path, os.O_RDONLY)
    assert limits.in_force(group, file) == value
    assert limits.in_force(group, "no.file") is None
    os.close(group)


def test_how_often_a_limit_was_hit(tmp_path):
    (tmp_path / "memory.max").write_text("4096\n")
    (tmp_path / "memory.events").write_text("low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n")
    (tmp_path / "pids.max").write_text("5\n")
    (tmp_path / "pids.events").write_text("max 6\n")
    (tmp_path / "cpu.weight").write_text("7\n")
    group = os.open(tmp_path, os.O_RDONLY)
    assert limits.described(group) == {"MEMORY_MAX": {"value": 4096, "hits": 2, "killed": 4}, "PIDS_MAX": {"value": 5, "hits": 6},
                                       "CPU_WEIGHT": {"value": 7, "hits": None}}
    os.close(group)
