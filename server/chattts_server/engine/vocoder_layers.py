"""The layers of ChatTTS's Decoder and of Vocos, computed from their weights: importing their modules takes seconds.

Columns go in and come out in float32. Only the products that cost the time are made in the dtype that is asked for; a
layer's norm, the sum that runs through the blocks and everything from the spectrum on need more than 8 bits.
Weights are copied where they are kept: one tensor of a checkpoint's file would keep all of the file mapped.

Sizes: R rows of one pass, L columns (frames of one pass), C channels, N columns of all rows behind each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

NORM_EPSILON = 1e-6  # of every layer norm in Decoder and Vocos
DECODER_DILATION = 2  # of ChatTTS's blocks; not to be seen in the weights
LOUDEST = 1e2  # Vocos clips magnitudes there
BLOCK = 256  # columns that are computed at once on a CPU; more are hardly faster

Tensors = Mapping[str, torch.Tensor]
Pointwise = Callable[[torch.Tensor], torch.Tensor]  # of each column alone


@dataclass(frozen=True, slots=True)
class Reach:
    """Which columns of its input a layer needs besides the one that it answers for."""

    left: int
    right: int
    channels: int  # of the input

    @property
    def width(self) -> int:
        return self.left + self.right


def in_blocks(compute: Pointwise, columns: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
    """[N, in] -> [N, out], where `compute` makes any number of columns; added `onto` [N, out] if that is given.

    oneDNN compiles a product anew for every number of columns and keeps 0.6 MB of code for each. Rows end anywhere, so
    on a CPU there are only a few numbers: BLOCK, and for what is left the next one, reached with silence.
    """
    if columns.device.type != "cpu":
        return compute(columns) if onto is None else onto.add_(compute(columns))
    parts = []
    for start in range(0, columns.shape[0], BLOCK):
        block = columns[start : start + BLOCK]
        count = block.shape[0]
        silence = _rounded(count) - count
        part = compute(F.pad(block, (0, 0, 0, silence)) if silence else block)[:count]
        parts.append(part if onto is None else onto[start : start + count].add_(part))
    return torch.cat(parts) if onto is None else onto


def _rounded(count: int) -> int:
    """One of twelve numbers up to BLOCK: 16, 32, ... 128, 160, ... 256."""
    step = BLOCK // 16 if count <= BLOCK // 2 else BLOCK // 8
    return -(-count // step) * step


class _Product:
    """A linear layer, [n, in] -> [n, out] in `dtype`, and GELU after it if so asked: fused, it costs almost nothing."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, gelu: bool = False) -> None:
        self.dtype, self.gelu = dtype, gelu
        self.bias = None if bias is None else bias.to(dtype, copy=True)
        self.packed = weight.device.type == "cpu"  # into oneDNN's own order: float32 takes half of MKL's time
        weight = weight.to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, BLOCK) if self.packed else weight

    def __call__(self, columns: torch.Tensor) -> torch.Tensor:
        columns = columns.to(self.dtype)
        if not self.packed:
            made = F.linear(columns, self.weight, self.bias)
            return F.gelu(made) if self.gelu else made
        then, kind = ("gelu", "none") if self.gelu else ("none", "")  # GELU's kind "none" is the exact one
        fused: torch.Tensor = torch.ops.mkldnn._linear_pointwise(columns, self.weight, self.bias, then, [], kind)
        return fused


class _Norm:
    def __init__(self, weights: Tensors, name: str) -> None:
        self.weight, self.bias = weights[name + ".weight"].clone(), weights[name + ".bias"].clone()

    def __call__(self, columns: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(columns, self.bias.shape, self.weight, self.bias, NORM_EPSILON)


class Convolution:
    """[R, L + 2r, in] -> [R, L, out]: every channel out of all channels, as a product with the frames side by side."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        gelu: bool = False,
        then: Pointwise | None = None,
    ) -> None:
        """weight [out, in, kernel]"""
        self.product = _Product(weight.transpose(1, 2).flatten(1), bias, dtype, gelu)
        self.then = then
        r = weight.shape[2] // 2
        self.reach = Reach(r, r, weight.shape[1])

    def __call__(self, wide: torch.Tensor) -> torch.Tensor:
        rows, width, _ = wide.shape
        length = width - self.reach.width
        beside = torch.cat([wide[:, first : first + length] for first in range(self.reach.width + 1)], 2)
        columns = in_blocks(self.product, beside.flatten(0, 1)).float().view(rows, length, -1)
        return columns if self.then is None else self.then(columns)


class Block:
    """ConvNeXt: [R, L + 2r, C] -> [R, L, C]."""

    def __init__(self, weights: Tensors, scale: str, dtype: torch.dtype, dilation: int) -> None:
        # As a picture of height 1, channels last is a layout that convolutions know: nothing is copied.
        self.filters = weights["dwconv.weight"].unsqueeze(2).clone(memory_format=torch.channels_last)
        self.bias, self.dilation = weights["dwconv.bias"].clone(), dilation
        r = dilation * (self.filters.shape[3] // 2)
        self.reach = Reach(r, r, self.filters.shape[0])
        self.norm = _Norm(weights, "norm")
        self.expand = _Product(weights["pwconv1.weight"], weights["pwconv1.bias"], dtype, gelu=True)
        factor = weights[scale]
        self.contract = _Product(weights["pwconv2.weight"] * factor[:, None], weights["pwconv2.bias"] * factor, dtype)

    def __call__(self, wide: torch.Tensor) -> torch.Tensor:
        picture = wide.transpose(1, 2).unsqueeze(2)  # [R, C, 1, L + 2r]
        mixed = F.conv2d(picture, self.filters, self.bias, dilation=(1, self.dilation), groups=self.reach.channels)
        centre = wide[:, self.reach.left : wide.shape[1] - self.reach.right]
        made = centre.clone(memory_format=torch.contiguous_format)
        in_blocks(self._perceive, mixed.squeeze(2).transpose(1, 2).flatten(0, 1), onto=made.view(-1, wide.shape[2]))
        return made

    def _perceive(self, columns: torch.Tensor) -> torch.Tensor:
        return self.contract(self.expand(self.norm(columns)))


class Head:
    """Vocos's end and the inverse STFT: [R, L + 3, C] -> L hops of samples.

    A frame is four hops long and its second quarter ends where it stands, so hop k is made of frames k - 1 to k + 2.
    """

    def __init__(self, weights: Tensors) -> None:
        self.norm = _Norm(weights, "backbone.final_layer_norm")
        self.out = _Product(weights["head.out.weight"], weights["head.out.bias"], torch.float32)
        self.window = weights["head.istft.window"].clone()
        self.hop = self.window.shape[0] // 4
        self.quarters = self.window.square().view(4, self.hop).flip(0)  # of frames k - 1, k, k + 1, k + 2
        self.reach = Reach(1, 2, weights["head.out.weight"].shape[1])

    def __call__(self, wide: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """real, bool [R, L + 3]: which columns are frames of the row; at its ends fewer than four overlap."""
        frames = in_blocks(self._frames, wide.flatten(0, 1)).view(*real.shape, 4, self.hop)
        parts = frames * real[..., None, None]
        hops = wide.shape[1] - 3
        sound = parts[:, :hops, 3] + parts[:, 1 : hops + 1, 2] + parts[:, 2 : hops + 2, 1] + parts[:, 3:, 0]
        weight = real.float().unfold(1, 4, 1) @ self.quarters  # [R, L, hop]
        return (sound / weight).flatten(1)

    def _frames(self, columns: torch.Tensor) -> torch.Tensor:
        """[n, C] -> [n, 4 hops]: what each frame adds to the sound."""
        size, phase = self.out(self.norm(columns)).chunk(2, -1)  # each [n, bins]
        size = size.exp().clamp(max=LOUDEST)
        spectrum = torch.complex(size * phase.cos(), size * phase.sin())
        frames: torch.Tensor = torch.fft.irfft(spectrum, self.window.shape[0], dim=-1)
        return frames * self.window


def decoder_layers(weights: Tensors, dtype: torch.dtype) -> list[Convolution | Block]:
    # conv_out, out_conv and coef are linear and without bias: together they are one convolution of three frames.
    out = torch.einsum("omk,mi->oik", weights["out_conv.weight"], weights["decoder.conv_out.weight"][..., 0])
    first, second = "decoder.conv_in.0", "decoder.conv_in.2"
    return [
        Convolution(weights[first + ".weight"], weights[first + ".bias"], dtype, gelu=True),
        Convolution(weights[second + ".weight"], weights[second + ".bias"], dtype),
        *(Block(part, "weight", dtype, DECODER_DILATION) for part in _numbered(weights, "decoder.decoder_block.")),
        Convolution(out * weights["coef"].view(-1, 1, 1), None, dtype),
    ]


def vocos_layers(weights: Tensors, dtype: torch.dtype) -> list[Convolution | Block]:
    norm = _Norm(weights, "backbone.norm")
    return [
        Convolution(weights["backbone.embed.weight"], weights["backbone.embed.bias"], dtype, then=norm),
        *(Block(part, "gamma", dtype, 1) for part in _numbered(weights, "backbone.convnext.")),
    ]


def _numbered(tensors: Tensors, prefix: str) -> list[Tensors]:
    """PREFIX0.norm.bias, ... PREFIX11.norm.bias -> twelve times {norm.bias: ...}, in order."""
    parts: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            number, rest = name.removeprefix(prefix).split(".", 1)
            parts.setdefault(int(number), {})[rest] = tensor
    return [parts[number] for number in sorted(parts)]
