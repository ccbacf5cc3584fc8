"""Broken record batches in every topic of an installation: whatever reads them continues, and so does a new process."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from click.testing import CliRunner

from headrace.main import main
from schemas.topics import declared
from tests.support.batch_client import BatchClient
from tests.support.receiver import Receiver
from tests.support.record_batches import HOSTILE, batch, produce, record
from tests.support.site import Site
from tests.support.waiting import eventually_async, until

NAMES = batch([record(0, headers=[(b"caf\xe9", b"1")]), record(1, key=b"\xff", value=b"\xff" * 9)])
"""Every broker takes these: a header name and contents that cannot be read."""
BATCHES = {"names": NAMES, **HOSTILE}
QUEUE = "broken"
CALLS = 6
"""Tasks of the queue in each round of `passes`."""


async def _written(site: Site, tp: TopicPartition) -> set[str]:
    """Write each batch to a partition; return the names of those that the broker accepted."""
    accepted = set()
    for name, raw in BATCHES.items():
        with contextlib.suppress(KafkaError, TimeoutError):
            await produce(site.settings.kafka.bootstrap, tp, raw)
            accepted.add(name)
    return accepted


async def _run(site: Site, *arguments: str) -> Any:
    """Run a command of operators that prints JSON, and return what it printed."""
    env = {**site.env, "HEADRACE_URL": site.urls[0], "HEADRACE_API_KEY": "sk-admins"}
    result = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--json"], env=env)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def _replays(site: Site, count: int) -> None:
    """Show that a replay reads what lies around the broken batches, and that its tasks run."""
    dry = await _run(site, "replay", "run", "--queue", QUEUE, "--dry-run")
    assert dry["tasks"] == count
    command = ("replay", "run", "--queue", QUEUE, "--queue-to", "broken-again", "--name", "broken", "--yes")
    assert (await _run(site, *command))["written"] == count

    async def equal() -> int:
        return int((await _run(site, "replay", "diff", "broken"))["equal"])

    assert await until(equal, lambda found: found == count) == count


async def test_every_reader_continues_after_broken_batches(site: Site) -> None:
    client = BatchClient(site, "batches", QUEUE)
    before = await client.put(mode="blocking")
    places = [
        TopicPartition(site.settings.topic(topic.name), partition)
        for topic in declared(partitions=site.settings.kafka.partitions)
        for partition in range(topic.partitions)
    ]
    accepted = dict(zip(places, await asyncio.gather(*(_written(site, tp) for tp in places)), strict=True))
    assert all("names" in names for names in accepted.values()), accepted
    await client.passes()
    for role in ("online", "offline", "dispatcher", "ingress-0", "ingress-1"):
        await site.restart(role)
    await client.passes()
    assert (await client.ended(before.task_id))["status"] == "succeeded"
    async with Receiver() as receiver:
        told = await client.submit(level=1, members={"callback_url": f"{receiver.root}/200"})
        await eventually_async(lambda: receiver.got[told], what="the webhook")
    assert [one for one in (await _run(site, "doctor"))["data"] if one["weight"] == "problem"] == []
    await _replays(site, 2 * CALLS + 2)
