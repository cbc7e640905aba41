"""The engine process: one Python thread, one visible loop, a batch at a time. Knows no HTTP and no text.

    receive -> plan (pure) -> speak -> send what has credit -> report

Cancels and deadlines are honoured while a row waits and, through the model's step filter, at the next decode step;
the batch goes on for its other rows. Audio is there when the whole batch is done, and is sent in chunks of at most a
second as far as credit allows. (Continuous batching will replace this inside; the messages stay.)
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from chattts_server import logs
from chattts_server.engine import scheduler
from chattts_server.engine.checkpoint import CannotServe
from chattts_server.engine.nouns import (
    SAMPLE_RATE,
    Cancel,
    Credit,
    Drain,
    EncodedVoice,
    EncodeVoice,
    Fail,
    Finish,
    Heartbeat,
    StepReport,
    Submit,
    ToEngine,
)
from chattts_server.engine.outbox import Outbox
from chattts_server.engine.scheduler import Row
from chattts_server.engine.speech_model import SpeechModel, Spoken
from chattts_server.engine.wire import EnginePort

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: restarting cannot help
HEARTBEAT_SECONDS = 0.5
log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    logs.set_up(options.log_format)
    began = time.monotonic()
    port = EnginePort(options.socket)
    try:
        from chattts_server.engine import cold_start  # imports torch: the first phase of the cold start

        model, hello = cold_start.run(port.send, options, began)
        port.send(hello)
        Engine(port, model, hello.rows).run()
    except CannotServe as error:
        print(f"chattts-server: {error}", file=sys.stderr, flush=True)
        return EXIT_CONFIG
    except (EOFError, ConnectionError):
        return 0  # the HTTP process is gone: there is nobody to work for
    finally:
        port.close()
    return 0


class Engine:
    """Rows in, chunks out, until Drain or the end of the socket."""

    def __init__(
        self, port: EnginePort, model: SpeechModel, max_rows: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._port = port
        self._model = model
        self._max_rows = max_rows
        self._clock = clock
        self._waiting: list[Row] = []
        self._running: list[Row] = []
        self._voices: list[EncodeVoice] = []
        self._outbox = Outbox(port.send)
        self._draining = False
        self._last_heartbeat = 0.0

    def run(self) -> None:
        idle = False
        while not (self._draining and idle and self._outbox.empty):
            self._receive(HEARTBEAT_SECONDS if idle else 0.0)
            plan = scheduler.plan(self._waiting, self._clock(), self._max_rows)
            self._waiting = plan.waiting
            for row in plan.expired:
                self._port.send(Fail(row.submit.id, "deadline", "its deadline passed while it waited"))
            if plan.batch:
                self._run_batch(plan.batch)
            elif self._voices:
                self._encode_voice(self._voices.pop(0))
            idle = not plan.batch and not self._voices

    def _run_batch(self, rows: list[Row]) -> None:
        started = self._clock()
        waiting = len(self._waiting)
        self._running = rows
        spoken, step_seconds = self._speak_isolated(rows)
        for row, result in zip(rows, spoken, strict=True):
            if result is None or row.cancelled:
                continue
            if scheduler.is_expired(row, self._clock()):
                self._port.send(Fail(row.submit.id, "deadline", "its deadline passed while it was spoken"))
                continue
            finish = Finish(row.submit.id, result.reason, 0, result.steps, started - row.arrived)
            self._outbox.add(row.submit.id, result.pcm, row.credit, finish)
        self._running = []
        done = [result for result in spoken if result is not None]
        self._port.send(
            StepReport(
                rows=len(rows), steps=max((result.steps for result in done), default=0), step_seconds=step_seconds,
                busy_seconds=self._clock() - started, waiting_rows=waiting,
                audio_seconds=sum(len(result.pcm) for result in done) / SAMPLE_RATE,
                memory_bytes={"resident": _resident_bytes(), **self._model.memory_bytes()},
            )
        )  # fmt: skip

    def _speak_isolated(self, rows: list[Row]) -> tuple[list[Spoken | None], float]:
        """A bad row fails alone: what can be seen is refused first, and after an exception each row runs alone."""
        good: list[Row] = []
        for row in rows:
            problem = self._model.problem(row.submit)
            if problem is None:
                good.append(row)
            else:
                self._port.send(Fail(row.submit.id, "invalid", problem))
        began = self._clock()
        results: dict[int, Spoken] = {}
        try:
            results = self._speak(good) if good else {}
        except (RuntimeError, ArithmeticError, ValueError, IndexError) as error:
            log.warning("batch failed, rows are tried alone", extra={"rows": len(good), "error": type(error).__name__})
            results = self._one_by_one(good)
        return [results.get(row.submit.id) for row in rows], self._clock() - began

    def _one_by_one(self, rows: list[Row]) -> dict[int, Spoken]:
        results: dict[int, Spoken] = {}
        for row in rows:
            try:
                results |= self._speak([row])
            except (RuntimeError, ArithmeticError, ValueError, IndexError) as error:
                log.exception("a row failed alone")
                self._port.send(Fail(row.submit.id, "engine", type(error).__name__))
        return results

    def _speak(self, rows: list[Row]) -> dict[int, Spoken]:
        def on_step(_: int) -> frozenset[int]:
            self._receive(0.0)
            now = self._clock()
            gone = (row.cancelled or scheduler.is_expired(row, now) for row in rows)
            return frozenset(index for index, stop in enumerate(gone) if stop)

        spoken = self._model.speak([row.submit for row in rows], on_step)
        return {row.submit.id: result for row, result in zip(rows, spoken, strict=True)}

    def _encode_voice(self, request: EncodeVoice) -> None:
        try:
            pcm = np.frombuffer(request.pcm, "<f4").copy()
            self._port.send(EncodedVoice(request.id, self._model.encode_voice(pcm)))
        except (RuntimeError, ArithmeticError, ValueError) as error:
            log.exception("a voice could not be encoded")
            self._port.send(Fail(request.id, "invalid", type(error).__name__))

    def _receive(self, wait_seconds: float) -> None:
        for message in self._port.receive(wait_seconds):
            self._take(message)
        now = self._clock()
        if now - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            self._port.send(Heartbeat(now))

    def _take(self, message: ToEngine) -> None:
        match message:
            case Submit():
                self._waiting.append(Row(message, self._clock(), message.credit))
            case Credit(id=row_id, samples=samples):
                for row in (*self._waiting, *self._running):
                    if row.submit.id == row_id:
                        row.credit += samples
                self._outbox.credit(row_id, samples)
            case Cancel(id=row_id):
                for row in (*self._waiting, *self._running):
                    row.cancelled = row.cancelled or row.submit.id == row_id
                self._outbox.drop(row_id)
            case EncodeVoice():
                self._voices.append(message)
            case Drain():
                self._draining = True


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chattts_server.engine.process", description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), required=True)
    parser.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"), required=True)
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    parser.add_argument("--rows", type=int, default=None, help="rows of a batch; default: the engine chooses")
    return parser.parse_args(argv)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    faulthandler.enable()  # the watchdog ends a hung engine with SIGABRT: the stack goes to the log
    sys.exit(main())
