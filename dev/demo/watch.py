"""What the demo looks at while it runs: the TTSService, its Deployment, its pods and Prometheus, every two seconds.

Reads only. A value that could not be read is None, never 0.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from dev.kubeapi import APPS, CHATTTS, KubeApi

P99 = "histogram_quantile(0.99, sum by (le) (rate(chattts_infer_duration_seconds_bucket{%s}[1m])))"
OFFERED = 'sum(rate(chattts_infer_total{%s,outcome!="invalid"}[1m]))'
REFUSED = 'sum(rate(chattts_infer_total{%s,outcome="refused"}[1m]))'


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. `at` is Unix time; p99 in seconds, rates in requests per second."""

    at: float
    p99: float | None
    offered: float | None
    refused: float | None
    replicas: int | None
    ready: int | None
    reason: str
    message: str


class Watcher(threading.Thread):
    """Looks every `period` seconds until stopped; `samples` only grows."""

    def __init__(self, api: KubeApi, namespace: str, name: str, period: float = 2.0) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self._api, self._namespace, self._name, self._period = api, namespace, name, period
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look until stopped. An API that is away for a moment is a look with unknown values."""
        while not self._stopped.wait(self._period):
            self.samples.append(self._look())

    def stop(self) -> None:
        """End the thread after its current look."""
        self._stopped.set()
        self.join()

    def wait_for(
        self,
        what: str,
        true: Callable[[Sample], bool],
        timeout: float,
        tick: Callable[[], None] = lambda: None,
    ) -> Sample:
        """The first sample from now on that fulfils `true`; TimeoutError names `what` after `timeout` seconds.

        `tick` is called a few times a second while waiting.
        """
        seen, deadline = len(self.samples), time.monotonic() + timeout
        while time.monotonic() < deadline:
            for sample in self.samples[seen:]:
                seen += 1
                if true(sample):
                    return sample
            tick()
            time.sleep(0.2)
        last = self.samples[-1] if self.samples else "nothing was seen at all"
        raise TimeoutError(f"{what}: not within {timeout:.0f} s; last look: {last}")

    def _look(self) -> Sample:
        now = time.time()
        labels = f'namespace="{self._namespace}",tts_service="{self._name}"'
        service = self._read(f"{CHATTTS}/namespaces/{self._namespace}/ttsservices/{self._name}")
        deployment = self._read(f"{APPS}/namespaces/{self._namespace}/deployments/{self._name}")
        scaling = service.get("status", {}).get("autoscaling", {})
        return Sample(
            at=now,
            p99=self._value(P99 % labels),
            offered=self._value(OFFERED % labels),
            refused=self._value(REFUSED % labels),
            replicas=deployment.get("spec", {}).get("replicas"),
            ready=deployment.get("status", {}).get("readyReplicas", 0) if deployment else None,
            reason=scaling.get("lastDecisionReason") or scaling.get("reason") or "",
            message=scaling.get("lastDecisionMessage") or scaling.get("message") or "",
        )

    def _read(self, path: str) -> dict[str, Any]:
        try:
            return self._api.get(path) or {}
        except httpx.HTTPError:
            return {}

    def _value(self, query: str) -> float | None:
        try:
            result = self._api.prometheus(query)
        except httpx.HTTPError:
            return None
        value = float(result[0]["value"][1]) if len(result) == 1 else None
        return None if value is None or value != value else value


def first_over(api: KubeApi, namespace: str, name: str, since: float) -> float | None:
    """Unix time of the first rule sample over the SLO after `since`: Prometheus' own time stamp."""
    query = f'chattts:slo_over{{namespace="{namespace}",tts_service="{name}"}}[1h]'
    stamps = [float(at) for series in api.prometheus(query) for at, value in series["values"] if value == "1"]
    return min((at for at in stamps if at >= since), default=None)


def unix(stamp: str) -> float:
    """Unix time of a Kubernetes time stamp (RFC 3339, UTC)."""
    return datetime.fromisoformat(stamp).timestamp()
