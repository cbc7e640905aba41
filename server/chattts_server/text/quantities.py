"""Percent and numbers with a unit. Pure; the units are units.py's."""

from __future__ import annotations

import re

from chattts_server.text.language import Language
from chattts_server.text.numbers import spoken
from chattts_server.text.units import UNITS

NUMBER = r"\d{1,15}(?:,\d{3}){0,4}(?:\.\d{1,12})?"
_SIGNED = rf"(?:(?<![A-Za-z0-9)%])[-+±])?{NUMBER}"
_RANGE = (
    rf"(?<![\d.,A-Za-z])(?<!\d/)(?P<low>{_SIGNED})(?P<lowsign>%|‰|°C?)? ?"
    rf"(?:(?P<to>[-~–—至到]|±) ?(?P<high>{_SIGNED}) ?)?"
)
_PERCENT = re.compile(_RANGE + r" ?(?P<sign>[%‰])")
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_PER = {
    "次": "次",
    "分": "分钟",
    "分钟": "分钟",
    "秒": "秒",
    "天": "天",
    "日": "日",
    "小时": "小时",
    "时": "小时",
    "年": "年",
    "月": "月",
    "人": "人",
}
_PER_NAME = "|".join(sorted(_PER, key=len, reverse=True))
_QUANTITY = re.compile(
    _RANGE + rf"(?P<scale>[百千万亿]{{0,2}}) ?(?P<unit>{_UNIT})"
    rf"(?P<per>(?:[/·]| per )(?:(?:{_UNIT}|day|d)(?![A-Za-z0-9^])|{_PER_NAME}))?"
    r"(?:/(?P<third>d|day|kg|min|h|天|日|次)(?![A-Za-z0-9]))?(?![A-Za-z0-9^]|(?<=[VAUN])[级型])"
)
_PRESSURE = re.compile(r"(?<![\d/.])(\d{2,3})/(\d{2,3}) ?(?:mmHg|毫米汞柱)")
_POWER_PER = re.compile(rf"(?<=\d)(\^-?\d{{1,3}}) ?/ ?({_UNIT})(?![A-Za-z0-9])")  # 5.6×10^9/L
_APART = re.compile(r"(?<=\d) +(?=\d)(?!\s*\d{1,2}/\d)")  # iPhone 16 128GB: two numbers, never one
_FRACTION_OF = re.compile(rf"(?<![\d./])(\d{{1,3}}/\d{{1,3}}) ?({_UNIT})(?![A-Za-z0-9^/])")  # 1/4 tsp
_ANGLE = re.compile(r"(?<![\d.])(\d{1,3})°(\d{1,2})'(?:(\d{1,2}(?:\.\d{1,3})?)\")?")
_PER_TIME = re.compile(
    r"(?<=小时|分钟|公里|千米|千克|公斤|毫克|毫升)/(?=天|日|周|月|年|人|次|小时|分钟|分|秒|公里|晚)"
    r"|(?<=\d[次米克升个人件台度片粒])/(?=天|日|周|月|年|人|次|小时|分钟|分|秒|公里|晚)"
)


def read_quantities(text: str, language: Language) -> str:
    text = _PRESSURE.sub(lambda match: _pressure(match[1], match[2], language), text)
    text = _ANGLE.sub(lambda match: _angle(match, language), text)
    text = _PER_TIME.sub("每", text)
    if language == "zh":
        text = _APART.sub("，", text)
    per, place = ("每", 0) if language == "zh" else (" per ", 1)
    text = _POWER_PER.sub(lambda match: f"{match[1]}{per}{UNITS[match[2]][place]}", text)
    text = _FRACTION_OF.sub(lambda match: f"{match[1]}{' ' * place}{UNITS[match[2]][place]}", text)
    text = _PERCENT.sub(lambda match: _percent(match, language), text)
    return _QUANTITY.sub(lambda match: _quantity(match, language), text)


def _pressure(high: str, low: str, language: Language) -> str:
    if language == "zh":
        return f"{spoken(high, 'zh')}杠{spoken(low, 'zh')}毫米汞柱"
    return f"{spoken(high, 'en')} over {spoken(low, 'en')} millimeters of mercury"


def _angle(match: re.Match[str], language: Language) -> str:
    names = ("度", "分", "秒") if language == "zh" else (" degrees ", " minutes ", " seconds ")
    return "".join(spoken(part, language) + name for part, name in zip(match.groups(), names, strict=True) if part)


def _signed(number: str, language: Language) -> str:
    if number.startswith("±"):
        return ("正负" if language == "zh" else "plus or minus ") + spoken(number[1:], language)
    return spoken(number, language)


def _percent(match: re.Match[str], language: Language) -> str:
    low, high = match["low"], match["high"]
    if language == "en":
        word = "percent" if match["sign"] == "%" else "per thousand"
        first = f" {_signed(low, 'en')}" + (f" {word}" if match["lowsign"] and high else "")
        return first + (f"{_joint(match, 'en')}{_signed(high, 'en')} {word}" if high else f" {word}")
    word = "百分之" if match["sign"] == "%" else "千分之"
    return _chinese_percent(low, word) + (_joint(match, "zh") + _chinese_percent(high, word) if high else "")


def _chinese_percent(number: str, word: str) -> str:
    sign = {"-": "负", "+": "正", "±": "正负"}.get(number[0], "")
    return sign + word + spoken(number.lstrip("+-±"), "zh")


def _joint(match: re.Match[str], language: Language) -> str:
    if match["to"] == "±":
        return "正负" if language == "zh" else " plus or minus "
    return "到" if language == "zh" else " to "


def _quantity(match: re.Match[str], language: Language) -> str:
    unit, low, high = match["unit"], match["low"], match["high"]
    if _is_other(match, language):
        return match.group()
    denominators = [
        part for part in ((match["per"] or "").strip("/· ").removeprefix("per ").strip(), match["third"]) if part
    ]
    if language == "zh":
        read = ("两" if low == "2" and not high and not match["scale"] else _signed(low, "zh")) + (
            _joint(match, "zh") + _signed(high, "zh") if high else ""
        )
        return (
            read + match["scale"] + UNITS[unit][0] + "".join("每" + _chinese_denominator(part) for part in denominators)
        )
    read = f" {_signed(low, 'en')}" + (f"{_joint(match, 'en')}{_signed(high, 'en')}" if high else "")
    name = UNITS[unit][1] if low == "1" and not high else UNITS[unit][2]
    return f"{read} {name}" + "".join(f" per {_english_denominator(part)}" for part in denominators)


def _is_other(match: re.Match[str], language: Language) -> bool:
    """`1 in 5`, `6 in all`, `1,000s of people`, `B-52s`: no unit."""
    if language == "zh":
        return False
    if match["unit"] == "in":
        return " in" in match.group() and bool(re.match(" [a-z0-9]", match.string[match.end() : match.end() + 2]))
    return match["unit"] == "s" and (match.string.startswith(" of", match.end()) or match["low"].startswith("-"))


def _chinese_denominator(part: str) -> str:
    return {"d": "天", "day": "天"}.get(part) or _PER.get(part) or UNITS[part][0]


def _english_denominator(part: str) -> str:
    names = {"d": "day", "天": "day", "日": "day", "次": "time", "分": "minute", "分钟": "minute", "秒": "second"}
    return names.get(part) or (UNITS[part][1] if part in UNITS else part)
