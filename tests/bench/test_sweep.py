"""The sweep's reading of wrk, its verdict and its page; both client programs on a service that behaves."""

import asyncio
import re
import shutil
from datetime import UTC, datetime

import pytest

from bench.sweep import Held, Row, by_us, by_wrk, read_wrk, report
from tests.bench.fake_service import FakeService, serving

LINE = 'SWEEP {"ok": 50, "refused": 3, "other": 1, "errors": 2, "seconds": 5.0, "p50_s": 0.2, "p99_s": 0.4}\n'


def row(clients=10, ours=10.0, wrk=10.0):
    return Row(clients, Held(ours, 0.5, 0.9, 0, 0), Held(wrk, 0.5, 0.9, 0, 0), 100_000_000)


def test_wrk_is_read_by_its_own_line():
    assert read_wrk("Running 5s test\n" + LINE) == Held(10.0, 0.2, 0.4, refused=3, failed=3)
    assert read_wrk(LINE.replace("50", "0")).p50 is None


def test_a_wrk_that_says_nothing_is_an_error():
    with pytest.raises(RuntimeError, match="unable to connect"):
        read_wrk("unable to connect to 127.0.0.1:1")


@pytest.mark.parametrize(
    ("ours", "wrk", "apart"), [(10, 10, 0.0), (10, 9.6, 0.04), (9, 10, 0.1), (0, 0, 0.0), (0, 5, 1.0)]
)
def test_how_far_apart_they_are(ours, wrk, apart):
    assert row(ours=ours, wrk=wrk).apart == pytest.approx(apart)


def test_the_page_has_a_line_for_each_number_of_clients_and_the_claims():
    page = report([row(n, ours=n / 10) for n in (10, 20)], "2 cores.", datetime(2026, 1, 2, tzinfo=UTC), 5.0, 3.0)
    assert re.findall(r"^\| (\d+) \|", page, re.M) == ["10", "20"]
    assert "| this run, 20 clients, 3 s of audio each | 2.0 |" in page
    assert "7.3" in page
    assert "2026-01-02" in page


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (Debian: apt-get install wrk)")
async def test_both_programs_count_alike():
    """50 ms an answer and 5 clients are 100 requests a second at most."""
    async with serving(FakeService(delay=0.05)) as service:
        ours = await by_us(service.url, 5, 2.0, 1.0)
        wrk = await asyncio.to_thread(by_wrk, service.url, 5, 2.0, 1.0)
    assert 20 < ours.qps <= 101  # fewer on a busy machine; never more
    assert 20 < wrk.qps <= 101
    assert (ours.failed, wrk.failed, wrk.refused) == (0, 0, 0)
