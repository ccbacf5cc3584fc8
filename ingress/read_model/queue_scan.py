"""Scan the status rows of one queue and level while new rows arrive, so that each row is counted exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ingress.read_model.task_view import TaskView
from schemas.partitioning import queue_number

ROWS_PER_STEP = 500
"""Rows read before the event loop gets a turn: 1 to 5 ms, with what is done with each row."""

OnRow = Callable[[bytes, bytes], None]
"""Called with the key and the encoded value of a row."""


def row_prefix(queue: str, level: int) -> bytes:
    """Return the prefix of the keys of a queue and level, up to its last hyphen."""
    return b"TASK-%d-%d-" % (queue_number(queue), level)


async def pages_of(view: TaskView, prefix: bytes) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Yield the rows whose keys begin with a prefix, ROWS_PER_STEP at a time, in the order of their keys."""
    begin, end = prefix, prefix + b"\xff"
    while page := view.scan(begin, end, limit=ROWS_PER_STEP):
        yield page
        begin = page[-1][0] + b"\x00"
        await asyncio.sleep(0)


class QueueScan:
    """The progress of one scan.

    A row that a batch of new records changes while the scan runs is applied from that batch, and the scan skips it:
    `is_ahead` decides whether the batch replaces a row that the scan has counted.
    """

    def __init__(self, view: TaskView, queue: str, level: int) -> None:
        self._view = view
        self._prefix = row_prefix(queue, level)
        self._cursor = b""
        self._changed: set[bytes] = set()
        self.complete = asyncio.Event()
        """Set once every row has been read."""

    async def run(self, on_row: OnRow) -> None:
        """Call `on_row` with every row that no batch has changed, then set `complete`."""
        async for page in pages_of(self._view, self._prefix):
            for key, value in page:
                if key not in self._changed:
                    on_row(key, value)
            self._cursor = page[-1][0]
        self._changed.clear()
        self.complete.set()

    def is_ahead(self, key: bytes) -> bool:
        """Record that a batch changes a row; return whether the scan has not counted the row before it."""
        if self.complete.is_set():
            return False
        ahead = key not in self._changed and key > self._cursor
        self._changed.add(key)
        return ahead
