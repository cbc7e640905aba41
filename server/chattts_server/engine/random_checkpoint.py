"""Random checkpoints in the real asset layout, for tests, demos and benches. The sound is noise, the formats are real.

Speed, batching and equality need no trained weights. `full` has the released sizes, `tiny` is about 22 MB.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from ChatTTS.model import DVAE, Embed
from safetensors.torch import save_file
from vocos import Vocos
from vocos.pretrained import instantiate_class

from chattts_server.engine.checkpoint import SIZES_FILE, write_digests
from chattts_server.engine.nouns import END_CODE
from chattts_server.engine.sizes import FULL, TINY, chat_config, unit_speaker_statistics
from chattts_server.engine.vocabulary import write_tokenizer

Size = Literal["tiny", "full"]
End = Literal["never", "random"]


def make_checkpoint(
    out: Path, size: Size, seed: int, end: End = "never", progress: Callable[[str], None] = lambda _: None
) -> None:
    """Writes OUT; the same size, seed and end give the same bytes."""
    torch.manual_seed(seed)
    (out / "asset" / "gpt").mkdir(parents=True, exist_ok=True)
    (out / "asset" / "tokenizer").mkdir(exist_ok=True)
    sizes = _sizes(size, seed, end)
    (out / SIZES_FILE).write_text(json.dumps(sizes, indent=1) + "\n")
    config = chat_config(sizes)

    write_tokenizer(out / "asset" / "tokenizer")
    progress("tokenizer")
    _write_gpt(config, out / "asset" / "gpt")
    progress("gpt")
    _save(_embed(config, end), out / "asset" / "Embed.safetensors")
    progress("Embed")
    for name, module in _audio_modules(config):
        _save(module, out / "asset" / f"{name}.safetensors")
        progress(name)
    write_digests(out)
    for file in (path for path in out.rglob("*") if path.is_file()):
        file.chmod(0o644)  # safetensors writes 0600; a pod reads the volume as another user
    progress("sha256_map.json")


def _sizes(size: Size, seed: int, end: End) -> dict[str, Any]:
    chosen = TINY if size == "tiny" else FULL
    width = chosen.get("gpt", {}).get("hidden_size")
    return {
        "size": size,
        "seed": seed,
        "rows_end": end == "random",
        "config": chosen,
        "spk_stat": None if width is None else unit_speaker_statistics(width),  # None: the released ones
    }


def _embed(config: Any, end: End) -> Embed:
    embed = Embed(
        config.embed.hidden_size, config.embed.num_audio_tokens, config.embed.num_text_tokens, config.embed.num_vq
    )
    if end == "never":
        # weight_norm: weight = g * v / |v|. g = 0 makes the end code's logit 0, the middle of 626, so that it is
        # never among the 20 that are sampled from. (v = 0 would make it 0/0.)
        for head in embed.head_code:
            head.parametrizations.weight.original0.data[END_CODE] = 0.0
    return embed


def _audio_modules(config: Any) -> list[tuple[str, torch.nn.Module]]:
    dvae = DVAE(
        decoder_config=asdict(config.dvae.decoder),
        encoder_config=asdict(config.dvae.encoder),
        vq_config=asdict(config.dvae.vq),
        dim=config.dvae.decoder.idim,
    )
    decoder = DVAE(decoder_config=asdict(config.decoder), dim=config.decoder.idim, coef=str(dvae))
    parts = (config.vocos.feature_extractor, config.vocos.backbone, config.vocos.head)
    extractor, backbone, head = (instantiate_class(args=(), init=asdict(part)) for part in parts)
    with torch.no_grad():
        # Spectral magnitudes are exp(out): e^-0.5 each makes a clear noise that does not clip.
        head.out.bias[: config.vocos.head.init_args.n_fft // 2 + 1] -= 0.5
    return [
        ("DVAE", dvae),
        ("Decoder", decoder),
        ("Vocos", Vocos(feature_extractor=extractor, backbone=backbone, head=head)),
    ]


def _write_gpt(config: Any, folder: Path) -> None:
    gpt = config.gpt
    hidden, inner, vocabulary = gpt.hidden_size, gpt.intermediate_size, 32000
    description = {
        **asdict(gpt),
        "architectures": ["LlamaModel"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.02, "mlp_bias": False,
        "model_type": "llama", "num_key_value_heads": gpt.num_attention_heads, "pretraining_tp": 1,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "torch_dtype": "float32", "transformers_version": "4.41.2", "vocab_size": vocabulary,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape) * 0.02

    tensors = {"embed_tokens.weight": weight(vocabulary, hidden), "norm.weight": torch.ones(hidden)}
    for layer in range(gpt.num_hidden_layers):
        prefix = f"layers.{layer}."
        for name in "qkvo":
            tensors[f"{prefix}self_attn.{name}_proj.weight"] = weight(hidden, hidden)
        tensors[prefix + "mlp.gate_proj.weight"] = weight(inner, hidden)
        tensors[prefix + "mlp.up_proj.weight"] = weight(inner, hidden)
        tensors[prefix + "mlp.down_proj.weight"] = weight(hidden, inner)
        tensors[prefix + "input_layernorm.weight"] = torch.ones(hidden)
        tensors[prefix + "post_attention_layernorm.weight"] = torch.ones(hidden)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _save(module: torch.nn.Module, path: Path) -> None:
    save_file({key: tensor.contiguous().clone() for key, tensor in module.state_dict().items()}, path)
