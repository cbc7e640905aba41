"""The language model: embeddings, layers over static KV slots, heads. Knows no sampling, no sockets and no time.

R slots, M positions a slot, n rows or tokens of one pass, H hidden width, h attention heads of D = H / h.
The KV memory is taken once; a slot that is given to another row is simply written over, and what its row has not
written is masked. Only the products are computed in the chosen precision: sums, norms and rotations are float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import pad, rms_norm, silu

from chattts_server.engine.attention import attend, attend_masked, runs
from chattts_server.engine.fixed_memory import reserved_zeros
from chattts_server.engine.nouns import CODEBOOKS
from chattts_server.engine.precision import Precision, state_dtype
from chattts_server.engine.products import Product, RowCounts, equal_row_counts, multiplied, product
from chattts_server.engine.weights import GptWeights, LayerWeights

Attend = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]  # layer, q [n, h, D], kv [n, h, 2, D] -> [n, h, D]
PREFILL_BLOCK = 16  # tokens; a kernel is made for each length, so there are to be few


class LanguageModel(ABC):
    """What a step asks for, however the layers are computed."""

    row_counts: RowCounts  # that a step is computed at

    def __init__(self, weights: GptWeights, positions: int, dtype: torch.dtype) -> None:
        """`dtype`: of keys and values."""
        self._text, self._codes = weights.text, weights.codes
        self._heads = weights.attention_heads
        self._positions = positions
        self._depth = weights.width // self._heads
        self._layer_count = len(weights.layers)
        self._device = weights.norm.device
        self._dtype = dtype
        self._turns = _rotations(positions, self._depth, weights.rope_theta, self._device)
        self._cache = torch.empty(0)

    def allocate(self, slots: int) -> None:
        """The memory of keys and values, once."""
        shape = (self._layer_count, slots, self._heads, 2, self._positions, self._depth)
        self._cache = reserved_zeros(shape, self._dtype, self._device)

    @property
    def memory(self) -> torch.Tensor:
        return self._cache

    def clear(self, slot: int, end: int) -> None:
        """The first `end` positions. What is masked still is multiplied by zero: no NaN must stay."""
        self._cache[:, slot, :, :, :end] = 0.0

    @abstractmethod
    def prefill(self, slot: int, start: int, embeddings: torch.Tensor) -> torch.Tensor:
        """Keys and values of prompt positions start .. start + n of one row: embeddings [n, H] -> its hidden [n, H]."""

    @abstractmethod
    def decode(self, inputs: torch.Tensor, slots: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """One step of n rows at their own positions, slots ascending: inputs [n, H] -> hidden [n, H], float32."""

    @abstractmethod
    def products(self) -> tuple[list[Product], Product]:
        """Those of the layers, in the order of a step, and that of the code heads."""

    @abstractmethod
    def _code_scores(self, hidden: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _text_scores(self, hidden: torch.Tensor) -> torch.Tensor: ...

    def code_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, H] -> [n, 4, V], float32"""
        return self._code_scores(hidden).view(len(hidden), CODEBOOKS, -1)

    def text_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, H] -> [n, 1, tokens], float32"""
        return self._text_scores(hidden)[:, None]

    def embed_text(self, token_ids: torch.Tensor) -> torch.Tensor:
        """[n] -> [n, H]"""
        return self._text[token_ids]

    def embed_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """[n, 4] -> [n, H]: the sum over the codebooks, added in ChatTTS's order."""
        total = self._codes[0][codes[:, 0]]
        for book in range(1, CODEBOOKS):
            total = total + self._codes[book][codes[:, book]]
        return total


class Gpt(LanguageModel):
    """By torch: on a CUDA device, and on a CPU for which there are no kernels."""

    def __init__(
        self, weights: GptWeights, most: int, positions: int, precision: Precision, row_counts: RowCounts | None = None
    ) -> None:
        """`most`: how many rows may come together; products are prepared for about so many.

        `row_counts` None: measured on the device.
        """
        super().__init__(weights, positions, state_dtype(precision, weights.norm.device))
        self._norm_last = weights.norm
        self._epsilon = weights.epsilon
        self.layers = [_Layer(layer, most, precision) for layer in weights.layers]
        self._code_head = product(weights.code_heads, most, "float32")
        self._text_head = product(weights.text_head, most, "float32")
        products = [*self.layers[0].products, self._code_head, self._text_head]
        self.row_counts = row_counts or equal_row_counts(products, most, self._device)

    def prefill(self, slot: int, start: int, embeddings: torch.Tensor) -> torch.Tensor:
        count, end = len(embeddings), start + len(embeddings)
        # Each token sees all earlier positions of its own row, and itself.
        seen = torch.ones(count, end, dtype=torch.bool, device=embeddings.device).tril(start)

        def attend_prompt(layer: int, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
            cache = self._cache[layer, slot]  # [h, 2, M, D]
            cache[:, :, start:end] = key_value[:count].permute(1, 2, 0, 3)
            keys, values = cache[:, :, :end].unbind(1)  # [h, T, D]
            scores = query[:count].to(keys.dtype).transpose(0, 1) @ keys.transpose(-1, -2)  # [h, n, T]
            weights = scores.masked_fill_(~seen, -torch.inf).softmax(-1)
            return _extended((weights @ values).transpose(0, 1).to(query.dtype), len(query))

        padded = _extended(embeddings, count + -count % PREFILL_BLOCK)
        places = torch.arange(start, start + len(padded), device=embeddings.device).clamp_max(self._positions - 1)
        return self._forward(padded, places, attend_prompt, len(padded))[:count]

    def decode(self, inputs: torch.Tensor, slots: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        rows = len(slots)
        blocks, size = self.row_counts.blocks(rows)
        places = torch.tensor([*positions, *[0] * (blocks * size - rows)], device=inputs.device)
        own, at = torch.tensor(slots, device=inputs.device), places[:rows]
        over = runs(slots, positions, self._positions, at)

        def attend_step(layer: int, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
            cache = self._cache[layer]  # [R, h, 2, M, D]
            cache[own, :, :, at] = key_value[:rows].to(cache.dtype)
            return _extended(attend(query[:rows], cache, over), len(query))

        padded = _extended(inputs, blocks * size)
        return self._forward(padded, places, attend_step, size)[:rows]

    def decode_slots(self, inputs: torch.Tensor, positions: torch.Tensor, context: int) -> torch.Tensor:
        """One step of slots 0 to n over `context` columns, all values on the device: inputs [n, H] -> hidden [n, H].

        n is a whole number of blocks of `row_counts`. A slot's key is written at its own position, whoever steps.
        """
        rows = len(inputs)
        own = torch.arange(rows, device=inputs.device)
        at = positions.clamp_max(self._positions - 1)
        beyond = torch.arange(context, device=inputs.device) > at[:, None]
        mask = torch.zeros(beyond.shape, dtype=self._dtype, device=inputs.device).masked_fill(beyond, -torch.inf)

        def attend_slots(layer: int, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
            cache = self._cache[layer, :rows]  # [n, h, 2, M, D]
            cache[own, :, :, at] = key_value.to(cache.dtype)
            return attend_masked(query, cache[:, :, :, :context], mask)

        return self._forward(inputs, at, attend_slots, self.row_counts.blocks(rows)[1])

    def products(self) -> tuple[list[Product], Product]:
        return [made for layer in self.layers for made in layer.products], self._code_head

    def _code_scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._logits(self._code_head, hidden)

    def _text_scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._logits(self._text_head, hidden)

    def _logits(self, head: Product, hidden: torch.Tensor) -> torch.Tensor:
        blocks, size = self.row_counts.blocks(len(hidden))
        return multiplied(head, _extended(hidden, blocks * size), size)[: len(hidden)]

    def _forward(self, x: torch.Tensor, places: torch.Tensor, attend: Attend, size: int) -> torch.Tensor:
        """x [n, H] at positions [n], `size` rows in a product -> [n, H]."""
        rows, width = x.shape
        turns = self._turns[places][:, :, None]  # [n, 2, 1, D / 2]
        for number, layer in enumerate(self.layers):
            qkv = multiplied(layer.qkv, self._norm(x, layer.norm_attention), size).view(rows, 3, self._heads, -1)
            torch.view_as_complex(qkv[:, :2].view(rows, 2, self._heads, -1, 2)).mul_(turns)
            mixed = attend(number, qkv[:, 0], qkv[:, 1:].transpose(1, 2))
            x = x + multiplied(layer.out, mixed.reshape(rows, width), size)
            gate, up = multiplied(layer.gate_up, self._norm(x, layer.norm_mlp), size).chunk(2, dim=-1)
            x = x + multiplied(layer.down, silu(gate) * up, size)
        return self._norm(x, self._norm_last)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, weight.shape, weight, self._epsilon)


class _Layer:
    """One layer's products, ready to be called."""

    def __init__(self, weights: LayerWeights, rows: int, precision: Precision) -> None:
        self.norm_attention, self.norm_mlp = weights.norm_attention, weights.norm_mlp
        self.qkv = product(weights.qkv, rows, precision)
        self.out = product(weights.out, rows, precision)
        self.gate_up = product(weights.gate_up, rows, precision)
        self.down = product(weights.down, rows, precision)
        self.products = (self.qkv, self.out, self.gate_up, self.down)


def _extended(x: torch.Tensor, rows: int) -> torch.Tensor:
    """With rows of zeros behind it."""
    return x if len(x) == rows else pad(x, (*[0, 0] * (x.dim() - 1), 0, rows - len(x)))


def _rotations(positions: int, depth: int, theta: float, device: torch.device) -> torch.Tensor:
    """RoPE as complex numbers, [M, 2, D / 2], of queries and of keys: weights.py puts the halves of a pair together.

    The scale of the scores is in the query's (a power of two for every released size: exact).
    """
    frequencies = theta ** -(torch.arange(0, depth, 2, device=device).float() / depth)
    angles = torch.arange(positions, device=device).float()[:, None] * frequencies
    turns = torch.polar(torch.ones_like(angles), angles)
    return torch.stack([turns * depth**-0.5, turns], dim=1)
