"""Topics: create the declared ones, compare them with the broker's, wait for a broker."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)

from core.errors import ConfigError, Unavailable
from core.kafka import codecs
from core.kafka.aiokafka_patches import send_request
from core.kafka.log_reader import LogReader
from core.kafka.offsets import widths_asked, widths_of
from core.kafka.partition_counts import APPLY, differing, wrong_setting
from core.settings.models import Settings
from schemas.topics import Topic, declared

log = logging.getLogger(__name__)

POLL_S = 0.25
LEADER_TRIES = 5
COMPRESSION, READABLE_DEFAULT = "compression.type", "producer"
"""Whatever the broker's own setting is: under `producer` records stay as they were written."""


class Change(NamedTuple):
    """One difference between what is declared and what the broker has."""

    topic: str
    what: str
    was: str
    wanted: str


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an admin client; raises Unavailable when no broker answers."""
    client = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka.bootstrap, request_timeout_ms=int(settings.kafka.request_timeout_s * 1000)
    )
    try:
        async with asyncio.timeout(settings.kafka.request_timeout_s):
            await client.start()
    except (KafkaError, OSError, TimeoutError) as error:
        await client.close()
        raise Unavailable(f"no Kafka broker answers at {settings.kafka.bootstrap}") from error
    try:
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"Kafka at {settings.kafka.bootstrap}: {error or type(error).__name__}") from error
    finally:
        await client.close()


async def wait_for_broker(settings: Settings, *, timeout_s: float = 60) -> None:
    """Return when a broker answers; raises Unavailable after the time."""
    addresses = [address.strip().rpartition(":") for address in settings.kafka.bootstrap.split(",")]
    try:
        async with asyncio.timeout(timeout_s):
            for host, _, port in itertools.cycle(addresses):
                try:
                    # A bare connection first: aiokafka's own attempt costs a second of back-off while nobody listens.
                    _, writer = await asyncio.open_connection(host, int(port))
                    writer.close()
                    async with admin(settings) as client:
                        await client.list_topics()
                        return
                except (OSError, Unavailable):
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Unavailable(f"no Kafka broker answers at {settings.kafka.bootstrap} after {timeout_s:.0f} s") from None


async def wait_for_topics(settings: Settings, *, timeout_s: float = 60) -> None:
    """Return when every declared topic exists with at least its partitions; raises ConfigError otherwise.

    A topic with more partitions is logged and accepted: somebody extended it, and the others are not used.
    """
    wanted = declared_topics(settings)
    lacking = ""
    try:
        async with asyncio.timeout(timeout_s), admin(settings) as client:
            while True:
                there = await partition_counts(client, wanted)
                if wrong := wrong_setting(wanted, there, partitions=settings.kafka.partitions):
                    raise ConfigError(wrong)
                counts = differing(wanted, there)
                missing = [f"topic {name} does not exist; {APPLY}" for name in wanted if name not in there]
                missing += [f"{one.problem}; {one.remedy}" for one in counts if one.short]
                if not missing:
                    break
                lacking = missing[0]
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise ConfigError(lacking or f"Kafka at {settings.kafka.bootstrap} did not list the topics in time") from None
    for one in counts:
        log.warning("%s; %s", one.problem, one.remedy, extra={"event": "topic_extended", "topic": one.topic})


def declared_topics(settings: Settings) -> dict[str, Topic]:
    """Return every topic but the queues' work topics by its name with the prefix."""
    return {settings.topic(topic.name): topic for topic in declared(partitions=settings.kafka.partitions)}


async def partition_counts(client: AIOKafkaAdminClient, names: Iterable[str] | None = None) -> dict[str, int]:
    """Return the number of partitions of those of some topics that exist; without names, of all that the broker has.

    A broker may be shared: whatever knows the names it needs asks for these alone.
    """
    asked = None if names is None else list(names)
    if asked == []:
        return {}
    # Not describe_topics: on a broker with auto.create.topics.enable that creates the topics it asks for.
    return widths_of(await send_request(client, widths_asked(asked)))


async def ensure_topics(settings: Settings, topics: Sequence[Topic]) -> list[str]:
    """Create those that are missing; returns their names. Two that create the same one at once are fine."""
    async with admin(settings) as client:
        there = await partition_counts(client, [settings.topic(topic.name) for topic in topics])
        missing = [topic for topic in topics if settings.topic(topic.name) not in there]
        await _create(client, settings, missing)
    return [settings.topic(topic.name) for topic in missing]


async def _create(client: AIOKafkaAdminClient, settings: Settings, topics: Sequence[Topic]) -> None:
    """Create topics and wait until they can be used."""
    if not topics:
        return
    response = await client.create_topics(
        [
            NewTopic(
                settings.topic(topic.name),
                topic.partitions,
                settings.kafka.replication_factor,
                topic_configs=wanted_configs(settings, topic),
            )
            for topic in topics
        ]
    )
    for name, code, *rest in response.topic_errors:
        if code and code != TopicAlreadyExistsError.errno:
            raise Unavailable(f"topic {name} was not created: {(rest and rest[0]) or for_code(code).__name__}")
    await _await_leaders(settings, topics)


async def _await_leaders(settings: Settings, topics: Sequence[Topic]) -> None:
    """Wait until every partition answers: a broker names the leaders of a new topic before they are ready to serve."""
    if not topics:
        return
    lookup = LogReader(settings, name="headrace-admin")
    tps = [TopicPartition(settings.topic(topic.name), number) for topic in topics for number in range(topic.partitions)]
    try:
        await lookup.open_with_retry([settings.topic(topic.name) for topic in topics])
        for _ in range(LEADER_TRIES - 1):  # a busy machine may need longer for all of them than one look-up may take
            with suppress(Unavailable):
                await lookup.bounds(tps)
                return
        await lookup.bounds(tps)
    finally:
        await lookup.close()


def wanted_configs(settings: Settings, topic: Topic) -> dict[str, str]:
    """Return the broker settings that a topic should have."""
    return topic.configs(
        max_message_bytes=settings.kafka.max_message_bytes, min_insync_replicas=settings.kafka.min_insync_replicas
    )


async def diff_topics(settings: Settings) -> list[Change]:
    """Compare the declared topics with the broker's."""
    async with admin(settings) as client:
        return await _diff(client, settings)


async def _diff(client: AIOKafkaAdminClient, settings: Settings) -> list[Change]:
    """Compare with two requests, however many topics there are."""
    wanted = declared_topics(settings)
    there = await partition_counts(client, wanted)
    configs = await current_configs(client, [name for name in wanted if name in there])
    changes: list[Change] = []
    for name, topic in wanted.items():
        if name not in there:
            changes.append(Change(name, "topic", "missing", f"{topic.partitions} partitions"))
            continue
        if there[name] != topic.partitions:
            changes.append(Change(name, "partitions", str(there[name]), str(topic.partitions)))
        current = configs.get(name, {})
        changes += [
            Change(name, key, current.get(key, "unset"), value)
            for key, value in sorted(wanted_configs(settings, topic).items())
            if current.get(key) != value
        ]
        if (kind := current.get(COMPRESSION, READABLE_DEFAULT)) not in codecs.READABLE:
            changes.append(Change(name, COMPRESSION, kind, READABLE_DEFAULT))
    return changes


async def current_configs(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the settings of topics as the broker has them."""
    if not names:
        return {}
    responses = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for response in responses
        for _, _, _, name, entries in response.resources
    }


async def apply_topics(settings: Settings) -> list[Change]:
    """Create missing topics, add missing partitions and correct settings that differ.

    No partition is added while kafka.partitions differs from what the topics were created with: the home of every task
    would change. Returns the differences, once the broker shows what was changed: it answers before it has applied it.
    """
    wanted = declared_topics(settings)
    async with admin(settings) as client:
        changes = await _diff(client, settings)
        await _create(client, settings, [wanted[change.topic] for change in changes if change.what == "topic"])
        there = await partition_counts(client, wanted)
        short = [one for one in differing(wanted, there) if one.short]
        if wrong_setting(wanted, there, partitions=settings.kafka.partitions):
            short = []
        await add_partitions(client, {one.topic: one.declared for one in short})
        await _await_leaders(settings, [wanted[one.topic] for one in short])
        await _correct_configs(
            client, settings, sorted({change.topic for change in changes if change.what not in ("topic", "partitions")})
        )
        extended = {one.topic for one in short}
        give_up = monotonic() + settings.kafka.request_timeout_s
        while changes and any(
            change.what != "partitions" or change.topic in extended for change in await _diff(client, settings)
        ):
            if monotonic() > give_up:
                raise Unavailable(
                    "the topics were changed, but the broker does not show it yet; run `headrace topics diff`"
                )
            await asyncio.sleep(POLL_S)
    return changes


async def add_partitions(client: AIOKafkaAdminClient, counts: Mapping[str, int]) -> None:
    """Extend existing topics to a number of partitions; raises Unavailable."""
    if not counts:
        return
    response = await client.create_partitions({name: NewPartitions(count) for name, count in counts.items()})
    for name, code, message in response.topic_errors:
        if code:
            raise Unavailable(f"topic {name} was not extended: {message or for_code(code).__name__}")


async def _correct_configs(client: AIOKafkaAdminClient, settings: Settings, names: Sequence[str]) -> None:
    """Set the declared settings of topics."""
    if not names:
        return
    wanted = declared_topics(settings)
    current = await current_configs(client, names)
    resources = [
        ConfigResource(
            ConfigResourceType.TOPIC, name, wanted_configs(settings, wanted[name]) | _readable(current[name])
        )
        for name in names
    ]
    for response in await client.alter_configs(resources):
        _check_altered(response.resources)


def _readable(current: Mapping[str, str]) -> dict[str, str]:
    """Return the compression that a topic is to have: the request replaces all settings of the topic itself."""
    kind = current.get(COMPRESSION, READABLE_DEFAULT)
    return {COMPRESSION: kind if kind in codecs.READABLE else READABLE_DEFAULT}


def _check_altered(resources: Sequence[tuple[int, str | None, int, str]]) -> None:
    for code, message, _, name in resources:
        if code:
            raise Unavailable(f"the settings of topic {name} were not changed: {message or for_code(code).__name__}")
