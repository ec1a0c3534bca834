"""Killed anywhere: whatever is killed, whenever, the next overlay-stop leaves the machine as it was.

The commands are run under strace(1), which kills them, or a process that they start, or has a system call of theirs
fail, at every call that changes something, one after the other.  After each, an overlay-stop, or an overlay-boot and an
overlay-stop, must leave nothing: see injection.py, and sandbox.py for where that is.  By default every site occurs, each
kind of call with each of its arguments: what fails, in the first scenario that has it; a signal, in that one and in a
quarter of the other boots, in each another quarter.  All calls, in all scenarios, with both ways of recovery, take hours:

    OVERLAY_BOOT_KILL=all tests/run -k killed
"""
import os
import shutil
import signal
import zlib

import injection
import pytest
from conftest import cannot_run
from sandbox import Sandboxes

EVERYTHING = os.environ.get("OVERLAY_BOOT_KILL") == "all"
RECOVERIES = ["stop", "boot"]
ROUNDS = 6      # a call may not be the n-th of its kind every time
QUARTERS = 4
pytestmark = pytest.mark.deadline(7200 if EVERYTHING else 300)
SIGNALS = ["SIGKILL", "SIGTERM"]
ERRORS = ["ENOSPC", "ENOMEM", "EPERM", "EBUSY", "ENOLCK", "EIO"]
SCENARIOS = [name for name, how in injection.SCENARIOS.items() if EVERYTHING or not how.takes_long]
BOOTS = [name for name in SCENARIOS if name.startswith("boot")]


@pytest.fixture(scope="module")
def sandboxes():
    missing = [command for command in ("strace", "unshare", "overlay-boot") if not shutil.which(command)]
    if missing or os.geteuid():
        cannot_run(f"needs {', '.join(missing) or 'root'}")
    made = Sandboxes(injection.__file__, os.cpu_count() or 1)
    made.done = set()       # (injection, site), of all scenarios so far
    made.signalled = set()  # (signal, where), of the same
    made.aims = {}          # of each scenario: in the first round, for all tests
    yield made
    made.end()


def inject(sandboxes, scenario, injections):
    """Inject in a scenario: what was wrong, and where an injection was to be but never happened."""
    told, hits, due = [], set(), None
    for attempt in range(ROUNDS):
        if attempt or scenario not in sandboxes.aims:
            sandboxes.aims[scenario] = found(sandboxes, scenario)
        aims = [aim for aim in sandboxes.aims[scenario] if aim["injection"] in injections]
        assert aims
        works = [(scenario, aim, recovery) for number, aim in enumerate(chosen(scenario, aims, sandboxes))
                 if due is None or aim["where"] in due
                 for recovery in (RECOVERIES if EVERYTHING else [RECOVERIES[number % 2]])]
        for (_, aim, recovery), (site, wrong) in zip(works, sandboxes.map("inject", works), strict=True):
            hits.add((aim["injection"], site))
            if wrong:
                told.append(f"{scenario}, {aim['injection']} {aim['where']} ({aim['call']} no. {aim['count']}), then "
                            f"overlay-{recovery}:\n  " + "\n  ".join(wrong))
        due = {aim["where"] for _, aim, _ in works if is_due(aim, hits)}
        if told or not due:
            break
    if not told:
        sandboxes.done.update(hits)
        sandboxes.signalled.update((aim["injection"], aim["where"]) for aim in aims)
    return told + [f"{scenario}: nothing was injected {where}" for where in sorted(due)]


def found(sandboxes, scenario):
    """All aims of a scenario, of the command itself and of its child processes."""
    works = [(scenario, children, [*SIGNALS, *ERRORS], EVERYTHING)
             for children in (False, True) if not children or not injection.SCENARIOS[scenario].execs]
    return [aim for aims, _ in sandboxes.map("aims", works) for aim in aims]


def is_due(aim, hits):
    """Whether it must be hit, and was not.  A signal that is caught may be blocked there."""
    return (aim["injection"] != "SIGTERM" and not aim["where"].startswith("after ")
            and (aim["injection"], aim["site"]) not in hits)


def chosen(scenario, aims, sandboxes):
    """Every call once; or every site once, and what fails not in each scenario again.

    Where an earlier scenario has got a signal, another boot gets it in a quarter of the places; one that varies others, in none.
    """
    if EVERYTHING:
        return {(aim["injection"], aim["call"], aim["count"], aim["children"]): aim for aim in aims}.values()
    quarter = list(injection.SCENARIOS).index(scenario) % QUARTERS
    how = injection.SCENARIOS[scenario]

    def is_wanted(aim):
        if aim["injection"] in ERRORS:
            return (aim["injection"], aim["site"]) not in sandboxes.done
        return ((aim["injection"], aim["where"]) not in sandboxes.signalled
                or not how.varies and (not how.boots or zlib.crc32(aim["where"].encode()) % QUARTERS == quarter))

    sites = {(aim["injection"], aim["where"]): aim for aim in reversed(aims) if is_wanted(aim)}
    return {(aim["injection"], aim["call"], aim["count"], aim["children"]): aim for aim in sites.values()}.values()


def check(told):
    assert not told, f"{len(told)} went wrong:\n" + "\n".join(told)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_command_that_is_killed(sandboxes, scenario):
    check(inject(sandboxes, scenario, ["SIGKILL"]))


@pytest.mark.parametrize("scenario", ["boot-whole", "boot-hibernating", "boot-mapped-whole"])
def test_control_groups_of_services_are_among_the_sites(sandboxes, scenario):
    """And the doors to them: what makes those is hit, and fails."""
    sites = {(aim["injection"], aim["where"]) for aim in found(sandboxes, scenario)}
    for injection_, call, what in (("SIGKILL", "mkdirat", "service.service"), ("ENOSPC", "mkdirat", "service.service"),
                                   ("EPERM", "open_tree", "cgroup.procs"), ("SIGKILL", "move_mount", "overlay-services"), ("EBUSY", "move_mount", "overlay-services")):
        assert any(name == injection_ and f"{call}(" in where and what in where for name, where in sites), (injection_, call, sorted(sites))


@pytest.mark.parametrize("scenario", BOOTS)
def test_a_boot_that_is_interrupted(sandboxes, scenario):
    check(inject(sandboxes, scenario, ["SIGTERM"]))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_system_call_that_fails(sandboxes, scenario):
    check(inject(sandboxes, scenario, ERRORS))


@pytest.mark.parametrize("scenario", ["boot", "boot-shell", "boot-mapped", "boot-hiding", "share-mapped"])
@pytest.mark.parametrize(("number", "whom"), [(signal.SIGKILL, "child"), (signal.SIGTERM, "group"), (signal.SIGINT, "group")])
def test_a_signal_to_a_helper(sandboxes, scenario, number, whom):
    """A helper makes what only a process in a user namespace can make, in the memory of the command.  That is told, and undone."""
    helpers, wrong = sandboxes("helpers", scenario)
    assert helpers
    check(wrong)
    works = [(scenario, (int(helper), call), number, whom, RECOVERIES[call % 2]) for helper, calls in helpers.items()
             for call in (range(1, calls + 1) if whom == "child" or EVERYTHING else {1, calls})]
    check([f"at {helper}, then {recovery}: {wrong}" for (_, helper, _, _, recovery), (wrong,) in zip(
        works, sandboxes.map("signal_helper", works), strict=True) if wrong])


@pytest.mark.parametrize("recovery", RECOVERIES)
@pytest.mark.parametrize("victims", ["keeper", "init", "both", "all"])
@pytest.mark.parametrize("conf", ["MINIMAL", "WHOLE"])
def test_a_running_subhost_that_is_killed(sandboxes, conf, victims, recovery):
    check(sandboxes("kill_running", getattr(injection, conf), victims, recovery)[-1])


@pytest.mark.parametrize("conf", ["MINIMAL", "WHOLE"])
def test_a_subhost_whose_init_is_killed_clears_up_by_itself(sandboxes, conf):
    check(sandboxes("kill_running", getattr(injection, conf), "init", "none")[-1])


@pytest.mark.parametrize("conf", ["MINIMAL", "WHOLE"])
def test_everything_killed_at_once_during_a_boot(sandboxes, conf):
    number = 200 if EVERYTHING else 20
    works = [(getattr(injection, conf), at * 0.08 / number, RECOVERIES[at % 2]) for at in range(number)]
    check([f"after {delay:.4f} s, then {recovery}: {wrong}" for (_, delay, recovery), (wrong,) in zip(
        works, sandboxes.map("kill_everything", works), strict=True) if wrong])


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_an_overlay_go_that_is_killed_while_its_command_runs(sandboxes, terminal):
    check(sandboxes("kill_going", terminal)[-1])


@pytest.mark.parametrize("variable", ["BASE", "PREMOUNT", "POSTMOUNT", "INIT"])
def test_a_hook_that_is_killed(sandboxes, variable):
    check(sandboxes("kill_hook", variable)[-1])


@pytest.mark.parametrize("recovery", RECOVERIES)
@pytest.mark.parametrize("variable", ["BASE", "PREMOUNT", "POSTMOUNT", "INIT"])
def test_a_boot_that_is_killed_while_a_hook_runs(sandboxes, variable, recovery):
    check(sandboxes("kill_in_hook", variable, recovery)[-1])
