"""From the logits of one step to the next codes, for all rows. Knows tensors, no model and no limits.

ChatTTS's order: temperature -> repetition penalty (window 16, penalty^count) -> top-p (keeps 3) -> top-k -> softmax. It
sorts and draws over all 626 codes; here only the top k are looked at: the same choice for a third of the time.
"""

from __future__ import annotations

import torch

from chattts_server.engine.nouns import Sampling

END_CODE = 625
PENALTY_WINDOW = 16
KEEP_AT_LEAST = 3


def next_codes(
    logits: torch.Tensor,
    recent: torch.Tensor,
    sampling: Sampling,
    may_end: bool,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """logits [N, 626] and the codes made so far, newest last [N, n] -> codes [N]. N is rows times codebooks."""
    top, index = candidates(logits, recent, sampling)
    if not may_end:
        top = top.masked_fill(index == END_CODE, -torch.inf)
    # argmax(p / Exponential(1)) is a draw from p: what torch.multinomial does, over k values instead of 626.
    noise = torch.empty_like(top).exponential_(generator=generator)
    chosen = (top.softmax(-1) / noise).argmax(-1, keepdim=True)
    return index.gather(-1, chosen)[:, 0]


def candidates(logits: torch.Tensor, recent: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores, code) of the top k, both [N, k]; what is outside the nucleus has the score -inf."""
    scores = logits / sampling.temperature
    if sampling.repetition_penalty != 1.0 and recent.shape[1]:
        recent = recent[:, -PENALTY_WINDOW:]
        counts = (recent[:, :, None] == recent[:, None, :]).sum(-1)  # [N, window]
        alpha = sampling.repetition_penalty**counts
        old = scores.gather(1, recent)
        scores.scatter_(1, recent, torch.where(old < 0, old * alpha, old / alpha))
    top, index = scores.topk(max(sampling.top_k, KEEP_AT_LEAST), dim=-1)
    chances = (top - scores.logsumexp(-1, keepdim=True)).exp()
    before = chances.cumsum(-1) - chances
    outside = before >= sampling.top_p
    outside[:, :KEEP_AT_LEAST] = False
    return top.masked_fill(outside, -torch.inf), index
