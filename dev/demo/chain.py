"""The chain itself: capacity, overload, the rule's two minutes, the new pod, calm, and back to one pod.

The demo and the end-to-end tests run it on the same parts.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from dev.cluster import Cluster
from dev.demo import install
from dev.demo.load import Load
from dev.demo.summary import SLO_SECONDS, Moments
from dev.demo.view import View
from dev.demo.watch import Sample, Watcher, first_over, unix
from dev.kubeapi import KubeApi

URL = f"http://demo.{install.NAMESPACE}.svc"
OVERLOAD = 1.4
AUDIO_SECONDS = "0.75"  # of each request: short, so that 0.7 of a pod's capacity is well within 1.2 s on half a core
STEADY_SECONDS = 60
RULE_INTERVAL_SECONDS = 15
SELECTOR = "chattts.dev/service=demo"
KINDS = ("ok", "rejected_429", "failed", "cut")


class Chain:
    """One run on one cluster; `loads` and `moments` fill as it goes. Close it to end its load pods."""

    def __init__(self, cluster: Cluster, api: KubeApi, view: View, watcher: Watcher) -> None:
        self._cluster, self._api, self._view, self._watcher = cluster, api, view, watcher
        self._pods = ExitStack()
        self.loads: list[Mapping[str, Any]] = []
        self.capacity = 0.0

    def run(self, steady_seconds: float = STEADY_SECONDS) -> Moments:
        """The whole chain; TimeoutError names the step that did not come."""
        with self._pods:
            self._measure_capacity()
            moments = Moments(time.time(), None, None, None, None, None)
            load = self._load("load", self.capacity * OVERLOAD, seed=1)
            moments = self._scale_out(moments)
            moments = self._calm(moments, steady_seconds)
            self.loads.append(load.stop())
            return self._scale_in(moments)

    def _measure_capacity(self) -> None:
        with self._view.phase("one pod's capacity"):
            arguments = ["--url", URL, "--max-seconds", AUDIO_SECONDS]
            measured = self._pod("capacity", "bench.capacity", arguments).wait(180)
            self.capacity = round(float(measured["rps"]), 2)
            self.loads += [{**step, "requests": sum(step[kind] for kind in KINDS)} for step in measured["steps"]]
            self._view.say(f"   {self.capacity} requests/s of {AUDIO_SECONDS} s audio each")
        with self._view.phase("rest, until the measurement itself has left the 1 minute window"):
            self._wait("no breach before the load", lambda s: s.offered == 0 and s.p99 is None, 120)
            self._watch(
                RULE_INTERVAL_SECONDS + 5
            )  # so that a recorded sample says so, and the load's breach is its own

    def _scale_out(self, moments: Moments) -> Moments:
        rate = self.capacity * OVERLOAD
        with self._view.phase(f"{rate:.1f} requests/s: p99 over {SLO_SECONDS} s for 2 minutes, then scale-out"):
            out = self._wait("scale-out", lambda s: (s.replicas or 0) >= 2, 420)
            over = first_over(self._api, install.NAMESPACE, "demo", moments.load_started)
            self._view.say(f"   {out.reason}: {out.message}")
        with self._view.phase("the new pod"):
            self._wait("second pod Ready", lambda s: (s.ready or 0) >= 2, 180)
        return replace(moments, scaled_out=out.at, breach_started=over, second_pod_ready=_second_ready(self._api))

    def _calm(self, moments: Moments, steady_seconds: float) -> Moments:
        with self._view.phase(f"p99 back under {SLO_SECONDS} s at unchanged load"):
            self._wait("p99 under the SLO", lambda s: s.p99 is not None and s.p99 <= SLO_SECONDS, 240)
            self._watch(steady_seconds)
        return replace(moments, load_stopped=time.time())

    def _scale_in(self, moments: Moments) -> Moments:
        with self._view.phase("the load ends; a trickle goes on through the scale-in"):
            # Streams, so that a scale-in has something to cut; whole answers, because p99 is measured on those.
            trickles = [self._load("trickle", 1, seed=2), self._load("trickle-stream", 1, seed=3, more=["--stream"])]
            down = self._wait("scale-in", lambda s: s.replicas == 1 and s.ready == 1, 600)
            self._watch(15)
            self.loads += [trickle.stop() for trickle in trickles]
        return replace(moments, scaled_in=down.at)

    def _load(self, name: str, rate: float, seed: int, more: list[str] | None = None) -> Load:
        timing = ["--rate", f"{rate:.2f}", "--arrival", "poisson", "--seconds", "1800", "--seed", str(seed)]
        return self._pod(name, "bench.loadgen", ["--url", URL, "--max-seconds", AUDIO_SECONDS, *timing, *(more or [])])

    def _pod(self, name: str, module: str, arguments: list[str]) -> Load:
        image = self._cluster.images["operator"]
        return self._pods.enter_context(Load(self._cluster, install.NAMESPACE, name, module, arguments, image))

    def _wait(self, what: str, true: Callable[[Sample], bool], timeout: float) -> Sample:
        return self._watcher.wait_for(what, true, timeout, tick=self._view.tick)

    def _watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.5)
            self._view.tick()


def _second_ready(api: KubeApi) -> float | None:
    """Unix time at which the second pod became Ready, by its own condition."""
    ready = [
        unix(condition["lastTransitionTime"])
        for pod in api.pods(install.NAMESPACE, SELECTOR)
        for condition in pod["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    return sorted(ready)[1] if len(ready) > 1 else None
