"""The NetworkPolicy of the speech server: everything is denied but what is named here. Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .. import api
from ..spec import TTSServiceSpec
from .child import child

DNS_PORT = 53
HTTPS_PORT = 443


def network_policy(spec: TTSServiceSpec) -> api.Body:
    """In: speech from `ingressFrom`, metrics from the cluster. Out: DNS, the hub while pods fetch, and `egressTo`.

    The kubelet's probes come from the node, which a NetworkPolicy never stops.
    """
    own_namespace: dict[str, Any] = {"podSelector": {}}
    content = {
        "spec": {
            "podSelector": {"matchLabels": api.selector_labels(spec.key.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": list(spec.networking.ingress_from) or [own_namespace], "ports": [_tcp(api.HTTP_PORT)]},
                {"from": [{"namespaceSelector": {}}], "ports": [_tcp(api.METRICS_PORT)]},
            ],
            "egress": _egress(spec),
        }
    }
    return child(api.NETWORK_POLICY, spec, content)


def _egress(spec: TTSServiceSpec) -> list[dict[str, Any]]:
    dns = {"ports": [{"protocol": "UDP", "port": DNS_PORT}, _tcp(DNS_PORT)]}
    rules: list[dict[str, Any]] = [dns]
    if spec.model.is_downloaded and not spec.model.on_claim:
        rules.append({"ports": [_tcp(port) for port in sorted({HTTPS_PORT, _endpoint_port(spec.model.endpoint)})]})
    if spec.networking.egress_to:
        rules.append({"to": list(spec.networking.egress_to)})
    return rules


def _endpoint_port(endpoint: str) -> int:
    parts = urlsplit(endpoint)
    return parts.port or (80 if parts.scheme == "http" else HTTPS_PORT)


def _tcp(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}
