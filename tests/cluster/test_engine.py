"""Which cluster a machine gets, and what a person reads when it gets none."""

from pathlib import Path

import pytest

from dev.cluster.engine import choose, missing_programs
from dev.cluster.errors import ClusterError
from dev.cluster.packages import missing_packages, why_not


@pytest.mark.parametrize(
    ("environment", "docker_works", "is_linux", "wanted"),
    [
        ({}, False, True, "node"),
        ({}, True, True, "kind"),
        ({}, True, False, "kind"),
        ({"USE_CURRENT_CONTEXT": "1"}, True, True, "context"),
        ({"USE_CURRENT_CONTEXT": "1"}, False, False, "context"),
        ({"USE_CURRENT_CONTEXT": "0"}, False, True, "node"),
        ({"CLUSTER_ENGINE": "node"}, True, True, "node"),
    ],
)
def test_choice(environment: dict[str, str], docker_works: bool, is_linux: bool, wanted: str) -> None:
    assert choose(environment, docker_works=docker_works, is_linux=is_linux) == wanted


def test_nothing_is_possible_says_what_to_install_in_one_line() -> None:
    with pytest.raises(ClusterError, match=r"Docker.*USE_CURRENT_CONTEXT=1") as problem:
        choose({}, docker_works=False, is_linux=False)
    assert "\n" not in str(problem.value)


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClusterError, match=r"CLUSTER_ENGINE=minikube.*node, kind, context"):
        choose({"CLUSTER_ENGINE": "minikube"}, docker_works=True, is_linux=True)


def test_missing_programs_are_named() -> None:
    assert missing_programs({"kind": None, "helm": Path("/usr/bin/helm"), "kubectl": None}) == (
        "not on PATH: kind, kubectl; install them first"
    )
    assert missing_programs({"helm": Path("/usr/bin/helm")}) is None


def test_packages_are_named_once_and_only_when_missing() -> None:
    programs = {"a": "one", "b": "one", "c": "two"}
    assert missing_packages(lambda _: False, programs) == ["one", "two"]
    assert missing_packages(lambda program: program == "c", programs) == ["one"]
    assert missing_packages(lambda _: True, programs) == []


def test_a_machine_that_cannot_be_a_node_says_why() -> None:
    assert "needs runc" in (why_not(["runc"], is_root=True, has_apt=False) or "")
    assert "needs root" in (why_not([], is_root=False, has_apt=True) or "")
    assert why_not(["runc"], is_root=True, has_apt=True) is None
    assert why_not([], is_root=True, has_apt=False) is None
