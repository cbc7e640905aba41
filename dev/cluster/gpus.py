"""Keeps the fake GPUs of the node: capacity `nvidia.com/gpu` in the node's status. It knows no pods.

The scheduler counts them like real ones; no device plugin hands them out, so containers see no device.
The kubelet resets what it does not know when it registers again, so the number is looked at every few seconds.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dev.cluster.components import API_PORT, GPU, NODE

LOOK_EVERY = 3.0
"""Seconds. A read of one object: too little to be seen in the API server's load."""


def keep(state: Path) -> None:
    """Never returns. `state/gpus` holds the wanted number; `set_gpus` writes it."""
    keys = state / "pki"
    context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    context.load_cert_chain(keys / "admin.crt", keys / "admin.key")
    last = ""
    while True:
        try:
            wanted = int((state / "gpus").read_text())
            patch = patch_for(wanted, call(context, "GET", ""))
            if patch is not None:
                call(context, "PATCH", "/status", patch)
                print(f"node has {wanted} {GPU}", flush=True)
        except (urllib.error.URLError, OSError, ValueError) as problem:  # not up yet, or a restart: look again
            if str(problem) != last:
                last = str(problem)
                print(f"looking again: {last}", flush=True)
        time.sleep(LOOK_EVERY)


def patch_for(wanted: int, node: Mapping[str, Any]) -> dict[str, Any] | None:
    """The merge patch that makes the node's status right, or None."""
    status = node.get("status", {})
    value = {GPU: str(wanted)}
    groups = [name for name in ("capacity", "allocatable") if status.get(name, {}).get(GPU) != str(wanted)]
    return {"status": dict.fromkeys(groups, value)} if groups else None


def call(context: ssl.SSLContext, method: str, below: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"https://127.0.0.1:{API_PORT}/api/v1/nodes/{NODE}{below}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/merge-patch+json"},
    )
    with urllib.request.urlopen(request, context=context, timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
