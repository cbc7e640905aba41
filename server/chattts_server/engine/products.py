"""Matrix products whose result for a row does not depend on how many other rows there are. Knows no model.

A library picks another kernel for another number of rows, and another kernel adds in another order: the same row then
has other last bits, and after some steps other codes. So every product of the loop runs at one of a few row counts
that this machine computes equally to the bit; which ones these are is measured at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from chattts_server.engine.precision import HALVES, Precision

COARSE_RESULTS, COARSE_TIMES = 1 << 19, 16  # of the start-up test in halves: results a product, batches at most
CANDIDATES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # kernels work in blocks of 4, 6 or 16 rows


@dataclass(frozen=True, slots=True)
class Product:
    """Called with float32 [n, inputs], it returns float32 [n, outputs]."""

    inputs: int
    outputs: int
    multiply: Callable[[torch.Tensor], torch.Tensor]
    coarse: bool = False  # results are rounded to a few bits, which hides most differences in how they were added

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.multiply(x)


def product(weight: torch.Tensor, rows: int, precision: Precision) -> Product:
    """`weight` [out, in]. On a CPU it is copied into oneDNN's own order for about so many rows: half of MKL's time."""
    outputs, inputs = weight.shape
    if precision == "int8":
        return Product(inputs, outputs, _int8(weight))
    weight = weight.to(HALVES.get(precision, torch.float32))
    multiply = _packed(weight, rows) if weight.device.type == "cpu" else _plain(weight)
    return Product(inputs, outputs, multiply, coarse=weight.dtype != torch.float32)


def _plain(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: linear(x.to(weight.dtype), weight).float()


def _packed(weight: torch.Tensor, rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(packed.dtype), packed, None, "none", [], "").float()


def _int8(weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Weights with a scale per output, inputs with a scale per row, so that no row has a say in another's rounding.

    The sums are whole numbers: exact, whatever the order.
    """
    scales = (weight.abs().amax(1) / 127).clamp_min(1e-12)
    rounded = (weight / scales[:, None]).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(rounded, None)
    scales /= 127  # of an input's steps, too
    zeros = torch.zeros(len(weight), dtype=torch.long)

    def multiply(x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_min_(1e-12)
        whole = (x * (127 / largest)).add_(128.5).to(torch.uint8)  # cut off, so rounded
        made: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return made.mul_(largest)

    return multiply


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Row counts at which each row of every product has the same bits, ascending."""

    counts: tuple[int, ...]

    def blocks(self, rows: int) -> tuple[int, int]:
        """(how many blocks, rows of each) to compute so many rows: no more blocks than needed, and those small."""
        blocks = -(-rows // self.counts[-1])
        each = -(-rows // blocks)
        return blocks, next(count for count in self.counts if count >= each)

    def padded(self, rows: int) -> int:
        """How many rows are computed for so many."""
        return math.prod(self.blocks(rows))


def multiplied(made: Product, x: torch.Tensor, size: int) -> torch.Tensor:
    """The product of a whole number of blocks of `size` rows."""
    return made(x) if len(x) == size else torch.cat([made(x[start : start + size]) for start in range(0, len(x), size)])


def equal_row_counts(products: Sequence[Product], most: int, device: torch.device) -> RowCounts:
    """Of all classes of equal counts up to the first candidate >= `most` the one
    with the most members: a lone row then needs little padding, and several blocks make the large batches.

    Not chosen by time: results are to be the same after a restart.
    """
    largest = next((count for count in CANDIDATES if count >= most), most)
    least = 2 if any(made.coarse for made in products) else 1  # a row alone goes another way, and that shows too rarely
    counts = [*(count for count in CANDIDATES if least <= count < largest), largest]
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(_rows_of_test(made, largest), made.inputs, generator=generator).to(device) for made in products
    ]
    classes: list[tuple[list[torch.Tensor], list[int]]] = []
    for count in counts:
        results = [_results(made, rows, count) for made, rows in zip(products, inputs, strict=True)]
        if any(result is None for result in results):
            continue
        own = [result for result in results if result is not None]
        for others, members in classes:
            if all(torch.equal(mine, other) for mine, other in zip(own, others, strict=True)):
                members.append(count)
                break
        else:
            classes.append((own, [count]))
    if not classes:
        raise RuntimeError("on this machine a row's result depends on its place in the batch, at every number of rows")
    best = max((members for _, members in classes), key=lambda found: (len(found), found[-1]))
    return RowCounts(tuple(best))


def _rows_of_test(made: Product, largest: int) -> int:
    """Enough results for a difference to be seen: of coarse ones only one in some ten thousand shows it."""
    return largest * (min(COARSE_TIMES, -(-COARSE_RESULTS // (largest * made.outputs))) if made.coarse else 1)


def _results(made: Product, rows: torch.Tensor, count: int) -> torch.Tensor | None:
    """[len(rows), out], computed `count` rows at a time; None where a row's place among them makes a difference."""
    first = _at_a_time(made, rows, count)
    moved = _at_a_time(made, rows.roll(1, 0), count).roll(-1, 0)
    return first if torch.equal(first, moved) else None


def _at_a_time(made: Product, rows: torch.Tensor, count: int) -> torch.Tensor:
    whole = len(rows) - len(rows) % count
    blocks = [made(rows[start : start + count]) for start in range(0, whole, count)]
    if whole < len(rows):  # the last block overlaps the one before
        blocks.append(made(rows[-count:])[whole - len(rows) :])
    return torch.cat(blocks)
