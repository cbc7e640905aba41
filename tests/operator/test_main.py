"""What main.py does itself: which nodes it may read, when it starts anew, and whose TTSServices it hears."""

from __future__ import annotations

import asyncio

import kopf
import pytest

from chattts_operator import api, informers
from chattts_operator.config import Config, ConfigError, load
from chattts_operator.kube import KubeError
from chattts_operator.main import Operator
from tests.operator.fakes import FakeKube, run_virtual, tts_service

GPU_NODE = {
    "metadata": {"namespace": "", "name": "a", "labels": {"nvidia.com/cuda.driver.major": "580"}},
    "status": {"allocatable": {"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "0"}},
}


def operator_with(kube: FakeKube, **settings: bool) -> Operator:
    operator = Operator(Config(**settings))  # type: ignore[arg-type]
    operator.kube = kube  # type: ignore[assignment]
    return operator


def test_nodes_are_read_for_the_driver_gate() -> None:
    kube = FakeKube()
    kube.put(api.NODE, GPU_NODE)
    nodes = run_virtual(operator_with(kube).nodes())
    assert nodes is not None
    assert (nodes[0].name, nodes[0].resources) == ("a", {"nvidia.com/gpu"})
    assert run_virtual(operator_with(kube, check_drivers=False).nodes()) is None


def test_nodes_that_may_not_be_read_are_unknown_and_an_outage_is_not_taken_for_that() -> None:
    kube = FakeKube()
    kube.refuse = lambda verb, kind: KubeError(403, "nodes is forbidden")
    assert run_virtual(operator_with(kube).nodes()) is None
    kube.refuse = lambda verb, kind: KubeError(500, "etcd is away")
    with pytest.raises(KubeError, match="etcd"):
        run_virtual(operator_with(kube).nodes())


def test_a_kind_that_is_served_later_is_a_reason_to_start_anew() -> None:
    run_virtual(operator_with(FakeKube(api.POD_MONITOR))._until_more_is_served(frozenset()))
    watched = frozenset({api.POD_MONITOR})
    with pytest.raises(TimeoutError):
        run_virtual(
            asyncio.wait_for(operator_with(FakeKube(api.POD_MONITOR))._until_more_is_served(watched), timeout=3600)
        )


# --- whose TTSServices ---


@pytest.mark.parametrize(("text", "read"), [("b=2, a=1", "a=1,b=2"), ("team=speech", "team=speech"), ("a=", "a=")])
def test_a_selector_of_equalities(text: str, read: str) -> None:
    assert load({"CHATTTS_OPERATOR_SERVICE_SELECTOR": text}, {}).service_selector == read


@pytest.mark.parametrize("text", ["team", "team in (a)", "!team", "a!=b", ","])
def test_any_other_selector_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="labels as a=b"):
        load({"CHATTTS_OPERATOR_SERVICE_SELECTOR": text}, {})


def test_the_selector_is_the_api_servers_and_our_own() -> None:
    resource = kopf._cogs.structs.references.Resource(api.GROUP, api.VERSION, "ttsservices")
    assert informers.settings("team=a").watching.label_selectors.collect(resource) == ["team=a"]
    assert informers.settings().watching.label_selectors.collect(resource) == []
    body = tts_service()
    assert not api.carries(body, "team=a")
    body["metadata"]["labels"] = {"team": "a", "more": "b"}
    assert api.carries(body, "team=a")
    assert api.carries(body, "")
