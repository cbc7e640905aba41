"""Where the weights come from: spec.model as nouns, read and checked. Pure; knows no object of Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from .reader import Reader

HUGGING_FACE = "HuggingFace"
PERSISTENT_VOLUME_CLAIM = "PersistentVolumeClaim"
HOST_PATH = "HostPath"
IMAGE_VOLUME = "ImageVolume"
EMPTY_DIR = "EmptyDir"

READ_WRITE_ONCE = "ReadWriteOnce"

_NEEDED_BY_SOURCE = {
    HUGGING_FACE: ("revision", "acceptLicense"),
    PERSISTENT_VOLUME_CLAIM: ("claimName",),
    HOST_PATH: ("hostPath",),
    IMAGE_VOLUME: ("image",),
}


@dataclass(frozen=True, slots=True)
class ModelCache:
    """Where downloaded weights are kept; only read with source HuggingFace."""

    type: str
    size: str
    storage_class: str
    access_mode: str
    host_path: str
    retain: bool  # the claim outlives the TTSService


@dataclass(frozen=True, slots=True)
class Model:
    source: str
    repository: str
    revision: str
    endpoint: str  # of a mirror; empty: the public hub
    token: tuple[str, str] | None  # Secret and key
    claim_name: str
    host_path: str
    image: str
    path: str
    cache: ModelCache

    @property
    def is_downloaded(self) -> bool:
        return self.source == HUGGING_FACE

    @property
    def on_claim(self) -> bool:
        """Downloaded once, by a Job, into a claim that is ours."""
        return self.is_downloaded and self.cache.type == PERSISTENT_VOLUME_CLAIM


def read_model(model: Reader) -> Model:
    source = model.text("source", HUGGING_FACE, tuple(_NEEDED_BY_SOURCE))
    for name in _NEEDED_BY_SOURCE[source]:
        if not model.text(name):
            model.problem(name, f"is needed with model.source {source}")
    if source != HUGGING_FACE:
        for name in ("endpoint", "tokenSecretRef"):
            if model.data.get(name):
                model.problem(name, "is only read with model.source HuggingFace; remove it")
    endpoint = model.text("endpoint")
    if endpoint and not is_address(endpoint):
        model.problem("endpoint", "must be the address of a hub, for example https://mirror.example.com")
    secret = model.section("tokenSecretRef")
    return Model(
        source=source,
        repository=model.text("repository", "2Noise/ChatTTS"),
        revision=model.text("revision"),
        endpoint=endpoint,
        token=(secret.text("name"), secret.text("key", "token")) if secret.text("name") else None,
        claim_name=model.text("claimName"),
        host_path=model.text("hostPath"),
        image=model.text("image"),
        path=model.text("path"),
        cache=_read_cache(model.section("cache"), source),
    )


def is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


def _read_cache(cache: Reader, source: str) -> ModelCache:
    kind = cache.text("type", EMPTY_DIR, (EMPTY_DIR, PERSISTENT_VOLUME_CLAIM, HOST_PATH))
    host_path = cache.text("hostPath")
    if source != HUGGING_FACE and kind != EMPTY_DIR:
        cache.problem("type", f"{kind} is only read with model.source HuggingFace; remove model.cache")
    if kind == HOST_PATH and not host_path:
        cache.problem("hostPath", "is needed with model.cache.type HostPath")
    if kind != HOST_PATH and host_path:
        cache.problem("hostPath", "is only read with model.cache.type HostPath; set the type or remove hostPath")
    return ModelCache(
        type=kind,
        size=cache.text("size", "10Gi"),
        storage_class=cache.text("storageClassName"),
        access_mode=cache.text("accessMode", "ReadWriteMany", (READ_WRITE_ONCE, "ReadWriteMany")),
        host_path=host_path,
        retain=cache.text("reclaimPolicy", "Delete", ("Retain", "Delete")) == "Retain",
    )
