"""The names of capabilities, and the policy of system calls."""
import glob
import importlib
import itertools
import re
import sysconfig

import pytest

from overlay_boot import capabilities, environment
from overlay_boot.system_calls import DECISIVE, USUAL, compiler, policy, ranges

GROUPS = policy.read()
LONGEST = 350       # instructions of a filter, with the 32-bit calls: an export of libseccomp has a thousand
NEWEST = 450        # of the calls that every libseccomp since Debian 12 knows
OF_ARM = range(0xf0001, 0xf0007)        # its own, <asm/unistd.h> there


def seccomp():
    """libseccomp's Python module, where Debian has it."""
    environment.find_packages()
    return importlib.import_module("seccomp")


def name_of(architecture, number):
    """The name of a call by its number on an architecture, or None."""
    try:
        return seccomp().resolve_syscall(getattr(seccomp().Arch, architecture), number).decode()
    except ValueError:
        return None


def number_of(architecture, name):
    """The number of a call on an architecture, or -1."""
    try:
        return max(seccomp().resolve_syscall(getattr(seccomp().Arch, architecture), name), -1)
    except RuntimeError:
        return -1


def of_header(path, pattern):
    with open(path, encoding="utf-8") as file:
        return re.findall(pattern, file.read(), re.MULTILINE)


def test_capabilities_are_those_of_the_kernel():
    found = of_header("/usr/include/linux/capability.h", r"^#define CAP_(\w+)\s+(\d+)$")
    assert dict(found) == {name: str(number) for number, name in enumerate(capabilities.NAMES[:len(found)])}


def test_every_set_is_written_so_that_it_is_read():
    for mask in (capabilities.DEFAULT, capabilities.ALL, 0, 1, capabilities.DEFAULT | 1 << 40):
        assert capabilities.parse(capabilities.text_of(mask)) == mask


def test_every_call_is_in_the_policy_once():
    calls = [call.name for group in GROUPS.values() for call in group.calls]
    assert len(calls) == len(set(calls))
    # Debian 13 has the headers of all its ports in one package.
    for path in glob.glob(f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}/asm/unistd*.h"):
        known = {name for name, number in of_header(path, r"^#define __NR_(\w+)\s+(\d+)$") if int(number) < NEWEST}
        assert known - set(calls) == set()
    for architecture in itertools.chain(*compiler.ARCHITECTURES.values()):
        assert {name_of(architecture, number) for number in (*range(NEWEST), *OF_ARM)} - {None} - set(calls) == set()


def test_what_is_left_out_has_a_reason():
    with open(policy.FILE, encoding="utf-8") as file:
        blocks = file.read().split("\n\n")
    plain = {"@host-name", "@modules", "@reboot", "@accounting"}       # their names say it
    for block in blocks:
        header = next((line for line in block.splitlines() if line.startswith("@")), "")
        if header.endswith(("refused", "unknown")) and header.split()[0] not in plain:
            assert block.startswith("# "), header


def test_the_policy_depends_on_what_it_is_said_to():
    named = {group.capability for group in GROUPS.values() if group.capability}
    assert capabilities.mask_of(tuple(named)) == DECISIVE
    assert len(USUAL) == 4


@pytest.mark.parametrize("text, allowed, refused", [
    ("default", "openat", "keyctl"), ("+keyctl", "keyctl", "bpf"), ("+@keys -openat", "add_key", "openat"), ("openat", "execve", "ptrace"),
    ("@files", "write", "socket"), ("default", "clone", "unshare")])
def test_values(text, allowed, refused):
    found = {call.name: call.verdict for call in policy.calls(text, GROUPS, capabilities.names_of(capabilities.DEFAULT))}
    assert (found[allowed], found[refused], found["clone3"]) == ("allowed", "refused", "unknown")


@pytest.mark.parametrize("text, has_condition", [
    ("default", True), ("+@network", True), ("@network @files @processes", True), ("+@processes +@network", True), ("+socket", False),
    ("+@network +socket", False)])
def test_the_calls_of_a_group_keep_their_conditions(text, has_condition):
    """What is meant to be stricter opens nothing; a call by its own name is meant as it is said."""
    found = {call.name: call for call in policy.calls(text, GROUPS, capabilities.names_of(capabilities.DEFAULT))}
    assert bool(found["socket"].condition) == has_condition and found["socket"].verdict == "allowed"
    assert found["clone"].verdict != "allowed" or found["clone"].condition


def test_a_capability_allows_its_calls():
    found = {call.name: call for call in policy.calls("default", GROUPS, ["SYS_ADMIN"])}
    assert found["mount"].verdict == found["unshare"].verdict == "allowed" and found["clock_settime"].verdict == "refused"
    assert found["clone"].verdict == "allowed" and not found["clone"].condition     # with the flags of unshare(2)


ARCHITECTURES = (0xc000003e, 0x40000003, 0xc00000b7, 0x40000028, 0)        # <linux/audit.h>: these, and what is none


def decision(program, number, architecture, arguments):
    """What the kernel does with a filter: the action for a call with six arguments."""
    asked = {0: number, 4: architecture}
    for index, argument in enumerate(arguments):
        asked[16 + 8 * index], asked[20 + 8 * index] = argument & 0xffffffff, argument >> 32
    at = value = 0
    while True:
        operation, yes, no, operand = program[at]
        at += 1
        if operation == 0x06:
            return operand
        if operation == 0x20:
            value = asked[operand]
        elif operation == 0x54:
            value &= operand
        elif operation == 0x05:
            at += operand
        else:
            at += yes if {0x15: value == operand, 0x25: value > operand, 0x35: value >= operand}[operation] else no


@pytest.mark.parametrize("text, mask, machine", [
    *(("default", mask, "x86_64") for mask in USUAL), ("+keyctl -chroot", 0, "x86_64"), ("openat", 0, "x86_64"), ("default", 0, "aarch64")])
def test_the_short_filter_decides_as_that_of_libseccomp(text, mask, machine):
    exported = compiler.exported(policy.calls(text, GROUPS, capabilities.names_of(mask)), machine)
    programs = [[*ranges.LAYOUT.iter_unpack(instructions)] for instructions in (exported, ranges.shortened(exported))]
    assert len(programs[1]) < min(LONGEST, len(programs[0]) / 2)
    operands = {operand + more for _, _, _, operand in programs[0] for more in (-1, 0, 1)}
    numbers = sorted(number for number in {*range(600), *operands, 0xffffffff} if 0 <= number < 1 << 32)
    arguments = itertools.cycle([(operand,) * 6 for operand in (*numbers[600:], 0, 1 << 32)])
    decisions = set()
    for architecture, number, given in ((architecture, number, next(arguments)) for architecture in ARCHITECTURES
                                        for number in numbers for _ in range(7)):
        first, second = (decision(program, number, architecture, given) for program in programs)
        assert first == second, (architecture, number, given)
        decisions.add(first)
    assert decisions == {0x7fff0000, 0x50000 | 1, 0x50000 | 38}


def test_a_branch_that_would_skip_too_much_goes_by_a_jump(monkeypatch):
    calls = policy.calls("default", GROUPS, capabilities.names_of(capabilities.DEFAULT))
    exported = compiler.exported(calls, "x86_64")
    monkeypatch.setattr(ranges, "FAR", 20)
    programs = [[*ranges.LAYOUT.iter_unpack(instructions)] for instructions in (exported, ranges.shortened(exported))]
    assert max(max(yes, no) for _, yes, no, _ in programs[1]) <= 21
    for architecture, number in itertools.product(ARCHITECTURES, range(600)):
        for argument in (0, 1, 16, 40, 0x10000000):
            first, second = (decision(program, number, architecture, (argument,) * 6) for program in programs)
            assert first == second, (architecture, number, argument)


DECISIONS = {"allowed": 0x7fff0000, "refused": 0x50000 | 1, "unknown": 0x50000 | 38}       # EPERM, ENOSYS


def expected(call):
    """(the six arguments, the verdict) of a call, with its condition met, and with it not met."""
    if not call.condition:
        return [((0,) * 6, call.verdict)]
    bits = [1 << number for number in range(32) if call.condition.lacks >> number & 1]
    good = call.condition.values or [0, 0xffffffff ^ call.condition.lacks]
    bad = bits or [number for number in (*range(50), 0xffffffff) if number not in good]
    return [((argument,) * 6, verdict) for arguments, verdict in ((good, "allowed"), (bad, "refused")) for argument in arguments]


@pytest.mark.parametrize("machine, architecture, token", [
    ("x86_64", "X86_64", 0xc000003e), ("aarch64", "AARCH64", 0xc00000b7), ("aarch64", "ARM", 0x40000028)])
def test_the_policy_holds_for_the_machine(machine, architecture, token):
    calls = policy.calls("default", GROUPS, capabilities.names_of(capabilities.DEFAULT))
    program = [*ranges.LAYOUT.iter_unpack(ranges.shortened(compiler.exported(calls, machine)))]
    there = [(call, number_of(architecture, call.name)) for call in calls]
    there = [(call, number) for call, number in there if number >= 0]
    assert len(there) > 280
    for call, number in there:
        for arguments, verdict in expected(call):
            assert decision(program, number, token, arguments) == DECISIONS[verdict], (call.name, number, arguments)
    unknown = {*range(600), *OF_ARM, 0xffffffff} - {number for _, number in there}
    assert {decision(program, number, token, (0,) * 6) for number in unknown} == {DECISIONS["unknown"]}
    assert decision(program, 0, 0xf3, (0,) * 6) == DECISIONS["unknown"]


@pytest.mark.parametrize("token, number, argument, verdict", [
    (0xc00000b7, 56, 0, "allowed"), (0xc00000b7, 40, 0, "refused"), (0xc00000b7, 220, 17, "allowed"), (0xc00000b7, 220, 0x10000011, "refused"),
    (0xc00000b7, 435, 0, "unknown"), (0xc00000b7, 198, 2, "allowed"), (0xc00000b7, 198, 40, "refused"), (0xc00000b7, 219, 0, "refused"),
    (0x40000028, 322, 0, "allowed"), (0x40000028, 0xf0005, 0, "allowed"), (0x40000028, 21, 0, "refused"), (0x40000028, 281, 40, "refused")])
def test_calls_by_their_numbers_on_arm64(token, number, argument, verdict):
    """openat, mount, clone, clone3, socket, keyctl; of 32-bit programs openat, set_tls, mount, socket."""
    calls = policy.calls("default", GROUPS, capabilities.names_of(capabilities.DEFAULT))
    program = [*ranges.LAYOUT.iter_unpack(ranges.shortened(compiler.exported(calls, "aarch64")))]
    assert decision(program, number, token, (argument, *[0] * 5)) == DECISIONS[verdict]
