"""The shape of Kubernetes: a Pod that runs an image as the subhost runs.  JSON is YAML as well."""
from .. import capabilities, files, limits, paths
from ..addresses import text_of
from ..config import READ_ONLY, YES, Config
from ..errors import Failure
from ..ports import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    Json = dict[str, Any]


def of(config: Config, image: str) -> "Json":
    """Return a Pod that runs the image as the subhost runs."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in config.name.lower())
    name = name.strip("-") or "subhost"
    shares = [(f"share-{number}", one) for number, one in enumerate(config.share)]
    grace = round(float(config.stop_timeout) * (len(config.start) + 2))
    container = {
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": port.inside, "hostPort": port.number, "protocol": port.protocol.upper(),
                   **({"hostIP": text_of(port.address)} if port.address else {})} for port in parse(config.publish)],
        "securityContext": {"capabilities": {"drop": ["ALL"], "add": capabilities_of(config)}},
        "volumeMounts": [{"name": volume, "mountPath": paths.normal(inside), "readOnly": READ_ONLY in options}
                         for volume, (_, inside, options) in shares],
        "resources": resources(config),
    }
    spec = {
        "hostname": name, "restartPolicy": "Always" if config.stay == YES else "OnFailure",
        "terminationGracePeriodSeconds": grace,
        "containers": [{key: value for key, value in container.items() if value}],
        "volumes": [{"name": volume, "hostPath": {"path": outside, "type": kind_of(outside)}}
                    for volume, (outside, _, _) in shares],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {key: value for key, value in spec.items() if value}}


def kind_of(path: str) -> str:
    """Return the kind of what is shared, as Kubernetes calls it."""
    kinds = {files.DIRECTORY: "Directory", files.CHARACTER_DEVICE: "CharDevice", files.BLOCK_DEVICE: "BlockDevice",
             files.SOCKET: "Socket"}
    kind = files.kind(path)
    if not kind:
        raise Failure(f"SHARE={path}: No such file or directory")
    return kinds.get(kind, "File")


def capabilities_of(config: Config) -> list[str]:
    return ["ALL"] if config.capabilities == capabilities.ALL else capabilities.names_of(config.capabilities)


def resources(config: Config) -> "Json":
    """Return what there is of the limits that Kubernetes has: memory in bytes, and processors in thousandths."""
    found = {}
    for variable, key in (("MEMORY_MAX", "memory"), ("CPU_MAX", "cpu")):
        written = limits.written(variable, config.limits[variable]) if variable in config.limits else []
        if written and key == "memory":
            found[key] = written[0]
        elif written:
            quota, period = written[0].split()
            if quota != limits.NONE:
                found[key] = f"{int(quota) * 1000 // int(period)}m"
    return {"limits": found} if found else {}
