"""Children that come and go with the spec: weights on a claim, policies, dashboards, drivers. Told as stories."""

from __future__ import annotations

from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.drivers import Node
from chattts_operator.kube import KubeError
from chattts_operator.model_cache import RETRY_SECONDS
from chattts_operator.resources.child import is_owned
from tests.operator.fakes import FakeKube, pod, tts_service
from tests.operator.world import EVERY_CHILD, KEY, MONITORING, REVISION, World

NEWER = "f" * 40
FETCH_POD = {"app.kubernetes.io/name": "chattts-fetch", api.LABEL_FETCH: "demo"}


def cached(**changes: Any) -> dict[str, Any]:
    return {**EVERY_CHILD["model"], **changes}


def mounted(world: World) -> str:
    """The folder of the claim that pods read."""
    container = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["spec"]["containers"][0]
    return str(next(mount for mount in container["volumeMounts"] if mount["name"] == "model")["subPath"])


def told(world: World) -> list[str]:
    return [event["reason"] for event in world.kube.events]


# --- weights on a claim ---


def test_pods_come_when_the_weights_are_there() -> None:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service(**EVERY_CHILD))
    assert world.reconcile() is not None
    world.settle()
    assert not world.kube.has(api.DEPLOYMENT, KEY)
    assert world.kube.has(api.JOB, KEY)
    model, ready = world.condition("ModelCached"), world.condition("Ready")
    assert (model["status"], model["reason"], ready["reason"]) == ("False", "Fetching", "Fetching")
    assert "kubectl logs -f job/demo-fetch" in model["message"]
    assert "modelRevision" not in world.status()
    world.kube.end_job(KEY, "Complete")
    world.settle()
    assert mounted(world) == REVISION == world.status()["modelRevision"]
    assert world.condition("ModelCached")["reason"] == "Fetched"
    assert world.reconcile() is None
    assert "Fetched" in told(world)


def test_a_new_revision_reaches_pods_only_when_it_is_complete() -> None:
    world = World.with_every_child()
    first = world.kube.at(api.JOB, KEY)["metadata"]["uid"]
    world.edit_spec(model=cached(revision=NEWER), server={"maxBatchSize": 4})
    world.settle()
    assert world.kube.at(api.JOB, KEY)["metadata"]["uid"] != first
    assert mounted(world) == REVISION == world.status()["modelRevision"]
    variables = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "CHATTTS_MAX_BATCH_SIZE", "value": "4"} in variables  # the rest of the spec does not wait
    assert f"pods keep {REVISION[:12]} until then" in world.condition("ModelCached")["message"]
    world.kube.end_job(KEY, "Complete")
    world.settle()
    assert mounted(world) == NEWER == world.status()["modelRevision"]


def test_back_to_the_old_revision_waits_for_nothing() -> None:
    world = World.with_every_child()
    world.edit_spec(model=cached(revision=NEWER))
    world.settle()
    template = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]
    world.edit_spec(model=cached())
    world.settle()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"] == template


def test_a_failed_download_is_told_and_tried_anew() -> None:
    world = World.with_every_child()
    world.edit_spec(model=cached(revision=NEWER))
    world.settle()
    failing = pod("demo-fetch-x", labels=FETCH_POD)
    ended = {"exitCode": 1, "message": "chattts-server: asset/Decoder.safetensors has sha256 0, not used\n"}
    failing["status"]["containerStatuses"] = [{"name": "fetch", "state": {"terminated": ended}}]
    world.kube.put(api.POD, failing)
    world.kube.end_job(KEY, "Failed", "2027-01-15T08:00:00Z")
    assert world.reconcile() == RETRY_SECONDS
    model = world.condition("ModelCached")
    assert model["reason"] == "FetchFailed"
    assert "has sha256 0, not used" in model["message"]
    assert mounted(world) == REVISION  # nothing happened to the pods
    assert "FetchFailed" in told(world)
    world.kube.writes.clear()
    world.now += RETRY_SECONDS - 1
    world.reconcile()
    assert world.kube.writes == []
    world.now += 1
    for _ in range(2):
        world.reconcile()
    assert [write for write in world.kube.writes if write[1] == "Job"] == [
        ("delete", "Job", "demo-fetch"),
        ("apply", "Job", "demo-fetch"),
    ]
    world.kube.end_job(KEY, "Complete")
    world.settle()
    assert mounted(world) == NEWER


def test_a_pod_that_cannot_pull_its_image_is_told_while_it_fetches() -> None:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service(**EVERY_CHILD))
    world.settle()
    waiting = pod("demo-fetch-x", labels=FETCH_POD)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    waiting["status"]["containerStatuses"] = [{"name": "fetch", "state": state}]
    world.kube.put(api.POD, waiting)
    world.reconcile()
    assert "ImagePullBackOff: no such image" in world.condition("ModelCached")["message"]
    stuck = "pod has unbound immediate PersistentVolumeClaims"
    world.kube.put(api.POD, pod("demo-fetch-x", unschedulable=stuck, labels=FETCH_POD))
    world.reconcile()
    assert stuck in world.condition("ModelCached")["message"]
    assert "1 of" not in world.condition("CapacityAvailable")["message"]  # it is no server


def test_a_claim_that_was_made_anew_is_filled_anew_and_pods_stay() -> None:
    world = World.with_every_child()
    template = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]
    world.kube.remove(*world.kube.place(api.CLAIM, KEY))
    world.settle()
    assert world.condition("ModelCached")["reason"] == "Fetching"
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"] == template


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_the_claim_is_kept_or_deleted_by_policy(policy: str) -> None:
    world = World()
    model = cached(cache={"type": "PersistentVolumeClaim", "reclaimPolicy": policy})
    world.kube.put(api.TTS_SERVICE, tts_service(model=model))
    world.settle_with_download()
    world.kube.remove(api.TTS_SERVICE, *KEY)
    world.kube.collect_garbage()
    assert {key[0] for key in world.kube.snapshot()} == ({api.CLAIM} if policy == "Retain" else set())
    # The next one of the name takes a retained claim over; it does not hold it for foreign.
    world.kube.put(api.TTS_SERVICE, tts_service(uid="uid-new", model=cached()))
    world.settle_with_download()
    assert world.condition("Conflict")["status"] == "False"
    assert is_owned(world.kube.at(api.CLAIM, KEY), "uid-new")
    assert mounted(world) == REVISION


def test_a_claim_outlives_the_pods_that_mount_it() -> None:
    world = World.with_every_child()
    world.pods_are(1, 1)
    world.edit_spec(model=cached(cache={"type": "EmptyDir"}))
    world.reconcile()
    world.pods_are(2, 1, updated=1)
    world.settle()
    assert world.kube.has(api.CLAIM, KEY)
    assert not world.kube.has(api.JOB, KEY)
    world.pods_are(1, 1)
    world.settle()
    assert not world.kube.has(api.CLAIM, KEY)


def test_from_another_source_to_a_claim_the_pods_stay_until_it_is_filled() -> None:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service())
    world.settle()
    before = world.kube.at(api.DEPLOYMENT, KEY)
    world.edit_spec(model=cached())
    world.settle()
    assert world.kube.at(api.DEPLOYMENT, KEY) == before
    world.kube.end_job(KEY, "Complete")
    world.settle()
    assert mounted(world) == REVISION


def test_a_claim_that_may_not_grow_holds_up_nothing_else() -> None:
    world = World.with_every_child()
    world.kube.edit(api.CLAIM, KEY, lambda body: body["status"].update(phase="Bound"))
    message = "only dynamically provisioned pvc can be resized and the storageclass must support resize"
    world.kube.refuse = lambda verb, kind: KubeError(403, message) if (verb, kind) == ("apply", api.CLAIM) else None
    world.edit_spec(model=cached(cache={"type": "PersistentVolumeClaim", "size": "20Gi"}), server={"maxBatchSize": 4})
    with pytest.raises(KubeError, match="support resize"):
        world.reconcile()
    assert message in world.condition("Progressing")["message"]
    variables = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "CHATTTS_MAX_BATCH_SIZE", "value": "4"} in variables


def test_an_api_server_in_trouble_is_left_alone_at_once() -> None:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service())
    asked: list[str] = []

    def refuse(verb: str, kind: api.Kind) -> KubeError | None:
        asked.append(verb)
        return KubeError(500, "etcd is away") if verb == "apply" else None

    world.kube.refuse = refuse
    with pytest.raises(KubeError, match="etcd is away"):
        world.reconcile()
    assert asked.count("apply") == 1


# --- features ---


@pytest.mark.parametrize(
    ("off", "kinds"),
    [
        ({"networking": {}}, {api.NETWORK_POLICY}),
        ({"monitoring": {}}, {api.CONFIG_MAP}),
        ({"monitoring": {"monitor": "None", "dashboard": "Enabled"}}, set(MONITORING)),
        ({"monitoring": {"rules": "Disabled", "dashboard": "Enabled"}}, {api.PROMETHEUS_RULE}),
        ({"model": {"source": "PersistentVolumeClaim", "claimName": "w"}}, {api.JOB, api.CLAIM}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_feature_switched_off_takes_its_child_along_and_no_other(off: dict[str, Any], kinds: set[api.Kind]) -> None:
    world = World.with_every_child()
    assert all(world.kube.has(kind, KEY) for kind in api.CHILD_KINDS)
    world.edit_spec(**off)
    world.reconcile()
    world.pods_are(1, 1)
    world.settle()
    assert {kind for kind in api.CHILD_KINDS if not world.kube.has(kind, KEY)} == kinds
    world.edit_spec(**EVERY_CHILD)
    world.settle_with_download()
    assert all(world.kube.has(kind, KEY) for kind in api.CHILD_KINDS)


def test_switching_off_leaves_a_foreign_object_alone() -> None:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service())
    foreign = {"metadata": {"namespace": "default", "name": "demo"}, "spec": {"podSelector": {}}}
    before = dict(world.kube.put(api.NETWORK_POLICY, foreign))
    world.settle()
    assert world.kube.at(api.NETWORK_POLICY, KEY) == before
    assert world.condition("Conflict")["status"] == "False"  # nobody wanted one of that name


def test_monitoring_that_is_installed_later_appears() -> None:
    world = World(kube=FakeKube())
    world.kube.put(api.TTS_SERVICE, tts_service(monitoring={"monitor": "PodMonitor"}))
    world.settle()
    assert not world.kube.has(api.POD_MONITOR, KEY)
    template = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]
    world.kube.served = frozenset(MONITORING)
    world.settle()
    assert world.kube.has(api.POD_MONITOR, KEY)
    assert world.kube.has(api.PROMETHEUS_RULE, KEY)
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"] == template


def test_another_operators_service_is_left_alone() -> None:
    world = World(selector="team=speech")
    world.kube.put(api.TTS_SERVICE, tts_service())
    world.reconcile()
    assert world.kube.writes == []
    world.kube.edit(api.TTS_SERVICE, KEY, lambda body: body["metadata"].update(labels={"team": "speech"}))
    world.reconcile()
    assert world.kube.has(api.DEPLOYMENT, KEY)


# --- drivers ---


def node(name: str, driver: str = "", product: str = "l4", resource: str = "nvidia.com/gpu") -> Node:
    labels = {"product": product}
    for part, value in zip(("major", "minor", "rev"), driver.split(".") if driver else (), strict=False):
        labels[f"nvidia.com/cuda.driver.{part}"] = value
    return Node(name, labels, frozenset({"cpu", resource}))


L4_ONLY = {"nodeSelector": {"product": "l4"}}


@pytest.mark.parametrize(
    ("nodes", "spec", "status", "reason"),
    [
        ((node("a", "580.65.06"),), {}, "True", "DriversFit"),
        ((node("a", "570.1.1"), node("b", "580.1.1")), {}, "False", "SomeDriversTooOld"),
        ((node("a", "570.1.1"),), {}, "False", "AllDriversTooOld"),
        ((node("a", "570.1.1"),), {"image": {"cudaVersion": "12.6"}}, "True", "DriversFit"),
        ((node("a", "580.10.1"),), {"accelerator": {"minDriverVersion": "580.65"}}, "False", "AllDriversTooOld"),
        (
            (node("a", "570.1.1", "t4"),),
            {"scheduling": {"nodeSelector": {"product": "l4"}}},
            "Unknown",
            "DriversUnknown",
        ),
        ((node("a", "1.1.1", resource="amd.com/gpu"), node("b", "580.0.0")), {}, "True", "DriversFit"),
        ((node("a"),), {}, "Unknown", "DriversUnknown"),
        (None, {}, "Unknown", "NoNodeAccess"),
        ((node("a", "570.1.1"),), {"image": {"cudaVersion": ""}}, "Unknown", "CudaUnknown"),
        ((node("a", "570.1.1"),), {"server": {"device": "CPU"}}, "True", "NotNeeded"),
    ],
)
def test_the_driver_gate(nodes: tuple[Node, ...] | None, spec: dict[str, Any], status: str, reason: str) -> None:
    world = World(nodes=nodes)
    world.kube.put(api.TTS_SERVICE, tts_service(**{"image": {"cudaVersion": "13.0"}, **spec}))
    world.settle()
    condition = world.condition("DriverCompatible")
    assert (condition["status"], condition["reason"]) == (status, reason)
    assert (reason in told(world)) == (status == "False")
    if status == "False":
        assert "a (5" in condition["message"]


def test_newer_labels_of_the_gpu_feature_discovery_count_too() -> None:
    labels = {"nvidia.com/cuda.driver-version.major": "570", "nvidia.com/cuda.driver-version.minor": "86"}
    world = World(nodes=(Node("new", labels, frozenset({"nvidia.com/gpu"})),))
    world.kube.put(api.TTS_SERVICE, tts_service(image={"cudaVersion": "13.0"}))
    world.settle()
    assert "new (570.86)" in world.condition("DriverCompatible")["message"]
