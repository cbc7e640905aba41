"""Wiring of the commands for people: fetches what they need of the cluster, Prometheus and one pod."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import api
from .autoscaling import calibrate, closed_loop, memory
from .autoscaling.explain import explain
from .autoscaling.prometheus import Prometheus, PrometheusError
from .autoscaling.simulation import command, live
from .autoscaling.simulation.command import Given
from .autoscaling.simulation.curve import Curve, CurveError
from .autoscaling.simulation.loads import LoadError
from .config import PREFIX
from .kube import Kube, KubeError, kubeconfig
from .spec import InvalidSpec, OperatorDefaults, parse

EXIT_USAGE = 2
EXIT_UNKNOWN = 1
DEFAULT_TEXTS = (
    "今天天气很好，我们去公园走走吧。",
    "The quick brown fox jumps over the lazy dog.",
    "你好，欢迎使用语音合成。",
)


class ToolError(Exception):
    """What was asked for cannot be had; the text is one line for the user."""


async def _explain(options: argparse.Namespace) -> int:
    key = api.Key(options.namespace, options.name)
    try:
        body = await _service(key)
        spec = parse(body, OperatorDefaults(has_prometheus=True))
    except (ToolError, KubeError, InvalidSpec) as error:
        return _failed("explain", error)
    print(explain(spec, body, time.time()), end="")
    return 0


async def _simulate(options: argparse.Namespace) -> int:
    try:
        given = await _given(options, os.environ)
    except (ToolError, KubeError, PrometheusError, InvalidSpec, LoadError, CurveError) as error:
        return _failed("simulate", error)
    return command.main(options, given)


async def _given(options: argparse.Namespace, environ: Mapping[str, str]) -> Given:
    name = options.what_if or options.from_prometheus
    if name is None:
        return Given()
    url = options.prometheus_url or environ.get(f"{PREFIX}PROMETHEUS_URL")
    if not url:
        raise ToolError(f"--prometheus-url or {PREFIX}PROMETHEUS_URL is needed to read what was asked of {name}")
    key, end = api.Key(options.namespace, name), time.time()
    start = end - options.range
    body = await _service(key) if options.what_if else None
    async with contextlib.AsyncExitStack() as stack:
        prometheus = Prometheus(url.rstrip("/"))
        stack.push_async_callback(prometheus.close)
        load = await live.load_of(prometheus, key, start, end)
        curve = None
        if options.service_curve is None and (options.t0 is None or options.t1 is None):
            curve = await live.curve_of(prometheus, key, start, end, options.batch or Curve().batch)
    state = memory.state_of(((body or {}).get("status") or {}).get("autoscaling") or {})
    cold_start = None if state.cold_start is None else state.cold_start.seconds
    return Given(body, load, curve, None, cold_start)


async def _calibrate(options: argparse.Namespace) -> int:
    slo = options.p99_milliseconds / 1000
    try:
        bounds = closed_loop.Bounds(
            clients=_rising(options.clients), seconds=options.step_seconds, requests=options.most_requests
        )
        steps = await closed_loop.measure(options.url, options.text or DEFAULT_TEXTS, bounds, _tell)
        targets = calibrate.targets_of(steps, slo, options.max_wait)
    except (ToolError, closed_loop.UrlError, CurveError) as error:
        return _failed("calibrate", error)
    if options.json:
        print(json.dumps({"steps": [asdict(step) for step in steps], "targets": asdict(targets)}))
    else:
        print(calibrate.report(steps, targets, slo))
    return 0


def _tell(step: calibrate.Step) -> None:
    print(f"{step.clients} clients: {step.rps:.2f} answered a second", file=sys.stderr)


def _rising(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ToolError(f"--clients {text!r}: must be rising numbers from 1 to 256, such as 1,2,4") from error
    if sorted(set(values)) != list(values) or not 1 <= values[0] <= values[-1] <= 256:
        raise ToolError(f"--clients {text!r}: must be rising numbers from 1 to 256, such as 1,2,4")
    return values


async def _service(key: api.Key) -> api.Body:
    _check_kubeconfig()
    kube = await Kube.connect(_read_only, lambda _verb, _status: None, os.environ)
    try:
        body = await kube.get(api.TTS_SERVICE, *key)
    finally:
        await kube.close()
    if body is None:
        raise ToolError(f"there is no TTSService {key}")
    return body


def _check_kubeconfig() -> None:
    file = kubeconfig(os.environ)
    if file is not None and not Path(file).exists():
        raise ToolError(f"there is no {file}: set KUBECONFIG")


def _read_only() -> None:
    raise ToolError("commands for people do not write: this is a bug")


def _failed(name: str, error: Exception) -> int:
    print(f"chattts-operator {name}: {error}", file=sys.stderr)
    return EXIT_USAGE if isinstance(error, ToolError) else EXIT_UNKNOWN


COMMANDS: Mapping[str, Callable[[argparse.Namespace], Coroutine[Any, Any, int]]] = {
    "simulate": _simulate,
    "explain": _explain,
    "calibrate": _calibrate,
}
