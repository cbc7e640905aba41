"""The real engine with the random `tiny` checkpoint: ChatTTS loads it, we load it, and both say the same."""

import hashlib
import io
import shutil
import socket
import sys
import time
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest

from chattts_server.engine.checkpoint import CheckpointError, open_checkpoint, verify
from tests.server.test_process import Server

pytestmark = pytest.mark.engine

TEXTS = ["你好世界", "今天天气很好我们去公园玩耍吧", "hello world", "好[laugh]的"]


@pytest.fixture(scope="module")
def server(tiny):
    """Started first of all, so that its cold start runs beside the other tests."""
    process = Server(
        [sys.executable, "-m", "chattts_server", "serve"], CHATTTS_MODEL=str(tiny), CHATTTS_MAX_BATCH_SIZE="4"
    )
    yield process
    process.end()


def test_the_tokenizer_without_transformers_says_what_chattts_says(chat, prompt):
    for text in TEXTS:
        expected = chat.tokenizer.encode([f"[Stts][spk_emb][speed_5]{text}[Ptts]"], 4)[0][0, :, 0].tolist()
        assert prompt(text) == expected


def test_the_same_seed_makes_the_same_bytes(tiny, tmp_path):
    from chattts_server.engine.random_checkpoint import make_checkpoint

    make_checkpoint(tmp_path / "again", "tiny", seed=7)
    make_checkpoint(tmp_path / "other", "tiny", seed=8)
    digests = (tiny / "sha256_map.json").read_text()
    assert (tmp_path / "again" / "sha256_map.json").read_text() == digests
    assert (tmp_path / "other" / "sha256_map.json").read_text() != digests
    size = sum(path.stat().st_size for path in tiny.rglob("*") if path.is_file())
    assert 20e6 < size < 25e6


def test_a_changed_byte_is_found(tiny, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    verify(open_checkpoint(copy))
    path = copy / "asset" / "Vocos.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match=r"Vocos\.safetensors has sha256"):
        verify(open_checkpoint(copy))
    (copy / "sha256_map.json").unlink()  # without own digests the released ones must hold
    with pytest.raises(CheckpointError, match="the released digest is"):
        verify(open_checkpoint(copy))


def test_the_server_speaks(server):
    server.line("engine ready", 90)
    answer = server.post(text="今天天气很好，温度23度。", max_seconds=1)
    assert answer.status_code == 200
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (24000, 1, 23808)
        samples = np.frombuffer(sound.readframes(23808), "<i2")
    assert 100 < np.abs(samples).max() < 32767  # neither silent nor clipped
    model = httpx.get(server.url + "/v1/models").json()["data"][0]
    assert "noise" in model["licenses"]["weights"]


def test_a_seed_is_repeatable_and_voices_differ(server):
    def sound(**fields):
        return hashlib.sha256(server.post(text="你好", max_seconds=0.5, **fields).content).digest()

    assert sound(seed=5) == sound(seed=5)
    assert sound(seed=5) != sound(seed=6)
    assert sound(seed=5, voice="seed:1") != sound(seed=5, voice="seed:2")


def test_refined_text_is_another_text_spoken(server):
    """The text stage of random weights answers with random text; what counts is that it is asked and obeyed."""

    def sound(**fields):
        answer = server.post(text="今天天气很好", max_seconds=0.5, seed=5, **fields)
        assert answer.status_code == 200
        return hashlib.sha256(answer.content).digest()

    plain, refined = sound(), sound(refine=True, oral=2, laugh=0, pause=4)
    assert refined != plain
    assert sound(refine=True, oral=2, laugh=0, pause=4) == refined
    assert sound(refine=True, oral=9) != refined
    assert sound() == plain


def test_torch_is_mapped_in_the_engine_only(server):
    def maps(pid):
        return Path(f"/proc/{pid}/maps").read_text()

    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert "libtorch" in maps(children[0])
    assert "libtorch" not in maps(server.process.pid)


def test_a_corrupt_file_is_one_line_and_78_however_the_load_fails(tiny, tmp_path, capfd):
    from chattts_server.engine import process

    for number, (name, content) in enumerate(
        [("asset/gpt/config.json", b"[]"), ("asset/Decoder.safetensors", b"short"), ("asset/Embed.safetensors", b"")]
    ):
        copy = shutil.copytree(tiny, tmp_path / f"copy{number}")
        (copy / name).write_bytes(content)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / f"socket{number}"))
            listener.listen()
            argv = ["--socket", str(tmp_path / f"socket{number}"), "--model", str(copy), "--device", "cpu"]
            assert process.main([*argv, "--dtype", "auto"]) == 78
        lines = capfd.readouterr().err.splitlines()
        assert [name in line and "has sha256" in line for line in lines] == [True], lines


def test_a_gpu_that_is_not_there_is_one_line_and_78(tiny, tmp_path, capfd):
    import torch

    from chattts_server.engine import process

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        argv = ["--socket", str(tmp_path / "socket"), "--model", str(tiny), "--device", "auto", "--dtype", "auto"]
        assert process.main(argv) == 78
    assert capfd.readouterr().err == (
        "chattts-server: CHATTTS_DEVICE=auto asks for a CUDA device and there is none; "
        "set it to cpu to compute on the CPU\n"
    )


def test_the_server_ends_well(server):
    server.process.terminate()
    began = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - began < 10
