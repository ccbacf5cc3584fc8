from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings.models import KafkaSettings
from schemas import topics
from schemas.codec import registry
from schemas.topics import declared, work_topic
from schemas.validation import QUEUE_NAME

LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")
ALL = [*declared(partitions=48), work_topic("default", 0, partitions=4)]
every_topic = pytest.mark.parametrize("topic", ALL, ids=[topic.name for topic in ALL])


@every_topic
def test_names_are_legal_for_kafka(topic: topics.Topic) -> None:
    assert LEGAL.fullmatch(KafkaSettings().topic_prefix + topic.name)


@given(queue=st.from_regex(QUEUE_NAME, fullmatch=True), level=st.integers(0, 1))
def test_work_topics_are_legal_for_every_legal_queue(queue: str, level: int) -> None:
    assert LEGAL.fullmatch(KafkaSettings().topic_prefix + topics.work(queue, level))


@given(one=st.from_regex(QUEUE_NAME, fullmatch=True), other=st.from_regex(QUEUE_NAME, fullmatch=True))
def test_two_queues_never_share_a_work_topic(one: str, other: str) -> None:
    assert (topics.work(one, 0) == topics.work(other, 0)) == (one == other)
    assert topics.work(one, 0) != topics.work(other, 1)


def test_no_name_is_declared_twice() -> None:
    names = [topic.name for topic in ALL]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("partitions", [1, 6, 48])
def test_topics_that_share_a_tasks_home_have_equal_partitions(partitions: int) -> None:
    counts = {topic.name: topic.partitions for topic in declared(partitions=partitions)}
    lanes = [name(level) for name in (topics.tasks, topics.events, topics.status, topics.results) for level in (0, 1)]
    assert {counts[name] for name in [*lanes, topics.CHUNKS]} == {partitions}


@every_topic
def test_the_schema_is_registered(topic: topics.Topic) -> None:
    assert topic.schema is None or topic.schema in {entry["name"] for entry in registry().values()}


@every_topic
def test_broker_settings_are_texts_that_fit_the_cleanup(topic: topics.Topic) -> None:
    configs = topic.configs(max_message_bytes=1_048_576, min_insync_replicas=2)
    assert all(isinstance(value, str) for value in configs.values())
    assert configs["min.insync.replicas"] == "2"
    assert set(configs["cleanup.policy"].split(",")) == {
        *(["compact"] if topic.compact else []),
        *(["delete"] if topic.retention_ms is not None else []),
    }
    assert ("retention.ms" in configs) == (topic.retention_ms is not None)
    if topic.retention_ms is not None:
        assert int(configs["segment.ms"]) <= topic.retention_ms


def test_rows_are_never_deleted_by_age() -> None:
    kept = {topic.name for topic in ALL if topic.compact and topic.retention_ms is None}
    assert kept == {topics.status(0), topics.status(1), topics.QUEUES, topics.BATCHES, topics.FILES}


def test_deliveries_are_known_for_longer_than_they_can_be_sent_again() -> None:
    kept = {topic.name: topic.retention_ms or 0 for topic in ALL}
    assert kept[topics.DELIVERIES] > kept[topics.results(0)]
    assert min(kept[topics.retry(delay_s)] for delay_s in topics.RETRY_DELAYS_S) > 1000 * max(topics.RETRY_DELAYS_S)


@every_topic
def test_every_topic_names_its_writers_and_readers(topic: topics.Topic) -> None:
    assert topic.written_by
    assert topic.read_by
    assert topic.key
