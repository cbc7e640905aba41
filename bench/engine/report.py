"""The result as JSON for programs, Markdown for people and a plot for tired people. Knows no measuring."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

# What each ratio is, and what was promised of it.
MEANING = {
    "throughput_fp32": ("audio seconds per second, saturated: ours in float32 over the batcher", ">= 1.25"),
    "throughput_bf16": ("the same, ours in bfloat16", ">= 3.0"),
    "throughput_fp16": ("the same, ours in float16", ">= 4.0"),
    "throughput_int8": ("the same, ours in int8", ">= 3.3"),
    "streamed_over_offline": ("audio seconds per second: ours streamed over ours decoded once", ">= 0.85"),
    "steps_b1_fp32": ("steps per second of one row: ours in float32 over native", ""),
    "steps_b1_bf16": ("the same, ours in bfloat16", ">= 1.5"),
    "steps_b1_fp16": ("the same, ours in float16", ">= 8.0"),
    "steps_b1_int8": ("the same, ours in int8", ""),
    "first_audio_p99": ("first audio p99, open loop: native streaming over ours (times shorter)", ">= 5"),
    "first_audio_p99_over_batcher": ("the same, the batcher over ours", ">= 20"),
    "first_audio_p99_over_batcher_int8": ("the same, ours in int8", ">= 20"),
    "cold_start": ("process start to the first second of audio: ours over native", "<= 0.33"),
}


def write_report(result: dict[str, Any], json_path: Path, markdown_path: Path) -> None:
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(json.dumps(result, indent=1) + "\n")
    plot_path = markdown_path.parent / "images" / "engine.png"
    plot_path.parent.mkdir(parents=True, exist_ok=True)
    _plot(result, plot_path)
    markdown_path.write_text(_markdown(result, f"images/{plot_path.name}"))


def _markdown(result: dict[str, Any], plot: str) -> str:
    count = result["requests"]
    slots = ", ".join(f"{rows} ({arm.removeprefix('ours, ')})" for arm, rows in result["slots"].items())
    lines = [
        "# Benchmarks of the engine",
        "",
        "Written by `make bench-engine`; the numbers are in `bench/results/engine.json`. Every arm runs on the same",
        "random checkpoint with forced lengths, interleaved in one run, and ends in PCM. Absolute figures are this",
        "machine's; on a GPU nothing has been measured yet." if result["device"] == "cpu" else "machine's.",
        "",
        f"{result['measured_at']}; {result['cpu']}; {result['machine']}; device {result['device']};",
        f"checkpoint {result['checkpoint']}; {result['repeats']} repeats of {count['saturated']} requests at once, and",
        f"of {count['open_loop']} in the open loop (their p99 is the worst), of 32 to 160 steps. Slots of ours:",
        f"{slots}; the batcher takes 8 requests or waits 80 ms, as its recipe says.",
        "",
        "| ratio | value | 95 % interval | bar | what it is |",
        "|---|---|---|---|---|",
    ]
    for name, value in result["ratios"].items():
        low, high = result["intervals"][name]
        meaning, bar = MEANING[name]
        lines.append(f"| `{name}` | {value:.2f} | {low:.2f} to {high:.2f} | {bar} | {meaning} |")
    lines += ["", f"![each repeat of each arm]({plot})", "", *_step_table(result)]
    for what, arms in result["arms"].items():
        lines += [f"## {what[0].upper()}{what[1:]}", "", "| arm | median | all repeats |", "|---|---|---|"]
        for arm, values in arms.items():
            shown = ", ".join(f"{value:.3g}" for value in values)
            lines.append(f"| {arm} | {statistics.median(values):.3g} | {shown} |")
        lines.append("")
    return "\n".join(lines)


def _step_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "## One step",
        "",
        "Of eight rows with some fifty positions behind them, in turns with its matrix products alone. `memory` is how",
        f"long reading the weights would take at this machine's {result['memory_gb_per_second']:.0f} GB/s (a sum over",
        "256 MiB). [What a step costs](step-cost.md) says where the rest goes.",
        "",
        "| arm | step, ms | products, ms | step / products | weights, MB | memory, ms | GFLOP | operations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, cost in result["step"].items():
        memory = 1e3 * cost["weight_bytes"] / 1e9 / result["memory_gb_per_second"]
        ratio = cost["step_ms"] / cost["products_ms"]
        lines.append(
            f"| {arm} | {cost['step_ms']:.1f} | {cost['products_ms']:.1f} | {ratio:.2f} | "
            f"{cost['weight_bytes'] / 1e6:.0f} | {memory:.1f} | {cost['flops'] / 1e9:.1f} | {cost['operations']} |"
        )
    return [*lines, ""]


def _plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(result["arms"]) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(13, 2.6 * rows), constrained_layout=True, squeeze=False)
    for panel, (what, arms) in zip(panels.flat, result["arms"].items(), strict=False):
        names = list(arms)
        panel.barh(names, [statistics.median(arms[name]) for name in names], color="#9ecae1")
        for place, name in enumerate(names):
            panel.plot(arms[name], [place] * len(arms[name]), "o", color="#08519c", markersize=4)
        panel.set_title(what, fontsize=9)
        panel.set_xlim(left=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
