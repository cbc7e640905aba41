"""Another speed at the same pitch, and another sample rate, by ffmpeg's filters, piece by piece. Knows no format."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

from chattts_server.engine.nouns import SAMPLE_RATE

# The filters see blocks of this size however the engine has cut its audio: so a stream has the samples of the whole.
BLOCK_SAMPLES = 1024
SLOWEST_OF_ONE_FILTER = 0.5  # of ffmpeg's atempo


class Stretch:
    """24 kHz in, `rate` out, `speed` times as fast."""

    def __init__(self, speed: float, rate: int) -> None:
        self._graph = _graph(speed, rate)
        self._waiting = np.empty(0, np.float32)
        self._pushed = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        self._waiting = np.concatenate([self._waiting, samples])
        ready = len(self._waiting) - len(self._waiting) % BLOCK_SAMPLES
        for start in range(0, ready, BLOCK_SAMPLES):
            self._feed(self._waiting[start : start + BLOCK_SAMPLES])
        self._waiting = self._waiting[ready:]
        return self._pull()

    def finish(self) -> np.ndarray:
        if len(self._waiting):
            self._feed(self._waiting)
        self._graph.push(None)
        return self._pull()

    def _feed(self, block: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._pushed
        self._pushed += len(block)
        self._graph.push(frame)

    def _pull(self) -> np.ndarray:
        pieces = [np.empty(0, np.float32)]
        while True:
            try:
                pieces.append(self._graph.pull().to_ndarray()[0])
            except (av.error.BlockingIOError, av.error.EOFError):
                return np.concatenate(pieces)


def _graph(speed: float, rate: int) -> Graph:
    graph = Graph()
    time_base = Fraction(1, SAMPLE_RATE)
    nodes = [graph.add_abuffer(sample_rate=SAMPLE_RATE, format="flt", layout="mono", time_base=time_base)]
    while speed < SLOWEST_OF_ONE_FILTER:
        nodes.append(graph.add("atempo", str(SLOWEST_OF_ONE_FILTER)))
        speed /= SLOWEST_OF_ONE_FILTER
    if speed != 1.0:
        nodes.append(graph.add("atempo", f"{speed:.9f}"))
    if rate != SAMPLE_RATE:
        nodes.append(graph.add("aresample", str(rate)))
    nodes += [graph.add("aformat", "sample_fmts=flt:channel_layouts=mono"), graph.add("abuffersink")]
    graph.link_nodes(*nodes).configure()
    return graph
