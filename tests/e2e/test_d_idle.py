"""An idle operator writes nothing: counted by the API server itself, with 20 services in mode Operator."""

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dev.kubeapi import KubeApi

Wait = Callable[[Callable[[], object], float, str], None]
WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}
KINDS = {"ttsservices", "deployments", "services", "podmonitors", "prometheusrules", "events"}
SERVICES = 20


def writes(api: KubeApi) -> Counter[str]:
    """Writes so far by verb and resource, from apiserver_request_total; Leases and events of others left out."""
    counted: Counter[str] = Counter()
    for line in api.text("/metrics").splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        if labels["verb"] in WRITES and labels["resource"] in KINDS - {"events"}:
            counted[f"{labels['verb']} {labels['resource']}/{labels['subresource']}"] += int(
                float(line.rsplit(" ", 1)[1])
            )
    return counted


def idle_writes(api: KubeApi, services: Any, eventually: Wait, seconds: float) -> Counter[str]:
    for number in range(SERVICES):
        services.pending(f"idle-{number}")
    for number in range(SERVICES):
        pending = lambda n=number: services.condition(f"idle-{n}", "CapacityAvailable").get("status") == "False"  # noqa: E731
        eventually(pending, 120, f"idle-{number} waits for a GPU")
    time.sleep(30)
    before = writes(api)
    assert before["APPLY deployments/"] + before["PATCH deployments/"] >= SERVICES, "the counters see our writes"
    time.sleep(seconds)
    return writes(api) - before


def test_an_idle_operator_writes_nothing_for_a_minute(api: KubeApi, services: Any, eventually: Wait) -> None:
    assert idle_writes(api, services, eventually, 60) == Counter()


@pytest.mark.long
def test_an_idle_operator_writes_nothing_for_five_minutes(api: KubeApi, services: Any, eventually: Wait) -> None:
    assert idle_writes(api, services, eventually, 300) == Counter()
