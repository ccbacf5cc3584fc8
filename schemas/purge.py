"""What a purge event says beside its queue, as JSON in `data`: up to which task record, and how far it has come."""

from __future__ import annotations

import json
from typing import NamedTuple

REASON = "purged"
"""The error message of every task that a purge has cancelled."""


class OffsetBounds(NamedTuple):
    """Which tasks of one partition are meant."""

    tasks_end: int
    """Offset in tasks.LEVEL: the records before it are meant."""
    after: str = ""
    """The task up to which rows have been looked at, in the order of their ids."""

    def encode(self) -> bytes:
        """Render it."""
        return json.dumps(self._asdict()).encode()


def decode_bounds(data: bytes | None) -> OffsetBounds | None:
    """Read it; None when it is none."""
    try:
        members = json.loads(data or b"")
        tasks_end, after = members["tasks_end"], members["after"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(tasks_end, int) or not isinstance(after, str):
        return None
    return OffsetBounds(tasks_end, after)
