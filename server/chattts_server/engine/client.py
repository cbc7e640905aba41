"""The asyncio side of the engine: starts and restarts it, submits rows, hands out audio. Knows no HTTP, no torch."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from chattts_server.engine import wire
from chattts_server.engine.nouns import (
    PROTOCOL,
    UNLIMITED_CREDIT,
    Cancel,
    Chunk,
    Drain,
    EncodedVoice,
    EncodeVoice,
    Fail,
    Finish,
    FromEngine,
    Heartbeat,
    Hello,
    Limits,
    Phase,
    Refined,
    Sampling,
    StepReport,
    Submit,
    ToEngine,
    Voice,
)
from chattts_server.engine.row_stream import Item, RowStream
from chattts_server.engine.threads import cpu_threads, thread_environment
from chattts_server.errors import DeadlinePassed, EngineFailure, InvalidRequest, NotReady, ServerError

EXIT_CONFIG = 78
MAX_RESTARTS, RESTART_WINDOW_SECONDS = 3, 600.0
RESTART_PAUSE_SECONDS = 1.0  # when the system refuses to start a process
LAST_WORDS_SECONDS = 5.0
START_SECONDS = 1800.0  # a network file system may need minutes for a gigabyte
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """What is started. `--socket PATH` is appended."""

    argv: Sequence[str]
    watchdog_seconds: float  # without any message for so long the engine counts as hung

    @staticmethod
    def of(model: Path, device: str, dtype: str, rows: int | None, log_format: str) -> EngineCommand:
        argv = [sys.executable, "-m", "chattts_server.engine.process", "--model", str(model), "--device", device]
        argv += ["--dtype", dtype, "--log-format", log_format, *(["--rows", str(rows)] if rows else [])]
        # One honest prefill or vocoder pass of a large batch may take long on a fraction of a core.
        return EngineCommand(argv, watchdog_seconds=60.0 if device == "cpu" else 10.0)


class EngineClient:
    """Owns the engine process. `on_fatal` gets the exit code when there can be no engine any more."""

    def __init__(
        self,
        command: EngineCommand,
        on_report: Callable[[StepReport | Phase | Fail], None] = lambda _: None,
        on_hello: Callable[[Hello], None] = lambda _: None,
        on_fatal: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hello: Hello | None = None  # None: starting, or between two engines
        self.started_once = False
        self._command = command
        self._on_report = on_report
        self._on_hello = on_hello
        self._on_fatal = on_fatal
        self.clock = clock
        self._ids = itertools.count(1)
        self._rows: dict[int, RowStream] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}  # to what is not a row of speech
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._last_message = 0.0
        self._deaths: deque[float] = deque()
        self._stopping = False
        self._supervisor: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()

    @property
    def heartbeat_age(self) -> float | None:
        """Seconds since the engine's last message; None while there is no engine."""
        return None if self.hello is None else self.clock() - self._last_message

    @property
    def open_rows(self) -> int:
        """Rows of speech that are submitted and neither finished nor given up."""
        return len(self._rows)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns at once; `ready` is set when the engine has said Hello."""
        self._supervisor = asyncio.create_task(self._supervise(), name="engine supervisor")
        self._supervisor.add_done_callback(self._supervisor_ended)

    async def stop(self, drain_seconds: float = 5.0) -> None:
        """Lets the engine finish its rows, then ends it; kills it when it takes longer."""
        self._stopping = True
        self.send(Drain())
        process = self._process
        if process is not None and process.returncode is None:
            try:
                await asyncio.wait_for(process.wait(), drain_seconds if self.hello else 0.1)
            except TimeoutError:
                _signal(process, signal.SIGKILL)
        if self._supervisor is not None:
            await asyncio.wait({self._supervisor}, timeout=2.0)
            self._supervisor.cancel()  # kills an engine that was just being started
            await asyncio.gather(self._supervisor, return_exceptions=True)

    def submit(
        self,
        token_ids: list[int],
        voice: Voice,
        sampling: Sampling,
        limits: Limits,
        deadline: float | None,
        credit: int,
        window: bool = False,
        on_item: Callable[[Item], None] = lambda _: None,
    ) -> RowStream:
        """Raises NotReady when there is no engine. With `window` the credit is renewed as chunks are read.

        `on_item` hears what comes for the row when it comes, before anybody reads it."""
        self._require_engine()
        row = RowStream(next(self._ids), window, credit, self.send, self._forget, self.clock, on_item)
        self._rows[row.id] = row
        self.send(Submit(row.id, token_ids, voice, sampling, limits, deadline, credit))
        return row

    async def encode_voice(self, pcm: bytes) -> bytes:
        """Reference audio (float32, 24 kHz) -> audio codes (uint16, 4 x n)."""
        answer: bytes = await self._ask(EncodeVoice(next(self._ids), pcm))
        return answer

    async def refine(
        self, token_ids: list[int], sampling: Sampling, limits: Limits, deadline: float | None
    ) -> list[int]:
        """The text stage: a prompt `[Sbreak]TEXT[Pbreak]MARKS` -> token ids. Raises as `submit` and its rows do."""
        row = Submit(next(self._ids), token_ids, Voice(), sampling, limits, deadline, UNLIMITED_CREDIT, stage="text")
        answer: list[int] = await self._ask(row)
        return answer

    async def _ask(self, request: EncodeVoice | Submit) -> Any:
        self._require_engine()
        self._answers[request.id] = asyncio.get_running_loop().create_future()
        self.send(request)
        try:
            return await self._answers[request.id]
        except asyncio.CancelledError:
            self.send(Cancel(request.id))
            raise
        finally:
            self._answers.pop(request.id, None)

    def _answer(self, request_id: int, result: bytes | list[int] | ServerError) -> None:
        answer = self._answers.get(request_id)
        if answer is None or answer.done():
            return
        if isinstance(result, ServerError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _forget(self, row_id: int) -> None:
        if self._rows.pop(row_id, None) is not None:
            self.send(Cancel(row_id))

    def send(self, message: ToEngine) -> None:
        """Never waits: rows and credits are small, and admission bounds how many there are."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.pack(message))

    def _require_engine(self) -> None:
        if self.hello is None or self._writer is None:
            raise NotReady("the speech engine is not ready", code="not_ready", retry_after=1)

    async def _supervise(self) -> None:
        while True:
            code = await self._live_once()
            if self._stopping:
                return
            now = self.clock()
            self._deaths.append(now)
            while self._deaths[0] < now - RESTART_WINDOW_SECONDS:
                self._deaths.popleft()
            hopeless = len(self._deaths) > MAX_RESTARTS
            log.error("engine ended", extra={"exit_code": code, "deaths": len(self._deaths), "hopeless": hopeless})
            if code == EXIT_CONFIG or hopeless:
                self._on_fatal(EXIT_CONFIG if code == EXIT_CONFIG else 1)
                return

    def _supervisor_ended(self, task: asyncio.Task[None]) -> None:
        """Without a supervisor the probes would call a server alive that can never speak again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the engine's supervisor failed", exc_info=error)
            self._on_fatal(1)

    async def _live_once(self) -> int:
        """The exit code; an engine that could not even be started has died, too."""
        try:
            return await self._run_once()
        except OSError:
            log.exception("the engine cannot be started")
            await asyncio.sleep(RESTART_PAUSE_SECONDS)  # memory or files may be free again
            return 1

    async def _run_once(self) -> int:
        """One life of the engine, from its start to its end; returns the exit code."""
        connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chattts-"))  # mode 0700
            path = str(Path(folder) / "engine.sock")
            await stack.enter_async_context(
                await asyncio.start_unix_server(lambda *pair: connected.put_nowait(pair), sock=_private(path))
            )
            process = self._process = await self._spawn(path)
            ended = asyncio.create_task(process.wait())
            conversation = asyncio.create_task(self._converse(connected))
            watchdog = asyncio.create_task(self._watch(process))
            try:
                await asyncio.wait({ended, conversation}, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    self._disconnected()
                elif self._writer is None:
                    conversation.cancel()  # it never began
                # The process follows its socket; or what it said before its end is still to be read.
                await asyncio.wait({ended, conversation}, timeout=LAST_WORDS_SECONDS)
            finally:
                for task in (watchdog, conversation):
                    task.cancel()
                await asyncio.gather(watchdog, conversation, return_exceptions=True)
                self._disconnected()
                _signal(process, signal.SIGKILL)
                await ended
            return ended.result()

    async def _spawn(self, path: str) -> asyncio.subprocess.Process:
        environment = {
            **thread_environment(cpu_threads()),
            "HF_HUB_OFFLINE": "1",
            "LOGNAME": "chattts",  # torch asks for the user's name, which a bare uid in a container has not
            **os.environ,
        }
        self._last_message = self.clock()
        return await asyncio.create_subprocess_exec(
            *self._command.argv, "--socket", path, env=environment, stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the HTTP process, which drains
        )  # fmt: skip

    async def _converse(self, connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        reader, self._writer = await connected.get()
        unpacker = wire.Unpacker(wire.from_engine)
        try:
            while (messages := await wire.read(reader, unpacker)) is not None:
                self._last_message = self.clock()
                for message in messages:
                    self._take(message)
        except (wire.WireError, ConnectionError) as error:
            log.error("the engine's messages end: %s", error)
        except Exception:  # a bug on this side: what the engine and its rows are now is not known
            log.exception("a message of the engine could not be taken")

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while True:
            limit = self._command.watchdog_seconds if self.hello else START_SECONDS
            await asyncio.sleep(min(1.0, limit / 4))
            if self.clock() - self._last_message > limit:
                log.error("engine hung", extra={"silent_seconds": limit})
                _signal(process, signal.SIGABRT)  # faulthandler writes the stack to the log
                await asyncio.sleep(1.0)
                _signal(process, signal.SIGKILL)
                return

    def _take(self, message: FromEngine) -> None:
        match message:
            case Chunk(id=row_id):
                if (row := self._rows.get(row_id)) is not None:
                    row.deliver(message)
            case Finish(id=row_id):
                if (row := self._rows.pop(row_id, None)) is not None:
                    row.deliver(message)
            case Fail(id=row_id):
                self._fail(row_id, message)
            case EncodedVoice(id=voice_id, codes=codes):
                self._answer(voice_id, codes)
            case Refined(id=row_id, token_ids=token_ids):
                self._answer(row_id, token_ids)
            case StepReport() | Phase():
                self._on_report(message)
            case Hello():
                self._greet(message)
            case Heartbeat():
                pass  # its arrival is its meaning

    def _greet(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise wire.WireError(f"the engine speaks protocol {hello.protocol}, this server {PROTOCOL}")
        self.hello = hello
        self.started_once = True
        self._on_hello(hello)
        self.ready.set()
        log.info("engine ready", extra={"engine": _described(hello)})

    def _fail(self, row_id: int, fail: Fail) -> None:
        error = _ERRORS[fail.kind]()
        if isinstance(error, DeadlinePassed) and fail.phase is not None:
            error.phase = fail.phase
        if fail.kind != "deadline":
            log.error("row failed", extra={"row": row_id, "kind": fail.kind, "reason": fail.message})
            self._on_report(fail)
        if (row := self._rows.pop(row_id, None)) is not None:
            row.deliver(error)
        self._answer(row_id, error)

    def _disconnected(self) -> None:
        self.hello = None
        self.ready.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for row in self._rows.values():
            row.deliver(_ERRORS["lost"]())
        self._rows.clear()
        for request_id in self._answers:
            self._answer(request_id, _ERRORS["lost"]())


_ERRORS: dict[str, Callable[[], ServerError]] = {
    "deadline": lambda: DeadlinePassed("the deadline passed before there was audio", code="deadline_exceeded"),
    "invalid": lambda: InvalidRequest("this text or voice cannot be spoken", code="unspeakable"),
    "engine": lambda: EngineFailure("the speech engine failed", code="engine_failed"),
    "nan": lambda: EngineFailure("the speech engine failed", code="engine_failed"),
    "empty": lambda: EngineFailure("the speech engine made no audio", code="no_audio"),
    # For all rows of an engine that has ended: with the next one, or on another server, they can be spoken.
    "lost": lambda: NotReady("the speech engine has ended and is started again", code="engine_lost", retry_after=2),
}


def _private(path: str) -> socket.socket:
    """A bound Unix socket that is 0600 from its first moment."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        bound.bind(path)
    finally:
        os.umask(old_mask)
    return bound


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        try:
            process.send_signal(number)
        except ProcessLookupError:
            pass  # it ended between the two lines


def _described(hello: Hello) -> dict[str, object]:
    wanted = ("rows", "max_steps", "device", "dtype", "digests", "rows_end", "throughput")
    return {key: value for key, value in msgspec.structs.asdict(hello).items() if key in wanted}
