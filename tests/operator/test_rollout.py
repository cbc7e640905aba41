"""Rollouts where GPUs are scarce: the strategy, Auto's patience, and what status says of pods that do not start."""

from __future__ import annotations

from typing import Any

import pytest

from chattts_operator import api
from chattts_operator.rollout import Strategy
from tests.operator.fakes import pod, tts_service
from tests.operator.world import KEY, World, decided

STARTED = "2027-01-15T08:00:00Z"  # the world's now
NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def strategy(world: World) -> dict[str, Any]:
    return dict(world.kube.at(api.DEPLOYMENT, KEY)["spec"]["strategy"])


def running(**spec: Any) -> World:
    """One replica, Ready."""
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service(**spec))
    world.settle()
    world.kube.put(api.POD, pod("old", ready_at="2027-01-15T07:00:00Z"))
    world.pods_are(1, 1)
    world.settle()
    world.kube.events.clear()
    return world


def rolling_without_room(world: World) -> None:
    """A new template, and no node has room for its pod."""
    world.edit_spec(server={"maxBatchSize": 4})
    world.reconcile()
    stuck = pod("new", unschedulable=NO_GPU)
    stuck["status"]["conditions"][0]["lastTransitionTime"] = STARTED
    world.kube.put(api.POD, stuck)
    world.pods_are(2, 1, updated=1)


@pytest.mark.parametrize(
    ("policy", "replicas", "expected"),
    [
        ("Auto", 1, Strategy.SURGE),
        ("Auto", 2, Strategy.REPLACE),
        ("Surge", 3, Strategy.SURGE),
        ("Replace", 1, Strategy.REPLACE),
        ("Recreate", 2, Strategy.RECREATE),
    ],
)
def test_the_policy_becomes_a_strategy(policy: str, replicas: int, expected: Strategy) -> None:
    world = running(rollout={"capacityPolicy": policy}, autoscaling={"mode": "None"}, replicas=replicas)
    assert strategy(world) == expected.body


def test_auto_waits_for_a_spare_gpu_and_then_replaces_once() -> None:
    world = running()
    rolling_without_room(world)
    assert world.reconcile() == 300  # comes back by itself
    assert strategy(world) == Strategy.SURGE.body
    world.now += 299
    world.reconcile()
    assert strategy(world) == Strategy.SURGE.body
    assert [event["reason"] for event in world.kube.events] == ["Unschedulable"]
    world.now += 1
    world.reconcile()
    assert strategy(world) == Strategy.REPLACE.body
    assert [event["reason"] for event in world.kube.events if "Surge" in event["reason"]] == ["SurgeGivenUp"]
    # The old pod makes room; while the new one starts, a step back to Surge would be no help.
    world.kube.remove(api.POD, "default", "old")
    world.kube.put(api.POD, pod("new", scheduled_at="2027-01-15T08:05:01Z"))
    world.pods_are(2, 0, updated=1)
    world.settle()
    assert strategy(world) == Strategy.REPLACE.body
    world.kube.put(api.POD, pod("new", ready_at="2027-01-15T08:06:00Z"))
    world.pods_are(1, 1)
    world.settle()
    assert strategy(world) == Strategy.SURGE.body  # for the next time
    assert len([event for event in world.kube.events if event["reason"] == "SurgeGivenUp"]) == 1


@pytest.mark.parametrize("policy", ["Surge", "Auto"])
def test_a_pod_that_crashes_never_takes_the_last_good_one(policy: str) -> None:
    """Auto gives up a good pod only where the new one has no node, never because it does not start."""
    world = running(rollout={"capacityPolicy": policy, "capacityWaitSeconds": 0})
    world.edit_spec(image={"repository": "bad", "tag": "1"})
    world.reconcile()
    crashing = pod("new", scheduled_at=STARTED)
    last = {"terminated": {"exitCode": 78, "message": "CHATTTS_MODEL has the value ''\n"}}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m"}}
    crashing["status"]["containerStatuses"] = [{"name": "server", "ready": False, "state": state, "lastState": last}]
    world.kube.put(api.POD, crashing)
    world.pods_are(2, 1, updated=1)
    world.now += 3600
    world.settle()
    assert strategy(world) == Strategy.SURGE.body
    assert world.condition("Ready")["status"] == "True"
    progressing = world.condition("Progressing")["message"]
    assert "pod new: server ended with exit code 78: CHATTTS_MODEL has the value ''" in progressing


def test_surge_waits_for_ever() -> None:
    world = running(rollout={"capacityPolicy": "Surge", "capacityWaitSeconds": 1})
    rolling_without_room(world)
    world.now += 86400
    world.settle()
    assert strategy(world) == Strategy.SURGE.body
    capacity = world.condition("CapacityAvailable")
    assert capacity["message"] == f"1 of 2 pods cannot be placed (since {STARTED}): {NO_GPU}"
    assert "Unschedulable" in [event["reason"] for event in world.kube.events]


def test_a_first_rollout_without_room_has_nothing_to_give_up() -> None:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service())
    world.settle()
    world.kube.put(api.POD, pod("first", unschedulable=NO_GPU))
    world.pods_are(1, 0)
    world.now += 86400
    world.settle()
    assert strategy(world) == Strategy.SURGE.body
    assert world.condition("Ready")["reason"] == "Unschedulable"


def test_growing_from_one_is_no_rollout_that_was_given_up() -> None:
    world = running()
    world.decision = decided(1, 3)
    world.reconcile()
    assert strategy(world) == Strategy.REPLACE.body
    assert "SurgeGivenUp" not in [event["reason"] for event in world.kube.events]


def test_the_progress_of_a_rollout_is_told_and_its_end_too() -> None:
    world = running(replicas=3, autoscaling={"mode": "None"})
    world.pods_are(3, 2, updated=1)
    world.reconcile()
    assert world.condition("Progressing")["message"] == "1 of 3 pods are replaced"
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    world.kube.edit(api.DEPLOYMENT, KEY, lambda body: body["status"].update(conditions=[late]))
    world.reconcile()
    assert world.condition("Progressing")["reason"] == "DeadlineExceeded"
    assert "DeadlineExceeded" in [event["reason"] for event in world.kube.events]


def test_events_are_said_once() -> None:
    world = running()
    rolling_without_room(world)
    for _ in range(5):
        world.now += 10
        world.start_operator()
        world.reconcile()
    reasons = [event["reason"] for event in world.kube.events]
    assert len(reasons) == len(set(reasons))
