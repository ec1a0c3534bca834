"""The repository tests itself: its shape, its manual, and what a command costs to start."""
import ast
import glob
import importlib
import os
import re
import shutil
import signal
import time

import images
import pytest
from conftest import cannot_run
from machine import (
    BASELINE,
    BOOT,
    DIFF,
    DISKFILE,
    EXPORT,
    FOLLOW,
    GO,
    LS,
    MODULES,
    NEW,
    PROGRAMS,
    SHARE,
    STOP,
    TREE,
    faults,
    one_line,
    run,
    start,
    wait_for,
    write,
)
from machine import LAYERS as LAYERS_COMMAND
from machine import LOG as LOG_COMMAND

SOURCES = {os.path.relpath(path, f"{TREE}/overlay_boot").removesuffix(".py"): path
           for path in glob.glob(f"{TREE}/overlay_boot/**/*.py", recursive=True)}
COMMANDS = {"overlay-baseline": BASELINE, "overlay-boot": BOOT, "overlay-diff": DIFF, "overlay-diskfile": DISKFILE, "overlay-export": EXPORT,
            "overlay-follow": FOLLOW, "overlay-go": GO, "overlay-layers": LAYERS_COMMAND, "overlay-log": LOG_COMMAND, "overlay-ls": LS, "overlay-new": NEW, "overlay-share": SHARE, "overlay-stop": STOP,
            **{hook: f"{PROGRAMS}/{hook}" for hook in ("overlay-init", "overlay-oci-init", "overlay-systemd", "overlay-premount", "overlay-postmount")}}

# What is costly to import: Help and error paths may, a boot may not.
COSTLY = {"os", "re", "argparse", "subprocess", "logging", "typing", "dataclasses", "enum", "pathlib", "pyroute2"}

NATIVE = {"namespaces", "links", "users"}

# Imports run downward only.
LAYERS = [
    ["__init__", *NATIVE, "paths", "passwd"],
    ["files", "environment"],
    ["errors", "interruption", "terminal", "columns", "progress", "proc", "beneath", "mounts"],
    ["overlayfs"],
    ["dpkg"],
    ["followed"],
    ["capabilities", "record", "state"],
    ["system_calls/policy", "system_calls/ranges", "system_calls/compiler", "system_calls/__init__"],
    ["cgroup", "running"],
    ["config", "sources", "fences", "limits", "subhosts_conf", "host_secrets", "hiding", "lower_mounts", "processes", "userns", "rootfs", "devices", "uppers", "network", "cables", "interfaces", "addresses", "ports", "forwarding", "nat", "log", "services", "names", "hooks", "systemd", "shellversion", "subhosts",
     "shares", "relay", "diskfile", "keeper",
     "tar", "oci/layout", "oci/manifest", "oci/process", "oci/__init__",
     "layers/decompressor", "layers/unpacking", "layers/changeset", "layers/archive", "layers/cache", "layers/images", "layers/inventory", "layers/__init__"],
    ["hibernation", "old_files", "trees"],
    ["salvage"],
    ["reboot", "clearing", "listing", "entry", "stop", "boot", "order", "side_by_side"],
    ["exposure", "plan", "log_view", "resource", "variables", "template"],
    ["new"],
    ["diff"],
    ["shell", "maintenance"],
    ["packages/version", "packages/accounts", "packages/answers", "packages/triggers", "packages/upper", "packages/site",
     "packages/places", "packages/registers"],
    ["packages/dependencies", "packages/merge", "packages/alternatives"],
    ["packages/plan"],
    ["packages/copies"],
    ["packages/rehearsal"],
    ["packages/__init__"],
    ["renewal"],
    ["follow"],
    ["upgrade"],
    ["baseline/root", "baseline/layer", "baseline/workshop"],
    ["baseline/packages", "baseline/accounts"],
    ["baseline/apt", "baseline/system"],
    ["baseline/hidden", "baseline/shipped", "baseline/records", "baseline/alternatives", "baseline/surroundings", "baseline/confinement"],
    ["baseline/identity", "baseline/maintainer_scripts"],
    ["baseline/__init__"],
    ["export/headers", "export/catalogue", "export/frozen", "export/entrypoint", "export/image", "export/pod", "export/tree"],
    ["export/destination"],
    ["export/blob"],
    ["export/contents"],
    ["export/__init__"],
]


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# Start-up

@pytest.mark.parametrize("command", ["boot", "stop", "go", "ls", "clear"])
def test_start_up_budget(command):
    """By module names, not by the clock."""
    code = f"import sys; sys.path.insert(0, {MODULES!r}); import overlay_boot.commands.{command}; print(*sys.modules)"
    done = run("/usr/bin/python3", "-IS", "-c", code)
    assert done.returncode == 0, done.stderr
    assert not COSTLY & {name.partition(".")[0] for name in done.stdout.split()}


def test_start_up_budget_of_the_whole_way(subhost):
    """A boot, an enter and a stop, to their ends, import nothing costly on the way."""
    one = subhost()
    for words in ([BOOT, one.conf], [GO, one.name, "true"], [STOP, one.conf]):
        done = run("/usr/bin/python3", "-IS", "-X", "importtime", *words)
        assert done.returncode == 0
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}
        assert "overlay_boot" in imported and not COSTLY & imported


LOADERS = """
import sys
sys.path.insert(0, {folder!r})
import overlay_boot.boot
for name, module in sorted(sys.modules.items()):
    if name.startswith("overlay_boot."):
        print(name, type(module.__spec__.loader).__name__, getattr(module, "SEEN", ""))
"""


def loaders(folder):
    """{module: (the class that has loaded it, SEEN in it)} of what a boot imports from a folder."""
    done = run("/usr/bin/python3", "-IS", "-c", LOADERS.format(folder=folder))
    assert done.returncode == 0, done.stderr
    return {words[0]: words[1:] for words in map(str.split, done.stdout.splitlines())}


def test_modules_are_loaded_from_what_the_package_has_compiled():
    found = loaders(MODULES)
    assert found.pop("overlay_boot.namespaces") == ["ExtensionFileLoader"]
    assert found and set(map(tuple, found.values())) == {("Compiled",)}


def test_a_source_that_was_changed_counts(tmp_path):
    """As with importlib, which also sees to what is not compiled at all."""
    shutil.copytree(f"{MODULES}/overlay_boot", tmp_path / "overlay_boot")       # with the times that the files have
    assert loaders(str(tmp_path))["overlay_boot.paths"] == ["Compiled"]
    with open(tmp_path / "overlay_boot/paths.py", "a") as file:
        file.write("SEEN = 'changed'\n")
    for compiled in glob.glob(f"{tmp_path}/overlay_boot/__pycache__/files.*"):
        os.unlink(compiled)
    found = loaders(str(tmp_path))
    assert found["overlay_boot.paths"] == ["SourceFileLoader", "changed"]
    assert found["overlay_boot.files"] == ["SourceFileLoader"] and found["overlay_boot.state"] == ["Compiled"]


def test_launchers_leave_out_what_a_start_need_not_have():
    for path in COMMANDS.values():
        with open(path) as file:
            assert file.readline() == "#!/usr/libexec/overlay-boot/begin\n", path
    with open(f"{PROGRAMS}/begin", "rb") as file:
        assert b"\0-IS\0" in file.read()


def test_what_is_installed_is_this_tree():
    """Else all other tests would prove nothing of it."""
    for name, path in SOURCES.items():
        assert read(path) == read(f"{MODULES}/overlay_boot/{name}.py"), name


# Shape

def imports(path):
    """The modules of ours that a module imports, wherever in it."""
    package = os.path.relpath(os.path.dirname(path), f"{TREE}/overlay_boot").split("/") if os.path.dirname(path) != f"{TREE}/overlay_boot" else []
    found = set()
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[:len(package) - node.level + 1]
            module = [*above, *(node.module.split(".") if node.module else [])]
            for name in node.names:
                found.add(module_of([*module, name.name]) or module_of(module))
        elif isinstance(node, ast.Import):
            assert not any(name.name.startswith("overlay_boot") for name in node.names)
    return found


def module_of(parts):
    """A module of ours as SOURCES has it, that of a folder being its __init__; None if it is none."""
    name = "/".join(parts)
    return next((found for found in (name, f"{name}/__init__".removeprefix("/")) if found in SOURCES or found in NATIVE), None)


def layer(module):
    if module.startswith("commands/"):
        return len(LAYERS)
    return next((number for number, modules in enumerate(LAYERS) if module in modules), None)


def test_every_module_has_its_layer():
    assert [module for module in SOURCES if layer(module) is None] == []
    assert [module for modules in LAYERS for module in modules if module not in {*SOURCES, *NATIVE}] == []


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_run_downward(module):
    for other in imports(SOURCES[module]):
        assert layer(other) <= layer(module), f"{module} imports {other}"
        if other.startswith("commands/"):
            assert other == "commands/__init__", f"{module} imports the command {other}"


def test_a_folder_has_one_door():
    """What is in it is reached through its __init__ only."""
    for module, path in SOURCES.items():
        for other in imports(path):
            folder = os.path.dirname(other)
            assert folder in ("", os.path.dirname(module)) or other == f"{folder}/__init__", f"{module} imports {other}"


def test_no_imports_in_a_circle():
    graph = {module: imports(path) & set(SOURCES) - {module} for module, path in SOURCES.items()}
    while graph:
        leaves = [module for module, others in graph.items() if not others & set(graph)]
        assert leaves, f"in a circle: {graph}"
        for module in leaves:
            del graph[module]


def test_no_module_for_what_fits_nowhere():
    assert not [module for module in SOURCES if re.search("util|helper|common|misc", module)]


def test_functions_fit_a_screen():
    for path in [*SOURCES.values(), f"{TREE}/setup.py", *glob.glob(f"{TREE}/bench/*.py")]:
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_functions_of_the_native_core_fit_a_screen():
    for path in glob.glob(f"{TREE}/_native/*.pyx"):
        lines = [*read(path).splitlines(), "end"]
        starts = [number for number, line in enumerate(lines) if re.match(r"(def|cdef|cpdef)\b.*:$|(def|cdef)\b.*\($", line)]
        for begin in starts:
            end = next(number for number in range(begin + 1, len(lines)) if re.match(r"[^\s#)]", lines[number]))
            body = "\n".join(lines[begin:end]).rstrip().count("\n") + 1
            assert body <= 75, f"{path}: {lines[begin]} has {body} lines"


def test_hacking_names_every_module():
    text = read(f"{TREE}/HACKING.md")
    for name in SOURCES:
        folder, _, base = name.rpartition("/")
        if folder:
            assert f" {folder}/ " in text, folder
        if base != "__init__" and folder != "commands":
            assert f" {base}.py " in (text.partition(f" {folder}/ ")[2] if folder else text), name
    for path in glob.glob(f"{TREE}/_native/*"):
        assert f" {os.path.basename(path)} " in text, path


# Types

def public(module):
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def stub_of(name):
    """{name: its node} of what a stub declares."""
    nodes = ast.parse(read(f"{TREE}/overlay_boot/{name}.pyi")).body
    found = {getattr(node, "name", None) or node.target.id: node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AnnAssign))}
    return {name: node for name, node in found.items() if not name.startswith("_")}


def built_arguments(function):
    """The arguments of a function as Cython puts them at the head of its docstring, with the types of those that it checks."""
    line = function.__doc__.partition("\n")[0]
    typed = re.sub(r"((?:\w+ )+)(\w+)", lambda found: f"{found[2]}: {TYPES.get(found[1].strip(), found[1])}", line)
    return ast.parse(f"def {typed}: ...").body[0].args


TYPES = {"unicode": "str", **dict.fromkeys(["long", "unsigned int", "unsigned long", "unsigned short", "uint64_t"], "int")}


def forget_what_is_not_checked(declared, built):
    """Take from the stub's arguments the types of those that take any object as far as Cython knows, and what is in a list."""
    for mine, its in zip([*declared.args, *declared.kwonlyargs], [*built.args, *built.kwonlyargs], strict=False):
        if not its.annotation:
            mine.annotation = None
        elif isinstance(mine.annotation, ast.Subscript):
            mine.annotation = mine.annotation.value
        elif isinstance(mine.annotation, ast.BinOp):        # X | None: to Cython every object may be None
            mine.annotation = mine.annotation.left


@pytest.mark.parametrize("path", glob.glob(f"{MODULES}/overlay_boot/*.so"))
def test_stubs_have_what_the_native_modules_have(path):
    name = os.path.basename(path).partition(".")[0]
    module, stub = public(importlib.import_module(f"overlay_boot.{name}")), stub_of(name)
    assert set(module) == set(stub)
    for name, node in stub.items():
        if isinstance(node, ast.AnnAssign):
            assert ast.unparse(node.annotation) == f"Final[{type(module[name]).__name__}]", name
        else:
            built = built_arguments(module[name])
            forget_what_is_not_checked(node.args, built)
            assert ast.unparse(node.args) == ast.unparse(built), name


# Commands and manual

@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    done = run(COMMANDS[command], "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {command}") and done.stderr == ""
    assert run(COMMANDS[command], "-h").stdout == done.stdout


@pytest.mark.parametrize("command", [BOOT, DIFF, DISKFILE, EXPORT, FOLLOW, GO, LAYERS_COMMAND, LOG_COMMAND, LS, NEW, SHARE, STOP])
def test_version(command):
    import overlay_boot
    done = run(command, "--version")
    assert (done.returncode, done.stdout) == (0, f"{os.path.basename(command)} {overlay_boot.__version__}\n")


def test_help_needs_no_root(machine):
    for command in COMMANDS.values():
        assert run(command, "--help", user=65534, group=65534, extra_groups=[]).returncode == 0


def parser(command):
    return importlib.import_module(f"overlay_boot.commands.{command.removeprefix('overlay-').replace('-', '_')}").parser()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_in_the_manual(command):
    text = read(f"{TREE}/man/{command}.8.adoc")
    for action in parser(command)._actions:
        for option in action.option_strings:
            assert re.search(rf"\*{re.escape(option)}\*", text), option
        if not action.option_strings and action.metavar != command:
            for word in action.metavar.split("|"):
                assert f"_{word}_" in text, word


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_in_the_manual_is_one(command):
    text = read(f"{TREE}/man/{command}.8.adoc")
    known = {option for action in parser(command)._actions for option in action.option_strings}
    assert set(re.findall(r"^\*(--?[\w-]+)\*", text, re.MULTILINE)) <= known


def test_every_variable_stands_in_the_manual():
    from overlay_boot import config
    manual, example = read(f"{TREE}/man/overlay-boot.conf.5.adoc"), read(f"{TREE}/conf-examples/full.conf")
    for variable in (*config.DEFAULTS, *config.REPEATABLE):
        assert f"*{variable}*" in manual, variable
        assert re.search(f"^{variable}=", example, re.MULTILINE), variable


def test_every_variable_in_the_manual_is_one():
    from overlay_boot import config
    text = read(f"{TREE}/man/overlay-boot.conf.5.adoc")
    variables = text.partition("\n== VARIABLES\n")[2].partition("\n== ")[0]
    assert sorted(re.findall(r"^\*([A-Z_]+)\*::", variables, re.MULTILINE)) == sorted([*config.DEFAULTS, *config.REPEATABLE])


def test_every_secret_stands_in_the_manual():
    from overlay_boot import host_secrets as known
    text = read(f"{TREE}/man/overlay-boot.conf.5.adoc").partition("\n*HIDE*::\n")[2].partition("\n*CABLES*::\n")[0]
    for path in (*known.PASSWORDS, *known.FORMER_PASSWORDS, *known.OF_MACHINE, *known.KEYS, *known.LOGINS, *known.HOMES, known.MAIL,
                 *known.SPOOLS, known.SSH, known.LAYERS):
        assert f"_{path}_" in text, path


def test_every_key_of_the_state_file_stands_in_the_manual():
    """overlay-boot(7) and record.SCHEMA have the same keys."""
    from overlay_boot.record import SCHEMA
    text = read(f"{TREE}/man/overlay-boot.7.adoc")
    section = text.partition("\n== RUNNING SUBHOSTS\n")[2].partition("\n=== ")[0]
    keys = re.findall(r"^\*+([a-z-]+:?)\*+(?:__[A-Z]+__)?::", section, re.MULTILINE)
    assert sorted(keys) == sorted(field.key for field in SCHEMA)


def test_every_key_that_has_to_be_removed_has_its_remover():
    from overlay_boot.clearing import REMOVERS
    from overlay_boot.record import SCHEMA
    assert {field.cleared_by for field in SCHEMA if field.cleared_by} == set(REMOVERS)


def test_the_steps_of_a_boot_are_those_of_the_manual():
    """Of the same titles, and in the same order; and of one that hibernates, each is one of these."""
    from overlay_boot.boot import BEGINNING, MAKING, WAKING
    text = read(f"{TREE}/man/overlay-boot.8.adoc")
    section = text.partition("\n== THE BOOT, STEP BY STEP\n")[2].partition("\n== ")[0]
    assert {step.title for step in WAKING} < {step.title for step in MAKING}
    assert [step.title for step in (*BEGINNING, *MAKING)] == re.findall(r"^\. \*(.+)\.\*$", section, re.MULTILINE)


def test_every_command_has_its_page_and_is_tested_here():
    installed = {os.path.basename(path) for path in glob.glob("/usr/sbin/overlay-*") + glob.glob(f"{PROGRAMS}/overlay-*")}
    assert installed == set(COMMANDS)
    assert {f"{command}.8.adoc" for command in COMMANDS} <= set(os.listdir(f"{TREE}/man"))


@pytest.mark.parametrize("page", sorted(glob.glob("*.adoc", root_dir=f"{TREE}/man")))
def test_pages_are_written_without_a_warning(tmp_path, page):
    if not shutil.which("asciidoctor") or not shutil.which("man"):
        cannot_run("asciidoctor or man is not installed")
    done = run("asciidoctor", "-w", "--failure-level", "INFO", "-b", "manpage", "-D", str(tmp_path), f"{TREE}/man/{page}")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(tmp_path / page.removesuffix(".adoc")),
               env={"MANROFFSEQ": "", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stderr) == (0, "")


# Examples

EXAMPLES = [os.path.basename(path) for path in glob.glob(f"{TREE}/conf-examples/*.conf")
            if not path.endswith(("/defaults.conf", "/subhosts.conf"))]


@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_examples_are_right(directory, example):
    place = shutil.copytree(f"{TREE}/conf-examples", f"{directory}/examples")
    for made in ("root", "work", "live", "debian", "empty", "../baseline",
                 *re.findall(r"^LAYER=\s*(\S+)", read(f"{place}/{example}"), re.MULTILINE)):
        os.makedirs(f"{place}/{made}", exist_ok=True)
    if example == "oci.conf":
        os.rmdir(f"{place}/oci:postgres:16")
        images.image(f"{place}/postgres", images.tar(images.member("etc")), name="16", Volumes={"/var/lib/postgresql/data": {}})
        write(f"{place}/postgres.env", "POSTGRES_PASSWORD=secret\n")
    for image in re.findall("^IMAGE= *(.+)$", read(f"{place}/{example}"), re.MULTILINE):
        os.mkdir(f"{place}/mnt")
        assert run(DISKFILE, "--create", "16M", f"{place}/{image}").returncode == 0
    # in a network namespace that has the bridges that the example takes for given
    cables = "".join(re.findall("^CABLES=(.*)$", read(f"{place}/{example}"), re.MULTILINE)).split()
    bridges = {cable.partition("=")[0] for cable in cables} - {""}
    made = "".join(f"ip link add {bridge} type bridge; " for bridge in bridges)
    done = run("unshare", "-mn", "sh", "-ec", f'mount -t sysfs sysfs /sys; {made} exec "$@"', "sh", BOOT, "--check", f"{place}/{example}")
    said = [line for line in faults(done) if "will not be started" not in line]     # not installed here
    assert (done.returncode, said) == (0, []), done.stderr
    assert f"NAME={example.removesuffix('.conf')}\n" in done.stdout


def test_the_full_example_says_the_defaults(directory):
    """As its own comment has it, but for NAME and the two SHARE lines."""
    shutil.copy(f"{TREE}/conf-examples/full.conf", directory)
    with open(f"{directory}/bare.conf", "w") as file:
        file.write("NAME=full\nBASE=.\n")
    for made in ("root", "work", "live"):
        os.mkdir(f"{directory}/{made}")
    full = run(BOOT, "--check", f"{directory}/full.conf").stdout
    assert full and [line for line in full.splitlines() if not line.startswith("SHARE=")] == run(
        BOOT, "--check", f"{directory}/bare.conf").stdout.splitlines()


def test_the_example_of_subhosts_conf_lists_nothing():
    assert all(not line.strip() or "#" in line for line in read(f"{TREE}/conf-examples/subhosts.conf").splitlines())


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"clear", "upgraded"}))
def test_help_that_cannot_be_printed(command):
    with open("/dev/full", "wb") as full:
        done = run(COMMANDS[command], "--help", stdout=full)
    assert done.returncode == 1 and "No space left on device" in one_line(done)


@pytest.mark.parametrize("words", [[STOP, "--al"], [BOOT, "--che", "x"], [GO, "--us", "x", "y"], [LS, "--js"]])
def test_options_are_not_abbreviated(words):
    done = run(*words)
    assert done.returncode == 2 and words[1] in done.stderr


def test_an_interrupt_says_one_line_at_most(subhost):
    """Whenever it comes, while the interpreter starts as well."""
    subhost().booted()
    begin = time.monotonic()
    assert run(LS, "--json").returncode == 0
    took = time.monotonic() - begin
    ended = set()
    for number in range(150):
        process = start(LS, "--json", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        time.sleep(took * number / 150)
        process.send_signal(signal.SIGINT)
        ended.add((process.wait(10), process.stderr.read().decode()))
    assert ended >= {(-signal.SIGINT, ""), (128 + signal.SIGINT, "overlay-ls: interrupted\n")}
    assert not ended - {(-signal.SIGINT, ""), (128 + signal.SIGINT, "overlay-ls: interrupted\n"), (0, "")}


def test_an_interrupt_in_a_callback_of_the_interpreter_is_not_lost():
    """It could not be raised there: it is, as soon as it can."""
    ended = run("/usr/bin/python3", "-IS", "-c", f"""if True:
        import sys
        sys.path.insert(0, {MODULES!r})
        from _weakref import ref
        from _signal import SIGINT, default_int_handler, raise_signal, signal
        from overlay_boot import namespaces
        signal(SIGINT, default_int_handler)         # it may be ignored
        sys.unraisablehook = namespaces.interrupt_again
        class Thing: pass
        def interrupted(_):
            raise_signal(SIGINT)
        def failing(_):
            1 / 0
        for callback in interrupted, failing:
            thing = Thing()
            watched = ref(thing, callback)
            try:
                del thing
                for _ in range(1000):
                    pass
                print("not raised")
            except KeyboardInterrupt:
                print("raised")
        """)
    assert ended.stdout == "raised\nnot raised\n" and ended.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_an_interrupt_while_a_class_is_made():
    """The interpreter raises another exception then."""
    ended = run("/usr/bin/python3", "-IS", "-c", f"""if True:
        import sys
        sys.path.insert(0, {MODULES!r})
        from _signal import SIGINT, default_int_handler, raise_signal, signal
        from overlay_boot import commands
        class Name:
            def __set_name__(self, owner, name):
                raise_signal(SIGINT)
        def command(_):
            class Made:
                name = Name()
        signal(SIGINT, default_int_handler)
        sys.argv[0] = "/usr/sbin/overlay-ls"
        sys.exit(commands.run(command))
        """)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGINT, "overlay-ls: interrupted\n")


def test_a_process_has_the_name_of_its_command(subhost):
    one = subhost().booted()
    process = start(GO, one.name, "sleep", "1000")
    wait_for(lambda: read(f"/proc/{process.pid}/comm") == "overlay-go\n")
    process.terminate()
    process.communicate()


def test_a_command_by_a_name_that_is_no_text(directory):
    os.symlink(LS, os.fsencode(directory) + b"/\xff")
    ended = run(os.fsencode(directory) + b"/\xff", "--version")
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.startswith("overlay-ls ")


def test_a_signal_that_the_caller_has_blocked_stays_so():
    for block in signal.SIG_BLOCK, signal.SIG_UNBLOCK:
        ended = run("/usr/bin/python3", "-c", f"""if True:
            import os, signal
            signal.pthread_sigmask({block}, [signal.SIGINT])
            os.kill(os.getpid(), signal.SIGINT) if {block} == signal.SIG_BLOCK else None
            os.execv("{LS}", ["{LS}", "--version"])""")
        assert ended.returncode == 0 and ended.stdout.startswith("overlay-ls "), ended


def test_what_begins_the_commands_says_why_it_cannot():
    assert run(f"{PROGRAMS}/begin").stderr == "begin: cannot be executed: it is for the first line of a command\n"
    ended = run("unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs /usr/bin && exec {LS}")
    assert one_line(ended) == "overlay-ls: cannot open /usr/bin/python3: No such file or directory"


@pytest.mark.parametrize(("words", "why"), [
    ([BOOT], "give CONF or --all"), ([BOOT, "--check"], "--check requires CONF"), ([BOOT, "--shell"], "--shell requires CONF"),
    ([BOOT, "--foreground"], "--foreground requires CONF"), ([BOOT, "-v", "/x"], "--verbose requires --check"),
    ([BOOT, "-v"], "--verbose requires --check"), ([BOOT, "--check", "-v"], "--check requires CONF"),
    ([BOOT, "--all", "/x"], "--all takes no CONF"), ([BOOT, "--all", "--check"], "--check: not allowed with argument --all"),
    ([STOP], "give CONF, NAME or --all"), ([STOP, "--all", "/x"], "--all takes no CONF or NAME"),
    ([FOLLOW], "give CONF, NAME or --all"), ([FOLLOW, "--all", "/x"], "--all takes no CONF or NAME"),
    ([FOLLOW, "--dry-run", "--restart", "x"], "--restart: not allowed with argument --dry-run"),
    ([GO, "-u", "root"], "--user requires NAME"), ([SHARE, "--undo", "/x"], "--undo requires NAME"),
    ([SHARE, "--read-only", "/x"], "--read-only requires NAME"),
    ([LAYERS_COMMAND, "--check", "--json"], "--json: not allowed with --check"),
    ([LAYERS_COMMAND, "--json", "--remove", "x"], "--json: not allowed with --remove")])
def test_options_that_lack_something_or_do_not_go_together(words, why):
    done = run(*words)
    assert done.returncode == 2 and done.stdout == "" and why in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("words", "what"), [
    ([BOOT, ""], "CONF"), ([BOOT, "--check", ""], "CONF"), ([STOP, ""], "CONF|NAME"), ([FOLLOW, ""], "CONF|NAME"), ([GO, ""], "NAME"), ([GO, "-u", "", "x"], "-u/--user"),
    ([SHARE, "", "x"], "PATH"), ([SHARE, "/x", ""], "NAME"), ([BASELINE, ""], "DIR"), ([BASELINE, "--root", "", "/x"], "--root"),
    ([DISKFILE, ""], "MOUNT/PATH"), ([DISKFILE, "x", ""], "DISKFILE"), ([DISKFILE, "--create", "1M", ""], "--create"),
    ([LAYERS_COMMAND, "--remove", ""], "--remove")])
def test_an_empty_argument_means_nothing(words, what, tmp_path):
    """It is a variable that is not set, in a script: not the current directory, and not the beginning of every digest."""
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith(f"error: argument {what}: it is empty")


def test_clear_is_for_the_keeper():
    for words in ([], ["x"], ["x", "y"]):
        assert one_line(run(f"{PROGRAMS}/clear", *words)).startswith("clear: ")


def test_upgraded_is_for_dpkg():
    for words in ([], ["x"], ["pre", "post"]):
        assert run(f"{PROGRAMS}/upgraded", *words).stderr == "upgraded: to be executed by dpkg, with pre or post\n"


@pytest.mark.parametrize(("hook", "line"), [("init", "cannot read /nowhere/x: No such file or directory"), (
    "postmount", "cannot open the network namespace /run/netns/nobody: No such file or directory")])
def test_hooks_without_a_boot(subhost, hook, line):
    one = subhost(NAME="nobody")
    conf = one.conf if hook == "postmount" else "/nowhere/x"
    assert one_line(run(f"{PROGRAMS}/overlay-{hook}", env={"CONFIG": conf})) == f"overlay-{hook}: {line}"
