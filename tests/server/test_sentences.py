"""Text in pieces: where it is cut, and that nothing of it is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_server.api.sentences import LONGEST_SENTENCE, MOST_AT_ONCE, Sentences


def taken(sentences):
    return list(iter(sentences.take, None))


def spoken(pieces, flush=True):
    sentences, said = Sentences(), []
    for piece in pieces:
        sentences.add(piece)
        said += taken(sentences)
    if flush:
        sentences.flush()
        said += taken(sentences)
    return said


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (["今天", "天气", "很好", "。我们", "出去"], ["今天天气很好。", "我们出去"]),
        (["It costs 3.", "14 euros. ", "Yes"], ["It costs 3.14 euros.", " Yes"]),
        (["Really?", "! ", "No"], ["Really?!", " No"]),
        (["他说：“好。”", "然后走了"], ["他说：“好。”", "然后走了"]),
        (["一。二。三。"], ["一。二。三。"]),  # what is complete together is spoken together
        (["first line\n", "second"], ["first line\n", "second"]),
        (["no end at all"], ["no end at all"]),
        (["好。", "”", "再见。"], ["好。", "”再见。"]),  # a mark alone is nothing to hear
    ],
)
def test_where_it_is_cut(pieces, said):
    assert spoken(pieces) == said


def test_an_unfinished_sentence_waits_for_its_end_or_a_flush():
    sentences = Sentences()
    sentences.add("天气很")
    assert (sentences.take(), sentences.characters) == (None, 3)
    sentences.flush()
    assert (sentences.take(), sentences.characters) == ("天气很", 0)


def test_stops_alone_are_never_an_utterance():
    sentences = Sentences()
    sentences.add("。。。 \n")
    sentences.flush()
    assert (sentences.take(), sentences.characters) == (None, 5)


def test_a_sentence_without_an_end_is_cut_at_a_pause():
    said = spoken(["一二三四，" * 100], flush=False)
    assert all(len(part) <= MOST_AT_ONCE and part.endswith("，") for part in said)
    assert sum(map(len, said)) >= 500 - LONGEST_SENTENCE
    assert [len(part) for part in spoken(["字" * 500])] == [LONGEST_SENTENCE, LONGEST_SENTENCE, 100]


def test_what_is_cleared_is_counted():
    sentences = Sentences()
    sentences.add("一。二")
    assert (sentences.clear(), sentences.characters) == (3, 0)
    sentences.add("三。")
    assert sentences.take() == "三。"


@given(st.lists(st.text("ab. 。\n，!”3", max_size=120), max_size=12))
def test_nothing_is_lost_and_the_order_stays(pieces):
    sentences, said = Sentences(), []
    for piece in pieces:
        sentences.add(piece)
        said += taken(sentences)
    sentences.flush()
    said += taken(sentences)
    text = "".join(pieces)
    left = len(text) - sum(map(len, said))
    assert sentences.characters == left
    assert text.startswith("".join(said))
    assert not any(character.isalnum() for character in text[len(text) - left :])
    assert all(len(part) <= MOST_AT_ONCE + len(text) for part in said)
