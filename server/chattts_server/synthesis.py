"""The way of a request: normalise -> split -> tokens -> admit -> turn -> (text stage) -> engine. Knows no HTTP.

Everything that can be refused is refused before the first audio; metrics.observe() is called once at the end.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from chattts_server import metrics as events
from chattts_server.admission import Admission, Ask, Refusal, Throughput
from chattts_server.engine.client import EngineClient
from chattts_server.engine.nouns import (
    SAMPLE_RATE,
    STEPS_PER_SECOND,
    UNLIMITED_CREDIT,
    Chunk,
    Fail,
    Finish,
    Hello,
    Limits,
    Phase,
    Sampling,
    StepReport,
    Voice,
    samples_of,
    steps_for,
)
from chattts_server.engine.row_stream import Item, RowStream
from chattts_server.errors import (
    WHOLE_TOO_LONG,
    WHOLE_TOO_MUCH,
    ClientGone,
    DeadlinePassed,
    EngineFailure,
    InvalidRequest,
    NotReady,
    Overloaded,
)
from chattts_server.fair_queue import FairQueue, places_for
from chattts_server.metrics import Delivery, Metrics
from chattts_server.queued_row import QueuedRow
from chattts_server.text import tags
from chattts_server.text.language import Choice, Language, main_language
from chattts_server.text.lengths import Lengths
from chattts_server.text.normalizer import is_readable, normalize, prepare, pronounceable
from chattts_server.text.splitter import pause_after, split
from chattts_server.text.tokens import PromptTokenizer, Prosody
from chattts_server.tracing import Spans
from chattts_server.voices.codec import Speaker
from chattts_server.voices.store import Voices

STREAM_WINDOW_SAMPLES = 4 * SAMPLE_RATE  # a reader that stalls holds at most this much of us
# Trained rows end by themselves; this only stops one that does not.
LIMIT_FACTOR, LIMIT_SECONDS = 3.0, 3.0
INLINE_CHARACTERS = 200  # read at once in 3 ms at worst (docs/text.md); longer texts are read beside the event loop
MOST_READING = 100_000  # characters of long texts that may wait for it: 1.5 s at worst
# The text stage as ChatTTS samples it, and how many tokens it usually says for one that it reads.
REFINE_SAMPLING, REFINE_TOKENS, REFINE_GROWTH = Sampling(0.7, 0.7, 20, repetition_penalty=1.0), 384, 1.3
ENGINE_SAYS_SECONDS = 0.5  # the engine knows in which phase a deadline has passed, and says so after its step
BEHIND_SECONDS = 0.05  # a player has at least so much in its own buffer
ASK_FOR_A_STREAM = 'ask for a stream (POST /v1/audio/speech with "stream_format": "audio")'
MAX_PAUSE_SHARE = 0.25  # of `max_seconds`; where pauses would take more, there are none


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a client asked for, in range. Filled by api/."""

    text: str
    voice: str
    sampling: Sampling
    max_seconds: float | None
    delivery: Delivery  # how its latency is counted
    streamed: bool  # sent while it is made, as fast as it is read; False: wanted whole
    arrived: float  # monotonic
    connected: float  # monotonic; when its connection was opened
    deadline: float  # monotonic; to the first audio
    language: Choice = "auto"
    prosody: Prosody | None = None  # None: no text stage
    whole_seconds: float = math.inf  # of the model's audio: more of it is not made whole
    caller: str = ""  # name of its API key
    fingerprint: int = 0  # of the request: the same one, sent again, has the same
    spans: Spans = field(default_factory=Spans)  # gets where the time went


@dataclass(frozen=True, slots=True)
class Piece:
    """One row to be. Filled by Synthesis._pieces."""

    text: str
    language: Language
    token_ids: list[int]
    seconds: float  # predicted
    limits: Limits
    pause: float = 0.0  # seconds of silence before the next piece
    refining: Refining | None = None  # None: spoken as it is


@dataclass(frozen=True, slots=True)
class Refining:
    """The text stage of a piece: its own row, whose answer is spoken. Filled by Synthesis._pieces."""

    token_ids: list[int]
    limits: Limits
    seconds: float  # of audio that its steps could have made
    reference: str | None  # what the voice's recording says


class Synthesis:
    def __init__(
        self,
        engine: EngineClient,
        tokenizer: PromptTokenizer,
        admission: Admission,
        metrics: Metrics,
        voices: Voices,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.engine = engine
        self.admission = admission
        self.metrics = metrics
        self.clock = clock
        self.queue = FairQueue(0)  # no places before the engine's Hello
        self.lengths = Lengths()
        self.draining_since: float | None = None  # monotonic; set by serve.py
        self.drain_begun = asyncio.Event()  # set by serve.py: for those who wait for it
        self._tokenizer = tokenizer
        self._voices = voices
        self._jitter = jitter
        # One thread: Python runs one at a time anyway, and the event loop then waits for one and not for many.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._reader.submit(prepare)
        self._reading = 0  # characters that wait for it or are in it

    async def speak(self, utterance: Utterance) -> Speech:
        """Returns when the first audio is there; the caller must close the Speech. Raises the errors of errors.py."""
        try:
            hello = self.require_ready(utterance.connected)
            speaker = self._voices.resolve(utterance.voice, hello)  # an unknown voice costs nothing further
            pieces, dropped = await self._read(utterance, speaker, hello)
            _require_bounded(utterance, pieces)
            ticket = self._admit(utterance, sum(piece.seconds + _refining_seconds(piece) for piece in pieces))
        except InvalidRequest:
            self.metrics.observe(events.Invalid())
            raise
        self.metrics.observe(events.Accepted(dropped))
        speech = Speech(self, utterance, pieces, speaker.voice, ticket, dropped)
        try:
            await speech.begin()
        except BaseException as error:
            speech.close(error)
            raise
        return speech

    def take_report(self, report: StepReport | Phase | Fail) -> None:
        """For EngineClient.on_report: what the engine did teaches admission and the metrics."""
        self.metrics.observe(report)
        if isinstance(report, StepReport) and self.admission.throughput is not None:
            self.admission.throughput.learn(report)

    def learn(self, piece: Piece, finish: Finish) -> None:
        """How long a text really sounded. A random row's length says nothing of its text, nor does a refined one's."""
        if self.engine.hello is not None and self.engine.hello.rows_end and piece.refining is None:
            seconds, ended = samples_of(finish.steps) / SAMPLE_RATE, finish.reason == "end"
            self.lengths.learn(piece.text, piece.language, seconds, ended)

    def greet(self, hello: Hello) -> None:
        self.admission.throughput = Throughput(hello.rows, hello.throughput)
        self.queue.places = places_for(hello.rows)
        self.metrics.observe(events.EngineReady(hello.device, hello.dtype, hello.digests))

    def refuse_invalid(self) -> None:
        """For api/: a request that failed validation never comes here."""
        self.metrics.observe(events.Invalid())

    def made(self, ticket: int, audio_seconds: float, freed: float) -> None:
        self.admission.made(ticket, audio_seconds, freed)
        self._report_load()

    def release(self, ticket: int) -> None:
        self.admission.leave(ticket, self.clock())
        self._report_load()

    @property
    def draining(self) -> bool:
        return self.draining_since is not None

    def require_ready(self, connected: float) -> Hello:
        """Raises NotReady, and counts it.

        A request on a connection from before the drain could not know: it is served, and told to close.
        """
        if self.draining_since is not None and connected >= self.draining_since:
            self.metrics.observe(events.Refused("draining"))
            raise NotReady("this server is shutting down", code="draining", retry_after=1)
        hello = self.engine.hello
        if hello is None:
            self.metrics.observe(events.Refused("not_ready"))
            raise NotReady("the speech engine is not ready", code="not_ready", retry_after=2)
        return hello

    async def _read(self, utterance: Utterance, speaker: Speaker, hello: Hello) -> tuple[list[Piece], int]:
        if len(utterance.text) <= INLINE_CHARACTERS:
            return self._pieces(utterance, speaker, hello)
        if self._reading + len(utterance.text) > MOST_READING:
            raise self._refused("queue_full", "too many long texts wait to be read")
        self._reading += len(utterance.text)
        try:
            async with asyncio.timeout(max(0.0, utterance.deadline - self.clock())):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._reader, self._pieces, utterance, speaker, hello)
        except TimeoutError:
            raise self._refused("deadline", "the deadline passed while the text waited to be read") from None
        finally:
            self._reading -= len(utterance.text)

    def _refused(self, reason: Literal["queue_full", "deadline"], why: str) -> Overloaded:
        self.metrics.observe(events.Refused(reason))
        return Overloaded(why, code=reason, retry_after=1)

    def _pieces(self, utterance: Utterance, speaker: Speaker, hello: Hello) -> tuple[list[Piece], int]:
        """(rows to be, characters left out). Pure but for its caches, so that a thread may run it."""
        spoken = normalize(utterance.text, utterance.language)
        if not is_readable(spoken.text):
            raise InvalidRequest("the text holds nothing that can be read", code="unreadable_text", param="input")
        texts = split(pronounceable(spoken.text))
        languages = [main_language(tags.without(text), utterance.language) for text in texts]
        predicted = [self.lengths.seconds(*row) for row in zip(texts, languages, strict=True)]
        pauses = _pauses(texts, utterance.max_seconds)
        # A limit on the whole is shared among the pieces by their length.
        scale = None if utterance.max_seconds is None else (utterance.max_seconds - sum(pauses)) / sum(predicted)
        reference = None if speaker.transcript is None else pronounceable(normalize(speaker.transcript).text)
        pieces: list[Piece] = []
        for text, language, seconds, pause in zip(texts, languages, predicted, pauses, strict=True):
            allowed = None if scale is None else seconds * scale
            cost, limits = _cost_and_limits(seconds, allowed, hello)
            refining = None
            if utterance.prosody is not None:
                refining = self._refining(text, utterance.prosody, reference, speaker.prompt_steps, hello)
            token_ids = self._tokenizer.prompt(text, reference=reference)
            piece = Piece(text, language, token_ids, cost, limits, pause, refining)
            asked = max(len(piece.token_ids) + speaker.prompt_steps, len(refining.token_ids) if refining else 0)
            if asked > hello.max_tokens:
                raise InvalidRequest("a sentence of the text is too long", code="text_too_long", param="input")
            pieces.append(piece)
        return pieces, spoken.dropped

    def _refining(
        self, text: str, prosody: Prosody, reference: str | None, prompt_steps: int, hello: Hello
    ) -> Refining:
        token_ids = self._tokenizer.refine_prompt(text, prosody)
        expected = round(len(token_ids) * REFINE_GROWTH)
        longest = REFINE_TOKENS if hello.rows_end else expected  # a random row goes on to its limit
        room = hello.max_tokens - len(self._tokenizer.prompt("", reference=reference)) - prompt_steps
        longest = max(1, min(longest, hello.max_steps, room))
        return Refining(token_ids, Limits(max_steps=longest), min(expected, longest) / STEPS_PER_SECOND, reference)

    def refined(self, token_ids: list[int], reference: str | None) -> list[int]:
        """The prompt that speaks what the text stage answered."""
        prompt = self._tokenizer.refined_prompt(token_ids, reference=reference)
        if prompt is None:
            raise EngineFailure("the text stage left nothing to be spoken", code="nothing_refined")
        return prompt

    def _admit(self, utterance: Utterance, audio_seconds: float) -> int:
        ask = Ask(audio_seconds, utterance.caller, utterance.fingerprint, utterance.deadline, not utterance.streamed)
        answer = self.admission.admit(self.clock(), ask, self._jitter())
        if isinstance(answer, int):
            self._report_load()
            return answer
        if answer.reason == "too_long":
            raise _too_long(answer)
        self.metrics.observe(events.OverBudget() if answer.reason == "budget" else events.Refused(answer.reason))
        raise _overloaded(answer)

    def _report_load(self) -> None:
        self.metrics.observe(events.Load(self.admission.inflight, self.admission.audio_seconds))


class Speech:
    """The audio of one admitted request: iterate once over float32 PCM, then close."""

    def __init__(
        self, owner: Synthesis, utterance: Utterance, pieces: list[Piece], voice: Voice, ticket: int, dropped: int
    ) -> None:
        self.dropped = dropped
        self._owner = owner
        self._utterance = utterance
        self._pieces = pieces
        self._voice = voice
        self._ticket: int | None = ticket
        self._rows: list[QueuedRow] = []  # of the pieces that were begun, in order
        self._first = b""
        self._first_at: float | None = None  # monotonic; None: no audio yet
        self._played_from: float | None = None  # monotonic; None: nobody hears it yet
        self._samples = 0
        self._underran = False

    @property
    def arrived(self) -> float:
        """Monotonic."""
        return self._utterance.arrived

    @property
    def spans(self) -> Spans:
        """For who encodes; complete after close()."""
        return self._utterance.spans

    @property
    def predicted_seconds(self) -> float:
        return sum(piece.seconds for piece in self._pieces)

    @property
    def input_tokens(self) -> int:
        return sum(len(piece.token_ids) for piece in self._pieces)

    @property
    def output_tokens(self) -> int:
        """Steps of audio; all of them when the audio was read to its end."""
        return sum(row.finish.steps for row in self._rows if row.finish is not None)

    @property
    def audio_seconds(self) -> float:
        """Of the model's audio, at speed 1, that was read."""
        return self._samples / SAMPLE_RATE

    async def begin(self) -> None:
        """Enters what may run now and waits for the first audio, until the deadline."""
        for _ in range(1 if self._utterance.streamed else len(self._pieces)):
            self._enter_next()
        row = self._rows[0]
        where: Literal["queue", "engine"] = "queue"
        try:
            async with asyncio.timeout(max(0.0, self._time_left())):
                await row.turn()
            where = "engine"
            async with asyncio.timeout(max(0.0, self._time_left()) + ENGINE_SAYS_SECONDS):
                self._first = await anext(row)
        except TimeoutError:
            raise _late(where) from None
        except StopAsyncIteration:
            raise EngineFailure("the speech engine made no audio", code="engine_failed") from None
        self._first_at = self._owner.clock()

    def _time_left(self) -> float:
        return self._utterance.deadline - self._owner.clock()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        self._played_from = self._owner.clock()
        yield self._counted(self._first)
        self._first = b""
        for index, piece in enumerate(self._pieces):
            if len(self._rows) < len(self._pieces) and len(self._rows) == index + 1:
                self._enter_next()  # the next piece is made while this one is read
            row = self._rows[index]
            waited = not row.has_arrived
            async for pcm in row:
                self._note_gap(waited)
                yield self._counted(pcm)
                waited = not row.has_arrived
            if piece.pause:
                yield self._counted(bytes(4 * round(piece.pause * SAMPLE_RATE)))

    def close(self, error: BaseException | None = None) -> None:
        """Frees the place, cancels what still runs, and observes once. `error`: why it ended early."""
        if self._ticket is None:
            return
        for number, row in enumerate(self._rows):
            row.close()
            row.tell(self._utterance.spans, number)
        self._owner.release(self._ticket)
        self._ticket = None
        elapsed = self._owner.clock() - self._utterance.arrived
        if isinstance(error, DeadlinePassed):
            self._owner.metrics.observe(events.Late(error.phase))
        if error is None:
            self._owner.metrics.observe(self._served())
            return
        delivery, first = self._utterance.delivery, self._first_audio_seconds()
        if isinstance(error, ClientGone | asyncio.CancelledError):
            if first is None and delivery == "full":  # who speaks into a stream may just have changed its mind
                self._owner.metrics.observe(events.Abandoned(delivery, elapsed, self.predicted_seconds))
        elif not isinstance(error, InvalidRequest):  # a bug is our fault too
            self._owner.metrics.observe(events.Broken(delivery, elapsed, self.predicted_seconds, first))

    def _first_audio_seconds(self) -> float | None:
        return None if self._first_at is None else self._first_at - self._utterance.arrived

    def _served(self) -> events.Served:
        finishes = [row.finish for row in self._rows if row.finish is not None]
        ready_at = max(row.finished_at for row in self._rows)
        first = self._first_audio_seconds()
        assert first is not None  # served, so there was audio
        starved = sum(row.starved_seconds for row in self._rows)  # a slow reader is not our latency
        return events.Served(
            delivery=self._utterance.delivery,
            duration_seconds=max(0.0, ready_at - self._utterance.arrived - starved),
            first_audio_seconds=first,
            queued_seconds=self._rows[0].waited_seconds + finishes[0].queued_seconds,
            audio_seconds=self.audio_seconds,
            underran=self._underran,
        )

    def _enter_next(self) -> None:
        """A piece waits for one turn, in which its text stage and its speech run one after the other."""
        piece, utterance = self._pieces[len(self._rows)], self._utterance
        deadline = None if self._rows else utterance.deadline
        refining = piece.refining

        def submit(token_ids: list[int], hear: Callable[[Item], None]) -> RowStream:
            credit = STREAM_WINDOW_SAMPLES if utterance.streamed else UNLIMITED_CREDIT
            what = (token_ids, self._voice, utterance.sampling, piece.limits, deadline, credit, utterance.streamed)
            return self._owner.engine.submit(*what, hear)

        self._rows.append(
            QueuedRow(
                self._owner.queue, utterance.caller, piece.seconds + _refining_seconds(piece),
                piece.token_ids if refining is None else lambda: self._refine(refining, deadline),
                submit, self._giving_back(piece), self._owner.clock,
            )
        )  # fmt: skip

    async def _refine(self, refining: Refining, deadline: float | None) -> list[int]:
        """The prompt that is spoken."""
        sampling = msgspec.structs.replace(REFINE_SAMPLING, seed=self._utterance.sampling.seed)
        refined = await self._owner.engine.refine(refining.token_ids, sampling, refining.limits, deadline)
        if self._ticket is not None:
            self._owner.made(self._ticket, refining.seconds, refining.seconds)
        return self._owner.refined(refined, refining.reference)

    def _giving_back(self, piece: Piece) -> Callable[[Item], None]:
        """Gives a row's share of the place back as its audio comes: what is made waits only for its reader."""
        held = piece.seconds

        def hear(item: Item) -> None:
            nonlocal held
            if isinstance(item, Finish):
                self._owner.learn(piece, item)
            made = len(item.pcm) / 4 / SAMPLE_RATE if isinstance(item, Chunk) else 0.0
            freed = min(held, made) if isinstance(item, Chunk) else held
            held -= freed
            if self._ticket is not None:
                self._owner.made(self._ticket, made, freed)

        return hear

    def _note_gap(self, waited: bool) -> None:
        """Whether somebody who plays a stream as it comes has just run out of it."""
        if waited and self._utterance.delivery == "stream" and self._played_from is not None:
            behind = self._owner.clock() - self._played_from - self._samples / SAMPLE_RATE
            self._underran |= behind > BEHIND_SECONDS

    def _counted(self, pcm: bytes) -> bytes:
        self._samples += len(pcm) // 4
        return pcm


def _refining_seconds(piece: Piece) -> float:
    return 0.0 if piece.refining is None else piece.refining.seconds


def _pauses(texts: list[str], max_seconds: float | None) -> list[float]:
    """Seconds of silence after each piece; none after the last."""
    pauses = [*(pause_after(text) for text in texts[:-1]), 0.0]
    fits = max_seconds is None or sum(pauses) <= MAX_PAUSE_SHARE * max_seconds
    return pauses if fits else [0.0] * len(texts)


def _cost_and_limits(predicted: float, allowed: float | None, hello: Hello) -> tuple[float, Limits]:
    """(predicted audio seconds, limits) of one row."""
    if hello.rows_end:
        longest = allowed if allowed is not None else predicted * LIMIT_FACTOR + LIMIT_SECONDS
        cost = min(predicted, longest)
    else:  # a random row goes on to its limit: that is its length
        longest = cost = predicted if allowed is None else allowed
    steps = min(hello.max_steps, steps_for(longest))
    return min(cost, samples_of(steps) / SAMPLE_RATE), Limits(max_steps=steps)


def _overloaded(refusal: Refusal) -> Overloaded:
    return Overloaded(
        f"{_WHY[refusal.reason]}: the predicted wait is {refusal.predicted_wait:.1f} s",
        code="over_budget" if refusal.reason == "budget" else refusal.reason,
        retry_after=refusal.retry_after,
    )


_WHY = {
    "queue_full": "the queue is full",
    "deadline": "the deadline cannot be met",
    "budget": "this API key has used its audio of a minute",
}


def _require_bounded(utterance: Utterance, pieces: list[Piece]) -> None:
    """A whole answer is in memory until it is sent."""
    seconds = sum(piece.seconds + piece.pause for piece in pieces)
    if not utterance.streamed and seconds > utterance.whole_seconds:
        raise InvalidRequest(
            f"the audio is predicted to last {seconds:.0f} s, which is too long to be sent whole: {ASK_FOR_A_STREAM}",
            code=WHOLE_TOO_MUCH,
            param="stream_format",
        )


def _too_long(refusal: Refusal) -> InvalidRequest:
    return InvalidRequest(
        f"making all of this audio is predicted to take {refusal.predicted_wait:.0f} s, longer than its deadline: "
        f"{ASK_FOR_A_STREAM}, due at its first audio",
        code=WHOLE_TOO_LONG,
        param="stream_format",
    )


def _late(phase: Literal["queue", "engine"]) -> DeadlinePassed:
    error = DeadlinePassed("the deadline passed before there was audio", code="deadline_exceeded")
    error.phase = phase
    return error
