"""Attention of one decode step over static keys and values. Knows no layers.

R slots, M positions a slot, n rows of the step, h heads of depth D, T columns of context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

FINEST_CONTEXT = 32  # columns


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of a step in neighbouring slots that look at equally many columns: one product for all of them."""

    rows: slice
    slots: slice
    context: int  # T, a function of each row's own position alone: another T could have other last bits
    mask: torch.Tensor  # [n, 1, 1, T], 0 or -inf beyond a row's own position


def runs(slots: Sequence[int], positions: Sequence[int], longest: int, places: torch.Tensor) -> list[Run]:
    """`slots` ascending; `positions` of the step's own keys, also as the tensor `places` [n]."""
    contexts = [_context(position + 1, longest) for position in positions]
    found = []
    start = 0
    for row in range(1, len(slots) + 1):
        if row < len(slots) and contexts[row] == contexts[start] and slots[row] == slots[row - 1] + 1:
            continue
        rows = slice(start, row)
        columns = torch.arange(contexts[start], device=places.device)
        beyond = (columns > places[rows, None])[:, None, None]
        mask = torch.zeros(beyond.shape, device=places.device).masked_fill_(beyond, -torch.inf)
        found.append(Run(rows, slice(slots[start], slots[row - 1] + 1), contexts[start], mask))
        start = row
    return found


def attend(query: torch.Tensor, cache: torch.Tensor, over: Sequence[Run]) -> torch.Tensor:
    """query [n, h, D], already scaled; cache [R, h, 2, M, D], keys and values -> [n, h, D].

    Plain products: on a CPU torch's fused attention gives other bits on other threads, and is slower for one query.
    """
    query = query.to(cache.dtype)
    mixed = []
    for run in over:
        keys, values = cache[run.slots, :, :, : run.context].unbind(2)  # [n, h, T, D]
        scores = query[run.rows, :, None] @ keys.transpose(-1, -2)
        mixed.append(scores.add_(run.mask).softmax(-1) @ values)
    return (mixed[0] if len(mixed) == 1 else torch.cat(mixed))[:, :, 0].float()


def attend_masked(query: torch.Tensor, cache: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """query [n, h, D], already scaled; cache [n, h, 2, T, D]; mask [n, T], 0 or -inf -> [n, h, D], float32.

    For a device, whose memory-efficient kernel goes through the columns in order: what is masked adds nothing, so
    neither T nor n changes a row's bits. cuDNN, which torch would prefer on newer cards, promises nothing like it.
    """
    keys, values = cache.unbind(2)
    one = query[:, :, None].to(cache.dtype)
    bias = mask[:, None, None].expand(-1, query.shape[1], -1, -1)
    if query.device.type == "cuda":
        mixed = torch.ops.aten._scaled_dot_product_efficient_attention(one, keys, values, bias, False, scale=1.0)[0]
    else:
        mixed = scaled_dot_product_attention(one, keys, values, attn_mask=bias, scale=1.0)
    made: torch.Tensor = mixed[:, :, 0].float()
    return made


def _context(columns: int, longest: int) -> int:
    """Rounded up to at most an eighth more, or to 64: as keys come from memory, reading too many is what costs."""
    grain = max(FINEST_CONTEXT, 1 << max(0, (columns - 1).bit_length() - 3))
    return min(longest, -(-columns // grain) * grain)
