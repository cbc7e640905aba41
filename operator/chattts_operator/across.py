"""Rules of a spec that look at more than one section: problems as sentences that begin with the field. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import api
from .model_spec import READ_WRITE_ONCE
from .quantities import parse_quantity

if TYPE_CHECKING:
    from .spec import TTSServiceSpec


def problems_of(spec: TTSServiceSpec, image_registries: Sequence[str]) -> list[str]:
    return [
        *_scaling(spec),
        *_device(spec),
        *_claim_shared(spec),
        *_resources(spec),
        *_registries(spec, image_registries),
    ]


def scaling_problems(spec: TTSServiceSpec) -> list[str]:
    """Those that may depend on the mode."""
    return [*_scaling(spec), *_claim_shared(spec)]


def _scaling(spec: TTSServiceSpec) -> Iterator[str]:
    scaling = spec.autoscaling
    if scaling.min_replicas > scaling.max_replicas:
        yield "spec.autoscaling.minReplicas must not be greater than spec.autoscaling.maxReplicas"
    for schedule in scaling.schedules:
        if schedule.min_replicas > scaling.max_replicas:
            named = f"spec.autoscaling.schedules {schedule.name!r}: minReplicas"
            yield f"{named} must not be greater than spec.autoscaling.maxReplicas"
    if scaling.mode == api.MODE_OPERATOR and spec.monitoring.interval_seconds > 15:
        yield "spec.monitoring.intervalSeconds must be at most 15 in autoscaling.mode Operator"


def _device(spec: TTSServiceSpec) -> Iterator[str]:
    gpu = spec.accelerator.resource_name or spec.accelerator.claim_template
    if not gpu and spec.server.device == "Auto":
        yield (
            "spec.server.device must be CPU where spec.accelerator.vendor is None (Auto means CUDA); say CUDA where a "
            "runtime class gives the GPU"
        )
    if spec.server.device == "CPU" and spec.server.dtype == "float16":
        yield "spec.server.dtype float16 is for CUDA: choose auto, bfloat16, int8 or float32 with device CPU"
    if spec.server.device != "CPU" and spec.server.dtype == "int8":
        yield "spec.server.dtype int8 is for device CPU: choose auto, float16, bfloat16 or float32"


def _claim_shared(spec: TTSServiceSpec) -> Iterator[str]:
    """A ReadWriteOnce volume is attached to one node at a time; a second pod elsewhere would wait for ever."""
    if not spec.model.on_claim or spec.model.cache.access_mode != READ_WRITE_ONCE:
        return
    most = spec.replicas if spec.autoscaling.mode == api.MODE_NONE else spec.autoscaling.max_replicas
    if most > 1:
        field = "replicas" if spec.autoscaling.mode == api.MODE_NONE else "autoscaling.maxReplicas"
        yield (
            f"spec.model.cache.accessMode ReadWriteOnce reaches one node, and spec.{field} is {most}: use "
            f"ReadWriteMany, cache.type EmptyDir, or set {field} to 1"
        )
    if spec.rollout.capacity_policy == "Surge":
        yield (
            "spec.rollout.capacityPolicy Surge runs two pods at once, and spec.model.cache.accessMode ReadWriteOnce "
            "reaches one node: use ReadWriteMany or capacityPolicy Auto"
        )


def _resources(spec: TTSServiceSpec) -> Iterator[str]:
    gpu = spec.accelerator.resource_name
    if gpu and (gpu in spec.limits or gpu in spec.requests):
        yield f"spec.resources must not name {gpu}: it is asked for by spec.accelerator.count"
    for name, request in spec.requests.items():
        try:
            if name in spec.limits and parse_quantity(request) > parse_quantity(spec.limits[name]):
                yield f"spec.resources.requests.{name} must not be greater than spec.resources.limits.{name}"
        except ValueError as error:
            yield f"spec.resources: {error}"


def _registries(spec: TTSServiceSpec, allowed: Sequence[str]) -> Iterator[str]:
    """The operator's own list: who may edit a TTSService may not run any image with it."""
    named: list[tuple[str, Any]] = [
        ("spec.image.repository", spec.image.reference),
        ("spec.model.image", spec.model.image),
    ]
    overlay = spec.overlay.get("spec")
    for group in ("containers", "initContainers"):
        containers = overlay.get(group) if isinstance(overlay, dict) else None
        for item in containers if isinstance(containers, list) else []:
            if isinstance(item, dict):
                named.append((f"spec.podTemplateOverlay.spec.{group}[{item.get('name')}].image", item.get("image")))
    volumes = overlay.get("volumes") if isinstance(overlay, dict) else None
    for item in volumes if isinstance(volumes, list) else []:
        if isinstance(item, dict) and isinstance(item.get("image"), dict):
            field = f"spec.podTemplateOverlay.spec.volumes[{item.get('name')}].image.reference"
            named.append((field, item["image"].get("reference")))
    for field, image in named:
        if allowed and image and not any(_within(str(image), prefix.rstrip("/")) for prefix in allowed):
            yield f"{field} must begin with one of {', '.join(allowed)} (the operator's list of registries)"


def _within(image: str, prefix: str) -> bool:
    """A host, a path or a whole repository: not the beginning of another one's name."""
    ends = "/:@" if "/" in prefix else "/"  # behind a bare host a colon would be another port
    return image.startswith(prefix) and image[len(prefix) : len(prefix) + 1] in tuple(ends)
