"""Hidden states to samples, piece by piece, for rows of any age together. Knows no ChatTTS, loop or socket.

The layers are those of ChatTTS's Decoder and of Vocos, computed from their weights: importing their modules takes
seconds. A layer that looks r frames to both sides keeps, per slot, the last 2r frames of its input and answers r frames
late, so nothing is ever computed twice to the left. What is still missing at the right when a row has to be heard now
is computed as though the row ended here ("provisional") and forgotten again: only exact frames are remembered.

Sizes: R rows of one pass, n steps, H hidden width, L columns (frames of one pass), C channels. One step is two frames;
one frame moves the sound by one hop (256 samples).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from chattts_server.engine.speech_model import LOOK_AHEAD_STEPS

NORM_EPSILON = 1e-6  # of every layer norm in Decoder and Vocos
DECODER_DILATION = 2  # of ChatTTS's blocks; not to be seen in the weights
LOUDEST = 1e2  # Vocos clips magnitudes there

Tensors = Mapping[str, torch.Tensor]
Pointwise = Callable[[torch.Tensor], torch.Tensor]  # of each column alone


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
        cast = {name: tensor.to(dtype) for name, tensor in vocos.items()}
        self._layers = [*_decoder_layers(decoder, dtype), *_vocos_layers(cast)]
        self._head = _Head(cast, vocos["head.istft.window"].float())
        self.hop = self._head.hop
        reaches = [*(layer.reach for layer in self._layers), self._head.reach]
        self.delay = sum(reach.right for reach in reaches)  # frames; how late an exact answer comes
        self._sizes = [reach.width * reach.channels for reach in reaches]
        # One tensor for all layers: a pass takes its rows at once and gives them back at once, or not at all.
        self._memory = torch.zeros(slots, sum(self._sizes), device=device, dtype=dtype)

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
        return frames.new_zeros(rows, 0, dtype=torch.float32) if sound is None else sound

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

    def widen(self, reach: _Reach, memory: torch.Tensor) -> torch.Tensor | None:
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

    def real(self, width: int, reach: _Reach) -> torch.Tensor:
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


@dataclass(frozen=True, slots=True)
class _Reach:
    """Which columns of its input a layer needs besides the one that it answers for."""

    left: int
    right: int
    channels: int  # of the input

    @property
    def width(self) -> int:
        return self.left + self.right


class _Convolution:
    """[R, L + 2r, in] -> [R, L, out]: over time, channels last."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, then: Pointwise | None = None, dilation: int = 1
    ) -> None:
        """weight [out, in, kernel]; [channels, 1, kernel] is one filter per channel."""
        self.weight = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.bias, self.then, self.dilation = bias, then, dilation
        self.groups = weight.shape[0] if weight.shape[1] == 1 else 1
        r = dilation * (weight.shape[2] // 2)
        self.reach = _Reach(r, r, self.groups * weight.shape[1])

    def __call__(self, wide: torch.Tensor) -> torch.Tensor:
        # As a picture of height 1, channels last is a layout that convolutions know: nothing is copied.
        picture = wide.transpose(1, 2).unsqueeze(2)  # [R, in, 1, L + 2r]
        made = F.conv2d(picture, self.weight, self.bias, dilation=(1, self.dilation), groups=self.groups)
        columns = made.squeeze(2).transpose(1, 2)
        return columns if self.then is None else self.then(columns)


class _Block:
    """ConvNeXt: [R, L + 2r, C] -> [R, L, C]."""

    def __init__(self, weights: Tensors, scale: str, dilation: int) -> None:
        self.norm = _Norm(weights, "norm")
        self.mix = _Convolution(weights["dwconv.weight"], weights["dwconv.bias"], self.norm, dilation)
        self.reach = self.mix.reach
        self.expand = weights["pwconv1.weight"], weights["pwconv1.bias"]
        self.contract = weights["pwconv2.weight"], weights["pwconv2.bias"]
        self.scale = weights[scale]

    def __call__(self, wide: torch.Tensor) -> torch.Tensor:
        inner = F.gelu(F.linear(self.mix(wide), *self.expand))
        centre = wide[:, self.reach.left : wide.shape[1] - self.reach.right]
        return torch.addcmul(centre, F.linear(inner, *self.contract), self.scale)


class _Norm:
    def __init__(self, weights: Tensors, name: str) -> None:
        self.weight, self.bias = weights[name + ".weight"], weights[name + ".bias"]

    def __call__(self, columns: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(columns, self.bias.shape, self.weight, self.bias, NORM_EPSILON)


class _Head:
    """Vocos's end and the inverse STFT: [R, L + 3, C] -> L hops of samples, always float32.

    A frame is four hops long and its second quarter ends where it stands, so hop k is made of frames k - 1 to k + 2.
    """

    def __init__(self, weights: Tensors, window: torch.Tensor) -> None:
        self.norm = _Norm(weights, "backbone.final_layer_norm")
        self.out = weights["head.out.weight"], weights["head.out.bias"]
        self.window = window
        self.hop = window.shape[0] // 4
        self.quarters = window.square().view(4, self.hop).flip(0)  # of frames k - 1, k, k + 1, k + 2
        self.reach = _Reach(1, 2, self.out[0].shape[1])

    def __call__(self, wide: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """real, bool [R, L + 3]: which columns are frames of the row; at its ends fewer than four overlap."""
        size, phase = F.linear(self.norm(wide), *self.out).float().chunk(2, -1)  # each [R, L + 3, bins]
        size = size.exp().clamp(max=LOUDEST) * real[..., None]
        spectrum = torch.complex(size * phase.cos(), size * phase.sin())
        frames: torch.Tensor = torch.fft.irfft(spectrum, self.window.shape[0], dim=-1) * self.window
        parts = frames.view(*frames.shape[:2], 4, self.hop)  # [R, L + 3, 4, hop]
        hops = wide.shape[1] - 3
        sound = parts[:, :hops, 3] + parts[:, 1 : hops + 1, 2] + parts[:, 2 : hops + 2, 1] + parts[:, 3:, 0]
        weight = real.float().unfold(1, 4, 1) @ self.quarters  # [R, L, hop]
        return (sound / weight).flatten(1)


def _decoder_layers(tensors: Tensors, dtype: torch.dtype) -> list[_Convolution | _Block]:
    cast = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    # conv_out, out_conv and coef are linear and without bias: together they are one convolution of three frames.
    out = torch.einsum("omk,mi->oik", tensors["out_conv.weight"], tensors["decoder.conv_out.weight"][..., 0])
    return [
        _Convolution(cast["decoder.conv_in.0.weight"], cast["decoder.conv_in.0.bias"], F.gelu),
        _Convolution(cast["decoder.conv_in.2.weight"], cast["decoder.conv_in.2.bias"]),
        *(_Block(part, "weight", DECODER_DILATION) for part in _numbered(cast, "decoder.decoder_block.")),
        _Convolution((out * tensors["coef"].view(-1, 1, 1)).to(dtype), None),
    ]


def _vocos_layers(cast: Tensors) -> list[_Convolution | _Block]:
    embed = _Convolution(cast["backbone.embed.weight"], cast["backbone.embed.bias"], _Norm(cast, "backbone.norm"))
    return [embed, *(_Block(part, "gamma", 1) for part in _numbered(cast, "backbone.convnext."))]


def _numbered(tensors: Tensors, prefix: str) -> list[Tensors]:
    """PREFIX0.norm.bias, ... PREFIX11.norm.bias -> twelve times {norm.bias: ...}, in order."""
    parts: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            number, rest = name.removeprefix(prefix).split(".", 1)
            parts.setdefault(int(number), {})[rest] = tensor
    return [parts[number] for number in sorted(parts)]
