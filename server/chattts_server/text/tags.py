"""Control tags: what of the text in brackets the model understands. Pure. Any other bracket is text and is read."""

from __future__ import annotations

import re

# As the released vocabulary has them; [speed_N], [Ptts] and the like are the server's own.
_TAG = re.compile(r"(\[(?:uv_break|lbreak|laugh|laugh_[0-2]|oral_[0-9]|break_[0-7])\])")


def divide(text: str) -> list[str]:
    """Text and tags by turns: the even places hold text, the odd ones tags. Joined they are `text`."""
    return _TAG.split(text)


def without(text: str) -> str:
    return _TAG.sub("", text)
