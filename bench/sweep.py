"""10 to 100 clients in a closed loop, by `wrk` and by our own client in turn, against one server. Knows no cluster.

    python -m bench.sweep --report docs/sweep.md           # starts a server with the tiny random checkpoint

Twelve Chinese characters each time: the shape of load of a well-known recipe, whose claims stand beside the figures.
`wrk` is the witness that our client counts right: they must agree on requests a second (exit 1 when they do not).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.capacity import hold
from bench.client import Client, Speech
from bench.own_server import own_server
from bench.plan import number_within
from bench.tally import OK, REJECTED, percentile

TEXT = "今天天气很好我们去公园吧"
CONCURRENCIES = tuple(range(10, 101, 10))
AGREE = 0.05  # of the larger one
WARM_UP_SECONDS = 2.0  # of our client; wrk has none, so its first answers, which met no queue, are among its times
SCRIPT = Path(__file__).with_name("sweep.lua")
# What the recipe says of one T4 and the trained weights; 7.3 requests a second with 60 clients are a mean of 8.2 s.
CLAIMS = (
    "| native, as the recipe measures it | 4.1 | 0.24 | 1.8 | 1,700 |",
    "| tuned, as the recipe claims | 7.3 | 0.13 | 0.9 | 1,100 |",
)


@dataclass(frozen=True, slots=True)
class Held:
    """One concurrency by one client program. Times in seconds; None: not a single answer."""

    qps: float
    p50: float | None
    p99: float | None
    refused: int
    failed: int


@dataclass(frozen=True, slots=True)
class Row:
    clients: int
    ours: Held
    wrk: Held
    memory_bytes: int  # of the server and its engine, after both

    @property
    def apart(self) -> float:
        """The difference in requests a second, as a part of the larger figure."""
        largest = max(self.ours.qps, self.wrk.qps)
        return 0.0 if largest == 0 else abs(self.ours.qps - self.wrk.qps) / largest


async def by_us(url: str, clients: int, seconds: float, max_seconds: float) -> Held:
    client = Client(url, Speech(max_seconds=max_seconds), timeout_seconds=60, keep_alive=True)
    async with contextlib.aclosing(client):
        step = await hold(client, [TEXT], clients, seconds, WARM_UP_SECONDS)
    ordered = sorted(step.tally.latencies)
    refused = step.tally.kinds[REJECTED]
    failed = sum(step.tally.kinds.values()) - refused - step.tally.kinds[OK]
    return Held(step.rps, percentile(ordered, 0.5), percentile(ordered, 0.99), refused, failed)


def by_wrk(url: str, clients: int, seconds: float, max_seconds: float) -> Held:
    """Raises RuntimeError with wrk's words when it fails; FileNotFoundError when it is not installed."""
    body = json.dumps({"text": TEXT, "max_seconds": max_seconds}, ensure_ascii=False)
    command = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{max(1, round(seconds))}s", "--timeout", "60s", "-s"]
    run = subprocess.run(
        [*command, str(SCRIPT), url],
        env={**os.environ, "SWEEP_BODY": body},
        capture_output=True,
        text=True,
        check=False,
    )
    return read_wrk(run.stdout) if run.returncode == 0 else _raise(run.stderr or run.stdout)


def _raise(words: str) -> Held:
    raise RuntimeError(f"wrk failed: {words.strip()}")


def read_wrk(output: str) -> Held:
    line = next((line for line in output.splitlines() if line.startswith("SWEEP ")), None)
    if line is None:
        return _raise(output)
    told = json.loads(line.removeprefix("SWEEP "))
    nobody = told["ok"] == 0
    return Held(
        qps=told["ok"] / told["seconds"],
        p50=None if nobody else told["p50_s"],
        p99=None if nobody else told["p99_s"],
        refused=told["refused"],
        failed=told["other"] + told["errors"],
    )


def resident_bytes(pid: int) -> int:
    """Of a process and its children."""
    task = Path(f"/proc/{pid}/task/{pid}/children")
    own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return own + sum(resident_bytes(int(child)) for child in task.read_text().split())


async def sweep(url: str, pid: int, args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    await by_us(url, 10, args.seconds, args.max_seconds)  # warm
    for number, clients in enumerate(args.concurrency):
        shape = (url, clients, args.seconds, args.max_seconds)
        if number % 2:  # in turn, so that a machine that gets slower favours neither
            ours = await by_us(*shape)
            wrk = await asyncio.to_thread(by_wrk, *shape)
        else:
            wrk = await asyncio.to_thread(by_wrk, *shape)
            ours = await by_us(*shape)
        rows.append(Row(clients, ours, wrk, resident_bytes(pid)))
        print(_line(rows[-1]), flush=True)
    return rows


PAGE = """\
# Client sweep: 10 to 100 clients in a closed loop

Made by `make bench-sweep`, {date}. {about}
A cell: {seconds:g} s of {characters} Chinese characters on `POST /tts`, {max_seconds:g} s of audio; connections stay.
`wrk` (Lua script, one thread) and our own client run in turn on the same server; QPS counts answers of 200. The audio
is kept short so that a cell is long against an answer: of 100 clients each waits for 99 others. `wrk` has no warm-up:
its first answers, which met no queue, are among its times.

| clients | QPS ours | QPS wrk | apart | p50 s | p99 s | wrk p50 s | wrk p99 s | 429 | failed | memory MB |
|---|---|---|---|---|---|---|---|---|---|---|
{lines}

Furthest apart: {apart:.1%}; the bar is {agree:.0%}, and {verdict}.

## Beside the figures that people know
A widely read recipe gives these for 12 characters on one T4. They are its claims, not measurements of ours, and of
another machine, other weights and some 3 s of audio each; the rows are here because its readers look for them. Its 7.3
QPS with 60 clients in a closed loop would mean 8.2 s for each (Little's law), not 0.13 s.

| | QPS | p50 s | p99 s | memory MB |
|---|---|---|---|---|
{claims}
| this run, {clients} clients, {max_seconds:g} s of audio each | {qps:.1f} | {p50:.2f} | {p99:.2f} | {megabytes:,.0f} |
"""


def report(rows: Sequence[Row], about: str, now: datetime, seconds: float, max_seconds: float) -> str:
    """The page docs/sweep.md."""
    best = max(rows, key=lambda row: row.ours.qps)
    return PAGE.format(
        date=f"{now:%Y-%m-%d}",
        about=about,
        seconds=seconds,
        characters=len(TEXT),
        max_seconds=max_seconds,
        lines="\n".join(_line(row) for row in rows),
        apart=max(row.apart for row in rows),
        agree=AGREE,
        verdict="it is met" if all(row.apart <= AGREE for row in rows) else "it is not met by this run",
        claims="\n".join(CLAIMS),
        clients=best.clients,
        qps=best.ours.qps,
        p50=best.ours.p50 or 0.0,
        p99=best.ours.p99 or 0.0,
        megabytes=best.memory_bytes / 1e6,
    )


def _line(row: Row) -> str:
    def told(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds:.3f}"

    ours, wrk = row.ours, row.wrk
    cells = [
        str(row.clients), f"{ours.qps:.1f}", f"{wrk.qps:.1f}", f"{row.apart:.1%}", told(ours.p50), told(ours.p99),
        told(wrk.p50), told(wrk.p99), str(ours.refused + wrk.refused), str(ours.failed + wrk.failed),
        f"{row.memory_bytes / 1e6:,.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.sweep", description="10 to 100 clients, by wrk and by our own client.")
    parser.add_argument("--model", type=Path, help="folder with weights; default: the tiny random checkpoint")
    parser.add_argument("--seconds", type=number_within(1, 600), default=8.0, help="of each cell (default 8)")
    parser.add_argument("--max-seconds", type=number_within(0.1, 600), default=0.3, help="of audio (default 0.3)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=CONCURRENCIES)
    parser.add_argument("--report", type=Path)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    with own_server(args.model, {"MAX_QUEUE_WAIT_MILLISECONDS": "60000"}) as server:
        rows = asyncio.run(sweep(server.url, server.pid, args))
    if args.report is not None:
        weights = "the tiny random checkpoint (noise; its speed is not that of the real weights)"
        engine = f"{server.engine['rows']} rows, {server.engine['dtype']} on {server.engine['device']}"
        about = f"{os.cpu_count()} CPU cores, {engine}, {args.model.name if args.model else weights}."
        page = report(rows, about, datetime.now(UTC), args.seconds, args.max_seconds)
        args.report.write_text(page, encoding="utf-8")
    failed = sum(row.ours.failed + row.wrk.failed for row in rows)
    far = [row.clients for row in rows if row.apart > AGREE]
    if failed or far:
        print(
            f"sweep: {failed} requests failed; apart by more than {AGREE:.0%} at {far or 'no'} clients", file=sys.stderr
        )
    return 1 if failed or far else 0


if __name__ == "__main__":
    sys.exit(main())
