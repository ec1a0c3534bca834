"""The configuration file, as the commands take it; and any input at all, by hypothesis."""
import os
import resource
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from machine import ALONE, BOOT, PROGRAMS, Subhost, controllers, mounts, one_line, read, run, warnings, write

# Inputs in total, over all properties
EXAMPLES = int(os.environ.get("OVERLAY_BOOT_EXAMPLES") or (100_000 if ALONE else 10_000))

ODD_VALUES = ["it's", '"quoted"', "back\\slash", "trailing\\", "$HOME", "$(touch x)", "`id`", "two  words", "a;b&c|d", "*",
              "\u00e4\u20ac\U0001f427", os.fsdecode(b"\xff\xfe\x80"), "a,b:c=d", "#x", "%s\\n", "~root", "\u2028", "\u0085x", "a\x0cb"]


def check(subhost, **how):
    return run(BOOT, "--check", subhost.conf, **how)

DEFAULT_CAPABILITIES = ("CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_ADMIN NET_RAW SYS_CHROOT "
                        "AUDIT_WRITE SETFCAP")


def default_of_pids_max():
    return "16384" if "pids" in controllers() else "max"


def checked(subhost, **how):
    """What --check prints, as (variable, value) pairs."""
    done = check(subhost, **how)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split("=", 1)) for line in done.stdout.split("\n")[:-1]]


# Values

def test_defaults(subhost):
    one = subhost(START=None)
    assert dict(checked(one)) == {
        "NAME": one.name, "BASE": one.base, "LIVE": one.live, "UPPER": one.upper, "WORK": one.work, "LOWER": "/", "LOWER_MOUNTS": "yes",
        "HIDE": "none", "CABLES": "", "ADDRESS": "", "ADDRESS_POOL": "10.231.0.0/16 ula", "NAT": "no", "PUBLISH": "",
        "START": "networking ssh", "STAY": "yes", "AFTER": "", "PREMOUNT": "overlay-premount", "POSTMOUNT": "overlay-postmount", "INIT": "overlay-init",
        "LOG": one.log, "RAM_SIZE": "50M", "SHM_SIZE": "50%", "DEVICES": "", "LAYER_LIMIT": f"{10 << 30} 1000000",
        "BOOT_TIMEOUT": "90", "STOP_TIMEOUT": "10", "CAPABILITIES": DEFAULT_CAPABILITIES, "SYSTEM_CALLS": "default", "USERNS": "no", "FOLLOW": "view",
        "OVERLAY": "redirect_dir=on", "PIDS_MAX": default_of_pids_max()}


def test_every_effective_value_is_printed(subhost, directory):
    one = subhost(NAME=None, LIVE=None)
    for made in ("up", "wk", "mnt", "low"):
        os.mkdir(f"{one.base}/{made}")
    one.configure(BASE=one.base, LIVE="mnt", UPPER="up", WORK="wk", LOWER="low:/usr", LOWER_MOUNTS="no", HIDE=" secrets\t/srv//x/. /y", START="cron /opt/x/run", STAY="no", RAM_SIZE="10%", SHM_SIZE="64m",
                  PREMOUNT="pre  mount", POSTMOUNT="/x/post", INIT="echo exec /sbin/init", LOG="/var/log/x.log", BOOT_TIMEOUT="none", STOP_TIMEOUT="2.5",
                  SHARE=["/etc/hosts", "data:/srv/data"])
    assert checked(one) == [
        ("NAME", one.name), ("BASE", one.base), ("LIVE", f"{one.base}/mnt"), ("UPPER", f"{one.base}/up"), ("WORK", f"{one.base}/wk"),
        ("LOWER", f"{one.base}/low:/usr"), ("LOWER_MOUNTS", "no"), ("HIDE", "secrets /srv/x /y"), ("CABLES", ""), ("ADDRESS", ""), ("ADDRESS_POOL", "10.231.0.0/16 ula"), ("NAT", "no"), ("PUBLISH", ""), ("START", "cron /opt/x/run"), ("STAY", "no"), ("AFTER", ""), ("PREMOUNT", "pre mount"),
        ("POSTMOUNT", "/x/post"), ("INIT", "echo exec /sbin/init"), ("LOG", "/var/log/x.log"), ("RAM_SIZE", "10%"), ("SHM_SIZE", "64m"), ("DEVICES", ""),
        ("LAYER_LIMIT", f"{10 << 30} 1000000"), ("BOOT_TIMEOUT", "none"), ("STOP_TIMEOUT", "2.5"), ("CAPABILITIES", DEFAULT_CAPABILITIES),
        ("SYSTEM_CALLS", "default"), ("USERNS", "no"), ("FOLLOW", "view"), ("OVERLAY", "redirect_dir=on index=off"),
        ("PIDS_MAX", default_of_pids_max()),
        ("SHARE", "/etc/hosts:/etc/hosts"), ("SHARE", f"{one.base}/data:/srv/data")]


@pytest.mark.parametrize("value", ODD_VALUES, ids=ascii)
def test_a_value_comes_out_as_it_went_in(subhost, value):
    one = subhost(LOG=f"/nowhere/{value}")
    os.mkdir(f"{one.base}/{value}")
    one.configure(LIVE=value, LOG=f"/nowhere/{value}", SHARE=[f"/x {value}y:/z"] if ":" not in value else None)
    found = dict(checked(one))
    assert found["LIVE"] == f"{one.base}/{value}" and found["LOG"] == f"/nowhere/{value}"
    assert ":" in value or found["SHARE"] == f"/x {value}y:/z"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX", "xx_XX.nonsense"])
def test_bytes_are_the_same_in_every_locale(subhost, locale):
    one = subhost(LOG=b"/nowhere/\xc3\xa4\xff")
    assert dict(checked(one, env={"LC_ALL": locale, "LANG": locale}))["LOG"] == os.fsdecode(b"/nowhere/\xc3\xa4\xff")


@pytest.mark.parametrize("value", ODD_VALUES, ids=ascii)
def test_a_subhost_in_directories_of_odd_names(directory, subhost, value):
    """No character of a path means anything: not to a shell, nor to mount's options, nor to our own notes."""
    place = f"{directory}/{value}"
    os.mkdir(place)
    one = subhost(place=place)
    for which in ("upper ", "work", "live"):
        os.mkdir(f"{one.base}/{which}{value}")
    os.mkdir(f"{one.base}/data")
    one.configure(UPPER=f"upper {value}", WORK=f"work{value}", LIVE=f"live{value}", SHARE=f"data:/srv/data {value}"
                  if ":" not in value else None, LOG=f"{one.base}/log{value}")
    done = one.boot()
    assert done.returncode == 0 and all("no comment can follow" in line for line in done.stderr.splitlines()), done.stderr
    one.inside("touch", "/written")
    assert os.path.exists(f"{one.base}/upper {value}/written")
    assert ":" in value or one.inside("stat", "-c", "%F", f"/srv/data {value}") == "directory"
    assert one.row()["config"] == os.path.realpath(one.conf)
    one.stopped()


def test_the_first_assignment_counts(subhost):
    one = subhost()
    write(one.conf, "RAM_SIZE=1M\nRAM_SIZE=2M\nBASE=.\nBASE=/nowhere\n")
    found = dict(checked(one))
    assert found["RAM_SIZE"] == "1M" and found["BASE"] == one.base


def test_white_space_at_both_ends_is_trimmed(subhost):
    one = subhost()
    write(one.conf, "BASE=   .  \t\nRAM_SIZE=\t1M \nSTART=  none  \n")
    found = dict(checked(one))
    assert (found["BASE"], found["RAM_SIZE"], found["START"]) == (one.base, "1M", "none")


def test_an_empty_value_is_the_default(subhost):
    one = subhost(RAM_SIZE="", LIVE="  ", NAME="", LOG="")
    found = dict(checked(one))
    assert (found["RAM_SIZE"], found["LIVE"], found["NAME"], found["LOG"]) == ("50M", one.live, one.name, one.log)


def test_base_is_relative_to_the_file_and_the_rest_to_base(subhost, directory):
    one = subhost(BASE="sub")
    os.makedirs(f"{one.base}/sub/a/b")
    for made in ("root", "work", "low"):
        os.mkdir(f"{one.base}/sub/{made}")
    one.configure(BASE="sub", LIVE="a/b", LOWER="low", SHARE="low:/x")
    found = dict(checked(one, cwd="/usr"))
    assert found["BASE"] == f"{one.base}/sub" and found["LIVE"] == f"{one.base}/sub/a/b" and found["LOWER"] == f"{one.base}/sub/low"
    assert found["SHARE"] == f"{one.base}/sub/low:/x"


def test_conf_may_be_a_relative_path(subhost):
    one = subhost()
    done = run(BOOT, "--check", os.path.basename(one.conf), cwd=one.base)
    assert f"BASE={one.base}\n" in done.stdout and f"NAME={one.name}\n" in done.stdout
    done = run(BOOT, "--check", f"../{one.name}/{one.name}.conf", cwd=f"{one.base}")
    assert f"BASE={one.base}\n" in done.stdout


def test_the_name_is_the_files_name_unless_it_says_otherwise(subhost, directory):
    one = subhost()
    for file, name in (("web.1.conf", "web.1"), ("web", "web"), ("web.conf.x", "web.conf.x"), ("web.conf.conf", "web.conf")):
        write(f"{one.base}/{file}", "BASE=.\n")
        assert f"NAME={name}\n" in run(BOOT, "--check", f"{one.base}/{file}").stdout
    one.configure(NAME="other")
    assert dict(checked(one))["NAME"] == "other"


def test_a_lower_directory_with_a_colon_in_its_name(subhost):
    one = subhost()
    for made in ("a:b", "a", "b"):
        os.mkdir(f"{one.base}/{made}")
    one.configure(LOWER="a:b")
    assert dict(checked(one))["LOWER"] == f"{one.base}/a:b"


# Commands as values

def test_a_command_runs_in_base_with_config_and_action(subhost):
    one = subhost()
    script = one.script("say", 'echo "$CONFIG,$ACTION,$(pwd),$*"; echo second line\n')
    write(one.conf, f"BASE=.\nSTART=none\nPREMOUNT=! {script} a  'b\n")
    [value] = dict(checked(one, cwd="/")).get("PREMOUNT"),
    assert value == f"{one.conf},overlay-check,{one.base},a 'b"


def test_commands_for_name_and_log_run_where_the_caller_is(subhost):
    one = subhost()
    one.script("say", 'echo "/x$(pwd)"\n')
    script = one.script("name", "pwd | tr -d /\n")
    one.configure(NAME=f"!{script}", LOG=f"!{one.base}/say")
    found = dict(checked(one, cwd="/usr"))
    assert (found["NAME"], found["LOG"]) == ("usr", "/x/usr")


def test_a_command_is_found_in_base_and_in_path(subhost):
    one = subhost()
    one.script("say", "echo 7M\n")
    one.configure(RAM_SIZE="!./say", STOP_TIMEOUT="!echo 3")
    found = dict(checked(one))
    assert (found["RAM_SIZE"], found["STOP_TIMEOUT"]) == ("7M", "3")


def test_no_shell_sees_a_command(subhost, directory):
    canary = f"{directory}/canary"
    line = f"/ $(touch {canary}) `touch {canary}`; touch {canary} > {canary} $HOME ~ * 'x"
    one = subhost(LOG=f"!echo {line}")
    assert dict(checked(one))["LOG"] == line
    assert not os.path.exists(canary)


def test_what_a_command_prints_is_data(subhost):
    one = subhost()
    script = one.script("say", "printf '  /!$(id) \"x\\\\ \\377 \\nsecond\\n'\n")
    one.configure(LOG=f"!{script}")
    assert dict(checked(one))["LOG"] == os.fsdecode(b'/!$(id) "x\\ \xff')


def test_a_command_sees_the_mounts_of_its_own(subhost):
    """What it mounts goes with --check, and is seen by the commands after it."""
    one = subhost()
    one.script("mount", f"mount -t tmpfs {one.name} {one.base}/live && mkdir {one.base}/live/up {one.base}/live/wk && echo live/up\n")
    one.script("see", f"test -d {one.base}/live/up && echo live/wk\n")
    os.mkdir(f"{one.base}/mnt")
    one.configure(UPPER="!./mount", WORK="!./see", LIVE="mnt")
    before = mounts()
    found = dict(checked(one))
    assert (found["UPPER"], found["WORK"]) == (f"{one.live}/up", f"{one.live}/wk")
    assert mounts() == before and os.listdir(one.live) == []


@pytest.mark.parametrize("variable", ["NAME", "BASE", "LIVE", "UPPER", "WORK", "LOWER", "START", "PREMOUNT", "POSTMOUNT", "INIT", "LOG",
                                      "RAM_SIZE", "BOOT_TIMEOUT", "STOP_TIMEOUT", "CABLES"])
@pytest.mark.parametrize("command, why", [
    ("/nowhere/command", "No such file"), ("no-such-command-at-all", "No such file"), ("/", "ermission denied"), ("false", "exit status 1"),
    ("true", "printed nothing"), ("", "no command"), ("./killed", "signal 9"), ("./blank", "printed nothing")])
def test_a_command_that_fails_is_an_error_of_the_variable(subhost, variable, command, why):
    one = subhost()
    one.script("killed", "echo x; kill -9 $$\n")
    one.script("blank", "echo; echo x\n")
    one.configure(**{variable: f"!{command}"})
    said = one_line(check(one, cwd=one.base))
    assert variable in said and why in said


def test_a_command_of_much_output_is_refused(subhost):
    one = subhost(LOG="!yes")
    assert "LOG" in one_line(check(one))


def test_share_takes_no_command(subhost, directory):
    one = subhost(SHARE=f"!touch {directory}/canary")
    done = check(one)
    assert not os.path.exists(f"{directory}/canary")
    assert dict(checked(one))["SHARE"].startswith(f"{one.base}/!touch"), done.stdout


def test_a_hook_gets_the_values_that_the_boot_has_resolved(subhost):
    """A `!` command is run once per boot, whatever hooks the boot runs."""
    one = subhost()
    one.script("count", f"echo x >>{one.base}/counted; echo 9M\n")
    one.script("pre", "overlay-premount\n")
    one.script("post", f"{PROGRAMS}/overlay-postmount\n")
    one.script("init", "overlay-init\n")
    one.configure(RAM_SIZE="!./count", PREMOUNT="./pre", POSTMOUNT="./post", INIT="./init")
    one.booted()
    assert read(f"{one.base}/counted") == "x\n"
    assert int(one.sh("echo $(($(stat -f -c '%b * %S' /run)))")) == 9 << 20


@pytest.mark.parametrize("command, action", [("boot", "overlay-boot"), ("stop", "overlay-stop"), ("check", "overlay-check")])
def test_action_tells_the_command_at_work(subhost, command, action):
    one = subhost()
    script = one.script("say", f"echo $ACTION >>{one.base}/action; echo {one.name}\n")
    one.configure(NAME=f"!{script}")
    if command == "boot":
        one.booted()
    elif command == "check":
        check(one)
    else:
        assert one.stop().returncode == 1
    assert read(f"{one.base}/action") == f"{action}\n"


# Warnings, --check

def test_misspelt_names_are_warned_of_and_all_goes_on(subhost):
    one = subhost()
    write(one.conf, "BASE=.\nLOWR=/usr\n# START=x\nSTART=none\nwork=/x\nFOO=1\n")
    done = check(one)
    assert done.returncode == 0
    lines = warnings(done)
    assert len(lines) == 2
    assert "line 2" in lines[0] and "LOWR" in lines[0] and "LOWER" in lines[0]
    assert "line 5" in lines[1] and "work" in lines[1] and "WORK" in lines[1]


def test_check_changes_nothing(subhost, machine):
    one = subhost(SHARE="missing:/mnt/x")
    before = sorted(os.walk(one.base))
    assert check(one).returncode == 0
    machine.is_as_before()
    assert sorted(os.walk(one.base)) == before and not os.path.exists(one.log)


def test_check_of_a_running_subhost(running):
    assert check(running).returncode == 0
    assert running.is_running()


@pytest.mark.parametrize("settings, named", [
    ({"LIVE": "nowhere"}, "LIVE"), ({"BASE": "/nowhere"}, "BASE"), ({"WORK": "root"}, "WORK"), ({"RAM_SIZE": "much"}, "RAM_SIZE"), ({"SHM_SIZE": "none"}, "SHM_SIZE"),
    ({"DEVICES": "/dev/none"}, "DEVICES: /dev/none: No such file"), ({"DEVICES": "/dev/full"}, "DEVICES: /dev/full"),
    ({"NAME": "a/b"}, "NAME"), ({"START": "./x"}, "START"), ({"STOP_TIMEOUT": "long"}, "STOP_TIMEOUT"), ({"STAY": "maybe"}, "STAY"), ({"LOWER": "/nowhere"}, "LOWER")])
def test_check_refuses_what_a_boot_would(subhost, settings, named):
    assert named in one_line(check(subhost(**settings)))


# Any input at all

VARIABLES = ["NAME", "BASE", "LIVE", "UPPER", "WORK", "LOWER", "CABLES", "START", "PREMOUNT", "POSTMOUNT", "INIT", "LOG", "RAM_SIZE",
             "BOOT_TIMEOUT", "STOP_TIMEOUT", "SHARE"]
LEFT = [name.encode() for name in (*VARIABLES, "name", "live", "", "LOWR", " NAME", "NAME ", "#", "FOO")]
MIDDLE = [b"=", b"= ", b"=\t", b" = ", b"", b":"]
RIGHT = [
    b"", b" ", b".", b"..", b"/", b"root", b"work", b"live", b"root/../live", b"/usr", b"none", b"50M", b"10%", b"=", b"==", b":",
    b"$(id)", b"`id`", b"'", b'"', b"\\", b"\xff", b"\xc3\xa4", "\u0661".encode(), b"-x", b"/usr:/", b"a:b:c", b"0", b"9" * 30, b"\0",
    b"x" * 300, b"#", b"networking ssh", b"/opt/run", b"%d", b"a b", b"\r", b"=.\nBASE=", b"root\nWORK=", b"live\nUPPER=", b"\xa0"]
END = [b"\n", b"\n", b" \n", b"\r\n", b""]


def assignments(choices):
    """A file of lines that look like assignments, as the bytes choose."""
    text = b""
    for at in range(0, len(choices) - 3, 4):
        text += b"".join(table[choice % len(table)] for table, choice in zip((LEFT, MIDDLE, RIGHT, END), choices[at:at + 4], strict=True))
    return text


AT_ONCE = 10        # inputs of one example: hypothesis takes far longer for an example than it takes to read a configuration
LONGEST = 64

# What is of some meaning in a configuration file occurs more often in some of the inputs.
TELLING = b"\n\n\n====\r\0 \t#:/.'\"\\$`\xff\xc3ABEILMNOPRSTUVW_"
BIASED = bytes(TELLING[byte % len(TELLING)] if byte % 3 else byte for byte in range(256))


def inputs(data):
    """Any data as inputs of different lengths."""
    for at in range(0, len(data), LONGEST):
        text = data[at + 1:at + 1 + data[at] % LONGEST]
        yield text.translate(BIASED) if data[at] & 64 else text


def property_of(share):
    """So many inputs are given to a property as is its share of all, in examples of AT_ONCE."""
    def decorate(test):
        return given(data=st.binary(min_size=AT_ONCE * LONGEST, max_size=AT_ONCE * LONGEST))(settings(
            max_examples=max(1, int(EXAMPLES * share / AT_ONCE)), deadline=None, database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture])(test))
    return decorate


STARTS = ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen")
_started = None


def note(event, _arguments):
    if _started is not None and event in STARTS:
        _started.append(event)


sys.addaudithook(note)


@pytest.fixture
def childless():
    """No child process is made: neither by Python's means, nor by a system call that Python does not know of."""
    def children():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_minflt, usage.ru_majflt, read(f"/proc/self/task/{os.getpid()}/children")

    global _started
    before, _started = children(), []
    yield
    started, _started = _started, None
    assert children() == before and not started


@pytest.fixture
def place(tmp_path):
    """A directory as a subhost's, and its file, which each example is written to."""
    made = Subhost(tmp_path)
    fd = os.open(made.conf, os.O_RDWR)

    def rewrite(text):
        os.ftruncate(fd, 0)
        os.pwrite(fd, text, 0)
        return made.conf

    yield rewrite
    os.close(fd)


@pytest.fixture
def silent(monkeypatch):
    """Warnings are not printed."""
    from overlay_boot import config
    monkeypatch.setattr(config, "complain", str)


def effective(path):
    """The values of a file; None if it is refused, in one line."""
    from overlay_boot import errors
    from overlay_boot.config import Config
    try:
        config = Config(path, "overlay-check")
        config.resolve_log()
        config.resolve()
        return config.settings()
    except errors.Failure as failure:
        assert str(failure).strip() and len(str(failure).encode(errors="surrogateescape")) < 100_000
        return None


@property_of(0.3)
def test_any_bytes_are_a_configuration_or_refused(place, childless, silent, data):
    for text in inputs(data):
        effective(place(text.replace(b"!", b"?")))      # no command that might be one


@property_of(0.3)
def test_any_assignments_are_a_configuration_or_refused(place, childless, silent, data):
    for choices in inputs(data):
        effective(place(assignments(choices)))


@property_of(0.3)
def test_any_value_round_trips(place, childless, data):
    """A value without line ends and NUL, and not a command, is found again byte by byte, less the white space around it."""
    for value in inputs(data):
        blank = bytes(b" \t\v\f"[byte % 4] for byte in value[:3])
        value = b"/" + value.translate(None, b"\n\r\0").strip()
        found = effective(place(b"BASE=.\nSTART=none\nLOG=" + blank + value + blank + b"\nLOG=/other\n"))
        assert found is not None and os.fsencode(found["LOG"]) == value


@property_of(0.1)
def test_any_name_is_usable_or_refused(childless, data):
    from overlay_boot.config import check_name
    from overlay_boot.errors import Failure
    for name in inputs(data):
        name = os.fsdecode(name[:name[0] % 16] if name else b"")
        try:
            check_name(name)
        except Failure:
            continue
        assert 0 < len(name) <= 12 and name.isascii() and name.isprintable() and not set(name) & set(" /:") and name not in (".", "..")


WORD = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(WORD, min_size=1, max_size=5))
def test_any_words_reach_a_command_as_they_are(place, words):
    found = effective(place(b"BASE=.\nSTART=none\nLOG=!printf /%s " + " ".join(words).encode() + b"\n"))
    assert found is not None and os.fsencode(found["LOG"]) == b"".join(b"/" + word.encode() for word in words)


# The plan of a boot

def plan(one):
    """{title: what it does} of the steps, in their order."""
    done = run(BOOT, "--check", "--verbose", one.conf)
    assert done.returncode == 0 and warnings(done) == []
    return dict(line.split(": ", 1) for line in done.stdout.rpartition("\n\n")[2].splitlines())


def test_the_plan_of_a_boot(subhost, directory, machine):
    one = subhost(START="none", SHARE="/srv:/data")
    machine.look()
    steps = plan(one)
    assert [*steps] == ["Read CONF", "Take the name", "Sweep", "Control group", "Mount namespace", "Resolve", "Log", "Network", "PREMOUNT",
                        "The root on LIVE", "POSTMOUNT", "SHARE", "INIT", "PID 1", "Hand over"]
    assert one.upper in steps["The root on LIVE"] and one.live in steps["The root on LIVE"]
    assert "/srv on /data" in steps["SHARE"] and one.log in steps["Log"] and "reaper at once" in steps["INIT"]
    machine.is_as_before()
    assert run(BOOT, "--check", one.conf).stdout + "\n" == run(BOOT, "--check", "--verbose", one.conf).stdout.partition("\n\n")[0] + "\n\n"


def test_the_plan_follows_the_configuration(subhost, directory):
    one = subhost(UPPER="tmpfs:5M", LAYER=directory, CABLES="=", START="cron", INIT="echo exec /bin/x", POSTMOUNT="./post it")
    steps = plan(one)
    assert [title for title in ("Layers", "UPPER on a tmpfs", "Cables") if title not in steps] == []
    assert directory in steps["Layers"] and "5M" in steps["UPPER on a tmpfs"] and steps["INIT"].startswith("run echo exec /bin/x")
    assert steps["POSTMOUNT"].startswith("run ./post it ")
    upper = f"/run/overlay-boot/{one.name}/upper/root"
    assert steps["PREMOUNT"].endswith(f" {upper}") and f"{upper} above {directory}, /" in steps["The root on LIVE"]


def test_check_tells_what_start_does_not_find(subhost, small_root, directory):
    one = subhost(LOWER=small_root, START="mine nothing /opt/there /opt/gone")
    one.write("etc/init.d/mine", "#!/bin/sh\n", 0o755)
    one.write("opt/there", "#!/bin/sh\n", 0o755)
    done = run(BOOT, "--check", one.conf)
    assert done.returncode == 0 and done.stderr.splitlines() == [
        f"overlay-boot: START: {word} will not be started: no {script} was found in UPPER, LAYER or LOWER"
        for word, script in (("nothing", "/etc/init.d/nothing"), ("/opt/gone", "/opt/gone"))]


def networking_of(one):
    """What --check says of the network that the subhost sets up by itself."""
    done = run(BOOT, "--check", one.conf)
    assert done.returncode == 0
    said = warnings(done)
    beginning = "overlay-boot: START: networking will "
    assert all(line.startswith(beginning) for line in said), said
    return [line.removeprefix(beginning) for line in said]


FILE = "etc/network/interfaces"


@pytest.mark.parametrize(("text", "said"), [
    ("auto lo eth0 \\\n eth1\niface lo inet loopback\niface eth0 inet dhcp\niface eth1 inet manual\n", []),
    ("auto eth0\niface eth0 inet dhcp\nallow-hotplug eth1\niface eth1 inet dhcp\n", []),
    ("auto eth0 eth1 eth2 wlan0\n#auto eth3\niface eth2 inet static\n address 192.0.2.1/24\n",
     [f"fail: {FILE} brings up eth2, and CABLES makes no such interface",
      f"fail: {FILE} brings up wlan0, and CABLES makes no such interface",
      *(f"leave {name} without an address: {FILE} has no stanza for it" for name in ("eth0", "eth1"))]),
    ("auto br0\niface br0 inet static\n address 192.0.2.1/24\n bridge_ports eth0 eth1\n", []),
    ("auto eth0.5 eth1:1 tun0 x=y\niface eth0.5 inet manual\niface tun0 inet tunnel\n mode gre\n", []),
    ("auto dummy0\niface dummy0 inet manual\n pre-up ip link add dummy0 type dummy\n up ip link set eth0 up\n up ip link set eth1 up\n", []),
    ("auto lo eth0\niface eth1 inet manual\n",
     [f"leave eth0 without an address: {FILE} has no stanza for it", f"leave eth1 down: {FILE} does not bring it up"]),
    ("auto eth1\nsource interfaces.d/*\n", [f"leave eth0 down: in what {FILE} sources was not looked"]),
    ("auto /eth*\n", []),
    ("", [f"leave {name} down: {FILE} does not bring it up" for name in ("eth0", "eth1")]),
    ("\0\x9b\n\\\nauto\niface\nauto \x9b31m\nauto eth1 eth0 \\\n",
     [f"fail: {FILE} brings up \\x9b31m, and CABLES makes no such interface",
      *(f"leave {name} without an address: {FILE} has no stanza for it" for name in ("eth0", "eth1"))]),
])
def test_check_compares_interfaces_and_cables(subhost, text, said):
    one = subhost(START="networking", CABLES="= =")
    assert networking_of(one) == []         # PREMOUNT writes one that is right
    one.write(FILE, text)
    assert networking_of(one) == said


def test_check_finds_interfaces_where_the_subhost_will(subhost, directory):
    layer = f"{directory}/layer"
    write(f"{layer}/{FILE}", "auto eth1\n")
    one = subhost(START="networking", CABLES="=", LAYER=layer)
    assert len(networking_of(one)) == 2
    one.write(FILE, "auto eth0\niface eth0 inet dhcp\n")
    assert networking_of(one) == []
    os.unlink(f"{one.upper}/{FILE}")
    one.configure(START="cron", CABLES="=", LAYER=layer)
    assert warnings(run(BOOT, "--check", one.conf)) == []
    one.configure(START="networking", CABLES="=", LAYER=layer, UPPER="tmpfs:1M")
    assert len(networking_of(one)) == 2
    one.configure(START="networking", CABLES="=", LAYER=layer, PREMOUNT="./own")
    assert networking_of(one) == []


@pytest.mark.parametrize("make", [
    lambda path: os.symlink("/etc/passwd", path), os.mkfifo, os.mkdir,
    lambda path: os.symlink("../../../../../../../../../etc/shadow", path), lambda path: write(path, "auto eth7 \\\n" * (1 << 18)),
])
def test_check_reads_hostile_interfaces_with_care(subhost, make):
    one = subhost(START="networking", CABLES="=")
    os.makedirs(os.path.dirname(f"{one.upper}/{FILE}"))
    make(f"{one.upper}/{FILE}")
    assert networking_of(one) == []


def test_verbose_is_for_check_only(subhost):
    done = run(BOOT, "--verbose", subhost().conf)
    assert done.returncode == 2 and "--verbose requires --check" in done.stderr
