"""Broken record batches in every topic of an installation: whatever reads them continues, and so does a new process."""

from __future__ import annotations

import asyncio
import contextlib
import json

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from click.testing import CliRunner

from headrace.main import main
from schemas.topics import declared
from tests.support.batch_client import BatchClient, requests
from tests.support.record_batches import HOSTILE, batch, produce, record
from tests.support.site import Site

NAMES = batch([record(0, headers=[(b"caf\xe9", b"1")]), record(1, key=b"\xff", value=b"\xff" * 9)])
"""Every broker takes these: a header name and contents that cannot be read."""
BATCHES = {"names": NAMES, **HOSTILE}
LINES = 4


async def _written(site: Site, tp: TopicPartition) -> set[str]:
    """Write each batch to a partition; return the names of those that the broker accepted."""
    accepted = set()
    for name, raw in BATCHES.items():
        with contextlib.suppress(KafkaError, TimeoutError):
            await produce(site.settings.kafka.bootstrap, tp, raw)
            accepted.add(name)
    return accepted


async def _works(client: BatchClient) -> None:
    """Show that calls, streams, tasks and batches pass at both ingresses."""
    for at in (0, 1):
        answer = await client.put(at=at, mode="blocking")
        assert answer.status == 200, answer.body
        assert (await client.ended(answer.task_id, at=1 - at))["status"] == "succeeded"
        assert (await client.put(at=at, mode="streaming")).frames[-1] == b"[DONE]"
        assert (await client.ended(await client.submit(at=at, level=1), at=1 - at))["status"] == "succeeded"
    made = await client.create(await client.upload(requests(LINES)), at=1)
    done = await client.batch_ended(made)
    assert (done["status"], done["request_counts"]["completed"]) == ("completed", LINES)
    out = await client.ask("GET", f"/v1/batches/{made['id']}/output", at=1)
    assert {json.loads(line)["custom_id"] for line in out.splitlines()} == {f"c{n}" for n in range(LINES)}


async def test_every_reader_continues_after_broken_batches(site: Site) -> None:
    client = BatchClient(site, "batches")
    before = await client.put(mode="blocking")
    places = [
        TopicPartition(site.settings.topic(topic.name), partition)
        for topic in declared(partitions=site.settings.kafka.partitions)
        for partition in range(topic.partitions)
    ]
    accepted = dict(zip(places, await asyncio.gather(*(_written(site, tp) for tp in places)), strict=True))
    assert all("names" in names for names in accepted.values()), accepted
    await _works(client)
    for role in ("online", "offline", "dispatcher", "ingress-0", "ingress-1"):
        await site.restart(role)
    await _works(client)
    assert (await client.ended(before.task_id))["status"] == "succeeded"
    env = {**site.env, "HEADRACE_URL": site.urls[0], "HEADRACE_API_KEY": "sk-admins"}
    result = await asyncio.to_thread(CliRunner().invoke, main, ["doctor", "--json"], env=env)
    problems = [one for one in json.loads(result.stdout)["data"] if one["weight"] == "problem"]
    assert problems == []
