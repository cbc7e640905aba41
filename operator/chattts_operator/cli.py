"""The commands of `chattts-operator`: flags, logging and exit status. Knows nothing of Kubernetes."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields

from . import __version__
from .config import PREFIX, Config, ConfigError, load

EXIT_CONFIG = 78  # EX_CONFIG


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _run(options: argparse.Namespace) -> int:
    try:
        config = load(os.environ, {setting.name: getattr(options, setting.name) for setting in fields(Config)})
    except ConfigError as error:
        print(f"chattts-operator: {error}", file=sys.stderr)
        return EXIT_CONFIG
    _set_up_logging(config.log_format)
    from .main import run  # after the checks: kopf takes its time to import

    return asyncio.run(run(config))


def _tool(name: str) -> Callable[[argparse.Namespace], int]:
    """For people at a terminal; imported when asked for, so that the operator itself does not carry it."""

    def command(options: argparse.Namespace) -> int:
        from . import tools

        return asyncio.run(tools.COMMANDS[name](options))

    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chattts-operator", description="Runs ChatTTS services on Kubernetes.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="watch TTSServices and keep them as they say")
    run.set_defaults(command=_run)
    for setting in fields(Config):
        flag = "--" + setting.name.replace("_", "-")
        run.add_argument(flag, dest=setting.name, help=f"also {PREFIX}{setting.name.upper()}")
    for name, add_arguments, text in TOOLS:
        tool = commands.add_parser(name, help=text, description=text)
        tool.set_defaults(command=_tool(name))
        add_arguments(tool)
    return parser


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    from .autoscaling.simulation.command import add_arguments

    add_arguments(parser)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the TTSService")
    parser.add_argument("-n", "--namespace", default="default", help="of the TTSService (default)")


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", required=True, help="http://host[:port] of one pod (kubectl port-forward pod/NAME 8000)")
    add("--p99-milliseconds", type=int, default=1200, help="the promise (1200)")
    add("--max-wait", type=float, default=3.0, help="server.maxQueueWaitMilliseconds in seconds (3)")
    add("--clients", default="1,2,4,8,16,32", help="at a time, one step each, until the pod is full")
    add("--step-seconds", type=float, default=15.0, help="measured at each step (15)")
    add("--most-requests", type=int, default=5000, help="all in all (5000)")
    add("--text", action="append", help="what to speak; several times for a mix")
    add("--json", action="store_true", help="figures instead of a table")


TOOLS: tuple[tuple[str, Callable[[argparse.ArgumentParser], None], str], ...] = (
    ("simulate", _add_simulate, "what a spec would do with a load, beside other autoscalers"),
    ("explain", _add_explain, "why a TTSService has as many replicas as it has"),
    ("calibrate", _add_calibrate, "what one pod carries, as lines for the spec"),
)


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
