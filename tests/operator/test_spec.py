"""A body becomes a spec, or all its problems at once; and the CRD says the same as spec.py."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from chattts_operator.spec import InvalidSpec, OperatorDefaults, parse
from tests.operator.fakes import tts_service

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
    spec = parse(
        tts_service(voices={"claimName": "v"}, podTemplateOverlay={"spec": {}}, server={"enginesPerPod": 2}),
        OperatorDefaults(),
    )
    assert spec.ignored == ("server.enginesPerPod", "voices", "podTemplateOverlay")
    assert parse(with_defaults(tts_service()), OperatorDefaults()).ignored == ()


@pytest.mark.parametrize(
    ("section", "value", "field"),
    [
        ("disruption", {"maxUnavailable": 2}, "disruption.maxUnavailable"),
        ("rollout", {"capacityWaitSeconds": 10}, "rollout.capacityWaitSeconds"),
        ("image", {"cudaVersion": "13.0"}, "image.cudaVersion"),
        ("accelerator", {"minDriverVersion": "580"}, "accelerator.minDriverVersion"),
    ],
)
def test_each_field_without_effect(section: str, value: dict[str, Any], field: str) -> None:
    assert parse(tts_service(**{section: value}), OperatorDefaults()).ignored == (field,)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"server": {"apiKeysSecretRef": {"name": "keys"}}}, "spec.server.apiKeysSecretRef"),
        ({"networking": {"networkPolicy": {"mode": "Restricted"}}}, "spec.networking.networkPolicy.mode"),
    ],
)
def test_a_protection_that_is_not_there_is_refused(spec: dict[str, Any], field: str) -> None:
    (problem,) = problems(**spec)
    assert problem.startswith(field)
    assert problem.endswith("this version yet; remove the field")


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
