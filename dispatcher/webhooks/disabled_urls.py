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
"""Deliveries that were asked for again within the eight days of the topic; 10 to 20 MB."""


def is_manual(delivery: Delivery) -> bool:
    """Tell whether this begins a round that somebody asked for: nothing has moved its time since."""
    return delivery["manual"] and delivery["due_ms"] == delivery["created_ms"]


def is_mark(delivery: Delivery) -> bool:
    """Tell the mark of a round from that of a 410."""
    return delivery["state"] == "pending"


class ManualResends:
    """The newest round of what was asked for again."""

    def __init__(self, at_least: int = TRACKED_RESENDS) -> None:
        self._begun_ms: BoundedDict[str, int] = BoundedDict(at_least=at_least)

    def __len__(self) -> int:
        return len(self._begun_ms)

    def apply(self, mark: Delivery) -> None:
        """Take in a mark; the last that was written counts, whatever the clocks say."""
        self._begun_ms[mark["id"]] = mark["created_ms"]

    def is_superseded(self, delivery: Delivery) -> bool:
        """Tell whether a later round has been taken up, so that this one need not go on."""
        return not is_manual(delivery) and delivery["created_ms"] < self._begun_ms.get(delivery["id"], 0)


class DisabledUrls:
    """Tell until when a tenant's URL is left alone."""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self._until: dict[bytes, int] = {}
        self.resends = ManualResends()
        self._follower = TopicFollower(
            settings, name=f"{name}-disabled", topics=[settings.topic(topics.DISABLED)], handle=self.apply
        )

    async def open(self) -> None:
        """Read all marks, then follow them."""
        await self._follower.open()
        await self._follower.wait_caught_up()

    async def close(self) -> None:
        """Stop following."""
        await self._follower.close()

    def __len__(self) -> int:
        """Count the URLs that are left alone now; marks that are over stay until the topic forgets them."""
        now_ms = epoch_ms()
        return sum(until_ms > now_ms for until_ms in self._until.values())

    def until_ms(self, owner: str | None, url: str) -> int | None:
        """Return when the mark ends; None when there is none."""
        return self._until.get(url_key(owner, url)) if self._until else None

    def apply(self, _: TopicPartition, records: Records) -> None:
        """Take in marks and their ends."""
        for record in records:
            key = record.key or b""
            try:
                mark = None if record.value is None else DELIVERY.decode(record.value)
            except (FramingError, SchemaError):
                continue  # nobody but us writes here; a stray record must not stop every sender
            if mark is not None and is_mark(mark):
                self.resends.apply(mark)
            elif mark is None or mark["due_ms"] is None:
                self._until.pop(key, None)
            else:
                self._until[key] = mark["due_ms"]
