"""The engine's loop in this process, over a model that hums: what happens to a row, and what does not to its mates."""

from collections import defaultdict

import numpy as np
import pytest

from chattts_server.engine.nouns import (
    UNLIMITED_CREDIT,
    Cancel,
    Chunk,
    Credit,
    Drain,
    Fail,
    Finish,
    Limits,
    Sampling,
    StepReport,
    Submit,
    Voice,
    samples_of,
)
from chattts_server.engine.process import Engine
from chattts_server.engine.speech_model import DeviceLost
from tests.server.fake_engine import POISON, HummingModel

STEPS = 60


class Port:
    """In place of the socket: what is scripted for a turn comes in that turn, and Drain when nothing is scripted."""

    def __init__(self, script):
        self.script = dict(script)
        self.turn = 0
        self.sent = []

    def receive(self, wait_seconds):
        self.turn += 1
        messages = self.script.pop(self.turn, [])
        return messages if self.script or self.turn < 2 else [*messages, Drain()]

    def send(self, message):
        self.sent.append(message)

    def sound(self):
        """Row -> its samples, checked to be in order."""
        chunks = defaultdict(list)
        for message in self.sent:
            if isinstance(message, Chunk):
                assert message.seq == len(chunks[message.id])
                chunks[message.id].append(np.frombuffer(message.pcm, "<f4"))
        return {row: np.concatenate(parts) for row, parts in chunks.items()}

    def of(self, kind):
        return {message.id: message for message in self.sent if isinstance(message, kind)}


def submit(number, steps=STEPS, credit=UNLIMITED_CREDIT, tokens=(1,), deadline=None):
    return Submit(number, list(tokens), Voice(), Sampling(seed=number), Limits(steps), deadline, credit)


def run(script, model=None, slots=4):
    port = Port(script)
    Engine(port, model or HummingModel(slots, 0.0, lambda _: None)).run()
    return port


def whole(port):
    return {row: len(samples) for row, samples in port.sound().items()}


def test_rows_of_every_length_come_whole_and_in_order():
    lengths = [1, 2, 47, 129, 300, 16, 48]
    port = run({1: [submit(n, steps) for n, steps in enumerate(lengths)]})
    assert whole(port) == {n: samples_of(steps) for n, steps in enumerate(lengths)}
    assert {row: finish.steps for row, finish in port.of(Finish).items()} == dict(enumerate(lengths))
    assert not port.of(Fail)


def test_a_row_joins_in_the_middle_and_a_listener_hears_before_the_end():
    port = run({1: [submit(0, 200, credit=1 << 30)], 50: [submit(1, 20)], 51: []})
    order = [(type(message).__name__, message.id) for message in port.sent if isinstance(message, Chunk | Finish)]
    assert order.index(("Finish", 1)) < order.index(("Finish", 0))
    assert order.index(("Chunk", 0)) < order.index(("Finish", 1))
    assert whole(port) == {0: samples_of(200), 1: samples_of(20)}


def test_a_cancelled_row_is_gone_at_the_next_turn_and_its_mate_is_unchanged():
    undisturbed = run({1: [submit(0), submit(1, 300)]})
    model = HummingModel(4, 0.0, lambda _: None)
    stepped = []
    step = model.step
    model.step = lambda slots: (stepped.append(tuple(slots)), step(slots))[1]
    port = run({1: [submit(0), submit(1, 300)], 20: [Cancel(1)]}, model)
    assert sum(1 in slots for slots in stepped) <= 20
    assert np.array_equal(port.sound()[0], undisturbed.sound()[0])
    assert 1 not in {**port.of(Finish), **port.of(Fail)}


class FailsOnce(HummingModel):
    """Out of memory as long as more than two rows step together, for some steps."""

    failures = 0

    def step(self, slots):
        if len(slots) > 2 and 10 <= self._steps[slots[0]] < 15:
            self.failures += 1
            raise RuntimeError("CUDA out of memory")
        return super().step(slots)


def test_a_step_without_memory_is_split_and_nobody_is_lost():
    model = FailsOnce(4, 0.0, lambda _: None)
    port = run({1: [submit(n) for n in range(4)]}, model)
    assert model.failures == 5
    assert whole(port) == dict.fromkeys(range(4), samples_of(STEPS))
    assert not port.of(Fail)


def test_a_poison_row_fails_alone():
    port = run({1: [submit(0), submit(1), submit(2, tokens=[POISON]), submit(3)]})
    assert {row: fail.kind for row, fail in port.of(Fail).items()} == {2: "engine"}
    assert whole(port) == dict.fromkeys((0, 1, 3), samples_of(STEPS))


class Mute(HummingModel):
    """The vocoder fails for several rows together, once; and always for one of them."""

    bad = -1
    rewound = 0

    def vocode(self, pieces):
        if len(pieces) > 1 and pieces[0].end_step > 100:
            raise RuntimeError("CUDA out of memory")
        if any(piece.slot == self.bad and piece.end_step > 100 for piece in pieces):
            raise FloatingPointError("values that are not finite")
        return super().vocode(pieces)

    def rewind(self, slot):
        self.rewound += 1


def test_a_failed_vocoder_pass_is_made_again_row_by_row_without_a_gap_or_an_echo():
    expected = run({1: [submit(n, 300) for n in range(3)]}).sound()
    model = Mute(4, 0.0, lambda _: None)
    port = run({1: [submit(n, 300) for n in range(3)]}, model)
    assert model.rewound >= 3
    assert all(np.array_equal(port.sound()[row], expected[row]) for row in range(3))


def test_a_row_whose_sound_cannot_be_made_fails_alone():
    model = Mute(4, 0.0, lambda _: None)
    model.bad = 1
    port = run({1: [submit(n, 300) for n in range(3)]}, model)
    assert {row: fail.kind for row, fail in port.of(Fail).items()} == {1: "engine"}
    assert sorted(port.of(Finish)) == [0, 2]


def test_a_row_of_values_that_are_not_finite_fails_alone():
    class Broken(HummingModel):
        def step(self, slots):
            outcomes = super().step(slots)
            return [
                "broken" if slot == 2 and self._steps[slot] == 30 else one
                for slot, one in zip(slots, outcomes, strict=True)
            ]

    port = run({1: [submit(n) for n in range(4)]}, Broken(4, 0.0, lambda _: None))
    assert {row: (fail.kind, fail.message) for row, fail in port.of(Fail).items()} == {
        2: ("engine", "values that are not finite")
    }
    assert whole(port) == dict.fromkeys((0, 1, 3), samples_of(STEPS))


def test_a_slow_reader_keeps_neither_a_slot_nor_its_mates():
    """Rows without further credit are made and held; the one slot serves all that come after."""
    script = {1: [submit(n, 100, credit=1000) for n in range(3)], 900: [Credit(n, UNLIMITED_CREDIT) for n in range(3)]}
    port = run({**script, 2: [submit(3, 100)]}, slots=1)
    finished = [message.id for message in port.sent if isinstance(message, Finish)]
    assert finished[0] == 3
    assert whole(port) == dict.fromkeys(range(4), samples_of(100))


def test_a_lost_device_ends_the_process_at_once():
    class Lost(HummingModel):
        def step(self, slots):
            raise DeviceLost("unspecified launch failure")

    with pytest.raises(DeviceLost):
        run({1: [submit(0)]}, Lost(1, 0.0, lambda _: None))


def test_reports_count_what_was_decoded():
    port = run({1: [submit(n) for n in range(4)]})
    reports = [message for message in port.sent if isinstance(message, StepReport)]
    assert sum(report.audio_seconds for report in reports) == pytest.approx(4 * STEPS / 46.875)
    assert max(report.rows for report in reports) <= 4


def test_a_row_without_credit_expires_and_one_that_is_finished_and_unsent_does_not():
    now = [0.0]
    port = Port({1: [submit(0, credit=0, deadline=5.0), submit(1, credit=1000, deadline=5.0)], 200: [], 400: []})
    model = HummingModel(2, 0.0, lambda _: None)

    def clock():
        now[0] += 0.02
        return now[0]

    port.script[600] = [Credit(1, UNLIMITED_CREDIT)]
    Engine(port, model, clock=clock).run()
    assert {row: fail.kind for row, fail in port.of(Fail).items()} == {0: "deadline"}
    assert whole(port) == {1: samples_of(STEPS)}


def test_a_finished_row_that_nobody_reads_can_be_cancelled():
    port = run({1: [submit(0, credit=1000)], 300: [Cancel(0)]})
    assert 0 not in port.of(Finish)
    assert whole(port) == {0: 1000}
