"""The language model: embeddings, layers over static KV slots, heads. Knows no sampling, no sockets and no time.

R slots, M positions a slot, n rows or tokens of one pass, H hidden width, h attention heads of D = H / h.
The KV memory is taken once; a slot that is given to another row is simply written over, and never read beyond what
its row has written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention, silu

from chattts_server.engine.nouns import CODEBOOKS
from chattts_server.engine.products import Product, equal_row_counts, padded_count, product
from chattts_server.engine.weights import GptWeights, LayerWeights

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # layer, q, k, v -> [n, h, D]


class Gpt:
    def __init__(self, weights: GptWeights, slots: int, positions: int, dtype: torch.dtype) -> None:
        self._text, self._codes, self._norm_last = weights.text, weights.codes, weights.norm
        self._epsilon = weights.epsilon
        self._dtype = dtype
        self._heads = weights.attention_heads
        depth = weights.width // self._heads
        device = weights.norm.device
        self._keys, self._values = torch.zeros(
            2, len(weights.layers), slots, self._heads, positions, depth, dtype=dtype, device=device
        )
        self._cos, self._sin = _rotations(positions, depth, weights.rope_theta, device, dtype)
        self._layers = [_Layer(layer, slots) for layer in weights.layers]
        self._head = product(weights.heads, slots)
        first, given = self._layers[0], weights.layers[0]
        self.row_counts = equal_row_counts(
            [
                (first.qkv, given.qkv[0]),
                (first.out, given.out[0]),
                (first.gate_up, given.gate_up[0]),
                (first.down, given.down[0]),
                (self._head, weights.heads[0]),
            ],
            slots,
        )

    def prefill(self, slot: int, start: int, embeddings: torch.Tensor) -> None:
        """Keys and values of prompt positions start .. start + n. embeddings [n, H], one row's own chunk."""
        end = start + len(embeddings)
        # Each token sees all earlier positions of its own row, and itself.
        seen = torch.ones(len(embeddings), end, dtype=torch.bool, device=embeddings.device).tril(start)

        def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            keys, values = self._keys[layer, slot], self._values[layer, slot]  # [h, M, D]
            keys[:, start:end], values[:, start:end] = key.transpose(0, 1), value.transpose(0, 1)
            mixed = scaled_dot_product_attention(
                query.transpose(0, 1)[None], keys[None, :, :end], values[None, :, :end], attn_mask=seen
            )
            return mixed[0].transpose(0, 1)

        self._forward(embeddings.to(self._dtype), self._cos[start:end], self._sin[start:end], attend)

    def decode(
        self, inputs: torch.Tensor, slots: Sequence[int], positions: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of n rows at their own positions: inputs [n, H] -> (hidden [n, H], logits [n, 4, V]), float32."""
        rows = len(slots)
        count = padded_count(rows, self.row_counts)
        places = torch.tensor([*positions, *[0] * (count - rows)], device=inputs.device)
        own = torch.tensor(slots, device=inputs.device)

        def attend(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            keys, values = self._keys[layer], self._values[layer]  # [R, h, M, D]
            keys[own, :, places[:rows]], values[own, :, places[:rows]] = key[:rows], value[:rows]
            mixed = torch.zeros_like(query)
            # Row by row over its own context: no padding to the longest, and no row can reach another's keys.
            for row, (slot, position) in enumerate(zip(slots, positions, strict=True)):
                context = slice(0, position + 1)
                mixed[row] = scaled_dot_product_attention(
                    query[row, None, :, None], keys[slot, None, :, context], values[slot, None, :, context]
                )[0, :, 0]
            return mixed

        padded = torch.zeros(count, inputs.shape[1], dtype=self._dtype, device=inputs.device)
        padded[:rows] = inputs
        hidden = self._forward(padded, self._cos[places][:, None], self._sin[places][:, None], attend).float()
        logits = self._head(hidden)
        return hidden[:rows], logits[:rows].view(rows, CODEBOOKS, -1)

    def embed_text(self, token_ids: torch.Tensor) -> torch.Tensor:
        """[n] -> [n, H]"""
        return self._text[token_ids]

    def embed_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """[n, 4] -> [n, H]: the sum over the codebooks, added in ChatTTS's order."""
        total = self._codes[0][codes[:, 0]]
        for book in range(1, CODEBOOKS):
            total = total + self._codes[book][codes[:, book]]
        return total

    def _forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attend: Attend) -> torch.Tensor:
        """x [n, H]; cos and sin [n, 1, D] or [n, D]."""
        rows, width = x.shape
        cos, sin = cos.view(rows, 1, 1, -1), sin.view(rows, 1, 1, -1)
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(self._norm(x, layer.norm_attention)).view(rows, 3, self._heads, -1)
            query_key = _rotated(qkv[:, :2], cos, sin)
            mixed = attend(number, query_key[:, 0], query_key[:, 1], qkv[:, 2])  # [n, h, D]
            x = x + layer.out(mixed.reshape(rows, width))
            gate, up = layer.gate_up(self._norm(x, layer.norm_mlp)).chunk(2, dim=-1)
            x = x + layer.down(silu(gate) * up)
        return self._norm(x, self._norm_last)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMSNorm, its mean in float32."""
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._epsilon)).to(x.dtype)


class _Layer:
    """One layer's products, ready to be called."""

    def __init__(self, weights: LayerWeights, rows: int) -> None:
        self.norm_attention, self.norm_mlp = weights.norm_attention, weights.norm_mlp
        self.qkv: Product = product(weights.qkv, rows)
        self.out: Product = product(weights.out, rows)
        self.gate_up: Product = product(weights.gate_up, rows)
        self.down: Product = product(weights.down, rows)


def _rotations(
    positions: int, depth: int, theta: float, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """RoPE's cosines and sines, [M, D] each; angles in float32 whatever the dtype: a position is an integer."""
    frequencies = theta ** -(torch.arange(0, depth, 2, device=device).float() / depth)
    angles = torch.arange(positions, device=device).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
