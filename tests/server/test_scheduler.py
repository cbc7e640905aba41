"""Who shares a batch: pure decisions, no engine."""

from chattts_server.engine.nouns import Limits, Sampling, Submit, Voice
from chattts_server.engine.scheduler import Row, plan


def row(number, steps=47, credit=1, deadline=None, arrived=0.0, **sampling):
    submit = Submit(number, [1], Voice(), Sampling(**sampling), Limits(steps), deadline, credit)
    return Row(submit, arrived, credit)


def ids(rows):
    return [row.submit.id for row in rows]


def test_the_oldest_leads_and_the_batch_is_full():
    decided = plan([row(number) for number in range(5)], now=1.0, max_rows=3)
    assert (ids(decided.batch), ids(decided.waiting)) == ([0, 1, 2], [3, 4])


def test_rows_with_other_parameters_wait_for_their_own_batch():
    rows = [row(0), row(1, temperature=0.9), row(2)]
    decided = plan(rows, 1.0, 8)
    assert ids(decided.batch) == [0, 2]
    assert ids(plan(decided.waiting, 1.0, 8).batch) == [1]


def test_a_seeded_row_runs_alone():
    assert ids(plan([row(0, seed=1), row(1, seed=1), row(2)], 1.0, 8).batch) == [0]
    assert ids(plan([row(0), row(1, seed=1), row(2)], 1.0, 8).batch) == [0, 2]


def test_a_much_longer_row_does_not_ride_along():
    assert ids(plan([row(0, 47), row(1, 94), row(2, 95)], 1.0, 8).batch) == [0, 1]


def test_a_row_without_credit_is_not_started():
    rows = [row(0, credit=0), row(1)]
    decided = plan(rows, 1.0, 8)
    assert (ids(decided.batch), ids(decided.waiting)) == ([1], [0])
    rows[0].credit = 100
    assert ids(plan(decided.waiting, 1.0, 8).batch) == [0]


def test_a_row_whose_deadline_passed_is_dropped_and_named():
    rows = [row(0, deadline=2.0), row(1)]
    assert ids(plan(rows, 1.9, 8).batch) == [0, 1]
    decided = plan(rows, 2.0, 8)
    assert (ids(decided.expired), ids(decided.batch)) == ([0], [1])


def test_a_cancelled_row_is_gone():
    rows = [row(0), row(1)]
    rows[0].cancelled = True
    decided = plan(rows, 1.0, 8)
    assert (ids(decided.batch), decided.expired, decided.waiting) == ([1], [], [])
