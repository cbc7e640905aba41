"""Text to the token ids of a whole prompt, by the checkpoint's tokenizer. Knows no torch and no transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

SPEAKER, NO_SPEAKER = "[spk_emb]", "[empty_spk]"
# Of what the text stage may say, only these and plain text go on to be spoken: ChatTTS drops [break_0] and all after
# it; the tokens that frame a prompt would open a second one in its middle.
_SPOKEN_MARKS = ("[uv_break]", "[v_break]", "[lbreak]", "[llbreak]", "[laugh]")


@dataclass(frozen=True, slots=True)
class Prosody:
    """How the text stage is asked to speak; None leaves it to the model. Ranges: the released vocabulary's."""

    oral: int | None = None  # 0 to 9: filler words
    laugh: int | None = None  # 0 to 2
    pause: int | None = None  # 0 to 7

    @property
    def marks(self) -> str:
        named = (("oral", self.oral), ("laugh", self.laugh), ("break", self.pause))
        return "".join(f"[{name}_{value}]" for name, value in named if value is not None)


class PromptTokenizer:
    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "asset" / "tokenizer" / "tokenizer.json"))
        self._marks = set(self._encode("".join(_SPOKEN_MARKS)))
        (self._first_special,) = self._encode("[Sasr]")  # ChatTTS's tokens follow BERT's

    def prompt(self, text: str, speed: int = 5, reference: str | None = None) -> list[int]:
        """`[Stts][spk_emb][speed_5]TEXT[Ptts]`, as ChatTTS lays it out; normalised text holds no such tags.

        `reference`: what the recording says whose codes follow the prompt; None: the speaker is an embedding.
        """
        return self._encode(f"{_opening(speed, reference)}{text}[Ptts]")

    def refine_prompt(self, text: str, prosody: Prosody) -> list[int]:
        """`[Sbreak]TEXT[Pbreak]MARKS`, of the text stage."""
        return self._encode(f"[Sbreak]{text}[Pbreak]{prosody.marks}")

    def refined_prompt(self, refined: Sequence[int], speed: int = 5, reference: str | None = None) -> list[int] | None:
        """The prompt that speaks what the text stage answered; None: it answered nothing that can be spoken.

        ChatTTS decodes to text and encodes again, which gives the same ids."""
        spoken = [token for token in refined if token < self._first_special or token in self._marks]
        if all(token in self._marks for token in spoken):
            return None
        opening, end = self._encode(_opening(speed, reference)), self._encode("[Ptts]")
        return [*opening, *spoken, *end]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _opening(speed: int, reference: str | None) -> str:
    return f"[Stts]{SPEAKER if reference is None else NO_SPEAKER + reference}[speed_{speed}]"
