"""A real etcd and kube-apiserver on loopback, without nodes: for tests that need the API server's own word.

It knows nothing about the operator. The binaries are those of dev/cluster.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.tools import built

TOKEN = "control-plane-of-a-test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ControlPlane:
    def __init__(self, folder: Path, controllers: bool = False) -> None:
        self.folder = folder
        self.controllers = controllers
        self.port = free_port()
        self.kubeconfig = folder / "kubeconfig"
        self._running: list[subprocess.Popen[bytes]] = []
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def __enter__(self) -> ControlPlane:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """The state is thrown away with the folder, so nobody has to say goodbye."""
        for process in reversed(self._running):
            process.kill()
            process.wait()

    def _start(self) -> None:
        client, peer = free_port(), free_port()
        etcd = f"http://127.0.0.1:{client}"
        key = self.folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        self._spawn(
            built("etcd", "server"),
            "--data-dir",
            self.folder / "etcd",
            "--unsafe-no-fsync",
            "--listen-client-urls",
            etcd,
            "--advertise-client-urls",
            etcd,
            "--listen-peer-urls",
            f"http://127.0.0.1:{peer}",
            log="etcd",
        )
        self._spawn(
            built("kubernetes", "kube-apiserver"),
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certs'}",
            "--advertise-address=127.0.0.1",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--disable-admission-plugins=ServiceAccount",
            log="apiserver",
        )
        self._write_kubeconfig()
        self._wait_ready()
        if self.controllers:
            self._spawn(
                built("kubernetes", "kube-controller-manager"),
                f"--kubeconfig={self.kubeconfig}",
                f"--service-account-private-key-file={key}",
                "--leader-elect=false",
                "--secure-port=0",
                "--controllers=garbage-collector-controller,deployment-controller,replicaset-controller",
                log="controllers",
            )

    @property
    def api_server(self) -> subprocess.Popen[bytes]:
        return self._running[1]

    def _spawn(self, binary: Path, *arguments: object, log: str) -> None:
        with (self.folder / f"{log}.log").open("wb") as output:
            self._running.append(subprocess.Popen([str(binary), *map(str, arguments)], stdout=output, stderr=output))

    def _write_kubeconfig(self) -> None:
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [
                        {
                            "name": "test",
                            "cluster": {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True},
                        }
                    ],
                    "users": [{"name": "test", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                }
            )
        )

    def _wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for process in self._running:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args} ended: see the logs in {self.folder}")
            try:
                status, _ = self.request("GET", "/readyz")
                if status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"the API server is not ready after {seconds} s: see the logs in {self.folder}")

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and decoded answer; never raises for an HTTP status."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=30) as answer:
                status, data = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, data = error.code, error.read()
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data.decode()

    def apply(self, path: str, body: Any, manager: str = "test") -> tuple[int, Any]:
        return self.request("PATCH", f"{path}?fieldManager={manager}&force=true", body, "application/apply-patch+yaml")

    def install_crd(self, crd: Any) -> None:
        name = crd["metadata"]["name"]
        status, answer = self.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}", crd)
        if status not in (200, 201):
            raise RuntimeError(f"the API server refused {name}: {answer}")
        spec = crd["spec"]
        version = next(v["name"] for v in spec["versions"] if v["served"])
        deadline = time.monotonic() + 20
        while self.request("GET", f"/apis/{spec['group']}/{version}/{spec['names']['plural']}")[0] != 200:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not served")
            time.sleep(0.1)
