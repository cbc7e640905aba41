"""`chattts-operator simulate`: from flags to a run, and from runs to a table, JSON or a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ...spec import InvalidSpec, OperatorDefaults, TTSServiceSpec, parse
from ..rules import Promise
from . import loads
from .autoscalers import Autoscaler, Ours
from .curve import Curve, CurveError, of_engine_report
from .loads import Load, LoadError
from .outcome import Outcome
from .plot import PlotError, plot
from .scenarios import OURS, POLICIES, compare, scenarios
from .table import markdown, text
from .world import Setting, run

EXIT_USAGE = 2
ASSUMED_BODY: Mapping[str, Any] = {
    "metadata": {"name": "simulated", "namespace": "default", "uid": "simulated"},
    "spec": {"model": {"source": "HostPath", "hostPath": "/"}},
}


@dataclass(frozen=True, slots=True)
class Given:
    """What the cluster and Prometheus told, where they were asked (`--what-if`, `--from-prometheus`)."""

    body: Mapping[str, Any] | None = None
    load: Load | None = None
    curve: Curve | None = None
    replicas: int | None = None
    cold_start: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--spec", type=Path, help="a TTSService as YAML (default: a TTSService without targets)")
    add("--load", default="step", help=f"{', '.join(loads.SHAPES)}, or a CSV file with the columns seconds and rps")
    add("--low", type=float, default=10, help="requests per second at rest (10)")
    add("--high", type=float, default=60, help="requests per second at most (60)")
    add("--seconds", type=float, help="length of the run (3600; of a CSV file: its own)")
    add("--what-if", metavar="NAME", help="a live TTSService: what its spec would have done with what was asked of it")
    add("--from-prometheus", metavar="NAME", help="only the load of that TTSService, with --spec")
    add("-n", "--namespace", default="default", help="of NAME (default)")
    add("--prometheus-url", metavar="URL", help="where the history is; also CHATTTS_OPERATOR_PROMETHEUS_URL")
    add("--range", type=_duration, default=7 * 86400.0, metavar="7d", help="of the history: 90m, 24h, 7d (7d)")
    add("--t0", type=float, help="seconds of a request alone, without its share (0.25)")
    add("--t1", type=float, help="seconds more for each request at a time (0.05)")
    add("--batch", type=int, help="requests at a time (8)")
    add("--batcher", action="store_true", help="a batch begins when the last has ended; else requests join at once")
    add("--service-curve", type=Path, metavar="JSON", help="what make bench-engine wrote, instead of t0, t1, batch")
    add("--arm", default="ours, bfloat16", help="of that file (ours, bfloat16)")
    add("--audio-seconds", type=float, default=4.0, help="mean audio of a request, for that file (4)")
    add("--max-wait", type=float, help="predicted wait in seconds beyond which the server refuses (of the spec)")
    add("--cold-start", type=float, help="seconds from scheduled to Ready (90)")
    add("--replicas", type=int, help="at the start (minReplicas)")
    add("--gpus", type=int, help="pods that find a place (any number)")
    add("--retries", type=int, default=0, help="of a client that was refused (0)")
    add("--price", type=float, help="of a replica-hour")
    add("--seeds", type=_seeds, default=(1,), metavar="1,2,3", help="one run for each (1)")
    add("--compare", action="store_true", help="beside it the rule alone, an HPA on p99, one on QPS, and KEDA")
    add("--json", action="store_true", help="figures and timelines instead of a table")
    add("--plot", type=Path, metavar="FILE", help="replicas, load and p99 over time (needs matplotlib)")
    add("--table", action="store_true", help="only the table of docs/autoscaling.md, as Markdown (minutes)")


def main(options: argparse.Namespace, given: Given) -> int:
    try:
        if options.table:
            spec = replace(_spec(options, given).autoscaling, max_replicas=16)
            print(markdown(compare(scenario, spec) for scenario in scenarios()), end="")
            return 0
        outcomes = simulate(options, given)
        _show(options, outcomes, _spec(options, given))
    except (InvalidSpec, LoadError, CurveError, PlotError, OSError, yaml.YAMLError, json.JSONDecodeError) as error:
        print(f"chattts-operator simulate: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def simulate(options: argparse.Namespace, given: Given) -> dict[str, list[Outcome]]:
    spec = _spec(options, given)
    load = given.load or _load(options)
    setting = _setting(options, given, spec)
    wanted: dict[str, Callable[[], Autoscaler]] = {OURS: lambda: Ours(spec.autoscaling, OURS)}
    if options.compare:
        qps = spec.autoscaling.qps_per_replica or calibrated_qps(setting)
        others = {name: make for name, make in POLICIES.items() if not name.startswith(OURS)}
        wanted |= {name: partial(make, spec.autoscaling, qps) for name, make in others.items()}
    return {
        name: [run(load, make(), replace(setting, seed=seed)) for seed in options.seeds]
        for name, make in wanted.items()
    }


def calibrated_qps(setting: Setting) -> float:
    """What one replica answers within the promise: others need a target where ours learns one."""
    from ..calibrate import answerable

    return answerable(setting.curve, setting.promise.milliseconds / 1000, setting.max_wait).qps


def _spec(options: argparse.Namespace, given: Given) -> TTSServiceSpec:
    body = dict(given.body or ASSUMED_BODY)
    if options.spec is not None:
        loaded = yaml.safe_load(options.spec.read_text())
        if not isinstance(loaded, dict) or not isinstance(loaded.get("metadata"), dict):
            raise InvalidSpec([f"{options.spec}: is no TTSService"])
        body = loaded
    defaults = {"name": "simulated", "namespace": options.namespace, "uid": "simulated"}
    body = {**body, "kind": "TTSService", "metadata": defaults | body["metadata"]}
    return parse(body, OperatorDefaults(has_prometheus=True))


def _load(options: argparse.Namespace) -> Load:
    if options.load in loads.SHAPES:
        return loads.SHAPES[options.load](options.low, options.high, options.seconds or 3600)
    path = Path(options.load)
    if not path.exists():
        raise LoadError(f"--load {options.load}: neither {', '.join(loads.SHAPES)} nor a file")
    with path.open(newline="") as lines:
        load = loads.trace(path.name, lines)
    return replace(load, seconds=min(load.seconds, options.seconds or load.seconds))


def _curve(options: argparse.Namespace, given: Given, spec: TTSServiceSpec) -> Curve:
    if options.service_curve is not None:
        report = json.loads(options.service_curve.read_text())
        return of_engine_report(report, options.arm, options.audio_seconds)
    usual = given.curve or Curve(batch=spec.server.max_batch_size or Curve().batch)
    told = {name: getattr(options, name) for name in ("t0", "t1", "batch") if getattr(options, name) is not None}
    return replace(usual, slots=not options.batcher, **told)


def _setting(options: argparse.Namespace, given: Given, spec: TTSServiceSpec) -> Setting:
    cold_start = options.cold_start if options.cold_start is not None else given.cold_start
    replicas = options.replicas or given.replicas or spec.autoscaling.min_replicas
    return Setting(
        curve=_curve(options, given, spec),
        promise=Promise.of(spec.autoscaling),
        max_wait=options.max_wait or spec.server.max_queue_wait_milliseconds / 1000,
        cold_start=Setting().cold_start if cold_start is None else cold_start,
        replicas=spec.autoscaling.clamp(replicas),
        gpus=options.gpus,
        retries=options.retries,
        scrape_seconds=spec.monitoring.interval_seconds,
        price=options.price,
    )


def _show(options: argparse.Namespace, outcomes: Mapping[str, list[Outcome]], spec: TTSServiceSpec) -> None:
    firsts = [runs[0] for runs in outcomes.values()]
    if options.plot is not None:
        plot(firsts, spec.autoscaling.p99_milliseconds / 1000, options.plot)
    if options.json:
        print(json.dumps([one.as_json() for runs in outcomes.values() for one in runs]))
        return
    print(f"{firsts[0].load}: {firsts[0].requests} requests in {firsts[0].seconds:.0f} s")
    print(text(outcomes))


def _seeds(value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split(","))


def _duration(value: str) -> float:
    """90m, 24h, 7d in seconds."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(value[-1:])
    if unit is None or not value[:-1].isdigit() or int(value[:-1]) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} must be a number and a unit, such as 90m, 24h or 7d")
    return float(value[:-1]) * unit
