"""Keys, certificates and kubeconfigs of one cluster, made by openssl. It does not know who uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dev.cluster.progress import run

API_NAMES = (
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,"
    "DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:10.88.0.2"
)
CERTIFICATES = {
    "apiserver": ("/CN=kube-apiserver", API_NAMES),
    "admin": ("/O=system:masters/CN=admin", ""),
    "apiserver-kubelet": ("/O=system:masters/CN=apiserver-kubelet", ""),
    "front-proxy": ("/CN=front-proxy", ""),
    "kubelet": ("/O=system:nodes/CN=system:node:node-1", "DNS:node-1,IP:10.88.0.2"),
}
"""Name -> subject, and the names it may answer to. Users of the API are told by O (group) and CN (name)."""


def make_keys(folder: Path) -> None:
    """Writes ca, the service account key pair and all CERTIFICATES; everything is new at each start."""
    folder.mkdir(parents=True, mode=0o700)
    _openssl(folder, "req", "-x509", *_new_key("ca"), "-days", "365", "-out", "ca.crt", "-subj", "/CN=dev-ca")
    for name, (subject, alternatives) in CERTIFICATES.items():
        _sign(folder, name, subject, alternatives)
    _openssl(folder, "genrsa", "-out", "sa.key", "2048")
    _openssl(folder, "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def kubeconfig(keys: Path, user: str, port: int) -> dict[str, Any]:
    """A kubeconfig for a user of CERTIFICATES; the API server is always seen at 127.0.0.1."""
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": f"{keys}/ca.crt"}
    credentials = {"client-certificate": f"{keys}/{user}.crt", "client-key": f"{keys}/{user}.key"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dev",
        "clusters": [{"name": "dev", "cluster": server}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": user}}],
    }


def write_kubeconfig(path: Path, keys: Path, user: str, port: int) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(kubeconfig(keys, user, port), indent=1) + "\n")


def _sign(folder: Path, name: str, subject: str, alternatives: str) -> None:
    extensions = "extendedKeyUsage=clientAuth,serverAuth\n"
    if alternatives:
        extensions += f"subjectAltName={alternatives}\n"
    (folder / f"{name}.ext").write_text(extensions)
    _openssl(folder, "req", *_new_key(name), "-out", f"{name}.csr", "-subj", subject)
    authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "365")
    files = ("-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", f"{name}.ext")
    _openssl(folder, "x509", "-req", *files, *authority)


def _new_key(name: str) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return ("-new", *curve, "-nodes", "-keyout", f"{name}.key")


def _openssl(folder: Path, *arguments: str) -> None:
    run(["openssl", *arguments], cwd=folder)
