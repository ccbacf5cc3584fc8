"""Tasks that this process accepted recently: where each was written, and the last ones of each tenant.

A task can be shown from its record before the scheduler has written its row, and a tenant's next list waits for the
rows of its last tasks, which follow within milliseconds.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from core.bounded_set import BoundedDict

MAX_KEYS = 32
"""Keys remembered per tenant. Rows appear in about the order of the writes, so the last ones suffice."""
MAX_OWNERS = 1_000
MIN_OFFSETS = 100_000
"""Newest tasks whose offset is remembered, up to twice as many: 15 to 30 MB, half a minute at full speed."""
RECENT_S = 10.0
"""Older writes are dropped: when their rows are still missing the scheduler is behind, and no list waits for it."""


class RecentWrites:
    """Remembers accepted tasks until their rows have been read."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_owner: OrderedDict[str, deque[tuple[float, bytes]]] = OrderedDict()
        self._offsets: BoundedDict[bytes, int] = BoundedDict(at_least=MIN_OFFSETS)

    def add(self, owner: str, key: bytes, *, offset: int) -> None:
        """Remember a task that was accepted now, and the offset of its record."""
        self._offsets[key] = offset
        written = self._by_owner.get(owner)
        if written is None:
            written = self._by_owner[owner] = deque(maxlen=MAX_KEYS)
            if len(self._by_owner) > MAX_OWNERS:
                self._by_owner.popitem(last=False)
        written.append((self._clock(), key))

    def offset_of(self, key: bytes) -> int | None:
        """Return the offset of a task that was accepted here recently."""
        return self._offsets.get(key)

    def take(self, owner: str) -> list[bytes]:
        """Return the recent keys of a tenant, newest last, and remove all of its keys."""
        oldest = self._clock() - RECENT_S
        return [key for at, key in self._by_owner.pop(owner, ()) if at >= oldest]
