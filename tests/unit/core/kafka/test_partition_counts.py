"""Topics with another partition count than declared: what that means, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from core.kafka.partition_counts import created_with, differing, warnings, wrong_setting
from schemas.topics import Topic, declared

PARTITIONS = 6
WANTED: Mapping[str, Topic] = {topic.name: topic for topic in declared(partitions=PARTITIONS)}
AS_DECLARED = {name: topic.partitions for name, topic in WANTED.items()}


def test_topics_as_declared_need_nothing() -> None:
    assert differing(WANTED, AS_DECLARED) == []
    assert wrong_setting(WANTED, AS_DECLARED, partitions=PARTITIONS) is None


def test_a_missing_topic_has_no_count() -> None:
    assert differing(WANTED, {}) == []
    assert created_with(WANTED, {}, partitions=PARTITIONS) == PARTITIONS


def test_one_topic_with_too_few_partitions_is_to_be_extended() -> None:
    [one] = differing(WANTED, AS_DECLARED | {"results.online": 1})
    assert one.short
    assert one.problem == "topic results.online has 1 partitions and needs 6"
    assert one.remedy == "run `headrace topics apply`, which adds the missing partitions"
    assert warnings([one]) == [f"{one.problem}; {one.remedy}"]


def test_a_topic_with_too_many_partitions_works_unless_others_write_to_it() -> None:
    chunks, tasks = differing(WANTED, AS_DECLARED | {"chunks": 9, "tasks.online": 9})[::-1]
    assert chunks.problem == "topic chunks has 9 partitions instead of 6; it works"
    assert (
        tasks.problem
        == "topic tasks.online has 9 partitions instead of 6; records in partitions 6 and above are not read"
    )
    assert "partitions 0 to 5 only" in tasks.remedy
    assert warnings([chunks]) == []
    assert len(warnings([chunks, tasks])) == 1


def test_a_changed_setting_is_told_from_a_changed_topic() -> None:
    follow = [name for name, topic in WANTED.items() if topic.partitions == PARTITIONS]
    others = dict.fromkeys(follow, 3)
    wrong = wrong_setting(WANTED, AS_DECLARED | others, partitions=PARTITIONS)
    assert wrong is not None
    assert wrong.endswith("set kafka.partitions to 3")
    minority = dict.fromkeys(follow[: len(follow) // 2], 3)
    assert wrong_setting(WANTED, AS_DECLARED | minority, partitions=PARTITIONS) is None
