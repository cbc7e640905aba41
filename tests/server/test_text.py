"""Text: no digit and no word vanishes in silence."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chattts_server.text.normalizer import TAGS, is_readable, normalize
from chattts_server.text.numbers import chinese, english
from chattts_server.text.splitter import PIECE_SECONDS, predicted_seconds, split

READINGS = [
    ("价格是123元", "价格是一百二十三元"),
    ("¥99.5", "ninety nine point five yuan"),
    ("只要¥99.5", "只要九十九点五元"),
    ("涨了3.5%", "涨了百分之三点五"),
    ("2026年1月2日", "二零二六年一月二日"),
    ("１２３号", "一百二十三号"),
    ("It costs $1,234.50", "It costs one thousand two hundred thirty four point five zero dollars"),
    ("up 15%!", "up fifteen percent ."),
    ("Really? Yes; (no)", "Really. Yes, ,no,"),
    ("真的吗？好！", "真的吗。好。"),
    ("你好[laugh]世界[uv_break]", "你好[laugh]世界[uv_break]"),
    ("[Ptts]ok", ",Ptts,ok"),
    ("电话010", "电话零一零"),
    ("A&B", "A and B"),
]


@pytest.mark.parametrize(("written", "read"), READINGS)
def test_reading(written, read):
    assert normalize(written).text == read
    assert normalize(written).dropped == 0


@pytest.mark.parametrize(
    ("number", "read"),
    [
        ("0", "零"), ("10", "十"), ("15", "十五"), ("110", "一百一十"), ("1001", "一千零一"), ("10001", "一万零一"),
        ("100200", "十万零二百"), ("20000000", "二千万"), ("100000001", "一亿零一"), ("1000000000", "十亿"),
        ("1050", "一千零五十"), ("100010000", "一亿零一万"), ("007", "零零七"),
        ("1234567890123", "一二三四五六七八九零一二三"),
    ],
)  # fmt: skip
def test_chinese_numbers(number, read):
    assert chinese(number) == read


@pytest.mark.parametrize(
    ("number", "read"),
    [
        ("0", "zero"), ("13", "thirteen"), ("21", "twenty one"), ("100", "one hundred"), ("1000", "one thousand"),
        ("1000001", "one million one"), ("3.14", "three point one four"), ("00", "zero zero"),
    ],
)  # fmt: skip
def test_english_numbers(number, read):
    assert english(number) == read


def test_what_cannot_be_read_is_counted():
    assert normalize("好😀한").dropped == 2
    assert not is_readable(normalize("😀！[laugh]").text)
    assert is_readable(normalize("7").text)


@given(st.text(max_size=200))
def test_only_what_the_model_can_read_comes_out(text):
    spoken = normalize(text).text
    for tag in TAGS:
        spoken = spoken.replace(tag, "")
    assert re.fullmatch(r"[\u4e00-\u9fffA-Za-z，。、,. ]*", spoken)


@given(st.text(alphabet="今天一3 a.。，,b[laugh]7", max_size=400))
def test_pieces_keep_every_character_in_order(text):
    spoken = normalize(text).text
    joined = "".join(split(spoken))
    assert joined.replace(" ", "") == spoken.replace(" ", "")


def test_pieces_fit_and_sentences_stay_whole():
    pieces = split("今天天气很好。" * 30)
    assert all(predicted_seconds(piece) <= PIECE_SECONDS for piece in pieces)
    assert all(piece.endswith("。") for piece in pieces)
    assert all(predicted_seconds(piece) <= PIECE_SECONDS for piece in split("好" * 500))


def test_ten_thousand_characters_are_read_in_no_time():
    began = time.process_time()
    normalize("第12章，花了¥3.5，[[[" * 800)
    assert time.process_time() - began < 1.0  # under 100 ms per 1,000 characters, with a factor for slow machines
