"""Fresh Debian machines, in which tests are run that this machine's init system or kernel is not for.

OVERLAY_BOOT_VM names the runner for a machine with systemd, OVERLAY_BOOT_VM_SYSVINIT that for one with sysvinit: a
command that takes --timeout SECONDS --share DIR --cold --disk FILE -- COMMAND and runs COMMAND in a fresh Debian, with
DIR on /share; with --disk it keeps its disk in FILE, so that the next run with it is a reboot.  Without them the tests are
not run.  If that is not this machine's own suite of Debian, OVERLAY_BOOT_VM_PACKAGES is the directory with the package
of that: see tests/machines.
"""
import glob
import os
import shlex
import shutil

import pytest
from machine import PATIENCE, TREE, run

RUNNERS = {"systemd": "OVERLAY_BOOT_VM", "sysvinit": "OVERLAY_BOOT_VM_SYSVINIT"}
PACKAGES = os.environ.get("OVERLAY_BOOT_VM_PACKAGES") or f"{TREE}/build/deb"
SLOW = 1500     # seconds, for a machine on emulation
TESTS = """
apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \\
    /share/*.deb python3-pytest {packages} >/tmp/apt.log 2>&1 || {{ cat /tmp/apt.log; exit 1; }}
cp -r /share/tests /share/conf-examples /share/pyproject.toml /root
cd /root/tests/installed
PYTHONPATH=/usr/lib/overlay-boot exec python3 -P -m pytest -p no:cacheprovider -v --tb=short {arguments}
"""


class Fresh:
    """Machines with that init system.  What skips the test if there are none, or nothing to install there."""

    def __init__(self, system, why=""):
        runner, packages = os.environ.get(RUNNERS[system]), glob.glob(f"{PACKAGES}/overlay-boot_*.deb")
        if not runner or not packages:
            missing = f"there is no package in {PACKAGES}" if runner else f"{RUNNERS[system]} is not set"
            pytest.skip(f"not run: {f'{why}, and ' if why else ''}{missing}")
        self.runner, self.package = shlex.split(runner), packages[0]
        self.start = ["--cold"] if system == "sysvinit" else []

    def run(self, share, command, *options):
        """Run a command in one, with the package and what else is in that directory on /share: what it prints."""
        shutil.copy(self.package, share)
        ended = run(*self.runner, "--timeout", str(SLOW), "--share", share, *options, "--", command, seconds=SLOW + PATIENCE, cwd=TREE)
        print(ended.stdout, ended.stderr)
        assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
        return ended.stdout

    def test(self, directory, packages, arguments):
        """Run tests in one, by these arguments of pytest's; they pass, unless they are skipped."""
        share = f"{directory}/share"
        shutil.copytree(f"{TREE}/tests", f"{share}/tests", ignore=shutil.ignore_patterns("__pycache__", "unit"))
        shutil.copytree(f"{TREE}/conf-examples", f"{share}/conf-examples")
        shutil.copy(f"{TREE}/pyproject.toml", share)
        said = self.run(share, TESTS.format(packages=packages, arguments=arguments), *self.start)
        assert " passed" in said and "failed" not in said
