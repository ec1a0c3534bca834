"""The configuration of an image, as OCI's image-spec has it, and its manifest."""
import time

from .. import PATH, files, oci, paths
from ..config import REPEATABLE, Config
from ..ports import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    Json = dict[str, Any]

OCI = "application/vnd.oci.image."
MANIFEST, CONFIG, LAYER = f"{OCI}manifest.v1+json", f"{OCI}config.v1+json", f"{OCI}layer.v1.tar"
LABEL = "overlay-boot."             # before the name of a variable
STOP_SIGNAL = "SIGTERM"
ROOT = "/"


def stamp(seconds: int) -> str:
    """Return a time as RFC 3339 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def configuration(config: Config, command: list[str], seconds: int, layers: "list[tuple[str, str]]",
                  base: "Json") -> "Json":
    """Return the configuration of an image.

    command is what it runs; layers are (diff_id, what made it), the lowest first, above those of base, the
    configuration of another image, {} if there is none.
    """
    created = stamp(seconds)
    below = base.get("rootfs", {}).get("diff_ids", [])
    runs = {"Entrypoint": command, "Env": [f"PATH={PATH}"], "WorkingDir": ROOT, "StopSignal": STOP_SIGNAL,
            "ExposedPorts": ports(config), "Volumes": volumes(config), "Labels": labels(config)}
    return {"created": created, **oci.platform(), "config": {key: value for key, value in runs.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [*below, *(diff_id for diff_id, _ in layers)]},
            "history": [*base.get("history", []),
                        *({"created": created, "created_by": made_by} for _, made_by in layers)]}


def manifest(config: "Json", layers: "list[Json]") -> "Json":
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG, **config}, "layers": layers}


def ports(config: Config) -> "Json":
    return {f"{port.inside}/{port.protocol}": {} for port in parse(config.publish)}


def volumes(config: Config) -> "Json":
    """Return the directories of SHARE; a file can be no volume."""
    return {paths.normal(inside): {} for outside, inside, _ in config.share if files.kind(outside) == files.DIRECTORY}


def labels(config: Config) -> dict[str, str]:
    """Return all that the configuration file assigns, as it stands there."""
    return {f"{LABEL}{variable}": "\n".join(values if variable in REPEATABLE else values[:1])
            for variable, values in {"NAME": [config.name], **config.assigned}.items()}
