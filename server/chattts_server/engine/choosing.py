"""The end of a step: from hidden states to the codes of each row, and the input of its next step. Knows no slots.

n rows, H hidden width. Nothing here asks the device for a value: a graph of it can be captured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from chattts_server.engine.model import LanguageModel
from chattts_server.engine.nouns import CODEBOOKS, END_CODE, END_TOKEN, Stage
from chattts_server.engine.sampling import Addresses, Draw, Parameters

END: dict[Stage, int] = {"code": END_CODE, "text": END_TOKEN}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Of n rows. Filled by choose()."""

    codes: torch.Tensor  # [n, 4]; of text four times the same token
    inputs: torch.Tensor  # [n, H]
    ended: torch.Tensor  # [n] bool
    finite: torch.Tensor  # [n] bool; what is not must not be heard


def choose(
    gpt: LanguageModel, stage: Stage, hidden: torch.Tensor, history: torch.Tensor, parameters: Parameters,
    addresses: Addresses, draw: Draw, looked_at: int | None,
) -> Chosen:  # fmt: skip
    """`hidden` [n, H], `history` [n, 4, 16]; `looked_at`: see sampling.candidates."""
    logits = gpt.code_logits(hidden) if stage == "code" else gpt.text_logits(hidden)
    codes = draw(logits, history[:, : logits.shape[1]], parameters, addresses, end=END[stage], looked_at=looked_at)
    finite = hidden.isfinite().all(-1) & logits.isfinite().all(-1).all(-1)
    ended = (codes == END[stage]).any(-1)
    if stage == "code":
        return Chosen(codes, gpt.embed_codes(codes), ended, finite)
    return Chosen(codes.expand(-1, CODEBOOKS), gpt.embed_text(codes[:, 0]), ended, finite)
