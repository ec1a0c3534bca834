"""Subhosts that start and stop with the machine, in machines that do: systemd or sysvinit is PID 1 there.

OVERLAY_BOOT_VM names the runner for a machine with systemd, OVERLAY_BOOT_VM_SYSVINIT that for one with sysvinit: a
command that takes --timeout SECONDS --share DIR --cold --disk FILE -- COMMAND and runs COMMAND in a fresh Debian that
keeps its disk in FILE, so that the next run with it is a reboot.  Without them the tests are not run.  If that is not
this machine's own suite of Debian, OVERLAY_BOOT_VM_PACKAGES is the directory with the package of that: see tests/machines.
"""
import glob
import os
import shlex
import shutil

import pytest
from conftest import cannot_run
from machine import PATIENCE, TREE, run

RUNNERS = {"systemd": "OVERLAY_BOOT_VM", "sysvinit": "OVERLAY_BOOT_VM_SYSVINIT"}
INSTALLED = [path for path in run("dpkg", "-L", "overlay-boot").stdout.splitlines() if "/subhosts" in path]
PACKAGES = os.environ.get("OVERLAY_BOOT_VM_PACKAGES") or f"{TREE}/build/deb"
SLOW = 1500     # seconds, for a machine on emulation


def test_the_units_are_right(bootable):
    if not shutil.which("systemd-analyze"):
        cannot_run("there is no systemd-analyze here")
    units = [path for path in INSTALLED if path.endswith(".service")]
    ended = run("systemd-analyze", "verify", "--man=no", *(path.replace("@.", "@opt-mta-mta.conf.") for path in units))
    assert len(units) == 3 and (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_the_init_script_is_right():
    script = next(path for path in INSTALLED if path.startswith("/etc/init.d/"))
    assert run("sh", "-n", script).returncode == 0
    if shutil.which("shellcheck"):
        assert run("shellcheck", script).stdout == ""


@pytest.mark.deadline(3 * SLOW)
@pytest.mark.parametrize("system", RUNNERS)
def test_with_the_machine(directory, system):
    """Install, start, stop, fail; then the machine is shut down and booted again."""
    runner = os.environ.get(RUNNERS[system])
    packages = glob.glob(f"{PACKAGES}/overlay-boot_*.deb")
    if not runner or not packages:
        missing = f"there is no package in {PACKAGES}" if runner else f"{RUNNERS[system]} is not set"
        pytest.skip(f"not run: {missing}")
    share = shutil.copytree(f"{TREE}/tests/shell/init", f"{directory}/share")
    shutil.copy(packages[0], share)
    for phase in ("first", "rebooted"):
        ended = run(*shlex.split(runner), "--timeout", str(SLOW), "--share", share, "--cold", "--disk", f"{directory}/disk",
                    "--", f"/share/{system} {phase}", seconds=SLOW + PATIENCE, cwd=TREE)
        print(ended.stdout, ended.stderr)
        assert ended.returncode == 0 and "ok: " in ended.stdout, f"{phase}:\n{ended.stdout[-5000:]}{ended.stderr[-2000:]}"
