"""What each knob costs and what it does to the sound: docs/quality.md and bench/results/quality.json.

    python -m bench.quality [--model FOLDER] [--size full|tiny]

The reference is the same codes computed in float32 and vocoded whole. Distances are those of spectra, in dB; costs are
ratios, measured in turns on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.engine.compare import interleaved
from bench.engine.measures import TEXT
from bench.http_cost import cpu_per_audio_second
from bench.machine import checkpoint_of, processor
from chattts_server.audio.chain import Chain, Sound
from chattts_server.engine.checkpoint import CannotServe
from chattts_server.engine.kernels import fastest
from chattts_server.engine.nouns import SAMPLE_RATE, STEPS_PER_SECOND, Limits, Sampling, Stage, Submit, Voice
from chattts_server.engine.precision import BY_DEVICE, Precision, chosen_precision
from chattts_server.engine.slots import Slots, vocoder_dtype
from chattts_server.engine.speech_model import Piece as ModelPiece
from chattts_server.engine.threads import cpu_threads
from chattts_server.engine.vocoder import Piece, Vocoder
from chattts_server.text.tokens import PromptTokenizer

ROWS, STEPS, REPEATS = 8, 96, 5
LOOK_AHEADS = (4, 8, 16, 24, 32)  # steps
FIRST_CHUNK = 8  # steps, as scheduler.py
CPU = torch.device("cpu")
FRAME, HOP, FLOOR_DB = 1024, 256, -80.0  # of the spectra; what is quieter below the loudest counts as the floor


@dataclass(frozen=True, slots=True)
class Distance:
    """Of a sound from the reference."""

    spectral_db: float  # root mean square over frequencies, mean over frames
    signal_db: float  # power of the reference over that of the difference

    @classmethod
    def of(cls, sound: np.ndarray, reference: np.ndarray, below_hz: float = SAMPLE_RATE / 2) -> Distance:
        """Of equally long sounds, float [samples]; of spectra only as far as both have one."""
        error = float(np.mean((sound - reference) ** 2))
        power = float(np.mean(reference**2))
        signal = float("inf") if error == 0 else 10 * np.log10(power / error)
        bands = int(FRAME * below_hz / SAMPLE_RATE)
        own, other = _decibels(sound)[:, :bands], _decibels(reference)[:, :bands]
        return cls(float(np.mean(np.sqrt(np.mean((own - other) ** 2, axis=1)))), float(signal))


def _decibels(sound: np.ndarray) -> np.ndarray:
    """[frames, frequencies]"""
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP] * np.hanning(FRAME)
    magnitudes = np.abs(np.fft.rfft(frames))
    return np.asarray(20 * np.log10(np.maximum(magnitudes, magnitudes.max() * 10 ** (FLOOR_DB / 20))))


class Reference:
    """Eight rows by the float32 model: their codes, hidden states and sound."""

    def __init__(self, assets: Path, prompts: Sequence[list[int]]) -> None:
        self.prompts = prompts
        model = _model(assets, "float32")
        for slot, prompt in enumerate(prompts):
            _join(model, slot, prompt)
        for _ in range(STEPS):
            model.step(range(len(prompts)))
        self.codes = torch.stack([model.codes(slot)[:STEPS] for slot in range(len(prompts))])  # [n, T, 4]
        self.hiddens = model._state.hiddens[: len(prompts), :STEPS].clone()
        self.sounds = model.vocode([ModelPiece(slot, 0, STEPS, last=True) for slot in range(len(prompts))])

    def distance(self, sounds: Sequence[np.ndarray]) -> Distance:
        found = [Distance.of(sound, reference) for sound, reference in zip(sounds, self.sounds, strict=True)]
        return Distance(
            statistics.fmean(one.spectral_db for one in found), statistics.fmean(one.signal_db for one in found)
        )


def _model(assets: Path, precision: Precision) -> Slots:
    return Slots(assets, ROWS, CPU, precision, rows_end=False, kernels=fastest(precision, CPU))


def _join(model: Slots, slot: int, prompt: list[int], stage: Stage = "code") -> None:
    row = Submit(slot, prompt, Voice(), Sampling(seed=slot), Limits(2048), None, 0, stage)
    for _ in range(model.join(slot, row, slot)):
        model.prefill(slot)


@torch.inference_mode()
def forced(model: Slots, reference: Reference) -> tuple[list[np.ndarray], float]:
    """(sound, share of codes that this model too finds the likeliest) along the reference's own codes."""
    rows = range(len(reference.prompts))
    for slot, prompt in enumerate(reference.prompts):
        _join(model, slot, prompt)
    inputs, hiddens = model._state.inputs[list(rows)].clone(), []
    for step in range(STEPS):
        positions = [len(prompt) - 1 + step for prompt in reference.prompts]
        hiddens.append(model.gpt.decode(inputs, rows, positions))
        inputs = model.gpt.embed_codes(reference.codes[:, step])
    made = torch.stack(hiddens, dim=1)  # [n, T, H]
    alike = [
        (model.gpt.code_logits(own).argmax(-1) == model.gpt.code_logits(other).argmax(-1)).float().mean().item()
        for own, other in zip(made, reference.hiddens, strict=True)
    ]
    model._state.hiddens[: len(rows), :STEPS] = made
    for slot in rows:
        model.rewind(slot)
    return model.vocode([ModelPiece(slot, 0, STEPS, last=True) for slot in rows]), statistics.fmean(alike)


def in_turns(acts: Sequence[Callable[[], object]], repeats: int = REPEATS) -> list[float]:
    """Seconds of each, the median."""
    taken: list[list[float]] = [[] for _ in acts]
    for repeat in range(repeats):
        for number in interleaved(len(acts), repeat):
            began = time.perf_counter()
            acts[number]()
            taken[number].append(time.perf_counter() - began)
    return [statistics.median(times) for times in taken]


def precisions(assets: Path, reference: Reference) -> list[list[str]]:
    models: dict[Precision, Slots] = {}
    for asked in BY_DEVICE["cpu"]:
        try:
            models[asked] = _model(assets, chosen_precision(asked, CPU))
        except CannotServe as error:
            print(error, file=sys.stderr)
    found = {precision: forced(model, reference) for precision, model in models.items()}
    steps = in_turns([lambda model=model: model.step(range(ROWS)) for model in models.values()], 15)  # type: ignore[misc]
    whole = [ModelPiece(slot, 0, STEPS, last=True) for slot in range(ROWS)]

    def vocode(model: Slots) -> None:
        for slot in range(ROWS):
            model.rewind(slot)
        model.vocode(whole)

    sounds = in_turns([lambda model=model: vocode(model) for model in models.values()], 3)  # type: ignore[misc]
    rows = []
    for (precision, (made, alike)), step, sound in zip(found.items(), steps, sounds, strict=True):
        away = reference.distance(made)
        rows.append([precision, f"{step / steps[0]:.2f}", f"{sound / sounds[0]:.2f}", f"{alike:.1%}", *_shown(away)])
    return rows


def windows(assets: Path, reference: Reference) -> list[list[str]]:
    """A stream's first piece of 8 steps, then 16: by how many steps of look-ahead."""
    rows = []
    for dtype in dict.fromkeys((torch.float32, vocoder_dtype("bfloat16"))):
        for look_ahead in LOOK_AHEADS:
            vocoder = Vocoder(assets, ROWS, CPU, dtype, look_ahead)
            away = reference.distance([_streamed(vocoder, slot, own) for slot, own in enumerate(reference.hiddens)])
            first = (FIRST_CHUNK + look_ahead) / STEPS_PER_SECOND
            rows.append([str(dtype).removeprefix("torch."), str(look_ahead), f"{first:.2f}", *_shown(away)])
    return rows


@torch.inference_mode()
def _streamed(vocoder: Vocoder, slot: int, hidden: torch.Tensor) -> np.ndarray:
    vocoder.open(slot)
    ends = [FIRST_CHUNK, *range(2 * FIRST_CHUNK, len(hidden), 2 * FIRST_CHUNK), len(hidden)]
    pieces = [
        Piece(slot, hidden[start:end], end == len(hidden)) for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    return np.concatenate([vocoder.push([piece])[0].numpy() for piece in pieces])


def asked(reference: Reference) -> list[list[str]]:
    """What a client asks for, on the reference's sound; rates are brought back to the model's own to be "
    "compared."""
    sounds = [
        *((f"sample_rate {rate}", Sound("pcm", sample_rate=rate)) for rate in (8000, 16000, 24000, 48000)),
        *((f"denoise {window}", Sound("pcm", gate_window=window)) for window in (1024, 2048)),
    ]
    rows = []
    for name, sound in sounds:
        made = [_through(own, sound) for own in reference.sounds]
        length = min(len(made[0]), len(reference.sounds[0]))
        below = 0.45 * min(sound.sample_rate, SAMPLE_RATE)  # where the filter of a rate begins
        found = [
            Distance.of(one[:length], own[:length], below) for one, own in zip(made, reference.sounds, strict=True)
        ]
        milliseconds, size = cpu_per_audio_second(lambda sound=sound: Chain(sound))  # type: ignore[misc]
        away = Distance(
            statistics.fmean(one.spectral_db for one in found), statistics.fmean(one.signal_db for one in found)
        )
        rows.append([name, f"{milliseconds:.2f}", f"{size / 1000:.0f}", _shown(away)[0]])
    return rows


def _through(sound: np.ndarray, asked_for: Sound) -> np.ndarray:
    """As the client hears it, at the model's rate again."""
    chain = Chain(asked_for)
    data = chain.push(sound.astype("<f4").tobytes()) + chain.finish()
    heard = np.frombuffer(data, "<i2").astype(np.float64) / 32768
    if asked_for.sample_rate == SAMPLE_RATE:
        return heard
    import av  # resamples as the server does

    resampler = av.AudioResampler("dbl", "mono", SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(heard[None], "dbl", "mono")
    frame.sample_rate = asked_for.sample_rate
    parts = [part.to_ndarray()[0] for one in (frame, None) for part in resampler.resample(one)]
    return np.concatenate(parts)


def refined(assets: Path, prompts: Sequence[list[int]]) -> list[list[str]]:
    """A row of the text stage makes a token a step, about as many as the text has, before the row that "
    "speaks."""
    precision = chosen_precision("auto", CPU)
    models = {stage: _model(assets, precision) for stage in ("code", "text")}
    for stage, model in models.items():
        for slot, prompt in enumerate(prompts):
            _join(model, slot, prompt, stage)  # type: ignore[arg-type]
    code, text = in_turns([lambda model=model: model.step(range(ROWS)) for model in models.values()], 15)  # type: ignore[misc]
    tokens = len(TEXT)
    speech = STEPS * code
    return [[f"refine, {tokens} tokens before {STEPS} steps", f"{text / code:.2f}", f"{tokens * text / speech:+.0%}"]]


def _shown(away: Distance) -> list[str]:
    signal = "exact" if away.signal_db == float("inf") else f"{away.signal_db:.0f}"
    return [f"{away.spectral_db:.2f}", signal]


AWAY = ["spectral distance, dB", "signal over error, dB"]
SECTIONS: dict[str, tuple[str, list[str]]] = {
    "dtype": (
        "In which numbers the model computes. Steps of eight rows and the vocoder's pass, as shares of "
        "float32's time; "
        "how often the likeliest code is the same along the reference's own codes; and the sound of those "
        "codes.",
        ["`server.dtype`", "step", "vocoder", "same likeliest code", *AWAY],
    ),
    "look-ahead": (
        "How far the vocoder looks ahead before it lets go of sound (32 steps are built in), streamed against "
        "vocoded "
        "whole. The first audio waits for 8 steps and the look-ahead.",
        ["vocoder", "look-ahead, steps", "audio made before the first sound, s", *AWAY],
    ),
    "what a client asks for": (
        "CPU of the HTTP process, and how far the spectrum is away up to 0.45 of the rate that is sent (above is "
        "nothing). denoise delays by 43 ms (1024) or 85 ms (2048); its distance is what it takes away, and on random "
        "weights all is noise.",
        ["field", "CPU ms an audio second", "KB an audio second", AWAY[0]],
    ),
    "refine": (
        "The text stage first: a step of it against a step of speech (its head has as many outputs as there "
        "are tokens), "
        "and what it adds to a request.",
        ["", "step of text over step of speech", "added to the time of the speech"],
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--model", type=Path, help="weights; default: a random checkpoint of the project's cache")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="of that random checkpoint")
    parser.add_argument("--report", type=Path, default=Path("docs/quality.md"))
    parser.add_argument("--json", type=Path, default=Path("bench/results/quality.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(cpu_threads())
    folder = checkpoint_of(arguments.model, arguments.size)
    tokenizer = PromptTokenizer(folder)
    prompts = [tokenizer.prompt(TEXT[: 4 + slot]) for slot in range(ROWS)]
    reference = Reference(folder / "asset", prompts)
    found = {
        "dtype": precisions(folder / "asset", reference),
        "look-ahead": windows(folder / "asset", reference),
        "what a client asks for": asked(reference),
        "refine": refined(folder / "asset", prompts),
    }
    weights = f"random weights, {arguments.size}" if arguments.model is None else "the given weights"
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {processor()}, {os.cpu_count()} cores, {weights}"
    arguments.json.write_text(json.dumps({"measured": when, **found}, indent=1) + "\n")
    arguments.report.write_text(report(when, found))
    return 0


def report(when: str, found: dict[str, list[list[Any]]]) -> str:
    lines = [
        "# What each knob costs, and what it does to the sound",
        "",
        "Written by `make bench-quality`; the values are in `bench/results/quality.json`. The reference is "
        "the same codes",
        "computed in float32 and vocoded whole; costs are ratios measured in turns.",
        "",
        f"{when}.",
        "With random weights the sound is noise: distances show how much a knob changes the numbers, not how "
        "it is heard;",
        "run it with `MODEL=` and the real weights for that.",
        "",
    ]
    for name, (text, head) in SECTIONS.items():
        lines += [f"## {name[0].upper()}{name[1:]}", "", text, "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(row)} |" for row in found[name]]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
