"""Why a row may not reach the device. A bad id on a GPU would end the whole process. Knows numbers, no tensor."""

from __future__ import annotations

import numpy as np

from chattts_server.engine.nouns import CODEBOOKS, END_CODE, Submit

MAX_STEPS = 2048
MAX_TOKENS = 1024  # of a prompt, the steps of an audio prompt among them


def problem(row: Submit, text_tokens: int, width: int) -> str | None:
    """None: it may. `text_tokens`: how many ids there are; `width`: of the speaker embedding."""
    voice = row.voice
    if not 0 < len(row.token_ids) <= MAX_TOKENS:
        return f"{len(row.token_ids)} tokens; 1 to {MAX_TOKENS} are possible"
    if not 0 <= min(row.token_ids) <= max(row.token_ids) < text_tokens:
        return "a token id is out of range"
    if not 1 <= row.limits.min_steps <= row.limits.max_steps <= MAX_STEPS:
        return f"limits {row.limits.min_steps} to {row.limits.max_steps}; 1 to {MAX_STEPS} steps are possible"
    sampling = row.sampling
    if not (0 < sampling.temperature < np.inf and 0 < sampling.repetition_penalty < np.inf and sampling.top_k >= 1):
        return "temperature, repetition penalty and top-k must be positive"
    if voice.embedding and len(voice.embedding) != 4 * width:
        return "the speaker embedding has another width than the model"
    if voice.embedding and not np.isfinite(np.frombuffer(voice.embedding, "<f4")).all():
        return "the speaker embedding is not finite"
    if len(voice.codes) % (2 * CODEBOOKS):
        return "the audio prompt has a wrong shape"
    if len(row.token_ids) + len(voice.codes) // (2 * CODEBOOKS) > MAX_TOKENS:
        return f"the prompt and its audio prompt are longer than {MAX_TOKENS} together"
    if voice.codes and int(np.frombuffer(voice.codes, "<u2").max()) >= END_CODE:
        return "a code of the audio prompt is out of range"
    return None
