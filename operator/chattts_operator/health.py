"""/healthz and /readyz for the kubelet, from a thread of its own, so that a stuck event loop is seen too.

It judges nothing: the loop reports its problems every second, and silence is a problem.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SILENT_SECONDS = 30.0


class Health:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reported_at = clock()
        self._problems: tuple[str, ...] = ()
        self._ready = False

    def report(self, problems: tuple[str, ...], ready: bool) -> None:
        self._problems, self._ready, self._reported_at = problems, ready, self._clock()

    def answer(self, path: str) -> tuple[int, str]:
        silent = self._clock() - self._reported_at
        if path == "/healthz":
            problems = self._problems
            if silent > SILENT_SECONDS:
                problems = (*problems, f"the event loop is silent for {silent:.0f} s")
            return (500, "\n".join(problems)) if problems else (200, "ok")
        if path == "/readyz":
            return (200, "ok") if self._ready else (503, "not ready")
        return 404, "not found"

    def serve(self, port: int) -> Callable[[], None]:
        """Returns what ends it. Port 0: not served."""
        if not port:
            return lambda: None
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = health.answer(self.path)
                body = (text + "\n").encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes are no news."""

        server = ThreadingHTTPServer(("", port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop
