"""Bodies of replayed tasks: a stored body is copied, because the original is deleted with its task."""

from __future__ import annotations

from collections.abc import AsyncIterator

from core.settings.models import Settings
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from headrace.replay.copy import ReplayedTask, with_model
from headrace.replay.read import with_retries
from headrace.replay.selection import Selection
from schemas.common import Blob
from schemas.task_body import for_rerun

JSON = "application/json"


class Unusable(Exception):
    """A task cannot be replayed; the message is a reason code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ReplayBodies:
    """Copies stored bodies, so that every replayed task has its own."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._inline_bytes = settings.storage.inline_bytes
        self._editable_bytes = settings.ingress.max_body_bytes

    async def fill(self, copy: ReplayedTask, pick: Selection, *, model_to: str | None) -> ReplayedTask:
        """Return the copy with its body; raises Unusable, and Unavailable when the store does not answer.

        A second call for the same task replaces the first copy, so a resumed replay leaves no orphans.
        """
        stored = pick.task["data_ref"]
        if stored is not None and stored["uri"] != f"tasks/{pick.task_id}":
            # The record refers to a body of another task, which only the scheduler's garbage collection may delete.
            raise Unusable("body_foreign")
        try:
            if model_to is not None:
                return await self._edited(copy, pick, model_to)
            if stored is None:
                return copy._replace(task=for_rerun(copy.task))
            return copy._replace(task={**copy.task, "data_ref": await with_retries(lambda: self._copied(stored, copy))})
        except BlobMissing:
            raise Unusable("body_missing") from None
        except BlobCorrupt:
            raise Unusable("body_corrupt") from None

    async def _copied(self, stored: Blob, copy: ReplayedTask) -> Blob:
        pieces: AsyncIterator[bytes] = await self._blobs.open(stored)
        async with self._blobs.writer(_name(copy), media_type=copy.task["content_type"]) as writer:
            async for piece in pieces:
                await writer.write(piece)
            return await writer.finish()

    async def _edited(self, copy: ReplayedTask, pick: Selection, model: str) -> ReplayedTask:
        stored, data = pick.task["data_ref"], pick.task["data"]
        if stored is not None:
            if stored["size"] > self._editable_bytes:
                raise Unusable("body_too_large_for_another_model")
            data = await with_retries(lambda: self._blobs.get(stored))
        body = with_model(data.encode() if isinstance(data, str) else data or b"", model, mode=copy.task["mode"])
        if body is None:
            raise Unusable("body_without_model")
        if len(body) <= self._inline_bytes:
            return copy._replace(task={**copy.task, "data": body, "data_ref": None})
        copied_ref = await with_retries(lambda: self._blobs.put(body, name=_name(copy), media_type=JSON))
        return copy._replace(task={**copy.task, "data": None, "data_ref": copied_ref})


def _name(copy: ReplayedTask) -> str:
    return f"tasks/{copy.id}"
