"""In which numbers the products of the language model are computed, and what this machine can do. Knows no weights."""

from __future__ import annotations

from typing import Literal

import torch

from chattts_server.engine.checkpoint import CannotServe

Precision = Literal["float32", "bfloat16", "float16", "int8"]
HALVES: dict[Precision, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
BY_DEVICE: dict[str, tuple[Precision, ...]] = {
    "cpu": ("float32", "bfloat16", "int8"),
    "cuda": ("float32", "float16", "bfloat16"),
}


def chosen_precision(asked: str, device: torch.device) -> Precision:
    """`auto`: the fastest that keeps the codes' quality, not int8. Raises CannotServe with a line for people."""
    if asked == "auto":
        if device.type == "cpu":
            return "bfloat16" if has_bfloat16() else "float32"
        return "float16"  # an eighth of bfloat16's error in the logits
    known = BY_DEVICE[device.type]
    for precision in known:
        if precision == asked:
            _require(precision, device)
            return precision
    raise CannotServe(f"CHATTTS_DTYPE={asked}: on {device.type} the engine computes in {', '.join(known)} or auto")


def state_dtype(precision: Precision, device: torch.device, by_kernels: bool = False) -> torch.dtype:
    """Of keys and values. On a CPU torch's attention is several times slower in halves than in float32; ours reads
    them in half of the time.
    """
    if device.type == "cpu":
        return torch.bfloat16 if by_kernels and precision != "float32" else torch.float32
    return HALVES.get(precision, torch.float32)


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; without it oneDNN's emulation is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _require(precision: Precision, device: torch.device) -> None:
    if device.type == "cpu" and precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise CannotServe("CHATTTS_DTYPE=bfloat16: this CPU has no AVX512; use float32 or auto")
    # Without VNNI the kernels add pairs in 16 bits and may overflow.
    if precision == "int8" and not (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()):
        raise CannotServe("CHATTTS_DTYPE=int8: this CPU has no VNNI; use float32 or auto")
