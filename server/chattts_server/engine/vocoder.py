"""Hidden states to samples, piece by piece, for rows of any age together. Knows no ChatTTS, loop or socket.

A layer that looks r frames to both sides keeps, per slot, the last 2r frames of its input and answers r frames
late, so nothing is ever computed twice to the left. What is still missing at the right when a row has to be heard now
is computed as though the row ended here ("provisional") and forgotten again: only exact frames are remembered.

Sizes: R rows of one pass, n steps, H hidden width, L columns (frames of one pass), C channels. One step is two frames;
one frame moves the sound by one hop (256 samples).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from chattts_server.engine.speech_model import LOOK_AHEAD_STEPS
from chattts_server.engine.vocoder_layers import Head, Reach, decoder_layers, vocos_layers


class Piece(NamedTuple):
    """What one row has got since the last push."""

    slot: int
    hidden: torch.Tensor  # [n, H]; n may be 0
    last: bool  # the row is over: everything that is left comes out


class Vocoder:
    """Rows in slots. Knows of each how many steps came in and how many hops went out; not for several threads."""

    def __init__(
        self,
        assets: Path,
        slots: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        look_ahead: int = LOOK_AHEAD_STEPS,
    ) -> None:
        self._frames = FrameVocoder(assets, slots, device, dtype)
        # Beyond the reach of the layers everything is exact, and nothing is remembered from further back.
        self._withheld = max(1, min(2 * look_ahead, self._frames.delay))
        self._steps: list[int | None] = [None] * slots  # None: closed
        self._sent = [0] * slots  # hops

    def open(self, slot: int) -> None:
        """A new row begins in the slot; whatever was there is forgotten."""
        self._frames.reset(slot)
        self._steps[slot], self._sent[slot] = 0, 0

    def push(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        """Samples per piece, float32 on the CPU. Pieces of one length make one pass: padding would be computed too."""
        passes: dict[tuple[int, int], list[int]] = {}
        for index, piece in enumerate(pieces):
            passes.setdefault((piece.hidden.shape[0], self._withhold(piece)), []).append(index)
        if len({piece.slot for piece in pieces}) < len(pieces):
            raise ValueError("two pieces are for the same slot")
        samples = [torch.zeros(0)] * len(pieces)
        for (_, withheld), members in passes.items():
            for index, made in zip(members, self._pass([pieces[index] for index in members], withheld), strict=True):
                samples[index] = made
        return samples

    def memory_bytes(self) -> int:
        """Of what is remembered for all slots."""
        return self._frames.memory_bytes()

    def _withhold(self, piece: Piece) -> int:
        """How many frames before its end the row is silent about. A row that has nothing to say needs no provision."""
        end = 2 * (self._known(piece.slot) + piece.hidden.shape[0])
        if piece.last:
            return 1  # the overlap of the frames costs a row its last hop
        return self._withheld if end - self._withheld > self._sent[piece.slot] else self._frames.delay

    def _pass(self, pieces: Sequence[Piece], withheld: int) -> list[torch.Tensor]:
        starts = [self._known(piece.slot) for piece in pieces]
        hidden = torch.stack([piece.hidden for piece in pieces])
        made = self._frames.push([piece.slot for piece in pieces], hidden, starts, withheld)
        ends = [2 * (start + hidden.shape[1]) - withheld for start in starts]
        fresh = [max(0, end - self._sent[piece.slot]) for end, piece in zip(ends, pieces, strict=True)]
        hops = made.shape[1] // self._frames.hop
        sound = made[:, (hops - max(fresh)) * self._frames.hop :].cpu()  # every row of it ends at the row's end
        samples = []
        for row, (piece, start, new) in enumerate(zip(pieces, starts, fresh, strict=True)):
            samples.append(sound[row, sound.shape[1] - new * self._frames.hop :])
            self._steps[piece.slot] = None if piece.last else start + hidden.shape[1]
            self._sent[piece.slot] += new
        return samples

    def _known(self, slot: int) -> int:
        steps = self._steps[slot]
        if steps is None:
            raise ValueError(f"slot {slot} is not open")
        return steps


class FrameVocoder:
    """The layers and what they remember per slot. Callers say how old a row is and how much of its end to leave out."""

    def __init__(self, assets: Path, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        decoder = load_file(assets / "Decoder.safetensors", device=str(device))
        vocos = load_file(assets / "Vocos.safetensors", device=str(device))
        self._layers = [*decoder_layers(decoder, dtype), *vocos_layers(vocos, dtype)]
        self._head = Head(vocos)
        self.hop = self._head.hop
        reaches = [*(layer.reach for layer in self._layers), self._head.reach]
        self.delay = sum(reach.right for reach in reaches)  # frames; how late an exact answer comes
        self._sizes = [reach.width * reach.channels for reach in reaches]
        # One tensor for all layers: a pass takes its rows at once and gives them back at once, or not at all.
        self._memory = torch.zeros(slots, sum(self._sizes), device=device)

    def reset(self, slot: int) -> None:
        self._memory[slot].zero_()

    def memory_bytes(self) -> int:
        return self._memory.numel() * self._memory.element_size()

    @torch.inference_mode()
    def push(self, slots: Sequence[int], hidden: torch.Tensor, starts: Sequence[int], withheld: int) -> torch.Tensor:
        """hidden [R, n, H], the steps that follow the first `starts` -> float32 [R, samples].

        Row i's samples end `withheld` frames (1 to `delay`) before its end, frame 2 * (starts[i] + n); they begin early
        enough to join those of any push before. `withheld == delay`: only exact samples, nothing is provisional.
        """
        rows, steps, width = hidden.shape
        places = torch.tensor(slots, device=self._memory.device)
        memory = self._memory[places]  # [R, everything remembered]
        frames = hidden.to(memory).reshape(rows, 2 * steps, width // 2)  # a step's halves are its two frames
        flow = _Flow(frames, [2 * start for start in starts], limit=self.delay - withheld)
        sound = self._sound(flow, memory.split_with_sizes(self._sizes, 1))
        self._memory[places] = memory
        return frames.new_zeros(rows, 0) if sound is None else sound

    def _sound(self, flow: _Flow, memories: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """None: all rows are so young that even their first hop waits for what comes next."""
        for layer, memory in zip(self._layers, memories[:-1], strict=True):
            wide = flow.widen(layer.reach, memory)
            if wide is None:
                return None
            flow.put(layer(wide))
        wide = flow.widen(self._head.reach, memories[-1])
        return None if wide is None else self._head(wide, flow.real(wide.shape[1], self._head.reach))


class _Flow:
    """One pass on its way through the layers: columns [exact | provisional] and where they stand in their rows."""

    def __init__(self, frames: torch.Tensor, firsts: Sequence[int], limit: int) -> None:
        self.columns = frames  # [R, L, C]
        self.arrived = frames.shape[1]  # frames; all of them exact
        self.firsts = firsts  # per row, the position of the first of them
        self.limit = limit  # how many provisional columns are wanted at most
        self.delay = 0  # frames, by the layers so far
        self.padding = 0  # columns of silence that the last widen() put behind the end

    def widen(self, reach: Reach, memory: torch.Tensor) -> torch.Tensor | None:
        """Remembered frames before the columns, and silence behind them as far as an answer is wanted there.

        [R, left + L + right, C] for an answer of L columns, None if there is none; `memory` becomes that of the next
        push. Columns that would lie before the beginning of every row are left out.
        """
        ahead, skipped = self._ahead(), self._skipped()
        self.delay += reach.right
        self.padding = self._ahead() - ahead
        kept = memory.view(-1, reach.width, reach.channels)
        silence = self.columns.new_zeros(kept.shape[0], self.padding, reach.channels)
        wide = torch.cat([kept, self.columns, silence], 1)
        exact = max(0, self.arrived - skipped)
        kept.copy_(wide[:, exact : exact + reach.width])
        wide = wide[:, self._skipped() - skipped :]
        return wide if wide.shape[1] > reach.width else None

    def put(self, columns: torch.Tensor) -> None:
        """A layer's answer. ChatTTS pads every layer with zeros, so what lies before a row is zero and not bias."""
        first = self._skipped() - self.delay
        if min(self.firsts) + first < 0:
            columns = columns * self._begun(first, columns.shape[1])[..., None]
        self.columns = columns

    def real(self, width: int, reach: Reach) -> torch.Tensor:
        """bool [R, width]: which of the columns that widen() has just made are frames of the row."""
        real = self._begun(self._skipped() - self.delay - reach.left, width)
        real[:, width - self.padding :] = False
        return real

    def _ahead(self) -> int:
        """How many columns behind the exact ones there are, unless they too were left out."""
        return min(self.delay, self.limit)

    def _skipped(self) -> int:
        """How many leading columns are left out: even the oldest row has not begun there."""
        return max(0, self.delay - max(self.firsts))

    def _begun(self, first: int, width: int) -> torch.Tensor:
        """bool [R, width]: has the row begun in this column, if the leftmost one is `first` behind its new frames?"""
        device = self.columns.device
        begins = torch.tensor([-first - position for position in self.firsts], device=device)
        return torch.arange(width, device=device) >= begins[:, None]
