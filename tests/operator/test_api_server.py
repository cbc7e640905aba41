"""The word of a real API server (etcd + kube-apiserver on loopback, no nodes): the CRD, and nothing written twice.

The whole operator on a whole cluster is tested in tests/e2e; here is what a fake could get wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from chattts_operator import api
from chattts_operator.kube import Kube, KubeError
from chattts_operator.reconcile import Reconciler
from chattts_operator.spec import OperatorDefaults
from tests.operator.control_plane import ControlPlane
from tests.operator.test_resources import CASES, REVISION, SPECS

pytestmark = pytest.mark.cluster

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
SERVICES = "/apis/chattts.dev/v1alpha1/namespaces/default/ttsservices"
WRITES = ("POST", "PUT", "PATCH", "APPLY", "DELETE")


def monitoring_crd(kind: api.Kind) -> dict[str, Any]:
    """As open as the real one where it matters to us: the fields are kept as they are."""
    singular = kind.kind.lower()
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{kind.group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": singular, "listKind": f"{kind.kind}List"},
            "versions": [
                {"name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        running.install_crd(yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text()))
        for kind in api.OPTIONAL_KINDS:
            running.install_crd(monitoring_crd(kind))
        yield running


def apply(plane: ControlPlane, name: str, **spec: Any) -> tuple[int, Any]:
    return plane.apply(f"{SERVICES}/{name}", service_body(name, spec))


def service_body(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    spec = {"model": {"source": "PersistentVolumeClaim", "claimName": "weights"}, **spec}
    return {"apiVersion": api.API_VERSION, "kind": "TTSService", "metadata": {"name": name}, "spec": spec}


def writes(plane: ControlPlane) -> float:
    """Of everybody, on our resource and the children's kinds."""
    _, text = plane.request("GET", "/metrics")
    plurals = [kind.plural for kind in (api.TTS_SERVICE, *api.CHILD_KINDS)]
    total = 0.0
    for labels, value in re.findall(r"^apiserver_request_total\{(.*)\} (\S+)$", text, re.MULTILINE):
        found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if found["verb"] in WRITES and found["resource"] in plurals:
            total += float(value)
    return total


def with_kube(plane: ControlPlane, act: Callable[[Kube], Awaitable[T]]) -> T:
    async def main() -> T:
        environment = {"KUBECONFIG": str(plane.kubeconfig)}
        kube = await Kube.connect(lambda: None, lambda verb, status: None, environment)
        try:
            return await act(kube)
        finally:
            await kube.close()

    return asyncio.run(main())


def reconcile(plane: ControlPlane, name: str, times: int = 1) -> None:
    async def act(kube: Kube) -> None:
        async def served() -> frozenset[api.Kind]:
            return frozenset([kind for kind in api.OPTIONAL_KINDS if await kube.serves(kind)])

        defaults = OperatorDefaults(True, "image:1", {"release": "prometheus"})
        reconciler = Reconciler(kube, defaults, lambda key, uid: None, served, time.time)
        for _ in range(times):
            await reconciler.reconcile(api.Key("default", name))

    with_kube(plane, act)


# --- the CRD ---


def test_eight_lines_are_a_service(plane: ControlPlane) -> None:
    status, body = apply(plane, "short")
    assert status == 201
    assert body["spec"]["autoscaling"]["targets"]["p99Milliseconds"] == 1200
    assert body["spec"]["autoscaling"]["maxReplicas"] == 8
    assert "mode" not in body["spec"]["autoscaling"]


@pytest.mark.parametrize("name", CASES)
def test_good_ones_are_accepted(plane: ControlPlane, name: str) -> None:
    """Every sample among them."""
    status, answer = apply(plane, f"good-{name}", **CASES[name])
    assert status == 201, answer


CLAIM = {"source": "PersistentVolumeClaim", "claimName": "weights"}
HUB = {"source": "HuggingFace", "revision": REVISION, "acceptLicense": "CC-BY-NC-4.0"}
CACHED = {**HUB, "cache": {"type": "PersistentVolumeClaim", "size": "10Gi", "storageClassName": "a"}}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no licence": ({"model": {"revision": REVISION}}, "needs model.acceptLicense"),
    "no revision": ({"model": {"acceptLicense": "CC-BY-NC-4.0"}}, "needs model.revision"),
    "no claim": ({"model": {"source": "PersistentVolumeClaim"}}, "needs model.claimName"),
    "claim without source": ({"model": {"claimName": "w"}}, "set the source or remove claimName"),
    "path climbs": ({"model": {"source": "HostPath", "hostPath": "/m", "path": "../etc"}}, "must not contain"),
    "bounds": ({"autoscaling": {"minReplicas": 9}}, "minReplicas must not be greater"),
    "schedule": (
        {
            "autoscaling": {
                "schedules": [{"name": "a", "cron": "0 8 * * *", "durationSeconds": 60, "minReplicas": 9}],
            }
        },
        "minReplicas of autoscaling.schedules must not be greater",
    ),
    "zero": ({"autoscaling": {"minReplicas": 0}}, "a Service does not hold requests"),
    "budget": ({"server": {"keyAudioSecondsPerMinute": 60}}, "without keys nobody is told apart"),
    "queue": ({"server": {"maxQueueWaitMilliseconds": 1200}}, "or requests are refused before"),
    "target over queue": ({"autoscaling": {"targets": {"p99Milliseconds": 3000}}}, "must be greater than"),
    "drain": ({"rollout": {"drainSeconds": 29}}, "cuts the answers"),
    "interval": ({"monitoring": {"intervalSeconds": 16}}, "must be at most 15"),
    "qps": ({"autoscaling": {"targets": {"qpsPerReplica": "0.0"}}}, "must be greater than 0"),
    "qps as number": ({"autoscaling": {"targets": {"qpsPerReplica": 5.5}}}, "must be of type string"),
    "image": ({"image": {"repository": "r"}}, "needs image.tag or image.digest"),
    "tag alone": ({"image": {"tag": "1"}}, "need image.repository"),
    "env": ({"server": {"extraEnv": [{"name": "CHATTTS_MODEL"}]}}, "set by the operator from the other fields"),
    "voices": ({"voices": {"claimName": "a", "configMapRef": {"name": "b"}}}, "and not both"),
    "device": ({"server": {"device": "TPU"}}, "Unsupported value"),
    "registry with tag": ({"image": {"repository": "r.example/s:1", "tag": "1"}}, "the tag belongs into image.tag"),
    "branch for a revision": ({"model": {**HUB, "revision": "main"}}, "should match"),
    "repository": ({"model": {**HUB, "repository": "ChatTTS"}}, "should match"),
    "endpoint": ({"model": {**HUB, "endpoint": "mirror"}}, "should match"),
    "token elsewhere": ({"model": {**CLAIM, "tokenSecretRef": {"name": "t"}}}, "set the source or remove it"),
    "endpoint elsewhere": ({"model": {**CLAIM, "endpoint": "https://m"}}, "set the source or remove endpoint"),
    "revision elsewhere": ({"model": {**CLAIM, "revision": REVISION}}, "set the source or remove revision"),
    "cache elsewhere": ({"model": {**CLAIM, "cache": {"type": "PersistentVolumeClaim"}}}, "remove cache"),
    "path on the hub": ({"model": {**HUB, "path": "x"}}, "remove path"),
    "cache folder": ({"model": {**HUB, "cache": {"type": "HostPath"}}}, "needs model.cache.hostPath"),
    "folder without type": ({"model": {**HUB, "cache": {"hostPath": "/c"}}}, "set the type or remove hostPath"),
    "read only cache": ({"model": {**HUB, "cache": {"accessMode": "ReadOnlyMany"}}}, "Unsupported value"),
    "surge on one node": (
        {
            "model": {**HUB, "cache": {"type": "PersistentVolumeClaim", "accessMode": "ReadWriteOnce"}},
            "rollout": {"capacityPolicy": "Surge"},
        },
        "Surge runs two pods at once",
    ),
    "engines": ({"server": {"enginesPerPod": 2}}, "one engine per pod; use replicas"),
    "half on a processor": ({"server": {"device": "CPU", "dtype": "float16"}}, "float16 is for CUDA"),
    "int8 on a GPU": ({"server": {"dtype": "int8"}}, "int8 is for server.device CPU"),
    "env name": ({"server": {"extraEnv": [{"name": "A B"}]}}, "does not begin with a digit"),
    "no voices": ({"voices": {}}, "or remove voices"),
    "no gpu, auto": ({"accelerator": {"vendor": "None"}}, "needs server.device: CPU"),
    "no gpu, named": (
        {"accelerator": {"vendor": "None", "resourceName": "a.b/c"}, "server": {"device": "CPU"}},
        "asks for no GPU",
    ),
    "gpu twice": ({"accelerator": {"resourceName": "a.b/c", "resourceClaimTemplateName": "t"}}, "exclude each other"),
    "gpu count": ({"accelerator": {"count": 2, "resourceClaimTemplateName": "t"}}, "is said by the Resource"),
    "gpu name": ({"accelerator": {"resourceName": "gpu"}}, "must be a resource with its domain"),
    "peers": ({"networking": {"networkPolicy": {"ingressFrom": [{"podSelector": {}}]}}}, "set the mode or remove it"),
    "empty peer": (
        {"networking": {"networkPolicy": {"mode": "Restricted", "egressTo": [{}]}}},
        "at least 1 properties",
    ),
    "quantity": ({"resources": {"limits": {"cpu": "lots"}}}, "should match"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_ones_are_refused_with_a_sentence(plane: ControlPlane, case: str) -> None:
    spec, sentence = BAD[case]
    status, answer = plane.request("POST", SERVICES, service_body("bad", spec))
    assert status == 422
    assert sentence in answer["message"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": "9Gi"}, "cannot shrink"),
        ({"size": "9216Mi"}, "cannot shrink"),
        ({"storageClassName": "b"}, "storageClassName of a claim cannot be changed"),
        ({"accessMode": "ReadWriteOnce"}, "accessMode of a claim cannot be changed"),
    ],
)
def test_what_a_claim_cannot_change(plane: ControlPlane, change: dict[str, str], sentence: str) -> None:
    name = f"immutable-{'-'.join(change.values()).lower()}"
    changed = {**CACHED, "cache": {**CACHED["cache"], **change}}
    apply(plane, name, model=CACHED)
    status, answer = apply(plane, name, model=changed)
    assert (status, sentence in answer["message"]) == (422, True)
    assert apply(plane, name, model={**CACHED, "cache": {**CACHED["cache"], "size": "20Gi"}})[0] == 200
    assert apply(plane, name, model=HUB)[0] == 200  # EmptyDir, and from there anything
    assert apply(plane, name, model=changed)[0] == 200


def test_an_old_object_that_a_rule_of_today_refuses_can_still_be_scaled_and_labelled(plane: ControlPlane) -> None:
    """A leaf rule is only asked again where its field changes."""
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ttsservices.chattts.dev"
    _, body = plane.request("GET", crd)
    engines = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["server"]
    rules = engines["properties"]["enginesPerPod"].pop("x-kubernetes-validations")
    assert plane.request("PUT", crd, body)[0] == 200
    wait_for(lambda: apply(plane, "old", server={"enginesPerPod": 2}), lambda answer: answer[0] in (200, 201))
    _, body = plane.request("GET", crd)
    engines = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["server"]
    engines["properties"]["enginesPerPod"]["x-kubernetes-validations"] = rules
    assert plane.request("PUT", crd, body)[0] == 200
    names = (f"new-{number}" for number in itertools.count())  # one that got in before the rule stays in
    wait_for(lambda: apply(plane, next(names), server={"enginesPerPod": 2}), lambda answer: answer[0] == 422)
    merge = "application/merge-patch+json"
    assert plane.request("PATCH", f"{SERVICES}/old", {"spec": {"replicas": 3}}, merge)[0] == 200
    assert plane.request("PATCH", f"{SERVICES}/old", {"spec": {"server": {"enginesPerPod": 3}}}, merge)[0] == 422


@pytest.mark.parametrize("name", ["1abc", "a" * 51, "a.b"])
def test_names_that_children_cannot_have(plane: ControlPlane, name: str) -> None:
    status, answer = apply(plane, name)
    assert status == 422
    assert "metadata.name must" in answer["message"]


def test_scale(plane: ControlPlane) -> None:
    apply(plane, "scaled", replicas=2)
    reconcile(plane, "scaled")
    _, scale = plane.request("GET", f"{SERVICES}/scaled/scale")
    assert scale["spec"]["replicas"] == 2
    assert scale["status"]["selector"].startswith("app.kubernetes.io/name=chattts,")


def test_an_unknown_field_is_permanent(plane: ControlPlane) -> None:
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "default", "name": "x"},
        "spec": {"nonsense": 1},
    }
    with pytest.raises(KubeError, match="field not declared") as caught:
        with_kube(plane, lambda kube: kube.apply(api.DEPLOYMENT, body, force=False))
    assert caught.value.permanent


# --- a reconcile ---


@pytest.mark.parametrize("name", [name for name in CASES if "image" not in CASES[name].get("model", {})])
def test_second_run_writes_nothing(plane: ControlPlane, name: str) -> None:
    """Defaults and quantities of the API server must not look like drift."""
    service = f"idle-{name}"
    apply(plane, service, **CASES[name])
    before = writes(plane)
    reconcile(plane, service, times=2)
    end_job(plane, f"{service}-fetch")
    reconcile(plane, service)
    assert plane.request("GET", f"/apis/apps/v1/namespaces/default/deployments/{service}")[0] == 200
    assert writes(plane) - before >= 6  # five children and the status
    after = writes(plane)
    reconcile(plane, service, times=2)  # a new process
    assert writes(plane) == after


def test_a_feature_that_the_cluster_lacks_is_told_and_not_fought(plane: ControlPlane) -> None:
    """Kubernetes 1.34 drops image volumes in silence; where they are on, this is one more that writes nothing twice."""
    apply(plane, "volume", **SPECS["image-volume"])
    reconcile(plane, "volume", times=2)
    before = writes(plane)
    reconcile(plane, "volume", times=5)
    _, deployment = plane.request("GET", "/apis/apps/v1/namespaces/default/deployments/volume")
    kept = "image" in deployment["spec"]["template"]["spec"]["volumes"][0]
    assert writes(plane) - before == (0 if kept else 1)  # a new process tries once
    _, body = plane.request("GET", f"{SERVICES}/volume")
    progressing = next(item for item in body["status"]["conditions"] if item["type"] == "Progressing")
    assert kept or "does not keep Deployment.spec" in progressing["message"]


def test_drift_and_dropped_fields(plane: ControlPlane) -> None:
    apply(plane, "drift", scheduling={"nodeSelector": {"gpu": "l4"}}, server={"maxBatchSize": 4})
    reconcile(plane, "drift")
    path = "/apis/apps/v1/namespaces/default/deployments/drift"
    merge = "application/merge-patch+json"
    plane.request("PATCH", path, {"spec": {"replicas": 7}, "metadata": {"annotations": {"mine": "kept"}}}, merge)
    reconcile(plane, "drift")
    _, body = plane.request("GET", path)
    assert body["spec"]["replicas"] == 1
    assert body["metadata"]["annotations"]["mine"] == "kept"
    assert body["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "l4"}
    apply(plane, "drift")
    reconcile(plane, "drift")
    pod = plane.request("GET", path)[1]["spec"]["template"]["spec"]
    assert "nodeSelector" not in pod
    assert "CHATTTS_MAX_BATCH_SIZE" not in [item["name"] for item in pod["containers"][0]["env"]]


def test_a_foreign_service_is_not_taken_over(plane: ControlPlane) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "foreign"},
        "spec": {"ports": [{"port": 1}], "selector": {"app": "mine"}},
    }
    plane.request("POST", "/api/v1/namespaces/default/services", foreign)
    apply(plane, "foreign")
    reconcile(plane, "foreign")
    _, service = plane.request("GET", "/api/v1/namespaces/default/services/foreign")
    assert service["spec"]["selector"] == {"app": "mine"}
    _, body = plane.request("GET", f"{SERVICES}/foreign")
    conflict = next(item for item in body["status"]["conditions"] if item["type"] == "Conflict")
    assert (conflict["status"], "Service" in conflict["message"]) == ("True", True)
    assert plane.request("GET", "/apis/apps/v1/namespaces/default/deployments/foreign")[0] == 404


def test_the_fences_of_the_api_server(plane: ControlPlane) -> None:
    """What the fake claims of the real one: wrong uid refused, no takeover without force, one Lease per race."""
    apply(plane, "fence")
    reconcile(plane, "fence")

    async def act(kube: Kube) -> list[int]:
        live = await kube.get(api.SERVICE, "default", "fence")
        assert live is not None
        intent = {key: live[key] for key in ("apiVersion", "kind")} | {"spec": {"type": "NodePort"}}
        statuses = []
        wrong = {**intent, "metadata": {"namespace": "default", "name": "fence", "uid": "another"}}
        gone = {**intent, "metadata": {"namespace": "default", "name": "gone", "uid": "another"}}
        for body in (wrong, gone):
            with pytest.raises(KubeError) as caught:
                await kube.apply(api.SERVICE, body, force=True)
            statuses.append(caught.value.status)
        await kube.delete(api.SERVICE, "default", "fence", "another")  # 409: another object, left alone
        assert await kube.get(api.SERVICE, "default", "fence") is not None
        return statuses

    assert with_kube(plane, act) == [422, 409]


def end_job(plane: ControlPlane, name: str) -> None:
    """As the Job controller would; nothing where there is no such Job."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ended = {"status": "True", "lastTransitionTime": now, "lastProbeTime": now}
    status = {
        "startTime": now,
        "completionTime": now,
        "succeeded": 1,
        "uncountedTerminatedPods": {},
        "conditions": [{"type": "SuccessCriteriaMet", **ended}, {"type": "Complete", **ended}],
    }
    path = f"/apis/batch/v1/namespaces/default/jobs/{name}"
    if plane.request("GET", path)[0] == 200:
        answer = plane.request("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")
        assert answer[0] == 200, answer


def test_weights_on_a_claim_from_the_first_byte_to_the_next_revision(plane: ControlPlane) -> None:
    """The real API server's word on a Job that cannot be changed and a claim that cannot shrink."""
    apply(plane, "cached", model={**CACHED, "cache": {**CACHED["cache"], "reclaimPolicy": "Retain"}})
    reconcile(plane, "cached", times=2)
    deployment = "/apis/apps/v1/namespaces/default/deployments/cached"
    job = "/apis/batch/v1/namespaces/default/jobs/cached-fetch"
    claim = "/api/v1/namespaces/default/persistentvolumeclaims/cached-model"
    assert plane.request("GET", deployment)[0] == 404
    assert "ownerReferences" not in plane.request("GET", claim)[1]["metadata"]
    end_job(plane, "cached-fetch")
    reconcile(plane, "cached")
    first = plane.request("GET", job)[1]["metadata"]["uid"]
    newer = {**CACHED, "revision": "f" * 40}
    apply(plane, "cached", model=newer)
    reconcile(plane, "cached", times=3)
    assert plane.request("GET", job)[1]["metadata"]["uid"] != first
    mounts = plane.request("GET", deployment)[1]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert mounts[0]["subPath"] == REVISION
    body = plane.request("GET", claim)[1]
    assert body["metadata"]["ownerReferences"][0]["name"] == "cached"  # Delete again
    end_job(plane, "cached-fetch")
    reconcile(plane, "cached", times=2)
    mounts = plane.request("GET", deployment)[1]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert mounts[0]["subPath"] == "f" * 40


# --- the process ---


def test_the_operator_starts_works_and_leaves(plane: ControlPlane, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "KUBECONFIG": str(plane.kubeconfig),
        "PYTHONPATH": str(ROOT / "operator"),
        "CHATTTS_OPERATOR_DEFAULT_SERVER_IMAGE": "image:1",
        "CHATTTS_OPERATOR_HEALTH_PORT": "0",
        "CHATTTS_OPERATOR_METRICS_PORT": "0",
    }
    plane.request("DELETE", SERVICES)  # those of the other tests would only make it wait
    log = tmp_path / "log"
    with log.open("wb") as output:
        operator = subprocess.Popen(
            [sys.executable, "-m", "chattts_operator", "run"], env=environment, stdout=output, stderr=output
        )
    try:
        apply(plane, "whole")
        wait(lambda: "status" in plane.request("GET", f"{SERVICES}/whole")[1], log)
        service = "/api/v1/namespaces/default/services/whole"
        plane.request("DELETE", service)
        wait(lambda: plane.request("GET", service)[0] == 200, log)
        lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/chattts-operator"
        assert plane.request("GET", lease)[1]["spec"]["holderIdentity"]
        operator.send_signal(signal.SIGTERM)
        assert operator.wait(10) == 0
        assert plane.request("GET", lease)[1]["spec"]["holderIdentity"] == ""
    finally:
        if operator.poll() is None:
            operator.kill()
            operator.wait()


def wait_for(ask: Callable[[], T], good: Callable[[T], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not good(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def wait(done: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
