"""The children, compared with golden files. `UPDATE_GOLDEN=1 pytest tests/operator/test_resources.py` writes them anew.

A change of a pod template in a golden file means: on an operator upgrade every GPU pod of every user restarts.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import chattts_operator
from chattts_operator import api
from chattts_operator.resources.dashboard import dashboard
from chattts_operator.resources.deployment import deployment
from chattts_operator.resources.disruption import disruption_budget
from chattts_operator.resources.monitoring import pod_monitor, prometheus_rule
from chattts_operator.resources.network import network_policy
from chattts_operator.resources.service import service, url
from chattts_operator.resources.storage import claim, fetch_job
from chattts_operator.rollout import Strategy
from chattts_operator.spec import OperatorDefaults, TTSServiceSpec, parse
from chattts_server.config import OPTIONS
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
    "no-gpu": {
        "model": {"source": "HostPath", "hostPath": "/models"},
        "server": {"device": "CPU"},
        "accelerator": {"vendor": "None"},
    },
    "node-cache": {
        "model": {
            "revision": REVISION,
            "acceptLicense": "CC-BY-NC-4.0",
            "source": "HuggingFace",
            "cache": {"type": "HostPath", "hostPath": "/var/cache/chattts"},
        },
        "networking": {"networkPolicy": {"mode": "Restricted"}},
    },
}
SAMPLES = {
    path.stem: yaml.safe_load(path.read_text())["spec"]
    for path in sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))
}
CASES = {**SPECS, **{f"sample-{name}": spec for name, spec in SAMPLES.items()}}


def spec_of(name: str) -> TTSServiceSpec:
    defaults = OperatorDefaults(has_prometheus=True, monitoring_labels={"release": "prometheus"})
    return parse(tts_service(**CASES[name]), defaults)


def children_of(spec: TTSServiceSpec) -> list[api.Body]:
    image, revision = spec.image.reference or IMAGE, spec.model.revision
    children = [
        deployment(spec, 2, image, False, Strategy.REPLACE, revision),
        service(spec),
        disruption_budget(spec),
    ]
    if spec.model.on_claim:
        children += [claim(spec, None), fetch_job(spec, image, "uid-claim")]
    if spec.networking.restricted:
        children.append(network_policy(spec))
    return children


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    spec = spec_of(name)
    children = children_of(spec)
    if name in ("minimal", "everything"):
        children += [pod_monitor(spec), prometheus_rule(spec)]
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


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("drain", [0, 40, 3600])
def test_a_pod_has_time_to_leave(drain: int) -> None:
    spec = parse(tts_service(rollout={"drainSeconds": drain}), OperatorDefaults())
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
    selectors = [deployment(spec_of(name), 1, IMAGE, False)["spec"]["selector"]["matchLabels"] for name in CASES]
    assert all(selector == api.selector_labels("demo") for selector in selectors)
    for name in CASES:
        pod_labels = deployment(spec_of(name), 1, IMAGE, False)["spec"]["template"]["metadata"]["labels"]
        assert selectors[0].items() <= pod_labels.items()


def test_url() -> None:
    assert url(spec_of("minimal")) == "http://demo.default.svc"
    assert url(spec_of("everything")) == "http://demo.default.svc:8080"


@pytest.mark.parametrize("name", CASES)
def test_every_pod_meets_pod_security_restricted(name: str) -> None:
    """But for the HostPath ones, which are for development. The real admission is asked in tests/e2e."""
    for child in children_of(spec_of(name)):
        if child["kind"] not in ("Deployment", "Job"):
            continue
        pod = child["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        host_paths = [volume for volume in pod["volumes"] if "hostPath" in volume]
        assert bool(host_paths) == (name in ("no-gpu", "node-cache", "sample-hostpath-dev"))
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_pods_of_the_fetch_job_are_no_servers() -> None:
    """Neither the Service nor the budget, the policy or the Deployment may take them for theirs."""
    spec = spec_of("sample-model-on-claim")
    labels = fetch_job(spec, IMAGE, "uid")["spec"]["template"]["metadata"]["labels"]
    assert not api.selector_labels("demo").items() <= labels.items()
    assert api.LABEL_SERVICE not in labels


def test_the_dashboard_shows_series_that_exist() -> None:
    """Each metric of an expression is one of the server's or of the operator's, by their own sources."""
    content = dashboard(spec_of("sample-monitoring"))["data"]["chattts-demo.json"]
    panels = json.loads(content)["panels"]
    root = Path(__file__).parents[2]
    server = (root / "server/chattts_server/metrics.py").read_text()
    ours = (root / "operator/chattts_operator/metrics.py").read_text()
    names = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"chattts_[a-z_]+", target["expr"])
    }
    assert len(names) >= 8
    for name in names:
        base = re.sub(r"_(bucket|sum|count|total)$", "", name)
        assert f'"{base}"' in server or f'"{base.removeprefix("chattts_operator_")}' in ours, name
    assert len({panel["title"] for panel in panels}) == len(panels) == 8


def test_a_policy_denies_all_but_what_it_names() -> None:
    """Ports of the server itself, and the hub only where pods download."""
    policy = network_policy(spec_of("sample-network-restricted"))["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])
    assert [rule["ports"][0]["port"] for rule in policy["ingress"]] == [api.HTTP_PORT, api.METRICS_PORT]
    assert [port["port"] for port in policy["egress"][0]["ports"]] == [53, 53]
    assert policy["egress"][1:] == [{"to": list(spec_of("sample-network-restricted").networking.egress_to)}]
    downloading = network_policy(spec_of("node-cache"))["spec"]
    assert downloading["egress"][1:] == [{"ports": [{"protocol": "TCP", "port": 443}]}]
    assert downloading["ingress"][0]["from"] == [{"podSelector": {}}]


def test_a_claim_grows_and_never_shrinks() -> None:
    spec = spec_of("sample-model-on-claim")
    live = {**claim(spec, None), "status": {"phase": "Bound"}}
    live["spec"]["resources"]["requests"]["storage"] = "40Gi"
    live["spec"]["accessModes"], live["spec"]["storageClassName"] = ["ReadWriteOnce"], "old"
    kept = claim(spec, live)["spec"]
    assert kept["resources"]["requests"]["storage"] == "40Gi"
    assert (kept["accessModes"], kept["storageClassName"]) == (["ReadWriteOnce"], "old")
    live["spec"]["resources"]["requests"]["storage"] = "5Gi"
    assert claim(spec, live)["spec"]["resources"]["requests"]["storage"] == "10Gi"
    live["status"]["phase"] = "Pending"  # the API server refuses every change until it is bound
    assert claim(spec, live)["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert claim(spec, None)["metadata"]["ownerReferences"] == []  # Retain


def test_the_server_reads_every_variable_that_it_is_given() -> None:
    """It takes no notice of others: a wrong name would leave the API open, or the voices unseen."""
    known = {option.key for option in OPTIONS}
    given = {
        variable["name"]
        for name in CASES
        for variable in deployment(spec_of(name), 1, IMAGE, False)["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"].startswith("CHATTTS_")
    }
    assert {"CHATTTS_API_KEYS", "CHATTTS_VOICES", "CHATTTS_VOICES_CONFIG_MAP"} <= given <= known


def test_bounds_of_audio_reach_the_server_only_where_they_are_set() -> None:
    bounds = {"maxWholeAudioSeconds": 120, "keyAudioSecondsPerMinute": 900, "apiKeysSecretRef": {"name": "keys"}}
    wanted = {"CHATTTS_MAX_WHOLE_AUDIO_SECONDS": "120", "CHATTTS_KEY_AUDIO_SECONDS_PER_MINUTE": "900"}
    for server, expected in (({}, {}), (bounds, wanted)):
        spec = parse(tts_service(server=server), OperatorDefaults())
        pod = deployment(spec, 1, IMAGE, False, Strategy.REPLACE, "")["spec"]["template"]["spec"]
        found = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
        assert {name: found[name] for name in wanted if name in found} == expected
