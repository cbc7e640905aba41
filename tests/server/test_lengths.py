"""How long a text will sound: learned per language, and never trusted beyond its bounds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_server.text.lengths import LARGEST_FACTOR, SMALLEST_FACTOR, Lengths
from chattts_server.text.splitter import predicted_seconds

CHINESE, ENGLISH = "今天天气很好我们去公园。", "The weather is fine today."


def test_the_guess_stands_until_something_was_heard():
    assert Lengths().seconds(CHINESE, "zh") == predicted_seconds(CHINESE)


def test_each_language_is_learned_by_itself_and_single_rows_are_smoothed():
    lengths, noise = Lengths(), random.Random(1)
    for _ in range(300):
        lengths.learn(CHINESE, "zh", 1.5 * predicted_seconds(CHINESE) * noise.uniform(0.6, 1.4), ended=True)
    assert lengths.factor("zh") == pytest.approx(1.5, rel=0.1)
    assert lengths.factor("en") == 1.0
    before = lengths.factor("zh")
    lengths.learn(CHINESE, "zh", 100.0, ended=True)
    assert lengths.factor("zh") == pytest.approx(before, rel=0.02)


def test_another_voice_is_learned_within_minutes_of_speech():
    lengths = Lengths()
    for factor in (1.5, 0.7):
        for _ in range(1500):
            lengths.learn(ENGLISH, "en", factor * predicted_seconds(ENGLISH), ended=True)
        assert lengths.factor("en") == pytest.approx(factor, rel=0.1)


def test_a_row_that_was_stopped_says_only_that_it_was_not_shorter():
    lengths, guess = Lengths(), predicted_seconds(CHINESE)
    for _ in range(500):
        lengths.learn(CHINESE, "zh", 0.3 * guess, ended=False)
    assert lengths.factor("zh") == 1.0
    for _ in range(500):
        lengths.learn(CHINESE, "zh", 1.8 * guess, ended=False)
    assert lengths.factor("zh") > 1.5


@given(st.lists(st.floats(0, 1e6), max_size=300))
def test_nothing_that_is_heard_takes_it_out_of_its_bounds(heard):
    lengths = Lengths()
    for seconds in heard:
        lengths.learn(ENGLISH, "en", seconds, ended=True)
    assert SMALLEST_FACTOR <= lengths.factor("en") <= LARGEST_FACTOR
