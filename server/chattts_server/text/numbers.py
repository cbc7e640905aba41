"""Numbers as Chinese and English words. Pure."""

from __future__ import annotations

DIGITS = "零一二三四五六七八九"
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_THOUSANDS = ("", " thousand", " million", " billion", " trillion")
MAX_DIGITS = 12  # longer ones are ids and phone numbers: read digit by digit


def chinese(number: str) -> str:
    """'123.50' -> 一百二十三点五零. Digits one by one where the whole is an id: a leading zero, or too long."""
    whole, _, fraction = number.partition(".")
    read = chinese_digits(whole) if _is_id(whole) else _chinese_integer(int(whole))
    return read + ("点" + chinese_digits(fraction) if fraction else "")


def chinese_digits(digits: str) -> str:
    return "".join(DIGITS[int(digit)] for digit in digits)


def english(number: str) -> str:
    """'123.50' -> one hundred twenty three point five zero."""
    whole, _, fraction = number.partition(".")
    read = english_digits(whole) if _is_id(whole) else _english_integer(int(whole))
    return read + (" point " + english_digits(fraction) if fraction else "")


def english_digits(digits: str) -> str:
    return " ".join(_SMALL[int(digit)] for digit in digits)


def _is_id(whole: str) -> bool:
    return len(whole) > MAX_DIGITS or (len(whole) > 1 and whole.startswith("0"))


def _chinese_integer(value: int) -> str:
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


def _english_integer(value: int) -> str:
    if value == 0:
        return _SMALL[0]
    parts: list[str] = []
    for name in _THOUSANDS:
        value, group = divmod(value, 1000)
        if group:
            parts.insert(0, _english_group(group) + name)
        if not value:
            break
    return " ".join(parts)


def _english_group(group: int) -> str:
    hundreds, rest = divmod(group, 100)
    parts = [f"{_SMALL[hundreds]} hundred"] if hundreds else []
    if 0 < rest < 20:
        parts.append(_SMALL[rest])
    elif rest:
        tens, ones = divmod(rest, 10)
        parts.append(_TENS[tens] + (f" {_SMALL[ones]}" if ones else ""))
    return " ".join(parts)
