"""podTemplateOverlay: what it may add, and with which path everything else is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_operator import api
from chattts_operator.overlay import OUR_MOUNTS, OUR_VOLUMES, merged, problems_of
from chattts_operator.resources.deployment import deployment
from chattts_operator.spec import OperatorDefaults, parse
from tests.operator.fakes import tts_service
from tests.operator.test_resources import CASES, spec_of

PATH = "spec.podTemplateOverlay"


def template(overlay: dict[str, Any]) -> dict[str, Any]:
    spec = parse(tts_service(podTemplateOverlay=overlay), OperatorDefaults())
    return dict(deployment(spec, 1, "image:1", False)["spec"]["template"])


def test_what_it_adds_is_there_and_ours_stays() -> None:
    plain, changed = template({}), template(CASES["sample-overlay"]["podTemplateOverlay"])
    assert changed["metadata"]["labels"] == {**plain["metadata"]["labels"], "team": "speech"}
    ours, added = changed["spec"]["containers"]
    assert ours["env"] == [*plain["spec"]["containers"][0]["env"], {"name": "TZ", "value": "Asia/Shanghai"}]
    assert ours["securityContext"] == plain["spec"]["containers"][0]["securityContext"] == added["securityContext"]
    assert changed["spec"]["tolerations"] == [*plain["spec"]["tolerations"], {"key": "spot", "operator": "Exists"}]
    assert {volume["name"] for volume in changed["spec"]["volumes"]} == {"model", "tmp", "shared-memory", "ca"}


def test_variables_come_from_a_secret_under_a_prefix() -> None:
    source = {"secretRef": {"name": "x"}, "prefix": "PROXY_"}
    overlay = {"spec": {"containers": [{"name": "server", "envFrom": [source]}]}}
    assert template(overlay)["spec"]["containers"][0]["envFrom"] == [source]


def test_a_probe_is_merged_field_by_field() -> None:
    probe = {"spec": {"containers": [{"name": "server", "readinessProbe": {"periodSeconds": 1}}]}}
    merged_probe = template(probe)["spec"]["containers"][0]["readinessProbe"]
    assert (merged_probe["periodSeconds"], merged_probe["httpGet"]["path"]) == (1, "/readyz")


@pytest.mark.parametrize(
    ("overlay", "path"),
    [
        ({"spec": {"hostNetwork": True}}, "spec.hostNetwork"),
        ({"spec": {"hostPID": True}}, "spec.hostPID"),
        ({"spec": {"serviceAccountName": "admin"}}, "spec.serviceAccountName"),
        ({"spec": {"automountServiceAccountToken": True}}, "spec.automountServiceAccountToken"),
        ({"spec": {"securityContext": {"runAsNonRoot": False}}}, "spec.securityContext"),
        ({"spec": {"terminationGracePeriodSeconds": 1}}, "spec.terminationGracePeriodSeconds"),
        ({"spec": {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}}, "spec.volumes[h].hostPath"),
        ({"spec": {"volumes": [{"name": "p", "projected": {}}]}}, "spec.volumes[p].projected"),
        ({"spec": {"volumes": [{"name": "model", "emptyDir": {}}]}}, "spec.volumes[model]"),
        (
            {"spec": {"containers": [{"name": "server", "securityContext": {"privileged": True}}]}},
            "spec.containers[server].securityContext",
        ),
        *(
            (
                {"spec": {"containers": [{"name": "server", "envFrom": [{"secretRef": {"name": "x"}, **prefix}]}]}},
                "spec.containers[server].envFrom[0].prefix",
            )
            for prefix in ({}, {"prefix": "CHATTTS_"}, {"prefix": "CHATTTS_API_"}, {"prefix": "CHAT"})
        ),
        ({"spec": {"containers": [{"name": "server", "image": "evil"}]}}, "spec.containers[server].image"),
        ({"spec": {"containers": [{"name": "server", "command": ["sh"]}]}}, "spec.containers[server].command"),
        (
            {"spec": {"containers": [{"name": "server", "env": [{"name": "CHATTTS_MODEL", "value": "/x"}]}]}},
            "spec.containers[server].env[CHATTTS_MODEL]",
        ),
        (
            {"spec": {"containers": [{"name": "server", "volumeMounts": [{"name": "x", "mountPath": "/tmp/x"}]}]}},
            "spec.containers[server].volumeMounts[/tmp/x]",
        ),
        (
            {"spec": {"containers": [{"name": "side", "securityContext": {"privileged": True}}]}},
            "spec.containers[side].securityContext.privileged",
        ),
        (
            {"spec": {"containers": [{"name": "side", "securityContext": {"runAsUser": 0}}]}},
            "spec.containers[side].securityContext.runAsUser",
        ),
        (
            {"spec": {"containers": [{"name": "side", "ports": [{"hostPort": 80}]}]}},
            "spec.containers[side].ports[None,None].hostPort",
        ),
        ({"spec": {"initContainers": [{"name": "server"}]}}, "spec.initContainers[server]"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[None]"),
        ({"spec": {"containers": {"name": "x"}}}, "spec.containers"),
        ({"spec": {"nodeSelector": None}}, "spec.nodeSelector"),
        ({"spec": {"tolerations": [{"$patch": "replace"}]}}, "spec.tolerations[0].$patch"),
        ({"metadata": {"labels": {"chattts.dev/service": "other"}}}, "metadata.labels.chattts.dev/service"),
        ({"metadata": {"annotations": {"a": 1}}}, "metadata.annotations.a"),
        ({"metadata": {"ownerReferences": []}}, "metadata.ownerReferences"),
        ({"kind": "Pod"}, "kind"),
        ({"spec": [1]}, "spec"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_lower_security_or_take_away_is_refused_with_its_path(overlay: dict[str, Any], path: str) -> None:
    found = problems_of(overlay, PATH)
    assert found
    assert found[0].startswith(f"{PATH}.{path}"), found


NAMES = ["name", "env", "volumeMounts", "mountPath", "securityContext", "runAsUser", "ports", "labels", "ip", "$patch"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "server", "side", "/model", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "env",
                    "volumeMounts",
                    "mountPath",
                    "securityContext",
                    "runAsUser",
                    "ports",
                    "labels",
                    "ip",
                    "$patch",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = ["containers", "initContainers", "volumes", "tolerations", "hostAliases", "affinity", "hostPID", "dnsPolicy"]


@given(st.fixed_dictionaries({}, optional={"metadata": JSON, "spec": st.dictionaries(st.sampled_from(FIELDS), JSON)}))
def test_whatever_is_written_it_is_refused_or_merged_and_security_holds(overlay: dict[str, Any]) -> None:
    plain = deployment(spec_of("minimal"), 1, "image:1", False)["spec"]["template"]
    before = copy.deepcopy(plain)
    if problems_of(overlay, PATH):
        return
    result = merged(plain, overlay)
    assert plain == before
    assert result["spec"]["securityContext"] == plain["spec"]["securityContext"]
    assert api.labels("demo").items() <= result["metadata"]["labels"].items()
    for container in (*result["spec"]["containers"], *result["spec"].get("initContainers", [])):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context.get("runAsUser") != 0
    assert not any("hostPath" in volume for volume in result["spec"]["volumes"])


def test_every_place_and_volume_of_ours_is_on_the_lists() -> None:
    """A new mount of ours that an overlay could cover would be a hole."""
    for name in CASES:
        if name == "sample-overlay":
            continue
        pod = deployment(spec_of(name), 1, "image:1", False, revision="r")["spec"]["template"]["spec"]
        assert {volume["name"] for volume in pod["volumes"]} <= set(OUR_VOLUMES)
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            assert {mount["mountPath"] for mount in container["volumeMounts"]} <= set(OUR_MOUNTS)
