"""`chattts-server doctor`: what this machine and these weights are good for. Prints lines, changes nothing."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from chattts_server.engine import native
from chattts_server.engine.checkpoint import Checkpoint, open_checkpoint, verify
from chattts_server.engine.cold_start import chosen_device, fitting_rows, warm_up
from chattts_server.engine.kernels import fastest
from chattts_server.engine.nouns import SAMPLE_RATE, Limits, Sampling, Submit, Voice, steps_for
from chattts_server.engine.precision import chosen_precision
from chattts_server.engine.slots import Slots, row_bytes
from chattts_server.engine.speech_model import Piece
from chattts_server.engine.threads import cpu_threads
from chattts_server.text.tokens import PromptTokenizer

DRIVER = Path("/proc/driver/nvidia/version")
Say = Callable[[str], None]
TEXTS = ("今天天气很好，我们去公园走走。", "好", "Hello, this is a test of speech.")
COMPARED_STEPS = 64
GREEDY = Sampling(temperature=1e-6)


def examine(folder: Path, device_name: str, dtype: str, compare: bool, say: Say) -> bool:
    """True: speech can be served from `folder` on this device. Raises CannotServe with a line for people."""
    torch.set_num_threads(cpu_threads())
    say(f"software   Python {platform.python_version()}, torch {torch.__version__}")
    device = chosen_device(device_name)
    say(f"device     {_described(device)}")
    checkpoint = open_checkpoint(folder)
    verify(checkpoint)
    say(f"weights    {folder}: all files have their {checkpoint.origin} digests")
    assets = folder / "asset"
    # Codes are equal to ChatTTS's in float32 only.
    precision = chosen_precision("float32" if compare else dtype, device)
    kernels = fastest(precision, device)
    most = fitting_rows(assets, precision, device, by_kernels=kernels is not None)
    model = Slots(assets, None, device, precision, checkpoint.rows_end, most=most, kernels=kernels)
    slot = row_bytes(assets, precision, device, kernels is not None) / 2**20
    rows = model.slots
    say(f"memory     {slot:.0f} MiB a row; maxBatchSize left out means {rows} rows here, {rows * slot / 1024:.1f} GiB")
    say(f"numbers    {precision}, computed by {kernels.name + ' kernels' if kernels else 'torch'}")
    throughput = warm_up(model)
    say(f"speed      {throughput:.2f} audio seconds per second with {rows} rows, steps at {model.row_counts} rows")
    spoken = _speak_a_second(model, checkpoint, say)
    if not compare:
        return spoken
    return spoken & _compare(model, folder, device, say)


def _described(device: torch.device) -> str:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        return f"{name}, driver {_driver()}, CUDA {torch.version.cuda}, {memory}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"CPU ({capability}), {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def _driver() -> str:
    """The kernel module's own word, as torch knows only the API's version."""
    found = re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text()) if DRIVER.exists() else None
    return found[1] if found else "unknown"


def _speak_a_second(model: Slots, checkpoint: Checkpoint, say: Say) -> bool:
    token_ids = PromptTokenizer(checkpoint.folder).prompt(TEXTS[0])
    began = time.monotonic()
    (_, pcm) = _speak(model, [token_ids], steps_for(1.0))[0]
    took = time.monotonic() - began
    peak = float(abs(pcm).max())
    say(f"speech     {len(pcm) / SAMPLE_RATE:.2f} s of audio in {took:.2f} s, loudest sample {peak:.3f}")
    if peak == 0.0:
        say("           the audio is silent: these weights do not speak")
    return peak > 0.0


def _compare(model: Slots, folder: Path, device: torch.device, say: Say) -> bool:
    """Greedy codes of ours, in one batch, against ChatTTS's own, one text at a time."""
    chat = native.load_chat(folder, device)
    prompts = [chat.speaker.decorate_code_prompts([text], "[speed_5]", None, None) for text in TEXTS]
    token_ids = [chat.tokenizer.encode(prompt, 4)[0][0, :, 0].tolist() for prompt in prompts]
    batches = [token_ids] if model.slots >= len(token_ids) else [[one] for one in token_ids]
    ours = [row for batch in batches for row in _speak(model, batch, COMPARED_STEPS)]
    equal = True
    for text, (codes, pcm) in zip(TEXTS, ours, strict=True):
        parameters = native.exactly(COMPARED_STEPS, temperature=GREEDY.temperature)
        theirs = next(chat._infer_code([text], False, device, True, parameters))
        differing = int((theirs.ids[0].cpu() != codes.cpu()).any(-1).sum())
        wave = chat._decode_to_wavs(theirs.hiddens, True)[0]
        distance = float(abs(wave - pcm).max()) if differing == 0 else float("nan")
        verdict = "equal" if differing == 0 else f"{differing} of {COMPARED_STEPS} steps DIFFER"
        say(f"compare    {text!r}: codes {verdict}, waveforms within {distance:.1e}")
        equal &= differing == 0
    return equal


def _speak(model: Slots, prompts: Sequence[Sequence[int]], steps: int) -> list[tuple[torch.Tensor, np.ndarray]]:
    """(codes [T, 4], samples) of rows of exactly so many greedy steps, all in one batch."""
    slots = range(len(prompts))
    for slot, token_ids in enumerate(prompts):
        row = Submit(slot, list(token_ids), Voice(), GREEDY, Limits(steps, steps), None, 0)
        for _ in range(model.join(slot, row, seed=slot)):
            model.prefill(slot)
    for _ in range(steps):
        model.step(slots)
    waves = model.vocode([Piece(slot, 0, steps, last=True) for slot in slots])
    return [(model.codes(slot), wave) for slot, wave in zip(slots, waves, strict=True)]
