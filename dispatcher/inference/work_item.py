"""One attempt of one task inside this process, from the moment it was read until nothing of it can be lost."""

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
    """The record is no work that anybody can do."""

    def __init__(self, message: str, *, field: str | None = None, attempt: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.attempt = attempt


class Phase(Enum):
    """How far an item is."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class WorkItem:
    """`offsets` are the records it was read from: usually one, more after a rebalance that read it again.

    `streamed` is what the claim said; `delivered` asks whether a first token is out by now, `deltas` how many frames
    have come, `interrupted` builds the outcome of a run that has to end where it is.
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
        """Tell whether the next tick has to write a claim, or a second one because tokens flow since the first."""
        return self.phase is not Phase.ENDED and (not self.claimed or (self.delivered() and not self.streamed))

    @property
    def key(self) -> Key:
        """Return what is unique about it."""
        return self.work["id"], self.work["attempt"]

    def add_offset(self, tracker: OffsetTracker, offset: int) -> None:
        """Note a further record that this item was read from."""
        if self.phase is Phase.ENDED:
            tracker.finished(offset)
        elif self.claimed:
            tracker.claimed(offset)
        self.offsets.append((tracker, offset))

    def claim(self) -> None:
        """Note that its claim is durable."""
        self.claimed = True
        for tracker, offset in self.offsets:
            tracker.claimed(offset)

    def finish(self) -> None:
        """Note that its call is over."""
        self.phase = Phase.ENDED
        for tracker, offset in self.offsets:
            tracker.finished(offset)

    def complete(self) -> None:
        """Note that what became of it is durable."""
        for tracker, offset in self.offsets:
            tracker.completed(offset)


def read(settings: Settings, record: Any) -> WorkItem:
    """Read a work record; raises MalformedWork."""
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
            f"the task's home is partition {home}, there are {settings.kafka.partitions}", field="id", attempt=attempt
        )
    return WorkItem(work=work, home=home, traceparent=headers.find(record.headers, "traceparent"))
