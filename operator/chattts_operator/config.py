"""The operator's own settings: one frozen object from flags and environment; it knows nothing of Kubernetes objects.

A bad value stops the start with key, value and rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

PREFIX = "CHATTTS_OPERATOR_"
DEFAULT_SCALING_INTERVAL_SECONDS = 10.0


class ConfigError(ValueError):
    """A setting that cannot be used; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Config:
    prometheus_url: str = ""  # empty: no Prometheus, autoscaling.mode defaults to None
    default_server_image: str = ""  # repository:tag for services that name no image
    default_server_cuda_version: str = ""  # that default_server_image was built with, for the driver gate
    image_registries: tuple[str, ...] = ()  # what images of a TTSService must begin with; empty: any
    check_drivers: bool = True  # list nodes, for the driver gate
    monitoring_labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    watch_namespaces: tuple[str, ...] = ()  # empty: all
    service_selector: str = ""  # labels that a TTSService must have to be ours, as a=b,c=d; empty: all
    namespace: str = "default"  # where the Lease lives
    lease_name: str = "chattts-operator"  # two operators side by side need two
    identity: str = ""  # holder of the Lease; empty: host name
    scaling_interval_seconds: float = DEFAULT_SCALING_INTERVAL_SECONDS
    resync_seconds: float = 600.0
    workers: int = 4
    log_format: str = "json"
    health_port: int = 8080
    metrics_port: int = 9090


def load(environ: Mapping[str, str], flags: Mapping[str, str | None]) -> Config:
    """A flag wins over its environment variable, an empty variable counts as unset."""
    values: dict[str, Any] = {}
    for setting in fields(Config):
        variable = PREFIX + setting.name.upper()
        text, source = flags.get(setting.name), "--" + setting.name.replace("_", "-")
        if text is None:
            text, source = environ.get(variable), variable
        if not text:
            continue
        parse, rule = PARSERS[setting.name]
        try:
            values[setting.name] = parse(text)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{source}={text!r}: must be {rule}") from error
    return Config(**values)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(text)
    return text.rstrip("/")


def _labels(text: str) -> Mapping[str, str]:
    value = json.loads(text)
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(text)
    return MappingProxyType(value)


def _selector(text: str) -> str:
    """Equality only, so that one line tells whether a TTSService is ours."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(re.fullmatch(r"[\w./-]+=[\w.-]*", part, re.ASCII) for part in parts):
        raise ValueError(text)
    return ",".join(sorted(parts))


def _yes_or_no(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _cuda(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,2}\.[0-9]{1,2}", text):
        raise ValueError(text)
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _between(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> int | float:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _log_format(text: str) -> str:
    return {"json": "json", "text": "text"}[text]


PARSERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "prometheus_url": (_url, "an http or https address, for example http://prometheus.monitoring.svc:9090"),
    "default_server_image": (str, "an image name"),
    "default_server_cuda_version": (_cuda, "a CUDA version, for example 13.0"),
    "image_registries": (_names, "prefixes of images, separated by commas, for example registry.example.com/"),
    "check_drivers": (_yes_or_no, "true or false"),
    "service_selector": (_selector, "labels as a=b,c=d"),
    "lease_name": (str, "the name of a Lease"),
    "monitoring_labels": (_labels, 'a JSON object of texts, for example {"release": "prometheus"}'),
    "watch_namespaces": (_names, "names of namespaces, separated by commas"),
    "namespace": (str, "the name of a namespace"),
    "identity": (str, "a name"),
    "scaling_interval_seconds": (_between(float, 1, 60), "a number of seconds from 1 to 60"),
    "resync_seconds": (_between(float, 10, 86400), "a number of seconds from 10 to 86400"),
    "workers": (_between(int, 1, 64), "a whole number from 1 to 64"),
    "log_format": (_log_format, "json or text"),
    "health_port": (_between(int, 0, 65535), "a port number"),
    "metrics_port": (_between(int, 0, 65535), "a port number"),
}
