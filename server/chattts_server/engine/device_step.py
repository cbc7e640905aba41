"""A decode step that never waits for the device: one graph from the slots' inputs to their next. Knows no prompts.

A graph is made for each number of rows and each context that serves, before anything is served; at a step there is
one launch. It computes slots 0 to n, whoever is in them, and only those that step keep what was made: so nothing is
gathered, and a row's place is its slot. What came of a step is copied to the host beside the next one.

R slots, n rows of a graph, H hidden width, T columns of context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from chattts_server.engine.choosing import choose
from chattts_server.engine.model import Gpt
from chattts_server.engine.nouns import Stage
from chattts_server.engine.row_state import RowState
from chattts_server.engine.sampling import NO_CODE, Addresses, Draw
from chattts_server.engine.speech_model import Outcome

CONTEXTS = (256, 512, 1024, 2048)  # columns, and the longest there is: what is masked is read for nothing
OUTCOMES: tuple[Outcome, ...] = ("made", "end", "broken")

Body = Callable[[], None]
Capture = Callable[[Body], Body]  # what a body does to memory, as one launch


class MissingGraph(Exception):
    """A step that no graph serves. A bug: it ends the engine, rather than be computed slowly and unseen."""


class Told(Protocol):
    def __call__(self) -> list[Outcome]:
        """Of the slots of one launch; waits until it is done."""
        ...


@dataclass(slots=True)
class DeviceState:
    """What the device itself keeps count of."""

    positions: torch.Tensor  # [R] int64, of the next key
    steps: torch.Tensor  # [R] int64, made
    is_text: torch.Tensor  # [R] bool
    active: torch.Tensor  # [R] bool: who steps
    outcomes: torch.Tensor  # [R] uint8, an index of OUTCOMES

    @classmethod
    def of(cls, slots: int, device: torch.device) -> DeviceState:
        def zeros(dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(slots, dtype=dtype, device=device)

        return cls(zeros(torch.long), zeros(torch.long), zeros(torch.bool), zeros(torch.bool), zeros(torch.uint8))


class DeviceStep:
    def __init__(self, gpt: Gpt, state: RowState, slots: int, draw: Draw, rows_end: bool) -> None:
        """`slots`: what gpt and state were given memory for."""
        self._gpt, self._state, self._draw, self._rows_end = gpt, state, draw, rows_end
        device = state.inputs.device
        self._device = device
        self._own = DeviceState.of(slots, device)
        self.graphs: dict[tuple[int, int, bool], Body] = {}  # (rows, columns, whether of text) -> its replay
        self.launches = 0

    def capture(self, capture: Capture, rows: Iterable[int], longest: int) -> None:
        """A graph of code for each number of rows; with rows of text in it, of the largest number only."""
        contexts = [*(context for context in CONTEXTS if context < longest), longest]
        numbers = sorted(set(rows), reverse=True)  # the largest first: the others find their memory in its pool
        for text in (True, False):
            for count in numbers[:1] if text else numbers:
                for context in contexts:
                    self.graphs[count, context, text] = capture(partial(self.run, count, context, text))

    def open(self, slot: int, stage: Stage) -> None:
        self._own.is_text[slot : slot + 1] = stage == "text"
        self.place(slot, 0)

    def place(self, slot: int, position: int) -> None:
        """Where the slot's next key is: also a slot that does not step has one written there, and none reads it."""
        here = slice(slot, slot + 1)  # setting one element waits for the device, filling a slice does not
        self._own.positions[here], self._own.steps[here] = position, 0

    def launch(self, slots: Sequence[int], context: int, text: bool) -> Told:
        """`context`: columns that the furthest of the slots looks at; `text`: whether some are of the text stage."""
        graph = self._graph(max(slots) + 1, context, text)
        cuda = self._device.type == "cuda"
        # Everything that can fail comes before the launch. Torch's cache keeps pinned memory until the copy is over.
        mask = torch.zeros(len(self._own.active), dtype=torch.bool, pin_memory=cuda)
        mask[list(slots)] = True
        heard = torch.empty(len(mask), dtype=torch.uint8, pin_memory=cuda)
        done = torch.cuda.Event(blocking=True) if cuda else None  # type: ignore[no-untyped-call]  # it sleeps, not spins
        self._own.active.copy_(mask, non_blocking=True)
        graph()
        heard.copy_(self._own.outcomes, non_blocking=True)
        if done is not None:
            done.record()
        self.launches += 1

        def told() -> list[Outcome]:
            if done is not None:
                done.synchronize()
            codes = heard.tolist()
            return [OUTCOMES[codes[slot]] for slot in slots]

        return told

    def _graph(self, rows: int, context: int, text: bool) -> Body:
        fitting = [key for key in self.graphs if key[0] >= rows and key[1] >= context and key[2] == text]
        if not fitting:
            raise MissingGraph(f"no graph for {rows} rows, {context} columns{', with text' if text else ''}")
        return self.graphs[min(fitting)]

    def run(self, rows: int, context: int, text: bool) -> None:
        """The step itself, of slots 0 to `rows`. No value of it is looked at on the host."""
        own = slice(0, rows)
        state, device = self._state, self._own
        steps, active = device.steps[own], device.active[own]
        hidden = self._gpt.decode_slots(state.inputs[own], device.positions[own], context)
        parameters = state.parameters(own, steps, self._rows_end)
        addresses = Addresses(state.seed[own], steps)
        is_text, history = device.is_text[own], state.history[own]
        no_tokens = history.masked_fill(is_text[:, None, None], NO_CODE)  # there are more tokens than codes
        chosen = choose(self._gpt, "code", hidden, no_tokens, parameters, addresses, self._draw, None)
        codes, inputs, ended, finite = chosen.codes, chosen.inputs, chosen.ended, chosen.finite
        if text:
            other = choose(self._gpt, "text", hidden, history, parameters, addresses, self._draw, None)
            codes = torch.where(is_text[:, None], other.codes, codes)
            inputs = torch.where(is_text[:, None], other.inputs, inputs)
            ended = torch.where(is_text, other.ended, ended)
            finite = torch.where(is_text, other.finite, finite)
        device.outcomes[own] = torch.where(finite, ended.to(torch.uint8), OUTCOMES.index("broken"))
        state.commit_where(active, steps, hidden, codes, inputs)
        device.positions[own] += active
        device.steps[own] += active


def eager(body: Body) -> Body:
    """No graph: the body itself. For a CPU, where tests run what a GPU would replay."""
    return body


def cuda_graphs(device: torch.device) -> Capture:
    """All graphs share one pool of memory, as only one of them runs at a time."""
    pool = torch.cuda.graph_pool_handle()
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # one: libraries keep a workspace for each

    def capture(body: Body) -> Body:
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            body()  # libraries choose their kernels and take their workspaces before anything is recorded
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=beside):
            body()
        replay: Body = graph.replay
        return replay

    return capture
