"""From the logits of one step to the next codes, each row by its own parameters. Knows tensors, no model.

ChatTTS's order: temperature -> repetition penalty (window 16, penalty^count) -> top-p (keeps 3) -> top-k -> draw. It
sorts and draws over all 626 codes; here only the best candidates are looked at: the same choice for a third of the
time. n rows, 4 codebooks, V = 626 codes, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from chattts_server.engine.nouns import END_CODE

PENALTY_WINDOW = 16
KEEP_AT_LEAST = 3
NO_CODE = -1  # in a history that is not full yet
USUAL_CANDIDATES = 32  # that are looked at where no row's top_k is above it

# (row addresses, candidates [n, 4, K]) -> Exponential(1) noise [n, 4, K]
Noise = Callable[["Addresses", torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where in its own stream of noise each row stands."""

    seed: torch.Tensor  # [n] int64
    step: torch.Tensor  # [n] int64


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of n rows, one value each."""

    temperature: torch.Tensor  # [n]
    top_p: torch.Tensor  # [n]
    top_k: torch.Tensor  # [n]
    repetition_penalty: torch.Tensor  # [n]
    may_end: torch.Tensor  # [n] bool


class Draw(Protocol):
    """draw() below with its noise given, or another way to the same codes."""

    def __call__(
        self, logits: torch.Tensor, history: torch.Tensor, parameters: Parameters, addresses: Addresses, *, end: int,
        looked_at: int | None,
    ) -> torch.Tensor: ...  # fmt: skip


def draw(
    logits: torch.Tensor, history: torch.Tensor, parameters: Parameters, addresses: Addresses, noise: Noise,
    end: int = END_CODE, looked_at: int | None = None,
) -> torch.Tensor:  # fmt: skip
    """logits [n, 4, V] and the last codes, NO_CODE where there are none yet [n, 4, 16] -> codes [n, 4].

    The text stage has one codebook, of V tokens. `looked_at`: see candidates().
    """
    scores, index = candidates(logits, history, parameters, looked_at)
    scores = scores.masked_fill((index == end) & ~parameters.may_end[:, None, None], -torch.inf)
    # argmax(p / Exponential(1)) is a draw from p, and in logarithms it needs no normalisation.
    drawn = (scores - noise(addresses, index).log()).masked_fill(scores == -torch.inf, -torch.inf)
    chosen = drawn.argmax(-1, keepdim=True)
    return index.gather(-1, chosen)[..., 0]


def candidates(
    logits: torch.Tensor, history: torch.Tensor, parameters: Parameters, looked_at: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores, codes), both [n, 4, K], best first; what is outside top-p or top-k has the score -inf.

    `looked_at`: K, at least each row's top-k; None: all V. It makes no difference to the choice.
    """
    scores = logits / parameters.temperature[:, None, None]
    scores = _penalized(scores, history, parameters.repetition_penalty[:, None, None])
    top, index = scores.topk(looked_at or scores.shape[-1], dim=-1)
    # A device adds in another order for another number of rows; in float64 no threshold is near enough to notice.
    exact = top.double()
    chances = (exact - scores.double().logsumexp(-1, keepdim=True)).exp()
    before = chances.cumsum(-1) - chances
    rank = torch.arange(top.shape[-1], device=top.device)
    kept = (before < parameters.top_p[:, None, None]) | (rank < KEEP_AT_LEAST)
    kept &= rank < parameters.top_k[:, None, None].clamp_min(KEEP_AT_LEAST)
    return top.masked_fill(~kept, -torch.inf), index


def _penalized(scores: torch.Tensor, history: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    counts = (history[..., :, None] == history[..., None, :]).sum(-1)  # [n, 4, window]
    factor = penalty**counts
    widened = torch.nn.functional.pad(scores, (0, 1))  # a place for NO_CODE
    places = torch.where(history == NO_CODE, scores.shape[-1], history)
    old = widened.gather(-1, places)
    return widened.scatter(-1, places, torch.where(old < 0, old * factor, old / factor))[..., :-1]


def counter_noise(addresses: Addresses, index: torch.Tensor) -> torch.Tensor:
    """Exponential(1) noise that is a function of (seed, step, codebook, code) and of nothing else.

    So a row's result depends neither on its neighbours nor on when it joined. The mixing function is MurmurHash3's
    64-bit finalizer, twice; int64 products wrap alike on every device.
    """
    books = torch.arange(index.shape[1], device=index.device)
    key = _mixed(addresses.seed)[:, None] + addresses.step[:, None] * index.shape[1] + books  # [n, 4]
    bits = _mixed(_mixed(key)[..., None] + index)
    uniform = ((bits >> 41 & 0x7FFFFF).float() + 0.5) * 2.0**-23  # exact in float32, so never 0 and never 1
    return -uniform.log()


def _mixed(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shifted(x, 33)) * -0x00AE502812AA7333  # 0xff51afd7ed558ccd as a signed number
    x = (x ^ _shifted(x, 33)) * -0x3B314601E57A13AD  # 0xc4ceb9fe1a85ec53
    return x ^ _shifted(x, 33)


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return x >> bits & ((1 << (64 - bits)) - 1)
