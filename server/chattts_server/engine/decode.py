"""The decode loop of one batch over ChatTTS's weights: prompt embeddings in, hidden states out. Knows no sockets.

B rows, S prompt tokens, H hidden width, V = 626 codes in each of 4 codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaModel

from chattts_server.engine.nouns import Limits, Sampling
from chattts_server.engine.sampling import END_CODE, next_codes
from chattts_server.engine.speech_model import OnStep


@dataclass(frozen=True, slots=True)
class Weights:
    """Filled by chat_model.py."""

    llama: LlamaModel
    heads: torch.Tensor  # [4 * V, H]
    codes: torch.Tensor  # [4, V, H]: embedding of each code
    rows_end: bool  # False: the end code is never chosen


@dataclass(frozen=True, slots=True)
class Decoded:
    codes: list[torch.Tensor]  # per row [T, 4]
    hiddens: list[torch.Tensor]  # per row [T, H], float32


@torch.inference_mode()
def decode(
    weights: Weights,
    embeddings: torch.Tensor,  # [B, S, H], shorter prompts padded at the left
    attention: torch.Tensor,  # [B, S], 0 where padded
    sampling: Sampling,
    limits: Sequence[Limits],
    on_step: OnStep,
) -> Decoded:
    """Runs until every row has ended: by the end code, by its limit, or because on_step says so."""
    rows, books = embeddings.shape[0], weights.codes.shape[0]
    longest = max(limit.max_steps for limit in limits)
    made = torch.zeros(rows, longest, books, dtype=torch.long, device=embeddings.device)
    hiddens: list[torch.Tensor] = []
    lengths: list[int | None] = [None] * rows  # None: still running
    generator = _generator(sampling, embeddings.device)
    positions = (attention.cumsum(-1) - 1).masked_fill(attention == 0, 1)
    past = None
    for step in range(longest):
        output = weights.llama(
            inputs_embeds=embeddings, attention_mask=attention, position_ids=positions, past_key_values=past,
            use_cache=True,
        )  # fmt: skip
        past = output.past_key_values
        hidden = output.last_hidden_state[:, -1].float()  # [B, H]
        logits = (hidden @ weights.heads.T).view(rows * books, -1)
        recent = made[:, :step].transpose(1, 2).reshape(rows * books, step)
        may_end = weights.rows_end and step >= max(limit.min_steps for limit in limits)
        codes = next_codes(logits, recent, sampling, may_end, generator).view(rows, books)
        made[:, step] = codes
        hiddens.append(hidden)
        _note_ends(lengths, codes, step, limits, on_step(step), weights.rows_end)
        if None not in lengths:
            break
        embeddings = sum(weights.codes[book][codes[:, book]] for book in range(books))[:, None]  # type: ignore[index]
        attention = torch.cat([attention, attention.new_ones(rows, 1)], 1)
        positions = positions[:, -1:] + 1
    stacked = torch.stack(hiddens, 1)
    ends = [len(hiddens) if length is None else length for length in lengths]
    return Decoded(
        [made[row, :end] for row, end in enumerate(ends)], [stacked[row, :end] for row, end in enumerate(ends)]
    )


def _note_ends(
    lengths: list[int | None],
    codes: torch.Tensor,
    step: int,
    limits: Sequence[Limits],
    stopped: frozenset[int],
    rows_end: bool,
) -> None:
    """The end code itself is not part of a row; the step that reaches the limit is."""
    said_end = (codes == END_CODE).any(1).tolist() if rows_end else [False] * len(lengths)
    for row, limit in enumerate(limits):
        if lengths[row] is None:
            if said_end[row]:
                lengths[row] = step
            elif row in stopped or step + 1 >= limit.max_steps:
                lengths[row] = step + 1


def _generator(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    """A seeded row runs alone (scheduler.agrees) on a stream of its own."""
    if sampling.seed is None:
        return None
    return torch.Generator(device=device).manual_seed(sampling.seed)
