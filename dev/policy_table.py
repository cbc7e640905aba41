"""The table of docs/autoscaling.md, made by simulation, and the bars of the policy; `--check` only compares.

A minute or two on two cores: ten situations, six policies, three seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

from chattts_operator.autoscaling.simulation.scenarios import OTHERS, OURS, WRONG, Row, compare, is_dominated, scenarios
from chattts_operator.autoscaling.simulation.table import markdown
from chattts_operator.spec import Autoscaling, OperatorDefaults, parse

PAGE = Path(__file__).parents[1] / "docs" / "autoscaling.md"
BEGIN, END = "<!-- policy table: made by make simulate-table -->", "<!-- end of the policy table -->"
NO_TARGETS = f"{OURS}, no targets"


@dataclass(frozen=True, slots=True)
class Bar:
    situation: int
    policy: str
    percent: float  # late or refused, at most
    hours: float  # replica-hours, at most


BARS = (
    Bar(0, OURS, 6.5, 7.7),
    Bar(0, NO_TARGETS, 12.0, 7.7),
    Bar(1, OURS, 6.5, 7.7),
    Bar(2, OURS, 6.5, 7.7),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.policy_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the page instead of writing it")
    check = parser.parse_args().check
    with Pool(2) as pool:
        tables = pool.map(_rows, range(len(scenarios())), chunksize=1)
        wrong = pool.map(_wrong, WRONG)
    made = _section(tables, wrong)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    problems = list(_broken(tables))
    if check and before + made + after != page:
        problems.append(f"{PAGE.name}: its table is not what the policy does now; run make simulate-table")
    if not check:
        PAGE.write_text(before + made + after)
    for problem in problems:
        print(f"policy table: {problem}", file=sys.stderr)
    return 1 if problems else 0


def spec() -> Autoscaling:
    body = {
        "kind": "TTSService",
        "metadata": {"name": "simulated", "namespace": "default", "uid": "simulated"},
        "spec": {"model": {"source": "HostPath", "hostPath": "/"}, "autoscaling": {"maxReplicas": 16}},
    }
    return parse(body, OperatorDefaults(has_prometheus=True)).autoscaling


def _rows(number: int) -> list[Row]:
    return _named(number, None)


def _wrong(policy: str) -> Row:
    return _named(0, [policy])[0]


def _named(number: int, names: Sequence[str] | None) -> list[Row]:
    """Without the timelines: they are not printed, and would travel between processes."""
    scenario = scenarios()[number]
    return compare(scenario, spec()) if names is None else compare(scenario, spec(), names=names)


def _section(tables: Sequence[Sequence[Row]], wrong: Sequence[Row]) -> str:
    lines = [BEGIN, markdown(tables).rstrip(), "", "A wrong target in the first situation:", ""]
    lines += ["| target | late or refused | replica-hours | peak |", "|---|---|---|---|"]
    for row in wrong:
        figures = row.figures
        name = row.policy.removeprefix(f"{OURS}, target ")
        lines.append(
            f"| {name} | {figures['badPercent']:.1f} % | {figures['replicaHours']:.1f} | {figures['peak']:.0f} |"
        )
    return "\n".join([*lines, END])


def _broken(tables: Sequence[Sequence[Row]]) -> list[str]:
    problems = []
    for bar in BARS:
        row = next(row for row in tables[bar.situation] if row.policy == bar.policy)
        figures: Mapping[str, float] = row.figures
        if figures["badPercent"] > bar.percent or figures["replicaHours"] > bar.hours:
            told = f"{figures['badPercent']:.2f} % at {figures['replicaHours']:.2f} replica-hours"
            problems.append(f"{row.scenario}, {row.policy}: {told}; the bar is {bar.percent} % at {bar.hours}")
    for rows in tables:
        others = [row for row in rows if row.policy in OTHERS]
        if all(is_dominated(row, others) for row in rows if row.policy in (OURS, NO_TARGETS)):
            problems.append(f"{rows[0].scenario}: another policy is better in both, lateness and cost")
    return problems


if __name__ == "__main__":
    sys.exit(main())
