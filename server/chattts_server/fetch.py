"""`chattts-server fetch`: the nine files of one pinned revision into a folder, checked, all or none. Knows no engine.

TO/.fetch-REVISION/...   while it runs; a broken fetch goes on from here
TO/asset/...             moved into place when every file is there and has its digest
TO/sha256_map.json       the digests that were checked, which the server checks again
TO/revision.json         says that TO is complete, and of what
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chattts_server.engine.checkpoint import (
    DIGESTS_FILE,
    FILES,
    RELEASED_REPOSITORY,
    SIZES_FILE,
    CheckpointError,
    digest_key,
    open_checkpoint,
    released_digests,
    sha256,
    verify,
)
from chattts_server.errors import CannotStart

MARKER = "revision.json"
PROGRESS_SECONDS = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
Say = Callable[[str], None]


class FetchError(Exception):
    """One line for people; trying again may help."""


def fetch(repository: str, revision: str, to: Path, endpoint: str | None, say: Say) -> None:
    """Does nothing when TO holds this revision already. Raises CannotStart or FetchError."""
    if not _REPOSITORY.fullmatch(repository):
        raise CannotStart(f"--repository has the value {repository!r}; it must be OWNER/NAME")
    if not _COMMIT.fullmatch(revision):
        raise CannotStart(f"--revision has the value {revision!r}; it must be a commit of 40 hex digits, not a branch")
    if is_complete(to, repository, revision):
        say(f"{to} is complete: {repository} at {revision}")
        return
    partial = to / f".fetch-{revision}"
    partial.mkdir(parents=True, exist_ok=True)
    expected = dict(released_digests()) if repository == RELEASED_REPOSITORY else {}
    for number, name in enumerate(FILES, 1):
        began = time.monotonic()
        path = _download(repository, revision, name, partial, endpoint, say)
        found = sha256(path)
        if expected.setdefault(digest_key(name), found) != found:
            path.unlink()
            raise FetchError(f"{name} has sha256 {found}, ChatTTS pins {expected[digest_key(name)]}: not used")
        size, seconds = path.stat().st_size, time.monotonic() - began
        say(f"{number}/{len(FILES)} {name} {size / 1e6:.1f} MB in {seconds:.1f} s, sha256 {found[:12]}")
    _move_into_place(partial, to, expected, {"repository": repository, "revision": revision})
    say(f"{to} is complete: {repository} at {revision}")


def is_complete(to: Path, repository: str, revision: str) -> bool:
    """The marker names this revision and every file still has its digest."""
    try:
        if json.loads((to / MARKER).read_text()) != {"repository": repository, "revision": revision}:
            return False
        verify(open_checkpoint(to))
    except (OSError, ValueError, CheckpointError):
        return False
    return True


def _download(repository: str, revision: str, name: str, folder: Path, endpoint: str | None, say: Say) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download

    try:
        with _progress(folder, name, say):
            return Path(hf_hub_download(repository, name, revision=revision, local_dir=folder, endpoint=endpoint))
    except (OSError, httpx.HTTPError) as error:  # the hub's own errors are OSErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FetchError(f"{repository} {name} at {revision}: {reason}") from error


@contextmanager
def _progress(folder: Path, name: str, say: Say) -> Iterator[None]:
    """A line every few seconds with what has come so far."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PROGRESS_SECONDS):
            come = sum(path.stat().st_size for path in folder.rglob("*.incomplete") if path.is_file())
            say(f"... {name} {come / 1e6:.0f} MB")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _move_into_place(partial: Path, to: Path, digests: Mapping[str, str], marker: Mapping[str, str]) -> None:
    """The marker goes first when something older is replaced, and is written last: between, TO is not complete."""
    (to / MARKER).unlink(missing_ok=True)
    shutil.rmtree(to / "asset", ignore_errors=True)
    (to / SIZES_FILE).unlink(missing_ok=True)
    (partial / "asset").rename(to / "asset")
    (to / DIGESTS_FILE).write_text(json.dumps(dict(digests), indent=1) + "\n")
    unfinished = to / f".{MARKER}"
    unfinished.write_text(json.dumps(dict(marker)) + "\n")
    unfinished.rename(to / MARKER)
    shutil.rmtree(partial)
