"""The engine process: one Python thread, one visible loop, rows joining and leaving at every step. Knows no HTTP.

    receive -> plan (pure) -> leave -> join -> prefill -> step -> vocode -> send what has credit -> report

A row that is cancelled or whose deadline has passed is gone before the next step; its slot goes to the next row.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

from chattts_server import logs
from chattts_server.engine import scheduler
from chattts_server.engine.checkpoint import CannotServe, Verification, open_checkpoint
from chattts_server.engine.nouns import (
    DTYPES,
    Cancel,
    Credit,
    Drain,
    EncodedVoice,
    EncodeVoice,
    Fail,
    FailKind,
    Finish,
    FromEngine,
    Heartbeat,
    Refined,
    RowPhase,
    Submit,
    ToEngine,
)
from chattts_server.engine.outbox import Outbox
from chattts_server.engine.scheduler import Plan, Row
from chattts_server.engine.speech_model import DeviceLost, Outcome, Piece, SpeechModel
from chattts_server.engine.tally import Tally
from chattts_server.engine.voice_queue import VoiceQueue
from chattts_server.engine.wire import EnginePort

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: restarting cannot help
EXIT_DEVICE_LOST = 74  # EX_IOERR
HEARTBEAT_SECONDS = 0.5
# Out of memory is a RuntimeError of torch, and a MemoryError of numpy.
ROW_ERRORS = (RuntimeError, MemoryError, ArithmeticError, ValueError, IndexError)
log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    logs.set_up(options.log_format)
    began = time.monotonic()
    port = EnginePort(options.socket)
    try:
        checkpoint = open_checkpoint(Path(options.model))
        verification = Verification(checkpoint)  # beside the import of torch and the load
        from chattts_server.engine import cold_start  # imports torch: the first phase of the cold start

        model, hello = cold_start.run(port.send, options, checkpoint, verification, began)
        port.send(hello)
        cold_start.settle(model)
        Engine(port, model, prepare_voices=_import_voice_encoder).run()
    except CannotServe as error:
        print(f"chattts-server: {error}", file=sys.stderr, flush=True)
        return EXIT_CONFIG
    except (EOFError, ConnectionError):
        return 0  # the HTTP process is gone: there is nobody to work for
    except DeviceLost as error:
        abandon(error)
    finally:
        port.close()
    return 0


def abandon(error: DeviceLost) -> NoReturn:
    """Ends the process here and now: whatever tidies up at an exit could wait for the lost device for ever."""
    log.critical("the device is lost", exc_info=error)
    logging.shutdown()
    os._exit(EXIT_DEVICE_LOST)


class Port(Protocol):
    """The other process. EnginePort in earnest; a benchmark has the loop without the socket."""

    def send(self, message: FromEngine) -> None: ...

    def receive(self, wait_seconds: float = 0.0) -> list[ToEngine]:
        """EOFError: nobody is there any more."""
        ...


class Engine:
    """Rows in, chunks out, until Drain or the end of the socket."""

    def __init__(
        self,
        port: Port,
        model: SpeechModel,
        clock: Callable[[], float] = time.monotonic,
        fresh_seed: Callable[[], int] = lambda: random.getrandbits(63),
        prepare_voices: Callable[[], None] = lambda: None,
    ) -> None:
        """`prepare_voices`: what the first encode_voice would wait for; called in a thread when one is asked for."""
        self._port = port
        self._model = model
        self._clock = clock
        self._fresh_seed = fresh_seed
        self._rows: dict[int, Row] = {}  # in order of arrival
        self._free = list(range(model.slots))
        self._voices = VoiceQueue(prepare_voices)
        self._outbox = Outbox(port.send)
        self._tally = Tally(port.send, clock, model.memory_bytes)
        self._launched: deque[list[tuple[Row, int]]] = deque()  # rows of steps not heard of yet, with their tries
        self._draining = False
        self._last_heartbeat = 0.0

    def run(self) -> None:
        idle = False
        while not (self._draining and not self._rows and not self._voices):
            self._receive(HEARTBEAT_SECONDS if idle else 0.0)
            idle = not self._turn()
        self._tally.turn(0.0, 0, final=True)

    def _turn(self) -> bool:
        """Once through the loop; False when there was nothing to do."""
        began = self._clock()
        plan = scheduler.plan(self._rows.values(), began, self._free)
        self._leave(plan)
        for row, slot in plan.joining:
            self._isolated([row], lambda rows, slot=slot: self._join(rows[0], slot))  # type: ignore[misc]
        for row in plan.prefilling:
            self._isolated([row], self._prefill)
        heard = self._step(plan.stepping)
        sounding = [row for row in self._rows.values() if scheduler.wants_sound(row)]
        self._vocode(sounding)
        worked = bool(plan.joining or plan.prefilling or plan.stepping or heard or sounding)
        if (request := self._voices.take(began, idle=not worked)) is not None:
            self._encode_voice(request)
            worked = True
        waiting = sum(row.waits and row.credit > 0 for row in self._rows.values())
        self._tally.turn(self._clock() - began if worked else 0.0, waiting, final=not worked)
        return worked

    def _leave(self, plan: Plan) -> None:
        for row in plan.gone:
            self._forget(row)
        for row in plan.expired:
            self._fail(row, "deadline", "its deadline passed", scheduler.phase_of(row))

    def _join(self, row: Row, slot: int) -> None:
        problem = self._model.problem(row.submit)
        if problem is not None:
            self._fail(row, "invalid", problem)
            return
        seed, began = row.submit.sampling.seed, self._clock()
        row.seed = self._fresh_seed() if seed is None else seed
        row.prefills_left = self._model.join(slot, row.submit, row.seed)
        self._free.remove(slot)  # when it raises, the slot is as free as it was
        row.slot, row.joined = slot, began

    def _prefill(self, rows: list[Row]) -> None:
        for row in rows:
            self._model.prefill(_slot(row))
            row.prefills_left -= 1
            row.prefilled = self._clock()

    def _step(self, rows: list[Row]) -> bool:
        """A step of these rows, and what came of steps before it: on a device the next runs while we hear of the last.

        True: something was heard.
        """
        began = self._clock()
        self._isolated(rows, self._launch)
        heard = False
        while len(self._launched) > (self._model.late if rows else 0):
            heard = True
            for (row, retries), outcome in zip(self._launched.popleft(), self._model.outcomes(), strict=True):
                if row.slot is not None and row.decoded is None and row.retries == retries:  # it still wants this step
                    self._take_step(row, outcome)
        if rows:
            self._tally.step(len(rows), self._clock() - began)
        return heard

    def _launch(self, rows: list[Row]) -> None:
        self._model.launch([_slot(row) for row in rows])
        self._launched.append([(row, row.retries) for row in rows])
        for row in rows:
            row.launched += 1

    def _take_step(self, row: Row, outcome: Outcome) -> None:
        if outcome == "broken":
            self._fail(row, "nan", "values that are not finite")
        elif outcome == "end" and row.steps == 0:
            self._isolated([row], self._retry)
        elif outcome == "end":
            row.decoded = "end"
        else:
            row.steps += 1
            if row.steps >= row.submit.limits.max_steps:
                row.decoded = "limit"
        if row.decoded and row.submit.stage == "text":
            self._port.send(Refined(row.submit.id, self._model.tokens(_slot(row), row.steps)))
            self._forget(row)

    def _retry(self, rows: list[Row]) -> None:
        """A row that ended before it began: other noise may speak it. Its mates have their step and notice nothing."""
        for row in rows:
            if row.retries == scheduler.MAX_RETRIES:
                self._fail(row, "empty", f"no audio after {row.retries} retries")
                continue
            self._model.retry(_slot(row), scheduler.retry_seed(row.seed, row.retries + 1))
            row.retries += 1
            row.launched = 0

    def _vocode(self, rows: list[Row]) -> None:
        """All together; after a failure each row alone and from its start, as its place in the vocoder is not known."""
        if not rows:
            return
        began = self._clock()
        pieces = [Piece(_slot(row), row.vocoded, row.steps, row.decoded is not None) for row in rows]
        waves: list[np.ndarray] | None = None
        try:
            waves = self._model.vocode(pieces)
        except ROW_ERRORS as error:
            log.warning("vocoding failed, rows are tried alone", extra={"rows": len(rows), "error": repr(error)})
        if waves is None:  # outside of `except`: the error holds on to the memory of what failed
            for row in rows:
                self._isolated([row], self._vocode_again)
                self._receive(0.0)  # a long way from the start of each row: let the other side know that we live
            return
        seconds = self._clock() - began
        for row, wave in zip(rows, waves, strict=True):
            row.vocode_seconds += seconds
            self._take_sound(row, wave)

    def _vocode_again(self, rows: list[Row]) -> None:
        for row in rows:
            self._model.rewind(_slot(row))
            (wave,) = self._model.vocode([Piece(_slot(row), 0, row.steps, row.decoded is not None)])
            self._take_sound(row, wave[row.samples :])

    def _take_sound(self, row: Row, wave: np.ndarray) -> None:
        if scheduler.is_expired(row, self._clock()):
            self._fail(row, "deadline", "its deadline passed", "vocode")
            return
        row.vocoded = row.steps
        row.chunks += 1
        row.samples += len(wave)
        if row.decoded is None:
            self._outbox.add(row, wave)
        else:
            self._end(row, wave)

    def _end(self, row: Row, wave: np.ndarray) -> None:
        """The row's last sound: its slot is free, also when its reader is slow."""
        assert row.joined is not None
        assert row.decoded is not None
        self._vacate(row)
        prefilled = row.joined if row.prefilled is None else row.prefilled
        spoken = self._clock() - prefilled - row.vocode_seconds
        times = (row.joined - row.arrived, prefilled - row.joined, spoken, row.vocode_seconds)
        finish = Finish(row.submit.id, row.decoded, row.retries, row.steps, *times)
        if self._outbox.add(row, wave, finish):
            del self._rows[row.submit.id]

    def _isolated(self, rows: list[Row], act: Callable[[list[Row]], None], again: bool = True) -> None:
        """Halves what fails until the bad row is alone: tried once more, it fails, and the others go on.

        `act` can be repeated after it has raised; not so after values that are not finite, which would only come again.
        """
        if not rows:
            return
        try:
            act(rows)
            return
        except ROW_ERRORS as error:
            not_finite = isinstance(error, FloatingPointError)
            if len(rows) == 1 and (not_finite or not again):
                log.exception("a row failed alone")
                self._fail(rows[0], "nan" if not_finite else "engine", type(error).__name__)
                return
            log.warning("rows failed, fewer are tried", extra={"rows": len(rows), "error": repr(error)})
        # Outside of `except`: the error holds on to the memory of what failed.
        if len(rows) == 1:
            self._isolated(rows, act, again=False)
            return
        half = len(rows) // 2
        self._isolated(rows[:half], act)
        self._isolated(rows[half:], act)

    def _fail(self, row: Row, kind: FailKind, message: str, phase: RowPhase | None = None) -> None:
        self._port.send(Fail(row.submit.id, kind, message, phase))
        self._forget(row)

    def _forget(self, row: Row) -> None:
        self._vacate(row)
        self._outbox.drop(row)
        self._rows.pop(row.submit.id, None)

    def _vacate(self, row: Row) -> None:
        if row.slot is not None:
            self._free.append(row.slot)
            row.slot = None

    def _encode_voice(self, request: EncodeVoice) -> None:
        try:
            pcm = np.frombuffer(request.pcm, "<f4").copy()
            self._port.send(EncodedVoice(request.id, self._model.encode_voice(pcm)))
        except (*ROW_ERRORS, ImportError) as error:
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
            case Submit(id=row_id):
                self._rows[row_id] = Row(message, self._clock(), message.credit)
            case Credit(id=row_id, samples=samples):
                if (row := self._rows.get(row_id)) is not None:
                    row.credit += samples
                    if self._outbox.flush(row):
                        del self._rows[row_id]
            case Cancel(id=row_id):
                if (row := self._rows.get(row_id)) is not None:
                    row.cancelled = True
            case EncodeVoice():
                self._voices.add(message, self._clock())
            case Drain():
                self._draining = True


def _import_voice_encoder() -> None:
    """ChatTTS's package takes seconds to import, and a loop that stands still for so long looks as if it hung."""
    from chattts_server.engine import voice_encoder  # noqa: F401


def _slot(row: Row) -> int:
    assert row.slot is not None
    return row.slot


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chattts_server.engine.process", description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), required=True)
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    parser.add_argument("--rows", type=int, default=None, help="rows of a batch; default: the engine chooses")
    return parser.parse_args(argv)


if __name__ == "__main__":
    faulthandler.enable()  # the watchdog ends a hung engine with SIGABRT: the stack goes to the log
    sys.exit(main())
