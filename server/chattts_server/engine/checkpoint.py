"""A checkpoint folder: which files it has, which digests they must have, which sizes the model has. Knows no tensor.

FOLDER/asset/{DVAE,Decoder,Embed,Vocos}.safetensors
FOLDER/asset/gpt/{config.json,model.safetensors}
FOLDER/asset/tokenizer/{special_tokens_map.json,tokenizer_config.json,tokenizer.json}
FOLDER/sha256_map.json     own digests (random or converted weights); absent: the released digests must hold
FOLDER/sizes.json          sizes and speaker statistics; absent: those of the released model
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Literal

RELEASED_REPOSITORY = "2Noise/ChatTTS"
FILES: tuple[str, ...] = (
    "asset/gpt/config.json",
    "asset/tokenizer/special_tokens_map.json",
    "asset/tokenizer/tokenizer_config.json",
    "asset/tokenizer/tokenizer.json",
    "asset/Vocos.safetensors",
    "asset/Decoder.safetensors",
    "asset/DVAE.safetensors",
    "asset/Embed.safetensors",
    "asset/gpt/model.safetensors",
)
DIGESTS_FILE = "sha256_map.json"
SIZES_FILE = "sizes.json"


class CannotServe(Exception):
    """No restart will help: one line for people. The engine exits 78 with it."""


class CheckpointError(CannotServe):
    """A file of the checkpoint is missing, or is not the one its digest names."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Filled by open_checkpoint."""

    folder: Path
    digests: Mapping[str, str]  # ChatTTS's keys: sha256_asset_gpt_config_json -> hex
    origin: Literal["released", "own"]  # whose digests they are
    sizes: Mapping[str, Any] | None  # None: the released model's
    rows_end: bool  # False: a random checkpoint whose rows end only at their limit

    @property
    def random(self) -> bool:
        """Made by make-checkpoint: the sound is noise."""
        return self.sizes is not None and "seed" in self.sizes


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads what is small and checks that all nine files are there; the digests are checked by verify()."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}")
    own = folder / DIGESTS_FILE
    sizes_path = folder / SIZES_FILE
    try:
        sizes = json.loads(sizes_path.read_text()) if sizes_path.is_file() else None
        digests = json.loads(own.read_text()) if own.is_file() else released_digests()
    except ValueError as error:
        raise CheckpointError(f"{folder}: {DIGESTS_FILE} or {SIZES_FILE} is not JSON: {error}") from error
    if not isinstance(digests, dict) or not isinstance(sizes, dict | None):
        raise CheckpointError(f"{folder}: {DIGESTS_FILE} or {SIZES_FILE} is not an object")
    return Checkpoint(
        folder=folder,
        digests=digests,
        origin="own" if own.is_file() else "released",
        sizes=sizes,
        rows_end=True if sizes is None else bool(sizes["rows_end"]),
    )


def verify(checkpoint: Checkpoint, progress: Callable[[str], None] = lambda _: None) -> None:
    """Reads every file once; raises CheckpointError with the first that is not what its digest says."""
    for name in FILES:
        expected = checkpoint.digests.get(digest_key(name))
        if expected is None:
            raise CheckpointError(f"{checkpoint.folder}: no digest is known for {name}")
        try:
            found = sha256(checkpoint.folder / name)
        except OSError as error:
            raise CheckpointError(f"{checkpoint.folder / name} cannot be read: {error.strerror}") from error
        if found != expected:
            raise CheckpointError(
                f"{checkpoint.folder / name} has sha256 {found}, the {checkpoint.origin} digest is {expected}"
            )
        progress(name)


class Verification:
    """verify() in a thread of its own: reading the digests takes as long as importing torch."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.seconds = 0.0
        self._problem: CheckpointError | None = CheckpointError("the digests were not checked")  # until they are
        self._thread = Thread(target=self._run, args=(checkpoint,), name="verify", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until all files are read; raises CheckpointError as verify() does, and when it could not be done at all."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def _run(self, checkpoint: Checkpoint) -> None:
        began = time.monotonic()
        try:
            verify(checkpoint)
        except CheckpointError as problem:
            self._problem = problem
        except Exception as problem:  # in a thread nobody else would hear of it
            self._problem = CheckpointError(f"{checkpoint.folder}: the digests cannot be checked: {problem!r}")
        else:
            self._problem = None
        self.seconds = time.monotonic() - began


def digest_key(name: str) -> str:
    """asset/gpt/config.json -> sha256_asset_gpt_config_json, as in ChatTTS's res/sha256_map.json."""
    return "sha256_" + name.replace("/", "_").replace(".", "_")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path) -> Path:
    path = folder / DIGESTS_FILE
    path.write_text(json.dumps({digest_key(name): sha256(folder / name) for name in FILES}, indent=1) + "\n")
    return path


def released_digests() -> dict[str, str]:
    """The nine digests that the installed ChatTTS pins, read without importing it (that would import torch)."""
    spec = importlib.util.find_spec("ChatTTS")
    if spec is None or spec.origin is None:
        raise CheckpointError("ChatTTS is not installed, so the released digests are unknown")
    digests: dict[str, str] = json.loads((Path(spec.origin).parent / "res" / "sha256_map.json").read_text())
    return digests
