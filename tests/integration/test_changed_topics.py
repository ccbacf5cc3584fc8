"""Declared topics that are extended, deleted or re-created under running roles, and what operators are told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from click.testing import CliRunner, Result

from core.kafka.admin import add_partitions, admin, apply_topics, partition_counts
from headrace.main import main
from schemas import topics
from tests.support import receiver as receivers
from tests.support.batch_client import BatchClient
from tests.support.receiver import Receiver
from tests.support.record_batches import batch, produce, record
from tests.support.site import Site, keys_file, running_site
from tests.support.waiting import eventually_async, until

KEYS = keys_file("batches", admins=["admins"])
SECOND = ("online-2", "offline-2")
EXTENDED = (
    "tasks.online",
    "events.offline",
    "status.offline",
    "batches",
    "results.offline",
    "queues",
    "webhooks.retry.0",
)
"""Of both inputs of a scheduler, and of its tables, one was extended and the other was not."""


receiver = receivers.receiver


@pytest.fixture(scope="module")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(
        kafka,
        tmp_path_factory.mktemp("changed"),
        keys=KEYS,
        streams__session_timeout_s=12,
        streams__lease_s=8,
        dispatcher__heartbeat_s=0.5,
        ingress__check_models=False,
        webhooks__allow_private=True,
        kafka__partitions=3,
    ) as opened:
        yield opened


@pytest.fixture
def client(site: Site) -> BatchClient:
    return BatchClient(site, "batches", "changed")


async def works(client: BatchClient, receiver: Receiver) -> None:
    """Show that calls, streams, tasks, batches and webhooks pass at both ingresses, and stop no role.

    Whatever is under way while a topic is away may fail: so each is tried until it passes.
    """
    await client.passes()
    await until(lambda: _webhook(client, receiver))


async def _webhook(client: BatchClient, receiver: Receiver) -> bool:
    answer = await client.put(level=1, members={"callback_url": f"{receiver.root}/200"})
    assert answer.status == 200, answer.body
    await eventually_async(lambda: receiver.got[answer.task_id], what="the webhook")

    async def shown() -> Any:
        async with client.call("GET", f"/v1/tasks/{answer.task_id}/deliveries", at=1) as found:
            return (await found.json()).get("data")

    return bool(await until(shown))


async def run(site: Site, *arguments: str) -> Result:
    env = {**site.env, "HEADRACE_URL": site.urls[0], "HEADRACE_API_KEY": "sk-admins"}
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=env)


async def findings(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((await run(site, "doctor", "--json")).stdout)["data"]
    return found


async def warned(site: Site) -> list[str]:
    async with site.http.get(f"{site.urls[0]}/readyz") as answer:
        found: list[str] = (await answer.json())["warnings"]
        return found


async def delete(site: Site, *names: str) -> list[str]:
    """Delete topics, and return their whole names once the broker does not know them."""
    whole = [site.settings.topic(name) for name in names]
    async with admin(site.settings) as client:
        await client.delete_topics(whole)
        await until(lambda: partition_counts(client, whole), lambda there: not there)
    return whole


def pids(site: Site) -> Mapping[str, int]:
    return {name: role.pid for name, role in site.roles.items()}


@pytest.mark.parametrize(
    "name",
    [
        "chunks",
        "results.online",
        "results.offline",
        "events.online",
        "events.offline",
        "tasks.offline",
        "status.online",
        "batches",
        "controls",
        "queues",
        "files",
        "deliveries",
        "webhooks.retry.0",
        "webhooks.disabled",
        "usage",
    ],
)
async def test_a_topic_that_was_deleted_is_followed_again_once_it_is_applied(
    site: Site, client: BatchClient, receiver: Receiver, name: str
) -> None:
    await works(client, receiver)
    before = pids(site)
    [topic] = await delete(site, name)
    shown = await run(site, "topics", "diff", "--json")
    assert shown.exit_code == 1
    assert [(one["topic"], one["was"]) for one in json.loads(shown.stdout)] == [(topic, "missing")]
    assert [one.topic for one in await apply_topics(site.settings)] == [topic]
    await works(client, receiver)
    after = pids(site)
    # A scheduler whose input begins again below what it has read may end itself, to read all of it.
    reader = name.partition(".")[2] if name.startswith(("tasks.", "events.")) else None
    assert {role for role in before if before[role] != after[role]} <= {reader}
    await works(client, receiver)
    assert pids(site) == after


async def test_a_level_whose_tasks_topic_is_missing_does_not_hold_up_the_other(
    site: Site, client: BatchClient, receiver: Receiver
) -> None:
    await delete(site, topics.tasks(0))
    assert (await client.put(mode="blocking")).status == 503, "the write that was under way when the topic was noticed"
    await until(lambda: client.put(level=1), lambda answer: answer.status == 200)
    refused, accepted = asyncio.create_task(client.put(mode="blocking")), 0
    while not refused.done():
        await client.submit(level=1)
        accepted += 1
    assert accepted
    answer = await refused
    assert answer.status == 503
    assert "there is no topic" in answer.json["message"]
    await apply_topics(site.settings)
    await site.ready()
    await works(client, receiver)


async def test_schedulers_start_after_their_tables_were_re_created(
    site: Site, client: BatchClient, receiver: Receiver
) -> None:
    await works(client, receiver)
    await delete(site, "status.online", "status.offline", "batches")
    await apply_topics(site.settings)
    for name in ("online", "offline"):
        site.roles[name].kill()
        site.roles[name].start()
    before = pids(site)
    await site.ready()
    await works(client, receiver)
    assert pids(site) == before, "a scheduler ended at its start"


async def test_a_topic_that_was_re_created_with_fewer_partitions_is_extended(
    site: Site, client: BatchClient, receiver: Receiver
) -> None:
    """As a broker with auto.create.topics.enable does, as soon as any client asks for the topic."""
    [topic] = await delete(site, "results.online")
    async with admin(site.settings) as kafka:
        await kafka.create_topics([NewTopic(topic, 1, 1)])
        await until(lambda: partition_counts(kafka, [topic]))
    [found] = [one for one in await findings(site) if one["code"] == "topic_width"]
    assert (found["weight"], found["subject"]) == ("problem", topic)
    assert found["next_step"] == "run `headrace topics apply`, which adds the missing partitions"
    assert (await run(site, "topics", "apply")).exit_code == 0
    assert (await run(site, "topics", "diff")).exit_code == 0
    await works(client, receiver)


async def test_topics_that_were_extended_change_nothing(site: Site, client: BatchClient, receiver: Receiver) -> None:
    extended = {site.settings.topic(name): 4 for name in EXTENDED}
    async with admin(site.settings) as kafka:
        await add_partitions(kafka, extended)
        await until(lambda: partition_counts(kafka, extended), lambda there: set(there.values()) == {4})
    await works(client, receiver)
    for name in list(site.roles):
        site.roles[name].kill()
        site.roles[name].start()
    await site.ready()
    async with site.more(*SECOND):
        await works(client, receiver)
    tasks = site.settings.topic(topics.tasks(0))
    await produce(site.settings.kafka.bootstrap, TopicPartition(tasks, 3), batch([record(0, value=b"{}")]))
    found = {one["subject"]: one for one in await findings(site) if one["code"] == "topic_width"}
    assert found.keys() == extended.keys()
    assert {name for name, one in found.items() if one["weight"] == "problem"} == {tasks}
    assert "partitions 3 and above are not read; 1 record there" in found[tasks]["what"]
    assert "partitions 0 to 2 only" in found[tasks]["next_step"]
    [warning] = await until(lambda: warned(site))
    assert tasks in warning
    for command, code in (("diff", 1), ("apply", 0)):
        shown = await run(site, "topics", command)
        assert shown.exit_code == code
        assert "records in partitions 3 and above are not read" in shown.stderr
    await delete(site, *EXTENDED)  # Kafka has no other way to remove partitions
    await apply_topics(site.settings)
    await site.ready()
    await works(client, receiver)
    assert (await run(site, "topics", "diff")).exit_code == 0
