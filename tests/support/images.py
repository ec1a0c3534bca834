"""Images of OCI and docker, made by hand: members of tar, layers, and what names them."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def member(name, data=None, kind=None, link="", **attributes):
    info = tarfile.TarInfo(name)
    info.type = kind or (tarfile.REGTYPE if data is not None else tarfile.DIRTYPE)
    info.mode = 0o644 if data is not None else 0o755
    info.linkname = link
    info.size = len(data or b"")
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def tar(*members, format=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return file.getvalue()


def zstd(data):
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """A layout in a directory, to be spoilt at will."""

    def __init__(self, place):
        self.place = str(place)
        os.makedirs(f"{self.place}/blobs/sha256")
        self.manifests = []
        self.write("oci-layout", {"imageLayoutVersion": "1.0.0"})

    def write(self, name, content):
        with open(f"{self.place}/{name}", "wb") as file:
            file.write(content if isinstance(content, bytes) else json.dumps(content).encode())

    def blob(self, content, kind, **more):
        """Add one, and return its descriptor."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = digest_of(data)
        self.write(f"blobs/sha256/{digest[7:]}", data)
        return {"mediaType": kind, "digest": digest, "size": len(data), **more}

    def image(self, *layers, pack=gzip.compress, suffix="+gzip", architecture=ARCHITECTURE, os="linux", spoilt=lambda _: None, docker=False, **config):
        """Add an image of these layers, bytes of tar, and return the descriptor of its manifest."""
        of_layer = f"{DOCKER}.image.rootfs.diff.tar.gzip" if docker else f"{OCI}.layer.v1.tar{suffix}"
        said = {"architecture": architecture, "os": os, "config": config,
                "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}}
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(said, f"{DOCKER}.container.image.v1+json" if docker else f"{OCI}.config.v1+json"),
            "layers": [self.blob(pack(layer), of_layer) for layer in layers]}
        spoilt(manifest)
        return self.blob(manifest, f"{DOCKER}.distribution.manifest.v2+json" if docker else f"{OCI}.manifest.v1+json",
                         platform={"architecture": architecture, "os": os})

    def add(self, descriptor, name=None):
        """Have index.json name it."""
        notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        self.manifests.append({**descriptor, **notes})
        self.write("index.json", {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": self.manifests})
        return self

    def archive(self, path):
        """Make a tar archive of it, as skopeo(1) does."""
        with tarfile.open(path, "w") as file:
            for name in ("oci-layout", "index.json", "blobs"):
                file.add(f"{self.place}/{name}", name)
        return path


def image(place, *layers, name=None, **how):
    """A layout with a single image of these layers."""
    layout = Layout(place)
    return layout.add(layout.image(*layers, **how), name)
