"""Settings: every bad value stops the start with key, value and rule in one line."""

import argparse

import pytest

from chattts_server.config import OPTIONS, add_flags, read_settings
from chattts_server.errors import CannotStart


def test_defaults_are_the_documented_ones(hollow):
    settings = read_settings({"CHATTTS_MODEL": str(hollow)})
    assert (settings.device, settings.dtype, settings.max_batch_size) == ("auto", "auto", None)
    assert (settings.max_queue_wait_milliseconds, settings.request_timeout_seconds) == (3000, 30)
    assert (settings.slo_milliseconds, settings.slo_max_audio_seconds, settings.drain_seconds) == (1200, 15, 40)
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8000, 9090)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CHATTTS_DEVICE", "gpu"), ("CHATTTS_DTYPE", "int4"), ("CHATTTS_MAX_BATCH_SIZE", "0"),
        ("CHATTTS_MAX_BATCH_SIZE", "many"), ("CHATTTS_MAX_QUEUE_WAIT_MILLISECONDS", "-1"),
        ("CHATTTS_REQUEST_TIMEOUT_SECONDS", "nan"), ("CHATTTS_SLO_MILLISECONDS", "1.2"),
        ("CHATTTS_PORT", "70000"), ("CHATTTS_LOG_FORMAT", "xml"), ("CHATTTS_MODEL", "/nowhere"),
    ],
)  # fmt: skip
def test_a_bad_value_names_key_value_and_rule(hollow, key, value):
    with pytest.raises(CannotStart) as caught:
        read_settings({"CHATTTS_MODEL": str(hollow), key: value})
    line = str(caught.value)
    rule = next(option.rule for option in OPTIONS if option.key == key)
    assert key in line
    assert repr(value) in line
    assert rule in line
    assert "\n" not in line


def test_a_model_must_be_named():
    with pytest.raises(CannotStart, match="CHATTTS_MODEL"):
        read_settings({})


def test_a_flag_wins_over_the_environment(hollow):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = vars(parser.parse_args(["--max-queue-wait-milliseconds", "500"]))
    environment = {"CHATTTS_MODEL": str(hollow), "CHATTTS_MAX_QUEUE_WAIT_MILLISECONDS": "100", "CHATTTS_PORT": "1"}
    settings = read_settings(environment, flags)
    assert (settings.max_queue_wait_milliseconds, settings.port) == (500, 1)
