"""The real engine with the random `tiny` checkpoint: ChatTTS loads it, we load it, and both say the same."""

import hashlib
import io
import json
import shutil
import socket
import sys
import time
import warnings
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest

from chattts_server.engine.checkpoint import CheckpointError, open_checkpoint, verify
from chattts_server.engine.nouns import Limits, Sampling, Submit, Voice, samples_of
from chattts_server.text.tokens import PromptTokenizer
from tests.server.test_process import Server

pytestmark = pytest.mark.engine

TEXTS = ["你好世界", "今天天气很好我们去公园玩耍吧", "hello world", "好[laugh]的"]
GREEDY = Sampling(temperature=1e-6)


@pytest.fixture(scope="module")
def server(tiny):
    """Started first of all, so that its cold start runs beside the other tests."""
    process = Server(
        [sys.executable, "-m", "chattts_server", "serve"], CHATTTS_MODEL=str(tiny), CHATTTS_MAX_BATCH_SIZE="4"
    )
    yield process
    process.end()


@pytest.fixture(scope="module")
def chat(tiny, server):
    """ChatTTS's own Chat on the same folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ChatTTS
        import torch

        torch.set_num_threads(1)  # the server of this module has the other core
        from chattts_server.engine.sizes import chat_config

        made = ChatTTS.Chat()
        made.config = chat_config(json.loads((tiny / "sizes.json").read_text()))
        made.sha256_map = json.loads((tiny / "sha256_map.json").read_text())
        assert made.load(source="custom", custom_path=str(tiny), device=torch.device("cpu"))
    return made


@pytest.fixture(scope="module")
def model(tiny, server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        from chattts_server.engine.chat_model import ChatModel

        return ChatModel(open_checkpoint(tiny), torch.device("cpu"))


@pytest.fixture(scope="module")
def prompt(tiny):
    return PromptTokenizer(tiny).prompt


def row(token_ids, steps, sampling=GREEDY, embedding=b""):
    return Submit(1, token_ids, Voice(embedding), sampling, Limits(steps), None, 0)


def never(_):
    return frozenset()


def native(chat, texts, steps, speaker=None, **parameters):
    import ChatTTS

    params = ChatTTS.Chat.InferCodeParams(
        max_new_token=steps, show_tqdm=False, ensure_non_empty=False, spk_emb=speaker, **parameters
    )
    return next(chat._infer_code(list(texts), False, chat.device, True, params))


def test_the_tokenizer_without_transformers_says_what_chattts_says(chat, prompt):
    for text in TEXTS:
        expected = chat.tokenizer.encode([f"[Stts][spk_emb][speed_5]{text}[Ptts]"], 4)[0][0, :, 0].tolist()
        assert prompt(text) == expected


def test_the_speaker_token_is_the_one_of_the_tokenizer(chat):
    from chattts_server.engine.chat_model import SPEAKER_TOKEN

    assert chat.tokenizer.spk_emb_ids == SPEAKER_TOKEN


def test_codes_and_audio_are_those_of_chattts(chat, model, prompt):
    """Greedy, a ragged batch, with a speaker."""
    speaker = chat.sample_random_speaker()
    made = native(chat, TEXTS, 48, speaker, temperature=1e-6)
    lengths = [len(codes) for codes in made.ids]
    waves = chat._decode_to_wavs(made.hiddens, True)
    embedding = chat.speaker._decode(speaker).astype("<f4").tobytes()
    ours = model.speak([row(prompt(text), 48, embedding=embedding) for text in TEXTS], never)
    assert lengths == [spoken.steps for spoken in ours] == [48] * 4
    for wave_native, spoken in zip(waves, ours, strict=True):
        assert np.abs(wave_native - spoken.pcm).max() < 1e-4


def test_a_random_row_never_ends_by_itself(chat, model, prompt):
    """In ChatTTS with its own defaults, and with us even where every code may be drawn."""
    assert {len(codes) for codes in native(chat, ["好"] * 8, 120).ids} == {120}
    wild = Sampling(temperature=2.0, top_p=1.0, top_k=626)
    assert {spoken.steps for spoken in model.speak([row(prompt("好"), 200, wild)] * 8, never)} == {200}


def test_rows_end_early_when_asked_for(tmp_path, prompt):
    from chattts_server.engine.chat_model import ChatModel
    from chattts_server.engine.random_checkpoint import make_checkpoint

    make_checkpoint(tmp_path, "tiny", seed=7, end="random")
    import torch

    ending = ChatModel(open_checkpoint(tmp_path), torch.device("cpu"))
    wild = Sampling(temperature=2.0, top_p=1.0, top_k=626)
    spoken = ending.speak([row(prompt("好"), 150, wild)] * 16, never)
    assert min(one.steps for one in spoken) < 150
    assert {one.reason for one in spoken if one.steps < 150} == {"end"}


def test_limits_and_stops_are_per_row(model, prompt):
    ids = prompt("好")
    full = model.speak([row(ids, 60), row(ids, 40)], never)
    assert [(one.steps, len(one.pcm), one.reason) for one in full] == [
        (60, samples_of(60), "limit"), (40, samples_of(40), "limit"),
    ]  # fmt: skip
    stopped = model.speak([row(ids, 60), row(ids, 40)], lambda step: frozenset({0}) if step >= 9 else frozenset())
    assert [one.steps for one in stopped] == [10, 40]
    assert np.array_equal(stopped[1].pcm, full[1].pcm)


def test_the_sampler_keeps_what_chattts_keeps():
    import torch
    from ChatTTS.model.processors import gen_logits

    from chattts_server.engine.sampling import candidates

    generator = torch.Generator().manual_seed(1)
    for temperature, top_p, top_k in ((0.3, 0.7, 20), (1.0, 0.9, 50), (2.0, 1.0, 20), (0.1, 0.1, 1)):
        logits = torch.randn(32, 626, generator=generator) * 2
        made = torch.randint(0, 626, (32, 30), generator=generator)
        made[:, -4:] = made[:, -5:-4]  # repeated codes are punished by their count
        scores = logits / temperature
        warpers, processors = gen_logits(625, top_p, top_k, 1.05)
        for step in (*processors, *warpers):
            scores = step(made, scores)
        top, index = candidates(logits, made, Sampling(temperature, top_p, top_k))
        ours = torch.full_like(scores, -torch.inf).scatter_(1, index, top)
        torch.testing.assert_close(ours.softmax(-1), scores.softmax(-1), rtol=1e-4, atol=1e-6)


def test_what_may_not_reach_the_device_is_named(model, prompt):
    ids = prompt("好")
    assert model.problem(row(ids, 47)) is None
    for bad in (
        row([], 47), row([21178], 47), row([-1], 47), row([5] * 2000, 47), row(ids, 0), row(ids, 3000),
        row(ids, 47, embedding=b"\0" * 8), row(ids, 47, embedding=np.full(64, np.nan, "<f4").tobytes()),
    ):  # fmt: skip
        assert model.problem(bad)


def test_a_voice_is_encoded_as_chattts_does(chat, model):
    pcm = np.random.default_rng(1).normal(0, 0.1, 24000).astype(np.float32)
    codes = np.frombuffer(model.encode_voice(pcm), "<u2").reshape(4, -1)
    assert np.array_equal(codes, chat.dvae.sample_audio(pcm).numpy())


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


def test_torch_is_mapped_in_the_engine_only(server):
    def maps(pid):
        return Path(f"/proc/{pid}/maps").read_text()

    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert "libtorch" in maps(children[0])
    assert "libtorch" not in maps(server.process.pid)


def test_a_gpu_that_is_not_there_is_one_line_and_78(tiny, tmp_path, capfd, model):
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
