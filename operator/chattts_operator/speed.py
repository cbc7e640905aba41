"""What determines how fast a pod is; what was learned of its capacity belongs to that. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from .autoscaling.signals import State
from .spec import TTSServiceSpec


def speed_of(spec: TTSServiceSpec) -> str:
    """Eight hex digits of the model, the numbers it is computed in, the batch, the GPU and the CPU.

    Not the image: a patch release would forget what one breach has taught, and the next breach would teach it again.
    """
    server, gpu, model = spec.server, spec.accelerator, spec.model
    parts = [
        [model.source, model.repository, model.revision, model.claim_name, model.host_path, model.path, model.image],
        [server.device, server.dtype, server.max_batch_size],
        [gpu.resource_name, gpu.claim_template, gpu.count, dict(spec.scheduling.node_selector)],
        [dict(spec.requests).get("cpu"), dict(spec.limits).get("cpu")],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def with_speed(state: State, speed: str) -> State:
    """Another model or GPU: what a replica carries is unknown again. A memory of before this was kept is believed."""
    if state.learned_for in ("", speed):
        return replace(state, learned_for=speed)
    return replace(
        state,
        learned_for=speed,
        learned_qps=None,
        ineffective_steps=0,
        p99_at_last_step=None,
        refused_at_last_step=None,
        completed_at_last_step=None,
    )
