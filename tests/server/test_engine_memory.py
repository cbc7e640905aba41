"""The engine's loop with the real model for minutes: rows of all kinds come and go, and its memory stays."""

import random
import resource
import time
from pathlib import Path
from statistics import median

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
    Submit,
    Voice,
)
from chattts_server.engine.process import Engine
from tests.server.test_slots import slots_of

pytestmark = pytest.mark.engine
LONGEST_STEPS, LONGEST_PROMPT = 160, 80
AT_ONCE = 12  # rows, of 8 slots: there is always somebody waiting


class Crowd:
    """A port with a crowd behind it: as rows end, others come; some leave early, some read slowly, some are refused."""

    def __init__(self, seconds):
        self.random = random.Random(3)
        self.until = time.monotonic() + seconds
        self.warm_at = time.monotonic() + seconds / 6
        self.number = 0
        self.alive = {}  # row -> "whole" | "listener"
        self.ended = {"finish": 0, "fail": 0, "cancel": 0}
        self.resident = []

    def receive(self, wait_seconds):
        now = time.monotonic()
        if now > self.until:
            return self._reading() if self.alive else [Drain()]
        if now > self.warm_at and (not self.resident or self.random.random() < 0.002):
            self.resident.append(resident_bytes())
        return [*self._leaving(), *self._reading(), *(self._arrival() for _ in range(AT_ONCE - len(self.alive)))]

    def send(self, message):
        if isinstance(message, Fail):
            assert message.kind == "invalid", message
        if isinstance(message, Finish | Fail):
            self.alive.pop(message.id, None)
            self.ended["finish" if isinstance(message, Finish) else "fail"] += 1
        elif isinstance(message, Chunk):
            assert np.isfinite(np.frombuffer(message.pcm, "<f4")).all()

    def _arrival(self):
        self.number += 1
        chooser = self.random
        longest = self.number <= AT_ONCE  # so that every slot has been used to its end before anything is measured
        length = LONGEST_PROMPT if longest else chooser.randint(1, 60)
        tokens = [21131, 21143, *chooser.choices(range(300, 900), k=length)]
        if chooser.random() < 0.05 and not longest:
            tokens.append(99999)  # to be refused
        voice = Voice(np.random.default_rng(self.number).normal(size=64).astype("<f4").tobytes())
        steps = LONGEST_STEPS if longest else chooser.randint(1, LONGEST_STEPS)
        kind = chooser.choice(["whole", "listener"])
        self.alive[self.number] = kind
        credit = UNLIMITED_CREDIT if kind == "whole" else 24000
        sampling = Sampling(chooser.choice([0.3, 0.7, 1.5]), chooser.random(), chooser.choice([5, 20, 626]))
        return Submit(self.number, tokens, voice, sampling, Limits(steps), None, credit)

    def _leaving(self):
        if self.alive and self.random.random() < 0.01:
            row = self.random.choice(list(self.alive))
            del self.alive[row]
            self.ended["cancel"] += 1
            yield Cancel(row)

    def _reading(self):
        listeners = [row for row, kind in self.alive.items() if kind == "listener"]
        return [Credit(row, 24000) for row in listeners if self.random.random() < 0.1]


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def live(tiny, seconds):
    """Bytes by which the resident memory of the last third is over that of the first, the warm-up left out."""
    model = slots_of(tiny, slots=8, threads=1)  # the other core is for the tests beside it
    places = [tensor.data_ptr() for tensor in (model.gpt._cache, model._state.hiddens)]
    crowd = Crowd(seconds)
    Engine(crowd, model).run()
    assert places == [tensor.data_ptr() for tensor in (model.gpt._cache, model._state.hiddens)]
    assert min(crowd.ended.values()) > 10, crowd.ended
    assert len(crowd.resident) > 10
    third = len(crowd.resident) // 3
    before, after = median(crowd.resident[:third]), median(crowd.resident[-third:])
    sizes = f"{before / 2**20:.0f} MiB, grown by {(after - before) / 2**20:.1f}"
    print(f"{seconds} s: rows {crowd.ended}, {sizes}, peak {(max(crowd.resident) - before) / 2**20:.1f}")
    return after - before


def test_memory_stays_for_three_minutes(tiny):
    assert live(tiny, 180) <= 20 * 2**20


@pytest.mark.long
def test_memory_stays_for_ten_minutes(tiny):
    assert live(tiny, 600) <= 20 * 2**20
