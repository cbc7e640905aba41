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
from chattts_server.engine.nouns import CODEBOOKS, END_CODE, Submit
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


POSITIONS = MAX_TOKENS + MAX_STEPS  # of one slot: the prompt, an audio prompt in it, and the steps


def row_bytes(assets: Path, dtype: torch.dtype) -> int:
    """What a slot takes on the device: keys and values of all layers, and the hidden states, in float32."""
    config = json.loads((assets / "gpt" / "config.json").read_text())
    width: int = config["hidden_size"]
    layers: int = config["num_hidden_layers"]
    return 2 * layers * POSITIONS * width * dtype.itemsize + 4 * MAX_STEPS * width


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
        self, assets: Path, slots: int, device: torch.device, dtype: torch.dtype, rows_end: bool,
        noise: Noise = counter_noise,
    ) -> None:  # fmt: skip
        """`assets`: the checkpoint's asset/ folder; `rows_end` False: the end code is never chosen."""
        weights = load_gpt(assets, device, dtype)
        self.slots = slots
        self.device = device
        self.width = weights.width
        self._assets = assets
        self._text_tokens = len(weights.text)
        self._rows_end = rows_end
        self._noise = noise
        self._gpt = Gpt(weights, slots, POSITIONS, dtype)
        self._vocoder = vocoder.Vocoder(assets, slots, device)
        self._prompts: list[torch.Tensor] = [torch.empty(0, self.width)] * slots  # [S, H], not prefilled yet
        self._state = _State(slots, self.width, device)
        self._positions = [0] * slots  # of the next step's keys
        self._steps = [0] * slots

    @property
    def row_counts(self) -> tuple[int, ...]:
        """The numbers of rows that a step is computed at; see products.py."""
        return self._gpt.row_counts

    def problem(self, row: Submit) -> str | None:
        return refusal.problem(row, self._text_tokens, self.width)

    @_on_device
    def join(self, slot: int, row: Submit, seed: int) -> int:
        prompt = self._embedded(row)
        self._prompts[slot], self._state.inputs[slot] = prompt[:-1], prompt[-1]
        self._positions[slot] = self._steps[slot] = 0
        self._state.open(slot, row, seed)
        self._vocoder.open(slot)
        return -(-(len(prompt) - 1) // PREFILL_TOKENS)

    @_on_device
    def prefill(self, slot: int) -> None:
        """All tokens but the last, which is the input of the first step."""
        start = self._positions[slot]
        chunk = self._prompts[slot][start : start + PREFILL_TOKENS]
        self._gpt.prefill(slot, start, chunk)
        self._positions[slot] = start + len(chunk)

    @_on_device
    def step(self, slots: Sequence[int]) -> list[Outcome]:
        state, own = self._state, torch.tensor(slots, device=self.device)
        hidden, logits = self._gpt.decode(state.inputs[own], slots, [self._positions[slot] for slot in slots])
        steps = torch.tensor([self._steps[slot] for slot in slots], device=self.device)
        addresses = Addresses(state.seed[own], steps)
        codes = draw(logits, state.history[own], state.parameters(own, steps, self._rows_end), addresses, self._noise)
        finite = (hidden.isfinite().all(-1) & logits.isfinite().all(-1).all(-1)).tolist()
        ended = (codes == END_CODE).any(-1).tolist()
        inputs = self._gpt.embed_codes(codes)
        state.commit(own, steps, hidden, codes, inputs)
        for slot in slots:
            self._positions[slot] += 1
            self._steps[slot] += 1
        return ["broken" if not good else "end" if end else "made" for good, end in zip(finite, ended, strict=True)]

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
        prompt = self._gpt.embed_text(ids)
        if row.voice.embedding:
            speaker = torch.from_numpy(np.frombuffer(row.voice.embedding, "<f4").copy()).to(self.device)
            prompt[ids == SPEAKER_TOKEN] = torch.nn.functional.normalize(speaker, dim=0)
        if row.voice.codes:
            codes = np.frombuffer(row.voice.codes, "<u2").astype(np.int64).reshape(CODEBOOKS, -1).T.copy()
            prompt = torch.cat([prompt, self._gpt.embed_codes(torch.from_numpy(codes).to(self.device))])
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

    def open(self, slot: int, row: Submit, seed: int) -> None:
        sampling = row.sampling
        self.history[slot] = NO_CODE
        self.seed[slot] = seed
        self._temperature[slot], self._top_p[slot] = sampling.temperature, sampling.top_p
        self._top_k[slot], self._penalty[slot] = sampling.top_k, sampling.repetition_penalty
        self._min_steps[slot] = row.limits.min_steps

    def parameters(self, own: torch.Tensor, steps: torch.Tensor, rows_end: bool) -> Parameters:
        may_end = (steps >= self._min_steps[own]) & rows_end
        return Parameters(self._temperature[own], self._top_p[own], self._top_k[own], self._penalty[own], may_end)

    def commit(
        self, own: torch.Tensor, steps: torch.Tensor, hidden: torch.Tensor, codes: torch.Tensor, inputs: torch.Tensor
    ) -> None:
        self.hiddens[own, steps], self.codes[own, steps] = hidden, codes
        self.history[own] = torch.cat([self.history[own][..., 1:], codes[..., None]], dim=-1)
        self.inputs[own] = inputs
