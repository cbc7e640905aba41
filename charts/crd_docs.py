"""docs/crd.md from manifests/crd.yaml: every field with its type, default, rules and text. Knows only the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

HEADER = """\
# The TTSService resource

Made by `charts/generate.py` from `manifests/crd.yaml`; do not edit. `kubectl explain tts.spec` shows the same texts.
Examples of every feature: `manifests/samples/`. Reasons of conditions and what to do: [operations](operations.md).

`apiVersion: {group}/{version}`, `kind: {kind}`, short name `{short}`.
Subresources: `status`, `scale` (`kubectl scale tts/NAME`).
"""
LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "maxItems": "at most {} items",
}


def crd_page(text: str) -> str:
    """The whole page. ValueError for a field without a description."""
    crd = yaml.safe_load(text)["spec"]
    version = crd["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    names = crd["names"]
    parts = [
        HEADER.format(group=crd["group"], version=version["name"], kind=names["kind"], short=names["shortNames"][0]),
        "## What `kubectl get tts` shows\n",
        _table(("Column", "Meaning"), _columns(version["additionalPrinterColumns"])),
        "## Rules of the object\n",
        "\n".join(f"- {rule['message']}" for rule in schema["x-kubernetes-validations"]) + "\n",
    ]
    for section in ("spec", "status"):
        parts.append(f"## {section}\n")
        parts += list(_sections(schema["properties"][section], section))
    return "\n".join(parts)


def _columns(columns: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for column in columns:
        wide = " (`-o wide`)" if column.get("priority") else ""
        yield column["name"].upper() + wide, column.get("description") or f"`{column['jsonPath']}`"


def _sections(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """One table per object: its own plain fields first, then the objects in it."""
    rows, below = [], []
    for name, field in schema["properties"].items():
        inner = field["items"] if field["type"] == "array" else field
        suffix = "[]" if field["type"] == "array" else ""
        rows.append(_row(name, field, name in schema.get("required", ())))
        if inner.get("properties"):
            below.append((f"{path}.{name}{suffix}", inner, field.get("description", "")))
    yield _table(("Field", "Type", "Default", "Meaning"), iter(rows))
    if rules := schema.get("x-kubernetes-validations"):
        yield "Refused with these sentences:\n"
        yield "\n".join(f"- {rule['message']}" for rule in rules) + "\n"
    for place, inner, _ in below:
        yield f"### {place}\n"
        yield from _sections(inner, place)


def _row(name: str, field: Mapping[str, Any], required: bool) -> tuple[str, str, str, str]:
    if "description" not in field:
        raise ValueError(f"{name} has no description")
    default = "**required**" if required else ""
    if "default" in field and field["default"] not in ({}, []):
        default = f"`{yaml.safe_dump(field['default'], default_flow_style=True).strip().removesuffix('...').strip()}`"
    limits = ", ".join(words.format(field[key]) for key, words in LIMITS.items() if key in field)
    rules = [rule["message"] for rule in field.get("x-kubernetes-validations", []) if "properties" not in field]
    parts = (field["description"], limits.capitalize(), *rules)
    return f"`{name}`", _type(field), default, " ".join(f"{part.rstrip('.')}." for part in parts if part)


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return "map"
    if field.get("format") == "date-time":
        return "time"
    kind = str(field["type"])
    return {"integer": "number", "string": "text"}.get(kind, kind)


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
