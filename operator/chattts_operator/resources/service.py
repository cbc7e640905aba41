"""The Service of the speech server. Pure."""

from __future__ import annotations

from .. import api
from ..spec import TTSServiceSpec
from .child import child


def service(spec: TTSServiceSpec) -> api.Body:
    content = {
        "spec": {
            "type": spec.networking.service_type,
            "selector": api.selector_labels(spec.key.name),
            "ports": [{"name": "http", "port": spec.networking.port, "targetPort": "http", "protocol": "TCP"}],
        }
    }
    return child(api.SERVICE, spec, content, annotations=spec.networking.annotations)


def url(spec: TTSServiceSpec) -> str:
    port = "" if spec.networking.port == 80 else f":{spec.networking.port}"
    return f"http://{spec.key.name}.{spec.key.namespace}.svc{port}"
