"""The signals that undo a boot."""
import subprocess
import sys

TWO_AT_ONCE = """
import os, signal
from overlay_boot import interruption
from overlay_boot.errors import Failure
interruption.hold()
for number in (signal.SIGTERM, signal.SIGHUP):
    os.kill(os.getpid(), number)
try:
    with interruption.Wait():
        print("not interrupted")
except Failure as failure:
    for _ in range(1000):
        pass
    interruption.ignore()
    print("undone")
"""


def test_the_second_signal_does_not_interrupt_what_undoes_the_boot():
    done = subprocess.run([sys.executable, "-c", TWO_AT_ONCE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("undone\n", "")
