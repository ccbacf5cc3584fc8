"""Ids of cancelled and timed-out tasks, read from the controls topic.

Apart from the runner, which is given a function instead, so that it can be tested without Kafka.
"""

from __future__ import annotations

from collections.abc import Callable

from aiokafka import TopicPartition

from core.bounded_set import BoundedSet
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from schemas import topics
from schemas.codec import CONTROL, SchemaError
from schemas.framing import HEADER, FramingError

RECENT_CANCELS = 100_000
CANCEL = 0
"""First byte of a record with the enum member `cancel`, so that scheduler heartbeats need not be decoded."""


class Cancellations:
    """The ids whose work must not be started or continued."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._on_cancel: Callable[[str], None] = lambda _: None
        self._ids: BoundedSet[str] = BoundedSet(at_least=RECENT_CANCELS)
        self._follower = TopicFollower(
            settings, name=f"{name}-controls", topics=[settings.topic(topics.CONTROLS)], handle=self._handle
        )

    async def open(self, on_cancel: Callable[[str], None]) -> None:
        """Read the topic to its end, then follow it; `on_cancel` is called for each id."""
        self._on_cancel = on_cancel
        await self._follower.open()
        await self._follower.wait_caught_up()

    async def close(self) -> None:
        """Stop following."""
        await self._follower.close()

    def cancelled(self, task_id: str) -> bool:
        """Return whether the scheduler has ended this task."""
        return task_id in self._ids

    def _handle(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            value = record.value
            if value is None or len(value) <= HEADER.size or value[HEADER.size] != CANCEL:
                continue
            try:
                control = CONTROL.decode(value)
            except (FramingError, SchemaError):
                continue  # only the scheduler writes here; an invalid record must not stop the workers
            if control["kind"] == "cancel":
                self._ids.add(control["id"])
                self._on_cancel(control["id"])
