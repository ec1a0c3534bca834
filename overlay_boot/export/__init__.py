"""The story of an export, as in overlay-export(8): an OCI image of a subhost.

Nothing outside of this folder imports another module of it.
"""
import os
import time

from .. import environment, oci, progress, rootfs, state
from ..config import DEFAULTS, Config
from ..errors import Failure
from ..files import Fds
from . import destination, entrypoint, image, pod, tree
from .blob import GZIP, NONE, ZSTD, Blob
from .contents import Contents
from .destination import Destination
from .frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..state import State
    from .tree import Layers
    Json = dict[str, Any]

OF_LAYER = {GZIP: "+gzip", ZSTD: "+zstd", NONE: ""}         # what follows the media type
BEGINNINGS = ((b"\x1f\x8b", GZIP), (b"\x28\xb5\x2f\xfd", ZSTD))
EPOCH = "SOURCE_DATE_EPOCH"
SECOND = 10**9
LAST_TIME = 1 << 63                 # nanoseconds: no file has a later one


class Wish:
    """What the options of overlay-export(8) ask for."""

    __slots__ = ("base", "command", "compression", "secrets")

    def __init__(self, base: str, compression: str, command: list[str], *, secrets: bool) -> None:
        self.base = base                # PATH[:TAG], "" for LOWER
        self.compression = compression
        self.command = command          # what the image runs, [] for what START says
        self.secrets = secrets


def export(name: str, path: str, dest: str, tag: str, wish: Wish, *, kube: bool = False) -> bytes:
    """Write the image of a subhost, which is the one of a configuration file, to DEST.  Return what is to be printed.

    That is a Pod with kube, else nothing.
    """
    os.umask(0o022)
    seconds = time_of_image()
    host, own = rootfs.unshare_mounts()         # what is mounted here goes with this process
    config = Config(path, "overlay-check")
    config.complete()
    config.resolve_limits()
    refuse_other_init(config, wish)
    tag = tag or default_tag(config)
    said = destination.printed(pod.of(config, f"localhost/{tag}")) if kube else b""
    with Fds() as fds:
        running = opened_state(name)
        if running:
            fds.keep(running.fd)
        elif config.image:
            from .. import diskfile
            diskfile.mount_image(config)
        with destination.at(dest, tag, seconds) as made, \
                tree.opened(config, host, own, running, secrets=wish.secrets) as layers:
            if wish.base and not layers.single:
                raise Failure(f"UPPER={config.upper} is LOWER: there is nothing to lay over {wish.base}")
            write(made, layers, config, running, wish, seconds)
            if not running and opened_state(name):
                raise Failure(f"{name} was booted while its files were read")
    return said


def default_tag(config: Config) -> str:
    """Return the TAG of an image that gets no other: a name that container engines take."""
    name = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-"
                   for letter in config.name.lower())
    return f"{name.strip('._-') or 'subhost'}:latest"


def time_of_image() -> int:
    """Return when the image is made, in seconds of the epoch: as the environment says, or now."""
    text = environment.variable(EPOCH)
    if text is None:
        return int(time.time())
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise Failure(f"{EPOCH}={text} is no number of seconds")
    return int(text)


def refuse_other_init(config: Config, wish: Wish) -> None:
    """Raises Failure if another program than the default one starts the services: there is none in an image."""
    if config.init != [DEFAULTS["INIT"]] and not wish.command:
        raise Failure(f"INIT={' '.join(config.init)}: only the services of {DEFAULTS['INIT']} can be started by an "
                      f"image; --entrypoint tells what it runs")


def opened_state(name: str) -> "State | None":
    """Return the state of a subhost that runs or hibernates."""
    try:
        found = state.State(name)
    except FileNotFoundError:
        return None
    if found.keeper() or found.is_hibernating():
        return found
    found.close()
    return None


def write(made: Destination, layers: "Layers", config: Config, running: "State | None", wish: Wish,
          seconds: int) -> None:
    """Write all layers, UPPER first, and what tells of them."""
    command = wish.command or [entrypoint.PATH]
    extra = None if wish.command else (entrypoint.PATH, entrypoint.text(config))
    latest = seconds * SECOND if environment.variable(EPOCH) else LAST_TIME
    found: list[tuple[str, Json, str]] = []         # (diff_id, descriptor, what it was made of), the topmost first

    def add(number: int, *, alone: bool) -> None:
        with Blob(made.new_blob(), wish.compression) as blob:
            contents = Contents(blob, layers.tree, number, latest, seconds)
            program = extra if not number else None
            contents.write_one(program) if alone else contents.write_rest(program)
            contents.finish()
            diff_id, digest, size = blob.finish()
            made.keep_blob(blob.place, digest, size)
        kind = image.LAYER + OF_LAYER[wish.compression]
        found.append((f"sha256:{diff_id}", {"mediaType": kind, "digest": f"sha256:{digest}", "size": size},
                      f"overlay-export: {layers.name_of(number)}"))

    progress.tell(f"writing {layers.name_of(0)}")
    with Frozen(config.name, running) as stands_still:
        add(0, alone=bool(layers.single))
        stands_still.check()
    for number in range(1, layers.single + (not wish.base)):
        progress.tell(f"writing {layers.name_of(number)}")
        add(number, alone=number < layers.single)
    finish(made, config, command, [*reversed(found)], wish, seconds)


def finish(made: Destination, config: Config, command: list[str], found: "list[tuple[str, Json, str]]", wish: Wish,
           seconds: int) -> None:
    """Write the configuration and the manifest of the image, whose own layers are found, the lowest first; deliver."""
    base: Json = {}
    below: list[Json] = []
    if wish.base:
        progress.tell(f"copying {wish.base}")
        base, below = copied(made, wish.base)
    of_config = made.add(image.configuration(config, command, seconds,
                                             [(diff_id, made_by) for diff_id, _, made_by in found], base))
    manifest = made.add(image.manifest(of_config, [*below, *(descriptor for _, descriptor, _ in found)]))
    made.deliver({"mediaType": image.MANIFEST, **manifest, "platform": oci.platform()})


def copied(made: Destination, path: str) -> "tuple[Json, list[Json]]":
    """Copy the layers of the image PATH[:TAG]; return its configuration, and their descriptors."""
    try:
        with oci.image(path) as found:
            below = []
            for layer in found.layers:
                blob = layer.blob
                digest = made.copy_blob(blob.fd, blob.offset, blob.size, layer.digest)
                first = os.pread(blob.fd, 4, blob.offset)
                kind = next((OF_LAYER[kind] for magic, kind in BEGINNINGS if first.startswith(magic)), "")
                below.append({"mediaType": image.LAYER + kind, "digest": f"sha256:{digest}", "size": blob.size})
            return found.config, below
    except Failure as failure:
        raise Failure(f"--base {path}: {failure}") from None
