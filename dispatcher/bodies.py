"""Bodies too large for a record: fetched from the object store before a call, kept there after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.blobs import BlobCorrupt, BlobMissing, BlobStore
from core.errors import Unavailable
from dispatcher.outcome import Failure, failed
from dispatcher.upstream import CallError
from schemas.records import Outcome, Work

TRIES = 4
RETRY_S = 0.5

T = TypeVar("T")


class Bodies:
    """Resolve and keep bodies; an object store that does not answer is asked some times more."""

    def __init__(self, blobs: BlobStore, *, inline_bytes: int) -> None:
        self._blobs = blobs
        self._inline_bytes = inline_bytes

    async def fetch(self, work: Work) -> bytes:
        """Return the request body; raises CallError."""
        reference = work["data_ref"]
        if reference is None:
            if work["data"] is None:
                raise CallError(Failure.BODY_LOST, "the work record has none")
            return work["data"]
        try:
            return await _patient(lambda: self._blobs.get(reference))
        except (BlobMissing, BlobCorrupt) as error:
            raise CallError(Failure.BODY_LOST, error.message) from error
        except Unavailable as error:
            raise CallError(Failure.STORAGE, error.message) from error

    async def keep(self, work: Work, outcome: Outcome) -> Outcome:
        """Move a large answer to the object store; when that cannot be done the attempt has failed."""
        body = outcome["body"]
        if body is None or not self._large(outcome):
            return outcome
        name = f"results/{work['id']}-{work['attempt']}"
        try:
            blob = await _patient(lambda: self._blobs.put(body, name=name, media_type=outcome["content_type"]))
        except Unavailable as error:
            return failed(
                Failure.STORAGE,
                started_ms=outcome["started_ms"],
                upstream=outcome["upstream"],
                detail=error.message,
                chunks=outcome["chunks"],
                usage=outcome["usage"],
            )
        return {**outcome, "body": None, "body_ref": blob}

    def without(self, outcome: Outcome) -> Outcome:
        """Drop a large answer, where there is no time to keep it."""
        return {**outcome, "body": None} if self._large(outcome) else outcome

    def _large(self, outcome: Outcome) -> bool:
        return len(outcome["body"] or b"") > self._inline_bytes


async def _patient(ask: Callable[[], Awaitable[T]]) -> T:
    for _ in range(TRIES - 1):
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(RETRY_S)
    return await ask()
