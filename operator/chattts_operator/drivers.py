"""The driver gate: does each node that may get a pod have a driver for the image's CUDA? Pure; reads labels only.

The labels are those of NVIDIA's GPU feature discovery. A node without them says nothing, which is not a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import api
from .spec import TTSServiceSpec

_NEW, _OLD = "nvidia.com/cuda.driver-version", "nvidia.com/cuda.driver"
# Lowest driver branch for a CUDA major version (minor version compatibility; NVIDIA's CUDA release notes, table 2).
DRIVER_OF_CUDA: Mapping[int, tuple[int, ...]] = {11: (450,), 12: (525,), 13: (580,)}
LABELS = (  # newest naming first
    (f"{_NEW}.major", f"{_NEW}.minor", f"{_NEW}.revision"),
    (f"{_OLD}.major", f"{_OLD}.minor", f"{_OLD}.rev"),
)
SHOWN = 5  # names of nodes in a message


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    labels: Mapping[str, str]
    resources: frozenset[str]  # names of what can be allocated


@dataclass(frozen=True, slots=True)
class Verdict:
    compatible: bool | None  # None: cannot be said
    reason: str
    message: str


def node_of(body: api.Body) -> Node:
    metadata = body["metadata"]
    allocatable = (body.get("status") or {}).get("allocatable") or {}
    resources = frozenset(name for name, value in allocatable.items() if str(value) != "0")
    return Node(metadata["name"], dict(metadata.get("labels") or {}), resources)


def judge(spec: TTSServiceSpec, cuda_version: str, nodes: Iterable[Node] | None) -> Verdict:
    """`cuda_version` is that of the image in use; empty: unknown. `nodes` None: we may not read them."""
    if spec.server.device == "CPU":
        return Verdict(True, "NotNeeded", "server.device is CPU")
    least = _parse(spec.accelerator.min_driver_version) or _of_cuda(cuda_version)
    if not least:
        return Verdict(None, "CudaUnknown", "set image.cudaVersion or accelerator.minDriverVersion to compare drivers")
    if nodes is None:
        return Verdict(None, "NoNodeAccess", "the operator may not list nodes (chart value drivers.check)")
    candidates = [node for node in nodes if _may_run(spec, node)]
    known = [(node, version) for node in candidates if (version := driver_of(node))]
    old = [(node, version) for node, version in known if version < least]
    if not known:
        return Verdict(None, "DriversUnknown", f"none of {len(candidates)} candidate nodes tells its driver by a label")
    if not old:
        return Verdict(True, "DriversFit", f"{len(known)} nodes have driver {_text(least)} or newer")
    names = ", ".join(f"{node.name} ({_text(version)})" for node, version in old[:SHOWN])
    more = f" and {len(old) - SHOWN} more" if len(old) > SHOWN else ""
    reason = "AllDriversTooOld" if len(old) == len(known) else "SomeDriversTooOld"
    return Verdict(
        False,
        reason,
        f"{len(old)} of {len(known)} nodes have a driver older than {_text(least)}: {names}{more}; update the driver, "
        f"keep pods away by scheduling.nodeSelector, or use an image built for an older CUDA",
    )


def driver_of(node: Node) -> tuple[int, ...]:
    """Empty: unknown."""
    for names in LABELS:
        parts = [node.labels.get(name, "") for name in names]
        if parts[0].isdigit():
            return tuple(int(part) for part in parts if part.isdigit())
    return ()


def _may_run(spec: TTSServiceSpec, node: Node) -> bool:
    wanted = spec.accelerator.resource_name
    has_gpu = wanted in node.resources if wanted else bool(driver_of(node))
    return has_gpu and spec.scheduling.node_selector.items() <= node.labels.items()


def _of_cuda(version: str) -> tuple[int, ...]:
    major = version.partition(".")[0]
    return DRIVER_OF_CUDA.get(int(major), ()) if major.isdigit() else ()


def _parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
