"""The language model's weights, read from safetensors straight to the device. Knows no computation.

H hidden width, I inner width, V = 626 codes in each of 4 codebooks. Products that share their input are one tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from chattts_server.engine.nouns import CODEBOOKS


@dataclass(frozen=True, slots=True)
class LayerWeights:
    norm_attention: torch.Tensor  # [H]
    qkv: torch.Tensor  # [3 * H, H]; of queries and keys the pairs that RoPE turns are neighbours
    out: torch.Tensor  # [H, H]
    norm_mlp: torch.Tensor  # [H]
    gate_up: torch.Tensor  # [2 * I, H]
    down: torch.Tensor  # [H, I]


@dataclass(frozen=True, slots=True)
class GptWeights:
    """Filled by load_gpt."""

    layers: list[LayerWeights]
    norm: torch.Tensor  # [H]
    code_heads: torch.Tensor  # [4 * V, H]
    text_head: torch.Tensor  # [21178, H]
    codes: torch.Tensor  # [4, V, H]: embedding of each code
    text: torch.Tensor  # [21178, H]: embedding of each token
    attention_heads: int
    rope_theta: float
    epsilon: float  # of RMSNorm

    @property
    def width(self) -> int:
        return int(self.norm.shape[0])


def load_gpt(assets: Path, device: torch.device) -> GptWeights:
    """All in float32. `assets`: the checkpoint's asset/ folder, its digests verified before anything is served."""
    config = json.loads((assets / "gpt" / "config.json").read_text())
    llama = load_file(assets / "gpt" / "model.safetensors", device=str(device))
    embed = load_file(assets / "Embed.safetensors", device=str(device))
    books = range(CODEBOOKS)
    return GptWeights(
        layers=[
            _layer(llama, f"layers.{number}.", config["num_attention_heads"])
            for number in range(config["num_hidden_layers"])
        ],
        norm=llama["norm.weight"].float(),
        code_heads=torch.cat([_unnormed(embed, f"head_code.{book}") for book in books]),
        text_head=_unnormed(embed, "head_text"),
        codes=torch.stack([embed[f"emb_code.{book}.weight"].float() for book in books]),
        text=embed["emb_text.weight"].float(),
        attention_heads=config["num_attention_heads"],
        rope_theta=config.get("rope_theta", 10000.0),
        epsilon=config.get("rms_norm_eps", 1e-6),
    )


def file_bytes(assets: Path) -> int:
    """Of what is loaded for speaking."""
    names = ("gpt/model", "Embed", "Decoder", "Vocos")
    return sum((assets / f"{name}.safetensors").stat().st_size for name in names)


def _layer(tensors: Mapping[str, torch.Tensor], prefix: str, heads: int) -> LayerWeights:
    def own(name: str) -> torch.Tensor:
        return tensors[f"{prefix}{name}.weight"]

    def paired(name: str) -> torch.Tensor:
        """RoPE turns dimension j of a head together with j + D / 2: they stand side by side here."""
        width = own(name).shape[1]
        return own(name).view(heads, 2, -1, width).transpose(1, 2).reshape(-1, width)

    return LayerWeights(
        norm_attention=own("input_layernorm").float(),
        qkv=torch.cat([paired("self_attn.q_proj"), paired("self_attn.k_proj"), own("self_attn.v_proj")]).float(),
        out=own("self_attn.o_proj").float(),
        norm_mlp=own("post_attention_layernorm").float(),
        gate_up=torch.cat([own("mlp.gate_proj"), own("mlp.up_proj")]).float(),
        down=own("mlp.down_proj").float(),
    )


def _unnormed(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """weight_norm folded: magnitude (original0) times direction (original1), row by row."""
    magnitude, direction = (tensors[f"{name}.parametrizations.weight.original{part}"].float() for part in (0, 1))
    return torch._weight_norm(direction, magnitude, 0)
