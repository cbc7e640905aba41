"""The language model by our own kernels, and the choice between it and torch's. Knows no sampling.

n rows or tokens of one pass, H hidden width. A row's bits depend on no other row, by construction: every number of
rows is computed as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from chattts_server.engine.kernels import DEPTHS, Kernels, PackedLayer, Pass
from chattts_server.engine.model import Gpt, LanguageModel
from chattts_server.engine.precision import Precision, state_dtype
from chattts_server.engine.products import Product, RowCounts
from chattts_server.engine.sampling import Addresses, Draw, Parameters
from chattts_server.engine.weights import GptWeights


class KernelGpt(LanguageModel):
    def __init__(self, weights: GptWeights, most: int, positions: int, precision: Precision, kernels: Kernels) -> None:
        super().__init__(weights, positions, state_dtype(precision, weights.norm.device, by_kernels=True))
        self._kernels = kernels
        self._layers = [PackedLayer(kernels, layer, precision) for layer in weights.layers]
        self._norm_last, self._epsilon = weights.norm.clone(), weights.epsilon
        self._code_head = kernels.pack(weights.code_heads, "float32")
        self._text_head = kernels.pack(weights.text_head, "float32")
        self.row_counts = RowCounts(tuple(range(1, most + 1)))

    def allocate(self, slots: int) -> None:
        super().allocate(slots)
        self._pass = Pass(self._layers, self._norm_last, self._epsilon, self._turns, self._cache)

    def prefill(self, slot: int, start: int, embeddings: torch.Tensor) -> torch.Tensor:
        count = len(embeddings)
        return self._kernels.forward(self._pass, embeddings, [slot] * count, range(start, start + count))

    def decode(self, inputs: torch.Tensor, slots: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        return self._kernels.forward(self._pass, inputs, slots, positions)

    def products(self) -> tuple[list[Product], Product]:
        made = [one for layer in self._layers for one in layer.products]
        return [Product(one.inputs, one.outputs, one) for one in made], Product(
            self._code_head.inputs, self._code_head.outputs, self._code_head
        )

    def _code_scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._code_head(hidden)

    def _text_scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._text_head(hidden)


def language_model(
    weights: GptWeights, most: int, positions: int, precision: Precision, kernels: Kernels | None
) -> LanguageModel:
    """`kernels` None: there are none for this processor, or for this precision on it."""
    if kernels is None or weights.width // weights.attention_heads not in DEPTHS:
        return Gpt(weights, most, positions, precision)
    return KernelGpt(weights, most, positions, precision, kernels)


def kernel_draw(kernels: Kernels) -> Draw:
    """sampling.draw with counter_noise; how many candidates are looked at follows from each row's own top-k."""

    def draw(
        logits: torch.Tensor, history: torch.Tensor, parameters: Parameters, addresses: Addresses, *, end: int,
        looked_at: int | None,  # noqa: ARG001
    ) -> torch.Tensor:  # fmt: skip
        return kernels.draw(
            logits, history, parameters.temperature, parameters.top_p, parameters.top_k,
            parameters.repetition_penalty, parameters.may_end, addresses.seed, addresses.step, end,
        )  # fmt: skip

    return draw
