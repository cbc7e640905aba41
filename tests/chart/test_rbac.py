"""What the operator may do, against a list written here by hand: a new right is a decision, not a side effect."""

from __future__ import annotations

from typing import Any

import pytest

from chattts_operator import api
from tests.chart.conftest import Helm, Object

LEASE_NAME = "chattts-chattts-operator"  # each release has its own
READ = ["get", "list", "watch"]
OWN = [*READ, "create", "patch", "delete"]

# (group, resource) -> verbs, in every namespace that is looked after
SERVICES = {
    ("chattts.dev", "ttsservices"): READ,
    ("chattts.dev", "ttsservices/status"): ["patch"],
    ("apps", "deployments"): OWN,
    ("", "services"): OWN,
    ("", "persistentvolumeclaims"): OWN,
    ("", "configmaps"): OWN,
    ("policy", "poddisruptionbudgets"): OWN,
    ("networking.k8s.io", "networkpolicies"): OWN,
    ("batch", "jobs"): OWN,
    ("monitoring.coreos.com", "podmonitors"): OWN,
    ("monitoring.coreos.com", "prometheusrules"): OWN,
    ("", "pods"): READ,
    ("", "events"): ["create"],
}
# Only cluster-wide, for the driver gate, and only where that is on.
NODES = {("", "nodes"): ["list"]}
# (group, resource/name): only its own Lease, and `create` cannot be limited to a name
LEADER = {
    ("coordination.k8s.io", "leases"): ["create"],
    ("coordination.k8s.io", f"leases/{LEASE_NAME}"): ["get", "update"],
}


def rights(role: Object) -> dict[tuple[str, str], list[str]]:
    return {
        (group, resource + name): rule["verbs"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in [f"/{name}" for name in rule.get("resourceNames", [])] or [""]
    }


def roles(objects: list[Object], kind: str) -> dict[tuple[str | None, str], Object]:
    return {(o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects if o["kind"] == kind}


def test_the_operator_may_do_exactly_this(default: list[Object]) -> None:
    cluster, namespaced = roles(default, "ClusterRole"), roles(default, "Role")
    operators = {key: role for key, role in cluster.items() if not _aggregated(role)}
    assert {key: rights(role) for key, role in operators.items()} == {
        (None, "chattts-system:chattts-chattts-operator"): {**SERVICES, **NODES}
    }
    assert {key: rights(role) for key, role in namespaced.items()} == {
        ("chattts-system", "chattts-chattts-operator-leader"): LEADER
    }


def test_it_is_enough_for_every_kind_the_operator_handles() -> None:
    """The list above and the operator's own constants."""
    assert {kind: SERVICES.get((kind.group, kind.plural)) for kind in api.CHILD_KINDS} == dict.fromkeys(
        api.CHILD_KINDS, OWN
    )
    handled = {(k.group, k.plural) for k in (*api.CHILD_KINDS, api.TTS_SERVICE, api.POD, api.EVENT)}
    assert handled == {(group, plural) for group, plural in SERVICES if "/" not in plural}


def test_with_namespaces_there_is_no_cluster_wide_right(helm: Helm) -> None:
    flags = ("--set", "watchNamespaces={a,b,a}", "--set", "rbac.aggregate=false", "--set", "crds.install=false")
    objects = helm.render(*flags)
    assert not [o for o in objects if o["kind"].startswith("Cluster") or o["kind"] == "CustomResourceDefinition"]
    assert {key: rights(role) for key, role in roles(objects, "Role").items()} == {
        ("a", "chattts-chattts-operator-services"): SERVICES,
        ("b", "chattts-chattts-operator-services"): SERVICES,
        ("chattts-system", "chattts-chattts-operator-leader"): LEADER,
    }
    test = next(o for o in objects if o["kind"] == "Pod")
    assert test["spec"]["containers"][0]["args"][2:] == [
        "/apis/chattts.dev/v1alpha1/namespaces/a/ttsservices?limit=1",
        "/apis/chattts.dev/v1alpha1/namespaces/b/ttsservices?limit=1",
    ]


def test_without_the_driver_gate_no_node_is_read(helm: Helm) -> None:
    cluster = roles(helm.render("--set", "drivers.check=false"), "ClusterRole")
    assert [rights(role) for role in cluster.values() if not _aggregated(role)] == [SERVICES]


def test_two_operators_in_one_namespace_have_leases_of_their_own(helm: Helm) -> None:
    """By a selector of their own; sharing a Lease, the second would wait for ever."""
    leases = []
    for release in ("one", "two"):
        objects = helm.render("--set", f"serviceSelector.team={release}", release=release)
        deployment = next(o for o in objects if o["kind"] == "Deployment")
        environment = {
            e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        assert environment["CHATTTS_OPERATOR_SERVICE_SELECTOR"] == f"team={release}"
        leases.append(environment["CHATTTS_OPERATOR_LEASE_NAME"])
        (role,) = roles(objects, "Role").values()
        assert ("coordination.k8s.io", f"leases/{leases[-1]}") in rights(role)
    assert leases[0] != leases[1]


@pytest.mark.parametrize("flags", [(), ("--set", "watchNamespaces={a,b}")])
def test_every_binding_joins_a_role_of_the_chart_with_the_operator_alone(helm: Helm, flags: tuple[str, ...]) -> None:
    objects = helm.render(*flags)
    for kind in ("Role", "ClusterRole"):
        known = {key for key, role in roles(objects, kind).items() if not _aggregated(role)}
        bound = {
            (namespace, binding["roleRef"]["name"])
            for (namespace, _), binding in roles(objects, f"{kind}Binding").items()
        }
        assert bound == known
        for binding in roles(objects, f"{kind}Binding").values():
            assert binding["roleRef"]["kind"] == kind
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": "chattts-chattts-operator", "namespace": "chattts-system"}
            ]


@pytest.mark.parametrize("flags", [(), ("--set", "watchNamespaces={a}"), ("--set", "podMonitor.enabled=true")])
def test_no_wildcard_and_nothing_dangerous(helm: Helm, flags: tuple[str, ...]) -> None:
    forbidden = {"secrets", "pods/exec", "pods/attach", "serviceaccounts/token", "nodes/proxy"}
    rules = [rule for o in helm.render(*flags) if o["kind"] in ("Role", "ClusterRole") for rule in o["rules"]]
    words = [word for rule in rules for field in ("apiGroups", "resources", "verbs") for word in rule[field]]
    assert "*" not in "".join(words)
    assert not {"escalate", "bind", "impersonate"} & set(words)
    assert not forbidden & set(words)
    assert "rbac.authorization.k8s.io" not in words


def test_people_get_their_rights_by_aggregation_and_status_stays_the_operators(default: list[Object]) -> None:
    view, edit = (_by_suffix(default, suffix) for suffix in ("-view", "-edit"))
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    verbs = {verb for rule in view["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}
    assert ("chattts.dev", "ttsservices/status") not in rights(edit)


def test_rbac_can_be_made_by_somebody_else(helm: Helm) -> None:
    objects = helm.render("--set", "rbac.create=false", "--set", "rbac.aggregate=false")
    assert not [o for o in objects if "Role" in o["kind"]]


def test_two_releases_of_one_name_in_two_namespaces_do_not_collide(helm: Helm) -> None:
    names = [
        {o["metadata"]["name"] for o in helm.render(namespace=namespace) if o["kind"].startswith("ClusterRole")}
        for namespace in ("one", "two")
    ]
    assert not names[0] & names[1]


def _aggregated(role: dict[str, Any]) -> bool:
    return any("aggregate-to" in label for label in role["metadata"]["labels"])


def _by_suffix(objects: list[Object], suffix: str) -> Object:
    return next(o for o in objects if o["kind"] == "ClusterRole" and o["metadata"]["name"].endswith(suffix))
