"""What the chart installs, by default and with values set."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from chattts_operator import config
from tests.chart.conftest import CHART, ROOT, Helm, HelmFailed, Object


def pick(objects: list[Object], kind: str, name: str | None = None) -> Object:
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
    return found[0]


def kinds(objects: list[Object]) -> list[str]:
    return sorted(o["kind"] for o in objects)


def environment(objects: list[Object]) -> dict[str, str]:
    container = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container["env"]}


def without_metadata(crd: Object) -> Object:
    return {**crd, "metadata": {"name": crd["metadata"]["name"]}}


def test_lint_has_no_complaint(helm: Helm) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_the_default_is_these_objects(default: list[Object]) -> None:
    assert kinds(default) == [
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "Pod",  # the helm test
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ]


def test_a_second_render_is_the_same(helm: Helm, default: list[Object]) -> None:
    """Nothing random and no time of day: an upgrade without a change restarts nothing."""
    assert helm.render() == default


def test_the_crd_is_the_one_in_manifests(default: list[Object]) -> None:
    source = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
    assert without_metadata(pick(default, "CustomResourceDefinition")) == without_metadata(source)


def test_the_crd_outlives_an_uninstall_unless_told_otherwise(helm: Helm, default: list[Object]) -> None:
    keep = {"helm.sh/resource-policy": "keep"}
    assert pick(default, "CustomResourceDefinition")["metadata"]["annotations"] == keep
    dropped = helm.render("--set", "crds.keep=false")
    assert "annotations" not in pick(dropped, "CustomResourceDefinition")["metadata"]
    assert "CustomResourceDefinition" not in kinds(helm.render("--set", "crds.install=false"))


def test_the_operator_understands_what_it_is_given(helm: Helm) -> None:
    """The environment of the Deployment, read by the operator's own parser."""
    values = {
        "prometheus": {"url": "http://prometheus.monitoring.svc:9090"},
        "serviceSelector": {"tier": "gold", "team": "speech"},
        "imageRegistries": ["r.example.com/"],
        "defaults": {
            "server": {"image": "r.example.com/s:1", "cudaVersion": "12.6"},
            "monitoring": {"labels": {"release": "prom,etheus"}},
        },
        "watchNamespaces": ["a", "b", "a"],
        "scaling": {"intervalSeconds": 30},
        "log": {"format": "text"},
    }
    flags = [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    given = environment(helm.render(*flags))
    assert given.pop("CHATTTS_OPERATOR_NAMESPACE") == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    read = config.load(given, {})
    assert read.prometheus_url == "http://prometheus.monitoring.svc:9090"
    assert read.default_server_image == "r.example.com/s:1"
    assert dict(read.monitoring_labels) == {"release": "prom,etheus"}
    assert read.watch_namespaces == ("a", "b")
    assert (read.scaling_interval_seconds, read.log_format) == (30, "text")
    assert (read.service_selector, read.image_registries) == ("team=speech,tier=gold", ("r.example.com/",))
    assert (read.lease_name, read.check_drivers) == ("chattts-chattts-operator", False)
    assert read.default_server_cuda_version == "12.6"
    unknown = {name for name in given if name.removeprefix(config.PREFIX).lower() not in config.PARSERS}
    assert not unknown, "the operator reads no such variable"


def test_the_defaults_are_a_configuration_the_operator_starts_with(default: list[Object]) -> None:
    given = environment(default)
    given.pop("CHATTTS_OPERATOR_NAMESPACE")
    read = config.load(given, {})
    assert (read.prometheus_url, read.watch_namespaces, read.monitoring_labels) == ("", (), {})
    assert read.default_server_image == "localhost/chattts-server:0.1.0"


@pytest.mark.parametrize(
    ("flags", "operator", "server"),
    [
        ([], "localhost/chattts-operator:0.1.0", "localhost/chattts-server:0.1.0"),
        (["image.repository=r.example.com:5000/a/chattts-operator", "image.tag=v2"],
         "r.example.com:5000/a/chattts-operator:v2", "r.example.com:5000/a/chattts-server:v2"),
        (["image.repository=op"], "op:0.1.0", "chattts-server:0.1.0"),
        ([f"image.digest=sha256:{'0' * 64}", "image.tag=v2"],
         f"localhost/chattts-operator@sha256:{'0' * 64}", "localhost/chattts-server:v2"),
        (["defaults.server.image=r.example.com/own:7"], "localhost/chattts-operator:0.1.0", "r.example.com/own:7"),
    ],
)  # fmt: skip
def test_images(helm: Helm, flags: list[str], operator: str, server: str) -> None:
    objects = helm.render(*[word for flag in flags for word in ("--set-string", flag)])
    pod = pick(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == operator
    assert pick(objects, "Pod")["spec"]["containers"][0]["image"] == operator
    assert environment(objects)["CHATTTS_OPERATOR_DEFAULT_SERVER_IMAGE"] == server


def test_every_pod_meets_pod_security_restricted(default: list[Object]) -> None:
    """Also more than `restricted` asks for: read-only root, a fixed user, limits."""
    pods = [pick(default, "Deployment")["spec"]["template"]["spec"], pick(default, "Pod")["spec"]]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(set(volume) <= {"name", "emptyDir"} for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_the_token_is_mounted_by_the_pod_and_not_by_the_account(default: list[Object]) -> None:
    assert pick(default, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pick(default, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_probes_ask_the_health_port(default: list[Object]) -> None:
    container = pick(default, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["run"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"health": 8080, "metrics": 9090}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    given = environment(default)
    assert (given["CHATTTS_OPERATOR_HEALTH_PORT"], given["CHATTTS_OPERATOR_METRICS_PORT"]) == ("8080", "9090")


def test_selectors_meet_the_pods_and_leave_the_test_pod_out(default: list[Object]) -> None:
    deployment = pick(default, "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert pick(default, "Service")["spec"]["selector"] == selector
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert not selector.items() <= pick(default, "Pod")["metadata"]["labels"].items()


def test_the_test_pod_is_a_hook_that_cleans_up(default: list[Object]) -> None:
    annotations = pick(default, "Pod")["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "test"
    script, ready, *lists = pick(default, "Pod")["spec"]["containers"][0]["args"]
    compile(script, "test.py", "exec")
    assert ready == "http://chattts-chattts-operator.chattts-system.svc:8080/readyz"
    assert lists == ["/apis/chattts.dev/v1alpha1/ttsservices?limit=1"]


def test_several_replicas_are_spread_and_protected(helm: Helm, default: list[Object]) -> None:
    assert "PodDisruptionBudget" not in kinds(default)  # with one pod it would only block drains
    objects = helm.render("--set", "replicas=3")
    assert pick(objects, "Deployment")["spec"]["replicas"] == 3
    assert pick(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert "topologySpreadConstraints" in pick(objects, "Deployment")["spec"]["template"]["spec"]


def test_it_needs_no_crd_of_others_unless_asked(helm: Helm, default: list[Object]) -> None:
    assert not [o for o in default if o["apiVersion"].startswith("monitoring.coreos.com")]
    objects = helm.render("--set", "podMonitor.enabled=true", "--set", "podMonitor.labels.release=prom")
    monitor = pick(objects, "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prom"
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "interval": "30s"}]


def test_pod_labels_of_the_user_never_replace_ours(helm: Helm) -> None:
    objects = helm.render(
        "--set", "podLabels.team=speech", "--set", "podLabels.app\\.kubernetes\\.io/name=other",
        "--set", "podAnnotations.note=hello",
    )  # fmt: skip
    template = pick(objects, "Deployment")["spec"]["template"]["metadata"]
    assert template["labels"]["team"] == "speech"
    assert template["labels"]["app.kubernetes.io/name"] == "chattts-operator"
    assert template["annotations"] == {"note": "hello"}


@pytest.mark.parametrize("release", ["r" * 53, "chattts-operator", "a"])
def test_names_and_labels_are_never_too_long(helm: Helm, release: str) -> None:
    for thing in helm.render("--set", "replicas=2", release=release):
        if thing["kind"] not in ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"):
            assert len(thing["metadata"]["name"]) <= 63
            assert not thing["metadata"]["name"].endswith("-")
        assert all(len(value) <= 63 for value in thing["metadata"].get("labels", {}).values())


def test_a_name_is_not_said_twice(helm: Helm) -> None:
    assert pick(helm.render(release="chattts-operator"), "Deployment")["metadata"]["name"] == "chattts-operator"
    assert pick(helm.render(release="x"), "Deployment")["metadata"]["name"] == "x-chattts-operator"
    overridden = helm.render("--set", "fullnameOverride=tts")
    assert pick(overridden, "Deployment")["metadata"]["name"] == "tts"


def test_every_object_lies_in_the_release_namespace(default: list[Object]) -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for thing in default:
        expected = None if thing["kind"] in cluster_wide else "chattts-system"
        assert thing["metadata"].get("namespace") == expected, thing["kind"]


def test_an_existing_service_account_can_be_used(helm: Helm) -> None:
    objects = helm.render("--set", "serviceAccount.create=false", "--set", "serviceAccount.name=mine")
    assert "ServiceAccount" not in kinds(objects)
    assert pick(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert pick(objects, "ClusterRoleBinding")["subjects"][0]["name"] == "mine"


@pytest.mark.parametrize(("version", "accepted"), [("1.29.14", False), ("1.30.0", True), ("1.34.4-gke.1", True)])
def test_old_kubernetes_is_refused(helm: Helm, version: str, accepted: bool) -> None:
    if accepted:
        assert helm.render("--kube-version", version)
        return
    with pytest.raises(HelmFailed, match=r"requires kubeVersion: >=1\.30\.0-0"):
        helm.render("--kube-version", version)


BAD: list[tuple[str, Any, str]] = [
    ("replica", 2, "'replica' not allowed"),
    ("image.repositry", "x", "'repositry' not allowed"),
    ("image.repository", "registry.example.com/op:1.0", "does not match pattern"),
    ("image.pullPolicy", "Sometimes", "'Always', 'IfNotPresent', 'Never'"),
    ("image.digest", "sha256:abc", "does not match pattern"),
    ("replicas", "two", "got string, want integer"),
    ("replicas", -1, "minimum"),
    ("watchNamespaces", "a,b", "got string, want array"),
    ("watchNamespaces", ["Not_A_Namespace"], "does not match pattern"),
    ("prometheus.url", "prometheus:9090", "does not match pattern"),
    ("defaults.server.image", "no-tag", "does not match pattern"),
    ("defaults.monitoring.labels", {"release": 1}, "got number, want string"),
    ("scaling.intervalSeconds", 1, "minimum"),
    ("log.format", "xml", "'json', 'text'"),
    ("crds.keep", "yes", "got string, want boolean"),
    ("resources", {"request": {}}, "'request' not allowed"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD, ids=[f"{key}={value}" for key, value, _ in BAD])
def test_a_bad_value_is_refused_with_its_name(helm: Helm, key: str, value: Any, message: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.render("--set-json", f"{key}={json.dumps(value)}")
    assert message in str(refused.value)
    parent = key.rpartition(".")[0] if "not allowed" in message else key
    assert parent.replace(".", "/") in str(refused.value)


def test_as_a_part_of_another_chart_it_accepts_global(helm: Helm) -> None:
    assert helm.render("--set", "global.anything=1")


NOTES = """\
AGPL-3.0-or-later
CC BY-NC 4.0
acceptLicense: CC-BY-NC-4.0
helm test chattts -n chattts-system
kind: TTSService
no image is published
prometheus.url is empty
"""


def notes(helm: Helm, *flags: str) -> str:
    dry = ("--dry-run=client", "--namespace", "chattts-system")
    return helm("install", "chattts", str(CHART), *dry, *flags).partition("NOTES:")[2]


def test_notes_say_what_is_next_and_the_licences(helm: Helm) -> None:
    text = notes(helm)
    assert [line for line in NOTES.splitlines() if line not in text] == []


def test_notes_warn_only_of_what_is_so(helm: Helm) -> None:
    set_up = notes(
        helm, "--set", "image.repository=r.example.com/op", "--set", "prometheus.url=http://p", "--set",
        "watchNamespaces[0]=speech",
    )  # fmt: skip
    assert "WARNING" not in set_up
    assert "kubectl apply -n speech" in set_up
    assert "deletes every TTSService" in notes(helm, "--set", "crds.keep=false")
    assert "crds.install is false" in notes(helm, "--set", "crds.install=false")
