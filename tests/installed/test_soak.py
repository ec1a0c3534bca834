"""Many lives of a subhost, one after the other, with all that it can have.

Some seconds of it by default; an hour:

    OVERLAY_BOOT_SOAK=3600 tests/run -k soak
"""
import os
import statistics
import time

import pytest

SECONDS = float(os.environ.get("OVERLAY_BOOT_SOAK", "8"))
MEMORY = ("SUnreclaim", "KernelStack", "Percpu")      # /proc/meminfo


def memory():
    """The bytes of the kernel's own that it does not give back by itself."""
    with open("/proc/meminfo") as file:
        found = dict(line.split(":") for line in file)
    return sum(int(found[key].split()[0]) << 10 for key in MEMORY)


@pytest.mark.deadline(int(SECONDS) + 60)
def test_soak(subhost, directory, host, machine):
    """Nothing piles up: not on the machine, not in the kernel's memory, and no boot becomes slower."""
    os.mkdir(f"{directory}/shared")
    one = subhost(UPPER="tmpfs:10M", CABLES="=", SHARE=f"{directory}/shared:/data")
    machine.look()
    times, used, end = [], [], time.monotonic() + SECONDS
    while time.monotonic() < end or len(times) < 20:
        began = time.monotonic()
        assert one.boot().returncode == 0
        times.append(time.monotonic() - began)
        assert one.inside("cat", "/proc/1/comm") == ".reaper"
        one.stopped()
        used.append(memory())
    machine.is_as_before()
    quarter = len(times) // 4
    assert statistics.median(times[-quarter:]) < 2 * statistics.median(times[:quarter])
    assert min(used[-quarter:]) - min(used[:quarter]) < 16 << 20
