"""Pieces of a long text: nothing lost, nothing reordered, none too long, the first one short."""

import time

from hypothesis import given
from hypothesis import strategies as st

from chattts_server.text import splitter, tags
from chattts_server.text.normalizer import normalize
from chattts_server.text.splitter import (
    FIRST_SECONDS,
    PIECE_SECONDS,
    SHORT_SECONDS,
    pause_after,
    predicted_seconds,
    split,
)

SENTENCE = "今天天气很好，我们去公园玩。"
NORMALISED = st.lists(
    st.sampled_from([*"今天好一abZ ，。、,.", "[laugh]", "[uv_break]", "[break_4]", "hello ", "今天天气很好"]),
    max_size=400,
).map("".join)


def bare(text):
    return text.replace(" ", "")


@given(NORMALISED)
def test_pieces_are_the_text_in_its_order(text):
    assert bare("".join(split(text))) == bare(text)


@given(NORMALISED, st.floats(2.0, 20.0))
def test_no_piece_is_longer_than_a_row_carries(text, limit):
    assert all(predicted_seconds(piece) <= limit + SHORT_SECONDS for piece in split(text, limit))


@given(NORMALISED)
def test_a_tag_is_never_cut(text):
    for piece in split(text):
        assert "[" not in tags.without(piece)
        assert "]" not in tags.without(piece)


@given(st.text(max_size=400))
def test_what_was_normalised_can_be_split(text):
    spoken = normalize(text).text
    assert bare("".join(split(spoken))) == bare(spoken)


def test_sentences_stay_whole_and_fill_a_row():
    pieces = split(SENTENCE * 30)
    assert all(piece.endswith("。") for piece in pieces)
    assert all(predicted_seconds(piece) > PIECE_SECONDS / 2 for piece in pieces[1:-1])
    assert all(predicted_seconds(piece) <= PIECE_SECONDS for piece in split("好" * 500)[:-1])


def test_the_first_piece_of_a_long_text_is_its_first_sentence():
    assert split(SENTENCE * 10)[0] == SENTENCE
    long_sentence = "，".join(["今天天气很好"] * 12) + "。"
    first = split(long_sentence + SENTENCE)[0]
    assert SHORT_SECONDS <= predicted_seconds(first) <= FIRST_SECONDS
    assert first.endswith("，")
    assert split(SENTENCE + "好。") == [SENTENCE + "好。"]  # one row carries it: nothing is gained by two


def test_a_short_rest_joins_its_neighbour():
    texts = [SENTENCE * count + "好。" for count in range(1, 40)]
    assert all(predicted_seconds(piece) >= SHORT_SECONDS for text in texts for piece in split(text))


def test_pauses_follow_the_stop():
    assert pause_after("好。") == pause_after("Fine.[laugh]") == splitter.PAUSE_AFTER["。"]
    assert 0 < pause_after("好，") < pause_after("好。")
    assert pause_after("好") == 0.0


def test_splitting_is_linear():
    def seconds(text):
        began = time.process_time()
        split(text)
        return time.process_time() - began

    for motif in ("好", "a ", "。", "，", "[laugh]", SENTENCE, "a", " "):
        short, long = (min(seconds(motif * count) for _ in range(3)) for count in (1000, 4000))
        assert long < max(8 * short, 0.05), motif
