"""Subhosts that start and stop with the machine, in machines where systemd or sysvinit is PID 1: tests/support/fresh.py."""
import shutil

import pytest
from conftest import cannot_run
from fresh import RUNNERS, SLOW, Fresh
from machine import TREE, run

INSTALLED = [path for path in run("dpkg", "-L", "overlay-boot").stdout.splitlines() if "/subhosts" in path]


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
def test_with_the_machine(run_directory, system):
    """Install, start, stop, fail; then the machine is shut down and booted again.

    All of it happens in that machine: other tests may use this one meanwhile.
    """
    fresh, directory = Fresh(system), f"{run_directory}/{system}"
    share = shutil.copytree(f"{TREE}/tests/shell/init", f"{directory}/share")
    for phase in ("first", "rebooted"):
        assert "ok: " in fresh.run(share, f"/share/{system} {phase}", "--cold", "--disk", f"{directory}/disk"), phase
