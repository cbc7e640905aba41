"""The chain: speech, breach, scale-out after 2 minutes, calm, scale-in; the operator is restarted in the breach."""

import threading
from pathlib import Path
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.demo import install
from dev.demo.chain import SELECTOR, Chain
from dev.demo.speech import speak
from dev.demo.summary import problems, summarize
from dev.demo.view import View
from dev.demo.watch import Watcher
from dev.kubeapi import KubeApi

OPERATORS = "app.kubernetes.io/name=chattts-operator"


@pytest.fixture
def demo(cluster: Cluster, services: Any) -> None:
    services.create("demo", scaleDown={"stabilizationSeconds": 45, "periodSeconds": 15, "maxPercent": 25})
    cluster.kubectl("-n", install.NAMESPACE, "wait", "tts/demo", "--for=condition=Ready", "--timeout=240s")


def restart_operator_in_the_breach(cluster: Cluster, watcher: Watcher, done: threading.Event) -> None:
    """Delete the operator's pod a minute into the breach; the capacity measurement is not refused anything."""
    over = watcher.wait_for("refusals", lambda s: (s.p99 or 0.0) > 1.2 and (s.refused or 0.0) > 0.5, 400)
    watcher.wait_for("a minute more", lambda s: s.at >= over.at + 60, 120)
    cluster.kubectl("-n", install.OPERATOR_NAMESPACE, "delete", "pod", "-l", OPERATORS, "--wait=false")
    done.set()


def test_the_whole_chain_with_the_operator_restarted_mid_way(
    cluster: Cluster, api: KubeApi, services: Any, demo: None, tmp_path: Path
) -> None:
    audio = speak(cluster, install.NAMESPACE, "demo", tmp_path)
    assert {a["sample_rate"] for a in audio} == {24000}
    before = {pod["metadata"]["uid"] for pod in api.pods(install.OPERATOR_NAMESPACE, OPERATORS)}
    watcher, restarted, view = Watcher(api, install.NAMESPACE, "demo"), threading.Event(), View()
    view.watcher = watcher
    watcher.start()
    restart = threading.Thread(target=restart_operator_in_the_breach, args=(cluster, watcher, restarted))
    restart.start()
    chain = Chain(cluster, api, view, watcher)
    try:
        moments = chain.run(steady_seconds=0)  # the p99 that is waited for is itself that of 60 s
    finally:
        watcher.stop()
        restart.join(timeout=1)
    summary = summarize(moments, watcher.samples, chain.loads, audio, {"capacity_rps": chain.capacity})
    assert problems(summary) == [], summary
    assert restarted.is_set()
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in api.pods(install.OPERATOR_NAMESPACE, OPERATORS))
    assert len(api.pods(install.NAMESPACE, SELECTOR)) == 1
    changes = [(change["from"], change["to"]) for change in services.get("demo")["status"]["autoscaling"]["history"]]
    outs = [change for change in changes if change[1] > change[0]]  # newest first, as all of them
    assert len(outs) == 1, changes  # how far that one step goes is what the breach taught of one pod's capacity
    assert (outs[0], outs[0][0], changes[0][1]) == (changes[-1], 1, 1), "out by one step, and back"
    uid = services.get("demo")["metadata"]["uid"]
    only = f"--field-selector=involvedObject.uid={uid}"
    told = cluster.kubectl("-n", install.NAMESPACE, "get", "events", only, "-o", "jsonpath={.items[*].message}")
    assert f"1 -> {outs[0][1]} replicas: SLOBreach" in told
    assert f"{changes[0][0]} -> 1 replicas: ScaleIn" in told
