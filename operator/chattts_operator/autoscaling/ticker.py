"""Every 10 s: signals of all services -> decide -> remember, and wake those whose status or replicas must change.

Writes nothing to Kubernetes: the Deployment and the status are written by the reconcile alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .. import api
from ..cache import Cache
from ..observe import fleet_of
from ..resources.child import is_owned
from ..spec import InvalidSpec, OperatorDefaults, TTSServiceSpec, parse
from ..speed import speed_of, with_speed
from . import memory
from .policy import decide
from .prometheus import PrometheusError
from .rules import Promise
from .signals import Decision, Metrics, Signals, State

LOG = logging.getLogger(__name__)


class Source(Protocol):
    async def read(self, promises: Mapping[api.Key, Promise]) -> dict[api.Key, Metrics]: ...


@dataclass(slots=True)
class Ticker:
    source: Source
    cache: Cache
    defaults: OperatorDefaults
    wake: Callable[[api.Key], None]
    failed: Callable[[], None] = lambda: None
    decisions: dict[api.Key, Decision] = field(default_factory=dict)
    _states: dict[api.Key, State] = field(default_factory=dict)
    _told: dict[api.Key, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    _specs: dict[api.Key, tuple[str, TTSServiceSpec | None]] = field(default_factory=dict)
    _uids: dict[api.Key, str] = field(default_factory=dict)

    async def tick(self, now: float) -> None:
        specs = {key: spec for key in list(self.cache.services) if (spec := self._spec_or_none(key)) is not None}
        self._forget_others(specs)
        promises = {key: Promise.of(spec.autoscaling) for key, spec in specs.items()}
        metrics = await self._read(promises) if promises else {}
        for key, spec in specs.items():
            if key in self.cache.deployments:  # it may have gone while Prometheus answered
                self._decide_or_hold(key, spec, metrics.get(key, Metrics()), now)

    def decision_of(self, key: api.Key, uid: str) -> Decision | None:
        """None for a TTSService that was made anew under the name: it inherits nothing."""
        return self.decisions.get(key) if self._uids.get(key) == uid else None

    def _spec_or_none(self, key: api.Key) -> TTSServiceSpec | None:
        try:
            return self._spec(key)
        except Exception:
            LOG.exception("%s: cannot be read, its number is held: this is a bug", key)
            return None

    def _decide_or_hold(self, key: api.Key, spec: TTSServiceSpec, metrics: Metrics, now: float) -> None:
        """What one TTSService holds must not end the scaling of all others."""
        try:
            self._decide(key, spec, metrics, now)
        except Exception:
            LOG.exception("%s: no decision, its number is held: this is a bug", key)
            self._told.pop(key, None)
            if self.decisions.pop(key, None) is not None:
                self.wake(key)

    async def _read(self, promises: Mapping[api.Key, Promise]) -> dict[api.Key, Metrics]:
        try:
            return await self.source.read(promises)
        except PrometheusError as error:
            LOG.warning("%s", error)
            self.failed()
            return {}

    def _spec(self, key: api.Key) -> TTSServiceSpec | None:
        """None: not ours to scale. Parsed once per generation."""
        body, deployment = self.cache.services[key], self.cache.deployments.get(key)
        metadata = body["metadata"]
        version = f"{metadata['uid']}/{metadata.get('generation')}"
        known = self._specs.get(key)
        if known is None or known[0] != version:
            try:
                spec: TTSServiceSpec | None = parse(body, self.defaults)
            except InvalidSpec:
                spec = None
            known = self._specs[key] = (version, spec)
        spec = known[1]
        if spec is None or spec.paused or spec.autoscaling.mode != api.MODE_OPERATOR:
            return None
        return spec if deployment is not None and is_owned(deployment, spec.uid) else None

    def _decide(self, key: api.Key, spec: TTSServiceSpec, metrics: Metrics, now: float) -> None:
        state = self._states.get(key)
        if state is None or self._uids.get(key) != spec.uid:
            status = self.cache.services[key].get("status") or {}
            state = memory.state_of(status.get("autoscaling") or {})
            self._told.pop(key, None)
        state = with_speed(state, speed_of(spec))
        deadline = spec.rollout.startup_deadline_seconds
        fleet = fleet_of(self.cache.deployments[key], self.cache.pods_of(key), now, deadline)
        decision = decide(spec.autoscaling, Signals(metrics, fleet), state, now)
        self._uids[key], self._states[key], self.decisions[key] = spec.uid, decision.state, decision
        if decision.desired != decision.committed:
            LOG.info(
                "%s: %d -> %d, %s: %s", key, decision.committed, decision.desired, decision.reason, decision.message
            )
        if self._is_news(key, decision, now):
            self.wake(key)

    def _is_news(self, key: api.Key, decision: Decision, now: float) -> bool:
        """A change at once; numbers that only move at most once a minute."""
        told_at, told = self._told.get(key, (float("-inf"), {}))
        held = decision.reason if decision.reason in memory.HOLDING else ""
        telling = {**memory.status_of(decision), "limited": decision.limited, "held": held}
        steady = {name: value for name, value in telling.items() if name not in memory.VOLATILE}
        steady_told = {name: value for name, value in told.items() if name not in memory.VOLATILE}
        news = decision.desired != decision.committed or steady != steady_told
        if not news and (telling == told or now - told_at < memory.SHOW_SECONDS):
            return False
        self._told[key] = (now, telling)
        return True

    def _forget_others(self, specs: Mapping[api.Key, TTSServiceSpec]) -> None:
        """Nothing of a service that is gone or is scaled by somebody else stays."""
        for store in (self.decisions, self._states, self._told, self._uids):
            for key in [key for key in store if key not in specs]:
                del store[key]
        for key in [key for key in self._specs if key not in self.cache.services]:
            del self._specs[key]
