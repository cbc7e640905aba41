"""A SpeechModel: rows in slots over the language model, the sampler and the vocoder. Knows neither sockets nor time.

R slots, n rows of a step, T steps of a row, H hidden width. All state of a row lies in memory taken once, one place
per slot; a row that joins writes all of its slot before it reads any of it.
"""

from __future__ import annotations

import functools
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import torch

from chattts_server.engine import refusal, vocoder
from chattts_server.engine.choosing import END, Chosen, choose
from chattts_server.engine.device_step import Capture, DeviceStep, Told, cuda_graphs
from chattts_server.engine.kernel_model import kernel_draw, language_model
from chattts_server.engine.kernels import Kernels
from chattts_server.engine.model import Gpt
from chattts_server.engine.nouns import CODEBOOKS, Stage, Submit
from chattts_server.engine.precision import Precision, state_dtype
from chattts_server.engine.refusal import MAX_STEPS, MAX_TOKENS
from chattts_server.engine.row_state import RowState
from chattts_server.engine.sampling import USUAL_CANDIDATES, Addresses, Draw, Noise, counter_noise, draw
from chattts_server.engine.speech_model import DeviceLost, Outcome, Piece
from chattts_server.engine.weights import load_gpt

CUFFT_PLANS = 32  # of the vocoder's passes, each of another length; by default thousands are kept, in gigabytes
SPEAKER_TOKEN = 21143  # [spk_emb]: its embedding is replaced by the speaker's
PREFILL_TOKENS = 64  # of one chunk; a row's chunks depend on its own prompt alone
POSITIONS = MAX_TOKENS + MAX_STEPS  # of one slot: the prompt, an audio prompt in it, and the steps


def vocoder_dtype(precision: Precision) -> torch.dtype:
    """Its products in bfloat16 where the model's are less exact than float32 on a CPU."""
    return torch.bfloat16 if precision in ("bfloat16", "int8") else torch.float32


def row_bytes(assets: Path, precision: Precision, device: torch.device, by_kernels: bool) -> int:
    """What a slot takes on the device: keys and values of all layers, and the hidden states, in float32."""
    config = json.loads((assets / "gpt" / "config.json").read_text())
    width: int = config["hidden_size"]
    layers: int = config["num_hidden_layers"]
    return 2 * layers * POSITIONS * width * state_dtype(precision, device, by_kernels).itemsize + 4 * MAX_STEPS * width


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
        noise: Noise = counter_noise, most: int = 16, capture: Capture | None = None, kernels: Kernels | None = None,
    ) -> None:  # fmt: skip
        """`assets`: the checkpoint's asset/ folder; `slots` None: at most `most`, in whole blocks of a product.

        `rows_end` False: the end is never chosen. `capture`: steps are launched, not computed operation by operation;
        None: on a CUDA device as graphs, on a CPU not. `kernels` None: by torch; on a CPU only.
        """
        torch.backends.cudnn.allow_tf32 = precision != "float32"  # of convolutions
        torch.backends.cuda.matmul.allow_tf32 = False  # an environment variable of NVIDIA's images would set it
        if device.type == "cuda":
            torch.backends.cuda.cufft_plan_cache[device.index or 0].max_size = CUFFT_PLANS
        weights = load_gpt(assets, device)
        self.device = device
        self._assets = assets
        self._rows_end = rows_end
        self.kernels = kernels
        by_torch: Draw = functools.partial(draw, noise=noise)
        self._draw = kernel_draw(kernels) if kernels is not None and noise is counter_noise else by_torch
        self.gpt = language_model(weights, slots or most, POSITIONS, precision, kernels)
        self._text_tokens, self.width = len(weights.text), weights.width
        del weights  # in float32: what is needed of it is in `gpt`
        capture = capture or (cuda_graphs(device) if device.type == "cuda" else None)
        self.slots = slots or self._fitting(most, whole=capture is not None)
        taken = self.slots if capture is None else self.gpt.row_counts.padded(self.slots)
        self.gpt.allocate(taken)
        self._vocoder = vocoder.Vocoder(assets, self.slots, device, vocoder_dtype(precision))
        self._prompts = [torch.empty(0, self.width)] * self.slots  # [S, H]
        self._stages: list[Stage] = ["code"] * self.slots
        self._top_k = [0] * self.slots
        self._state = RowState(taken, self.width, device)
        self._positions = [0] * self.slots  # of the next step's keys
        self._steps = [0] * self.slots  # launched
        self._launched: deque[tuple[Sequence[int], Told]] = deque()
        self.capture_seconds: float | None = None  # None: there are no graphs
        self.device_step = None if capture is None else self._captured(capture, taken)

    def _fitting(self, most: int, whole: bool) -> int:
        """At most so many slots, in whole blocks of a product; `whole`: there is memory for a place in each block."""
        if whole:
            return next(n for n in range(most, 0, -1) if n == 1 or self.gpt.row_counts.padded(n) <= most)
        block = self.gpt.row_counts.counts[-1]
        return most if most < block else most - most % block

    @torch.inference_mode()
    def _captured(self, capture: Capture, taken: int) -> DeviceStep:
        began = time.monotonic()
        if not isinstance(self.gpt, Gpt):
            raise ValueError("steps that are captured are torch's: without kernels")
        device_step = DeviceStep(self.gpt, self._state, taken, self._draw, self._rows_end)
        numbers = {self.gpt.row_counts.padded(rows) for rows in range(1, self.slots + 1)}
        device_step.capture(capture, numbers, POSITIONS)
        self.capture_seconds = time.monotonic() - began
        return device_step

    @property
    def late(self) -> int:
        """How many steps may be launched before the outcomes of the first of them are asked for."""
        return 0 if self.device_step is None else 1

    @property
    def row_counts(self) -> tuple[int, ...]:
        """The numbers of rows that a step is computed at; see products.py."""
        return self.gpt.row_counts.counts

    def problem(self, row: Submit) -> str | None:
        return refusal.problem(row, self._text_tokens, self.width)

    @_on_device
    def join(self, slot: int, row: Submit, seed: int) -> int:
        prompt = self._embedded(row)
        if self.device_step is not None:  # what was not finite in it may be heard of only after it was given away
            self.gpt.clear(slot, POSITIONS)
        self._prompts[slot], self._stages[slot] = prompt, row.stage
        self._top_k[slot] = row.sampling.top_k
        self._positions[slot] = self._steps[slot] = 0
        self._state.open(slot, row, seed, prompt[-1])
        if self.device_step is not None:
            self.device_step.open(slot, row.stage)
        self._vocoder.open(slot)
        return -(-(len(prompt) - 1) // PREFILL_TOKENS)

    @_on_device
    def prefill(self, slot: int) -> None:
        """All tokens but the last, which is the input of the first step. FloatingPointError: not finite."""
        start, last = self._positions[slot], len(self._prompts[slot]) - 1
        chunk = self._prompts[slot][start : min(start + PREFILL_TOKENS, last)]
        hidden = self.gpt.prefill(slot, start, chunk)
        self._positions[slot] = start + len(chunk)
        if self.device_step is not None:  # values that are not finite are seen at the row's first step
            self.device_step.place(slot, self._positions[slot])
        elif not hidden.isfinite().all():
            self.gpt.clear(slot, last)
            raise FloatingPointError("a prompt made values that are not finite")

    @_on_device
    def retry(self, slot: int, seed: int) -> None:
        prompt = self._prompts[slot]
        self._positions[slot], self._steps[slot] = len(prompt) - 1, 0
        self._state.rewind(slot, seed, prompt[-1])
        self._vocoder.open(slot)
        if self.device_step is not None:
            self.device_step.place(slot, self._positions[slot])

    def step(self, slots: Sequence[int]) -> list[Outcome]:
        """A step and what came of it; for callers that have nothing to do meanwhile."""
        self.launch(slots)
        return self.outcomes()

    @_on_device
    def launch(self, slots: Sequence[int]) -> None:
        if self.device_step is None:
            made = self._computed(slots)
            self._launched.append((slots, lambda: made))
        else:
            context = 1 + max(self._positions[slot] for slot in slots)
            text = any(self._stages[slot] == "text" for slot in slots)
            self._launched.append((slots, self.device_step.launch(slots, context, text)))
        for slot in slots:
            self._positions[slot] += 1
            self._steps[slot] += 1

    @_on_device
    def outcomes(self) -> list[Outcome]:
        slots, told = self._launched.popleft()
        made = told()
        for slot, outcome in zip(slots, made, strict=True):
            if outcome == "broken" and self.device_step is None:
                self.gpt.clear(slot, self._positions[slot])
        return made

    def _computed(self, slots: Sequence[int]) -> list[Outcome]:
        """Operation by operation, over just the rows that step. When it raises, no row has moved."""
        ordered = sorted(slots)
        hidden = self.gpt.decode(self._state.inputs[ordered], ordered, [self._positions[slot] for slot in ordered])
        outcomes: dict[int, Outcome] = {}
        chosen = []
        for stage in END:
            rows = [row for row, slot in enumerate(ordered) if self._stages[slot] == stage]
            if rows:
                members = [ordered[row] for row in rows]
                own = hidden if len(rows) == len(ordered) else hidden[rows]
                made = self._choose(stage, members, own)
                chosen.append((members, own, made))
                for slot, good, end in zip(members, made.finite.tolist(), made.ended.tolist(), strict=True):
                    outcomes[slot] = "broken" if not good else "end" if end else "made"
        for members, own, made in chosen:  # nothing has moved until everything is chosen
            self._state.commit(members, [self._steps[slot] for slot in members], own, made.codes, made.inputs)
        return [outcomes[slot] for slot in slots]

    def _choose(self, stage: Stage, slots: Sequence[int], hidden: torch.Tensor) -> Chosen:
        """For rows of one stage."""
        state = self._state
        own = torch.tensor(slots, device=self.device)
        steps = torch.tensor([self._steps[slot] for slot in slots], device=self.device)
        wide = any(self._top_k[slot] > USUAL_CANDIDATES for slot in slots)
        return choose(
            self.gpt, stage, hidden, state.history[own], state.parameters(own, steps, self._rows_end),
            Addresses(state.seed[own], steps), self._draw, None if wide else USUAL_CANDIDATES,
        )  # fmt: skip

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

    @property
    def reserved(self) -> list[torch.Tensor]:
        """What lies on the CPU and is large: its pages may come later."""
        return [self.gpt.memory, self._state.hiddens] if self.device.type == "cpu" else []

    @_on_device
    def rewind(self, slot: int) -> None:
        self._vocoder.open(slot)

    @_on_device
    def codes(self, slot: int) -> torch.Tensor:
        """All codes of the row so far, [T, 4]."""
        return self._state.codes[slot, : self._steps[slot]].clone()

    @_on_device
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
            speaker = torch.nn.functional.normalize(speaker, dim=0)
            prompt = torch.where((ids == SPEAKER_TOKEN)[:, None], speaker, prompt)  # an index would wait for the device
        if row.voice.codes:
            codes = np.frombuffer(row.voice.codes, "<u2").astype(np.int64).reshape(CODEBOOKS, -1).T.copy()
            prompt = torch.cat([prompt, self.gpt.embed_codes(torch.from_numpy(codes).to(self.device))])
        return prompt
