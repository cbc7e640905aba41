"""The real API server again: what it admits; an operator that is killed; services that come and go; many of them."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from chattts_operator import api
from chattts_operator.kube import Kube
from chattts_operator.reconcile import Reconciler
from chattts_operator.spec import OperatorDefaults
from tests.operator.control_plane import ControlPlane
from tests.operator.fakes import Crash
from tests.operator.test_api_server import ROOT, SERVICES, apply, end_job, monitoring_crd, wait, with_kube, writes
from tests.operator.test_invariants import NEWER
from tests.operator.test_resources import SAMPLES, children_of, spec_of
from tests.operator.world import EVERY_CHILD

pytestmark = pytest.mark.cluster
HOST_PATHS = {name for name, spec in SAMPLES.items() if "hostPath" in str(spec["model"])}
MANY, RESYNCS, DRIFTS = 2000, 10, 50
AWAY_SECONDS = 600


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane"), controllers=True) as running:
        running.install_crd(yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text()))
        for kind in api.OPTIONAL_KINDS:
            running.install_crd(monitoring_crd(kind))
        yield running


# --- Pod Security ---


@pytest.fixture(scope="module")
def namespaces(plane: ControlPlane) -> ControlPlane:
    for level in ("restricted", "privileged"):
        labels = {"pod-security.kubernetes.io/enforce": level}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": level, "labels": labels}}
        plane.apply(f"/api/v1/namespaces/{level}", body)
    for name in SAMPLES:
        pod = spec_of(f"sample-{name}").scheduling
        if pod.priority_class:
            body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1}
            path = f"/apis/scheduling.k8s.io/v1/priorityclasses/{pod.priority_class}"
            plane.apply(path, {**body, "metadata": {"name": pod.priority_class}})
        if pod.runtime_class:
            body = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "nvidia"}
            path = f"/apis/node.k8s.io/v1/runtimeclasses/{pod.runtime_class}"
            plane.apply(path, {**body, "metadata": {"name": pod.runtime_class}})
    return plane


def admitted(plane: ControlPlane, namespace: str, template: api.Body) -> tuple[int, str]:
    metadata = {**template["metadata"], "name": "pod", "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    status, answer = plane.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body)
    return status, answer.get("message", "")


@pytest.mark.parametrize("name", SAMPLES)
def test_pods_of_every_sample_are_admitted_as_restricted(namespaces: ControlPlane, name: str) -> None:
    """Those with folders of the node are for development: refused there, and admitted in a namespace of their own."""
    templates = [
        body["spec"]["template"] for body in children_of(spec_of(f"sample-{name}")) if "template" in body["spec"]
    ]
    assert templates
    for template in templates:
        status, message = admitted(namespaces, "restricted", template)
        if name in HOST_PATHS:
            assert (status, "restricted volume types" in message) == (403, True), message
        else:
            assert status == 201, message
        assert admitted(namespaces, "privileged", template)[0] == 201
        template["spec"]["hostNetwork"] = True
        assert admitted(namespaces, "restricted", template)[0] == 403
    assert HOST_PATHS


# --- killed between writes ---

STEPS: tuple[dict[str, Any], ...] = (
    {},
    {**EVERY_CHILD, "model": {**EVERY_CHILD["model"], "revision": NEWER}},
    {"server": {"maxBatchSize": 3}},
)


def lived(plane: ControlPlane, name: str, killed_at: int | None) -> tuple[dict[str, Any], int]:
    """(what is there after a life of three specs, how many writes it took); killed before write number `killed_at`."""
    count = 0

    async def act(kube: Kube) -> None:
        async def served() -> frozenset[api.Kind]:
            return frozenset([kind for kind in api.OPTIONAL_KINDS if await kube.serves(kind)])

        def counted(write: Any) -> Any:
            async def call(*args: Any) -> Any:
                nonlocal count, killed_at
                if count == killed_at:
                    killed_at = None
                    raise Crash
                count += 1
                return await write(*args)

            return call

        for verb in ("apply", "apply_status", "delete"):
            setattr(kube, verb, counted(getattr(kube, verb)))
        defaults = OperatorDefaults(True, "image:1", {"release": "prometheus"})
        for spec in STEPS:
            apply(plane, name, **spec)
            for _ in range(5):
                reconciler = Reconciler(kube, defaults, lambda key, uid: None, served, time.time)
                try:
                    await reconciler.reconcile(api.Key("default", name))
                except Crash:
                    continue
                found, job = plane.request("GET", f"/apis/batch/v1/namespaces/default/jobs/{name}-fetch")
                if found == 200 and not job["status"].get("conditions"):
                    end_job(plane, f"{name}-fetch")

    with_kube(plane, act)
    assert killed_at is None, "it was never killed"
    return children_there(plane, name), count


def children_there(plane: ControlPlane, name: str) -> dict[str, Any]:
    """Kind -> what its spec says, of all objects with this service's label; names and uids are each life's own."""
    found: dict[str, Any] = {}
    for kind in api.CHILD_KINDS:
        group = f"/apis/{kind.group}" if kind.group else "/api"
        path = f"{group}/{kind.version}/namespaces/default/{kind.plural}?labelSelector={api.LABEL_SERVICE}%3D{name}"
        items = plane.request("GET", path)[1].get("items", [])
        own = [item for item in items if not item["metadata"].get("deletionTimestamp")]
        assert len(own) <= 1, f"two of {kind.kind}"
        if own:
            body = own[0].get("spec", own[0].get("data"))
            for field in ("clusterIP", "clusterIPs", "selector", "volumeName"):
                body.pop(field, None)
            found[kind.kind] = yaml.safe_dump(body, width=100_000).replace(name, "NAME")
    return found


def test_killed_at_ten_random_writes_it_converges_to_the_same(plane: ControlPlane) -> None:
    expected, count = lived(plane, "kill-none", None)
    assert {"Deployment", "Service"} <= expected.keys()
    assert "NetworkPolicy" not in expected
    assert count >= 12
    for killed_at in sorted(random.Random(7).sample(range(count), 10)):
        made, _ = lived(plane, f"kill-{killed_at}", killed_at)
        assert made == expected, killed_at


# --- they come and go ---


@pytest.mark.long
def test_twenty_services_that_come_and_go_leave_nothing(plane: ControlPlane) -> None:
    """The garbage collector of Kubernetes does it: the operator is not there when they are deleted."""
    names = [f"gone-{number}" for number in range(20)]

    async def act(kube: Kube) -> None:
        async def served() -> frozenset[api.Kind]:
            return frozenset(api.OPTIONAL_KINDS)

        reconciler = Reconciler(kube, OperatorDefaults(True, "image:1", {}), lambda key, uid: None, served, time.time)
        for name in names:
            await reconciler.reconcile(api.Key("default", name))

    for name in names:
        apply(plane, name, **EVERY_CHILD)
    with_kube(plane, act)
    there = [children_there(plane, name) for name in names]
    assert all({"Service", "PersistentVolumeClaim"} <= found.keys() for found in there)
    for name in names:
        assert plane.request("DELETE", f"{SERVICES}/{name}")[0] == 200
    deadline = time.monotonic() + 180
    while any(children_there(plane, name) for name in names):
        assert time.monotonic() < deadline, [children_there(plane, name).keys() for name in names]
        time.sleep(0.5)
    assert all(plane.request("GET", f"{SERVICES}/{name}")[0] == 404 for name in names)


# --- many ---


def memory_of(process: subprocess.Popen[bytes]) -> float:
    """Most MiB that it ever had."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def seen(plane: ControlPlane) -> int:
    items = plane.request("GET", SERVICES)[1]["items"]
    return sum("observedGeneration" in item.get("status", {}) for item in items)


@contextmanager
def operator_of(
    plane: ControlPlane, folder: Path, resync_seconds: float
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The operator as a process, and its log."""
    environment = {
        **os.environ,
        "KUBECONFIG": str(plane.kubeconfig),
        "PYTHONPATH": str(ROOT / "operator"),
        "CHATTTS_OPERATOR_DEFAULT_SERVER_IMAGE": "image:1",
        "CHATTTS_OPERATOR_HEALTH_PORT": "0",
        "CHATTTS_OPERATOR_METRICS_PORT": "0",
        "CHATTTS_OPERATOR_RESYNC_SECONDS": str(resync_seconds),
    }
    log = folder / "operator.log"
    with log.open("wb") as output:
        operator = subprocess.Popen(
            [sys.executable, "-m", "chattts_operator", "run"], env=environment, stdout=output, stderr=output
        )
    try:
        yield operator, log
    finally:
        operator.kill()
        operator.wait()


def _many(count: int, resyncs: int, drifts: int, folder: Path) -> dict[str, float]:
    """One operator process and so many services, without pods: what it takes, and that it then writes nothing."""
    resync_seconds = max(10.0, count / 40)
    with ControlPlane(folder) as plane:
        plane.install_crd(yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text()))
        for number in range(count):
            apply(plane, f"many-{number}")
        with operator_of(plane, folder, resync_seconds) as (operator, log):
            began = time.monotonic()
            wait(lambda: seen(plane) == count, log, seconds=600)
            first = time.monotonic() - began
            time.sleep(15)  # echoes of its own writes
            before = writes(plane)
            time.sleep(resyncs * resync_seconds)
            idle = writes(plane) - before
            repaired = sorted(_repair(plane, number, log) for number in range(0, count, count // drifts))
            return {
                "first_reconcile_seconds": first,
                "idle_writes": idle,
                "repair_p99_seconds": repaired[int(0.99 * len(repaired))],
                "memory_mib": memory_of(operator),
            }


def _repair(plane: ControlPlane, number: int, log: Path) -> float:
    """Seconds until a Service that somebody deleted is there again."""
    path = f"/api/v1/namespaces/default/services/many-{number}"
    assert plane.request("DELETE", path)[0] == 200
    began = time.monotonic()
    wait(lambda: plane.request("GET", path)[0] == 200, log)
    return time.monotonic() - began


@pytest.mark.long
def test_two_thousand_services_are_seen_repaired_and_left_alone(tmp_path: Path) -> None:
    found = _many(MANY, RESYNCS, DRIFTS, tmp_path)
    print(found)
    assert found["first_reconcile_seconds"] < 300
    assert found["idle_writes"] == 0
    assert found["repair_p99_seconds"] < 1
    assert found["memory_mib"] < 256


@pytest.mark.long
def test_an_api_server_that_says_nothing_for_ten_minutes_is_waited_for_quietly(tmp_path: Path) -> None:
    """It is stopped, not ended: connections stay and nothing comes. An edit just before is carried out after."""
    with ControlPlane(tmp_path) as plane:
        plane.install_crd(yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text()))
        for number in range(20):
            apply(plane, f"away-{number}")
        with operator_of(plane, tmp_path, 60.0) as (_, log):
            wait(lambda: seen(plane) == 20, log)
            time.sleep(15)
            server = plane.api_server
            calm = _requests(plane)
            time.sleep(60)
            calm = (_requests(plane) - calm) / 60
            server.send_signal(signal.SIGSTOP)
            time.sleep(AWAY_SECONDS)
            server.send_signal(signal.SIGCONT)
            began, before = time.monotonic(), _requests(plane)
            apply(plane, "away-7", server={"maxBatchSize": 3})
            path = "/apis/apps/v1/namespaces/default/deployments/away-7"
            wait(lambda: "CHATTTS_MAX_BATCH_SIZE" in str(plane.request("GET", path)[1]), log, seconds=90)
            converged = time.monotonic() - began
            time.sleep(60)
            rate = (_requests(plane) - before) / (time.monotonic() - began)
    print({"converged_seconds": converged, "requests_per_second_after": rate, "before": calm})
    assert converged < 90
    assert rate < 20


def _requests(plane: ControlPlane) -> float:
    """Of everybody, all that were answered since the API server started."""
    _, text = plane.request("GET", "/metrics")
    return sum(float(value) for value in re.findall(r"^apiserver_request_total\{.*\} (\S+)$", text, re.MULTILINE))
