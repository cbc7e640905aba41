"""Which voice a name means, and who may add one. Between two looks at the folder it answers from memory alone.

Nothing here depends on what was asked before: the same name gives the same speaker until somebody stores another.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from chattts_server.engine.nouns import Hello
from chattts_server.errors import Conflict, InvalidRequest, NotFound, StorageFailure
from chattts_server.voices.codec import BadVoice, Speaker, decode
from chattts_server.voices.folder import MAX_VOICES, NAME, StoredVoice, TooManyVoices, VoiceFolder
from chattts_server.voices.seeds import NAMED_SEEDS, voice_of_seed

LOOK_SECONDS = 2.0
HOW_TO_SEE = "GET /v1/audio/voices lists the voices; seed:<number> and voice strings are voices, too"
_SEED = re.compile(r"seed:(\d{1,18})", re.ASCII)
Kind = Literal["config_map", "claim", "none"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where named voices live. Filled from the settings."""

    folder: Path | None = None
    config_map: str | None = None  # its name; then the folder is read only

    @property
    def kind(self) -> Kind:
        return "none" if self.folder is None else "claim" if self.config_map is None else "config_map"


class Voices:
    def __init__(self, place: Place) -> None:
        self.place = place
        self._folder = None if place.folder is None else VoiceFolder(place.folder)
        self._stored: Mapping[str, StoredVoice] = MappingProxyType({})
        self._looking = asyncio.Lock()
        self._blind = False  # the last look failed

    @property
    def stored(self) -> Mapping[str, StoredVoice]:
        """As of the last look. Never changed, only replaced."""
        return self._stored

    def resolve(self, name: str, hello: Hello) -> Speaker:
        """A stored name, a name of ours, seed:<number> or a voice string. Raises InvalidRequest."""
        if (stored := self._stored.get(name)) is not None:
            try:
                return _speaker(stored.text, hello)
            except BadVoice as problem:
                raise InvalidRequest(
                    f"the voice of this name is stored but cannot be used: {problem}", code="bad_voice", param="voice"
                ) from None
        if name in NAMED_SEEDS:
            return Speaker(voice_of_seed(NAMED_SEEDS[name], hello))
        if NAME.fullmatch(name):
            raise InvalidRequest(f"unknown voice; {HOW_TO_SEE}", code="unknown_voice", param="voice")
        return self.resolve_string(name, hello)

    def resolve_string(self, text: str, hello: Hello) -> Speaker:
        """seed:<number> or a voice string. Raises InvalidRequest."""
        try:
            return _speaker(text, hello)
        except BadVoice as problem:
            raise InvalidRequest(f"{problem}; {HOW_TO_SEE}", code="unknown_voice", param="voice") from None

    def require_place(self, name: str | None) -> None:
        """Before much work is done: may this voice be added? Raises Conflict. No name: it is not to be stored."""
        if name is None or self.place.kind == "none":
            return
        self._writable()
        if name in NAMED_SEEDS:
            raise Conflict("this name belongs to a built-in voice", code="voice_exists", param="name")
        if name in self._stored:
            raise _taken()

    async def add(self, name: str, text: str) -> StoredVoice:
        """Raises Conflict, StorageFailure. All replicas have it after their next look, this one at once."""
        self.require_place(name)
        folder = self._writable()
        try:
            await asyncio.to_thread(folder.write, name, text)
        except FileExistsError:
            raise _taken() from None
        except TooManyVoices:
            raise Conflict(f"{MAX_VOICES} voices are stored; delete some", code="too_many_voices") from None
        except OSError as error:
            log.error("a voice could not be stored", exc_info=error)
            raise StorageFailure("the voice could not be stored", code="voice_not_stored") from None
        await self.look()
        if name not in self._stored:
            raise StorageFailure("the voice was stored and cannot be found", code="voice_not_stored")
        return self._stored[name]

    async def remove(self, name: str) -> None:
        """Raises Conflict, NotFound, StorageFailure."""
        folder = self._writable()
        if name not in self._stored and name in NAMED_SEEDS:
            raise Conflict("a built-in voice cannot be deleted", code="voice_built_in", param="id")
        if not NAME.fullmatch(name):
            raise NotFound("there is no such voice", code="voice_not_found", param="id")
        try:
            await asyncio.to_thread(folder.delete, name)
        except FileNotFoundError:
            raise NotFound("there is no such voice", code="voice_not_found", param="id") from None
        except OSError as error:
            log.error("a voice could not be deleted", exc_info=error)
            raise StorageFailure("the voice could not be deleted", code="voice_not_deleted") from None
        await self.look()

    def _writable(self) -> VoiceFolder:
        if self.place.config_map is not None:
            raise Conflict(
                f"the voices of this service are kept in the ConfigMap {self.place.config_map}: change them there",
                code="voices_read_only",
            )
        if self._folder is None:
            raise Conflict(
                "this service keeps no voices; use the voice string that POST /v1/audio/voices returns",
                code="voices_not_kept",
            )
        return self._folder

    async def look(self) -> None:
        """Reads what is new in the folder, in a thread. When that fails, what was known stays."""
        if self._folder is None:
            return
        async with self._looking:
            try:
                self._stored = MappingProxyType(await asyncio.to_thread(self._folder.scan, self._stored))
            except OSError as error:
                if not self._blind:
                    log.error("the voices' folder cannot be read; the known ones stay", exc_info=error)
                self._blind = True
            else:
                self._blind = False

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Looks now, and again and again until the end."""
        await self.look()
        task = asyncio.create_task(self._keep_looking(), name="voices")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_looking(self) -> None:
        while self._folder is not None:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()


def problem_with(stored: StoredVoice, hello: Hello) -> str | None:
    """Why a stored voice cannot be used; None: it can."""
    try:
        _speaker(stored.text, hello)
    except BadVoice as problem:
        return str(problem)
    return None


def _taken() -> Conflict:
    return Conflict("there is a voice of this name; delete it first", code="voice_exists", param="name")


def _speaker(text: str, hello: Hello) -> Speaker:
    if (match := _SEED.fullmatch(text)) is not None:
        return Speaker(voice_of_seed(int(match[1]), hello))
    return decode(text, np.frombuffer(hello.speaker_std, "<f4").size)
