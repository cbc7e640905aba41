"""Matrix products whose result for a row does not depend on how many other rows there are. Knows no model.

A library picks another kernel for another number of rows, and another kernel adds in another order: the same row then
has other last bits, and after some steps other codes. So every product of the loop runs at one of a few row counts
that this machine computes equally to the bit; which ones these are is measured at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Product = Callable[[torch.Tensor], torch.Tensor]  # [n, in] -> [n, out]
CANDIDATES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # kernels work in blocks of 4, 6 or 16 rows


def product(weight: torch.Tensor, rows: int) -> Product:
    """`weight` [out, in]; on a CPU it is copied into oneDNN's own order for about so many rows, half of MKL's time."""
    if weight.device.type != "cpu":
        return lambda x: torch.nn.functional.linear(x, weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def equal_row_counts(products: Sequence[tuple[Product, torch.Tensor]], most: int) -> tuple[int, ...]:
    """The row counts up to the first candidate >= `most` at which each row of every product has the same bits.

    `products`: with one row [in] of the kind that they are given. The largest count is the yardstick and always among
    them; the rows of a batch stand at any place in it.
    """
    largest = next((count for count in CANDIDATES if count >= most), most)
    counts = [count for count in CANDIDATES if count < largest]
    generator = torch.Generator().manual_seed(0)
    for made, like in products:
        rows = torch.randn(largest, like.shape[0], generator=generator).to(like)
        expected = made(rows)
        counts = [count for count in counts if _same(made, rows, expected, count)]
    return (*counts, largest)


def padded_count(rows: int, counts: Sequence[int]) -> int:
    """The smallest of `counts` that carries so many rows."""
    return next(count for count in counts if count >= rows)


def _same(made: Product, rows: torch.Tensor, expected: torch.Tensor, count: int) -> bool:
    starts = {0, (len(rows) - count) // 2, len(rows) - count}
    return all(torch.equal(made(rows[start : start + count]), expected[start : start + count]) for start in starts)
