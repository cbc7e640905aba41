"""From sizes.json to ChatTTS's Config. ChatTTS's own defaults are shared objects, so everything here is made anew."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pybase16384

FULL: dict[str, Any] = {}  # the released sizes are ChatTTS's defaults
TINY: dict[str, Any] = {
    "gpt": {
        "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2,
        "max_position_embeddings": 4096,
    },
    "embed": {"hidden_size": 64},
    "decoder": {"idim": 32, "odim": 32, "hidden": 32, "n_layer": 2, "bn_dim": 16},
    "dvae": {
        "encoder": {"idim": 32, "odim": 64, "hidden": 32, "n_layer": 2, "bn_dim": 16},
        "decoder": {"idim": 32, "odim": 32, "hidden": 32, "n_layer": 2, "bn_dim": 16},
        "vq": {"dim": 64},
    },
    "vocos": {"backbone": {"dim": 32, "intermediate_dim": 64, "num_layers": 2}, "head": {"dim": 32}},
}  # fmt: skip


def chat_config(sizes: Mapping[str, Any] | None) -> Any:
    """A ChatTTS.config.Config; None: the released model."""
    parts = _chattts_config()
    config = parts.Config()
    if sizes is None:
        return config
    chosen = sizes["config"]
    dvae, vocos = chosen.get("dvae", {}), chosen.get("vocos", {})
    config.gpt = parts.GPT(**chosen.get("gpt", {}))
    config.embed = parts.Embed(**chosen.get("embed", {}))
    config.decoder = parts.Decoder(**chosen.get("decoder", {}))
    if dvae:
        config.dvae = parts.DVAE(
            encoder=parts.Decoder(**dvae["encoder"]),
            decoder=parts.Decoder(**dvae["decoder"]),
            vq=parts.VQ(**dvae["vq"]),
        )
    if vocos:
        config.vocos = parts.Vocos(
            backbone=parts.Backbone(init_args=parts.BackboneInitArgs(**vocos["backbone"])),
            head=parts.FourierHead(init_args=parts.FourierHeadInitArgs(**vocos["head"])),
        )
    config.spk_stat = sizes.get("spk_stat") or config.spk_stat
    return config


def unit_speaker_statistics(hidden: int) -> str:
    """Standard deviation 1 and mean 0 for a model whose speakers have another width than the released 768."""
    halves = np.concatenate([np.ones(hidden), np.zeros(hidden)]).astype(np.float16)
    text: str = pybase16384.encode_to_string(halves.tobytes())
    return text


def speaker_statistics(sizes: Mapping[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """(standard deviation, mean) of the speaker embeddings, each float32 of the model's width."""
    text = (sizes or {}).get("spk_stat") or _chattts_config().Config().spk_stat
    halves = np.frombuffer(pybase16384.decode_from_string(text), dtype=np.float16).astype(np.float32)
    std, mean = np.split(halves, 2)
    return std, mean


def _chattts_config() -> Any:
    """ChatTTS's config.py alone: its package imports numba and transformers, seconds that the start has not."""
    package = importlib.util.find_spec("ChatTTS")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "config" / "config.py"
    spec = importlib.util.spec_from_file_location("chattts_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
