"""Text to the token ids of a whole prompt, by the checkpoint's tokenizer. Knows no torch and no transformers."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

SPEAKER, NO_SPEAKER = "[spk_emb]", "[empty_spk]"


class PromptTokenizer:
    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "asset" / "tokenizer" / "tokenizer.json"))

    def prompt(self, text: str, speed: int = 5, reference: str | None = None) -> list[int]:
        """`[Stts][spk_emb][speed_5]TEXT[Ptts]`, as ChatTTS lays it out; normalised text holds no such tags.

        `reference`: what the recording says whose codes follow the prompt; None: the speaker is an embedding.
        """
        who = SPEAKER if reference is None else NO_SPEAKER + reference
        encoded = self._tokenizer.encode(f"[Stts]{who}[speed_{speed}]{text}[Ptts]", add_special_tokens=False)
        ids: list[int] = encoded.ids
        return ids
