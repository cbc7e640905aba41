"""Amounts of money: the sign stands before the number and is read after it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chattts_server.text.language import Language
from chattts_server.text.numbers import spoken
from chattts_server.text.units import UNITS


@dataclass(frozen=True, slots=True)
class Currency:
    chinese: str
    one: str
    many: str
    cent: str | None = None
    cents: str | None = None


_YUAN = Currency("元", "yuan", "yuan")
_DOLLAR = Currency("美元", "dollar", "dollars", "cent", "cents")
_EURO = Currency("欧元", "euro", "euros", "cent", "cents")
_POUND = Currency("英镑", "pound", "pounds", "penny", "pence")
_HONG_KONG = Currency("港元", "Hong Kong dollar", "Hong Kong dollars", "cent", "cents")
_TAIWAN = Currency("新台币", "Taiwan dollar", "Taiwan dollars")
_AUSTRALIA = Currency("澳元", "Australian dollar", "Australian dollars", "cent", "cents")
_CANADA = Currency("加元", "Canadian dollar", "Canadian dollars", "cent", "cents")
_SINGAPORE = Currency("新加坡元", "Singapore dollar", "Singapore dollars", "cent", "cents")
_YEN = Currency("日元", "yen", "yen")
_WON = Currency("韩元", "won", "won")
_RUPEE = Currency("卢比", "rupee", "rupees")
_FRANC = Currency("瑞士法郎", "Swiss franc", "Swiss francs")
_RUBLE = Currency("卢布", "ruble", "rubles")
_SIGNS = {
    "HK$": _HONG_KONG, "NT$": _TAIWAN, "A$": _AUSTRALIA, "C$": _CANADA, "S$": _SINGAPORE, "US$": _DOLLAR,
    "RMB¥": _YUAN, "CN¥": _YUAN, "JP¥": _YEN, "¥": _YUAN, "$": _DOLLAR, "€": _EURO, "£": _POUND, "₩": _WON,
    "₹": _RUPEE, "₽": _RUBLE,
}  # fmt: skip
_CODES = {
    "CNY": _YUAN, "RMB": _YUAN, "USD": _DOLLAR, "EUR": _EURO, "GBP": _POUND, "HKD": _HONG_KONG, "TWD": _TAIWAN,
    "NTD": _TAIWAN, "AUD": _AUSTRALIA, "CAD": _CANADA, "SGD": _SINGAPORE, "JPY": _YEN, "KRW": _WON, "INR": _RUPEE,
    "CHF": _FRANC, "RUB": _RUBLE,
}  # fmt: skip
_CHINESE_SCALE = {"k": "千", "K": "千", "M": "百万", "m": "百万", "B": "十亿", "b": "十亿", "bn": "十亿", "w": "万"}
_ENGLISH_SCALE = {
    "k": " thousand", "K": " thousand", "M": " million", "m": " million", "mn": " million", "B": " billion",
    "b": " billion", "bn": " billion", "T": " trillion", "tn": " trillion", "万": "0 thousand",
}  # fmt: skip
_NUMBER = r"\d{1,15}(?:,\d{3}){0,4}(?:\.\d{1,8})?"
_SIGN = "|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True))
_CODE = "|".join(_CODES)
_SCALE = (
    r"(?P<scale> ?(?:million|billion|trillion|thousand)\b|(?:bn|mn|tn|[kKMmBbTw])(?![A-Za-z])"
    r"|(?:百万|千万|百亿|千亿|万亿|[百千万亿]))?"
)
_UNIT = r"(?P<unit> ?(?:元|块钱|块|圆|美元|美金|港币|港元|欧元|英镑|日元|人民币))?"
_AMOUNT = re.compile(
    r"(?P<minus>(?<![\w)])[-+] ?)?(?<![A-Za-z])"
    rf"(?:(?P<sign>{_SIGN}) ?(?P<minus2>-)?|(?P<code>{_CODE}) ?(?=\d))"
    rf"(?P<low>{_NUMBER})(?: ?[-~–—至到] ?(?:{_SIGN})?(?P<high>{_NUMBER}))?{_SCALE}{_UNIT}"
)
_BEHIND = re.compile(rf"(?<![\d.,A-Za-z])(?P<low>{_NUMBER}){_SCALE} ?(?P<code>{_CODE})(?![A-Za-z])")
_NO_CENTS = re.compile(r"(?<=\d)\.00(?= ?(?:元|块|美元|美金|港元|港币|欧元|英镑|日元))")
_PER = re.compile(
    r"(?<=[元块])/(?=人|月|年|天|日|斤|公斤|千克|克|吨|件|个|次|位|小时|时|平|平方|平米|亩|份|晚|瓶|盒|箱|股|度|升|米|套|张|台)"
)
_PER_UNIT = re.compile(
    r"(?<=[元块])/("
    + "|".join(sorted((unit for unit in UNITS if unit.isalpha()), key=len, reverse=True))
    + r")(?![A-Za-z])"
)
_ATTRIBUTE = re.compile(r"(?:^|[^A-Za-z])(?:an?|the|this) $", re.IGNORECASE)
_NOUN = re.compile(r" (?!(?:per|in|of|for|to|and|or|a|an|each|is|was|off|from|on|at|by|that|with|more|less)\b)[a-z]")
_PER_ENGLISH = re.compile(
    r"(?<=[a-z]) ?/ ?(?=(?:month|mo|year|yr|day|hour|hr|person|night|week|unit|item|kg|lb|user)\b)"
)


def read_money(text: str, language: Language) -> str:
    if language == "zh":
        text = _NO_CENTS.sub("", text)
        text = _BEHIND.sub(_chinese_behind, text)
        text = _PER.sub("每", _AMOUNT.sub(_chinese, text))
        return _PER_UNIT.sub(lambda match: "每" + UNITS[match[1]][0], text)
    text = _BEHIND.sub(_english_behind, text)
    return _PER_ENGLISH.sub(" per ", _AMOUNT.sub(_english, text))


def _currency(match: re.Match[str]) -> Currency:
    groups = match.groupdict()
    return _SIGNS[groups["sign"]] if groups.get("sign") else _CODES[groups["code"]]


def _minus(match: re.Match[str]) -> str:
    return (match["minus"] or match["minus2"] or "").strip()


def _chinese(match: re.Match[str]) -> str:
    read = {"-": "负", "+": "加", "": ""}[_minus(match)] + _chinese_number(match["low"])
    if match["high"]:
        read += "到" + _chinese_number(match["high"])
    named = (match["unit"] or "").strip()
    name = named if named and named not in ("元", "圆") else _currency(match).chinese
    return read + _chinese_scale(match) + name


def _chinese_behind(match: re.Match[str]) -> str:
    return _chinese_number(match["low"]) + _chinese_scale(match) + _currency(match).chinese


def _chinese_number(number: str) -> str:
    """2元 is 两元; ¥5.00 has no 点零零."""
    return "两" if number == "2" else spoken(number.removesuffix(".00"), "zh")


def _chinese_scale(match: re.Match[str]) -> str:
    scale = (match["scale"] or "").strip()
    words = {"million": "百万", "billion": "十亿", "trillion": "万亿", "thousand": "千"}
    return words.get(scale, _CHINESE_SCALE.get(scale, scale if scale != "T" else "万亿"))


def _english(match: re.Match[str]) -> str:
    currency, scale = _currency(match), _english_scale(match)
    minus = {"-": "minus ", "+": "plus ", "": ""}[_minus(match)]
    if match["high"]:
        read = f"{spoken(match['low'], 'en')} to {spoken(match['high'], 'en')}{scale} {currency.many}"
    elif scale:
        read = f"{spoken(match['low'], 'en')}{scale} {currency.one if _is_attribute(match) else currency.many}"
    else:
        read = _english_coins(match["low"].replace(",", ""), currency)
    return f" {minus}{read}" + ("" if match["unit"] is None else " ")


def _is_attribute(match: re.Match[str]) -> bool:
    """A $2bn company: two billion dollar."""
    before = match.string[max(0, match.start() - 6) : match.start()]
    return bool(_ATTRIBUTE.search(before)) and bool(_NOUN.match(match.string, match.end()))


def _english_behind(match: re.Match[str]) -> str:
    scale = _english_scale(match)
    if scale:
        return f" {spoken(match['low'], 'en')}{scale} {_currency(match).many}"
    return " " + _english_coins(match["low"].replace(",", ""), _currency(match))


def _english_scale(match: re.Match[str]) -> str:
    scale = (match["scale"] or "").strip()
    return _ENGLISH_SCALE.get(scale, f" {scale}" if scale.isascii() and scale else scale)


def _english_coins(number: str, currency: Currency) -> str:
    whole, _, fraction = number.partition(".")
    if currency.cents is None or len(fraction) not in (0, 2):
        return f"{spoken(number, 'en')} {currency.one if number == '1' else currency.many}"
    units = f"{spoken(whole, 'en')} {currency.one if whole == '1' else currency.many}"
    if not fraction or fraction == "00":
        return units
    cents = f"{spoken(str(int(fraction)), 'en')} {currency.cent if fraction == '01' else currency.cents}"
    return cents if whole == "0" else f"{units} and {cents}"
