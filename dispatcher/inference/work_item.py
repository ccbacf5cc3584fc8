"""One attempt of one task in this process, from the receipt of its record until its outcome is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from core.errors import HeadraceError
from core.kafka.record_format import unread
from core.settings.models import Settings
from dispatcher.offset_tracker import OffsetTracker
from schemas import headers, ids
from schemas.codec import WORK, SchemaError
from schemas.framing import FramingError
from schemas.records import Outcome, Work
from schemas.validation import Invalid, check_endpoint, check_queue

Key = tuple[str, int]


class MalformedWork(HeadraceError):
    """The work record is malformed."""

    def __init__(self, message: str, *, field: str | None = None, attempt: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.attempt = attempt


class Phase(Enum):
    """Phase of an item."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class WorkItem:
    """`offsets` are the records of this item: usually one, more when a rebalance caused it to be received again.

    `streamed` is the value in the claim; `delivered` returns whether a first token was delivered, `deltas` the number
    of frames, and `interrupted` builds the outcome of a run that has to stop.
    """

    work: Work
    home: int
    traceparent: bytes | None = None
    offsets: list[tuple[OffsetTracker, int]] = field(default_factory=list)
    phase: Phase = Phase.WAITING
    claimed: bool = False
    streamed: bool = False
    delivered: Callable[[], bool] = bool
    deltas: Callable[[], int] = int
    interrupted: Callable[[], Outcome] | None = None
    task: asyncio.Task[None] | None = None

    @property
    def needs_claim(self) -> bool:
        """Return whether a claim is needed, or a second one because tokens were delivered since the first."""
        return self.phase is not Phase.ENDED and (not self.claimed or (self.delivered() and not self.streamed))

    @property
    def key(self) -> Key:
        """Return the unique key: task id and attempt."""
        return self.work["id"], self.work["attempt"]

    def add_offset(self, tracker: OffsetTracker, offset: int) -> None:
        """Add another record of this item."""
        if self.phase is Phase.ENDED:
            tracker.finished(offset)
        elif self.claimed:
            tracker.claimed(offset)
        self.offsets.append((tracker, offset))

    def claim(self) -> None:
        """Mark its claim as durable."""
        self.claimed = True
        for tracker, offset in self.offsets:
            tracker.claimed(offset)

    def finish(self) -> None:
        """Mark its call as finished."""
        self.phase = Phase.ENDED
        for tracker, offset in self.offsets:
            tracker.finished(offset)

    def complete(self) -> None:
        """Mark its outcome as durable."""
        for tracker, offset in self.offsets:
            tracker.completed(offset)


def decode_work(settings: Settings, record: Any) -> WorkItem:
    """Decode a work record; raises MalformedWork."""
    if (why := unread(record)) is not None:
        raise MalformedWork(why.reason)
    if record.value is None:
        raise MalformedWork("the record has no value")
    try:
        work = WORK.decode(record.value)
    except (FramingError, SchemaError) as error:
        raise MalformedWork(str(error)) from error
    attempt = work["attempt"]
    try:
        check_queue(work["queue"])
        check_endpoint(work["endpoint"])
        home = ids.parse(work["id"]).partition
    except Invalid as error:
        raise MalformedWork(error.message, field=error.field, attempt=attempt) from error
    except ids.IdError as error:
        raise MalformedWork(str(error), field="id", attempt=attempt) from error
    if work["level"] not in (0, 1):
        raise MalformedWork(f"level {work['level']} is neither 0 nor 1", field="level", attempt=attempt)
    if home >= settings.kafka.partitions:
        raise MalformedWork(
            f"the task's partition is {home}, and there are {settings.kafka.partitions}", field="id", attempt=attempt
        )
    return WorkItem(work=work, home=home, traceparent=headers.find(record.headers, "traceparent"))
