"""Numbers that name instead of counting: telephone numbers, ids, codes, rooms, flights. Digit by digit. Pure."""

from __future__ import annotations

import re

from chattts_server.text.language import Language
from chattts_server.text.numbers import chinese_digits, english_digits

_BEFORE, _AFTER = r"(?<![\d.,A-Za-z/-])", r"(?![\d]|[.,/-]\d|[A-Za-z])"
_FORMS = (
    r"1[3-9]\d{9}", r"1[3-9]\d[- ]\d{4}[- ]\d{4}",  # Chinese mobile
    r"\(?0\d{2,3}\)?[- ]?(?:\d{7,8}|\d{4}[- ]\d{4})(?:-\d{1,6})?",  # with area code and extension
    r"[48]00[- ]?\d{3}[- ]?\d{4}", r"[48]00-\d{4}-\d{3}",
    r"\(\d{3}\) ?\d{3}[-. ]\d{4}", r"\d{3}[-. ]\d{3}[-. ]\d{4}", r"\d{3}-\d{4}",  # American
)  # fmt: skip
_PHONE = re.compile(rf"{_BEFORE}(?:\+\d{{1,3}}[- ]?)?(?:{'|'.join(_FORMS)}){_AFTER}")
_INTERNATIONAL = re.compile(rf"{_BEFORE}\+\d{{1,3}}(?:[- ]\d{{2,5}}){{2,4}}{_AFTER}")
_IDENTITY = re.compile(rf"{_BEFORE}\d{{17}}[\dXx](?![A-Za-z\d])")
_CARD = re.compile(rf"{_BEFORE}\d{{4}}(?:[ -]\d{{4}}){{2,4}}(?:[ -]\d{{1,3}})?{_AFTER}")
_LONG = re.compile(r"(?<![\d.,])\d{11,}(?![\d.,]*\d|\.\d)(?! ?(?:[元块人万亿美欧]|dollars|people|years))")
_NAMES = (
    r"电话|手机|热线|客服|拨打|致电|打(?=(?:110|119|120|122|114|12\d{3}|10\d{3}|95\d{3})(?!\d))|微信|QQ|qq"
    "|身份证|订单|单号|编号|尾号|账号|帐号|卡号|验证码|校验码|密码|学号|工号|证号|车牌|邮编|取件码|取餐码"
    "|房号|门牌|群|尾数|机号|序列号|批号|文号|代码|号(?=[码:：是为])"
)
_ENGLISH_NAMES = (
    "phone|QQ|call|dial|text|fax|PIN|pin|passcode|password|code|ID|id|order|number|account|extension|ext|room|flight"
    "|zip|ZIP|serial|tracking|invoice|hotline|case|ticket|suite"
)
_NAMED = re.compile(
    rf"(?P<name>(?:{_NAMES})[号码是为:：，( ]{{0,4}})(?P<digits>\d{{2,}}(?:[- ]\d{{2,}}){{1,4}}|\d{{3,}})"
    r"(?![\d.,%:]*\d|[%元块人个万亿年月份名只次折分层楼多余来米])"
)
_NAMED_ENGLISH = re.compile(
    rf"(?P<name>\b(?:{_ENGLISH_NAMES})(?: (?:number|no|code|is|at|was))?[.:]?(?: is)? ?#?)"
    r"(?P<digits>\d{3,}(?:[- ]\d{2,}){0,4})"
    r"(?![\d,.:%]*\d| (?:people|dollars|times|years|days|items|words|minutes|units))"
)
_SERVICE = re.compile(
    rf"{_BEFORE}(\d{{3,5}})(?=电话|热线|急救|报警|火警|客服|平台|医院|国道|省道|公路|路公交|路车|路|航班|次列车|次高铁|次航班|官网|网站)"
)
_ROOM = re.compile(rf"{_BEFORE}(\d{{3,4}})(?=室|房间|号房|房(?![租价贷源东子])|教室|会议室|宿舍|病房|包厢|包间|号厅)")
_LETTERED = re.compile(r"(?<![A-Za-z\d])([A-Za-z]{1,12}[-_]?)(\d{3,20})(?![\d.,%]*\d|[%°]|[A-Za-z]{2})")
_PLATE = re.compile(
    r"(?<=[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼])([A-Z])[·•. ]?([A-Z0-9]{5,6})(?![A-Za-z0-9])"
)
_MASKED = re.compile(r"(?<!\d)(\d{2,6})[*×xX]{2,12}(\d{2,6})(?!\d)")  # 138****1234
_HEX = re.compile(r"(?<![A-Za-z\d])0[xX][0-9A-Fa-f]{1,40}(?![A-Za-z\d])")
# Said digit by digit unless something is counted: 996 (working hours), 985, 211 (universities), 618 (a sale), 520, 666.
_NICKNAMES = re.compile(
    r"(?<![\d.,:/A-Za-z-])(996|965|985|211|618|1314|520|666|233+)"
    r"(?![\d%:/A-Za-z-]|[.,]\d| ?[元块个人年月日号米克斤公里分秒次名位万千百亿倍度岁页条件天小美欧])"
)
_GROUPS = re.compile(r"\d+|[Xx+]")


def read_ids(text: str, language: Language) -> str:
    text = _HEX.sub(lambda match: _characters(match.group(), language), text)
    text = _MASKED.sub(lambda match: f"{_spell(match[1], language)}，{_spell(match[2], language)}", text)
    for pattern in (_IDENTITY, _CARD, _PHONE, _INTERNATIONAL, _LONG):
        text = pattern.sub(lambda match: _spell(match.group(), language), text)
    if language == "zh":
        text = _NAMED.sub(lambda match: match["name"] + _spell(match["digits"], "zh"), text)
        text = _PLATE.sub(lambda match: match[1] + re.sub(r"\d", lambda digit: _chinese(digit.group()), match[2]), text)
        text = _NICKNAMES.sub(lambda match: _spell(match[1], "zh"), text)
        text = _SERVICE.sub(lambda match: _spell(match[1], "zh"), text)
        text = _ROOM.sub(lambda match: _spell(match[1], "zh"), text)
        return _LETTERED.sub(lambda match: match[1].rstrip("-") + _spell(match[2], "zh"), text)
    text = _NAMED_ENGLISH.sub(lambda match: match["name"].rstrip("#") + _spell(match["digits"], "en"), text)
    return _LETTERED.sub(lambda match: match[1].rstrip("-") + _spell(match[2], "en"), text)


def _spell(number: str, language: Language) -> str:
    """Groups are kept apart by a pause in English; a Chinese speaker runs them together."""
    if language == "zh":
        return "".join(_chinese(group) for group in _GROUPS.findall(number))
    plus = "plus " if number.startswith("+") else ""
    return f" {plus}{', '.join(_english(group) for group in re.findall(r'[0-9]+[Xx]?', number))} "


def _characters(code: str, language: Language) -> str:
    """0x7F -> 零 x 七 F"""
    spell = chinese_digits if language == "zh" else english_digits
    return f" {' '.join(spell(one) if one.isdigit() else one for one in code)} "


def _chinese(group: str) -> str:
    return {"+": "加", "X": "X", "x": "X"}.get(group) or chinese_digits(group, one="幺")


def _english(group: str) -> str:
    return english_digits(group.rstrip("Xx")) + (" X" if group[-1] in "Xx" else "")
