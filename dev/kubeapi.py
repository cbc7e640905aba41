"""Plain HTTP to a cluster, through `kubectl proxy`, which does the authentication of any kubeconfig.

For the demo and the end-to-end tests: reading often by starting `kubectl` each time costs 0.1 s of CPU a call.
Knows paths of the Kubernetes API and Prometheus' query API; knows nothing of TTSServices.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

Json = dict[str, Any]
APPS = "/apis/apps/v1"
CORE = "/api/v1"
CHATTTS = "/apis/chattts.dev/v1alpha1"


def listening(command: Sequence[str]) -> tuple[subprocess.Popen[str], int]:
    """Start a kubectl that listens on loopback; the process and its port. RuntimeError with its words if it ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+)", line)
    if not found:
        process.terminate()
        process.communicate()
        raise RuntimeError(f"{' '.join(command[-3:])} did not start: {line.strip()}")
    return process, int(found[1])


class KubeApi:
    """A running `kubectl proxy` on a free loopback port; close it with `with`."""

    def __init__(self, kubectl: Path, kubeconfig: Path | None) -> None:
        where = ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
        self._proxy, port = listening([str(kubectl), *where, "proxy", "--port=0"])
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._proxy.terminate()
        self._proxy.communicate()

    def get(self, path: str, **params: str) -> Json | None:
        """The object or list at an API path; None where there is none (404)."""
        response = self._http.get(path, params=params)
        if response.status_code == 404:
            return None
        response.raise_for_status()
        body: Json = response.json()
        return body

    def text(self, path: str) -> str:
        """The body of an API path that is not JSON, such as /metrics."""
        return self._http.get(path).raise_for_status().text

    def prometheus(self, query: str) -> list[Json]:
        """The result of an instant query; raises httpx.HTTPError while Prometheus is away."""
        path = f"{CORE}/namespaces/monitoring/services/prometheus-operated:9090/proxy/api/v1/query"
        result: list[Json] = (
            self._http.get(path, params={"query": query}, timeout=10).raise_for_status().json()["data"]["result"]
        )
        return result

    def pods(self, namespace: str, selector: str) -> Sequence[Json]:
        """The pods of a namespace with a label selector; an empty list where there are none."""
        listed = self.get(f"{CORE}/namespaces/{namespace}/pods", labelSelector=selector)
        pods: Sequence[Json] = listed["items"] if listed else []
        return pods
