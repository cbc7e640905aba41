"""Dates and times of day. Pure."""

from __future__ import annotations

import re

from chattts_server.text.language import Language
from chattts_server.text.numbers import (
    chinese_digits,
    chinese_integer,
    english_ordinal,
    english_year,
    plural,
    spoken,
)

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_MONTH_NAME = r"(?P<month>" + "|".join(f"{name}|{name[:3]}\\.?" for name in _MONTHS) + r"|Sept\.?)"
_NO_DIGIT_BEFORE, _NO_DIGIT_AFTER = r"(?<![\d.,/:-])", r"(?![\d]|[.,/:-]\d)"
_CLOCK = r"(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.\d{1,6})?)?"
_HALF = r"(?: ?(?P<half>[AaPp])\.?[Mm](?:\.(?= [a-z])|(?![A-Za-z])))?"
_ISO = re.compile(
    rf"{_NO_DIGIT_BEFORE}(?P<year>[12]\d{{3}})(?P<mark>[-/.])(?P<month>0?[1-9]|1[0-2])(?P=mark)"
    rf"(?P<day>0?[1-9]|[12]\d|3[01])(?!\d|[-/.]\d)(?:T(?=\d)|(?P<weekday> ?\([一-鿿]{{1,3}}\))?)"
)
_TIME = re.compile(rf"{_NO_DIGIT_BEFORE}{_CLOCK}(?!\d|:\d){_HALF}Z?")
_TIMES = re.compile(rf"(?<=\d) ?[-~–—至到] ?(?={_CLOCK.replace('?P<', '?P<_')}(?!\d|:\d))")
# Chinese
_YEARS = re.compile(r"(?<!\d)([12]\d{3}) ?[-~–—至到] ?([12]\d{3})(?=年|学年|赛季)")
_YEAR = re.compile(r"(?<![\d.,])(\d{4}|\d{2})(?=年(?!级))(年(?:代|前|以前|来|历史)?)?")
_YEAR_MONTH = re.compile(r"(?<![\d./-])((?:19|20)\d{2})[-/](0?[1-9]|1[0-2])(?![\d./-]|[年月])")
_DASH_BETWEEN_DATES = re.compile(r"(?<=[日号月年时点分]) ?[-–—~] ?(?=\d|次日|翌日)")
_QUARTER = re.compile(
    r"(?<!\d)((?:19|20)\d{2})(?=[QH][1-4](?!\d)|赛季|财年|年度|届|款|春夏|秋冬|世界杯|奥运|欧洲杯|双十一)"
)
_GENERATION = re.compile(r"(?<!\d)(\d0|05|95|85|75)(?=后(?!面|来|天|期|排|边))")
_CLOCK_POINT = re.compile(r"(?<![\d.:])(\d{1,2})点(?!\d+[.:%])(?:(\d{2})分?|(?=[整半钟多左前后，。]))")
_SLASHED_DAY = re.compile(
    r"(?:(?<=今天)|(?<=明天)|(?<=昨天)|(?<=后天)|(?<=日期)|(?<=生日)|(?<=截止)|(?<=截止到))(?P<mark>[是：:在为]? ?)"
    r"(?P<month>0?[1-9]|1[0-2])/(?P<day>0?[1-9]|[12]\d|3[01])(?![\d/])"
)
_SLASHED_DAY_BEFORE = re.compile(
    r"(?P<mark>(?<![\d./]))(?P<month>0?[1-9]|1[0-2])/(?P<day>0?[1-9]|[12]\d|3[01])(?=之?前|截止|当天)"
)
_MINUTES_SECONDS = re.compile(r"(?<![\d.])(\d{1,3})['’](\d{1,2})[\"”]")
# English
_DAY_OF_MONTH = r"(?P<day>[12]\d|3[01]|0?[1-9])"
_MONTH_DAY = re.compile(
    rf"\b{_MONTH_NAME} {_DAY_OF_MONTH}(?:st|nd|rd|th)?\b"
    r"(?:,? (?P<year>[12]\d{3})\b(?! ?[A-Za-z]?\d))?"
)
_DAY_MONTH = re.compile(
    rf"(?<![\d.,]){_DAY_OF_MONTH}(?:st|nd|rd|th)? (?:of )?{_MONTH_NAME}(?![A-Za-z])"
    r"(?:,? (?P<year>[12]\d{3})\b)?"
)
_MONTH_YEAR = re.compile(rf"\b{_MONTH_NAME},? (?P<year>[12]\d{{3}})\b(?!,\d)")
_SLASHED = re.compile(
    rf"{_NO_DIGIT_BEFORE}(?P<first>\d{{1,2}})/(?P<second>\d{{1,2}})/(?P<year>[12]\d{{3}}){_NO_DIGIT_AFTER}"
)
_ENGLISH_SLASHED_DAY = re.compile(
    r"\b((?:on|by|before|until|since|after|due|from) )(0?[1-9]|1[0-2])/(0?[1-9]|[12]\d|3[01])(?![\d/])", re.IGNORECASE
)
_HALF_DAYS = re.compile(r"(?<=[ap]m) ?[-–—] ?(?=\d)", re.IGNORECASE)
_FEET_INCHES = re.compile(r"(?<![\d.])(\d)['’](\d{1,2})[\"”]")
_DECADE = re.compile(r"(?<![\d,.])(?:([12]\d)|['’]|(?<=\bthe ))(\d0)['’]?s\b")
_YEAR_RANGE = re.compile(rf"{_NO_DIGIT_BEFORE}((?:1[5-9]|20)\d{{2}}) ?[-–—~] ?((?:1[5-9]|20)\d{{2}}){_NO_DIGIT_AFTER}")
_YEAR_IN_TEXT = re.compile(
    r"(?:(?<=\bin )|(?<=\bsince )|(?<=\bof )|(?<=\bby )|(?<=\bfrom )|(?<=\buntil )|(?<=\bbefore )|(?<=\bafter ))"
    r"(1[1-9]\d{2})(?![\d]|[.,]\d)",
    re.IGNORECASE,
)
_MODERN_YEAR = re.compile(
    r"(?<![\d.,$€£¥:/#+-])(?<!No\. )((?:19|20)\d{2})"
    r"(?![\d%°:/]|[.,-]\d| ?(?:[kKMGT]?[BbWVm]|kg|km|mg|ml|years|dollars|euros|pounds|yuan|people|times)\b)"
)
_OCLOCK = re.compile(r"\b(1[0-2]|[1-9]) ?([AaPp])\.?[Mm](?:\.(?= [a-z])|\b)")


def read_dates(text: str, language: Language) -> str:
    return _chinese(text) if language == "zh" else _english(text)


def _chinese(text: str) -> str:
    text = _DASH_BETWEEN_DATES.sub("到", text)
    text = _ISO.sub(_chinese_date, text)
    text = _SLASHED_DAY_BEFORE.sub(_chinese_day, _SLASHED_DAY.sub(_chinese_day, text))
    text = _MINUTES_SECONDS.sub(r"\1分\2秒", text)
    text = _YEARS.sub(lambda match: f"{chinese_digits(match[1])}到{chinese_digits(match[2])}", text)
    text = _YEAR_MONTH.sub(lambda match: f"{chinese_digits(match[1])}年{chinese_integer(int(match[2]))}月", text)
    text = _YEAR.sub(lambda match: _chinese_year(match[1], match[2] or "年"), text)
    text = _GENERATION.sub(lambda match: chinese_digits(match[1]), text)
    text = _QUARTER.sub(lambda match: chinese_digits(match[1]), text)
    text = _TIMES.sub("到", text)
    text = _TIME.sub(_chinese_time, text)
    return _CLOCK_POINT.sub(lambda match: _chinese_clock(match[1], match[2]), text)


def _chinese_date(match: re.Match[str]) -> str:
    month, day = (chinese_integer(int(match[part])) for part in ("month", "day"))
    after = match["weekday"] or (" " if match.group().endswith("T") else "")
    return f"{chinese_digits(match['year'])}年{month}月{day}日{after}"


def _chinese_day(match: re.Match[str]) -> str:
    return f"{match['mark']}{chinese_integer(int(match['month']))}月{chinese_integer(int(match['day']))}日"


def _chinese_year(number: str, unit: str) -> str:
    """A year digit by digit; a number of years as a number: 08年, 2000年前 (两千年前), 10年 (十年)."""
    counted = number[1:] == "000" and unit in ("年前", "年以前", "年来", "年历史")
    if len(number) == 4:
        return (chinese_integer(int(number)) if counted else chinese_digits(number)) + unit
    if unit == "年" and (number[0] == "0" or number[0] in "6789"):
        return chinese_digits(number) + unit
    return (chinese_digits(number) if number == "00" else chinese_integer(int(number))) + unit


def _chinese_time(match: re.Match[str]) -> str:
    hour, minute, second = match["hour"], int(match["minute"]), match["second"]
    half = {"a": "上午", "p": "下午"}[match["half"].lower()] if match["half"] else ""
    read = half + _chinese_hour(int(hour))
    if minute or second:
        read += ("零" if minute < 10 else "") + (chinese_integer(minute) if minute else "") + "分"
    return read + (chinese_integer(int(second)) + "秒" if second else "")


def _chinese_hour(hour: int) -> str:
    return ("两" if hour == 2 else chinese_integer(hour)) + "点"


def _chinese_clock(hour: str, minute: str | None) -> str:
    """8点05分; without minutes the hour alone."""
    if minute is None:
        return _chinese_hour(int(hour))
    value = int(minute)
    return _chinese_hour(int(hour)) + ("零" if value < 10 else "") + (chinese_integer(value) if value else "") + "分"


def _english(text: str) -> str:
    text = _ISO.sub(lambda match: _spell_date(int(match["month"]), match["day"], match["year"]) + " ", text)
    text = _SLASHED.sub(_english_slashed, text)
    text = _ENGLISH_SLASHED_DAY.sub(lambda match: match[1] + _spell_date(int(match[2]), match[3], None), text)
    text = _FEET_INCHES.sub(r"\1 foot \2", _HALF_DAYS.sub(" to ", text))
    text = _MONTH_DAY.sub(lambda match: _spell_date(_month_of(match["month"]), match["day"], match["year"]), text)
    text = _DAY_MONTH.sub(lambda match: _spell_day_first(match), text)
    text = _MONTH_YEAR.sub(lambda match: f"{_MONTHS[_month_of(match['month']) - 1]} {_year(match['year'])}", text)
    text = _DECADE.sub(_english_decade, text)
    text = _YEAR_RANGE.sub(lambda match: f"{_year(match[1])} to {_year(match[2])}", text)
    text = _TIMES.sub(" to ", text)
    text = _TIME.sub(_english_time, text)
    text = _OCLOCK.sub(lambda match: f"{spoken(match[1], 'en')} {match[2].upper()} M", text)
    text = _YEAR_IN_TEXT.sub(lambda match: _year(match[1]), text)
    return _MODERN_YEAR.sub(lambda match: _year(match[1]), text)


def _year(year: str) -> str:
    return english_year(int(year))


def _month_of(name: str) -> int:
    return next(number for number, month in enumerate(_MONTHS, 1) if month[:3] == name[:3])


def _spell_date(month: int, day: str, year: str | None) -> str:
    read = f"{_MONTHS[month - 1]} {english_ordinal(int(day))}"
    return read + (f", {_year(year)}" if year else "")


def _spell_day_first(match: re.Match[str]) -> str:
    article = "" if match.string.endswith("the ", 0, match.start()) else "the "
    read = f"{article}{english_ordinal(int(match['day']))} of {_MONTHS[_month_of(match['month']) - 1]}"
    return read + (f", {_year(match['year'])}" if match["year"] else "")


def _english_slashed(match: re.Match[str]) -> str:
    """Month first, as in America, unless it cannot be."""
    first, second = int(match["first"]), int(match["second"])
    month, day = (second, first) if first > 12 else (first, second)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match.group()
    return _spell_date(month, str(day), match["year"])


def _english_decade(match: re.Match[str]) -> str:
    century, decade = match[1], match[2]
    read = "hundred" if decade == "00" else spoken(decade, "en")
    return f"{spoken(century, 'en')} {plural(read)}" if century else plural(read)


def _english_time(match: re.Match[str]) -> str:
    hour, minute, second = match["hour"], match["minute"], match["second"]
    half = f" {match['half'].upper()} M" if match["half"] else ""
    read = "zero" if int(hour) == 0 else spoken(str(int(hour)), "en")
    if minute != "00":
        read += (" oh " if minute[0] == "0" else " ") + spoken(str(int(minute)), "en")
    elif not half and not second:
        read += " o clock" if 1 <= int(hour) <= 12 else " hundred"
    if second:
        read += f" and {spoken(str(int(second)), 'en')} seconds"
    return read + half
