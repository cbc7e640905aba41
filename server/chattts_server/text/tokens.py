"""Text to the token ids of a whole prompt, by the checkpoint's tokenizer. Knows no torch and no transformers."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

SPEAKER = "[spk_emb]"


class PromptTokenizer:
    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "asset" / "tokenizer" / "tokenizer.json"))

    def prompt(self, text: str, speed: int = 5) -> list[int]:
        """`[Stts][spk_emb][speed_5]TEXT[Ptts]`, as ChatTTS lays it out; normalised text holds no such tags."""
        encoded = self._tokenizer.encode(f"[Stts]{SPEAKER}[speed_{speed}]{text}[Ptts]", add_special_tokens=False)
        ids: list[int] = encoded.ids
        return ids
