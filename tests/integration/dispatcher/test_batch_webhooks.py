"""The end of a batch on a real broker: told once, signed, tried again, seen and sent again."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from dispatcher.webhooks.service import BATCH_GROUP
from schemas import ids, topics
from schemas.batches import Batch
from schemas.codec import BATCH
from schemas.ids import TaskId
from tests.support.dispatcher_probe import DispatcherProbe, dispatching
from tests.support.memory_batches import row_of
from tests.support.receiver import Receiver
from tests.support.waiting import eventually_async
from tests.support.webhook_probe import webhooks_command

_serials = itertools.count()


@pytest.fixture(scope="module")
def changes() -> dict[str, object]:
    """Try again soon."""
    return {
        "dispatcher__component": "webhooks",
        "dispatcher__shutdown_grace_s": 1,
        "dispatcher__commit_interval_s": 0.2,
        "webhooks__retry_delays": [0.05, 0.05],
    }


class Ends:
    """Writes rows of batches."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self._topic = settings.topic(topics.BATCHES)
        self._producer = producer

    async def write(self, batch_id: str, **changes: Any) -> None:
        """Write a row as the scheduler does."""
        row: Batch = {**row_of(batch_id), **changes}  # type: ignore[typeddict-item]
        record = Record(batch_id.encode(), BATCH.encode(row))
        await self._producer.send(self._topic, ids.parse_batch(batch_id).partition, record)

    async def ended(self, url: str, state: str) -> str:
        """Let a batch run and end; its last row comes twice, as after a crash."""
        number = next(_serials)
        batch_id = TaskId(7, 1, "P", int(time.time()), number % 2, number).batch()
        await self.write(batch_id, state="in_progress", callback_url=url)
        for _ in range(2):
            await self.write(batch_id, state=state, callback_url=url, **{f"{state}_ms": time.time_ns() // 1_000_000})
        return batch_id


async def test_ends_are_notified_once_and_retried(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver, env: dict[str, str]
) -> None:
    ends = Ends(settings, probe.producer)
    async with dispatching(settings):
        paths = {"completed": "200", "failed": "500-then-200", "expired": "200", "cancelled": "200"}
        told = {state: await ends.ended(f"{receiver.root}/{path}", state) for state, path in paths.items()}
        given_up = await ends.ended(f"{receiver.root}/400", "completed")
        await ends.write(TaskId(7, 1, "P", int(time.time()), 0, 999).batch(), state="completed")
        await eventually_async(
            lambda: [len(receiver.got[one]) for one in told.values()] == [1, 2, 1, 1],
            what="the events",
        )
        await eventually_async(lambda: probe.dead_letters, what="the dead letter")
        await probe.committed(BATCH_GROUP, topics.BATCHES)
    async with dispatching(settings):  # what is told stays told over a restart
        last = await ends.ended(f"{receiver.root}/200", "completed")
        await eventually_async(lambda: receiver.got[last], what="the next event")
        await probe.committed(BATCH_GROUP, topics.BATCHES)
        await webhooks_command(env, "resend", told["completed"])
        await eventually_async(lambda: len(receiver.got[told["completed"]]) == 2, what="the event once more")
    assert [len(receiver.got[one]) for one in told.values()] == [2, 2, 1, 1]
    for state, batch_id in told.items():
        [event, *_] = receiver.got[batch_id]
        assert (event["object"], event["type"], event["data"]) == ("event", f"batch.{state}", {"id": batch_id})
        headers = receiver.calls[batch_id][0].headers
        assert headers["webhook-id"] == f"{batch_id}-batch.{state}"
        assert headers["x-headrace-event"] == f"batch.{state}"
    assert [call.headers["webhook-id"] for call in receiver.calls[told["failed"]]] == [
        f"{told['failed']}-batch.failed"
    ] * 2
    assert {key: len(letters) for key, letters in probe.dead_letters.items()} == {given_up: 1}
