"""Do the informers still hear? Compares what they heard with a list now and then, and wakes what they missed.

An informer can be alive and deaf. A bookmark would prove the connection; this proves the effect, and heals it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from . import api
from .cache import Cache, Known

DEAF_SECONDS = 180.0


class Lister(Protocol):
    async def list(self, kind: api.Kind, namespace: str | None, selector: str | None) -> list[api.Body]: ...


@dataclass(slots=True)
class Hearing:
    kube: Lister
    cache: Cache
    namespaces: tuple[str, ...]  # empty: all
    wake: Callable[[api.Key], None]
    selector: str | None = None  # of our TTSServices
    _unheard: dict[api.Key, tuple[str, float]] = field(default_factory=dict)  # version, and since when it is unheard

    async def test(self, now: float) -> None:
        """KubeError passes through: an API server that is away says nothing about our ears."""
        await self._drop_gone_children()
        listed = await self._list(api.TTS_SERVICE, self.selector)
        versions = {api.key_of(item): item["metadata"]["resourceVersion"] for item in listed}
        for key in [key for key in self.cache.services if key not in versions]:
            self.cache.forget(key)
            self.wake(key)
        missed = dict(self._missed(versions))
        for key in missed.keys() - self._unheard.keys():
            self.wake(key)
        self._unheard = {
            key: known if (known := self._unheard.get(key)) and known[0] == version else (version, now)
            for key, version in missed.items()
        }

    def deaf_seconds(self, now: float) -> float:
        """How long something that the API server shows has not been heard."""
        return max((now - since for _, since in self._unheard.values()), default=0.0)

    def _missed(self, versions: dict[api.Key, str]) -> Iterable[tuple[api.Key, str]]:
        for key, version in versions.items():
            heard = self.cache.services.get(key)
            if heard is None or _older(heard["metadata"]["resourceVersion"], version):
                yield key, version

    async def _drop_gone_children(self) -> None:
        """A pod that went while no watch was open would count as Ready, and report nothing, for ever."""
        before = {key: self.cache.known(key) for key in {*self.cache.pods, *self.cache.deployments}}
        pods = await self._list(api.POD, api.CHILD_SELECTOR)
        deployments = await self._list(api.DEPLOYMENT, api.CHILD_SELECTOR)
        uids: dict[api.Key, set[str]] = {}
        for pod in pods:
            uids.setdefault(api.key_of(pod), set()).add(pod["metadata"]["uid"])
        alive = {
            key: deployment["metadata"]["uid"]
            for deployment in deployments
            if deployment["metadata"]["name"] == api.child_name(api.DEPLOYMENT, (key := api.key_of(deployment)).name)
        }
        for key, known in before.items():
            if self.cache.drop_gone(key, known, Known(frozenset(uids.get(key, ())), alive.get(key))):
                self.wake(key)

    async def _list(self, kind: api.Kind, selector: str | None) -> list[api.Body]:
        namespaces = self.namespaces or (None,)
        return [item for namespace in namespaces for item in await self.kube.list(kind, namespace, selector)]


def _older(left: str, right: str) -> bool:
    """Kubernetes promises comparable versions since 1.35 and has always had them; else unequal counts as older."""
    return int(left) < int(right) if left.isdigit() and right.isdigit() else left != right
