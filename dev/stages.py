"""Run the project's checks stage by stage; print each stage's time beside its budget, and what was skipped and why.

Knows the commands, not what they check. A stage over its budget is reported, not failed: machines differ.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "docs" / "reports"
TAIL_LINES = 30
BIN = Path(sys.executable).parent
PYTEST = (sys.executable, "-m", "pytest", "-q")


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of `make test`. `budget` in seconds, on two cores with warm caches."""

    name: str
    groups: tuple[str, ...]
    command: tuple[str, ...]
    budget: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage ended. `skipped` holds pytest's own reasons, line by line."""

    stage: Stage
    seconds: float
    status: int
    counts: str
    skipped: tuple[str, ...]
    tail: tuple[str, ...]


FAST = "not engine and not cluster and not long and not gpu"
UNIT = ("tests/server", "tests/operator", "tests/bench", "tests/cluster", "tests/dev")
STAGES = (
    # First, because later stages need promtool, helm and kube-apiserver: 25 minutes where the cache is empty.
    Stage("tools", ("all",), (sys.executable, "-m", "dev.cluster", "tools"), 10),
    Stage("lint", ("all", "lint"), (str(BIN / "ruff"), "check", "."), 5),
    Stage("format", ("all", "lint"), (str(BIN / "ruff"), "format", "--check", "."), 5),
    Stage("layers", ("all", "lint"), (str(BIN / "lint-imports"),), 15),
    Stage("types", ("all", "types"), (str(BIN / "mypy"),), 60),
    Stage("unit", ("all", "unit"), (*PYTEST, "-n", "2", "--dist", "loadfile", *UNIT, "-m", FAST), 240),
    Stage("policy", ("all",), (sys.executable, "-m", "dev.policy_table", "--check"), 90),
    Stage("packaging", ("all",), (*PYTEST, "tests/packaging"), 30),
    Stage("rules", ("all",), (*PYTEST, "tests/promql"), 15),
    Stage("chart", ("all",), (*PYTEST, "tests/chart"), 30),
    Stage("api server", ("all",), (*PYTEST, "tests/operator", "-m", "cluster and not long"), 75),
    # The minutes of the memory test on one core, everything else on the other.
    Stage(
        "engine",
        ("all",),
        (*PYTEST, "-n", "2", "--dist", "loadfile", "tests/server", "-m", "engine and not long"),
        400,
    ),
    Stage("page", ("all",), (*PYTEST, "tests/page"), 60),
    Stage("end to end", ("all", "e2e"), (*PYTEST, "-s", "tests/e2e", "-m", "not long"), 900),
    Stage("engine, long", ("long",), (*PYTEST, "-s", "tests/server", "-m", "engine and long"), 2400),
    Stage("fuzz, long", ("long",), (*PYTEST, "-s", "tests/fuzz", "-m", "long"), 300),
    Stage("policy, long", ("long",), (*PYTEST, "-n", "2", "tests/operator", "-m", "long and not cluster"), 300),
    Stage("api server, long", ("long",), (*PYTEST, "-s", "tests/operator", "-m", "cluster and long"), 1500),
    Stage("long", ("long",), (*PYTEST, "-s", "tests/e2e", "-m", "long"), 1800),
)


def main() -> int:
    """Run the stages of one group in order; every stage runs, so that one report shows all that is broken."""
    parser = argparse.ArgumentParser(prog="python -m dev.stages", description=__doc__)
    parser.add_argument("group", choices=sorted({group for stage in STAGES for group in stage.groups}))
    group = parser.parse_args().group
    outcomes = [_run(stage) for stage in STAGES if group in stage.groups]
    _report(outcomes)
    if group == "long":
        _write_report(outcomes, datetime.now(UTC))
    return 1 if any(outcome.status for outcome in outcomes) else 0


def _write_report(outcomes: list[Outcome], now: datetime, folder: Path = REPORTS) -> None:
    """What the long forms showed, to be committed: stage, result, time, and the last lines of each."""
    path = folder / f"{now:%Y-%m-%d}-test-long.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(("git", "rev-parse", "--short", "HEAD"), capture_output=True, text=True, check=True).stdout
    rows = [
        f"| {o.stage.name} | {'ok' if o.status == 0 else 'FAILED'} | {o.seconds:.0f} s | {o.counts} |" for o in outcomes
    ]
    told = [f"\n## {o.stage.name}\n\n```\n" + "\n".join(o.tail) + "\n```" for o in outcomes]
    head = [f"# make test-long, {now:%Y-%m-%d %H:%M} UTC, commit {commit.strip()}, {os.cpu_count()} cores", ""]
    path.write_text("\n".join([*head, "| stage | result | time | counts |", "|---|---|---|---|", *rows, *told]) + "\n")
    print(f"=== report: {path}")


def _run(stage: Stage) -> Outcome:
    print(f"\n=== {stage.name} (budget {stage.budget} s): {' '.join(_shown(stage.command))}", flush=True)
    started = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(stage.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    seconds = time.monotonic() - started
    counts = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "")
    skipped = tuple(line for line in lines if line.startswith("SKIPPED"))
    return Outcome(stage, seconds, process.returncode, counts.strip("= "), skipped, tuple(lines[-TAIL_LINES:]))


def _shown(command: tuple[str, ...]) -> list[str]:
    return [Path(word).name if word.startswith("/") else word for word in command]


def _report(outcomes: list[Outcome]) -> None:
    print("\n=== what ran")
    for outcome in outcomes:
        verdict = "ok" if outcome.status == 0 else f"FAILED ({outcome.status})"
        over = "" if outcome.seconds <= outcome.stage.budget else "  over budget"
        took = f"{outcome.seconds:7.1f} s of {outcome.stage.budget:4d} s{over}"
        print(f"  {outcome.stage.name:<12} {verdict:<11} {took}  {outcome.counts}")
    skipped = [line for outcome in outcomes for line in outcome.skipped]
    print("=== skipped: " + ("nothing" if not skipped else ""))
    for line in skipped:
        print(f"  {line}")
    print("=== not in make test: tests marked `long` (make test-long) and `gpu` (a machine with CUDA)")
    total = sum(outcome.seconds for outcome in outcomes)
    passed = sum(outcome.status == 0 for outcome in outcomes)
    print(f"=== {total:.0f} s in all; stages: {passed} passed, {len(outcomes) - passed} failed", flush=True)


if __name__ == "__main__":
    sys.exit(main())
