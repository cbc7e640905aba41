"""What is worth an Event: a note, and which changes of conditions are. Pure; events.py names and sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import api

TOLD = {  # changes of conditions that are Events: type and status; True: a warning
    (api.READY, "True"): False,
    (api.READY, "False"): True,
    (api.PROGRESSING, "False"): True,
    (api.CAPACITY_AVAILABLE, "False"): True,
    (api.DRIVER_COMPATIBLE, "False"): True,
    (api.MODEL_CACHED, "True"): False,
    (api.MODEL_CACHED, "False"): True,
    (api.CONFLICT, "True"): True,
}
# The usual way of things: told by the condition alone.
USUAL = frozenset({"Starting", "Mounted", "ScaledToZero", "WaitingForClaim", "Fetching", "Complete"})


@dataclass(frozen=True, slots=True)
class Note:
    """Something to be said about one TTSService."""

    reason: str
    message: str
    warning: bool = False
    occasion: str = ""  # tells apart two times that the same thing really happened


def notes_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Note]:
    """What changed from one status to the next that an operator on call wants to find among the Events."""
    before = {item["type"]: (item["status"], item["reason"]) for item in old.get("conditions") or []}
    said: set[tuple[str, str]] = set()
    notes = []
    for item in new["conditions"]:
        now, warning = (item["status"], item["reason"]), TOLD.get((item["type"], item["status"]))
        what = item["reason"], item["message"]
        if warning is None or before.get(item["type"]) == now or item["reason"] in USUAL or what in said:
            continue
        said.add(what)  # a reason of Ready is often that of another condition
        notes.append(Note(item["reason"], item["message"], warning, item["lastTransitionTime"]))
    return notes
