"""One TTSService becomes what it says: spec, observe, plan, apply, prune, status. Level-triggered and idempotent.

It is killed at any line and run again; a run that finds everything in place writes nothing. It knows neither where its
wake-ups come from nor how the number of replicas was decided.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from . import api, conditions, events, status
from .autoscaling.memory import SHOW_SECONDS, VOLATILE
from .autoscaling.signals import Decision
from .cache import Cache, Known
from .compare import difference
from .drivers import Node
from .kube import KubeError
from .notes import notes_of
from .observe import Observed, Reader, committed_of, observe
from .plan import SCALED, Plan, Write, held_message, plan
from .spec import InvalidSpec, OperatorDefaults, TTSServiceSpec, parse

LOG = logging.getLogger(__name__)

CONFLICT_SECONDS = 30.0  # until a foreign child is looked at again


async def unknown_nodes() -> tuple[Node, ...] | None:
    """Where the operator may not list nodes."""
    return None


class Writer(Reader, Protocol):
    async def apply(self, kind: api.Kind, body: api.Body, force: bool) -> api.Body: ...
    async def apply_status(self, body: api.Body) -> api.Body: ...
    async def delete(self, kind: api.Kind, namespace: str, name: str, uid: str) -> None: ...
    async def create(self, kind: api.Kind, body: api.Body) -> api.Body: ...


@dataclass(slots=True)
class Reconciler:
    kube: Writer
    defaults: OperatorDefaults
    decision_of: Callable[[api.Key, str], Decision | None]  # by name and uid
    served: Callable[[], Awaitable[frozenset[api.Kind]]]
    clock: Callable[[], float]  # wall time
    nodes: Callable[[], Awaitable[tuple[Node, ...] | None]] = unknown_nodes
    accepts: Callable[[api.Body], bool] = lambda _service: True  # ours by the operator's own selector
    cache: Cache = field(default_factory=Cache)  # only corrected here by what was read, never read from
    _numbers_shown: dict[api.Key, float] = field(default_factory=dict)  # when p99 and QPS were last written
    _not_kept: dict[tuple[api.Key, api.Kind], tuple[str, str]] = field(default_factory=dict)  # intent hash, field

    async def reconcile(self, key: api.Key) -> float | None:
        """Returns after how many seconds it wants to run again, or None. KubeError: back off and try again."""
        served, known = await self.served(), self.cache.known(key)
        observed = await observe(self.kube, key, served, await self.nodes())
        if observed is not None:
            self.cache.drop_gone(key, known, _alive(observed))
        if observed is None or observed.service["metadata"].get("deletionTimestamp"):
            self._forget(key)  # the garbage collector takes the children
            return None
        if not self.accepts(observed.service):
            self._forget(key)  # another operator's
            return None
        decision = self.decision_of(key, observed.service["metadata"]["uid"])
        spec: TTSServiceSpec | None = None
        try:
            spec = parse(observed.service, self.defaults)
            planned = plan(spec, observed, decision, self.defaults, self.clock())
        except InvalidSpec as error:
            await self._write_status(spec, observed, conditions.Outcome(problems=error.problems))
            return None
        return await self._carry_out(spec, observed, decision, planned)

    async def _carry_out(
        self, spec: TTSServiceSpec, observed: Observed, decision: Decision | None, planned: Plan
    ) -> float | None:
        observed, failure = await self._apply(planned, observed)
        outcome = conditions.Outcome(
            desired=planned.replicas,
            image=planned.image,
            decision=decision,
            conflicts=planned.conflicts,
            weights=planned.weights,
            drivers=planned.drivers,
            held=held_message(spec, observed) if planned.held else "",
            failure=str(failure) if failure is not None else self._dropped(spec.key),
        )
        withheld = await self._write_status(spec, observed, outcome)
        for note in planned.notes:
            if note.reason in SCALED and not _carries(observed, planned.replicas):
                continue  # refused; it is said when it has happened
            await events.send(self.kube, observed.service, note, self.clock())
        if failure is not None:
            raise failure
        waits = (CONFLICT_SECONDS if planned.conflicts else None, planned.again_in, withheld)
        return min((seconds for seconds in waits if seconds is not None), default=None)

    async def _apply(self, planned: Plan, observed: Observed) -> tuple[Observed, KubeError | None]:
        """Apply, then prune. The first refusal is told in status; what was written stands.

        What is refused for good (a quota, a claim that cannot grow) does not hold up the other children; an API server
        that is in trouble is left alone at once.
        """
        children, failure = dict(observed.children), None
        changes: list[Write | tuple[api.Kind, api.Body]] = [*planned.writes, *planned.deletes]
        for change in changes:
            try:
                await self._change(change, children)
            except KubeError as error:
                failure = failure or error
                if not error.permanent:
                    break
        return replace(observed, children=children), failure

    async def _change(self, change: Write | tuple[api.Kind, api.Body], children: dict[api.Kind, api.Body]) -> None:
        if isinstance(change, Write):
            children[change.kind] = await self._apply_one(change, children.get(change.kind))
            return
        kind, body = change
        await self._delete(kind, body)
        del children[kind]

    async def _delete(self, kind: api.Kind, body: api.Body) -> None:
        metadata = body["metadata"]
        LOG.info("delete %s %s/%s: no longer wanted", kind.kind, metadata["namespace"], metadata["name"])
        await self.kube.delete(kind, metadata["namespace"], metadata["name"], metadata["uid"])

    async def _apply_one(self, write: Write, live: api.Body | None) -> api.Body:
        """An API server that lacks a feature drops its fields; applying again and again would not bring them."""
        slot = api.key_of(write.intent), write.kind
        intent = write.intent["metadata"]["annotations"][api.ANNOTATION_INTENT]
        if live is not None and self._not_kept.get(slot) == (intent, write.why):
            return live
        LOG.info("apply %s %s: %s", write.kind.kind, slot[0], write.why)
        applied = await self.kube.apply(write.kind, write.intent, write.force)
        self._not_kept.pop(slot, None)
        if (dropped := difference(write.intent, applied)) is not None:
            LOG.warning("%s %s: the API server does not keep %s", write.kind.kind, slot[0], dropped)
            self._not_kept[slot] = (intent, dropped)
        return applied

    def _dropped(self, key: api.Key) -> str:
        """For status: what this cluster cannot do."""
        found = [f"{kind.kind}{path}" for (of_key, kind), (_, path) in self._not_kept.items() if of_key == key]
        return f"the API server does not keep {', '.join(found)}: this cluster lacks the feature" if found else ""

    def _forget(self, key: api.Key) -> None:
        self._numbers_shown.pop(key, None)
        for slot in [slot for slot in self._not_kept if slot[0] == key]:
            del self._not_kept[slot]

    async def _write_status(
        self, spec: TTSServiceSpec | None, observed: Observed, outcome: conditions.Outcome
    ) -> float | None:
        """Returns after how many seconds numbers that are withheld now may be shown."""
        key, now = api.key_of(observed.service), self.clock()
        old = status.ours(observed.service)
        rest = SHOW_SECONDS - (now - self._numbers_shown.get(key, 0.0))
        whole = status.build(spec, observed, outcome, now)
        if whole == old:
            return None
        if rest > 0 and status.build(spec, observed, replace(outcome, may_show_numbers=False), now) == old:
            return max(1.0, rest)
        if _numbers(whole) != _numbers(old):  # also where there is a write anyway
            self._numbers_shown[key] = now
        metadata = observed.service["metadata"]
        fence = {name: metadata[name] for name in ("namespace", "name", "uid")}
        await self.kube.apply_status(
            {"apiVersion": api.API_VERSION, "kind": api.TTS_SERVICE.kind, "metadata": fence, "status": whole}
        )
        for note in notes_of(old, whole):
            await events.send(self.kube, observed.service, note, now)
        return None


def _carries(observed: Observed, replicas: int) -> bool:
    return observed.deployment is not None and committed_of(observed.deployment) == replicas


def _alive(observed: Observed) -> Known:
    deployment = observed.deployment
    uid = None if deployment is None else deployment["metadata"]["uid"]
    return Known(frozenset(pod.uid for pod in observed.pods), uid)


def _numbers(body: dict[str, Any]) -> list[Any]:
    autoscaling = body.get("autoscaling") or {}
    return [autoscaling.get(name) for name in VOLATILE]
