"""`chattts-server serve | fetch | make-checkpoint | doctor`. Reads the command line and exits with the right code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from chattts_server import __version__, config
from chattts_server.engine.nouns import DTYPES
from chattts_server.errors import CannotStart

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except CannotStart as error:
        print(f"chattts-server: {error}", file=sys.stderr)
        return EXIT_CONFIG
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chattts-server", description="ChatTTS speech over HTTP.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="listen for requests; every flag is an environment variable as well")
    config.add_flags(serve)
    serve.set_defaults(run=_serve)

    make = commands.add_parser("make-checkpoint", help="write a random checkpoint in the real asset layout")
    make.add_argument("out", type=Path, metavar="OUT")
    make.add_argument("--size", choices=("tiny", "full"), default="tiny", help="full has the released sizes (1.2 GB)")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--end", choices=("never", "random"), default="never", help="may a row end before its limit?")
    make.set_defaults(run=_make_checkpoint)

    fetch = commands.add_parser("fetch", help="download one pinned revision of the weights and check its digests")
    fetch.add_argument("--repository", required=True, metavar="OWNER/NAME")
    fetch.add_argument("--revision", required=True, metavar="COMMIT", help="40 hex digits")
    fetch.add_argument("--to", required=True, type=Path, metavar="FOLDER")
    fetch.add_argument("--endpoint", help="another hub, e.g. a mirror; default: HF_ENDPOINT or the public one")
    fetch.set_defaults(run=_fetch)

    doctor = commands.add_parser("doctor", help="say what this machine and these weights are good for")
    doctor.add_argument("--model", required=True, type=Path, metavar="FOLDER", help="the weights: it holds asset/")
    doctor.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    doctor.add_argument("--dtype", choices=DTYPES, default="auto", help="numbers of the products")
    doctor.add_argument("--compare-native", action="store_true", help="also compare with ChatTTS's own, in float32")
    doctor.set_defaults(run=_doctor)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    settings = config.read_settings(os.environ, vars(arguments))
    from chattts_server import logs
    from chattts_server.serve import serve

    logs.set_up(settings.log_format)
    return serve(settings)


def _fetch(arguments: argparse.Namespace) -> int:
    # Read by huggingface_hub while it is imported. Its own state goes beside what it downloads: there may be no HOME.
    os.environ["HF_HUB_OFFLINE"] = "0"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # lines instead of bars: this runs in a Job's log
    os.environ.setdefault("HF_HOME", str(arguments.to / ".hub"))
    from chattts_server.fetch import FetchError, fetch

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        fetch(arguments.repository, arguments.revision, arguments.to, arguments.endpoint, say)
    except (FetchError, OSError) as error:
        print(f"chattts-server: {error}", file=sys.stderr)
        return 1
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("LOGNAME", "chattts")  # torch asks for the user's name; a bare uid has none
    from chattts_server.engine.checkpoint import CannotServe
    from chattts_server.engine.doctor import examine  # imports torch; serve never does

    try:
        good = examine(arguments.model, arguments.device, arguments.dtype, arguments.compare_native, print)
    except CannotServe as error:
        print(f"chattts-server: {error}", file=sys.stderr)
        return EXIT_CONFIG
    print("doctor     all is well" if good else "doctor     see above")
    return 0 if good else 1


def _make_checkpoint(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("LOGNAME", "chattts")  # torch asks for the user's name; a bare uid has none
    from chattts_server.engine.random_checkpoint import make_checkpoint  # imports torch; serve never does

    make_checkpoint(arguments.out, arguments.size, arguments.seed, arguments.end, lambda name: print(f"wrote {name}"))
    print(f"random checkpoint ({arguments.size}, seed {arguments.seed}) in {arguments.out}: the sound is noise")
    return 0
