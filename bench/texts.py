"""What the load says: fixed texts of mixed length and language. Knows nothing about HTTP or time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MAX_CHARACTERS = 10_000  # the server's own limit

BUILT_IN: tuple[str, ...] = (
    "你好，欢迎使用语音合成服务。",
    "今天天气不错，我们下午三点去公园散步吧。",
    "您的订单已经发出，预计明天送达，请注意查收。",
    "请在听到提示音之后留言，我们会尽快给您回电。",
    "前方路口请右转，然后沿着河边一直走到桥头，目的地就在您的左手边。",
    "Hello, and thank you for calling.",
    "Your train leaves from platform nine in about twenty minutes.",
    "Please keep your seat belt fastened until the aircraft has come to a complete stop.",
    "The quick brown fox jumps over the lazy dog while the old clock strikes twelve.",
    "If you would like to speak to one of our colleagues, simply stay on the line.",
    "这个 app 的新版本已经上线，记得 update 一下。",
    "我们今晚用 Kubernetes 部署语音服务，然后 review 监控面板。",
)


def read_texts(path: Path) -> tuple[str, ...]:
    """One text a line; blank lines are left out. Raises ValueError for an empty file or a text too long."""
    return checked([line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])


def checked(texts: Sequence[str]) -> tuple[str, ...]:
    if not texts:
        raise ValueError("there is no text to speak")
    longest = max(texts, key=len)
    if len(longest) > MAX_CHARACTERS:
        raise ValueError(f"a text has {len(longest)} characters, the server takes {MAX_CHARACTERS}")
    return tuple(texts)
