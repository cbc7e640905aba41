"""A SpeechModel: rows in slots over the language model, the sampler and the vocoder. Knows neither sockets nor time.

R slots, n rows of a step, T steps of a row, H hidden width. All state of a row lies in memory taken once, one place
per slot; a row that joins writes all of its slot before it reads any of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import torch

from chattts_server.engine import refusal, vocoder
from chattts_server.engine.model import Gpt
from chattts_server.engine.nouns import CODEBOOKS, END_CODE, END_TOKEN, Stage, Submit
from chattts_server.engine.precision import Precision, state_dtype
from chattts_server.engine.refusal import MAX_STEPS, MAX_TOKENS
from chattts_server.engine.sampling import (
    NO_CODE,
    PENALTY_WINDOW,
    Addresses,
    Noise,
    Parameters,
    counter_noise,
    draw,
)
from chattts_server.engine.speech_model import DeviceLost, Outcome, Piece
from chattts_server.engine.weights import load_gpt

SPEAKER_TOKEN = 21143  # [spk_emb]: its embedding is replaced by the speaker's
PREFILL_TOKENS = 64  # of one chunk; a row's chunks depend on its own prompt alone
END: dict[Stage, int] = {"code": END_CODE, "text": END_TOKEN}

POSITIONS = MAX_TOKENS + MAX_STEPS  # of one slot: the prompt, an audio prompt in it, and the steps


def vocoder_dtype(precision: Precision) -> torch.dtype:
    """Its products in bfloat16 where the model's are less exact than float32 on a CPU."""
    return torch.bfloat16 if precision in ("bfloat16", "int8") else torch.float32


def row_bytes(assets: Path, precision: Precision, device: torch.device) -> int:
    """What a slot takes on the device: keys and values of all layers, and the hidden states, in float32."""
    config = json.loads((assets / "gpt" / "config.json").read_text())
    width: int = config["hidden_size"]
    layers: int = config["num_hidden_layers"]
    return 2 * layers * POSITIONS * width * state_dtype(precision, device).itemsize + 4 * MAX_STEPS * width


P = ParamSpec("P")
T = TypeVar("T")


def _on_device(method: Callable[Concatenate[Slots, P], T]) -> Callable[Concatenate[Slots, P], T]:
    """Without gradients; and a device that is lost is said to be, whichever call finds it out.

    Some libraries tell of it by an ordinary RuntimeError: then the device itself is asked.
    """

    @functools.wraps(method)
    def called(self: Slots, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with torch.inference_mode():
                return method(self, *args, **kwargs)
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error
        except RuntimeError:
            _require(self.device)
            raise

    return called


def _require(device: torch.device) -> None:
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            raise DeviceLost(str(error)) from error


class Slots:
    def __init__(
        self, assets: Path, slots: int | None, device: torch.device, precision: Precision, rows_end: bool,
        noise: Noise = counter_noise, most: int = 16,
    ) -> None:  # fmt: skip
        """`assets`: the checkpoint's asset/ folder; `slots` None: at most `most`, in whole blocks of a product.

        `rows_end` False: the end is never chosen.
        """
        torch.backends.cudnn.allow_tf32 = precision != "float32"  # of convolutions; of products it is off anyhow
        weights = load_gpt(assets, device)
        self.device = device
        self.width = weights.width
        self._assets = assets
        self._text_tokens = len(weights.text)
        self._rows_end = rows_end
        self._noise = noise
        self.gpt = Gpt(weights, slots or most, POSITIONS, precision)
        block = self.gpt.row_counts.counts[-1]
        self.slots = slots or (most if most < block else most - most % block)
        self.gpt.allocate(self.slots)
        self._vocoder = vocoder.Vocoder(assets, self.slots, device, vocoder_dtype(precision))
        self._prompts = [torch.empty(0, self.width)] * self.slots  # [S, H]
        self._stages: list[Stage] = ["code"] * self.slots
        self._state = _State(self.slots, self.width, device)
        self._positions = [0] * self.slots  # of the next step's keys
        self._steps = [0] * self.slots

    @property
    def row_counts(self) -> tuple[int, ...]:
        """The numbers of rows that a step is computed at; see products.py."""
        return self.gpt.row_counts.counts

    def problem(self, row: Submit) -> str | None:
        return refusal.problem(row, self._text_tokens, self.width)

    @_on_device
    def join(self, slot: int, row: Submit, seed: int) -> int:
        prompt = self._embedded(row)
        self._prompts[slot], self._stages[slot] = prompt, row.stage
        self._positions[slot] = self._steps[slot] = 0
        self._state.open(slot, row, seed, prompt[-1])
        self._vocoder.open(slot)
        return -(-(len(prompt) - 1) // PREFILL_TOKENS)

    @_on_device
    def prefill(self, slot: int) -> None:
        """All tokens but the last, which is the input of the first step. FloatingPointError: not finite."""
        start, last = self._positions[slot], len(self._prompts[slot]) - 1
        chunk = self._prompts[slot][start : min(start + PREFILL_TOKENS, last)]
        hidden = self.gpt.prefill(slot, start, chunk)
        if not hidden.isfinite().all():
            self.gpt.clear(slot)
            raise FloatingPointError("a prompt made values that are not finite")
        self._positions[slot] = start + len(chunk)

    @_on_device
    def retry(self, slot: int, seed: int) -> None:
        prompt = self._prompts[slot]
        self._positions[slot], self._steps[slot] = len(prompt) - 1, 0
        self._state.rewind(slot, seed, prompt[-1])
        self._vocoder.open(slot)

    @_on_device
    def step(self, slots: Sequence[int]) -> list[Outcome]:
        ordered = sorted(slots)
        hidden = self.gpt.decode(self._state.inputs[ordered], ordered, [self._positions[slot] for slot in ordered])
        outcomes: dict[int, Outcome] = {}
        chosen = []
        for stage in END:
            rows = [row for row, slot in enumerate(ordered) if self._stages[slot] == stage]
            if rows:
                members = [ordered[row] for row in rows]
                own = hidden if len(rows) == len(ordered) else hidden[rows]
                chosen.append((members, own, *self._choose(stage, members, own, outcomes)))
        for members, own, codes, inputs in chosen:  # nothing has moved until everything is chosen
            self._state.commit(members, [self._steps[slot] for slot in members], own, codes, inputs)
        for slot in ordered:
            self._positions[slot] += 1
            self._steps[slot] += 1
            if outcomes[slot] == "broken":
                self.gpt.clear(slot)
        return [outcomes[slot] for slot in slots]

    def _choose(
        self, stage: Stage, slots: Sequence[int], hidden: torch.Tensor, outcomes: dict[int, Outcome]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Next codes [n, 4] of rows of one stage (of text: four times the same token), and the next inputs [n, H]."""
        state = self._state
        own = torch.tensor(slots, device=self.device)
        steps = torch.tensor([self._steps[slot] for slot in slots], device=self.device)
        logits = self.gpt.code_logits(hidden) if stage == "code" else self.gpt.text_logits(hidden)
        history = state.history[own][:, : logits.shape[1]]
        addresses = Addresses(state.seed[own], steps)
        parameters = state.parameters(own, steps, self._rows_end)
        codes = draw(logits, history, parameters, addresses, self._noise, END[stage])
        finite = hidden.isfinite().all(-1) & logits.isfinite().all(-1).all(-1)
        ended = (codes == END[stage]).any(-1)
        for slot, good, end in zip(slots, finite.tolist(), ended.tolist(), strict=True):
            outcomes[slot] = "broken" if not good else "end" if end else "made"
        if stage == "code":
            return codes, self.gpt.embed_codes(codes)
        return codes.expand(-1, CODEBOOKS), self.gpt.embed_text(codes[:, 0])

    @_on_device
    def vocode(self, pieces: Sequence[Piece]) -> list[np.ndarray]:
        hiddens = self._state.hiddens
        made = self._vocoder.push(
            [
                vocoder.Piece(piece.slot, hiddens[piece.slot, piece.first_step : piece.end_step], piece.last)
                for piece in pieces
            ]
        )
        waves = [wave.numpy() for wave in made]
        if not all(np.isfinite(wave).all() for wave in waves):
            raise FloatingPointError("the vocoder made values that are not finite")
        return waves

    @_on_device
    def rewind(self, slot: int) -> None:
        self._vocoder.open(slot)

    def codes(self, slot: int) -> torch.Tensor:
        """All codes of the row so far, [T, 4]."""
        return self._state.codes[slot, : self._steps[slot]].clone()

    def tokens(self, slot: int, steps: int) -> list[int]:
        made: list[int] = self._state.codes[slot, :steps, 0].tolist()
        return made

    @_on_device
    def encode_voice(self, pcm: np.ndarray) -> bytes:
        from chattts_server.engine.voice_encoder import encode  # ChatTTS's package takes seconds to import

        return encode(self._assets, pcm, self.device)

    def memory_bytes(self) -> dict[str, int]:
        if self.device.type != "cuda":
            return {}
        return {
            "device_allocated": torch.cuda.memory_allocated(self.device),
            "device_reserved": torch.cuda.memory_reserved(self.device),
        }

    def _embedded(self, row: Submit) -> torch.Tensor:
        """The whole prompt [S, H]: tokens, the speaker in place of [spk_emb], an audio prompt's codes at the end."""
        ids = torch.tensor(row.token_ids, device=self.device)
        prompt = self.gpt.embed_text(ids)
        if row.voice.embedding:
            speaker = torch.from_numpy(np.frombuffer(row.voice.embedding, "<f4").copy()).to(self.device)
            prompt[ids == SPEAKER_TOKEN] = torch.nn.functional.normalize(speaker, dim=0)
        if row.voice.codes:
            codes = np.frombuffer(row.voice.codes, "<u2").astype(np.int64).reshape(CODEBOOKS, -1).T.copy()
            prompt = torch.cat([prompt, self.gpt.embed_codes(torch.from_numpy(codes).to(self.device))])
        return prompt


class _State:
    """What the next step of each slot reads."""

    def __init__(self, slots: int, width: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        self.inputs = zeros(width)  # of the next step: the last prompt token, then the sum of the last codes
        self.hiddens = zeros(MAX_STEPS, width)  # what the vocoder reads
        self.codes = zeros(MAX_STEPS, CODEBOOKS, dtype=torch.long)
        self.history = zeros(CODEBOOKS, PENALTY_WINDOW, dtype=torch.long)
        self.seed = zeros(dtype=torch.long)
        self._temperature, self._top_p, self._penalty = zeros(), zeros(), zeros()
        self._top_k, self._min_steps = zeros(dtype=torch.long), zeros(dtype=torch.long)

    def open(self, slot: int, row: Submit, seed: int, first: torch.Tensor) -> None:
        sampling = row.sampling
        self.rewind(slot, seed, first)
        self._temperature[slot], self._top_p[slot] = sampling.temperature, sampling.top_p
        self._top_k[slot], self._penalty[slot] = sampling.top_k, sampling.repetition_penalty
        self._min_steps[slot] = row.limits.min_steps

    def rewind(self, slot: int, seed: int, first: torch.Tensor) -> None:
        """Nothing is made yet; `first` [H] is the input of the first step."""
        self.history[slot] = NO_CODE
        self.seed[slot], self.inputs[slot] = seed, first

    def parameters(self, own: torch.Tensor, steps: torch.Tensor, rows_end: bool) -> Parameters:
        may_end = (steps >= self._min_steps[own]) & rows_end
        return Parameters(self._temperature[own], self._top_p[own], self._top_k[own], self._penalty[own], may_end)

    def commit(
        self, slots: Sequence[int], steps: Sequence[int], hidden: torch.Tensor, codes: torch.Tensor,
        inputs: torch.Tensor,
    ) -> None:  # fmt: skip
        own, at = torch.tensor([slots, steps], device=hidden.device)
        self.hiddens[own, at], self.codes[own, at] = hidden, codes
        self.history[own] = torch.cat([self.history[own][..., 1:], codes[..., None]], dim=-1)
        self.inputs[own] = inputs
