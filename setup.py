"""Builds the Python package, its Cython parts, the manual pages, and what the Debian package has for shells."""
import copy
import os
import re
import shlex
import shutil
import sysconfig
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# Every command, once: the folder it is installed in and its name; its module is the name less "overlay-".
COMMANDS = {
    "sbin": ["overlay-baseline", "overlay-boot", "overlay-diff", "overlay-diskfile", "overlay-export",
             "overlay-follow", "overlay-go", "overlay-layers", "overlay-log", "overlay-ls", "overlay-new",
             "overlay-share", "overlay-stop"],
    "ocf": ["subhost"],
    "libexec": ["clear", "overlay-init", "overlay-oci-init", "overlay-postmount", "overlay-premount", "overlay-systemd",
                "upgraded"],
}

PROGRAMS = ["begin", "execute", "keeper", "reaper"]

# As in debian/control.
LONG_DESCRIPTION = """\
A subhost is the host's own system, booted a second time on the same kernel,
with its own host name, mounts, processes and network. On disk it is a
directory with a configuration file and the few files in which it differs from
the host; overlay-boot lays these over the host's root file system. Nothing
has to be installed in a subhost or kept up to date: what the host has, the
subhost has.

overlay-go enters a running subhost, overlay-stop stops it and leaves only its
files and its log, and overlay-ls lists the subhosts. Virtual cables connect
subhosts to the host's bridges."""


def module(command):
    return "overlay_boot.commands." + command.removeprefix("overlay-").replace("-", "_")


class Program(Extension):
    """A freestanding program in Cython: ``cdef public int main(...) noexcept nogil``.

    Only code reachable from main is kept (--gc-sections). It is linked without libpython, so the link fails, naming the
    function, if main reaches the C API.
    """


class build_native(build_ext):
    """build_ext that also links Program objects."""

    def run(self):
        # Here, not when setup.py is read: clean, sdist and egg_info then need no Cython, and leave the tree as it is.
        from Cython.Build import cythonize
        for ext in self.extensions:
            ext.sources = cythonize(
                [ext], build_dir=self.build_temp, include_path=["_native"], language_level=3,
                # A signature at the head of each docstring: the tests hold the stubs, *.pyi, against that.
                compiler_directives={"embedsignature": True})[0].sources
        super().run()

    def get_ext_filename(self, fullname):
        programs = {ext.name.rpartition(".")[2] for ext in self.extensions if isinstance(ext, Program)}
        if fullname.rpartition(".")[2] in programs:
            return os.path.join(*fullname.split("."))       # no .cpython-….so
        return super().get_ext_filename(fullname)

    def build_extension(self, ext):
        if not isinstance(ext, Program):
            super().build_extension(ext)
            return
        env = os.environ
        cc = shlex.split(env.get("PROGRAM_CC") or shutil.which("musl-gcc") or env.get("CC", "cc"))
        flags = shlex.split(f"{env.get('CPPFLAGS', '')} {env.get('CFLAGS', '-O2')}")
        tool = copy.copy(self.compiler)
        # The extension compiler's library path would bring in glibc's libc.a.
        tool.library_dirs, tool.libraries, tool.runtime_library_dirs = [], [], []
        tool.set_executables(
            compiler_so=[*cc, *flags],
            linker_exe=[*cc, *flags, *shlex.split(env.get("LDFLAGS", ""))])
        objects = tool.compile(
            ext.sources, output_dir=self.build_temp, include_dirs=ext.include_dirs, depends=ext.depends,
            extra_postargs=[
                # musl-gcc knows neither the kernel's headers nor Debian's <MULTIARCH/pythonX.Y/pyconfig.h>.
                "-idirafter", "/usr/include", "-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}",
                "-ffunction-sections", "-fdata-sections"])
        target = Path(self.get_ext_fullpath(ext.name))
        self.mkpath(str(target.parent))
        # musl's specs drop --build-id, which dh_strip wants.
        tool.link_executable(
            objects, target.name, output_dir=str(target.parent),
            extra_postargs=["-static", "-Wl,--gc-sections", "-Wl,--build-id=sha1"])


class Step(Command):
    """A command without options."""

    user_options: ClassVar = []

    def initialize_options(self):
        pass

    def finalize_options(self):
        pass


class build_man(Step):
    """Render man/*.adoc to build/man."""

    def run(self):
        self.spawn(["asciidoctor", "-b", "manpage", "-D", "build/man", *sorted(glob("man/*.adoc"))])


class build_launchers(Step):
    """Write the programs of the Debian package to build/launchers."""

    def run(self):
        template = Path("debian/launcher.in").read_text()
        for folder, commands in COMMANDS.items():
            self.mkpath(f"build/launchers/{folder}")
            for command in commands:
                launcher = Path("build/launchers", folder, command)
                launcher.write_text(template.replace("@MODULE@", module(command)))
                launcher.chmod(0o755)


class build_completions(Step):
    """Write what bash completes after each command of users to build/completions, from the options of its parser.

    What stands for a value in the usage says of which kind it is. The built package must be in the module path.
    """

    kinds: ClassVar = {"CONF": "conf", "CONF|NAME": "conf_or_names", "NAME": "names", "USER": "users",
                       "DIGEST": "digests", "DIR": "directories", "DEST": "directories", "ROOT": "directories",
                       "FILE": "files", "IMAGE": "files", "PATH": "files", "DISKFILE": "files", "MOUNT/PATH": "files",
                       ("SIZE", "FILE"): "size_and_file", "COMMAND": None, "INDEX": None, "TAG": None, "LINES": None,
                       "VARIABLE=VALUE": None}

    def run(self):
        import shtab
        self.mkpath("build/completions")
        functions = Path("debian/completion.bash").read_text()
        for command in COMMANDS["sbin"]:
            parser = import_module(module(command)).parser()
            kinds = {action: self.kinds[action.metavar] for action in parser._actions if action.metavar}
            for action, kind in kinds.items():
                if kind:
                    action.complete = {"bash": f"_overlay_boot_{kind}"}
            text = shtab.complete(parser, "bash", preamble=functions) + "\n"
            if not {"conf", "conf_or_names", "directories", "files"} & set(kinds.values()):
                # else a name is taken for that of a directory which happens to be there
                text = text.replace("complete -o filenames ", "complete ")
            if command == "overlay-go":
                text = text.replace("-F _shtab_overlay_go ", "-F _overlay_boot_go ")
            Path("build/completions", command).write_text(text)


class build_package(build_py):
    """build_py that also writes the table of variables: what the manual says of each first, and its default."""

    def run(self):
        super().run()
        manual = Path("man/overlay-boot.conf.5.adoc").read_text(encoding="utf-8")
        section = manual.partition("\n== VARIABLES\n")[2].partition("\n== ")[0]
        _, *parts = re.split(r"^\*([A-Z_]+)\*::\n", section, flags=re.MULTILINE)
        rows = ""
        for variable, text in zip(parts[::2], parts[1::2], strict=True):
            default = re.search(r"^Default: (.*?)\.$", text, re.MULTILINE)
            meaning = text.partition("\n")[0].rstrip(".")
            rows += "\t".join(map(plain, (variable, default[1] if default else "-", meaning))) + "\n"
        Path(self.build_lib, "overlay_boot/variables").write_text(rows, encoding="utf-8")


def plain(text):
    """Return a text of asciidoctor's without its marks."""
    return re.sub(r"\*|(?<!\w)_+|_+(?!\w)|(?<=\+\+)_|\+\+", "", text)


class build_filters(Step):
    """Write the filters of system calls, beside their policy. The built package must be in the module path."""

    def run(self):
        from overlay_boot import system_calls
        system_calls.build(system_calls.FOLDER)


def native(kind, name):
    return kind(f"overlay_boot.{name}", [f"_native/{name}.pyx"], include_dirs=["_native"],
                depends=sorted(glob("_native/*.p[xy][di]") + glob("_native/*.h")))


setup(
    name="overlay-boot",
    version="2.1.0",
    description="subhosts: a host's own system booted again, in namespaces",
    long_description=LONG_DESCRIPTION,
    url="UNKNOWN",              # which is distutils' word for none; stdeb writes all others into the package
    license="GPL-2.0-or-later",
    python_requires=">=3.11",
    install_requires=["pyroute2>=0.7.2"],
    packages=["overlay_boot", "overlay_boot.baseline", "overlay_boot.commands", "overlay_boot.export",
              "overlay_boot.layers", "overlay_boot.oci", "overlay_boot.packages", "overlay_boot.system_calls"],
    package_data={"overlay_boot.system_calls": ["policy"]},
    exclude_package_data={"overlay_boot": ["*.pyi"]},       # they are for tests/lint; nobody else imports the modules
    ext_modules=[native(Extension, "namespaces"), native(Extension, "links"), native(Extension, "users"),
                 *(native(Program, name) for name in PROGRAMS)],
    cmdclass={"build_ext": build_native, "build_py": build_package, "build_man": build_man,
              "build_launchers": build_launchers,
              "build_completions": build_completions, "build_filters": build_filters},
    options={"sdist_dsc": {"compat": "13"}},    # stdeb's own default is one that debhelper has given up
    # Not for users are clear, the keeper's own, subhost, a cluster's, and upgraded, dpkg's: they would hide others of
    # their names in a venv.
    entry_points={"console_scripts": [f"{command} = {module(command)}:main" for commands in COMMANDS.values()
                                      for command in commands if command not in ("clear", "subhost", "upgraded")]},
    zip_safe=False,
)
