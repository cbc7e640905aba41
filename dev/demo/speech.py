"""Three real texts, spoken through the Service, written as WAV files."""

import io
import wave
from pathlib import Path
from typing import Any

from dev.kubeapi import KubeApi

TEXTS = {
    "chinese": "今天天气很好，我们去公园走走吧。",
    "english": "Good morning, this is a short test of the speech service.",
    "mixed": "订单号是A123，总共45.6元，please pick it up before 8:30.",
}


def speak(api: KubeApi, namespace: str, service: str, out: Path) -> list[dict[str, Any]]:
    """One WAV file a text; RuntimeError with the server's own words when a text is refused."""
    out.mkdir(parents=True, exist_ok=True)
    return [_speak_one(api, namespace, service, text, out / f"{name}.wav") for name, text in TEXTS.items()]


def _speak_one(api: KubeApi, namespace: str, service: str, text: str, path: Path) -> dict[str, Any]:
    body = {"model": "chattts", "input": text, "voice": "default", "response_format": "wav"}
    answer = api.post_to_service(namespace, service, "/v1/audio/speech", body)
    if answer.status_code != 200:
        raise RuntimeError(f"speech was refused with {answer.status_code}: {answer.text}")
    with wave.open(io.BytesIO(answer.content)) as sound:
        seconds, rate = sound.getnframes() / sound.getframerate(), sound.getframerate()
    if seconds == 0:
        raise RuntimeError(f"the answer to {text!r} holds no sound")
    path.write_bytes(answer.content)
    return {
        "file": path.name,
        "seconds": round(seconds, 3),
        "sample_rate": rate,
        "bytes": len(answer.content),
    }
