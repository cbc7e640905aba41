"""Reference audio -> codes, by ChatTTS's own encoder, imported and loaded at the first use. Knows one verb."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from ChatTTS.model import DVAE

from chattts_server.engine.checkpoint import open_checkpoint
from chattts_server.engine.sizes import chat_config


@torch.inference_mode()
def encode(assets: Path, pcm: np.ndarray, device: torch.device) -> bytes:
    """float32 [samples] at 24 kHz -> uint16 (4, n)."""
    codes = _encoder(assets, device).sample_audio(torch.from_numpy(pcm).to(device))
    data: bytes = codes.cpu().numpy().astype("<u2").tobytes()
    return data


@cache
def _encoder(assets: Path, device: torch.device) -> DVAE:
    dvae = chat_config(open_checkpoint(assets.parent).sizes).dvae
    module = DVAE(asdict(dvae.decoder), asdict(dvae.encoder), asdict(dvae.vq), dim=dvae.decoder.idim, device=device)
    module.load_pretrained(str(assets / "DVAE.safetensors"), device)
    return module.eval()
