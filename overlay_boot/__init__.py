"""overlay-boot: subhosts on one kernel.  The stories are boot.py and stop.py."""
import _imp
import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec as Spec
from _frozen_importlib_external import MAGIC_NUMBER, ExtensionFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__version__ = "2.1.0"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = "/usr/libexec/overlay-boot"
INTERFACES = "/sys/class/net"
LONGEST_REAPER = 1 << 20    # bytes that are read of a program to know whether it is our reaper, which has far less
BASELINE_MARK = "trusted.overlay_boot.baseline"     # an xattr(7) of the directory: it is a baseline
PREFIX = f"{__name__}."
MOST = 1 << 16          # bytes of a compiled module: to ask for more would have malloc(3) map memory for each


class Compiled:
    """Imports the modules of this package from their compiled files, as far as these are of the sources that are there.

    importlib asks every finder and lists folders, in eleven system calls a module.  Here four do, and a boot takes
    1 ms less.  What this does not find, as it is not compiled, importlib finds after it.
    """

    __slots__ = ("compiled_end", "extension_end", "folder")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.compiled_end = f".{sys.implementation.cache_tag}.pyc"
        self.extension_end = _imp.extension_suffixes()[0]

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> "ModuleSpec | None":
        """Return how to load a module of this package, None if importlib shall see to it."""
        if not fullname.startswith(PREFIX):
            return None
        place = f"{self.folder}/{fullname[len(PREFIX):].replace('.', '/')}"
        folder, _, name = place.rpartition("/")
        return (self.module(fullname, folder, name)
                or self.extension(fullname, f"{place}{self.extension_end}")
                or self.module(fullname, place, "__init__"))

    def module(self, fullname: str, folder: str, name: str) -> "ModuleSpec | None":
        """Return how to load a module that is compiled, the door of the folder if the name is __init__."""
        source, compiled = f"{folder}/{name}.py", f"{folder}/__pycache__/{name}{self.compiled_end}"
        try:
            fd = posix.open(compiled, posix.O_RDONLY | posix.O_CLOEXEC)
            code = posix.read(fd, MOST)
            posix.close(fd)
            status = posix.stat(source)
        except OSError:
            return None
        # The head of a compiled file, PEP 552: the interpreter's number, flags, time and size of the source.
        of_source = int(status.st_mtime) & 0xffffffff | status.st_size << 32
        if code[:16] != MAGIC_NUMBER + (of_source << 32).to_bytes(12, "little") or len(code) == MOST:
            return None
        spec = Spec(fullname, self, origin=source, loader_state=memoryview(code)[16:])      # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = compiled
        if name == "__init__":
            spec.submodule_search_locations = [folder]
        return spec

    def extension(self, fullname: str, path: str) -> "ModuleSpec | None":
        """Return how to load an extension module."""
        try:
            posix.stat(path)
        except OSError:
            return None
        return Spec(fullname, ExtensionFileLoader(fullname, path), origin=path)

    def create_module(self, _spec: "ModuleSpec") -> None:
        """Leave it to the import system."""

    def exec_module(self, module: "ModuleType") -> None:
        """Execute the code that find_spec() has found."""
        assert module.__spec__
        exec(marshal.loads(module.__spec__.loader_state), module.__dict__)  # noqa: S102 (it is importlib's own way)


sys.meta_path.insert(0, Compiled(__path__[0]))
