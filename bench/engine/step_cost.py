"""One decode step taken apart: its products alone, its bytes and operations, and what the memory would allow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.engine.arms import Ours
from chattts_server.engine.nouns import Limits, Sampling, Submit, Voice
from chattts_server.engine.precision import Precision
from chattts_server.engine.products import multiplied
from chattts_server.engine.slots import Slots

ROWS = 8
PROMPT_TOKENS, MADE_STEPS = 17, 32  # a sentence of twelve characters, and where it stands when it is measured
TIMES = 15
BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def step_cost(ours: Ours) -> dict[str, Any]:
    """Milliseconds (median) of a step of eight rows and of its products, taken in turns; bytes, flops, operations."""
    model = ours.model
    slots = range(min(ROWS, model.slots))
    for slot in slots:
        row = Submit(slot, [21131] * PROMPT_TOKENS, Voice(), Sampling(seed=slot), Limits(2048), None, 0)
        for _ in range(model.join(slot, row, slot)):
            model.prefill(slot)
    for _ in range(MADE_STEPS):
        model.step(slots)
    multiply = _products(model, len(slots))
    with torch.inference_mode():
        steps, products = _in_turns([lambda: model.step(slots), multiply], model.device)
        with _Counter() as counter:
            model.step(slots)
    of_layers, code_head = model.gpt.products()
    layers = sum(made.inputs * made.outputs for made in of_layers)
    head = code_head.inputs * code_head.outputs
    read = BYTES[ours.precision] * layers + 4 * head
    return {
        "rows": len(slots),
        "step_ms": 1e3 * steps,
        "products_ms": 1e3 * products,
        "weight_bytes": read,
        "flops": 2 * len(slots) * (layers + head),
        "operations": counter.count,
        "products_gb_per_second": read / products / 1e9,
    }


def memory_gb_per_second(device: torch.device) -> float:
    """Of a sum over a quarter of a gigabyte: what the products could be read with."""
    values = torch.ones(64 * 2**20, device=device)
    values.sum()
    (seconds,) = _in_turns([lambda: values.sum()], device)
    return 4 * len(values) / seconds / 1e9


def _products(model: Slots, rows: int) -> Callable[[], None]:
    blocks, size = model.gpt.row_counts.blocks(rows)
    products, _ = model.gpt.products()
    given = [(made, torch.randn(blocks * size, made.inputs, device=model.device)) for made in products]

    def multiply() -> None:
        for made, x in given:
            multiplied(made, x, size)
        model.gpt.code_logits(torch.zeros(rows, model.width, device=model.device))

    return multiply


def _in_turns(acts: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    times: list[list[float]] = [[] for _ in acts]
    for _ in range(TIMES):
        for act, taken in zip(acts, times, strict=True):
            began = time.perf_counter()
            act()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations that are dispatched: on a GPU each would be a launch, were the step not one graph."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
