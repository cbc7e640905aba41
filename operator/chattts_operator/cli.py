"""`chattts-operator run`: flags, logging and exit status. Knows nothing of Kubernetes."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import fields

from . import __version__
from .config import PREFIX, Config, ConfigError, load

EXIT_CONFIG = 78  # EX_CONFIG


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        config = load(os.environ, {setting.name: getattr(options, setting.name) for setting in fields(Config)})
    except ConfigError as error:
        print(f"chattts-operator: {error}", file=sys.stderr)
        return EXIT_CONFIG
    _set_up_logging(config.log_format)
    from .main import run  # after the checks: kopf takes its time to import

    return asyncio.run(run(config))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chattts-operator", description="Runs ChatTTS services on Kubernetes.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="watch TTSServices and keep them as they say")
    for setting in fields(Config):
        flag = "--" + setting.name.replace("_", "-")
        run.add_argument(flag, dest=setting.name, help=f"also {PREFIX}{setting.name.upper()}")
    return parser


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _set_up_logging(log_format: str) -> None:
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # it writes a line per event
