"""Row R19: schemathesis makes requests from our own OpenAPI, in all its phases. The engine hums."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.test_process import start  # noqa: F401  the fixture

pytestmark = pytest.mark.engine
CHECKS = "not_a_server_error,negative_data_rejection,content_type_conformance,response_schema_conformance"


# A deadline of a millisecond is honestly answered with 504.
CONFIG = "[checks.not_a_server_error]\nexpected-statuses = ['2xx', '3xx', '4xx', '504']\n"


def attacked(server, examples, folder):
    """schemathesis's report, and by how many bytes the server has grown."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    url, pid = server.url, server.process.pid
    server.line("engine ready")
    for _ in range(20):
        assert server.post(text="好", max_seconds=1).status_code == 200
    before = resident_bytes(pid)
    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run",
            f"{url}/openapi.json", "--checks", CHECKS, "--seed", "7",
            "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(examples), "--no-color",
            "--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "20",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run, resident_bytes(pid) - before


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def is_well(server, run, grown, least):
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    made = re.search(r"(\d+) generated", run.stdout)
    assert made is not None, run.stdout[-3000:]
    assert int(made[1]) >= least
    print(f"{made[1]} requests, grown by {grown / 2**20:.1f} MiB")
    errors = [line for line in server.log if '"status": 5' in line and '"status": 504' not in line]
    assert not errors
    assert grown < 50 * 2**20
    assert server.process.poll() is None
    assert httpx.get(server.url + "/readyz").status_code == 200
    assert server.post(text="好", max_seconds=1).status_code == 200
    server.inflight(0)


def test_r19_requests_made_from_the_openapi(start, tmp_path):  # noqa: F811
    server = start()
    is_well(server, *attacked(server, 25, tmp_path), least=200)


@pytest.mark.long
def test_r19_many_requests_made_from_the_openapi(start, tmp_path):  # noqa: F811
    server = start()
    is_well(server, *attacked(server, 1000, tmp_path), least=3000)
