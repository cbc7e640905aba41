"""A body becomes a spec, or all its problems at once; and the CRD says the same as spec.py."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from chattts_operator import across
from chattts_operator.spec import InvalidSpec, OperatorDefaults, parse
from tests.operator.fakes import tts_service
from tests.operator.world import EVERY_CHILD, REVISION

CRD = yaml.safe_load((Path(__file__).parents[2] / "manifests" / "crd.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def problems(**spec: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidSpec) as caught:
        parse(tts_service(**spec), OperatorDefaults(has_prometheus=True))
    return caught.value.problems


def test_all_problems_at_once() -> None:
    found = problems(
        model={"source": "HuggingFace"},
        resources={"requests": {"cpu": "2", "memory": "lots"}, "limits": {"cpu": "1000m", "memory": "1Gi"}},
        autoscaling={"minReplicas": 9, "targets": {"qpsPerReplica": "-1"}, "hold": {"until": "tomorrow"}},
        server={"device": "TPU", "maxBatchSize": 0},
        networking={"service": {"port": True}},
        scheduling=[],
    )
    text = "\n".join(found)
    for field in (
        "spec.model.revision",
        "spec.model.acceptLicense",
        "spec.resources.requests.cpu",
        "'lots'",
        "spec.autoscaling.minReplicas",
        "spec.autoscaling.targets.qpsPerReplica",
        "spec.autoscaling.hold.until",
        "spec.server.device",
        "spec.server.maxBatchSize",
        "spec.networking.service.port",
        "spec.scheduling",
    ):
        assert field in text
    assert len(found) == 11


@pytest.mark.parametrize(
    "spec",
    [
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        {"resources": {"requests": {"nvidia.com/gpu": 1}}},
        {"monitoring": {"intervalSeconds": 30}},
        {"image": {"repository": "r"}},
        {"server": {"keyAudioSecondsPerMinute": 60}},
        {"model": {"source": "HostPath"}},
        {"resources": {"requests": {"cpu": "1e1000000"}, "limits": {"cpu": "1"}}},
    ],
)
def test_single_problems(spec: dict[str, Any]) -> None:
    assert len(problems(**spec)) == 1


def test_mode_follows_the_operators_prometheus_unless_the_user_says() -> None:
    def mode(has_prometheus: bool, **autoscaling: Any) -> str:
        return parse(tts_service(autoscaling=autoscaling), OperatorDefaults(has_prometheus)).autoscaling.mode

    assert (mode(True), mode(False)) == ("Operator", "None")
    assert (mode(True, mode="None"), mode(False, mode="Operator")) == ("None", "Operator")


ONE_NODE = {**EVERY_CHILD["model"], "cache": {"type": "PersistentVolumeClaim", "accessMode": "ReadWriteOnce"}}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"replicas": 12}, "spec.replicas 12 is not within 1 to 8"),
        ({"replicas": 0}, "spec.replicas 0 is not within 1 to 8"),
        ({"monitoring": {"intervalSeconds": 30}}, "spec.monitoring.intervalSeconds must be at most 15"),
        ({"model": ONE_NODE}, "ReadWriteOnce"),
    ],
)
def test_a_prometheus_that_comes_later_spoils_no_service(spec: dict[str, Any], why: str) -> None:
    body = {**tts_service(**spec), "status": {"autoscaling": {"mode": "None"}}}
    kept = parse(body, OperatorDefaults(True)).autoscaling
    assert kept.mode == "None"
    assert why in kept.why_none
    fitting = parse({**tts_service(replicas=3), "status": body["status"]}, OperatorDefaults(True)).autoscaling
    assert (fitting.mode, fitting.why_none) == ("Operator", "")


def test_a_service_that_was_operated_and_one_that_names_its_mode_are_not_kept() -> None:
    for body in (
        {**tts_service(replicas=12), "status": {"autoscaling": {"mode": "Operator"}}},
        {**tts_service(replicas=12, autoscaling={"mode": "Operator"}), "status": {"autoscaling": {"mode": "None"}}},
    ):
        assert parse(body, OperatorDefaults(True)).autoscaling.mode == "Operator"


def test_interval_is_free_where_we_do_not_decide() -> None:
    spec = tts_service(monitoring={"intervalSeconds": 30}, autoscaling={"mode": "KEDA"})
    assert parse(spec, OperatorDefaults(True)).monitoring.interval_seconds == 30


def test_the_gpu_toleration_is_there_once() -> None:
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    other = {"key": "spot", "operator": "Exists"}
    assert parse(tts_service(), OperatorDefaults()).scheduling.tolerations == (gpu,)
    both = tts_service(scheduling={"tolerations": [other, gpu]})
    assert parse(both, OperatorDefaults()).scheduling.tolerations == (other, gpu)


def test_fields_without_effect_are_named() -> None:
    spec = parse(tts_service(autoscaling={"idle": {"activator": "External"}}), OperatorDefaults())
    assert spec.ignored == ("autoscaling.idle",)
    assert parse(with_defaults(tts_service()), OperatorDefaults()).ignored == ()


DOWNLOADED = {"source": "HuggingFace", "revision": REVISION, "acceptLicense": "CC-BY-NC-4.0"}
ONE_NODE = {**DOWNLOADED, "cache": {"type": "PersistentVolumeClaim", "accessMode": "ReadWriteOnce"}}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"server": {"enginesPerPod": 2}}, "spec.server.enginesPerPod must be 1"),
        ({"server": {"device": "CPU", "dtype": "float16"}}, "spec.server.dtype float16 is for CUDA"),
        ({"server": {"dtype": "int8"}}, "spec.server.dtype int8 is for device CPU"),
        ({"accelerator": {"vendor": "None"}}, "spec.server.device must be CPU"),
        ({"accelerator": {"vendor": "None", "resourceName": "a/b"}, "server": {"device": "CPU"}}, "asks for no GPU"),
        ({"accelerator": {"resourceName": "a/b", "resourceClaimTemplateName": "t"}}, "exclude each other"),
        ({"accelerator": {"count": 2, "resourceClaimTemplateName": "t"}}, "is said by the ResourceClaimTemplate"),
        ({"voices": {"claimName": "a", "configMapRef": {"name": "b"}}}, "exclude each other"),
        ({"networking": {"networkPolicy": {"egressTo": [{"podSelector": {}}]}}}, "only read with networkPolicy.mode"),
        ({"model": {"source": "HostPath", "hostPath": "/m", "endpoint": "https://m"}}, "only read with model.source"),
        ({"model": {**DOWNLOADED, "endpoint": "https://m:99999"}}, "must be the address of a hub"),
        ({"model": {**DOWNLOADED, "cache": {"type": "HostPath"}}}, "spec.model.cache.hostPath is needed"),
        ({"model": {**DOWNLOADED, "cache": {"hostPath": "/c"}}}, "is only read with model.cache.type HostPath"),
        (
            {"model": {"source": "HostPath", "hostPath": "/m", "cache": {"type": "PersistentVolumeClaim"}}},
            "remove model",
        ),
        ({"model": ONE_NODE}, "set autoscaling.maxReplicas to 1"),
        ({"model": ONE_NODE, "autoscaling": {"mode": "None"}, "replicas": 2}, "set replicas to 1"),
        (
            {"model": ONE_NODE, "autoscaling": {"maxReplicas": 1}, "rollout": {"capacityPolicy": "Surge"}},
            "Surge runs two pods at once",
        ),
    ],
)
def test_what_excludes_each_other_is_refused_with_a_sentence(spec: dict[str, Any], sentence: str) -> None:
    (problem,) = problems(**spec)
    assert problem.startswith("spec.")
    assert sentence in problem


def test_one_node_is_enough_for_one_replica() -> None:
    parse(tts_service(model=ONE_NODE, autoscaling={"maxReplicas": 1}), OperatorDefaults(True))
    parse(tts_service(model=ONE_NODE, autoscaling={"mode": "None"}), OperatorDefaults(True))


def test_images_come_from_the_registries_of_the_operator() -> None:
    overlay = {"spec": {"containers": [{"name": "side", "image": "evil.example/x:1"}]}}
    body = tts_service(image={"repository": "ours.example/server", "tag": "1"}, podTemplateOverlay=overlay)
    parse(body, OperatorDefaults())
    with pytest.raises(InvalidSpec) as caught:
        parse(body, OperatorDefaults(image_registries=("ours.example/",)))
    assert caught.value.problems == (
        "spec.podTemplateOverlay.spec.containers[side].image must begin with one of ours.example/ "
        "(the operator's list of registries)",
    )


@pytest.mark.parametrize("prefix", ["ours.example", "ours.example/"])
@pytest.mark.parametrize(
    ("host", "taken"), [("ours.example", True), ("ours.example.evil.io", False), ("ours.example:5000", False)]
)
def test_a_registry_is_a_whole_name(prefix: str, host: str, taken: bool) -> None:
    overlay = {"spec": {"volumes": [{"name": "data", "image": {"reference": f"{host}/data:1"}}]}}
    body = tts_service(image={"repository": f"{host}/server", "tag": "1"}, podTemplateOverlay=overlay)
    found: tuple[str, ...] = ()
    try:
        parse(body, OperatorDefaults(image_registries=(prefix,)))
    except InvalidSpec as error:
        found = error.problems
    fields = ["spec.image.repository", "spec.podTemplateOverlay.spec.volumes[data].image.reference"]
    assert [problem.split()[0] for problem in found] == ([] if taken else fields)


@pytest.mark.parametrize(("tag", "taken"), [(":1", True), ("@sha256:0", True), ("-other:1", False), ("/more:1", True)])
def test_an_allowed_name_may_be_a_whole_repository(tag: str, taken: bool) -> None:
    assert across._within(f"ours.example/team/server{tag}", "ours.example/team/server") == taken


def test_variables_of_the_operator_are_refused_as_by_the_crd() -> None:
    extra = [{"name": "CHATTTS_LOG_FORMAT", "value": "text"}, {"name": "TZ", "value": "UTC"}]
    assert len(parse(tts_service(server={"extraEnv": extra}), OperatorDefaults()).server.extra_env) == 2
    (problem,) = problems(server={"extraEnv": [*extra, {"name": "CHATTTS_DEVICE", "value": "cpu"}]})
    assert problem.startswith("spec.server.extraEnv[CHATTTS_DEVICE] is set by the operator")


# --- the CRD ---


def with_defaults(body: dict[str, Any]) -> dict[str, Any]:
    """What the API server makes of a body."""

    def fill(schema: dict[str, Any], value: Any) -> Any:
        for name, field in schema.get("properties", {}).items():
            if name not in value and "default" in field:
                value[name] = copy.deepcopy(field["default"])
            if isinstance(value.get(name), dict):
                fill(field, value[name])
        return value

    return {**body, "spec": fill(SCHEMA["properties"]["spec"], copy.deepcopy(body["spec"]))}


def test_defaults_of_the_crd_are_those_of_the_code() -> None:
    for prometheus in (False, True):
        defaults = OperatorDefaults(prometheus)
        assert parse(with_defaults(tts_service()), defaults) == parse(tts_service(), defaults)


def test_every_field_has_a_description() -> None:
    without: list[str] = []

    def walk(schema: dict[str, Any], path: str) -> None:
        if path and "description" not in schema:
            without.append(path)
        for name, field in schema.get("properties", {}).items():
            walk(field, f"{path}.{name}")
        for name, field in (schema.get("items") or {}).get("properties", {}).items():
            walk(field, f"{path}[].{name}")

    walk(SCHEMA, "")
    assert without == [".metadata"]


def test_no_text_was_cut_at_a_comma() -> None:
    """In `{description: a, b}` YAML reads a key `b` without a value."""

    def empty(node: Any) -> list[Any]:
        if isinstance(node, list):
            return [key for item in node for key in empty(item)]
        if not isinstance(node, dict):
            return []
        return [key for key, item in node.items() if item is None] + [k for item in node.values() for k in empty(item)]

    assert empty(CRD) == []


def test_every_rule_has_a_sentence() -> None:
    def rules(node: Any) -> list[dict[str, str]]:
        if isinstance(node, list):
            return [rule for item in node for rule in rules(item)]
        if not isinstance(node, dict):
            return []
        return node.get("x-kubernetes-validations", []) + [rule for item in node.values() for rule in rules(item)]

    found = rules(SCHEMA)
    assert len(found) >= 15
    assert all(len(rule["message"]) > 20 for rule in found)


def test_columns_tell_the_story() -> None:
    columns = [
        column["name"]
        for column in CRD["spec"]["versions"][0]["additionalPrinterColumns"]
        if not column.get("priority")
    ]
    assert columns == ["Ready", "Replicas", "Desired", "P99", "QPS", "Reason", "Age"]
