"""Recordings as people send them: a tone in whatever container, made by PyAV."""

import io

import av
import numpy as np

CODECS = {"wav": "pcm_s16le", "mp3": "libmp3lame", "flac": "flac", "ogg": "libopus", "webm": "libopus", "mp4": "aac"}


def recording(seconds=3.0, kind="wav", rate=48000, volume=0.3, layout="stereo"):
    out = io.BytesIO()
    tone = (volume * np.sin(np.arange(int(seconds * rate)) * 0.06)).astype(np.float32)
    channels = 2 if layout == "stereo" else 1
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(CODECS[kind], rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.stack([tone] * channels), format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or None)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return out.getvalue()
