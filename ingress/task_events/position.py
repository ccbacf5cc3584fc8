"""Where a reader of a task's frames stands: the ids of the frames. Pure.

An id names the run and counts its frames, so it is the same whether a frame comes from a chunk record or from the
stored outcome, which knows no offsets; any ingress can go on from it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from core.errors import InvalidRequest
from schemas.partitioning import stable_hash

_POSITION = re.compile(r"(?:([1-9][0-9]{0,8}-[0-9a-f]{8})-)?([0-9]{1,9})", re.ASCII)


class Run(NamedTuple):
    """One attempt by one worker: its frames make one text."""

    attempt: int
    worker: str | None

    @property
    def tag(self) -> str:
        """Return its name in ids; the worker as a hash, for its name is nobody's business."""
        return f"{self.attempt}-{stable_hash(self.worker or ''):08x}"


class EventPosition(NamedTuple):
    """How many frames of which run a client has."""

    tag: str | None
    """None when the client counted frames itself: then any run is taken for its own."""
    frames: int


START = EventPosition(None, 0)
END = EventPosition("end", 0)
"""Of a client that was told the end. A browser that is not closed comes again after it, every three seconds."""


def parse(text: str, *, field: str) -> EventPosition:
    """Read a frame's id, or a bare count of frames; raises InvalidRequest."""
    if text == END.tag:
        return END
    match = _POSITION.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"{field} must be the id of a frame of this task, such as 1-0a1b2c3d-17 or end, or the number of data "
            "frames that were read before",
            field=field,
        )
    return EventPosition(match[1], int(match[2]))
