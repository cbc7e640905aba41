"""The PromQL of every signal, once as recording rules and once as the direct form. Texts only; sends nothing.

`namespace` and `tts_service` are target labels, put there by the PodMonitor or the scrape configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..spec import Autoscaling

STEP_SECONDS = 15  # of the rule group; the breach rule counts samples on this grid
BAD_SHARE = 0.01  # more than this is "p99 of what was asked for is over the target"
BY = "sum by (namespace, tts_service)"
ON = "on (namespace, tts_service)"
PROMISE_LABEL = "promise"

P99 = "chattts:infer_duration_seconds:p99_1m"
OFFERED = "chattts:infer_rate:1m"
OFFERED_5M = "chattts:infer_rate:5m"
OFFERED_30S = "newest"  # never recorded: it would be a rule interval old
COMPLETED = "chattts:infer_completed_rate:1m"
REFUSED = "chattts:infer_refused_rate:1m"
BAD_RATIO = "chattts:slo_bad_ratio:1m"
OVER = "chattts:slo_over"
BREACH = "chattts:slo_breach:2m"
INFLIGHT = "chattts:inflight:avg1m"
AGE = "chattts:metrics_age_seconds"
REPORTING = "chattts:pods_reporting"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a breach is for one service. Services with the same promise share one direct expression."""

    milliseconds: int = 1200
    sustained_seconds: int = 120
    min_samples: int = 50
    latency_signal: str = "Duration"

    @classmethod
    def of(cls, spec: Autoscaling) -> Promise:
        return cls(spec.p99_milliseconds, spec.sustained_seconds, spec.min_samples, spec.latency_signal)

    def __str__(self) -> str:
        return f"{self.milliseconds}ms-{self.sustained_seconds}s-{self.min_samples}-{self.latency_signal}"

    @property
    def histogram(self) -> tuple[str, str]:
        """Metric and matcher. A streamed answer lasts as long as its reader wants, so Duration leaves it out."""
        if self.latency_signal == "FirstAudio":
            return "chattts_first_audio_seconds", ""
        return "chattts_infer_duration_seconds", 'delivery!="stream"'

    @property
    def bound(self) -> str:
        """The histogram's `le`, written as the server and Prometheus write it: 1.2, 2.0."""
        return repr(self.milliseconds / 1000)

    @property
    def steps(self) -> int:
        return -(-self.sustained_seconds // STEP_SECONDS)


def matchers(*parts: str) -> str:
    kept = [part for part in parts if part]
    return "{" + ",".join(kept) + "}" if kept else ""


def selector_of(namespace: str, name: str) -> str:
    return f'namespace="{namespace}",tts_service="{name}"'


def p99(promise: Promise, selector: str = "") -> str:
    metric, only = promise.histogram
    buckets = f"rate({metric}_bucket{matchers(only, selector)}[1m])"
    return f"histogram_quantile(0.99, sum by (namespace, tts_service, le) ({buckets}))"


def offered(window: str, selector: str = "") -> str:
    """What was asked for, refused requests included; invalid ones are no load."""
    only = 'outcome!="invalid"'
    return f"{BY} (rate(chattts_infer_total{matchers(only, selector)}[{window}]))"


def refused(window: str, selector: str = "") -> str:
    only = 'outcome="refused"'
    return f"{BY} (rate(chattts_infer_total{matchers(only, selector)}[{window}]))"


def completed(selector: str = "") -> str:
    """All that was finished: every delivery, and long texts too where there are any."""
    short = f"{BY} (rate(chattts_infer_duration_seconds_count{matchers(selector)}[1m]))"
    long = f"{BY} (rate(chattts_infer_long_duration_seconds_count{matchers(selector)}[1m]))"
    return f"{short} + ({long} or 0 * {short})"


def judged(promise: Promise, window: str, selector: str = "") -> str:
    """Requests that the promise is measured on: finished in time or late, and refused, which is late."""
    metric, only = promise.histogram
    finished = f"{BY} (rate({metric}_count{matchers(only, selector)}[{window}]))"
    return f"({finished} + {refused(window, selector)})"


def bad_ratio(promise: Promise, selector: str = "") -> str:
    metric, only = promise.histogram
    bound = f'le="{promise.bound}"'
    in_time = f"{BY} (rate({metric}_bucket{matchers(only, bound, selector)}[1m]))"
    return f"1 - {in_time} / {judged(promise, '1m', selector)}"


def breach(promise: Promise, selector: str = "") -> str:
    """On the recorded grid: window = sustained + half a step, and every sample there, so no gap counts as a yes."""
    steps = promise.steps
    window = f"{OVER}{matchers(selector)}[{steps * STEP_SECONDS + STEP_SECONDS // 2}s]"
    return _breach(promise, window, selector)


def direct_breach(promise: Promise, selector: str = "") -> str:
    """The same without recorded series: steps + 1 points of the 15 s grid, which span `sustained` and never less."""
    window_seconds = (promise.steps + 1) * STEP_SECONDS
    over = f"({bad_ratio(promise, selector)} > bool {BAD_SHARE})"
    return _breach(promise, f"{over}[{window_seconds}s:{STEP_SECONDS}s]", selector)


def _breach(promise: Promise, window: str, selector: str) -> str:
    sustained = promise.sustained_seconds
    return (
        f"(min_over_time({window}) == bool 1)"
        f" * (count_over_time({window}) >= bool {promise.steps + 1})"
        f" * {ON} ({judged(promise, f'{sustained}s', selector)} * {sustained} >= bool {promise.min_samples})"
    )


def inflight(selector: str = "") -> str:
    return f"{BY} (avg_over_time(chattts_inflight_requests{matchers(selector)}[1m]))"


def age(selector: str = "") -> str:
    return f"time() - max by (namespace, tts_service) (timestamp(chattts_infer_total{matchers(selector)}))"


def reporting(selector: str = "") -> str:
    """Pods, not series."""
    samples = f"count_over_time(chattts_inflight_requests{matchers(selector)}[1m])"
    return f"count by (namespace, tts_service) (max by (namespace, tts_service, pod) ({samples}) >= 2)"


def rule_group(name: str, promise: Promise, selector: str = "") -> dict[str, Any]:
    """One group, so that the rules run in this order; the plain rules file is the same without a selector."""
    bound = matchers(selector)
    records = [
        (OFFERED, offered("1m", selector)),
        (OFFERED_5M, offered("5m", selector)),
        (COMPLETED, completed(selector)),
        (REFUSED, refused("1m", selector)),
        (P99, p99(promise, selector)),
        (BAD_RATIO, bad_ratio(promise, selector)),
        (OVER, f"{BAD_RATIO}{bound} > bool {BAD_SHARE}"),
        (BREACH, breach(promise, selector)),
        (INFLIGHT, inflight(selector)),
        (AGE, age(selector)),
        (REPORTING, reporting(selector)),
    ]
    rules: list[dict[str, Any]] = [{"record": record, "expr": expression} for record, expression in records]
    return {"name": name, "interval": f"{STEP_SECONDS}s", "rules": [*rules, _alert(promise, bound)]}


def _alert(promise: Promise, bound: str) -> dict[str, Any]:
    service = "{{ $labels.namespace }}/{{ $labels.tts_service }}"
    return {
        "alert": "ChatTTSLatencySLOBreach",
        "expr": f"{BREACH}{bound} == 1",
        "labels": {"severity": "warning"},
        "annotations": {
            "summary": f"{service} breaks its latency promise",
            "description": (
                f"More than 1 % of the requests to {service} took longer than {promise.milliseconds / 1000:g} s "
                f"or were refused, for {promise.sustained_seconds} s without a gap."
            ),
        },
    }


def queries(promises: Iterable[Promise]) -> dict[str, str]:
    """One query per signal for all services: the recorded series, and the direct form where there is none.

    Direct forms that depend on a promise carry it as a label, so that a service never takes another promise's answer.
    The age is always asked directly: a recorded age stands still when the rules stop. So is the newest load.
    """
    known = sorted(set(promises), key=str)

    def per_promise(record: str, direct: list[str]) -> str:
        tagged = (
            f'label_replace({expression}, "{PROMISE_LABEL}", "{promise}", "", "")'
            for promise, expression in zip(known, direct, strict=True)
        )
        return " or ".join([record, *tagged])

    return {
        OFFERED: f"{OFFERED} or {offered('1m')}",
        OFFERED_5M: f"{OFFERED_5M} or {offered('5m')}",
        OFFERED_30S: offered("30s"),
        COMPLETED: f"{COMPLETED} or {completed()}",
        REFUSED: f"{REFUSED} or {refused('1m')}",
        INFLIGHT: f"{INFLIGHT} or {inflight()}",
        REPORTING: f"{REPORTING} or {reporting()}",
        AGE: age(),
        P99: per_promise(P99, [p99(promise) for promise in known]),
        BAD_RATIO: per_promise(BAD_RATIO, [bad_ratio(promise) for promise in known]),
        BREACH: per_promise(BREACH, [direct_breach(promise) for promise in known]),
    }
