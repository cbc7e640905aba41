"""A reconcile against an API server that behaves: what it writes, what it leaves alone, and nothing twice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.autoscaling.signals import Decision, Metrics, State
from chattts_operator.kube import KubeError
from chattts_operator.spec import OperatorDefaults
from tests.operator.fakes import Crash, FakeKube, pod, tts_service
from tests.operator.world import EVERY_CHILD, IMAGE, KEY, MONITORING, World, decided


@pytest.fixture
def world() -> World:
    made = World()
    made.kube.put(api.TTS_SERVICE, tts_service())
    return made


# --- what it makes ---


def test_first_run_makes_all_children_and_the_whole_status(world: World) -> None:
    assert world.reconcile() is None
    for kind in (api.DEPLOYMENT, api.SERVICE, api.POD_DISRUPTION_BUDGET, *MONITORING):
        child = world.kube.at(kind, KEY)
        assert child["metadata"]["ownerReferences"][0]["uid"] == "uid-demo"
        assert child["metadata"]["labels"][api.LABEL_SERVICE] == "demo"
    status = world.status()
    assert [item["type"] for item in status["conditions"]] == list(api.CONDITION_TYPES)
    assert (
        status["selector"] == "app.kubernetes.io/name=chattts,app.kubernetes.io/instance=demo,chattts.dev/service=demo"
    )
    assert status["url"] == "http://demo.default.svc"
    assert (status["desiredReplicas"], status["replicas"], status["image"]) == (1, 0, IMAGE)
    assert status["observedGeneration"] == world.kube.at(api.TTS_SERVICE, KEY)["metadata"]["generation"]


def test_second_run_writes_nothing(world: World) -> None:
    world.edit_spec(
        resources={"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "0.5"}},
        server={"extraEnv": [{"name": "EMPTY"}]},
    )
    world.reconcile()
    assert world.kube.writes
    world.kube.writes.clear()
    for restart in (False, True):
        if restart:
            world.start_operator()
        world.now += 3600
        for _ in range(10):
            world.reconcile()
    assert world.kube.writes == []


def test_spec_and_metadata_of_the_user_are_never_written(world: World) -> None:
    before = copy.deepcopy(world.kube.at(api.TTS_SERVICE, KEY))
    world.settle()
    after = world.kube.at(api.TTS_SERVICE, KEY)
    assert after["spec"] == before["spec"]
    assert {**after["metadata"], "resourceVersion": ""} == {**before["metadata"], "resourceVersion": ""}


def test_without_monitoring_crds_pods_carry_scrape_annotations() -> None:
    world = World(kube=FakeKube())
    world.kube.put(api.TTS_SERVICE, tts_service())
    world.reconcile()
    template = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["metadata"]
    assert template["annotations"]["prometheus.io/port"] == "9090"
    # Installed later, the CRDs must not restart a pod; and scraping twice would double every rate.
    world.kube.served = frozenset(MONITORING)
    world.settle()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["metadata"] == template
    assert (api.POD_MONITOR, *KEY) not in world.kube.objects
    assert (api.PROMETHEUS_RULE, *KEY) in world.kube.objects


def test_a_scrape_annotation_of_the_user_does_not_take_the_monitor_away(world: World) -> None:
    overlay = {"metadata": {"annotations": {"prometheus.io/scrape": "false"}}}
    world.edit_spec(podTemplateOverlay=overlay)
    world.reconcile()
    template = copy.deepcopy(world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["metadata"])
    assert template["annotations"] == {"prometheus.io/scrape": "false"}
    world.settle()
    assert (api.POD_MONITOR, *KEY) in world.kube.objects
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["metadata"] == template
    world.kube.remove(api.POD_MONITOR, *KEY)
    world.settle()
    assert (api.POD_MONITOR, *KEY) in world.kube.objects


# --- drift ---


def _scale_to_seven(body: api.Body) -> None:
    body["spec"]["replicas"] = 7


def _change_image(body: api.Body) -> None:
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "other"


def _drop_toleration(body: api.Body) -> None:
    body["spec"]["template"]["spec"]["tolerations"] = []


def _drop_variable(body: api.Body) -> None:
    body["spec"]["template"]["spec"]["containers"][0]["env"].pop(0)


def _relabel(body: api.Body) -> None:
    body["metadata"]["labels"]["app.kubernetes.io/part-of"] = "mine"


@pytest.mark.parametrize("change", [_scale_to_seven, _change_image, _drop_toleration, _drop_variable, _relabel])
@pytest.mark.parametrize("mode", ["None", "Operator"])
def test_drift_is_repaired(world: World, change: Callable[[api.Body], None], mode: str) -> None:
    world.edit_spec(autoscaling={"mode": mode})
    world.settle()
    before = world.kube.snapshot()
    world.kube.edit(api.DEPLOYMENT, KEY, change)
    assert world.kube.snapshot()[api.DEPLOYMENT, *KEY] != before[api.DEPLOYMENT, *KEY]
    world.reconcile()
    repaired, reference = (found[api.DEPLOYMENT, *KEY] for found in (world.kube.snapshot(), before))
    for body in (repaired, reference):
        body["metadata"].pop("generation")
        variables = body["spec"]["template"]["spec"]["containers"][0]["env"]
        variables.sort(key=lambda item: item["name"])
    assert repaired == reference
    assert ("apply", "Deployment", "demo") in world.kube.writes


@pytest.mark.parametrize(("most", "number"), [(8, 6), (4, 4)])
def test_a_deployment_comes_back_with_as_many_pods(most: int, number: int) -> None:
    world = _scaled_to_six(autoscaling={"mode": "Operator"})
    assert replicas(world) == 6
    world.edit_spec(autoscaling={"mode": "Operator", "maxReplicas": most})
    world.kube.remove(api.DEPLOYMENT, *KEY)
    world.reconcile()
    assert replicas(world) == number


def test_a_rollout_that_is_undone_keeps_the_number(world: World) -> None:
    """kubectl brings the template and the annotations of an old ReplicaSet back, with a number of that time."""
    world.settle()
    old = copy.deepcopy(world.kube.at(api.DEPLOYMENT, KEY))
    assert old["spec"]["replicas"] == 1
    world.decision = decided(1, 8)
    world.reconcile()
    world.decision = None
    world.edit_spec(server={"maxBatchSize": 4})
    world.settle()
    wanted = world.kube.at(api.DEPLOYMENT, KEY)
    assert wanted["spec"]["replicas"] == 8

    def undo(body: api.Body) -> None:
        body["spec"]["template"] = old["spec"]["template"]
        body["metadata"]["annotations"] = old["metadata"]["annotations"]

    wanted = copy.deepcopy(wanted)
    world.kube.edit(api.DEPLOYMENT, KEY, undo)
    world.reconcile()
    live = world.kube.at(api.DEPLOYMENT, KEY)
    assert live["spec"] == wanted["spec"]
    assert live["metadata"]["annotations"] == wanted["metadata"]["annotations"]


@pytest.mark.parametrize("kind", api.CHILD_KINDS, ids=lambda kind: kind.kind)
def test_a_deleted_child_comes_back(kind: api.Kind) -> None:
    world = World.with_every_child()
    world.kube.remove(*world.kube.place(kind, KEY))
    for _ in range(4):
        world.reconcile()
    assert world.kube.has(kind, KEY)
    assert ("apply", kind.kind, api.child_name(kind, "demo")) in world.kube.writes


def test_foreign_fields_survive(world: World) -> None:
    world.settle()

    def restart_and_inject(body: api.Body) -> None:
        template = body["spec"]["template"]
        template["metadata"].setdefault("annotations", {})["kubectl.kubernetes.io/restartedAt"] = "now"
        template["spec"]["containers"][0]["env"].append({"name": "FOREIGN", "value": "1"})

    world.kube.edit(api.DEPLOYMENT, KEY, restart_and_inject)
    world.reconcile()
    assert [write for write in world.kube.writes if write[1] == "Deployment"] == []
    world.edit_spec(server={"maxBatchSize": 4})
    world.reconcile()
    template = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] == "now"
    assert {"name": "FOREIGN", "value": "1"} in template["spec"]["containers"][0]["env"]
    assert {"name": "CHATTTS_MAX_BATCH_SIZE", "value": "4"} in template["spec"]["containers"][0]["env"]


def test_what_the_spec_no_longer_says_goes(world: World) -> None:
    world.edit_spec(scheduling={"nodeSelector": {"gpu": "l4"}}, server={"maxBatchSize": 4})
    world.settle()
    world.edit_spec(scheduling={}, server={})
    world.reconcile()
    pod_spec = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["spec"]
    assert "nodeSelector" not in pod_spec
    assert "CHATTTS_MAX_BATCH_SIZE" not in [item["name"] for item in pod_spec["containers"][0]["env"]]


def test_a_feature_switched_off_takes_its_child_along(world: World) -> None:
    world.settle()
    world.edit_spec(monitoring={"rules": "Disabled"})
    world.reconcile()
    assert ("delete", "PrometheusRule", "demo") in world.kube.writes
    assert (api.PROMETHEUS_RULE, *KEY) not in world.kube.objects
    assert (api.POD_MONITOR, *KEY) in world.kube.objects


def test_the_read_of_a_reconcile_corrects_the_cache(world: World) -> None:
    world.settle()
    cache = world.reconciler.cache
    world.kube.put(api.POD, pod("here"))
    for name in ("here", "gone"):
        cache.saw(api.POD, pod(name), False)
    cache.saw(api.DEPLOYMENT, world.kube.at(api.DEPLOYMENT, KEY), False)
    world.reconcile()
    assert (set(cache.pods[KEY]), set(cache.deployments)) == ({"uid-here"}, {KEY})


# --- what is not ours ---


@pytest.mark.parametrize("kind", api.CHILD_KINDS, ids=lambda kind: kind.kind)
def test_a_foreign_child_is_never_touched(kind: api.Kind) -> None:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service(**EVERY_CHILD))
    foreign: api.Body = {"metadata": {"namespace": "default", "name": api.child_name(kind, "demo")}, "spec": {}}
    if kind == api.DEPLOYMENT:
        foreign["spec"] |= {"replicas": 3, "selector": {}, "template": {"metadata": {}, "spec": {"containers": []}}}
    before = copy.deepcopy(world.kube.put(kind, foreign))
    for _ in range(3):
        assert world.reconcile() is not None
    assert world.kube.at(kind, KEY) == before
    assert [write for write in world.kube.writes if write[0] != "status"] == []
    assert world.condition("Conflict")["status"] == "True"
    assert f"{kind.kind} default/{api.child_name(kind, 'demo')}" in world.condition("Conflict")["message"]
    assert world.condition("Ready")["reason"] == "Conflict"
    # The same without it: everything is made.
    world.kube.remove(*world.kube.place(kind, KEY))
    world.settle_with_download()
    assert world.condition("Conflict")["status"] == "False"
    assert all(world.kube.has(child, KEY) for child in api.CHILD_KINDS)


def test_a_foreign_child_that_appears_between_read_and_write_is_not_taken_over(world: World) -> None:
    foreign = {
        "metadata": {"namespace": "default", "name": "demo"},
        "spec": {"selector": {"app": "mine"}, "type": "NodePort"},
    }

    def appear() -> None:
        world.kube.before_write = lambda: None
        world.kube.put(api.SERVICE, foreign)

    world.kube.before_write = appear
    with pytest.raises(KubeError, match="conflict"):
        world.reconcile()
    assert world.kube.at(api.SERVICE, KEY)["spec"]["selector"] == {"app": "mine"}


def test_a_child_made_anew_between_read_and_write_is_not_overwritten(world: World) -> None:
    world.settle()
    world.edit_spec(server={"maxBatchSize": 4})

    def swap() -> None:
        world.kube.before_write = lambda: None
        body = copy.deepcopy(world.kube.at(api.DEPLOYMENT, KEY))
        world.kube.remove(api.DEPLOYMENT, *KEY)
        del body["metadata"]["uid"]
        body["metadata"]["ownerReferences"] = []
        world.kube.put(api.DEPLOYMENT, body)

    world.kube.before_write = swap
    with pytest.raises(KubeError) as caught:
        world.reconcile()
    assert caught.value.status == 422


# --- spec that cannot be used ---


def test_all_problems_at_once_and_children_left_alone(world: World) -> None:
    world.settle()
    children = {key: body for key, body in world.kube.snapshot().items() if key[0] != api.TTS_SERVICE}
    world.edit_spec(
        resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1", "nvidia.com/gpu": 1}}, server={"maxBatchSize": 8}
    )
    assert world.reconcile() is None
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.resources.requests.cpu" in ready["message"]
    assert "nvidia.com/gpu" in ready["message"]
    assert {key: body for key, body in world.kube.snapshot().items() if key[0] != api.TTS_SERVICE} == children
    world.kube.writes.clear()
    world.reconcile()
    assert world.kube.writes == []


def test_no_image_anywhere_is_a_problem_of_the_spec(world: World) -> None:
    world.defaults = OperatorDefaults(has_prometheus=True)
    world.start_operator()
    world.reconcile()
    assert "spec.image" in world.condition("Ready")["message"]


def test_paused_writes_only_status(world: World) -> None:
    world.settle()
    world.edit_spec(managementPolicy="Paused", server={"maxBatchSize": 8})
    world.kube.edit(api.DEPLOYMENT, KEY, _scale_to_seven)
    world.reconcile()
    assert {write[0] for write in world.kube.writes} == {"status"}
    assert world.condition("ScalingActive")["reason"] == "Paused"
    world.edit_spec(managementPolicy="Managed")
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"] == 1


# --- image ---


def test_the_default_image_is_fixed_at_first_sight(world: World) -> None:
    world.settle()
    template = copy.deepcopy(world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"])
    world.defaults = replace(world.defaults, server_image="registry.example/server:2")
    world.start_operator()
    world.reconcile()
    assert world.kube.writes == []
    world.kube.edit(api.TTS_SERVICE, KEY, lambda body: body.pop("status"))
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"] == template
    assert world.status()["image"] == IMAGE


def test_an_image_of_the_user_wins(world: World) -> None:
    world.settle()
    world.edit_spec(image={"repository": "mine", "digest": "sha256:" + "0" * 64})
    world.reconcile()
    container = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "mine@sha256:" + "0" * 64 == world.status()["image"]


# --- replicas ---


def test_a_decision_is_carried_out_and_told(world: World) -> None:
    world.settle()
    world.decision = decided(1, 3, p99=2.13, offered=28.4)
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"] == 3
    assert world.status()["desiredReplicas"] == 3
    scaling = world.status()["autoscaling"]
    assert (scaling["p99"], scaling["qps"], scaling["lastScaleTo"]) == ("2.1s", "28", 3)
    assert scaling["history"][0]["message"] == "p99 2.1 s"
    assert [event["message"] for event in world.kube.events if event["reason"] == "ScaledOut"] == [
        "1 -> 3 replicas: SLOBreach, p99 2.1 s"
    ]


def test_a_decision_on_another_number_is_void(world: World) -> None:
    world.settle()
    world.decision = decided(5, 2)
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"] == 1


def test_after_a_restart_the_live_number_counts(world: World) -> None:
    world.settle()
    world.decision = decided(1, 4)
    world.reconcile()
    world.decision = None
    world.start_operator()
    world.kube.edit(api.TTS_SERVICE, KEY, lambda body: body.pop("status"))
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"] == 4
    assert world.status()["desiredReplicas"] == 4


def test_bounds_hold_without_a_decision(world: World) -> None:
    world.settle()
    world.edit_spec(autoscaling={"minReplicas": 2, "maxReplicas": 3})
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"] == 2


def test_without_prometheus_the_spec_decides() -> None:
    world = World(defaults=OperatorDefaults(server_image=IMAGE))
    world.kube.put(api.TTS_SERVICE, tts_service(replicas=3))
    world.decision = decided(3, 8)
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"] == 3
    assert world.condition("ScalingActive")["reason"] == "NoPrometheus"


def _scaled_to_six(**spec: Any) -> World:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service(**spec))
    world.settle()
    world.decision = decided(1, 6)
    world.reconcile()
    world.decision = None
    world.kube.events.clear()
    return world


def replicas(world: World) -> int:
    return int(world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"])


@pytest.mark.parametrize("given", [1, 3])
def test_losing_prometheus_ends_no_pod(given: int) -> None:
    world = _scaled_to_six(replicas=given)
    world.defaults = replace(world.defaults, has_prometheus=False)
    world.start_operator()
    for _ in range(3):
        world.reconcile()
        assert replicas(world) == 6
    assert [event["reason"] for event in world.kube.events] == ["ReplicasHeld"]
    assert "kubectl scale tts/demo --replicas=6" in world.condition("ScalingActive")["message"]
    world.edit_spec(replicas=2)
    for _ in range(2):
        world.reconcile()
        assert replicas(world) == 2
    world.edit_spec(replicas=1)
    world.reconcile()
    assert (replicas(world), world.condition("ScalingActive")["reason"]) == (1, "NoPrometheus")


@pytest.mark.parametrize("mode", ["None", "KEDA"])
@pytest.mark.parametrize("ignored", [1, 3])
def test_leaving_mode_operator_ends_no_pod(mode: str, ignored: int) -> None:
    """`ignored`: what has stood in spec.replicas all the time."""
    world = _scaled_to_six(replicas=ignored)
    world.edit_spec(autoscaling={"mode": mode})
    for _ in range(3):
        world.reconcile()
        assert replicas(world) == 6
    world.edit_spec(server={"maxBatchSize": 4})
    world.reconcile()
    assert replicas(world) == 6
    world.edit_spec(autoscaling={"mode": "Operator"})
    world.reconcile()
    assert (replicas(world), world.status()["autoscaling"]["mode"]) == (6, "Operator")
    world.edit_spec(autoscaling={"mode": mode}, replicas=4)
    world.reconcile()
    assert (replicas(world), world.status()["autoscaling"]["mode"]) == (4, mode)


def test_what_the_scaler_remembers_survives_a_restart_without_decision(world: World) -> None:
    world.settle()
    state = State(learned_qps=20.25, hold_until=1_800_000_500.0)
    world.decision = Decision(1, 1, "WithinTarget", "", state, Metrics(p99=0.5, offered=3.0))
    world.reconcile()
    before = world.status()["autoscaling"]
    assert before["learnedQpsPerReplica"] == "20.2"
    world.decision = None
    world.start_operator()
    world.reconcile()
    assert world.status()["autoscaling"] == before


# --- status ---


def test_numbers_are_written_once_a_minute(world: World) -> None:
    world.settle()

    def show(p99: float) -> str:
        world.decision = Decision(1, 1, "WithinTarget", "", State(), Metrics(p99=p99, offered=5.0))
        world.reconcile()
        return str(world.status()["autoscaling"].get("p99"))

    assert show(0.812) == "0.81s"
    world.now += 30
    assert show(0.5) == "0.81s"
    world.now += 31
    assert show(0.5) == "0.5s"
    world.kube.writes.clear()
    world.now += 61
    assert show(0.501) == "0.5s"
    assert world.kube.writes == []


def test_withheld_numbers_come_back_and_a_reason_is_shown_at_once(world: World) -> None:
    world.settle()

    def decide(reason: str, p99: float) -> float | None:
        world.decision = Decision(1, 1, reason, f"p99 {p99} s", State(), Metrics(p99=p99, offered=5.0))
        return world.reconcile()

    assert decide("WithinTarget", 0.5) is None
    world.now += 20
    assert decide("WithinTarget", 0.9) == 40
    assert world.status()["autoscaling"]["p99"] == "0.5s"
    world.now += 40
    assert world.reconcile() is None
    assert world.status()["autoscaling"]["p99"] == "0.9s"
    world.now += 1
    assert decide("OverTarget", 2.0) is None
    shown = world.status()["autoscaling"]
    assert (shown["reason"], shown["message"], shown["p99"]) == ("OverTarget", "p99 2.0 s", "2s")


def test_what_others_put_into_status_is_left_alone(world: World) -> None:
    world.settle()
    foreign = {"type": "Foreign", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t"}

    def intrude(body: api.Body) -> None:
        body["status"]["theirs"] = 1
        body["status"]["autoscaling"]["theirs"] = 2
        body["status"]["conditions"].append(foreign)

    world.kube.edit(api.TTS_SERVICE, KEY, intrude)
    for _ in range(3):
        world.reconcile()
    assert world.kube.writes == []
    world.edit_spec(server={"maxBatchSize": 4})
    world.reconcile()
    assert ("status", "TTSService", "demo") in world.kube.writes
    assert (world.status()["theirs"], world.status()["autoscaling"]["theirs"]) == (1, 2)
    assert foreign in world.status()["conditions"]


def test_scaling_conditions_stay_until_the_first_decision_after_a_restart(world: World) -> None:
    world.settle()
    assert world.condition("ScalingActive")["reason"] == "NoDecisionYet"
    world.decision = replace(decided(1, 1), limited="AtMaxReplicas")
    world.reconcile()
    before = [world.condition(name) for name in ("ScalingActive", "ScalingLimited", "ScalingEffective")]
    assert before[1]["status"] == "True"
    world.decision = None
    world.start_operator()
    world.kube.writes.clear()
    world.now += 100
    world.reconcile()
    assert world.kube.writes == []
    assert [world.condition(item["type"]) for item in before] == before
    world.edit_spec(autoscaling={"mode": "None"})
    world.reconcile()
    assert world.condition("ScalingActive")["reason"] == "ReplicasHeld"


def test_pods_that_are_slow_alone_are_said_by_scaling_effective(world: World) -> None:
    """More pods would not help; no limit was met, so ScalingLimited says nothing of it."""
    world.settle()
    world.pods_are(1, ready=1)
    world.decision = decided(1, 1, reason="OverTarget")
    world.reconcile()
    assert world.condition("ScalingEffective")["reason"] == "NoStepYet"
    world.decision = decided(1, 1, reason="ComputeBound")
    world.reconcile()
    effective, limited = world.condition("ScalingEffective"), world.condition("ScalingLimited")
    assert (effective["status"], effective["reason"]) == ("False", "ComputeBound")
    assert (limited["status"], limited["reason"]) == ("False", "DesiredWithinRange")
    assert world.status()["reason"] == "ComputeBound"


def test_a_refused_change_is_no_event(world: World) -> None:
    world.settle()
    world.decision = decided(1, 3)
    world.kube.refuse = lambda verb, kind: (
        KubeError(403, "exceeded quota") if (verb, kind) == ("apply", api.DEPLOYMENT) else None
    )
    with pytest.raises(KubeError, match="quota"):
        world.reconcile()
    assert [event["reason"] for event in world.kube.events] == ["ApplyFailed"]
    world.kube.refuse = lambda verb, kind: None
    world.reconcile()
    assert [event["reason"] for event in world.kube.events] == ["ApplyFailed", "ScaledOut"]


def test_fields_without_effect_stay_told(world: World) -> None:
    world.edit_spec(autoscaling={"idle": {"activator": "External"}})
    world.settle()
    assert "does not act upon: autoscaling.idle" in world.condition("Ready")["message"]
    world.edit_spec(autoscaling={})
    world.reconcile()
    assert "act upon" not in world.condition("Ready")["message"]


def test_transition_times_move_only_with_the_status(world: World) -> None:
    world.settle()
    first = world.condition("Ready")
    world.now += 100
    world.kube.edit(api.DEPLOYMENT, KEY, lambda body: body.update(status={"replicas": 1}))
    world.kube.put(api.POD, pod("a", unschedulable="0/1 nodes are available: 1 Insufficient nvidia.com/gpu."))
    world.reconcile()
    ready, capacity = world.condition("Ready"), world.condition("CapacityAvailable")
    assert (first["reason"], ready["reason"]) == ("Starting", "Unschedulable")
    assert ready["lastTransitionTime"] == first["lastTransitionTime"]
    assert capacity["status"] == "False"
    assert "0/1 nodes are available: 1 Insufficient nvidia.com/gpu." in capacity["message"]
    assert capacity["lastTransitionTime"] > first["lastTransitionTime"]
    assert world.status()["reason"] == "Unschedulable"


def test_ready_when_a_pod_is(world: World) -> None:
    world.settle()
    generation = world.kube.at(api.DEPLOYMENT, KEY)["metadata"]["generation"]
    live = {"observedGeneration": generation, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}
    world.kube.edit(api.DEPLOYMENT, KEY, lambda body: body.update(status=live))
    world.reconcile()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Progressing")["reason"] == "Complete"
    assert world.status()["readyReplicas"] == 1


# --- errors and crashes ---


def test_pods_that_a_quota_refuses_are_no_pods_on_their_way(world: World) -> None:
    world.settle()
    world.kube.put(api.POD, pod("a", scheduled_at="2026-01-01T00:00:00Z"))
    world.reconcile()
    assert world.condition("CapacityAvailable")["reason"] == "AllPlaced"
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "demo-x" is forbidden: exceeded quota: gpus',
        "lastTransitionTime": "2026-01-01T00:00:05Z",
    }

    world.decision = decided(1, 3)
    world.reconcile()
    world.kube.edit(api.DEPLOYMENT, KEY, lambda body: body.update(status={"conditions": [failure]}))
    world.reconcile()
    capacity = world.condition("CapacityAvailable")
    assert (capacity["status"], capacity["reason"]) == ("False", "PodsRefused")
    said = "2 pods are refused by the API server (since 2026-01-01T00:00:05Z): "
    assert capacity["message"] == said + failure["message"]


def test_a_refusal_is_told_and_tried_again(world: World) -> None:
    world.kube.refuse = lambda verb, kind: (
        KubeError(403, "exceeded quota") if (verb, kind) == ("apply", api.DEPLOYMENT) else None
    )
    with pytest.raises(KubeError, match="quota"):
        world.reconcile()
    assert world.condition("Progressing")["reason"] == "ApplyFailed"
    assert "quota" in world.condition("Ready")["message"]
    assert world.status()["selector"]
    world.kube.refuse = lambda verb, kind: None
    world.reconcile()
    assert world.condition("Progressing")["reason"] != "ApplyFailed"


def test_a_field_that_the_server_drops_is_told_and_not_fought(world: World) -> None:
    """As ImageVolume on a cluster whose feature gate is off: the object is accepted, the field is not there."""

    def drop(kind: api.Kind, body: api.Body) -> None:
        if kind == api.DEPLOYMENT:
            body["spec"]["template"]["spec"]["volumes"][0].pop("persistentVolumeClaim", None)

    world.kube.drop = drop
    world.settle()
    for _ in range(5):
        world.reconcile()
    assert world.kube.writes == []
    assert "persistentVolumeClaim" in world.condition("Progressing")["message"]
    world.kube.edit(api.DEPLOYMENT, KEY, _change_image)  # other drift is still repaired
    world.reconcile()
    assert [write for write in world.kube.writes if write[1] == "Deployment"] == [("apply", "Deployment", "demo")]
    world.kube.drop = lambda kind, body: None
    world.edit_spec(server={"maxBatchSize": 2})
    world.reconcile()
    assert world.condition("Progressing")["reason"] != "ApplyFailed"


def test_a_lost_event_does_not_fail_a_reconcile(world: World) -> None:
    world.settle()
    world.kube.refuse = lambda verb, kind: KubeError(403, "no events") if verb == "create" else None
    world.decision = decided(1, 2)
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"] == 2


def test_killed_between_any_two_writes_it_converges() -> None:
    def life(crash_at: int | None) -> tuple[World, int]:
        world = World()
        world.kube.put(api.TTS_SERVICE, tts_service())
        world.kube.crash_at = crash_at
        steps: list[Callable[[], None]] = [
            lambda: None,
            lambda: setattr(world, "decision", decided(1, 3, p99=2.0, offered=28.0)),
            lambda: world.edit_spec(monitoring={"rules": "Disabled"}, server={"maxBatchSize": 4}),
        ]
        for step in steps:
            step()
            try:
                world.reconcile()
            except Crash:
                world.kube.crash_at = None
                world.start_operator()
            for _ in range(3):
                world.now += 61
                world.reconcile()
        return world, len(world.kube.writes)

    reference, count = life(None)
    assert count >= 9
    for crash_at in range(count):  # before each write is also after the one before it
        world, _ = life(crash_at)
        assert world.kube.crash_at is None, "it was never killed"
        assert world.kube.snapshot().keys() == reference.kube.snapshot().keys(), crash_at
        for key, body in world.kube.snapshot().items():
            body["metadata"].pop("generation")
            expected = reference.kube.snapshot()[key]
            expected["metadata"].pop("generation")
            assert body == expected, crash_at


# --- deletion ---


def test_deletion_needs_nobody(world: World) -> None:
    world.settle()
    assert "finalizers" not in world.kube.at(api.TTS_SERVICE, KEY)["metadata"]
    world.kube.remove(api.TTS_SERVICE, *KEY)
    world.kube.collect_garbage()
    assert world.kube.snapshot() == {}
    world.reconcile()
    assert world.kube.writes == []


def test_nothing_is_made_for_a_service_that_is_being_deleted(world: World) -> None:
    world.settle()
    world.kube.edit(api.TTS_SERVICE, KEY, lambda body: body["metadata"].update(deletionTimestamp="now"))
    world.kube.remove(api.DEPLOYMENT, *KEY)
    world.reconcile()
    assert world.kube.writes == []


def test_made_anew_under_its_old_name(world: World) -> None:
    """The children of the old one are not ours: they wait for the garbage collector, then ours are made."""
    world.settle()
    world.kube.remove(api.TTS_SERVICE, *KEY)
    world.kube.put(api.TTS_SERVICE, tts_service(uid="uid-new"))
    assert world.reconcile() is not None
    assert [write for write in world.kube.writes if write[0] != "status"] == []
    world.kube.collect_garbage()
    world.reconcile()
    assert world.kube.at(api.DEPLOYMENT, KEY)["metadata"]["ownerReferences"][0]["uid"] == "uid-new"
