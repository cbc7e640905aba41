"""Numbers as Chinese and English words. Pure; knows no context."""

from __future__ import annotations

from functools import lru_cache

import num2words

from chattts_server.text.language import Language

DIGITS = "零一二三四五六七八九"
ENGLISH_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MAX_DIGITS = 12  # longer ones are ids: read digit by digit


def chinese(number: str) -> str:
    """'123.50' -> 一百二十三点五零. Digits one by one where the whole is an id: a leading zero, or too long."""
    whole, _, fraction = number.partition(".")
    read = chinese_digits(whole) if _is_id(whole) else chinese_integer(int(whole))
    return read + ("点" + chinese_digits(fraction) if fraction else "")


def chinese_digits(digits: str, one: str = "一") -> str:
    """`one`: 幺 in telephone numbers, where 一 is misheard as 七."""
    return "".join(DIGITS[int(digit)] for digit in digits).replace("一", one)


def spoken(number: str, language: Language) -> str:
    """A number with or without groups and sign: '-1,234.5'."""
    plain = number.replace(",", "")
    sign, plain = (plain[0], plain[1:]) if plain[0] in "+-" else ("", plain)
    if language == "zh":
        return {"-": "负", "+": "正", "": ""}[sign] + chinese(plain)
    return {"-": "minus ", "+": "plus ", "": ""}[sign] + english(plain)


def english(number: str) -> str:
    """'123.50' -> one hundred twenty three point five zero."""
    whole, _, fraction = number.partition(".")
    read = english_digits(whole) if _is_id(whole) else _english_words(int(whole), "cardinal")
    return read + (" point " + english_digits(fraction) if fraction else "")


def english_digits(digits: str) -> str:
    return " ".join(ENGLISH_DIGITS[int(digit)] for digit in digits)


def english_ordinal(value: int) -> str:
    return _english_words(value, "ordinal")


def english_year(year: int) -> str:
    """1999 -> nineteen ninety nine, 2005 -> two thousand five, 1906 -> nineteen oh six."""
    century, rest = divmod(year, 100)
    if century % 10 == 0 and rest < 10:
        return _english_words(year, "cardinal")
    if rest == 0:
        return _english_words(century, "cardinal") + " hundred"
    return _english_words(century, "cardinal") + (" oh " if rest < 10 else " ") + _english_words(rest, "cardinal")


def plural(word: str) -> str:
    """Of the last word of a number or unit: twenty -> twenties, inch -> inches."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def _is_id(whole: str) -> bool:
    return len(whole) > MAX_DIGITS or (len(whole) > 1 and whole.startswith("0"))


@lru_cache(maxsize=4096)
def _english_words(value: int, form: str) -> str:
    words: str = num2words.num2words(value, to=form)
    return words.replace(",", "").replace("-", " ").replace(" and ", " ")


def chinese_integer(value: int) -> str:
    """Up to 10^12. Two is 两 at the head of 千, 万 and 亿 and of a round 百: 2200 两千二百, 220 二百二十."""
    if value == 0:
        return DIGITS[0]
    groups: list[int] = []
    while value:
        value, low = divmod(value, 10_000)
        groups.append(low)
    read = ""
    for place in range(len(groups) - 1, -1, -1):
        group = groups[place]
        if group:
            gap = read and (group < 1000 or groups[place + 1] == 0)  # 10001 is 一万零一
            read += ("零" if gap and not read.endswith("零") else "") + _chinese_group(group) + ("", "万", "亿")[place]
    if read.startswith(("二千", "二万", "二亿")) or read in ("二百", "二百万", "二百亿"):
        read = "两" + read[1:]
    return read[1:] if read.startswith("一十") else read


def _chinese_group(group: int) -> str:
    read, zero = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = group // unit % 10
        if digit:
            read += ("零" if zero and read else "") + DIGITS[digit] + name
            zero = False
        else:
            zero = True
    return read
