"""The weights in a pod: volume, mount and the container that fetches them. Pure; makes no claim and no Job."""

from __future__ import annotations

from typing import Any

from .. import api
from ..model_spec import EMPTY_DIR, HOST_PATH, HUGGING_FACE, IMAGE_VOLUME, PERSISTENT_VOLUME_CLAIM
from ..spec import TTSServiceSpec

VOLUME = "model"
MOUNT = "/model"  # of the server: it holds asset/
CACHE_MOUNT = "/cache"  # of the fetching container: a folder per revision
FETCH = "fetch"  # name of that container


def volume(spec: TTSServiceSpec) -> dict[str, Any]:
    model = spec.model
    cached: dict[str, dict[str, Any]] = {
        EMPTY_DIR: {"emptyDir": {"sizeLimit": model.cache.size}},
        HOST_PATH: {"hostPath": {"path": model.cache.host_path, "type": "Directory"}},
        PERSISTENT_VOLUME_CLAIM: {"persistentVolumeClaim": {"claimName": api.child_name(api.CLAIM, spec.key.name)}},
    }
    given: dict[str, dict[str, Any]] = {
        HUGGING_FACE: cached[model.cache.type],
        PERSISTENT_VOLUME_CLAIM: {"persistentVolumeClaim": {"claimName": model.claim_name, "readOnly": True}},
        HOST_PATH: {"hostPath": {"path": model.host_path, "type": "Directory"}},
        IMAGE_VOLUME: {"image": {"reference": model.image, "pullPolicy": spec.image.pull_policy}},
    }
    return {"name": VOLUME, **given[model.source]}


def server_mount(spec: TTSServiceSpec, revision: str) -> dict[str, Any]:
    """A folder per revision wherever weights outlive a pod, so that a download never changes what a server reads."""
    mount: dict[str, Any] = {"name": VOLUME, "mountPath": MOUNT, "readOnly": True}
    folder = spec.model.path
    if spec.model.is_downloaded:
        folder = "" if spec.model.cache.type == EMPTY_DIR else revision
    return {**mount, "subPath": folder} if folder else mount


def revision_of(pod: api.Body, claim: str) -> str | None:
    """The revision that a pod spec mounts from our claim; None where it mounts something else."""
    volumes = {item["name"]: item for item in pod.get("volumes") or []}
    if volumes.get(VOLUME, {}).get("persistentVolumeClaim", {}).get("claimName") != claim:
        return None
    for container in pod["containers"]:
        for mount in container.get("volumeMounts") or []:
            if mount["name"] == VOLUME and mount["mountPath"] == MOUNT:
                return str(mount["subPath"]) if mount.get("subPath") else None
    return None


def init_containers(spec: TTSServiceSpec, image: str) -> list[dict[str, Any]]:
    """Each pod fetches for itself, unless a Job has fetched into a claim before."""
    if not spec.model.is_downloaded or spec.model.on_claim:
        return []
    per_pod = spec.model.cache.type == EMPTY_DIR
    folder = MOUNT if per_pod else f"{CACHE_MOUNT}/{spec.model.revision}"
    return [fetch_container(spec, image, folder, MOUNT if per_pod else CACHE_MOUNT)]


def fetch_container(spec: TTSServiceSpec, image: str, folder: str, mount: str) -> dict[str, Any]:
    """`chattts-server fetch`: checks sha256, goes on where it was interrupted, does nothing where all is there."""
    model = spec.model
    arguments = ["fetch", "--repository", model.repository, "--revision", model.revision, "--to", folder]
    if model.endpoint:
        arguments += ["--endpoint", model.endpoint]
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in (("HOME", "/tmp"), *spec.server.extra_env)
    ]
    if model.token is not None:
        secret, key = model.token
        environment.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return {
        "name": FETCH,
        "image": image,
        "imagePullPolicy": spec.image.pull_policy,
        "args": arguments,
        "env": environment,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # so that status can say what went wrong
        "securityContext": locked_down(),
        "volumeMounts": [
            {"name": VOLUME, "mountPath": mount, "readOnly": False},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def locked_down() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_security() -> dict[str, Any]:
    """What Pod Security `restricted` asks for, and a fixed user."""
    return {
        "runAsNonRoot": True,
        "runAsUser": api.SERVER_USER,
        "runAsGroup": api.SERVER_USER,
        "fsGroup": api.SERVER_USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
