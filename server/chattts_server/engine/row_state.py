"""What the next step of each slot reads, and what its steps have made: tensors taken once. Knows no model.

R slots, H hidden width. A row that joins writes all of its slot before anything of it is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from chattts_server.engine.fixed_memory import reserved_zeros
from chattts_server.engine.nouns import CODEBOOKS, Submit
from chattts_server.engine.refusal import MAX_STEPS
from chattts_server.engine.sampling import NO_CODE, PENALTY_WINDOW, Parameters


class RowState:
    def __init__(self, slots: int, width: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        self.inputs = zeros(width)  # of the next step: the last prompt token, then the sum of the last codes
        self.hiddens = reserved_zeros((slots, MAX_STEPS, width), torch.float32, device)  # what the vocoder reads
        self.codes = zeros(MAX_STEPS, CODEBOOKS, dtype=torch.long)
        self.history = zeros(CODEBOOKS, PENALTY_WINDOW, dtype=torch.long)
        self.seed = zeros(dtype=torch.long)
        self._temperature, self._top_p, self._penalty = zeros(), zeros(), zeros()
        self._top_k, self._min_steps = zeros(dtype=torch.long), zeros(dtype=torch.long)

    def open(self, slot: int, row: Submit, seed: int, first: torch.Tensor) -> None:
        sampling, here = row.sampling, slice(slot, slot + 1)  # setting one element would wait for a device
        self.rewind(slot, seed, first)
        self._temperature[here], self._top_p[here] = sampling.temperature, sampling.top_p
        self._top_k[here], self._penalty[here] = sampling.top_k, sampling.repetition_penalty
        self._min_steps[here] = row.limits.min_steps

    def rewind(self, slot: int, seed: int, first: torch.Tensor) -> None:
        """Nothing is made yet; `first` [H] is the input of the first step."""
        self.history[slot] = NO_CODE
        self.seed[slot : slot + 1], self.inputs[slot] = seed, first

    def parameters(self, own: torch.Tensor | slice, steps: torch.Tensor, rows_end: bool) -> Parameters:
        may_end = (steps >= self._min_steps[own]) & rows_end
        return Parameters(self._temperature[own], self._top_p[own], self._top_k[own], self._penalty[own], may_end)

    def commit(
        self, slots: Sequence[int], steps: Sequence[int], hidden: torch.Tensor, codes: torch.Tensor,
        inputs: torch.Tensor,
    ) -> None:  # fmt: skip
        own, at = torch.tensor([slots, steps], device=hidden.device)
        self.hiddens[own, at], self.codes[own, at] = hidden, codes
        self.history[own] = torch.cat([self.history[own][..., 1:], codes[..., None]], dim=-1)
        self.inputs[own] = inputs

    def commit_where(
        self, active: torch.Tensor, steps: torch.Tensor, hidden: torch.Tensor, codes: torch.Tensor,
        inputs: torch.Tensor,
    ) -> None:  # fmt: skip
        """Of slots 0 to n, those that are `active` [n] bool; at `steps` [n] the others keep what they have."""
        own = torch.arange(len(active), device=active.device)
        here = slice(0, len(active))
        at = steps.clamp_max(MAX_STEPS - 1)  # of a row that is over, which is not active
        row = active[:, None]
        self.hiddens[own, at] = torch.where(row, hidden, self.hiddens[own, at])
        self.codes[own, at] = torch.where(row, codes, self.codes[own, at])
        moved = torch.cat([self.history[here, :, 1:], codes[..., None]], dim=-1)
        self.history[here] = torch.where(row[..., None], moved, self.history[here])
        self.inputs[here] = torch.where(row, inputs, self.inputs[here])
