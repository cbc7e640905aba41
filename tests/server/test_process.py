"""The server as a process: signals, exit codes, and what it loads. Beside each fault stands the run without it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent


class Server:
    """A child process; its log is read line by line."""

    def __init__(self, argv, **environment):
        usual = {"CHATTTS_HOST": "127.0.0.1", "CHATTTS_PORT": "0", "CHATTTS_METRICS_PORT": "0", "CHATTTS_DEVICE": "cpu"}
        self.process = subprocess.Popen(
            argv, env={**os.environ, **usual, **environment}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.log = []
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._reader.start()
        self._port = None

    @property
    def url(self):
        if self._port is None:
            self._port = self.line("listening")["port"]
        return f"http://127.0.0.1:{self._port}"

    def line(self, message, seconds=60):
        for _ in range(int(seconds / 0.02)):
            for line in list(self.log):
                if line.startswith("{") and (record := json.loads(line))["message"] == message:
                    return record
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"{message!r} is not in {self.log}")

    def post(self, **body):
        return httpx.post(self.url + "/tts", json=body, timeout=30)

    def inflight(self, wanted, seconds=10):
        """Waits until so many requests are admitted."""
        url = f"http://127.0.0.1:{self.line('listening')['metrics_port']}/metrics"
        for _ in range(int(seconds / 0.02)):
            values = dict(line.rsplit(" ", 1) for line in httpx.get(url).text.splitlines() if not line.startswith("#"))
            found = float(values["chattts_inflight_requests"])
            if found == wanted:
                return
            time.sleep(0.02)
        raise AssertionError(f"{found} requests are in flight instead of {wanted}")

    def wait(self, seconds=20):
        code = self.process.wait(seconds)
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


@pytest.fixture
def start(hollow):
    servers = []

    def make(*flags, **environment):
        argv = [sys.executable, str(HERE / "fake_server.py"), *flags]
        servers.append(Server(argv, CHATTTS_MODEL=str(hollow), **environment))
        return servers[-1]

    yield make
    for server in servers:
        server.end()


def in_threads(calls):
    answers = []
    threads = [threading.Thread(target=lambda call=call: answers.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    return threads, answers


def test_sigterm_finishes_what_is_in_flight_and_exits_0(start):
    server = start("--step-seconds", "0.02")
    server.line("engine ready")
    threads, answers = in_threads([lambda: server.post(text="好", max_seconds=1)] * 6)
    server.inflight(6)
    server.process.send_signal(signal.SIGTERM)
    assert server.line("draining")["inflight"] == 6
    assert httpx.get(server.url + "/readyz").status_code == 503
    assert server.post(text="好").status_code == 503
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert {len(answer.content) for answer in answers} == {44 + 2 * 23808}
    assert server.wait() == 0


def cut(server):
    """A long request that will not live to its end: broken off, or answered with an error."""

    def call():
        try:
            assert server.post(text="好", max_seconds=20).status_code >= 500
        except httpx.TransportError:
            pass

    return call


def test_a_second_sigterm_ends_at_once(start):
    server = start("--step-seconds", "0.05")
    server.line("engine ready")
    threads, _ = in_threads([cut(server)])
    server.inflight(1)
    server.process.send_signal(signal.SIGTERM)
    server.line("draining")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait(3) == 128 + signal.SIGTERM
    threads[0].join()


def test_the_drain_has_a_limit(start):
    server = start("--step-seconds", "0.05", CHATTTS_DRAIN_SECONDS="0.5")
    server.line("engine ready")
    threads, _ = in_threads([cut(server)])
    server.inflight(1)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait(10) == 0
    assert server.line("drain ended by its limit")["inflight"] == 1
    threads[0].join()


def test_an_engine_that_cannot_start_ends_the_server_with_its_code(start):
    assert start("--exit", "78").wait() == 78


def test_a_bad_setting_is_one_line_and_78(hollow):
    run = subprocess.run(
        [sys.executable, "-m", "chattts_server", "serve", "--device", "tpu"],
        env={**os.environ, "CHATTTS_MODEL": str(hollow)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 78
    assert run.stderr == "chattts-server: CHATTTS_DEVICE has the value 'tpu'; it must be auto, cuda or cpu\n"


def test_the_http_process_imports_no_torch():
    program = (
        "import sys, chattts_server.serve, chattts_server.cli, chattts_server.fetch\n"
        "heavy = {'torch', 'ChatTTS', 'transformers', 'numba', 'vocos'} & set(sys.modules)\n"
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
