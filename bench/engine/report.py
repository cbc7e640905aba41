"""The result as JSON for programs, Markdown for people and a plot for tired people. Knows no measuring."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

MEANING = {
    "throughput_fp32": "audio seconds per second, saturated: ours over native behind the batcher",
    "streamed_over_offline": "the same, ours streamed over ours decoded once",
    "steps_b1_fp32": "steps per second of one row: ours over native",
    "first_audio_p99": "first audio p99, open loop: ours over native streaming (smaller is better)",
    "first_audio_p99_over_batcher": "first audio p99, open loop: ours over the batcher (smaller is better)",
    "cold_start": "process start to the first second of audio: ours over native (smaller is better)",
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
    lines = [
        "# Benchmarks of the engine",
        "",
        "Written by `make bench-engine`; the numbers are in `bench/results/engine.json`. Every arm runs on the same",
        "random checkpoint with forced lengths, interleaved in one run, and ends in PCM. Absolute figures are this",
        "machine's.",
        "",
        f"{result['measured_at']}; {result['cpu']}; {result['machine']}; device {result['device']};",
        f"checkpoint {result['checkpoint']}; {result['repeats']} repeats of {count['saturated']} requests at once, and",
        f"of {count['open_loop']} in the open loop (their p99 is the worst), of 32 to 160 steps. Ours has",
        f"{result['slots']} slots; the batcher takes 8 requests or waits 80 ms, as its recipe says.",
        "",
        "| ratio | value | 95 % interval | what it is |",
        "|---|---|---|---|",
    ]
    for name, value in result["ratios"].items():
        low, high = result["intervals"][name]
        lines.append(f"| `{name}` | {value:.2f} | {low:.2f} to {high:.2f} | {MEANING[name]} |")
    lines += ["", f"![each repeat of each arm]({plot})", ""]
    for what, arms in result["arms"].items():
        lines += [f"## {what[0].upper()}{what[1:]}", "", "| arm | median | all repeats |", "|---|---|---|"]
        for arm, values in arms.items():
            shown = ", ".join(f"{value:.3g}" for value in values)
            lines.append(f"| {arm} | {statistics.median(values):.3g} | {shown} |")
        lines.append("")
    return "\n".join(lines)


def _plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(result["arms"]), figsize=(5 * len(result["arms"]), 4), constrained_layout=True)
    for panel, (what, arms) in zip(panels, result["arms"].items(), strict=True):
        names = list(arms)
        panel.barh(names, [statistics.median(arms[name]) for name in names], color="#9ecae1")
        for place, name in enumerate(names):
            panel.plot(arms[name], [place] * len(arms[name]), "o", color="#08519c", markersize=4)
        panel.set_title(what, fontsize=9)
        panel.set_xlim(left=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
