"""A reconciler on the API server that behaves, with a clock and somebody who edits: for tests that tell stories."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from chattts_operator import api
from chattts_operator.autoscaling.signals import Change, Decision, Metrics, State
from chattts_operator.drivers import Node
from chattts_operator.reconcile import Reconciler
from chattts_operator.spec import OperatorDefaults
from tests.operator.fakes import FakeKube, tts_service

KEY = api.Key("default", "demo")
IMAGE = "registry.example/server:1"
MONITORING = (api.POD_MONITOR, api.PROMETHEUS_RULE)


REVISION = "0123456789abcdef0123456789abcdef01234567"
EVERY_CHILD: dict[str, Any] = {
    "model": {
        "source": "HuggingFace",
        "revision": REVISION,
        "acceptLicense": "CC-BY-NC-4.0",
        "cache": {"type": "PersistentVolumeClaim"},
    },
    "networking": {"networkPolicy": {"mode": "Restricted"}},
    "monitoring": {"dashboard": "Enabled"},
}


@dataclass
class World:
    kube: FakeKube = field(default_factory=lambda: FakeKube(*MONITORING))
    defaults: OperatorDefaults = field(default_factory=lambda: OperatorDefaults(True, IMAGE, {"release": "prometheus"}))
    decision: Decision | None = None
    nodes: tuple[Node, ...] | None = None
    selector: str = ""
    now: float = 1_800_000_000.0  # 2027-01-15T08:00:00Z

    def __post_init__(self) -> None:
        self.start_operator()

    def start_operator(self) -> None:
        """A new process: nothing of the old one is remembered."""

        async def served() -> frozenset[api.Kind]:
            return self.kube.served

        async def nodes() -> tuple[Node, ...] | None:
            return self.nodes

        self.reconciler = Reconciler(
            self.kube,
            self.defaults,
            lambda key, uid: self.decision,
            served,
            lambda: self.now,
            nodes,
            lambda service: api.carries(service, self.selector),
        )

    @classmethod
    def with_every_child(cls) -> World:
        world = cls()
        world.kube.put(api.TTS_SERVICE, tts_service(**EVERY_CHILD))
        world.settle_with_download()
        return world

    def reconcile(self) -> float | None:
        return asyncio.run(self.reconciler.reconcile(KEY))

    def settle(self) -> None:
        for _ in range(3):
            self.reconcile()
        self.kube.writes.clear()

    def settle_with_download(self) -> None:
        """As settle, and the Job controller does its work in between."""
        self.settle()
        self.kube.end_job(KEY, "Complete")
        self.settle()

    def pods_are(self, replicas: int, ready: int, updated: int | None = None) -> None:
        """What the Deployment controller says."""
        generation = self.kube.at(api.DEPLOYMENT, KEY)["metadata"]["generation"]
        updated = replicas if updated is None else updated
        status = {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": updated}
        status |= {"observedGeneration": generation}
        self.kube.edit(api.DEPLOYMENT, KEY, lambda body: body.update(status=status))

    def status(self) -> dict[str, Any]:
        return self.kube.at(api.TTS_SERVICE, KEY)["status"]

    def condition(self, name: str) -> dict[str, Any]:
        return next(item for item in self.status()["conditions"] if item["type"] == name)

    def edit_spec(self, **spec: Any) -> None:
        self.kube.edit(api.TTS_SERVICE, KEY, lambda body: body["spec"].update(spec))


def decided(before: int, after: int, reason: str = "SLOBreach", **numbers: Any) -> Decision:
    change = Change(1_800_000_000.0, before, after, reason, "p99 2.1 s")
    state = State(last_change=change, history=(change,), last_scale_time=change.time)
    return Decision(before, after, reason, "p99 2.1 s", state, Metrics(**numbers))
