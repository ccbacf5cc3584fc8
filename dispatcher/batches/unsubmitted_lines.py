"""The lines of a batch that never became tasks: they get their line in the error file, too."""

from __future__ import annotations

from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from dispatcher.batches.input_reader import InputReader
from dispatcher.batches.request_line import custom_id_of
from schemas.batches import Batch

PAGE_LINES = 1_000
"""Lines that are named at a time when their file cannot be read any more."""


class UnsubmittedLines:
    """Reads them from the input file, from the first one that was not fed."""

    def __init__(self, blobs: BlobStore, batch: Batch) -> None:
        self._source: InputReader | None = InputReader(blobs, batch["input"])
        self._next = batch["fed"]
        self._total = batch["total"]

    @property
    def exhausted(self) -> bool:
        """Tell whether all have been named."""
        return self._next >= self._total

    async def next_page(self) -> list[tuple[int, str | None]]:
        """Return some more, with what they call themselves; raises Unavailable."""
        try:
            lines = await self._source.next_lines() if self._source is not None else None
        except (BlobMissing, BlobCorrupt):
            lines = None
        if lines is None:
            # The file is gone; the lines are counted all the same.
            self._source = None
            found = range(self._next, min(self._next + PAGE_LINES, self._total))
            self._next = found.stop
            return [(request, None) for request in found]
        named = [(line.request, custom_id_of(line.text)) for line in lines if self._next <= line.request < self._total]
        self._next = named[-1][0] + 1 if named else self._next
        return named
