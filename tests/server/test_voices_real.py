"""Voice strings against ChatTTS itself, and a clone on the real engine, all on the random `tiny` checkpoint."""

import sys

import httpx
import numpy as np
import pytest

from chattts_server.text.tokens import PromptTokenizer
from chattts_server.voices.codec import decode, encode_clone, encode_embedding
from chattts_server.voices.reference import samples_of_file
from tests.server.recordings import recording
from tests.server.test_process import Server

pytestmark = pytest.mark.engine


def test_chattts_speakers_are_voices_and_ours_are_its(chat):
    theirs = chat.sample_random_speaker()
    speaker = decode(theirs, 64)
    assert speaker.voice.embedding == chat.speaker._decode(theirs).astype("<f4").tobytes()
    assert (chat.speaker._decode(encode_embedding(speaker.voice.embedding)) == chat.speaker._decode(theirs)).all()


def test_chattts_recordings_are_voices_and_ours_are_its(chat):
    samples = samples_of_file(recording(4))
    theirs = chat.sample_audio_speaker(samples.copy())
    codes = chat.speaker.decode_prompt(theirs).numpy()
    speaker = decode(theirs, 64)
    assert (np.frombuffer(speaker.voice.codes, "<u2").reshape(4, -1) == codes).all()
    ours = encode_clone(speaker.voice.codes, "参考").rpartition(":")[2]
    assert (chat.speaker.decode_prompt(ours).numpy() == codes).all()


def test_the_prompt_of_a_clone_is_chattts_own(chat, tiny):
    [layout] = chat.speaker.decorate_code_prompts(["今天天气很好"], "[speed_5]", "参考", None)
    expected = chat.tokenizer.encode([layout], 4)[0][0, :, 0].tolist()
    assert PromptTokenizer(tiny).prompt("今天天气很好", reference="参考") == expected
    assert PromptTokenizer(tiny).prompt("今天天气很好") != expected


def test_r07_a_clone_is_made_and_heard_and_leaves_others_as_they_were(tiny, tmp_path):
    process = Server(
        [sys.executable, "-m", "chattts_server", "serve"],
        CHATTTS_MODEL=str(tiny), CHATTTS_MAX_BATCH_SIZE="4", CHATTTS_VOICES=str(tmp_path),
    )  # fmt: skip
    try:
        process.line("engine ready", 90)

        def sound(**fields):
            answer = process.post(text="今天天气很好", max_seconds=0.5, seed=3, **fields)
            assert answer.status_code == 200, answer.text
            return answer.content

        before = sound()
        for seconds, name in ((2, "anna"), (15, "long")):
            made = httpx.post(
                f"{process.url}/v1/audio/voices", data={"name": name, "transcript": "你好世界"},
                files={"audio": recording(seconds, "mp3" if seconds < 15 else "wav")}, timeout=60,
            )  # fmt: skip
            assert made.status_code == 201, made.text
        cloned = sound(voice="anna")
        assert cloned == sound(voice="anna") != before
        assert sound(voice=(tmp_path / "anna").read_text().strip()) == cloned
        assert sound(voice="long") not in (before, cloned)
        assert sound(voice="seed:5") not in (before, cloned)
        assert sound() == before
    finally:
        process.end()
