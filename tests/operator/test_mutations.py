"""The campaign of mutations.py: every field, no crash, nothing that does not converge; and that it would be seen."""

from __future__ import annotations

import random

import pytest

from chattts_operator import plan
from tests.operator import mutations
from tests.operator.mutations import MOUNTED, TABLE, children, edit, fields, is_refused, mutate, values_of, with_value
from tests.operator.test_invariants import run, world_of

# What earlier values leave behind on purpose: see KEPT, plan.image_of, plan.is_held.
WITH_A_PAST = ("image.", "model.", "monitoring.monitor", "autoscaling.mode", "replicas", "managementPolicy")


@pytest.fixture(scope="module")
def outcomes() -> list[mutations.Outcome]:
    return [mutate(path, schema) for path, schema in fields().items()]


def test_every_field_converges_or_is_refused(outcomes: list[mutations.Outcome]) -> None:
    assert [f"{one.field}: {text}" for one in outcomes for text in one.wrong] == []
    assert all(one.converged for one in outcomes), "a field that no value fits"
    assert sum(one.refused for one in outcomes) >= 10


def test_the_table_in_docs_is_that_of_this_campaign(outcomes: list[mutations.Outcome]) -> None:
    assert TABLE.read_text() == mutations.table(outcomes), "run python -m tests.operator.mutations"


def test_a_field_that_nobody_thought_of_is_noticed() -> None:
    with pytest.raises(KeyError, match=r"new\.field"):
        values_of("new.field", {"type": "string"})


def test_a_child_that_is_left_over_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = fields()["monitoring.dashboard"]
    assert mutate("monitoring.dashboard", schema).wrong == []
    monkeypatch.setattr(plan, "_deletes", lambda *_: ())
    assert mutate("monitoring.dashboard", schema).wrong == ['"Enabled": does not come back']


def _random_lives(lives: int, changes: int) -> None:
    chooser = random.Random(1)
    free = {path: schema for path, schema in fields().items() if not path.startswith(WITH_A_PAST)}
    refused = 0
    for _ in range(lives):
        spec = MOUNTED
        world = world_of(spec)
        run(world)
        good = children(world)
        for _ in range(changes):
            path = chooser.choice(list(free))
            spec = with_value(spec, path, chooser.choice([*values_of(path, free[path]), mutations.UNSET]))
            edit(world, spec)
            if is_refused(world):
                refused += 1
                assert children(world) == good, spec
                spec = with_value(spec, path, mutations.UNSET)
                edit(world, spec)
            assert not is_refused(world), (spec, world.condition("Ready"))
            good = children(world)
        fresh = world_of(spec)
        run(fresh)
        assert good == children(fresh), spec
    assert refused


def test_random_changes_one_after_the_other_end_as_a_new_service() -> None:
    _random_lives(lives=20, changes=6)


@pytest.mark.long
def test_many_random_changes_one_after_the_other_end_as_a_new_service() -> None:
    _random_lives(lives=1000, changes=12)
