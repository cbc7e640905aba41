"""What strangers send as a recording: every container that browsers make is read, everything else is one line."""

import sys

import numpy as np
import pytest

from chattts_server.voices.reference import BadRecording, decode_recording, samples_of_file
from tests.server.recordings import CODECS, recording


@pytest.mark.parametrize("kind", CODECS)
def test_every_container_becomes_24_khz_mono(kind):
    samples = samples_of_file(recording(3, kind))
    assert len(samples) == pytest.approx(72000, rel=0.03)
    assert 0.2 < np.abs(samples).max() < 0.5
    assert samples.dtype == np.float32


def playlist(tmp_path):
    """A file that names another: read, it would make the server fetch what a stranger points at."""
    target = tmp_path / "secret.wav"
    target.write_bytes(recording(3))
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{target}\n#EXT-X-ENDLIST\n".encode()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda _: b"", "damaged"),
        (lambda _: b"hello" * 1000, "damaged"),
        (lambda _: recording(3, "mp4")[:400], "damaged"),
        (playlist, "damaged"),
        (lambda path: f"ffconcat version 1.0\nfile {path}/secret.wav\n".encode(), "damaged"),
        (lambda _: recording(0.5), "shorter than 1 second"),
        (lambda _: recording(15.5), "longer than 15 seconds"),
        (lambda _: recording(3, volume=0.0), "silent"),
    ],
)
def test_what_is_no_recording_is_said_in_one_line(tmp_path, what, words):
    with pytest.raises(BadRecording, match=words) as caught:
        samples_of_file(what(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


async def test_the_process_beside_says_the_same():
    data = recording(2, "mp3")
    assert np.array_equal(np.frombuffer(await decode_recording(data), "<f4"), samples_of_file(data))
    with pytest.raises(BadRecording, match="longer than 15 seconds"):
        await decode_recording(recording(20))


@pytest.mark.engine
async def test_ten_minutes_of_silence_in_a_small_file_are_not_decoded():
    """They are 100 kB of opus and 58 MB of samples; no more than 15 s are made."""
    data = recording(600, "ogg", volume=0.0, layout="mono")
    assert len(data) < 1e6
    with pytest.raises(BadRecording, match="longer than 15 seconds"):
        await decode_recording(data)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "cannot be decoded"),
        ("import sys; sys.stdin.buffer.read(); import os; os.kill(os.getpid(), 11)", "cannot be decoded"),
        ("raise MemoryError", "cannot be decoded"),
        ("import time; time.sleep(60)", "takes too long"),
    ],
)
async def test_a_file_that_ends_its_decoder_is_one_line_for_its_sender(code, words):
    with pytest.raises(BadRecording, match=words):
        await decode_recording(bytes(1 << 20), command=(sys.executable, "-c", code), seconds=1.0)


async def test_the_decoder_has_little_memory():
    hungry = "import sys; sys.argv[1:] = []; from chattts_server.voices import reference as r; "
    hungry += "r.samples_of_file = lambda data: bytes(2 << 30); sys.exit(r.main())"
    with pytest.raises(BadRecording, match="cannot be decoded"):
        await decode_recording(recording(2), command=(sys.executable, "-c", hungry))
