"""Characters that the released weights misread, replaced by others of the same sound, as ChatTTS itself does. Pure.

The table is ChatTTS's own, read from the installed package without importing it (that would import torch).
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path


def replace_homophones(text: str) -> str:
    return text.translate(_table())


@cache
def _table() -> dict[int, str]:
    spec = importlib.util.find_spec("ChatTTS")
    if spec is None or spec.origin is None:  # without the engine's extra there is nothing that could misread
        return {}
    table: dict[str, str] = json.loads((Path(spec.origin).parent / "res" / "homophones_map.json").read_bytes())
    return str.maketrans(table)
