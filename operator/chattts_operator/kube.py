"""The only door to the Kubernetes API: dicts in, dicts out, a timeout on every call. Decides nothing.

Every write passes the fence first, so that an operator that has lost the lead cannot write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from . import api

TIMEOUT_SECONDS = 10.0
APPLY = "application/apply-patch+yaml"
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class KubeError(Exception):
    """The API server refused or could not be reached (status 0)."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status, self.message, self.retry_after = status, message, retry_after

    @property
    def permanent(self) -> bool:
        """The same request will be refused again. An unknown field in an apply body is answered with 500."""
        return self.status in (400, 403, 405, 422) or (
            self.status == 500 and "field not declared in schema" in self.message
        )


class Kube:
    """Paths are made here from constants, so no discovery and no cache of it is needed."""

    def __init__(
        self,
        api_client: Any,
        fence: Callable[[], None] = lambda: None,
        observe_request: Callable[[str, int], None] = lambda _verb, _status: None,
    ) -> None:
        self._api = api_client
        self._dynamic = DynamicClient(api_client)
        self._fence = fence
        self._observe_request = observe_request

    @classmethod
    async def connect(
        cls, fence: Callable[[], None], observe_request: Callable[[str, int], None], environ: Mapping[str, str]
    ) -> Kube:
        """In a pod by its service account, elsewhere by KUBECONFIG or the usual file."""
        settings = client.Configuration()
        file = kubeconfig(environ)
        if file is None:
            config.load_incluster_config(client_configuration=settings)
        else:
            await config.load_kube_config(config_file=file, client_configuration=settings, persist_config=False)
        return cls(client.ApiClient(settings), fence, observe_request)

    async def close(self) -> None:
        await self._api.close()

    async def get(self, kind: api.Kind, namespace: str, name: str) -> api.Body | None:
        try:
            return await self._request("get", _path(kind, namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: api.Kind, namespace: str | None = None, selector: str | None = None) -> list[api.Body]:
        answer = await self._request("get", _path(kind, namespace), label_selector=selector)
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in answer["items"]]

    async def serves(self, kind: api.Kind) -> bool:
        """Whether the API server knows the kind now."""
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        try:
            answer = await self._request("get", root)
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return any(resource["name"] == kind.plural for resource in answer["resources"])

    async def apply(self, kind: api.Kind, body: api.Body, force: bool) -> api.Body:
        """Server-side apply of a full intent."""
        metadata = body["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"])
        return await self._apply(path, body, api.MANAGER, force)

    async def apply_status(self, body: api.Body) -> api.Body:
        metadata = body["metadata"]
        path = _path(api.TTS_SERVICE, metadata["namespace"], metadata["name"]) + "/status"
        return await self._apply(path, body, api.STATUS_MANAGER, force=True)

    async def _apply(self, path: str, body: api.Body, manager: str, force: bool) -> api.Body:
        self._fence()
        return await self._request(
            "patch", path, verb="apply", body=body, content_type=APPLY, field_manager=manager, force_conflicts=force
        )

    async def delete(self, kind: api.Kind, namespace: str, name: str, uid: str) -> None:
        """Exactly this object: one that was made anew under the name stays."""
        self._fence()
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",  # the default of Jobs would leave their pods behind
        }
        try:
            await self._request("delete", _path(kind, namespace, name), body=options)
        except KubeError as error:
            if error.status not in (404, 409):
                raise

    async def create(self, kind: api.Kind, body: api.Body) -> api.Body:
        """Not fenced: Leases and Events are written by whoever is there."""
        return await self._request("post", _path(kind, body["metadata"]["namespace"]), body=body)

    async def replace(self, kind: api.Kind, body: api.Body) -> api.Body:
        """With the resourceVersion in the body: 409 if somebody else was faster."""
        metadata = body["metadata"]
        return await self._request("put", _path(kind, metadata["namespace"], metadata["name"]), body=body)

    async def _request(self, method: str, path: str, verb: str = "", **parameters: Any) -> api.Body:
        status = 0
        try:
            response = await self._dynamic.request(
                method, path, serialize=False, _request_timeout=TIMEOUT_SECONDS, **parameters
            )
            status = response.status
            answer: api.Body = json.loads(await response.read())
            return answer
        except DynamicApiError as error:
            status = int(error.status or 0)
            raise _translated(error) from error
        except TimeoutError as error:
            raise KubeError(0, f"the API server did not answer within {TIMEOUT_SECONDS:g} s") from error
        except Exception as error:
            if not _is_of_the_network(error):
                raise
            raise KubeError(0, f"the API server cannot be reached: {error}") from error
        finally:
            self._observe_request(verb or method, status)


def kubeconfig(environ: Mapping[str, str]) -> str | None:
    """None: we run in a pod."""
    if not environ.get("KUBECONFIG") and SERVICE_ACCOUNT_TOKEN.exists():
        return None
    return str(Path(environ.get("KUBECONFIG") or "~/.kube/config").expanduser())


def _path(kind: api.Kind, namespace: str | None = None, name: str | None = None) -> str:
    parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
    if namespace:
        parts += ["namespaces", namespace]
    parts.append(kind.plural)
    if name:
        parts.append(name)
    return "/" + "/".join(parts)


def _is_of_the_network(error: Exception) -> bool:
    """The client library lets the errors of its own HTTP library through; their module tells them from our bugs."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "aiohttp"


def _translated(error: DynamicApiError) -> KubeError:
    text = error.body or ""
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = str(text) or str(error.reason)
    after = (error.headers or {}).get("Retry-After")
    return KubeError(int(error.status or 0), message, float(after) if after and after.isdigit() else None)
