"""Admission: pure, in audio seconds; time and noise are arguments."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chattts_server.admission import Admission, Ask, Refusal, Throughput
from chattts_server.appointments import Appointments
from chattts_server.budget import Budget
from chattts_server.engine.nouns import StepReport

NUMBERS = itertools.count(1000)


def admission(throughput=10.0, max_wait=3.0, held=(), **kinds):
    made = Admission(max_wait, Throughput(rows=8, value=throughput), **kinds)
    for number, seconds in enumerate(held):
        made._enter(Ask(seconds, fingerprint=-number), 0.0)
    return made


def refusal(made, now=0.0, jitter=0.0, seconds=1.0, **asked):
    """Each ask is another request, unless it says which."""
    asked.setdefault("fingerprint", next(NUMBERS))
    answer = made.admit(now, Ask(seconds, **asked), jitter)
    return answer if isinstance(answer, Refusal) else None


def report(rows, audio, busy, waiting=0):
    return StepReport(rows, 47, busy, busy, audio, waiting, {})


def test_a_place_is_free_until_the_predicted_wait_is_too_long():
    assert refusal(admission(held=[30.0])) is None
    refused = refusal(admission(held=[30.0, 1.0]))
    assert refused is not None
    assert (refused.reason, refused.predicted_wait) == ("queue_full", pytest.approx(3.1))


def test_one_long_text_counts_like_many_short_ones():
    assert refusal(admission(held=[40.0])) is not None
    assert refusal(admission(held=[1.0] * 29)) is None


def test_a_deadline_that_cannot_be_met_is_refused_at_once():
    assert refusal(admission(held=[20.0]), now=100.0, deadline=102.5) is None
    refused = refusal(admission(held=[20.0]), now=100.0, deadline=101.5)
    assert refused is not None
    assert refused.reason == "deadline"


def test_what_is_wanted_whole_must_be_made_before_its_deadline():
    """10 audio seconds a second: 50 s of audio take 5 s, and a stream of them begins at once."""
    assert refusal(admission(), seconds=50.0, deadline=4.0) is None
    never = refusal(admission(), seconds=50.0, deadline=4.0, whole=True)
    assert never == Refusal("too_long", 5.0, None)
    assert refusal(admission(), seconds=50.0, deadline=6.0, whole=True) is None
    later = refusal(admission(held=[20.0]), seconds=50.0, deadline=6.0, whole=True)  # now there are 2 s of others
    assert later is not None
    assert (later.reason, later.retry_after) == ("deadline", 1)


def test_leaving_frees_the_place_once():
    made = admission()
    ticket = made.admit(0.0, Ask(40.0), 0.0)
    assert refusal(made) is not None
    made.leave(ticket, 0.0)
    made.leave(ticket, 0.0)
    assert (made.inflight, made.audio_seconds) == (0, 0)
    assert refusal(made, now=20.0) is None


def test_a_place_comes_back_as_its_audio_is_made():
    made = admission()
    ticket = made.admit(0.0, Ask(40.0), 0.0)
    assert refusal(made) is not None
    made.made(ticket, 15.0, 15.0)
    assert (made.inflight, made.audio_seconds) == (1, 25.0)
    made.made(ticket, 26.0, 26.0)  # it became longer than was predicted
    assert (made.inflight, made.audio_seconds) == (1, 0.0)
    made.leave(ticket, 0.0)
    made.made(ticket, 1.0, 1.0)
    assert (made.inflight, made.audio_seconds) == (0, 0)


@given(st.floats(3.01, 10_000), st.floats(0, 0.999))
def test_retry_after_is_a_whole_second_from_1_to_60(wait, jitter):
    refused = refusal(admission(throughput=1.0, held=[wait]), jitter=jitter)
    assert refused is not None
    assert 1 <= refused.retry_after <= 60
    assert isinstance(refused.retry_after, int)


def test_retry_after_grows_with_the_queue_and_is_spread():
    short, long = (refusal(admission(1.0, held=[held])) for held in (4.0, 24.0))
    assert (short.retry_after, long.retry_after) == (1, 21)
    assert refusal(admission(1.0, held=[4.0]), jitter=0.99).retry_after > 1


def test_each_refused_request_has_a_later_appointment_and_newcomers_leave_room_for_it():
    made = admission(throughput=1.0, held=[4.0])
    told = [refusal(made, fingerprint=number, seconds=2.0).retry_after for number in range(4)]
    assert told == [1, 3, 5, 7]  # 2 audio seconds each, at 90 % of the throughput
    made.leave(1, 1.0)
    made.admit(1.0, Ask(2.0, fingerprint=-1), 0.0)
    assert refusal(made, now=1.0, fingerprint=99) is not None  # a newcomer: 2 s of wait are too much now
    assert refusal(made, now=1.0, fingerprint=0) is None  # who was told so is let in
    assert refusal(made, now=1.5, fingerprint=1) is not None  # too early


def test_a_line_that_is_longer_than_can_be_told_is_kept():
    made = admission(throughput=1.0, held=[4.0])
    told = [refusal(made, fingerprint=number, seconds=30.0).retry_after for number in range(4)]
    assert told == [1, 34, 60, 60]
    again = refusal(made, now=60.0, fingerprint=3, seconds=30.0)
    assert again.retry_after == 40  # its place in the line is at 100 s
    made.leave(1, 99.0)
    assert refusal(made, now=100.5, fingerprint=3, seconds=30.0) is None


def test_appointments_that_are_missed_are_forgotten():
    book = Appointments()
    for number in range(100):
        book.book("", number, 1.0, now=0.0, free_in=0.0, rate=10.0, jitter=0.5)
    assert len(book) == 100
    assert book.kept("", 5, now=30.0) is None
    assert (len(book), book.expected_audio_seconds(30.0, 3.0)) == (0, 0.0)
    assert book.show < 0.2
    assert (book._by_fingerprint, book._by_time, book._lines) == ({}, [], {})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.floats(0.1, 30), st.floats(0, 5)), max_size=60))
def test_the_book_is_bounded_and_adds_up(requests):
    book, now = Appointments(), 0.0
    for caller, fingerprint, seconds, pause in requests:
        now += pause
        if (entry := book.kept(caller, fingerprint, now)) is not None:
            book.close(entry)
        else:
            assert 1 <= book.book(caller, fingerprint, seconds, now, 0.0, 2.0, 0.3) <= 60
        left = [entry for entries in book._by_fingerprint.values() for entry in entries]
        assert sum(book._seconds.values()) == pytest.approx(sum(entry.audio_seconds for entry in left))
        assert len(book) == len(left)
        assert 0.0 <= book.show <= 1.0


def test_a_caller_waits_for_others_as_far_as_it_has_as_much_itself():
    made = admission()
    made._enter(Ask(30.0, caller="flood"), 0.0)
    made._enter(Ask(5.0, caller="steady"), 0.0)
    assert (made.predicted_wait("flood"), made.predicted_wait("steady"), made.predicted_wait("new")) == (3.5, 1.0, 0.0)
    assert refusal(made, caller="flood") is not None
    assert refusal(made, caller="new") is None


def test_all_callers_together_are_bounded_too():
    made = admission(max_wait=1.0)
    for number in range(100):
        made.admit(0.0, Ask(8.0, caller=str(number), fingerprint=number), 0.0)
    assert made.audio_seconds <= 3 * 10.0 + 8.0


# The budget of a key


def test_a_key_spends_a_minute_of_its_budget_and_waits_for_more():
    made = admission(budget=Budget(60.0))
    ticket = made.admit(0.0, Ask(50.0, "a"), 0.0)
    assert isinstance(ticket, int)
    made.made(ticket, 50.0, 50.0)
    made.leave(ticket, 5.0)
    poor = made.admit(5.0, Ask(30.0, "a"), 0.0)
    assert isinstance(poor, Refusal)
    assert (poor.reason, poor.retry_after) == ("budget", 15)  # 15 are left, one more each second
    assert isinstance(made.admit(5.0, Ask(30.0, "b"), 0.0), int)
    assert isinstance(made.admit(20.0, Ask(30.0, "a", 7), 0.0), int)


def test_what_was_not_made_is_given_back():
    made = admission(budget=Budget(60.0))
    made.leave(made.admit(0.0, Ask(60.0, "a"), 0.0), 0.0)
    assert isinstance(made.admit(0.0, Ask(60.0, "a"), 0.0), int)


def test_a_text_longer_than_a_minute_can_still_be_asked_for():
    made = admission(budget=Budget(60.0), max_wait=100.0)
    assert isinstance(made.admit(0.0, Ask(200.0, "a"), 0.0), int)
    assert isinstance(made.admit(60.0, Ask(1.0, "a"), 0.0), Refusal)  # it is in debt


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
