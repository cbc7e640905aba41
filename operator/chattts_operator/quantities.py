"""Kubernetes quantities ("500m", "1Gi") as exact numbers. Knows nothing of where they stand."""

from __future__ import annotations

import re
from decimal import Decimal

_FORM = re.compile(r"^([+-]?[0-9]*\.?[0-9]*)(m|u|n|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$")
_SUFFIXES = {
    **{suffix: Decimal(10) ** power for suffix, power in zip("num", (-9, -6, -3), strict=True)},
    **{suffix: Decimal(10) ** (3 * index) for index, suffix in enumerate("kMGTPE", start=1)},
    **{suffix: Decimal(1024) ** index for index, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def parse_quantity(value: str | int | float) -> Decimal:
    """ValueError for what is not a quantity."""
    match = _FORM.match(str(value))
    if match is None or not any(character.isdigit() for character in match[1]):
        raise ValueError(f"{value!r} is not a quantity such as 500m or 1Gi")
    number, suffix = Decimal(match[1]), match[2]
    if suffix is None:
        return number
    try:
        return number * (_SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(10) ** int(suffix[1:]))
    except ArithmeticError as error:  # 1e1000000: it has the form, and Decimal overflows
        raise ValueError(f"{value!r} is too large for a quantity") from error


def same_quantity(left: object, right: object) -> bool:
    """True for "1000m" and 1; False where one of them is no quantity."""
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if not isinstance(left, (str, int, float)) or not isinstance(right, (str, int, float)):
        return False
    try:
        return parse_quantity(left) == parse_quantity(right)
    except ValueError:
        return False
