"""The settings: read once, frozen, each an environment variable and a flag. Knows nothing that they configure."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from chattts_server.engine.checkpoint import FILES
from chattts_server.engine.nouns import DTYPES
from chattts_server.errors import CannotStart

PREFIX = "CHATTTS_"


@dataclass(frozen=True, slots=True)
class Settings:
    model: Path
    device: str
    dtype: str
    max_batch_size: int | None  # None: the engine chooses
    max_queue_wait_milliseconds: int
    request_timeout_seconds: float
    max_whole_audio_seconds: float
    key_audio_seconds_per_minute: float | None  # None: no bound
    slo_milliseconds: int
    slo_max_audio_seconds: float
    drain_seconds: float
    host: str
    port: int
    metrics_port: int
    log_format: str
    voices: Path | None
    voices_config_map: str | None
    api_keys: Path | None
    docs: bool


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: how its text is read, its default, and what it trades."""

    name: str
    read: Callable[[str], Any]
    default: str | None  # None: it must be given
    rule: str  # what a value must be, in words
    help: str

    @property
    def key(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return read


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = float(text)
        if not (math.isfinite(number) and low <= number <= high):
            raise ValueError(text)
        return number

    return read


def _model_folder(text: str) -> Path:
    folder = Path(text)
    if not text or not all((folder / name).is_file() for name in FILES):
        raise ValueError(text)
    return folder


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "" else read(text)


def _existing(is_there: Callable[[Path], bool]) -> Callable[[str], Path]:
    def read(text: str) -> Path:
        if not is_there(Path(text)):
            raise ValueError(text)
        return Path(text)

    return read


PORTS = "a port, 0 (any free one) to 65535"
OPTIONS: tuple[Option, ...] = (
    Option("model", _model_folder, None, "a folder with the nine files of asset/", "folder that contains asset/"),
    Option("device", _one_of("auto", "cuda", "cpu"), "auto", "auto, cuda or cpu",
           "auto means CUDA; the CPU computes only when asked for"),
    Option("dtype", _one_of(*DTYPES), "auto", ", ".join(DTYPES),
           "numbers of the model's products; auto: float16 on CUDA, bfloat16 on a CPU that has it, else float32"),
    Option("max_batch_size", _optional(_integer(1, 1024)), "", "an integer from 1 to 1024, or nothing",
           "rows of a batch; more rows give throughput and cost memory; unset: the engine chooses"),
    Option("max_queue_wait_milliseconds", _integer(1, 600_000), "3000", "an integer from 1 to 600000",
           "refuse (429) when the predicted wait is longer; low values refuse early, high ones let requests wait"),
    Option("request_timeout_seconds", _number(0.1, 3600), "30", "seconds from 0.1 to 3600",
           "from arrival to the first audio; then 504"),
    Option("max_whole_audio_seconds", _number(1, 36_000), "600", "audio seconds from 1 to 36000",
           "longer audio is not made whole, in memory (400), but streamed"),
    Option("key_audio_seconds_per_minute", _optional(_number(1, 1e9)), "", "audio seconds from 1 to 1e9, or nothing",
           "budget of each API key, all clients without a key being one; unset: no bound"),
    Option("slo_milliseconds", _integer(1, 600_000), "1200", "an integer from 1 to 600000",
           "the promised duration; becomes a bound of chattts_infer_duration_seconds"),
    Option("slo_max_audio_seconds", _number(0.1, 3600), "15", "seconds from 0.1 to 3600",
           "longer audio is measured apart and is not part of the promise"),
    Option("drain_seconds", _number(0, 3600), "40", "seconds from 0 to 3600",
           "how long SIGTERM waits for running requests"),
    Option("host", str, "0.0.0.0", "an address", "address to listen on"),
    Option("port", _integer(0, 65535), "8000", PORTS, "the API"),
    Option("metrics_port", _integer(0, 65535), "9090", PORTS, "/metrics"),
    Option("log_format", _one_of("json", "text"), "json", "json or text",
           "one JSON object per line, or lines for people"),
    Option("voices", _optional(_existing(Path.is_dir)), "", "a folder, or nothing",
           "named voices, a file each: a ConfigMap's mount, or a claim that all replicas share"),
    Option("voices_config_map", _optional(str), "", "the name of a ConfigMap, or nothing",
           "the ConfigMap that is mounted there: voices cannot be added through the API"),
    Option("api_keys", _optional(_existing(Path.exists)), "", "a file or a folder that exists, or nothing",
           "a file of lines `NAME: KEY`, or a folder (a Secret's mount) of a file per key; read again as it changes"),
    Option("docs", lambda text: _one_of("on", "off")(text) == "on", "on", "on or off",
           "/docs and /openapi.json"),
)  # fmt: skip
assert [option.name for option in OPTIONS] == [field.name for field in fields(Settings)]


def add_flags(parser: argparse.ArgumentParser) -> None:
    for option in OPTIONS:
        default = "" if option.default in (None, "") else f" (default {option.default})"
        parser.add_argument(
            option.flag, dest=option.name, metavar="VALUE", help=f"{option.help}{default}; {option.key}"
        )


def read_settings(environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Settings:
    """A flag wins over the environment. Raises CannotStart with key, value and rule of the first bad one."""
    values: dict[str, Any] = {}
    for option in OPTIONS:
        flag = (flags or {}).get(option.name)
        text = flag if flag is not None else environment.get(option.key, option.default)
        if text is None:
            raise CannotStart(f"{option.key} (or {option.flag}) is not set; it must be {option.rule}")
        try:
            values[option.name] = option.read(text)
        except ValueError:
            raise CannotStart(f"{option.key} has the value {text!r}; it must be {option.rule}") from None
    if values["voices_config_map"] and not values["voices"]:
        raise CannotStart(f"{PREFIX}VOICES_CONFIG_MAP is set and {PREFIX}VOICES is not: where is it mounted?")
    return Settings(**values)
