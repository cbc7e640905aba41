"""Names, bounds, and what may enter the histogram."""

import pytest

from chattts_server.engine.nouns import Phase, StepReport
from chattts_server.metrics import Abandoned, Accepted, Broken, EngineReady, Invalid, Load, Metrics, Refused, Served

NAMES = [
    "chattts_infer_total",
    "chattts_infer_duration_seconds_bucket",
    "chattts_infer_long_duration_seconds_bucket",
    "chattts_first_audio_seconds_bucket",
    "chattts_queue_wait_seconds_bucket",
    "chattts_engine_step_seconds_bucket",
    "chattts_batch_rows_bucket",
    "chattts_inflight_requests",
    "chattts_queued_audio_seconds",
    "chattts_audio_seconds_total",
    "chattts_requests_rejected_total",
    "chattts_rows_failed_total",
    "chattts_stream_underruns_total",
    "chattts_text_dropped_characters_total",
    "chattts_cold_start_seconds",
    "chattts_device_memory_bytes",
    "chattts_build_info",
]
DURATION = "chattts_infer_duration_seconds"


@pytest.fixture
def metrics():
    return Metrics(slo_seconds=1.2, slo_max_audio_seconds=15.0)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def served(duration=0.5, audio=1.0, delivery="full"):
    return Served(delivery, duration, 0.3, 0.1, audio)


def test_every_documented_name_exists(metrics):
    metrics.observe(served())
    metrics.observe(StepReport(8, 47, 0.4, 0.5, 8.0, 0, {"resident": 10}))
    metrics.observe(Phase("load", 1.0))
    metrics.observe(EngineReady("cpu", "float32", "own"))
    found = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert set(NAMES) <= found
    assert not any(name.endswith("_created") for name in found)


def test_outcomes_are_zero_before_the_first_request(metrics):
    for outcome in ("accepted", "refused", "invalid"):
        assert value(metrics, "chattts_infer_total", outcome=outcome) == 0
    assert value(metrics, f"{DURATION}_count", delivery="full") == 0


def test_who_left_is_late_only_where_the_promise_was_broken(metrics):
    metrics.observe(Abandoned("full", 1.1, 1.0))
    assert value(metrics, f"{DURATION}_count", delivery="full") == 0
    metrics.observe(Abandoned("full", 2.0, 1.0))
    assert value(metrics, f"{DURATION}_count", delivery="full") == 1
    assert value(metrics, f"{DURATION}_bucket", delivery="full", le="1.2") == 0


@pytest.mark.parametrize("slo", [1.2, 0.75])
def test_the_promised_duration_is_a_bound(slo):
    metrics = Metrics(slo, 15.0)
    metrics.observe(served(duration=slo))
    metrics.observe(served(duration=slo + 0.001))
    assert value(metrics, f"{DURATION}_bucket", delivery="full", le=str(slo)) == 1


def test_a_refused_request_is_counted_and_never_in_the_histogram(metrics):
    metrics.observe(Refused("queue_full"))
    metrics.observe(Invalid())
    assert value(metrics, "chattts_infer_total", outcome="refused") == 1
    assert value(metrics, "chattts_infer_total", outcome="invalid") == 1
    assert value(metrics, "chattts_requests_rejected_total", reason="queue_full") == 1
    assert value(metrics, f"{DURATION}_count", delivery="full") == 0
    metrics.observe(Accepted(3))
    metrics.observe(served())
    assert value(metrics, "chattts_infer_total", outcome="accepted") == 1
    assert value(metrics, f"{DURATION}_count", delivery="full") == 1
    assert value(metrics, "chattts_text_dropped_characters_total") == 3


def test_long_audio_is_measured_apart(metrics):
    metrics.observe(served(duration=20.0, audio=15.1, delivery="stream"))
    metrics.observe(served(duration=2.0, audio=15.0, delivery="stream"))
    assert value(metrics, f"{DURATION}_count", delivery="stream") == 1
    assert value(metrics, "chattts_infer_long_duration_seconds_count", delivery="stream") == 1


def test_a_broken_request_is_late_however_soon_it_broke(metrics):
    metrics.observe(Broken("full", 0.01, 1.0))
    assert value(metrics, f"{DURATION}_count", delivery="full") == 1
    assert value(metrics, f"{DURATION}_bucket", delivery="full", le="1.2") == 0


def test_load_is_what_admission_says(metrics):
    metrics.observe(Load(3, 4.5))
    assert value(metrics, "chattts_inflight_requests") == 3
    assert value(metrics, "chattts_queued_audio_seconds") == 4.5


@pytest.mark.parametrize(("first_audio", "late"), [(None, 1), (0.3, 0)])
def test_a_request_that_broke_before_its_first_audio_is_late_there_too(metrics, first_audio, late):
    metrics.observe(Broken("stream", 0.5, 1.0, first_audio))
    assert value(metrics, "chattts_first_audio_seconds_count") == 1
    assert value(metrics, "chattts_first_audio_seconds_bucket", le="1.2") == 1 - late
