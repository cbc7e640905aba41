"""Who joins, steps and is vocoded: pure decisions, no engine."""

from chattts_server.engine.nouns import UNLIMITED_CREDIT, Limits, Sampling, Submit, Voice
from chattts_server.engine.scheduler import (
    FIRST_CHUNK_STEPS,
    HELD_CHUNK_STEPS,
    LARGEST_CHUNK_STEPS,
    LOOK_AHEAD_STEPS,
    PREFILLS_PER_STEP,
    Row,
    plan,
    wants_sound,
)


def row(number, credit=1, deadline=None, **state):
    submit = Submit(number, [1], Voice(), Sampling(), Limits(500), deadline, credit)
    return Row(submit, 0.0, credit, **state)


def running(number, **state):
    return row(number, slot=number, joined=0.5, **state)


def ids(rows):
    return [row.submit.id for row in rows]


def test_the_oldest_join_as_far_as_there_are_slots():
    decided = plan([row(number) for number in range(5)], 1.0, [3, 7])
    assert [(one.submit.id, slot) for one, slot in decided.joining] == [(0, 3), (1, 7)]
    assert not decided.stepping


def test_rows_join_while_others_step():
    decided = plan([running(0), row(1)], 1.0, [5])
    assert (ids(decided.stepping), len(decided.joining)) == ([0], 1)


def test_a_row_without_credit_is_not_started():
    rows = [row(0, credit=0), row(1)]
    assert ids(one for one, _ in plan(rows, 1.0, [0, 1]).joining) == [1]
    rows[0].credit = 100
    assert ids(one for one, _ in plan(rows, 1.0, [0, 1]).joining) == [0, 1]


def test_a_long_prompt_does_not_hold_the_steps_of_others():
    rows = [running(0), *(running(number, prefills_left=9) for number in range(1, 5))]
    decided = plan(rows, 1.0, [])
    assert ids(decided.stepping) == [0]
    assert ids(decided.prefilling) == [1, 2, 3, 4][:PREFILLS_PER_STEP]


def test_the_slot_of_a_row_that_goes_is_free_in_the_same_turn():
    gone = running(0)
    gone.cancelled = True
    decided = plan([gone, row(1)], 1.0, [])
    assert (ids(decided.gone), [slot for _, slot in decided.joining]) == ([0], [0])
    assert not decided.stepping


def test_a_deadline_is_one_to_the_first_audio():
    rows = [row(0, deadline=2.0), running(1, deadline=2.0), running(2, deadline=2.0, samples=1), row(3)]
    assert plan(rows, 1.9, []).expired == []
    assert ids(plan(rows, 2.0, []).expired) == [0, 1]


def test_a_finished_row_that_waits_for_its_reader_neither_steps_nor_expires():
    done = row(0, joined=0.5, deadline=2.0, decoded="end", samples=10)
    decided = plan([done], 9.0, [1])
    assert decided == plan([], 9.0, [1])


def test_a_listener_hears_a_small_chunk_first_then_growing_ones():
    listener = running(0, credit=24000)
    sizes = []
    for _ in range(6):
        while not wants_sound(listener):
            listener.steps += 1
        sizes.append(listener.steps - listener.vocoded)
        listener.vocoded, listener.chunks = listener.steps, listener.chunks + 1
    first = FIRST_CHUNK_STEPS
    assert sizes == [first + LOOK_AHEAD_STEPS, first, 2 * first, 4 * first, 8 * first, LARGEST_CHUNK_STEPS]


def test_a_reader_that_is_behind_is_not_hurried_and_nothing_piles_up():
    behind = running(0, credit=0, steps=100 + HELD_CHUNK_STEPS - 1, vocoded=100, chunks=2)
    assert not wants_sound(behind)
    behind.steps += 1
    assert wants_sound(behind)
    behind.steps, behind.credit = 100 + LARGEST_CHUNK_STEPS, 1
    assert wants_sound(behind)


def test_a_row_that_is_wanted_whole_is_not_hurried():
    whole = running(0, credit=UNLIMITED_CREDIT, steps=HELD_CHUNK_STEPS - 1)
    assert not wants_sound(whole)
    whole.decoded = "limit"
    assert wants_sound(whole)
    assert not wants_sound(row(1))
