"""Every sample is a TTSService that the API server would take: checked against the CRD's own schema, strictly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.conftest import CHART, ROOT

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
REPEATED = "a key twice"


class StrictLoader(yaml.SafeLoader):
    """Refuses a mapping that names a key twice, as kubectl does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(keys)) != len(keys):
            raise ValueError(f"{REPEATED}: {keys}")
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    return body


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    crd = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
    return jsonschema.Draft7Validator(strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))


def strict(schema: dict[str, Any], *, root: bool = True) -> dict[str, Any]:
    """The schema with unknown fields refused, as `kubectl apply` refuses them."""
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: strict(child, root=False) for name, child in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        made["items"] = strict(schema["items"], root=False)
    if root:
        made["properties"]["metadata"] = {"type": "object", "required": ["name"]}  # the API server's own schema
    return made


def problems(validator: jsonschema.Draft7Validator, body: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_the_crd_takes_it(path: Path, validator: jsonschema.Draft7Validator) -> None:
    body = read(path)
    assert (body["apiVersion"], body["kind"]) == ("chattts.dev/v1alpha1", "TTSService")
    assert problems(validator, body) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"replica": 1}, "$.spec: Additional properties are not allowed ('replica' was unexpected)"),
        ({"server": {"device": "cpu"}}, "$.spec.server.device: 'cpu' is not one of"),
        ({"replicas": "1"}, "$.spec.replicas: '1' is not of type 'integer'"),
    ],
)
def test_the_same_check_refuses_a_mistake(
    change: dict[str, Any], problem: str, validator: jsonschema.Draft7Validator
) -> None:
    body = read(ROOT / "manifests" / "samples" / "minimal.yaml")
    body["spec"] |= change
    assert problem in "\n".join(problems(validator, body))


def test_there_are_these_samples() -> None:
    assert {path.name for path in SAMPLES} >= {"minimal.yaml", "demo.yaml", "huggingface.yaml", "hostpath-dev.yaml"}


def test_every_field_is_in_a_sample_or_said_why_not() -> None:
    """Autoscaling is shown by its own samples; the rest here is the plain default or excluded by another field."""
    crd = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    used: set[str] = set()
    for path in SAMPLES:
        used |= set(_used(read(path)["spec"]))
    sections = {f"{name}" for name in spec["properties"]}
    unused = {path for path, _ in _walk(spec) if path not in used and path.split(".")[0] in sections - {"autoscaling"}}
    assert unused == {
        "replicas",
        "image.digest",
        "image.pullPolicy",
        "image.pullSecrets",
        "model.cache.hostPath",
        "model.path",
        "monitoring.rules",
        "rollout.capacityWaitSeconds",
        "server.enginesPerPod",
        "server.maxQueueWaitMilliseconds",
        "accelerator.sharedMemory",
    }


def test_the_smallest_has_at_most_eight_lines_and_is_in_the_notes() -> None:
    text = (ROOT / "manifests" / "samples" / "minimal.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 8
    notes = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    assert all(line.strip() in notes for line in text.splitlines())


def test_the_demo_says_openly_that_it_computes_on_the_cpu() -> None:
    path = ROOT / "manifests" / "samples" / "demo.yaml"
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    spec = read(path)["spec"]
    assert spec["server"]["device"] == "CPU"
    assert spec["accelerator"] == {"resourceName": "nvidia.com/gpu", "count": 1}
    assert "computes on the\n# CPU" in "\n".join(comments) or "computes on the CPU" in " ".join(comments)
    assert spec["autoscaling"]["scaleUp"]["sustainedSeconds"] == 120
    assert spec["resources"]["requests"]["cpu"] == spec["resources"]["limits"]["cpu"] == "500m"


def test_a_downloaded_model_is_pinned_and_its_licence_accepted() -> None:
    downloading = [read(path)["spec"]["model"] for path in SAMPLES if _source(path) == "HuggingFace"]
    assert downloading
    assert all(len(model["revision"]) == 40 and model["acceptLicense"] == "CC-BY-NC-4.0" for model in downloading)


def test_defaults_of_the_demo_that_are_written_out_are_the_defaults() -> None:
    """Where the demo says that a number is the default, it is."""
    crd = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    autoscaling = dict(_walk(spec["properties"]["autoscaling"]))
    assert autoscaling["scaleUp.sustainedSeconds"] == 120
    assert autoscaling["targets.p99Milliseconds"] == 1200
    assert autoscaling["scaleDown.stabilizationSeconds"] == 300


def _source(path: Path) -> str:
    return str(read(path)["spec"]["model"].get("source", "HuggingFace"))


def _used(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, child in value.items():
        yield f"{prefix}{name}"
        if isinstance(child, dict):
            yield from _used(child, f"{prefix}{name}.")


def _walk(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in schema["properties"].items():
        yield f"{prefix}{name}", child.get("default")
        if "properties" in child:
            yield from _walk(child, f"{prefix}{name}.")
