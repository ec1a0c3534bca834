"""Which image PATH[:TAG] names: its manifest for this machine, its configuration, and its layers.

Everything from index.json on is known by its digest; that file is as trusted as the configuration that names it.
"""
import posix

from .. import files, paths
from ..errors import Failure
from . import layout
from .layout import Blob, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LATEST = "latest"
DEEPEST = 8                 # indexes in one another
MOST_MANIFESTS = 1000       # of an index, and of those in it
MOST_LAYERS = 127           # docker's limit; the kernel has another, which is never less
MOST_SHOWN = 20
LINUX = "linux"
# What a machine runs, the best first, (architecture, variants that it runs), by what uname(2) calls it.
PLAIN = ("", "v1")
ARM = (("arm", ("v7", "v6", "v5", "")),)
MACHINES = {
    "x86_64": (("amd64", PLAIN), ("386", ("",))), "i686": (("386", ("",)),), "i586": (("386", ("",)),),
    "aarch64": (("arm64", ("v8", "")), *ARM), "armv8l": ARM, "armv7l": ARM, "armv6l": (("arm", ("v6", "v5", "")),),
    "ppc64le": (("ppc64le", ("",)),), "s390x": (("s390x", ("",)),), "riscv64": (("riscv64", ("",)),),
    "mips64": (("mips64le", ("",)),), "loongarch64": (("loong64", ("",)),),
}


class Layer:
    """A layer: its blob, and the digests of that and of what it is when it is decompressed."""

    __slots__ = ("blob", "diff_id", "digest", "key", "kind")

    def __init__(self, blob: Blob, kind: str, digest: str, diff_id: str, key: str) -> None:
        self.blob = blob
        self.kind = kind                # its media type, "" if docker-save(1) has written it
        self.digest = digest            # "" if only the other one is known
        self.diff_id = diff_id
        self.key = key                  # by which the cache has it: it follows from this layer and all below


class Image:
    """An image, open for reading.  The end of a with statement closes it."""

    __slots__ = ("config", "data", "digest", "layers", "layout", "path")

    data: bytes                         # its configuration, and what that says
    config: "dict[str, Any]"
    digest: str                         # the SHA-256 sum of that
    layers: list[Layer]                 # the lowest first

    def __init__(self, path: str) -> None:
        """path is PATH[:TAG].  Raises Failure, with the reason only."""
        self.path = path
        place, tag = split(path)
        self.layout = Layout(place)
        try:
            if self.layout.is_oci():
                self.read_oci(tag)
            elif self.layout.find(layout.DOCKER_FILE):
                self.read_docker(tag)
            else:
                raise Failure(f"it is no image: it has neither {layout.TYPE_FILE} nor {layout.DOCKER_FILE}")
        except BaseException:
            self.layout.close()
            raise

    def __enter__(self) -> "Image":
        return self

    def __exit__(self, *_: object) -> None:
        self.layout.close()

    def read_oci(self, tag: str) -> None:
        index = layout.parsed(self.layout.file(layout.INDEX_FILE).content(), layout.INDEX_FILE)
        named = [(names_of(one), one) for one in layout.many(index, "manifests")]
        candidates = [*Manifests(self.layout).of([one for _, one in chosen(named, tag)])]
        if not candidates:
            raise Failure("there is no manifest of an image in it")
        manifest = self.for_this_machine(candidates)
        descriptors = layout.many(manifest, "layers")
        for one in descriptors:
            kind = layout.text(one, "mediaType")
            if kind not in layout.LAYERS:
                raise Failure(f"a layer of it is of the type {paths.printable(kind)}, which is not known")
        self.read_config(self.config_of(manifest))
        self.put_layers([(self.layout.blob(one), layout.text(one, "mediaType"), layout.digest_in(one))
                         for one in descriptors])

    def for_this_machine(self, candidates: "list[tuple[Any, Any]]") -> "dict[str, Any]":
        """Return the manifest for this machine, of (descriptor, platform or None).  Raises Failure if none is."""
        found = []
        for descriptor, platform in candidates:
            manifest = None
            if platform is None:
                manifest = self.layout.json(descriptor)[1]
                platform = layout.parsed(self.config_of(manifest), "its configuration")
            found.append((fitness(platform), descriptor, manifest, platform))
        best = min(found, key=lambda one: one[0])
        if best[0] == UNFIT:
            these = sorted({paths.printable(shown(platform)) for *_, platform in found})
            raise Failure(f"it is for {' '.join(these[:MOST_SHOWN])}, and not for this machine, "
                          f"{LINUX}/{architectures()[0][0]}")
        return best[2] or self.layout.json(best[1])[1]

    def config_of(self, manifest: "dict[str, Any]") -> bytes:
        """Return the configuration that a manifest names."""
        descriptor = layout.inner(manifest, "config")
        kind = layout.text(descriptor, "mediaType")
        if kind not in layout.CONFIGS:
            raise Failure(f"it is no image, but an artifact of the type {paths.printable(kind)}")
        return self.layout.json(descriptor)[0]

    def read_docker(self, tag: str) -> None:
        images = layout.loaded(self.layout.file(layout.DOCKER_FILE).content(), layout.DOCKER_FILE)
        if not isinstance(images, list):
            raise Failure(f"{layout.DOCKER_FILE} is not a JSON array")
        one, *others = [found for _, found in chosen([(layout.texts(one, "RepoTags"), one) for one in images], tag)]
        if others:
            raise Failure("it has several images of that name")
        name = layout.text(one, "Config")
        data = self.layout.file(name).content()
        if digest := digest_of_name(name):
            layout.check(data, digest, paths.printable(name))
        self.read_config(data)
        self.put_layers([(self.layout.file(name), "", digest_of_name(name)) for name in layout.texts(one, "Layers")])

    def read_config(self, data: bytes) -> None:
        import hashlib
        self.data, self.config = data, layout.parsed(data, "its configuration")
        self.digest = hashlib.sha256(data).hexdigest()
        if self.config.get("os") and fitness(self.config) == UNFIT:
            raise Failure(f"it is for {paths.printable(shown(self.config))}, and not for this machine, "
                          f"{LINUX}/{architectures()[0][0]}")

    def put_layers(self, blobs: list[tuple[Blob, str, str]]) -> None:
        rootfs = layout.inner(self.config, "rootfs")
        diff_ids = layout.texts(rootfs, "diff_ids")
        if layout.text(rootfs, "type") != "layers" or len(diff_ids) != len(blobs):
            raise Failure("its configuration does not tell of the same layers as its manifest")
        if not 0 < len(blobs) <= MOST_LAYERS:
            raise Failure(f"it has {len(blobs)} layers, and can have 1 to {MOST_LAYERS}")
        self.layers = [Layer(*blob, diff_id, key) for blob, diff_id, key in zip(
            blobs, diff_ids, keys(diff_ids), strict=True)]


class Manifests:
    """The manifests that indexes name, also by way of others."""

    __slots__ = ("layout", "left")

    def __init__(self, source: Layout) -> None:
        self.layout = source
        self.left = MOST_MANIFESTS

    def of(self, descriptors: "list[Any]", depth: int = 1) -> "Iterator[tuple[Any, Any]]":
        """Yield (descriptor, platform or None) of the manifests of images.  Raises Failure if there are too many."""
        for one in descriptors:
            self.left -= 1
            if self.left < 0 or depth > DEEPEST:
                raise Failure(f"it has more than {MOST_MANIFESTS} manifests, or more than {DEEPEST} indexes in one "
                              f"another")
            kind = layout.text(one, "mediaType")
            if kind in layout.INDEXES:
                yield from self.of(layout.many(self.layout.json(one)[1], "manifests"), depth + 1)
            elif kind in layout.MANIFESTS:
                yield one, layout.inner(one, "platform") or None


def split(path: str) -> tuple[str, str]:
    """Return (PATH, TAG or "") of PATH[:TAG].  A colon belongs to PATH where there is such a file."""
    if files.kind(path):
        return path, ""
    parts = path.split(":")
    for number in range(1, len(parts)):
        place = ":".join(parts[:number])
        if files.kind(place):
            return place, ":".join(parts[number:])
    raise Failure("No such file or directory")


def chosen(named: "list[tuple[list[str], Any]]", tag: str) -> "list[tuple[list[str], Any]]":
    """Return those of (names, what has them) that a TAG means; without one the only one, or the latest.

    Raises Failure, with the names, if there is none, or no telling which.
    """
    names = sorted({name for ones, _ in named for name in ones})
    if not named:
        raise Failure("there is no image in it")
    if tag:
        found = [one for one in named if tag in one[0]] or [one for one in named if tag in map(tag_of, one[0])]
    elif len({tuple(ones[:1]) for ones, _ in named}) == 1:
        return named
    else:
        found = [one for one in named if LATEST in (*one[0], *map(tag_of, one[0]))]
    if found and len({tuple(ones[:1]) for ones, _ in found}) == 1:
        return found
    there = " ".join(map(paths.printable, names[:MOST_SHOWN])) or "none that has a name"
    if not tag:
        raise Failure(f"there are several images in it, and TAG tells which: {there}")
    if not found:
        raise Failure(f"there is no image {tag} in it, but {there}")
    raise Failure(f"there are several images {tag} in it: {there}")


def names_of(descriptor: "Any") -> list[str]:
    """Return the names that an index has for an image."""
    notes = layout.inner(descriptor, "annotations")
    return [*filter(None, (layout.text(notes, key) for key in (layout.REF_NAME, layout.OF_CONTAINERD)))]


def tag_of(name: str) -> str:
    """Return the tag of a name such as docker.io/library/debian:12."""
    _, colon, tag = name.rpartition(":")
    return tag if colon and "/" not in tag else ""


def digest_of_name(name: str) -> str:
    """Return the digest of a file that docker-save(1) has named by that, "" of another one."""
    value = paths.name(name).removesuffix(".json").removesuffix(".tar")
    is_one = len(value) == layout.LENGTHS["sha256"] and not value.strip("0123456789abcdef")
    # Before version 25 a layer was in a directory of a name that is no digest of it; podman's are HEX.tar.
    return f"sha256:{value}" if is_one and (name.endswith(".json") or name.startswith("blobs/sha256/")) else ""


def keys(diff_ids: list[str]) -> "Iterator[str]":
    """Yield by which name the cache has each layer: it depends on those below, as what is unpacked does."""
    import hashlib
    chain = layout.OCI
    for one in diff_ids:
        layout.split(one)
        chain = hashlib.sha256(f"{chain} {one}".encode()).hexdigest()
        yield chain


# Platforms

UNFIT = 1 << 10


def architectures() -> "tuple[tuple[str, tuple[str, ...]], ...]":
    machine = posix.uname().machine
    return MACHINES.get(machine, ((machine, ("",)),))


def platform() -> "dict[str, str]":
    """Return the platform of what this machine makes."""
    architecture, (variant, *_) = architectures()[0]
    return {"os": LINUX, "architecture": architecture, **({"variant": variant} if variant else {})}


def fitness(platform: "dict[str, Any]") -> int:
    """Return how well a platform fits this machine, 0 being the best, UNFIT not at all."""
    if layout.text(platform, "os") != LINUX:
        return UNFIT
    for number, (architecture, variants) in enumerate(architectures()):
        if layout.text(platform, "architecture") == architecture:
            variant = layout.text(platform, "variant")
            # Another variant is for some of these processors only.
            return number * 16 + (variants.index(variant) if variant in variants else 8)
    return UNFIT


def shown(platform: "dict[str, Any]") -> str:
    return "/".join(layout.text(platform, key) or "?" for key in ("os", "architecture"))
