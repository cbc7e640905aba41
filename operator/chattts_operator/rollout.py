"""How pods are replaced: rollout.capacityPolicy and what is live become a strategy. Pure, now is an argument.

Surge needs a spare GPU and never takes a good pod before the next one is Ready. Replace frees a GPU first; with one
replica that is downtime. Auto is Surge with one replica and Replace with more; it waits for a spare GPU for
capacityWaitSeconds and then replaces.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

from .model_spec import READ_WRITE_ONCE
from .observe import Observed, committed_of, is_rolling_out
from .spec import TTSServiceSpec


class Strategy(Enum):
    SURGE = "Surge"
    REPLACE = "Replace"
    RECREATE = "Recreate"

    @property
    def body(self) -> dict[str, Any]:
        """As in a Deployment."""
        if self is Strategy.RECREATE:
            return {"type": "Recreate"}
        surge, unavailable = (1, 0) if self is Strategy.SURGE else (0, 1)
        return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def strategy_of(spec: TTSServiceSpec, observed: Observed, replicas: int, now: float) -> Strategy:
    policy = spec.rollout.capacity_policy
    if policy != "Auto":
        return Strategy(policy)
    if replicas > 1 or _reaches_one_node(spec) or gave_up_surge(observed):
        return Strategy.REPLACE
    return Strategy.REPLACE if gives_up_surge(spec, observed, replicas, now) else Strategy.SURGE


def _reaches_one_node(spec: TTSServiceSpec) -> bool:
    """The volume can be attached elsewhere only after the old pod has let it go."""
    return spec.model.on_claim and spec.model.cache.access_mode == READ_WRITE_ONCE


def gives_up_surge(spec: TTSServiceSpec, observed: Observed, replicas: int, now: float) -> bool:
    """Now: no spare GPU came in time, so the single old pod has to make room."""
    if replicas > 1 or _reaches_one_node(spec) or gave_up_surge(observed):
        return False
    return surge_ends_in(spec, observed, now) == 0


def gave_up_surge(observed: Observed) -> bool:
    """Before: the single replica is being replaced, and to go back to Surge now would end the pod that came."""
    deployment = observed.deployment
    if deployment is None or committed_of(deployment) != 1 or not is_rolling_out(deployment):
        return False
    return bool(deployment["spec"].get("strategy") == Strategy.REPLACE.body)


def surge_ends_in(spec: TTSServiceSpec, observed: Observed, now: float) -> float | None:
    """Seconds until Auto stops to wait for a spare GPU; None: nothing waits for one."""
    deployment = observed.deployment
    if spec.rollout.capacity_policy != "Auto" or deployment is None or not is_rolling_out(deployment):
        return None
    if committed_of(deployment) != 1 or not any(pod.ready_at is not None for pod in observed.pods):
        return None
    waiting = [
        datetime.fromisoformat(pod.unschedulable_since).timestamp()
        for pod in observed.pods
        if pod.unschedulable_since and not pod.leaving
    ]
    return max(0.0, min(waiting) + spec.rollout.capacity_wait_seconds - now) if waiting else None
