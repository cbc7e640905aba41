"""Hands an image of buildah's storage to containerd without copying it.

Both keep a layer as a folder in the same form (overlayfs), and both never write to it again; so a layer becomes a
snapshot by hard links, in seconds and without a second copy on the disk. Only the manifest and the configuration, a few
kilobytes, are imported. It does not know how images are built, nor what is in them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dev.cluster.errors import ClusterError

SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"


class Ctr(Protocol):
    """containerd's own command; raises when it fails."""

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> str: ...


@dataclass(frozen=True, slots=True)
class Layer:
    folder: Path
    digest: str
    """Of the uncompressed tar (`diff id`)."""
    size: int
    """Bytes of that tar; 0 where the storage does not say."""
    chain: str
    """Names this layer together with all below it: containerd's name for the snapshot."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    config: bytes
    layers: tuple[Layer, ...]
    """From the lowest up."""

    @property
    def identity(self) -> str:
        return digest(self.config)

    @property
    def labels(self) -> dict[str, str]:
        """Those of the Dockerfile and the build command."""
        return json.loads(self.config).get("config", {}).get("Labels") or {}


def hand_over(
    name: str, *, storage: Path, root: Path, root_inside: str, ctr: Ctr, label: tuple[str, str] | None = None
) -> None:
    """`root` is containerd's root on the host; `root_inside` the same folder as containerd names it.

    `label`: what the image must carry, or it is not the one that was meant.
    """
    image = read_image(storage, name)
    if label is not None and image.labels.get(label[0]) != label[1]:
        raise ClusterError(f"another checkout has built its own {name} in the meantime: run it again")
    if digest(manifest(image)) in ctr("images", "list", f"name=={name}"):
        return
    there = {line.split()[0] for line in ctr("snapshots", "list").splitlines()[1:]}
    parent = ""
    added = [layer for layer in image.layers if layer.chain not in there]
    for layer in image.layers:
        if layer in added:
            add_snapshot(layer, parent, root, root_inside, ctr)
        parent = layer.chain
    ctr("images", "import", "-", stdin=archive(name, image))
    for layer in added:
        # `ctr` had marked it as never to be collected; from now on it lives as long as its image.
        ctr("snapshots", "label", layer.chain, "containerd.io/gc.root=")


def read_image(storage: Path, name: str) -> StoredImage:
    found = [entry for entry in _read(storage / "overlay-images/images.json") if name in entry.get("names", [])]
    if not found:
        raise ClusterError(f"no image {name} in the cache: python -m dev.cluster images")
    entry = found[0]
    key = "=" + base64.b64encode(f"sha256:{entry['id']}".encode()).decode()
    config = (storage / "overlay-images" / entry["id"] / key).read_bytes()
    known = {layer["id"]: layer for layer in _read(storage / "overlay-layers/layers.json")}
    stack, layer_id = [], entry.get("layer", "")
    while layer_id:
        stack.append(known[layer_id])
        layer_id = known[layer_id].get("parent", "")
    layers: list[Layer] = []
    for stored in reversed(stack):
        folder = storage / "overlay" / stored["id"] / "diff"
        chain = chain_id(layers[-1].chain if layers else None, stored["diff-digest"])
        layers.append(Layer(folder, stored["diff-digest"], stored.get("diff-size", 0), chain))
    return StoredImage(config, tuple(layers))


def chain_id(parent: str | None, diff: str) -> str:
    """As the OCI image specification defines it."""
    return diff if parent is None else digest(f"{parent} {diff}".encode())


def add_snapshot(layer: Layer, parent: str, root: Path, root_inside: str, ctr: Ctr) -> None:
    """A crash half-way leaves an uncommitted snapshot under a name that the next attempt removes."""
    working = f"linking {layer.chain}"
    if working in ctr("snapshots", "list"):
        ctr("snapshots", "remove", working)
    ctr("snapshots", "prepare", working, *([parent] if parent else []))
    folder = upper_folder(ctr("snapshots", "mounts", "/x", working), root, root_inside)
    # Directories are new, files are shared; attributes (opaque marks of overlayfs) come along.
    command = ["cp", "--archive", "--link", "--no-target-directory", str(layer.folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        ctr("snapshots", "remove", working)
        raise ClusterError(f"cannot link a layer into the node: {done.stderr.strip()[:500]}")
    ctr("snapshots", "commit", layer.chain, working)


def upper_folder(mounts: str, root: Path, root_inside: str) -> Path:
    """Where an active snapshot is written to, out of the mount command that containerd prints for it."""
    found = re.search(rf"(?:upperdir=|\s){re.escape(root_inside)}/({SNAPSHOTS}/\d+/fs)", mounts)
    if found is None:
        raise ClusterError(f"containerd described a snapshot in an unknown way: {mounts}")
    return root / found[1]


def manifest(image: StoredImage) -> bytes:
    layers = [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in image.layers]
    config = {"mediaType": CONFIG, "digest": image.identity, "size": len(image.config)}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()


def archive(name: str, image: StoredImage) -> bytes:
    """An OCI archive without layers: containerd looks for a layer only when its snapshot is missing."""
    content = manifest(image)
    annotations = {"io.containerd.image.name": name}
    described = {"mediaType": MANIFEST, "digest": digest(content), "size": len(content), "annotations": annotations}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]}).encode(),
        f"blobs/{digest(content).replace(':', '/')}": content,
        f"blobs/{image.identity.replace(':', '/')}": image.config,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in files.items():
            header = tarfile.TarInfo(path)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _read(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return entries
