"""Our own kernels for the decode step on x86-64 CPUs: packed weights, one call a step. Knows no torch modules.

The library is compiled by hatch_build.py when the package is built or installed. Its name holds the digest of the
sources beside it, so that an old one is never taken for them. C++ in this folder; its interface is library.cpp.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from chattts_server.engine.kernels.sources import FOLDER, library_name
from chattts_server.engine.precision import Precision
from chattts_server.engine.weights import LayerWeights

DEPTHS = (16, 32, 64)  # of an attention head
PACKED: dict[Precision, int] = {"float32": 0, "bfloat16": 1, "int8": 2}  # kernels.hpp, Precision
Variant = Literal["amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2"]


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("norm_attention", "norm_mlp", "qkv", "out", "gate_up", "down")]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("layers", "width", "inner", "heads", "depth", "positions")),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("layer", "norm_last", "turns", "cache")),
        ("slots", ctypes.c_int32),
        ("halves", ctypes.c_int32),
    ]


class _Draws(ctypes.Structure):
    _fields_ = [
        ("logits", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("books", "codes", "end")),
        ("history", ctypes.c_void_p),
        ("window", ctypes.c_int32),
        *(
            (name, ctypes.c_void_p)
            for name in ("temperature", "top_p", "penalty", "top_k", "seed", "step", "may_end", "chosen")
        ),
    ]


class Kernels:
    """One variant of the library: what this CPU runs, or what was asked for."""

    def __init__(self, library: ctypes.CDLL, variant: int) -> None:
        self._library = library
        self._variant = ctypes.c_void_p(variant)
        self.name: str = library.kernels_name(self._variant).decode()
        self.precisions: tuple[Precision, ...] = ("float32", "bfloat16")
        if library.kernels_int8(self._variant):
            self.precisions += ("int8",)

    def pack(self, weight: torch.Tensor, precision: Precision) -> Matrix:
        """`weight` [outputs, inputs], float32; it is copied. Raises MemoryError."""
        weight = weight.contiguous()
        outputs, inputs = weight.shape
        made = self._library.kernels_pack(
            weight.data_ptr(), outputs, inputs, PACKED[precision], torch.get_num_threads()
        )
        if not made:
            raise MemoryError(f"no memory for a product of {outputs} x {inputs} in {precision}")
        return Matrix(self, made, inputs, outputs)

    def multiply(self, matrix: Matrix, x: torch.Tensor) -> torch.Tensor:
        """x [n, inputs] -> [n, outputs], both float32."""
        x = x.contiguous()
        made = torch.empty(len(x), matrix.outputs)
        self._library.kernels_multiply(
            self._variant, matrix.pointer, x.data_ptr(), len(x), made.data_ptr(), torch.get_num_threads()
        )
        return made

    def forward(self, model: Pass, x: torch.Tensor, slots: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """All layers for n rows at their own positions: x [n, H] -> hidden [n, H], float32."""
        made = x.clone(memory_format=torch.contiguous_format)
        rows = len(slots)
        integers = ctypes.c_int32 * rows
        self._library.kernels_forward(
            self._variant, ctypes.byref(model.structure), made.data_ptr(), rows, integers(*slots),
            integers(*positions), torch.get_num_threads(),
        )  # fmt: skip
        return made

    def draw(
        self, logits: torch.Tensor, history: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor,
        top_k: torch.Tensor, penalty: torch.Tensor, may_end: torch.Tensor, seed: torch.Tensor, step: torch.Tensor,
        end: int,
    ) -> torch.Tensor:  # fmt: skip
        """As sampling.draw with its counter_noise: logits [n, books, V], history [n, books, window] -> [n, books]."""
        rows, books, codes = logits.shape
        chosen = torch.empty(rows, books, dtype=torch.long)
        held = [logits.contiguous(), history.contiguous(), temperature, top_p, penalty, top_k, seed, step, may_end]
        address = [tensor.contiguous().data_ptr() for tensor in held]
        draws = _Draws(address[0], books, codes, end, address[1], history.shape[-1], *address[2:], chosen.data_ptr())
        self._library.kernels_draw(self._variant, ctypes.byref(draws), rows, torch.get_num_threads())
        return chosen

    def free(self, pointer: int) -> None:
        self._library.kernels_free(pointer)


class Matrix:
    """Packed weights. Called with float32 [n, inputs], it returns float32 [n, outputs]."""

    def __init__(self, kernels: Kernels, pointer: int, inputs: int, outputs: int) -> None:
        self.pointer, self.inputs, self.outputs = pointer, inputs, outputs
        self._kernels = kernels

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._kernels.multiply(self, x)

    def __del__(self) -> None:
        self._kernels.free(self.pointer)


class Pass:
    """What a pass over all layers reads, by address: held here as long as the structure is."""

    def __init__(
        self, layers: Sequence[PackedLayer], norm_last: torch.Tensor, epsilon: float, turns: torch.Tensor,
        cache: torch.Tensor,
    ) -> None:  # fmt: skip
        """`turns` [M, 2, D / 2], complex; `cache` [layers, R, h, 2, M, D], float32 or bfloat16."""
        _, slots, heads, _, positions, depth = cache.shape
        structures = (_Layer * len(layers))(*(layer.structure for layer in layers))
        self._held = (layers, structures, norm_last, turns, cache)
        self.structure = _Model(
            len(layers), heads * depth, layers[0].down.inputs, heads, depth, positions, epsilon,
            ctypes.addressof(structures), norm_last.data_ptr(), turns.data_ptr(), cache.data_ptr(), slots,
            cache.dtype == torch.bfloat16,
        )  # fmt: skip


class PackedLayer:
    def __init__(self, kernels: Kernels, weights: LayerWeights, precision: Precision) -> None:
        self._norms = weights.norm_attention.clone(), weights.norm_mlp.clone()  # not the file that they are read from
        self.qkv, self.out = kernels.pack(weights.qkv, precision), kernels.pack(weights.out, precision)
        self.gate_up, self.down = kernels.pack(weights.gate_up, precision), kernels.pack(weights.down, precision)
        self.products = (self.qkv, self.out, self.gate_up, self.down)

    @property
    def structure(self) -> _Layer:
        return _Layer(*(norm.data_ptr() for norm in self._norms), *(made.pointer for made in self.products))


def variants() -> Iterator[Kernels]:
    """That this CPU runs, the fastest first. None where the library was not built, or for another processor."""
    library = _library()
    rank = 0
    while library is not None and (found := library.kernels_variant(rank)):
        yield Kernels(library, found)
        rank += 1


def fastest(precision: Precision, device: torch.device) -> Kernels | None:
    """None: the model is computed by torch."""
    if device.type != "cpu":
        return None
    return next((kernels for kernels in variants() if precision in kernels.precisions), None)


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = FOLDER / library_name()
    if not path.exists():
        return None
    # Left open by the library: torch's own OpenMP is to be the only one, with one set of threads.
    bundled = next(iter(sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))), Path("libgomp.so.1"))
    ctypes.CDLL(str(bundled), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
        ("variant", pointer, [integer]),
        ("name", ctypes.c_char_p, [pointer]),
        ("int8", integer, [pointer]),
        ("pack", pointer, [pointer, integer, integer, integer, integer]),
        ("free", None, [pointer]),
        ("multiply", None, [pointer, pointer, pointer, integer, pointer, integer]),
        ("forward", None, [pointer, pointer, pointer, integer, pointer, pointer, integer]),
        ("draw", None, [pointer, pointer, integer, integer]),
    ):
        function = getattr(library, f"kernels_{name}")
        function.restype, function.argtypes = result, arguments
    return library
