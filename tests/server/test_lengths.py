"""How long a text will sound: learned per language, and never trusted beyond its bounds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_server.text.lengths import LARGEST_FACTOR, SMALLEST_FACTOR, Lengths, language_of
from chattts_server.text.splitter import predicted_seconds

CHINESE, ENGLISH = "今天天气很好我们去公园。", "The weather is fine today."


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (CHINESE, "chinese"),
        (ENGLISH, "other"),
        ("这个 app 很好", "chinese"),
        ("", "chinese"),
        ("OK 好 of course", "other"),
    ],
)
def test_a_text_is_of_the_language_of_most_of_its_letters(text, language):
    assert language_of(text) == language


def test_the_guess_stands_until_something_was_heard():
    assert Lengths().seconds(CHINESE) == predicted_seconds(CHINESE)


def test_each_language_is_learned_by_itself_and_single_rows_are_smoothed():
    lengths, noise = Lengths(), random.Random(1)
    for _ in range(300):
        lengths.learn(CHINESE, 1.5 * predicted_seconds(CHINESE) * noise.uniform(0.6, 1.4), ended=True)
    assert lengths.factor("chinese") == pytest.approx(1.5, rel=0.1)
    assert lengths.factor("other") == 1.0
    before = lengths.factor("chinese")
    lengths.learn(CHINESE, 100.0, ended=True)
    assert lengths.factor("chinese") == pytest.approx(before, rel=0.02)


def test_another_voice_is_learned_within_minutes_of_speech():
    lengths = Lengths()
    for factor in (1.5, 0.7):
        for _ in range(1500):
            lengths.learn(ENGLISH, factor * predicted_seconds(ENGLISH), ended=True)
        assert lengths.factor("other") == pytest.approx(factor, rel=0.1)


def test_a_row_that_was_stopped_says_only_that_it_was_not_shorter():
    lengths, guess = Lengths(), predicted_seconds(CHINESE)
    for _ in range(500):
        lengths.learn(CHINESE, 0.3 * guess, ended=False)
    assert lengths.factor("chinese") == 1.0
    for _ in range(500):
        lengths.learn(CHINESE, 1.8 * guess, ended=False)
    assert lengths.factor("chinese") > 1.5


@given(st.lists(st.floats(0, 1e6), max_size=300))
def test_nothing_that_is_heard_takes_it_out_of_its_bounds(heard):
    lengths = Lengths()
    for seconds in heard:
        lengths.learn(ENGLISH, seconds, ended=True)
    assert SMALLEST_FACTOR <= lengths.factor("other") <= LARGEST_FACTOR
