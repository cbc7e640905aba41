"""ChatTTS's own Chat on a checkpoint folder: the reference of tests, benchmarks and `doctor`. Never used to serve."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from chattts_server.engine.checkpoint import CannotServe, open_checkpoint
from chattts_server.engine.sizes import chat_config


def load_chat(folder: Path, device: torch.device) -> Any:
    """A ChatTTS.Chat with its digests checked; takes seconds, as its package imports much."""
    checkpoint = open_checkpoint(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ChatTTS

        quiet = logging.getLogger("chattts.native")
        quiet.setLevel(logging.ERROR)  # it warns of every row that ends at its limit
        chat = ChatTTS.Chat(quiet)
        chat.config = chat_config(checkpoint.sizes)
        chat.sha256_map = dict(checkpoint.digests)
        if not chat.load(source="custom", custom_path=str(folder), device=device):
            raise CannotServe(f"ChatTTS cannot load {folder}")
    return chat


def exactly(steps: int, **parameters: Any) -> Any:
    """InferCodeParams for a row of so many steps, whatever it would like."""
    import ChatTTS

    return ChatTTS.Chat.InferCodeParams(
        min_new_token=steps, max_new_token=steps, show_tqdm=False, ensure_non_empty=False, **parameters
    )
