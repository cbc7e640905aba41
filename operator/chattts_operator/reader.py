"""Reads a spec field by field and notes every problem, so that all of them can be told at once. Knows no field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


class Reader:
    """One object of a spec; what does not fit is noted and the default taken."""

    def __init__(self, data: Mapping[str, Any], path: str, problems: list[str]) -> None:
        self.data, self.path, self.problems = data, path, problems

    def problem(self, name: str, rule: str) -> None:
        self.problems.append(f"{self.path}.{name} {rule}")

    def section(self, name: str) -> Reader:
        return Reader(self.mapping(name), f"{self.path}.{name}", self.problems)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.data.get(name)
        if value is None or isinstance(value, Mapping):
            return value or {}
        self.problem(name, "must be an object")
        return {}

    def sequence(self, name: str) -> tuple[Any, ...]:
        value = self.data.get(name)
        if value is None or isinstance(value, list):
            return tuple(value or ())
        self.problem(name, "must be a list")
        return ()

    def text(self, name: str, default: str = "", choices: tuple[str, ...] = ()) -> str:
        value = self.data.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or (choices and value not in choices):
            self.problem(name, f"must be one of {', '.join(choices)}" if choices else "must be a text")
            return default
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.optional_integer(name, low, high)
        return default if value is None else value

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        value = self.data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.problem(name, f"must be a whole number from {low} to {high}")
            return None
        return value

    def positive_number(self, name: str) -> float | None:
        """Written as a text: there are no floats in a spec."""
        text = self.text(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e9:
            self.problem(name, 'must be a number greater than 0 in quotes, for example "5.5"')
            return None
        return value

    def time(self, name: str) -> datetime | None:
        text = self.text(name)
        if not text:
            return None
        try:
            value: datetime | None = datetime.fromisoformat(text)
        except ValueError:
            value = None
        if value is None or value.tzinfo is None:
            self.problem(name, "must be a time with zone, for example 2026-12-01T08:00:00Z")
            return None
        return value
