"""What tests of webhooks observe of deliveries, and the operators' command line."""

from __future__ import annotations

import asyncio

from aiokafka import TopicPartition
from click.testing import CliRunner

from core.kafka.topic_follower import Records, TopicFollower
from core.settings.models import Settings
from dispatcher.webhooks import retry_topics
from dispatcher.webhooks.service import GROUP
from headrace.main import main
from schemas import topics
from schemas.codec import DELIVERY
from schemas.records import Delivery
from tests.support.dispatcher_probe import DispatcherProbe

RESULTS = [topics.results(0), topics.results(1)]
RETRIES = [topics.retry(delay_s) for delay_s in topics.RETRY_DELAYS_S]


class DeliveryRows:
    """The newest row of each delivery, by the id of its task and the name of its event."""

    def __init__(self, settings: Settings) -> None:
        self.of: dict[str, Delivery] = {}
        self.tail = TopicFollower(settings, name="rows", topics=[settings.topic(topics.DELIVERIES)], handle=self._take)

    def state(self, task_id: str, event: str = "completed") -> str | None:
        """Return the state of a delivery; None before its first attempt."""
        row = self.of.get(f"{task_id}/{event}")
        return row and row["state"]

    def _take(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            self.of[(record.key or b"").decode()] = DELIVERY.decode(record.value or b"")


async def webhooks_command(env: dict[str, str], *arguments: str) -> str:
    """Run `headrace webhooks`; in a thread, because it has an event loop of its own."""
    run = await asyncio.to_thread(CliRunner().invoke, main, ["webhooks", *arguments], env=env)
    assert run.exit_code == 0, run.output
    return run.output


async def settled(probe: DispatcherProbe) -> None:
    """Wait until the dispatcher has committed all results and retries."""
    await probe.committed(GROUP, *RESULTS)
    await probe.committed(retry_topics.GROUP, *RETRIES)
