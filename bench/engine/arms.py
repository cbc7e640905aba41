"""The arms that are compared. Each takes requests and says when their audio was there; all of them end in PCM.

Lengths are forced: a random checkpoint's rows end at their limit, so every arm makes the same audio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from chattts_server.engine.native import exactly
from chattts_server.engine.nouns import (
    UNLIMITED_CREDIT,
    Chunk,
    Drain,
    Fail,
    FromEngine,
    Limits,
    Sampling,
    Submit,
    ToEngine,
    Voice,
)
from chattts_server.engine.precision import Precision
from chattts_server.engine.process import Engine
from chattts_server.engine.slots import Slots
from chattts_server.text.tokens import PromptTokenizer

LISTENER = UNLIMITED_CREDIT >> 8  # never used up, yet a reader who wants chunks as they come
BATCH_ROWS, BATCH_WAIT_SECONDS = 8, 0.080  # of the recipe's batcher


@dataclass(frozen=True, slots=True)
class Request:
    number: int
    text: str
    steps: int
    at: float  # seconds after the start of the run; 0 for all: saturated


@dataclass(slots=True)
class Heard:
    """Seconds after the start of the run."""

    request: Request
    chunks: list[tuple[float, int]]  # (when, samples)

    @property
    def first(self) -> float:
        return self.chunks[0][0] - self.request.at

    @property
    def end(self) -> float:
        return self.chunks[-1][0]


class Arm(Protocol):
    name: str

    def run(self, requests: Sequence[Request]) -> list[Heard]: ...


class Ours:
    """The engine's own loop; only the socket is left out."""

    def __init__(self, name: str, precision: Precision, model: Slots, checkpoint: Path, streamed: bool) -> None:
        self.name = name
        self.precision = precision
        self.model = model
        self._prompt = PromptTokenizer(checkpoint).prompt
        self._credit = LISTENER if streamed else UNLIMITED_CREDIT

    def run(self, requests: Sequence[Request]) -> list[Heard]:
        port = _Port([(request, self._submit(request)) for request in requests])
        Engine(port, self.model).run()
        return port.heard

    def _submit(self, request: Request) -> Submit:
        limits = Limits(request.steps, request.steps)
        sampling = Sampling(seed=request.number)
        return Submit(request.number, self._prompt(request.text), Voice(), sampling, limits, None, self._credit)


class _Port:
    """Requests come when they are due; at the end the engine is told to drain."""

    def __init__(self, requests: Sequence[tuple[Request, Submit]]) -> None:
        self._coming = sorted(requests, key=lambda pair: pair[0].at)
        self._drained = False
        self._began = time.perf_counter()
        self._by_id = {request.number: Heard(request, []) for request, _ in requests}

    @property
    def heard(self) -> list[Heard]:
        return list(self._by_id.values())

    def receive(self, wait_seconds: float = 0.0) -> list[ToEngine]:
        now = time.perf_counter() - self._began
        if wait_seconds and self._coming and self._coming[0][0].at > now:
            time.sleep(min(wait_seconds, self._coming[0][0].at - now))
            now = time.perf_counter() - self._began
        due = [submit for request, submit in self._coming if request.at <= now]
        self._coming = self._coming[len(due) :]
        if self._coming or self._drained:
            return list(due)
        self._drained = True
        return [*due, Drain()]

    def send(self, message: FromEngine) -> None:
        if isinstance(message, Chunk):
            now = time.perf_counter() - self._began
            self._by_id[message.id].chunks.append((now, len(message.pcm) // 4))
        elif isinstance(message, Fail):
            raise RuntimeError(f"request {message.id} failed: {message.message}")


class NativeBatcher:
    """What a user would write around Chat: up to 8 requests, waited for 80 ms, run until the longest row ends."""

    def __init__(self, chat: Any) -> None:
        self.name = "native behind a batcher of 8 / 80 ms"
        self._chat = chat

    def run(self, requests: Sequence[Request]) -> list[Heard]:
        began = time.perf_counter()
        coming = sorted(requests, key=lambda request: request.at)
        heard = []
        while coming:
            batch = self._gather(coming, began)
            coming = coming[len(batch) :]
            waves = self._speak(batch)
            now = time.perf_counter() - began
            heard += [Heard(request, [(now, len(wave))]) for request, wave in zip(batch, waves, strict=True)]
        return heard

    def _gather(self, coming: Sequence[Request], began: float) -> Sequence[Request]:
        def now() -> float:
            return time.perf_counter() - began

        time.sleep(max(0.0, coming[0].at - now()))
        until = now() + BATCH_WAIT_SECONDS
        while True:
            there = [request for request in coming[:BATCH_ROWS] if request.at <= now()]
            if len(there) == min(BATCH_ROWS, len(coming)) or now() >= until:
                return there
            time.sleep(0.002)

    def _speak(self, batch: Sequence[Request]) -> list[Any]:
        """Each row's own hidden states are vocoded, once."""
        longest = max(request.steps for request in batch)
        made = next(self._chat._infer_code([r.text for r in batch], False, self._chat.device, True, exactly(longest)))
        hiddens = [hidden[: request.steps] for hidden, request in zip(made.hiddens, batch, strict=True)]
        return list(self._chat._decode_to_wavs(hiddens, True))


class NativeStream:
    """Chat.infer as shipped, streaming, one request after the other."""

    def __init__(self, chat: Any) -> None:
        self.name = "native streaming"
        self._chat = chat

    def run(self, requests: Sequence[Request]) -> list[Heard]:
        began = time.perf_counter()
        heard = []
        for request in sorted(requests, key=lambda request: request.at):
            time.sleep(max(0.0, request.at - (time.perf_counter() - began)))
            chunks = []
            for waves in self._chat.infer(
                [request.text], stream=True, skip_refine_text=True, do_text_normalization=False,
                do_homophone_replacement=False, split_text=False, params_infer_code=exactly(request.steps),
            ):  # fmt: skip
                chunks.append((time.perf_counter() - began, sum(len(wave) for wave in waves)))
            heard.append(Heard(request, chunks))
        return heard


def seconds_per_step(one_row: Callable[[int], object], steps: int) -> float:
    """Of a row alone: the difference of two lengths, so that the prompt and the start cancel out."""
    began = time.perf_counter()
    one_row(steps // 4)
    middle = time.perf_counter()
    one_row(steps)
    return ((time.perf_counter() - middle) - (middle - began)) / (steps - steps // 4)
