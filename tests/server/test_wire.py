"""The border: every message survives the way through the socket, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_server.engine import wire
from chattts_server.engine.nouns import (
    PROTOCOL,
    Cancel,
    Chunk,
    Credit,
    Drain,
    EncodedVoice,
    EncodeVoice,
    Fail,
    Finish,
    Heartbeat,
    Hello,
    Limits,
    Phase,
    Sampling,
    StepReport,
    Submit,
    Voice,
    samples_of,
    steps_for,
)

TO_ENGINE = [
    Submit(1, [21131, 5, 21132], Voice(b"\0" * 8), Sampling(0.3, 0.7, 20, 1.05, seed=4), Limits(47), 12.5, 24000),
    Submit(2, [1], Voice(codes=b"\1\0" * 4), Sampling(), Limits(9, 2), None, 0),
    Credit(1, 24000),
    Cancel(1),
    EncodeVoice(3, b"\0\0\0\0"),
    Drain(),
]
FROM_ENGINE = [
    Phase("load", 1.5),
    Hello(PROTOCOL, 8, 2048, 1024, 24000, "cpu", "float32", "own", False, 20.0, b"\0" * 4, b"\0" * 4),
    Chunk(1, 0, b"\0" * 16),
    Finish(1, "limit", 0, 47, 0.25),
    Fail(1, "deadline", "its deadline passed"),
    EncodedVoice(3, b"\1\0"),
    StepReport(8, 47, 0.2, 0.25, 7.9, 3, {"resident": 5}),
    Heartbeat(3.5),
]


@pytest.mark.parametrize("message", TO_ENGINE, ids=lambda m: type(m).__name__)
def test_a_message_to_the_engine_comes_out_as_it_went_in(message):
    assert wire.Unpacker(wire.to_engine).feed(wire.pack(message)) == [message]


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda m: type(m).__name__)
def test_a_message_from_the_engine_comes_out_as_it_went_in(message):
    assert wire.Unpacker(wire.from_engine).feed(wire.pack(message)) == [message]


@given(st.integers(1, 7))
def test_messages_may_be_cut_anywhere(size):
    stream = b"".join(wire.pack(message) for message in TO_ENGINE)
    unpacker = wire.Unpacker(wire.to_engine)
    out = [m for start in range(0, len(stream), size) for m in unpacker.feed(stream[start : start + size])]
    assert out == TO_ENGINE


def test_a_message_of_the_other_direction_is_refused():
    with pytest.raises(wire.WireError, match="not a message of this protocol"):
        wire.Unpacker(wire.to_engine).feed(wire.pack(Heartbeat(1.0)))


def test_a_huge_frame_is_refused_by_its_length_alone():
    with pytest.raises(wire.WireError, match="over the limit"):
        wire.Unpacker(wire.to_engine).feed(b"\xff\xff\xff\xff")


def test_one_second_is_47_steps():
    assert steps_for(1) == 47
    assert samples_of(47) == 23808
    assert steps_for(0.64) == 30  # 30.000000000000004 in floats
    assert steps_for(0.0001) == 1
