"""`headrace topics` on a real broker: what it creates, what it shows, and how much it asks for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from click.testing import CliRunner, Result

from core.kafka.admin import admin, partition_counts
from core.kafka.cluster import Cluster
from core.kafka.producer import Producer
from core.queues import QueueDirectory
from core.settings.loader import load_settings
from core.settings.models import Settings
from headrace.commands.topics import topics
from schemas.topics import declared
from tests.support.kafka import declared_topics, own_prefix
from tests.support.roles import settings_for
from tests.support.waiting import eventually, until


@pytest.fixture
async def environ(kafka: str, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    settings, environ = on_topics_of_its_own(kafka, tmp_path)
    async with own_prefix(settings):
        yield environ


@pytest.fixture(scope="module")
async def applied(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    """An installation whose topics are there, to be left as it was found."""
    settings, environ = on_topics_of_its_own(kafka, tmp_path_factory.mktemp("topics"))
    async with declared_topics(settings):
        yield environ


def on_topics_of_its_own(kafka: str, folder: Path) -> tuple[Settings, dict[str, str]]:
    return settings_for(kafka, folder, f"topics-{time.time_ns()}.", kafka__request_timeout_s=30)


def run(environ: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(topics, arguments, env=environ)


def test_apply_creates_what_diff_misses_and_can_be_repeated(environ: dict[str, str]) -> None:
    missing = run(environ, "diff", "--json")
    assert missing.exit_code == 1
    prefix = environ["HEADRACE_KAFKA_TOPIC_PREFIX"]
    wanted = {prefix + topic.name for topic in declared(partitions=2)}
    assert {change["topic"] for change in json.loads(missing.stdout)} == wanted
    assert run(environ, "apply").exit_code == 0
    again = run(environ, "apply")
    assert (again.exit_code, again.stdout) == (0, "All topics are as declared.\n")
    same = run(environ, "diff")
    assert (same.exit_code, same.stdout) == (0, "No differences.\n")


async def change_by_hand(bootstrap: str, topic: str, settings: dict[str, str]) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])
    finally:
        await client.close()


def test_a_setting_changed_by_hand_is_shown_and_corrected(applied: dict[str, str]) -> None:
    name = applied["HEADRACE_KAFKA_TOPIC_PREFIX"] + "chunks"
    asyncio.run(change_by_hand(applied["HEADRACE_KAFKA_BOOTSTRAP"], name, {"retention.ms": "1234567"}))
    eventually(lambda: run(applied, "diff").exit_code == 1, what="the difference")
    changes = {change["what"]: change for change in json.loads(run(applied, "diff", "--json").stdout)}
    assert changes["retention.ms"] == {"topic": name, "what": "retention.ms", "was": "1234567", "wanted": "3600000"}
    assert run(applied, "apply").exit_code == 0
    assert run(applied, "diff").exit_code == 0


def test_a_codec_that_is_not_read_is_shown_and_corrected(
    applied: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = applied["HEADRACE_KAFKA_TOPIC_PREFIX"] + "tasks.online"
    asyncio.run(change_by_hand(applied["HEADRACE_KAFKA_BOOTSTRAP"], name, {"compression.type": "zstd"}))
    # The change by hand has replaced all settings of the topic, once the broker shows it.
    eventually(lambda: run(applied, "diff").exit_code == 1, what="the difference")
    assert run(applied, "apply").exit_code == 0
    assert run(applied, "diff").stdout == "No differences.\n", "what can be read is nobody's business"
    monkeypatch.setattr("core.kafka.codecs.READABLE", frozenset({"producer", "gzip"}))
    seen = json.loads(run(applied, "diff", "--json").stdout)
    assert seen == [{"topic": name, "what": "compression.type", "was": "zstd", "wanted": "producer"}]
    unreadable = asyncio.run(Cluster(load_settings(environ=applied), name="test").unreadable([name]))
    assert unreadable == {name: "zstd"}
    assert run(applied, "apply").exit_code == 0
    assert run(applied, "diff").exit_code == 0


def test_another_partition_count_is_shown_and_never_changed(applied: dict[str, str]) -> None:
    more = applied | {"HEADRACE_KAFKA_PARTITIONS": "3"}
    assert run(more, "apply").exit_code == 0
    left = run(more, "diff", "--json")
    assert left.exit_code == 1
    assert {(change["what"], change["was"], change["wanted"]) for change in json.loads(left.stdout)} == {
        ("partitions", "2", "3")
    }


def test_only_topics_of_ours_are_asked_for_and_all_of_them_at_once(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared broker may have thousands of others, and a request per topic makes a start slow on any."""
    sent: list[tuple[str, list[str] | None]] = []
    send = AIOKafkaClient.send

    async def seen(self: AIOKafkaClient, node: int, request: Any, **named: Any) -> Any:
        sent.append((type(request).__name__, getattr(request, "_topics", None)))
        return await send(self, node, request, **named)

    monkeypatch.setattr(AIOKafkaClient, "send", seen)
    assert run(environ, "diff").exit_code == 1
    assert [kind for kind, _ in sent] == ["MetadataRequest"] * 2
    assert run(environ, "apply").exit_code == 0
    sent.clear()
    assert run(environ, "diff").exit_code == 0
    # Then the queues, whose work topics are compared too: there are none.
    ends = ["MetadataRequest", "OffsetRequest", "OffsetRequest"]
    assert [kind for kind, _ in sent] == ["MetadataRequest", "DescribeConfigsRequest", *ends]
    prefix = environ["HEADRACE_KAFKA_TOPIC_PREFIX"]
    ours = {prefix + topic.name for topic in declared(partitions=2)}
    asked = [names for kind, names in sent if kind == "MetadataRequest"]
    assert [names and set(names) for names in asked] == [ours, {prefix + "queues"}]


async def registered(settings: Settings, name: str) -> None:
    """Register a queue as its first task does."""
    producer, queues = Producer(settings, name="test"), QueueDirectory(settings, name="test")
    await producer.start()
    await queues.open()
    await queues.register(producer, name)
    await queues.close()
    await producer.stop()


async def replaced(settings: Settings, topic: str, partitions: int = 0) -> None:
    """Delete a topic, and make it anew with so many partitions."""
    async with admin(settings) as client:
        await client.delete_topics([topic])
        await until(lambda: partition_counts(client, [topic]), lambda there: topic not in there)
        if partitions:
            await client.create_topics([NewTopic(topic, partitions, 1)])
            await until(lambda: partition_counts(client, [topic]))


def test_a_work_topic_that_is_gone_or_too_narrow_is_shown_and_mended(environ: dict[str, str]) -> None:
    settings = load_settings(environ=environ)
    assert run(environ, "apply").exit_code == 0
    asyncio.run(registered(settings, "chat"))
    assert run(environ, "diff").exit_code == 0
    gone, narrow = settings.topic("work.chat.online"), settings.topic("work.chat.offline")
    asyncio.run(replaced(settings, gone))
    asyncio.run(replaced(settings, narrow, partitions=1))
    wanted = [
        {"topic": gone, "what": "topic", "was": "missing", "wanted": "2 partitions"},
        {"topic": narrow, "what": "partitions", "was": "1", "wanted": "2"},
    ]
    for command, code in (("diff", 1), ("apply", 0)):
        seen = run(environ, command, "--json")
        assert (seen.exit_code, json.loads(seen.stdout)) == (code, wanted)
    eventually(lambda: run(environ, "diff").exit_code == 0, what="no difference")
