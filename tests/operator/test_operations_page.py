"""docs/operations.md knows every reason and every Event that the code can say."""

from __future__ import annotations

import re
from pathlib import Path

from chattts_operator import api
from chattts_operator.autoscaling.memory import HOLDING
from chattts_operator.conditions import LIMITS
from chattts_operator.overlay import POD_FIELDS, VOLUME_SOURCES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCES = {
    name: (ROOT / "operator" / "chattts_operator" / f"{name}.py").read_text(encoding="utf-8")
    for name in ("conditions", "drivers", "plan")
}


def words(text: str) -> set[str]:
    return set(re.findall(r"\b[A-Z][A-Za-z]+\b", text))


def test_every_reason_is_on_the_page() -> None:
    said = set(re.findall(r'Condition\(\s*api\.[A-Z_]+,\s*[^"]*?"([A-Z]\w+)"', SOURCES["conditions"]))
    said |= set(re.findall(r'\((?:True|False), "([A-Z]\w+)"\)', SOURCES["conditions"]))
    said |= set(re.findall(r'Verdict\(\w+, "([A-Z]\w+)"', SOURCES["drivers"]))
    said |= set(re.findall(r'"(\w+DriversTooOld)"', SOURCES["drivers"]))
    said |= set(LIMITS) | (set(HOLDING) - {"Fallback"})
    assert len(said) > 40
    assert said - words(PAGE) == set()


def test_every_condition_and_event_is_on_the_page() -> None:
    assert set(api.CONDITION_TYPES) - words(PAGE) == set()
    events = set(re.findall(r'Note\(\s*"([A-Z]\w+)"', SOURCES["plan"])) | {"ScaledOut", "ScaledIn", "ReplicasHeld"}
    assert len(events) > 4
    assert events - words(PAGE.partition("## Events")[2]) == set()


def test_the_list_of_the_overlay_is_the_codes() -> None:
    section = PAGE.partition("## The overlay")[2].partition("\n## ")[0]
    assert set(POD_FIELDS) - set(re.findall(r"\w+", section)) == set()
    assert set(VOLUME_SOURCES) - {"name"} - set(re.findall(r"\w+", section)) == set()
