"""Who leads: one holder of a Lease. Knows nothing of what leading is for.

Another's Lease is judged by how long *we* have seen it unchanged on our monotonic clock, never by the times in it, so
clocks that jump or differ do no harm. `check` is the fence before every write: it fails before another may take over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from . import api
from .kube import KubeError

LOG = logging.getLogger(__name__)


class LeaseApi(Protocol):
    async def get(self, kind: api.Kind, namespace: str, name: str) -> api.Body | None: ...
    async def create(self, kind: api.Kind, body: api.Body) -> api.Body: ...
    async def replace(self, kind: api.Kind, body: api.Body) -> api.Body: ...


class NotLeading(Exception):
    """We do not hold the Lease (any more): nothing may be written."""


@dataclass(frozen=True, slots=True)
class Timing:
    """lease > renew: a leader that cannot renew stops by itself before another may start."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


class Elector:
    def __init__(
        self,
        kube: LeaseApi,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        timing: Timing = Timing(),
    ) -> None:
        self._kube, self._namespace, self._name, self.identity = kube, namespace, name, identity
        self._clock, self._wall, self._timing = clock, wall, timing
        self._seen: tuple[str, float] | None = None  # version of another's Lease, and when we first saw it
        self._held: api.Body | None = None
        self._valid_until = float("-inf")

    def check(self) -> None:
        if self._clock() >= self._valid_until:
            raise NotLeading(f"{self.identity} does not hold the Lease {self._namespace}/{self._name}")

    @property
    def leading(self) -> bool:
        return self._clock() < self._valid_until

    async def acquire(self) -> None:
        """Returns when we lead."""
        LOG.info("waiting for the lease %s/%s as %s", self._namespace, self._name, self.identity)
        while not await self._try_once():  # noqa: ASYNC110 - the answer is on another machine
            await asyncio.sleep(self._timing.retry)
        LOG.info("leading")

    async def keep(self) -> None:
        """Renews; returns only when the lead is lost. The caller ends the process then."""
        while self.leading:
            await asyncio.sleep(self._timing.retry)
            if not await self._try_once() and self._held is None:
                break
        self._valid_until = float("-inf")
        LOG.error("the lead is lost")

    async def release(self) -> None:
        """Lets another one start at once. Best effort: without it the Lease runs out."""
        if self._held is None or not self.leading:
            return
        self._valid_until = float("-inf")
        lease, self._held = self._held, None
        lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._now()}
        try:
            await self._kube.replace(api.LEASE, lease)
        except KubeError as error:
            LOG.warning("the lease was not released: %s", error)

    async def _try_once(self) -> bool:
        """True: we hold it now. Validity counts from before the request, since its answer may be late."""
        started = self._clock()
        try:
            async with asyncio.timeout(self._timing.renew / 2):  # so that there is time for a second try
                if not await self._write():
                    return False
        except TimeoutError:
            LOG.warning("lease: the API server did not answer within %g s", self._timing.renew / 2)
            return False
        except KubeError as error:
            if error.status != 409:  # 409: somebody was faster; the next round shows who
                LOG.warning("lease: %s", error)
            return False
        self._valid_until = started + self._timing.renew
        return True

    async def _write(self) -> bool:
        """False: it is another's."""
        lease = await self._kube.get(api.LEASE, self._namespace, self._name)
        if lease is None:
            self._held = await self._kube.create(api.LEASE, self._body(None))
        elif self._may_take(lease):
            self._held = await self._kube.replace(api.LEASE, self._body(lease))
        else:
            self._held = None
            return False
        return True

    def _may_take(self, lease: api.Body) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder in (None, "", self.identity):
            return True
        version, now = lease["metadata"]["resourceVersion"], self._clock()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._timing.lease)

    def _body(self, lease: api.Body | None) -> api.Body:
        old = (lease or {}).get("spec") or {}
        ours = old.get("holderIdentity") == self.identity
        metadata = {"namespace": self._namespace, "name": self._name}
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self._timing.lease),
            "acquireTime": old["acquireTime"] if ours and "acquireTime" in old else self._now(),
            "renewTime": self._now(),
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if ours or lease is None else 1),
        }
        if lease is not None:
            metadata = lease["metadata"]
        return {"apiVersion": api.LEASE.api_version, "kind": api.LEASE.kind, "metadata": metadata, "spec": spec}

    def _now(self) -> str:
        return self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
