"""timeline.png: p99, requests per second and replicas over time, with the 1.2 s line and the decisions marked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from dev.demo.summary import SLO_SECONDS
from dev.demo.watch import Sample

INK, RED, BLUE, GREY = "#1f2933", "#c2410c", "#1d4ed8", "#9aa5b1"


def timeline(path: Path, samples: Sequence[Sample], start: float, marks: Mapping[str, float], title: str) -> None:
    """Draw the run. `marks`: label -> Unix time of what happened; `start`: Unix time that is 0 on the axis."""
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(11, 8), sharex=True, height_ratios=(3, 2, 2), layout="constrained"
    )
    t = [s.at - start for s in samples]
    top.plot(t, [_gap(s.p99) for s in samples], color=INK, label="p99 over 1 minute")
    top.axhline(SLO_SECONDS, color=RED, linestyle="--", linewidth=1, label="SLO 1.2 s")
    top.set_ylabel("p99, s")
    middle.plot(t, [_gap(s.offered) for s in samples], color=BLUE, label="offered")
    middle.plot(t, [_gap(s.refused) for s in samples], color=RED, label="refused (429)")
    middle.set_ylabel("requests/s")
    bottom.step(
        t,
        [_gap(s.replicas) for s in samples],
        where="post",
        color=GREY,
        linewidth=3,
        label="replicas asked for",
    )
    bottom.step(t, [_gap(s.ready) for s in samples], where="post", color=INK, label="replicas Ready")
    bottom.set_ylabel("replicas")
    bottom.set_xlabel("seconds after the load's start")
    bottom.yaxis.get_major_locator().set_params(integer=True)
    for axis in (top, middle, bottom):
        axis.set_ylim(bottom=0)
        axis.grid(color="#e4e7eb", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="center right", frameon=False, fontsize=9)
    for row, (label, at) in enumerate(marks.items()):
        for axis in (top, middle, bottom):
            axis.axvline(at - start, color=GREY, linewidth=0.8)
        top.annotate(
            label,
            (at - start, 1 - 0.07 * (row % 4)),
            xycoords=("data", "axes fraction"),
            xytext=(3, -8),
            textcoords="offset points",
            fontsize=8,
        )
    bottom.margins(x=0.08)  # room for the last label
    figure.suptitle(title[0].upper() + title[1:], fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _gap(value: float | None) -> float:
    """A gap in the line where the value is unknown."""
    return float("nan") if value is None else value
