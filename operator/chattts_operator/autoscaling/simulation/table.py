"""Outcomes as a table for a terminal, as Markdown for docs/autoscaling.md, and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .outcome import Outcome, mean
from .scenarios import OTHERS, OURS, Row, is_dominated

HEADS = ("policy", "late or refused", "SLO broken", "replica-hours", "peak", "changes", "turns", "cost")


def text(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """One line for each policy, means over seeds."""
    rows = [HEADS]
    for policy, runs in outcomes.items():
        figures, price = mean(runs), [one.cost for one in runs if one.cost is not None]
        rows.append(
            (
                policy,
                f"{figures['badPercent']:.2f} %",
                f"{figures['violatedSeconds']:.0f} s",
                f"{figures['replicaHours']:.2f}",
                f"{figures['peak']:.1f}",
                f"{figures['changes']:.1f}",
                f"{figures['flaps']:.1f}",
                f"{sum(price) / len(price):.2f}" if price else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def markdown(tables: Iterable[Sequence[Row]]) -> str:
    """Late or refused / replica-hours / peak. **Bold**: no other column beats it in both of the first two."""
    lines: list[str] = []
    for rows in tables:
        if not lines:
            lines = ["| situation | " + " | ".join(row.policy for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
        lines.append(f"| {rows[0].scenario} | " + " | ".join(_cell(row, rows) for row in rows) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row, rows: Sequence[Row]) -> str:
    figures = row.figures
    text = f"{figures['badPercent']:.1f} % / {figures['replicaHours']:.1f} / {figures['peak']:.0f}"
    rivals = [other for other in rows if other.policy in OTHERS]
    return f"**{text}**" if row.policy.startswith(OURS) and not is_dominated(row, rivals) else text
