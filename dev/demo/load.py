"""Load from inside the cluster: bench/ as a pod of the operator's image, followed line by line."""

import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dev.cluster import Cluster

BENCH = Path(__file__).parents[2] / "bench"
FILES = "bench-files"


class Load:
    """One load pod, gone at the end of its `with`. `lines`: what it printed, parsed; `summary` comes at its end."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, module: str, arguments: Sequence[str], image: str
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self._cluster, self._namespace, self.name = cluster, namespace, name
        self._delete()  # one of an earlier run
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(_pod(name, module, arguments, image)))
        cluster.kubectl(
            "wait", "-n", namespace, f"pod/{name}", "--for=jsonpath={.status.phase}=Running", "--timeout=60s"
        )
        self._logs = subprocess.Popen(
            cluster.kubectl_command("logs", "-n", namespace, "-f", name),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logs.terminate()
        self._reader.join()
        self._logs.communicate()
        self._delete("--wait=false")

    @property
    def summary(self) -> dict[str, Any] | None:
        """The generator's own last line."""
        return next((line["summary"] for line in reversed(self.lines) if "summary" in line), None)

    def stop(self) -> dict[str, Any]:
        """Stop sending, let what is under way end, return the summary; RuntimeError where the pod gave none."""
        self._delete("--grace-period=60", "--timeout=90s")
        return self.wait(90)

    def wait(self, timeout: float) -> dict[str, Any]:
        """Wait for the generator's own end, at most `timeout` seconds."""
        self._reader.join(timeout)
        if self.summary is None:
            raise RuntimeError(f"load pod {self.name} ended without a summary; its last lines: {self.lines[-3:]}")
        return self.summary

    def _delete(self, *how: str) -> None:
        self._cluster.kubectl("delete", "pod", "-n", self._namespace, self.name, "--ignore-not-found", *how)

    def _read(self) -> None:
        assert self._logs.stdout is not None
        for line in self._logs.stdout:
            if line.startswith("{"):
                self.lines.append(json.loads(line))


def provide_files(cluster: Cluster, namespace: str) -> None:
    """Put bench/*.py into a ConfigMap, so that the generator that runs is the one of this checkout."""
    data = {path.name: path.read_text() for path in sorted(BENCH.glob("*.py"))}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": FILES}, "data": data}
    cluster.kubectl("apply", "-n", namespace, "--server-side", "-f", "-", stdin=json.dumps(config_map))


def _pod(name: str, module: str, arguments: Sequence[str], image: str) -> dict[str, Any]:
    container = {
        "name": "load",
        "image": image,
        "command": ["python3", "-m", module, *arguments],
        "workingDir": "/opt/load",
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "bench", "mountPath": "/opt/load/bench", "readOnly": True}],
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 60,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "bench", "configMap": {"name": FILES}}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "load"}},
        "spec": spec,
    }
