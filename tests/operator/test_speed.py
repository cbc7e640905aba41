"""What was learned of a pod's capacity, and when it is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from chattts_operator.autoscaling.signals import State
from chattts_operator.spec import OperatorDefaults, parse
from chattts_operator.speed import speed_of, with_speed
from tests.operator.fakes import tts_service
from tests.operator.test_ticker import KEY, World


def speed(**spec: Any) -> str:
    return speed_of(parse(tts_service(**spec), OperatorDefaults(True)))


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"source": "HostPath", "hostPath": "/other"}},
        {"server": {"dtype": "bfloat16"}},
        {"server": {"maxBatchSize": 4}},
        {"accelerator": {"resourceName": "nvidia.com/mig-1g.10gb"}},
        {"scheduling": {"nodeSelector": {"gpu": "l4"}}},
        {"resources": {"limits": {"cpu": "2"}}},
    ],
)
def test_another_model_gpu_or_cpu_is_another_speed(spec: dict[str, Any]) -> None:
    assert speed(**spec) != speed()


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 3},
        {"image": {"repository": "r", "tag": "2"}},
        {"autoscaling": {"maxReplicas": 3}},
        {"server": {"requestTimeoutSeconds": 10}},
        {"resources": {"limits": {"memory": "2Gi"}}},
    ],
)
def test_what_makes_no_pod_faster_is_the_same_speed(spec: dict[str, Any]) -> None:
    assert speed(**spec) == speed()


def test_a_memory_belongs_to_its_speed() -> None:
    old = State(learned_qps=9.0, learned_for="a", cold_start_pod="p", ineffective_steps=2, p99_at_last_step=2.0)
    assert with_speed(old, "a") == old
    other = with_speed(old, "b")
    assert (other.learned_qps, other.learned_for, other.ineffective_steps) == (None, "b", 0)
    assert other.cold_start_pod == "p"
    assert with_speed(State(learned_qps=9.0), "b") == State(learned_qps=9.0, learned_for="b")


def test_the_scaler_forgets_when_the_gpu_is_another_one_and_not_when_the_operator_restarts() -> None:
    world = World()
    of_l4: dict[str, Any] = {"scheduling": {"nodeSelector": {"gpu": "l4"}}}
    learned = {"autoscaling": {"learnedQpsPerReplica": "9.5", "learnedFor": speed(**of_l4)}}
    world.add(status=learned, **of_l4)
    world.tick()
    assert world.ticker.decisions[KEY].state.learned_qps == 9.5
    world.start_operator()
    world.add(status=learned, scheduling={"nodeSelector": {"gpu": "h100"}})
    world.tick()
    assert world.ticker.decisions[KEY].state.learned_qps is None
