"""The URLs that have answered 410, and the rounds that were asked for: known to every sender, by a topic read whole."""

from __future__ import annotations

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from dispatcher.webhooks.manual_resends import ManualResends, is_mark
from dispatcher.webhooks.records import url_key
from schemas import topics
from schemas.codec import DELIVERY, SchemaError
from schemas.framing import FramingError


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
