"""The engine's loop in this process, over a model that hums: what happens to a row, and what does not to its mates."""

import itertools
from collections import defaultdict
from threading import Event

import numpy as np
import pytest

from chattts_server.engine.nouns import (
    UNLIMITED_CREDIT,
    Cancel,
    Chunk,
    Credit,
    Drain,
    EncodedVoice,
    EncodeVoice,
    Fail,
    Finish,
    Heartbeat,
    Limits,
    Refined,
    Sampling,
    StepReport,
    Submit,
    Voice,
    samples_of,
)
from chattts_server.engine.process import Engine
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


def submit(number, steps=STEPS, credit=UNLIMITED_CREDIT, tokens=(1,), deadline=None, stage="code"):
    return Submit(number, list(tokens), Voice(), Sampling(seed=number), Limits(steps), deadline, credit, stage)


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


def test_a_poison_row_fails_alone():
    port = run({1: [submit(0), submit(1), submit(2, tokens=[POISON]), submit(3)]})
    assert {row: fail.kind for row, fail in port.of(Fail).items()} == {2: "engine"}
    assert whole(port) == dict.fromkeys((0, 1, 3), samples_of(STEPS))


def test_a_slow_reader_keeps_neither_a_slot_nor_its_mates():
    """Rows without further credit are made and held; the one slot serves all that come after."""
    script = {1: [submit(n, 100, credit=1000) for n in range(3)], 900: [Credit(n, UNLIMITED_CREDIT) for n in range(3)]}
    port = run({**script, 2: [submit(3, 100)]}, slots=1)
    finished = [message.id for message in port.sent if isinstance(message, Finish)]
    assert finished[0] == 3
    assert whole(port) == dict.fromkeys(range(4), samples_of(100))


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
        now[0] += 0.01
        return now[0]

    port.script[600] = [Credit(1, UNLIMITED_CREDIT)]
    Engine(port, model, clock=clock).run()
    assert {row: fail.kind for row, fail in port.of(Fail).items()} == {0: "deadline"}
    assert whole(port) == {1: samples_of(STEPS)}


def test_text_is_refined_beside_speech_in_the_same_steps():
    alone = run({1: [submit(1)]})
    mixed = run({1: [submit(1), submit(2, steps=40, stage="text")]})
    assert len(mixed.of(Refined)[2].token_ids) == 40
    assert 2 not in mixed.sound()
    assert 2 not in mixed.of(Finish)
    assert np.array_equal(mixed.sound()[1], alone.sound()[1])
    assert len(mixed.of(Finish)) == 1


def test_refined_text_is_cancelled_expires_and_fails_like_speech():
    port = run({1: [submit(1, stage="text"), submit(2, tokens=(POISON,), stage="text")], 5: [Cancel(1)]})
    assert port.of(Refined) == {}
    assert port.of(Fail)[2].kind == "engine"
    assert run({1: [submit(1, deadline=0.0, stage="text")]}).of(Fail)[1].kind == "deadline"


def test_a_voice_does_not_wait_for_ever_for_a_loop_that_is_never_idle_nor_stop_it():
    now = [0.0]
    taken = []

    class Timed(HummingModel):
        def encode_voice(self, pcm):
            taken.append(now[0])
            return super().encode_voice(pcm)

        def step(self, slots):
            now[0] += 0.02
            return super().step(slots)

    voices = [EncodeVoice(10 + n, b"\0" * 40) for n in range(3)]
    port = Port({1: [submit(0, 600)], 50: voices})
    Engine(port, Timed(2, 0.0, lambda _: None), clock=lambda: now[0]).run()
    order = [message.id for message in port.sent if isinstance(message, EncodedVoice | Finish)]
    assert order == [10, 11, 12, 0]
    assert np.allclose(np.diff([0.96, *taken]), 1.0, atol=0.1)  # a second of steps between two voices
    idle = run({1: voices})
    assert [message.id for message in idle.sent if isinstance(message, EncodedVoice)] == [10, 11, 12]


def test_the_heart_beats_while_the_first_voice_is_prepared():
    imported = Event()
    port = Port({1: [EncodeVoice(1, b"\0" * 40), submit(0, 600)], 400: []})
    receive = port.receive

    def counted(wait_seconds):
        if port.turn == 300:
            imported.set()
        return receive(wait_seconds)

    port.receive = counted
    now = itertools.count(0.0, 0.1)
    model = HummingModel(2, 0.0, lambda _: None)
    Engine(port, model, clock=lambda: next(now), prepare_voices=lambda: imported.wait(10)).run()
    kinds = [type(message) for message in port.sent]
    assert kinds[: kinds.index(EncodedVoice)].count(Heartbeat) > 50
    assert kinds.index(EncodedVoice) < kinds.index(Finish)


def test_a_finished_row_that_nobody_reads_can_be_cancelled():
    port = run({1: [submit(0, credit=1000)], 300: [Cancel(0)]})
    assert 0 not in port.of(Finish)
    assert whole(port) == {0: 1000}
