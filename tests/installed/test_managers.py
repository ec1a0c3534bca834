"""What else manages networks on a host: systemd-networkd and NetworkManager, in a fresh machine."""
import shutil

import pytest
from fresh import SLOW, Fresh
from machine import TREE


@pytest.mark.deadline(2 * SLOW)
def test_the_cables_are_left_alone_in_a_machine(directory):
    machine = Fresh("systemd", "this machine's network is not to be managed")
    shutil.copy(f"{TREE}/tests/shell/managers", directory)
    assert machine.run(directory, "sh /share/managers").endswith("all is as it should be\n")
