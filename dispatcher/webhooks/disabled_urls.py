"""URLs that answered 410 Gone, and manual resends: every dispatcher reads both from one compacted topic.

A manual resend supersedes the rounds of its delivery that still wait: otherwise the earlier round would be posted after
the later one was accepted, and its 4xx would turn "delivered" into "failed". Retry-topic partitions may belong to any
process, hence the topic. A mark is written once the later round is durable and has started. In doubt a delivery is
posted: a mark that is missing, or that a wrong clock has set, costs a repetition under the same webhook-id.
"""

from __future__ import annotations

from aiokafka import TopicPartition

from core.bounded_set import BoundedDict
from core.clock import epoch_ms
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from dispatcher.webhooks.records import url_key
from schemas import topics
from schemas.codec import DELIVERY, SchemaError
from schemas.framing import FramingError
from schemas.records import Delivery

TRACKED_RESENDS = 50_000
"""Manual resends within the eight days of the topic; 10 to 20 MB."""


def is_manual(delivery: Delivery) -> bool:
    """Return whether this starts a manual resend: its time has not been moved since."""
    return delivery["manual"] and delivery["due_ms"] == delivery["created_ms"]


def is_mark(delivery: Delivery) -> bool:
    """Return whether a mark is that of a resend, and not that of a 410."""
    return delivery["state"] == "pending"


class ManualResends:
    """The newest round of each manual resend."""

    def __init__(self, at_least: int = TRACKED_RESENDS) -> None:
        self._begun_ms: BoundedDict[str, int] = BoundedDict(at_least=at_least)

    def __len__(self) -> int:
        return len(self._begun_ms)

    def apply(self, mark: Delivery) -> None:
        """Apply a mark; the last one written counts, whatever the clocks are."""
        self._begun_ms[mark["id"]] = mark["created_ms"]

    def is_superseded(self, delivery: Delivery) -> bool:
        """Return whether a later round has started, so that this one need not continue."""
        return not is_manual(delivery) and delivery["created_ms"] < self._begun_ms.get(delivery["id"], 0)


class DisabledUrls:
    """The time until which a tenant's URL gets no deliveries."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._until: dict[bytes, int] = {}
        self.resends = ManualResends()
        self._follower = TopicFollower(
            settings, name=f"{name}-disabled", topics=[settings.topic(topics.DISABLED)], handle=self.apply
        )

    async def open(self) -> None:
        """Read all marks, then follow the topic."""
        await self._follower.open()
        await self._follower.wait_caught_up()

    async def close(self) -> None:
        """Stop following."""
        await self._follower.close()

    def __len__(self) -> int:
        """Return the number of disabled URLs; expired marks stay until the topic's retention."""
        now_ms = epoch_ms()
        return sum(until_ms > now_ms for until_ms in self._until.values())

    def until_ms(self, owner: str | None, url: str) -> int | None:
        """Return when the mark of a URL expires; None without a mark."""
        return self._until.get(url_key(owner, url)) if self._until else None

    def apply(self, _: TopicPartition, records: Records) -> None:
        """Apply marks and their removal."""
        for record in records:
            key = record.key or b""
            try:
                mark = None if record.value is None else DELIVERY.decode(record.value)
            except (FramingError, SchemaError):
                continue  # only dispatchers write here; an invalid record must not stop every one of them
            if mark is not None and is_mark(mark):
                self.resends.apply(mark)
            elif mark is None or mark["due_ms"] is None:
                self._until.pop(key, None)
            else:
                self._until[key] = mark["due_ms"]
