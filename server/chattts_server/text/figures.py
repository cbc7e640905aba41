"""What is left of numbers: versions, fractions, ratios, ranges, powers, ordinals, plain ones. Pure; the last digits."""

from __future__ import annotations

import re

from chattts_server.text.language import HAN, Language
from chattts_server.text.numbers import (
    chinese_digits,
    english_digits,
    english_ordinal,
    plural,
    spoken,
)
from chattts_server.text.units import takes_liang

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_SMALL = r"\d{1,6}(?:\.\d{1,4})?"
_GROUPED = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_DOTTED = re.compile(r"(?<![\d.])(?:\d{1,9}\.){2,6}\d{1,9}(?![\d.]*\d)")
_MIXED = re.compile(r"(?<![\d./])(\d{1,3}) (\d{1,2})/(\d{1,2})(?![\d/]|\.\d)")
_FRACTION = re.compile(r"(?<![\d./])(\d{1,5})/(\d{1,5})(?![\d/]|\.\d)")
_ROUND_THE_CLOCK = re.compile(r"(?<![\d/.])(24)/(7)(?![\d/]|\.\d)")
_RATIO = re.compile(rf"(?<![\d.:])({_SMALL}) ?[:：] ?({_SMALL})(?: ?[:：] ?({_SMALL}))?(?![\d:]|\.\d)")
_SCORE = re.compile(
    r"(?:(?<=比分)|(?<=以)|(?<=比分是)|(?<=比分为)|(?<=总分)) ?(\d{1,3})[-–—](\d{1,3})(?![\d-])"
    r"|(?<![\d.-])(\d{1,3})[-–—](\d{1,3})"
    r"(?= ?(?:获胜|击败|战胜|战平|逆转|大胜|险胜|落败|取胜|平局|领先|负于|完胜|横扫))"
)
_PLAIN_SCORE = re.compile(r"(?<![\d.A-Za-z-])(\d)[-–](\d)(?![\d-]|\.\d| ?[=A-Za-z])")  # 1-0; 3-5 is a range
_CHAIN = re.compile(r"(?<![\d.-])\d{1,6}(?:-\d{1,6}){2,6}(?![\d-])")
_RANGE = re.compile(rf"(?<![\d.A-Za-z)-])({_NUMBER}) ?(?:[-–—~]+|至|到) ?({_NUMBER})(?![\d-]|[.,]\d)")
_SUM = re.compile(r"(?<=\d)(?: ?- ?|-)(?=\d+(?:\.\d+)? ?(?:=|等于))|(?<=\d) - (?=\d)")
_TIMES = re.compile(r"(?<=\d) ?[xX*×] ?(?=\d)")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z0-9.])(\d{1,12}(?:\.\d{1,12})?)[eE]([-+]?)(\d{1,3})(?![A-Za-z0-9]|\.\d)")
_POWER = re.compile(r"(?<=[A-Za-z\d)])\^(-?)(\d{1,3})(?!\d)")
_ENGLISH_ORDINAL = re.compile(r"(?<![\w.,])(\d{1,9})(?:st|nd|rd|th)\b")
_NUMERO = re.compile(r"\b[Nn][Oo]\.? ?(?=\d)|(?<![\w#])#(?=\d)")
_HASH = re.compile(r"(?<![\w#])#(\d{1,9})号?(?!\d)")
_POSITIVE = re.compile(r"(?<![\w)=])\+(?=\d)")
_NEGATIVE = re.compile(rf"(?<![\w)=.])-(?=\d)|(?<=[=(]) ?-(?=\d)|(?<=[{HAN}])-(?=\d)")
_LETTERED_RANGE = re.compile(r"(?<=\d) ?[-–—~] ?(?=[A-Z]\d)")  # P45-P67
_ABOUT = re.compile(r"(?<![\w)])[~≈] ?(?=\d)")
_TIMES_AS = re.compile(r"(?<=\d)[xX](?![A-Za-z\d+=*/^-])")
_METRES = re.compile(r"(?<=\d[米秒])(\d{2})(?![\d分]|\.\d)")  # 1米65, 9秒58
_PAGE = re.compile(r"第(\d{1,5})/(\d{1,5})(?=[页章集课题])")
_LETTER_DASH = re.compile(r"(?<=[A-Za-z])-(?=\d)|(?<=\d)-(?=[A-Za-z])")
_TEN_THOUSAND = re.compile(r"(?<=\d)[wW](?=[\s，。！？+多人块元粉个]|$)")
_VERSION = re.compile(r"\b([vV])(?:er)?\.? ?(?=\d)")
_DECADES = re.compile(r"(?<![\d,.])(\d{2,7})s\b")
_PLAIN = re.compile(r"(?P<number>\d+(?:\.\d+)?)")


def read_figures(text: str, language: Language) -> str:
    text = _HASH.sub(r"\1号", text) if language == "zh" else text
    text = _NUMERO.sub("第" if language == "zh" else " number ", text)
    text = _GROUPED.sub(lambda match: match.group().replace(",", ""), text)
    text = _VERSION.sub(lambda match: f"{match[1]}" if language == "zh" else f"{match[1]} ", text)
    return _chinese(text) if language == "zh" else _english(text)


def _chinese(text: str) -> str:
    text = _METRES.sub(lambda match: chinese_digits(match[1]), _TEN_THOUSAND.sub("万", text))
    text = _PAGE.sub(lambda match: f"第{match[1]}{match.string[match.end()]}，共{match[2]}", text)
    text = _TIMES_AS.sub("倍", _LETTERED_RANGE.sub("到", _ABOUT.sub("约", text)))
    text = _DOTTED.sub(lambda match: "点".join(_component(part) for part in match.group().split(".")), text)
    text = _MIXED.sub(lambda match: f"{_say(match[1])}又{_say(match[3])}分之{_say(match[2])}", text)
    text = _ROUND_THE_CLOCK.sub("二十四乘七", text)
    text = _FRACTION.sub(lambda match: f"{_say(match[2])}分之{_say(match[1])}", text)
    text = _SCIENTIFIC.sub(
        lambda match: f"{_say(match[1])}乘以十的{'负' if match[2] == '-' else ''}{_say(match[3])}次方", text
    )
    text = _RATIO.sub(lambda match: "比".join(_say(part) for part in match.groups() if part), text)
    text = _SCORE.sub(lambda match: "比".join(_say(part) for part in match.groups() if part), text)
    text = _CHAIN.sub(lambda match: "杠".join(_component(part) for part in match.group().split("-")), text)
    text = _PLAIN_SCORE.sub(lambda match: f"{match[1]}{'比' if match[1] >= match[2] else '-'}{match[2]}", text)
    text = _SUM.sub("减", text)
    text = _RANGE.sub(_chinese_range, text)
    text = _TIMES.sub("乘", text)
    text = _POWER.sub(_chinese_power, text)
    text = _NEGATIVE.sub("负", _POSITIVE.sub("加", _LETTER_DASH.sub("", text)))
    return _PLAIN.sub(_chinese_plain, text)


def _say(number: str) -> str:
    return spoken(number, "zh")


def _component(digits: str) -> str:
    """Of a version, an address of the Internet or of a house: long parts digit by digit."""
    return chinese_digits(digits) if len(digits) > 2 else _say(digits)


def _chinese_range(match: re.Match[str]) -> str:
    low, high = match[1], match[2]
    following = match.string[match.end() : match.end() + 3]
    first = "两" if low == "2" and takes_liang(following) else _say(low)
    second = "两" if high == "2" and takes_liang(following) else _say(high)
    return f"{first}到{second}"


def _chinese_power(match: re.Match[str]) -> str:
    sign, power = match[1], match[2]
    if not sign and power in ("2", "3"):
        return "的平方" if power == "2" else "的立方"
    return f"的{'负' if sign else ''}{_say(power)}次方"


def _chinese_plain(match: re.Match[str]) -> str:
    number = match["number"]
    if number != "2":
        return _say(number)
    before, following = (
        match.string[max(0, match.start() - 1) : match.start()],
        match.string[match.end() : match.end() + 3],
    )
    counted = before not in ("第", "期", "拜", "周", "初", "十", "百") and not (before.isascii() and before.isalpha())
    if following[1:2].isdigit() and following[0] in "排组列层":
        return "二"  # 2排3座: the second row
    return "两" if counted and (takes_liang(following) or following[:1] in ("百", "千", "万", "亿")) else "二"


def _english(text: str) -> str:
    text = _TIMES_AS.sub(" times", _LETTERED_RANGE.sub(" to ", _ABOUT.sub("about ", text)))
    text = _DOTTED.sub(_english_dotted, text)
    text = _ENGLISH_ORDINAL.sub(lambda match: f" {english_ordinal(int(match[1]))} ", text)
    text = _ROUND_THE_CLOCK.sub("twenty four seven", text)
    text = _MIXED.sub(
        lambda match: f"{spoken(match[1], 'en')} and {_english_fraction(match[2], match[3], small='a')}", text
    )
    text = _FRACTION.sub(lambda match: _english_fraction(match[1], match[2]), text)
    text = _SCIENTIFIC.sub(_english_scientific, text)
    text = _RATIO.sub(lambda match: " to ".join(spoken(part, "en") for part in match.groups() if part), text)
    text = _CHAIN.sub(lambda match: " dash ".join(map(_english_component, match.group().split("-"))), text)
    text = _SUM.sub(" minus ", text)
    text = _RANGE.sub(_english_range, text)
    text = _TIMES.sub(" times ", text)
    text = _POWER.sub(_english_power, text)
    text = _DECADES.sub(lambda match: f" {plural(spoken(match[1], 'en').removeprefix('one '))} ", text)
    text = _NEGATIVE.sub(" minus ", _POSITIVE.sub(" plus ", _LETTER_DASH.sub(" ", text)))
    return _PLAIN.sub(lambda match: f" {spoken(match['number'], 'en')} ", text)


def _english_dotted(match: re.Match[str]) -> str:
    """A version has points; four parts are an address of the Internet, and that has dots."""
    parts = match.group().split(".")
    return f" {(' dot ' if len(parts) == 4 else ' point ').join(map(_english_component, parts))} "


def _english_component(digits: str) -> str:
    return english_digits(digits) if len(digits) > 2 else spoken(digits, "en")


def _english_scientific(match: re.Match[str]) -> str:
    sign = "minus " if match[2] == "-" else ""
    return f" {spoken(match[1], 'en')} times ten to the {sign}{english_ordinal(int(match[3]))} "


def _english_range(match: re.Match[str]) -> str:
    """10-15, and scores: 3-2. 747-8 is a name."""
    named = len(match[1]) > 2 and len(match[2]) < len(match[1]) and match[1].isdigit()
    return f"{spoken(match[1], 'en')} {'dash' if named else 'to'} {spoken(match[2], 'en')}"


def _english_fraction(numerator: str, denominator: str, small: str = "one") -> str:
    top, bottom = int(numerator), int(denominator)
    if (top, bottom) == (50, 50):
        return "fifty fifty"
    if bottom == 100:
        return f"{spoken(numerator, 'en')} out of one hundred"
    number = small if top == 1 else spoken(numerator, "en")
    if bottom in (2, 4):
        name = {2: "half", 4: "quarter"}[bottom]
        many = {2: "halves", 4: "quarters"}[bottom]
        return f"{number} {name if top == 1 else many}"
    if 2 < bottom <= 100 and top < bottom:
        name = english_ordinal(bottom)
        return f"{number} {name if top == 1 else plural(name)}"
    return f"{spoken(numerator, 'en')} over {spoken(denominator, 'en')}"


def _english_power(match: re.Match[str]) -> str:
    sign, power = match[1], match[2]
    if not sign and power in ("2", "3"):
        return " squared" if power == "2" else " cubed"
    return f" to the {'minus ' if sign else ''}{english_ordinal(int(power))}"
