"""The folder in which voices are kept: a file per name, whose text is a voice string. Blocking; knows no request.

It is a ConfigMap's mount (read only) or a claim that all replicas share. Each replica looks every two seconds, so what
one of them writes all have soon; a file appears and vanishes whole.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chattts_server.voices.codec import MAX_STRING

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
MAX_VOICES = 1000
MAX_FILE_BYTES = 4 * MAX_STRING
log = logging.getLogger(__name__)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class StoredVoice:
    name: str
    text: str  # a voice string, or whatever somebody put there
    created: int  # Unix seconds
    signature: tuple[int, int, int]  # of the file: when this is the same, it was not written again


class TooManyVoices(Exception):
    """MAX_VOICES are stored."""


class VoiceFolder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def scan(self, known: Mapping[str, StoredVoice]) -> dict[str, StoredVoice]:
        """All voices by name; files that `known` has are not read again. Raises OSError when it cannot look."""
        found: dict[str, StoredVoice] = {}
        for name in sorted(path.name for path in self._path.iterdir()):
            if NAME.fullmatch(name) and len(found) < MAX_VOICES and (voice := self._read(name, known.get(name))):
                found[name] = voice
        return found

    def _read(self, name: str, known: StoredVoice | None) -> StoredVoice | None:
        path = self._path / name
        try:
            status = path.stat()
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known is not None and known.signature == signature:
                return known
            if not path.is_file():
                return None
            with path.open("rb") as file:  # one that is too large is cut, so that it is listed as what it is: no voice
                text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace").strip()
        except FileNotFoundError:  # another replica deleted it just now
            return None
        except OSError as error:
            log.warning("a voice cannot be read", extra={"voice": name, "error": error.strerror})
            return known
        return StoredVoice(name, text, int(status.st_mtime), signature)

    def write(self, name: str, text: str) -> None:
        """Raises FileExistsError, TooManyVoices, OSError. Nobody ever sees half a file, and two cannot both succeed."""
        if sum(1 for _ in self._path.iterdir()) >= MAX_VOICES:
            raise TooManyVoices
        temporary = self._path / f".{name}.{secrets.token_hex(8)}"
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, self._path / name)
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, path: Path) -> None:
        try:
            path.hardlink_to(temporary)  # unlike a rename it fails when the name is taken
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                raise FileExistsError(path.name) from None
            temporary.rename(path)

    def delete(self, name: str) -> None:
        """Raises FileNotFoundError, OSError."""
        (self._path / name).unlink()
