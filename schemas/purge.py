"""The range of a purge event, as JSON in its field `data`. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

REASON = "purged"
"""Error message of tasks that a purge has cancelled."""


class OffsetBounds(NamedTuple):
    """The tasks of one partition that a purge includes."""

    tasks_end: int
    """Offset in tasks.LEVEL: the purge includes the records before it."""
    after: str = ""
    """The task up to which the partition was processed, in the order of ids."""

    def encode(self) -> bytes:
        """Return the JSON text."""
        return json.dumps(self._asdict()).encode()


def decode_bounds(data: bytes | None) -> OffsetBounds | None:
    """Parse the JSON text; None if it is invalid."""
    try:
        members = json.loads(data or b"")
        tasks_end, after = members["tasks_end"], members["after"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(tasks_end, int) or not isinstance(after, str):
        return None
    return OffsetBounds(tasks_end, after)
