"""What holds for every feature: idempotent, converging after a death at any write, unmoved by an operator upgrade."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chattts_operator import api
from tests.operator.fakes import Crash, tts_service
from tests.operator.test_resources import CASES, REVISION, SAMPLES
from tests.operator.world import EVERY_CHILD, KEY, World

MOST = 8  # reconciles until all is quiet


def world_of(spec: dict[str, Any]) -> World:
    world = World()
    world.kube.put(api.TTS_SERVICE, tts_service(**copy.deepcopy(spec)))
    return world


def run(world: World) -> None:
    """Events keep coming; the Job controller ends what runs, the Deployment controller says that all pods are there."""
    for _ in range(MOST):
        world.now += 61
        before = len(world.kube.writes), world.kube.versions
        world.reconcile()
        if world.kube.has(api.JOB, KEY) and "status" not in world.kube.at(api.JOB, KEY):
            world.kube.end_job(KEY, "Complete")
        if world.kube.has(api.DEPLOYMENT, KEY):
            replicas = world.kube.at(api.DEPLOYMENT, KEY)["spec"]["replicas"]
            world.pods_are(replicas, replicas)
        if (len(world.kube.writes), world.kube.versions) == before:
            return
    raise AssertionError("it does not come to rest")


@pytest.mark.parametrize("name", CASES)
def test_a_second_reconcile_writes_nothing(name: str) -> None:
    world = world_of(CASES[name])
    run(world)
    assert world.kube.has(api.DEPLOYMENT, KEY)
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    events = len(world.kube.events)
    world.kube.writes.clear()
    for restart in (False, True):
        if restart:
            world.start_operator()
        for _ in range(5):
            world.now += 3600
            world.reconcile()
    assert world.kube.writes == []
    assert len(world.kube.events) == events


@pytest.mark.parametrize("name", SAMPLES)
def test_an_upgraded_operator_changes_no_pod_template(name: str) -> None:
    """Another default image and another CUDA with it; the golden files hold the templates from version to version."""
    world = world_of(SAMPLES[name])
    run(world)
    template = copy.deepcopy(world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"])
    world.defaults = replace(world.defaults, server_image="registry.example/server:2", server_cuda_version="14.0")
    world.start_operator()
    run(world)
    assert world.kube.at(api.DEPLOYMENT, KEY)["spec"]["template"] == template


NEWER = "f" * 40


def _changes(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """A life in three steps: as it is, with another revision and every feature, and with as little as possible."""
    model = {**spec.get("model", {})}
    if model.get("source", "HuggingFace") == "HuggingFace":
        model["revision"] = NEWER
    more = {**EVERY_CHILD, "model": model, "server": {**spec.get("server", {}), "maxBatchSize": 3}}
    return [spec, {**spec, **more}, {"model": spec["model"], "server": spec.get("server", {})}]


def life(spec: dict[str, Any], crash_at: int | None) -> World:
    world = world_of(spec)
    world.kube.crash_at = crash_at
    for step in _changes(spec):
        world.kube.edit(api.TTS_SERVICE, KEY, lambda body, step=step: body.update(spec=copy.deepcopy(step)))  # type: ignore[misc]
        try:
            run(world)
        except Crash:
            world.kube.crash_at = None
            world.start_operator()
            run(world)
    return world


def remains(world: World) -> dict[Any, api.Body]:
    """Without what a second attempt may count differently."""
    found = world.kube.snapshot()
    for body in found.values():
        body["metadata"].pop("generation")
        body["metadata"].get("annotations", {}).pop(api.ANNOTATION_FETCH, None)  # names the claim's uid
        body["metadata"].get("annotations", {}).pop(api.ANNOTATION_INTENT, None)
        body.get("status", {}).pop("observedGeneration", None)
        for condition in body.get("status", {}).get("conditions", []):
            condition.pop("observedGeneration", None)
    return found


@pytest.mark.parametrize("name", ["minimal", "model-on-claim"])
def test_killed_at_any_write_it_converges_to_the_same(name: str) -> None:
    """Before each write; that is also after the one before it."""
    spec = SAMPLES[name]
    reference = life(spec, None)
    assert not reference.kube.has(api.NETWORK_POLICY, KEY)
    assert not reference.kube.has(api.CONFIG_MAP, KEY)
    expected, count = remains(reference), len(reference.kube.writes)
    assert count >= 12
    for crash_at in range(count):
        world = life(spec, crash_at)
        assert world.kube.crash_at is None, "it was never killed"
        assert remains(world) == expected, crash_at


def test_observed_generation_never_goes_back() -> None:
    world = world_of({})
    seen: list[int] = []
    world.kube.before_write = lambda: seen.append(
        int((world.kube.at(api.TTS_SERVICE, KEY).get("status") or {}).get("observedGeneration", 0))
    )
    changes: list[Callable[[], None]] = [
        lambda: world.edit_spec(server={"maxBatchSize": 2}),
        lambda: world.edit_spec(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),  # cannot be used
        lambda: world.edit_spec(managementPolicy="Paused", resources={}),
        lambda: world.edit_spec(managementPolicy="Managed", **EVERY_CHILD),
    ]
    for change in changes:
        change()
        run(world)
        seen.append(world.status()["observedGeneration"])
        assert seen[-1] == world.kube.at(api.TTS_SERVICE, KEY)["metadata"]["generation"]
    assert seen == sorted(seen)


def test_a_spec_that_cannot_be_used_touches_no_child() -> None:
    world = World.with_every_child()
    before = {kind: copy.deepcopy(world.kube.at(kind, KEY)) for kind in api.CHILD_KINDS}
    world.edit_spec(podTemplateOverlay={"spec": {"hostNetwork": True}}, model={"source": "HuggingFace"})
    run(world)
    assert {kind: world.kube.at(kind, KEY)["spec" if kind != api.CONFIG_MAP else "data"] for kind in before} == {
        kind: body["spec" if kind != api.CONFIG_MAP else "data"] for kind, body in before.items()
    }
    ready = world.condition("Ready")
    assert ready["reason"] == "InvalidSpec"
    assert "spec.podTemplateOverlay.spec.hostNetwork" in ready["message"]
    assert "spec.model.revision" in ready["message"]
    assert world.status()["modelRevision"] == REVISION  # still what runs
