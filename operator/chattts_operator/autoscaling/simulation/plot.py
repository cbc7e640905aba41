"""Replicas, load and p99 over time as a picture. The only place that knows matplotlib, which is optional."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .outcome import Outcome

MISSING = "--plot needs matplotlib, which is not installed: pip install matplotlib, or take --json and plot that"


class PlotError(Exception):
    """No picture; the text says why."""


def plot(outcomes: Sequence[Outcome], slo_seconds: float, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError(MISSING) from error
    figure = Figure(figsize=(11, 7), layout="constrained")
    load, replicas, latency = figure.subplots(3, sharex=True)
    first = outcomes[0].timeline
    load.plot([point.time / 60 for point in first], [point.load for point in first], color="black")
    load.set_ylabel("requests per second")
    for outcome in outcomes:
        minutes = [point.time / 60 for point in outcome.timeline]
        drawn = replicas.step(minutes, [point.desired for point in outcome.timeline], where="post")
        replicas.plot(minutes, [point.ready for point in outcome.timeline], ":", color=drawn[0].get_color())
        p99 = [float("nan") if point.p99 is None else point.p99 for point in outcome.timeline]
        label = f"{outcome.policy}: {outcome.bad_percent:.1f} % late or refused, {outcome.replica_hours:.1f} h"
        latency.plot(minutes, p99, color=drawn[0].get_color(), label=label)
    replicas.set_ylabel("replicas (dotted: Ready)")
    latency.axhline(slo_seconds, color="grey", linewidth=0.8)
    latency.set_ylabel("p99, seconds")
    latency.set_xlabel("minutes")
    latency.legend(fontsize="small")
    figure.savefig(path)
