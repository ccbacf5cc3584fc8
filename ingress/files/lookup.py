"""All files that a tenant can see: those it has uploaded, and the output and error files of its batches."""

from __future__ import annotations

import re
from typing import NamedTuple

from core.clock import epoch_ms
from core.errors import NotFound
from core.settings.models import Settings
from ingress.batches.directory import BatchDirectory
from ingress.batches.service import BatchOperations
from ingress.files.content import Content
from ingress.files.directory import FileDirectory
from schemas.batches import Batch, BatchFile, Segment, output_expires_ms, output_file_id, outputs_expired, segments_of

OUTPUT = "batch_output"
OCTETS, LINES = "application/octet-stream", "application/jsonl"
_OF_BATCH = re.compile(r"file-([0-9a-f]{32})-(output|errors)")


class FileEntry(NamedTuple):
    """One file as its owner sees it."""

    id: str
    purpose: str
    filename: str
    created_ms: int
    expires_ms: int | None
    content: Content
    uploaded: BatchFile | None = None
    batch_id: str | None = None


class FileLookup:
    """Find the files of one tenant."""

    def __init__(
        self, settings: Settings, *, files: FileDirectory, batches: BatchDirectory, batch_service: BatchOperations
    ) -> None:
        self._retention_s = settings.batches.retention_s
        self._files = files
        self._batches = batches
        self._batch_service = batch_service

    async def find(self, file_id: str, *, owner: str) -> FileEntry:
        """Return a file; raises NotFound for foreign, unknown and expired ones, and Unavailable."""
        match = _OF_BATCH.fullmatch(file_id)
        if match is None:
            file = await self._files.find(file_id, owner=owner)
            if file is None:
                raise _unknown(file_id)
            return of_upload(file)
        try:
            batch = await self._batch_service.find(f"batch_{match[1]}", owner=owner)
        except NotFound:
            raise _unknown(file_id) from None
        entry = self.of_batch(batch, errors=match[2] == "errors")
        if entry is None:
            raise _unknown(file_id)
        return entry

    def all(self, *, owner: str, purpose: str | None) -> list[FileEntry]:
        """Return the files of a tenant, in no order; those of batches as soon as something is in them."""
        found = []
        if purpose != OUTPUT:
            found += [of_upload(file) for file in self._files.of(owner) if purpose in (None, file["purpose"])]
        if purpose in (None, OUTPUT):
            for batch in self._batches.of(owner):
                entries = (self.of_batch(batch, errors=errors) for errors in (False, True))
                found += [entry for entry in entries if entry is not None and entry.content.size]
        return found

    def of_batch(self, batch: Batch, *, errors: bool) -> FileEntry | None:
        """Describe a batch's output or error file; None when the batch ended without lines in it, or it has expired."""
        content = batch_content(batch, errors=errors)
        expires_ms = output_expires_ms(batch, retention_s=self._retention_s)
        if expires_ms is not None and (not content.size or outputs_expired(batch, now_ms=epoch_ms())):
            return None
        file_id = output_file_id(batch["id"], errors=errors)
        return FileEntry(file_id, OUTPUT, content.name, batch["created_ms"], expires_ms, content, batch_id=batch["id"])


def of_upload(file: BatchFile) -> FileEntry:
    """Describe a file that was uploaded."""
    blob = file["blob"]
    content = Content(file["filename"], OCTETS, [Segment(blob["uri"], blob["size"])], blob)
    return FileEntry(
        file["id"], file["purpose"], file["filename"], file["created_ms"], file["expires_ms"], content, uploaded=file
    )


def batch_content(batch: Batch, *, errors: bool) -> Content:
    """Return what is in a batch's output or error file by now."""
    name = f"{batch['id']}_{'error' if errors else 'output'}.jsonl"
    return Content(name, LINES, segments_of(batch, errors=errors))


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"there is no file {file_id[:80]}")
