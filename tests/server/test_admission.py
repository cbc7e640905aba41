"""Admission: pure, in audio seconds; time and noise are arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_server.admission import Admission, Throughput
from chattts_server.engine.nouns import StepReport


def admission(throughput=10.0, max_wait=3.0, held=()):
    made = Admission(max_wait, Throughput(rows=8, value=throughput))
    for seconds in held:
        made.enter(seconds)
    return made


def report(rows, audio, busy, waiting=0):
    return StepReport(rows, 47, busy, busy, audio, waiting, {})


def test_a_place_is_free_until_the_predicted_wait_is_too_long():
    assert admission(held=[30.0]).refusal(0.0, None, 0.0) is None
    refused = admission(held=[30.0, 1.0]).refusal(0.0, None, 0.0)
    assert refused is not None
    assert (refused.reason, refused.predicted_wait) == ("queue_full", pytest.approx(3.1))


def test_one_long_text_counts_like_many_short_ones():
    assert admission(held=[40.0]).refusal(0.0, None, 0.0) is not None
    assert admission(held=[1.0] * 29).refusal(0.0, None, 0.0) is None


def test_a_deadline_that_cannot_be_met_is_refused_at_once():
    assert admission(held=[20.0]).refusal(now=100.0, deadline=102.5, jitter=0.0) is None
    refused = admission(held=[20.0]).refusal(now=100.0, deadline=101.5, jitter=0.0)
    assert refused is not None
    assert refused.reason == "deadline"


def test_leaving_frees_the_place_once():
    made = admission()
    ticket = made.enter(40.0)
    assert made.refusal(0.0, None, 0.0) is not None
    made.leave(ticket)
    made.leave(ticket)
    assert (made.inflight, made.audio_seconds) == (0, 0)
    assert made.refusal(0.0, None, 0.0) is None


def test_a_place_comes_back_as_its_audio_is_made():
    made = admission()
    ticket = made.enter(40.0)
    assert made.refusal(0.0, None, 0.0) is not None
    made.made(ticket, 15.0)
    assert (made.inflight, made.audio_seconds) == (1, 25.0)
    assert made.refusal(0.0, None, 0.0) is None
    made.made(ticket, 26.0)  # it became longer than was predicted
    assert (made.inflight, made.audio_seconds) == (1, 0.0)
    made.leave(ticket)
    made.made(ticket, 1.0)
    assert (made.inflight, made.audio_seconds) == (0, 0)


@given(st.floats(3.01, 10_000), st.floats(0, 0.999))
def test_retry_after_is_a_whole_second_from_1_to_60(wait, jitter):
    refused = admission(throughput=1.0, held=[wait]).refusal(0.0, None, jitter)
    assert refused is not None
    assert 1 <= refused.retry_after <= 60
    assert isinstance(refused.retry_after, int)


def test_retry_after_grows_with_the_queue_and_is_spread():
    short, long = (admission(1.0, held=[held]).refusal(0.0, None, 0.0) for held in (4.0, 24.0))
    assert (short.retry_after, long.retry_after) == (1, 21)
    assert admission(1.0, held=[4.0]).refusal(0.0, None, 0.99).retry_after > 1


def test_full_batches_teach_and_others_only_upwards():
    throughput = Throughput(rows=8, value=10.0)
    throughput.learn(report(rows=1, audio=1.0, busy=0.5))  # 2 per second, because it was alone
    assert throughput.value == 10.0
    throughput.learn(report(rows=8, audio=8.0, busy=2.0))  # 4 per second, and full
    assert 4.0 < throughput.value < 10.0
    lower = throughput.value
    throughput.learn(report(rows=2, audio=20.0, busy=1.0))
    assert throughput.value > lower


def test_a_batch_that_left_rows_waiting_is_all_that_could_be_done():
    throughput = Throughput(rows=8, value=10.0)
    throughput.learn(report(rows=2, audio=2.0, busy=0.5, waiting=3))  # 4 per second
    assert 4.0 < throughput.value < 10.0


def test_it_converges_to_what_the_machine_does():
    throughput = Throughput(rows=8, value=100.0)
    for _ in range(100):
        throughput.learn(report(8, 8.0, 0.4))
    assert throughput.value == pytest.approx(20.0, rel=0.01)


def test_a_long_pass_of_the_vocoder_counts_as_long_as_it_took():
    """Steps alone look fast: 2.6 audio seconds in each second, and then 4 s in which nothing is decoded."""
    throughput = Throughput(rows=8, value=2.0)
    for _ in range(10):
        for _ in range(20):
            throughput.learn(report(8, 0.65, 0.25))
        throughput.learn(report(8, 0.0, 4.0))
    assert throughput.value < 2.0


def test_no_time_teaches_nothing():
    throughput = Throughput(rows=8, value=10.0)
    throughput.learn(report(8, 1.0, 0.0))
    assert throughput.value == 10.0
