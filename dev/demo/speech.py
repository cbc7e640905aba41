"""Three real texts, spoken through the Service, written as WAV files."""

import io
import wave
from pathlib import Path
from typing import Any

import httpx

from dev.cluster import Cluster
from dev.kubeapi import listening

TEXTS = {
    "chinese": "今天天气很好，我们去公园走走吧。",
    "english": "Good morning, this is a short test of the speech service.",
    "mixed": "订单号是A123，总共45.6元，please pick it up before 8:30.",
}


def speak(cluster: Cluster, namespace: str, service: str, out: Path) -> list[dict[str, Any]]:
    """One WAV file a text, through a port forwarded to the Service; RuntimeError with the server's words on refusal."""
    out.mkdir(parents=True, exist_ok=True)
    process, port = listening(cluster.kubectl_command("port-forward", "-n", namespace, f"svc/{service}", ":80"))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client:
            return [_speak_one(client, text, out / f"{name}.wav") for name, text in TEXTS.items()]
    finally:
        process.terminate()
        process.communicate()


def _speak_one(client: httpx.Client, text: str, path: Path) -> dict[str, Any]:
    body = {"model": "chattts", "input": text, "voice": "default", "response_format": "wav"}
    answer = client.post("/v1/audio/speech", json=body)
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
