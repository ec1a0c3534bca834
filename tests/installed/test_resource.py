"""ocf:overlay-boot:subhost, the resource agent, as a cluster calls it."""
import os
import shutil
import signal

import pytest
from machine import BOOT, STATES, descendants, run, wait_for

AGENT = "/usr/lib/ocf/resource.d/overlay-boot/subhost"
SUCCESS, ERROR, ARGUMENTS, UNIMPLEMENTED, PERMISSION, INSTALLED, CONFIGURED, STOPPED = range(8)
SERVICE = "#!/bin/sh\n[ $1 != start ] || exec sleep 1000 </dev/null >/dev/null 2>&1 &\n"


def act(action, conf, level=0, **how):
    """The exit status of an action, and its exit reason."""
    env = {"OCF_RESKEY_conf": conf or "", "OCF_CHECK_LEVEL": str(level), "OCF_ROOT": "/usr/lib/ocf"}
    done = run(AGENT, action, env=env, **how)
    assert not done.stdout
    *told, last = done.stderr.splitlines() or [""]
    assert not last or last.startswith("ocf-exit-reason:"), done.stderr
    return done.returncode, last.removeprefix("ocf-exit-reason:"), told


@pytest.fixture
def served(subhost):
    """A subhost with a service that stays."""
    one = subhost(START="one")
    one.write("etc/init.d/one", SERVICE, 0o755)
    return one


def test_from_start_to_stop(served):
    """Each action twice, as a cluster may ask for what is so already."""
    conf = served.conf
    assert act("validate-all", conf) == (SUCCESS, "", [])
    assert act("monitor", conf) == (STOPPED, "", [])
    assert act("stop", conf) == (SUCCESS, "", [])
    for _ in range(2):
        assert act("start", conf) == (SUCCESS, "", [])
        assert served.row()["state"] == "running"
        assert act("monitor", conf) == (SUCCESS, "", [])
        assert act("monitor", conf, 10) == (SUCCESS, "", [])
        assert act("notify", conf) == (SUCCESS, "", [])
    for _ in range(2):
        assert act("stop", conf) == (SUCCESS, "", [])
        assert served.row() is None
        assert act("monitor", conf) == (STOPPED, "", [])


def test_start_fails_with_a_service(served):
    served.write("etc/init.d/one", "#!/bin/sh\necho broken >&2\nexit 4\n", 0o755)
    status, why, told = act("start", served.conf)
    assert (status, why) == (ERROR, f"{served.name}: not all of its services have been started")
    assert len(told) == 1 and told[0].startswith("subhost: cannot start one: exit status 4: broken (")
    assert act("monitor", served.conf) == (SUCCESS, "", [])
    assert act("monitor", served.conf, 10) == (ERROR, f"{served.name}: services have failed or ended: one", [])
    assert act("stop", served.conf) == (SUCCESS, "", [])


def test_a_service_that_was_killed(served):
    assert act("start", served.conf)[0] == SUCCESS
    sleeper = next(pid for pid, name in descendants(served.init).items() if name == "sleep")
    os.kill(sleeper, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{sleeper}"))
    assert act("monitor", served.conf) == (SUCCESS, "", [])
    assert act("monitor", served.conf, 10) == (ERROR, f"{served.name}: services have failed or ended: one", [])


@pytest.mark.parametrize("victim", ["keeper", "init"])
def test_a_subhost_that_was_killed(served, victim):
    """Whatever is left of it, a monitor does not call it stopped before a stop has cleared it."""
    assert act("start", served.conf)[0] == SUCCESS
    os.kill(getattr(served, victim), signal.SIGKILL)
    wait_for(lambda: act("monitor", served.conf)[0] in (ERROR, STOPPED))
    if victim == "keeper":
        assert act("monitor", served.conf) == (ERROR, f"{served.name} has ended, but has not been cleared up", [])
    assert act("stop", served.conf) == (SUCCESS, "", [])
    assert act("monitor", served.conf) == (STOPPED, "", [])
    assert not os.path.exists(f"{STATES}/{served.name}")


def test_stop_without_the_configuration(served):
    """The storage that has the file may be gone; the record on this node is not."""
    assert act("start", served.conf)[0] == SUCCESS
    os.rename(served.conf, f"{served.conf}.away")
    assert act("monitor", served.conf) == (SUCCESS, "", [])
    assert act("stop", served.conf) == (SUCCESS, "", [])
    assert served.row() is None
    assert act("monitor", served.conf) == (STOPPED, "", [])
    assert act("stop", served.conf) == (SUCCESS, "", [])
    assert act("start", served.conf) == (INSTALLED, f"{served.conf}: no such file on this node", [])
    assert act("validate-all", served.conf)[0] == INSTALLED


def test_another_file_of_that_name_is_another_resource(subhost, directory):
    one = subhost().booted()
    os.mkdir(f"{directory}/other")
    other = f"{directory}/other/{one.name}.conf"
    shutil.copy(one.conf, other)
    assert act("monitor", other) == (STOPPED, "", [])
    assert act("stop", other) == (SUCCESS, "", [])
    assert one.row()["state"] == "running"
    status, why, _ = act("start", other)
    assert status == ERROR and f"from {one.conf}" in why


def test_reload_where_the_file_has_changed(served):
    assert act("reload", served.conf) == (STOPPED, f"{served.name} is not running", [])
    assert act("start", served.conf)[0] == SUCCESS
    before = served.init
    assert act("reload", served.conf) == (SUCCESS, "", [])
    assert served.init == before
    with open(served.conf, "a") as file:
        file.write("STOP_TIMEOUT= 5\n")
    assert act("reload", served.conf) == (SUCCESS, "", [])
    assert served.init != before and act("monitor", served.conf, 10)[0] == SUCCESS
    before = served.init
    old, new = f"{STATES}/{served.name}", f"{STATES}/{served.name}r"
    served.configure(START="one", NAME=f"{served.name}r")
    assert act("reload", served.conf) == (SUCCESS, "", [])
    assert os.path.exists(new) and not os.path.exists(old)
    served.configure(START="one")
    assert act("reload", served.conf) == (SUCCESS, "", [])
    assert os.path.exists(old) and not os.path.exists(new)
    before = served.init
    served.configure(NAME="a/b")
    status, why, _ = act("reload", served.conf)
    assert status == ARGUMENTS and why.startswith("NAME=a/b: ")
    assert act("monitor", served.conf) == (SUCCESS, "", []) and served.init == before
    assert act("stop", served.conf) == (SUCCESS, "", [])


def test_hibernating_is_no_state_of_a_resource(served, terminal):
    shell = terminal(BOOT, "--shell", served.conf)
    shell.type("exit\n")
    assert shell.ended() == 0
    status, why, _ = act("monitor", served.conf)
    assert status == ERROR and f"{served.name} is hibernating" in why
    assert act("stop", served.conf) == (SUCCESS, "", [])
    assert act("monitor", served.conf)[0] == STOPPED


def test_what_is_wrongly_called(served):
    assert act("monitor", None) == (CONFIGURED, "the parameter conf is missing", [])
    assert act("start", "one.conf") == (CONFIGURED, "conf=one.conf: not an absolute path", [])
    assert act("promote", served.conf) == (UNIMPLEMENTED, "promote: no such action", [])
    assert act("", served.conf) == (UNIMPLEMENTED, ": no such action", [])
    assert act("monitor", served.conf, user="nobody", group="nogroup") == (PERMISSION, "must be run as root", [])


def test_meta_data_for_everybody():
    done = run(AGENT, "meta-data", user="nobody", group="nogroup")
    assert done.returncode == SUCCESS and not done.stderr
    from xml.etree import ElementTree
    agent = ElementTree.fromstring(done.stdout)
    assert agent.get("name") == "subhost"
    offered = {action.get("name") for action in agent.iter("action")}
    assert offered == {"start", "stop", "monitor", "reload", "notify", "validate-all", "meta-data"}
    assert {action.get("depth") for action in agent.iter("action") if action.get("name") == "monitor"} == {"0", "10"}
