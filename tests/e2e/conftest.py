"""One real cluster for the whole module set: fake GPUs, Prometheus, the chart by Helm. Nothing here is a double."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev import leftovers
from dev.cluster import Cluster
from dev.demo import install
from dev.demo.load import provide_files
from dev.kubeapi import APPS, CHATTTS, KubeApi

GPUS = 6


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of this checkout; one that is already up (make cluster) is used and left as it was."""
    was_up, before = Cluster.is_up(), leftovers.seen()
    cluster = Cluster.up(gpus=GPUS, keep=False)
    try:
        cluster.install_prometheus()
        install.namespaces(cluster)
        install.operator(cluster)
        provide_files(cluster, install.NAMESPACE)
        yield cluster
    finally:
        if not was_up:
            cluster.down()
            left = leftovers_after(before)
            assert left == [], (
                "a process, mount, cgroup or namespace is left; does another cluster run beside this one?"
            )


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[KubeApi]:
    with KubeApi(cluster.kubectl_path, cluster.kubeconfig) as api:
        yield api


@pytest.fixture(scope="session")
def model(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny checkpoint, bound to the claim `demo-model` of the services' namespace."""
    folder = install.checkpoint(tmp_path_factory.mktemp("model"), None)
    cluster.create_volume("demo-model", install.NAMESPACE, folder)
    return folder


class Services:
    """TTSServices made by one test; all are deleted at its end."""

    def __init__(self, cluster: Cluster, api: KubeApi) -> None:
        self._cluster, self._api, self._names = cluster, api, list[str]()

    def create(self, name: str, spec: dict[str, Any] | None = None, **autoscaling: Any) -> None:
        """A copy of the demo's TTSService under another name, with some of its spec replaced from the start."""
        body = install.demo_service(**autoscaling)
        body["metadata"]["name"] = name
        body["spec"].update(spec or {})
        self._names.append(name)
        install.apply(self._cluster, body)

    def pending(self, name: str) -> None:
        """A service whose pods ask for more GPUs than the node has: real children, no compute."""
        self.create(name, {"accelerator": {"count": 8}})

    def object(self, path: str) -> dict[str, Any] | None:
        """What is at a path of the services' namespace."""
        return self._api.get(path % install.NAMESPACE)

    def forget(self, name: str) -> None:
        """The test has deleted it itself."""
        self._names.remove(name)

    def patch(self, name: str, patch: dict[str, Any]) -> None:
        """Merge-patch the TTSService."""
        self._cluster.kubectl("patch", "-n", install.NAMESPACE, f"tts/{name}", "--type=merge", "-p", json.dumps(patch))

    def get(self, name: str) -> dict[str, Any]:
        """The TTSService as it is."""
        body = self._api.get(f"{CHATTTS}/namespaces/{install.NAMESPACE}/ttsservices/{name}")
        assert body is not None, f"TTSService {name} does not exist"
        return body

    def deployment(self, name: str) -> dict[str, Any] | None:
        """Its Deployment; None when there is none."""
        return self._api.get(f"{APPS}/namespaces/{install.NAMESPACE}/deployments/{name}")

    def replicas(self, name: str) -> int:
        """What the Deployment asks for."""
        deployment = self.deployment(name)
        assert deployment is not None
        return int(deployment["spec"]["replicas"])

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """A condition of the TTSService; {} while it has none of that type."""
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def delete(self, name: str) -> None:
        """Delete and forget."""
        self._names.remove(name)
        self._cluster.kubectl("delete", "-n", install.NAMESPACE, f"tts/{name}", "--wait=false")

    def delete_all(self) -> None:
        """Delete whatever is left and wait until the Deployments and pods are gone."""
        names = list(self._names)
        for name in names:
            self.delete(name)
        for name in names:
            selector = f"chattts.dev/service={name}"
            eventually(lambda s=selector: not self._api.pods(install.NAMESPACE, s), 90, f"pods of {name} gone")


@pytest.fixture
def services(cluster: Cluster, api: KubeApi, model: Path) -> Iterator[Services]:
    made = Services(cluster, api)
    yield made
    made.delete_all()


def leftovers_after(before: frozenset[str], seconds: float = 20) -> list[str]:
    """What is there now and was not before, once the kernel has had some seconds to end what was killed."""
    deadline = time.monotonic() + seconds
    while (left := leftovers.seen() - before) and time.monotonic() < deadline:
        time.sleep(0.5)
    return sorted(left)


def eventually(true: Callable[[], object], timeout: float, what: str) -> None:
    """Wait until `true()` holds; AssertionError names `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:.0f} s"
        time.sleep(0.5)


def throughout(true: Callable[[], object], seconds: float, what: str) -> None:
    """Fail at once when `true()` stops holding within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert true(), f"{what}: stopped being so"
        time.sleep(1)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], object], float, str], None]:
    return eventually


@pytest.fixture(name="throughout")
def throughout_fixture() -> Callable[[Callable[[], object], float, str], None]:
    return throughout
