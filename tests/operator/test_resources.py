"""The children, compared with golden files. `UPDATE_GOLDEN=1 pytest tests/operator/test_resources.py` writes them anew.

A change of a pod template in a golden file means: on an operator upgrade every GPU pod of every user restarts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import chattts_operator
from chattts_operator import api
from chattts_operator.resources.deployment import deployment
from chattts_operator.resources.monitoring import pod_monitor, prometheus_rule
from chattts_operator.resources.service import service, url
from chattts_operator.spec import OperatorDefaults, TTSServiceSpec, parse
from tests.operator.fakes import tts_service

GOLDEN = Path(__file__).parent / "golden"
IMAGE = "registry.example/chattts-server:1"
REVISION = "0123456789abcdef0123456789abcdef01234567"

SPECS: dict[str, dict[str, Any]] = {
    "minimal": {},
    "demo": {
        "server": {"device": "CPU"},
        "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}},
    },
    "huggingface": {
        "model": {
            "source": "HuggingFace",
            "revision": REVISION,
            "acceptLicense": "CC-BY-NC-4.0",
            "cache": {"size": "5Gi"},
        },
        "server": {"extraEnv": [{"name": "HF_ENDPOINT", "value": "https://mirror.example"}]},
    },
    "everything": {
        "image": {
            "repository": "registry.example/mine",
            "tag": "2",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "registry"}],
        },
        "model": {"source": "PersistentVolumeClaim", "claimName": "weights", "path": "chattts"},
        "server": {
            "device": "CUDA",
            "maxBatchSize": 32,
            "maxQueueWaitMilliseconds": 4000,
            "requestTimeoutSeconds": 20,
            "dtype": "float16",
            "extraEnv": [{"name": "CHATTTS_LOG_FORMAT", "value": "text"}],
        },
        "accelerator": {"resourceName": "nvidia.com/mig-1g.10gb", "count": 2, "sharedMemory": "2Gi"},
        "resources": {"requests": {"cpu": 4, "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
        "scheduling": {
            "nodeSelector": {"gpu": "l4"},
            "tolerations": [{"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "priorityClassName": "speech",
            "runtimeClassName": "nvidia",
            "schedulerName": "volcano",
        },
        "rollout": {"capacityPolicy": "Recreate", "startupDeadlineSeconds": 604, "drainSeconds": 100},
        "autoscaling": {
            "targets": {"p99Milliseconds": 2000, "sloMaxAudioSeconds": 30, "latencySignal": "FirstAudio"},
            "scaleUp": {"sustainedSeconds": 60, "minSamples": 10},
        },
        "networking": {"service": {"type": "LoadBalancer", "port": 8080, "annotations": {"lb": "internal"}}},
        "monitoring": {"labels": {"team": "speech"}, "intervalSeconds": 5},
    },
    "image-volume": {"model": {"source": "ImageVolume", "image": "registry.example/weights:1"}},
    "no-gpu": {"model": {"source": "HostPath", "hostPath": "/models"}, "accelerator": {"vendor": "None"}},
}


def spec_of(name: str) -> TTSServiceSpec:
    defaults = OperatorDefaults(has_prometheus=True, monitoring_labels={"release": "prometheus"})
    return parse(tts_service(**SPECS[name]), defaults)


@pytest.mark.parametrize("name", SPECS)
def test_golden(name: str) -> None:
    spec = spec_of(name)
    image = spec.image.reference or IMAGE
    children = [deployment(spec, 2, image, False), service(spec), pod_monitor(spec), prometheus_rule(spec)]
    file = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump_all(children, sort_keys=False, width=200)
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs: UPDATE_GOLDEN=1 writes it anew, and git shows what changes"


def test_nothing_of_the_operator_stands_in_the_pod_template(monkeypatch: pytest.MonkeyPatch) -> None:
    before = deployment(spec_of("everything"), 2, IMAGE, True)["spec"]["template"]
    monkeypatch.setattr(chattts_operator, "__version__", "99.0.0")
    after = deployment(spec_of("everything"), 5, IMAGE, True)["spec"]["template"]
    assert after == before
    text = yaml.safe_dump(after)
    assert "99.0.0" not in text
    assert api.ANNOTATION_INTENT not in text
    assert "uid-demo" not in text


@pytest.mark.parametrize(
    ("policy", "replicas", "surge", "unavailable"),
    [("Auto", 1, 1, 0), ("Auto", 2, 0, 1), ("Surge", 3, 1, 0), ("Replace", 1, 0, 1)],
)
def test_rollout_strategy(policy: str, replicas: int, surge: int, unavailable: int) -> None:
    spec = parse(tts_service(rollout={"capacityPolicy": policy}), OperatorDefaults())
    strategy = deployment(spec, replicas, IMAGE, False)["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": surge, "maxUnavailable": unavailable}


@pytest.mark.parametrize("drain", [0, 40, 3600])
def test_a_pod_has_time_to_leave(drain: int) -> None:
    spec = parse(tts_service(rollout={"drainSeconds": drain}, server={"requestTimeoutSeconds": 1}), OperatorDefaults())
    pod = deployment(spec, 1, IMAGE, False)["spec"]["template"]["spec"]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleep + drain


@pytest.mark.parametrize("deadline", [30, 601, 900])
def test_the_startup_probe_covers_the_cold_start(deadline: int) -> None:
    spec = parse(tts_service(rollout={"startupDeadlineSeconds": deadline}), OperatorDefaults())
    body = deployment(spec, 1, IMAGE, False)["spec"]
    probe = body["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= deadline
    assert body["progressDeadlineSeconds"] > deadline


def test_the_selector_never_changes() -> None:
    """Labels of users and versions may change; a Deployment's selector cannot."""
    selectors = [deployment(spec_of(name), 1, IMAGE, False)["spec"]["selector"]["matchLabels"] for name in SPECS]
    assert all(selector == api.selector_labels("demo") for selector in selectors)
    for name in SPECS:
        pod_labels = deployment(spec_of(name), 1, IMAGE, False)["spec"]["template"]["metadata"]["labels"]
        assert selectors[0].items() <= pod_labels.items()


def test_url() -> None:
    assert url(spec_of("minimal")) == "http://demo.default.svc"
    assert url(spec_of("everything")) == "http://demo.default.svc:8080"
